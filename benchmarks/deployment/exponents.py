"""What finer integers gain a network that is rounded afterwards: exponents below 0, and parts of a constant current.

For each T the float network is quantized with exponents below 0 of the input's weights alone, of all, and of all with
constant currents in sixteenths of a weight unit. Kept are, of every population, the mean error of the equilibrium
rates, how far rates after T steps are from those of the float network in the same timing (both on test images), and the
bits that each connection's weights use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.shared.machine import condition_line, conditions
from benchmarks.shared.results import BENCHMARKS_README, RESULTS, stored
from benchmarks.shared.text_table import TextTable, with_blocks
from fsnn_lava.backends import FloatSimulator, IntegerSimulator
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import DeployConfig
from fsnn_lava.conversion import lower
from fsnn_lava.datasets import Samples, load_dataset, time_first
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import write_json, write_text
from fsnn_lava.hardware import ALWAYS_ON, Array, HardwareNetwork
from fsnn_lava.quantization import quantize
from fsnn_lava.training import BEST, load_checkpoint

console = Console(width=120)

RESULT = RESULTS / "exponents.json"
KINDS = {
    "input": DeployConfig(exponents="input"),
    "all": DeployConfig(currents="whole"),
    "all, pulses": DeployConfig(),
}
"""What has fractions of a weight unit, from which settings."""


@dataclass(frozen=True)
class Arguments:
    """Rate errors with finer and finer integers."""

    run: Path | None = None
    """Folder of a training."""
    time_steps: tuple[int, ...] = (8, 30, 120)
    """Each T."""
    samples: int = 100
    """How many test images."""
    calibration_samples: int = 256
    """Training images on which weights are rounded."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    results: Path = RESULTS
    """Folder of the kept figures."""
    readme: bool = False
    """Only put the table of the kept figures into the document."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.deployment.exponents", description=__doc__)
    file = arguments.results / RESULT.name
    if arguments.run is not None:
        trained = load_checkpoint(arguments.run / BEST)
        dataset = load_dataset(trained.config.dataset, arguments.data_dir)
        test = time_first(dataset.test.spread(arguments.samples).codes)
        found: dict[str, Any] = {
            "network": trained.config.network.notation,
            "dataset": trained.config.dataset,
            "epochs": trained.metrics["epoch"],
            "seed": trained.config.training.seed,
            "samples": arguments.samples,
            "calibration_samples": arguments.calibration_samples,
            "conditions": conditions(),
            "rows": [],
        }
        for steps in arguments.time_steps:
            floating = dataclasses.replace(lower(trained), time_steps=steps)
            for kind, settings in KINDS.items():
                config = dataclasses.replace(settings, calibration_samples=arguments.calibration_samples)
                row = measured(floating, dataset.train, test, config)
                found["rows"].append({"time_steps": steps, "exponents": kind, **row})
                console.print(f"T = {steps}, exponents {kind}: done", soft_wrap=True)
        write_json(file, found)
    kept = stored(file)
    if kept is None:
        raise ConfigError(f"{file}: no figures are kept there; measure some with --run FOLDER")
    table = exponents_table(kept)
    console.print(table.screen())
    if arguments.readme:
        document = BENCHMARKS_README.read_text(encoding="utf-8")
        write_text(BENCHMARKS_README, with_blocks(document, {"exponents": table.markdown()}))
    return 0


def measured(floating: HardwareNetwork, train: Samples, test: Array, config: DeployConfig) -> dict[str, Any]:
    """Quantize a network and measure it: errors of the rates by population, and bits by connection."""
    integer, report = quantize(floating, train, config=config, keep_lost=True)
    names = tuple(p.name for p in floating.populations)
    wanted = FloatSimulator(keep=names).run(floating, test).firing_rates
    found = IntegerSimulator(keep=names).run(integer, test).firing_rates
    weights = {c.name: report.connections[c.name] for c in floating.connections if c.source != ALWAYS_ON}
    return {
        "at_equilibrium": {name: report.populations[name].mean_rate_error for name in names},
        "after_steps": {name: float(np.abs(found[name] - wanted[name]).mean()) for name in names},
        "bits": {name: c.used_bits for name, c in weights.items()},
        "weight_exponents": {name: c.weight_exponent for name, c in weights.items()},
    }


def exponents_table(kept: Mapping[str, Any]) -> TextTable:
    """Make the table: a row for each T and kind of exponents."""
    rows = []
    for row in kept["rows"]:
        bits, exponents = (list(row[name].values()) for name in ("bits", "weight_exponents"))
        last = list(row["at_equilibrium"])[-1]
        rows.append(
            (
                str(row["time_steps"]),
                row["exponents"],
                " ".join(map(str, bits)),
                " ".join(map(str, exponents)),
                " ".join(f"{1e3 * error:.2f}" for error in row["at_equilibrium"].values()),
                f"{1e3 * row['after_steps'][last]:.2f}",
            )
        )
    header = (
        "T",
        "finer than a unit",
        "bits used",
        "exponents",
        "at the equilibrium, 1/1000",
        "after T steps, 1/1000",
    )
    notes = (
        f"`{kept['network']}`, {kept['dataset']}, epoch {kept['epochs']} in floats, rounded afterwards. *finer than a "
        "unit*: weights of the input, weights of all, and besides these the constant currents, by pulses. Bits and "
        "exponents of the connections' weights, in the network's order. Mean absolute error of the rates, in "
        "thousandths of a spike per step: of each population at the equilibrium, on "
        f"{kept['calibration_samples']} training images; of the last one after T steps against the float network, on "
        f"{kept['samples']} test images. Seed {kept['seed']}. {condition_line(kept['conditions'])}"
    )
    return TextTable("", header, tuple(rows), notes)


if __name__ == "__main__":
    run_script(main)
