"""Which populations a network has and what joins them: the chain that the notation says, or any graph.

Populations are in the order in which connections first lead to them. A connection from the input or from an earlier
population is *forward*, one from the same or a later population is *feedback*. The last population is read out. In one
step forward connections are immediate in the papers' timing, and a feedback takes a step; on hardware each population's
window begins one step after that of the population before it, so that a spike comes back over a feedback from
population i to j in i - j + 1 steps of both windows.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fsnn_lava.config.convolution_taps import Taps
from fsnn_lava.config.layer_kinds import Shape
from fsnn_lava.config.notation import LayerSpec, parse_spec
from fsnn_lava.errors import SpecError

if TYPE_CHECKING:
    from fsnn_lava.config.settings import NetworkConfig

INPUT = "input"
"""Name of what arrives from outside."""


@dataclass(frozen=True)
class ConnectionSpec:
    """One connection: from where to where, and how it maps the shape of its source.

    Parameters
    ----------
    name : unique among a network's connections.
    source, target : populations, counted from 0; source -1 is the input.
    layer : a convolution, a linear layer, a kind from outside, or the pool of a connection that averages alone.
    pool : average pool after the layer, merged into the connection; or None.
    taps : where the weights of a convolution lie in its kernel; None: everywhere.
    input_shape, shape : (C, H, W) or (N,) of source and target.
    """

    name: str
    source: int
    target: int
    layer: LayerSpec
    pool: LayerSpec | None
    input_shape: Shape
    shape: Shape
    taps: Taps | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters as the papers count, `LayerSpec.parameters`."""
        if self.taps is None:
            return self.layer.parameters(self.input_shape)
        return math.prod(self.taps.weight_shape(self.layer, self.input_shape)) + self.layer.features

    @property
    def is_feedback(self) -> bool:
        """Whether it leads back, to the same or an earlier population."""
        return self.source >= self.target


@dataclass(frozen=True)
class Topology:
    """Populations and connections of a network, with their shapes.

    Parameters
    ----------
    names, shapes : of the populations, first to last.
    forward, feedback : the connections; forward ones sorted by their target.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    forward: tuple[ConnectionSpec, ...]
    feedback: tuple[ConnectionSpec, ...]

    def __str__(self) -> str:
        sources = (INPUT, *self.names)
        said = (f"{sources[c.source + 1]} -{c.layer}-> {self.names[c.target]}" for c in self.connections)
        return ", ".join(said)

    @property
    def connections(self) -> tuple[ConnectionSpec, ...]:
        """All of them, forward ones first."""
        return (*self.forward, *self.feedback)

    def loop_delays(self, timing: Literal["sequential", "hardware"]) -> tuple[int, ...]:
        """Steps until a spike comes back over each feedback."""
        return tuple(c.source - c.target + 1 if timing == "hardware" else 1 for c in self.feedback)

    def neurons(self, input_shape: Shape) -> int:
        """Number of neurons as the papers count: input elements and all populations, not the classifier's outputs."""
        return math.prod(input_shape) + sum(map(math.prod, self.shapes))

    def parameters(self, classes: int) -> int:
        """Number of parameters as the papers count, `NetworkSpec.parameters`."""
        weights = sum(c.parameters for c in self.connections)
        return weights + classes * math.prod(self.shapes[-1]) + classes


def topology_of(network: NetworkConfig, input_shape: Shape) -> Topology:
    """The populations and connections that settings name, for an input of that shape.

    Raises
    ------
    SpecError : naming the layer or connection whose shapes do not fit.
    """
    return _graph(network, input_shape) if network.connections else _chain(network, input_shape)


def _chain(network: NetworkConfig, input_shape: Shape) -> Topology:
    spec = parse_spec(network.notation)
    populations = spec.populations(input_shape, pooling=network.pooling)
    names = tuple(p.name for p in populations)
    forward = tuple(
        ConnectionSpec(f"{source}_to_{p.name}", number - 1, number, p.layer, p.pool, p.input_shape, p.shape)
        for number, (source, p) in enumerate(zip((INPUT, *names), populations, strict=False))
    )
    first, last = populations[0].shape, populations[-1].shape
    feedback: tuple[ConnectionSpec, ...] = ()
    if spec.feedback is not None:
        feedback = (ConnectionSpec("feedback", len(names) - 1, 0, spec.feedback, None, last, first),)
    return Topology(names, tuple(p.shape for p in populations), forward, feedback)


def population_order(network: NetworkConfig) -> tuple[str, ...]:
    """Names of a graph's populations, in the order in which connections first lead to them."""
    return tuple(dict.fromkeys(c.target for c in network.connections))


def _graph(network: NetworkConfig, input_shape: Shape) -> Topology:
    names = population_order(network)
    number = {INPUT: -1} | {name: i for i, name in enumerate(names)}
    shapes: dict[int, Shape] = {-1: tuple(input_shape)}
    said: dict[int, str] = {}  # which connection a population's shape is from
    made: dict[int, ConnectionSpec] = {}
    waiting = list(range(len(network.connections)))
    # A feedback into a population that nothing else leads to gives it its shape once its own source has one.
    while waiting:
        ready = [index for index in waiting if number[network.connections[index].source] in shapes]
        if not ready:
            stuck = ", ".join(network.connections[index].place(index) for index in waiting)
            raise SpecError(f"{stuck}: nothing leads there from the input; every population must hear it, if by others")
        for index in ready:
            c = network.connections[index]
            where, source, target = c.place(index), number[c.source], number[c.target]
            layer, pool, taps = c.read(index)
            try:
                shape = layer.output_shape(shapes[source])
                shape = shape if pool is None else pool.output_shape(shape)
                groups = 1 if taps is None else taps.groups
                if shapes[source][0] % groups or layer.features % groups:
                    ends = f"{shapes[source][0]} channels to {layer.features}"
                    raise SpecError(f"found {groups} groups of {ends}; allowed: what divides both")
            except SpecError as error:
                raise SpecError(f"{where}: {error}") from None
            if shapes.setdefault(target, shape) != shape:
                raise SpecError(
                    f"{where}: makes {shape} of {shapes[source]}, but {said[target]} makes {shapes[target]}; all "
                    f'connections into "{c.target}" must lead to one shape'
                )
            said.setdefault(target, where)
            name = f"{c.source}_to_{c.target}"
            made[index] = ConnectionSpec(name, source, target, layer, pool, shapes[source], shape, taps)
        waiting = [index for index in waiting if index not in ready]
    written = _told_apart([made[index] for index in range(len(made))])
    return Topology(
        names,
        tuple(shapes[i] for i in range(len(names))),
        tuple(sorted((c for c in written if not c.is_feedback), key=lambda c: c.target)),
        tuple(c for c in written if c.is_feedback),
    )


def _told_apart(connections: list[ConnectionSpec]) -> list[ConnectionSpec]:
    """The same with numbers behind the names of all but the first that join the same two populations."""
    seen: Counter[str] = Counter()
    found = []
    for c in connections:
        seen[c.name] += 1
        found.append(c if seen[c.name] == 1 else replace(c, name=f"{c.name}_{seen[c.name]}"))
    return found
