"""The scripts behind Table 4 and Figure 1, at a tiny size. What they measure is asserted only where it is exact."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.ide import paper_convergence as convergence, paper_memory as memory
from benchmarks.ide.published import published_rows
from benchmarks.shared import iteration
from benchmarks.shared.results import RESULTS
from fsnn_lava.config import TrainConfig, read_config
from fsnn_lava.datasets import Dataset, InputCoding, Samples, load_dataset
from fsnn_lava.errors import ConfigError, MissingDependencyError
from fsnn_lava.training import BEST, fit
from fsnn_lava.training.checkpoint import load_checkpoint
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.evaluation import convergence_curve
from script_loader import ROOT

CONFIGS = {row.config.name: row.config for row in published_rows()}
TINY = 'dataset = "cifar10"\n[network]\nnotation = "4C3s-4C3 (F4C3)"\nleak = 0.9\n'


def tiny(name: str) -> TrainConfig:
    """A published row with a few neurons, one epoch and small batches."""
    config = CONFIGS[name]
    steps = 30 if config.dataset == "nmnist" else 6
    network = dataclasses.replace(config.network, notation="12 (F12)", time_steps=steps)
    training = dataclasses.replace(config.training, epochs=1, batch_size=16, threads=1)
    return dataclasses.replace(config, network=network, training=training)


def few_digits() -> Dataset:
    digits = load_dataset("digits")
    return dataclasses.replace(digits, train=digits.train.select(np.arange(64)), test=digits.test.select(np.arange(23)))


def few_recordings() -> Dataset:
    codes = (np.random.default_rng(0).random((32, 30, 2, 4, 4)) < 0.3).astype(np.uint8)
    samples = Samples(codes, np.arange(32) % 10)
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    return Dataset("nmnist", samples, samples, (2, 4, 4), tuple("0123456789"), coding)


def trained(folder: Path, name: str, dataset: Dataset) -> Path:
    run = folder / name
    run.mkdir(parents=True)
    fit(tiny(name), dataset, run)
    return run


# ---- Table 4 ------------------------------------------------------------------------------------------------
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of a process")
def test_memory_and_time_are_kept(tmp_path: Path) -> None:
    """In a process of its own: those that it starts must find the script."""
    (tmp_path / "tiny.toml").write_text(TINY)
    command = [sys.executable, "-m", "benchmarks.ide.paper_memory", "--config", str(tmp_path / "tiny.toml")]
    command += ["--batch-size", "2", "--time-steps", "2", "--methods", "bptt", "--synthetic"]
    command += ["--results", str(tmp_path / "kept")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "BPTT  T =   2" in done.stdout
    kept = json.loads((tmp_path / "kept" / "memory_cpu.json").read_text())
    assert kept["images"] == "random"
    assert (kept["batch_size"], kept["weights"], kept["precision"]) == (2, "", "float32")
    assert set(kept["methods"]["bptt"]["2"]) == {"memory_mib", "seconds"}


def test_missing_images_are_replaced_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = memory.Arguments(data_dir=tmp_path, batch_size=3)
    dataset, images = memory.few_images(CONFIGS["cifar10_alexnet_lif_t30"], arguments)
    assert images == "random"
    assert dataset.train.stored.shape == (3, 3, 32, 32)
    assert "Random images are used instead" in capsys.readouterr().out


def test_an_iteration_begins_from_the_weights_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first loss is that of trained weights, and every iteration ends with an update."""
    dataset = few_digits()
    run = trained(tmp_path, "fashion_mnist_fc_lif", dataset)
    config = tiny("fashion_mnist_fc_lif")
    losses: dict[str, list[float]] = {}
    whole = iteration.functional.cross_entropy

    def noting(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = whole(logits, labels)
        losses[case].append(loss.item())
        return loss  # type: ignore[no-any-return]

    monkeypatch.setattr(iteration.functional, "cross_entropy", noting)
    updates: list[torch.optim.Optimizer] = []
    monkeypatch.setattr(torch.optim.SGD, "step", updates.append)
    for case, folder in (("new", None), ("trained", run)):
        losses[case] = []
        with memory.weighted_iteration(config, dataset, memory.Arguments(run=folder)) as iterate:
            for _ in range(2):
                iterate()
    assert losses["trained"][0] < losses["new"][0]
    assert len(updates) == 4


def test_the_configuration_takes_gradient_and_steps() -> None:
    config = read_config(memory.Arguments().config)
    found = memory.configured(config, memory.Arguments(batch_size=8), method="bptt", time_steps=7)
    assert (found.training.method, found.training.batch_size, found.network.time_steps) == ("bptt", 8, 7)
    assert found.network.notation == config.network.notation


# ---- Figure 1 -----------------------------------------------------------------------------------------------
def test_curves_are_kept_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    datasets = {"fashion_mnist": few_digits(), "nmnist": few_recordings()}
    names = {"fashion_mnist_fc_if": "fashion_mnist", "nmnist_conv_lif": "nmnist"}
    runs = [trained(tmp_path, name, datasets[dataset]) for name, dataset in names.items()]
    monkeypatch.setattr(convergence, "load_dataset", lambda name, _: datasets[name])
    kept = ["--results", str(tmp_path / "kept")]
    options = ["--samples", "12", "--time-steps", "40", "--seed", "3"]
    assert convergence.main([*kept, *options, "--runs", *map(str, runs)]) == 0
    curves = json.loads((tmp_path / "kept" / "convergence.json").read_text())
    assert list(curves) == list(names)
    fashion, nmnist = curves.values()
    assert (len(fashion["mean"]), len(nmnist["mean"])) == (40, 30), "recordings end with their last frame"
    assert (fashion["samples"], fashion["size"], fashion["neurons"], nmnist["neurons"]) == (12, 12, "IF", "LIF 0.95")
    assert fashion["extent"].startswith("in part: 1 of 100 epochs")

    # The mean in batches of ten is that of all twelve together, and the single one is the first of them.
    digits = datasets["fashion_mnist"]
    chosen = np.random.default_rng(3).choice(len(digits.test), 12, replace=False)
    samples = DeviceSamples(digits.test.select(chosen), digits.coding, device="cpu")
    model = load_checkpoint(runs[0] / BEST).model()
    x, _ = samples.batch(torch.arange(12))
    together = convergence_curve(model, x, time_steps=40)
    assert fashion["mean"] == pytest.approx(together.tolist(), rel=1e-3)  # kept with four digits
    assert fashion["one"] == pytest.approx(convergence_curve(model, x[:1], time_steps=40).tolist(), rel=1e-3)

    picture = tmp_path / "kept" / "convergence.svg"
    first = picture.read_bytes()
    assert len(first) < 60_000
    assert all(name.encode() in first for name in names)
    assert convergence.main(kept) == 0
    assert picture.read_bytes() == first, "drawn from what is kept, the same each time"


def test_the_kept_picture_is_of_the_kept_curves() -> None:
    kept = json.loads((RESULTS / "convergence.json").read_text())
    picture = (RESULTS / "convergence.svg").read_text()
    assert convergence.description(kept) in picture, "python -m benchmarks.ide.paper_convergence"
    assert len(picture) < 60_000


def test_nothing_to_draw_and_runs_of_no_row_are_refused(tmp_path: Path) -> None:
    kept = ["--results", str(tmp_path)]
    with pytest.raises(ConfigError, match=r"no curves are kept yet; name trained networks with --runs"):
        convergence.main(kept)
    run = trained(tmp_path, "fashion_mnist_fc_if", few_digits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convergence, "published_rows", lambda: [])
        with pytest.raises(ConfigError, match="fashion_mnist_fc_if: is of no published row, or no epoch is done"):
            convergence.main([*kept, "--runs", str(run)])


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r'install it with: pip install "fsnn-lava\[plots\]"'):
        convergence.draw({}, tmp_path / "picture.svg")
