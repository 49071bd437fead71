"""Figures of a trained network against a plain recomputation."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from feedback_networks import constants
from fsnn_lava.config import NetworkConfig
from fsnn_lava.datasets import InputCoding, Samples
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.network.layers import Synapse
from fsnn_lava.training.evaluation import convergence_curve, evaluate, settling

CODING = InputCoding("graded", maximum=16, scale=1 / 16, mean=(0.5,), std=(0.5,))


def samples(count: int = 23) -> Samples:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 17, (count, 1, 4, 4)).astype(np.uint8)
    return Samples(codes, generator.integers(0, 3, count))


def network(leak: float = 0.8) -> FeedbackSNN:
    """A network whose populations fire, and whose dropout and batch norm would show in training mode."""
    neuron = FloatNeuron(1.0, 1.0, leak)
    model = FeedbackSNN(NetworkConfig("6-5 (F6)", **constants(neuron), dropout=0.5), (1, 4, 4), classes=3, seed=1)
    for synapse in model.feedforward:
        torch.nn.init.constant_(synapse.bias, 0.5)
    return model


def test_figures_are_those_of_one_plain_run() -> None:
    model, given = network(), samples()
    found = evaluate(model, given, CODING, time_steps=9, batch_size=10)

    model.eval()
    x, labels = torch.from_numpy(CODING.decode(given.codes)), torch.from_numpy(given.labels)
    bound = model.bind(len(x))
    run = bound.simulate(bound.drive(x, time_steps=9), time_steps=9, record=True)
    logits = model.classify(run.firing_rates[-1])
    assert found.accuracy == float((logits.argmax(1) == labels).double().mean())
    # float32 sums in another order.
    assert found.loss == pytest.approx(float(functional.cross_entropy(logits, labels).detach()), rel=1e-5)
    for name, spikes, rate in zip(model.population_names, run.spikes, run.firing_rates, strict=True):
        assert found.mean_spikes[name] == pytest.approx(float(spikes.double().mean()), rel=1e-6)
        assert found.firing_rates[name] == pytest.approx(float(rate.double().mean()), rel=1e-6)
        assert found.firing_rates[name] != pytest.approx(found.mean_spikes[name], rel=1e-3), "LIF: they differ"


def test_both_rates_agree_without_leak() -> None:
    found = evaluate(network(leak=1.0), samples(), CODING, time_steps=9)
    assert found.mean_spikes == pytest.approx(found.firing_rates, rel=1e-6)
    assert min(found.mean_spikes.values()) > 0


def test_figures_do_not_depend_on_the_batch_size() -> None:
    model = network()
    first, other = (evaluate(model, samples(), CODING, time_steps=9, batch_size=size) for size in (4, 100))
    assert first.accuracy == other.accuracy
    assert first.loss == pytest.approx(other.loss, rel=1e-5)
    assert first.mean_spikes == pytest.approx(other.mean_spikes, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_model_as_it_was(training: bool) -> None:
    model = network().train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    evaluate(model, samples(), CODING, time_steps=5)
    convergence_curve(model, torch.from_numpy(CODING.decode(samples(4).codes)), time_steps=5)
    assert model.training is training
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("leak", [1.0, 0.8])
def test_convergence_curve_is_the_distance_after_so_many_steps(leak: float) -> None:
    model = network(leak).eval()
    x = torch.from_numpy(CODING.decode(samples(4).codes))
    curve = convergence_curve(model, x, time_steps=12)
    assert curve.shape == (12,)
    bound = model.bind(len(x))
    drive = bound.drive(x, time_steps=1)
    for t in range(1, 13):
        a = bound.simulate(drive, time_steps=t).firing_rates[-1]
        distance = (bound.equilibrium_map(a, drive.mean) - a).norm(dim=1).mean()
        assert_close(curve[t - 1], distance.detach(), rtol=1e-5, atol=1e-6)  # float32


def test_if_network_comes_closer_with_time() -> None:
    x = torch.from_numpy(CODING.decode(samples(4).codes))
    curve = convergence_curve(network(leak=1.0), x, time_steps=200)
    assert float(curve[199]) < 0.1 * float(curve[4])


# ---- whether it settles


def single(feedback: float, *, bias: float, reset: float = 1.0) -> FeedbackSNN:
    """Four neurons with feedback to themselves alone, of one weight, and a constant current."""
    config = NetworkConfig(
        "4 (F4)", v_threshold=reset, reset_amount=reset, batch_norm=False, spectral_norm_bound=abs(feedback) or 1.0
    )
    model = FeedbackSNN(config, (4,), classes=3, seed=1)
    first, back = model.feedforward[0], model.feedback
    assert isinstance(first, Synapse)
    assert back is not None
    with torch.no_grad():
        first.weight.zero_()
        torch.nn.init.constant_(first.bias, bias)
        back.weight.copy_(feedback * torch.eye(4))
        back.restriction = None
    return model


def test_gain_is_the_spectral_radius_of_the_loop() -> None:
    model = network(leak=1.0).double().eval()
    x = torch.from_numpy(CODING.decode(samples(5).codes)).double()
    found = settling(model, x, time_steps=50)
    bound = model.bind_to(x)
    drive = bound.drive(x, time_steps=50)
    rates = bound.simulate(drive, time_steps=50).firing_rates[-1]
    radii = []
    for row in range(len(x)):
        one = bound.of_rows(torch.tensor([row]))
        mean = tuple(m if m is None else m[row : row + 1] for m in drive.mean)
        jacobian = torch.autograd.functional.jacobian(
            lambda a, one=one, mean=mean: one.equilibrium_map(a, mean), rates[row : row + 1]
        )
        radii.append(float(torch.linalg.eigvals(jacobian.reshape(6 - 1, 6 - 1)).abs().max()))
    assert max(radii) > 0.05
    # Power iteration has not come to the end where two eigenvalues are alike.
    assert found.largest_gain == pytest.approx(max(radii), rel=0.05)
    assert found.mean_gain == pytest.approx(sum(radii) / len(radii), rel=0.1)
    assert (found.samples, found.unsettled) == (5, 0)


def test_loop_that_does_not_contract_is_said_not_to_settle() -> None:
    """a <- clamp(0.9 - 1.5 a) has its fixed point at 0.36, from which it runs away; with -0.5 it runs there."""
    x = torch.zeros(3, 4)
    found = settling(single(-1.5, bias=0.9), x, time_steps=30)
    assert (found.samples, found.unsettled) == (3, 3)
    assert found.largest_gain == pytest.approx(1.5, rel=1e-5)
    assert found.warnings()[0].startswith("does not settle: 3 of 3 samples, the loop's gain is up to 1.50; distances")
    calm = settling(single(-0.5, bias=0.9), x, time_steps=300)
    assert (calm.unsettled, calm.warnings()) == (0, [])
    assert calm.distance is not None
    assert calm.words() == (
        "at the equilibrium the loop's gain is 0.50, at most 0.50; after T steps 0% of the neurons are silent, "
        f"0% saturated, and the rates are {calm.distance:.1%} of their mean away from it"
    )
    assert calm.largest_gain == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize(("bias", "words"), [(0.0, ["silent", "100% of the neurons never fire"]), (9.0, ["silent"])])
def test_network_of_silent_and_saturated_neurons_is_not_called_settled(bias: float, words: list[str]) -> None:
    found = settling(single(0.5, bias=bias), torch.zeros(2, 4), time_steps=10)
    assert found.silent + found.saturated == 1
    assert len(found.warnings()) == len(words)
    assert all(word in warning for word, warning in zip(words, found.warnings(), strict=True))


def test_too_few_steps_are_said() -> None:
    found = settling(single(0.5, bias=0.37), torch.zeros(2, 4), time_steps=4)
    assert found.distance > 0.1
    assert found.warnings() == [
        f"T is too short to speak of an equilibrium: the rates are {found.distance:.0%} of their mean away from it"
    ]
    assert settling(single(0.5, bias=0.37), torch.zeros(2, 4), time_steps=1000).warnings() == []
