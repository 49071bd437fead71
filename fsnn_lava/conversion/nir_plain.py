"""Write a network as a plain NIR graph that other tools read: one IF or LIF node a population, and no Delay.

`nir_write` says our law exactly, in several nodes a population, which Norse, Sinabs, snnTorch and nirtorch do not
understand. The plain form gives up the exact reset and, with several populations, the loop's delay. What it gives up
stands in the file, and `plain_differences` returns it. `docs/nir.md` says what each tool makes of a file.

================  =================================================================================================
network           NIR nodes
================  =================================================================================================
population        ``IF`` (leak 1) or ``LIF``, v_reset and v_leak 0. Threshold: the next smaller float32 of what a spike
                  subtracts, so that tools which fire above it and tools which fire at it do the same
tau, r            the tools disagree about both, so `Reader` says whose they are
dense             ``Affine``; its input is flat where nothing else but such nodes takes it
convolution       ``Conv2d``; before ``Affine``, ``Flatten`` of the last three axes, which leaves a batch alone
transposed        unrolled to ``Affine``, as `nir_write` does
parallel ones     added up: connections of one kind between the same two ends
constant current  the bias of the one way forward into its population; of pulses their mean. Where it differs among the
                  positions of a channel (codes with zeros around them), a ``Conv2d`` of 1 x 1 adds a channel of ones to
                  the source, whose kernel makes the border; or the convolution is unrolled
feedback          an edge that closes a cycle: what the tools run takes the last step's value there
readout           ``Affine``. Its outputs' mean over the steps (of LIF weighted as firing rates are) is the logits
integers          weights w · 2^e, thresholds in weight units. What negative exponents round off is not said; its mean
                  is in the biases
================  =================================================================================================

Numbers are float32, as in the tools; integers of less than 24 bits are exact in it.
"""

import io
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import log, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fsnn_lava.conversion.nir_write import (
    UNROLLED_LIMIT,
    conv2d,
    flat_populations,
    is_unrolled,
    require_nir,
    require_time_step,
    too_large,
    unrolled_size,
)
from fsnn_lava.errors import ConfigError, UnsupportedError, counted
from fsnn_lava.files import write_whole
from fsnn_lava.hardware import (
    ALWAYS_ON,
    DENSE,
    INPUT,
    Array,
    Connection,
    Convolution,
    HardwareNetwork,
    LinearMap,
    Population,
    Shape,
    TransposedConvolution,
    Violation,
    mean_floor,
    metadata_text,
    real_weight,
    summed_weight,
)

PLAIN = "fsnn_lava_plain"
"""Entry of the graph's metadata."""
PLAIN_VERSION = 1
Reader = Literal["nir", "sinabs", "snntorch"]
"""Whose tau and r. nir: NIR's equations with r = 1, as Norse takes them, snnTorch where no population is IF, Sinabs
where none is LIF. sinabs: it decays by exp(-1 / tau) a step. snntorch: IF is written as a LIF that keeps all."""
READERS: tuple[Reader, ...] = ("nir", "sinabs", "snntorch")
SNNTORCH_STEP = 1e-4
"""Length of a step in snnTorch 1.0, which has no option for it."""
KEEPS_ALL = 2.0**40
"""Steps of a time constant so long that a float32 leak is 1."""
OWN_PROVENANCE = ("classes", "config", "input_coding", "metrics", "package")
"""What of the network's provenance the file keeps: what does not depend on integers."""


@dataclass(frozen=True)
class PlainForm:
    """How a plain graph is to be written.

    Parameters
    ----------
    reader : whose tau and r.
    time_step : length of one step in the graph's unit of time; None: 1 where no population leaks and for Sinabs,
        else 1e-4, which snnTorch assumes.
    """

    reader: Reader = "nir"
    time_step: float | None = None

    def step(self, network: HardwareNetwork) -> float:
        """The time step for a network.

        Raises
        ------
        ConfigError : if it is none, or not the one that the reader assumes.
        """
        if self.reader not in READERS:
            raise ConfigError(f'reader "{self.reader}"; allowed: {", ".join(READERS)}')
        leaks = any(p.neuron.leak < 1 for p in network.populations)
        assumed = {"sinabs": 1.0, "snntorch": SNNTORCH_STEP}.get(self.reader)
        if self.time_step is None:
            return assumed or (SNNTORCH_STEP if leaks else 1.0)
        if assumed is not None and self.time_step != assumed:
            raise ConfigError(f"time_step is {self.time_step}; allowed: {assumed:g}, which {self.reader} assumes")
        return require_time_step(self.time_step)


NIRS_OWN = PlainForm()
"""The plain form by NIR's equations."""


def write_plain_nir(network: HardwareNetwork, path: str | Path, *, form: PlainForm = NIRS_OWN) -> Path:
    """Write a network as a plain NIR file and return its path; after an error the file is as it was before.

    Raises
    ------
    UnsupportedError : naming every connection that a plain graph cannot say.
    ConfigError : if the time step is not one that the reader takes.
    NetworkError : if the provenance is not JSON.
    MissingDependencyError : if nir is not installed.
    OutputError : if the file cannot be written.
    """
    image = io.BytesIO()
    require_nir().write(image, plain_graph(network, form=form))
    write_whole(Path(path), image.getvalue())
    return Path(path)


def plain_graph(network: HardwareNetwork, *, form: PlainForm = NIRS_OWN) -> Any:
    """Build the ``nir.NIRGraph`` that `write_plain_nir` writes.

    Raises
    ------
    As `write_plain_nir`.
    """
    step = form.step(network)
    require_plain(network, form=form)
    return _Builder(_Plan(network, form.reader), step).graph()


def require_plain(network: HardwareNetwork, *, form: PlainForm = NIRS_OWN) -> None:
    """Raise if a plain graph cannot express the network.

    Raises
    ------
    UnsupportedError : naming every connection that it cannot say.
    ConfigError : if the time step is not one that the reader takes.
    """
    form.step(network)
    violations = _Plan(network, form.reader).violations()
    if violations:
        listed = "\n  ".join(map(str, violations))
        raise UnsupportedError(
            f'plain NIR cannot say network "{network.name}", {len(violations)} violation(s); nothing was written:\n  '
            f"{listed}"
        )


def plain_differences(network: HardwareNetwork, *, form: PlainForm = NIRS_OWN) -> list[str]:
    """What a plain graph says otherwise than the network that it is made of, one sentence each."""
    return _Plan(network, form.reader).differences()


@dataclass(frozen=True, eq=False)
class _Way:
    """Parallel connections of one kind between the same ends, as one."""

    parts: tuple[Connection, ...]

    @property
    def first(self) -> Connection:
        return self.parts[0]

    @property
    def weight(self) -> Array:
        return summed_weight(self.parts)


class _Plan:
    """Which nodes a network becomes, and what of it no node says."""

    def __init__(self, network: HardwareNetwork, reader: Reader) -> None:
        self.network, self.reader = network, reader
        self.place = {INPUT: -1} | {p.name: i for i, p in enumerate(network.populations)}
        self.ways = self._grouped([c for c in network.connections if c.source != ALWAYS_ON])
        self.currents = {p.name: self._current(p) for p in network.populations}
        # Sinabs 3.1.3 reads LIF of one axis alone: it asks for the truth of v_leak's rows.
        besides = [p.name for p in network.populations if reader == "sinabs" and p.neuron.leak < 1]
        chosen = self._uneven()
        transposed = [w for w in self.ways if isinstance(w.first.geometry, TransposedConvolution)]
        refused = [w for w in transposed if unrolled_size(network, w.first) > UNROLLED_LIMIT]
        without = [c for w in refused for c in w.parts]  # what follows from them is not refused as well
        self.flat = flat_populations(network, without=without, besides=[*besides, *(w.first.target for w in chosen)])
        self.unrolled = [w for w in self.ways if is_unrolled(w.first, self.flat) or w in chosen]
        if any(unrolled_size(network, w.first) > UNROLLED_LIMIT for w in self.unrolled if w not in refused):
            self.flat = flat_populations(network, without=without, besides=besides)
            self.unrolled = [w for w in self.ways if is_unrolled(w.first, self.flat)]

    def _grouped(self, connections: Sequence[Connection]) -> list[_Way]:
        groups: dict[Any, list[Connection]] = {}
        for c in connections:
            groups.setdefault((c.source, c.target, c.geometry, self.network.local_delay(c)), []).append(c)
        return [_Way(tuple(parts)) for parts in groups.values()]

    def is_forward(self, way: _Way) -> bool:
        return self.place[way.first.source] < self.place[way.first.target]

    def forward(self, target: str) -> list[_Way]:
        return [w for w in self.ways if w.first.target == target and self.is_forward(w)]

    def _current(self, population: Population) -> Array:
        """(N,) constant current, less the mean of what negative exponents round off."""
        current = np.zeros(population.size)
        for c in self.network.incoming(population.name):
            if c.source == ALWAYS_ON:
                current += real_weight(c)[:, 0]
            else:
                current -= mean_floor(c.weight_exponent)
        return current

    def _uneven(self) -> list[_Way]:
        """Convolutions that are better unrolled for their currents: all in integers, else what no border makes."""
        exact = self.network.arithmetic == "integer"
        return [
            w
            for p in self.network.populations
            for w in self.forward(p.name)[:1]
            if isinstance(w.first.geometry, Convolution) and not _is_even(self.currents[p.name], p.shape)
            if exact or self.border(w).residual > _tolerance(self.currents[p.name])
        ]

    def border(self, way: _Way) -> "_Border":
        """The constant current of a convolution's target, as its bias and what a channel of ones brings."""
        geometry, target = way.first.geometry, way.first.target
        assert isinstance(geometry, Convolution)
        shapes = (self.network.shape_of(way.first.source), self.network.shape_of(target))
        return _border(self.currents[target], geometry, way.weight.shape[2], *shapes)

    def violations(self) -> list[Violation]:
        """Everything that no plain graph says."""
        found = []
        leading = self._leading()
        for p in self.network.populations:
            found += self._ways_into(p)
            if p.neuron.reset != "subtract" or p.neuron.has_memory_of_current:
                said = "reset by subtraction of currents without memory; the exact form writes others as they are"
                what = "reset to zero" if p.neuron.reset == "zero" else "a current that decays"
                found.append(Violation(f'population "{p.name}"', what, said))
            if p.name not in leading:
                found.append(Violation(f'population "{p.name}"', "no way from it to the readout", "one"))
        for w in self.ways:
            found += self._delay(w)
        if not found:
            found += self._order()
        for w in self.unrolled:
            if unrolled_size(self.network, w.first) > UNROLLED_LIMIT:
                found.append(too_large(self.network, w.first, self._kind(w)))
        for w in filter(self.has_border, self.ways):
            found += self._residual(w)
        return found

    def _kind(self, way: _Way) -> str:
        """Why a way is unrolled."""
        if isinstance(way.first.geometry, TransposedConvolution):
            return "a transposed convolution"
        axis = " (as Sinabs wants of LIF)" if self.reader == "sinabs" else ""
        return f"a convolution from a population of one axis{axis}"

    def _leading(self) -> set[str]:
        """Populations whose spikes reach the readout."""
        leading: set[str] = set()
        more = {self.network.readout.source}
        while more:
            leading |= more
            more = {w.first.source for w in self.ways if w.first.target in leading} - leading
        return leading

    def _ways_into(self, population: Population) -> list[Violation]:
        ways = self.forward(population.name)
        if not ways:
            where = f'population "{population.name}"'
            allowed = "one, from the input or an earlier population; or the exact form"
            return [Violation(where, "no way forward into it", allowed)]
        allowed = (
            f'"{ways[0].first.name}" alone, since Norse and Sinabs deliver another one step late; or the exact form'
        )
        return [Violation(w.first.label, "a second way forward", allowed) for w in ways[1:]]

    def _delay(self, way: _Way) -> list[Violation]:
        found, known = self.network.local_delay(way.first), self._delays(way)
        if found in known:
            return []
        said = " or ".join(map(str, known))
        allowed = f"{said}, as the paths of a graph without Delay give; or the exact form"
        return [Violation(way.first.label, f"{counted(found, 'step')} of local delay", allowed)]

    def _delays(self, way: _Way) -> list[int]:
        """Local delays that are said: none forward; of feedback that of sequential and of hardware timing."""
        if self.is_forward(way):
            return [0]
        return sorted({1, self.place[way.first.source] - self.place[way.first.target] + 1})

    def _order(self) -> list[Violation]:
        """Feedback that would not close a cycle where nodes run depth first, as in Norse and Sinabs."""
        order = self.depth_first()
        return [
            Violation(w.first.label, "feedback between two branches", "feedback that closes a cycle; or the exact form")
            for w in self.ways
            if not self.is_forward(w) and order.index(w.first.source) < order.index(w.first.target)
        ]

    def leaving(self, source: str) -> list[_Way]:
        """Ways from a source in the order in which Norse and Sinabs are to follow them, depth first.

        Back before forward, and what leads to the readout last: they take what runs last for the output.
        """
        to_readout, name = set(), self.network.readout.source
        while name != INPUT and name not in to_readout:
            to_readout.add(name)
            name = next((w.first.source for w in self.forward(name)), INPUT)
        ways = [w for w in self.ways if w.first.source == source]
        return sorted(ways, key=lambda w: (self.is_forward(w), w.first.target in to_readout))  # a stable sort

    def depth_first(self) -> list[str]:
        """Populations in the order in which the ways forward are followed."""
        order: list[str] = []
        waiting = [INPUT]
        while waiting:
            name = waiting.pop()
            order.append(name)
            waiting += reversed([w.first.target for w in self.leaving(name) if self.is_forward(w)])
        return order[1:]

    def _residual(self, way: _Way) -> list[Violation]:
        residual = self.border(way).residual
        most = 1.0 if self.network.arithmetic == "integer" else _tolerance(self.currents[way.first.target])
        if residual <= most:
            return []
        size = unrolled_size(self.network, way.first)
        seen = f"constant currents that are {residual:g} from a bias and a border, and {size} weights when unrolled"
        return [Violation(way.first.label, seen, f"at most {most:g}, or at most {UNROLLED_LIMIT} weights")]

    def differences(self) -> list[str]:
        """What the nodes say otherwise than the network, one sentence each."""
        network = self.network
        said = [
            "reset: here a spike subtracts the threshold from the potential; NIR's IF and LIF are set to v_reset = 0, "
            "and each tool does it its own way (docs/nir.md): what loses the rest above the threshold fires less"
        ]
        for p in network.populations:
            amount = float(p.neuron.reset_amount)
            if abs(amount - p.neuron.v_threshold) > (0.5 if network.arithmetic == "integer" else 0.0):
                said.append(
                    f'threshold: population "{p.name}" fires at {p.neuron.v_threshold:g} here and loses {amount:g}; in '
                    f"the file it fires at {amount:g}, which rounds its rates down"
                )
        for c in (w.first for w in self.ways if not self.is_forward(w)):
            steps = network.local_delay(c)
            if steps != 1:
                said.append(f"timing: {c.label} takes {steps} steps here, and one where the file's cycle closes")
        floored = [c.name for c in network.connections if mean_floor(c.weight_exponent)]
        if floored:
            said.append(
                f"rounding: what {', '.join(floored)} bring is rounded down to half a weight unit here, and not in "
                "the file, whose biases hold the mean of it"
            )
        pulsed = [f"{c.name} sends once in {c.period}" for c in network.connections if c.period > 1]
        if pulsed:
            said.append(
                f"pulses: of the constant currents {', '.join(pulsed)} steps here; in the file their mean is in the "
                "biases (--currents whole makes none)"
            )
        for w in self.ways:
            if self.has_border(w) and self.border(w).residual > _tolerance(self.currents[w.first.target]):
                off = f"{self.border(w).residual:.2g} weight units"
                said.append(f'currents: those into population "{w.first.target}" are up to {off} off in the file')
        leaks = {p.neuron.leak < 1 for p in network.populations}
        if self.reader == "nir" and False in leaks:
            said.append("readers: snnTorch 1.0 does not run IF nodes; for it export with --nir-reader snntorch")
        if self.reader == "nir" and True in leaks:
            said.append(
                "readers: Sinabs 3.1.3 takes tau for another decay; for it export with --nir-reader sinabs. Norse 1.1 "
                "has to be told the time step: from_nir(graph, dt=...)"
            )
        return said

    def has_border(self, way: _Way) -> bool:
        """Whether a bias alone does not say what is constant about a convolution's target."""
        shape = self.network.shape_of(way.first.target)
        kernels = isinstance(way.first.geometry, Convolution) and way not in self.unrolled
        return kernels and self.is_forward(way) and not _is_even(self.currents[way.first.target], shape)


@dataclass(frozen=True, eq=False)
class _Border:
    """Constant currents as (C,) bias and (C, 1, K, K) kernel over ones, and the largest distance from them."""

    bias: Array
    kernel: Array
    residual: float


def _is_even(current: Array, shape: Shape) -> bool:
    """Whether all positions of a channel have the same current."""
    return len(shape) == 3 and not np.ptp(current.reshape(shape[0], -1), axis=1).any()


def _tolerance(current: Array) -> float:
    """Half of what float32 tells apart in the largest current."""
    return float(2.0**-25 * np.abs(current).max())


def _border(current: Array, geometry: Convolution, kernel: int, source: Shape, target: Shape) -> _Border:
    """The nearest bias and kernel, by least squares."""
    inside = np.eye(kernel * kernel).reshape(-1, 1, kernel, kernel)
    plane, sides = (1, *source[1:]), (kernel * kernel, *target[1:])
    seen = LinearMap(geometry, inside, plane, sides).product(np.ones((1, prod(plane))))
    columns = np.vstack([seen.reshape(kernel * kernel, -1), np.ones((1, prod(target[1:])))]).T
    wanted = current.reshape(target[0], -1).T
    solution = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    residual = float(np.abs(columns @ solution - wanted).max())
    return _Border(solution[-1], solution[:-1].T.reshape(-1, 1, kernel, kernel), residual)


@dataclass
class _Builder:
    """Nodes and edges of one network, as far as they are made."""

    plan: _Plan
    time_step: float
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    named: list[dict[str, Any]] = field(default_factory=list)

    def graph(self) -> Any:
        """Add every node and edge; return the graph with its metadata.

        Edges stand in the order in which they have to be followed depth first.
        """
        nir, network = require_nir(), self.plan.network
        self.sources[INPUT] = self._add(INPUT, nir.Input(np.array(self._shape(INPUT))))
        for p in network.populations:
            self.sources[p.name] = self._add(p.name, self._neurons(p))
        for source in (INPUT, *self.plan.depth_first()):
            for way in self.plan.leaving(source):
                self._add_way(way)
        self._add_readout()
        first = self.plan.depth_first()[0]
        if any(w.first.target != first for w in self.plan.ways if not self.plan.is_forward(w)):
            self._number()
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges, metadata=self._metadata())

    def _number(self) -> None:
        """Number the nodes' names as they run.

        HDF5 sorts them. nirtorch 2.6 takes them in that order, and where a population has feedback and is part of
        another loop it takes what is not made yet for feedback too.
        """
        order = [INPUT, *dict.fromkeys(b for _, b in self.edges)]
        names = {name: f"n{i:03d}_{name}" for i, name in enumerate(order)}
        self.nodes = {names[n]: self.nodes[n] for n in order}
        self.edges = [(names[a], names[b]) for a, b in self.edges]
        self.named = [{**entry, "node": names[entry["node"]]} for entry in self.named]
        self.sources = {source: names[node] for source, node in self.sources.items()}

    def _add(self, wanted: str, node: Any) -> str:
        """Add a node; return its name: the wanted one without "/" and ".", if no other node has it."""
        base = wanted.replace("/", "_").replace(".", "_") or "node"
        names = itertools.chain([base], (f"{base}_{i}" for i in itertools.count(2)))
        name = next(n for n in names if n not in self.nodes)
        self.nodes[name] = node
        return name

    def _shape(self, source: str) -> Shape:
        """What its node sends; a flat input where no kernels take it."""
        shape = self.plan.network.shape_of(source)
        taking = [w for w in self.plan.ways if w.first.source == source]
        flat_input = source == INPUT and all(w in self.plan.unrolled or w.first.geometry == DENSE for w in taking)
        return (prod(shape),) if flat_input or source in self.plan.flat else shape

    def _neurons(self, population: Population) -> Any:
        nir, shape = require_nir(), self._shape(population.name)
        leak, reset = population.neuron.leak, float(population.neuron.reset_amount)
        share, steps = 1 - leak, 1 / self.time_step
        threshold, r, tau = reset, steps, None
        if leak == 1 and self.plan.reader == "snntorch":
            tau, r = KEEPS_ALL / steps, KEEPS_ALL
        elif leak < 1 and self.plan.reader == "sinabs":
            tau = -1 / log(leak)
            r = tau
        elif leak < 1 and self.plan.reader == "snntorch":
            tau, r = 1 / (steps * share), 1 / share
        elif leak < 1:
            tau, r, threshold = 1 / (steps * share), 1.0, reset * share

        def of(value: float) -> Array:
            return np.full(shape, value, np.float32)

        fires_at = of(float(np.nextafter(np.float32(threshold), np.float32(0))))
        if tau is None:
            return nir.IF(r=of(r), v_threshold=fires_at, v_reset=of(0))
        return nir.LIF(tau=of(tau), r=of(r), v_leak=of(0), v_threshold=fires_at, v_reset=of(0))

    def _add_way(self, way: _Way) -> None:
        """Add the nodes between two ends."""
        nir, plan, c = require_nir(), self.plan, way.first
        target, shape = self.sources[c.target], self._shape(c.source)
        path = [self.sources[c.source]]
        current = plan.currents[c.target] if plan.is_forward(way) else np.zeros(len(plan.currents[c.target]))
        name = f"{c.source}_to_{c.target}"
        around = c.source == c.target and isinstance(self.nodes[target], nir.LIF)
        if isinstance(c.geometry, Convolution) and way not in plan.unrolled:
            weight, bias = way.weight, current.reshape(plan.network.shape_of(c.target)[0], -1)[:, 0]
            if plan.has_border(way):
                border = plan.border(way)
                weight, bias = np.concatenate([weight, border.kernel], axis=1), border.bias
                path.append(self._add(f"{c.source}_and_ones", _with_ones(shape)))
            weights = self._add(name, conv2d(_f32(weight), c.geometry, shape, bias=_f32(bias)))
            path.append(weights)
            if c.target in plan.flat:
                path.append(self._add(f"{name}_flat", _flatten(plan.network.shape_of(c.target))))
        else:
            if len(shape) > 1:
                path.append(self._add(f"{c.source}_flat", _flatten(shape)))
            weights = self._add(name, nir.Affine(_f32(self._matrix(way)), _f32(current)))
            path.append(weights)
            if around and len(path) == 2:
                # snnTorch 1.0 takes LIF -> Affine -> LIF for a node of its own, and feeds the input to its Affine.
                path.append(self._add(f"{name}_back", _flatten(self._shape(c.target))))
        self.named.append({"node": weights, "connections": [part.name for part in way.parts]})
        self.edges += itertools.pairwise([*path, target])

    def _matrix(self, way: _Way) -> Array:
        if way not in self.plan.unrolled:
            return way.weight
        ends = (self.plan.network.shape_of(way.first.source), self.plan.network.shape_of(way.first.target))
        return np.asarray(LinearMap(way.first.geometry, way.weight, *ends).unrolled().toarray())

    def _add_readout(self) -> None:
        nir, readout = require_nir(), self.plan.network.readout
        path = [self.sources[readout.source]]
        shape = self._shape(readout.source)
        if len(shape) > 1:
            path.append(self._add("readout_flat", _flatten(shape)))
        path.append(self._add("readout", nir.Affine(_f32(readout.weight), _f32(readout.bias))))
        path.append(self._add("output", nir.Output(np.array(readout.bias.shape))))
        self.edges += itertools.pairwise(path)

    def _metadata(self) -> dict[str, str]:
        """What has no node, as JSON, and the differences in words."""
        network = self.plan.network
        differences = self.plan.differences()
        content = {
            "version": PLAIN_VERSION,
            "name": network.name,
            "reader": self.plan.reader,
            "time_step": self.time_step,
            "time_steps": network.time_steps,
            "arithmetic": network.arithmetic,
            "input": asdict(network.input),
            "populations": [{"node": self.sources[p.name], "name": p.name} for p in network.populations],
            "connections": self.named,
            "differences": differences,
            "provenance": {k: v for k, v in network.provenance.items() if k in OWN_PROVENANCE},
        }
        return {PLAIN: metadata_text(network, content), "differences": "\n".join(differences)}


def _with_ones(shape: Shape) -> Any:
    """A Conv2d of 1 x 1 that passes its channels on, and one of ones."""
    weight = np.vstack([np.eye(shape[0]), np.zeros((1, shape[0]))])[:, :, None, None]
    return conv2d(_f32(weight), Convolution(1, 0), shape, bias=_f32(np.eye(shape[0] + 1)[-1]))


def _flatten(shape: Shape) -> Any:
    """Flatten what may have a batch's axis before it."""
    return require_nir().Flatten(input_type={"input": np.array(shape)}, start_dim=-len(shape), end_dim=-1)


def _f32(values: Array) -> Array:
    return np.asarray(values, np.float32)
