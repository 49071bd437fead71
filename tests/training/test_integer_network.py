"""A network that is trained in integers: what it starts from, what runs, what its gradient is, what is proven."""

import copy
import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.config import DeployConfig, TrainConfig, TrainingConfig, WeightBits
from fsnn_lava.errors import ConfigError, PotentialBoundError
from fsnn_lava.hardware import (
    INPUT,
    STATE_LIMIT,
    Array,
    HardwareNetwork,
    constant_current,
    linear_map,
    potential_bounds,
    prove,
    rate_weights,
)
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.network.layers import BoundSynapse
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.training.checkpoint import TrainedNetwork, new_model
from fsnn_lava.training.gradients.measured_rates import ImplicitRates, rates_with_gradient
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, local_updates
from fsnn_lava.training.integers.measured_run import MeasuredRunner
from fsnn_lava.training.integers.network import HEADROOM, IntegerSNN, codes_of
from integer_networks import (
    EVENTS,
    GRADED,
    STEPS,
    Started,
    assert_same_integers,
    by_name,
    started,
    train_a_little,
)
from random_networks import reference_spikes

SPIKING: dict[str, Any] = {"batch_norm": False, "pooling": "spiking"}
NETWORKS = [
    pytest.param("20 (F20)", {}, id="dense"),
    pytest.param("12-10-8 (F12)", {}, id="three dense"),
    pytest.param("12-10", {}, id="no feedback"),
    pytest.param("4C3s-P2 (F4C3)", {}, id="pool in its kernel"),
    pytest.param("3C3-4C3s (F3C3u)", {}, id="transposed feedback"),
    pytest.param("3C3s-4C3u-3C3s (F3C3)", {"batch_norm": False}, id="transposed forward"),
    pytest.param("3C3-P2-4C3 (F3C3u)", SPIKING, id="pool that spikes"),
]
ROUNDED = [
    *(pytest.param(*case.values, 8, False, id=f"{case.id}, 8 bits") for case in NETWORKS),
    *(pytest.param(*NETWORKS[i].values, 4, False, id=f"{NETWORKS[i].id}, 4 bits") for i in (1, 4, 6)),
    *(pytest.param(*NETWORKS[i].values, 2, True, id=f"{NETWORKS[i].id}, ternary") for i in (0, 3)),
]


# ---- what it starts from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("notation", "settings"), NETWORKS)
def test_starts_with_the_integers_of_an_export(notation: str, settings: dict[str, Any]) -> None:
    """An export's with scales for which no row of weights needs to be made smaller."""
    case = started(notation, **settings)
    config = DeployConfig(currents="whole")  # in training they have no pulses
    expected, _ = quantize(case.floating, case.calibration, config=config, keep_lost=True, room=case.model.shares_of)
    prove(expected)
    assert max(case.model.shares_of(expected).values()) <= 1
    assert_same_integers(case.model.integer_network(), expected)


@pytest.mark.parametrize(("notation", "settings", "bits", "symmetric"), ROUNDED)
def test_rounding_with_compensation_is_kept(
    monkeypatch: pytest.MonkeyPatch, notation: str, settings: dict[str, Any], bits: WeightBits, symmetric: bool
) -> None:
    """The integers of an export, borders included, where no row is made smaller; and not those of the nearest."""
    case = started(notation, bits=bits, symmetric=symmetric, **settings)
    config = DeployConfig(weight_bits=bits, symmetric=symmetric, currents="whole")
    room = case.model.shares_of
    expected, _ = quantize(case.floating, case.calibration, config=config, keep_lost=True, room=room)
    monkeypatch.setattr("fsnn_lava.training.integers.network.HEADROOM", np.inf)
    case.model.refresh()
    assert case.model.started
    assert_same_integers(case.model.integer_network(), expected)
    nearest = copy.deepcopy(case.model)
    for name, buffer in nearest.named_buffers():
        if name.endswith("_offset"):
            buffer.zero_()
    nearest.refresh()
    weights = by_name(nearest.integer_network())
    assert any(not np.array_equal(c.weight, weights[c.name].weight) for c in expected.connections if c.name in weights)


@pytest.mark.parametrize(("notation", "settings", "bits", "symmetric"), [ROUNDED[i] for i in (1, 3, 4, 5, 6, 8, 10)])
def test_dequantized_is_quantized_to_the_same_integers(
    notation: str, settings: dict[str, Any], bits: WeightBits, symmetric: bool
) -> None:
    """With whatever calibration, and after steps of training, which need not have started from these integers."""
    case = started(notation, bits=bits, symmetric=symmetric, **settings)
    begun = case.model.integer_network()
    train_a_little(case.model)
    case.model.refresh()
    trained = case.model.integer_network()
    assert any(not np.array_equal(c.weight, by_name(begun)[c.name].weight) for c in trained.connections)
    again, _ = quantize(case.model.dequantized(), case.calibration[:3], keep_lost=True)
    assert_same_integers(again, trained)


@pytest.mark.parametrize("notation", ["12-10-8 (F12)", "4C3s-P2 (F4C3)"])
def test_the_map_in_training_is_that_of_the_lowered_network(notation: str) -> None:
    """Currents of both, on codes and on normalised inputs, borders included, after a step of training."""
    case = started(notation, bits=4, double=True)
    train_a_little(case.model)
    x, codes = case.inputs()
    assert np.array_equal(codes_of(x, case.data.coding), codes)
    for training in (True, False):
        case.model.train(training)
        bound = case.model.bind(len(x))
        case.model.refresh()
        network = case.model.dequantized()
        first = torch.from_numpy(constant_current(network, network.populations[0], codes))
        found = bound.drive(x, time_steps=STEPS).mean[0].flatten(1)
        # Sums of some dozen terms in another order.
        torch.testing.assert_close(found, first, rtol=1e-12, atol=1e-12)
        (back,) = bound.feedback
        for synapse, name in [*zip(bound.feedforward[1:], forward_names(network)[1:], strict=True), (back, "feedback")]:
            rates = torch.rand(len(x), *synapse.synapse.input_shape, dtype=torch.float64)
            product = linear_map(network, by_name(network)[name]).product(rates.flatten(1).numpy())
            constant = by_name(network).get(f"{by_name(network)[name].target}_current")
            if constant is not None and name != "feedback":
                product = product + constant.weight[:, 0]
            found = synapse.current(rates).flatten(1)
            torch.testing.assert_close(found, torch.from_numpy(product), rtol=1e-12, atol=1e-12)


def forward_names(network: HardwareNetwork) -> list[str]:
    """Connections from population to population or from the input, in their order."""
    return [c.name for c in network.connections if c.source != "always_on" and c.name != "feedback"]


def test_a_loaded_network_has_the_integers_that_its_checkpoint_holds() -> None:
    """Not those that its shadows round to here: on another machine sums of floats differ in their last bits."""
    case = started("20 (F20)")
    weights = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    weights["integers.feedback_mantissa"][3, 4] += 1
    loaded = TrainedNetwork(case.config, (1, 8, 8), tuple("0123456789"), GRADED, weights).model()
    assert isinstance(loaded, IntegerSNN)
    feedback = by_name(loaded.integer_network())["feedback"].weight
    assert np.array_equal(feedback, weights["integers.feedback_mantissa"].numpy())


def test_networks_of_integers_have_the_name_of_the_training() -> None:
    case = started("12-10-8 (F12)")
    assert case.config.name == "random"
    assert case.model.integer_network().name == case.model.dequantized().name == "random"


def test_a_network_in_integers_needs_a_coding() -> None:
    config = TrainConfig(training=TrainingConfig(arithmetic="integer"))
    with pytest.raises(ConfigError, match=r"a network in integers: found no coding of its input; give coding="):
        new_model(config, (1, 8, 8), 10)


# ---- what runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coding", "leak"),
    [(GRADED, 1.0), (GRADED, 0.9), (EVENTS, 0.9)],
    ids=["graded, IF", "graded, LIF", "events, LIF"],
)
@pytest.mark.parametrize(("notation", "settings"), [NETWORKS[i] for i in (1, 3, 4, 6)])
def test_spikes_are_those_of_the_simulator(notation: str, settings: dict[str, Any], leak: float, coding: Any) -> None:
    """In evaluation, and in training before anything was kept; and what came back is what those spikes say."""
    case = started(notation, leak=leak, coding=coding, v_threshold=1.0, **settings)
    train_a_little(case.model)
    x, codes = case.inputs()
    for training in (True, False):
        case.model.train(training)
        bound = case.model.bind_to(x)
        run = bound.detached().simulate(bound.drive(x, time_steps=STEPS), time_steps=STEPS, record=True)
        case.model.refresh()
        network = case.model.integer_network()
        names = [p.name for p in network.populations]
        simulated = IntegerSimulator().run(network, codes, record=names)
        assert run.spikes is not None
        for name, spikes, rates, mean in zip(names, run.spikes, run.firing_rates, run.mean_spikes, strict=True):
            assert 0.01 < spikes.double().mean() < 0.99, name
            assert np.array_equal(spikes.numpy(), simulated.spikes[name])
            # Float32 of the rates that the simulator has in float64.
            assert np.allclose(rates.numpy(), simulated.firing_rates[name], rtol=1e-6, atol=0)
            assert np.allclose(mean.numpy(), spikes.numpy().mean(axis=0), rtol=1e-6, atol=0)
        neuron = network.populations[-1].neuron
        shares = rate_weights(STEPS, neuron.leak)[max(case.model.loop_delays) :]
        arrived = run.spikes[-1].numpy()[: STEPS - max(case.model.loop_delays)]
        assert case.model.loop_delays == (len(names),)
        assert arrived.any()
        assert np.allclose(run.returned[0].numpy(), np.tensordot(shares, arrived, 1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("coding", "leak"), [(GRADED, 1.0), (EVENTS, 0.9)], ids=["graded, IF", "events, LIF"])
@pytest.mark.parametrize("notation", ["12-10-8 (F12)", "2C3-3C3s (F2C3u)"])
def test_spikes_are_those_of_the_plain_reference(notation: str, coding: Any, leak: float) -> None:
    case = started(notation, leak=leak, coding=coding, v_threshold=1.0)
    train_a_little(case.model)
    case.model.train()
    x, codes = case.inputs(2)
    bound = case.model.bind_to(x)
    run = bound.detached().simulate(bound.drive(x, time_steps=STEPS), time_steps=STEPS, record=True)
    case.model.refresh()
    expected = reference_spikes(case.model.integer_network(), codes)
    assert run.spikes is not None
    for spikes, name in zip(run.spikes, expected, strict=True):
        assert spikes.any()
        assert np.array_equal(spikes.numpy(), expected[name])


@pytest.mark.parametrize("notation", ["40-30-20 (F40)", "8C3s-P2 (F8C3)", "8C3-9C3s (F8C3u)"])
def test_weights_of_spikes_with_an_exponent_below_0_run_and_are_exported_as_they_were_trained(notation: str) -> None:
    """A window so long that its scale is small: each sum of spikes is rounded down, as the plain reference does it."""
    case = started(notation, v_threshold=1.0, steps=1000)
    train_a_little(case.model)
    x, codes = case.inputs(3)
    bound = case.model.train().bind_to(x)
    run = bound.detached().simulate(bound.drive(x, time_steps=STEPS), time_steps=STEPS, record=True)
    case.model.refresh()
    network = case.model.integer_network()
    assert min(c.weight_exponent for c in network.connections if c.source != INPUT) <= -5
    prove(network)
    expected = reference_spikes(replace(network, time_steps=STEPS), codes)
    assert run.spikes is not None
    for spikes, name in zip(run.spikes, expected, strict=True):
        assert spikes.any()
        assert np.array_equal(spikes.numpy(), expected[name])
    again, _ = quantize(case.model.dequantized(), case.calibration[:3], keep_lost=True)
    assert_same_integers(again, network)
    with pytest.raises(ConfigError, match="found exponents input for a network that was trained in integers; allowed"):
        quantize(case.model.dequantized(), case.calibration[:3], config=DeployConfig(exponents="input"))


def test_exponents_of_the_input_alone_are_trained_with_none_below_0_of_spikes() -> None:
    case = started("40-30-20 (F40)", v_threshold=1.0, steps=1000, exponents="input")
    exponents = {c.source: c.weight_exponent for c in case.model.integer_network().connections}
    assert exponents.pop(INPUT) < 0 == min(exponents.values())
    config = DeployConfig(exponents="input")
    again, _ = quantize(case.model.dequantized(), case.calibration[:3], config=config, keep_lost=True)
    assert_same_integers(again, case.model.integer_network())


def test_another_number_of_steps_runs_so_long() -> None:
    case = started("12-10-8 (F12)", v_threshold=1.0)
    x, codes = case.inputs()
    bound = case.model.eval().bind_to(x)
    for steps in (4, STEPS):
        run = bound.simulate(bound.drive(x, time_steps=steps), time_steps=steps)
        network = replace(case.model.integer_network(), time_steps=steps)
        counts = IntegerSimulator().run(network, codes).spike_counts
        assert counts["population3"].any()
        for mean, name in zip(run.mean_spikes, counts, strict=True):
            assert np.array_equal((mean * steps).round().numpy(), counts[name])


def test_nothing_is_dropped_and_no_batch_is_normalised_by_its_own() -> None:
    """A network of dropout and batch norm runs in training as in evaluation, and its statistics stay."""
    case = started("12-10-8 (F12)", v_threshold=1.0)
    assert case.config.network.dropout == 0.5
    before = {name: buffer.clone() for name, buffer in case.model.named_buffers() if "running" in name}
    x, _ = case.inputs()
    found = []
    for training in (False, True):
        case.model.train(training)
        settings = TrainingConfig(adjoint_max_steps=3)
        found.append(rates_with_gradient(case.model, x, training=settings, time_steps=STEPS).rates)
    assert found[0].any()
    assert torch.equal(found[0].float(), found[1])
    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in case.model.named_buffers() if name in before)


# ---- what its gradient is --------------------------------------------------------------------------------------------

EXACT = TrainingConfig(arithmetic="integer", adjoint_tolerance=1e-13, adjoint_max_steps=500)
LABELS = torch.tensor([0, 1, 2, 3, 4, 5])


def still(model: IntegerSNN) -> IntegerSNN:
    """The network in training mode, but for its power iteration."""
    model.train()
    assert model.feedback is not None
    if model.feedback.restriction is not None:
        model.feedback.restriction.eval()
    return model


def gradients_of(model: IntegerSNN, implicit: ImplicitRates) -> dict[str, Tensor]:
    loss = functional.cross_entropy(model.classify(implicit.rates), LABELS)
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    pairs = zip(model.named_parameters(), found, strict=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs}


def float_twin(case: Started, model: FeedbackSNN) -> FeedbackSNN:
    """A plain network in floats with the shadows as weights, in evaluation mode."""
    weights = {n: t for n, t in model.state_dict().items() if not n.startswith("integers.")}
    return replace(case.floats, weights=weights).model().double()


def learned(synapse: BoundSynapse, x: Tensor) -> Tensor:
    """Zero, whose gradient to the parameters is that of the current which x makes in floats."""
    current = synapse.current(x.detach()).flatten(1)
    return current - current.detach()


def expected_gradients(case: Started, x: Tensor, codes: Array, measured: Tensor) -> dict[str, Tensor]:
    """Of the dequantized map at the measured rates, J being a dense matrix, straight through to the shadows."""
    twin, network = float_twin(case, case.model), case.model.dequantized()
    bound, r = twin.bind(len(measured)), network.populations[0].neuron.reset_amount
    matrices = {
        c.name: torch.from_numpy(linear_map(network, c).unrolled().toarray())
        for c in network.connections
        if c.source not in ("input", "always_on")
    }
    constants = [torch.from_numpy(constant_current(network, p, codes)) for p in network.populations]
    shapes = [p.shape for p in network.populations]
    mean = x
    if case.data.coding.kind == "event":
        shares = torch.from_numpy(rate_weights(STEPS, network.populations[0].neuron.leak))
        mean = torch.tensordot(shares, x, 1)
    (back,) = bound.feedback
    a = measured.detach().flatten(1)
    current = constants[0] + a @ matrices["feedback"].t()
    current = current + learned(back, measured) + learned(bound.feedforward[0], mean)
    rates = [(current / r).clamp(0, 1)]
    forward = [matrices[name] for name in forward_names(network)[1:]]
    for matrix, constant, synapse, shape in zip(
        forward, constants[1:], bound.feedforward[1:], shapes[:-1], strict=True
    ):
        current = rates[-1] @ matrix.t() + constant + learned(synapse, rates[-1].view(-1, *shape))
        rates.append((current / r).clamp(0, 1))
    inside = [((rate > 0) & (rate < 1)).double() / r for rate in rates]
    assert float((inside[-1] > 0).double().mean()) > 0.2, "the case must have unsaturated rates"
    at = measured.detach().requires_grad_()
    loss = functional.cross_entropy(twin.classify(at), LABELS)
    to_rates = torch.autograd.grad(loss, at)[0].flatten(1)
    adjoint = []
    for row, gradient in enumerate(to_rates):
        jacobian = inside[0][row][:, None] * matrices["feedback"]
        for matrix, slope in zip(forward, inside[1:], strict=True):
            jacobian = slope[row][:, None] * matrix @ jacobian
        unit = torch.eye(len(jacobian), dtype=torch.float64)
        adjoint.append(torch.linalg.solve(unit - jacobian.t(), gradient))
    g = torch.stack(adjoint)
    assert float((g - to_rates).norm() / g.norm()) > 0.01, "the feedback must matter"
    value = (rates[-1] * g).sum() + functional.cross_entropy(twin.classify(measured.detach()), LABELS)
    found = torch.autograd.grad(value, list(twin.parameters()), allow_unused=True)
    pairs = zip(twin.named_parameters(), found, strict=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs}


def error_of(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


GRADIENT = [
    pytest.param("12 (F12)", {}, id="dense"),
    pytest.param("12-10-8 (F12)", {}, id="three dense"),
    pytest.param("12-10-8 (F12)", {"bits": 2, "symmetric": True}, id="three dense, ternary"),
    pytest.param("12-10 (F12)", {"coding": EVENTS, "leak": 0.9}, id="events, LIF"),
    pytest.param("4C3s-P2 (F4C3)", {}, id="pool in its kernel"),
    pytest.param("3C3-4C3s (F3C3u)", {"bits": 4}, id="transposed feedback"),
    pytest.param("3C3-P2-4C3 (F3C3u)", {**SPIKING, "leak": 0.9}, id="pool that spikes, LIF"),
]


@pytest.mark.parametrize(("notation", "settings"), GRADIENT)
def test_gradient_is_that_of_the_dequantized_map_at_the_measured_rates(notation: str, settings: dict[str, Any]) -> None:
    case = started(notation, double=True, network={"spectral_norm_bound": 3.0}, **settings)
    x, codes = case.inputs()
    model = still(case.model)
    result = rates_with_gradient(model, x, training=EXACT, time_steps=STEPS)
    assert result.passes == []
    found = gradients_of(model, result)
    assert result.passes[0].converged
    assert 0.02 < float(result.rates.mean()) < 0.98
    expected = expected_gradients(case, x, codes, result.rates.detach())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        if gradient.norm() < 1e-12:  # a bias before nothing, or what the norm's restriction leaves without a part
            assert found[name].norm() < 1e-10, name
            continue
        assert error_of(found[name], gradient) < 1e-5, name
    assert sum(float(gradient.norm()) > 1e-4 for gradient in expected.values()) >= 2 * len(model.feedforward) + 1


def test_gradient_in_bfloat16_is_within_a_percent_and_the_rates_are_the_same() -> None:
    case = started("3C3-4C3s (F3C3u)", double=True, network={"spectral_norm_bound": 3.0})
    x, _ = case.inputs()
    model = still(case.model)
    results = [
        rates_with_gradient(
            model,
            x,
            training=replace(EXACT, precision=precision, adjoint_tolerance=1e-6, adjoint_max_steps=100),
            time_steps=STEPS,
        )
        for precision in ("float32", "bf16")
    ]
    assert torch.equal(results[0].rates, results[1].rates)
    exact, rounded = (gradients_of(model, result) for result in results)
    errors = [error_of(rounded[n], exact[n]) for n in exact if float(exact[n].norm()) > 1e-4]
    assert 1e-6 < max(errors) < 1e-2


def test_gradient_of_spide_is_that_of_its_rule_with_the_dequantized_weights() -> None:
    """In a plain network that has these weights, at the rates that the integers gave: the same couples fire."""
    kept: dict[str, Any] = {"spectral_norm": "frobenius", "spectral_norm_bound": 1e6}
    training = TrainingConfig(arithmetic="integer", method="spide", time_steps_back=50, loss_scale=20.0)
    case = started("3C3-P2-4C3 (F3C3u)", double=True, bits=4, network=kept, **SPIKING)
    x, _ = case.inputs()
    model = still(case.model)
    result = rates_with_gradient(model, x, training=training, time_steps=STEPS)
    found = gradients_of(model, result)

    plain = new_model(replace(case.config, training=TrainingConfig(timing="hardware")), (1, 8, 8), 10).double()
    plain.load_state_dict({n: t for n, t in model.state_dict().items() if not n.startswith("integers.")})
    network, std = model.dequantized(), GRADED.std[0] / GRADED.scale
    with torch.no_grad():
        for synapse, name in zip(plain.feedforward, forward_names(network), strict=True):
            weight = by_name(network)[name].weight * (std if name.startswith("input") else 1.0)
            synapse.weight.copy_(torch.from_numpy(weight))
        assert plain.feedback is not None
        plain.feedback.weight.copy_(torch.from_numpy(by_name(network)["feedback"].weight))
    bound, rates = plain.eval().bind(len(x)), result.simulation.firing_rates
    at = rates[-1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(plain.classify(at), LABELS), at)
    settings = SpideSettings(50, 20.0)
    phase = backward_phase(bound, rates, gradient, settings=settings)
    assert all(float(beta.abs().max()) > 0 for beta in phase.rates)
    updates = local_updates(bound, rates, phase, mean_inputs=(x,), settings=settings)
    names = [n for n, _ in model.named_parameters() if not n.startswith("readout")]
    assert len(names) == len(updates) == 5
    for name, update in zip(names, updates, strict=True):
        assert update.abs().max() > 1e-6
        # Sums of some hundred terms.
        torch.testing.assert_close(found[name], update, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["ide", "spide"])
def test_clipped_shadows_get_no_gradient_outwards_and_the_plain_one_inwards(method: str) -> None:
    case = started("14-12 (F14)", bits=2, symmetric=True, batch_norm=False, double=True, v_threshold=1.0)
    x, codes = case.inputs()
    model = still(case.model)
    with torch.no_grad():
        for synapse in model.feedforward:
            synapse.weight.mul_(1.8)
    training = replace(EXACT, method=method, time_steps_back=4000, loss_scale=5.0)
    result = rates_with_gradient(model, x, training=training, time_steps=STEPS)
    found = gradients_of(model, result)
    model.refresh()
    plain = expected_gradients(case, x, codes, result.rates.detach())
    seen = {"outwards": 0, "inwards": 0, "within": 0}
    state = model.state_dict()
    for layer, name in enumerate(("input_to_population1", "population1_to_population2")):
        connection = by_name(model.dequantized())[name]
        step = np.abs(connection.weight).max() * (GRADED.std[0] / GRADED.scale if layer == 0 else 1.0)
        units = state[f"feedforward.{layer}.weight"] / step + state[f"integers.{name}_offset"]
        excess = (units > 1.5).double() - (units < -1.5).double()
        gradient, wanted = found[f"feedforward.{layer}.weight"], plain[f"feedforward.{layer}.weight"]
        passing = gradient != 0
        outwards, inwards = excess * gradient < 0, excess * gradient > 0
        assert not outwards.any()
        if method == "ide":
            blocked = (excess * wanted < 0) & (wanted != 0)
            assert not passing[blocked].any()
            kept = ~blocked
            torch.testing.assert_close(gradient[kept], wanted[kept], rtol=1e-6, atol=1e-12)
            seen["outwards"] += int(blocked.sum())
        else:
            seen["outwards"] += int(((excess != 0) & ~passing).sum())
        seen["inwards"] += int(inwards.sum())
        seen["within"] += int(((excess == 0) & passing).sum())
    assert min(seen.values()) > 20, seen


# ---- what is proven --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1, 0], ids=["positive", "negative", "of either sign"])
@pytest.mark.parametrize(
    ("notation", "settings"), [*NETWORKS, pytest.param("12-10-8 (F12)", {"leak": 0.9}, id="three dense, LIF")]
)
def test_no_weights_leave_what_is_proven(
    monkeypatch: pytest.MonkeyPatch, notation: str, settings: dict[str, Any], sign: int
) -> None:
    """Weights fifty times as large: rows are made smaller until the exporter's own proof holds."""
    case = started(notation, **settings)
    with torch.no_grad():
        for name, parameter in case.model.named_parameters():
            if name.startswith("feedforward") and "batch_norm" not in name:
                parameter.copy_(50 * (sign * parameter.abs() if sign else parameter))
        feedback = case.model.feedback
        if feedback is not None:
            feedback.restriction.bound = 50.0
            feedback.restriction.gain.fill_(50.0)
    with monkeypatch.context() as patched:
        patched.setattr("fsnn_lava.training.integers.network.HEADROOM", np.inf)
        case.model.refresh()
        unbounded = case.model.integer_network()
    with pytest.raises(PotentialBoundError):
        prove(unbounded)
    case.model.refresh()
    network = case.model.integer_network()
    prove(network)
    pairs = [
        (np.abs(c.weight).sum(), np.abs(by_name(unbounded)[c.name].weight).sum())
        for c in network.connections
        if c.source != "always_on" and c.name in by_name(unbounded)
    ]
    assert all(0 < bounded <= before for bounded, before in pairs)


def test_a_row_whose_bound_is_too_large_is_made_smaller_and_no_other() -> None:
    case = started("12-10 (F12)", batch_norm=False)
    begun = by_name(case.model.integer_network())
    first = case.model.feedforward[0]
    with torch.no_grad():
        first.weight[3] = -first.weight.abs().max()
        first.bias[3] = -60.0
    case.model.refresh()
    network = case.model.integer_network()
    prove(network)
    now = by_name(network)["input_to_population1"].weight
    limit = 127
    assert np.abs(now[3]).max() < limit, "its weights would be the largest there are"
    assert len(set(now[3].tolist())) == 1
    others = np.arange(12) != 3
    assert np.array_equal(now[others], begun["input_to_population1"].weight[others])
    assert np.array_equal(
        by_name(network)["population1_to_population2"].weight, begun["population1_to_population2"].weight
    )


def test_the_headroom_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest proven potential of a row that was made smaller is near the limit, not far below."""
    case = started("12 (F12)", batch_norm=False)
    with torch.no_grad():
        case.model.feedforward[0].weight.fill_(-5.0)
    case.model.refresh()
    low, high = potential_bounds(case.model.integer_network())["population1"]
    largest = np.maximum(-low, high) / STATE_LIMIT
    assert (largest <= HEADROOM).all()
    assert (largest > 0.9 * HEADROOM).all()


def test_a_threshold_that_alone_is_too_large_is_refused() -> None:
    case = started("12-10 (F12)", v_threshold=8.0)
    assert case.model.neurons[0].reset_amount == 2.0
    state = case.model.state_dict()
    state["integers.resets"][1] = torch.tensor([255, 6])  # of 65280 weight units the threshold, 4 times that
    case.model.load_state_dict(state)
    message = (
        r"training in integers: no row of weights into population2 is small enough for a potential of 24 bits within "
        rf"T = {STEPS}; use fewer time steps"
    )
    with pytest.raises(PotentialBoundError, match=message):
        case.model.refresh()


def test_the_longest_window_is_proven() -> None:
    """Of the numbers of steps that are drawn: a run of fewer is proven with it."""
    short, long = started("12-10 (F12)"), started("12-10 (F12)", time_steps_schedule=(4, 100), time_steps_by="batch")
    assert (short.model.most_steps, long.model.most_steps) == (STEPS, 100)
    prove(replace(long.model.integer_network(), time_steps=100))
    with pytest.raises(PotentialBoundError):
        prove(replace(short.model.integer_network(), time_steps=100))


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def _aside() -> Iterator[None]:
    """Lays aside what earlier tests left, which would have to be looked through each time."""
    gc.freeze()
    yield
    gc.unfreeze()


def living(inputs: Tensor) -> list[int]:
    """Sizes of all tensors but the inputs and views of them."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    place = inputs.untyped_storage().data_ptr()
    return sorted(t.numel() for t in tensors if t.untyped_storage().data_ptr() != place)


@pytest.mark.usefixtures("_aside")
@pytest.mark.parametrize("method", ["ide", "spide"])
@pytest.mark.parametrize("coding", [GRADED, EVENTS], ids=["graded", "events"])
def test_what_is_kept_does_not_grow_with_the_steps(monkeypatch: pytest.MonkeyPatch, method: str, coding: Any) -> None:
    """No tensor that lives after the run or after the backward pass, and none that is saved for it."""
    case = started("3C3-4C3s (F3C3u)", coding=coding, batch_norm=False, steps=60)
    training = TrainingConfig(arithmetic="integer", method=method, time_steps_back=10)
    x = case.inputs()[0]
    run, recorded = MeasuredRunner.run, []

    def noted(runner: MeasuredRunner, *given: Any, record: Any, **more: Any) -> Any:
        recorded.extend(record)
        return run(runner, *given, record=record, **more)

    monkeypatch.setattr(MeasuredRunner, "run", noted)

    def kept(steps: int) -> tuple[list[int], list[int], list[int]]:
        given = x[:steps] if coding is EVENTS else x
        saved: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tensor.numel())
            return tensor

        model = copy.deepcopy(case.model).train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = rates_with_gradient(model, given, training=training, time_steps=steps)
            loss = functional.cross_entropy(model.classify(result.rates), LABELS)
        forward = living(x)
        loss.backward()
        assert result.simulation.spikes is None
        return sorted(saved), forward, living(x)

    kept(3)  # whatever is made once
    few, many = kept(STEPS), kept(60)
    assert few == many
    assert recorded == []
    frames = x.numel() if coding is EVENTS else 60 * x.numel()
    assert max(max(sizes) for sizes in many) < frames
