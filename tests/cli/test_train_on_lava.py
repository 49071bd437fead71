"""fsnn train-on-lava as a user runs it: options, refusals, Ctrl-C; what it writes is gone on with and deployed."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fsnn_lava.backends.lava import runner as lava_runner
from fsnn_lava.backends.lava.learning.job import TrainingJob, TrainingOutcome
from fsnn_lava.backends.lava.learning.runner import train_on_lava
from fsnn_lava.cli import export, run, script, train, train_on_lava as on_lava, training_display
from fsnn_lava.config import TrainConfig, published_configs, read_config
from fsnn_lava.datasets import load_dataset
from fsnn_lava.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    ConvergenceError,
    DatasetError,
    IncompleteRunError,
    MissingDependencyError,
    OutputError,
    UnsupportedError,
)
from fsnn_lava.training import BEST, LAST, on_lava as on_chip_training
from fsnn_lava.training.checkpoint import load_checkpoint, load_training, save_checkpoint
from fsnn_lava.training.on_lava import fit_on_lava
from fsnn_lava.training.on_lava_check import Agreement
from fsnn_lava.training.on_lava_network import parameters_of
from on_chip_jobs import part
from script_loader import ROOT, said_by

pytestmark = pytest.mark.usefixtures("_threads")
CONFIG = published_configs()["digits_spide"]
NAME = "digits_spide_on_lava"
Damage = Callable[[dict[str, Any], dict[str, Tensor]], tuple[dict[str, Any], dict[str, Tensor]]]
SHORT = [
    *("--network.notation", "20 (F20)", "--network.time-steps", "8", "--training.time-steps-back", "12"),
    *("--training.batch-size", "16", "--training.warmup-iterations", "8", "--training.threads", "1"),
    *("--samples", "80", "--test-samples", "100"),
]


def test_defaults_are_the_digits_configuration_without_dropout() -> None:
    found, file = on_lava.parse_arguments([]).settings, read_config(CONFIG)
    assert found.network.dropout == 0
    assert (found.training, found.network.notation) == (file.training, file.network.notation)


def test_options_win_over_the_file() -> None:
    arguments = ["--config", str(CONFIG), "--network.dropout", "0", "--epochs", "2", "--samples", "50"]
    found = on_lava.parse_arguments(arguments).settings
    assert (found.network.dropout, found.training.epochs, found.train_samples) == (0, 2, 50)


def test_what_cannot_be_said_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"network\.dropout 0\.2; allowed: 0"):
        on_lava.main(["--config", str(CONFIG), "--runs", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


@pytest.mark.lava
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["--samples", "99999"], ConfigError, "train_samples: found 99999; the dataset holds 1437"),
        (["--test-samples", "99999"], ConfigError, "test_samples: found 99999; the dataset holds 360"),
        (["--check", "-1"], ConfigError, r"samples to check: found -1; allowed: 1 \.\. 80"),
    ],
)
def test_refusals_come_before_a_folder(options: list[str], kind: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        on_lava.main([*SHORT, *options, "--runs", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (["--training.arithmetic", "integer"], r"training\.arithmetic"),
        (["--training.time-steps-schedule", "3", "8"], r"training\.time_steps_schedule"),
    ],
)
def test_settings_of_integers_that_lava_does_not_know_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], setting: str
) -> None:
    monkeypatch.setattr(on_lava, "require_lava", lambda: pytest.fail("not refused"))
    with pytest.raises((ConfigError, UnsupportedError), match=setting):
        on_lava.main([*SHORT, "--runs", str(tmp_path / "runs"), *options])
    assert not (tmp_path / "runs").exists()


def test_dataset_that_does_not_fit_is_refused_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_dataset("digits")
    wrong = replace(whole, classes=whole.classes[:5])
    monkeypatch.setattr(on_lava, "dataset_of_settings", lambda *_: wrong)
    with pytest.raises(DatasetError, match=r"training part: labels 0 \.\. 9; allowed: 0 \.\. 4"):
        on_lava.main([*SHORT, "--runs", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


def test_without_lava_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lava_runner, "_installed", lambda module: False)
    with pytest.raises(MissingDependencyError, match="Lava is not installed"):
        on_lava.main([*SHORT, "--runs", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "a.toml", "--resume", "b"], "found --config and --resume"),
        pytest.param(
            ["--check", "81", *SHORT], r"samples to check: found 81; allowed: 1 \.\. 80", marks=pytest.mark.lava
        ),
    ],
)
def test_options_that_contradict_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        on_lava.main(arguments)


RIGHT = {"readout.weight": 1e-10, "readout.bias": 0.0}
BEYOND = {"readout.weight": 0.0, "readout.bias": 2e-9}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Agreement(1, 1, 5, 5, 0, 1, RIGHT, RIGHT), "different 1 backward spike; allowed: no other spike, and 1e-09"),
        (Agreement(1, 1, 5, 5, 2, 0, RIGHT, RIGHT), "different 2 forward spikes; allowed"),
        (Agreement(1, 1, 5, 5, 0, 0, BEYOND, RIGHT), r"different the gradient of readout\.bias by 2\.0e-09; allowed"),
        (Agreement(1, 1, 5, 5, 0, 0, RIGHT, BEYOND), r"different the value of readout\.bias by 2\.0e-09; allowed"),
        (Agreement(1, 1, 5, 5, 0, 0, RIGHT | {"readout.bias": math.nan}, RIGHT), r"readout\.bias by nan; allowed"),
    ],
)
def test_a_difference_ends_the_run(found: Agreement, message: str) -> None:
    with pytest.raises(BackendError, match=rf"not those of gradients/spide\.py; nothing was trained.*{message}"):
        on_lava.show_agreement(found)


def test_rounding_does_not_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    on_lava.show_agreement(Agreement(2, 9, 5, 6, 0, 0, RIGHT, {"readout.weight": 1e-12}))
    assert "gradients within 1.0e-10, weights within 1.0e-12 of the largest" in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of two short epochs, whose first batch was checked."""
    runs = tmp_path_factory.mktemp("runs")
    before = torch.get_num_threads()
    assert on_lava.main([*SHORT, "--epochs", "2", "--check", "3", "--runs", str(runs)]) == 0
    torch.set_num_threads(before)
    return runs / NAME


@pytest.mark.lava
def test_a_run_is_a_checkpoint_as_any_other(trained: Path) -> None:
    last, progress, state = load_training(trained / LAST)
    assert (progress["epoch"], progress["iteration"], len(progress["history"])) == (2, 0, 2)
    figures = progress["history"][1]
    assert 0 < figures["train/firing_rate/population1"] < 1
    assert 0 < figures["train/backward_firing_rate/population1"] < 1
    assert figures["train/steps_per_second"] > 0
    assert figures["train/loss"] < progress["history"][0]["train/loss"]
    for name, weight in last.weights.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, state[f"float64.{name}"].float())
        assert torch.equal(state[f"momentum.{name}"], state[f"float64.momentum.{name}"].float())
    load_checkpoint(trained / BEST).model()
    assert "simulated on-chip training" in last.metrics["device"]


@pytest.mark.lava
def test_it_is_exported_and_run_as_any_other(trained: Path) -> None:
    assert export.main(["--run", str(trained), "--calibration-samples", "30"]) == 0
    assert run.main(["--run", str(trained), "--samples", "20"]) == 0


@pytest.mark.lava
def test_a_folder_is_not_used_twice(trained: Path) -> None:
    before = (trained / LAST).read_bytes()
    options = [*SHORT, "--network.time-steps", "3", "--training.time-steps-back", "4", "--epochs", "1"]
    assert on_lava.main([*options, "--runs", str(trained.parent)]) == 0
    assert (trained.parent / f"{NAME}-2" / LAST).exists()
    with pytest.raises(CheckpointError, match=r"holds a training already; resume it \(--resume .*\) or use"):
        fit_on_lava(load_checkpoint(trained / LAST).config, load_dataset("digits"), trained)
    assert (trained / LAST).read_bytes() == before


def test_runs_folder_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_lava, "require_lava", lambda: None)
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutputError, match=rf"folder .*{NAME}: cannot be made \(File exists\).*with --runs"):
        on_lava.main([*SHORT, "--runs", str(tmp_path / "runs")])


@pytest.mark.lava
def test_progress_within_an_epoch_is_said_where_there_is_no_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_by(monkeypatch, training_display)
    options = [*SHORT, "--network.time-steps", "3", "--training.time-steps-back", "4", "--epochs", "1"]
    assert on_lava.main([*options, "--runs", str(tmp_path)]) == 0
    assert said[0] == "starting Lava"
    done = [int(re.fullmatch(r"epoch 1  loss \d\.\d{4}(?:, testing)?, (\d+)/80", line)[1]) for line in said[1:]]
    assert done[-1] == 80
    assert done == sorted(done)


@pytest.mark.lava
def test_progress_is_shown_from_time_to_time_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SILENCE", 1e9)
    options = [*SHORT, "--network.time-steps", "3", "--training.time-steps-back", "4", "--epochs", "1"]
    assert on_lava.main([*options, "--runs", str(tmp_path)]) == 0
    assert "/80 (" not in capsys.readouterr().out


@pytest.mark.lava
@pytest.mark.parametrize(
    "damage",
    [
        lambda progress, state: (progress | {"another": 1}, state),
        lambda progress, state: ({}, state),
        lambda progress, state: (progress, state | {"float64.feedback.weight": torch.zeros(3, 3).double()}),
        lambda progress, state: (progress, state | {"float64.momentum.feedback.weight": torch.zeros(3, 3).double()}),
    ],
    ids=["unknown field", "no progress", "weight of another shape", "momentum of another shape"],
)
def test_a_damaged_state_is_refused(damage: Damage, trained: Path, tmp_path: Path) -> None:
    last, progress, state = load_training(trained / LAST)
    progress, state = damage(progress, state)
    save_checkpoint(last, tmp_path / LAST, progress=progress, state=state)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: the state to resume from is incomplete"):
        fit_on_lava(last.config, load_dataset("digits"), tmp_path, resume=True)


@pytest.mark.lava
def test_settings_of_a_resumed_run_are_kept(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot resume with other settings: training\.momentum"):
        on_lava.main(["--resume", str(trained), "--training.momentum", "0.5"])


@pytest.mark.lava
def test_another_programs_run_is_not_gone_on_with(tmp_path: Path) -> None:
    options = ["--config", str(CONFIG), "--network.dropout", "0", "--training.epochs", "1", *SHORT[:-4]]
    options += ["--train-samples", "40", "--test-samples", "20", "--runs", str(tmp_path)]
    assert train.main(options) == 0
    with pytest.raises(CheckpointError, match=r"without weights in float64; go on with it: fsnn train"):
        on_lava.main(["--resume", str(tmp_path / "digits_spide"), "--epochs", "2"])


@pytest.mark.lava
def test_ctrl_c_keeps_every_whole_update_and_the_run_goes_on_bit_for_bit(tmp_path: Path, trained: Path) -> None:
    """Stopped in the midst of the first epoch; then to its end, where it is the same as the run in one piece."""
    folder = tmp_path / NAME
    program = (
        "import signal, os, sys\n"
        "from fsnn_lava.cli import train_on_lava\n"
        "from fsnn_lava.cli.script import run_script\n"
        "from fsnn_lava.cli.training_display import Screen\n"
        "show = Screen.iteration\n"
        "def stop(self, *, epoch, done, total, loss):\n"
        "    show(self, epoch=epoch, done=done, total=total, loss=loss)\n"
        "    if done >= 40:\n"
        "        print('stopping', flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "Screen.iteration = stop\n"
        "run_script(train_on_lava.main)\n"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in [*sys.path, str(ROOT / "tests")])
    }
    command = [sys.executable, "-c", program, *SHORT, "--epochs", "2", "--runs", str(tmp_path)]
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (130, ""), ran.stdout + ran.stderr
    assert f"next: fsnn train-on-lava --resume {folder}" in ran.stdout
    _, progress, _ = load_training(folder / LAST)
    assert progress["epoch"] == 0
    assert 2 <= progress["iteration"] < 5
    assert progress["sums"]["samples"] == 16 * progress["iteration"]
    assert on_lava.main(["--resume", str(folder)]) == 0
    _, whole, expected = load_training(trained / LAST)
    _, resumed, found = load_training(folder / LAST)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    same = ("train/loss", "train/accuracy", "test/accuracy", "train/firing_rate/population1")
    for here, there in zip(resumed["history"], whole["history"], strict=True):
        assert [here[name] for name in same] == pytest.approx([there[name] for name in same], rel=1e-12)


def settings(folder: Path) -> TrainConfig:
    """Of a short run of one epoch, whose folder is made."""
    folder.mkdir()
    found: TrainConfig = on_lava.parse_arguments([*SHORT, "--epochs", "1"]).settings
    return found


@pytest.mark.lava
def test_epoch_interrupted_before_its_test_is_not_shown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, dataset = settings(tmp_path / "run"), load_dataset("digits")
    with monkeypatch.context() as patch:
        patch.setattr("fsnn_lava.training.session.evaluate", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_on_lava(config, dataset, tmp_path / "run")
    _, progress, before = load_training(tmp_path / "run" / LAST)
    assert (progress["epoch"], progress["iteration"]) == (0, 5)
    monkeypatch.setattr(on_chip_training, "train_on_lava", _interrupt)
    result = fit_on_lava(config, dataset, tmp_path / "run", resume=True)
    assert (result.finished, result.epochs, result.history[0]["train/steps_per_second"]) == (True, 1, 0)
    _, _, after = load_training(tmp_path / "run" / LAST)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


@pytest.mark.lava
@pytest.mark.parametrize("kind", [IncompleteRunError, ConvergenceError])
def test_failure_keeps_whole_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    kept: list[TrainingOutcome] = []

    def fail(job: TrainingJob, *, progress: object, timeout_s: float) -> TrainingOutcome:
        kept.append(train_on_lava(part(job, slice(0, 2))))
        broken = IncompleteRunError("broken", samples=32, result=kept[0])
        if kind is IncompleteRunError:
            raise broken
        raise ConvergenceError("broken") from broken

    monkeypatch.setattr(on_chip_training, "train_on_lava", fail)
    config = settings(tmp_path / "run")
    with pytest.raises(kind, match="broken"):
        fit_on_lava(config, load_dataset("digits"), tmp_path / "run")
    _, progress, state = load_training(tmp_path / "run" / LAST)
    assert (progress["epoch"], progress["iteration"], progress["sums"]["samples"]) == (0, 2, 32)
    for name, values in parameters_of(kept[0].network).items():
        assert torch.equal(state[f"float64.{name}"], values)


def _interrupt(*arguments: object, **settings: object) -> None:
    raise KeyboardInterrupt
