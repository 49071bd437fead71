"""NIR graphs made by hand with the package nir: what they become, and what is refused, everything at once."""

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fsnn_lava.backends.simulator import FloatSimulator
from fsnn_lava.conversion.nir_read import read_nir
from fsnn_lava.errors import ConfigError, NetworkError, UnsupportedError
from fsnn_lava.hardware.geometry import Array, Convolution
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT
from fsnn_lava.hardware.neurons import FloatNeuron

nir = pytest.importorskip("nir", reason="the package nir is not installed")

T = 12


def of(*shape: int, value: float = 1.0) -> Array:
    return np.full(shape, value)


def rand(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0.2, 0.5, shape)


def written(tmp_path: Path, nodes: dict[str, Any], edges: list[tuple[str, str]], *, check: bool = True) -> Path:
    path = tmp_path / "graph.nir"
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=edges, metadata={}, type_check=check))
    return path


def chain(*names: str) -> list[tuple[str, str]]:
    return list(itertools.pairwise(names))


def feedback_graph() -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Two populations and a way back; all parameters differ from their defaults."""
    nodes = {
        "in": nir.Input(np.array([3])),
        "first": nir.Affine(rand(4, 3), rand(4, seed=1)),
        "x": nir.LIF(tau=of(4, value=10.0), r=of(4, value=7.0), v_leak=rand(4, seed=2), v_threshold=of(4, value=0.8),
                     v_reset=of(4, value=-0.4)),
        "second": nir.Linear(rand(5, 4, seed=3)),
        "y": nir.IF(r=of(5, value=2.0), v_threshold=of(5, value=1.5), v_reset=of(5, value=0.25)),
        "back": nir.Linear(rand(4, 5, seed=4)),
        "classify": nir.Affine(rand(2, 5, seed=5), rand(2, seed=6)),
        "out": nir.Output(np.array([2])),
    }  # fmt: skip
    return nodes, [*chain("in", "first", "x", "second", "y", "classify", "out"), *chain("y", "back", "x")]


def by_hand(inputs: Array, *, dt: float) -> tuple[Array, Array]:
    """Spikes (T, 4) and (T, 5) of `feedback_graph`, from NIR's equations, with subtraction in place of the reset."""
    nodes, _ = feedback_graph()
    x, y = nodes["x"], nodes["y"]
    v, w, s, z = np.zeros(4), np.zeros(5), np.zeros(4), np.zeros(5)
    fired: tuple[list[Array], list[Array]] = ([], [])
    for frame in inputs:
        current = nodes["first"].weight @ frame + nodes["first"].bias + nodes["back"].weight @ z
        v = v - 1.2 * s
        v = v + dt / x.tau * (x.v_leak - v + x.r * current)
        s = (v > x.v_threshold).astype(float)
        w = w - 1.25 * z + dt * y.r * (nodes["second"].weight @ s)
        z = (w > y.v_threshold).astype(float)
        fired[0].append(s)
        fired[1].append(z)
    return np.stack(fired[0]), np.stack(fired[1])


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_feedback_graph_fires_as_nirs_equations_say(tmp_path: Path, dt: float) -> None:
    net = read_nir(written(tmp_path, *feedback_graph()), time_steps=T, time_step=dt)
    inputs = np.random.default_rng(8).integers(0, 2, (T, 2, 3)).astype(np.uint8)
    result = FloatSimulator().run(net, inputs, record=["x", "y"])
    for sample in range(2):
        expected = by_hand(inputs[:, sample], dt=dt)
        for name, spikes in zip("xy", expected, strict=True):
            assert np.array_equal(result.spikes[name][:, sample], spikes)
            assert 0.05 < spikes.mean() < 0.95


def test_feedback_graph_part_by_part(tmp_path: Path) -> None:
    nodes, _ = feedback_graph()
    net = read_nir(written(tmp_path, *feedback_graph()), time_steps=T, input_kind="graded", input_maximum=7)
    assert (net.name, net.arithmetic, net.time_steps) == ("graph", "float", T)
    assert (net.input.shape, net.input.kind, net.input.maximum) == ((3,), "graded", 7)
    x, y = (p.neuron for p in net.populations)
    assert [p.name for p in net.populations] == ["x", "y"]
    assert x == FloatNeuron(float(np.nextafter(0.8, 1)), 0.8 + 0.4, 1 - 1 / 10)
    assert y == FloatNeuron(float(np.nextafter(1.5, 2)), 1.25, 1.0)
    ends = {c.name: (c.source, c.target, c.delay) for c in net.connections}
    assert ends == {
        "first": (INPUT, "x", 0),
        "back": ("y", "x", 1),
        "x_current": (ALWAYS_ON, "x", 0),
        "second": ("x", "y", 0),
    }
    assert np.array_equal(net.readout.weight, nodes["classify"].weight)
    assert np.array_equal(net.readout.bias, nodes["classify"].bias)
    assert net.readout.source == "y"
    assert net.provenance == {"from_nir": {"time_step": 1.0, "reset": "a spike subtracts v_threshold - v_reset"}}


def image_graph() -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Conv2d and AvgPool2d; a convolution back to the same population; pooling and flattening before the classifier."""
    nodes = {
        "in": nir.Input(np.array([1, 6, 6])),
        "conv": nir.Conv2d((6, 6), rand(2, 1, 3, 3), 1, 1, 1, 1, rand(2, seed=1)),
        "pool": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "a": nir.IF(r=of(2, 3, 3), v_threshold=of(2, 3, 3)),
        "self": nir.Conv2d((3, 3), rand(2, 2, 3, 3, seed=2) - 0.3, (1, 1), "same", (1, 1), 1, np.zeros(2)),
        "shrink": nir.AvgPool2d(np.array([3, 3]), np.array([3, 3]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([2, 1, 1])}, start_dim=0),
        "classify": nir.Affine(rand(4, 2, seed=3), rand(4, seed=4)),
        "out": nir.Output(np.array([4])),
    }
    edges = [*chain("in", "conv", "pool", "a", "shrink", "flat", "classify", "out"), *chain("a", "self", "a")]
    return nodes, edges


def test_convolution_and_pooling_become_one_connection(tmp_path: Path) -> None:
    net = read_nir(written(tmp_path, *image_graph()), time_steps=T)
    forward, back, current = net.connections
    assert (forward.name, forward.geometry, forward.weight.shape) == ("conv+pool", Convolution(2, 1), (2, 1, 4, 4))
    assert (back.name, back.geometry, back.delay) == ("self", Convolution(1, 1), 1)
    assert current.source == ALWAYS_ON
    bias = image_graph()[0]["conv"].bias
    # means of four equal numbers
    np.testing.assert_allclose(current.weight[:, 0], np.repeat(bias, 9), rtol=1e-15)
    classify = image_graph()[0]["classify"]
    # a mean of nine, as nine ninths
    np.testing.assert_allclose(net.readout.weight, np.repeat(classify.weight, 9, axis=1) / 9, rtol=1e-15)
    x = np.random.default_rng(0).integers(0, 2, (T, 1, 1, 6, 6))
    assert 0.05 < FloatSimulator().run(net, x).firing_rates["a"].mean() < 0.95


def test_convolutions_need_not_declare_what_they_take(tmp_path: Path) -> None:
    path = written(tmp_path, *image_graph())
    before = read_nir(path, time_steps=T)
    with h5py.File(path, "r+") as file:
        del file["node/nodes/conv/input_shape"]
    after = read_nir(path, time_steps=T)
    assert np.array_equal(after.connections[0].weight, before.connections[0].weight)
    assert after.connections[0].geometry == Convolution(2, 1)


def test_several_maps_between_two_ends_are_multiplied_out(tmp_path: Path) -> None:
    """Affine after Affine: the first bias goes through the second weight."""
    one, two = nir.Affine(rand(3, 2), rand(3, seed=1)), nir.Affine(rand(4, 3, seed=2), rand(4, seed=3))
    nodes = {"in": nir.Input(np.array([2])), "one": one, "two": two, "a": nir.IF(of(4), of(4)),
             "out": nir.Output(np.array([4]))}  # fmt: skip
    net = read_nir(written(tmp_path, nodes, [*chain("in", "one", "two", "a", "out")]), time_steps=T)
    # the same products in another order
    np.testing.assert_allclose(net.connections[0].weight, two.weight @ one.weight, rtol=1e-12)
    np.testing.assert_allclose(net.connections[1].weight[:, 0], two.weight @ one.bias + two.bias, rtol=1e-12)
    assert net.connections[0].name == "one+two"
    assert np.array_equal(net.readout.weight, np.eye(4))


def test_edges_without_weights_and_nodes_with_two_edges(tmp_path: Path) -> None:
    """Both populations into one Affine: two connections with its weight, its bias once."""
    shared = nir.Affine(rand(3, 3), rand(3, seed=1))
    nodes = {"in": nir.Input(np.array([3])), "a": nir.IF(of(3), of(3)), "b": nir.IF(of(3), of(3)), "shared": shared,
             "c": nir.IF(of(3), of(3)), "out": nir.Output(np.array([3]))}  # fmt: skip
    edges = [("in", "a"), ("in", "b"), ("a", "shared"), ("b", "shared"), ("shared", "c"), ("c", "out"), ("c", "a")]
    net = read_nir(written(tmp_path, nodes, edges), time_steps=T)
    into = [c for c in net.connections if c.target == "c"]
    assert [(c.source, c.name) for c in into] == [("a", "shared"), ("b", "shared_2"), (ALWAYS_ON, "c_current")]
    assert np.array_equal(into[0].weight, shared.weight)
    assert np.array_equal(into[2].weight[:, 0], shared.bias)
    back = next(c for c in net.connections if (c.source, c.target) == ("c", "a"))
    assert back.delay == 1
    assert np.array_equal(back.weight, np.eye(3))


def test_convolution_into_a_flat_population_is_multiplied_out(tmp_path: Path) -> None:
    conv = nir.Conv2d((2, 2), rand(2, 1, 1, 1), 1, "valid", 1, 1, np.zeros(2))
    nodes = {"in": nir.Input(np.array([1, 2, 2])), "conv": conv, "flat": nir.Flatten(np.array([2, 2, 2]), 0),
             "a": nir.IF(of(8), of(8)), "out": nir.Output(np.array([8]))}  # fmt: skip
    net = read_nir(written(tmp_path, nodes, chain("in", "conv", "flat", "a", "out")), time_steps=T)
    expected = np.kron(conv.weight[:, :, 0, 0], np.eye(4))
    assert np.array_equal(net.connections[0].weight, expected)


# ---- refused: nodes and topology -----------------------------------------------------------------------------
def test_all_that_cannot_be_understood_is_named_at_once(tmp_path: Path) -> None:
    leaky = nir.LIF(tau=of(3), r=of(3, value=-1.0), v_leak=of(3), v_threshold=of(3), v_reset=of(3, value=2.0))
    strange = nir.Conv2d((5, 5), rand(2, 2, 3, 3), (1, 2), (1, 1), (1, 1), 2, np.zeros(2))
    nodes = {
        "in": nir.Input(np.array([3])),
        "cuba": nir.CubaLIF(of(3), of(3), of(3), of(3), of(3)),
        "gain": nir.Scale(of(3)),
        "leaky": leaky,
        "mixed": nir.IF(r=of(3), v_threshold=np.array([1.0, 2.0, 3.0])),
        "strange": strange,
        "same": nir.Conv2d((4, 4), rand(2, 2, 4, 4), 2, "same", 1, 1, np.zeros(2)),
        "pool": nir.AvgPool2d(np.array([2, 2]), np.array([1, 1]), np.array([0, 0])),
        "wide": nir.Linear(rand(2, 3, 3)),
        "out": nir.Output(np.array([3])),
    }
    path = written(tmp_path, nodes, [("in", "cuba"), ("cuba", "out")], check=False)
    with pytest.raises(UnsupportedError) as caught:
        read_nir(path, time_steps=T)
    message = str(caught.value)
    assert "graph.nir" in message
    types = "Input, Output, Linear, Affine, Conv2d, AvgPool2d, Flatten, IF, LIF"
    for expected in (
        f'node "cuba" (CubaLIF): found a type without a counterpart; allowed: {types}',
        f'node "gain" (Scale): found a type without a counterpart; allowed: {types}',
        'node "leaky" (LIF): found v_threshold 1, v_reset 2; allowed: v_threshold above 0 and above v_reset',
        'node "leaky" (LIF): found r -1; allowed: more than 0',
        'node "leaky" (LIF): found tau 1; allowed: more than the time step, 1',
        'node "mixed" (IF): found v_threshold from 1.0 to 3.0; allowed: one finite value for all of its neurons',
        'node "strange" (Conv2d): found groups 2, dilation (1, 1); allowed: 1 and 1',
        'node "strange" (Conv2d): found stride (1, 2), padding (1, 1); allowed: the same in both axes, padding 0 .. 2',
        'node "same" (Conv2d): found padding "same" of kernels of 4, stride (2, 2); allowed: kernels of odd size',
        'node "pool" (AvgPool2d): found kernel (2, 2), stride (1, 1), padding (0, 0); allowed: square, stride as the',
        'node "wide" (Linear): found weight of shape (2, 3, 3); allowed: two axes',
    ):
        assert expected in message
    assert "cannot be understood, 11 violation(s)" in message


def refused_topology(tmp_path: Path, nodes: dict[str, Any], edges: list[tuple[str, str]]) -> str:
    path = written(tmp_path, nodes, edges, check=False)
    with pytest.raises(UnsupportedError) as caught:
        read_nir(path, time_steps=T)
    return str(caught.value)


def test_graphs_without_one_input_and_one_output_are_refused(tmp_path: Path) -> None:
    nodes = {"a": nir.IF(of(3), of(3)), "o": nir.Output(np.array([3])), "p": nir.Output(np.array([3]))}
    message = refused_topology(tmp_path, nodes, [("a", "o"), ("a", "p"), ("a", "nobody")])
    assert "graph: found 0 Input nodes []; allowed: one" in message
    assert "graph: found 2 Output nodes ['o', 'p']; allowed: one" in message
    assert 'edge "a" -> "nobody": found no node [\'nobody\']; allowed: ends that exist' in message


def test_loose_ends_and_loops_of_connections_are_refused(tmp_path: Path) -> None:
    eye = np.eye(3)
    nodes = {
        "in": nir.Input(np.array([3])),
        "a": nir.IF(of(3), of(3)),
        "island": nir.IF(of(3), of(3)),
        "round": nir.Linear(eye),
        "trip": nir.Linear(eye),
        "dead": nir.Linear(eye),
        "out": nir.Output(np.array([3])),
    }
    edges = [("in", "a"), ("a", "out"), ("a", "dead"), ("island", "island")]
    message = refused_topology(tmp_path, nodes, [*edges, ("a", "round"), ("round", "a"), ("trip", "a")])
    assert 'node "dead" (Linear): found nowhere that it leads to' in message
    assert 'node "trip" (Linear): found nothing that leads to it' in message
    assert 'node "island" (IF): found no path from the input' in message
    loop = [("a", "round"), ("round", "trip"), ("trip", "round"), ("trip", "a")]
    message = refused_topology(tmp_path, nodes, [*edges, *loop])
    assert "graph: found a loop without a neuron through ['round', 'trip']" in message


@pytest.mark.parametrize("extra", [[("in", "out")], [("b", "out")]])
def test_readout_of_anything_but_one_population_is_refused(tmp_path: Path, extra: list[tuple[str, str]]) -> None:
    nodes = {"in": nir.Input(np.array([3])), "a": nir.IF(of(3), of(3)), "b": nir.IF(of(3), of(3)),
             "out": nir.Output(np.array([3]))}  # fmt: skip
    message = refused_topology(tmp_path, nodes, [("in", "a"), ("a", "b"), ("b", "a"), ("a", "out"), *extra])
    assert f"output: found paths from ['a', '{extra[0][0]}']; allowed: one, from an IF or a LIF node" in message


def test_products_that_are_too_large_are_refused(tmp_path: Path) -> None:
    nodes = {"in": nir.Input(np.array([1, 100, 100])), "a": nir.IF(of(1, 100, 100), of(1, 100, 100)),
             "out": nir.Output(np.array([1, 100, 100]))}  # fmt: skip
    path = written(tmp_path, nodes, chain("in", "a", "out"))
    expected = 'path "in" -> "a": found 100000000 weights when multiplied out; allowed: at most 16777216'
    with pytest.raises(UnsupportedError, match=expected):
        read_nir(path, time_steps=T)


# ---- refused: shapes ---------------------------------------------------------------------------------------
def test_all_declared_shapes_that_disagree_are_named(tmp_path: Path) -> None:
    nodes = {
        "in": nir.Input(np.array([3])),
        "first": nir.Linear(rand(4, 2)),
        "a": nir.IF(of(5), of(5)),
        "conv": nir.Conv2d((3, 3), rand(2, 1, 3, 3), 1, 1, 1, 1, np.zeros(2)),
        "b": nir.IF(of(2, 3, 3), of(2, 3, 3)),
        "flat": nir.Flatten(np.array([2, 3, 4]), 0),
        "classify": nir.Linear(rand(3, 18)),
        "out": nir.Output(np.array([2])),
    }
    path = written(tmp_path, nodes, chain("in", "first", "a", "conv", "b", "flat", "classify", "out"), check=False)
    with pytest.raises(NetworkError) as caught:
        read_nir(path, time_steps=T)
    message = str(caught.value)
    assert "its shapes disagree, 5 violation(s)" in message
    for expected in (
        'edge "in" (Input) -> "first" (Linear): found shape (3,) sent; allowed: (2,), what the other end declares',
        'edge "first" (Linear) -> "a" (IF): found shape (4,) sent; allowed: (5,), what the other end declares',
        'edge "a" (IF) -> "conv" (Conv2d): found shape (5,) sent; allowed: three axes, (C, H, W)',
        'edge "b" (IF) -> "flat" (Flatten): found shape (2, 3, 3) sent; allowed: (2, 3, 4), what the',
        'edge "classify" (Linear) -> "out" (Output): found shape (3,) sent; allowed: (2,), what the other end',
    ):
        assert expected in message


def test_bias_that_does_not_fit_its_weight_is_refused(tmp_path: Path) -> None:
    nodes = {"in": nir.Input(np.array([3])), "a": nir.Affine(rand(4, 3), rand(5)), "b": nir.IF(of(4), of(4)),
             "c": nir.Conv2d((3, 3), rand(2, 1, 3, 3), 1, 1, 1, 1, np.zeros(3)),
             "out": nir.Output(np.array([4]))}  # fmt: skip
    message = refused_topology(tmp_path, nodes, chain("in", "a", "b", "out"))
    assert 'node "a" (Affine): found bias of shape (5,); allowed: (4,), one per row of the weight' in message
    assert 'node "c" (Conv2d): found bias of shape (3,); allowed: (2,), one per channel' in message


def test_parameters_of_different_shapes_name_the_node(tmp_path: Path) -> None:
    path = written(tmp_path, *feedback_graph())
    with h5py.File(path, "r+") as file:
        del file["node/nodes/y/r"]
        file["node/nodes/y/r"] = of(6)
        file["node/nodes/back/type"][()] = "Feedback"
    with pytest.raises(NetworkError) as caught:
        read_nir(path, time_steps=T)
    assert 'node "y" (IF): found entries that do not fit together (AssertionError: All p' in str(caught.value)
    assert 'node "back" (Feedback): found entries that do not fit together' in str(caught.value)


# ---- refused: files ----------------------------------------------------------------------------------------
def test_what_is_no_nir_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r'NIR file ".*absent\.nir": there is no such file'):
        read_nir(tmp_path / "absent.nir")
    path = tmp_path / "graph.nir"
    path.write_bytes(b"no HDF5")
    with pytest.raises(NetworkError, match=r"cannot be read as a NIR graph, it is damaged or something else \(OSError"):
        read_nir(path)
    with h5py.File(path, "w") as file:
        file["other"] = 1
    with pytest.raises(NetworkError, match="cannot be read as a NIR graph, it is damaged or something else"):
        read_nir(path)
    nir.write(path, nir.Linear(rand(2, 2)))
    with pytest.raises(NetworkError, match='holds a single node of type "Linear"; expected a NIRGraph'):
        read_nir(path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, *feedback_graph())
    whole = path.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(NetworkError, match="cannot be read as a NIR graph"):
            read_nir(path, time_steps=T)


def test_graphs_within_the_graph_are_refused(tmp_path: Path) -> None:
    nodes, edges = feedback_graph()
    inner = nir.NIRGraph.from_list(nir.Linear(rand(5, 4)))
    path = written(tmp_path, {**nodes, "second": inner}, edges)
    with pytest.raises(UnsupportedError, match=r'node "second" \(NIRGraph\): found a type without a counterpart'):
        read_nir(path, time_steps=T)


def test_number_of_steps_must_be_given(tmp_path: Path) -> None:
    path = written(tmp_path, *feedback_graph())
    with pytest.raises(ConfigError, match="does not say for how many steps it runs; give time_steps"):
        read_nir(path)
    with pytest.raises(ConfigError, match=r"time_step is -1\.0; allowed: a finite number > 0"):
        read_nir(path, time_steps=T, time_step=-1.0)
    with pytest.raises(NetworkError, match=r"(?s)graph\.nir.*time_steps: found 0; allowed: at least 1"):
        read_nir(path, time_steps=0)
