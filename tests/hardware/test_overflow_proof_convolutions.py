"""Bounds of networks with convolutions: those of the same network with every weight in its place, and never left."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import random_networks
import reference_simulator as reference
from fsnn_lava.hardware import overflow_proof as module
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, Dense
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import (
    ALWAYS_ON,
    INPUT,
    Connection,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Population,
    Readout,
)
from fsnn_lava.hardware.network_file import save_network
from fsnn_lava.hardware.overflow_proof import accumulator_violations, bounds_alone, potential_bounds


def drawn(seed: int) -> HardwareNetwork:
    return random_networks.random_network(np.random.default_rng(seed), f"seed {seed}", lava=bool(seed % 2))


def in_place(network: HardwareNetwork) -> HardwareNetwork:
    """The same network, all of whose connections are dense."""
    connections = tuple(
        dataclasses.replace(c, weight=linear_map(network, c).unrolled().toarray(), geometry=DENSE)
        for c in network.connections
    )
    return dataclasses.replace(network, connections=connections)


def test_bounds_are_those_of_the_unrolled_network() -> None:
    convolutions = partly = 0
    for seed in range(60):
        network = drawn(seed)
        dense = in_place(network)
        found, expected = potential_bounds(network), potential_bounds(dense)
        for name, pair in expected.items():
            assert np.array_equal(found[name], pair), f"seed {seed}, {name}"
            alone = bounds_alone(network, name)
            assert np.array_equal(alone, bounds_alone(dense, name)), f"seed {seed}, {name} alone"
            assert (alone[0] <= pair[0]).all()
            assert (alone[1] >= pair[1]).all()
            partly += not np.array_equal(alone, pair)
        assert accumulator_violations(network) == accumulator_violations(dense)
        convolutions += sum(not isinstance(c.geometry, Dense) for c in network.connections)
    assert convolutions > 100
    assert partly > 10, "what is known of the others' spikes never matters: products of partial sets were not tried"


@pytest.mark.parametrize("seed", range(0, 32, 2))
def test_no_input_leaves_the_bounds(seed: int, tmp_path: Path) -> None:
    """The reference's potentials under random inputs, the empty one and the fullest one."""
    rng = np.random.default_rng(1000 + seed)
    network = drawn(seed)
    bounds = potential_bounds(network)
    save_network(network, tmp_path / "network.h5")
    read = reference.read(tmp_path / "network.h5")
    event = network.input.kind == "event"
    inputs = random_networks.random_inputs(rng, network)
    inputs = inputs.swapaxes(0, 1) if event else inputs
    extremes = np.stack([np.zeros_like(inputs[0]), np.full_like(inputs[0], network.input.maximum)])
    for sample in np.concatenate([inputs, extremes]):
        _, potentials = reference.simulate(read, sample.reshape(*sample.shape[:event], -1).tolist())
        for p in network.populations:
            low, high = (b.ravel() for b in bounds[p.name])
            reached = np.asarray(potentials[p.name]).reshape(-1, p.size)
            assert (low <= reached).all()
            assert (reached <= high).all()


def test_sums_beyond_float32_are_exact() -> None:
    """139,999 of 140,000 sources fire: 35,559,746, which float32 holds to multiples of 4."""
    sources = 140_000
    constant = np.ones((sources, 1), np.int32)
    constant[7] = -1
    neuron = IntegerNeuron(1, 1, 0, 0, 1.0)
    populations = (Population("s", (sources, 1, 1), neuron), Population("p", (1, 1, 1), neuron))
    connections = (
        Connection("on", ALWAYS_ON, "s", constant, weight_bits=8),
        Connection("c", "s", "p", np.full((1, sources, 1, 1), 127, np.int32), 0, 0, 8, Convolution()),
    )
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("wide", InputSpec((1,), "event", 1), populations, connections, readout, 1)
    assert potential_bounds(network)["p"][1].ravel().tolist() == [64 * 2 * 127 * (sources - 1)]
    assert bounds_alone(network, "p")[1].ravel().tolist() == [64 * 2 * 127 * sources]


@pytest.mark.parametrize(
    ("reach", "expected"), [(2**24 - 1, np.float32), (2**24, np.float64), (2**53 - 1, np.float64), (2**53, np.int64)]
)
def test_type_of_products(reach: int, expected: type) -> None:
    assert module._exact_type(reach) is expected


def test_equal_sets_are_added_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One neuron may fire from the start and one never: over 50 steps, one product for each sign and set."""
    neuron = IntegerNeuron(3, 3, 0, 0, 1.0)
    populations = (Population("s", (2, 1, 1), neuron), Population("p", (1, 1, 1), neuron))
    connections = (
        Connection("in", INPUT, "s", np.array([[4], [-4]], np.int32), 0, 0, 8),
        Connection("c", "s", "p", np.array([5, -6], np.int32).reshape(1, 2, 1, 1), 0, 0, 8, Convolution()),
    )
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("n", InputSpec((1,), "event", 1), populations, connections, readout, 50)
    computed: list[int] = []
    original = module._Sums._computed

    def spy(self: Any, senders: Array) -> Array:
        computed.append(int(senders.sum()))
        return original(self, senders)

    monkeypatch.setattr(module._Sums, "_computed", spy)
    low, high = potential_bounds(network)["p"]
    # Just above the threshold 320, less a reset of 384; after that 640 a step, and a reset each time.
    assert (low.item(), high.item()) == (321 - 384, 320 + 640 + 48 * (640 - 384))
    assert sorted(computed) == [0] * 4 + [1] * 4
