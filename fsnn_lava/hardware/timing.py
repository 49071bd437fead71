"""The two timings of a network: the papers' delays, and those of hardware, where every connection takes a step."""

from __future__ import annotations

import dataclasses
from typing import Literal

from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork

Timing = Literal["sequential", "hardware"]


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
