"""Gradients of whole networks: three populations, convolutions, batch norm, dropout, transposed feedback, float64.

With running statistics everywhere (and dropout masks drawn) the equilibrium map is one function of parameters and
rate. There the implicit gradient, autograd through the iterated map and finite differences must agree for every
parameter.

In training mode the published gradient is not that of one function: f in df/dtheta normalises with the statistics of
the batch, while J = df/da takes the running ones, in which batch norm is linear and samples do not mix. There the
reference builds this very formula: J as a dense matrix, the linear system by elimination, and df/dtheta by autograd and
by finite differences, at the measured rates. (With a single population the two agree, as its batch norm does not see
the rate: `test_gradients_ide`.)

The power iteration's vectors stand still in all of it, so that the effective feedback is one function of its weight.
"""

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.nn import functional
from torch.testing import assert_close

from feedback_networks import seeded, synapses
from fsnn_lava.config import NetworkConfig
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import BoundNetwork, FeedbackSNN
from fsnn_lava.training.gradients.ide import AdjointSettings, implicit_rates, with_implicit_gradient

BATCH, STEPS, MASKS = 4, 12, 7
EXACT = AdjointSettings("fixed_point", tolerance=1e-14, max_steps=400)
LABELS = torch.tensor([0, 1, 2, 1])

NOTATIONS = [
    pytest.param("4C3s-5C3-4C3s (F4C3u)", id="transposed feedback"),
    pytest.param("3C3-P2-4C3-P2-3C3 (F3C3u)", id="pooling"),
]
NEURONS = [
    pytest.param(FloatNeuron(1.0, 1.0, 1.0), id="IF"),
    pytest.param(FloatNeuron(1.0, 0.9, 0.9), id="LIF"),
]


def network(notation: str, neuron: FloatNeuron) -> FeedbackSNN:
    """A network in training mode whose rates lie inside (0, 1) mostly, and whose feedback gain is inside its bound."""
    model = FeedbackSNN(
        NetworkConfig(notation, **dataclasses.asdict(neuron), dropout=0.2, spectral_norm_bound=4.0),
        (2, 8, 8),
        classes=3,
        seed=1,
    ).double()
    generator = seeded(2)
    with torch.no_grad():
        for synapse in synapses(model):
            norm = synapse.batch_norm
            assert norm is not None
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert synapse.bias is not None
            norm.running_mean.normal_(0.0, 0.1, generator=generator)
            norm.running_var.uniform_(0.15, 0.5, generator=generator)
            norm.weight.uniform_(0.2, 0.4, generator=generator)
            norm.bias.uniform_(0.3, 0.6, generator=generator)
            synapse.bias.normal_(0.0, 0.2, generator=generator)
        assert model.feedback is not None
        assert model.feedback.restriction is not None
        model.feedback.restriction.gain.fill_(3.0)
        model.readout.weight.mul_(5)
    return still(model)


def still(model: FeedbackSNN) -> FeedbackSNN:
    """The network in training mode, but for its power iteration."""
    model.train()
    assert model.feedback is not None
    assert model.feedback.restriction is not None
    model.feedback.restriction.eval()
    return model


def given(model: FeedbackSNN, *, events: bool) -> Tensor:
    shape = (STEPS, BATCH, *model.input_shape) if events else (BATCH, *model.input_shape)
    x = torch.rand(shape, generator=seeded(3), dtype=torch.float64)
    return (x < 0.4).double() if events else x


def bind_with_running_statistics(model: FeedbackSNN) -> BoundNetwork:
    """Dropout masks as in training, statistics as in evaluation."""
    bound = still(model).bind(BATCH, generator=seeded(MASKS))
    model.eval()
    return dataclasses.replace(bound, training=False)


def loss_at(model: FeedbackSNN, rates: Tensor) -> Tensor:
    return functional.cross_entropy(model.classify(rates), LABELS)


def gradients(loss: Tensor, model: FeedbackSNN) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}


def check_by_differences(value: Callable[[], Tensor], model: FeedbackSNN, found: dict[str, Tensor]) -> None:
    """Derivatives of the value along a random direction of each parameter, by central differences."""
    step, generator = 1e-7, seeded(5)  # so small that no rate of thousands meets 0 or 1 on the way
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
            above = value()
            parameter.sub_(direction, alpha=2 * step)
            below = value()
            parameter.add_(direction, alpha=step)
        difference = (above - below) / (2 * step)
        # Errors: rounding of the loss, 1e-15 / step; those of the third derivative are far below.
        assert float(difference) == pytest.approx(float((found[name] * direction).sum()), rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("events", [False, True], ids=["constant", "events"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("notation", NOTATIONS)
def test_implicit_is_iterated_is_finite_differences(notation: str, neuron: FloatNeuron, events: bool) -> None:
    model = network(notation, neuron)
    x = given(model, events=events)

    def iterated() -> Tensor:
        bound = bind_with_running_statistics(model)
        drive = bound.drive(x, time_steps=STEPS)
        a = torch.zeros(BATCH, *model.population_shapes[-1], dtype=torch.float64)
        for _ in range(60):
            a = bound.equilibrium_map(a, drive.mean)
        return loss_at(model, a)

    through_loop = gradients(iterated(), model)

    bound = bind_with_running_statistics(model)
    drive = bound.drive(x, time_steps=STEPS)
    start = torch.zeros(BATCH, *model.population_shapes[-1], dtype=torch.float64)
    settled = bound.equilibrium(drive.mean, start=start, tolerance=1e-15, max_steps=400)
    assert float(((settled.value > 0) & (settled.value < 1)).double().mean()) > 0.5
    rates = with_implicit_gradient(bound, drive, settled.value, settings=EXACT, found=[])
    implicit = gradients(loss_at(model, rates), model)

    for name, gradient in implicit.items():
        assert float(gradient.abs().max()) > 1e-4, name
        # What 60 iterations of a map that contracts by a half or more leave, and sums of some thousand terms.
        assert_close(gradient, through_loop[name], rtol=1e-9, atol=1e-13)
    check_by_differences(lambda: iterated().detach(), model, through_loop)


@pytest.mark.parametrize("events", [False, True], ids=["constant", "events"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("notation", NOTATIONS)
def test_training_gradient_is_that_of_the_published_formula(notation: str, neuron: FloatNeuron, events: bool) -> None:
    model = network(notation, neuron)
    reference = copy.deepcopy(model)
    x = given(model, events=events)
    result = implicit_rates(model, x, time_steps=STEPS, settings=EXACT, generator=seeded(MASKS))
    found = gradients(loss_at(model, result.rates), model)
    assert result.passes[0].converged
    a = result.simulation.firing_rates[-1]
    assert 0.1 < float(a.mean()) < 0.9

    def mapped() -> tuple[BoundNetwork, Tensor, Tensor]:
        """Once around the loop with batch statistics, at the measured rates; updates the running ones."""
        bound = reference.bind(BATCH, generator=seeded(MASKS))
        drive = bound.drive(x, time_steps=STEPS)
        return bound, drive.mean.detach(), bound.equilibrium_map(a, drive.mean, statistics="batch")

    bound, drive_mean, image = mapped()  # the one update that the published procedure makes before J
    matrix = jacobian(lambda rate: bound.equilibrium_map(rate, drive_mean), a).reshape(a.numel(), a.numel())
    at = a.clone().requires_grad_()
    (to_rates,) = torch.autograd.grad(loss_at(reference, at), at)
    unit = torch.eye(a.numel(), dtype=torch.float64)
    g = torch.linalg.solve(unit - matrix.t(), to_rates.flatten()).view_as(a)
    assert float((g - to_rates).norm() / g.norm()) > 0.03, "the feedback must matter"

    expected = gradients((image * g).sum() + loss_at(reference, a), reference)
    for name, gradient in found.items():
        idle = name.endswith(".bias") and "batch_norm" not in name and "readout" not in name
        assert (float(gradient.abs().max()) > 1e-4) != idle, f"{name}: batch statistics cancel a bias, nothing else"
        # The solve stops at a relative residual of 1e-14; sums of some thousand terms.
        assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
    check_by_differences(lambda: (mapped()[2] * g).sum().detach() + loss_at(reference, a).detach(), reference, found)
