"""SPIDE against a plain restatement, spike by spike; its limit, the implicit gradient; what it refuses (float64)."""

import gc
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import spiking_adjoint_reference as reference
from fsnn_lava.config import NetworkConfig, TrainingConfig, config_from_dict
from fsnn_lava.errors import ConfigError
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network import run_by_events as event_run
from fsnn_lava.network.devices import place, prepared, shared_generator
from fsnn_lava.network.feedback_network import BoundNetwork, FeedbackSNN
from fsnn_lava.training.gradients import spide, spide_by_events as couple_run
from fsnn_lava.training.gradients.ide import AdjointSettings, with_implicit_gradient
from fsnn_lava.training.gradients.measured_rates import BackwardPhase, rates_with_gradient
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, local_updates, spide_rates
from fsnn_lava.training.gradients.spide_dense import dense_couples
from spide_networks import (
    BATCH,
    IF,
    LIF,
    MASKS,
    NETWORKS,
    NEURONS,
    STEPS,
    given,
    gradient_of,
    gradients,
    labels,
    loss_of,
    seeded,
    spide_network,
)
from ternary_networks import flat, reference_network

BACK = 50
SETTINGS = SpideSettings(time_steps_back=BACK, loss_scale=30.0)


def settings_for(notation: str) -> SpideSettings:
    """So large a scale that couples below pools fire as well: each pool takes a factor of 8 off the gradient."""
    return SpideSettings(BACK, SETTINGS.loss_scale * 8 ** notation.count("P"))


EVENTS = pytest.mark.parametrize("events", [False, True], ids=["constant", "events"])
EACH_NEURON = pytest.mark.parametrize("neuron", list(NEURONS.values()), ids=list(NEURONS))
EACH_NETWORK = pytest.mark.parametrize(("notation", "shape"), NETWORKS)


def frames_of(x: Tensor, *, events: bool) -> reference.Floats:
    return flat(x, leading=2) if events else np.repeat(flat(x)[None], STEPS, axis=0)


def loss_gradient(model: FeedbackSNN, rates: Tensor) -> Tensor:
    """dL/da of the last population."""
    at = rates.detach().requires_grad_()
    (found,) = torch.autograd.grad(loss_of(model, at), at)
    return found


@EVENTS
@EACH_NEURON
@EACH_NETWORK
def test_spikes_of_both_phases_are_those_of_the_reference(
    notation: str, shape: tuple[int, ...], neuron: FloatNeuron, events: bool
) -> None:
    """In the papers' timing and in the hardware's, at every step and population, dropout masks included."""
    settings, model = settings_for(notation), spide_network(notation, shape, neuron=neuron)
    x = given(model, events=events)
    bound = model.bind(BATCH, generator=seeded(MASKS)).detached()
    plain = reference_network(bound, BATCH)
    for loop_delay in {1, len(bound.feedforward)}:
        drive = bound.drive(x, time_steps=STEPS)
        forward = bound.simulate(drive, time_steps=STEPS, loop_delays=(loop_delay,) * len(bound.feedback), record=True)
        spikes = reference.forward_phase(plain, frames_of(x, events=events), loop_delay=loop_delay)
        for found, expected in zip(forward.spikes, spikes, strict=True):
            assert np.array_equal(flat(found, leading=2), expected)

        gradient = loss_gradient(model, forward.firing_rates[-1])
        phase = backward_phase(
            bound,
            forward.firing_rates,
            gradient,
            settings=settings,
            loop_delays=(loop_delay,) * len(bound.feedback),
            record=True,
        )
        masks = [reference.unsaturated(s) for s in spikes]
        ternary = reference.backward_phase(
            plain, masks, flat(gradient), time_steps=BACK, loss_scale=settings.loss_scale, loop_delay=loop_delay
        )
        assert {-1, 1} <= set(np.unique(ternary[-1]))
        for found, rate, mean, expected in zip(phase.spikes, phase.rates, phase.mean_spikes, ternary, strict=True):
            assert np.array_equal(flat(found, leading=2), expected)
            assert expected.any(), "nothing is compared"
            # Fifty terms below one.
            np.testing.assert_allclose(flat(rate), reference.mean_over_time(plain, expected), rtol=0, atol=1e-14)
            np.testing.assert_allclose(mean.double().flatten(), np.abs(expected).mean((0, 1)), rtol=0, atol=1e-7)


@EVENTS
@EACH_NEURON
@EACH_NETWORK
def test_gradient_is_the_local_updates_of_the_reference(
    notation: str, shape: tuple[int, ...], neuron: FloatNeuron, events: bool
) -> None:
    settings, model = settings_for(notation), spide_network(notation, shape, neuron=neuron)
    x = given(model, events=events)
    result = spide_rates(model, x, time_steps=STEPS, settings=settings, generator=seeded(MASKS))
    found = gradient_of(model, result)

    bound = model.bind(BATCH, generator=seeded(MASKS)).detached()
    plain, frames = reference_network(bound, BATCH), frames_of(x, events=events)
    spikes = reference.forward_phase(plain, frames, loop_delay=1)
    rates = [reference.mean_over_time(plain, s) for s in spikes]
    # Twelve terms below one.
    np.testing.assert_allclose(flat(result.rates), rates[-1], rtol=0, atol=1e-14)
    masks = [reference.unsaturated(s) for s in spikes]
    gradient = flat(loss_gradient(model, result.rates))
    ternary = reference.backward_phase(
        plain, masks, gradient, time_steps=BACK, loss_scale=settings.loss_scale, loop_delay=1
    )
    adjoint = [reference.mean_over_time(plain, s) / settings.loss_scale for s in ternary]
    updates = reference.local_updates(plain, masks, adjoint, rates, reference.mean_over_time(plain, frames))
    names = [f"feedforward.{i}" for i in range(len(plain.feedforward))]
    checked = 0
    for name, update in zip([*names, "feedback"], updates, strict=False):
        scale = restriction_factor(model) if name == "feedback" else 1.0
        for part, expected in (("weight", update.weight * scale), ("bias", update.bias)):
            if f"{name}.{part}" in found:
                checked += 1
                assert float(np.abs(expected).max()) > 1e-6, "nothing is compared"
                # Sums of some thousand terms.
                np.testing.assert_allclose(found[f"{name}.{part}"].flatten(), expected, rtol=1e-9, atol=1e-13)
    assert checked == len(found)


def restriction_factor(model: FeedbackSNN) -> float:
    """By what the feedback's weight is multiplied; a constant in the backward pass."""
    weight = model.feedback.weight.detach()
    assert float(weight.norm()) > 1.01 * 0.7 * model.neurons[0].reset_amount, "the restriction must matter"
    return 0.7 * model.neurons[0].reset_amount / float(weight.norm())


def test_gradient_passes_through_a_learned_restriction() -> None:
    """With the restriction of IDE: to the weight and its gain, by the restricted weight's own derivatives."""
    model = spide_network("3C3s-4C3s-3C3 (F3C3u)", (1, 8, 8), norm="reshaped")
    model.feedback.restriction.eval()  # its power iteration stands still
    result = spide_rates(model, given(model), time_steps=STEPS, settings=SETTINGS, generator=seeded(MASKS))
    found = gradient_of(model, result)
    bound = model.bind(BATCH, generator=seeded(MASKS))
    rates, phase = result.simulation.firing_rates, result.passes[0]
    updates = local_updates(bound.detached(), rates, phase, mean_inputs=(given(model),), settings=SETTINGS)
    through = gradients((bound.feedback[0].weight * updates[-1]).sum(), model)
    for name in ("feedback.weight", "feedback.restriction.gain"):
        assert float(through[name].abs().max()) > 1e-4
        assert_close(found[name], through[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leak", [0.5, 0.9, 0.95, 0.99])
def test_neurons_that_always_or_never_fire_let_nothing_through(leak: float, dtype: torch.dtype) -> None:
    """Also leaky ones, whose rate of one is a quotient of two rounded numbers."""
    neuron = FloatNeuron(1.0, 2.0, leak)
    model = spide_network("4-3 (F4)", (2,), neuron=neuron, dropout=0.0).to(dtype)
    with torch.no_grad():
        for synapse, bias in zip(model.feedforward, (9.0, 0.7), strict=True):
            synapse.bias.fill_(bias)
        model.feedforward[0].bias[2:] = -9.0
        model.feedforward[1].weight.abs_()
    for steps in (5, 9, 30, 100):
        x = torch.rand(BATCH, 2, generator=seeded(0)).to(dtype)
        result = spide_rates(model, x, time_steps=steps, settings=SETTINGS)
        assert result.simulation.mean_spikes[0].tolist() == [[1.0, 1.0, 0.0, 0.0]] * BATCH
        found = gradient_of(model, result)
        for name in ("feedforward.0.weight", "feedforward.0.bias", "feedback.weight"):
            assert not found[name].any()
        assert found["feedforward.1.bias"].any()
        assert float(result.rates.detach().max()) <= 1


def graph_of(tensor: Tensor) -> list[str]:
    seen, waiting = [], [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.append(node)
            waiting += [parent for parent, _ in node.next_functions]
    return sorted(type(node).__name__ for node in seen)


def living() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@EVENTS
@pytest.mark.parametrize(("notation", "shape"), NETWORKS[4:7])
def test_neither_phase_has_a_graph(
    monkeypatch: pytest.MonkeyPatch, notation: str, shape: tuple[int, ...], events: bool
) -> None:
    """No tensor is saved for the backward pass but the loss's and the restriction's; no gradients inside."""
    model = spide_network(notation, shape)
    runs = []

    def watched(run: Any) -> Any:
        def watching(*arguments: Any, **named: Any) -> Any:
            runs.append(run.__name__)
            assert not torch.is_grad_enabled()
            assert not any(isinstance(v, Tensor) and v.requires_grad for v in named.values())
            return run(*arguments, **named)

        return watching

    monkeypatch.setattr("fsnn_lava.network.feedback_network.event_run", watched(event_run.event_run))
    monkeypatch.setattr(spide, "couple_run", watched(couple_run.couple_run))
    saved: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = spide_rates(
            model, given(model, events=events), time_steps=STEPS, settings=SETTINGS, generator=seeded(MASKS)
        )
    leaves = sum(1 for n, _ in model.named_parameters() if not n.startswith("readout"))
    graph = graph_of(result.rates)
    assert graph.count("AccumulateGrad") == leaves
    assert [name for name in graph if name not in ("AccumulateGrad", "MulBackward0")] == ["_LocalUpdatesBackward"]
    assert len(saved) <= 2, "the restricted feedback weight is a product"
    gradient_of(model, result)
    assert runs == ["event_run", "couple_run"]
    phase = result.passes[0]
    for kept in (*result.simulation.firing_rates, *result.simulation.mean_spikes, *phase.rates, *phase.mean_spikes):
        assert kept.grad_fn is None
        assert not kept.requires_grad
    assert phase.spikes is None


def test_phase_and_updates_have_no_graph_whoever_asks() -> None:
    """Also of a network that is bound with gradients, and of a gradient that has some."""
    model = spide_network("3C3s-4C3s-3C3 (F3C3u)", (1, 8, 8))
    bound, x = model.bind(BATCH, generator=seeded(MASKS)), given(model)
    rates = bound.simulate(bound.drive(x, time_steps=STEPS), time_steps=STEPS).firing_rates
    gradient = loss_gradient(model, rates[-1]).requires_grad_()
    phase = backward_phase(bound, rates, gradient, settings=SETTINGS)
    updates = local_updates(bound, rates, phase, mean_inputs=(x.requires_grad_(),), settings=SETTINGS)
    assert len(updates) == 7
    assert not any(tensor.requires_grad for tensor in (*rates, *phase.rates, *phase.mean_spikes, *updates))


@pytest.fixture
def _aside() -> Iterator[None]:
    """Lays aside what earlier tests left, which would have to be looked through each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@EVENTS
@pytest.mark.usefixtures("_aside")
def test_what_is_kept_does_not_grow_with_the_steps_of_either_phase(events: bool) -> None:
    model = spide_network("3C3s-4C3s-3C3 (F3C3u)", (1, 8, 8))

    def kept(steps: int, back: int) -> tuple[int, int, int]:
        x = given(model, events=events, steps=steps)
        before = living()
        result = spide_rates(model, x, time_steps=steps, settings=SpideSettings(back, 10.0), generator=seeded(MASKS))
        forward = living()
        rates = [*result.simulation.firing_rates, *result.simulation.mean_spikes]
        loss_of(model, result.rates).backward()
        model.zero_grad()
        phase = result.passes[0]
        numbers = sum(t.numel() for t in (*rates, *phase.rates, *phase.mean_spikes))
        return forward - before, living() - before, numbers

    assert kept(5, 10) == kept(60, 400)


@pytest.mark.parametrize(("notation", "shape"), NETWORKS[3:7])
def test_threads_change_no_gradient(monkeypatch: pytest.MonkeyPatch, notation: str, shape: tuple[int, ...]) -> None:
    model = spide_network(notation, shape, neuron=LIF)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        result = spide_rates(model, given(model), time_steps=STEPS, settings=SETTINGS, generator=seeded(MASKS))
        found.append((gradient_of(model, result), result.passes[0]))
        monkeypatch.undo()
    for name, gradient in found[0][0].items():
        assert torch.equal(gradient, found[1][0][name])
    for one, other in zip(found[0][1].mean_spikes, found[1][1].mean_spikes, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("parts", [[slice(0, 4), slice(4, 8)], [slice(0, 3), slice(3, 8)]], ids=["equal", "unequal"])
@pytest.mark.parametrize(("notation", "shape"), [NETWORKS[4], NETWORKS[6]])
def test_two_processes_have_the_gradient_of_one(notation: str, shape: tuple[int, ...], parts: list[slice]) -> None:
    """Each is given its rows, weighs its loss as training does, and the mean of both gradients is that of one."""
    model, batch = spide_network(notation, shape, neuron=LIF), 8
    x, wanted = given(model, batch=batch), labels(batch)
    alone = spide_rates(model, x, time_steps=STEPS, settings=SETTINGS, generator=shared(slice(0, batch), batch))
    expected = gradient_of(model, alone)
    settings = SpideSettings(BACK, SETTINGS.loss_scale, processes=2)
    means = {name: torch.zeros_like(gradient) for name, gradient in expected.items()}
    for rows in parts:
        result = spide_rates(model, x[rows], time_steps=STEPS, settings=settings, generator=shared(rows, batch))
        loss = torch.nn.functional.cross_entropy(model.classify(result.rates), wanted[rows])
        for name, gradient in gradients(loss * (len(x[rows]) * 2 / batch), model).items():
            means[name] += gradient / 2
        for own, whole in zip(result.passes[0].rates, alone.passes[0].rates, strict=True):
            assert torch.equal(own, whole[rows]), "the couples of a part see what they see in the whole batch"
    for name, gradient in expected.items():
        # Sums of some thousand terms in another order.
        assert_close(means[name], gradient, rtol=1e-10, atol=1e-15)


def shared(rows: slice, total: int) -> torch.Generator:
    return shared_generator(torch.device("cpu"), seed=MASKS, rows=rows, total=total)


def test_each_backward_pass_is_told() -> None:
    model = spide_network("9 (F9)", (1, 3, 3))
    result = spide_rates(model, given(model), time_steps=STEPS, settings=SETTINGS, generator=seeded(MASKS))
    assert result.passes == []
    loss = loss_of(model, result.rates)
    loss.backward(retain_graph=True)
    loss.backward()
    one, other = result.passes
    assert torch.equal(one.rates[0], other.rates[0])


@EACH_NEURON
@pytest.mark.parametrize(("notation", "shape"), NETWORKS[1:8])
def test_dense_products_give_the_same_gradient(
    monkeypatch: pytest.MonkeyPatch, notation: str, shape: tuple[int, ...], neuron: FloatNeuron
) -> None:
    """Those that a GPU takes, here on a CPU."""
    model = spide_network(notation, shape, neuron=neuron)
    found = []
    for run in (couple_run.couple_run, dense_couples):
        monkeypatch.setattr(spide, "couple_run", run)
        result = spide_rates(model, given(model), time_steps=STEPS, settings=SETTINGS, generator=seeded(MASKS))
        found.append((gradient_of(model, result), result.passes[0]))
    for one, other in zip(found[0][1].mean_spikes, found[1][1].mean_spikes, strict=True):
        assert torch.equal(one, other)
    for name, gradient in found[0][0].items():
        # Sums of some thousand terms in another order.
        assert_close(found[1][0][name], gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.gpu
@EACH_NEURON
@EACH_NETWORK
def test_gradient_on_a_gpu_is_that_of_a_cpu(notation: str, shape: tuple[int, ...], neuron: FloatNeuron) -> None:
    """In float64, without dropout, whose masks a GPU draws differently: no spike of either phase differs."""
    model = spide_network(notation, shape, neuron=neuron, dropout=0.0)
    x = given(model)
    result = spide_rates(model, x, time_steps=STEPS, settings=SETTINGS)
    expected = gradient_of(model, result)
    device = torch.device("cuda")
    place(model, device)
    with prepared(device):
        there = spide_rates(model, x.to(device), time_steps=STEPS, settings=SETTINGS)
        loss = torch.nn.functional.cross_entropy(model.classify(there.rates), labels().to(device))
        found = gradients(loss, model)
    for one, other in zip(there.simulation.mean_spikes, result.simulation.mean_spikes, strict=True):
        assert torch.equal(one.cpu(), other)
    for one, other in zip(there.passes[0].mean_spikes, result.passes[0].mean_spikes, strict=True):
        assert torch.equal(one.cpu(), other)
    for name, gradient in expected.items():
        # Sums of some thousand terms in another order.
        assert_close(found[name].cpu(), gradient, rtol=1e-9, atol=1e-13)


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
        settings, delays = SpideSettings(time_steps, self.loss_scale), (loop_delay,) * len(self.bound.feedback)
        return backward_phase(self.bound, self.rates, self.gradient, settings=settings, loop_delays=delays)

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
        return local_updates(self.bound, self.rates, phase, mean_inputs=(mean_input,), settings=settings)


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
    for synapse, update in zip(case.bound.synapses, updates, strict=False):
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
    settled = bound.equilibrium(drive.mean, start=start, tolerance=1e-15, max_steps=2000).value
    with torch.no_grad():
        around = bound.rates_around(bound.split(settled), drive.mean)
    assert_close(around[-1], settled, rtol=0, atol=1e-12)
    rates = with_implicit_gradient(bound, drive, (*around[:-1], settled), settings=EXACT, found=[])
    implicit = gradients(loss_of(model, rates), model)

    case = Case(model, bound, (*around[:-1], settled))
    errors = []
    for steps in (100, long_phase(notation)):
        again = model.bind(BATCH, generator=seeded(MASKS))  # with gradients from restricted weights to weights
        synapses = again.synapses
        learned = [t for s in synapses if s.synapse.layer.kind != "pool" for t in (s.weight, s.bias) if t is not None]
        updates = case.updates(steps, x)
        through = gradients(sum((p * u).sum() for p, u in zip(learned, updates, strict=True)), model)
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


DEFAULTS = SpideSettings()


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_scale_of_the_loss_is_positive_and_finite(value: float) -> None:
    with pytest.raises(ConfigError, match=rf"loss_scale: found {value}; allowed: a finite number > 0"):
        SpideSettings(loss_scale=value)
    with pytest.raises(ConfigError, match=r"training\.loss_scale: found .*; allowed: a finite number > 0"):
        config_from_dict({"training": {"loss_scale": value}})


@pytest.mark.parametrize("value", [0, -3])
def test_second_phase_has_a_step(value: int) -> None:
    with pytest.raises(ConfigError, match=rf"time_steps_back: found {value}; allowed: at least 1"):
        SpideSettings(time_steps_back=value)
    with pytest.raises(ConfigError, match=rf"training\.time_steps_back: found {value}; allowed: at least 1"):
        config_from_dict({"training": {"time_steps_back": value}})


def test_there_is_a_process() -> None:
    with pytest.raises(ConfigError, match=r"processes: found 0; allowed: at least 1"):
        SpideSettings(processes=0)


@pytest.mark.parametrize("name", ["time_steps_back", "processes"])
@pytest.mark.parametrize("value", [1.5, 2.0, "1", True, None])
def test_counts_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: found {value!r}; allowed: at least 1, a whole number"):
        SpideSettings(**{name: value})


@pytest.mark.parametrize("value", ["1", True, None])
def test_scale_of_the_loss_is_a_number(value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^loss_scale: found {value!r}; allowed: a finite number > 0"):
        SpideSettings(loss_scale=value)


def configured_spide(network: dict[str, object]) -> None:
    config_from_dict({"network": network, "training": {"method": "spide"}})


def test_configuration_with_batch_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network\.batch_norm: found True; allowed: false with training\.method"):
        configured_spide({"notation": "20 (F20)"})


def test_configuration_whose_pool_is_no_population_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network\.pooling: found 'merged'; allowed: \"spiking\" with .* a pool"):
        configured_spide({"notation": "4C3-P2-20", "batch_norm": False})
    configured_spide({"notation": "4C3-P2-20", "batch_norm": False, "pooling": "spiking"})
    configured_spide({"notation": "4C3-20", "batch_norm": False})


@pytest.mark.parametrize("way", ["spide_rates", "rates_with_gradient"])
@pytest.mark.parametrize(
    ("notation", "batch_norm", "message"),
    [
        (
            "3-4",
            True,
            r"SPIDE: the connection into population 1 has batch norm, .* allowed: network\.batch_norm = false",
        ),
        (
            "3C3-4C3-P2-5",
            False,
            r"SPIDE: the pool P2 is merged into the connection into population 2; allowed: .*network\.pooling",
        ),
    ],
)
def test_model_that_spikes_cannot_run_through_backwards_is_refused(
    notation: str, batch_norm: bool, message: str, way: str
) -> None:
    model = FeedbackSNN(NetworkConfig(notation, batch_norm=batch_norm, dropout=0.0), (1, 4, 4))
    x = torch.rand(2, 1, 4, 4)
    training = TrainingConfig(method="spide")
    asked = {
        "spide_rates": lambda: spide_rates(model, x, time_steps=3, settings=DEFAULTS),
        "rates_with_gradient": lambda: rates_with_gradient(model, x, training=training, time_steps=3),
    }
    with pytest.raises(ConfigError, match=message):
        asked[way]()


def test_settings_of_a_configuration_reach_the_second_phase() -> None:
    """Twice the steps and twice the scale, as the counts show: a fixed drive makes more spikes of either."""
    model = FeedbackSNN(NetworkConfig("6", batch_norm=False, dropout=0.0), (4,)).double()
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def told(back: int, scale: float, processes: int = 1) -> torch.Tensor:
        training = TrainingConfig(method="spide", time_steps_back=back, loss_scale=scale)
        result = rates_with_gradient(model, x, training=training, time_steps=4, processes=processes)
        result.rates.backward(torch.full_like(result.rates, 0.01))
        return result.passes[0].rates[0]

    # A drive of 0.3: a spike every three steps and a third, the first at the second; 3 in 10 steps, 6 in 20.
    assert torch.equal(told(10, 30.0), torch.full((5, 6), 0.3, dtype=torch.float64))
    assert torch.equal(told(20, 30.0), torch.full((5, 6), 0.3, dtype=torch.float64))
    assert torch.equal(told(5, 60.0), torch.full((5, 6), 0.6, dtype=torch.float64))
    assert torch.equal(told(10, 60.0, processes=2), torch.full((5, 6), 0.3, dtype=torch.float64))
