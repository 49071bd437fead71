"""One population without feedback, in floats, small enough to know what must come out."""

from typing import Any

import numpy as np

from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron

NEURON = FloatNeuron(2.0, 2.0, 1.0)


def network(
    weight: Any,
    current: Any = None,
    *,
    neuron: FloatNeuron = NEURON,
    time_steps: int = 10,
    kind: str = "graded",
    maximum: int = 15,
) -> HardwareNetwork:
    """One population with an input weight (N, M), without feedback; a constant current (N,) if given."""
    weight = np.asarray(weight, np.float64)
    connections = [Connection("in", INPUT, "p", weight, delay=1)]
    if current is not None:
        connections.append(Connection("on", ALWAYS_ON, "p", np.asarray(current, np.float64)[:, None]))
    spec = InputSpec((weight.shape[1],), kind, maximum if kind == "graded" else 1)
    readout = Readout("p", np.ones((2, len(weight))), np.zeros(2))
    population = Population("p", (len(weight),), neuron, start=1)
    return HardwareNetwork("small", spec, (population,), tuple(connections), readout, time_steps)


def codes_for(net: HardwareNetwork, samples: int = 20) -> Array:
    return np.random.default_rng(0).integers(0, net.input.maximum + 1, (samples, *net.input.shape)).astype(np.uint8)


def parts_of(integer: HardwareNetwork, name: str) -> list[Connection]:
    return [c for c in integer.connections if c.name in (name, f"{name}_coarse", f"{name}_pulse")]
