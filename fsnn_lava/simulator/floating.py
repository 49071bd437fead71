"""The float reference: the same time loop in float64, for networks before quantization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from fsnn_lava.ir import ALWAYS_ON, INPUT, Arithmetic, Array, FloatNeuron, HardwareNetwork, Population
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
from fsnn_lava.simulator.kernels import float_step


@final
@dataclass(frozen=True)
class FloatSimulator:
    """Runs float networks by the float law of ``docs/network-format.md``, in float64."""

    batch_size: int = DEFAULT_BATCH_SIZE
    name: ClassVar[str] = "simulator-float"
    arithmetic: ClassVar[Arithmetic] = "float"

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
        UnsupportedError : for an integer network.
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


def _plan(network: HardwareNetwork) -> Plan:
    return Plan(tuple(_population_plan(network, p) for p in network.populations), np.float64)


def _population_plan(network: HardwareNetwork, population: Population) -> PopulationPlan:
    neuron = population.neuron
    assert isinstance(neuron, FloatNeuron)
    constant = np.zeros(population.size)
    graded: list[GradedInput] = []
    synapses: list[Synapses] = []
    for connection in network.incoming(population.name):
        delay = network.local_delay(connection)
        if connection.source == ALWAYS_ON:
            constant += connection.weight[:, 0]
        elif connection.source == INPUT and network.input.kind == "graded":
            graded.append(GradedInput(delay, _graded_current(connection.weight)))
        else:
            synapses.append(Synapses(connection.source, delay, connection.weight))
    return PopulationPlan(population, neuron.leak, constant, tuple(graded), tuple(synapses), _advance(neuron))


def _graded_current(weight: Array) -> Callable[[Array], Array]:
    return lambda codes: np.asarray(codes.astype(np.float64) @ weight.T)


def _advance(neuron: FloatNeuron) -> Callable[[State, int, float, int], None]:
    def advance(state: State, step: int, share: float, first: int) -> None:
        float_step(
            state.potential,
            state.drive,
            state.arriving,
            state.spikes(step),
            state.counts,
            state.rates,
            share,
            float(neuron.leak),
            float(neuron.reset_amount),
            float(neuron.v_threshold),
        )

    return advance
