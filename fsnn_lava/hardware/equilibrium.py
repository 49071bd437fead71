"""Equilibrium rates of a `HardwareNetwork`, float or integer, independent of its delays and thresholds (Theorem 3).

    a^p = clamp((sum over connections of W a^source + constant current) / r^p),  clamp to [0, 1]

For an integer network the graded input's current is rounded down exactly as in a run, so that what remains between a
run's rates and these is the finite number of steps alone (for LIF: and the rounding of the leak).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fsnn_lava.errors import InputError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.linear_maps import LinearMap, linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, Population
from fsnn_lava.hardware.run_io import check_inputs, rate_weights

FloatType = type[np.float32] | type[np.float64]
_Loop = dict[str, list[tuple[str, LinearMap]]]
"""The map that rates are iterated through: population -> its sources and their weights over the reset amount."""

PATIENCE = 100
"""Iterations without a smaller change of its rates after which a sample is given up: it does not settle."""
CHUNK_NUMBERS = 2**22
"""Rates that are iterated at a time, so that memory does not grow with the number of samples."""


@dataclass(frozen=True, eq=False)
class EquilibriumRates:
    """Rates at which a network settles.

    Parameters
    ----------
    firing_rates : population -> (B, *N), spikes per step.
    residual : largest change of a rate in its sample's last iteration.
    steps : iterations, of the sample that took the most.
    settled : (B,) whether a sample's residual reached the tolerance.
    """

    firing_rates: dict[str, Array]
    residual: float
    steps: int
    settled: Array

    @property
    def converged(self) -> bool:
        """Whether all samples have settled."""
        return bool(self.settled.all())

    @property
    def unsettled(self) -> int:
        """How many samples have not."""
        return int((~self.settled).sum())


def equilibrium_rates(
    network: HardwareNetwork,
    inputs: Array,
    *,
    tolerance: float = 1e-9,
    max_steps: int = 1000,
    start: Mapping[str, Array] | None = None,
    dtype: FloatType = np.float64,
) -> EquilibriumRates:
    """Find the fixed point of the network's rates for each input, by iteration around the loop.

    Parameters
    ----------
    inputs : (B, *shape) graded codes, or (T, B, *shape) event frames, which are averaged with the rate's weights.
    tolerance : largest change of any rate, spikes per step, at which a sample is done.
    start : population -> (B, *N) rates from which to iterate, those of a similar network; default: no spikes.
    dtype : of the rates and products. float32 takes half the time and reaches a tolerance of about 1e-5; graded input
        is added up in float64 in either case, exactly if its weights are integers.

    Raises
    ------
    InputError : if the inputs, or the rates to start from, do not fit the network.
    """
    batch = check_inputs(network, inputs)
    rates = _started(network, start, batch, dtype)
    neurons = sum(p.size for p in network.populations) + network.input.size
    size = max(1, CHUNK_NUMBERS // neurons)
    loop = _loop(network, dtype)
    last, steps = np.full(batch, np.inf), 0
    for first in range(0, batch, size):
        part = slice(first, first + size)
        chunk = {name: r[part] for name, r in rates.items()}
        constant = _constant_currents(network, network.input.take(inputs, part), dtype)
        last[part], taken = _settle(loop, chunk, constant, tolerance=tolerance, max_steps=max_steps)
        steps = max(steps, taken)
    shaped = {p.name: rates[p.name].reshape(batch, *p.shape) for p in network.populations}
    return EquilibriumRates(shaped, float(last.max()), steps, last <= tolerance)


def real_weight(connection: Connection) -> Array:
    """The connection's weights, float64, in the unit of the target's potential (weight units if integer)."""
    return np.asarray(np.ldexp(connection.weight.astype(np.float64), connection.weight_exponent))


def summed_weight(connections: Sequence[Connection]) -> Array:
    """Weights of parallel connections, added up: what they do together. In the unit of `real_weight`."""
    return np.asarray(np.sum([real_weight(c) for c in connections], axis=0))


def constant_current(network: HardwareNetwork, population: Population, inputs: Array) -> Array:
    """(B, N) float64 current of the input and of the always-on source, in the unit of the potential.

    Graded input of an integer network: what arrives in every step, rounded down as in a run. Event frames: their mean.
    """
    current = np.zeros((network.input.samples(inputs), population.size))
    for c in network.incoming(population.name):
        if c.source == ALWAYS_ON:
            current += real_weight(c)[:, 0]
        elif c.source == INPUT:
            current += _input_current(network, c, mean_input(network, inputs, population.neuron.leak))
    return current


def mean_input(network: HardwareNetwork, inputs: Array, leak: float) -> Array:
    """(B, M) float64 mean of each element over the window, weighted as firing rates of that leak are."""
    if network.input.kind == "graded":
        return inputs.reshape(len(inputs), -1).astype(np.float64)
    frames = inputs.reshape(*inputs.shape[:2], -1)
    mean = np.zeros(frames.shape[1:])
    for share, frame in zip(rate_weights(network.time_steps, leak), frames, strict=True):
        mean += share * frame
    return mean


def _input_current(network: HardwareNetwork, connection: Connection, mean: Array) -> Array:
    """Current per step; graded input to integers is rounded down to whole half weight units."""
    total = linear_map(network, connection).product(mean)
    if network.arithmetic == "integer" and network.input.kind == "graded":
        return np.asarray(np.floor(np.ldexp(total, connection.weight_exponent + 1)) / 2)
    return np.asarray(np.ldexp(total, connection.weight_exponent))


def _constant_currents(network: HardwareNetwork, inputs: Array, dtype: FloatType) -> dict[str, Array]:
    """Population -> (B, N) constant current over the reset amount."""
    return {
        p.name: (constant_current(network, p, inputs) / p.neuron.reset_amount).astype(dtype)
        for p in network.populations
    }


def _started(
    network: HardwareNetwork, start: Mapping[str, Array] | None, batch: int, dtype: FloatType
) -> dict[str, Array]:
    if start is None:
        return {p.name: np.zeros((batch, p.size), dtype) for p in network.populations}
    for p in network.populations:
        found = start[p.name].shape if p.name in start else "none"
        if found != (batch, *p.shape):
            raise InputError(
                f'network "{network.name}": rates of population "{p.name}" to start from have shape {found}; '
                f"expected {(batch, *p.shape)}"
            )
    return {p.name: np.array(start[p.name].reshape(batch, p.size), dtype) for p in network.populations}


def _loop(network: HardwareNetwork, dtype: FloatType) -> _Loop:
    loop: _Loop = {p.name: [] for p in network.populations}
    for c in network.connections:
        if c.source not in (INPUT, ALWAYS_ON):
            weight = real_weight(c) / network.population(c.target).neuron.reset_amount
            loop[c.target].append((c.source, linear_map(network, c).with_weight(weight.astype(dtype))))
    return loop


def _settle(
    loop: _Loop, rates: Mapping[str, Array], constant: Mapping[str, Array], *, tolerance: float, max_steps: int
) -> tuple[Array, int]:
    """Iterate the rates (B, N) in place; return the samples' last changes (B,) and the number of iterations.

    A sample whose rates changed by no more than the tolerance is done and takes no further part, nor does one whose
    smallest change is `PATIENCE` iterations old.
    """
    batch = len(next(iter(rates.values())))
    last, least, age = np.full(batch, np.inf), np.full(batch, np.inf), np.zeros(batch, np.int64)
    steps = 0
    while steps < max_steps and (going := np.flatnonzero((last > tolerance) & (age < PATIENCE))).size:
        steps += 1
        now = {name: r[going] for name, r in rates.items()}
        change = np.zeros(len(going))
        for name, incoming in loop.items():
            new = constant[name][going]
            for source, weights in incoming:
                new += weights.product(now[source])
            np.clip(new, 0.0, 1.0, out=new)
            change = np.maximum(change, np.abs(new - now[name]).max(axis=1))
            now[name] = new
        for name, r in rates.items():
            r[going] = now[name]
        last[going] = change
        age[going] = np.where(change < least[going], 0, age[going] + 1)
        least[going] = np.minimum(least[going], change)
    return last, steps
