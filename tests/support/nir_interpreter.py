"""What a NIR graph computes by NIR's equations alone: forward Euler, edges without delay, no word of our metadata."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def outputs(graph: Any, inputs: dict[str, Array], *, time_step: float) -> dict[str, Array]:
    """Node -> (T, *shape): what every node sends in every step, for inputs (T, *shape) of every Input node."""
    steps = len(next(iter(inputs.values())))
    state = {name: np.zeros(node.r.shape) for name, node in graph.nodes.items() if hasattr(node, "r")}
    sent: dict[str, list[Array]] = {name: [] for name in graph.nodes}
    order = ordered(graph)
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
                arriving = sum(sent[a][t] for a, b in graph.edges if b == name)
                value = respond(node, kind, np.asarray(arriving, np.float64), state.get(name), time_step)
                if name in state:
                    state[name] = value
            sent[name].append(value)
    return {name: np.stack(values) for name, values in sent.items()}


def ordered(graph: Any) -> list[str]:
    """Delay nodes first, since they send what is past; every other node after all that lead to it."""
    done = [n for n, node in graph.nodes.items() if type(node).__name__ == "Delay"]
    left = [n for n in graph.nodes if n not in done]
    while left:
        ready = [n for n in left if all(a in done for a, b in graph.edges if b == n)]
        assert ready, f"a loop without delay among {left}"
        done += ready
        left = [n for n in left if n not in ready]
    return done


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
