"""Both phases and the local updates against a plain restatement: every spike, every gradient (float64, all layers)."""

import gc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import spiking_adjoint_reference as reference
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network import run_by_events as event_run
from fsnn_lava.network.devices import place, prepared
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.network.shared_random import shared_generator
from fsnn_lava.training.gradients import spide, spide_by_events as couple_run
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, local_updates, spide_rates
from fsnn_lava.training.gradients.spide_dense import dense_couples
from spide_networks import (
    BATCH,
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


# ---- every spike, every update -----------------------------------------------------------------------------------
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
        forward = bound.simulate(drive, time_steps=STEPS, loop_delay=loop_delay, record=True)
        spikes = reference.forward_phase(plain, frames_of(x, events=events), loop_delay=loop_delay)
        assert forward.spikes is not None
        for found, expected in zip(forward.spikes, spikes, strict=True):
            assert np.array_equal(flat(found, leading=2), expected)

        gradient = loss_gradient(model, forward.firing_rates[-1])
        phase = backward_phase(
            bound, forward.firing_rates, gradient, settings=settings, loop_delay=loop_delay, record=True
        )
        masks = [reference.unsaturated(s) for s in spikes]
        ternary = reference.backward_phase(
            plain, masks, flat(gradient), time_steps=BACK, loss_scale=settings.loss_scale, loop_delay=loop_delay
        )
        assert phase.spikes is not None
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
    assert model.feedback is not None
    weight = model.feedback.weight.detach()
    assert float(weight.norm()) > 1.01 * 0.7 * model.neuron.reset_amount, "the restriction must matter"
    return 0.7 * model.neuron.reset_amount / float(weight.norm())


def test_gradient_passes_through_a_learned_restriction() -> None:
    """With the restriction of IDE: to the weight and its gain, by the restricted weight's own derivatives."""
    model = spide_network("3C3s-4C3s-3C3 (F3C3u)", (1, 8, 8), norm="reshaped")
    assert model.feedback is not None
    assert model.feedback.restriction is not None
    model.feedback.restriction.eval()  # its power iteration stands still
    result = spide_rates(model, given(model), time_steps=STEPS, settings=SETTINGS, generator=seeded(MASKS))
    found = gradient_of(model, result)
    bound = model.bind(BATCH, generator=seeded(MASKS))
    rates, phase = result.simulation.firing_rates, result.passes[0]
    updates = local_updates(bound.detached(), rates, phase, mean_input=given(model), settings=SETTINGS)
    assert bound.feedback is not None
    through = gradients((bound.feedback.weight * updates[-1]).sum(), model)
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
            synapse.bias.fill_(bias)  # type: ignore[operator, union-attr]
        model.feedforward[0].bias[2:] = -9.0  # type: ignore[index]
        model.feedforward[1].weight.abs_()  # type: ignore[operator, union-attr]
    for steps in (5, 9, 30, 100):
        x = torch.rand(BATCH, 2, generator=seeded(0)).to(dtype)
        result = spide_rates(model, x, time_steps=steps, settings=SETTINGS)
        assert result.simulation.mean_spikes[0].tolist() == [[1.0, 1.0, 0.0, 0.0]] * BATCH
        found = gradient_of(model, result)
        for name in ("feedforward.0.weight", "feedforward.0.bias", "feedback.weight"):
            assert not found[name].any()
        assert found["feedforward.1.bias"].any()
        assert float(result.rates.detach().max()) <= 1


# ---- nothing is kept ---------------------------------------------------------------------------------------------
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
    updates = local_updates(bound, rates, phase, mean_input=x.requires_grad_(), settings=SETTINGS)
    assert len(updates) == 7
    assert not any(tensor.requires_grad for tensor in (*rates, *phase.rates, *phase.mean_spikes, *updates))


@EVENTS
def test_what_is_kept_does_not_grow_with_the_steps_of_either_phase(events: bool) -> None:
    model = spide_network("3C3s-4C3s-3C3 (F3C3u)", (1, 8, 8))

    def kept(steps: int, back: int) -> tuple[int, int, int]:
        x = given(model, events=events, steps=steps)
        before = living()
        result = spide_rates(model, x, time_steps=steps, settings=SpideSettings(back, 10.0), generator=seeded(MASKS))
        forward = living()
        rates = [*result.simulation.firing_rates, *result.simulation.mean_spikes]
        loss_of(model, result.rates).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()
        phase = result.passes[0]
        numbers = sum(t.numel() for t in (*rates, *phase.rates, *phase.mean_spikes))
        return forward - before, living() - before, numbers

    assert kept(5, 10) == kept(60, 400)


# ---- threads, parts of a batch, processes ------------------------------------------------------------------------
@pytest.mark.parametrize(("notation", "shape"), NETWORKS[3:7])
def test_threads_do_not_change_the_gradient(
    monkeypatch: pytest.MonkeyPatch, notation: str, shape: tuple[int, ...]
) -> None:
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
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    loss.backward()  # type: ignore[no-untyped-call]
    one, other = result.passes
    assert torch.equal(one.rates[0], other.rates[0])


# ---- dense products ----------------------------------------------------------------------------------------------
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
