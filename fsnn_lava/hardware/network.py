"""The network as hardware sees it, first in floats, then in integers: its elements, and the rules that they keep.

A `HardwareNetwork` holds arrays and plain numbers and does nothing. Its rules are checked when it is made, so every
network that exists can run; one `NetworkError` names every rule that is broken. Everything after training works on it:
`conversion` makes it, `quantization` turns floats into integers, `backends` run it, `network_file` stores it.

Time. Population p integrates and counts in its window of global steps [start_p, start_p + T). A spike sent at
global step k over a connection of delay d arrives at step k + d. Counted from each population's own start, a
connection therefore has the *local delay* start_source + delay - start_target, which must not be negative.
Nothing else distinguishes the papers' timing from Lava's.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, get_args

import numpy as np

from fsnn_lava.errors import NetworkError, counted
from fsnn_lava.hardware.geometry import DENSE, Array, Geometry, Shape
from fsnn_lava.hardware.neurons import (
    DECAY_UNITY,
    THRESHOLD_LIMIT,
    FloatNeuron,
    IntegerNeuron,
    Neuron,
    Reset,
    reasons_against_equilibrium,
)

INPUT = "input"
"""Name under which a connection refers to the network's input."""
ALWAYS_ON = "always_on"
"""Name of the source that sends one spike in every step of its target's window (constant currents).

Or one in so many, where the connection has a period: so a constant current has parts of a weight unit."""
PERIODS = tuple(1 << k for k in range(8))
"""Which there are; the clock on hardware is a neuron whose reset, 8 bits, is the period."""

LOWEST_EXPONENT, HIGHEST_EXPONENT = -8, 7
"""Of a connection's weights, in integers; constant currents begin with 0."""

Arithmetic = Literal["float", "integer"]
Timing = Literal["sequential", "hardware"]
"""The papers' delays, and those of hardware, where every connection takes a step: see `with_timing`."""


@dataclass(frozen=True)
class Violation:
    """One broken rule: where, what was found, what is allowed."""

    where: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; allowed: {self.allowed}"


@dataclass(frozen=True)
class InputSpec:
    """What arrives from outside.

    Parameters
    ----------
    shape : shape of one sample, without batch and time.
    kind : ``graded``: one integer code per element, sent in every step; ``event``: 0/1 frames, one per step.
    maximum : largest code (255 for 8-bit pixels, 1 for events). Codes start at 0.
    """

    shape: Shape
    kind: Literal["graded", "event"]
    maximum: int

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return prod(self.shape)

    @property
    def batch_axis(self) -> int:
        """Axis of an array of inputs that counts samples: codes are (B, *shape), event frames (T, B, *shape)."""
        return 1 if self.kind == "event" else 0

    def samples(self, inputs: Array) -> int:
        """Number of samples B in an array of inputs."""
        return int(inputs.shape[self.batch_axis])

    def take(self, inputs: Array, rows: slice | Array) -> Array:
        """Some samples of an array of inputs: a slice of them as a view, those at given indices as a copy."""
        if isinstance(rows, slice):
            return inputs[:, rows] if self.batch_axis else inputs[rows]
        return inputs.take(rows, self.batch_axis)


@dataclass(frozen=True)
class Population:
    """Neurons that share their parameters. ``start``: first global step of the window."""

    name: str
    shape: Shape
    neuron: Neuron
    start: int = 0

    @property
    def size(self) -> int:
        """Number of neurons."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class Connection:
    """Synapses from one source to one population.

    Parameters
    ----------
    source : a population's name, `INPUT` or `ALWAYS_ON`. An always-on source opens with its target's window.
    target : a population's name.
    weight : shaped as the geometry says, (N_target, N_source) where it is dense. Float network: float64, per unit of
        spike or input code. Integer network: int32 mantissas. `ALWAYS_ON` has one column.
    delay : steps between sending and arrival; 0 for `ALWAYS_ON`.
    weight_exponent : power of two of the mantissas. If negative, what the connection's sum comes to is rounded down to
        half a weight unit; never of `ALWAYS_ON`. Float network: 0.
    weight_bits : width of the signed mantissa. Float network: 0.
    geometry : all pairs of neurons, or kernels shared over positions.
    period : of `ALWAYS_ON` in an integer network: steps from one of its spikes to the next, 1 or a power of two. It
        sends in the steps t of its target's window with t modulo period = period // 2.
    """

    name: str
    source: str
    target: str
    weight: Array
    delay: int = 0
    weight_exponent: int = 0
    weight_bits: int = 0
    geometry: Geometry = DENSE
    period: int = 1

    def sends_in(self, step: int) -> bool:
        """Tell whether an always-on source sends a spike in that step of its target's window."""
        return step % self.period == self.period // 2

    @property
    def label(self) -> str:
        """The connection in messages: its name and both ends."""
        return f'connection "{self.name}" ({self.source} -> {self.target})'


@dataclass(frozen=True, eq=False)
class Integrators:
    """The readout's weights as integers, for neurons that integrate and never fire.

    Each class has `parts` integrators, so that each adds up few enough weights for its 24-bit state; integrator
    (class, part) listens to the source neurons of that part, runs of ceil(N / parts) neurons in order. Its potential u
    (units of state) starts from 0 and follows the integer law with the source population's decay, without reset, in
    the source's window. logits = scale * (sum of u over a class's parts) / (128 * sum of leak**k, k < T) + bias.

    Parameters
    ----------
    weight : (classes, N) int32 mantissas.
    weight_exponent : their power of two, 0 .. 7.
    weight_bits : width of the mantissas.
    parts : integrators per class, at least 1.
    scale : logit that one weight unit stands for.
    """

    weight: Array
    weight_exponent: int
    weight_bits: int
    parts: int
    scale: float


@dataclass(frozen=True, eq=False)
class Readout:
    """Non-spiking classifier: logits = weight @ firing_rate + bias; (classes, N), (classes,).

    The host computes it in floats. An integer network may also hold `integrators`, its form on hardware.
    """

    source: str
    weight: Array
    bias: Array
    integrators: Integrators | None = None


@dataclass(frozen=True, eq=False)
class HardwareNetwork:
    """Populations, connections with delays, input and readout; floats or integers throughout.

    Parameters
    ----------
    populations : in feedforward order; a connection from a later population (or the same) is feedback.
    time_steps : length T of every window.
    provenance : JSON-compatible record of where the network came from (config, seed, metrics, versions, report).

    Raises
    ------
    NetworkError : naming every invariant that does not hold.
    """

    name: str
    input: InputSpec
    populations: tuple[Population, ...]
    connections: tuple[Connection, ...]
    readout: Readout
    time_steps: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = _violations(self)
        if found:
            listed = "\n  ".join(map(str, found))
            raise NetworkError(f'network "{self.name}" breaks {len(found)} invariant(s):\n  {listed}')

    @property
    def arithmetic(self) -> Arithmetic:
        """``integer`` if the neurons are `IntegerNeuron`, else ``float``."""
        return "integer" if isinstance(self.populations[0].neuron, IntegerNeuron) else "float"

    def population(self, name: str) -> Population:
        """The population of that name.

        Raises
        ------
        NetworkError : if there is none.
        """
        for population in self.populations:
            if population.name == name:
                return population
        known = ", ".join(p.name for p in self.populations)
        raise NetworkError(f'network "{self.name}": no population "{name}"; there are: {known}')

    def shape_of(self, source: str) -> Shape:
        """Shape of what a source sends: a population's, the input's, (1,) of `ALWAYS_ON`.

        Raises
        ------
        NetworkError : if there is no such source.
        """
        if source in (INPUT, ALWAYS_ON):
            return self.input.shape if source == INPUT else (1,)
        return self.population(source).shape

    def incoming(self, target: str) -> tuple[Connection, ...]:
        """Connections that end in that population, in the network's order."""
        return tuple(c for c in self.connections if c.target == target)

    def is_graded(self, connection: Connection) -> bool:
        """Tell whether the connection carries codes; else it carries spikes or events."""
        return connection.source == INPUT and self.input.kind == "graded"

    def local_delay(self, connection: Connection) -> int:
        """Delay counted from both ends' own starts: start_source + delay - start_target."""
        if connection.source == ALWAYS_ON:
            return 0
        start = 0 if connection.source == INPUT else self.population(connection.source).start
        return start + connection.delay - self.population(connection.target).start


def with_timing(network: HardwareNetwork, timing: Timing) -> HardwareNetwork:
    """Give a network the papers' delays or the hardware's (docs/network-format.md).

    ``sequential``: forward connections 0, feedback 1, all windows start at 0. ``hardware``: population l
    (from 1) starts at step l, forward connections bridge the distance of the windows, feedback takes 1.
    """
    start = {INPUT: 0}
    start |= {p.name: (i + 1 if timing == "hardware" else 0) for i, p in enumerate(network.populations)}
    order = {INPUT: -1} | {p.name: i for i, p in enumerate(network.populations)}

    def delay(c: Connection) -> int:
        if c.source == ALWAYS_ON:
            return 0
        return start[c.target] - start[c.source] if order[c.source] < order[c.target] else 1

    return dataclasses.replace(
        network,
        populations=tuple(dataclasses.replace(p, start=start[p.name]) for p in network.populations),
        connections=tuple(dataclasses.replace(c, delay=delay(c)) for c in network.connections),
    )


def equilibrium_violations(network: HardwareNetwork) -> list[Violation]:
    """List the populations that have no equilibrium rate clamp(I / r), with the reasons; empty if all have one."""
    allowed = "reset by subtraction of currents without memory: the rate of others is not clamp(I / r)"
    return [
        Violation(f'population "{p.name}"', " and ".join(reasons), allowed)
        for p in network.populations
        if (reasons := reasons_against_equilibrium(p.neuron))
    ]


def _violations(network: HardwareNetwork) -> list[Violation]:
    """Every rule that the network breaks; empty if it keeps them all."""
    found = _population_violations(network)
    if not network.populations:
        return found
    for connection in network.connections:
        found += _connection_violations(network, connection)
    found += _readout_violations(network)
    if not found:
        found += _cycle_violations(network)
    return found


def _population_violations(network: HardwareNetwork) -> list[Violation]:
    found: list[Violation] = []
    if network.time_steps < 1:
        found.append(Violation("time_steps", str(network.time_steps), "at least 1"))
    source = network.input
    if source.kind not in ("graded", "event"):
        found.append(Violation("input", f'kind "{source.kind}"', '"graded" or "event"'))
    if source.maximum < 1 or (source.kind == "event" and source.maximum != 1):
        found.append(Violation("input", f"maximum {source.maximum}", "1 for events, at least 1 for graded"))
    if not source.shape or min(source.shape) < 1:
        found.append(Violation("input", f"shape {source.shape}", "sides of at least 1"))
    if not network.populations:
        return [*found, Violation("populations", "none", "at least one")]
    names = [p.name for p in network.populations]
    if len(set(names)) < len(names) or {INPUT, ALWAYS_ON} & set(names):
        found.append(Violation("populations", f"names {names}", f'unique names other than "{INPUT}", "{ALWAYS_ON}"'))
    kinds = {type(p.neuron) for p in network.populations}
    if len(kinds) > 1:
        found.append(Violation("populations", "floats and integers mixed", "one arithmetic for all populations"))
    for population in network.populations:
        where = f'population "{population.name}"'
        if not population.shape or min(population.shape) < 1:
            found.append(Violation(where, f"shape {population.shape}", "sides of at least 1"))
        if population.start < 0:
            found.append(Violation(where, f"start {population.start}", "a step >= 0"))
        found += _neuron_violations(where, population.neuron)
    return found


def _neuron_violations(where: str, neuron: Neuron) -> list[Violation]:
    rules: list[tuple[str, Any, bool, str]]
    if isinstance(neuron, FloatNeuron):
        rules = [
            ("v_threshold", neuron.v_threshold, 0 < neuron.v_threshold < np.inf, "a finite number > 0"),
            ("reset_amount", neuron.reset_amount, 0 < neuron.reset_amount < np.inf, "a finite number > 0"),
            ("leak", neuron.leak, 0 < neuron.leak <= 1, "0 < leak <= 1"),
            ("current_leak", neuron.current_leak, 0 <= neuron.current_leak < 1, "0 <= current_leak < 1"),
        ]
    else:
        rules = [
            ("v_threshold", neuron.v_threshold, 1 <= neuron.v_threshold <= THRESHOLD_LIMIT, "1 .. 65536"),
            ("reset_mantissa", neuron.reset_mantissa, 1 <= neuron.reset_mantissa <= 255, "1 .. 255"),
            ("reset_exponent", neuron.reset_exponent, 0 <= neuron.reset_exponent <= 7, "0 .. 7"),
            ("decay", neuron.decay, 0 <= neuron.decay < DECAY_UNITY, "0 .. 4095"),
            ("scale", neuron.scale, 0 < neuron.scale < np.inf, "a finite number > 0"),
            ("current_decay", neuron.current_decay, 1 <= neuron.current_decay <= DECAY_UNITY, "1 .. 4096"),
        ]
    rules.append(("reset", neuron.reset, neuron.reset in get_args(Reset), " or ".join(get_args(Reset))))
    return [Violation(where, f"{name} {value}", allowed) for name, value, holds, allowed in rules if not holds]


def _connection_violations(network: HardwareNetwork, connection: Connection) -> list[Violation]:
    where = connection.label
    names = {p.name for p in network.populations}
    ends = names | {INPUT, ALWAYS_ON}
    if connection.source not in ends or connection.target not in names:
        return [Violation(where, "an end that does not exist", f"sources {sorted(ends)}, targets {sorted(names)}")]
    shapes = network.shape_of(connection.source), network.shape_of(connection.target)
    fault = connection.geometry.weight_shape_fault(connection.weight.shape, *shapes)
    if fault is not None:
        return [Violation(where, *fault)]
    found = _weight_violations(where, network, connection)
    if connection.delay < 0 or (connection.source == ALWAYS_ON and connection.delay):
        found.append(Violation(where, f"delay {connection.delay}", f'at least 0; 0 from "{ALWAYS_ON}"'))
    pulsed = connection.source == ALWAYS_ON and network.arithmetic == "integer"
    if connection.period not in (PERIODS if pulsed else (1,)):
        allowed = f'1, or up to {PERIODS[-1]} a power of two from "{ALWAYS_ON}" in an integer network'
        found.append(Violation(where, f"period {connection.period}", allowed))
    local = network.local_delay(connection)
    if local < 0:
        found.append(
            Violation(where, f"arrival {counted(-local, 'step')} before the target's window", "delay + start within it")
        )
    return found


def _weight_violations(where: str, network: HardwareNetwork, connection: Connection) -> list[Violation]:
    weight = connection.weight
    if network.arithmetic == "float":
        if weight.dtype != np.float64 or connection.weight_exponent or connection.weight_bits:
            found = f"{weight.dtype}, exponent {connection.weight_exponent}, {connection.weight_bits} bits"
            return [Violation(where, found, "float64 without exponent and bits in a float network")]
        bad = int(np.count_nonzero(~np.isfinite(weight)))
        return [Violation(where, f"weights that are not finite: {bad}", "finite numbers")] if bad else []
    rules: list[Violation] = []
    if weight.dtype != np.int32:
        return [Violation(where, f"weights of type {weight.dtype}", "int32 mantissas")]
    if not 2 <= connection.weight_bits <= 8:
        return [Violation(where, counted(connection.weight_bits, "weight bit"), "2 .. 8")]
    half = 1 << (connection.weight_bits - 1)
    outside = int(np.count_nonzero((weight < -half) | (weight >= half)))
    if outside:
        rules.append(Violation(where, f"{counted(outside, 'mantissa')} out of range", f"-{half} .. {half - 1}"))
    lowest = 0 if connection.source == ALWAYS_ON else LOWEST_EXPONENT
    if not lowest <= connection.weight_exponent <= HIGHEST_EXPONENT:
        allowed = f"{lowest} .. {HIGHEST_EXPONENT}"
        rules.append(Violation(where, f"weight exponent {connection.weight_exponent}", allowed))
    return rules


def _readout_violations(network: HardwareNetwork) -> list[Violation]:
    readout, names = network.readout, {p.name for p in network.populations}
    if readout.source not in names:
        return [Violation("readout", f'source "{readout.source}"', f"one of {sorted(names)}")]
    size = network.population(readout.source).size
    if readout.weight.ndim != 2 or readout.weight.shape[1] != size or readout.bias.shape != readout.weight.shape[:1]:
        shapes = f"weight {readout.weight.shape}, bias {readout.bias.shape}"
        return [Violation("readout", shapes, f"(classes, {size}) and (classes,)")]
    if readout.weight.dtype != np.float64 or readout.bias.dtype != np.float64:
        return [Violation("readout", f"weight {readout.weight.dtype}, bias {readout.bias.dtype}", "float64")]
    if not (np.isfinite(readout.weight).all() and np.isfinite(readout.bias).all()):
        return [Violation("readout", "values that are not finite", "finite numbers")]
    return [] if readout.integrators is None else _integrator_violations(network, readout, readout.integrators)


def _integrator_violations(network: HardwareNetwork, readout: Readout, integrators: Integrators) -> list[Violation]:
    weight, size = integrators.weight, readout.weight.shape[1]
    half = 1 << (integrators.weight_bits - 1) if 2 <= integrators.weight_bits <= 8 else 0
    rules = [
        ("arithmetic float", network.arithmetic == "integer", "an integer network"),
        (f"{weight.dtype} {weight.shape}", weight.dtype == np.int32 and weight.shape == readout.weight.shape,
         f"int32 {readout.weight.shape}"),
        (counted(integrators.weight_bits, "weight bit"), half > 0, "2 .. 8"),
        ("mantissas out of range", bool(((weight >= -half) & (weight < half)).all()), f"-{half} .. {half - 1}"),
        (f"weight exponent {integrators.weight_exponent}", 0 <= integrators.weight_exponent <= 7, "0 .. 7"),
        (f"{integrators.parts} parts", 1 <= integrators.parts <= size, f"1 .. {size}"),
        (f"scale {integrators.scale}", 0 < integrators.scale < np.inf, "a finite number > 0"),
    ]  # fmt: skip
    return [Violation("readout's integrators", found, allowed) for found, holds, allowed in rules if not holds]


def _cycle_violations(network: HardwareNetwork) -> list[Violation]:
    """Within one local step the populations are updated in order, so only forward connections may be immediate."""
    order = {p.name: i for i, p in enumerate(network.populations)} | {INPUT: -1, ALWAYS_ON: -1}
    return [
        Violation(c.label, "feedback without any delay", "at least 1 step")
        for c in network.connections
        if network.local_delay(c) == 0 and order[c.source] >= order[c.target]
    ]
