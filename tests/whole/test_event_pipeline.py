"""A network of events, from recordings on disk to the integers on the simulator, through the scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsnn_lava.datasets import DATA_VARIABLE
from fsnn_lava.files import CACHE_VARIABLE
from fsnn_lava.training import BEST
from fsnn_lava.training.checkpoint import load_checkpoint
from synthetic_nmnist import write_synthetic_nmnist

pytest.importorskip("tonic", reason='needs tonic: pip install -e ".[events]"')

ROOT = Path(__file__).parents[2]
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


def _run(folder: Path, script: str, *options: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        DATA_VARIABLE: str(folder / "data"),
        CACHE_VARIABLE: str(folder / "cache"),
    }
    command = [sys.executable, str(ROOT / script), *options]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_events_are_trained_exported_and_run(tmp_path: Path) -> None:
    write_synthetic_nmnist(tmp_path / "data" / "nmnist", train=60, test=30, seed=0)
    (tmp_path / "config.toml").write_text(CONFIG)
    _run(tmp_path, "train/train.py", "--config", str(tmp_path / "config.toml"))
    _run(tmp_path, "deploy/export.py", "--to", "lava")
    # As many samples as steps: a swap of the two axes would fit.
    assert "accuracy on 30 test samples" in _run(tmp_path, "deploy/run.py", "--backend", "simulator", "--samples", "30")
    _run(tmp_path, "deploy/verify.py", "--backends", "torch", "simulator-float", "--samples", "30")
    report = json.loads((tmp_path / "runs" / "events" / "report.json").read_text())
    assert report["samples"] == 30
    (pair,) = report["pairs"]
    assert pair["agrees"]
    # The same test samples in training and here: a swapped axis would leave chance. In float64 instead of float32 a
    # potential at the threshold may differ, so one sample may be classified otherwise.
    trained = load_checkpoint(tmp_path / "runs" / "events" / BEST).metrics["best_test_accuracy"]
    assert trained > 0.5
    assert abs(report["accuracy"]["torch"] - trained) < 1.5 / 30
