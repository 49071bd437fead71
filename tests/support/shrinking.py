"""The smallest network that still fails, found from a large one by leaving out what is not needed for it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fsnn_lava.errors import NetworkError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import Connection, HardwareNetwork

Fails = Callable[[HardwareNetwork, Array], bool]


def smallest(network: HardwareNetwork, inputs: Array, fails: Fails) -> tuple[HardwareNetwork, Array]:
    """A pair for which `fails` holds, as it does for the one given, and from which nothing can be left out."""
    while True:
        for simpler in _simpler(network, inputs):
            if fails(*simpler):
                network, inputs = simpler
                break
        else:
            return network, inputs


def described(network: HardwareNetwork, inputs: Array) -> str:
    """All that the network's spikes depend on, to be read by a person."""
    lines = [f"{network.input}, T = {network.time_steps}, inputs {inputs.shape} {inputs.tolist()}"]
    lines += [f"{p.name} {p.shape} start {p.start}: {p.neuron}" for p in network.populations]
    for c in network.connections:
        lines.append(f"{c.source} -> {c.target} delay {c.delay}, exponent {c.weight_exponent}, {c.geometry}")
        lines.append(f"  weight {c.weight.shape} {c.weight.tolist()}")
    return "\n".join(lines)


def _simpler(network: HardwareNetwork, inputs: Array) -> Iterator[tuple[HardwareNetwork, Array]]:
    """What is one part smaller, large parts first; what breaks an invariant is passed over."""
    event = network.input.kind == "event"
    for b in range(inputs.shape[event] if inputs.shape[event] > 1 else 0):
        yield network, inputs.take([b], axis=int(event))
    for steps in {network.time_steps // 2, network.time_steps - 1} - {0}:
        yield replace(network, time_steps=steps), inputs[:steps] if event else inputs
    for change in _changes(network):
        try:
            yield replace(network, **change), inputs
        except NetworkError:
            continue
    for place in np.argwhere(inputs):
        dark = inputs.copy()
        dark[tuple(place)] = 0
        yield network, dark


def _changes(network: HardwareNetwork) -> Iterator[dict[str, Any]]:
    """Fields of the network that one part less, or a plainer part, would change."""
    for p in network.populations:
        kept = tuple(q for q in network.populations if q != p)
        wires = tuple(c for c in network.connections if p.name not in (c.source, c.target))
        if kept and wires:
            weight = np.zeros((1, kept[0].size))
            readout = replace(network.readout, source=kept[0].name, weight=weight, bias=np.zeros(1))
            yield {"populations": kept, "connections": wires, "readout": readout}
    for c in network.connections if len(network.connections) > 1 else ():
        yield {"connections": tuple(d for d in network.connections if d is not c)}
    for p in network.populations:
        if getattr(p.neuron, "decay", 0):
            plain: Any = replace(p, neuron=replace(p.neuron, decay=0))
            yield {"populations": tuple(plain if q == p else q for q in network.populations)}
    for c in network.connections:
        for d in _plainer(c):
            yield {"connections": tuple(d if e is c else e for e in network.connections)}


def _plainer(c: Connection) -> Iterator[Connection]:
    """The connection with half of its weights, one step less, or an exponent closer to 0."""
    places = np.flatnonzero(c.weight)
    for half in (places[: len(places) // 2], places[len(places) // 2 :]) if len(places) > 1 else ():
        weight = c.weight.copy()
        np.put(weight, half, 0)
        yield replace(c, weight=weight)
    if c.delay:
        yield replace(c, delay=c.delay - 1)
    if c.weight_exponent:
        yield replace(c, weight_exponent=c.weight_exponent - int(np.sign(c.weight_exponent)))
