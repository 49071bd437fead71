"""Small networks that several test modules run, the page's worked example among them, and inputs for any network."""

from dataclasses import replace

import numpy as np

from fsnn_lava.hardware.geometry import DENSE, Array
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron


def random_inputs(network: HardwareNetwork, samples: int, *, seed: int) -> Array:
    """Random codes or frames, the first samples all dark and all bright."""
    rng = np.random.default_rng(seed)
    spec = network.input
    leading = (samples,) if spec.kind == "graded" else (network.time_steps, samples)
    inputs = rng.integers(0, spec.maximum + 1, (*leading, *spec.shape)).astype(np.uint8)
    by_sample = inputs if spec.kind == "graded" else inputs.swapaxes(0, 1)  # a view
    by_sample[0] = 0
    by_sample[1:2] = spec.maximum
    return inputs


def unrolled(network: HardwareNetwork) -> HardwareNetwork:
    """The same network with every connection dense: a convolution is a matrix with many equal entries."""
    connections = tuple(
        replace(c, weight=linear_map(network, c).unrolled().toarray(), geometry=DENSE) for c in network.connections
    )
    return replace(network, connections=connections)


def worked_example(name: str = "example") -> HardwareNetwork:
    """The network of the page's worked example."""

    def connection(source: str, target: str, weight: list[list[int]], delay: int, exponent: int) -> Connection:
        return Connection(f"{source} to {target}", source, target, np.array(weight, np.int32), delay, exponent, 8)

    return HardwareNetwork(
        name,
        InputSpec((2,), "graded", 255),
        (
            Population("a", (2,), IntegerNeuron(7, 4, 1, 1000, 0.125), 1),
            Population("b", (1,), IntegerNeuron(5, 5, 0, 0, 0.2), 2),
        ),
        (
            connection(INPUT, "a", [[24, -10], [-20, 5]], 1, -8),
            connection(ALWAYS_ON, "a", [[0], [-9]], 0, 0),
            connection("a", "b", [[3, 2]], 1, 1),
            connection("b", "a", [[-2], [50]], 1, 0),
        ),
        Readout("b", np.array([[1.0], [-1.0]]), np.array([0.0, 0.5])),
        3,
        {"seed": 7, "metrics": {"accuracy": 0.5, "note": "Überschuß"}, "versions": ["1", "2"]},
    )


def small_float_network() -> HardwareNetwork:
    """Two populations, LIF and IF, with feedback."""
    rng = np.random.default_rng(0)
    neurons = [FloatNeuron(1.0, 2.0, 0.95), FloatNeuron(0.5, 0.5, 1.0)]
    populations = tuple(Population(f"p{i}", (2, 2), n) for i, n in enumerate(neurons))
    connections = (
        Connection("in", INPUT, "p0", rng.normal(size=(4, 3))),
        Connection("ff", "p0", "p1", rng.normal(size=(4, 4))),
        Connection("fb", "p1", "p0", rng.normal(size=(4, 4)), 1),
    )
    readout = Readout("p1", rng.normal(size=(2, 4)), rng.normal(size=2))
    return HardwareNetwork("floats", InputSpec((3,), "graded", 3), populations, connections, readout, 20)


def looping_network(*, integer: bool = False) -> HardwareNetwork:
    """Three populations, not in the order of their names, with feedback from each to itself and to all before it.

    Weights are sixteenths, integers in sixteenths, so that every sum is exact in float32 too.
    """
    rng = np.random.default_rng(5)
    sizes = {INPUT: 9, "c": 12, "a": 13, "b": 14}
    pairs = [(INPUT, "c"), ("c", "a"), ("a", "b"), *((x, y) for i, x in enumerate("cab") for y in "cab"[: i + 1])]
    means = {INPUT: 0.03, "c": 0.15, "a": 0.15}
    drawn = []
    for number, (source, target) in enumerate(pairs):
        mean, back = (means[source], 0) if number < 3 else (0.0, 1)
        drawn.append((source, target, rng.normal(mean, 0.1, (sizes[target], sizes[source])), back))
    drawn += [(ALWAYS_ON, target, rng.normal(1 / 16, 1 / 16, (sizes[target], 1)), 0) for target in "cab"]
    connections = []
    for number, (source, target, weight, back) in enumerate(drawn):
        units = np.rint(16 * weight)
        values = units.astype(np.int32) if integer else units / 16
        connections.append(Connection(f"{number}", source, target, values, back, 0, 8 * integer))
    neuron = IntegerNeuron(16, 16, 0, 0, 1 / 16) if integer else FloatNeuron(1.0, 1.0, 1.0)
    populations = tuple(Population(name, (sizes[name],), neuron) for name in "cab")
    readout = Readout("b", rng.normal(size=(4, 14)), rng.normal(size=4))
    return HardwareNetwork("loops", InputSpec((9,), "graded", 16), populations, tuple(connections), readout, 20)


def branching_network() -> HardwareNetwork:
    """Two branches after the first population, both with feedback to it; the readout is of the first."""
    rng = np.random.default_rng(6)
    sizes = {INPUT: 9, "a": 12, "b": 13, "c": 11}
    ends = [(INPUT, "a", 0.01, 0), ("a", "b", 0.1, 0), ("a", "c", 0.1, 0), ("b", "a", 0.0, 1), ("c", "a", 0.0, 1)]
    connections = []
    for source, target, mean, delay in ends:
        weight = np.rint(16 * rng.normal(mean, 0.1, (sizes[target], sizes[source]))) / 16
        connections.append(Connection(f"{source} to {target}", source, target, weight, delay))
    populations = tuple(Population(name, (sizes[name],), FloatNeuron(1.0, 1.0, 1.0)) for name in "abc")
    readout = Readout("b", rng.normal(size=(4, 13)), rng.normal(size=4))
    return HardwareNetwork("branches", InputSpec((9,), "graded", 16), populations, tuple(connections), readout, 20)


def assert_equal_networks(a: HardwareNetwork, b: HardwareNetwork) -> None:
    for name in ("name", "input", "populations", "time_steps", "provenance", "arithmetic"):
        assert getattr(a, name) == getattr(b, name)
    for c, d in zip(a.connections, b.connections, strict=True):
        for field in ("name", "source", "target", "delay", "weight_exponent", "weight_bits", "geometry"):
            assert getattr(c, field) == getattr(d, field)
        assert c.weight.dtype == d.weight.dtype
        assert np.array_equal(c.weight, d.weight)
    assert np.array_equal(a.readout.weight, b.readout.weight)
    assert np.array_equal(a.readout.bias, b.readout.bias)
    assert a.readout.source == b.readout.source
    one, other = a.readout.integrators, b.readout.integrators
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert np.array_equal(one.weight, other.weight)
        for field in ("weight_exponent", "weight_bits", "parts", "scale"):
            assert getattr(one, field) == getattr(other, field)
