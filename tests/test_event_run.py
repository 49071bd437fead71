"""The compiled T-step loop against the plain one, spike by spike, for every kind of connection."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fsnn_lava import event_run
from fsnn_lava.dense_run import dense_run
from fsnn_lava.model import BoundNetwork, FeedbackSNN
from fsnn_lava.neuron import NeuronParameters
from fsnn_lava.spec import parse_spec

NETWORKS = [
    ("12 (F12)", (1, 6, 6)),
    ("9", (1, 4, 4)),
    ("8C5s (F8C5)", (1, 12, 12)),
    ("4C3s-6C3s-5C3 (F4C3u)", (3, 8, 8)),
    ("5C5-P2-7C3-P2-20", (2, 8, 8)),
]
T = 9


def _bound(notation: str, shape: tuple[int, ...], leak: float, *, training: bool) -> BoundNetwork:
    torch.manual_seed(0)
    neuron = NeuronParameters(1.0, 1.0, leak)
    model = FeedbackSNN(parse_spec(notation), shape, neuron=neuron, dropout=0.2).double().train(training)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.1, 0.6)
    for name, parameter in model.named_parameters():
        if "batch_norm" in name or "bias" in name:
            parameter.data.uniform_(0.2, 0.8)
    return model.bind(5, generator=torch.Generator().manual_seed(1)).detached()


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("events", [True, False], ids=["events", "constant"])
@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize(("notation", "shape"), NETWORKS)
def test_spikes_equal_those_of_the_plain_loop(
    notation: str, shape: tuple[int, ...], leak: float, events: bool, training: bool
) -> None:
    bound = _bound(notation, shape, leak, training=training)
    # Float64 of random weights: no potential meets its threshold so closely that the order of a sum decides.
    x = (torch.rand(T, 5, *shape) < 0.3).double() if events else torch.randn(5, *shape).double()
    drive = bound.drive(x, time_steps=T)
    for loop_delay in (1, 3):
        found = bound.simulate(drive, time_steps=T, loop_delay=loop_delay, record=True)
        expected = dense_run(
            bound.feedforward,
            bound.feedback,
            input_current=drive.at,
            neuron=bound.neuron,
            time_steps=T,
            loop_delay=loop_delay,
            record=True,
        )
        assert found.spikes is not None
        assert expected.spikes is not None
        for layer, (spikes, dense) in enumerate(zip(found.spikes, expected.spikes, strict=True)):
            assert np.array_equal(spikes.numpy(), dense.numpy())
            assert torch.equal(found.mean_spikes[layer], expected.plain[layer] / T)
        assert all(bool(spikes.any()) for spikes in found.spikes)


def test_more_threads_and_smaller_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = _bound("4C3s-6C3s-5C3 (F4C3u)", (3, 8, 8), 0.9, training=True)
    drive = bound.drive(torch.randn(5, 3, 8, 8).double(), time_steps=T)
    whole = bound.simulate(drive, time_steps=T)
    monkeypatch.setattr(event_run, "PACKED_BYTES", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    parts = bound.simulate(drive, time_steps=T)
    for layer in range(3):
        assert torch.equal(whole.firing_rates[layer], parts.firing_rates[layer])


def test_without_any_connection_the_current_alone_decides() -> None:
    bound = _bound("9", (1, 4, 4), 1.0, training=False)
    drive = bound.drive(torch.randn(5, 1, 4, 4).double(), time_steps=T)
    found = bound.simulate(drive, time_steps=T).firing_rates[0]
    # IF with threshold and reset 1: the potential crosses a whole number floor(T I) times, at most once a step.
    torch.testing.assert_close(found, (drive.mean * T).floor().clamp(0, T) / T)
