"""The network against hand-computed spikes and its equations, on its way to equilibrium, and what training needs."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from feedback_networks import IF, LIF, built, chain, constants, images, random_network, run, seeded, synapses
from fsnn_lava.config import NetworkConfig
from fsnn_lava.config.notation import Pooling
from fsnn_lava.errors import ConfigError
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import BoundNetwork, DropoutOn, FeedbackSNN, Simulation
from fsnn_lava.network.layers import FrobeniusRestriction, Synapse
from fsnn_lava.training.gradients.ide import AdjointSettings, implicit_rates


def spikes_of(simulation: Simulation) -> list[list[int]]:
    """Spikes of the first sample, one list per population."""
    return [s[:, 0].flatten().tolist() for s in simulation.spikes]


# Two IF populations, threshold and reset 1: the input gives 0.5, population 1 gives 0.75, the feedback 0.5.
# loop delay 1   t    0    1    2    3    4    5    6    7
#                v1  .5  1.0   .5  1.0  1.0  1.0  1.0   .5
#                v2   0  .75  .75  1.5 1.25  1.0  .75  .75
# loop delay 2   v1  .5  1.0   .5  1.0   .5  1.5  1.0  1.0
#                v2   0  .75  .75  1.5   .5 1.25  1.0  .75
HAND = [
    pytest.param(1, [0, 1, 0, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 0, 0], id="sequential"),
    pytest.param(2, [0, 1, 0, 1, 0, 1, 1, 1], [0, 0, 0, 1, 0, 1, 1, 0], id="hardware"),
]


@pytest.mark.parametrize(("loop_delay", "first", "second"), HAND)
def test_two_populations_with_feedback_by_hand(loop_delay: int, first: list[int], second: list[int]) -> None:
    model = chain(0.5, 0.75, feedback=0.5, neuron=IF)
    found = run(model, torch.ones(1, 1, dtype=torch.float64), time_steps=8, loop_delay=loop_delay)
    assert spikes_of(found) == [first, second]
    assert [r.item() for r in found.firing_rates] == [sum(first) / 8, sum(second) / 8]
    assert [m.item() for m in found.mean_spikes] == [sum(first) / 8, sum(second) / 8]


def test_two_leaky_populations_by_hand() -> None:
    """Leak 0.5, weights 0.75, 1, feedback 0.5: v1 = .75, 1.125, 1.3125, 1.40625 and v2 = 0, 1, 1, 1."""
    model = chain(0.75, 1.0, feedback=0.5, neuron=LIF)
    found = run(model, torch.ones(1, 1, dtype=torch.float64), time_steps=4)
    assert spikes_of(found) == [[0, 1, 1, 1], [0, 1, 1, 1]]
    for rate, mean in zip(found.firing_rates, found.mean_spikes, strict=True):
        assert rate.item() == pytest.approx(1.75 / 1.875, rel=1e-14)  # weights 0.125, 0.25, 0.5, 1 of 1.875
        assert mean.item() == 0.75


def test_inhibitory_feedback_by_hand() -> None:
    """Weight 0.75, feedback -0.5; v = .75, 1.5 (fires), 1.5 - 1 + .75 - .5 = .75, 1.5 (fires), .75, 1.5 (fires)."""
    model = chain(0.75, feedback=-0.5, neuron=IF)
    found = run(model, torch.ones(1, 1, dtype=torch.float64), time_steps=6)
    assert spikes_of(found) == [[0, 1, 0, 1, 0, 1]]


@pytest.mark.parametrize("loop_delay", [1, 2, 3, 5])
def test_nothing_arrives_from_the_feedback_before_its_first_spike(loop_delay: int) -> None:
    """Both populations fire from the start; the inhibition silences the first one loop delay later, not before."""
    model = chain(1.0, 1.0, feedback=-1.0, neuron=IF)
    found = spikes_of(run(model, torch.ones(1, 1, dtype=torch.float64), time_steps=8, loop_delay=loop_delay))
    assert found[0][:loop_delay] == [1] * loop_delay
    assert found[0][loop_delay] == 0


def test_loop_delay_longer_than_the_run_is_a_network_without_feedback() -> None:
    model, alone = random_network("6-5 (F6)"), random_network("6-5")
    with torch.no_grad():
        for ours, theirs in zip(synapses(model), synapses(alone), strict=True):
            theirs.load_state_dict(ours.state_dict())
    x = images(model)
    late = run(model, x, time_steps=20, loop_delay=20)
    never = run(alone, x, time_steps=20)
    assert all(torch.equal(a, b) for a, b in zip(late.spikes, never.spikes, strict=True))


NETWORKS = ["5 (F5)", "6-5 (F6)", "6-5-4-3 (F6)", "3C3s-2C3s (F3C3u)", "4C3s-3C3-2C3 (F4C3)", "6-5", "3C3-P2-4"]
every_network = pytest.mark.parametrize("notation", NETWORKS)
each_pooling = pytest.mark.parametrize("pooling", ["merged", "spiking"])


@every_network
@each_pooling
def test_every_population_follows_the_equations(notation: str, pooling: Pooling) -> None:
    """A plain rerun of the equations, population by population, from recorded spikes alone."""
    model = random_network(notation, neuron=FloatNeuron(1.2, 0.9, 0.8), pooling=pooling)
    x, steps, delay = images(model), 12, 2
    found = run(model, x, time_steps=steps, loop_delay=delay)
    spikes = [s.double() for s in found.spikes]
    assert [s.shape for s in spikes] == [(steps, len(x), *shape) for shape in model.population_shapes]
    bound = model.bind(len(x))
    for layer, synapse in enumerate(bound.feedforward):
        v, last = torch.zeros_like(spikes[layer][0]), torch.zeros_like(spikes[layer][0])
        for t in range(steps):
            current = synapse.current(x if layer == 0 else spikes[layer - 1][t])
            if layer == 0 and bound.feedback and t >= delay:
                current = current + bound.feedback[0].current(spikes[-1][t - delay])
            v = 0.8 * (v - 0.9 * last) + current
            last = (v >= 1.2).double()
            assert torch.equal(last, spikes[layer][t]), (layer, t)
    assert all(0 < float(s.mean()) < 1 for s in spikes), "the case must be neither silent nor saturated"


@every_network
@pytest.mark.parametrize("leak", [1.0, 0.9])
def test_rates_are_weighted_means_of_the_spikes(notation: str, leak: float) -> None:
    model = random_network(notation, neuron=FloatNeuron(1.0, 1.0, leak))
    found = run(model, images(model), time_steps=9)
    weights = torch.tensor([leak ** (8 - t) for t in range(9)], dtype=torch.float64)
    for spikes, rate, mean in zip(found.spikes, found.firing_rates, found.mean_spikes, strict=True):
        assert_close(rate, torch.tensordot(weights / weights.sum(), spikes.double(), dims=1))
        assert_close(mean, spikes.double().mean(0))


@every_network
def test_recording_changes_no_rate(notation: str) -> None:
    model = random_network(notation)
    x = images(model)
    bound = model.bind(len(x))
    drive = bound.drive(x, time_steps=10)
    silent = bound.simulate(drive, time_steps=10)
    assert silent.spikes is None
    assert all(map(torch.equal, silent.firing_rates, run(model, x, time_steps=10).firing_rates))


def test_logits_are_the_readout_of_the_last_rate() -> None:
    model = random_network("6-5 (F6)")
    x = images(model)
    rate = run(model, x, time_steps=10).firing_rates[-1]
    expected = rate @ model.readout.weight.t() + model.readout.bias
    assert_close(model(x, 10), expected)
    frames = x.expand(10, *x.shape)
    assert_close(model(frames, 10), expected)


def test_same_seed_gives_the_same_weights() -> None:
    notation = "6-5 (F6)"
    first, again, other = (
        FeedbackSNN(NetworkConfig(notation, dropout=0.0), (4,), seed=seed).state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert not torch.equal(first["feedforward.0.weight"], other["feedforward.0.weight"])


def test_seed_gives_the_weights_that_it_always_gave() -> None:
    """Read off when pools and distributions could not yet be chosen: a published run starts where it started."""
    weights = FeedbackSNN(NetworkConfig("200 (F200)", dropout=0.0), (1, 8, 8), seed=0).state_dict()
    expected = {
        "feedforward.0.weight": [-0.0016448323149234056, 0.11785507202148438],
        "feedback.weight": [-0.011885404586791992, -0.10175660997629166],
        "feedback.restriction.gain": [1.9385277032852173],
        "feedback.restriction.left": [0.0640854761004448, 0.04833225533366203],
        "readout.weight": [0.03923144191503525, 0.026876794174313545],
    }
    for name, values in expected.items():
        # Sums of some hundred float32 products, in another order on another machine.
        assert_close(weights[name].flatten()[: len(values)], torch.tensor(values), rtol=1e-4, atol=1e-6)


def test_spiking_pools_are_populations_that_learn_nothing() -> None:
    notation = "3C3-P2-4C3-P2-5"
    merged, spiking = (
        FeedbackSNN(NetworkConfig(notation, pooling=pooling, dropout=0.0), (1, 8, 8), seed=2)
        for pooling in ("merged", "spiking")
    )
    assert spiking.population_shapes == ((3, 8, 8), (3, 4, 4), (4, 4, 4), (4, 2, 2), (5,))
    assert spiking.population_names == tuple(f"population{i}" for i in range(1, 6))
    learned = {name: p.shape for name, p in spiking.named_parameters()}
    assert {name.split(".")[1] for name in learned if name.startswith("feedforward")} == {"0", "2", "4"}
    assert set(spiking.state_dict()) == set(learned) | {
        name
        for name in spiking.state_dict()
        if name.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert torch.equal(spiking.readout.weight, merged.readout.weight), "pools draw no random numbers"
    assert torch.equal(synapses(spiking)[4].weight, synapses(merged)[2].weight)


def test_spiking_pool_by_hand() -> None:
    """Four neurons in a 2x2 window; the pool's neuron takes a quarter of their spikes, threshold 1, reset 2.

    Inputs 1, 1, 1, 0 make the first three spike at t = 0, 2, 4, ..: v = 1 (fires), 1 - 2 + 1 = 0, 1 (fires), ..
    The pool gets 3/4 at even steps: v = .75, .75, 1.5 (fires), -.5, .25, .25, 1 (fires), -1, -.25.
    """
    settings = {"batch_norm": False, "pooling": "spiking", "dropout": 0.0}
    model = built("1C1-P2", (1, 2, 2), FloatNeuron(1.0, 2.0, 1.0), classes=2, **settings)
    with torch.no_grad():
        synapses(model)[0].weight.fill_(1.0)
    x = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64).view(1, 1, 2, 2)
    found = run(model, x, time_steps=9)
    assert found.spikes[0][:, 0].flatten(1).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]] * 4 + [[1, 1, 1, 0]]
    assert spikes_of(found)[1] == [0, 0, 1, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("notation", "dropout_on", "pooling", "dropping"),
    [
        ("6-5-4 (F6)", "all", "merged", [True, True, True, True]),
        ("6-5-4 (F6)", "last", "merged", [False, False, True, False]),
        ("3C3-P2-4", "last", "merged", [False, True]),
        ("3C3-P2-4", "last", "spiking", [False, False, True]),
        ("3C3-P2-4", "all", "spiking", [True, False, True]),
        ("6 (F6)", "last", "merged", [True, False]),
    ],
)
def test_dropout_is_on_the_connections_that_were_named(
    notation: str, dropout_on: DropoutOn, pooling: Pooling, dropping: list[bool]
) -> None:
    model = FeedbackSNN(NetworkConfig(notation, dropout=0.5, dropout_on=dropout_on, pooling=pooling), (1, 4, 4))
    bound = model.bind(3, generator=torch.Generator().manual_seed(0))
    connections = bound.synapses
    assert [connection.mask is not None for connection in connections] == dropping


def test_initial_weights_and_restriction_are_those_asked_for() -> None:
    settings = {"initial_weights": "kaiming_normal", "initial_transposed_scale": 0.1, "spectral_norm": "frobenius"}
    config = NetworkConfig("8C3s-8C3s (F8C3u)", **settings, spectral_norm_bound=0.25, dropout=0.0)
    model = FeedbackSNN(config, (4, 16, 16), seed=3)
    # 288 and 576 draws each: the standard error of a standard deviation is at most 4 %.
    for synapse, fan_in in zip([*synapses(model), model.feedback], (36, 72, 72 * 100), strict=True):
        assert float(synapse.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)
    assert isinstance(model.feedback.restriction, FrobeniusRestriction)
    assert float(model.feedback.effective_weight().detach().norm()) == pytest.approx(0.25, rel=1e-6)


def test_equilibrium_map_by_hand() -> None:
    """Reset 2: a1 = clamp((0.5 a + 0.75) / 2), a2 = clamp(3 a1 / 2); beyond 0 and 1 they are clamped."""
    model = chain(0.75, 3.0, feedback=0.5, neuron=FloatNeuron(1.0, 2.0, 1.0))
    bound = model.bind(1)
    drive = bound.drive(torch.ones(1, 1, dtype=torch.float64), time_steps=1)
    around = bound.rates_around({1: torch.full((1, 1), 0.5, dtype=torch.float64)}, drive.mean)
    assert [a.item() for a in around] == [0.5, 0.75]
    assert bound.equilibrium_map(torch.full((1, 1), 0.5, dtype=torch.float64), drive.mean).item() == 0.75
    bright = bound.drive(torch.full((1, 1), 4.0, dtype=torch.float64), time_steps=1)
    none, full = (value * torch.ones(1, 1, dtype=torch.float64) for value in (0, 1))
    assert [a.item() for a in bound.rates_around({1: none}, bright.mean)] == [1.0, 1.0]
    dark = bound.drive(torch.full((1, 1), -4.0, dtype=torch.float64), time_steps=1)
    assert [a.item() for a in bound.rates_around({1: full}, dark.mean)] == [0.0, 0.0]


def deviations(model: FeedbackSNN, steps: list[int], *, loop_delay: int) -> list[float]:
    """Mean distance of the measured rate from the equilibrium after so many steps."""
    x = images(model, batch=16)
    bound = model.bind(len(x))
    drive = bound.drive(x, time_steps=1)
    start = torch.zeros(len(x), *model.population_shapes[-1], dtype=torch.float64)
    equilibrium = bound.equilibrium(drive.mean, start=start, tolerance=1e-14, max_steps=500)
    assert equilibrium.converged
    assert float(((equilibrium.value > 0) & (equilibrium.value < 1)).double().mean()) > 0.5, "mostly unsaturated"
    runs = [bound.simulate(drive, time_steps=t, loop_delays=(loop_delay,) * len(bound.feedback)) for t in steps]
    return [float((r.firing_rates[-1] - equilibrium.value).abs().mean()) for r in runs]


@pytest.mark.parametrize(
    ("notation", "loop_delay"), [("5 (F5)", 1), ("6-5 (F6)", 1), ("6-5 (F6)", 2), ("4-3-4 (F4)", 3)]
)
@pytest.mark.parametrize("v_threshold", [1.0, 0.5])
def test_if_rates_approach_the_equilibrium_as_one_over_t(notation: str, loop_delay: int, v_threshold: float) -> None:
    """Theorem 1 and 3: neither delay nor threshold moves the equilibrium."""
    model = random_network(notation, neuron=FloatNeuron(v_threshold, 1.0, 1.0))
    steps = [10, 30, 100, 300, 1000]
    found = deviations(model, steps, loop_delay=loop_delay)
    slope = float(np.polyfit(np.log(steps), np.log(found), 1)[0])
    assert -1.2 < slope < -0.8, found


def test_lif_rates_stop_at_a_floor() -> None:
    """With a leak the deviation is bounded, not vanishing (Theorem 2)."""
    found = deviations(random_network("5 (F5)", neuron=FloatNeuron(1.0, 1.0, 0.9)), [100, 1000], loop_delay=1)
    assert found[1] > 0.3 * found[0]
    assert found[1] < 0.2


def test_dropout_that_would_drop_nothing_is_refused() -> None:
    notation = "3C3-P2"
    with pytest.raises(ConfigError, match=r'dropout_on "last" with dropout 0\.5: the last population is the pool P2'):
        FeedbackSNN(NetworkConfig(notation, dropout=0.5, dropout_on="last", pooling="spiking"), (1, 4, 4))
    config = NetworkConfig(notation, dropout_on="last", pooling="spiking", dropout=0.0)
    assert FeedbackSNN(config, (1, 4, 4)).population_names


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize("notation", ["5 (F5)", "3C3s-2C3s (F3C3u)"])
def test_frames_all_alike_are_a_constant_input(notation: str, leak: float, batch_norm: bool, training: bool) -> None:
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
    each = [events.at(t)[0] for t in range(3)]
    assert_close((each[0] + 2 * each[1] + 4 * each[2]) / 7, events.mean[0].detach())
    assert not torch.equal(each[0], each[1])


def test_frames_must_be_as_many_as_steps() -> None:
    model = random_network("5 (F5)")
    with pytest.raises(ValueError, match="event input has 4 frames; expected one per time step, 5"):
        model.bind(6).drive(torch.zeros(4, 6, 1, 4, 4, dtype=torch.float64), time_steps=5)


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
    assert_close(drive.mean[0], expected)
    assert_close(drive.at(0)[0], expected.detach())
    assert drive.mean[0].requires_grad
    assert not drive.at(0)[0].requires_grad


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
    below = [x.flatten(1), *bound.rates_around({2: result.rates.detach()}, drive.mean, statistics="batch")]
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


def dropped(seed: int = 0) -> tuple[BoundNetwork, Tensor]:
    """A bound training network, p = 0.5, in which every current is 0.6 before dropout: 0.6 from each connection."""
    neuron = FloatNeuron(1.0, 1.0, 1.0)
    model = FeedbackSNN(NetworkConfig("40 (F40)", **constants(neuron), batch_norm=False, dropout=0.5), (4,)).double()
    first = synapses(model)[0]
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(0.6)
    return model.train().bind(3, generator=seeded(seed)), torch.zeros(3, 4, dtype=torch.float64)


def test_one_dropout_mask_serves_all_steps_and_the_map() -> None:
    bound, x = dropped()
    forward, back = bound.feedforward[0].mask, bound.feedback[0].mask
    assert not torch.equal(forward, back), "each connection has a mask of its own"
    assert not torch.equal(forward[0], forward[1]), "each sample has a mask of its own"
    drive = bound.drive(x, time_steps=6)
    found = bound.detached().simulate(drive, time_steps=6, loop_delays=(6,) * len(bound.feedback), record=True)
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
