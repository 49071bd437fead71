"""Every benchmark answers --help and runs at a tiny size without downloaded data. What it measures is not asserted."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.deployment.exponents import exponents_table
from benchmarks.shared.results import BENCHMARKS_README, RESULTS, stored
from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.conversion.export_folder import NETWORK_FILES
from fsnn_lava.conversion.lowering import lower
from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.hardware.network_file import save_network
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.training import BEST, fit
from fsnn_lava.training.checkpoint import load_checkpoint
from script_loader import SCRIPTS, status_of

Run = Callable[..., str]


def _small_digits() -> Dataset:
    digits = load_dataset("digits")
    few = digits.train.select(slice(0, 64))
    return replace(digits, train=few, test=few)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of a moment on digits, exported."""
    folder = tmp_path_factory.mktemp("run")
    network = NetworkConfig(notation="12 (F12)", time_steps=4)
    training = TrainingConfig(epochs=1, batch_size=32, milestones=(), threads=1)
    dataset = _small_digits()
    fit(TrainConfig(name="tiny", network=network, training=training), dataset, folder)
    floating = lower(load_checkpoint(folder / BEST))
    integer, _ = quantize(floating, dataset.train.codes[:16])
    for exported in (floating, integer):
        save_network(exported, folder / NETWORK_FILES[exported.arithmetic])
    return folder


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_describes_every_option(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        importlib.import_module(f"benchmarks.{script}").main(["--help"])
    text, errors = capsys.readouterr()
    assert errors == ""
    assert "usage:" in text
    assert "(required)" in text or "default" in text


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(
        'name = "tiny"\ndataset = "fashion_mnist"\n'
        '[network]\nnotation = "12 (F12)"\ntime_steps = 3\n[training]\nbatch_size = 16\n'
    )
    return path


@pytest.mark.usefixtures("memory_is_not_measured")
def test_training_measures_time_and_memory(run: Run, tiny_config: Path) -> None:
    sizes = ("--threads", "1", "--train-first", "2", "--repeats", "2", "--memory-steps", "4")
    text = run("ide.training_speed", "--cases", tiny_config, f"{tiny_config}:8", "--synthetic", *sizes)
    for batch in (16, 8):
        assert f"synthetic, T = 3, batch {batch}, 1 thread" in text
    assert "plain: dense, Broyden 1e-6" in text
    assert "Error of the gradient against the plain solve" in text
    assert "a graph through time" in text
    assert text.count("1.0") >= 2


def test_only_the_named_variants_are_measured(run: Run, tiny_config: Path) -> None:
    sizes = ("--train-first", "0", "--repeats", "1", "--memory-steps", "--synthetic")
    text = run("ide.training_speed", "--cases", tiny_config, *sizes, "--variants", "integers", "plain")
    assert "0.006, integers" in text
    assert "plain: dense, Broyden 1e-6" in text
    assert "bf16" not in text


def test_training_without_a_data_folder_says_so_and_takes_random_images(run: Run, tiny_config: Path) -> None:
    text = run("ide.training_speed", "--cases", tiny_config, "--train-first", "0", "--repeats", "1", "--memory-steps")
    assert "no data folder is given" in text
    assert "Random images are used instead" in text


def test_training_starts_from_a_run(run: Run, run_folder: Path) -> None:
    text = run("ide.training_speed", "--run", run_folder, "--train-first", "0", "--repeats", "1", "--memory-steps")
    assert "digits, T = 4, batch 32" in text


def test_adjoint_names_the_cheapest_solver(run: Run, run_folder: Path) -> None:
    text = run("ide.adjoint", run_folder, "--batches", "1", "--tolerances", "0.1", "1e-5")
    assert "1 epoch" in text
    assert "cheapest of those with an error under 0.01" in text


def test_deviation_prints_the_slope(run: Run, run_folder: Path) -> None:
    text = run("deployment.deviation", run_folder, "--samples", "5", "--longest", "40", "--points", "3")
    assert "integer, r/2" in text
    assert "slope" in text


def test_exponents_are_measured_of_the_input_alone_and_of_all(run: Run, run_folder: Path, tmp_path: Path) -> None:
    few = ("--samples", "5", "--calibration-samples", "16", "--results", tmp_path)
    text = run("deployment.exponents", "--run", run_folder, "--time-steps", "4", "400", *few)
    kept = json.loads((tmp_path / "exponents.json").read_text())
    assert [(row["time_steps"], row["exponents"]) for row in kept["rows"]] == [
        (steps, kind) for steps in (4, 400) for kind in ("input", "all", "all, pulses")
    ]
    assert all(row["weight_exponents"]["feedback"] >= 0 for row in kept["rows"][::3])
    assert run("deployment.exponents", "--results", tmp_path) in text


def test_table_of_exponents_is_that_of_what_is_kept() -> None:
    shown = BENCHMARKS_README.read_text(encoding="utf-8").split("<!-- exponents: ")[1].split("-->\n")[1]
    assert shown == f"{exponents_table(stored(RESULTS / 'exponents.json')).markdown()}\n<!-- end "


def test_simulator_counts_images_of_a_random_network(run: Run) -> None:
    sizes = ("--notation", "12 (F12)", "--images", "20", "--time-steps", "2", "--repeats", "1")
    assert "images per second" in run("deployment.simulator", *sizes)


@pytest.mark.lava
def test_simulator_is_measured_beside_lava(run: Run, run_folder: Path) -> None:
    text = run(
        "deployment.simulator", "--run", run_folder, "--images", "20", "--time-steps", "2", "--lava-samples", "2"
    )
    assert "lava-fixed" in text


@pytest.mark.lava
def test_deployment_goes_through_all_its_sections(run: Run, run_folder: Path, tmp_path: Path) -> None:
    sizes = ("--quick", "--repeats", "1", "--images", "20")
    text = run("deployment.speed", *sizes, "--fashion", run_folder, "--results", tmp_path)
    kept = json.loads((tmp_path / "deployment.json").read_text())
    assert list(kept) == ["lava", "sets", "kernels", "rates", "steps"]
    network = kept["lava"]["networks"]["fashion"]
    assert network["title"] == "12 (F12)"
    assert network["stock"]["identical"] is network["ours"]["identical"] is True
    assert all(w in text for w in ("A step on Lava", "Whole test sets", "kernels", "the firing rate", "against T"))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".svg", ".svg"]


@pytest.mark.parametrize(("runs", "reason"), [(["."], "export first"), ([], "no run is named")])
def test_missing_are_refused(tmp_path: Path, runs: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("benchmarks/deployment/deviation.py", *(str(tmp_path / run) for run in runs)) == 2
    message = capsys.readouterr().err
    assert "ConfigError" in message
    assert reason in message
