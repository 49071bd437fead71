"""Run an exported network on test samples: in the simulator, in Lava (float or bit-accurate) or on Loihi 2."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fsnn_lava.backends import get_backend
from fsnn_lava.command import run_script, show_next
from fsnn_lava.deployed import load_deployed, samples_to_test
from fsnn_lava.result import RunResult, accuracy
from fsnn_lava.samples import time_first

console = Console()


@dataclass(frozen=True)
class Arguments:
    """Run an exported network on test samples."""

    backend: Literal["simulator", "simulator-float", "lava-float", "lava-fixed", "loihi2"] = "lava-fixed"
    """simulator: integers, bit-accurate, fast. lava-fixed: the same integers on Lava's CPU simulator. loihi2: on the
    chip (needs Intel's lava-loihi). *-float: the network before quantization."""
    run: Path | None = None
    """Run folder; default: the one exported last."""
    runs: Path = Path("runs")
    """Where run folders are."""
    samples: int | None = None
    """How many test samples; default: 100 on Lava and Loihi, all in the simulator."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""


def main(argv: list[str]) -> int:
    """Exit status 0."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    deployed = load_deployed(arguments.run, runs=arguments.runs)
    backend = get_backend(arguments.backend)
    network = deployed.network("integer" if backend.arithmetic is None else backend.arithmetic)
    count = arguments.samples
    if count is None and not arguments.backend.startswith("simulator"):
        count = 100
    samples = samples_to_test(network, data_dir=arguments.data_dir, count=count)
    started = time.monotonic()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(arguments.backend, total=len(samples))
        result = backend.run(
            network,
            time_first(samples.codes),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    show(result, time.monotonic() - started)
    console.print(f"accuracy on {len(samples)} test samples: {accuracy(result, samples.labels):.2%}")
    show_next(console, f"python deploy/verify.py --run {deployed.folder}", data_dir=arguments.data_dir)
    return 0


def show(result: RunResult, seconds: float) -> None:
    """Table of firing per population."""
    table = Table("population", "neurons", "spikes per neuron and step", "spikes per sample")
    for name, counts in result.spike_counts.items():
        per_sample = counts.reshape(len(counts), -1).sum(axis=1).mean()
        neurons = counts[0].size
        table.add_row(name, str(neurons), f"{per_sample / neurons / result.time_steps:.4f}", f"{per_sample:.1f}")
    samples = len(result.logits)
    console.print(f"{result.backend}: {samples} samples, T = {result.time_steps}, {seconds:.2f} s in all")
    console.print(table)


if __name__ == "__main__":
    run_script(main)
