"""One time step of a spiking neuron, as pure functions.

The potential is kept *before* the reset: v[t] is compared with the threshold, and the reset of a spike at t
enters v[t + 1]. IF is LIF with leak 1.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsnn_lava.config import NEURONS, NetworkConfig
from fsnn_lava.errors import ConfigError, UnsupportedError
from fsnn_lava.hardware import Array, FloatNeuron, reasons_against_equilibrium
from fsnn_lava.kernels.clamped_rate import clamped_rates, clamped_rates_gradient, rate_slopes
from fsnn_lava.network.event_maps import in_threads


@dataclass(frozen=True, eq=False)
class SpikeCounts:
    """What T steps gave; tuples have one entry per population.

    Parameters
    ----------
    weighted : (B, *N) sum of leak**(T-1-t) s[t], the numerator of the firing rate.
    plain : (B, *N) number of spikes.
    spikes : (T, B, *N) uint8, or None if they were not recorded.
    returned : (B, *N) of each feedback: weighted count of its source `loop_delay` steps before the end, of what came
        back.
    """

    weighted: tuple[Tensor, ...]
    plain: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...] | None
    returned: tuple[Tensor, ...]


def lif(config: NetworkConfig) -> FloatNeuron:
    """Return the neuron whose constants are those of the settings."""
    return FloatNeuron(config.v_threshold, config.reset_amount, config.leak, config.reset)


def neurons_of(config: NetworkConfig, names: Sequence[str]) -> tuple[FloatNeuron, ...]:
    """Return the neuron of each population that the settings name, those with constants of their own included.

    Raises
    ------
    ConfigError : if what is registered under the name makes no neuron of this law from them.
    """
    own = {p.name: p for p in config.populations}
    found = []
    for name in names:
        constants = ("v_threshold", "reset_amount", "leak", "reset")
        given = {what: getattr(own[name], what) for what in constants if name in own and getattr(own[name], what)}
        found.append(_neuron_of(dataclasses.replace(config, **given)))
    return tuple(found)


def _neuron_of(config: NetworkConfig) -> FloatNeuron:
    neuron = NEURONS.get(config.neuron)(config)
    if not isinstance(neuron, FloatNeuron):
        raise ConfigError(f'neuron "{config.neuron}" made {neuron!r}; expected a fsnn_lava.hardware.FloatNeuron')
    sizes = (neuron.v_threshold, neuron.reset_amount, neuron.leak)
    if not (all(0 < size < math.inf for size in sizes) and neuron.leak <= 1):
        raise ConfigError(f'neuron "{config.neuron}" made {neuron}; allowed: finite numbers > 0, leak at most 1')
    if neuron.reset != config.reset:
        raise ConfigError(
            f'neuron "{config.neuron}" made {neuron}; allowed: reset "{config.reset}", that of network.reset, by which '
            "it is known who can train it"
        )
    if neuron.has_memory_of_current:
        raise ConfigError(
            f'neuron "{config.neuron}" made {neuron}; allowed: current_leak 0, since no method trains currents that '
            "decay; a network of such neurons can be read from NIR and deployed"
        )
    return neuron


def integrate(v: Tensor, spikes: Tensor, current: Tensor, *, neuron: FloatNeuron) -> Tensor:
    """Potential before the threshold test, v[t] = leak (v[t-1] - r s[t-1]) + I[t] (Eq. 2 and 10).

    With reset to zero r is v[t-1], through which gradients flow as well.

    Parameters
    ----------
    v, spikes : (B, *N) potential and 0/1 spikes of the step before.
    current : (B, *N) input current of this step; it is not leaked.
    """
    if neuron.reset == "zero":
        return torch.add(current, v - v * spikes, alpha=neuron.leak)
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


def rate_of_current(current: Tensor, *, neuron: FloatNeuron) -> Tensor:
    """Firing rate clamp(I / r, 0, 1), spikes per step, at a mean current (B, *N); differentiable once.

    Raises
    ------
    UnsupportedError : for a neuron without an equilibrium.
    """
    _require_equilibrium(neuron)
    if current.device.type != "cpu":
        return (current / neuron.reset_amount).clamp(0, 1)
    rate: Tensor = _ClampedRate.apply(current, neuron.reset_amount)  # type: ignore[no-untyped-call]
    return rate


@torch.no_grad()
def slope_of_rate(rate: Tensor, *, neuron: FloatNeuron) -> Tensor:
    """By how much the rate (B, *N) rises with the current: 1 / r strictly between 0 and 1, 0 elsewhere.

    Raises
    ------
    UnsupportedError : for a neuron without an equilibrium.
    """
    _require_equilibrium(neuron)
    if rate.device.type != "cpu":
        return ((rate > 0) & (rate < 1)).to(rate.dtype) / neuron.reset_amount
    return _in_one_pass(rate_slopes, neuron.reset_amount, rate)


def _require_equilibrium(neuron: FloatNeuron) -> None:
    reasons = reasons_against_equilibrium(neuron)
    if reasons:
        raise UnsupportedError(
            f"{neuron} has no equilibrium rate clamp(I / r): found {' and '.join(reasons)}; allowed: reset by "
            "subtraction of currents without memory; train it by bptt"
        )


class _ClampedRate(torch.autograd.Function):
    """`rate_of_current` on a CPU."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, reset: float) -> Tensor:
        ctx.save_for_backward(current)
        ctx.reset = reset
        return _in_one_pass(clamped_rates, reset, current)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (current,) = ctx.saved_tensors
        return _in_one_pass(clamped_rates_gradient, ctx.reset, current, gradient), None


def _in_one_pass(kernel: Callable[..., None], reset: float, x: Tensor, *first: Tensor) -> Tensor:
    """What a kernel writes for each number of x, in the order of memory; the first ones are read along with it."""
    x = x.detach()
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    x = x if dense else x.contiguous()
    into = torch.empty_like(x)
    read = [other if other.stride() == x.stride() else torch.empty_like(x).copy_(other) for other in first]
    arrays = [_flat(tensor) for tensor in (*read, x)]
    out, number = _flat(into), arrays[-1].dtype.type(reset)

    def part(begin: int, end: int) -> None:
        kernel(*(array[begin:end] for array in arrays), number, out[begin:end])

    in_threads(part, len(out), most=len(out))
    return into


def _flat(x: Tensor) -> Array:
    """(n,) view of a tensor without gaps, in the order of memory."""
    flat: Array = torch.as_strided(x, (x.numel(),), (1,)).numpy()
    return flat


def leak_weights(time_steps: int, leak: float) -> float:
    """S(T) = 1 + leak + .. + leak**(T-1): by how much T spikes in a row count."""
    return float(time_steps) if leak == 1.0 else (1.0 - leak**time_steps) / (1.0 - leak)


def firing_rates(counts: SpikeCounts, neurons: Sequence[FloatNeuron], *, time_steps: int) -> tuple[Tensor, ...]:
    """Firing rates (B, *N) of all populations, exactly 1 where a neuron fired in every step.

    With a leak both sides of that quotient are rounded, each in its own way, and would make it 1 - 2e-7 or 1 + 2e-7:
    whether a neuron is saturated, which the gradient asks, must not depend on that.
    """
    rates = []
    for weighted, plain, neuron in zip(counts.weighted, counts.plain, neurons, strict=True):
        rate = rate_from_count(weighted, time_steps=time_steps, leak=neuron.leak)
        rates.append(rate if neuron.leak == 1.0 else rate.masked_fill(plain == time_steps, 1))
    return tuple(rates)
