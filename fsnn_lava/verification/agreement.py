"""Whether two float runs of one network differ by rounding alone, spike by spike.

Sums in another order differ in their last bits. That changes a spike only where the potential ties with the threshold,
and from there on the sample may take another course. So each sample's first difference has to be such a tie; every one
is listed with its distance from the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fsnn_lava.hardware import ALWAYS_ON, INPUT, Array, Connection, HardwareNetwork, RunResult, check_inputs, linear_map

TIE_TOLERANCE = 1e-9
"""Largest distance of a potential from the threshold, as a share of it, that rounding of float64 sums can bridge."""


@dataclass(frozen=True)
class SpikeDifference:
    """A sample's first spike that two runs do not share.

    Parameters
    ----------
    sample, population, step, neuron : where.
    distance : |potential - v_threshold| / v_threshold there.
    """

    sample: int
    population: str
    step: int
    neuron: int
    distance: float


@dataclass(frozen=True)
class SpikeAgreement:
    """How far two float runs are the same, spike by spike.

    Parameters
    ----------
    samples : how many were compared.
    ties : first differences of samples in which potential and threshold tie.
    unexplained : first differences that rounding cannot explain.
    tolerance : what counts as a tie.
    """

    samples: int
    ties: tuple[SpikeDifference, ...]
    unexplained: tuple[SpikeDifference, ...]
    tolerance: float = TIE_TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether rounding explains every difference."""
        return not self.unexplained


def spike_agreement(network: HardwareNetwork, inputs: Array, a: RunResult, b: RunResult) -> SpikeAgreement:
    """How far two runs of a float network are the same, and the ties at which they part.

    Parameters
    ----------
    network : the float network, in the timing in which both ran.
    inputs : what both were given.
    a, b : runs with the spikes of every population.

    Raises
    ------
    InputError : if the inputs do not fit the network.
    """
    samples = check_inputs(network, inputs)
    found = [
        _located(network, inputs, a.spikes, place)
        for sample in range(samples)
        if (place := _first(network, sample, a.spikes, b.spikes)) is not None
    ]
    return SpikeAgreement(
        samples,
        tuple(d for d in found if d.distance <= TIE_TOLERANCE),
        tuple(d for d in found if d.distance > TIE_TOLERANCE),
    )


def _first(
    network: HardwareNetwork, sample: int, a: Mapping[str, Array], b: Mapping[str, Array]
) -> tuple[int, str, int, int] | None:
    """Sample, population, step and neuron of the first difference: earliest step, then first population."""
    places = []
    for order, population in enumerate(network.populations):
        ours, theirs = (runs[population.name][:, sample].reshape(network.time_steps, -1) for runs in (a, b))
        differing = np.argwhere(ours != theirs)
        if len(differing):
            places.append((int(differing[0, 0]), order, int(differing[0, 1])))
    if not places:
        return None
    step, order, neuron = min(places)
    return sample, network.populations[order].name, step, neuron


def _located(
    network: HardwareNetwork, inputs: Array, spikes: Mapping[str, Array], place: tuple[int, str, int, int]
) -> SpikeDifference:
    """The difference with its distance, from the potential that the spikes before it lead to (docs, section 5)."""
    sample, name, step, neuron = place
    population = network.population(name)
    current = np.zeros(step + 1)
    for connection in network.incoming(name):
        current += _arriving(network, connection, inputs, spikes, sample=sample, neuron=neuron, steps=step + 1)
    fired = spikes[name][:, sample].reshape(network.time_steps, -1)[:, neuron]
    law = population.neuron
    v = 0.0
    for t in range(step + 1):
        v = law.leak * (v - law.reset_amount * (float(fired[t - 1]) if t else 0.0)) + current[t]
    return SpikeDifference(sample, name, step, neuron, abs(v - law.v_threshold) / law.v_threshold)


def _arriving(
    network: HardwareNetwork,
    connection: Connection,
    inputs: Array,
    spikes: Mapping[str, Array],
    *,
    sample: int,
    neuron: int,
    steps: int,
) -> Array:
    """(steps,) what one connection brings to one neuron in each of its first steps."""
    target = np.zeros((1, network.population(connection.target).size))
    target[0, neuron] = 1.0
    weights = linear_map(network, connection).adjoint(target)[0]
    if connection.source == ALWAYS_ON:
        return np.full(steps, weights[0])
    if connection.source == INPUT and network.input.kind == "graded":
        sent = np.tile(inputs[sample].reshape(1, -1), (steps, 1))
    else:
        source = inputs if connection.source == INPUT else spikes[connection.source]
        sent = source[:steps, sample].reshape(steps, -1)
    delay = network.local_delay(connection)
    brought = np.zeros(steps)
    brought[delay:] = sent[: max(steps - delay, 0)].astype(np.float64) @ weights
    return brought
