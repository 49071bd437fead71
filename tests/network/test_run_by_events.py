"""The compiled T-step loop against the plain one, spike by spike, for every kind of connection."""

import numpy as np
import pytest
import torch

from firing_networks import NETWORKS, SPIKING_POOLS, T, bound_network, plain_spikes
from fsnn_lava.network import run_by_events as event_run


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("events", [True, False], ids=["events", "constant"])
@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize(("notation", "shape"), NETWORKS)
def test_spikes_equal_those_of_the_plain_loop(
    notation: str, shape: tuple[int, ...], leak: float, events: bool, training: bool
) -> None:
    bound = bound_network(notation, shape, leak, training=training)
    # Float64 of random weights: no potential meets its threshold so closely that the order of a sum decides.
    x = (torch.rand(T, 5, *shape) < 0.3).double() if events else torch.randn(5, *shape).double()
    drive = bound.drive(x, time_steps=T)
    for loop_delay in (1, 3):
        found = bound.simulate(drive, time_steps=T, loop_delay=loop_delay, record=True)
        expected = plain_spikes(bound, drive, time_steps=T, loop_delay=loop_delay)
        weights = torch.tensor([leak ** (T - 1 - t) for t in range(T)], dtype=torch.float64)
        for layer, (spikes, plain) in enumerate(zip(found.spikes, expected, strict=True)):
            assert np.array_equal(spikes.numpy(), plain.numpy())
            assert bool(spikes.any())
            assert torch.equal(found.mean_spikes[layer], plain.double().sum(0) / T)
            weighted = torch.tensordot(weights / weights.sum(), plain.double(), 1)
            # Nine terms of size one, summed in another order.
            torch.testing.assert_close(found.firing_rates[layer], weighted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("leak", [1.0, 0.75])
@pytest.mark.parametrize(("notation", "shape"), SPIKING_POOLS)
def test_spikes_of_pools_equal_those_of_the_plain_loop(notation: str, shape: tuple[int, ...], leak: float) -> None:
    """A pool's potentials meet the threshold exactly, and often; with these leaks they are exact in float64."""
    bound = bound_network(notation, shape, leak, pooling="spiking", reset_amount=2.0)
    drive = bound.drive(torch.randn(5, *shape).double(), time_steps=T)
    for loop_delay in (1, 3):
        found = bound.simulate(drive, time_steps=T, loop_delay=loop_delay, record=True)
        expected = plain_spikes(bound, drive, time_steps=T, loop_delay=loop_delay)
        for spikes, plain in zip(found.spikes, expected, strict=True):
            assert np.array_equal(spikes.numpy(), plain.numpy())
            assert bool(spikes.any())


def test_more_threads_and_smaller_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = bound_network("4C3s-6C3s-5C3 (F4C3u)", (3, 8, 8), 0.9)
    drive = bound.drive(torch.randn(5, 3, 8, 8).double(), time_steps=T)
    whole = bound.simulate(drive, time_steps=T)
    monkeypatch.setattr(event_run, "PACKED_BYTES", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    parts = bound.simulate(drive, time_steps=T)
    for layer in range(3):
        assert torch.equal(whole.firing_rates[layer], parts.firing_rates[layer])


def test_without_any_connection_the_current_alone_decides() -> None:
    bound = bound_network("9", (1, 4, 4), 1.0, training=False)
    drive = bound.drive(torch.randn(5, 1, 4, 4).double(), time_steps=T)
    found = bound.simulate(drive, time_steps=T).firing_rates[0]
    # IF with threshold 1 and reset 0.8: after k spikes another needs a potential of 1 + 0.8 k, at most one a step.
    expected = ((drive.mean * T - 1) / 0.8 + 1).floor().clamp(0, T) / T
    inside = drive.mean < 0.8  # beyond, a neuron may fire in every step but the first few
    torch.testing.assert_close(found[inside], expected[inside])
