"""Fashion-MNIST, `400 (F400)`: training accuracy beside the paper's Table 1, and what is left of it on hardware.

Takes finished trainings (`python train/train.py --config train/configs/<name>.toml`), exports
each, classifies all 10,000 test images with the integer simulator and the first 200 on Lava's bit-accurate run, and
writes benchmarks/results/fashion_mnist.json, from which README's table is made (`--readme` prints it and runs nothing).
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from fsnn_lava.backends import get_backend
from fsnn_lava.checkpoint import TrainedNetwork, load_checkpoint
from fsnn_lava.command import run_script
from fsnn_lava.config import DeployConfig
from fsnn_lava.data import Dataset, load_dataset
from fsnn_lava.deployed import calibration_codes
from fsnn_lava.evaluation import evaluate
from fsnn_lava.ir import with_timing
from fsnn_lava.lower import lower, run_torch
from fsnn_lava.quantize import quantize
from fsnn_lava.result import accuracy
from fsnn_lava.runs import write_json
from fsnn_lava.training import BEST
from fsnn_lava.verify import compare

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "fashion_mnist.json"
CONFIGS = ("fashion_mnist_fc_if", "fashion_mnist_fc_lif", "fashion_mnist_fc_if_t30", "fashion_mnist_fc_lif_t30")

console = Console()


@dataclass(frozen=True)
class Arguments:
    """Accuracy of `400 (F400)` on Fashion-MNIST, in training, in integers and on Lava."""

    runs: Path = Path("runs")
    """Folder of the finished trainings, one folder per configuration."""
    configs: tuple[str, ...] = CONFIGS
    """Which configurations."""
    lava_samples: int = 200
    """Test images on Lava."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    readme: bool = False
    """Only print README's table from the stored results."""


def main(argv: list[str]) -> int:
    """Exit status: 0, or 1 if Lava's spikes differ from the simulator's."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    if not arguments.readme:
        stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        for name in arguments.configs:
            trained = load_checkpoint(arguments.runs / name / BEST)
            dataset = load_dataset(trained.config.dataset, arguments.data_dir)
            with console.status(name):
                stored[name] = measure(trained, dataset, lava_samples=arguments.lava_samples)
        RESULTS.parent.mkdir(exist_ok=True)
        write_json(RESULTS, {name: stored[name] for name in CONFIGS if name in stored})
    stored = json.loads(RESULTS.read_text())
    console.print(readme_table(stored), soft_wrap=True, highlight=False, markup=False)
    return 0 if all(row["lava_identical"] for row in stored.values()) else 1


def measure(trained: TrainedNetwork, dataset: Dataset, *, lava_samples: int) -> dict[str, Any]:
    """Every figure of one trained network."""
    floating = with_timing(lower(trained), "hardware")
    integer, report = quantize(floating, calibration_codes(dataset, count=256), config=DeployConfig())
    test, steps = dataset.test, trained.config.network.time_steps
    record = [p.name for p in integer.populations]
    simulated = get_backend("simulator").run(integer, test.codes, record=record)
    software = run_torch(trained, floating, test.codes, time_steps=steps)
    first = test.select(np.arange(lava_samples))
    lava = get_backend("lava-fixed").run(integer, first.codes, record=record)
    same = compare(get_backend("simulator").run(integer, first.codes, record=record), lava)
    model = trained.model()
    return {
        "published": trained.config.published,
        "neurons": "IF" if trained.config.network.leak == 1 else f"LIF {trained.config.network.leak}",
        "time_steps": steps,
        "seed": trained.config.training.seed,
        "epochs": trained.config.training.epochs,
        "best_epoch": trained.metrics["best_epoch"],
        "pytorch": evaluate(model, test, dataset.coding, time_steps=steps).accuracy,
        "simulator": accuracy(simulated, test.labels),
        "test_samples": len(test),
        "mean_rate_difference": compare(software, simulated).mean_rate_difference,
        "rounding_at_equilibrium": max(p.mean_rate_error for p in report.populations.values()),
        "lava_samples": lava_samples,
        "lava_identical": same.agrees,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
        ).stdout.strip(),
    }


def readme_table(stored: dict[str, dict[str, Any]]) -> str:
    """README's table of results, in Markdown."""
    header = ("config", "T", "neurons", "published", "PyTorch (best epoch)", "integer simulator")
    header += ("rate difference x T", "Lava, bit-accurate")
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    for name, row in stored.items():
        published = row["published"].split(" ")[0] or "-"
        same = "identical" if row["lava_identical"] else "**different**"
        pytorch = f"{row['pytorch']:.2%} ({row['best_epoch']})"
        lines.append(
            f"| `{name}` | {row['time_steps']} | {row['neurons']} | {published} | {pytorch}"
            f" | {row['simulator']:.2%} | {row['mean_rate_difference'] * row['time_steps']:.3f}"
            f" | {row['lava_samples']} images, spikes {same} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
