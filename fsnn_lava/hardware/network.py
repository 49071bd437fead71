"""The network as hardware sees it, first in floats, then in integers.

A `HardwareNetwork` holds arrays and plain numbers and does nothing. Its invariants are checked when it is
made, so every network that exists is runnable; every broken invariant is named in one `NetworkError`.

Time. Population p integrates and counts in its window of global steps [start_p, start_p + T). A spike sent at
global step k over a connection of delay d arrives at step k + d. Counted from each population's own start, a
connection therefore has the *local delay* start_source + delay - start_target, which must not be negative.
Nothing else distinguishes the papers' timing from Lava's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fsnn_lava.errors import NetworkError
from fsnn_lava.hardware.geometry import DENSE, Convolution, Dense, Geometry, TransposedConvolution
from fsnn_lava.hardware.parts import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    STATE_LIMIT,
    STATE_PER_WEIGHT,
    THRESHOLD_LIMIT,
    Arithmetic,
    Array,
    Connection,
    FloatNeuron,
    InputSpec,
    IntegerNeuron,
    Integrators,
    Neuron,
    Population,
    Readout,
    Timing,
    Violation,
)
from fsnn_lava.hardware.validity import local_delay, violations

__all__ = [
    "ALWAYS_ON",
    "DECAY_UNITY",
    "DENSE",
    "INPUT",
    "STATE_LIMIT",
    "STATE_PER_WEIGHT",
    "THRESHOLD_LIMIT",
    "Arithmetic",
    "Array",
    "Connection",
    "Convolution",
    "Dense",
    "FloatNeuron",
    "Geometry",
    "HardwareNetwork",
    "InputSpec",
    "IntegerNeuron",
    "Integrators",
    "Neuron",
    "Population",
    "Readout",
    "Timing",
    "TransposedConvolution",
    "Violation",
    "with_timing",
]


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
        found = violations(self.input, self.populations, self.connections, self.readout, time_steps=self.time_steps)
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

    def shape_of(self, source: str) -> tuple[int, ...]:
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

    def local_delay(self, connection: Connection) -> int:
        """Delay counted from both ends' own starts: start_source + delay - start_target."""
        return local_delay(connection, {p.name: p.start for p in self.populations})


def with_timing(network: HardwareNetwork, timing: Timing) -> HardwareNetwork:
    """The same network under the papers' delays or the hardware's (docs/network-format.md).

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
