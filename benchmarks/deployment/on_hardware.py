"""What is left of trained networks on hardware: accuracy, firing rates, and whether Lava gives the same spikes.

Takes the networks of the zoo, which were trained in integers, and trainings in floats (`python train/train.py --config
<name>`), which it exports. It classifies test images with the integer simulator, runs some of them on Lava with our
process models and fewer with Lava's own, and keeps the figures in benchmarks/results/on_hardware.json. With --readme
nothing is run: README's table is made from that file.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.shared.results import README, RESULTS, commit, stored
from benchmarks.shared.text_table import TextTable, with_blocks
from fsnn_lava.backends import FloatSimulator, IntegerSimulator, get_backend
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import DeployConfig
from fsnn_lava.conversion import calibration_codes, from_zoo, lower, run_torch, zoo_card
from fsnn_lava.datasets import Dataset, Samples, load_dataset, time_first
from fsnn_lava.files import write_json, write_text
from fsnn_lava.hardware import HardwareNetwork, RunResult, accuracy, with_timing
from fsnn_lava.quantization import dequantized, quantize
from fsnn_lava.training import BEST, TrainedNetwork, evaluate, load_checkpoint
from fsnn_lava.verification import compare, spike_agreement

RESULT = RESULTS / "on_hardware.json"


@dataclass(frozen=True)
class Extent:
    """How many test samples: in the simulator, compared with PyTorch spike by spike, on Lava, on Lava's own models."""

    simulator: int
    compared: int
    lava: int
    stock: int


DENSE, CONVOLUTION, DEEP = Extent(10_000, 200, 200, 20), Extent(10_000, 20, 20, 20), Extent(10_000, 5, 5, 1)
ZOO = {"digits": DENSE, "fashion_mnist_4_bits": DENSE, "cifar10_alexnet": DEEP}
CONFIGS = {
    **dict.fromkeys(("fashion_mnist_fc_if", "fashion_mnist_fc_lif"), DENSE),
    **dict.fromkeys(("fashion_mnist_fc_if_t30", "fashion_mnist_fc_lif_t30"), DENSE),
    **dict.fromkeys(("mnist_conv_if", "mnist_conv_lif", "nmnist_conv_if", "nmnist_conv_lif"), CONVOLUTION),
    **{"digits_spide": DENSE, "mnist_spide_conv": CONVOLUTION, "mnist_spide_lenet": CONVOLUTION},
}
console = Console(width=150)


@dataclass(frozen=True)
class Arguments:
    """Accuracy and firing rates in training, in integers and on Lava."""

    runs: tuple[Path, ...] = (Path("runs"),)
    """Folders of trainings, one folder in them for each configuration."""
    networks: tuple[str, ...] = (*ZOO, *CONFIGS)
    """Which networks: names of the zoo, or of configurations."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    readme: bool = False
    """Only put the table of the kept results into README.md."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status: 0, or 1 if Lava's spikes differ from the simulator's."""
    arguments = read_options(
        Arguments, argv, command="python -m benchmarks.deployment.on_hardware", description=__doc__
    )
    kept = stored(RESULT) or {}
    for name in () if arguments.readme else arguments.networks:
        with console.status(name):
            if name in ZOO:
                kept[name] = measure_of_zoo(name, arguments.data_dir)
            else:
                folder = next(
                    (f / name for f in arguments.runs if (f / name / BEST).exists()), arguments.runs[0] / name
                )
                trained = load_checkpoint(folder / BEST)
                dataset = load_dataset(trained.config.dataset, arguments.data_dir)
                kept[name] = measure(trained, dataset, CONFIGS[name])
        write_json(RESULT, {name: kept[name] for name in (*ZOO, *CONFIGS) if name in kept})
    table = deployment_table(kept)
    console.print(table.screen())
    if arguments.readme:
        write_text(README, with_blocks(README.read_text(encoding="utf-8"), {"deployment": table.markdown()}))
        console.print(f"{README.name}: table written")
    return 0 if all(row["lava_identical"] and row["stock_identical"] for row in kept.values()) else 1


def measure_of_zoo(name: str, data_dir: Path | None) -> dict[str, Any]:
    """Every figure of a network that was trained in the integers that it has."""
    card, integer, extent = zoo_card(name), from_zoo(name), ZOO[name]
    test = spread(load_dataset(card.dataset, data_dir).test, extent.simulator)
    began = time.monotonic()
    simulated = IntegerSimulator(keep=()).run(integer, time_first(test.codes))
    simulation = time.monotonic() - began
    compared = spread(test, extent.compared)
    runs = [
        FloatSimulator().run(dequantized(integer), time_first(compared.codes)),
        IntegerSimulator().run(integer, time_first(compared.codes)),
    ]
    return {
        "notation": card.notation,
        "neurons": "IF" if integer.populations[0].neuron.leak == 1 else f"LIF {integer.populations[0].neuron.leak}",
        "time_steps": card.time_steps,
        "seed": card.seed,
        "test_samples": len(test),
        "pytorch": card.float_accuracy,
        "simulator": accuracy(simulated, test.labels),
        "simulator_seconds": simulation,
        "compared_samples": len(compared),
        "mean_rate": float(np.mean([rate.mean() for rate in runs[0].firing_rates.values()])),
        "mean_rate_difference": compare(*runs).mean_rate_difference,
        **on_lava(integer, spread(test, extent.lava), spread(test, extent.stock)),
        "commit": commit(),
    }


def measure(trained: TrainedNetwork, dataset: Dataset, extent: Extent) -> dict[str, Any]:
    """Every figure of one trained network."""
    floating = lower(trained)
    config = DeployConfig(exponents="input")
    began = time.monotonic()
    integer, report = quantize(
        floating, calibration_codes(dataset, count=config.calibration_samples), config=config, keep_lost=True
    )
    quantized = time.monotonic() - began
    test = spread(dataset.test, extent.simulator)
    codes, steps = time_first(test.codes), trained.config.network.time_steps
    began = time.monotonic()
    simulated = IntegerSimulator(keep=()).run(integer, codes)
    simulation = time.monotonic() - began
    return {
        "notation": trained.config.network.notation,
        "neurons": "IF" if trained.config.network.leak == 1 else f"LIF {trained.config.network.leak}",
        "time_steps": steps,
        "seed": trained.config.training.seed,
        "best_epoch": trained.metrics["best_epoch"],
        "test_samples": len(test),
        "pytorch": evaluate(trained.model(), test, dataset.coding, time_steps=steps).accuracy,
        "simulator": accuracy(simulated, test.labels),
        "simulator_seconds": simulation,
        "quantization_seconds": quantized,
        "rounding_at_equilibrium": max(p.mean_rate_error for p in report.populations.values()),
        **against_torch(trained, floating, integer, spread(test, extent.compared)),
        **on_lava(integer, spread(test, extent.lava), spread(test, extent.stock)),
        "commit": commit(),
    }


def spread(samples: Samples, count: int) -> Samples:
    """Take so many of the samples, evenly spread; all, if there are fewer."""
    which = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(np.int64)
    return samples.select(which)


def against_torch(
    trained: TrainedNetwork, floating: HardwareNetwork, integer: HardwareNetwork, samples: Samples
) -> dict[str, Any]:
    """Rates against PyTorch's, and how many samples' spikes lowering left as they were."""
    codes = time_first(samples.codes)
    sequential = with_timing(floating, "sequential")
    names = [p.name for p in floating.populations]
    software = run_torch(trained, sequential, codes, time_steps=floating.time_steps)
    lowered = spike_agreement(sequential, codes, FloatSimulator().run(sequential, codes, record=names), software)
    rounded = IntegerSimulator().run(integer, codes)
    return {
        "compared_samples": len(samples),
        "mean_rate": float(np.mean([rate.mean() for rate in software.firing_rates.values()])),
        "mean_rate_difference": compare(software, rounded).mean_rate_difference,
        "lowered_ties": len(lowered.ties),
        "lowered_unexplained": len(lowered.unexplained),
    }


def on_lava(integer: HardwareNetwork, samples: Samples, few: Samples) -> dict[str, Any]:
    """Compare Lava's spikes with the simulator's, with our process models and with its own."""
    ours = spikes(integer, samples, "lava-fixed", stock_models=False)
    stock = spikes(integer, few, "lava-fixed", stock_models=True)
    return {
        "lava_samples": len(samples),
        "lava_identical": compare(spikes(integer, samples, "simulator"), ours).agrees,
        "stock_samples": len(few),
        "stock_identical": compare(spikes(integer, few, "simulator"), stock).agrees,
    }


def spikes(network: HardwareNetwork, samples: Samples, backend: str, *, stock_models: bool = False) -> RunResult:
    """A backend's run with every population recorded."""
    runner = get_backend(backend, {"stock_models": True} if stock_models else None)
    return runner.run(network, time_first(samples.codes), record=[p.name for p in network.populations])


def deployment_table(kept: dict[str, dict[str, Any]]) -> TextTable:
    """Accuracy and firing rates in PyTorch, in the integer simulator and on Lava."""
    header = (
        *("network", "T", "neurons", "test samples", "PyTorch", "integer simulator"),
        *("rate difference x T", "samples of the same spikes on Lava, our models", "its own models"),
    )
    rows = []
    for name, row in kept.items():
        figures = (f"{row['pytorch']:.2%}", f"{row['simulator']:.2%}")
        difference = f"{row['mean_rate_difference'] * row['time_steps']:.3f}"
        lava, stock = (
            f"all {row[f'{kind}_samples']}" if row[f"{kind}_identical"] else "**different**"
            for kind in ("lava", "stock")
        )
        about = (
            f"zoo: `{name}`" if name in ZOO else f"`{name}`",
            str(row["time_steps"]),
            row["neurons"],
            f"{row['test_samples']:,}",
        )
        rows.append((*about, *figures, difference, lava, stock))
    return TextTable("Trained networks on hardware", header, tuple(rows))


if __name__ == "__main__":
    run_script(main)
