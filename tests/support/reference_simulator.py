"""Reader and integer simulator written from `docs/network-format.md` alone: h5py and plain Python, no package code.

It is slow and obvious on purpose: the fast simulator is tested against it, and the page is tested by it.
"""

from itertools import product
from typing import Any

import h5py


def read(path: Any) -> dict[str, Any]:
    """The network file as nested dictionaries and lists."""
    with h5py.File(path, "r") as file:
        assert file.attrs["format"] == b"fsnn-lava-network"
        assert file.attrs["version"] in (2, 3, 4, 5)
        network = entries(file) | {
            "input": entries(file["input"]),
            "populations": {p["name"]: p for p in numbered(file["populations"])},
            "connections": numbered(file["connections"]),
            "readout": entries(file["readout"]),
            "integrators": entries(file["readout/integrators"]) if "integrators" in file["readout"] else None,
        }
    for connection in network["connections"]:
        connection["reached"] = synapses(network, connection)
    return network


def numbered(group: h5py.Group) -> list[dict[str, Any]]:
    return [entries(group[key]) for key in sorted(group)]


def entries(group: h5py.Group) -> dict[str, Any]:
    values = dict(group.attrs) | {key: item[()] for key, item in group.items() if isinstance(item, h5py.Dataset)}
    return {key: v.decode() if isinstance(v, bytes) else v.tolist() for key, v in values.items()}


def size(shape: list[int]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def synapses(network: dict[str, Any], connection: dict[str, Any]) -> list[list[tuple[int, int]]]:
    """For each element of the source, the neurons of the target that it reaches, with the weights.

    A kernel joins each position (d, y, x) of one end, the narrow one, with K x K positions of the other: a
    convolution gathers them, so its target is the narrow end; a transposed convolution spreads from its source.
    """
    weight, geometry = connection["weight"], connection["geometry"]
    if geometry == "dense":
        return [list(enumerate(column)) for column in zip(*weight, strict=True)]
    ends: list[list[int]] = [
        (network["input"] if name == "input" else network["populations"][name])["shape"]
        for name in (connection["source"], connection["target"])
    ]
    wide, narrow = ends if geometry == "convolution" else ends[::-1]
    reached: list[list[tuple[int, int]]] = [[] for _ in range(size(ends[0]))]
    stride, padding, kernel = connection["stride"], connection["padding"], len(weight[0][0])
    for d, y, x, c, a, b in product(*map(range, [*narrow, wide[0], kernel, kernel])):
        y_wide, x_wide = stride * y + a - padding, stride * x + b - padding
        if 0 <= y_wide < wide[1] and 0 <= x_wide < wide[2]:
            one, other = flat(narrow, d, y, x), flat(wide, c, y_wide, x_wide)
            j, i = (other, one) if geometry == "convolution" else (one, other)
            reached[j].append((i, weight[d][c][a][b]))
    return reached


def flat(shape: list[int], channel: int, y: int, x: int) -> int:
    return (channel * shape[1] + y) * shape[2] + x


def arriving(network: dict[str, Any], connection: dict[str, Any], sample: Any, spikes: Any, step: int) -> Any:
    """What the connection's source sent, in time to arrive at its target's local step; None: nothing arrives."""
    source, start = connection["source"], network["populations"][connection["target"]]["start"]
    if source == "always_on":
        period = connection.get("period", 1)
        return [1] if step % period == period // 2 else None
    source_start = 0 if source == "input" else network["populations"][source]["start"]
    sent = step - (source_start + connection["delay"] - start)
    if sent < 0:
        return None
    if source == "input":
        return sample if network["input"]["kind"] == "graded" else sample[sent]
    return spikes[source][sent]


def simulate(network: dict[str, Any], sample: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Spikes and state, population -> step -> neuron, of one sample: codes, or frames of 0/1 for events.

    State is the potential, or the current where that decays and is larger.
    """
    spikes: dict[str, Any] = {name: [] for name in network["populations"]}
    potentials: dict[str, Any] = {name: [] for name in network["populations"]}
    currents: dict[str, Any] = {name: [] for name in network["populations"]}
    for step in range(network["time_steps"]):
        for name, p in network["populations"].items():
            n = size(p["shape"])
            current = [0] * n
            for c in network["connections"]:
                values = arriving(network, c, sample, spikes, step) if c["target"] == name else None
                if values is None:
                    continue
                totals = [0] * n
                for x, leaving in zip(values, c["reached"], strict=True):
                    for i, w in leaving if x else ():
                        totals[i] += 2 * w * x
                e = c["weight_exponent"]
                current = [i + 64 * (y << e if e >= 0 else y >> -e) for i, y in zip(current, totals, strict=True)]
            before = potentials[name][-1] if step else [0] * n
            fired = spikes[name][-1] if step else [0] * n
            if step and p.get("current_decay", 4096) < 4096:
                held = decayed(currents[name][-1], p["current_decay"])
                current = [h + i for h, i in zip(held, current, strict=True)]
            currents[name].append(current)
            rho = p["reset_mantissa"] << p["reset_exponent"]
            if p.get("reset") == "zero":
                kept = decayed([0 if s else u for u, s in zip(before, fired, strict=True)], p["decay"])
            else:
                kept = [u - 128 * rho * s for u, s in zip(decayed(before, p["decay"]), fired, strict=True)]
            after = [u + i for u, i in zip(kept, current, strict=True)]
            potentials[name].append(after)
            spikes[name].append([int(u > 64 * (2 * p["v_threshold"] - 1)) for u in after])
    for name, p in network["populations"].items():
        if p.get("current_decay", 4096) < 4096:
            rows = zip(potentials[name], currents[name], strict=True)
            potentials[name] = [[max(pair, key=abs) for pair in zip(*row, strict=True)] for row in rows]
    return spikes, potentials


def decayed(state: list[int], decay: int) -> list[int]:
    return [(abs(u) * (4096 - decay) >> 12) * (1 if u >= 0 else -1) for u in state]


def integrate(network: dict[str, Any], spikes: dict[str, Any]) -> list[int]:
    """Potentials of one sample's integrators after its T steps, class by class, part by part."""
    readout, integrators = network["readout"], network["integrators"]
    decay, run = network["populations"][readout["source"]]["decay"], -(-len(readout["weight"][0]) // readout["parts"])
    potentials = []
    for weights, part in product(integrators["weight"], range(readout["parts"])):
        u = 0
        for fired in spikes[readout["source"]]:
            total = sum(w * s for j, (w, s) in enumerate(zip(weights, fired, strict=True)) if j // run == part)
            u = (abs(u) * (4096 - decay) >> 12) * (1 if u >= 0 else -1)
            u += 64 * (2 * total << integrators["weight_exponent"])
        potentials.append(u)
    return potentials
