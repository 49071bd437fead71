"""Training: what cannot be done is refused before anything is written; what goes wrong leaves the last good state."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from fsnn_lava.config import TrainConfig
from fsnn_lava.datasets import Dataset, InputCoding, Samples
from fsnn_lava.errors import CheckpointError, ConfigError, ConvergenceError, DatasetError, OutputError, SpecError
from fsnn_lava.training import BEST, LAST, fit
from fsnn_lava.training.checkpoint import load_checkpoint, load_training
from short_training import CONFIG, PER_EPOCH, changed, short_digits


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """150 training and 60 test images."""
    return short_digits()


@pytest.fixture(scope="module")
def whole_run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished training."""
    folder = tmp_path_factory.mktemp("whole")
    assert fit(CONFIG, digits, folder).finished
    return folder


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(learning_rate=0.1), r"training\.learning_rate \(0\.05 -> 0\.1\); only training\.epochs"),
        (changed(seed=6), r"training\.seed \(5 -> 6\)"),
        (changed(network={"leak": 0.9}), r"network\.leak \(1\.0 -> 0\.9\)"),
        (changed(network={"notation": "10 (F10)"}), r"network\.notation \('12-10 \(F12\)' -> '10 \(F10\)'\)"),
        (dataclasses.replace(CONFIG, dataset="mnist"), r"cannot resume with other settings: dataset"),
    ],
)
def test_resume_with_other_settings_is_refused(
    digits: Dataset, whole_run: Path, config: TrainConfig, message: str
) -> None:
    before = (whole_run / LAST).read_bytes()
    with pytest.raises(ConfigError, match=message):
        fit(config, digits, whole_run, resume=True)
    assert (whole_run / LAST).read_bytes() == before


def test_folder_that_holds_a_run_is_refused(digits: Dataset, whole_run: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds a training already; resume it \(--resume .*\) or use another folder"
    ):
        fit(CONFIG, digits, whole_run)


def test_resume_of_nothing_is_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.safetensors: no such file; train first"):
        fit(CONFIG, digits, tmp_path, resume=True)


def test_resume_of_weights_alone_is_refused(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes((whole_run / BEST).read_bytes())
    with pytest.raises(CheckpointError, match="the state to resume from is incomplete: 'progress'"):
        fit(CONFIG, digits, tmp_path, resume=True)


def test_folder_that_cannot_be_written_to_is_refused(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"last\.safetensors: cannot be written: Not a directory"):
        fit(CONFIG, digits, tmp_path / "file")


DIVERGED = (
    r"epoch 1, iteration \d+: the loss is \S+; .*last\.safetensors keeps the last good state \(0 whole epochs and "
    r"\d+ iterations\)\. To go on from it would end the same way: train anew with a lower training\.learning_rate"
)


@pytest.mark.parametrize("minutes", [1e-9, 5.0])
def test_loss_that_is_not_finite_stops_the_training(digits: Dataset, tmp_path: Path, minutes: float) -> None:
    """What is kept are the sound weights from before, though a checkpoint is written after every iteration."""
    config = changed(learning_rate=1e38, warmup_iterations=0, checkpoint_minutes=minutes)
    with pytest.raises(ConvergenceError, match=DIVERGED):
        fit(config, digits, tmp_path)
    load_checkpoint(tmp_path / LAST).model()
    assert not (tmp_path / BEST).exists()


@pytest.mark.parametrize("notation", ["12-10 (F12)", "12-10"], ids=["feedback", "no adjoint to fail"])
@pytest.mark.parametrize("minutes", [1e-9, 5.0])
def test_loss_that_is_no_number_is_named(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, notation: str
) -> None:
    """Of the seventh iteration; the epoch before is kept, or the iteration before, and so is its best state."""
    cross_entropy, calls = functional.cross_entropy, []

    def poisoned(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        calls.append(reduction)
        loss = cross_entropy(logits, labels, reduction=reduction)
        return loss * float("nan") if calls.count("mean") == PER_EPOCH + 2 else loss

    monkeypatch.setattr("fsnn_lava.training.loop.functional.cross_entropy", poisoned)
    with pytest.raises(ConvergenceError, match=r"epoch 2, iteration 2: the loss is nan; .*\(1 whole epochs and"):
        fit(changed(checkpoint_minutes=minutes, network={"notation": notation}), digits, tmp_path)
    _, progress, _ = load_training(tmp_path / LAST)
    assert (progress["epoch"], progress["iteration"]) == (1, 1 if minutes < 1 else 0)
    assert load_checkpoint(tmp_path / BEST).metrics["epoch"] == 1


@pytest.mark.parametrize("minutes", [1e-9, 5.0])
def test_weight_that_is_no_number_reaches_no_checkpoint(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    """The gradient of the epoch's last iteration breaks while its loss is still fine."""
    step, steps = torch.optim.SGD.step, []

    def poisoned(self: torch.optim.SGD) -> None:
        steps.append(1)
        if len(steps) == 2 * PER_EPOCH:
            self.param_groups[0]["params"][0].grad.view(-1)[0] = float("inf")
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", poisoned)
    message = r'epoch 2, iteration \d+: weight "feedforward\.0\.weight" has values that are not finite; .*last\.safe'
    with pytest.raises(ConvergenceError, match=message):
        fit(changed(checkpoint_minutes=minutes), digits, tmp_path)
    trained, progress, _ = load_training(tmp_path / LAST)
    trained.model()
    assert (progress["epoch"], progress["iteration"]) == (1, PER_EPOCH - 1 if minutes < 1 else 0)
    load_checkpoint(tmp_path / BEST).model()


def test_sizes_that_are_mixed_up_are_refused(digits: Dataset, tmp_path: Path) -> None:
    small = Samples(digits.test.codes[:, :, :7], digits.test.labels)
    with pytest.raises(DatasetError, match=r'"digits", test part: samples of shape \(1, 7, 8\); expected \(1, 8, 8\)'):
        fit(CONFIG, dataclasses.replace(digits, test=small), tmp_path)
    with pytest.raises(DatasetError, match=r"training part: samples of shape \(1, 8, 8\); expected \(3, 8, 8\)"):
        fit(CONFIG, dataclasses.replace(digits, input_shape=(3, 8, 8)), tmp_path)
    with pytest.raises(SpecError, match=r'layer 2 of "4C3-P16": pool P16 is given 8x8'):
        fit(changed(network={"notation": "4C3-P16"}), digits, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_samples_that_do_not_fit_their_description_are_refused(digits: Dataset, tmp_path: Path) -> None:
    colours = dataclasses.replace(digits.coding, mean=(0.1, 0.2), std=(1.0, 1.0))
    with pytest.raises(DatasetError, match=r"2 channels are normalised; its samples have 1; expected one mean and std"):
        fit(CONFIG, dataclasses.replace(digits, coding=colours), tmp_path)
    with pytest.raises(DatasetError, match=r"training part: labels 0 \.\. 9; allowed: 0 \.\. 8, one for each class"):
        fit(CONFIG, dataclasses.replace(digits, classes=digits.classes[:9]), tmp_path)
    with pytest.raises(DatasetError, match="test part: no samples; expected at least one"):
        fit(CONFIG, dataclasses.replace(digits, test=digits.test.select(np.arange(0))), tmp_path)


def test_event_frames_must_be_as_many_as_steps(digits: Dataset, tmp_path: Path) -> None:
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0,), std=(1.0,))
    frames = Samples(np.repeat(digits.train.codes[:, None] > 7, 4, axis=1).astype(np.uint8), digits.train.labels)
    events = dataclasses.replace(digits, train=frames, test=frames, coding=coding)
    with pytest.raises(ConfigError, match=r"network\.time_steps: found 6; allowed: 4"):
        fit(CONFIG, events, tmp_path)
    assert fit(changed(epochs=1, network={"time_steps": 4}), events, tmp_path).finished


def test_device_that_is_not_there_is_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.device: found 'cuda:99'; .*this machine has "):
        fit(changed(device="cuda:99"), digits, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weight_that_breaks_in_the_last_iteration_of_an_epoch_is_named(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = torch.optim.SGD.step, []

    def breaking(optimizer: torch.optim.SGD) -> None:
        calls.append(optimizer)
        step(optimizer)
        if len(calls) == PER_EPOCH:
            optimizer.param_groups[0]["params"][0].data.fill_(torch.inf)

    monkeypatch.setattr(torch.optim.SGD, "step", breaking)
    with pytest.raises(ConvergenceError, match=r"weight \"feedforward\.0\.weight\" has values that are not finite"):
        fit(CONFIG, digits, tmp_path)
    assert load_training(tmp_path / LAST)[1]["epoch"] == 0


def test_norm_that_cannot_be_found_stops_the_training(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(feedback: object) -> None:
        raise torch.linalg.LinAlgError("non-finite values")

    monkeypatch.setattr("fsnn_lava.training.loop.feedback_norms", failing)
    with pytest.raises(ConvergenceError, match=r"the feedback weight has grown out of all bounds; .*learning_rate"):
        fit(CONFIG, digits, tmp_path)
