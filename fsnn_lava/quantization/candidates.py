"""The float network in integers of given sizes: the reset synapse m * 2**e of every population decides all else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fsnn_lava.config import DeployConfig
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    Array,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    IntegerNeuron,
    Population,
    linear_map,
    mean_input,
    real_weight,
)
from fsnn_lava.quantization.input_correlations import Group, groups_of
from fsnn_lava.quantization.rounding import MOST_PARTS, mean_floor, round_current, round_weights

Size = tuple[int, int]


def value_of(size: Size) -> int:
    """The reset synapse in weight units."""
    return size[0] << size[1]


def reset_sizes() -> list[Size]:
    """Every reset synapse (m, e) worth trying, rising; Lava is given e + 1, which must not exceed 7."""
    sizes = [(m, 0) for m in range(1, 256)]
    sizes += [(m, e) for e in range(1, 7) for m in range(128, 256)]
    return sizes


def integer_neuron(population: Population, reset: Size, config: DeployConfig) -> IntegerNeuron:
    """The population's neuron with that reset synapse; its scale follows from the reset amount."""
    neuron = population.neuron
    assert isinstance(neuron, FloatNeuron)
    decay = round(DECAY_UNITY * (1 - neuron.leak))
    trial = IntegerNeuron(1, reset[0], reset[1], decay, 1.0)
    scale = neuron.reset_amount / trial.reset_amount
    wanted = neuron.v_threshold if config.threshold == "full" else neuron.reset_amount / 2
    return dataclasses.replace(trial, v_threshold=max(1, round(wanted / scale)), scale=scale)


def part_names(connection: Connection) -> tuple[str, ...]:
    """Names under which an integer network may hold what carries a float connection."""
    if connection.source == ALWAYS_ON:
        return connection.name, f"{connection.name}_coarse"
    return connection.name, *(f"{connection.name}_part{k}" for k in range(2, MOST_PARTS + 1))


def parts_of(integer: HardwareNetwork, connection: Connection) -> list[Connection]:
    """The integer connections that carry a float one together."""
    return [c for c in integer.incoming(connection.target) if c.name in part_names(connection)]


@dataclass(frozen=True, eq=False)
class Rounded:
    """One population in integers.

    Parameters
    ----------
    neuron : of that size.
    connections : all that end in the population.
    clipped : float connection -> weights that were clipped.
    meant : float connection from `ALWAYS_ON` -> (N, 1) constant current that it is meant to carry, weight units.
    """

    neuron: IntegerNeuron
    connections: tuple[Connection, ...]
    clipped: Mapping[str, int]
    meant: Mapping[str, Array]


class Rounder:
    """Rounds the populations of one float network, with regard to what its sources send on calibration inputs."""

    def __init__(
        self, network: HardwareNetwork, rates: Mapping[str, Array], *, inputs: Array, config: DeployConfig
    ) -> None:
        refuse_unsupported(network)
        self.network, self.config = network, config
        self.means: dict[str, Array] = {}
        self.groups: dict[str, tuple[Group, ...]] = {}
        for c in network.connections:
            if c.source == ALWAYS_ON or config.rounding == "nearest":
                continue
            leak = network.population(c.target).neuron.leak
            sent = mean_input(network, inputs, leak) if c.source == INPUT else rates[c.source]
            sent = sent.reshape(len(sent), -1)
            self.means[c.name] = sent.mean(axis=0, dtype=np.float64)[None]
            self.groups[c.name] = groups_of(linear_map(network, c), sent)
        self._last: dict[tuple[str, bool], tuple[Size, Rounded]] = {}

    def network_of(self, resets: Mapping[str, Size], *, nearest: bool = False) -> HardwareNetwork:
        """The integer network of these sizes; ``nearest``: without making up for errors, which is quicker.

        Raises
        ------
        NetworkError : if a number is beyond what the integer network may hold.
        """
        done = {name: self.rounded(name, size, nearest=nearest) for name, size in resets.items()}
        populations = tuple(dataclasses.replace(p, neuron=done[p.name].neuron) for p in self.network.populations)
        connections = tuple(c for p in populations for c in done[p.name].connections)
        return dataclasses.replace(self.network, populations=populations, connections=connections)

    def rounded(self, name: str, size: Size, *, nearest: bool = False) -> Rounded:
        """One population with that reset synapse; the last one of each is remembered."""
        before = self._last.get((name, nearest))
        if before is None or before[0] != size:
            self._last[name, nearest] = before = (size, self._rounded(name, size, nearest=nearest))
        return before[1]

    def _rounded(self, name: str, size: Size, *, nearest: bool) -> Rounded:
        population = self.network.population(name)
        neuron = integer_neuron(population, size, self.config)
        incoming = self.network.incoming(name)
        connections: list[Connection] = []
        clipped: dict[str, int] = {}
        meant: dict[str, Array] = {}
        shift: Array | float = 0.0  # mean of what rounding costs, weight units
        for c in (c for c in incoming if c.source != ALWAYS_ON):
            groups = () if nearest else self.groups.get(c.name, ())
            parts, clipped[c.name] = round_weights(
                c, neuron.scale, bits=self.config.weight_bits, graded=self.graded(c), groups=groups
            )
            connections += parts
            shift = shift + mean_floor(parts[0].weight_exponent)
            if not nearest:
                lacking = c.weight / neuron.scale - np.sum([real_weight(part) for part in parts], axis=0)
                shift = shift + self.mean_current(c, lacking)
        for c in (c for c in incoming if c.source == ALWAYS_ON):
            meant[c.name] = c.weight / neuron.scale + shift
            pair, clipped[c.name] = round_current(c, meant[c.name])
            connections += pair
            shift = 0.0
        return Rounded(neuron, tuple(connections), clipped, meant)

    def graded(self, connection: Connection) -> bool:
        """Whether a connection carries graded codes."""
        return connection.source == INPUT and self.network.input.kind == "graded"

    def mean_current(self, connection: Connection, weight: Array) -> Array | float:
        """(N, 1) mean current that these weights would carry; 0 if means are of no interest (nearest rounding)."""
        if connection.name not in self.means:
            return 0.0
        return linear_map(self.network, connection).with_weight(weight).product(self.means[connection.name]).T


def refuse_unsupported(network: HardwareNetwork) -> None:
    """Nothing, if every connection and leak of a float network can be told apart and expressed.

    Raises
    ------
    UnsupportedError : naming each one that cannot.
    """
    names = [c.name for c in network.connections]
    made = {name for c in network.connections for name in part_names(c)[1:]}
    lost = [
        f'connection "{name}": found a name that another connection has or is given; allowed: a name of its own'
        for name in sorted({name for name in names if names.count(name) > 1 or name in made})
    ]
    lost += [
        f'population "{p.name}": found leak {p.neuron.leak}; allowed: at least {1 / DECAY_UNITY} (12 bits)'
        for p in network.populations
        if round(DECAY_UNITY * (1 - p.neuron.leak)) >= DECAY_UNITY
    ]
    if lost:
        raise UnsupportedError(f'network "{network.name}" cannot be quantized:\n  ' + "\n  ".join(lost))
