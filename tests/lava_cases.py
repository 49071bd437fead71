"""Random integer networks that Lava can say, and a plain-Python oracle of what they do."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from fsnn_lava.ir import (
    ALWAYS_ON,
    INPUT,
    Array,
    Connection,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Population,
    Readout,
)

SAMPLES = 2
DECAYS = (0, 0, 0, 40, 205, 819)
GRADED_EXPONENTS = (-8, -7, -6, -5, 0)


class Overflow(Exception):
    """A potential outside 24 bits."""


def oracle(network: HardwareNetwork, frames: Array) -> dict[str, Array]:
    """Spikes (T, N) of one sample, written from the equations of docs/network-format.md with Python's integers.

    ``frames``: what the input sends at global steps 0 .. T-1, (T, n).
    """
    last = max(p.start for p in network.populations) + network.time_steps
    state = {p.name: [0] * p.size for p in network.populations}
    sent: dict[str, list[list[int]]] = {p.name: [] for p in network.populations}
    sent[INPUT] = [frames[g].tolist() if g < network.time_steps else [0] * frames.shape[1] for g in range(last)]
    for g, p in itertools.product(range(last), network.populations):
        current = [0] * p.size
        for c in network.incoming(p.name):
            on = c.source == ALWAYS_ON and p.start <= g
            x = [1] if on else sent[c.source][g - c.delay] if c.source != ALWAYS_ON and c.delay <= g else None
            for i in range(p.size if x else 0):
                total = 2 * sum(w * s for w, s in zip(c.weight[i].tolist(), x or [], strict=True))
                shift = c.weight_exponent
                current[i] += 64 * (total << shift if shift >= 0 else total >> -shift)
        neuron: Any = p.neuron
        fired = []
        for i, u in enumerate(state[p.name]):
            u = (abs(u) * (4096 - neuron.decay) >> 12) * (1 if u > 0 else -1)
            u -= 128 * neuron.reset_synapse * (sent[p.name][g - 1][i] if g else 0)
            u += current[i]
            if abs(u) >= 2**23:
                raise Overflow(p.name)
            state[p.name][i] = u
            fired.append(int(u > 64 * (2 * neuron.v_threshold - 1)))
        sent[p.name].append(fired)
    return {p.name: np.array(sent[p.name][p.start : p.start + network.time_steps]) for p in network.populations}


def frames_of(network: HardwareNetwork, inputs: Array, sample: int) -> Array:
    """(T, n) of one sample."""
    if network.input.kind == "event":
        return inputs[:, sample].reshape(network.time_steps, -1)
    return np.repeat(inputs[sample].reshape(1, -1), network.time_steps, axis=0)


def random_weight(rng: np.random.Generator, shape: tuple[int, int], *, fine: bool) -> Array:
    """Mantissas: moderate, at the extremes, sparse, with rows of zeros; fine: few units, so that rounding tells."""
    if fine:
        return rng.integers(-4, 5, shape).astype(np.int32)
    weight = rng.integers(-128, 128, shape)
    if rng.random() < 0.5:
        weight = np.minimum(weight + 60, 127)  # excitation prevails: something has to fire
    kind = rng.integers(4)
    if kind == 1:
        weight = rng.choice([-128, -127, 126, 127], shape)
    if kind == 2:
        weight = np.where(rng.random(shape) < 0.06, weight, 0)
    if kind == 3:
        weight[rng.random(shape[0]) < 0.5] = 0
    return weight.astype(np.int32)


def random_connections(
    rng: np.random.Generator, spec: InputSpec, populations: list[Population], *, fine: bool
) -> list[Connection]:
    """The chain, and any others: recurrent, backward, skipping, from the input, constant."""
    order = {INPUT: -1} | {p.name: i for i, p in enumerate(populations)}
    sizes = {INPUT: spec.size} | {p.name: p.size for p in populations}
    starts = {INPUT: 0} | {p.name: p.start for p in populations}
    names = [INPUT, *(p.name for p in populations)]
    edges = [*itertools.pairwise(names)]
    edges += [(s, t) for s in names for t in names[1:] if rng.random() < 0.2]
    made = []
    for k, (source, target) in enumerate(edges):
        lowest = max(1, starts[target] - starts[source] + (order[source] >= order[target] and starts[target] == 0))
        graded = source == INPUT and spec.kind == "graded"
        exponent = int(rng.choice(GRADED_EXPONENTS)) if graded else 0 if fine else int(rng.choice([0, 0, 1, 3]))
        weight = random_weight(rng, (sizes[target], sizes[source]), fine=fine)
        delay = max(lowest, int(rng.integers(1, 6)))
        made.append(Connection(f"c{k}", source, target, weight, delay, exponent, 8))
    for p in populations:
        for k in range(rng.integers(3)):
            weight = random_weight(rng, (p.size, 1), fine=fine)
            made.append(
                Connection(f"on{p.name}{k}", ALWAYS_ON, p.name, weight, 0, 0 if fine else int(rng.choice([0, 1, 4])), 8)
            )
    return made


def random_network(rng: np.random.Generator, name: str) -> HardwareNetwork:
    """One to three populations with any parameters."""
    kind: Any = rng.choice(["graded", "event"])
    spec = InputSpec((int(rng.integers(1, 9)),), kind, 1 if kind == "event" else int(rng.choice([3, 16, 255])))
    fine = bool(rng.random() < 0.4)
    start = itertools.accumulate(rng.integers(0, 3, rng.integers(1, 4)).tolist(), initial=int(rng.integers(1, 3)))
    populations = []
    for i, first in enumerate(list(start)[1:]):
        mantissa, exponent = (
            (int(rng.integers(1, 10)), 0) if fine else (int(rng.integers(1, 256)), int(rng.integers(3)))
        )
        reset = mantissa << exponent
        threshold = int(rng.choice([reset, max(1, reset // 2), rng.integers(1, 10 if fine else 1000)]))
        neuron = IntegerNeuron(threshold, mantissa, exponent, int(rng.choice([*DECAYS, rng.integers(4096)])), 1.0)
        populations.append(Population(f"p{i}", (int(rng.integers(1, 8)),), neuron, first))
    connections = random_connections(rng, spec, populations, fine=fine)
    readout = Readout("p0", np.ones((2, populations[0].size)), np.zeros(2))
    return HardwareNetwork(
        name,
        spec,
        tuple(populations),
        tuple(connections),
        readout,
        int(rng.integers(10, 16) if fine else rng.integers(3, 11)),
    )


def random_case(seed: int) -> tuple[HardwareNetwork, Array, list[dict[str, Array]]]:
    """A network, inputs and the oracle's spikes; drawn again until no potential leaves 24 bits."""
    rng = np.random.default_rng(seed)
    while True:
        network = random_network(rng, f"seed {seed}")
        event = network.input.kind == "event"
        shape = ((network.time_steps,) if event else ()) + (SAMPLES, network.input.size)
        inputs = rng.integers(0, network.input.maximum + 1, shape)
        try:
            return network, inputs, [oracle(network, frames_of(network, inputs, b)) for b in range(SAMPLES)]
        except Overflow:
            continue
