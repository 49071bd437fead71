"""Read NIR files: those of `nir_write` as the very network that was written, others as far as they can be understood.

Those of `nir_plain` are read like any other graph, but for what they say of themselves: T, input, time step, names.

Reading loads numbers and text; nothing in the file is executed.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeVar

import h5py
import numpy as np

from fsnn_lava.conversion.nir_plain import PLAIN, PLAIN_VERSION
from fsnn_lava.conversion.nir_topology import RESETS, Edges, NirReset, Nodes, Reading, network_of, refuse
from fsnn_lava.conversion.nir_write import METADATA, VERSION, nir_graph, require_nir, require_time_step
from fsnn_lava.datasets import Dataset
from fsnn_lava.errors import ConfigError, NetworkError, UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    DENSE,
    INPUT,
    Array,
    Connection,
    Convolution,
    Dense,
    FloatNeuron,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Integrators,
    Population,
    Readout,
    TransposedConvolution,
    Violation,
    on_codes,
    with_timing,
)

_Read = TypeVar("_Read")
_GEOMETRIES = {c.__name__: c for c in (Dense, Convolution, TransposedConvolution)}


def read_nir(
    path: str | Path,
    *,
    time_steps: int | None = None,
    input_kind: Literal["event", "graded"] | None = None,
    input_maximum: int | None = None,
    time_step: float | None = None,
    reset: NirReset | None = None,
) -> HardwareNetwork:
    """Read the network of a NIR file.

    A file of `nir_write.write_nir` gives the network that was written, float or integer, spike by spike; weights that
    were changed in its nodes are taken over. Any other becomes a float network in sequential timing: `nir_topology`.

    Parameters
    ----------
    time_steps : length T of every window; other files do not say it, so it must be given. Ours do.
    input_kind, input_maximum : coding of the input, of other files alone; default: events, 1.
    time_step : length of one step in the file's unit of time, of other files alone; default: 1.
    reset : what a spike does, of other files alone: "zero", "subtract" (v_threshold - v_reset, before the leak) or
        "unleaked" (after it, as snnTorch does); None: to zero where the file's nodes have a v_reset, as NIR defines
        it, and by subtraction where they have none. The provenance says which (``from_nir``).

    Raises
    ------
    UnsupportedError : naming every node that cannot be understood, with its type; a plain file for Sinabs that leaks.
    NetworkError : a file that is not NIR or damaged; shapes that disagree; metadata that its nodes contradict.
    ConfigError : an argument that is missing, or that the file answers itself.
    MissingDependencyError : if nir is not installed.
    """
    require_nir()
    where = f'NIR file "{path}"'
    if reset is not None and reset not in RESETS:
        raise ConfigError(f'{where}: reset "{reset}"; expected one of {", ".join(RESETS)}')
    nodes, edges, metadata, without_v_reset = _located(where, lambda: _read(Path(path)))
    own = next((read for entry, read in _OWN.items() if entry in metadata), None)
    if own is None:
        if time_steps is None:
            raise ConfigError(f"{where}: does not say for how many steps it runs; give time_steps")
        maximum = 1 if input_maximum is None else input_maximum
        step = 1.0 if time_step is None else require_time_step(time_step)
        reading = Reading(time_steps, input_kind or "event", maximum, step, reset, without_v_reset)
        return _located(where, lambda: network_of(Path(path).stem, nodes, edges, reading=reading))
    given = {"input_kind": input_kind, "input_maximum": input_maximum, "time_step": time_step, "reset": reset}
    known = [name for name, value in given.items() if value is not None]
    if known:
        raise ConfigError(f"{where}: was written by this package and says {', '.join(known)} itself; leave it out")
    network = _located(where, lambda: own(nodes, edges, metadata))
    return network if time_steps is None else dataclasses.replace(network, time_steps=time_steps)


def import_nir(
    path: Path,
    dataset: Dataset,
    *,
    time_steps: int | None = None,
    time_step: float | None = None,
    reset: NirReset | None = None,
) -> HardwareNetwork:
    """Read the float network of a NIR graph in hardware timing, for the codes of a dataset.

    Parameters
    ----------
    dataset : whose normalised values the graph was made for, unless it is one of ours, which takes codes.
    time_steps : T; None: the graph's own.
    time_step, reset : as of `read_nir`.

    Raises
    ------
    UnsupportedError, NetworkError : if the graph cannot be understood, has delays that hardware timing would change,
        or is one of integers already.
    """
    network = read_nir(path, time_steps=time_steps, time_step=time_step, reset=reset)
    if network.arithmetic != "float":
        raise UnsupportedError(f"NIR file {path}: holds integers; export the float graph")
    if "config" not in network.provenance:
        network = on_codes(_shaped(network, dataset, path), dataset.coding)
    sequential, hardware = (with_timing(network, timing) for timing in ("sequential", "hardware"))
    if not any(
        [c.delay for c in network.connections] == [c.delay for c in timed.connections]
        for timed in (sequential, hardware)
    ):
        raise UnsupportedError(
            f"NIR file {path}: has delays of its own; allowed: none but one step on every feedback edge"
        )
    config = {**network.provenance.get("config", {}), "dataset": dataset.name}
    return dataclasses.replace(hardware, provenance={**network.provenance, "config": config})


def _shaped(network: HardwareNetwork, dataset: Dataset, path: Path) -> HardwareNetwork:
    """The network with the dataset's shape of an input, in C order where its own input is flat.

    Raises
    ------
    UnsupportedError : if the shapes do not fit.
    """
    found, wanted = network.input.shape, dataset.input_shape
    if found == wanted:
        return network
    flat = prod(found) == prod(wanted) and sum(n > 1 for n in found) <= 1
    dense = all(c.geometry == DENSE for c in network.connections if c.source == INPUT)
    if not (flat and dense):
        raise UnsupportedError(
            f'NIR file {path}: takes inputs of shape {found}; those of "{dataset.name}" are {wanted}; allowed: the '
            f"same, or {prod(wanted)} in a row, which are taken channel after channel, row after row"
        )
    return dataclasses.replace(network, input=dataclasses.replace(network.input, shape=wanted))


def _located(where: str, read: Callable[[], _Read]) -> _Read:
    """Call `read`; errors name the file."""
    try:
        return read()
    except (NetworkError, UnsupportedError) as error:
        raise type(error)(f"{where}: {error}") from error
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise NetworkError(
            f"{where}: cannot be read as a NIR graph, it is damaged or something else ({type(error).__name__}: {error})"
        ) from error


def _read(path: Path) -> tuple[Nodes, Edges, Mapping[str, Any], frozenset[str]]:
    """Nodes by name, edges, the graph's metadata, and the names of nodes without a v_reset."""
    if not path.is_file():
        raise NetworkError("there is no such file")
    with h5py.File(path, "r") as file:
        graph = _plain(file["node"])
    if graph["type"] != "NIRGraph":
        raise NetworkError(f'holds a single node of type "{graph["type"]}"; expected a NIRGraph')
    flat, edges = _flattened(graph)
    nodes, violations = {}, []
    for name, entries in flat.items():
        try:
            nodes[name] = _node(entries)
        except (LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
            kind = entries.get("type") if isinstance(entries, dict) else None
            found = f"entries that do not fit together ({type(error).__name__}: {error})"
            violations.append(Violation(f'node "{name}" ({kind})', found, "what the package nir can load"))
    refuse(NetworkError, "cannot be read as a NIR graph", violations)
    without = frozenset(name for name, entries in flat.items() if "v_reset" not in entries)
    return nodes, edges, graph.get("metadata", {}), without


def _flattened(graph: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and edges, with those of graphs within the graph under ``graph.node`` in place of these.

    What arrives at such a graph goes where its Input leads, and where its Output is reached from leads on.
    """
    nodes = dict(graph["nodes"])
    edges = [(str(_text(a)), str(_text(b))) for a, b in graph["edges"]]
    for name in [n for n, entries in nodes.items() if entries.get("type") == "NIRGraph"]:
        inner, among = _flattened(nodes.pop(name))
        kinds = ("Input", "Output")
        ends = {kind: [n for n, entries in inner.items() if entries.get("type") == kind] for kind in kinds}
        if any(len(found) != 1 for found in ends.values()):
            found = ", ".join(f"{len(names)} {kind}" for kind, names in ends.items())
            raise UnsupportedError(f'node "{name}" (NIRGraph): found {found} nodes; allowed: one of each')
        (first,), (last,) = ends["Input"], ends["Output"]
        nodes |= {f"{name}.{n}": entries for n, entries in inner.items() if n not in (first, last)}
        into = [b for a, b in among if a == first]
        out = [a for a, b in among if b == last]
        kept = [(f"{name}.{a}", f"{name}.{b}") for a, b in among if a != first and b != last]
        arriving = [(a, f"{name}.{b}") for a, to in edges if to == name for b in into if b != last]
        leaving = [(f"{name}.{a}", b) for of, b in edges if of == name for a in out if a != first]
        through = [(a, b) for a, to in edges if to == name for of, b in edges if of == name if last in into]
        edges = [e for e in edges if name not in e] + kept + arriving + leaving + through
    return nodes, edges


def _node(entries: dict[str, Any]) -> Any:
    """Make the nir node."""
    optional = {"input_shape": None} if entries["type"] == "Conv2d" else {}
    return require_nir().dict2NIRNode(optional | dict(entries))


def _plain(group: h5py.Group) -> dict[str, Any]:
    """Groups as dictionaries, datasets as arrays and text."""
    return {
        str(name): _plain(item) if isinstance(item, h5py.Group) else _text(item[()]) for name, item in group.items()
    }


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _own(nodes: Nodes, edges: Edges, metadata: Mapping[str, Any]) -> HardwareNetwork:
    """The network that `nir_write` wrote; its nodes and metadata must agree."""
    content = json.loads(metadata[METADATA])
    if content["version"] != VERSION:
        raise NetworkError(f"version {content['version']} of the metadata; this release reads version {VERSION}")
    integer = content["arithmetic"] == "integer"
    neuron = IntegerNeuron if integer else FloatNeuron
    populations = tuple(
        Population(p["name"], tuple(p["shape"]), neuron(**p["neuron"]), p["start"]) for p in content["populations"]
    )
    connections = tuple(_connection(c, nodes[c["node"]], integer=integer) for c in content["connections"])
    integrators = content["integrators"] and Integrators(metadata["integrators"], **content["integrators"])
    readout = Readout(content["readout"], nodes["readout"].weight, nodes["readout"].bias, integrators)
    spec = InputSpec(tuple(content["input"]["shape"]), content["input"]["kind"], content["input"]["maximum"])
    provenance = content["provenance"]
    network = HardwareNetwork(
        content["name"], spec, populations, connections, readout, content["time_steps"], provenance
    )
    _require_same(nir_graph(network, time_step=content["time_step"]), nodes, edges)
    return network


def _plain_graph(nodes: Nodes, edges: Edges, metadata: Mapping[str, Any]) -> HardwareNetwork:
    """The float network of a graph of `nir_plain`: NIR's reading of its nodes, with the names it was written from."""
    content = json.loads(metadata[PLAIN])
    if content["version"] != PLAIN_VERSION:
        raise NetworkError(f"version {content['version']} of the metadata; this release reads version {PLAIN_VERSION}")
    leaky = sorted(n for n, node in nodes.items() if type(node).__name__ == "LIF")
    if content["reader"] == "sinabs" and leaky:
        raise UnsupportedError(
            f"nodes {leaky}: their tau is Sinabs's, which decays by exp(-1 / tau) a step and not as NIR says; export "
            "with --nir-reader nir"
        )
    spec = InputSpec(tuple(content["input"]["shape"]), content["input"]["kind"], content["input"]["maximum"])
    # Plain graphs say v_reset = 0 for tools that know no other, of neurons whose spikes subtract.
    reading = Reading(content["time_steps"], spec.kind, spec.maximum, content["time_step"], "subtract")
    network = network_of(content["name"], nodes, edges, reading=reading)
    populations = {entry["node"]: entry["name"] for entry in content["populations"]}
    connections = {entry["node"]: entry["connections"][0] for entry in content["connections"]}

    def named(c: Connection) -> Connection:
        source, target = populations.get(c.source, c.source), populations[c.target]
        along = [connections[node] for node in c.name.split("+") if node in connections]
        name = f"{target}_current" if c.source == ALWAYS_ON else along[0] if along else c.name
        return dataclasses.replace(c, name=name, source=source, target=target)

    flat = all(c.geometry == DENSE for c in network.connections if c.source == INPUT)
    return dataclasses.replace(
        network,
        input=spec if flat else network.input,
        populations=tuple(dataclasses.replace(p, name=populations[p.name]) for p in network.populations),
        connections=tuple(map(named, network.connections)),
        readout=dataclasses.replace(network.readout, source=populations[network.readout.source]),
        provenance={**content["provenance"], "from_nir": {**network.provenance["from_nir"], "known": "as written"}},
    )


def _connection(entry: Mapping[str, Any], node: Any, *, integer: bool) -> Connection:
    arguments = dict(entry["geometry"])
    geometry = _GEOMETRIES[arguments.pop("kind")](**arguments)
    weight: Array = node.metadata.get("kernel", node.scale if hasattr(node, "scale") else getattr(node, "weight", None))
    if entry["source"] == ALWAYS_ON:
        weight = weight.reshape(-1, 1)
    weight = np.ldexp(weight, -entry["weight_exponent"])
    if integer:
        if not np.array_equal(weight, np.rint(weight)):
            where = f'node "{entry["node"]}" ({type(node).__name__})'
            raise NetworkError(f"{where}: weights that are no multiples of 2**{entry['weight_exponent']}, its exponent")
        weight = weight.astype(np.int32)
    rest = {name: entry[name] for name in ("name", "source", "target", "delay", "weight_exponent", "weight_bits")}
    return Connection(weight=weight, geometry=geometry, period=entry.get("period", 1), **rest)


def _require_same(expected: Any, nodes: Nodes, edges: Edges) -> None:
    """Raise if the nodes are not those that the metadata lead to, naming all that differ."""
    found = []
    for name in sorted(set(nodes) | set(expected.nodes)):
        there, wanted = nodes.get(name), expected.nodes.get(name)
        if there is None or wanted is None or type(there) is not type(wanted):
            kinds = [type(n).__name__ if n is not None else "no node" for n in (there, wanted)]
            found.append(Violation(f'node "{name}"', kinds[0], f"{kinds[1]}, by the metadata"))
            continue
        for entry in dataclasses.fields(wanted):
            if entry.name == "metadata":
                continue
            pair = getattr(there, entry.name), getattr(wanted, entry.name)
            if not _same(*pair):
                where = f'node "{name}" ({type(wanted).__name__})'
                found.append(Violation(where, f"another {entry.name}", "the one that the metadata lead to"))
    if sorted(edges) != sorted(expected.edges):
        changed = sorted(set(edges) ^ set(expected.edges))
        found.append(Violation("edges", f"differences at {changed}", "those that the metadata lead to"))
    refuse(NetworkError, "its nodes contradict its metadata", found)


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return sorted(found) == sorted(expected) and all(_same(found[k], expected[k]) for k in expected)
    return np.array_equal(np.asarray(found), np.asarray(expected))


_OWN: Mapping[str, Callable[[Nodes, Edges, Mapping[str, Any]], HardwareNetwork]] = {
    METADATA: _own,
    PLAIN: _plain_graph,
}
"""Entry of a graph's metadata -> how a graph with it is read."""
