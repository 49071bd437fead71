"""NIR files: what is written, what is read back, and what is refused."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.conversion.nir_read import import_nir, read_nir
from fsnn_lava.conversion.nir_write import UNROLLED_LIMIT, nir_graph, nir_violations, write_nir
from fsnn_lava.datasets import load_dataset, time_first
from fsnn_lava.errors import ConfigError, MissingDependencyError, NetworkError, OutputError, UnsupportedError
from fsnn_lava.hardware import Readout, linear_map, with_timing
from fsnn_lava.hardware.geometry import Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Integrators, Population
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron
from networks import small_float_network
from nir_interpreter import outputs
from random_networks import random_case

nir = pytest.importorskip("nir", reason="the package nir is not installed")

T = 12


def of(*shape: int, value: float = 1.0) -> Array:
    return np.full(shape, value)


def rand(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0.2, 0.5, shape)


def written(tmp_path: Path, nodes: dict[str, Any], edges: list[tuple[str, str]], *, check: bool = True) -> Path:
    path = tmp_path / "graph.nir"
    graph = nir.NIRGraph(nodes=nodes, edges=edges, metadata={}, type_check=check)
    nir.write(path, graph, compression=None if not check else "gzip")  # single numbers cannot be compressed
    return path


def chain(*names: str) -> list[tuple[str, str]]:
    return list(itertools.pairwise(names))


def feedback_graph(*, x_reset: float = 0.0, y_reset: float = 0.0) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Two populations and a way back; all other parameters differ from their defaults."""
    nodes = {
        "in": nir.Input(np.array([3])),
        "first": nir.Affine(rand(4, 3), rand(4, seed=1)),
        "x": nir.LIF(tau=of(4, value=10.0), r=of(4, value=7.0), v_leak=rand(4, seed=2), v_threshold=of(4, value=0.8),
                     v_reset=of(4, value=x_reset)),
        "second": nir.Linear(rand(5, 4, seed=3)),
        "y": nir.IF(r=of(5, value=2.0), v_threshold=of(5, value=1.5), v_reset=of(5, value=y_reset)),
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
    graph = feedback_graph(x_reset=-0.4, y_reset=0.25)
    net = read_nir(written(tmp_path, *graph), time_steps=T, time_step=dt, reset="subtract")
    inputs = np.random.default_rng(8).integers(0, 2, (T, 2, 3)).astype(np.uint8)
    result = FloatSimulator().run(net, inputs, record=["x", "y"])
    for sample in range(2):
        expected = by_hand(inputs[:, sample], dt=dt)
        for name, spikes in zip("xy", expected, strict=True):
            assert np.array_equal(result.spikes[name][:, sample], spikes)
            assert 0.05 < spikes.mean() < 0.95


def test_feedback_graph_part_by_part(tmp_path: Path) -> None:
    graph = feedback_graph(x_reset=-0.4, y_reset=0.25)
    nodes, _ = graph
    path = written(tmp_path, *graph)
    net = read_nir(path, time_steps=T, input_kind="graded", input_maximum=7, reset="subtract")
    assert (net.name, net.arithmetic, net.time_steps) == ("graph", "float", T)
    assert (net.input.shape, net.input.kind, net.input.maximum) == ((3,), "graded", 7)
    x, y = (p.neuron for p in net.populations)
    assert [p.name for p in net.populations] == ["x", "y"]
    assert x == FloatNeuron(float(np.nextafter(0.8, 1)), 0.8 + 0.4, 1 - 1 / 10)
    assert y == FloatNeuron(float(np.nextafter(1.5, 2)), 1.25, 1.0)
    ends = {c.name: (c.source, c.target, c.delay) for c in net.connections}
    expected = {"first": (INPUT, "x", 0), "back": ("y", "x", 1), "x_current": (ALWAYS_ON, "x", 0)}
    assert ends == expected | {"second": ("x", "y", 0)}
    assert np.array_equal(net.readout.weight, nodes["classify"].weight)
    assert np.array_equal(net.readout.bias, nodes["classify"].bias)
    assert net.readout.source == "y"
    law = "a spike subtracts v_threshold - v_reset, before the leak of the next step"
    assert net.provenance == {"from_nir": {"time_step": 1.0, "reset": law, "known": "as asked for"}}


def cuba_graph() -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """As snnTorch's RSynaptic and Synaptic are written: a population to itself, with a bias, and one more."""

    def cuba(n: int, alpha: float, beta: float, threshold: float) -> Any:
        syn, mem = 1e-4 / (1 - alpha), 1e-4 / (1 - beta)
        ones = of(n)
        return nir.CubaLIF(tau_syn=syn * ones, tau_mem=mem * ones, r=mem / 1e-4 * ones, v_leak=0 * ones,
                           v_threshold=threshold * ones, v_reset=0 * ones, w_in=syn / 1e-4 * ones)  # fmt: skip

    nodes = {
        "in": nir.Input(np.array([6])),
        "first": nir.Affine(rand(7, 6), 0.2 * rand(7, seed=1)),
        "x": cuba(7, 0.6, 0.9, 1.1),
        "again": nir.Affine(rand(7, 7, seed=2) - 0.4, 0.1 * rand(7, seed=3)),
        "second": nir.Affine(rand(5, 7, seed=4), -0.1 * rand(5, seed=5)),
        "y": cuba(5, 0.45, 0.7, 0.9),
        "out": nir.Output(np.array([5])),
    }
    return nodes, [*chain("in", "first", "x", "second", "y", "out"), *chain("x", "again", "x")]


def assert_fires_as_interpreted(
    net: HardwareNetwork, path: Path, inputs: Array, *, time_step: float, reset: str, name: Any = str
) -> dict[str, Array]:
    """Every spike of every sample (T, B, *shape) as `nir_interpreter` has it; returns all spikes."""
    record = [p.name for p in net.populations]
    spikes = dict(FloatSimulator().run(net, inputs, record=record).spikes)
    graph = nir.read(path, type_check=False)  # Rockpool's output declares axes of size 1
    (source,) = (n for n, node in graph.nodes.items() if type(node).__name__ == "Input")
    for sample in range(inputs.shape[1]):
        sent = outputs(graph, {source: inputs[:, sample]}, time_step=time_step, reset=reset)
        for population in record:
            found = spikes[population][:, sample]
            assert np.array_equal(found, sent[population].reshape(found.shape)), f"{population}, sample {sample}"
    return spikes


RESET_GRAPHS = {"LIF and IF": (feedback_graph, 1.0), "CubaLIF": (cuba_graph, 1e-4)}


@pytest.mark.parametrize("reset", ["zero", "subtract", "unleaked"])
@pytest.mark.parametrize("graph", RESET_GRAPHS)
def test_each_reset_is_that_of_the_equations(tmp_path: Path, graph: str, reset: Any) -> None:
    make, dt = RESET_GRAPHS[graph]
    path = written(tmp_path, *make())
    net = read_nir(path, time_steps=40, time_step=dt, reset=reset)
    inputs = np.random.default_rng(8).integers(0, 2, (40, 6, *net.input.shape)).astype(np.uint8)
    spikes = assert_fires_as_interpreted(net, path, inputs, time_step=dt, reset=reset)
    assert all(0.05 < s.mean() < 0.95 for s in spikes.values())
    others = [read_nir(path, time_steps=40, time_step=dt, reset=r) for r in ("zero", "subtract", "unleaked")]
    runs = [FloatSimulator().run(n, inputs, record=["x"]).spikes["x"] for n in others]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(runs, 2))


def test_unleaked_is_the_law_of_snntorch(tmp_path: Path) -> None:
    """mem = beta mem + I - threshold spk, with the spikes of the step before, and 1 at the start of nothing."""
    beta, threshold = 0.9, 1.0
    node = nir.LIF(tau=of(3, value=1 / (1 - beta)), r=of(3, value=1 / (1 - beta)), v_leak=of(3, value=0.0),
                   v_threshold=of(3, value=threshold), v_reset=of(3, value=0.0))  # fmt: skip
    weight = rand(3, 4, seed=3)
    nodes = {"in": nir.Input(np.array([4])), "w": nir.Linear(weight), "x": node, "out": nir.Output(np.array([3]))}
    net = read_nir(written(tmp_path, nodes, chain("in", "w", "x", "out")), time_steps=250, reset="unleaked")
    assert net.populations[0].neuron.reset_amount == threshold / net.populations[0].neuron.leak
    inputs = np.random.default_rng(0).integers(0, 2, (250, 5, 4))
    spikes = FloatSimulator().run(net, inputs, record=["x"]).spikes["x"]
    mem, spk = np.zeros((5, 3)), np.zeros((5, 3))
    for t in range(250):
        mem = beta * mem + inputs[t] @ weight.T - threshold * spk
        spk = (mem > threshold).astype(float)
        assert np.array_equal(spikes[t], spk), t
    assert 0.05 < spikes.mean() < 0.9


def without_v_reset(path: Path, *names: str) -> Path:
    with h5py.File(path, "r+") as file:
        for name in names:
            del file[f"node/nodes/{name}/v_reset"]
    return path


def test_the_file_says_which_reset_it_means(tmp_path: Path) -> None:
    path = written(tmp_path, *feedback_graph())
    net = read_nir(path, time_steps=T)
    assert [p.neuron.reset for p in net.populations] == ["zero", "zero"]
    assert net.provenance["from_nir"]["reset"] == "a spike sets the potential to 0"
    assert net.provenance["from_nir"]["known"].startswith("by NIR's definition of the file's v_reset; tools whose")
    net = read_nir(without_v_reset(path, "y"), time_steps=T)
    assert [p.neuron.reset for p in net.populations] == ["zero", "subtract"]
    assert net.populations[1].neuron.reset_amount == 1.5
    law = "x: a spike sets the potential to 0; y: a spike subtracts v_threshold - v_reset, before the leak of the next"
    assert net.provenance["from_nir"]["reset"].startswith(law)
    assert net.provenance["from_nir"]["known"] == (
        "assumed, since y have no v_reset; other tools mean zero or unleaked, then --nir-reset says so"
    )
    net = read_nir(without_v_reset(path, "x"), time_steps=T)
    assert [p.neuron.reset for p in net.populations] == ["subtract", "subtract"]
    assert net.provenance["from_nir"]["known"].startswith("assumed, since the file has no v_reset")
    with pytest.raises(ConfigError, match=r'reset "hard"; expected one of zero, subtract, unleaked'):
        read_nir(path, time_steps=T, reset="hard")  # type: ignore[arg-type]


@pytest.mark.parametrize("reset", ["zero", None])
def test_a_reset_to_another_potential_is_refused(tmp_path: Path, reset: Any) -> None:
    path = written(tmp_path, *feedback_graph(x_reset=-0.4))
    expected = (
        r'node "x" \(LIF\): found v_reset from -0\.4 to -0\.4; allowed: 0, from which .*--nir-reset subtract or unl'
    )
    with pytest.raises(UnsupportedError, match=expected):
        read_nir(path, time_steps=T, reset=reset)


def test_what_a_cuba_neuron_cannot_be_is_refused(tmp_path: Path) -> None:
    nodes, edges = cuba_graph()
    nodes["x"].v_leak = of(7, value=0.2)
    nodes["y"].tau_syn, nodes["y"].tau_mem = of(5, value=0.9e-4), of(5, value=1e-4)
    nodes["y"].w_in = rand(5)
    with pytest.raises(UnsupportedError) as caught:
        read_nir(written(tmp_path, nodes, edges), time_steps=T, time_step=1e-4)
    message = str(caught.value)
    assert (
        'node "x" (CubaLIF): found v_leak from 0.2 to 0.2 beside a synaptic current that decays; allowed: 0' in message
    )
    assert 'node "y" (CubaLIF): found w_in from ' in message
    nodes["y"].w_in = of(5)
    with pytest.raises(UnsupportedError) as caught:
        read_nir(written(tmp_path, nodes, edges), time_steps=T, time_step=1e-4)
    message = str(caught.value)
    assert 'node "y" (CubaLIF): found tau_mem 0.0001; allowed: more than the time step, 0.0001' in message
    assert 'node "y" (CubaLIF): found tau_syn 9e-05; allowed: at least the time step, 0.0001' in message


def test_a_cuba_neuron_whose_current_has_no_memory_is_a_lif(tmp_path: Path) -> None:
    """And may leak to any potential."""
    nodes, edges = cuba_graph()
    ones = of(7)
    nodes["x"] = nir.CubaLIF(tau_syn=ones, tau_mem=4 * ones, r=3 * ones, v_leak=0.3 * ones, v_threshold=ones,
                             v_reset=0 * ones, w_in=0.5 * ones)  # fmt: skip
    nodes["y"] = nir.IF(of(5), of(5), of(5, value=0.0))
    cuba = read_nir(written(tmp_path, nodes, edges), time_steps=T)
    nodes["x"] = nir.LIF(tau=4 * ones, r=1.5 * ones, v_leak=0.3 * ones, v_threshold=ones, v_reset=0 * ones)
    assert_same_but_for_names(cuba, read_nir(written(tmp_path, nodes, edges), time_steps=T))
    assert not cuba.populations[0].neuron.has_memory_of_current


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


def test_all_that_cannot_be_understood_is_named_at_once(tmp_path: Path) -> None:
    leaky = nir.LIF(tau=of(3), r=of(3, value=-1.0), v_leak=of(3), v_threshold=of(3), v_reset=of(3, value=2.0))
    strange = nir.Conv2d((5, 5), rand(2, 2, 3, 3), (1, 2), (1, 1), (1, 1), 2, np.zeros(2))
    nodes = {
        "in": nir.Input(np.array([3])),
        "cuba": nir.CubaLI(of(3), of(3), of(3), of(3)),
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
    types = "Input, Output, Linear, Affine, Conv2d, AvgPool2d, SumPool2d, Flatten, IF, LIF, CubaLIF"
    for expected in (
        f'node "cuba" (CubaLI): found a type without a counterpart; allowed: {types}',
        f'node "gain" (Scale): found a type without a counterpart; allowed: {types}',
        'node "leaky" (LIF): found v_threshold 1, v_reset 2; allowed: v_threshold above 0 and above v_reset',
        'node "leaky" (LIF): found r -1; allowed: more than 0',
        'node "leaky" (LIF): found v_reset from 2 to 2; allowed: 0, from which the potential starts',
        'node "leaky" (LIF): found tau 1; allowed: more than the time step, 1',
        'node "mixed" (IF): found v_threshold from 1.0 to 3.0; allowed: one finite value for all of its neurons',
        'node "strange" (Conv2d): found groups 2, dilation (1, 1); allowed: 1 and 1',
        'node "strange" (Conv2d): found stride (1, 2), padding (1, 1); allowed: the same in both axes, padding 0 .. 2',
        'node "same" (Conv2d): found padding "same" of kernels of 4, stride (2, 2); allowed: kernels of odd size',
        'node "pool" (AvgPool2d): found kernel (2, 2), stride (1, 1), padding (0, 0); allowed: square, stride as the',
        'node "wide" (Linear): found weight of shape (2, 3, 3); allowed: two axes',
    ):
        assert expected in message
    assert "cannot be understood, 12 violation(s)" in message


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
    assert f"output: found paths from ['a', '{extra[0][0]}']; allowed: one, from an IF, LIF or CubaLIF node" in message


def test_products_that_are_too_large_are_refused(tmp_path: Path) -> None:
    nodes = {"in": nir.Input(np.array([1, 100, 100])), "a": nir.IF(of(1, 100, 100), of(1, 100, 100)),
             "out": nir.Output(np.array([1, 100, 100]))}  # fmt: skip
    path = written(tmp_path, nodes, chain("in", "a", "out"))
    expected = 'path "in" -> "a": found 100000000 weights when multiplied out; allowed: at most 16777216'
    with pytest.raises(UnsupportedError, match=expected):
        read_nir(path, time_steps=T)


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


def assert_same_but_for_names(one: HardwareNetwork, other: HardwareNetwork) -> None:
    """Equal but for the names of connections."""
    assert [(p.name.split(".")[-1], p.shape, p.neuron) for p in one.populations] == [
        (p.name.split(".")[-1], p.shape, p.neuron) for p in other.populations
    ]
    assert len(one.connections) == len(other.connections)
    for a, b in zip(one.connections, other.connections, strict=True):
        assert (a.delay, a.geometry) == (b.delay, b.geometry)
        assert np.array_equal(a.weight, b.weight)
    assert np.array_equal(one.readout.weight, other.readout.weight)


def test_a_graph_within_the_graph_is_taken_as_its_nodes(tmp_path: Path) -> None:
    """Of two levels: connection and population in it, reached and left as these were."""
    nodes, edges = feedback_graph()
    plain = read_nir(written(tmp_path, nodes, edges), time_steps=T)
    deeper = nir.NIRGraph(
        {"in": nir.Input(np.array([4])), "second": nodes.pop("second"), "out": nir.Output(np.array([5]))},
        chain("in", "second", "out"),
    )
    inner = nir.NIRGraph(
        {"in": nir.Input(np.array([4])), "deeper": deeper, "y": nodes.pop("y"), "out": nir.Output(np.array([5]))},
        chain("in", "deeper", "y", "out"),
    )
    edges = [*chain("in", "first", "x", "inner", "classify", "out"), *chain("inner", "back", "x")]
    nested = read_nir(written(tmp_path, {**nodes, "inner": inner}, edges), time_steps=T)
    assert [p.name for p in nested.populations] == ["x", "inner.y"]
    assert_same_but_for_names(nested, plain)


def test_a_graph_within_the_graph_has_one_way_in_and_out(tmp_path: Path) -> None:
    nodes, edges = feedback_graph()
    inner = {"a": nir.Input(np.array([4])), "b": nir.Input(np.array([4])), "w": nodes["second"]}
    inner["o"] = nir.Output(np.array([5]))
    two = nir.NIRGraph(inner, [("a", "w"), ("b", "w"), ("w", "o")])
    path = written(tmp_path, {**nodes, "second": two}, edges, check=False)
    with pytest.raises(UnsupportedError, match=r'node "second" \(NIRGraph\): found 2 Input, 1 Output nodes; allowed'):
        read_nir(path, time_steps=T)


def test_a_pool_that_adds_up_is_the_mean_times_its_size(tmp_path: Path) -> None:
    found = {}
    for kind in (nir.AvgPool2d, nir.SumPool2d):
        nodes, edges = image_graph()
        pools = [name for name, node in nodes.items() if isinstance(node, nir.AvgPool2d)]
        assert pools
        for name in pools:
            nodes[name] = kind(*(np.asarray(getattr(nodes[name], n)) for n in ("kernel_size", "stride", "padding")))
        found[kind] = read_nir(written(tmp_path, nodes, edges), time_steps=T)
    scaled = 0
    for mean, total in zip(*(network.connections for network in found.values()), strict=True):
        factor = 1 if np.array_equal(mean.weight, total.weight) else 4
        assert np.allclose(total.weight, factor * mean.weight, rtol=1e-12)
        scaled += factor > 1
    assert scaled


def test_one_number_is_for_all_neurons(tmp_path: Path) -> None:
    nodes, edges = feedback_graph()
    nodes["x"].v_leak = of(4, value=0.3)
    plain = read_nir(written(tmp_path, nodes, edges), time_steps=T)
    common = ("r", "v_threshold", "v_reset")
    for name, entries in {"x": (*common, "tau", "v_leak"), "y": common}.items():
        for entry in entries:
            setattr(nodes[name], entry, np.array(getattr(nodes[name], entry).flat[0]))
    assert_same_but_for_names(read_nir(written(tmp_path, nodes, edges, check=False), time_steps=T), plain)


def test_an_output_may_declare_axes_of_size_1(tmp_path: Path) -> None:
    nodes, edges = feedback_graph()
    plain = read_nir(written(tmp_path, nodes, edges), time_steps=T)
    wide = {**nodes, "out": nir.Output(np.array([1, 1, 2]))}
    assert_same_but_for_names(read_nir(written(tmp_path, wide, edges, check=False), time_steps=T), plain)
    with pytest.raises(NetworkError, match=r"shape \(2,\) sent; allowed: \(1, 3\)"):
        read_nir(written(tmp_path, {**nodes, "out": nir.Output(np.array([1, 3]))}, edges, check=False), time_steps=T)


def test_a_flat_input_takes_a_datasets_images_in_c_order(tmp_path: Path) -> None:
    nodes = {
        "in": nir.Input(np.array([64])),
        "w": nir.Linear(rand(10, 64)),
        "x": nir.IF(r=of(10), v_threshold=of(10), v_reset=of(10, value=0.0)),
        "out": nir.Output(np.array([10])),
    }
    path = written(tmp_path, nodes, chain("in", "w", "x", "out"))
    digits = load_dataset("digits")
    network = import_nir(path, digits, time_steps=5, time_step=0.5)
    assert network.input.shape == (1, 8, 8)
    assert network.provenance["from_nir"]["time_step"] == 0.5
    few = digits.test.codes[:3]
    current = linear_map(network, network.connections[0]).product(few.reshape(3, -1).astype(float))
    current += sum(c.weight[:, 0] for c in network.connections[1:])
    expected = digits.coding.decode(few, np.float64).reshape(3, -1) @ nodes["w"].weight.T * 0.5
    assert np.allclose(current, expected, atol=1e-12)
    nodes["in"], nodes["w"] = nir.Input(np.array([63])), nir.Linear(rand(10, 63))
    with pytest.raises(UnsupportedError, match=r"takes inputs of shape \(63,\); those of \"digits\" are \(1, 8, 8\)"):
        import_nir(written(tmp_path, nodes, chain("in", "w", "x", "out")), digits, time_steps=5)


NIR_PAPER = {
    "paper_01_lif_debug_spike_representation_two_lif_neurons": [(1,), (1,)],
    "paper_01_lif_lif_norse": [(1,)],
    "paper_01_lif_lif_rockpool": [(1,)],
    "paper_02_cnn_cnn_sinabs": [(16, 16, 16), (16, 16, 16), (8, 8, 8), (256,), (10,)],
    "paper_03_rnn_braille_noDelay_bias_zero": [(38,), (7,)],
    "paper_03_rnn_braille_noDelay_noBias_subtract": [(40,), (7,)],
}


@pytest.fixture
def nir_paper(data_dir: Path) -> Path:
    if not (data_dir / "nir-paper").exists():
        pytest.skip("needs the files of the NIR paper in nir-paper/ of the data folder")
    return data_dir / "nir-paper"


@pytest.mark.parametrize("reset", [None, "zero", "subtract", "unleaked"])
@pytest.mark.parametrize("name", NIR_PAPER)
def test_files_of_other_tools_fire_as_their_equations_say(name: str, reset: Any, nir_paper: Path) -> None:
    """None of them has a v_reset, so that NIR's older definition is assumed where nothing is asked for."""
    path = nir_paper / f"{name}.nir"
    net = read_nir(path, time_steps=120, time_step=1e-4, reset=reset)
    assert [p.shape for p in net.populations] == NIR_PAPER[name]
    if "cnn" in name:
        return  # see the next test, on recordings
    density = 0.05 if "braille" in name else 0.7
    inputs = (np.random.default_rng(0).random((120, 4, *net.input.shape)) < density).astype(np.uint8)
    spikes = assert_fires_as_interpreted(net, path, inputs, time_step=1e-4, reset=reset or "subtract")
    if "debug" in name:
        assert spikes.pop("lif2").sum() == 0  # a weight of 1 for a threshold of 20
    assert all(0.003 < s.mean() < 0.9 for s in spikes.values())


@pytest.mark.parametrize(("reset", "right"), [("zero", 93), ("subtract", 82)])
def test_recordings_of_n_mnist_in_the_network_of_sinabs(
    reset: Any, right: int, data_dir: Path, nir_paper: Path
) -> None:
    """Hundred recordings; of five, every spike of every population is that of the equations."""
    pytest.importorskip("tonic", reason="the package tonic is not installed")
    if not (data_dir / "nmnist-small").exists():
        pytest.skip("needs N-MNIST's recordings in nmnist-small/ of the data folder")
    test = load_dataset("nmnist", data_dir).test
    path = nir_paper / "paper_02_cnn_cnn_sinabs.nir"
    frames = time_first(test.codes)
    net = read_nir(path, time_steps=len(frames), reset=reset)
    result = FloatSimulator().run(net, frames)
    assert (result.predictions == test.labels).sum() == right
    assert_fires_as_interpreted(net, path, frames[:, :5], time_step=1.0, reset=reset)


def test_number_of_steps_must_be_given(tmp_path: Path) -> None:
    path = written(tmp_path, *feedback_graph())
    with pytest.raises(ConfigError, match="does not say for how many steps it runs; give time_steps"):
        read_nir(path)
    with pytest.raises(ConfigError, match=r"time_step is -1\.0; allowed: a finite number > 0"):
        read_nir(path, time_steps=T, time_step=-1.0)
    with pytest.raises(NetworkError, match=r"(?s)graph\.nir.*time_steps: found 0; allowed: at least 1"):
        read_nir(path, time_steps=0)


CASES = 40


def images(*, integer: bool, timing: Any = "hardware", law: tuple[Any, Any] | None = None) -> HardwareNetwork:
    """Two images with convolutions, one of them flat because a transposed convolution leads back; constant currents."""
    rng = np.random.default_rng(0)
    shapes = {"in": (3, 2, 3, 3), "forward": (4, 3, 2, 2), "back": (4, 3, 2, 2), "on a": (108, 1), "on b": (36, 1)}
    ends = {"in": (INPUT, "a"), "forward": ("a", "b"), "back": ("b", "a")}
    ends |= {f"on {name}": (ALWAYS_ON, name) for name in ("a", "b")}
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
    if law is not None:
        neuron = replace(neuron, reset=law[0], **{"current_decay" if integer else "current_leak": law[1]})
    populations = (Population("a", (3, 6, 6), neuron), Population("b", (4, 3, 3), neuron))
    readout = Readout("b", rng.normal(size=(5, 36)), rng.normal(size=5))
    spec = InputSpec((2, 6, 6), "event", 1)
    return with_timing(HardwareNetwork("images", spec, populations, tuple(made), readout, 15), timing)


def spatial() -> HardwareNetwork:
    """The same without the way back, so that no axis is lost."""
    net = images(integer=False)
    return replace(net, connections=tuple(c for c in net.connections if c.name != "back"))


def events(net: HardwareNetwork) -> Array:
    return np.random.default_rng(1).integers(0, 2, (net.time_steps, 2, *net.input.shape)).astype(np.uint8)


WRITTEN = {
    "integer": images(integer=True),
    "float": images(integer=False),
    "spatial": spatial(),
    "integer, reset to zero": images(integer=True, law=("zero", 4096)),
    "float, reset to zero": images(integer=False, law=("zero", 0.0)),
    "float, current": images(integer=False, law=("subtract", 0.3)),
    "float, both": images(integer=False, law=("zero", 0.3)),
}


@pytest.mark.parametrize("time_step", [1.0, 1e-4])
@pytest.mark.parametrize("net", WRITTEN.values(), ids=WRITTEN)
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


def test_neurons_that_reset_to_zero_are_nirs_own() -> None:
    graph = nir_graph(images(integer=True, law=("zero", 4096)))
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    assert kinds["a"] == "IF"
    assert not {"Threshold", "Scale"} & {kind for name, kind in kinds.items() if name.startswith("a_")}
    assert np.array_equal(graph.nodes["a"].v_reset, np.zeros(graph.nodes["a"].v_threshold.shape))
    assert type(nir_graph(images(integer=False, law=("zero", 0.0))).nodes["b"]).__name__ == "LIF"


def test_metadata_of_other_neurons_are_as_before() -> None:
    """So that files of networks without reset to zero and decaying currents stay what they were."""
    text = nir_graph(images(integer=True)).metadata["fsnn_lava"]
    assert "reset_mantissa" in text
    assert '"reset"' not in text and "current_decay" not in text


def test_nir_itself_loads_the_file(tmp_path: Path) -> None:
    graph = nir.read(write_nir(images(integer=True), tmp_path / "n.nir"))
    assert type(graph.nodes["a_potential"]).__name__ == "I"
    assert ("back", "a_potential") in graph.edges
    assert np.array_equal(graph.nodes["back_delay"].delay, np.full(36, 2.0))


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
    for name in ("name", "input", "populations", "time_steps"):
        assert getattr(back, name) == getattr(net, name)
    assert back.provenance == net.provenance
    assert back.readout.source == net.readout.source
    assert np.array_equal(back.readout.weight, net.readout.weight)
    for found, expected in zip(back.connections, net.connections, strict=True):
        assert np.array_equal(found.weight, expected.weight)
        assert found.weight.dtype == expected.weight.dtype
        assert vars(found) | {"weight": 0} == vars(expected) | {"weight": 0}


@pytest.mark.parametrize("net", [small_float_network(), *WRITTEN.values()], ids=["dense", *WRITTEN])
def test_networks_come_back(tmp_path: Path, net: HardwareNetwork) -> None:
    back = read_nir(write_nir(net, tmp_path / "n.nir", time_step=1e-3))
    assert_same(back, net)
    inputs = events(net) if net.input.kind == "event" else np.array([[0, 1, 3], [2, 2, 1]])
    names = [p.name for p in net.populations]
    simulator = IntegerSimulator() if net.arithmetic == "integer" else FloatSimulator()
    spikes = [simulator.run(n, inputs, record=names).spikes for n in (net, back)]
    assert all(np.array_equal(spikes[0][n], spikes[1][n]) for n in names)


def test_integrators_of_the_readout_come_back(tmp_path: Path) -> None:
    net = images(integer=True)
    integrators = Integrators(np.arange(180, dtype=np.int32).reshape(5, 36) % 100, 1, 8, 3, 0.25)
    net = replace(net, readout=replace(net.readout, integrators=integrators))
    back = read_nir(write_nir(net, tmp_path / "n.nir")).readout.integrators
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
    named = tuple(replace(c, name="p0/x") for c in net.connections)
    back = read_nir(write_nir(replace(net, connections=named), tmp_path / "n.nir"))
    assert [c.name for c in back.connections] == ["p0/x"] * 3


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


def large(*, dense: bool = False) -> HardwareNetwork:
    """A network that does not listen to its input. Dense: its first population receives dense connections too."""
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
    net = replace(small_float_network(), provenance={"made": {1, 2}})
    with pytest.raises(NetworkError, match='network "floats": the provenance is not JSON'):
        write_nir(net, tmp_path / "n.nir")


def test_absent_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nir", None)
    for run in (lambda: write_nir(small_float_network(), tmp_path / "n.nir"), lambda: read_nir(tmp_path / "n.nir")):
        with pytest.raises(MissingDependencyError, match=r'pip install "fsnn-lava\[nir\]"'):
            run()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interruption_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    path = tmp_path / "n.nir"
    path.write_bytes(b"before")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_nir(small_float_network(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["n.nir"]
    assert path.read_bytes() == b"before"
