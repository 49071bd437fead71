"""The baseline: the spiking run of `simulate`, with the gradient of two cases by hand and of two plain restatements."""

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from feedback_networks import IF, LIF, built, chain, images, random_network, run, seeded, synapses
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.network.neuron import fire
from fsnn_lava.training.gradients.bptt import bptt_rates
from fsnn_lava.training.gradients.ide import AdjointSettings, implicit_rates
from fsnn_lava.training.gradients.surrogate import surrogate_spikes

LEAKY = FloatNeuron(1.0, 0.9, 0.8)
NETWORKS = ["5 (F5)", "6-5-4 (F6)", "6-5", "3C3s-4C3-2C3s (F3C3u)", "3C3-P2-4C3-2C3 (F3C3)"]
every_network = pytest.mark.parametrize("notation", NETWORKS)


def network(notation: str, neuron: FloatNeuron, *, batch_norm: bool = True, dropout: float = 0.3) -> FeedbackSNN:
    """A random network on 8x8 images; running statistics that no batch has; a gain that the bound does not hold."""
    model = random_network(notation, neuron=neuron, batch_norm=batch_norm, dropout=dropout, shape=(1, 8, 8))
    generator = seeded(8)
    with torch.no_grad():
        for synapse in synapses(model):
            if synapse.batch_norm is not None:
                synapse.batch_norm.running_mean.normal_(0.0, 0.3, generator=generator)
                synapse.batch_norm.running_var.uniform_(0.3, 0.8, generator=generator)
        if model.feedback is not None:
            model.feedback.restriction.gain.fill_(0.4)
    return model.train()


def given(model: FeedbackSNN, *, events: bool, time_steps: int) -> Tensor:
    if not events:
        return images(model)
    frames = torch.rand(time_steps, 6, *model.input_shape, generator=seeded(4), dtype=torch.float64)
    return (frames < 0.4).double()


def gradients(loss: Tensor, model: FeedbackSNN) -> dict[str, Tensor]:
    parameters = {n: p for n, p in model.named_parameters() if not n.startswith("readout")}
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


# Rectangular, width 1: the slope h is 1 where |v - 1| < 1/2. The loss is the last population's rate. bar(y): dloss/dy.
# bar(v[t]) = h[t] bar(s[t]) + leak bar(v[t+1]);  bar(s[t]) = readout + weights above - leak r bar(v[t+1]).
#
# One neuron, input weight F = 1.25, feedback W = -0.25:
#   IF          v0 = 1.25 (fires, h 1)   v1 = 1.25 - 1 + 1.25 - 0.25 = 1.25 (fires, h 1);  the readout gives 1/2 each
#               bar(v1) = 1/2            bar(v0) = 1/2 - 1/2 + W/2 + 1/2 = 3/8
#   leak 1/2    v0 = 1.25 (fires, h 1)   v1 = (1.25 - 1)/2 + 1.25 - 0.25 = 1.125 (fires, h 1);  it gives 1/3 and 2/3
#               bar(v1) = 2/3            bar(v0) = 1/3 - 1/3 + 2/3 W + 1/3 = 1/6
#   and dloss/dF = bar(v0) + bar(v1), dloss/dW = s0 bar(v1).
ONE = [pytest.param(IF, 1.0, 7 / 8, 1 / 2, id="IF"), pytest.param(LIF, 1.0, 5 / 6, 2 / 3, id="LIF")]


def chain_gradients(model: FeedbackSNN) -> tuple[float, list[float], float]:
    """Rate, its derivatives to the feedforward weights, and to the feedback's."""
    found = bptt_rates(model, torch.ones(1, 1, dtype=torch.float64), time_steps=2, width=1.0)
    found.rates.sum().backward()
    forward = [s.weight.grad for s in synapses(model)]
    back = model.feedback.restriction.gain.grad
    return found.rates.item(), [g.item() for g in forward if g is not None], back.item()


@pytest.mark.parametrize(("neuron", "rate", "forward", "back"), ONE)
def test_one_neuron_with_feedback_by_hand(neuron: FloatNeuron, rate: float, forward: float, back: float) -> None:
    found_rate, found_forward, found_back = chain_gradients(chain(1.25, feedback=-0.25, neuron=neuron))
    assert found_rate == rate
    # Thirds are rounded; everything else is a sum of powers of two.
    assert found_forward == [pytest.approx(forward, rel=1e-15)]
    assert found_back == pytest.approx(back, rel=1e-15)


def test_two_neurons_with_feedback_by_hand() -> None:
    """Population 1 (F1 = 1.125, W = -0.25) drives population 2 (F2 = 1); IF; every step fires, every slope is 1.

    Potentials 1.125 and 1, then 1.125 - 1 + 1.125 - 0.25 = 1 and 1 - 1 + 1 = 1. With p for the first, q for the second
    population: bar(q1) = 1/2, bar(p1) = F2 bar(q1) = 1/2, bar(q0) = 1/2 - bar(q1) + W bar(p1) + bar(q1) = 3/8,
    bar(p0) = F2 bar(q0) - bar(p1) + bar(p1) = 3/8. dF1 = bar(p0) + bar(p1), dF2 = bar(q0) + bar(q1), dW = bar(p1).
    """
    found = chain_gradients(chain(1.125, 1.0, feedback=-0.25, neuron=IF))
    assert found == (1.0, [0.875, 0.875], 0.5)


def test_a_neuron_out_of_the_curve_lets_nothing_through() -> None:
    """v = 0.25, 0.5: both at least half a width below the threshold."""
    assert chain_gradients(chain(0.25, feedback=0.5, neuron=IF)) == (0.0, [0.0], 0.0)


def tangent(
    weights: list[list[list[float]]], directions: list[list[list[float]]], x: list[float], neuron: FloatNeuron
) -> float:
    """Directional derivative of the sum of the last rates, 6 steps of width 1.5, in plain numbers.

    The last of the weights is the feedback. Every quantity goes with its derivative along the directions.
    """
    leak, reset, steps = neuron.leak, neuron.reset_amount, 6
    sizes = [len(rows) for rows in weights[:-1]]
    v, dv, s, ds = ([[0.0] * n for n in sizes] for _ in range(4))
    total = 0.0
    for t in range(steps):
        returned = list(zip(s[-1], ds[-1], strict=True))
        for layer, size in enumerate(sizes):
            below = [(value, 0.0) for value in x] if layer == 0 else list(zip(s[layer - 1], ds[layer - 1], strict=True))
            parts = [(weights[layer], directions[layer], below)]
            if layer == 0:
                parts.append((weights[-1], directions[-1], returned))
            new = []
            for i in range(size):
                current = change = 0.0
                for matrix, direction, source in parts:
                    for w, dw, (value, dvalue) in zip(matrix[i], direction[i], source, strict=True):
                        current += w * value
                        change += dw * value + w * dvalue
                potential = leak * (v[layer][i] - reset * s[layer][i]) + current
                dpotential = leak * (dv[layer][i] - reset * ds[layer][i]) + change
                slope = 1 / 1.5 if abs(potential - neuron.v_threshold) < 0.75 else 0.0
                new.append((potential, dpotential, float(potential >= neuron.v_threshold), slope * dpotential))
            v[layer], dv[layer], s[layer], ds[layer] = (list(column) for column in zip(*new, strict=True))
        total += leak ** (steps - 1 - t) * sum(ds[-1])
    return total / sum(leak**k for k in range(steps))


@pytest.mark.parametrize("neuron", [IF, LEAKY], ids=["IF", "LIF"])
def test_every_derivative_is_that_of_a_scalar_restatement(neuron: FloatNeuron) -> None:
    model = built("4-3 (F4)", (3,), neuron, batch_norm=False, spectral_norm_bound=9.0, dropout=0.0)
    generator = seeded(2)
    with torch.no_grad():
        for synapse in synapses(model):
            synapse.weight.uniform_(-0.2, 0.7, generator=generator)
    x = torch.tensor([[0.9, -0.4, 1.3]], dtype=torch.float64)
    bound = model.eval().bind(1)
    weights = [s.weight.detach().tolist() for s in bound.synapses]
    found = bptt_rates(model, x, time_steps=6, width=1.5)
    assert 0 < float(found.rates.detach().sum()) < 3
    gain = model.feedback.restriction.gain
    *forward, to_gain = torch.autograd.grad(found.rates.sum(), [*(s.weight for s in synapses(model)), gain])
    nothing = [[[0.0] * len(row) for row in rows] for rows in weights]
    for layer, gradient in enumerate(forward):
        for i, j in itertools.product(range(gradient.shape[0]), range(gradient.shape[1])):
            directions = copy.deepcopy(nothing)
            directions[layer][i][j] = 1.0
            expected = tangent(weights, directions, x[0].tolist(), neuron)
            assert float(gradient[i, j]) == pytest.approx(expected, rel=1e-12, abs=1e-14), (layer, i, j)
        assert float(gradient.abs().max()) > 0.1
    # The effective feedback is the gain times a weight of norm one.
    directions = [*nothing[:-1], (bound.feedback[0].weight / gain).detach().tolist()]
    expected = tangent(weights, directions, x[0].tolist(), neuron)
    assert abs(expected) > 1e-2
    assert float(to_gain) == pytest.approx(expected, rel=1e-12)


def restated_rates(
    model: FeedbackSNN, x: Tensor, *, time_steps: int, curve: Callable[[Tensor], Tensor], seed: int
) -> Tensor:
    """Rates of the last population from the equations, every step written out, differentiated by autograd alone.

    A spike is h (v - stop(v)) + step(v): the value of the step and the slope h.
    """
    neuron, training = model.neurons[0], model.training
    events = x.dim() > 1 + len(model.input_shape)
    bound = model.bind(x.shape[1] if events else len(x), generator=seeded(seed))
    frames = x if events else x.expand(time_steps, *x.shape)
    shares = torch.tensor([neuron.leak ** (time_steps - 1 - t) for t in range(time_steps)], dtype=torch.float64)
    shares = shares / shares.sum()
    response = bound.feedforward[0].linear(torch.einsum("t,t...->...", shares, frames))
    statistics = []
    for layer, synapse in enumerate(synapses(model)):
        norm = synapse.batch_norm
        if norm is None:
            statistics.append((torch.zeros(1).double(), torch.ones(1).double()))
        elif layer == 0 and training:
            axes = [d for d in range(response.dim()) if d != 1]
            statistics.append((response.mean(axes), response.var(axes, unbiased=False) + norm.eps))
        else:
            statistics.append((norm.running_mean.clone(), norm.running_var + norm.eps))

    def current(layer: int, source: Tensor) -> Tensor:
        synapse, norm = bound.feedforward[layer], synapses(model)[layer].batch_norm
        result = synapse.linear(source)
        wide = (1, -1) + (1,) * (result.dim() - 2)
        if norm is not None:
            mean, variance = (value.view(wide) for value in statistics[layer])
            result = (result - mean) / variance.sqrt() * norm.weight.view(wide) + norm.bias.view(wide)
        if synapse.synapse.pool is not None:
            result = functional.avg_pool2d(result, synapse.synapse.pool.kernel)
        return result if synapse.mask is None else result * synapse.mask

    layers = range(len(bound.feedforward))
    v: list[Tensor] = [torch.zeros(())] * len(layers)
    s: list[Tensor] = [torch.zeros(())] * len(layers)
    rate = torch.zeros(())
    sent: list[Tensor] = []
    for t in range(time_steps):
        for layer in layers:
            arriving = current(layer, frames[t] if layer == 0 else s[layer - 1])
            if layer == 0 and bound.feedback and t >= model.loop_delays[0]:
                arriving = arriving + bound.feedback[0].current(sent[t - model.loop_delays[0]])
            v[layer] = neuron.leak * (v[layer] - neuron.reset_amount * s[layer]) + arriving
            here = v[layer].detach()
            s[layer] = curve(here - neuron.v_threshold) * (v[layer] - here) + (here >= neuron.v_threshold).double()
        sent.append(s[-1])
        rate = rate + shares[t] * s[-1]
    return rate


CURVES: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("rectangular", lambda d: (d.abs() < 0.4).double() / 0.8),
    ("arctan", lambda d: 1 / (0.8 + (math.pi * d).square() / 0.8)),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("neuron", [IF, LEAKY], ids=["IF", "LIF"])
@pytest.mark.parametrize("loop_delay", [1, 3])
@every_network
def test_gradient_is_that_of_the_restatement(
    notation: str, loop_delay: int, neuron: FloatNeuron, events: bool, training: bool
) -> None:
    model = network(notation, neuron).train(training)
    model.loop_delays = (loop_delay,) * len(model.loop_delays)
    x = given(model, events=events, time_steps=8)
    surrogate, curve = CURVES[training != events]
    if model.feedback is not None and model.feedback.restriction is not None:
        model.feedback.restriction.eval()  # both calls shall meet the same weight
    restated = restated_rates(model, x, time_steps=8, curve=curve, seed=5)
    weighting = torch.randn(restated.shape, generator=seeded(6), dtype=torch.float64)
    expected = gradients((restated * weighting).sum(), model)
    found = bptt_rates(model, x, time_steps=8, surrogate=surrogate, width=0.8, generator=seeded(5))
    assert_close(found.rates, restated, rtol=1e-12, atol=1e-12)
    assert 0.05 < float(found.rates.detach().mean()) < 0.95
    result = gradients((found.rates * weighting).sum(), model)
    for name, gradient in result.items():
        # Sums of some thousand float64 terms, multiplied up through eight steps.
        assert_close(gradient, expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("neuron", [IF, LEAKY], ids=["IF", "LIF"])
@pytest.mark.parametrize("loop_delay", [1, 3])
@every_network
def test_run_is_simulates(
    notation: str, loop_delay: int, neuron: FloatNeuron, batch_norm: bool, events: bool, training: bool
) -> None:
    """Spike for spike: in float64 no potential lies as close to the threshold as the two roundings are apart."""
    model = network(notation, neuron, batch_norm=batch_norm).train(training)
    model.loop_delays = (loop_delay,) * len(model.loop_delays)
    x = given(model, events=events, time_steps=10)
    expected = run(copy.deepcopy(model), x, time_steps=10, loop_delay=loop_delay, seed=5)
    found = bptt_rates(model, x, time_steps=10, generator=seeded(5))
    assert torch.equal(found.rates, found.simulation.firing_rates[-1])
    for ours, theirs in zip(found.simulation.returned, expected.returned, strict=True):
        assert_close(ours, theirs, rtol=1e-14, atol=1e-15)
    for ours, theirs in zip(found.simulation.mean_spikes, expected.mean_spikes, strict=True):
        assert torch.equal(ours, theirs)
        assert 0 < float(ours.mean()) < 1
    for ours, theirs in zip(found.simulation.firing_rates, expected.firing_rates, strict=True):
        assert_close(ours, theirs, rtol=1e-14, atol=1e-15)  # the leak's powers may be fused into the sum
        assert not ours.requires_grad
    assert found.passes == []
    assert found.simulation.spikes is None


@pytest.mark.parametrize("events", [False, True])
@every_network
def test_a_call_leaves_behind_what_the_implicit_one_does(notation: str, events: bool) -> None:
    """Running statistics, the power iteration's vectors and the generator of the masks."""
    model = network(notation, LEAKY)
    other = copy.deepcopy(model)
    x = given(model, events=events, time_steps=10)
    ours, theirs = seeded(5), seeded(5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bptt_rates(model, x, time_steps=10, generator=ours).rates.sum().backward()
    implicit_rates(other, x, time_steps=10, settings=AdjointSettings(), generator=theirs).rates.sum().backward()
    for name, value in model.state_dict().items():
        # Rates that differ in their last bits make means that do.
        assert_close(value, other.state_dict()[name], rtol=1e-13, atol=1e-14)
        moved = "running" in name or name.endswith(("left", "right"))
        assert torch.equal(value, before[name]) != moved, name
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_evaluation_changes_nothing() -> None:
    model = network("3C3s-4C3-2C3s (F3C3u)", LEAKY).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bptt_rates(model, images(model), time_steps=5).rates.sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("events", [False, True])
def test_gradient_reaches_every_parameter(events: bool) -> None:
    """Biases before a batch norm with batch statistics apart, which cannot matter: the first population's."""
    model = network("3C3s-4C3-2C3s (F3C3u)", LEAKY)
    x = given(model, events=events, time_steps=8)
    logits = model.classify(bptt_rates(model, x, time_steps=8, generator=seeded(5)).rates)
    functional.cross_entropy(logits, torch.arange(6) % 3).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        nothing = 1e-12 if name == "feedforward.0.bias" else 0.0  # sums of rounding errors
        assert (float(parameter.grad.abs().max()) > 1e-6) == (nothing == 0.0), name


def test_frames_must_be_as_many_as_steps() -> None:
    model = network("5 (F5)", IF)
    with pytest.raises(ValueError, match="event input has 4 frames; expected one per time step, 5"):
        bptt_rates(model, given(model, events=True, time_steps=4), time_steps=5)


NEURON = FloatNeuron(v_threshold=2.0)


def slopes(v: Tensor, surrogate: str, width: float) -> Tensor:
    """Derivative that each spike is given."""
    v = v.detach().requires_grad_()
    spikes = surrogate_spikes(v, neuron=NEURON, surrogate=surrogate, width=width)
    return torch.autograd.grad(spikes.sum(), v)[0]


@pytest.mark.parametrize("surrogate", ["rectangular", "arctan"])
def test_value_is_the_step(surrogate: str) -> None:
    below = math.nextafter(2.0, 0.0)
    v = torch.tensor([-5.0, 0.0, below, 2.0, 2.5], dtype=torch.float64, requires_grad=True)
    found = surrogate_spikes(v, neuron=NEURON, surrogate=surrogate, width=1.0)
    assert found.tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert torch.equal(found.detach(), fire(v.detach(), neuron=NEURON))
    assert found.requires_grad


def test_rectangle_by_hand() -> None:
    """Width 0.5 around the threshold 2: height 2 strictly inside 1.75 .. 2.25, nothing on its edges."""
    v = torch.tensor([1.0, 1.75, 1.875, 2.0, 2.125, 2.25, 9.0], dtype=torch.float64)
    assert slopes(v, "rectangular", 0.5).tolist() == [0.0, 0.0, 2.0, 2.0, 2.0, 0.0, 0.0]


def test_arctan_by_hand() -> None:
    """Width 0.5: height 2 at the threshold; half of it where pi |v - 2| is the width."""
    half = 0.5 / math.pi
    v = torch.tensor([2.0, 2.0 - half, 2.0 + half, 2.0 + 3 * half], dtype=torch.float64)
    # The expected values are those of the formula with a rounded pi.
    assert_close(slopes(v, "arctan", 0.5), torch.tensor([2.0, 1.0, 1.0, 0.2], dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("surrogate", "tail"), [("rectangular", 0.0), ("arctan", 2e-3)])
def test_area_of_a_curve_is_one(surrogate: str, tail: float, width: float) -> None:
    """The step's own derivative has area 1. Beyond z = 200 there are 1 / (100 pi^2), 1e-3, of the arctan's."""
    step = width / 100
    v = 2 + step * (torch.arange(-20_000, 20_000, dtype=torch.float64) + 0.5)
    assert float(slopes(v, surrogate, width).sum() * step) == pytest.approx(1.0, abs=tail + 1e-9)


def test_gradient_above_is_multiplied() -> None:
    v = torch.tensor([1.9, 2.3], dtype=torch.float64, requires_grad=True)
    spikes = surrogate_spikes(v, neuron=NEURON, surrogate="rectangular", width=1.0)
    (spikes * torch.tensor([3.0, -5.0], dtype=torch.float64)).sum().backward()
    assert v.grad.tolist() == [3.0, -5.0]
