"""Neurons that a spike resets to zero: every run of theirs, the gradient by bptt, and who refuses them, to the bit.

Random weights in float64: no potential meets its threshold so closely that the order of a sum decides.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import trained
from feedback_networks import constants, seeded
from fsnn_lava.cli import evaluate, export, verify
from fsnn_lava.config import NEURONS, NetworkConfig, TrainConfig, TrainingConfig, config_from_dict, config_to_dict
from fsnn_lava.errors import ConfigError, UnsupportedError
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network import FeedbackSNN
from fsnn_lava.network.dense_runs.in_floats import dense_run
from fsnn_lava.network.dense_runs.in_int8 import int8_run
from fsnn_lava.network.dense_runs.int8_products import int8_fault
from fsnn_lava.network.neuron import fire, integrate, rate_of_current, slope_of_rate
from fsnn_lava.training import fit
from fsnn_lava.training.gradients.bptt import bptt_rates

T = 9
LAWS = [FloatNeuron(1.0, 0.7, 1.0, "zero"), FloatNeuron(1.0, 0.7, 0.8, "zero")]
NOTATIONS = [("6-5 (F6)", (7,)), ("3C3-4C3 (F3C3)", (2, 5, 5))]


def network(notation: str, shape: tuple[int, ...], neuron: FloatNeuron, *, batch_norm: bool = False) -> FeedbackSNN:
    config = NetworkConfig(notation, **constants(neuron), time_steps=T, batch_norm=batch_norm, dropout=0.0)
    model = FeedbackSNN(config, shape, classes=3, seed=2).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.3)
    return model.eval()


def given(shape: tuple[int, ...], batch: int = 4) -> Tensor:
    return torch.rand(batch, *shape, generator=seeded(5), dtype=torch.float64)


def plain_spikes(model: FeedbackSNN, x: Tensor) -> list[Tensor]:
    """Population -> (T, B, *N) of a chain with feedback, step by step."""
    bound = model.bind_to(x)
    first, *others = bound.feedforward
    shapes = [synapse.synapse.shape for synapse in bound.feedforward]
    v = [torch.zeros(len(x), *shape, dtype=x.dtype) for shape in shapes]
    s = [torch.zeros_like(potential) for potential in v]
    history: list[list[Tensor]] = [[] for _ in v]
    neuron = bound.neurons[0]
    for _ in range(T):
        back = bound.feedback[0].current(s[-1])
        for p in range(len(v)):
            current = first.current(x) + back if p == 0 else others[p - 1].current(s[p - 1])
            v[p] = neuron.leak * torch.where(s[p] > 0, 0.0, v[p]) + current
            s[p] = (v[p] >= neuron.v_threshold).double()
            history[p].append(s[p])
    return [torch.stack(spikes) for spikes in history]


@pytest.mark.parametrize("neuron", LAWS)
@pytest.mark.parametrize(("notation", "shape"), NOTATIONS)
@torch.no_grad()
def test_both_runs_are_the_plain_loop(notation: str, shape: tuple[int, ...], neuron: FloatNeuron) -> None:
    model, x = network(notation, shape, neuron), given(shape)
    bound = model.bind_to(x)
    drive = bound.drive(x, time_steps=T)
    expected = plain_spikes(model, x)
    by_events = bound.simulate(drive, time_steps=T, record=True).spikes
    dense = dense_run(
        bound.feedforward, bound.feedback, input_current=drive.at, neurons=bound.neurons, time_steps=T,
        loop_delays=bound.loop_delays, record=True,
    ).spikes  # fmt: skip
    assert by_events is not None and dense is not None
    for wanted, *found in zip(expected, by_events, dense, strict=True):
        for spikes in found:
            assert np.array_equal(spikes.numpy(), wanted.numpy())
        assert 0.05 < float(wanted.mean()) < 0.95
    other = FloatNeuron(neuron.v_threshold, neuron.reset_amount, neuron.leak)
    assert not torch.equal(torch.cat([s.flatten() for s in plain_spikes(model, x)]),
                           torch.cat([s.flatten().double() for s in of_law(notation, shape, other, x)]))  # fmt: skip


def of_law(notation: str, shape: tuple[int, ...], neuron: FloatNeuron, x: Tensor) -> tuple[Tensor, ...]:
    """Spikes of the same weights with other neurons."""
    bound = network(notation, shape, neuron).bind_to(x)
    spikes = bound.simulate(bound.drive(x, time_steps=T), time_steps=T, record=True).spikes
    assert spikes is not None
    return spikes


@pytest.mark.skipif(bool(int8_fault()), reason=f"no products in 8 bits: {int8_fault()}")
@torch.no_grad()
def test_the_run_in_8_bits_resets_to_zero_too() -> None:
    """Of weights rounded to 24 bits: the spikes of a float32 run, here without any near the threshold."""
    (notation, shape), x = NOTATIONS[1], given(NOTATIONS[1][1]).float()
    bound = network(notation, shape, LAWS[1]).float().bind_to(x)
    drive = bound.drive(x, time_steps=T)
    form: dict[str, Any] = {"input_current": drive.at, "neurons": bound.neurons, "time_steps": T, "record": True}
    found = int8_run(bound.feedforward, bound.feedback, constant=True, loop_delays=bound.loop_delays, **form).spikes
    expected = dense_run(bound.feedforward, bound.feedback, loop_delays=bound.loop_delays, **form).spikes
    assert found is not None and expected is not None
    for spikes, wanted in zip(found, expected, strict=True):
        assert np.array_equal(spikes.numpy(), wanted.numpy())


def test_one_neuron_by_hand() -> None:
    """Rectangular curve, width 1; F = 0.75, leak 1/2, threshold 1: v = 0.75, 1.125 (fires), 0.75; the slopes are 1.

    The rate is (s0/4 + s1/2 + s2) / 1.75. Backwards g2 = 4/7, g1 = 2/7 + d1 and so on, with the reset's paths
    dv2/dv1 = leak (1 - s1) = 0 and dv2/ds1 = -leak v1, dv1/dv0 = leak and dv1/ds0 = -leak v0:
    bar(v2) = 4/7; bar(s1) = 2/7 - 0.5625 bar(v2); bar(v1) = bar(s1); bar(s0) = 1/7 - 0.375 bar(v1);
    bar(v0) = bar(s0) + bar(v1) / 2; and dF is their sum.
    """
    config = NetworkConfig("1", **constants(FloatNeuron(1.0, 5.0, 0.5, "zero")), batch_norm=False, dropout=0.0)
    model = FeedbackSNN(config, (1,), classes=2, seed=0).double().eval()
    (synapse,) = model.feedforward
    with torch.no_grad():
        synapse.weight.fill_(0.75)
    found = bptt_rates(model, torch.ones(1, 1, dtype=torch.float64), time_steps=3, width=1.0)
    found.rates.sum().backward()
    v2 = 4 / 7
    v1 = 2 / 7 - 0.5625 * v2
    v0 = 1 / 7 - 0.375 * v1 + v1 / 2
    assert found.rates.item() == pytest.approx(0.5 / 1.75, rel=1e-15)
    assert synapse.weight.grad is not None
    assert synapse.weight.grad.item() == pytest.approx(v0 + v1 + v2, rel=1e-15)


@pytest.mark.parametrize("neuron", LAWS)
@pytest.mark.parametrize(("notation", "shape"), NOTATIONS)
def test_bptt_measures_the_rates_of_the_run(notation: str, shape: tuple[int, ...], neuron: FloatNeuron) -> None:
    model, x = network(notation, shape, neuron), given(shape)
    found = bptt_rates(model, x, time_steps=T)
    bound = model.bind_to(x)
    run = bound.simulate(bound.drive(x, time_steps=T), time_steps=T)
    # sums of nine terms of size one in another order
    assert_close(found.rates.detach(), run.firing_rates[-1], rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(found.rates.sum(), [model.feedforward[0].weight])
    assert bool(gradient.any())


def test_batch_norms_see_the_measured_rates() -> None:
    model, x = network("6-5 (F6)", (7,), LAWS[1], batch_norm=True).train(), given((7,), 16)
    before = [s.batch_norm.running_mean.clone() for s in model.feedforward if s.batch_norm is not None]
    found = bptt_rates(model, x, time_steps=T)
    second = model.feedforward[1]
    assert second.batch_norm is not None
    response = found.simulation.firing_rates[0] @ second.weight.detach().T
    if second.bias is not None:
        response = response + second.bias.detach()
    share = second.batch_norm.momentum
    assert_close(
        second.batch_norm.running_mean, (1 - share) * before[1] + share * response.mean(0), rtol=1e-9, atol=1e-9
    )


def test_a_step_in_torch() -> None:
    neuron = FloatNeuron(1.0, 3.0, 0.5, "zero")
    v, s = torch.tensor([1.5, 0.5]), torch.tensor([1.0, 0.0])
    after = integrate(v, s, torch.tensor([0.75, 1.0]), neuron=neuron)
    assert after.tolist() == [0.75, 1.25]
    assert fire(after, neuron=neuron).tolist() == [0.0, 1.0]


def test_the_equilibrium_refuses_them() -> None:
    message = (
        r"has no equilibrium rate clamp\(I / r\): found reset to zero; allowed: reset by subtraction.*train it by bptt"
    )
    for function in (rate_of_current, slope_of_rate):
        with pytest.raises(UnsupportedError, match=message):
            function(torch.zeros(2), neuron=LAWS[0])


@pytest.mark.parametrize(
    "training", [{"method": "ide"}, {"method": "spide"}, {"method": "ide", "arithmetic": "integer"}]
)
def test_methods_of_the_equilibrium_refuse_them(training: dict[str, Any]) -> None:
    network = NetworkConfig("6 (F6)", reset="zero", batch_norm=False, dropout=0.0)
    message = r"training\.method: found .*; allowed: bptt with a reset to zero: there is no equilibrium rate"
    with pytest.raises(ConfigError, match=message):
        TrainConfig(network=network, training=TrainingConfig(**training))
    TrainConfig(network=network, training=TrainingConfig(method="bptt"))


def test_the_setting_is_written_where_it_is_another() -> None:
    config = TrainConfig(network=NetworkConfig("6 (F6)", reset="zero"), training=TrainingConfig(method="bptt"))
    values = config_to_dict(config)
    assert values["network"]["reset"] == "zero"
    assert config_from_dict(values) == config
    assert "reset" not in config_to_dict(TrainConfig())["network"]
    values["network"]["reset"] = "hard"
    with pytest.raises(ConfigError, match=r"network\.reset\W+found 'hard'; allowed: 'subtract', 'zero'"):
        config_from_dict(values)


def hard(config: NetworkConfig) -> FloatNeuron:
    return FloatNeuron(config.v_threshold, config.reset_amount, config.leak, "zero")


def cuba(config: NetworkConfig) -> FloatNeuron:
    return FloatNeuron(config.v_threshold, config.reset_amount, config.leak, current_leak=0.5)


def test_currents_that_decay_are_not_trained() -> None:
    NEURONS.register("cuba", cuba, help="a current that decays")
    try:
        with pytest.raises(
            ConfigError, match=r'neuron "cuba" made .*; allowed: current_leak 0, since no method trains'
        ):
            FeedbackSNN(NetworkConfig("6 (F6)", neuron="cuba"), (4,), classes=2, seed=0)
    finally:
        NEURONS.remove("cuba")


def test_a_neuron_model_keeps_the_reset_that_is_set() -> None:
    """So that no method is given neurons that it would take for others."""
    NEURONS.register("hard", hard, help="reset to zero")
    try:
        with pytest.raises(
            ConfigError, match=r'neuron "hard" made .*; allowed: reset "subtract", that of network\.reset'
        ):
            FeedbackSNN(NetworkConfig("6 (F6)", neuron="hard"), (4,), classes=2, seed=0)
        FeedbackSNN(NetworkConfig("6 (F6)", neuron="hard", reset="zero"), (4,), classes=2, seed=0)
    finally:
        NEURONS.remove("hard")


def test_from_training_to_a_verified_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    network = NetworkConfig("24 (F24)", v_threshold=1.0, reset="zero", leak=0.9, time_steps=10, dropout=0.1)
    training = TrainingConfig(method="bptt", epochs=3, batch_size=64, milestones=(), seed=1)
    fit(TrainConfig(name="digits", network=network, training=training), trained.digits(), folder)
    few = ["--calibration-samples", "40"]
    assert export.main(["--run", str(folder), *few]) == 0
    backends = ["--backends", "torch", "simulator", "simulator-float"]
    assert verify.main(["--run", str(folder), "--samples", "40", *backends]) == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["network"]["neurons"] == "LIF, leak 0.9, reset to zero"
    assert report["lowering"]["agrees"]
    assert report["budget"]["no_equilibrium"] == [
        'population "population1": found reset to zero; allowed: reset by subtraction of currents without memory: the '
        "rate of others is not clamp(I / r)"
    ]
    assert min(report["accuracy"].values()) > 0.7
    capsys.readouterr()
    assert evaluate.main(["--run", str(folder)]) == 0
    assert "no equilibrium, from which a distance could be told: reset to zero" in capsys.readouterr().out
