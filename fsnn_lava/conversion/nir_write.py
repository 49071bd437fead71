"""Write a network as a NIR graph (Neuromorphic Intermediate Representation), float or integer, cycles and all.

NIR's IF and LIF nodes reset to a fixed potential. Neurons whose spikes reset to zero are written as these. Of those
whose spikes subtract they would say something else, so they are not used (`nir_plain` writes them, for tools that know
no others); a reader that knows nothing of this package gets the soft reset as what it is, a loop:

    I or LI (the potential v) -> Threshold (the spikes s) -> Delay (one step) -> Scale (-leak r) -> I or LI

================  =================================================================================================
network           NIR nodes
================  =================================================================================================
time              one step is ``time_step`` in NIR's unit of time; forward Euler. Spikes and codes are values that last
                  one step. Edges take no time: all delays are ``Delay`` nodes, and every loop has one. Populations
                  count time from the start of their own windows, so windows need no node
leak 1            ``I``, r = 1 / time_step, so v[t] = v[t-1] + input
leak below 1      ``LI``, tau = time_step / (1 - leak), r = tau / time_step, v_leak = 0: v[t] = leak v[t-1] + input
reset to zero     ``IF`` or ``LIF`` in place of I or LI and the loop, v_reset = 0, r and tau as there
decaying current  an ``LI`` of its own before the potential's node: tau = time_step / (1 - current_leak)
threshold         ``Threshold`` fires above, we at the threshold: the next smaller float; integers: V - 1/2
dense             ``Linear``, with ``Flatten`` where the source has axes
convolution       ``Conv2d`` (pooling is merged into it already)
transposed        NIR has none. Unrolled to a ``Linear`` with at most `UNROLLED_LIMIT` weights, whose metadata keep the
                  kernel; its target is flat then, and so convolutions that leave it are unrolled too. Else refused
constant current  an ``Input`` of its own that has to be fed with ones in every step, and ``Scale``
readout           ``Affine``. Its output, averaged over the steps with the weights of the firing rate, is the logits
integers          weights w · 2^e, thresholds and resets in weight units. NIR says nothing of rounding: run in floats,
                  the graph differs from the integer network by what the leak (below 1/128 unit a step) and
                  negative exponents (below half a unit a connection and step) round off
================  =================================================================================================

The graph's metadata (``fsnn_lava``, JSON) hold what has no node: windows, mantissa widths and exponents, names, the
input's coding, T, provenance. `nir_read.read_nir` gives back the same network from nodes and metadata.
"""

import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fsnn_lava.errors import ConfigError, MissingDependencyError, UnsupportedError
from fsnn_lava.files import write_whole
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Array,
    Connection,
    Convolution,
    Dense,
    HardwareNetwork,
    IntegerNeuron,
    Population,
    Shape,
    TransposedConvolution,
    Violation,
    linear_map,
    metadata_text,
)

METADATA = "fsnn_lava"
"""Entry of the graph's metadata."""
VERSION = 1
_NEWER = ("reset", "current_leak", "current_decay")
"""Numbers of a neuron that the first files of this version do not have."""
UNROLLED_LIMIT = 2**22
"""Most weights of a connection that is unrolled, 8 bytes each."""


def require_nir() -> ModuleType:
    """Import the package nir.

    Raises
    ------
    MissingDependencyError : if it is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise MissingDependencyError('the package nir is not installed: pip install "fsnn-lava[nir]"') from error
    module: ModuleType = nir
    return module


def require_time_step(time_step: float) -> float:
    """Return the time step if it is one, else raise.

    Raises
    ------
    ConfigError : if it is not a finite number above 0.
    """
    if not 0 < time_step < np.inf:
        raise ConfigError(f"time_step is {time_step}; allowed: a finite number > 0, in NIR's unit of time")
    return time_step


def write_nir(network: HardwareNetwork, path: str | Path, *, time_step: float = 1.0) -> Path:
    """Write a network as a NIR file and return its path; after an error the file is as it was before.

    Parameters
    ----------
    time_step : length of one step in NIR's unit of time.

    Raises
    ------
    UnsupportedError : naming everything that a NIR graph cannot say of this network.
    NetworkError : if the provenance is not JSON.
    MissingDependencyError : if nir is not installed.
    OutputError : if the file cannot be written.
    """
    image = io.BytesIO()
    require_nir().write(image, nir_graph(network, time_step=time_step))
    write_whole(Path(path), image.getvalue())
    return Path(path)


def nir_violations(network: HardwareNetwork) -> list[Violation]:
    """Reasons why NIR cannot express the network; empty if it can."""
    found = []
    if all(c.source != INPUT for c in network.connections):
        found.append(Violation("input", "no connection from it", "at least one"))
    transposed = [c for c in network.connections if isinstance(c.geometry, TransposedConvolution)]
    refused = [c for c in transposed if unrolled_size(network, c) > UNROLLED_LIMIT]
    found += [too_large(network, c, "a transposed convolution") for c in refused]
    flat = flat_populations(network, without=refused)
    for c in network.connections:
        if isinstance(c.geometry, Convolution) and c.source in flat and unrolled_size(network, c) > UNROLLED_LIMIT:
            kind = "a convolution from a population with dense or transposed connections into it"
            found.append(too_large(network, c, kind))
    return found


def unrolled_size(network: HardwareNetwork, connection: Connection) -> int:
    """Number of weights of a connection as a matrix."""
    return prod(network.shape_of(connection.source)) * prod(network.shape_of(connection.target))


def too_large(network: HardwareNetwork, connection: Connection, kind: str) -> Violation:
    """A connection of that kind with more weights than a matrix may have."""
    size = unrolled_size(network, connection)
    return Violation(connection.label, f"{kind}, {size} weights when unrolled", f"at most {UNROLLED_LIMIT}")


def nir_graph(network: HardwareNetwork, *, time_step: float = 1.0) -> Any:
    """Build the ``nir.NIRGraph`` that `write_nir` writes.

    Raises
    ------
    As `write_nir`.
    """
    require_time_step(time_step)
    violations = nir_violations(network)
    if violations:
        listed = "\n  ".join(map(str, violations))
        raise UnsupportedError(
            f'NIR cannot say network "{network.name}", {len(violations)} violation(s); nothing was written:\n  {listed}'
        )
    builder = _Builder(network, time_step, flat_populations(network))
    return builder.graph()


def flat_populations(
    network: HardwareNetwork, *, without: Sequence[Connection] = (), besides: Iterable[str] = ()
) -> set[str]:
    """Populations whose nodes have one axis: NIR can flatten, but not unflatten what a Linear node sends.

    Parameters
    ----------
    without : connections that do not count.
    besides : populations that are to be flat as well.
    """
    connections = [c for c in network.connections if c.source != ALWAYS_ON and c not in without]
    flat = {p.name for p in network.populations if len(p.shape) != 3} | set(besides)
    while True:
        more = {c.target for c in connections if not isinstance(c.geometry, Convolution) or c.source in flat}
        if more <= flat:
            return flat
        flat |= more


def is_unrolled(connection: Connection, flat: set[str]) -> bool:
    """Whether a connection with kernels becomes a matrix, where those populations are flat."""
    if isinstance(connection.geometry, Dense):
        return False
    return not isinstance(connection.geometry, Convolution) or connection.source in flat


@dataclass
class _Builder:
    """Nodes and edges of one network, as far as they are made."""

    network: HardwareNetwork
    time_step: float
    flat: set[str]
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    potentials: dict[str, str] = field(default_factory=dict)

    def graph(self) -> Any:
        """Add every node and edge of the network; return the graph with its metadata."""
        nir, network = require_nir(), self.network
        self.sources[INPUT] = self._add(INPUT, nir.Input(np.array(network.input.shape)))
        for population in network.populations:
            self._add_population(population)
        nodes = [self._add_connection(c) for c in network.connections]
        self._add_readout()
        metadata: dict[str, Any] = {METADATA: _metadata_text(network, nodes, self.time_step)}
        if network.readout.integrators is not None:
            metadata["integrators"] = network.readout.integrators.weight
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges, metadata=metadata)

    def _add(self, wanted: str, node: Any, *, after: str | None = None) -> str:
        """Add a node; return its name: the wanted one, if HDF5 takes it and no other node has it."""
        base = wanted.replace("/", "_").strip(".") or "node"
        name, count = base, 1
        while name in self.nodes:
            count += 1
            name = f"{base}_{count}"
        self.nodes[name] = node
        if after is not None:
            self.edges.append((after, name))
        return name

    def _shape(self, source: str) -> Shape:
        shape = self.network.shape_of(source)
        return (prod(shape),) if source in self.flat else shape

    def _add_population(self, population: Population) -> None:
        nir, neuron, name = require_nir(), population.neuron, population.name
        shape = self._shape(name)
        exact = isinstance(neuron, IntegerNeuron)
        threshold = neuron.v_threshold - 0.5 if exact else np.nextafter(neuron.v_threshold, -np.inf)
        if neuron.reset == "zero":
            potential = spikes = self._add(name, self._fires(neuron.leak, float(threshold), shape))
        else:
            potential = self._add(f"{name}_potential", self._integrates(neuron.leak, shape))
            spikes = self._add(name, nir.Threshold(np.full(shape, float(threshold))), after=potential)
            reset = neuron.reset_synapse if isinstance(neuron, IntegerNeuron) else neuron.leak * neuron.reset_amount
            late = self._add(f"{name}_step", nir.Delay(np.full(shape, self.time_step)), after=spikes)
            back = self._add(f"{name}_reset", nir.Scale(np.full(shape, -float(reset))), after=late)
            self.edges.append((back, potential))
        self.sources[name], self.potentials[name] = spikes, potential
        if neuron.has_memory_of_current:
            current = self._add(f"{name}_current", self._integrates(neuron.current_leak, shape))
            self.edges.append((current, potential))
            self.potentials[name] = current

    def _integrates(self, leak: float, shape: Shape) -> Any:
        """A node that keeps so much of its value a step, and adds what arrives to it."""
        nir = require_nir()
        if leak == 1:
            return nir.I(r=np.full(shape, 1 / self.time_step))
        return nir.LI(**self._leaking(leak, shape))

    def _fires(self, leak: float, threshold: float, shape: Shape) -> Any:
        """The same that fires above a threshold, and then is 0."""
        nir, more = require_nir(), {"v_threshold": np.full(shape, threshold), "v_reset": np.zeros(shape)}
        if leak == 1:
            return nir.IF(r=np.full(shape, 1 / self.time_step), **more)
        return nir.LIF(**self._leaking(leak, shape), **more)

    def _leaking(self, leak: float, shape: Shape) -> dict[str, Array]:
        share = 1 - leak
        return {
            "tau": np.full(shape, self.time_step / share),
            "r": np.full(shape, 1 / share),
            "v_leak": np.zeros(shape),
        }

    def _add_connection(self, connection: Connection) -> str:
        """Add the nodes of a connection; return the name of the one with its weights."""
        nir, weight = require_nir(), np.ldexp(connection.weight.astype(np.float64), connection.weight_exponent)
        target = self.potentials[connection.target]
        if connection.source == ALWAYS_ON:
            shape = self._shape(connection.target)
            every = "" if connection.period == 1 else f"_every_{connection.period}"
            ones = self._add(f"{ALWAYS_ON}_{connection.target}{every}", nir.Input(np.array(shape)))
            node = self._add(connection.name, nir.Scale(weight.reshape(shape)), after=ones)
            self.edges.append((node, target))
            return node
        source, shape = self._delayed(connection), self._shape(connection.source)
        geometry = connection.geometry
        if isinstance(geometry, Convolution) and not is_unrolled(connection, self.flat):
            node = self._add(connection.name, conv2d(weight, geometry, shape), after=source)
            reached = self.network.shape_of(connection.target)
            last = self._flattened(node, reached) if connection.target in self.flat else node
        else:
            node = self._add(connection.name, self._linear(connection, weight), after=self._flattened(source, shape))
            last = node
        self.edges.append((last, target))
        return node

    def _linear(self, connection: Connection, weight: Array) -> Any:
        nir = require_nir()
        if isinstance(connection.geometry, Dense):
            return nir.Linear(weight)
        matrix = linear_map(self.network, dataclasses.replace(connection, weight=weight)).unrolled().toarray()
        return nir.Linear(matrix, metadata={"kernel": weight})

    def _delayed(self, connection: Connection) -> str:
        """Name of the node that sends the source's spikes when they are due, behind a Delay where they arrive late."""
        source, steps = self.sources[connection.source], self.network.local_delay(connection)
        if steps == 0:
            return source
        delay = np.full(self._shape(connection.source), steps * self.time_step)
        return self._add(f"{connection.name}_delay", require_nir().Delay(delay), after=source)

    def _flattened(self, source: str, shape: Shape) -> str:
        if len(shape) == 1:
            return source
        node = require_nir().Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
        return self._add(f"{source}_flat", node, after=source)

    def _add_readout(self) -> None:
        nir, readout = require_nir(), self.network.readout
        source = self._flattened(self.sources[readout.source], self._shape(readout.source))
        node = self._add("readout", nir.Affine(readout.weight, readout.bias), after=source)
        self._add("logits", nir.Output(np.array(readout.bias.shape)), after=node)


def conv2d(weight: Array, geometry: Convolution, source: Shape, *, bias: Array | None = None) -> Any:
    """A Conv2d node for what a source of that shape sends; without bias: zeros."""
    return require_nir().Conv2d(
        input_shape=source[1:],
        weight=weight,
        stride=(geometry.stride, geometry.stride),
        padding=(geometry.padding, geometry.padding),
        dilation=(1, 1),
        groups=1,
        bias=np.zeros(len(weight)) if bias is None else bias,
    )


def _population_entry(population: Population) -> dict[str, Any]:
    # Only what is not as everywhere: `reset` and the decay of the current have defaults.
    usual = {f.name: f.default for f in dataclasses.fields(population.neuron) if f.name in _NEWER}
    neuron = {
        name: np.asarray(value).item()
        for name, value in dataclasses.asdict(population.neuron).items()
        if name not in usual or value != usual[name]
    }
    return {"name": population.name, "shape": population.shape, "start": population.start, "neuron": neuron}


def _metadata_text(network: HardwareNetwork, nodes: list[str], time_step: float) -> str:
    """Everything but the weights and the readout, as JSON."""
    integrators = network.readout.integrators
    content = {
        "version": VERSION,
        "name": network.name,
        "time_step": time_step,
        "time_steps": network.time_steps,
        "arithmetic": network.arithmetic,
        "input": dataclasses.asdict(network.input),
        "populations": [_population_entry(p) for p in network.populations],
        "connections": [
            {"node": node, "geometry": {"kind": type(c.geometry).__name__} | dataclasses.asdict(c.geometry)}
            | {
                name: getattr(c, name)
                for name in ("name", "source", "target", "delay", "weight_exponent", "weight_bits")
            }
            | ({} if c.period == 1 else {"period": c.period})
            for node, c in zip(nodes, network.connections, strict=True)
        ],
        "readout": network.readout.source,
        "integrators": None
        if integrators is None
        else {f.name: getattr(integrators, f.name) for f in dataclasses.fields(integrators) if f.name != "weight"},
        "provenance": dict(network.provenance),
    }
    return metadata_text(network, content)
