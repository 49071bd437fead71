"""A network of events, from recordings on disk to the integers on the simulator, through the commands."""

import json
from pathlib import Path

import pytest

from fsnn_lava.cli import export, run, train, verify
from fsnn_lava.datasets import DATA_VARIABLE
from fsnn_lava.files import CACHE_VARIABLE
from fsnn_lava.training import BEST
from fsnn_lava.training.checkpoint import load_checkpoint
from synthetic_nmnist import write_synthetic_nmnist

pytest.importorskip("tonic", reason='needs tonic: pip install -e ".[events]"')

CONFIG = """name = "events"
dataset = "nmnist"
[network]
notation = "24 (F24)"
time_steps = 30
[training]
epochs = 8
batch_size = 20
milestones = []
threads = 1
"""


@pytest.mark.usefixtures("_threads")
def test_events_are_trained_exported_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_synthetic_nmnist(tmp_path / "data" / "nmnist", train=60, test=30, seed=0)
    (tmp_path / "config.toml").write_text(CONFIG)
    assert train.main(["--config", "config.toml"]) == 0
    assert export.main(["--to", "lava"]) == 0
    capsys.readouterr()
    # As many samples as steps: a swap of the two axes would fit.
    assert run.main(["--backend", "simulator", "--samples", "30"]) == 0
    assert "on test samples: all 30" in capsys.readouterr().out
    assert verify.main(["--backends", "torch", "simulator-float", "--samples", "30"]) == 0
    report = json.loads((tmp_path / "runs" / "events" / "report.json").read_text())
    assert report["samples"] == 30
    (pair,) = report["pairs"]
    assert pair["agrees"]
    # The same test samples in training and here: a swapped axis would leave chance. In float64 instead of float32 a
    # potential at the threshold may differ, so one sample may be classified otherwise.
    trained = load_checkpoint(tmp_path / "runs" / "events" / BEST).metrics["best_test_accuracy"]
    assert trained > 0.5
    assert abs(report["accuracy"]["torch"] - trained) < 1.5 / 30
