"""Agreement of two float runs of one network, spike by spike: they may differ by rounding alone.

Sums in another order differ in their last bits. That changes a spike only where the potential ties with the threshold,
and from there on the sample may take another course. So each sample's first difference has to be such a tie; every one
is listed with its distance from the threshold.

Verification uses it on the trained network (PyTorch, float64) and its lowered form. `compare_runs` compares all other
pairs of runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fsnn_lava.hardware import ALWAYS_ON, INPUT, Array, Connection, HardwareNetwork, RunResult, check_inputs, linear_map
from fsnn_lava.verification.compare_runs import Divergence, first_divergence

TIE_TOLERANCE = 1e-9
"""Largest distance of a potential from the threshold, as a share of it, that rounding of float64 sums can bridge."""


@dataclass(frozen=True)
class SpikeDifference:
    """First spike of one sample that two runs do not share; its distance is |potential - v_threshold| / v_threshold."""

    sample: int
    population: str
    step: int
    neuron: int
    distance: float


@dataclass(frozen=True)
class SpikeAgreement:
    """Agreement of two float runs, spike by spike.

    A sample whose runs part at a tie may take another course from there on, so only its first difference counts.
    """

    samples: int  # how many were compared
    ties: tuple[SpikeDifference, ...]  # first differences with a potential within `tolerance` of the threshold
    unexplained: tuple[SpikeDifference, ...]  # those with another, so that rounding cannot explain them
    tolerance: float = TIE_TOLERANCE  # largest distance from the threshold, as a share of it, that is a tie

    @property
    def agrees(self) -> bool:
        """Whether rounding explains every difference."""
        return not self.unexplained


def spike_agreement(network: HardwareNetwork, inputs: Array, a: RunResult, b: RunResult) -> SpikeAgreement:
    """Compare two runs of a float network spike by spike, and locate where each sample's runs part.

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
    ours, theirs = ({p.name: run.spikes[p.name] for p in network.populations} for run in (a, b))
    places = (first_divergence(ours, theirs, sample=sample) for sample in range(samples))
    found = [_located(network, inputs, ours, place) for place in places if place is not None]
    return SpikeAgreement(
        samples,
        tuple(d for d in found if d.distance <= TIE_TOLERANCE),
        tuple(d for d in found if d.distance > TIE_TOLERANCE),
    )


def _located(
    network: HardwareNetwork, inputs: Array, spikes: Mapping[str, Array], place: Divergence
) -> SpikeDifference:
    """Find the distance from the potential that the spikes before lead to (docs/network-format.md, section 5)."""
    name, step, sample, neuron = place.population, place.step, place.sample, place.neuron
    population = network.population(name)
    current = np.zeros(step + 1)
    for connection in network.incoming(name):
        current += _arriving(network, connection, inputs, spikes, sample=sample, neuron=neuron, steps=step + 1)
    fired = spikes[name][:, sample].reshape(network.time_steps, -1)[:, neuron]
    law = population.neuron
    v = synaptic = 0.0
    for t in range(step + 1):
        if t and fired[t - 1]:
            v = 0.0 if law.reset == "zero" else v - law.reset_amount
        synaptic = law.current_leak * synaptic + float(current[t])
        v = law.leak * v + synaptic
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
    """(steps,) current that one connection brings to one neuron in each of its first steps."""
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
