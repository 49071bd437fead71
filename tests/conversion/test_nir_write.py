"""NIR files: the graph means what we run, by NIR's own equations; read back, it is the same network."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.conversion.nir_read import read_nir
from fsnn_lava.conversion.nir_write import UNROLLED_LIMIT, nir_graph, nir_violations, write_nir
from fsnn_lava.errors import ConfigError, MissingDependencyError, NetworkError, OutputError, UnsupportedError
from fsnn_lava.hardware.geometry import Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.network import (
    ALWAYS_ON,
    INPUT,
    Connection,
    HardwareNetwork,
    InputSpec,
    Integrators,
    Population,
    Readout,
)
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron
from fsnn_lava.hardware.timing import with_timing
from networks import small_float_network
from nir_interpreter import outputs
from random_networks import random_case

nir = pytest.importorskip("nir", reason="the package nir is not installed")

CASES = 40


def images(*, integer: bool, timing: Any = "hardware") -> HardwareNetwork:
    """Two images with convolutions, one of them flat because a transposed convolution leads back; constant currents."""
    rng = np.random.default_rng(0)
    shapes = {"in": (3, 2, 3, 3), "forward": (4, 3, 2, 2), "back": (4, 3, 2, 2), "on a": (108, 1), "on b": (36, 1)}
    ends = {
        "in": (INPUT, "a"),
        "forward": ("a", "b"),
        "back": ("b", "a"),
        "on a": (ALWAYS_ON, "a"),
        "on b": (ALWAYS_ON, "b"),
    }
    geometries: dict[str, Any] = {"in": Convolution(1, 1), "forward": Convolution(2), "back": TransposedConvolution(2)}
    made = []
    for name, shape in shapes.items():
        weight = rng.normal(0.1, 0.6, shape)
        if integer:
            weight = np.rint(40 * weight).astype(np.int32)
        extra = {"geometry": geometries[name]} if name in geometries else {}
        exponent = 1 if integer and name == "on b" else 0
        made.append(Connection(name, *ends[name], weight, int(name == "back"), exponent, 8 * integer, **extra))
    neuron: Any = IntegerNeuron(100, 80, 0, 0, 0.01) if integer else FloatNeuron(1.0, 1.5, 0.9)
    populations = (Population("a", (3, 6, 6), neuron), Population("b", (4, 3, 3), neuron))
    readout = Readout("b", rng.normal(size=(5, 36)), rng.normal(size=5))
    spec = InputSpec((2, 6, 6), "event", 1)
    return with_timing(HardwareNetwork("images", spec, populations, tuple(made), readout, 15), timing)


def spatial() -> HardwareNetwork:
    """The same without the way back, so that no axis is lost."""
    net = images(integer=False)
    return dataclasses.replace(net, connections=tuple(c for c in net.connections if c.name != "back"))


def events(net: HardwareNetwork) -> Array:
    return np.random.default_rng(1).integers(0, 2, (net.time_steps, 2, *net.input.shape)).astype(np.uint8)


# ---- what the graph means --------------------------------------------------------------------------------
@pytest.mark.parametrize("time_step", [1.0, 1e-4])
@pytest.mark.parametrize(
    "net", [images(integer=True), images(integer=False), spatial()], ids=["integer", "float", "spatial"]
)
def test_by_nirs_own_equations_the_graph_fires_as_our_simulator(net: HardwareNetwork, time_step: float) -> None:
    """IF integers are exact in float64; LIF leaks differ in the last bit, and no potential here is that near."""
    inputs = events(net)
    simulator = IntegerSimulator() if net.arithmetic == "integer" else FloatSimulator()
    result = simulator.run(net, inputs, record=["a", "b"])
    graph = nir_graph(net, time_step=time_step)
    for sample in range(2):
        ones = {n: np.ones((net.time_steps, *graph.nodes[n].input_type["input"])) for n in graph.inputs if n != INPUT}
        sent = outputs(graph, {INPUT: inputs[:, sample]} | ones, time_step=time_step)
        for name in ("a", "b"):
            spikes = result.spikes[name][:, sample]
            assert np.array_equal(sent[name].reshape(spikes.shape), spikes)
            assert 0.05 < spikes.mean() < 0.95
        if net.arithmetic == "integer":  # without leak the logits are the plain mean
            # sums of 15 numbers of size 10 in another order
            np.testing.assert_allclose(sent["logits"].mean(axis=0), result.logits[sample], rtol=0, atol=1e-12)


def test_convolutions_stay_convolutions_where_no_axis_is_lost() -> None:
    graph = nir_graph(spatial())
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    assert kinds["in"] == kinds["forward"] == "Conv2d"
    assert kinds["a"] == "Threshold"
    assert kinds["a_potential"] == "LI"
    assert tuple(graph.nodes["a"].threshold.shape) == (3, 6, 6)
    unrolled = nir_graph(images(integer=False))
    assert type(unrolled.nodes["in"]).__name__ == "Conv2d"
    assert type(unrolled.nodes["forward"]).__name__ == type(unrolled.nodes["back"]).__name__ == "Linear"


def test_nir_itself_loads_the_file(tmp_path: Path) -> None:
    graph = nir.read(write_nir(images(integer=True), tmp_path / "n.nir"))
    assert type(graph.nodes["a_potential"]).__name__ == "I"
    assert ("back", "a_potential") in graph.edges
    assert np.array_equal(graph.nodes["back_delay"].delay, np.full(36, 2.0))


# ---- and back --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", range(0, CASES, 10))
def test_random_integer_networks_come_back(tmp_path: Path, first: int) -> None:
    """Everything about them, and so every spike of a rerun."""
    refused = 0
    for seed in range(first, first + 10):
        net, inputs, spikes = random_case(seed)
        if nir_violations(net):
            refused += 1
            continue
        back = read_nir(write_nir(net, tmp_path / "n.nir"))
        rerun = IntegerSimulator().run(back, inputs, record=list(spikes))
        for name, expected in spikes.items():
            assert np.array_equal(rerun.spikes[name], expected), f"random_case({seed}), {name}"
        assert_same(back, net)
    assert refused <= 2


def assert_same(back: HardwareNetwork, net: HardwareNetwork) -> None:
    assert (back.name, back.input, back.populations, back.time_steps) == (
        net.name,
        net.input,
        net.populations,
        net.time_steps,
    )
    assert back.provenance == net.provenance
    assert back.readout.source == net.readout.source
    assert np.array_equal(back.readout.weight, net.readout.weight)
    for found, expected in zip(back.connections, net.connections, strict=True):
        assert np.array_equal(found.weight, expected.weight)
        assert found.weight.dtype == expected.weight.dtype
        assert vars(found) | {"weight": 0} == vars(expected) | {"weight": 0}


@pytest.mark.parametrize("net", [small_float_network(), images(integer=False)], ids=["dense", "images"])
def test_float_networks_come_back(tmp_path: Path, net: HardwareNetwork) -> None:
    back = read_nir(write_nir(net, tmp_path / "n.nir", time_step=1e-3))
    assert_same(back, net)
    inputs = events(net) if net.input.kind == "event" else np.array([[0, 1, 3], [2, 2, 1]])
    names = [p.name for p in net.populations]
    spikes = [FloatSimulator().run(n, inputs, record=names).spikes for n in (net, back)]
    assert all(np.array_equal(spikes[0][n], spikes[1][n]) for n in names)


def test_integrators_of_the_readout_come_back(tmp_path: Path) -> None:
    net = images(integer=True)
    integrators = Integrators(np.arange(180, dtype=np.int32).reshape(5, 36) % 100, 1, 8, 3, 0.25)
    net = dataclasses.replace(net, readout=dataclasses.replace(net.readout, integrators=integrators))
    back = read_nir(write_nir(net, tmp_path / "n.nir")).readout.integrators
    assert back is not None
    assert np.array_equal(back.weight, integrators.weight)
    assert back.weight.dtype == np.int32
    assert (back.weight_exponent, back.weight_bits, back.parts, back.scale) == (1, 8, 3, 0.25)


def test_windows_can_be_longer_than_written(tmp_path: Path) -> None:
    path = write_nir(images(integer=True), tmp_path / "n.nir")
    assert read_nir(path, time_steps=40).time_steps == 40
    with pytest.raises(ConfigError, match="was written by this package and says input_kind, time_step itself; leave"):
        read_nir(path, input_kind="event", time_step=1.0)


def test_names_that_hdf5_or_others_take_are_kept_apart(tmp_path: Path) -> None:
    net = small_float_network()
    named = tuple(dataclasses.replace(c, name="p0/x") for c in net.connections)
    back = read_nir(write_nir(dataclasses.replace(net, connections=named), tmp_path / "n.nir"))
    assert [c.name for c in back.connections] == ["p0/x"] * 3


# ---- changed files ---------------------------------------------------------------------------------------
def changed(path: Path, node: str, entry: str, value: Any) -> Path:
    with h5py.File(path, "r+") as file:
        file[f"node/nodes/{node}/{entry}"][...] = value
    return path


def test_changed_weights_are_taken_over(tmp_path: Path) -> None:
    path = changed(write_nir(images(integer=True), tmp_path / "n.nir"), "in", "weight", 3.0)
    assert np.array_equal(read_nir(path).connections[0].weight, np.full((3, 2, 3, 3), 3))


def test_weights_between_two_mantissas_are_refused(tmp_path: Path) -> None:
    path = changed(write_nir(images(integer=True), tmp_path / "n.nir"), "on b", "scale", 3.0)
    with pytest.raises(NetworkError, match=r'n\.nir": node "on b" \(Scale\): weights that are no multiples of 2\*\*1'):
        read_nir(path)


def test_nodes_that_contradict_the_metadata_are_all_named(tmp_path: Path) -> None:
    path = write_nir(images(integer=True), tmp_path / "n.nir")
    changed(path, "a", "threshold", 3.0)
    changed(path, "back", "weight", 3.0)
    with h5py.File(path, "r+") as file:
        del file["node/nodes/b_reset"]
    with pytest.raises(NetworkError) as caught:
        read_nir(path)
    message = str(caught.value)
    assert "its nodes contradict its metadata, 3 violation(s)" in message
    assert 'node "a" (Threshold): found another threshold; allowed: the one that the metadata lead to' in message
    assert 'node "back" (Linear): found another weight' in message
    assert 'node "b_reset": found no node; allowed: Scale, by the metadata' in message


def test_metadata_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsnn_lava.conversion.nir_write.VERSION", 2)
    path = write_nir(images(integer=True), tmp_path / "n.nir")
    with pytest.raises(NetworkError, match="version 2 of the metadata; this release reads version 1"):
        read_nir(path)


# ---- what cannot be said -----------------------------------------------------------------------------------
def large(*, dense: bool = False) -> HardwareNetwork:
    """Nothing listens to the input. Dense: the first population receives dense connections too."""
    neuron = FloatNeuron(1.0, 1.0, 1.0)
    populations = (Population("a", (8, 32, 32), neuron), Population("b", (16, 16, 16), neuron))
    connections = [
        Connection("forward", "a", "b", np.ones((16, 8, 3, 3)), geometry=Convolution(2, 1)),
        Connection("back", "b", "a", np.ones((16, 8, 3, 3)), 1, geometry=TransposedConvolution(2, 1, 1)),
    ]
    if dense:
        connections.append(Connection("in", INPUT, "a", np.ones((8192, 3))))
    readout, spec = Readout("b", np.ones((2, 4096)), np.zeros(2)), InputSpec((3,), "event", 1)
    return HardwareNetwork("large", spec, populations, tuple(connections), readout, 5)


def test_everything_that_cannot_be_said_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        write_nir(large(), tmp_path / "n.nir")
    limit = f"33554432 weights when unrolled; allowed: at most {UNROLLED_LIMIT}"
    back = f'connection "back" (b -> a): found a transposed convolution, {limit}'
    assert str(caught.value).splitlines() == [
        'NIR cannot say network "large", 2 violation(s); nothing was written:',
        "  input: found no connection from it; allowed: at least one",
        f"  {back}",
    ]
    assert not list(tmp_path.iterdir())
    kind = "a convolution from a population with dense or transposed connections into it"
    forward = f'connection "forward" (a -> b): found {kind}, {limit}'
    assert [str(v) for v in nir_violations(large(dense=True))] == [back, forward]


@pytest.mark.parametrize("time_step", [0.0, -1.0, np.inf, np.nan])
def test_time_step_must_be_a_length(time_step: float) -> None:
    with pytest.raises(ConfigError, match=r"time_step is .*; allowed: a finite number > 0"):
        nir_graph(small_float_network(), time_step=time_step)


def test_provenance_that_is_not_json_is_refused(tmp_path: Path) -> None:
    net = dataclasses.replace(small_float_network(), provenance={"made": {1, 2}})
    with pytest.raises(NetworkError, match='network "floats": the provenance is not JSON'):
        write_nir(net, tmp_path / "n.nir")


def test_absent_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nir", None)
    for run in (lambda: write_nir(small_float_network(), tmp_path / "n.nir"), lambda: read_nir(tmp_path / "n.nir")):
        with pytest.raises(MissingDependencyError, match=r'pip install "fsnn-lava\[nir\]"'):
            run()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_export_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "n.nir"
    path.write_bytes(b"before")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_nir(small_float_network(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["n.nir"]
    assert path.read_bytes() == b"before"
