"""How far measured firing rates are from the equilibrium, for T = 10 .. 1000 steps, in hardware timing.

Mean |rate - equilibrium| over populations' neurons and test samples, and accuracy, with the threshold at the reset
amount r (the rate is floored) and at r/2 (it is rounded): the float network, and the integer network quantized anew for
every T, each against its own equilibrium. For IF the slope in log-log should be -1; LIF ends at a floor. The proof that
24 bits hold the potentials of IF neurons allows ever smaller integers as T grows: r shrinks, and the accuracy with it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fsnn_lava.backends import FloatSimulator, IntegerSimulator
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import DeployConfig
from fsnn_lava.conversion import calibration_codes, load_deployed, samples_to_test
from fsnn_lava.datasets import Samples, load_dataset, time_first
from fsnn_lava.errors import ConfigError
from fsnn_lava.hardware import Array, HardwareNetwork, IntegerNeuron, Neuron, accuracy
from fsnn_lava.network import equilibrium_rates
from fsnn_lava.quantization import quantize

console = Console(width=120)


@dataclass(frozen=True)
class Arguments:
    """Deviation of the rates from the equilibrium, and accuracy, against T."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of exported runs."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""
    samples: int = 200
    """How many test samples."""
    shortest: int = 10
    """Smallest T."""
    longest: int = 1000
    """Largest T."""
    points: int = 7
    """How many T, evenly spaced in log T."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.deployment.deviation", description=__doc__)
    steps = np.unique(np.geomspace(arguments.shortest, arguments.longest, arguments.points).round().astype(int))
    if not arguments.runs:
        raise ConfigError("no run is named; name folders of exported runs, e.g. runs/digits")
    for run in arguments.runs:
        deployed = load_deployed(run)
        samples = samples_to_test(deployed.integer, data_dir=arguments.data_dir, count=arguments.samples)
        dataset = load_dataset(deployed.integer.provenance["config"]["dataset"], arguments.data_dir)
        calibration = calibration_codes(dataset, count=128)
        curves: dict[str, list[Point]] = {}
        for time_steps in steps.tolist():
            with console.status(f"{run.name}: T = {time_steps}"):
                for name, network in networks(deployed.floating, calibration, time_steps).items():
                    curves.setdefault(name, []).append(point(network, samples))
        show(run.name, steps.tolist(), curves)
    return 0


def networks(floating: HardwareNetwork, calibration: Array, time_steps: int) -> dict[str, HardwareNetwork]:
    """Make the network for T steps in floats and in integers, with threshold r and r/2."""
    floating = dataclasses.replace(floating, time_steps=time_steps)
    integer, _ = quantize(floating, calibration, config=DeployConfig(), keep_lost=True)
    return {
        "float, r": with_threshold(floating, share=1.0),
        "float, r/2": with_threshold(floating, share=0.5),
        "integer, r": with_threshold(integer, share=1.0),
        "integer, r/2": with_threshold(integer, share=0.5),
    }


def with_threshold(network: HardwareNetwork, *, share: float) -> HardwareNetwork:
    """Let neurons fire at that share of what a spike subtracts, however they were trained."""
    populations = []
    for population in network.populations:
        neuron, threshold = population.neuron, share * population.neuron.reset_amount
        if isinstance(neuron, IntegerNeuron):
            other: Neuron = dataclasses.replace(neuron, v_threshold=max(1, round(threshold)))
        else:
            other = dataclasses.replace(neuron, v_threshold=threshold)
        populations.append(dataclasses.replace(population, neuron=other))
    return dataclasses.replace(network, populations=tuple(populations))


@dataclass(frozen=True)
class Point:
    """What one network did in T steps.

    Parameters
    ----------
    deviation : mean |rate - equilibrium|, spikes per step.
    reset : reset amount in weight units; None in floats.
    """

    deviation: float
    accuracy: float
    reset: float | None


def point(network: HardwareNetwork, samples: Samples) -> Point:
    """Deviation from the network's own equilibrium, and accuracy."""
    integer = network.arithmetic == "integer"
    run = (IntegerSimulator() if integer else FloatSimulator()).run(network, time_first(samples.codes))
    settled = equilibrium_rates(network, time_first(samples.codes)).firing_rates
    deviation = float(np.mean([np.abs(rate - settled[name]).mean() for name, rate in run.firing_rates.items()]))
    reset = network.populations[0].neuron.reset_amount if integer else None
    return Point(deviation, accuracy(run, samples.labels), reset)


def slope(steps: list[int], points: list[Point]) -> str:
    """Fit the slope of log deviation over log T, where there is a deviation at all."""
    seen = [(t, p.deviation) for t, p in zip(steps, points, strict=True) if p.deviation > 0]
    if len(seen) < 2:
        return ""
    log_steps, log_deviations = np.log(np.asarray(seen)).T
    return f"{np.polyfit(log_steps, log_deviations, 1)[0]:.2f}"


def show(run: str, steps: list[int], curves: dict[str, list[Point]]) -> None:
    """Print the table: a row per T, at the end the slope."""
    table = Table("T", *curves, title=f"{run}: mean |rate - equilibrium|, spikes per step (accuracy)")
    for i, time_steps in enumerate(steps):
        points = [curve[i] for curve in curves.values()]
        resets = ["" if p.reset is None else f" [r = {p.reset:.0f}]" for p in points]
        cells = [f"{p.deviation:.2e} ({p.accuracy:.1%}){r}" for p, r in zip(points, resets, strict=True)]
        table.add_row(str(time_steps), *map(escape, cells))
    table.add_row("slope", *(slope(steps, curve) for curve in curves.values()))
    console.print(table)


if __name__ == "__main__":
    run_script(main)
