"""fsnn train and fsnn evaluate, and their scripts, as a user runs them: options, refusals, kills and Ctrl-C."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from fsnn_lava.cli import evaluate, train, train_on_lava as on_lava, training_display
from fsnn_lava.config import published_configs, read_config
from fsnn_lava.errors import CheckpointError, ConfigError, DatasetError, OutputError, SpecError
from fsnn_lava.training import BEST, LAST
from fsnn_lava.training.checkpoint import load_checkpoint, load_training
from process_group import wait_for_epochs
from script_loader import ROOT, said_by, status_of

pytestmark = pytest.mark.usefixtures("_threads")
CONFIG = published_configs()["fashion_mnist_fc_lif"]
SHORT = ["--network.notation", "30 (F30)", "--network.time-steps", "5", "--training.threads", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of two short epochs."""
    runs = tmp_path_factory.mktemp("runs")
    before = torch.get_num_threads()
    assert train.main([*SHORT, "--runs", str(runs), "--training.epochs", "2"]) == 0
    torch.set_num_threads(before)
    return runs / "digits"


def test_options_default_to_the_digits_configuration() -> None:
    assert train.parse_arguments([]).settings == read_config("digits")


def test_validation_is_said_with_the_accuracy_that_it_chose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.parse_arguments(["--validation", "7"]).settings.validation_samples == 7
    options = [*SHORT, "--runs", str(tmp_path), "--training.epochs", "1", "--validation", "300"]
    assert train.main(options) == 0
    shown = capsys.readouterr().out
    assert "1437 samples, 300 of them held out for validation" in shown
    assert re.search(r"train \d+\.\d\d%  validation \d+\.\d\d%  test \d+\.\d\d%  ", shown)
    assert re.search(r"\ntest accuracy \d+\.\d\d% \(epoch 1 of 1, chosen on 300 held-out training samples\)\n", shown)
    with pytest.raises(ConfigError, match="validation_samples: found 1437; the training part holds 1437; allowed: few"):
        train.main([*options, "--validation", "1437"])
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_config_file_sets_the_defaults_and_options_win() -> None:
    options = ["--training.epochs", "3", "--network.no-batch-norm", "--training.milestones", "1", "2"]
    found = train.parse_arguments(["--config", str(CONFIG), *options]).settings
    file = read_config(CONFIG)
    assert (found.training.epochs, found.network.batch_norm, found.training.milestones) == (3, False, (1, 2))
    assert (found.name, found.network.leak, found.dataset) == (file.name, 0.95, "fashion_mnist")
    assert train.parse_arguments(["--training.epochs", "3", f"--config={CONFIG}"]).settings.training.epochs == 3


def test_option_is_checked_together_with_the_file(tmp_path: Path) -> None:
    """Batches of one are allowed where the file has switched batch norm off, and only there."""
    (tmp_path / "a.toml").write_text("[network]\nbatch_norm = false")
    options = ["--training.batch-size", "1"]
    assert train.parse_arguments(["--config", str(tmp_path / "a.toml"), *options]).settings.training.batch_size == 1
    with pytest.raises(ConfigError, match=r"training\.batch_size: found 1; allowed: at least 2 with"):
        train.parse_arguments(options)


def test_resumed_run_keeps_its_settings(trained: Path) -> None:
    found = train.parse_arguments(["--resume", str(trained), "--training.epochs", "9"]).settings
    assert (found.network.notation, found.network.time_steps, found.training.epochs) == ("30 (F30)", 5, 9)


def test_config_and_resume_together_are_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="found --config and --resume; allowed: one of them"):
        train.parse_arguments(["--resume", str(trained), "--config", str(CONFIG)])


def test_another_run_is_begun_from(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its settings are the defaults of all others, its best weights those that the new one begins with."""
    options = ["--from", str(trained), "--training.arithmetic", "integer", "--training.weight-bits", "4"]
    found = train.parse_arguments(options)
    theirs = load_training(trained / LAST)[0].config
    integer = dataclasses.replace(theirs.training, arithmetic="integer", weight_bits=4)
    assert found.settings == dataclasses.replace(theirs, training=integer)
    assert (found.settings.network.notation, found.settings.training.epochs) == ("30 (F30)", 2)

    rest = ["--runs", str(tmp_path), "--training.learning-rate", "1e-30", "--training.weight-decay", "0"]
    before = (trained / LAST).read_bytes(), (trained / BEST).read_bytes()
    assert train.main([*options, *rest, "--training.epochs", "1"]) == 0
    assert before == ((trained / LAST).read_bytes(), (trained / BEST).read_bytes())
    lines = capsys.readouterr().out.splitlines()
    what = "30 (F30) on digits, by ide, IF neurons, T = 5 in integers (4 bits, hardware timing, without dropout), 1437 "
    assert lines[0].startswith(what)
    assert lines[0].endswith(f" -> {tmp_path / 'digits'}")
    assert lines[1] == f"begins with the best weights of {trained}"
    assert lines[-1] == f"next: fsnn export --to lava --run {tmp_path / 'digits'}"
    ours, theirs_best = load_checkpoint(tmp_path / "digits" / BEST), load_checkpoint(trained / BEST)
    for name in ("feedforward.0.weight", "readout.weight", "feedforward.0.batch_norm.running_mean"):
        assert torch.allclose(ours.weights[name], theirs_best.weights[name], rtol=1e-6, atol=0), name
    assert ours.weights["integers.feedback_mantissa"].any()
    assert int(ours.weights["integers.feedback_mantissa"].abs().max()) <= 8
    settings = json.loads((tmp_path / "digits" / "config.json").read_text())
    assert (settings["training"]["arithmetic"], settings["training"]["weight_bits"]) == ("integer", 4)

    assert train.main(["--resume", str(tmp_path / "digits"), "--training.epochs", "2"]) == 0
    shown = capsys.readouterr().out
    assert "T = 5 in integers (4 bits, hardware timing, without dropout)" in shown.splitlines()[0]
    assert "begins with" not in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--training.weight-bits", "2", "--training.symmetric"], "T = 5 in integers (ternary, hardware timing), "),
        (
            ["--training.time-steps-schedule", "3", "7", "--training.time-steps-by", "batch"],
            "T drawn of 3, 7 (tests: 5) in integers (8 bits, hardware timing)",
        ),
    ],
)
def test_first_line_names_the_integers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    common = ["--runs", str(tmp_path), "--training.arithmetic", "integer", "--network.dropout", "0"]
    part = ["--training.epochs", "1", "--train-samples", "100", "--test-samples", "50"]
    assert train.main([*SHORT, *common, *part, *options]) == 0
    assert said in capsys.readouterr().out.splitlines()[0]


def test_what_is_done_before_the_first_iteration_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = said_by(monkeypatch, train, training_display)
    part = ["--training.epochs", "1", "--train-samples", "100", "--test-samples", "50"]
    assert train.main([*SHORT, "--runs", str(tmp_path), "--training.arithmetic", "integer", *part]) == 0
    assert said[:3] == ["reading digits", "starting", "measuring the statistics of the batch norms"]
    assert "population1: the largest scale that is proven to fit 24 bits" in said
    assert said[-1].startswith("epoch 1  loss ")


def test_from_and_resume_together_are_refused(trained: Path) -> None:
    message = "found --from and --resume; allowed: one of them, since a resumed run has its own weights"
    with pytest.raises(ConfigError, match=message):
        train.parse_arguments(["--resume", str(trained), "--from", str(trained)])


def test_config_may_set_the_defaults_of_a_run_that_begins_with_another(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[training]\nepochs = 7")
    options = ["--config", str(tmp_path / "a.toml"), "--from", str(trained)]
    found = train.parse_arguments(options).settings
    assert (found.training.epochs, found.network.notation) == (7, "200 (F200)")


def test_weights_of_another_notation_are_refused(trained: Path, tmp_path: Path) -> None:
    message = (
        r'weights of "30 \(F30\)" do not fit this network and dataset: .*; a training that begins with another '
        "one's weights has its notation and its dataset"
    )
    for notation in ("20 (F20)", "30", "30-30 (F30)"):
        options = ["--from", str(trained), "--runs", str(tmp_path / "runs"), "--network.notation", notation]
        with pytest.raises(CheckpointError, match=message):
            train.main(options)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: no such file; train first"):
        train.main(["--from", str(tmp_path / "none"), "--runs", str(tmp_path / "runs")])


def test_weights_of_another_notation_are_refused_before_any_folder_is_made(trained: Path, tmp_path: Path) -> None:
    options = ["--from", str(trained), "--runs", str(tmp_path / "runs"), "--network.notation", "20 (F20)"]
    with pytest.raises(CheckpointError, match="do not fit this network and dataset"):
        train.main(options)
    assert not (tmp_path / "runs").exists()


def test_floats_that_begin_with_integers_are_told_of_their_bits(trained: Path, tmp_path: Path) -> None:
    options = ["--from", str(trained), "--runs", str(tmp_path), "--training.arithmetic", "integer"]
    assert train.main([*options, "--training.weight-bits", "4", "--training.epochs", "1"]) == 0
    floats = ["--from", str(tmp_path / "digits"), "--training.arithmetic", "float"]
    with pytest.raises(ConfigError, match=r'training\.weight_bits: found 4; allowed: 8 with training\.arithmetic = "f'):
        train.parse_arguments(floats)
    found = train.parse_arguments([*floats, "--training.weight-bits", "8"]).settings
    assert found == dataclasses.replace(
        load_checkpoint(trained / BEST).config, training=dataclasses.replace(found.training, arithmetic="float")
    )


def test_integer_options_that_contradict_are_refused_before_any_folder_is_made(tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    integer = ["--training.arithmetic", "integer"]
    with pytest.raises(ConfigError, match=r"training\.method: found 'bptt'; allowed: ide or spide with"):
        train.main([*runs, *integer, "--training.method", "bptt"])
    with pytest.raises(ConfigError, match=r"training\.device: found 'cuda'; allowed: cpu with training\.arithmetic"):
        train.main([*runs, *integer, "--device", "cuda"])
    with pytest.raises(ConfigError, match=r"training\.weight_bits: found 4; allowed: 8 with training\.arithmetic"):
        train.main([*runs, "--training.weight-bits", "4"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("module", [train, evaluate], ids=["train", "evaluate"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_types_and_defaults(module: ModuleType, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        module.main([flag])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    if module is evaluate:
        assert re.search(r"--samples INT .*default: 0", shown)
        return
    for option in (
        "--training.epochs INT",
        "--network.leak FLOAT",
        "--network.spectral-norm {reshaped,operator,frobenius}",
    ):
        assert option in shown
    assert re.search(r"--training\.epochs INT .{0,80}default: \d+", shown)
    undescribed = re.findall(r"(--[a-z.-]+) [A-Z]+ │ │ \(default", shown)
    assert undescribed == [], "every option says what it is"


def test_help_shows_the_defaults_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--config", str(CONFIG), "--help"])
    assert "(default: 0.95)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("module", [train, evaluate], ids=["train", "evaluate"])
def test_mistyped_option_stops_with_a_hint(module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    option = "--trainig.epochs" if module is train else "--sampels"
    with pytest.raises(SystemExit) as stopped:
        module.main([option, "3"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert f"Unrecognized options: {option}" in shown
    assert "--help" in shown


def test_mistyped_value_stops(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--training.epochs", "three"])
    assert stopped.value.code == 2
    assert "--training.epochs" in capsys.readouterr().err


def test_refusals_come_before_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSNN_DATA", raising=False)
    runs = ["--runs", str(tmp_path / "runs")]
    with pytest.raises(ConfigError, match=r"config .*none\.toml: cannot be read"):
        train.main([*runs, "--config", str(tmp_path / "none.toml")])
    with pytest.raises(SpecError, match='layer 1 of "64D3": cannot read "64D3"'):
        train.main([*runs, "--network.notation", "64D3"])
    with pytest.raises(DatasetError, match=r"fashion_mnist: no data folder is given\. Set FSNN_DATA or pass --"):
        train.main([*runs, "--config", str(CONFIG)])
    with pytest.raises(DatasetError, match='no dataset "dogs"'):
        train.main([*runs, "--dataset", "dogs"])
    assert not (tmp_path / "runs").exists()


def test_runs_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutputError, match=r"folder .*digits: cannot be made \(File exists\); choose another"):
        train.main(["--runs", str(tmp_path / "runs")])


def test_refused_resume_changes_no_file(trained: Path) -> None:
    before = {p.name: p.read_bytes() for p in trained.iterdir() if p.is_file()}
    assert {"config.json", LAST, BEST} <= set(before)
    with pytest.raises(ConfigError, match=r"cannot resume with other settings: training\.learning_rate"):
        train.main(["--resume", str(trained), "--training.learning-rate", "0.1"])
    assert {p.name: p.read_bytes() for p in trained.iterdir() if p.is_file()} == before


def test_resume_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.safetensors: no such file; train first"):
        train.main(["--resume", str(tmp_path / "none")])


def test_device_that_is_not_there_is_refused_before_any_folder_is_made(tmp_path: Path) -> None:
    for option in ("--device", "--training.device"):
        with pytest.raises(ConfigError, match=r"training\.device: found 'cuda:99'; this machine has .*--device|choose"):
            train.main(["--runs", str(tmp_path / "runs"), option, "cuda:99"])
    with pytest.raises(ConfigError, match=r"training\.device: found 'gpu'; allowed: cpu, cuda or cuda:N"):
        train.main(["--runs", str(tmp_path / "runs"), "--device", "gpu"])
    with pytest.raises(ConfigError, match="train_samples: found 9999; the dataset holds 1437"):
        train.main(["--runs", str(tmp_path / "runs"), "--train-samples", "9999"])
    assert not (tmp_path / "runs").exists()


def test_evaluation_refuses_a_device_that_is_not_there(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.device: found 'cuda:99'; this machine has "):
        evaluate.main(["--run", str(trained), "--device", "cuda:99"])


def test_training_ends_with_what_to_run_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs [old] in a path that is longer than one line of a terminal would ever be, and then some"
    assert train.main([*SHORT, "--runs", str(folder), "--training.epochs", "1", "--name", "mine"]) == 0
    shown = capsys.readouterr().out.rstrip().splitlines()
    assert re.fullmatch(r"best test accuracy \d+\.\d\d% \(epoch 1 of 1, chosen on the test set\)", shown[-2])
    assert shown[-1] == f"next: fsnn export --to lava --run {folder}/mine"
    settings = json.loads((folder / "mine" / "config.json").read_text())
    assert settings["network"]["notation"] == "30 (F30)"
    assert list((folder / "mine" / "tensorboard").iterdir()) != []


def test_part_of_the_data_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--runs", str(tmp_path), "--training.epochs", "1", "--train-samples", "200", "--test-samples", "50"]
    assert train.main([*SHORT, *options]) == 0
    shown = capsys.readouterr().out
    assert "on digits, by ide, IF neurons, T = " in shown
    assert "200 samples, tested on 50 (a part of the data: not comparable with published figures), on " in shown


def test_feedback_that_comes_too_late_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [*SHORT, "--runs", str(tmp_path), "--training.epochs", "1", "--network.notation", "30-20-10 (F30)"]
    warning = "warning: the feedback has no part in this training: a spike comes back 3 steps later, and T = 3"
    for timing, steps, told in (("hardware", 3, True), ("hardware", 4, False), ("sequential", 3, False)):
        assert train.main([*common, "--training.timing", timing, "--network.time-steps", str(steps)]) == 0
        shown = capsys.readouterr().out
        assert (warning in shown) == told
        assert (f"T = {steps} in hardware timing" in shown) == (timing == "hardware")


def test_resume_says_what_changes(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "digits"
    shutil.copytree(trained, folder)
    resume = ["--resume", str(folder)]
    assert train.main(resume) == 0
    shown = capsys.readouterr().out
    assert "goes on after 2 whole epochs and 0 iterations of the next" in shown
    assert "epochs done: all 2; more with --training.epochs" in shown
    assert "differs" not in shown
    assert train.main([*resume, "--training.epochs", "3", "--training.precision", "bf16"]) == 0
    shown = capsys.readouterr().out
    assert "training.precision ('float32' -> 'bf16'): what follows differs by rounding" in shown
    assert "epochs done" not in shown
    assert "training.epochs" not in shown


def test_a_run_whose_rate_follows_its_epochs_is_offered_none_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*SHORT, "--runs", str(tmp_path), "--training.epochs", "2"]
    assert train.main([*common, "--training.schedule", "cosine"]) == 0
    capsys.readouterr()
    resume = ["--resume", str(tmp_path / "digits")]
    assert train.main(resume) == 0
    shown = capsys.readouterr().out
    assert "epochs done: all 2\n" in shown
    with pytest.raises(ConfigError, match=r"training\.epochs \(2 -> 3\)"):
        train.main([*resume, "--training.epochs", "3"])
    assert "differs" not in capsys.readouterr().out


def test_progress_within_an_epoch_is_said_where_there_is_no_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_by(monkeypatch, train, training_display)
    assert train.main([*SHORT, "--runs", str(tmp_path), "--training.epochs", "1"]) == 0
    assert said[:2] == ["reading digits", "starting"]
    lines = [re.fullmatch(r"epoch 1  loss \d\.\d{4}(, testing)?, (\d+)/12", line) for line in said[2:]]
    assert [line[2] for line in lines] == [str(done) for done in range(1, 13)]
    assert [line[1] for line in lines] == [None] * 11 + [", testing"]


def test_a_run_on_another_dataset_is_not_named_after_the_config() -> None:
    def name(*options: str) -> str:
        return train.parse_arguments(list(options)).settings.name

    assert name() == "digits"
    assert on_lava.parse_arguments(["--dataset", "mnist"]).settings.name == "mnist"
    assert on_lava.parse_arguments([]).settings.name == "digits_spide"
    assert name("--dataset", "fashion_mnist") == "fashion_mnist"
    assert name("--dataset", "fashion_mnist", "--name", "mine") == "mine"
    assert name("--config", "mnist_conv_if", "--dataset", "mnist") == "mnist_conv_if"


def test_second_run_of_a_name_gets_a_folder_of_its_own(trained: Path) -> None:
    before = (trained / LAST).read_bytes()
    assert train.main([*SHORT, "--runs", str(trained.parent), "--training.epochs", "1"]) == 0
    assert (trained.parent / "digits-2" / LAST).exists()
    assert (trained / LAST).read_bytes() == before


def test_evaluation_shows_the_accuracy_of_the_best_epoch(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, progress, _ = load_training(trained / LAST)
    assert evaluate.main(["--run", str(trained)]) == 0
    shown = capsys.readouterr().out
    assert f"test accuracy {progress['best_accuracy']:.2%}" in shown
    assert "on test samples: all 360" in shown
    rates = re.search(r"population1 │ (\d\.\d{4}) +│ (\d\.\d{4})", shown)
    assert rates[1] == rates[2], "without leak both rates are the same"
    assert re.findall(r"│ (\d+) +│ \d+\.\d{4}", shown) == ["1", "2", "5"]
    assert "||f(a[t]) - a[t]||" in shown
    assert shown.rstrip().splitlines()[-1] == f"next: fsnn export --to lava --run {trained}"


def test_evaluation_takes_samples_and_steps(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--runs", str(trained.parent), "--samples", "50", "--time-steps", "30", "--curve-samples", "7"]
    assert evaluate.main(options) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "T = 30" in shown
    assert "on test samples: 50 of 360, evenly spread" in shown
    assert "mean of 7 samples" in shown
    assert re.findall(r"│ (\d+) +│ \d+\.\d{4}", shown) == ["1", "2", "5", "10", "20", "30"]


def test_evaluation_refuses_what_it_cannot_do(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"best\.safetensors: no such file; train first"):
        evaluate.main(["--run", str(tmp_path)])
    with pytest.raises(ConfigError, match=r"no run holds best\.safetensors"):
        evaluate.main(["--runs", str(tmp_path)])
    for option in ("--samples", "--time-steps"):
        with pytest.raises(ConfigError, match=f"{option}: found -1; allowed: at least 0"):
            evaluate.main(["--run", str(trained), option, "-1"])
    with pytest.raises(ConfigError, match=r"--samples: found 361; allowed: 0 \(all\) \.\. 360"):
        evaluate.main(["--run", str(trained), "--samples", "361"])


@pytest.mark.slow
def test_default_configuration_reaches_its_accuracy(tmp_path: Path) -> None:
    assert train.main(["--runs", str(tmp_path)]) == 0
    _, progress, _ = load_training(tmp_path / "digits" / LAST)
    assert progress["best_accuracy"] >= 0.96
    assert progress["history"][-1]["test/accuracy"] >= 0.96, "not by luck of one epoch"


LONG = [*SHORT, "--training.epochs", "20", "--training.checkpoint-minutes", "1e-9"]
"""Writes a checkpoint after every iteration, so that a kill often falls into the writing of one."""


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """train.py in a process of its own, which is gone afterwards whatever happens."""
    command = [sys.executable, str(ROOT / "train" / "train.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("uninterrupted")
    before = torch.get_num_threads()
    assert train.main([*LONG, "--runs", str(runs)]) == 0
    torch.set_num_threads(before)
    return runs / "digits"


def assert_same_tensors(folder: Path, other: Path) -> None:
    for name in (LAST, BEST):
        ours, theirs = load_file(folder / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(v, theirs[k]) for k, v in ours.items())


@pytest.mark.slow
def test_killed_run_goes_on_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    """Killed twice, each time somewhere after a random epoch."""
    folder = tmp_path / "digits"
    epochs = random.Random(0)
    arguments = [*LONG, "--runs", str(tmp_path)]
    for _ in range(2):
        with running(*arguments) as process:
            wait_for_epochs(process, epochs.randrange(1, 8))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        arguments = ["--resume", str(folder)]
    assert train.main(["--resume", str(folder)]) == 0
    assert_same_tensors(folder, uninterrupted)


def test_ctrl_c_leaves_what_can_go_on(uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "digits"
    with running(*LONG, "--runs", str(tmp_path)) as process:
        wait_for_epochs(process, 3)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate()
    assert process.returncode == 130, shown
    last = shown.rstrip().splitlines()[-2:]
    assert re.fullmatch(r"interrupted after \d+ whole epochs?; what was done of the next one is kept", last[0].strip())
    assert last[1] == f"next: python train/train.py --resume {folder}"
    assert train.main(["--resume", str(folder)]) == 0
    assert "best test accuracy" in capsys.readouterr().out
    assert_same_tensors(folder, uninterrupted)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_refusal_is_a_message_and_exit_status_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets in a message are shown, though rich takes them for markup."""
    (tmp_path / "a.toml").write_text("network = 3")
    arguments = ["--config", str(tmp_path / "a.toml")] if name == "train" else ["--runs", str(tmp_path / "[none]")]
    assert status_of(f"train/{name}.py", *arguments) == 2
    message = capsys.readouterr().err
    expected = "expected a table [network]" if name == "train" else "[none]: no run holds best.safetensors"
    assert expected in message
    assert message.startswith("ConfigError: ")
