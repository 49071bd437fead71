"""Differences of two float runs: rounding explains a tie with the threshold, and nothing else."""

import dataclasses

import numpy as np
import pytest

import trained
from fsnn_lava.backends.simulator import FloatSimulator
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.errors import InputError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork
from fsnn_lava.hardware.neurons import FloatNeuron
from fsnn_lava.hardware.run_io import RunResult
from fsnn_lava.hardware.timing import with_timing
from fsnn_lava.verification.agreement import TIE_TOLERANCE, spike_agreement


def run(network: HardwareNetwork, inputs: Array) -> RunResult:
    return FloatSimulator().run(network, inputs, record=[p.name for p in network.populations])


def with_threshold(network: HardwareNetwork, index: int, v_threshold: float) -> HardwareNetwork:
    """The network with another threshold in one population, and the same reset."""
    populations = list(network.populations)
    neuron = populations[index].neuron
    assert isinstance(neuron, FloatNeuron)
    populations[index] = dataclasses.replace(
        populations[index], neuron=dataclasses.replace(neuron, v_threshold=v_threshold)
    )
    return dataclasses.replace(network, populations=tuple(populations))


@pytest.fixture
def lowered() -> HardwareNetwork:
    return with_timing(
        lower(trained.random_network("12C3-8C3s (F12C3u)", leak=0.95, input_shape=(1, 8, 8))), "hardware"
    )


def test_equal_runs_agree_without_ties(lowered: HardwareNetwork) -> None:
    codes = trained.some_codes(10)
    found = spike_agreement(lowered, codes, run(lowered, codes), run(lowered, codes))
    assert (found.samples, found.ties, found.unexplained, found.agrees) == (10, (), (), True)


@pytest.mark.parametrize("leak", [1.0, 0.95])
@pytest.mark.parametrize("notation", ["30 (F30)", "24-20-16 (F24)"])
def test_the_distance_is_that_of_the_potential(notation: str, leak: float) -> None:
    """With a threshold raised past one potential, that spike is gone; the distance found is how far it was raised."""
    network = lower(trained.random_network(notation, leak=leak))
    codes, last = trained.some_codes(8), len(network.populations) - 1
    threshold = network.populations[last].neuron.v_threshold
    before = run(network, codes)
    raised = run(with_threshold(network, last, threshold * 1.01), codes)
    found = spike_agreement(network, codes, before, raised)
    assert not found.agrees
    assert {d.population for d in found.unexplained} == {network.populations[last].name}
    distances = [d.distance for d in (*found.ties, *found.unexplained)]
    assert len(distances) >= 5  # a few samples may have no potential between both
    # Every first difference is a potential between both thresholds: else the potential was computed wrongly.
    assert 0 < max(distances) <= 0.01 + 1e-12


def test_a_tie_is_listed_and_agrees() -> None:
    """A threshold raised by less than rounding bridges, on a potential that is exactly at it."""
    network = lower(trained.random_network("30 (F30)"), timing="sequential")
    connections = tuple(
        dataclasses.replace(c, weight=np.zeros_like(c.weight) + (1.0 if c.source == "always_on" else 0.0))
        for c in network.connections
    )
    network = dataclasses.replace(network, connections=connections)  # every potential is 1, 2, 1, 2, ...; V_th = 2
    codes = trained.some_codes(3)
    raised = run(with_threshold(network, 0, 2.0 * (1 + 1e-12)), codes)
    found = spike_agreement(network, codes, run(network, codes), raised)
    assert found.agrees
    assert [(d.sample, d.step, d.neuron, d.distance) for d in found.ties] == [(b, 1, 0, 0.0) for b in range(3)]


def test_another_network_is_not_explained(lowered: HardwareNetwork) -> None:
    codes = trained.some_codes(6)
    connections = list(lowered.connections)
    connections[2] = dataclasses.replace(connections[2], weight=connections[2].weight * 1.2)
    other = run(dataclasses.replace(lowered, connections=tuple(connections)), codes)
    found = spike_agreement(lowered, codes, run(lowered, codes), other)
    assert not found.agrees
    assert all(d.distance > TIE_TOLERANCE for d in found.unexplained)


def test_torch_and_the_lowered_network_agree() -> None:
    network = trained.random_network("8C3-8C3 (F8C3)", input_shape=(1, 8, 8))
    floating = with_timing(lower(network), "sequential")
    codes = trained.some_codes(20)
    found = spike_agreement(floating, codes, run(floating, codes), run_torch(network, floating, codes, time_steps=20))
    assert found.agrees
    assert found.samples == 20


def test_inputs_of_another_network_are_refused(lowered: HardwareNetwork) -> None:
    codes = trained.some_codes(4)
    with pytest.raises(InputError, match=r"graded inputs of shape \(4, 8, 8\)"):
        spike_agreement(lowered, codes[:, 0], run(lowered, codes), run(lowered, codes))
