"""The plain restatement that SPIDE is timed against: worked out by hand, and spike by spike the library's."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.spide.plain_training import (
    PlainConnection,
    firing_mask,
    plain_backward_phase,
    plain_connections,
    plain_forward_phase,
    plain_readout,
    plain_updates,
)
from feedback_networks import chain, seeded, synapses
from fsnn_lava.config import NetworkConfig
from fsnn_lava.config.notation import LayerSpec, parse_spec
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import BoundNetwork, FeedbackSNN
from fsnn_lava.network.layers import apply_layer
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, spide_rates

IF, LIF = FloatNeuron(1.0, 2.0, 1.0), FloatNeuron(1.0, 2.0, 0.5)


# ---- by hand ------------------------------------------------------------------------------------------------
def _two_neurons(neuron: FloatNeuron) -> tuple[FeedbackSNN, BoundNetwork]:
    """Weights 1, 0.75 with a dropout mask of 2, and 0.5 back; every number below is exact in binary."""
    model = chain(1.0, 0.75, feedback=0.5, neuron=neuron)
    bound = model.bind(1).detached()
    dropped = dataclasses.replace(bound.feedforward[1], mask=torch.full((1, 1), 2.0, dtype=torch.float64))
    return model, dataclasses.replace(bound, feedforward=(bound.feedforward[0], dropped))


def _one(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _spikes(found: tuple[Tensor, ...] | None) -> list[list[int]]:
    return [population.flatten().tolist() for population in found]


def test_both_phases_and_updates_by_hand() -> None:
    model, bound = _two_neurons(IF)
    drive = bound.drive(_one(0.75), time_steps=4)
    forward = plain_forward_phase(bound, drive, time_steps=4, record=True)
    # v1: 0.75, 1.5 (spike), 1.5-2+0.75+0.5 = 0.75, 1.5 (spike); v2: 0, 1.5 (spike), -0.5, 1 (spike, at the threshold)
    assert _spikes(forward.spikes) == [[0, 1, 0, 1], [0, 1, 0, 1]]
    assert [float(rate) for rate in forward.rates] == [0.5, 0.5]
    # Constant 0.25 into q2; factors 0.75*2/2 down, 0.5/2 back up, a step late. q2: 0.25, 0.5 (spike), -0.25 + 0.25 from
    # q1, 0.25; q1: 0, 0.75 (spike), -0.25, -0.25
    backward = plain_backward_phase(bound, forward.rates, _one(0.0625), time_steps_back=4, loss_scale=4.0, record=True)
    assert _spikes(backward.spikes) == [[0, 1, 0, 0], [0, 1, 0, 0]]
    assert [float(rate) for rate in backward.rates] == [0.25, 0.25]
    plain_updates(model, bound, forward.rates, backward.rates, drive.mean_input, loss_scale=4.0)
    first, second = synapses(model)
    # (1 / (r scale)) D beta a = 0.125 * D * 0.25 * a
    assert first.weight.grad is not None and first.bias is not None and second.bias is not None
    assert float(first.weight.grad) == 0.125 * 0.25 * 0.75
    assert float(first.bias.grad) == 0.125 * 0.25
    assert float(second.weight.grad) == 0.125 * 2 * 0.25 * 0.5
    assert float(second.bias.grad) == 0.125 * 2 * 0.25
    assert float(model.feedback.weight.grad) == 0.5 * 0.125 * 0.25 * 0.5  # the weight 1 is restricted to 0.5


def test_leak_by_hand() -> None:
    _, bound = _two_neurons(LIF)
    drive = bound.drive(_one(0.75), time_steps=4)
    forward = plain_forward_phase(bound, drive, time_steps=4, record=True)
    # v1: 0.75, 0.375+0.75 (spike), (1.125-2)/2+0.75 + 0.5 from v2 = 0.8125, 0.40625+0.75 (spike)
    # v2: 0, 1.5 (spike), -0.25, -0.125+1.5 (spike)
    assert _spikes(forward.spikes) == [[0, 1, 0, 1], [0, 1, 0, 1]]
    assert [float(rate) for rate in forward.rates] == [(0.25 + 1) / 1.875] * 2
    # q2: 0.375, then 0.1875+0.375 (spike), -0.4375/2+0.375 + 0.25 from q1 = 0.40625, 0.203125+0.375 (spike)
    # q1: 0, 0.75 (spike), -0.125, -0.0625+0.75 (spike)
    backward = plain_backward_phase(bound, forward.rates, _one(0.375), time_steps_back=4, loss_scale=1.0, record=True)
    assert _spikes(backward.spikes) == [[0, 1, 0, 1], [0, 1, 0, 1]]
    assert [float(rate) for rate in backward.rates] == [(0.25 + 1) / 1.875] * 2


def test_thresholds_of_a_couple_include_the_threshold_itself() -> None:
    model = chain(1.0, feedback=0.0, neuron=IF)
    rates = (_one(0.5),)
    for sign in (1.0, -1.0):
        found = plain_backward_phase(
            model.bind(1), rates, _one(0.25 * sign), time_steps_back=6, loss_scale=1.0, record=True
        )
        assert _spikes(found.spikes) == [[0, sign, 0, 0, 0, sign]]


def test_silent_and_saturated_neurons_send_nothing_and_learn_nothing() -> None:
    model, bound = _two_neurons(IF)
    assert firing_mask(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 1, 0]
    for rate in (0.0, 1.0):
        rates = (_one(0.5), _one(rate))
        found = plain_backward_phase(bound, rates, _one(0.5), time_steps_back=5, loss_scale=1.0)
        assert [float(beta) for beta in found.rates] == [0.0, 0.6]  # its own couple spikes, in vain: 3 times of 5
        plain_updates(model, bound, rates, found.rates, _one(0.75), loss_scale=1.0)
        assert all(float(p.grad.abs().sum()) == 0 for p in synapses(model)[1].parameters() if p.grad is not None)


# ---- the library --------------------------------------------------------------------------------------------

NETWORKS = {
    "convolutions": ("6C5s-5C3s-4C3 (F6C3u)", (1, 12, 12), IF),
    "odd sides": ("4C3s-3C5s", (2, 7, 7), IF),
    "linear": ("20-15 (F20)", (1, 4, 4), IF),
    "one population": ("8C3 (F8C5)", (1, 6, 6), IF),
    "no feedback, pools": ("5C5-P2-6C3-P2-20", (1, 8, 8), IF),
    "leaky": ("6C5s-5C3s (F6C3u)", (1, 8, 8), FloatNeuron(1.0, 2.0, 0.9)),
}
SETTINGS = SpideSettings(25, 40.0)
T = 12


def _network(name: str) -> tuple[FeedbackSNN, Tensor, Tensor]:
    notation, shape, neuron = NETWORKS[name]
    model = FeedbackSNN(
        NetworkConfig(
            notation,
            **dataclasses.asdict(neuron),
            batch_norm=False,
            dropout=0.3,
            pooling="spiking",
            spectral_norm="frobenius",
            spectral_norm_bound=0.5,
            initial_weights="kaiming_normal",
        ),
        shape,
    ).double()
    for synapse in synapses(model):
        if synapse.bias is not None:
            synapse.bias.data.fill_(0.3)  # so that every population fires
    x = torch.randn(5, *shape, generator=seeded(1), dtype=torch.float64)
    return model.train(), x, torch.arange(5)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_phases_are_the_library_s_spike_by_spike(name: str) -> None:
    model, x, labels = _network(name)
    bound = model.bind(5, generator=seeded(2)).detached()
    drive = bound.drive(x, time_steps=T)
    ours = bound.simulate(drive, time_steps=T, record=True)
    plain = plain_forward_phase(bound, drive, time_steps=T, record=True)
    assert ours.spikes is not None and plain.spikes is not None
    for a, b in zip(ours.spikes, plain.spikes, strict=True):
        assert int(b.sum()) > 0
        assert torch.equal(a.to(torch.int8), b)
    _, gradient = plain_readout(model, plain.rates[-1], labels)
    back = backward_phase(bound, ours.firing_rates, gradient, settings=SETTINGS, record=True)
    plainly = plain_backward_phase(bound, plain.rates, gradient, time_steps_back=25, loss_scale=40.0, record=True)
    assert back.spikes is not None and plainly.spikes is not None
    for a, b in zip(back.spikes, plainly.spikes, strict=True):
        assert int((b > 0).sum()) > 0 and int((b < 0).sum()) > 0
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_s_gradient_is_the_library_s(name: str) -> None:
    model, x, labels = _network(name)
    found = spide_rates(model, x, time_steps=T, settings=SETTINGS, generator=seeded(2))
    loss = functional.cross_entropy(model.classify(found.rates), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    bound = model.bind(5, generator=seeded(2)).detached()
    drive = bound.drive(x, time_steps=T)
    rates = plain_forward_phase(bound, drive, time_steps=T).rates
    plain_loss, gradient = plain_readout(model, rates[-1], labels)
    betas = plain_backward_phase(bound, rates, gradient, time_steps_back=25, loss_scale=40.0).rates
    plain_updates(model, bound, rates, betas, drive.mean_input, loss_scale=40.0)
    ours = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert float(plain_loss) == pytest.approx(float(loss), rel=1e-14)
    assert ours.keys() == expected.keys()
    assert sum(float(g.abs().sum()) > 0 for g in ours.values()) == len(ours)
    for parameter, gradient in ours.items():  # the same spikes; sums of float64 in another order
        torch.testing.assert_close(gradient, expected[parameter], rtol=1e-9, atol=1e-14, msg=parameter)


def test_event_frames_drive_every_step() -> None:
    model, _, _ = _network("convolutions")
    frames = torch.rand(T, 5, 1, 12, 12, generator=seeded(3)).gt(0.7).double()
    bound = model.bind(5, generator=seeded(2)).detached()
    drive = bound.drive(frames, time_steps=T)
    ours = bound.simulate(drive, time_steps=T, record=True)
    plain = plain_forward_phase(bound, drive, time_steps=T, record=True)
    assert ours.spikes is not None and plain.spikes is not None
    assert all(torch.equal(a.to(torch.int8), b) for a, b in zip(ours.spikes, plain.spikes, strict=True))


@pytest.mark.parametrize("part", ["6C3", "6C5s", "6C3u", "7", "P3"])
@pytest.mark.parametrize("side", [6, 9])
def test_backwards_is_the_adjoint_of_forwards(part: str, side: int) -> None:
    layer = LayerSpec("conv", 6, 3, 2, True) if part == "6C3u" else parse_spec(f"4C3-{part}").layers[1]
    shape = (4, side, side)
    kernel = layer.kernel
    sizes = {"linear": (7, 4 * side**2), "pool": (4, 4, 3, 3), "conv": (6, 4, kernel, kernel)}
    weight = torch.randn(sizes[layer.kind] if not layer.transposed else (4, 6, 3, 3), generator=seeded())
    connection = PlainConnection(layer, weight, None, None, shape)
    x = torch.randn(2, *shape, generator=seeded(1))
    y = torch.randn(2, *layer.output_shape(shape), generator=seeded(2))
    forwards, backwards = (connection.forwards(x) * y).sum(), (connection.backwards(y) * x).sum()
    torch.testing.assert_close(forwards, backwards, rtol=1e-4, atol=1e-4)  # float32, a thousand terms


def test_connections_are_laid_out_without_a_change_of_values() -> None:
    model, x, _ = _network("convolutions")
    bound = model.bind(5, generator=seeded(2)).detached()
    feedforward, feedback = plain_connections(bound)
    for connection, synapse in zip((*feedforward, feedback), (*bound.feedforward, bound.feedback), strict=True):
        assert connection.weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(connection.weight, synapse.weight)
    assert torch.equal(
        feedforward[0].forwards(x),
        apply_layer(feedforward[0].layer, bound.feedforward[0].weight, bound.feedforward[0].bias, x),
    )
