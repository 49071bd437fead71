"""Equilibrium rates of a `HardwareNetwork`, float or integer, independent of its delays and thresholds (Theorem 3).

    a^p = clamp((sum over connections of W a^source + constant current) / r^p),  clamp to [0, 1]

For an integer network the graded input's current is rounded down exactly as in a run, so that what remains between a
run's rates and these is the finite number of steps alone (for LIF: and the rounding of the leak).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fsnn_lava.inputs import check_inputs
from fsnn_lava.ir import ALWAYS_ON, INPUT, Connection, HardwareNetwork, IntegerNeuron, Population
from fsnn_lava.result import rate_weights

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class EquilibriumRates:
    """Rates at which a network settles.

    Parameters
    ----------
    firing_rates : population -> (B, *N), spikes per step.
    residual : largest change of a rate in the last iteration.
    steps : iterations.
    converged : whether the residual reached the tolerance.
    """

    firing_rates: dict[str, Array]
    residual: float
    steps: int
    converged: bool


def equilibrium_rates(
    network: HardwareNetwork, inputs: Array, *, tolerance: float = 1e-9, max_steps: int = 1000
) -> EquilibriumRates:
    """The fixed point of the network's rates for each input, by iteration around the loop.

    Parameters
    ----------
    inputs : (B, *shape) graded codes, or (T, B, *shape) event frames, which are averaged with the rate's weights.
    tolerance : largest change of any rate, spikes per step, at which to stop.

    Raises
    ------
    InputError : if the inputs do not fit the network.
    """
    check_inputs(network, inputs, record=())
    batch = inputs.shape[0] if network.input.kind == "graded" else inputs.shape[1]
    rates = {p.name: np.zeros((batch, p.size)) for p in network.populations}
    constant = {p.name: _constant_current(network, p, inputs, batch) for p in network.populations}
    weights = {c.name: real_weight(c).T for c in network.connections}
    residual, steps = np.inf, 0
    while residual > tolerance and steps < max_steps:
        residual, steps = 0.0, steps + 1
        for population in network.populations:
            current = constant[population.name]
            for c in network.incoming(population.name):
                if c.source not in (INPUT, ALWAYS_ON):
                    current = current + rates[c.source] @ weights[c.name]
            new = np.clip(current / population.neuron.reset_amount, 0.0, 1.0)
            residual = max(residual, float(np.abs(new - rates[population.name]).max()))
            rates[population.name] = new
    shaped = {p.name: rates[p.name].reshape(batch, *p.shape) for p in network.populations}
    return EquilibriumRates(shaped, residual, steps, residual <= tolerance)


def real_weight(connection: Connection) -> Array:
    """(N_target, N_source) float64 weights in the unit of the target's potential (weight units if integer)."""
    return np.asarray(np.ldexp(connection.weight.astype(np.float64), connection.weight_exponent))


def _constant_current(network: HardwareNetwork, population: Population, inputs: Array, batch: int) -> Array:
    current = np.zeros((batch, population.size))
    for c in network.incoming(population.name):
        if c.source == ALWAYS_ON:
            current += real_weight(c)[:, 0]
        elif c.source == INPUT and network.input.kind == "graded":
            current += _graded_current(c, inputs.reshape(batch, -1), isinstance(population.neuron, IntegerNeuron))
        elif c.source == INPUT:
            share = rate_weights(network.time_steps, population.neuron.leak)
            mean = np.tensordot(share, inputs.reshape(network.time_steps, batch, -1).astype(np.float64), 1)
            current += mean @ real_weight(c).T
    return current


def _graded_current(connection: Connection, codes: Array, integer: bool) -> Array:
    """Current per step; integer networks round twice the sum down to whole half weight units."""
    total = codes.astype(np.float64) @ connection.weight.T.astype(np.float64)
    if not integer:
        return np.asarray(total)
    return np.asarray(np.floor(np.ldexp(total, connection.weight_exponent + 1)) / 2)
