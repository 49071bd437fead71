"""What a NIR graph computes by NIR's equations alone: forward Euler, edges without delay, no word of our metadata.

An edge that leads back, as a depth-first search from the input sees it, brings what its source sent a step before, at
first what it sends at rest. A neuron's synaptic current of a step acts in that step, and its reset before the next.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
NEURONS = ("IF", "LIF", "CubaLIF")


def outputs(graph: Any, inputs: dict[str, Array], *, time_step: float, reset: str = "zero") -> dict[str, Array]:
    """Node -> (T, *shape): what every node sends in every step, for inputs (T, *shape) of every Input node.

    ``reset``: what a spike does in IF, LIF and CubaLIF, "zero" as NIR defines it, "subtract" or "unleaked".
    """
    steps = len(next(iter(inputs.values())))
    order = ordered(graph)
    place = {name: i for i, name in enumerate(order)}
    state: dict[str, Any] = {}
    rest: dict[str, Array] = {}
    for name in order:
        node, kind = graph.nodes[name], type(graph.nodes[name]).__name__
        if kind in NEURONS:
            state[name] = Neuron(node, kind, time_step, reset)
            rest[name] = np.zeros(node.v_threshold.shape)
        elif kind in ("Delay", "Input"):
            rest[name] = np.zeros(node.delay.shape if kind == "Delay" else node.input_type["input"])
        elif kind in ("I", "LI"):
            state[name] = rest[name] = np.zeros(node.r.shape)
        else:
            before = [rest[a] for a, b in graph.edges if b == name]
            rest[name] = respond(node, kind, np.asarray(sum(before), np.float64), None, time_step)
    sent: dict[str, list[Array]] = {name: [] for name in graph.nodes}
    for t in range(steps):
        for name in order:
            node, kind = graph.nodes[name], type(graph.nodes[name]).__name__
            if kind == "Delay":
                (before,) = (a for a, b in graph.edges if b == name)
                late = round(float(node.delay.flat[0]) / time_step)
                value = sent[before][t - late] if t >= late else np.zeros(node.delay.shape)
            elif kind == "Input":
                value = inputs[name][t]
            else:
                sources = [a for a, b in graph.edges if b == name]
                now = [sent[a][t] for a in sources if place[a] < place[name]]
                late = [sent[a][t - 1] if t else rest[a] for a in sources if place[a] >= place[name]]
                arriving = np.asarray(sum(now + late), np.float64)
                if kind in NEURONS:
                    value = state[name].step(arriving)
                else:
                    value = respond(node, kind, arriving, state.get(name), time_step)
                    if name in state:
                        state[name] = value
            sent[name].append(value)
    return {name: np.stack(values) for name, values in sent.items()}


def ordered(graph: Any) -> list[str]:
    """Delay nodes first, since they send what is past; the others in reversed postorder from the inputs."""
    finished: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        seen.add(name)
        for a, b in graph.edges:
            if a == name and b not in seen and type(graph.nodes[b]).__name__ != "Delay":
                visit(b)
        finished.append(name)

    delays = [n for n, node in graph.nodes.items() if type(node).__name__ == "Delay"]
    for name in [*(n for n, node in graph.nodes.items() if type(node).__name__ == "Input"), *delays]:
        if name not in seen:
            visit(name)
    return [*delays, *(n for n in reversed(finished) if n not in delays)]


class Neuron:
    """IF, LIF or CubaLIF."""

    def __init__(self, node: Any, kind: str, dt: float, reset: str) -> None:
        self.node, self.kind, self.dt, self.reset = node, kind, dt, reset
        self.v, self.current, self.fired = (np.zeros(node.v_threshold.shape) for _ in range(3))

    def step(self, x: Array) -> Array:
        node, dt, amount = self.node, self.dt, self.node.v_threshold - self.node.v_reset
        if self.kind == "CubaLIF":
            self.current = self.current + dt / node.tau_syn * (node.w_in * x - self.current)
            x = self.current
        v = self.v
        if self.reset == "zero":
            v = np.where(self.fired > 0, node.v_reset, v)
        if self.reset == "subtract":
            v = v - amount * self.fired
        if self.kind == "IF":
            v = v + dt * node.r * x
        else:
            tau = node.tau_mem if self.kind == "CubaLIF" else node.tau
            v = v + dt / tau * (node.v_leak - v + node.r * x)
        if self.reset == "unleaked":
            v = v - amount * self.fired
        self.v, self.fired = v, (v > node.v_threshold).astype(np.float64)
        return self.fired


def respond(node: Any, kind: str, x: Array, v: Array | None, dt: float) -> Array:
    """NIR's equations, one step."""
    if kind == "I":
        return v + dt * node.r * x
    if kind == "LI":
        return v + dt / node.tau * (node.v_leak - v + node.r * x)
    if kind == "Threshold":
        return (x > node.threshold).astype(np.float64)
    if kind == "Scale":
        return x * node.scale
    if kind == "Linear":
        return node.weight @ x
    if kind == "Affine":
        return node.weight @ x + node.bias
    if kind == "Flatten":
        return x.reshape(-1)
    if kind == "Conv2d":
        return correlated(node, x)
    if kind in ("SumPool2d", "AvgPool2d"):
        (side, _) = node.kernel_size
        tiles = x.reshape(len(x), x.shape[1] // side, side, x.shape[2] // side, side)
        return tiles.sum(axis=(2, 4)) if kind == "SumPool2d" else tiles.mean(axis=(2, 4))
    assert kind == "Output", kind
    return x


def correlated(node: Any, x: Array) -> Array:
    """A plain loop over kernels and positions."""
    (stride, _), (padding, _), kernel = node.stride, node.padding, node.weight.shape[2]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    sides = [(n - kernel) // stride + 1 for n in padded.shape[1:]]
    out = np.zeros((len(node.weight), *sides))
    for y, z in np.ndindex(*sides):
        patch = padded[:, y * stride : y * stride + kernel, z * stride : z * stride + kernel]
        out[:, y, z] = np.tensordot(node.weight, patch, axes=3) + node.bias
    return out
