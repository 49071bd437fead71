"""Graphs of populations: what a configuration says, which shapes follow, and what is refused with its place."""

from pathlib import Path
from typing import Any

import pytest

from fsnn_lava.config import ConnectionConfig, NetworkConfig, config_from_dict, config_to_dict, read_config, topology_of
from fsnn_lava.config.convolution_taps import Taps
from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.errors import ConfigError, SpecError

LOOPS = """
[[network.connections]]
source = "input"
target = "low"
layer = "4C3s"

[[network.connections]]
source = "low"
target = "high"
layer = "6C3-P2"

[[network.connections]]
source = "high"
target = "low"
layer = "4C3u"

[[network.connections]]
source = "high"
target = "out"
layer = "20"

[[network.connections]]
source = "low"
target = "out"
layer = "20"

[[network.connections]]
source = "out"
target = "out"
layer = "20"

[[network.populations]]
name = "high"
leak = 0.9
v_threshold = 0.5
"""


def network_of(*connections: tuple[Any, ...] | dict[str, Any], **settings: Any) -> NetworkConfig:
    made = (ConnectionConfig(**c) if isinstance(c, dict) else ConnectionConfig(*c) for c in connections)
    return NetworkConfig("", tuple(made), **settings)


def test_a_file_says_a_graph(tmp_path: Path) -> None:
    (tmp_path / "loops.toml").write_text(LOOPS)
    config = read_config(tmp_path / "loops.toml")
    topology = topology_of(config.network, (1, 16, 16))
    assert topology.names == ("low", "high", "out")
    assert topology.shapes == ((4, 8, 8), (6, 4, 4), (20,))
    assert [(c.name, c.source, c.target) for c in topology.forward] == [
        ("input_to_low", -1, 0),
        ("low_to_high", 0, 1),
        ("high_to_out", 1, 2),
        ("low_to_out", 0, 2),
    ]
    assert [(c.name, c.source, c.target) for c in topology.feedback] == [("high_to_low", 1, 0), ("out_to_out", 2, 2)]
    assert topology.loop_delays("sequential") == (1, 1)
    assert topology.loop_delays("hardware") == (2, 1)
    assert topology.forward[1].pool == LayerSpec("pool", 0, 2, 2)
    assert topology.neurons((1, 16, 16)) == 256 + 256 + 96 + 20
    assert config_from_dict(config_to_dict(config)) == config
    assert config.network.notation == ""
    assert config.network.title == (
        "input -4C3s-> low, low -6C3-P2-> high, high -4C3u-> low, high -20-> out, low -20-> out, out -20-> out"
    )


def test_a_file_without_a_name_gives_its_own_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[training]\nepochs = 1\n")
    assert read_config(tmp_path / "mine.toml").name == "mine"
    (tmp_path / "mine.toml").write_text('name = "other"\n')
    assert read_config(tmp_path / "mine.toml").name == "other"


@pytest.mark.parametrize("notation", ["7", "7 (F7)", "7-5-6 (F7)", "3C3s-4C3 (F3C3)", "3C3s-4C3-P2 (F3C3u)"])
def test_a_chain_is_the_same_as_a_graph(notation: str) -> None:
    chain = topology_of(NetworkConfig(notation), (1, 8, 8))
    connections = []
    for c in chain.connections:
        pool = "" if c.pool is None else f"-{c.pool}"
        source = "input" if c.source < 0 else chain.names[c.source]
        connections.append((source, chain.names[c.target], f"{c.layer}{pool}"))
    graph = topology_of(network_of(*connections), (1, 8, 8))
    assert graph.shapes == chain.shapes
    assert [(c.source, c.target, c.layer, c.pool) for c in graph.connections] == [
        (c.source, c.target, c.layer, c.pool) for c in chain.connections
    ]
    assert graph.parameters(10) == chain.parameters(10)


def test_a_side_alone_is_that_of_both_axes() -> None:
    table = {"source": "input", "target": "a", "layer": "8C3", "kernel": 4, "padding": 1, "dilation": 1}
    (connection,) = config_from_dict({"network": {"connections": [table]}}).network.connections
    assert (connection.kernel, connection.padding, connection.dilation) == ((4,), (1,), (1,))
    with pytest.raises(ConfigError, match=r'connections 1\.kernel": found .4.; expected a list of whole numbers'):
        config_from_dict({"network": {"connections": [table | {"kernel": "4"}]}})


def test_connections_between_the_same_two_are_told_apart() -> None:
    topology = topology_of(network_of(("input", "a", "5"), ("input", "a", "5"), ("a", "a", "5"), ("a", "a", "5")), (4,))
    assert [c.name for c in topology.connections] == ["input_to_a", "input_to_a_2", "a_to_a", "a_to_a_2"]


def test_a_population_that_only_feedback_leads_to_has_its_shape() -> None:
    graph = network_of(("input", "a", "5"), ("c", "b", "4"), ("a", "c", "3"), ("b", "c", "3"))
    topology = topology_of(graph, (4,))
    assert (topology.names, topology.shapes) == (("a", "b", "c"), ((5,), (4,), (3,)))
    assert [(c.source, c.target) for c in topology.feedback] == [(2, 1)]


@pytest.mark.parametrize(
    ("form", "square", "taps"),
    [
        ({}, LayerSpec("conv", 8, 3), None),
        ({"stride": 3}, LayerSpec("conv", 8, 3, 3, border=1), None),
        ({"kernel": (4,), "padding": (1,)}, LayerSpec("conv", 8, 4, 1, border=1), None),
        ({"kernel": (3, 5)}, LayerSpec("conv", 8, 5, 1, border=2), Taps((3, 5), (1, 1), 1, (1, 0))),
        ({"dilation": (2,)}, LayerSpec("conv", 8, 5, 1, border=2), Taps((3, 3), (2, 2), 1, (0, 0))),
        ({"layer": "8C4", "padding": 1, "stride": 2}, LayerSpec("conv", 8, 4, 2, border=1), None),
        ({"groups": 4}, LayerSpec("conv", 8, 3, 1, border=1), Taps((3, 3), (1, 1), 4, (0, 0))),
        ({"kernel": (1, 2), "padding": (0, 0), "stride": 2}, None, r"takes 0 rows and 1 columns off; allowed: as"),
        (
            {"kernel": (2,)},
            None,
            r"found a kernel that covers 2 x 2, no padding; allowed: even ones with their padding",
        ),
        ({"kernel": (1, 2, 3)}, None, r"kernel: found \[1, 2, 3\]; allowed: one number, or rows and columns"),
        ({"kernel": (3,), "padding": (3,)}, None, r"padding 3 of 8C3 .*; allowed: below the kernel"),
        ({"groups": 0}, None, r"found a size below 1"),
    ],
)
def test_convolutions_of_any_form_are_square_ones(form: dict[str, Any], square: Any, taps: Any) -> None:
    connection = ConnectionConfig("input", "a", **({"layer": "8C3"} | form))
    if square is None:
        with pytest.raises(SpecError, match=rf"network\.connections 1 \(input -> a\): .*{taps}"):
            connection.read(0)
    else:
        assert connection.read(0) == (square, None, taps)


@pytest.mark.parametrize(
    ("connections", "message"),
    [
        ([("a", "b", "5")], r"network\.connections 1 \(a -> b\): found 'a'; allowed: a source that some connection"),
        (
            [("input", "input", "5")],
            r"connections 1 \(input -> input\): found 'input'; allowed: the name of a pop",
        ),
        ([("input", "a b", "5")], r"\(input -> a b\): found 'a b'; allowed: names of letters"),
        ([("a", "a", "5")], r"network\.connections: found 'none from the input'; allowed: at least one with source"),
        ([("input", "a", "5C")], r'\(input -> a\): cannot read "5C"; expected <channels>C<kernel>'),
        ([("input", "a", "5-6")], r'\(input -> a\): cannot read "5-6"; .* A pool may follow a convolution: 64C3-P2'),
        (
            [{"source": "input", "target": "a", "layer": "5", "groups": 2}],
            r"5: found kernel, .* of a convolution",
        ),
    ],
)
def test_what_cannot_be_a_graph_is_refused_with_its_connection(connections: list[Any], message: str) -> None:
    tables = [
        c if isinstance(c, dict) else dict(zip(("source", "target", "layer"), c, strict=True)) for c in connections
    ]
    with pytest.raises((ConfigError, SpecError), match=message):
        config_from_dict({"network": {"connections": tables}})


@pytest.mark.parametrize(
    ("connections", "message"),
    [
        ([("input", "a", "5"), ("input", "a", "6")], r"2 \(input -> a\): makes \(6,\) of \(1, 6, 6\), but .* \(5,\)"),
        ([("input", "a", "5"), ("c", "b", "5"), ("b", "c", "5")], r"\(c -> b\), .* nothing leads there from the input"),
        ([("input", "a", "5"), ("a", "b", "3C3")], r"2 \(a -> b\): convolution 3C3 is given the shape \(5,\)"),
        ([{"source": "input", "target": "a", "layer": "4C3", "groups": 2}], r"2 groups of 1 channels to 4; allowed"),
    ],
)
def test_shapes_that_do_not_meet_are_refused_with_both_connections(connections: list[Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        topology_of(network_of(*connections), (1, 6, 6))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {"notation": "5", "connections": [{"source": "input", "target": "a", "layer": "5"}]},
            r"one of the two",
        ),
        (
            {"connections": [{"source": "input", "target": "a"}]},
            r"network\.connections 1: found no layer, which it must",
        ),
        ({"connections": {"source": "input"}}, r'"network\.connections": found .*; expected tables \[\[network'),
        (
            {"connections": [{"source": "input", "target": "a", "layr": "5"}]},
            r"unknown key .network\.connections 1\.l",
        ),
        (
            {"populations": [{"name": "low"}]},
            r'network\.populations "low": found .low.; allowed: each once at most',
        ),
        ({"populations": [{"name": "population1", "reset": "zero"}]}, r"training\.method: found 'ide'; allowed: bptt"),
        (
            {"populations": [{"name": "population1", "leak": 1.5}]},
            r'"population1"\.leak: found 1\.5; allowed: 0 <',
        ),
    ],
)
def test_tables_that_are_wrong_are_refused(network: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict({"network": network})


def test_integers_train_a_chain_of_one_kind_of_neuron() -> None:
    integer = {"training": {"arithmetic": "integer"}}
    connections = [{"source": "input", "target": "a", "layer": "5"}, {"source": "a", "target": "a", "layer": "5"}]
    with pytest.raises(
        ConfigError, match=r"network\.connections: found .*; allowed: a chain in network\.notation with"
    ):
        config_from_dict(integer | {"network": {"connections": connections}})
    with pytest.raises(ConfigError, match=r"network\.populations: found \['population1'\]; allowed: none with"):
        config_from_dict(integer | {"network": {"populations": [{"name": "population1", "leak": 0.5}]}})
