"""Training in hardware timing: every run of the network, wherever it is, has the delays that hardware has."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import fsnn_lava as fsnn
import trained
from fsnn_lava.backends import FloatSimulator
from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.network.layers import Synapse
from fsnn_lava.training.checkpoint import new_model
from fsnn_lava.training.evaluation import evaluate
from fsnn_lava.training.gradients.measured_rates import rates_with_gradient
from fsnn_lava.training.gradients.spide import SpideSettings
from fsnn_lava.training.on_lava_check import spide_in_hardware_timing
from fsnn_lava.verification.export_report import time_step_warnings

NOTATION = "40-30-20 (F40)"


@pytest.mark.parametrize(("method", "adjoint"), [("ide", "equilibrium"), ("ide", "window"), ("bptt", "equilibrium")])
def test_what_was_trained_is_what_runs(method: str, adjoint: str, tmp_path: Path) -> None:
    training = TrainingConfig(epochs=2, batch_size=64, milestones=(), method=method, timing="hardware", adjoint=adjoint)
    network = NetworkConfig(NOTATION, time_steps=6, dropout=0.1, v_threshold=1.0)
    net = fsnn.train(trained.digits(), TrainConfig(network=network, training=training), folder=tmp_path / "run")
    floating = lower(net)
    codes = trained.digits().test.codes
    software, deployed = run_torch(net, floating, codes, time_steps=6), FloatSimulator().run(floating, codes)
    # Sums in another order may put a potential on the other side of the threshold, not in more than one sample.
    close = np.isclose(software.logits, deployed.logits, atol=1e-12).all(axis=1)
    assert close.sum() >= len(close) - 1
    found = evaluate(net, trained.digits().test)
    assert found.accuracy == net.metrics["best_test_accuracy"] > 0.5
    assert found.accuracy == pytest.approx(float((deployed.logits.argmax(1) == trained.digits().test.labels).mean()))


def test_verification_finds_no_timing() -> None:
    net = trained.random_network(NOTATION, timing="hardware")
    network, _ = fsnn.quantize(fsnn.lower(net), trained.digits().train)
    report = fsnn.verify(net, network, trained.digits().test[:40], backends=("torch", "simulator-float", "simulator"))
    relations = {(pair.a, pair.b): pair.relation for pair in report.pairs}
    assert relations["torch", "simulator-float"] == "close"
    assert report.lowering is not None
    assert report.lowering.agrees
    assert report.network["trained in"] == "hardware timing"
    (timing,) = (cause for cause in report.budget.causes if cause.name == "timing")
    assert all(c.maximum == 0 for c in timing.populations.values())
    text = report.as_markdown()
    assert "both in hardware timing: every spike" in text
    assert "float, hardware timing -> float, hardware timing" in text
    assert "papers' timing" not in text


def test_spide_runs_both_phases_in_the_timing_of_the_network() -> None:
    spide = {"batch_norm": False, "dropout": 0.0, "spectral_norm": "frobenius", "v_threshold": 1.0}
    training = TrainingConfig(method="spide", timing="hardware", time_steps_back=40)
    config = TrainConfig(network=NetworkConfig("12-10-8 (F12)", **spide), training=training)
    model = new_model(config, (1, 8, 8), 10).double()
    assert model.loop_delays == (3,)
    with torch.no_grad():
        for synapse in model.feedforward:
            assert isinstance(synapse, Synapse) and synapse.bias is not None
            synapse.bias.fill_(0.3)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(6)
    settings = SpideSettings(time_steps_back=40, loss_scale=training.loss_scale)
    expected = spide_in_hardware_timing(model, x, labels, time_steps=12, settings=settings)
    model.zero_grad()
    rates = rates_with_gradient(model, x, training=training, time_steps=12)
    torch.nn.functional.cross_entropy(model.classify(rates.rates), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert_close(parameter.grad, expected.gradients[name], rtol=1e-12, atol=1e-15)
    model.loop_delays = (1,)
    other = rates_with_gradient(model, x, training=training, time_steps=12)
    assert not torch.equal(other.rates, rates.rates), "the case must depend on the delay"


@pytest.mark.parametrize(("steps", "beginnings"), [(20, []), (4, ["runs for T = 4, was trained for T = 20: "])])
def test_another_number_of_steps_is_told_of(steps: int, beginnings: list[str]) -> None:
    network = dataclasses.replace(lower(trained.random_network("12-10-8 (F12)")), time_steps=steps)
    found = time_step_warnings(network)
    assert [line[: len(start)] for line, start in zip(found, beginnings, strict=True)] == beginnings


def test_feedback_that_never_arrives_is_told_of() -> None:
    network = lower(trained.random_network("12-10-8 (F12)", time_steps=3))
    assert time_step_warnings(network) == [
        "feedback: its spikes arrive 3 steps late, and a window has 3: none ever arrives"
    ]
    assert time_step_warnings(lower(trained.random_network("12-10-8 (F12)", time_steps=3), timing="sequential")) == []
    assert time_step_warnings(dataclasses.replace(network, provenance={}, time_steps=4)) == []
