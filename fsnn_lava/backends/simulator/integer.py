"""The integer simulator: spike for spike what Lava's fixed-point run computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from fsnn_lava.backends.registry import Progress, Sink
from fsnn_lava.backends.simulator.plan import GradedInput, Plan, PopulationPlan, Synapses
from fsnn_lava.backends.simulator.run import EngineName, RunSettings, simulate
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    Arithmetic,
    Array,
    HardwareNetwork,
    IntegerNeuron,
    LinearMap,
    Population,
    RunResult,
    accumulator_violations,
    linear_map,
)


@final
@dataclass(frozen=True)
class IntegerSimulator:
    """Runs integer networks by the integer law of ``docs/network-format.md``, exactly.

    Parameters
    ----------
    batch_size : samples that are run together; None: as many as fit `engine.BATCH_BYTES`.
    engine : ``event``: each spike adds its weights, in integers. ``dense``: products with all weights, in a float
        type wide enough that every partial sum is an integer that it holds exactly. ``auto``: the first samples run
        event by event, and their firing rates decide (`engine.cheaper_engine`). All give the same spikes.
    keep : names of the populations whose rates and counts are in the result, beside the readout's source; None: all.
        Per sample and neuron they take 2 bytes, and 8 more of LIF neurons.
    """

    batch_size: int | None = None
    engine: EngineName = "auto"
    keep: tuple[str, ...] | None = None
    name: ClassVar[str] = "simulator"
    arithmetic: ClassVar[Arithmetic] = "integer"

    def run(
        self,
        network: HardwareNetwork,
        inputs: Array,
        *,
        record: Sequence[str] = (),
        sink: Sink | None = None,
        progress: Progress | None = None,
    ) -> RunResult:
        """Rates, counts, logits and the recorded populations' spikes for all inputs.

        Parameters
        ----------
        inputs : (B, *shape) codes for graded input, (T, B, *shape) 0/1 for events.
        record : names of the populations whose spikes are kept, or handed to the sink.
        sink : takes each batch's spikes instead.
        progress : called after each batch with (samples done, samples in total).

        Raises
        ------
        InputError : if the inputs do not fit the network.
        UnsupportedError : for a float network, or one whose sums could exceed the 32 bits that Lava adds them in.
        ConfigError : for settings that mean nothing.
        StateOverflowError : naming population, sample, step and neuron, if a potential leaves 24 bits.
        IncompleteRunError : if it is interrupted from the keyboard.
        """
        return simulate(
            network,
            inputs,
            make_plan=_plan,
            backend=self.name,
            arithmetic=self.arithmetic,
            settings=RunSettings(self.batch_size, self.engine, self.keep),
            record=record,
            sink=sink,
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
    populations = tuple(_population_plan(network, p) for p in network.populations)
    return Plan(network, populations, exact_dtype(max(map(_largest_arriving, populations))))


def _largest_arriving(plan: PopulationPlan) -> int:
    """Bound on the magnitude of every partial sum of spike-driven current, in units of 64 states."""
    sums = np.zeros(plan.population.size)
    for s in plan.synapses:
        sums += s.map.with_weight(np.abs(s.map.weight.astype(np.float64))).sums() * 2**s.shift
    return int(sums.max())


def _population_plan(network: HardwareNetwork, population: Population) -> PopulationPlan:
    neuron = population.neuron
    assert isinstance(neuron, IntegerNeuron)
    constant = np.zeros(population.size, np.int64)
    graded: list[GradedInput] = []
    synapses: list[Synapses] = []
    for connection in network.incoming(population.name):
        # Current is counted in units of 64 states, those of the doubled weights that Lava holds.
        delay, shift = network.local_delay(connection), connection.weight_exponent + 1
        if connection.source == ALWAYS_ON:
            constant += connection.weight[:, 0].astype(np.int64) << shift
        elif delay >= network.time_steps:
            continue
        elif connection.source == INPUT and network.input.kind == "graded":
            graded.append(GradedInput(delay, _graded_current(linear_map(network, connection), shift, network)))
        else:
            synapses.append(Synapses(connection.source, delay, linear_map(network, connection), shift))
    constants = np.array([DECAY_UNITY - neuron.decay, neuron.reset_state, neuron.fires_above], np.int64)
    return PopulationPlan(population, neuron.leak, constants, constant, tuple(graded), tuple(synapses))


def _graded_current(weights: LinearMap, shift: int, network: HardwareNetwork) -> Callable[[Array], Array]:
    """Current of a sample's codes in units of 64 states: the sum, shifted; a right shift rounds down."""
    magnitudes = weights.with_weight(np.abs(weights.weight.astype(np.float64)))
    dtype = exact_dtype(int(magnitudes.sums().max()) * network.input.maximum)
    weights = weights.with_weight(weights.weight.astype(dtype))

    def current(codes: Array) -> Array:
        sums = weights.product(codes.astype(dtype)).astype(np.int64)
        return np.asarray(sums << shift if shift >= 0 else sums >> -shift)

    return current
