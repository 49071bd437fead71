"""Export a trained network to Lava: lower it, quantize it, prove its 24-bit state, write both networks.

Writes network-float.h5 and network-integer.h5 into the run's folder (their format: docs/network-format.md).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from fsnn_lava.checkpoint import load_checkpoint
from fsnn_lava.command import run_script, show_next
from fsnn_lava.config import DeployConfig
from fsnn_lava.data import load_dataset
from fsnn_lava.deployed import NETWORK_FILES, calibration_codes
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.ir import with_timing
from fsnn_lava.lower import lower
from fsnn_lava.network_file import save_network
from fsnn_lava.quantize import LOST_SHARE, QuantizationReport, quantize
from fsnn_lava.runs import newest_run
from fsnn_lava.training import BEST

console = Console()


@dataclass(frozen=True)
class Arguments:
    """Export a trained network to Lava."""

    to: Literal["lava"] = "lava"
    """Target."""
    run: Path | None = None
    """Folder of the training; default: the newest one."""
    runs: Path = Path("runs")
    """Where run folders are."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""
    settings: Annotated[DeployConfig, tyro.conf.arg(name="")] = field(default_factory=DeployConfig)


def main(argv: list[str]) -> int:
    """Exit status 0."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    folder = arguments.run or newest_run(arguments.runs, BEST)
    trained = load_checkpoint(folder / BEST)
    floating = with_timing(lower(trained), "hardware")
    if arguments.settings.time_steps:
        floating = dataclasses.replace(floating, time_steps=arguments.settings.time_steps)
    dataset = load_dataset(trained.config.dataset, arguments.data_dir)
    calibration = calibration_codes(dataset, count=arguments.settings.calibration_samples)
    with console.status(f"quantizing, and proving the 24-bit state over {floating.time_steps} steps"):
        integer, report = quantize(floating, calibration, config=arguments.settings)
    refuse_lost(report, integer.time_steps)
    for network in (floating, integer):
        path = folder / NETWORK_FILES[network.arithmetic]
        save_network(network, path)
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    show(report)
    console.print(f"24-bit state proven for every allowed input over T = {integer.time_steps} steps")
    show_next(console, f"python deploy/run.py --backend lava-fixed --run {folder}", data_dir=arguments.data_dir)
    return 0


def refuse_lost(report: QuantizationReport, time_steps: int) -> None:
    """Refuses a network of which rounding left too little: the 24-bit state of long windows allows small scales only.

    Raises
    ------
    UnsupportedError : naming the connections.
    """
    if report.lost():
        listed = "\n  ".join(f"{n}: rounding error {report.connections[n].relative_error:.0%}" for n in report.lost())
        raise UnsupportedError(
            f"nothing was written: integers for T = {time_steps} lose these connections (allowed: a root mean square "
            f"error of {LOST_SHARE:.0%} of the weights'):\n  {listed}\n"
            "A potential sums up negative currents for the whole window and must fit 24 bits: use fewer --time-steps, "
            "or more --weight-bits"
        )


def show(report: QuantizationReport) -> None:
    """Tables of what quantization did."""
    connections = Table(Column("connection", overflow="fold"), "bits", "exponent", "rms error", "max error", "clipped")
    for name, c in report.connections.items():
        values = (c.weight_bits, c.weight_exponent, f"{c.relative_error:.2%}", f"{c.max_error:.3g}", c.clipped)
        connections.add_row(name, *map(str, values))
    populations = Table(
        Column("population", overflow="fold"), "reset r", "threshold V", "scale", "rate error, mean", "max"
    )
    for name, p in report.populations.items():
        errors = (f"{p.mean_rate_error:.3g}", f"{p.max_rate_error:.3g}")
        populations.add_row(name, f"{p.reset_amount:.1f}", str(p.v_threshold), f"{p.scale:.3g}", *errors)
    console.print(connections, populations)
    console.print("rms error: share of the connection's rms weight; max error: in the trained network's unit")
    console.print(f"rate error: at the equilibrium, on {report.calibration_samples} training samples, spikes per step")
    if not report.equilibrium_converged:
        console.print(
            "[yellow]the iteration did not converge to an equilibrium: these rate errors mean little[/yellow]"
        )


if __name__ == "__main__":
    run_script(main)
