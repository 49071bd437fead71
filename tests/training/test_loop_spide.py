"""Trainings by SPIDE: as good as implicit differentiation, bit for bit repeatable, and with figures of both phases."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest
import torch

from fsnn_lava.config import TrainConfig, read_config
from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.errors import CheckpointError
from fsnn_lava.training import LAST, fit
from fsnn_lava.training.checkpoint import load_checkpoint, load_training, save_checkpoint
from fsnn_lava.training.metrics import couple_warnings
from short_training import PER_EPOCH, Told, changed, short_digits

CONFIG = changed(network={"batch_norm": False, "v_threshold": 1.0, "spectral_norm": "frobenius"}, method="spide")
POPULATIONS = ("population1", "population2")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return short_digits()


def test_digits_are_learnt_as_well_as_by_implicit_differentiation(tmp_path: Path) -> None:
    whole = read_config("digits_spide")
    dataset = load_dataset("digits")

    def accuracy(method: str) -> float:
        folder = tmp_path / method
        folder.mkdir()
        training = dataclasses.replace(whole.training, method=method, epochs=12)
        return fit(dataclasses.replace(whole, training=training), dataset, folder).best_accuracy

    by_spikes, implicitly = accuracy("spide"), accuracy("ide")
    assert implicitly > 0.96, "the comparison must be with a network that has learnt"
    assert by_spikes >= implicitly - 0.01


def test_interrupted_run_goes_on_bit_for_bit(digits: Dataset, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    fit(CONFIG, digits, whole)

    def stop(iteration: int) -> None:
        if iteration == PER_EPOCH + 2:
            signal.raise_signal(signal.SIGINT)

    assert not fit(CONFIG, digits, parts, observer=Told(stop)).finished
    assert fit(CONFIG, digits, parts, resume=True).finished
    expected, found = (load_checkpoint(folder / LAST).weights for folder in (whole, parts))
    assert expected.keys() == found.keys()
    for name, weights in expected.items():
        assert torch.equal(weights, found[name]), name


def test_both_phases_report_how_much_they_fire(digits: Dataset, tmp_path: Path) -> None:
    for metrics in fit(CONFIG, digits, tmp_path).history:
        for name in POPULATIONS:
            assert 0 < metrics[f"train/firing_rate/{name}"] < 1
            assert 0 < metrics[f"train/backward_firing_rate/{name}"] < 1
            assert 0 <= metrics[f"train/saturated_couples/{name}"] < 0.1


def scaled(loss_scale: float) -> TrainConfig:
    training = dataclasses.replace(CONFIG.training, loss_scale=loss_scale, epochs=1, milestones=())
    return dataclasses.replace(CONFIG, training=training)


def test_cut_off_gradients_are_reported(digits: Dataset, tmp_path: Path) -> None:
    (metrics,) = fit(scaled(1e6), digits, tmp_path).history
    assert metrics["train/saturated_couples/population2"] > 0.5


def test_a_training_on_lava_is_not_gone_on_with_by_torch(digits: Dataset, tmp_path: Path) -> None:
    fit(CONFIG, digits, tmp_path)
    trained, progress, state = load_training(tmp_path / LAST)
    save_checkpoint(trained, tmp_path / LAST, progress=progress, state=state | {"float64.readout.bias": torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r"was trained by fsnn train-on-lava.*resume it there: fsnn train-on-lava"
    ):
        fit(CONFIG, digits, tmp_path, resume=True)


def test_silent_and_saturated_couples_are_warned_of(digits: Dataset, tmp_path: Path) -> None:
    for scale, warning in ((1e-6, "no couple fires"), (1e6, "population2's couples saturate"), (100.0, "")):
        folder = tmp_path / str(scale)
        folder.mkdir()
        (metrics,) = fit(scaled(scale), digits, folder).history
        said = couple_warnings(metrics)
        assert bool(said) == bool(warning)
        assert any(warning in one for one in said) or not warning
    assert couple_warnings({"train/loss": 1.0, "train/firing_rate/population1": 0.0}) == [], "another method's"
