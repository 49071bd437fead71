"""What other tools make of a plain NIR graph, restated in NumPy: each tool's neuron, and graphs with one way forward.

A step delivers along the edges at once; what comes from a neuron as far from the input as the one it reaches, or
farther, is the last step's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nir_interpreter import respond

Array = npt.NDArray[Any]
Law = Callable[[Any, Array, Array], tuple[Array, Array, Array]]
"""Of a node, its potentials and what arrives: what it sends, its potentials, and these in thresholds before a reset."""


def norse(node: Any, v: Array, x: Array, *, step: float) -> tuple[Array, Array, Array]:
    """Norse 1.1: IF adds, LIF is forward Euler without r; a spike sets to zero."""
    v = v + (step / node.tau * (x - v) if hasattr(node, "tau") else x)
    spikes = v > node.v_threshold
    return spikes.astype(float), np.where(spikes, 0.0, v), v / node.v_threshold


def sinabs(node: Any, v: Array, x: Array) -> tuple[Array, Array, Array]:
    """Sinabs 3.1.3: tau in steps, exponential, no r; as many spikes as thresholds; IF no lower than one below zero."""
    leaky = hasattr(node, "tau")
    v = (np.exp(-1 / node.tau) if leaky else 1.0) * v + x
    spikes = np.trunc(np.maximum(v, 0) / node.v_threshold)
    after = v - spikes * node.v_threshold
    return spikes, after if leaky else np.maximum(after, -node.v_threshold), v / node.v_threshold


def snntorch(node: Any, v: Array, x: Array) -> tuple[Array, Array, Array]:
    """snnTorch 1.0: LIF of steps of 1e-4, r in the threshold; a spike sets to zero."""
    v = (1 - 1e-4 / node.tau) * v + x
    share = v * (node.r * 1e-4 / node.tau) / node.v_threshold
    spikes = share > 1
    return spikes.astype(float), np.where(spikes, 0.0, v), share


def subtracting(node: Any, v: Array, x: Array, *, step: float) -> tuple[Array, Array, Array]:
    """NIR's equations, forward Euler, with a spike that subtracts the threshold."""
    leaky = hasattr(node, "tau")
    v = (1 - step / node.tau if leaky else 1.0) * v + step * node.r / (node.tau if leaky else 1.0) * x
    spikes = v > node.v_threshold
    return spikes.astype(float), v - spikes * node.v_threshold, v / node.v_threshold


def sent(graph: Any, inputs: Array, law: Law, *, steps: int) -> tuple[dict[str, Array], float]:
    """Neuron node -> spikes (T, B, N), "output" -> (T, B, classes); how near a potential came to thresholds.

    The nearness is a share of the threshold; to several of them where several spikes are sent.
    """
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    (source,) = (name for name, kind in kinds.items() if kind == "Input")
    (end,) = (name for name, kind in kinds.items() if kind == "Output")
    distance = _distances(graph, source)
    neurons = sorted((n for n, kind in kinds.items() if kind in ("IF", "LIF")), key=distance.__getitem__)
    shapes = {name: graph.nodes[name].v_threshold.shape for name in neurons}
    v = {name: np.zeros((len(inputs), *shapes[name])) for name in neurons}
    now = {source: inputs.reshape(len(inputs), *graph.nodes[source].input_type["input"]).astype(float)}
    last = {name: np.zeros_like(v[name]) for name in neurons}
    found: dict[str, list[Array]] = {name: [] for name in [*neurons, "output"]}
    nearest = np.inf

    def value(name: str, target: str) -> Array:
        if name in kinds and kinds[name] in ("IF", "LIF", "Input"):
            return now[name] if distance[name] < distance[target] else last[name]
        arriving = sum(value(a, target) for a, b in graph.edges if b == name)
        node = graph.nodes[name]
        return np.stack([respond(node, kinds[name], np.asarray(x), None, 1.0) for x in arriving])

    for _ in range(steps):
        for name in neurons:
            arriving = sum(value(a, name) for a, b in graph.edges if b == name)
            now[name], v[name], share = law(graph.nodes[name], v[name], arriving)
            away = np.abs(share - np.maximum(np.rint(share), 1))
            nearest = min(nearest, float(away.min()))
            found[name].append(now[name].reshape(len(inputs), -1))
        found["output"].append(value(end, end))
        last = {name: now[name] for name in neurons}
    return {name: np.stack(values) for name, values in found.items()}, nearest


def _distances(graph: Any, source: str) -> dict[str, int]:
    """Edges from the input to every node."""
    distance, ring = {source: 0}, [source]
    while ring:
        ring = [b for a, b in graph.edges if a in ring and b not in distance]
        distance |= dict.fromkeys(ring, max(distance.values()) + 1)
    return distance
