"""What a training needs of the network: event input, batch norm statistics and dropout in both modes."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from feedback_networks import LIF, images, random_network, run, seeded, synapses
from fsnn_lava.config import NetworkConfig
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import BoundNetwork, FeedbackSNN
from fsnn_lava.network.layers import Synapse
from fsnn_lava.training.gradients.ide import AdjointSettings, implicit_rates


# ---- event input ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize("notation", ["5 (F5)", "3C3s-2C3s (F3C3u)"])
def test_frames_that_never_change_are_a_constant_input(
    notation: str, leak: float, batch_norm: bool, training: bool
) -> None:
    neuron = FloatNeuron(1.0, 1.0, leak)
    model = random_network(notation, neuron=neuron, batch_norm=batch_norm, dropout=0.3).train(training)
    other = copy.deepcopy(model)
    x = images(model)
    constant = run(model, x, time_steps=10)
    frames = run(other, x.expand(10, *x.shape), time_steps=10)
    assert all(map(torch.equal, constant.spikes, frames.spikes))
    for name, value in model.state_dict().items():
        assert_close(other.state_dict()[name], value)


@pytest.mark.parametrize("training", [False, True])
def test_mean_of_the_frames_weighs_late_ones_more(training: bool) -> None:
    """Leak 0.5, 3 frames: weights 1/7, 2/7, 4/7; the mean drive is that of the mean input, batch norm included."""
    model = random_network("5 (F5)", neuron=LIF, batch_norm=True).train(training)
    frames = torch.rand(3, 6, 1, 4, 4, generator=seeded(4), dtype=torch.float64).round()
    mean = (frames[0] + 2 * frames[1] + 4 * frames[2]) / 7
    events = copy.deepcopy(model).bind(6).drive(frames, time_steps=3)
    constant = copy.deepcopy(model).bind(6).drive(mean, time_steps=3)
    assert_close(events.mean, constant.mean)
    assert_close((events.at(0) + 2 * events.at(1) + 4 * events.at(2)) / 7, events.mean.detach())
    assert not torch.equal(events.at(0), events.at(1))


def test_frames_must_be_as_many_as_steps() -> None:
    model = random_network("5 (F5)")
    with pytest.raises(ValueError, match="event input has 4 frames; expected one per time step, 5"):
        model.bind(6).drive(torch.zeros(4, 6, 1, 4, 4, dtype=torch.float64), time_steps=5)


# ---- batch norm ----------------------------------------------------------------------------------------------
def statistics(synapse: Synapse) -> tuple[Tensor, Tensor]:
    mean, variance = synapse.batch_norm.running_mean, synapse.batch_norm.running_var
    return mean.clone(), variance.clone()


def test_first_batch_norm_takes_the_statistics_of_the_response_to_the_mean_input() -> None:
    model = random_network("5 (F5)", batch_norm=True).train()
    x = images(model)
    first = synapses(model)[0]
    drive = model.bind(len(x)).drive(x, time_steps=1)
    response = functional.linear(x.flatten(1), first.weight, first.bias)
    expected = 0.3 * (response - response.mean(0)) / (response.var(0, unbiased=False) + 1e-5).sqrt() + 0.5
    assert_close(drive.mean, expected)
    assert_close(drive.at(0), expected.detach())
    assert drive.mean.requires_grad
    assert not drive.at(0).requires_grad


@pytest.mark.parametrize("events", [False, True])
def test_running_statistics_are_updated_once_per_training_call(events: bool) -> None:
    """Momentum 0.1 from mean 0 and variance 1: one update leaves 0.1 mean and 0.9 + 0.1 variance, two would not."""
    model = random_network("6-5-4 (F6)", batch_norm=True).train()
    x = images(model)
    bound = copy.deepcopy(model).bind(len(x))
    given = x.expand(10, *x.shape) if events else x
    result = implicit_rates(model, given, time_steps=10, settings=AdjointSettings())
    result.rates.square().sum().backward()

    drive = bound.drive(x, time_steps=10)
    below = [x.flatten(1), *bound.rates_around(result.rates.detach(), drive.mean, statistics="batch")]
    for layer, synapse in enumerate(synapses(model)):
        response = functional.linear(below[layer], synapse.weight, synapse.bias)
        mean, variance = statistics(synapse)
        assert_close(mean, 0.1 * response.mean(0))
        assert_close(variance, 0.9 + 0.1 * response.var(0))


def test_evaluation_changes_nothing() -> None:
    model = random_network("6-5-4 (F6)", batch_norm=True, dropout=0.5)
    x = images(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first, again = model(x, 10), model(x, 10)
    implicit_rates(model, x, time_steps=10, settings=AdjointSettings()).rates.sum().backward()
    assert torch.equal(first, again)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_spiking_run_of_later_populations_uses_running_statistics() -> None:
    """Statistics that no batch has: a mean so large that population 2 is silent, in training too."""
    model = random_network("6-5 (F6)", batch_norm=True).train()
    later = synapses(model)[1].batch_norm
    later.running_mean.fill_(1e3)
    before = statistics(synapses(model)[1])
    found = run(model, images(model), time_steps=10)
    assert float(found.mean_spikes[0].sum()) > 0
    assert float(found.mean_spikes[1].sum()) == 0
    assert all(map(torch.equal, before, statistics(synapses(model)[1]))), "the spiking run updates nothing"


# ---- dropout -------------------------------------------------------------------------------------------------
def dropped(seed: int = 0) -> tuple[BoundNetwork, Tensor]:
    """A bound training network, p = 0.5, in which every current is 0.6 before dropout: 0.6 from each connection."""
    neuron = FloatNeuron(1.0, 1.0, 1.0)
    model = FeedbackSNN(
        NetworkConfig("40 (F40)", **dataclasses.asdict(neuron), batch_norm=False, dropout=0.5), (4,)
    ).double()
    first = synapses(model)[0]
    assert model.feedback is not None
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(0.6)
    return model.train().bind(3, generator=seeded(seed)), torch.zeros(3, 4, dtype=torch.float64)


def test_one_dropout_mask_serves_all_steps_and_the_map() -> None:
    bound, x = dropped()
    forward, back = bound.feedforward[0].mask, bound.feedback.mask
    assert not torch.equal(forward, back), "each connection has a mask of its own"
    assert not torch.equal(forward[0], forward[1]), "each sample has a mask of its own"
    drive = bound.drive(x, time_steps=6)
    found = bound.detached().simulate(drive, time_steps=6, loop_delay=6, record=True)
    for spikes in found.spikes[0]:  # a kept current is 0.6 / (1 - 0.5) = 1.2, over the threshold in every step
        assert torch.equal(spikes.double(), (forward > 0).double())
    both = (forward == 0) & (back == 0)
    around = bound.equilibrium_map(torch.ones(3, 40, dtype=torch.float64), drive.mean)
    assert int(both.sum()) > 10
    assert torch.equal(around[both], torch.zeros_like(around[both]))
    assert torch.equal(
        around[(forward > 0) & (back == 0)], torch.ones(int(((forward > 0) & (back == 0)).sum())).double()
    )


def test_dropout_masks_follow_the_generator() -> None:
    masks = [dropped(seed)[0].feedforward[0].mask for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
