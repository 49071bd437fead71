"""Plain NIR files: their nodes, what they say of themselves, what is refused, and our own reading of them.

What other tools make of them is in `test_nir_readers`.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.conversion import nir_plain
from fsnn_lava.conversion.lowering import lower
from fsnn_lava.conversion.nir_plain import PLAIN, PlainForm, plain_differences, plain_graph, write_plain_nir
from fsnn_lava.conversion.nir_read import read_nir
from fsnn_lava.errors import ConfigError, NetworkError, UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Array,
    Connection,
    Convolution,
    FloatNeuron,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Population,
    Readout,
    TransposedConvolution,
    with_timing,
)
from networks import branching_network, looping_network
from trained import random_network, some_codes

nir = pytest.importorskip("nir", reason="the package nir is not installed")


def small(*, leak: float = 1.0, v_threshold: float = 0.75, reset: float = 0.75) -> HardwareNetwork:
    """One population with feedback, a constant current and a flat input."""
    rng = np.random.default_rng(3)
    connections = (
        Connection("in", INPUT, "a", rng.normal(0.05, 0.1, (8, 6))),
        Connection("on", ALWAYS_ON, "a", rng.normal(0.1, 0.1, (8, 1))),
        Connection("back", "a", "a", rng.normal(0, 0.2, (8, 8)), 1),
    )
    populations = (Population("a", (8,), FloatNeuron(v_threshold, reset, leak)),)
    readout = Readout("a", rng.normal(size=(3, 8)), rng.normal(size=3))
    return HardwareNetwork("small", InputSpec((6,), "graded", 7), populations, connections, readout, 30)


def codes(network: HardwareNetwork, samples: int = 10) -> Array:
    if network.input.shape == (1, 8, 8):
        return some_codes(samples)
    shape = (samples, *network.input.shape)
    return np.random.default_rng(1).integers(0, network.input.maximum + 1, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("reader", "leak", "kind", "tau", "r", "threshold", "step"),
    [
        ("nir", 1.0, "IF", None, 1.0, 0.75, 1.0),
        ("sinabs", 1.0, "IF", None, 1.0, 0.75, 1.0),
        ("snntorch", 1.0, "LIF", 1e-4 * 2**40, 2.0**40, 0.75, 1e-4),
        ("nir", 0.75, "LIF", 4e-4, 1.0, 0.1875, 1e-4),
        ("sinabs", 0.75, "LIF", -1 / np.log(0.75), -1 / np.log(0.75), 0.75, 1.0),
        ("snntorch", 0.75, "LIF", 4e-4, 4.0, 0.75, 1e-4),
    ],
)
def test_numbers_of_a_node_are_the_readers(
    reader: Any, leak: float, kind: str, tau: float | None, r: float, threshold: float, step: float
) -> None:
    graph = plain_graph(small(leak=leak), form=PlainForm(reader))
    node = graph.nodes["a"]
    assert type(node).__name__ == kind
    assert json.loads(graph.metadata[PLAIN])["time_step"] == step
    found = {"r": node.r, "v_threshold": node.v_threshold, "v_reset": node.v_reset}
    expected = {"r": r, "v_threshold": np.nextafter(np.float32(threshold), np.float32(0)), "v_reset": 0.0}
    if tau is not None:
        found |= {"tau": node.tau, "v_leak": node.v_leak}
        expected |= {"tau": tau, "v_leak": 0.0}
    for name, values in found.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, np.full(8, expected[name], np.float32)), name


def test_a_time_step_of_ones_own_is_in_tau_and_r() -> None:
    assert plain_graph(small(), form=PlainForm(time_step=0.5)).nodes["a"].r[0] == 2
    assert plain_graph(small(leak=0.75), form=PlainForm(time_step=0.5)).nodes["a"].tau[0] == 2


@pytest.mark.parametrize(("reader", "step"), [("sinabs", 1.0), ("snntorch", 1e-4)])
def test_a_time_step_that_the_reader_does_not_take_is_refused(reader: Any, step: float) -> None:
    with pytest.raises(ConfigError, match=rf"time_step is 0\.5; allowed: {step:g}, which {reader} assumes"):
        plain_graph(small(), form=PlainForm(reader, 0.5))
    assert PlainForm(reader, step).step(small()) == step


def test_readers_and_time_steps_are_checked() -> None:
    with pytest.raises(ConfigError, match='reader "nengo"; allowed: nir, sinabs, snntorch'):
        plain_graph(small(), form=PlainForm("nengo"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"time_step is -1\.0; allowed: a finite number > 0"):
        plain_graph(small(), form=PlainForm(time_step=-1.0))


def kinds(graph: Any) -> dict[str, str]:
    return {name: type(node).__name__ for name, node in graph.nodes.items()}


def test_one_node_a_population_and_one_a_connection() -> None:
    graph = plain_graph(small())
    assert kinds(graph) == {
        "input": "Input", "a": "IF", "input_to_a": "Affine", "a_to_a": "Affine", "readout": "Affine", "output": "Output"
    }  # fmt: skip
    back, forward = [("a", "a_to_a"), ("a_to_a", "a")], [("input", "input_to_a"), ("input_to_a", "a")]
    assert graph.edges == [*forward, *back, ("a", "readout"), ("readout", "output")], "back before the readout"
    assert np.array_equal(graph.nodes["input_to_a"].bias, small().connections[1].weight[:, 0].astype(np.float32))
    assert not graph.nodes["a_to_a"].bias.any()


def test_snntorch_does_not_see_a_leaky_population_and_its_own_feedback_as_one() -> None:
    graph = plain_graph(small(leak=0.75))
    assert graph.edges[2:5] == [("a", "a_to_a"), ("a_to_a", "a_to_a_back"), ("a_to_a_back", "a")]
    assert kinds(graph)["a_to_a_back"] == "Flatten"


def test_nodes_are_numbered_where_the_order_of_their_names_matters() -> None:
    graph = plain_graph(looping_network())
    assert list(graph.nodes) == sorted(graph.nodes)
    assert [n.split("_", 1)[1] for n in graph.nodes if kinds(graph)[n] == "IF"] == ["c", "a", "b"]


def leaky_images() -> HardwareNetwork:
    return lower(random_network("4C3s (F4C3)", leak=0.9))


NETWORKS = {
    "small": small,
    "leaky": lambda: small(leak=0.75),
    "loops": looping_network,
    "branches": branching_network,
    "two": lambda: lower(random_network("20-12 (F20)")),
    "images": lambda: lower(random_network("8C3-6C3s (F8C3u)")),
    "leaky images": leaky_images,
}


@pytest.mark.parametrize("reader", ["nir", "snntorch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_our_own_reading_fires_as_the_network_does(tmp_path: Path, name: str, reader: Any) -> None:
    """Spike by spike, with feedback of one step: our reading subtracts the threshold.

    But where float32 is exact, no potential here is as near to it as float32 is imprecise.
    """
    network = NETWORKS[name]()
    back = read_nir(write_plain_nir(network, tmp_path / "n.nir", form=PlainForm(reader)))
    assert (back.name, back.input, back.time_steps) == (network.name, network.input, network.time_steps)
    assert [p.name for p in back.populations] == [p.name for p in network.populations]
    assert {c.name for c in network.connections if c.source != ALWAYS_ON} <= {c.name for c in back.connections}
    names, inputs = [p.name for p in network.populations], codes(network)
    ours = FloatSimulator().run(with_timing(network, "sequential"), inputs, record=names)
    theirs = FloatSimulator().run(back, inputs, record=names)
    for population in names:
        expected = ours.spikes[population]
        assert np.array_equal(theirs.spikes[population].reshape(expected.shape), expected)
        assert 0.02 < expected.mean() < 0.98
    # logits are sums of a few dozen float32
    np.testing.assert_allclose(theirs.logits, ours.logits, rtol=1e-4, atol=1e-4)


def test_integers_without_rounding_are_exact(tmp_path: Path) -> None:
    network = looping_network(integer=True)
    back = read_nir(write_plain_nir(network, tmp_path / "n.nir"))
    assert back.arithmetic == "float"
    ours = IntegerSimulator().run(network, codes(network), record=["a", "b", "c"])
    theirs = FloatSimulator().run(back, codes(network), record=["a", "b", "c"])
    for name in "abc":
        assert np.array_equal(theirs.spikes[name], ours.spikes[name])
        assert ours.spikes[name].mean() > 0.1


def test_parallel_connections_are_added_up() -> None:
    net = looping_network(integer=True)
    first = net.connections[0]
    half = replace(first, name="more", weight=np.full_like(first.weight, 3), weight_exponent=1)
    graph = plain_graph(replace(net, connections=(*net.connections, half)))
    (weights,) = (node for name, node in graph.nodes.items() if name.endswith("_input_to_c"))
    assert np.array_equal(weights.weight, first.weight + 6)
    entry = json.loads(graph.metadata[PLAIN])["connections"][0]
    assert entry["connections"] == ["0", "more"]


def test_what_integers_round_off_and_pulse_is_in_the_biases() -> None:
    """A sum with exponent -3 loses 3 / 16 of a unit on average; a weight of 5 every 4 steps is 5 / 4 a step."""
    neuron = IntegerNeuron(40, 40, 0, 0, 1.0)
    connections = (
        Connection("in", INPUT, "a", np.ones((3, 2), np.int32), 0, -3, 8),
        Connection("on", ALWAYS_ON, "a", np.full((3, 1), 7, np.int32), 0, 0, 8),
        Connection("pulse", ALWAYS_ON, "a", np.full((3, 1), 5, np.int32), 0, 0, 8, period=4),
    )
    readout = Readout("a", np.ones((2, 3)), np.zeros(2))
    spec, populations = InputSpec((2,), "graded", 7), (Population("a", (3,), neuron),)
    network = HardwareNetwork("rounded", spec, populations, connections, readout, 9)
    node = plain_graph(network).nodes["input_to_a"]
    assert np.array_equal(node.weight, np.full((3, 2), 1 / 8))
    assert np.array_equal(node.bias, np.full(3, 7 + 5 / 4 - 3 / 16))
    said = "\n".join(plain_differences(network))
    assert "rounding: what in bring is rounded down to half a weight unit here" in said
    assert "pulses: of the constant currents pulse sends once in 4 steps here" in said


def test_a_border_of_currents_becomes_a_channel_of_ones() -> None:
    """The constant current of normalised pixels is smaller where the kernel meets the zeros around the image."""
    network = leaky_images()
    graph = plain_graph(network)
    assert kinds(graph)["input_and_ones"] == "Conv2d"
    ones, conv = graph.nodes["input_and_ones"], graph.nodes["input_to_population1"]
    assert (ones.weight.shape, conv.weight.shape) == ((2, 1, 1, 1), (4, 2, 3, 3))
    assert np.array_equal(ones.bias, [0, 1])
    corner = conv.weight[:, 1, 1:, 1:].sum(axis=(1, 2)) + conv.bias  # stride 2, padding 1: without first row and column
    expected = sum(c.weight[:, 0] for c in network.connections if c.source == ALWAYS_ON).reshape(4, 4, 4)
    np.testing.assert_allclose(corner, expected[:, 0, 0], rtol=1e-5)  # sums of float32
    np.testing.assert_allclose(conv.weight[:, 1].sum(axis=(1, 2)) + conv.bias, expected[:, 2, 2], rtol=1e-5)
    assert np.ptp(expected.reshape(4, -1), axis=1).min() > 0.01


def test_sinabs_gets_leaky_neurons_of_one_axis() -> None:
    graph = plain_graph(leaky_images(), form=PlainForm("sinabs"))
    assert graph.nodes["population1"].tau.shape == (64,)
    assert kinds(graph)["population1_to_population1"] == "Affine"


def test_flattening_leaves_a_batch_alone() -> None:
    graph = plain_graph(lower(random_network("4C3s (F4C3)")))
    node = graph.nodes["readout_flat"]
    assert (node.start_dim, node.end_dim) == (-3, -1)
    assert node.output_type["output"] == [64]


def test_differences_are_said_in_the_file(tmp_path: Path) -> None:
    network = lower(random_network("20-12 (F20)"))
    metadata = nir.read(write_plain_nir(network, tmp_path / "n.nir")).metadata
    said = metadata["differences"].splitlines()
    assert said == plain_differences(network) == json.loads(metadata[PLAIN])["differences"]
    assert said[0].startswith(
        "reset: here a spike subtracts the threshold from the potential; NIR's IF and LIF are set"
    )
    feedback = 'connection "feedback" (population2 -> population1)'
    assert said[1] == f"timing: {feedback} takes 2 steps here, and one where the file's cycle closes"
    assert said[2] == "readers: snnTorch 1.0 does not run IF nodes; for it export with --nir-reader snntorch"
    assert len(said) == 3


def test_differences_of_leaky_neurons_and_of_other_thresholds() -> None:
    said = plain_differences(small(leak=0.75, v_threshold=0.5, reset=1.0))
    other = "in the file it fires at 1, which rounds its rates down"
    assert said[1] == f'threshold: population "a" fires at 0.5 here and loses 1; {other}'
    assert said[2].startswith("readers: Sinabs 3.1.3 takes tau for another decay; for it export with --nir-reader sin")
    assert len(said) == 3
    assert len(plain_differences(small(leak=0.75), form=PlainForm("snntorch"))) == 1


def refusal(network: HardwareNetwork, **options: Any) -> list[str]:
    with pytest.raises(UnsupportedError) as caught:
        plain_graph(network, form=PlainForm(**options))
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f'plain NIR cannot say network "{network.name}", {len(rest)} violation(s); nothing was')
    return rest


def test_delays_and_ways_that_no_path_gives_are_named() -> None:
    net = looping_network()
    late = [replace(c, delay=7) if c.name in ("1", "5") else c for c in net.connections]
    across = Connection("across", INPUT, "b", np.ones((14, 9)))
    said = refusal(replace(net, connections=(*late, across)))
    assert said == [
        '  connection "across" (input -> b): found a second way forward; allowed: "2" alone, since Norse and Sinabs '
        "deliver another one step late; or the exact form",
        '  connection "1" (c -> a): found 7 steps of local delay; allowed: 0, as the paths of a graph without Delay '
        "give; or the exact form",
        '  connection "5" (a -> a): found 7 steps of local delay; allowed: 1, as the paths of a graph without Delay '
        "give; or the exact form",
    ]


def test_populations_beside_the_way_forward_are_named() -> None:
    net = small()
    alone = Population("alone", (2,), FloatNeuron())
    fed = Connection("fed", "alone", "a", np.ones((8, 2)), 1)
    said = refusal(replace(net, populations=(*net.populations, alone), connections=(*net.connections, fed)))
    assert said == [
        '  population "alone": found no way forward into it; allowed: one, from the input or an earlier population; '
        "or the exact form"
    ]


def test_feedback_between_branches_is_named() -> None:
    """The readout's branch runs last, so that feedback from the other would reach it in the same step."""
    net = branching_network()
    graph = plain_graph(net)
    assert graph.edges[-2:] == [("b", "readout"), ("readout", "output")]
    assert graph.edges.index(("a", "a_to_c")) < graph.edges.index(("a", "a_to_b"))
    back = Connection("sideways", "c", "b", np.ones((13, 11)), 1)
    assert refusal(replace(net, connections=(*net.connections, back))) == [
        '  connection "sideways" (c -> b): found feedback between two branches; allowed: feedback that closes a cycle; '
        "or the exact form"
    ]


def test_populations_that_lead_nowhere_are_named() -> None:
    net = branching_network()
    without = tuple(c for c in net.connections if c.name != "c to a")
    said = ['  population "c": found no way from it to the readout; allowed: one']
    assert refusal(replace(net, connections=without)) == said


def images(side: int, *, current: Array | None = None) -> HardwareNetwork:
    """Two populations of images, and a transposed convolution back."""
    neuron = FloatNeuron()
    populations = (Population("a", (8, side, side), neuron), Population("b", (8, side // 2, side // 2), neuron))
    connections = [
        Connection("in", INPUT, "a", np.ones((8, 1, 3, 3)), geometry=Convolution(1, 1)),
        Connection("down", "a", "b", np.ones((8, 8, 2, 2)), geometry=Convolution(2, 0)),
        Connection("up", "b", "a", np.ones((8, 8, 2, 2)), 1, geometry=TransposedConvolution(2, 0)),
    ]
    if current is not None:
        connections = [*connections[:2], Connection("on", ALWAYS_ON, "a", current)]
    readout = Readout("b", np.ones((2, 8 * (side // 2) ** 2)), np.zeros(2))
    return HardwareNetwork(
        "images", InputSpec((1, side, side), "event", 1), populations, tuple(connections), readout, 4
    )


def test_transposed_convolutions_are_unrolled_or_named(tmp_path: Path) -> None:
    unrolled = plain_graph(images(8))
    assert read_nir(write_plain_nir(images(8), tmp_path / "n.nir")).input == InputSpec((1, 8, 8), "event", 1)
    assert unrolled.nodes["b_to_a"].weight.shape == (512, 128)
    size = 8 * 32 * 32 * 8 * 16 * 16
    assert refusal(images(32)) == [
        f'  connection "up" (b -> a): found a transposed convolution, {size} weights when unrolled; allowed: at most '
        f"{2**22}"
    ]


def test_currents_that_no_border_makes_are_unrolled_or_named() -> None:
    """One neuron in the middle has another one."""
    for side in (8, 64):
        current = np.zeros((8, side, side))
        current[3, side // 2, side // 2] = 1.0
        net = images(side, current=current.reshape(-1, 1))
        if side == 8:
            graph = plain_graph(net)
            assert kinds(graph)["input_to_a"] == "Affine"
            assert np.array_equal(graph.nodes["input_to_a"].bias, current.reshape(-1))
    (said,) = refusal(net)
    assert said.startswith('  connection "in" (input -> a): found constant currents that are 0.9997')
    assert f"{64 * 64 * 8 * 64 * 64} weights when unrolled; allowed: at most" in said


def test_kernels_of_leaky_neurons_are_named_where_sinabs_cannot_read_them() -> None:
    net = images(32, current=np.zeros((8 * 32 * 32, 1)))
    leaky = replace(net, populations=tuple(replace(p, neuron=FloatNeuron(leak=0.5)) for p in net.populations))
    assert kinds(plain_graph(leaky))["a_to_b"] == "Conv2d"
    (said,) = refusal(leaky, reader="sinabs")
    kind = "a convolution from a population of one axis (as Sinabs wants of LIF)"
    assert said.startswith(f'  connection "down" (a -> b): found {kind}, {8 * 32 * 32 * 8 * 16 * 16} weights')


def test_sinabs_files_that_leak_are_not_read_as_nirs(tmp_path: Path) -> None:
    path = write_plain_nir(small(leak=0.75), tmp_path / "n.nir", form=PlainForm("sinabs"))
    with pytest.raises(UnsupportedError, match=r"n\.nir\": nodes \['a'\]: their tau is Sinabs's, which decays by exp"):
        read_nir(path)
    back = read_nir(write_plain_nir(small(), path, form=PlainForm("sinabs")))
    assert back.populations[0].neuron.leak == 1


def test_what_the_file_says_itself_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_plain_nir(small(), tmp_path / "n.nir")
    assert read_nir(path, time_steps=3).time_steps == 3
    with pytest.raises(ConfigError, match="was written by this package and says input_maximum itself; leave it out"):
        read_nir(path, input_maximum=3)
    monkeypatch.setattr(nir_plain, "PLAIN_VERSION", 2)
    write_plain_nir(small(), path)
    with pytest.raises(NetworkError, match="version 2 of the metadata; this release reads version 1"):
        read_nir(path)


def test_neurons_that_no_plain_node_says_are_refused(tmp_path: Path) -> None:
    network = small()
    for changed, found in (({"reset": "zero"}, "reset to zero"), ({"current_leak": 0.5}, "a current that decays")):
        populations = tuple(replace(p, neuron=replace(p.neuron, **changed)) for p in network.populations)
        with pytest.raises(
            UnsupportedError, match=rf'population ".*": found {found}; allowed: reset by subtraction of'
        ):
            write_plain_nir(replace(network, populations=populations), tmp_path / "n.nir")


def test_provenance_is_kept_but_for_what_integers_added(tmp_path: Path) -> None:
    kept = {"classes": ["x", "y", "z"], "config": {"dataset": "digits"}}
    network = replace(small(), provenance={**kept, "trained_integers": {"a": 1}, "quantization": {}})
    found = read_nir(write_plain_nir(network, tmp_path / "n.nir")).provenance
    law = "a spike subtracts v_threshold - v_reset, before the leak of the next step"
    assert found == {**kept, "from_nir": {"time_step": 1.0, "reset": law, "known": "as written"}}
    with pytest.raises(NetworkError, match='network "small": the provenance is not JSON'):
        write_plain_nir(replace(small(), provenance={"config": {1, 2}}), tmp_path / "other.nir")
    assert not (tmp_path / "other.nir").exists()
