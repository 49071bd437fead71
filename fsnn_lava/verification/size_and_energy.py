"""Size and work of a network: neurons, synapses, weight bytes; spikes, synaptic operations, energy.

A *synapse* is a weight that is not zero between two neurons, so the zeros around an image make none, and a kernel
makes one at each place that it is used at. A *message* is what one source neuron sends in one step: a spike, an input
event, or a graded input code that is not zero (codes are sent anew in every step). A *synaptic operation* is one
message at one synapse. Messages of a source's whole window are counted, also those that arrive after the target's.

Not counted, being few or elsewhere: the synapse by which Lava's neurons reset themselves and the relays that open
windows (one operation per spike, one per step), and the readout, which the host computes.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsnn_lava.errors import ConfigError, InputError, counted
from fsnn_lava.hardware import ALWAYS_ON, INPUT, Array, Connection, HardwareNetwork, RunResult, check_inputs, linear_map
from fsnn_lava.verification.markdown_tables import markdown_table

FLOAT_BITS = 64
"""Width of a weight of a float network."""


@dataclass(frozen=True)
class EnergyModel:
    """Energy of an inference: synaptic operations x `pj_per_synaptic_operation`.

    Raises
    ------
    ConfigError : if the figure is not a positive number or has no source.
    """

    pj_per_synaptic_operation: float
    """Picojoules, more than 0."""
    source: str
    """Where the figure is from and what it leaves out; printed wherever an energy is."""

    def __post_init__(self) -> None:
        if not 0 < self.pj_per_synaptic_operation < float("inf"):
            raise ConfigError(f"energy per synaptic operation: {self.pj_per_synaptic_operation} pJ; allowed: above 0")
        if not self.source.strip():
            raise ConfigError("energy per synaptic operation: found no source; say where the figure is from")

    def microjoules(self, synaptic_operations: float) -> float:
        """Return the energy of so many operations."""
        return synaptic_operations * self.pj_per_synaptic_operation * 1e-6


LOIHI_1 = EnergyModel(
    23.6,
    'Davies et al., "Loihi: A Neuromorphic Manycore Processor with On-Chip Learning", IEEE Micro 38(1), 2018, Table 2: '
    "minimum per synaptic operation on Loihi 1, from simulations before the chip was made; neuron updates, routing of "
    "spikes and idle power come on top",
)
"""The figure most often quoted. For Loihi 2 none is published."""


@dataclass(frozen=True)
class PopulationSize:
    """Size of one population: its neurons, and the synapses that end in it."""

    name: str
    neurons: int
    synapses: int
    weight_bytes: int  # of the weights that are not zero, each kernel held once
    weight_bytes_unshared: int  # the same, each synapse holding a weight of its own


@dataclass(frozen=True)
class NetworkSize:
    """Size of every population, in the network's order."""

    populations: tuple[PopulationSize, ...]

    @property
    def total(self) -> PopulationSize:
        """Sum over all populations."""
        columns = zip(*(dataclasses.astuple(p)[1:] for p in self.populations), strict=True)
        return PopulationSize("total", *map(sum, columns))

    def as_dict(self) -> dict[str, Any]:
        """Return for JSON the fields of `PopulationSize` for each population, and their total."""
        return {
            "populations": [dataclasses.asdict(p) for p in self.populations],
            "total": {name: value for name, value in dataclasses.asdict(self.total).items() if name != "name"},
        }

    def as_markdown(self) -> str:
        """Write a table for people, and what its columns mean."""
        rows = [
            (p.name, *(f"{n:,}" for n in (p.neurons, p.synapses, p.weight_bytes, p.weight_bytes_unshared)))
            for p in (*self.populations, self.total)
        ]
        header = ("population", "neurons", "synapses", "weight bytes", "weight bytes, kernels not shared")
        note = (
            "*Synapses* are weights that are not zero, between two neurons. *Weight bytes*: of these weights, each of "
            f"which takes the bits of its mantissa, {FLOAT_BITS} in a float network; addresses are not counted. "
            "*Kernels not shared*: as if every synapse of a convolution held a weight of its own. The readout runs on "
            "the host, and is not counted."
        )
        return f"{markdown_table(header, rows)}\n\n{note}"


@dataclass(frozen=True)
class ConnectionActivity:
    """Messages over one connection per inference, mean over samples."""

    name: str
    source: str
    target: str
    messages: float  # sent by the source's neurons
    synaptic_operations: float  # messages at synapses


@dataclass(frozen=True)
class Activity:
    """Work of a network in a run, mean over samples; the words are those at the top of this file.

    An energy is always given together with the model that it comes from.

    Parameters
    ----------
    samples : how many samples ran.
    time_steps : T.
    spikes : population -> spikes of all its neurons per inference.
    connections : in the network's order.
    """

    samples: int
    time_steps: int
    spikes: Mapping[str, float]
    connections: tuple[ConnectionActivity, ...]

    @property
    def synaptic_operations(self) -> float:
        """Synaptic operations of all connections, per inference."""
        return sum(c.synaptic_operations for c in self.connections)

    def as_dict(self, energy: EnergyModel = LOIHI_1) -> dict[str, Any]:
        """Return for JSON spikes by population, each `ConnectionActivity`, totals, and the energy with its source."""
        return {
            "samples": self.samples,
            "time_steps": self.time_steps,
            "spikes_per_inference": dict(self.spikes),
            "connections": [dataclasses.asdict(c) for c in self.connections],
            "total": {
                "spikes_per_inference": sum(self.spikes.values()),
                "synaptic_operations": self.synaptic_operations,
            },
            "energy": {
                "microjoules_per_inference": energy.microjoules(self.synaptic_operations),
                **dataclasses.asdict(energy),
            },
        }

    def as_markdown(self, energy: EnergyModel = LOIHI_1) -> str:
        """Write two tables for people, what their columns mean, and the energy with its source."""
        spikes = [
            (name, f"{count:,.1f}") for name, count in (*self.spikes.items(), ("total", sum(self.spikes.values())))
        ]
        work = [(c.name, f"{c.messages:,.1f}", f"{c.synaptic_operations:,.1f}") for c in self.connections]
        work.append(("total", "", f"{self.synaptic_operations:,.1f}"))
        parts = [
            f"Per inference, mean of {counted(self.samples, 'training sample')} in the simulator, "
            f"{counted(self.time_steps, 'time step')} each.",
            markdown_table(("population", "spikes"), spikes),
            markdown_table(("connection", "messages", "synaptic operations"), work),
            "A *message* is a spike, an input event, or an input code that is not zero in one step; a *synaptic "
            "operation* is a message at a synapse.",
            f"Energy of the synaptic operations: {_energy(energy.microjoules(self.synaptic_operations))} µJ, at "
            f"{energy.pj_per_synaptic_operation:g} pJ each. Source: {energy.source}.",
        ]
        return "\n\n".join(parts)


def _energy(number: float) -> str:
    """Write an energy with four digits, and all of those before the point."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def network_size(network: HardwareNetwork) -> NetworkSize:
    """Count neurons, synapses and weight bytes of every population."""
    sizes = []
    for population in network.populations:
        incoming = network.incoming(population.name)
        synapses = [int(linear_map(network, c).fan_out().sum()) for c in incoming]
        shared = sum(_bits(c) * int(np.count_nonzero(c.weight)) for c in incoming)
        unshared = sum(_bits(c) * count for c, count in zip(incoming, synapses, strict=True))
        sizes.append(
            PopulationSize(population.name, population.size, sum(synapses), -(-shared // 8), -(-unshared // 8))
        )
    return NetworkSize(tuple(sizes))


def run_activity(network: HardwareNetwork, result: RunResult, *, inputs: Array) -> Activity:
    """Count spikes and synaptic operations per inference of a run of these inputs.

    Parameters
    ----------
    inputs : graded: (B, *shape) codes; event: (T, B, *shape) 0/1 frames.

    Raises
    ------
    InputError : if the run is not one of this network on so many inputs.
    """
    samples = check_inputs(network, inputs)
    _check_result(network, result, samples)
    sent = {p.name: result.spike_counts[p.name].sum(axis=0, dtype=np.int64).ravel() for p in network.populations}
    spikes = {name: int(counts.sum()) / samples for name, counts in sent.items()}
    sent[INPUT] = _input_messages(network, inputs)
    sent[ALWAYS_ON] = np.array([network.time_steps * samples])
    connections = []
    for c in network.connections:
        sources = sent[c.source]
        if c.period > 1:
            sources = np.array([samples * sum(map(c.sends_in, range(network.time_steps)))])
        operations = int(sources @ linear_map(network, c).fan_out())
        messages = int(sources.sum())
        connections.append(ConnectionActivity(c.name, c.source, c.target, messages / samples, operations / samples))
    return Activity(samples, network.time_steps, spikes, tuple(connections))


def _bits(connection: Connection) -> int:
    return connection.weight_bits or FLOAT_BITS


def _input_messages(network: HardwareNetwork, inputs: Array) -> Array:
    """(N,) int64 messages of every input element, all samples together."""
    flat = inputs.reshape(-1, network.input.size)
    steps = network.time_steps if network.input.kind == "graded" else 1  # event frames are there for every step
    return np.asarray(np.count_nonzero(flat, axis=0) * steps)


def _check_result(network: HardwareNetwork, result: RunResult, samples: int) -> None:
    if (result.network, result.time_steps) != (network.name, network.time_steps):
        raise InputError(
            f'run "{result.backend}" is of network "{result.network}", T = {result.time_steps}; found network '
            f'"{network.name}", T = {network.time_steps}; give the network that ran'
        )
    for p in network.populations:
        found = result.spike_counts[p.name].shape if p.name in result.spike_counts else None
        if found != (samples, *p.shape):
            raise InputError(
                f'run "{result.backend}", population "{p.name}": spike counts of shape {found}; expected '
                f"(B, *N) = {(samples, *p.shape)}: give the inputs that ran, all of them"
            )
