"""Fashion-MNIST, `400 (F400)`: what is left of a training on hardware.

Takes finished trainings (`python train/train.py --config train/configs/<name>.toml`), exports each,
classifies all 10,000 test images with the integer simulator and the first 200 on Lava's bit-accurate run, and
writes benchmarks/results/fashion_mnist.json. With --readme nothing is run: README's table is made from that file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common.results import RESULTS, commit, stored
from common.tables import TextTable, with_blocks
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
from fsnn_lava.runs import write_json, write_text
from fsnn_lava.training import BEST
from fsnn_lava.verify import compare

README = Path(__file__).resolve().parents[1] / "README.md"
RESULT = RESULTS / "fashion_mnist.json"
CONFIGS = ("fashion_mnist_fc_if", "fashion_mnist_fc_lif", "fashion_mnist_fc_if_t30", "fashion_mnist_fc_lif_t30")

console = Console(width=150)


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
    """Only put the table of the kept results into README.md."""


def main(argv: list[str]) -> int:
    """Exit status: 0, or 1 if Lava's spikes differ from the simulator's."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    if not arguments.readme:
        kept = stored(RESULT) or {}
        for name in arguments.configs:
            trained = load_checkpoint(arguments.runs / name / BEST)
            dataset = load_dataset(trained.config.dataset, arguments.data_dir)
            with console.status(name):
                kept[name] = measure(trained, dataset, lava_samples=arguments.lava_samples)
        RESULT.parent.mkdir(exist_ok=True)
        write_json(RESULT, {name: kept[name] for name in CONFIGS if name in kept})
    kept = stored(RESULT)
    table = deployment_table(kept)
    console.print(table.screen())
    if arguments.readme:
        write_text(README, with_blocks(README.read_text(encoding="utf-8"), {"deployment": table.markdown()}))
        console.print(f"{README.name}: table written")
    return 0 if all(row["lava_identical"] for row in kept.values()) else 1


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
        "commit": commit(),
    }


def deployment_table(kept: dict[str, dict[str, Any]]) -> TextTable:
    """Accuracy and firing rates in PyTorch, in the integer simulator and on Lava."""
    header = ("config", "T", "neurons", "PyTorch", "integer simulator", "rate difference x T", "Lava, bit-accurate")
    rows = []
    for name, row in kept.items():
        same = "identical" if row["lava_identical"] else "different"
        figures = (f"{row['pytorch']:.2%}", f"{row['simulator']:.2%}")
        difference = f"{row['mean_rate_difference'] * row['time_steps']:.3f}"
        lava = f"{row['lava_samples']} images, spikes {same}"
        rows.append((f"`{name}`", str(row["time_steps"]), row["neurons"], *figures, difference, lava))
    return TextTable("Fashion-MNIST, 400 (F400), on hardware", header, tuple(rows))


if __name__ == "__main__":
    run_script(main)
