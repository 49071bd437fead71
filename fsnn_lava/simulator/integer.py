"""The integer simulator: spike for spike what Lava's fixed-point run computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from fsnn_lava.bounds import accumulator_violations
from fsnn_lava.errors import StateOverflowError, UnsupportedError
from fsnn_lava.ir import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    STATE_LIMIT,
    STATE_PER_WEIGHT,
    Arithmetic,
    Array,
    Connection,
    HardwareNetwork,
    IntegerNeuron,
    Population,
)
from fsnn_lava.result import RunResult
from fsnn_lava.simulator.engine import (
    DEFAULT_BATCH_SIZE,
    GradedInput,
    Plan,
    PopulationPlan,
    Progress,
    State,
    Synapses,
    simulate,
)
from fsnn_lava.simulator.kernels import integer_step


@final
@dataclass(frozen=True)
class IntegerSimulator:
    """Runs integer networks by the integer law of ``docs/network-format.md``, exactly.

    Sums of spikes are formed by floating-point matrix products, in a type wide enough that every partial sum is
    an integer it holds exactly.
    """

    batch_size: int = DEFAULT_BATCH_SIZE
    name: ClassVar[str] = "simulator"
    arithmetic: ClassVar[Arithmetic] = "integer"

    def run(
        self,
        network: HardwareNetwork,
        inputs: Array,
        *,
        record: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> RunResult:
        """Rates, counts, logits and the recorded populations' spikes for all inputs.

        Parameters
        ----------
        inputs : (B, *shape) codes for graded input, (T, B, *shape) 0/1 for events.
        record : names of the populations whose spikes are kept.
        progress : called after each batch with (samples done, samples in total).

        Raises
        ------
        InputError : if the inputs do not fit the network.
        UnsupportedError : for a float network, or one whose sums could exceed the 32 bits that Lava adds them in.
        StateOverflowError : naming population, sample, step and neuron, if a potential leaves 24 bits.
        """
        return simulate(
            network,
            inputs,
            make_plan=_plan,
            backend=self.name,
            arithmetic=self.arithmetic,
            batch_size=self.batch_size,
            record=record,
            progress=progress,
        )


def exact_dtype(largest: int) -> type[np.floating[Any]]:
    """The float type that holds every integer up to ``largest``: float32 below 2**24, float64 below 2**53.

    Raises
    ------
    UnsupportedError : if neither does.
    """
    if largest < 2**24:
        return np.float32
    if largest < 2**53:
        return np.float64
    raise UnsupportedError(f"sums up to {largest} are not exact in float64; allowed: below 2**53; use smaller weights")


def _plan(network: HardwareNetwork) -> Plan:
    violations = accumulator_violations(network)
    if violations:
        listed = "\n  ".join(map(str, violations))
        raise UnsupportedError(f'network "{network.name}" could exceed Lava\'s 32-bit sums:\n  {listed}')
    largest = max(_largest_arriving(network, p) for p in network.populations)
    dtype = exact_dtype(largest)
    return Plan(tuple(_population_plan(network, p, dtype) for p in network.populations), dtype)


def _half_weights(connection: Connection) -> Array:
    """(N_target, N_source) int64 weights in units of 64 states, the doubled weights that Lava holds; exponent >= 0."""
    return np.asarray(connection.weight.astype(np.int64) << (connection.weight_exponent + 1))


def _carries_spikes(network: HardwareNetwork, connection: Connection) -> bool:
    if connection.source == INPUT:
        return network.input.kind == "event"
    return connection.source != ALWAYS_ON


def _largest_arriving(network: HardwareNetwork, population: Population) -> int:
    """Bound on the magnitude of every partial sum of spike-driven current, in units of 64 states."""
    sums = np.zeros(population.size, np.int64)
    for connection in network.incoming(population.name):
        if _carries_spikes(network, connection):
            sums += np.abs(_half_weights(connection)).sum(axis=1)
    return int(sums.max())


def _population_plan(network: HardwareNetwork, population: Population, dtype: type[np.floating[Any]]) -> PopulationPlan:
    neuron = population.neuron
    assert isinstance(neuron, IntegerNeuron)
    constant = np.zeros(population.size, np.int64)
    graded: list[GradedInput] = []
    synapses: list[Synapses] = []
    for connection in network.incoming(population.name):
        delay = network.local_delay(connection)
        if _carries_spikes(network, connection):
            synapses.append(Synapses(connection.source, delay, _half_weights(connection).astype(dtype)))
        elif connection.source == INPUT:
            graded.append(GradedInput(delay, _graded_current(connection, network.input.maximum)))
        else:
            constant += _half_weights(connection)[:, 0]
    advance = _advance(network.name, population, neuron)
    return PopulationPlan(population, neuron.leak, constant, tuple(graded), tuple(synapses), advance)


def _graded_current(connection: Connection, maximum: int) -> Callable[[Array], Array]:
    """Current of a sample's codes in units of 64 states: the doubled sum, shifted; a right shift rounds down."""
    weight = connection.weight
    dtype = exact_dtype(int(np.abs(weight.astype(np.int64)).sum(axis=1).max()) * maximum)
    weight_t = weight.astype(dtype).T
    exponent = connection.weight_exponent

    def current(codes: Array) -> Array:
        doubled = 2 * (codes.astype(dtype) @ weight_t).astype(np.int64)
        return np.asarray(doubled << exponent if exponent >= 0 else doubled >> -exponent)

    return current


def _advance(network: str, population: Population, neuron: IntegerNeuron) -> Callable[[State, int, float, int], None]:
    kept = DECAY_UNITY - neuron.decay
    reset = STATE_PER_WEIGHT * neuron.reset_synapse
    threshold = STATE_PER_WEIGHT // 2 * (2 * neuron.v_threshold - 1)

    def advance(state: State, step: int, share: float, first: int) -> None:
        peak = integer_step(
            state.potential,
            state.drive,
            state.arriving,
            state.spikes(step),
            state.counts,
            state.rates,
            share,
            kept,
            reset,
            threshold,
        )
        if peak > STATE_LIMIT:
            row, n = np.argwhere(np.abs(state.potential) > STATE_LIMIT)[0]
            raise StateOverflowError(
                f'network "{network}", population "{population.name}", sample {first + row}, step {step}, neuron {n}: '
                f"potential {state.potential[row, n]} units of state; allowed: -{STATE_LIMIT} .. {STATE_LIMIT} "
                f"(24 bits); use fewer time steps or a smaller scale for this population"
            )

    return advance
