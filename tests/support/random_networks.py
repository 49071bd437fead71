"""Random integer networks of every kind, with inputs, and what the reference makes of them.

A network is drawn from a seed. Images and flat populations are mixed; between two images any kernel that leads from
one shape to the other may be drawn. Thresholds follow what arrives, so that most networks fire without saturating.
"""

import functools
import itertools
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import reference_simulator as reference
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, Geometry, Shape, TransposedConvolution
from fsnn_lava.hardware.integrating_readout import quantize_readout
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.network_file import save_network
from fsnn_lava.hardware.neurons import STATE_LIMIT, IntegerNeuron, Reset

SAMPLES = 2
DECAYS = (0, 0, 0, 40, 205, 819)
SIDES = range(1, 8)
KERNELS = (1, 2, 3, 4, 5, 6, 7)
STRIDES = (1, 2, 3, 4)


class Overflow(Exception):
    """A potential outside 24 bits."""


class Case(NamedTuple):
    """A network, its inputs, and the reference's spikes: population -> (T, B, *N)."""

    network: HardwareNetwork
    inputs: Array
    spikes: dict[str, Array]


@functools.cache
def random_case(seed: int, *, lava: bool = True) -> Case:
    """Drawn again from the same generator until no potential leaves 24 bits; `lava` as in `random_network`."""
    rng = np.random.default_rng(seed)
    while True:
        network = random_network(rng, f"seed {seed}", lava=lava)
        inputs = random_inputs(rng, network)
        plain = with_equilibrium(network)
        try:
            case = Case(plain, inputs, reference_spikes(plain, inputs))
        except Overflow:
            continue
        try:  # what is drawn does not depend on resets and memories
            return case if plain is network else Case(network, inputs, reference_spikes(network, inputs))
        except Overflow:
            return case


def with_equilibrium(network: HardwareNetwork) -> HardwareNetwork:
    """The same where spikes subtract and no current has memory; the network itself if it is so."""
    neurons = [replace(p.neuron, reset="subtract", current_decay=4096) for p in network.populations]
    if neurons == [p.neuron for p in network.populations]:
        return network
    populations = tuple(replace(p, neuron=n) for p, n in zip(network.populations, neurons, strict=True))
    return replace(network, populations=populations)


def reference_spikes(network: HardwareNetwork, inputs: Array) -> dict[str, Array]:
    """What `reference_simulator` reads from the network's file and computes from it."""
    return reference_run(network, inputs)[0]


def reference_run(network: HardwareNetwork, inputs: Array) -> tuple[dict[str, Array], dict[str, int]]:
    """The same, and each population's largest |potential|."""
    read = as_read(network)
    event = network.input.kind == "event"
    found, peaks = [], dict.fromkeys((p.name for p in network.populations), 0)
    for sample in inputs.swapaxes(0, 1) if event else inputs:
        spikes, potentials = reference.simulate(read, sample.reshape(*sample.shape[:event], -1).tolist())
        peaks = {name: max(peak, int(np.abs(potentials[name]).max())) for name, peak in peaks.items()}
        if max(peaks.values()) > STATE_LIMIT:
            raise Overflow
        found.append(spikes)
    together = {
        p.name: np.stack([spikes[p.name] for spikes in found], axis=1).reshape(-1, len(found), *p.shape)
        for p in network.populations
    }
    return together, peaks


def reference_potentials(case: Case) -> Array:
    """(B, classes * parts) of the integrators, likewise, from the spikes of the case."""
    network, _, spikes = case
    source = network.readout.source
    samples = spikes[source].reshape(*spikes[source].shape[:2], -1).swapaxes(0, 1)
    read = as_read(network)
    return np.array([reference.integrate(read, {source: sample.tolist()}) for sample in samples])


def as_read(network: HardwareNetwork) -> dict[str, Any]:
    """What the reference reads from the network's file."""
    with tempfile.TemporaryDirectory() as folder:
        save_network(network, Path(folder) / "network.h5")
        return reference.read(Path(folder) / "network.h5")


def random_inputs(rng: np.random.Generator, network: HardwareNetwork) -> Array:
    """Codes (B, *shape) or frames (T, B, *shape), of any density."""
    spec, density = network.input, rng.uniform(0.1, 1)
    shape = ((network.time_steps,) if spec.kind == "event" else ()) + (SAMPLES, *spec.shape)
    lowest = 1 if spec.kind == "event" else 0
    return np.where(rng.random(shape) < density, rng.integers(lowest, spec.maximum + 1, shape), 0)


def random_network(
    seed: int | np.random.Generator, name: str = "random", *, lava: bool = False, equilibrium: bool = False
) -> HardwareNetwork:
    """One to five populations with any parameters, connections and delays.

    Lava can say it if asked to: windows that open in order from step 1 on, delays of at least 1, convolutions whose
    exponent is not positive, unless they carry codes, and no current that decays but where a spike resets to zero. It
    has an equilibrium if asked to: spikes subtract, and currents have no memory.
    """
    rng = np.random.default_rng(seed)  # a generator is taken as it is
    event, style = bool(rng.random() < 0.5), rng.choice(["fine", "wide", "any"], p=[0.4, 0.1, 0.5])
    channels = range(8, 17) if style == "wide" else range(1, 4)
    shape = random_shape(rng, channels, flat=0.1)
    spec = InputSpec(shape, "event", 1) if event else InputSpec(shape, "graded", int(rng.choice([3, 16, 255])))
    shapes, starts = {INPUT: shape}, {INPUT: 0}
    for i in range(rng.choice([1, 2, 3, 4, 5], p=[0.25, 0.3, 0.2, 0.15, 0.1])):
        shape = next_shape(rng, channels, shape)
        shapes[f"p{i}"] = shape
        earliest = max(1, max(starts.values())) if lava else 0
        starts[f"p{i}"] = earliest + int(rng.integers(0, 3))
    steps = int(rng.integers(8, 14) if style == "fine" else rng.integers(3 if lava else 1, 11))
    connections = _Wiring(rng, spec, shapes, starts, steps, style, lava).connections()
    populations = [
        Population(name, shapes[name], random_neuron(rng, current, style), starts[name])
        for name, current in ((n, typical_current(spec, shapes[n], connections, n)) for n in starts if n != INPUT)
    ]
    source = populations[rng.integers(len(populations))]
    readout = Readout(source.name, rng.normal(size=(3, source.size)), rng.normal(size=3))
    readout = with_integrators(rng.spawn(1)[0], readout, source.neuron, steps)
    for_laws = np.random.default_rng(sum(int(np.abs(c.weight).sum()) for c in connections))  # its own, as above
    populations = [replace(p, neuron=with_law(for_laws, p.neuron, lava=lava)) for p in populations]
    network = HardwareNetwork(name, spec, tuple(populations), tuple(connections), readout, steps)
    return with_equilibrium(network) if equilibrium else network


def random_shape(rng: np.random.Generator, channels: range, *, flat: float) -> Shape:
    if rng.random() < flat:
        return (int(rng.integers(1, 9)),)
    return (int(rng.choice(channels)), int(rng.choice(SIDES)), int(rng.choice(SIDES)))


def next_shape(rng: np.random.Generator, channels: range, source: Shape) -> Shape:
    """Mostly one that some kernel leads to."""
    if len(source) == 3 and rng.random() < 0.85:
        reached = [
            [sides for _, _, sides in kernels(source, transposed=transposed) if set(sides) <= set(SIDES)]
            for transposed in (False, False, True)
        ]
        sides = reached[rng.integers(3)]
        if sides:
            return (int(rng.choice(channels)), *sides[rng.integers(len(sides))])
    return random_shape(rng, channels, flat=0.3)


@functools.cache
def kernels(source: Shape, *, transposed: bool) -> list[tuple[Geometry, int, tuple[int, int]]]:
    """All kernels on images of that shape: geometry, side K and the sides that they lead to."""
    found: list[tuple[Geometry, int, tuple[int, int]]] = []
    for kernel, stride in itertools.product(KERNELS, STRIDES):
        for padding, output_padding in itertools.product(range(kernel), range(stride) if transposed else [0]):
            if transposed:
                geometry: Geometry = TransposedConvolution(stride, padding, output_padding)
                sides = [stride * (n - 1) + kernel - 2 * padding + output_padding for n in source[1:]]
            else:
                geometry = Convolution(stride, padding)
                sides = [(n + 2 * padding - kernel) // stride + 1 for n in source[1:]]
            if min(sides) >= 1:
                found.append((geometry, kernel, (sides[0], sides[1])))
    return found


@dataclass(frozen=True, eq=False)
class _Wiring:
    """Draws the connections of a network whose shapes and starts are known; the input is the first of both."""

    rng: np.random.Generator
    spec: InputSpec
    shapes: dict[str, Shape]
    starts: dict[str, int]
    steps: int
    style: str
    lava: bool

    def connections(self) -> list[Connection]:
        """The chain, and any others: recurrent, backward, skipping, doubled, from the input, constant."""
        names = list(self.shapes)
        edges = list(itertools.pairwise(names))
        edges += [(s, t) for s in names for t in names[1:] if self.rng.random() < 0.08]
        made = [self._connection(f"c{k}", source, target) for k, (source, target) in enumerate(edges)]
        for target in names[1:]:
            for k in range(self.rng.choice([0, 0, 0, 1, 2])):
                exponent = 0 if self.style != "any" else int(self.rng.choice([0, 1, 4]))
                weight, bits = random_weight(self.rng, (math.prod(self.shapes[target]), 1), self.style)
                drawn = np.random.default_rng(
                    int(np.abs(weight).sum())
                )  # its own, so that the others stay as they were
                period = int(drawn.choice([1, 1, 2, 4, 8]))
                made.append(Connection(f"on{target}{k}", ALWAYS_ON, target, weight, 0, exponent, bits, period=period))
        return made

    def _connection(self, name: str, source: str, target: str) -> Connection:
        order = list(self.shapes)
        feedback = order.index(source) >= order.index(target)
        lowest = max(int(self.lava), self.starts[target] - self.starts[source] + feedback)
        longest = self.rng.choice([1, 6, self.steps + 4], p=[0.5, 0.4, 0.1])
        delay = max(lowest, int(self.rng.integers(0, longest)))
        geometry, shape = self._geometry(self.shapes[source], self.shapes[target])
        weight, bits = random_weight(self.rng, shape, self.style)
        return Connection(name, source, target, weight, delay, self._exponent(source, geometry, weight), bits, geometry)

    def _geometry(self, source: Shape, target: Shape) -> tuple[Geometry, Shape]:
        """Any that joins these shapes, and the shape of its weights."""
        kind = self.rng.choice(["dense", "convolution", "convolution", "transposed", "transposed"])
        if len(source) == len(target) == 3 and kind != "dense":
            transposed = kind == "transposed"
            fitting = [(g, k) for g, k, sides in kernels(source, transposed=transposed) if sides == target[1:]]
            if fitting:
                geometry, kernel = fitting[self.rng.integers(len(fitting))]
                channels = (source[0], target[0]) if transposed else (target[0], source[0])
                return geometry, (*channels, kernel, kernel)
        return DENSE, (math.prod(target), math.prod(source))

    def _exponent(self, source: str, geometry: Geometry, weight: Array) -> int:
        if source == INPUT and self.spec.kind == "graded":
            return int(np.clip(self.rng.integers(-1, 5) - self.spec.maximum.bit_length(), -8, 7))
        if self.style != "any":
            return 0
        if self.lava and isinstance(geometry, Convolution):
            return (0, -1, -4, -8)[int(np.abs(weight).sum()) % 4]
        return int(self.rng.choice([-8, -3, -1, 0, 1, 3, 7], p=[0.05, 0.15, 0.1, 0.3, 0.2, 0.15, 0.05]))


def random_weight(rng: np.random.Generator, shape: Shape, style: str) -> tuple[Array, int]:
    """Mantissas and their bits: moderate, extreme, sparse, with rows of zeros.

    In the style "fine" they are a few units, so that rounding tells; "wide" ones can add up to more than 16 bits.
    """
    if style == "fine":
        return rng.integers(-4, 6, shape).astype(np.int32), int(rng.integers(4, 9))
    if style == "wide":
        return rng.choice([-128, 125, 126, 127], shape, p=[0.1, 0.3, 0.3, 0.3]).astype(np.int32), 8
    bits = int(rng.choice([8, 8, 8, rng.integers(2, 8)]))
    half = 1 << (bits - 1)
    weight = rng.integers(-half, half, shape)
    if rng.random() < 0.7:
        weight = np.minimum(weight + half // 2, half - 1)  # excitation prevails: something has to fire
    kind = rng.integers(4)
    if kind == 1:
        weight = rng.choice([-half, 1 - half, half - 2, half - 1], shape)
    if kind == 2:
        weight = np.where(rng.random(shape) < 0.2, weight, 0)
    if kind == 3:
        weight[rng.random(shape[0]) < 0.4] = 0
    return weight.astype(np.int32), bits


def with_integrators(rng: np.random.Generator, readout: Readout, neuron: Any, steps: int) -> Readout:
    """Mostly the readout with integrators, in more parts than necessary, and a larger exponent where it fits."""
    if rng.random() < 0.3:
        return readout
    least = quantize_readout(readout, decay=neuron.decay, time_steps=steps, weight_bits=int(rng.integers(2, 9)))
    room = (2**15 - 1) // (steps * max(1, int(np.abs(least.weight).sum(axis=1).max())))
    exponent = int(rng.integers(min(7, room.bit_length()) + 1))
    parts = int(rng.integers(least.parts, readout.weight.shape[1] + 1))
    return replace(readout, integrators=replace(least, parts=parts, weight_exponent=exponent))


def typical_current(spec: InputSpec, shape: Shape, connections: list[Connection], target: str) -> float:
    """About what reaches a neuron in a step, in weight units, if a fifth of the source neurons fire."""
    mean = square = 0.0
    for c in connections:
        if c.target == target:
            level = {INPUT: spec.maximum / 3, ALWAYS_ON: 1.0}.get(c.source, 0.2) * 2.0**c.weight_exponent
            terms = c.weight[0].size if c.geometry == DENSE else c.weight.size / math.prod(shape[:1])
            mean += level * terms * float(c.weight.mean())
            square += level**2 * terms * float(np.square(c.weight.astype(float)).mean())
    return max(mean, 0) + math.sqrt(square)


def with_law(rng: np.random.Generator, neuron: IntegerNeuron, *, lava: bool) -> IntegerNeuron:
    """The neuron as it is, or with reset to zero, or with a current that decays, or with both."""
    kind = rng.choice(["as it is", "zero", "current", "both"], p=[0.55, 0.2, 0.1, 0.15])
    if kind == "as it is":
        return neuron
    reset: Reset = "subtract" if kind == "current" and not lava else "zero"
    decay = 4096 if kind == "zero" else int(rng.choice([1365, 2048, 3277, 4095, rng.integers(1000, 4096)]))
    return replace(neuron, reset=reset, current_decay=decay)


def random_neuron(rng: np.random.Generator, current: float, style: str) -> IntegerNeuron:
    """IF or LIF with a reset about as large as the current, and a threshold of r, r/2 or anything."""
    part = rng.uniform(1, 4) if style == "wide" else rng.uniform(0.1, 1.3)
    reset = int(np.clip(current * part, 1, 255 << 6))
    exponent = max(0, reset.bit_length() - 8)
    mantissa = reset >> exponent
    if style == "any" and exponent < 6 and mantissa > 1 and rng.random() < 0.5:
        mantissa, exponent = mantissa >> 1, exponent + 1
    reset = mantissa << exponent
    threshold = int(rng.choice([reset, max(1, reset // 2), rng.integers(1, 3 * reset // 2 + 1)]))
    decay: Any = rng.choice([*DECAYS, rng.integers(4096)])
    return IntegerNeuron(threshold, mantissa, exponent, int(decay), 1.0)
