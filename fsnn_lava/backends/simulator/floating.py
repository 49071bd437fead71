"""The float reference: the same run in float64, for networks before quantization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from fsnn_lava.backends.registry import Progress, Sink
from fsnn_lava.backends.simulator.plan import GradedInput, Plan, PopulationPlan, Synapses
from fsnn_lava.backends.simulator.run import EngineName, RunSettings, simulate
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Arithmetic,
    Array,
    FloatNeuron,
    HardwareNetwork,
    LinearMap,
    Population,
    RunResult,
    linear_map,
)


@final
@dataclass(frozen=True)
class FloatSimulator:
    """Runs float networks by the float law of ``docs/network-format.md``, in float64.

    The engines add in different orders, so that potentials may differ in their last digits, and spikes where a
    potential comes that close to the threshold.

    Parameters
    ----------
    batch_size, engine, keep : as in `IntegerSimulator`.
    """

    batch_size: int | None = None
    engine: EngineName = "auto"
    keep: tuple[str, ...] | None = None
    name: ClassVar[str] = "simulator-float"
    arithmetic: ClassVar[Arithmetic] = "float"

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
        UnsupportedError : for an integer network.
        ConfigError : for settings that mean nothing.
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


def _plan(network: HardwareNetwork) -> Plan:
    populations = tuple(_population_plan(network, p) for p in network.populations)
    return Plan(network, populations, np.float64)


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
        elif delay >= network.time_steps:
            continue
        elif connection.source == INPUT and network.input.kind == "graded":
            graded.append(GradedInput(delay, _graded_current(linear_map(network, connection))))
        else:
            synapses.append(Synapses(connection.source, delay, linear_map(network, connection), 0))
    constants = np.array([neuron.leak, neuron.reset_amount, neuron.v_threshold], np.float64)
    return PopulationPlan(population, neuron.leak, constants, constant, tuple(graded), tuple(synapses))


def _graded_current(weights: LinearMap) -> Callable[[Array], Array]:
    return lambda codes: weights.product(codes.astype(np.float64))
