"""Understand the nodes and edges of any NIR graph as a float `HardwareNetwork`.

Understood are Input and Output (one each), Linear, Affine, Conv2d, AvgPool2d, SumPool2d, Flatten, IF, LIF and CubaLIF,
and edges among them, loops through neurons included; a graph within the graph is taken as its nodes. IF, LIF and
CubaLIF become populations, whose parameters may be one number for all neurons; what lies between two of them becomes a
connection: one Linear or one Conv2d (with or without a pool after it) as it is, anything else multiplied out. An output
may declare axes of size 1 more or less than it gets. Biases become constant currents. What follows the last population
is the readout. How NIR's equations become steps, and which reset is meant, is on the page docs/nir-reading.md.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from fsnn_lava.conversion.nir_nodes import (
    POOLS,
    linear_map_of,
    node_faults,
    reached,
    shape_of,
    share_of_mean,
    time_constants,
    window,
)
from fsnn_lava.errors import FsnnError, NetworkError, UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    DENSE,
    INPUT,
    Array,
    Connection,
    Convolution,
    FloatNeuron,
    HardwareNetwork,
    InputSpec,
    LinearMap,
    Population,
    Readout,
    Shape,
    Violation,
    pooled,
)

Nodes = Mapping[str, Any]
Edges = Sequence[tuple[str, str]]
Path = tuple[str, ...]
"""Names of the nodes between two ends, in the direction of the edges."""

PRODUCT_LIMIT = 2**24
"""Most weights of a connection that is multiplied out, 8 bytes each."""
_NEURONS = ("IF", "LIF", "CubaLIF")
_TYPES = ("Input", "Output", "Linear", "Affine", "Conv2d", *POOLS, "Flatten", *_NEURONS)


NirReset = Literal["zero", "subtract", "unleaked"]
"""What a spike does in the neurons of a graph: see `RESETS`."""

RESETS: Mapping[NirReset, str] = {
    "zero": "a spike sets the potential to 0",
    "subtract": "a spike subtracts v_threshold - v_reset, before the leak of the next step",
    "unleaked": "a spike subtracts v_threshold - v_reset after the leak of the next step, as snnTorch does",
}
"""Each reset in words."""


@dataclass(frozen=True)
class Reading:
    """Facts that a NIR file leaves open, as the caller gives them.

    Parameters
    ----------
    reset : of all neurons; None: that of the file, see `reset_of`.
    without_v_reset : neurons whose nodes say nothing of a reset.
    """

    time_steps: int
    input_kind: Literal["event", "graded"]
    input_maximum: int
    time_step: float
    reset: NirReset | None = None
    without_v_reset: frozenset[str] = frozenset()

    def reset_of(self, name: str) -> NirReset:
        """What a spike does in a neuron's node.

        By NIR's definition it sets the potential to v_reset; files that have no v_reset are older than that, when NIR
        defined the reset as a subtraction.
        """
        return self.reset or ("subtract" if name in self.without_v_reset else "zero")

    def known_by(self, names: Sequence[str]) -> str:
        """By which words the resets of these neurons are known."""
        if self.reset is not None:
            return "as asked for"
        silent = [name for name in names if name in self.without_v_reset]
        if not silent:
            return (
                "by NIR's definition of the file's v_reset; tools whose neurons subtract may have written the "
                "same, then --nir-reset says so"
            )
        which = "the file has" if len(silent) == len(names) else f"{', '.join(silent)} have"
        return f"assumed, since {which} no v_reset; other tools mean zero or unleaked, then --nir-reset says so"


def refuse(error: type[FsnnError], what: str, violations: Sequence[Violation]) -> None:
    """Raise one error that names all violations, if there are any."""
    if violations:
        listed = "\n  ".join(map(str, violations))
        raise error(f"{what}, {len(violations)} violation(s):\n  {listed}")


def network_of(name: str, nodes: Nodes, edges: Edges, *, reading: Reading) -> HardwareNetwork:
    """Make the network that a graph describes, in sequential timing.

    Raises
    ------
    UnsupportedError : naming every node that cannot be understood, with its type.
    NetworkError : naming every edge whose ends have different shapes.
    """
    graph = _Graph(nodes, edges, reading)
    refuse(UnsupportedError, "cannot be understood", graph.node_violations())
    refuse(UnsupportedError, "cannot be understood", graph.topology_violations())
    refuse(NetworkError, "its shapes disagree", graph.shape_violations())
    refuse(UnsupportedError, "cannot be understood", graph.product_violations())
    populations = tuple(Population(n, graph.sent[n], graph.neuron(n)) for n in graph.order)
    connections, readout = graph.connections(), graph.readout()
    spec = InputSpec(graph.sent[graph.only("Input")], reading.input_kind, reading.input_maximum)
    laws = {n: RESETS[reading.reset_of(n)] for n in graph.order}
    same = len(set(laws.values())) == 1
    law = laws[graph.order[0]] if same else "; ".join(f"{n}: {text}" for n, text in laws.items())
    provenance = {"from_nir": {"time_step": reading.time_step, "reset": law, "known": reading.known_by(graph.order)}}
    return HardwareNetwork(name, spec, populations, connections, readout, reading.time_steps, provenance)


class _Graph:
    """Questions to one graph. Shapes and paths make sense once there are no violations of nodes and topology."""

    def __init__(self, nodes: Nodes, edges: Edges, reading: Reading) -> None:
        self.nodes, self.edges, self.reading = nodes, edges, reading
        self.sent: dict[str, Shape] = {}

    def kind(self, name: str) -> str:
        return type(self.nodes[name]).__name__

    def where(self, name: str) -> str:
        return f'node "{name}" ({self.kind(name)})'

    def only(self, kind: str) -> str:
        """The one node of that type."""
        return next(n for n in self.nodes if self.kind(n) == kind)

    def before(self, name: str) -> list[str]:
        return [a for a, b in self.edges if b == name]

    def is_source(self, name: str) -> bool:
        return self.kind(name) in ("Input", *_NEURONS)

    @functools.cached_property
    def order(self) -> list[str]:
        """Populations, as they are reached from the input: reversed postorder of a depth-first search."""
        finished: list[str] = []
        seen: set[str] = set()

        def visit(name: str) -> None:
            seen.add(name)
            for a, b in self.edges:
                if a == name and b not in seen:
                    visit(b)
            finished.append(name)

        visit(self.only("Input"))
        return [n for n in reversed(finished) if self.kind(n) in _NEURONS]

    def node_violations(self) -> list[Violation]:
        found = []
        for name, node in self.nodes.items():
            if self.kind(name) not in _TYPES:
                found.append(Violation(self.where(name), "a type without a counterpart", ", ".join(_TYPES)))
                continue
            faults = node_faults(node, self.reading.time_step) + self._reset_faults(name)
            found += [Violation(self.where(name), *fault) for fault in faults]
        return found

    def _reset_faults(self, name: str) -> list[tuple[str, str]]:
        """A reset to another potential than that from which a neuron starts."""
        if self.kind(name) not in _NEURONS or self.reading.reset_of(name) != "zero":
            return []
        value = np.asarray(self.nodes[name].v_reset)
        if not np.any(value):
            return []
        found = f"v_reset from {value.min():g} to {value.max():g}"
        return [(found, "0, from which the potential starts; or --nir-reset subtract or unleaked, if that is meant")]

    def topology_violations(self) -> list[Violation]:
        found = []
        for a, b in self.edges:
            missing = [n for n in (a, b) if n not in self.nodes]
            if missing:
                found.append(Violation(f'edge "{a}" -> "{b}"', f"no node {missing}", "ends that exist"))
        if len(set(self.edges)) < len(self.edges):
            twice = sorted({e for e in self.edges if list(self.edges).count(e) > 1})
            found.append(Violation("edges", f"{twice} twice", "each once"))
        for kind in ("Input", "Output"):
            names = [n for n in self.nodes if self.kind(n) == kind]
            if len(names) != 1:
                found.append(Violation("graph", f"{len(names)} {kind} nodes {names}", "one"))
        if found:
            return found
        left = {a for a, _ in self.edges}
        entered = {b for _, b in self.edges}
        for name in self.nodes:
            if name not in entered and self.kind(name) != "Input":
                found.append(
                    Violation(self.where(name), "nothing that leads to it", "an edge from the input or a neuron")
                )
            if name not in left and self.kind(name) != "Output":
                found.append(
                    Violation(self.where(name), "nowhere that it leads to", "an edge to a neuron or the output")
                )
        loop = self._loop_without_neuron()
        if loop:
            return [
                *found,
                Violation("graph", f"a loop without a neuron through {loop}", "IF, LIF or CubaLIF in every loop"),
            ]
        unreached = [n for n in self.nodes if self.kind(n) in _NEURONS and n not in self.order]
        found += [Violation(self.where(n), "no path from the input", "at least one") for n in unreached]
        ends = [source for source, _ in self.paths(self.only("Output"))]
        if len(ends) != 1 or self.kind(ends[0]) not in _NEURONS:
            found.append(Violation("output", f"paths from {ends}", "one, from an IF, LIF or CubaLIF node"))
        return found

    def _loop_without_neuron(self) -> list[str]:
        """Nodes in or behind a loop of connections alone."""
        left = [n for n in self.nodes if not self.is_source(n)]
        while True:
            kept = [n for n in left if any(b in left for b in self.before(n))]
            if len(kept) == len(left):
                return kept
            left = kept

    def shape_violations(self) -> list[Violation]:
        """Edges whose ends disagree. Fills in the shapes that nodes send."""
        for name in self.nodes:
            self._shape(name)
        found = []
        for a, b in self.edges:
            where, sent = f'edge "{a}" ({self.kind(a)}) -> "{b}" ({self.kind(b)})', self.sent[a]
            if sent and self.kind(b) in ("Conv2d", *POOLS) and len(sent) != 3:
                found.append(Violation(where, f"shape {sent} sent", "three axes, (C, H, W)"))
            elif sent and sent != self._wanted(b) and not (self.kind(b) == "Output" and _same(sent, self._wanted(b))):
                found.append(Violation(where, f"shape {sent} sent", f"{self._wanted(b)}, what the other end declares"))
        return found

    def product_violations(self) -> list[Violation]:
        """Paths that would have to be multiplied out and are too large for it."""
        found = []
        for target in (*self.order, self.only("Output")):
            for source, path in self.paths(target):
                weights = prod(self.sent[source]) * prod(self.sent[target])
                if weights > PRODUCT_LIMIT and self._is_product(self.maps(path), target):
                    where = "path " + " -> ".join(f'"{name}"' for name in (source, *path, target))
                    found.append(Violation(where, f"{weights} weights when multiplied out", f"at most {PRODUCT_LIMIT}"))
        return found

    def _shape(self, name: str) -> Shape:
        """What a node sends; () if what arrives is not what it can take."""
        if name not in self.sent:
            node, kind = self.nodes[name], self.kind(name)
            if kind == "Input":
                shape = shape_of(node.input_type["input"])
            elif kind in _NEURONS:
                shape = node.v_threshold.shape or self._of_scalars(name)
            elif kind in ("Linear", "Affine"):
                shape = node.weight.shape[:1]
            else:
                shape = reached(node, kind, self._arriving(name))
            self.sent[name] = shape
        return self.sent[name]

    def _of_scalars(self, name: str) -> Shape:
        """How many neurons a node of single numbers has: as many as the first arriving edge that says it brings."""
        self.sent[name] = ()  # a loop leads back here
        for before in self.before(name):
            shape = self._shape(before)
            if shape:
                return shape
        return ()

    def _arriving(self, name: str) -> Shape:
        return self._shape(self.before(name)[0])

    def _wanted(self, name: str) -> Shape:
        """What a node declares to take; where it declares nothing, what its first edge sends."""
        node, kind = self.nodes[name], self.kind(name)
        if kind in _NEURONS:
            return self.sent[name]
        if kind in ("Linear", "Affine"):
            return shape_of(node.weight.shape[1:])
        if kind == "Conv2d":
            sides = self._arriving(name)[1:] if node.input_shape is None else shape_of(node.input_shape)
            return (node.weight.shape[1], *sides)
        if kind == "Output":
            return shape_of(node.output_type["output"])
        declared = node.input_type["input"]
        return self._arriving(name) if declared is None else shape_of(declared)

    def paths(self, target: str) -> Iterator[tuple[str, Path]]:
        """Sources and the nodes between them and a target."""
        for name in self.before(target):
            if self.is_source(name):
                yield name, ()
            else:
                yield from ((source, (*path, name)) for source, path in self.paths(name))

    def maps(self, path: Path) -> list[LinearMap]:
        """The linear maps along a path; pooling is merged into a convolution before it."""
        made: list[LinearMap] = []
        for i, name in enumerate(path):
            node, kind = self.nodes[name], self.kind(name)
            if kind in POOLS and i and self.kind(path[i - 1]) == "Conv2d":
                last = made.pop()
                assert isinstance(last.geometry, Convolution)
                weight, geometry = pooled(last.weight, last.geometry, window(node))
                made.append(LinearMap(geometry, weight * share_of_mean(node, kind), last.source, self.sent[name]))
            elif kind != "Flatten":
                made.append(linear_map_of(node, kind, self._arriving(name), self.sent[name]))
        return made

    def _is_product(self, maps: Sequence[LinearMap], target: str) -> bool:
        """Whether they have to be multiplied out: several, none, or a convolution into a flat target."""
        return len(maps) != 1 or (maps[0].geometry != DENSE and len(self.sent[target]) != 3)

    def combined(self, source: str, path: Path, target: str) -> LinearMap:
        """One map for a whole path."""
        maps, ends = self.maps(path), (self.sent[source], self.sent[target])
        if not self._is_product(maps, target):
            return maps[0]
        if not maps:
            return LinearMap(DENSE, np.eye(prod(ends[0])), *ends)
        matrix = functools.reduce(lambda product, m: m.unrolled() @ product, maps[1:], maps[0].unrolled())
        return LinearMap(DENSE, matrix.toarray(), *ends)

    def bias(self, target: str, path: Path = ()) -> Array:
        """(N_target,) sum of all biases on the way to a target, as what follows them makes of them."""
        first = path[0] if path else target
        total = np.zeros(prod(self.sent[target]))
        for name in self.before(first):
            if self.is_source(name):
                continue
            bias = getattr(self.nodes[name], "bias", None)
            if bias is not None and np.any(bias):
                value = np.repeat(bias.astype(np.float64), prod(self.sent[name]) // len(bias))[None]
                for linear in self.maps(path):
                    value = linear.product(value)
                total += value[0]
            total += self.bias(target, (name, *path))
        return total

    def gain(self, name: str) -> float:
        """What a neuron's potential gains in a step from an input of 1 in that step."""
        node, step = self.nodes[name], self.reading.time_step
        gain = float(node.r.flat[0]) * (step if self.kind(name) == "IF" else self._share(name, "membrane"))
        return gain * float(node.w_in.flat[0]) * self._share(name, "synapse") if self.kind(name) == "CubaLIF" else gain

    def _share(self, name: str, part: Literal["membrane", "synapse"]) -> float:
        """Share of its distance from rest that a neuron's potential, or synaptic current, loses in a step."""
        constants = time_constants(self.nodes[name])
        tau = constants["tau_syn"] if part == "synapse" else constants.get("tau_mem", constants.get("tau"))
        return self.reading.time_step / float(tau.flat[0]) if tau is not None else 0.0

    def neuron(self, name: str) -> FloatNeuron:
        node = self.nodes[name]
        threshold, leak = float(node.v_threshold.flat[0]), 1 - self._share(name, "membrane")
        current_leak = 1 - self._share(name, "synapse") if self.kind(name) == "CubaLIF" else 0.0
        above = float(np.nextafter(threshold, np.inf))
        law, amount = self.reading.reset_of(name), threshold - float(node.v_reset.flat[0])
        if law == "zero":
            return FloatNeuron(above, above, leak, "zero", current_leak)
        return FloatNeuron(above, amount / leak if law == "unleaked" else amount, leak, "subtract", current_leak)

    def connections(self) -> tuple[Connection, ...]:
        """One per path between two ends, and the constant currents."""
        made: list[Connection] = []
        for target in self.order:
            for source, path in self.paths(target):
                linear = self.combined(source, path, target)
                feedback = source in self.order and self.order.index(source) >= self.order.index(target)
                name = _unused("+".join(path) or f"{source} to {target}", {c.name for c in made})
                end = source if source in self.order else INPUT
                weight = linear.weight * self.gain(target)
                made.append(Connection(name, end, target, weight, int(feedback), geometry=linear.geometry))
            current = self.bias(target) * self.gain(target)
            if self.kind(target) != "IF":
                leaking = np.broadcast_to(self.nodes[target].v_leak.reshape(-1), current.shape)
                current = current + self._share(target, "membrane") * leaking
            if current.any():
                name = _unused(f"{target}_current", {c.name for c in made})
                made.append(Connection(name, ALWAYS_ON, target, current[:, None].astype(np.float64)))
        return tuple(made)

    def readout(self) -> Readout:
        """What follows the last population."""
        output = self.only("Output")
        ((source, path),) = self.paths(output)
        linear = self.combined(source, path, output)
        weight = linear.unrolled().toarray() if linear.geometry != DENSE else linear.weight
        return Readout(source, np.asarray(weight, np.float64), self.bias(output))


def _same(one: Shape, other: Shape) -> bool:
    """Tell whether two shapes differ in axes of size 1 alone."""
    return [n for n in one if n != 1] == [n for n in other if n != 1]


def _unused(name: str, taken: set[str]) -> str:
    unused, count = name, 1
    while unused in taken:
        count += 1
        unused = f"{name}_{count}"
    return unused
