"""Equilibrium rates of networks with convolutions, in chunks, in float32 and from a start."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import random_networks
from fsnn_lava.errors import InputError
from fsnn_lava.hardware import equilibrium as module
from fsnn_lava.hardware.equilibrium import equilibrium_rates
from fsnn_lava.hardware.geometry import DENSE, Array, Dense
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import HardwareNetwork

STEPS = 12


def drawn(seed: int) -> tuple[HardwareNetwork, Array]:
    rng = np.random.default_rng(seed)
    network = random_networks.random_network(rng, f"seed {seed}", lava=True)
    return network, random_networks.random_inputs(rng, network)


def in_place(network: HardwareNetwork) -> HardwareNetwork:
    connections = tuple(
        dataclasses.replace(c, weight=linear_map(network, c).unrolled().toarray(), geometry=DENSE)
        for c in network.connections
    )
    return dataclasses.replace(network, connections=connections)


def assert_close(found: dict[str, Array], expected: dict[str, Array], tolerance: float) -> None:
    for name, rates in expected.items():
        np.testing.assert_allclose(found[name], rates, rtol=0, atol=tolerance)


def test_rates_are_those_of_the_unrolled_network() -> None:
    """Many of these networks never settle, so the same number of iterations is compared."""
    convolutions = active = 0
    for seed in range(60):
        network, inputs = drawn(seed)
        found = equilibrium_rates(network, inputs, tolerance=0, max_steps=STEPS).firing_rates
        dense = equilibrium_rates(in_place(network), inputs, tolerance=0, max_steps=STEPS).firing_rates
        # Sums in another order, and a loop that may double an error in each of 12 steps.
        assert_close(found, dense, 1e-10)
        convolutions += sum(not isinstance(c.geometry, Dense) for c in network.connections)
        active += sum(bool(((r > 0) & (r < 1)).any()) for r in found.values())
    assert convolutions > 100
    assert active > 30


def settling() -> tuple[HardwareNetwork, Array]:
    """A network that settles, and 2 x 6 inputs."""
    for seed in range(100):
        network, inputs = drawn(seed)
        found = equilibrium_rates(network, inputs, tolerance=1e-12, max_steps=200)
        inside = any(((r > 0) & (r < 1)).any() for r in found.firing_rates.values())
        if found.converged and found.steps > 6 and inside and network.input.kind == "graded":
            rng = np.random.default_rng(seed)
            return network, np.concatenate([random_networks.random_inputs(rng, network) for _ in range(6)])
    raise AssertionError("no such network")


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = settling()
    whole = equilibrium_rates(network, inputs, tolerance=1e-12)
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 5 * (network.input.size + sum(p.size for p in network.populations)))
    parts = equilibrium_rates(network, inputs, tolerance=1e-12)
    assert (parts.steps, parts.converged) == (whole.steps, True)
    assert_close(parts.firing_rates, whole.firing_rates, 1e-13)  # products of other shapes round differently
    one = equilibrium_rates(network, inputs[7:8], tolerance=1e-12)
    assert_close({n: r[7:8] for n, r in whole.firing_rates.items()}, one.firing_rates, 1e-13)


def test_float32_is_near_and_says_so() -> None:
    network, inputs = settling()
    exact = equilibrium_rates(network, inputs, tolerance=1e-12)
    coarse = equilibrium_rates(network, inputs, tolerance=1e-5, dtype=np.float32)
    assert coarse.converged
    assert coarse.steps < exact.steps
    assert {r.dtype for r in coarse.firing_rates.values()} == {np.dtype(np.float32)}
    assert_close(coarse.firing_rates, exact.firing_rates, 1e-4)  # ten times what the last iteration changed


def test_from_the_solution_one_iteration_suffices() -> None:
    network, inputs = settling()
    solution = equilibrium_rates(network, inputs, tolerance=1e-13)
    kept = {name: r.copy() for name, r in solution.firing_rates.items()}
    again = equilibrium_rates(network, inputs, tolerance=1e-10, start=solution.firing_rates)
    assert (again.steps, again.converged) == (1, True)
    assert_close(again.firing_rates, solution.firing_rates, 1e-12)
    assert all(np.array_equal(kept[name], r) for name, r in solution.firing_rates.items()), "the start was overwritten"
    far = equilibrium_rates(network, inputs, tolerance=1e-12, start={n: 1 - r for n, r in kept.items()})
    assert_close(far.firing_rates, solution.firing_rates, 1e-10)


def test_refuses_a_start_that_does_not_fit() -> None:
    network, inputs = settling()
    rates = equilibrium_rates(network, inputs).firing_rates
    (first, *_) = network.populations
    with pytest.raises(InputError, match=r'rates of population "p0" to start from have shape \(3, .*expected \(12, '):
        equilibrium_rates(network, inputs, start={**rates, first.name: rates[first.name][:3]})
    with pytest.raises(InputError, match='rates of population "p0" to start from have shape none'):
        equilibrium_rates(network, inputs, start={n: r for n, r in rates.items() if n != first.name})
