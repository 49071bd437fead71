"""Networks that were trained in integers: what was trained is what is exported, verified, saved and run on Lava."""

import dataclasses
import functools
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fsnn_lava as fsnn
import trained
from fsnn_lava.backends import IntegerSimulator
from fsnn_lava.config import DeployConfig, NetworkConfig, TrainConfig, TrainingConfig, WeightBits
from fsnn_lava.conversion import lower, read_nir, run_torch
from fsnn_lava.conversion.nir_write import write_nir
from fsnn_lava.datasets import Dataset, Samples
from fsnn_lava.errors import CheckpointError, ConfigError
from fsnn_lava.hardware import ALWAYS_ON, HardwareNetwork, accuracy, load_network, prove, save_network
from fsnn_lava.training import BEST, LAST, FitResult, fit
from fsnn_lava.training.checkpoint import TrainedNetwork, load_checkpoint, load_training
from fsnn_lava.training.evaluation import evaluate
from fsnn_lava.training.integers.measured_run import MeasuredRunner
from fsnn_lava.training.integers.network import IntegerSNN
from fsnn_lava.training.schedule import time_steps_of
from integer_networks import EVENTS, assert_same_integers, by_name, some_digits
from short_training import Told

STEPS, BATCH = 8, 25
PER_EPOCH = 300 // BATCH
NETWORKS: dict[str, dict[str, Any]] = {
    "dense": {"notation": "24-16 (F24)", "dropout": 0.1},
    "convolutional": {"notation": "6C3s-8C3-P2 (F6C3u)", "dropout": 0.1},
    "spide": {
        "notation": "6C3s-P2 (F6C3u)",
        "batch_norm": False,
        "pooling": "spiking",
        "spectral_norm": "frobenius",
        "spectral_norm_bound": 2.0,
        "initial_weights": "kaiming_normal",
    },
}
BITS: dict[str, tuple[WeightBits, bool]] = {
    "8 bits": (8, False),
    "4 bits": (4, False),
    "2 bits": (2, False),
    "ternary": (2, True),
}


@functools.cache
def digits() -> Dataset:
    """300 training images, and all of the test."""
    whole = trained.digits()
    return dataclasses.replace(whole, train=whole.train.select(np.arange(300)))


def calibration() -> Samples:
    return digits().train.select(np.arange(40))


def config_of(kind: str, **training: Any) -> TrainConfig:
    network = NetworkConfig(time_steps=STEPS, v_threshold=1.0, **NETWORKS[kind])
    method = "spide" if kind == "spide" else "ide"
    common: dict[str, Any] = {
        "epochs": 1,
        "batch_size": BATCH,
        "learning_rate": 0.1,
        "milestones": (),
        "seed": 3,
        "time_steps_back": 40,
    }
    return TrainConfig(name=kind, network=network, training=TrainingConfig(method=method, **(common | training)))


def fitted(config: TrainConfig, data: Dataset, **given: Any) -> tuple[TrainedNetwork, FitResult]:
    with tempfile.TemporaryDirectory() as folder:
        result = fit(config, data, Path(folder), **given)
        return load_checkpoint(Path(folder) / BEST), result


@functools.cache
def in_floats(kind: str) -> TrainedNetwork:
    return fitted(config_of(kind, timing="hardware", epochs=4), digits())[0]


@functools.cache
def in_integers(kind: str, which: str, from_floats: bool) -> tuple[TrainedNetwork, FitResult]:
    bits, symmetric = BITS[which]
    config = config_of(kind, arithmetic="integer", weight_bits=bits, symmetric=symmetric)
    return fitted(config, digits(), origin=in_floats(kind) if from_floats else None)


@functools.cache
def exported(kind: str, which: str, from_floats: bool) -> HardwareNetwork:
    net, _ = in_integers(kind, which, from_floats)
    return fsnn.quantize(lower(net), calibration())[0]


NEW, FROM_FLOATS = False, True
CASES = [
    ("dense", "8 bits", NEW),
    ("dense", "4 bits", FROM_FLOATS),
    ("dense", "2 bits", NEW),
    ("dense", "ternary", FROM_FLOATS),
    ("convolutional", "8 bits", FROM_FLOATS),
    ("convolutional", "4 bits", NEW),
    ("convolutional", "2 bits", FROM_FLOATS),
    ("convolutional", "ternary", NEW),
    ("spide", "8 bits", NEW),
    ("spide", "4 bits", FROM_FLOATS),
    ("spide", "2 bits", NEW),
    ("spide", "ternary", FROM_FLOATS),
]
every_case = pytest.mark.parametrize(
    ("kind", "which", "from_floats"), CASES, ids=[f"{k}, {w}, {'from floats' if f else 'new'}" for k, w, f in CASES]
)
of_every_kind = pytest.mark.parametrize(
    ("kind", "which", "from_floats"), [CASES[1], CASES[7], CASES[8]], ids=["dense", "convolutional", "spide"]
)


@every_case
def test_what_was_trained_is_what_is_exported(kind: str, which: str, from_floats: bool) -> None:
    """The test of the training is that of the export, prediction for prediction, over the whole test set."""
    net, result = in_integers(kind, which, from_floats)
    bits, symmetric = BITS[which]
    integer, floating, test = exported(kind, which, from_floats), lower(net), digits().test
    prove(integer)
    model = net.model()
    assert isinstance(model, IntegerSNN)
    assert_same_integers(integer, model.integer_network())
    for c in integer.connections:
        if c.source != ALWAYS_ON:
            stored = net.weights.get(f"integers.{c.name}_mantissa")
            if stored is not None and f"{c.name}_part2" not in by_name(integer):
                assert np.array_equal(c.weight, stored.numpy())
            assert c.weight_bits == bits
            assert c.weight.max() <= 2 ** (bits - 1) - 1
            assert c.weight.min() >= -(2 ** (bits - 1)) + symmetric

    names = [p.name for p in integer.populations]
    run = IntegerSimulator().run(integer, test.codes, record=names)
    by_torch = run_torch(net, floating, test.codes, time_steps=STEPS)
    for name in names:
        assert np.array_equal(run.spikes[name], by_torch.spikes[name])
    assert np.array_equal(run.logits.argmax(1), by_torch.logits.argmax(1))
    right = int((run.logits.argmax(1) == test.labels).sum())
    assert result.best_accuracy == result.history[-1]["test/accuracy"] == right / len(test.labels)
    assert evaluate(net, test).accuracy == accuracy(run, test.labels)
    assert all(0 < result.history[-1][f"test/firing_rate/{name}"] < 1 for name in names)
    for name in names:
        assert result.history[-1][f"test/firing_rate/{name}"] == pytest.approx(float(run.spikes[name].mean()), abs=1e-9)


def test_training_in_integers_learns() -> None:
    """From floats it begins where they are; new weights, ternary ones among them, learn."""
    floats = evaluate(in_floats("dense"), digits().test).accuracy
    assert floats > 0.8
    gently = config_of("dense", arithmetic="integer", learning_rate=0.02)
    assert fitted(gently, digits(), origin=in_floats("dense"))[1].best_accuracy > floats - 0.02
    assert in_integers("dense", "ternary", FROM_FLOATS)[1].best_accuracy > 0.7
    new = config_of("dense", arithmetic="integer", weight_bits=2, symmetric=True, epochs=4)
    history = fitted(new, digits())[1].history
    assert history[-1]["test/accuracy"] > 0.6
    assert history[-1]["train/loss"] < 0.7 * history[0]["train/loss"]


@of_every_kind
def test_training_changes_the_integers(kind: str, which: str, from_floats: bool) -> None:
    net, _ = in_integers(kind, which, from_floats)
    begun: list[dict[str, np.ndarray[Any, Any]]] = []

    class Stopped(Exception):
        pass

    def look(_: int) -> None:
        raise Stopped

    bits, symmetric = BITS[which]
    config = config_of(kind, arithmetic="integer", weight_bits=bits, symmetric=symmetric)
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(Stopped):
            fit(config, digits(), Path(folder), origin=in_floats(kind) if from_floats else None, observer=Told(look))
        weights = load_training(Path(folder) / LAST)[0].weights
        begun.append({n: t.numpy() for n, t in weights.items() if n.endswith("mantissa")})
    changed = [name for name, before in begun[0].items() if not np.array_equal(before, net.weights[name].numpy())]
    pool = "integers.population1_to_population2_mantissa"
    assert (pool not in changed) == (kind == "spide"), "the weights of a pool are no parameters"
    assert "integers.input_to_population1_mantissa" in changed
    if which != "ternary":  # of which none of the feedback has come to another integer in an epoch
        assert "integers.feedback_mantissa" in changed
    assert not torch.equal(weights["feedback.weight"], net.weights["feedback.weight"])
    assert torch.equal(weights["integers.resets"], net.weights["integers.resets"])
    if kind != "spide":  # statistics of the normalisations are measured before, or taken over, and stay
        for name in (n for n in weights if "running_" in n):
            assert torch.equal(weights[name], net.weights[name])
            assert not torch.equal(weights[name], torch.full_like(weights[name], float("var" in name)))
            assert torch.equal(weights[name], in_floats(kind).weights[name]) == from_floats


@of_every_kind
def test_verification_finds_no_difference(kind: str, which: str, from_floats: bool) -> None:
    net, integer = in_integers(kind, which, from_floats)[0], exported(kind, which, from_floats)
    samples = digits().test[:60]
    report = fsnn.verify(net, integer, samples, backends=("torch", "simulator"), calibration=calibration())
    assert report.agrees, report.as_markdown()
    assert [(pair.a, pair.b, pair.relation) for pair in report.pairs] == [("torch", "simulator", "exact")]
    assert report.lowering is None
    assert report.network["trained in"] == "integers, hardware timing"
    causes = {cause.name: cause for cause in report.budget.causes}
    assert set(causes) == {"lowering", "timing", "rounding", "total"}
    for name, cause in causes.items():
        for contribution in cause.populations.values():
            assert dataclasses.astuple(contribution) == (0.0, 0.0, 0.0, 0.0), name
    assert "none: trained in integers" in report.as_markdown()


def test_verification_finds_another_integer() -> None:
    net, integer = in_integers("dense", "4 bits", FROM_FLOATS)[0], exported("dense", "4 bits", FROM_FLOATS)
    changed = by_name(integer)["feedback"]
    weight = changed.weight.copy()
    weight[0, 0] += 1 if weight[0, 0] < 7 else -1
    connections = tuple(
        dataclasses.replace(c, weight=weight) if c.name == "feedback" else c for c in integer.connections
    )
    other = dataclasses.replace(integer, connections=connections)
    report = fsnn.verify(net, other, digits().test[:20], backends=("torch", "simulator"), calibration=calibration())
    assert not report.structure.agrees
    assert not report.agrees


@pytest.mark.lava
@of_every_kind
def test_lava_gives_the_spikes_that_were_trained(kind: str, which: str, from_floats: bool) -> None:
    net, integer = in_integers(kind, which, from_floats)[0], exported(kind, which, from_floats)
    report = fsnn.verify(net, integer, digits().test[:20], backends=("torch", "simulator", "lava-fixed"))
    assert report.agrees, report.as_markdown()
    assert len(report.pairs) == 3
    assert {pair.relation for pair in report.pairs} == {"exact"}


@pytest.mark.parametrize(
    ("which", "config", "message"),
    [
        ("4 bits", DeployConfig(weight_bits=3), r"found weight_bits 3 for a network .*allowed: .*, of 4 bits, "),
        ("4 bits", DeployConfig(threshold="half"), r"found threshold half for a network .*in integers; allowed: "),
        (
            "4 bits",
            DeployConfig(symmetric=True),
            r"found symmetric for .*allowed: the weights that it has, of 4 bits, not symmetric; ",
        ),
        (
            "8 bits",
            DeployConfig(weight_bits=2),
            r"found weight_bits 2 for .*allowed: the weights that it has, of 8 bits, not symmetric; ",
        ),
        (
            "ternary",
            DeployConfig(weight_bits=4),
            r"weight_bits 4 .*allowed: the weights that it has, of 2 bits, symmetric; ",
        ),
        (
            "4 bits",
            DeployConfig(weight_bits=5, symmetric=True, threshold="half"),
            r"found weight_bits 5, symmetric, threshold half for .*fsnn train --from RUN --training.arithmetic integer",
        ),
    ],
)
def test_other_integers_are_refused(which: str, config: DeployConfig, message: str) -> None:
    floating = lower(in_integers("dense", which, which != "8 bits")[0])
    with pytest.raises(ConfigError, match=message):
        fsnn.quantize(floating, calibration(), config=config)


def test_eight_bits_that_are_asked_for_are_refused_too() -> None:
    floating = lower(in_integers("dense", "4 bits", FROM_FLOATS)[0])
    with pytest.raises(
        ConfigError,
        match=r"found weight_bits 8 for a network .*allowed: the weights that it has, of 4 bits, not symmetric; ",
    ):
        fsnn.quantize(floating, calibration(), bits=8)


def test_its_own_bits_may_be_said() -> None:
    floating = lower(in_integers("dense", "ternary", FROM_FLOATS)[0])
    config = DeployConfig(weight_bits=2, symmetric=True, rounding="nearest")
    integer, _ = fsnn.quantize(floating, calibration(), config=config)
    assert_same_integers(integer, exported("dense", "ternary", FROM_FLOATS))


@of_every_kind
def test_files_keep_the_integers(kind: str, which: str, from_floats: bool, tmp_path: Path) -> None:
    integer, codes = exported(kind, which, from_floats), digits().test.codes[:10]
    save_network(integer, tmp_path / "network.h5")
    write_nir(integer, tmp_path / "network.nir")
    expected = IntegerSimulator().run(integer, codes)
    for again in (load_network(tmp_path / "network.h5"), read_nir(tmp_path / "network.nir")):
        assert_same_integers(again, integer)
        assert np.array_equal(IntegerSimulator().run(again, codes).logits, expected.logits)
    floating = lower(in_integers(kind, which, from_floats)[0])
    save_network(floating, tmp_path / "floating.h5")
    derived, _ = fsnn.quantize(load_network(tmp_path / "floating.h5"), calibration())
    assert_same_integers(derived, integer)


@of_every_kind
def test_interrupted_training_goes_on_bit_for_bit(kind: str, which: str, from_floats: bool, tmp_path: Path) -> None:
    bits, symmetric = BITS[which]
    config = config_of(
        kind,
        arithmetic="integer",
        weight_bits=bits,
        symmetric=symmetric,
        epochs=2,
        time_steps_schedule=(4, 6, 8),
        time_steps_by="batch",
    )
    data = dataclasses.replace(digits(), test=digits().test.select(np.arange(60)))
    origin = in_floats(kind) if from_floats else None
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    assert fit(config, data, whole, origin=origin).finished
    stop = Told(lambda done: signal.raise_signal(signal.SIGINT) if done in (2, PER_EPOCH + 3) else None)
    assert not fit(config, data, parts, origin=origin, observer=stop).finished
    halfway, at, _ = load_training(parts / LAST)
    assert at["iteration"] == 2
    model = halfway.model()
    assert isinstance(model, IntegerSNN)
    model.refresh()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, halfway.weights[name]), f"{name}: a checkpoint holds what its shadows round to"
    assert not fit(config, data, parts, resume=True, observer=stop).finished
    assert fit(config, data, parts, resume=True).finished
    (ours, progress, state), (theirs, their_progress, their_state) = (load_training(f / LAST) for f in (parts, whole))
    assert any(name.endswith("mantissa") for name in ours.weights)
    for mine, yours in ((ours.weights, theirs.weights), (state, their_state)):
        assert mine.keys() == yours.keys()
        for name, tensor in mine.items():
            assert tensor.dtype == yours[name].dtype
            assert np.array_equal(tensor.numpy(), yours[name].numpy()), name
    for told in (progress, their_progress):
        told["history"] = [{k: v for k, v in m.items() if not k.startswith("train/seconds")} for m in told["history"]]
    assert progress == their_progress
    best, their_best = (load_checkpoint(f / BEST).weights for f in (parts, whole))
    assert all(np.array_equal(tensor.numpy(), their_best[name].numpy()) for name, tensor in best.items())


def test_every_number_of_steps_is_drawn_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("dense", arithmetic="integer", epochs=3, time_steps_schedule=(3, 5, 20), time_steps_by="batch")
    run, ran = MeasuredRunner.run, []

    def noted(runner: MeasuredRunner, inputs: Any, *given: Any, time_steps: int, **more: Any) -> Any:
        if len(inputs) == BATCH:  # of training: the test has other batches
            ran.append(time_steps)
        return run(runner, inputs, *given, time_steps=time_steps, **more)

    monkeypatch.setattr(MeasuredRunner, "run", noted)
    net, result = fitted(config, digits())
    expected = [time_steps_of(config, epoch=0, iteration=i) for i in range(3 * PER_EPOCH)]
    assert ran == expected
    assert set(expected) == {3, 5, 20}
    assert expected == [time_steps_of(config, epoch=0, iteration=i) for i in range(3 * PER_EPOCH)]
    other = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=4))
    assert expected != [time_steps_of(other, epoch=0, iteration=i) for i in range(3 * PER_EPOCH)]
    many = [time_steps_of(config, epoch=0, iteration=i) for i in range(3000)]
    assert all(0.28 < many.count(steps) / 3000 < 0.39 for steps in (3, 5, 20))
    integer, _ = fsnn.quantize(lower(net), calibration())
    assert integer.time_steps == STEPS
    assert accuracy(IntegerSimulator().run(integer, digits().test.codes), digits().test.labels) == result.best_accuracy
    prove(dataclasses.replace(integer, time_steps=20))


def test_steps_that_are_drawn_are_those_of_floats_too() -> None:
    config = config_of("dense", time_steps_schedule=(2, 9), time_steps_by="batch")
    assert {time_steps_of(config, epoch=0, iteration=i) for i in range(20)} == {2, 9}
    assert {time_steps_of(config_of("dense"), epoch=0, iteration=i) for i in range(20)} == {STEPS}
    assert config.most_steps == 9
    assert fitted(config, digits())[1].finished


def test_no_steps_are_drawn_for_event_frames(tmp_path: Path) -> None:
    data = some_digits(EVENTS, train=60, test=20, steps=STEPS)
    message = (
        r'training\.time_steps_schedule: found \[4, 8\] for the event frames of "digits", one for each step; allowed: n'
    )
    with pytest.raises(ConfigError, match=message):
        fit(config_of("dense", arithmetic="integer", time_steps_schedule=(4, 8), time_steps_by="batch"), data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_event_frames_are_not_moved(tmp_path: Path) -> None:
    data = some_digits(EVENTS, train=60, test=20, steps=STEPS)
    message = r'training\.random_shift: found 2 for the event frames of "digits"; allowed: -1 or 0'
    with pytest.raises(ConfigError, match=message):
        fit(config_of("dense", random_shift=2), data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_event_frames_are_trained_on_in_integers() -> None:
    data = some_digits(EVENTS, train=120, test=60, steps=STEPS)
    net, result = fitted(config_of("dense", arithmetic="integer", weight_bits=4), data)
    integer, _ = fsnn.quantize(lower(net), data.train)
    codes = np.moveaxis(data.test.codes, 1, 0)
    run = IntegerSimulator().run(integer, codes)
    assert run.firing_rates["population2"].any()
    assert accuracy(run, data.test.labels) == result.best_accuracy
    by_torch = run_torch(net, lower(net), codes, time_steps=STEPS)
    assert np.array_equal(run.logits.argmax(1), by_torch.logits.argmax(1))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    message = (
        r'weights of "24-16 \(F24\)" do not fit this network and dataset: .*; a training that begins with another '
        "one's weights has its notation and its dataset"
    )
    for kind, arithmetic in (("convolutional", "integer"), ("spide", "float")):
        with pytest.raises(CheckpointError, match=message):
            fit(config_of(kind, arithmetic=arithmetic), digits(), tmp_path, origin=in_floats("dense"))
    other = dataclasses.replace(digits(), coding=dataclasses.replace(digits().coding, mean=(0.1,)))
    with pytest.raises(CheckpointError, match=r"do not fit this network and dataset: inputs "):
        fit(config_of("dense", arithmetic="integer"), other, tmp_path, origin=in_floats("dense"))
    assert list(tmp_path.iterdir()) == []


def test_a_training_may_begin_with_that_of_another_arithmetic() -> None:
    """Of fewer bits from those of more, and floats from integers: with the shadows as weights."""
    eight, _ = in_integers("dense", "8 bits", FROM_FLOATS)
    config = config_of("dense", arithmetic="integer", weight_bits=3, learning_rate=1e-30, weight_decay=0.0)
    three, result = fitted(config, digits(), origin=eight)
    assert {c.weight_bits for c in fsnn.quantize(lower(three), calibration())[0].connections} == {3, 8}
    assert result.best_accuracy > 0.5
    for name, tensor in eight.weights.items():
        if name.startswith("feedforward") and "num_batches" not in name:
            assert torch.allclose(three.weights[name], tensor, atol=1e-6), name
    floats, _ = fitted(
        config_of("dense", timing="hardware", learning_rate=1e-30, weight_decay=0.0), digits(), origin=eight
    )
    assert not any(name.startswith("integers") for name in floats.weights)
    assert torch.allclose(floats.weights["feedforward.0.weight"], eight.weights["feedforward.0.weight"], atol=1e-6)
