"""One time step of a spiking neuron with reset by subtraction, as pure functions.

The potential is kept *before* the reset: v[t] is compared with the threshold, and the reset of a spike at t
enters v[t + 1]. IF is LIF with leak 1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fsnn_lava.config import NEURONS, NetworkConfig
from fsnn_lava.errors import ConfigError
from fsnn_lava.hardware import FloatNeuron


@dataclass(frozen=True, eq=False)
class SpikeCounts:
    """What T steps gave; tuples have one entry per population.

    Parameters
    ----------
    weighted : (B, *N) sum of leak**(T-1-t) s[t], the numerator of the firing rate.
    plain : (B, *N) number of spikes.
    spikes : (T, B, *N) uint8, or None if they were not recorded.
    returned : (B, *N) weighted count of the last population `loop_delay` steps before the end: of what came back.
    """

    weighted: tuple[Tensor, ...]
    plain: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...] | None
    returned: Tensor


def lif(config: NetworkConfig) -> FloatNeuron:
    """Return the neuron whose constants are those of the settings."""
    return FloatNeuron(config.v_threshold, config.reset_amount, config.leak)


def neuron_of(config: NetworkConfig) -> FloatNeuron:
    """Return the neuron that the settings name.

    Raises
    ------
    ConfigError : if what is registered under the name makes no neuron of this law from them.
    """
    neuron = NEURONS.get(config.neuron)(config)
    if not isinstance(neuron, FloatNeuron):
        raise ConfigError(f'neuron "{config.neuron}" made {neuron!r}; expected a fsnn_lava.hardware.FloatNeuron')
    sizes = (neuron.v_threshold, neuron.reset_amount, neuron.leak)
    if not (all(0 < size < math.inf for size in sizes) and neuron.leak <= 1):
        raise ConfigError(f'neuron "{config.neuron}" made {neuron}; allowed: finite numbers > 0, leak at most 1')
    return neuron


def integrate(v: Tensor, spikes: Tensor, current: Tensor, *, neuron: FloatNeuron) -> Tensor:
    """Potential before the threshold test, v[t] = leak (v[t-1] - r s[t-1]) + I[t] (Eq. 2 and 10).

    Parameters
    ----------
    v, spikes : (B, *N) potential and 0/1 spikes of the step before.
    current : (B, *N) input current of this step; it is not leaked.
    """
    kept = torch.add(v, spikes, alpha=-neuron.reset_amount)
    return torch.add(current, kept, alpha=neuron.leak)


def fire(v: Tensor, *, neuron: FloatNeuron) -> Tensor:
    """Spikes (B, *N), 1 where v >= v_threshold, else 0, in the type of v."""
    return (v >= neuron.v_threshold).to(v.dtype)


def rate_from_count(weighted_count: Tensor, *, time_steps: int, leak: float) -> Tensor:
    """Firing rate a = sum_t leak**(T-1-t) s[t] / sum_t leak**(T-1-t), spikes per step (Prop. 2).

    Parameters
    ----------
    weighted_count : (B, *N), the numerator, accumulated as count <- leak * count + s[t].
    """
    return weighted_count / leak_weights(time_steps, leak)


def leak_weights(time_steps: int, leak: float) -> float:
    """S(T) = 1 + leak + .. + leak**(T-1): by how much T spikes in a row count."""
    return float(time_steps) if leak == 1.0 else (1.0 - leak**time_steps) / (1.0 - leak)


def firing_rates(counts: SpikeCounts, *, time_steps: int, leak: float) -> tuple[Tensor, ...]:
    """Firing rates (B, *N) of all populations, exactly 1 where a neuron fired in every step.

    With a leak both sides of that quotient are rounded, each in its own way, and would make it 1 - 2e-7 or 1 + 2e-7:
    whether a neuron is saturated, which the gradient asks, must not depend on that.
    """
    rates = tuple(rate_from_count(count, time_steps=time_steps, leak=leak) for count in counts.weighted)
    if leak == 1.0:
        return rates
    return tuple(rate.masked_fill(count == time_steps, 1) for rate, count in zip(rates, counts.plain, strict=True))
