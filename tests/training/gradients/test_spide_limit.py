"""What the second phase tends to as its steps grow: the exact adjoint, and the implicit gradient (float64)."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import spiking_adjoint_reference as reference
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import BoundNetwork, FeedbackSNN
from fsnn_lava.training.gradients.ide import AdjointSettings, with_implicit_gradient
from fsnn_lava.training.gradients.measured_rates import BackwardPhase
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, local_updates
from spide_networks import (
    BATCH,
    IF,
    LIF,
    MASKS,
    NETWORKS,
    NEURONS,
    STEPS,
    given,
    gradients,
    loss_of,
    seeded,
    spide_network,
)
from ternary_networks import flat, reference_network

EACH_NETWORK = pytest.mark.parametrize(("notation", "shape"), NETWORKS)
EXACT = AdjointSettings(tolerance=1e-14, max_steps=400)


class Case:
    """A network at some rates, with the loss's gradient there, and the exact adjoint of every population.

    Attributes
    ----------
    loss_scale : such that the largest rate of a couple is 0.6: at one it would be cut off.
    exact : (B, N) of every population, of the reference.
    """

    def __init__(self, model: FeedbackSNN, bound: BoundNetwork, rates: tuple[Tensor, ...]) -> None:
        self.model, self.bound, self.rates = model, bound.detached(), rates
        at = rates[-1].clone().requires_grad_()
        (self.gradient,) = torch.autograd.grad(loss_of(model, at), at)
        self.plain = reference_network(self.bound, BATCH)
        self.masks = [flat(((rate > 0) & (rate < 1)).double()) for rate in rates]
        self.exact = reference.exact_adjoint(self.plain, self.masks, flat(self.gradient))
        self.loss_scale = 0.6 / max(float(np.abs(exact).max()) for exact in self.exact)

    def phase(self, time_steps: int, *, loop_delay: int = 1) -> BackwardPhase:
        settings = SpideSettings(time_steps, self.loss_scale)
        return backward_phase(self.bound, self.rates, self.gradient, settings=settings, loop_delay=loop_delay)

    def errors(self, time_steps: int, *, loop_delay: int = 1) -> list[float]:
        """Largest error of a couple's rate, for every population."""
        phase = self.phase(time_steps, loop_delay=loop_delay)
        return [
            float(np.abs(flat(rate) - self.loss_scale * exact).max())
            for rate, exact in zip(phase.rates, self.exact, strict=True)
        ]

    def updates(self, time_steps: int, mean_input: Tensor) -> tuple[Tensor, ...]:
        settings = SpideSettings(time_steps, self.loss_scale)
        phase = self.phase(time_steps)
        return local_updates(self.bound, self.rates, phase, mean_input=mean_input, settings=settings)


def measured(
    notation: str, shape: tuple[int, ...], *, neuron: FloatNeuron = IF, dropout: float = 0.2
) -> tuple[Case, Tensor]:
    """At measured rates, with the input."""
    model = spide_network(notation, shape, neuron=neuron, dropout=dropout)
    bound, x = model.bind(BATCH, generator=seeded(MASKS)), given(model)
    run = bound.detached().simulate(bound.detached().drive(x, time_steps=STEPS), time_steps=STEPS)
    return Case(model, bound, run.firing_rates), x


def long_phase(notation: str) -> int:
    """Steps that resolve the gradient to a percent also below pools, each of which takes a factor of 8 off it."""
    return 4000 * 4 ** notation.count("P")


def relative(found: list[Tensor], expected: list[Tensor]) -> float:
    """Error of all values together."""
    difference = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)])
    return float(difference.norm() / torch.cat([b.flatten() for b in expected]).norm())


# ---- the adjoint -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reset", ["IF", "IF that resets by the threshold"])
@EACH_NETWORK
def test_rates_tend_to_the_exact_adjoint(notation: str, shape: tuple[int, ...], reset: str) -> None:
    """As 1 / T: half a spike that a couple's potential keeps, and as much again from what reaches it."""
    case, _ = measured(notation, shape, neuron=NEURONS[reset])
    for loop_delay in {1, len(case.rates)}:
        for steps in (100, 1000, 4000):
            assert max(case.errors(steps, loop_delay=loop_delay)) * steps < 2
    assert max(case.errors(30)) > 60 * max(case.errors(4000))
    assert all(np.abs(exact).max() > 1e-4 for exact in case.exact)


@EACH_NETWORK
def test_leaky_rates_tend_to_a_floor(notation: str, shape: tuple[int, ...]) -> None:
    """Half of (1 - leak) is what a potential below the threshold is worth, however long it takes."""
    case, _ = measured(notation, shape, neuron=LIF)
    early, late, later = (case.errors(steps) for steps in (10, 300, 3000))
    share = (1 - LIF.leak) / 2
    assert max(late) < 3 * share
    assert max(later) < 3 * share
    assert max(later) > 0.5 * share
    assert max(early) > max(later)


def test_leak_of_nearly_one_is_nearly_without_leak() -> None:
    """The floor falls with 1 - leak."""
    floors = []
    for leak in (0.9, 0.99, 0.999):
        case, _ = measured("3C3s-4C3s-3C3 (F3C3u)", (1, 8, 8), neuron=FloatNeuron(1.0, 2.0, leak))
        floors.append(max(case.errors(int(20 / (1 - leak)))))
    assert floors[0] > 4 * floors[1] > 16 * floors[2]


# ---- the gradient ------------------------------------------------------------------------------------------------
@EACH_NETWORK
def test_updates_tend_to_the_exact_ones_at_the_measured_rates(notation: str, shape: tuple[int, ...]) -> None:
    """With dropout in both the adjoint and the update: forgotten in the latter it would take a fifth off the norm."""
    case, x = measured(notation, shape)
    rates = [flat(rate) for rate in case.rates]
    updates = reference.local_updates(case.plain, case.masks, case.exact, rates, flat(x))
    expected = [torch.from_numpy(value) for value in flattened(case, updates)]
    many = long_phase(notation)
    errors = [relative([u.flatten() for u in case.updates(steps, x)], expected) for steps in (100, many)]
    assert errors[1] < 5e-3
    assert errors[0] > 10 * errors[1]
    for found, exact in zip(case.updates(many, x), expected, strict=True):
        assert float(exact.norm()) > 1e-3
        assert float(found.norm() / exact.norm()) == pytest.approx(1, abs=1e-2), "0.8 without the masks"


def flattened(case: Case, updates: list[reference.Update]) -> list[reference.Floats]:
    """In the order of `local_updates`; pools learn nothing, the feedback has no bias."""
    found = []
    for synapse, update in zip((*case.bound.feedforward, case.bound.feedback), updates, strict=False):
        assert synapse is not None
        if synapse.synapse.layer.kind != "pool":
            found += [update.weight] if synapse.bias is None else [update.weight, update.bias]
    return found


@pytest.mark.parametrize("neuron", [IF, NEURONS["IF that resets by the threshold"]], ids=["2 V_th", "V_th"])
@EACH_NETWORK
def test_gradient_tends_to_the_implicit_one(notation: str, shape: tuple[int, ...], neuron: FloatNeuron) -> None:
    """At the equilibrium, where the measured rate and the map's are one: autograd once around the loop."""
    model = spide_network(notation, shape, neuron=neuron)
    bound, x = model.bind(BATCH, generator=seeded(MASKS)), given(model)
    drive = bound.drive(x, time_steps=STEPS)
    start = torch.zeros(BATCH, *model.population_shapes[-1], dtype=torch.float64)
    settled = bound.equilibrium(drive.mean.detach(), start=start, tolerance=1e-15, max_steps=2000).value
    with torch.no_grad():
        around = bound.rates_around(settled, drive.mean)
    assert_close(around[-1], settled, rtol=0, atol=1e-12)
    rates = with_implicit_gradient(bound, drive, settled, settings=EXACT, found=[])
    implicit = gradients(loss_of(model, rates), model)

    case = Case(model, bound, (*around[:-1], settled))
    errors = []
    for steps in (100, long_phase(notation)):
        again = model.bind(BATCH, generator=seeded(MASKS))  # with gradients from restricted weights to weights
        synapses = [*again.feedforward, *([] if again.feedback is None else [again.feedback])]
        learned = [t for s in synapses if s.synapse.layer.kind != "pool" for t in (s.weight, s.bias) if t is not None]
        updates = case.updates(steps, x)
        through = gradients(sum((p * u).sum() for p, u in zip(learned, updates, strict=True)), model)  # type: ignore[arg-type]
        errors.append(relative(list(through.values()), list(implicit.values())))
    assert errors[1] < 5e-3
    assert errors[0] > 10 * errors[1]


def test_too_large_a_scale_cuts_the_gradient_off() -> None:
    """A couple fires once a step at most, so that its rate ends at one: the settings' own risk, made visible."""
    case, _ = measured("9 (F9)", (1, 3, 3))
    case.loss_scale *= 20
    phase = case.phase(1000)
    assert max(float(rate.abs().max()) for rate in phase.rates) == 1
    assert max(case.errors(1000)) > 1
