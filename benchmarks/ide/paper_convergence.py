"""Figure 1 of the IDE paper: ||f(a[t]) - a[t]|| of trained networks over the time steps t = 1 .. 100.

f is the map whose fixed point the firing rates a settle at; the norm is over the last population. With --runs, trained
networks are measured on test samples, on average and on one sample drawn at random as in the paper; with --zoo those of
the zoo, in hardware timing, whose integers are taken as the weights that they stand for. The curves are kept in
benchmarks/results/convergence.json. From these the picture benchmarks/results/convergence.svg is drawn. Event
recordings end with their last frame, and so do their curves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.ide.published import published_rows
from benchmarks.ide.trainings import extent, read_run
from benchmarks.shared.pictures import drawn_from, new_figure, save_figure
from benchmarks.shared.results import RESULTS, commit, stored
from fsnn_lava.backends import FloatSimulator
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.conversion import from_zoo, zoo_card
from fsnn_lava.datasets import Dataset, load_dataset, time_first
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import write_json
from fsnn_lava.hardware import Array, HardwareNetwork, rate_weights
from fsnn_lava.network import RateMap, open_device, place, prepared
from fsnn_lava.quantization import dequantized
from fsnn_lava.training import BEST, DeviceSamples, TrainedNetwork, convergence_curve, load_checkpoint

console = Console()
Curve = list[float]
BATCH = 10
"""Samples at a time: the spikes of all steps are held."""


@dataclass(frozen=True)
class Arguments:
    """Measure and draw the convergence to the equilibrium."""

    runs: tuple[Path, ...] = ()
    """Folders of the trained networks to measure, one folder each; without any, the kept curves are drawn anew."""
    zoo: tuple[str, ...] = ()
    """Names of networks of the zoo to measure."""
    samples: int = 50
    """Test samples of the average."""
    time_steps: int = 100
    """Largest t."""
    seed: int = 0
    """Of the choice of samples."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    threads: int = 1
    """CPU threads."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    results: Path = RESULTS
    """Where curves and picture are kept."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.ide.paper_convergence", description=__doc__)
    torch.set_num_threads(arguments.threads)
    path = arguments.results / "convergence.json"
    curves: dict[str, Any] = stored(path) or {}
    for run in arguments.runs:
        with console.status(run.name):
            curves[run.name] = measure(run, arguments)
        console.print(f"{run.name}: {curves[run.name]['mean'][0]:.3g} -> {curves[run.name]['mean'][-1]:.3g}")
    for name in arguments.zoo:
        with console.status(name):
            curves[f"zoo: {name}"] = found = measure_of_zoo(name, arguments)
        console.print(f"{name}: {found['mean'][0]:.3g} -> {found['mean'][-1]:.3g}")
    if not curves:
        raise ConfigError(f"{path}: no curves are kept yet; name trained networks with --runs")
    arguments.results.mkdir(parents=True, exist_ok=True)
    if arguments.runs or arguments.zoo:
        write_json(path, dict(sorted(curves.items())))
    picture = arguments.results / "convergence.svg"
    draw(curves, picture)
    console.print(f"{picture}: drawn")
    return 0


def measure(run: Path, arguments: Arguments) -> dict[str, Any]:
    """Both curves of a trained network, and what it is.

    Raises
    ------
    ConfigError : if it belongs to no published row.
    """
    configs = {row.config.name: row.config for row in published_rows()}
    result = read_run(run, configs)
    if result is None:
        raise ConfigError(f"{run}: is of no published row, or no epoch is done; allowed: {', '.join(sorted(configs))}")
    trained = load_checkpoint(run / BEST)
    dataset = load_dataset(trained.config.dataset, arguments.data_dir)
    mean, one = curves_of(trained, dataset, arguments)
    network = trained.config.network
    return {
        "neurons": "IF" if network.leak == 1 else f"LIF {network.leak}",
        "size": prod(trained.model().population_shapes[-1]),
        "trained_steps": network.time_steps,
        "extent": extent(result, configs[result.config]),
        "samples": min(arguments.samples, len(dataset.test)),
        "seed": arguments.seed,
        "mean": [float(f"{value:.4g}") for value in mean],
        "one": [float(f"{value:.4g}") for value in one],
        "commit": commit(),
    }


def measure_of_zoo(name: str, arguments: Arguments) -> dict[str, Any]:
    """The same of a network of the zoo.

    Raises
    ------
    ConfigError : if there is no such network.
    """
    card, network = zoo_card(name), dequantized(from_zoo(name))
    dataset = load_dataset(card.dataset, arguments.data_dir)
    last, count = network.populations[-1], min(arguments.samples, len(dataset.test))
    chosen = np.random.default_rng(arguments.seed).choice(len(dataset.test), count, replace=False)
    steps = dataset.frames or arguments.time_steps
    found = np.concatenate(
        [
            distances(dataclasses.replace(network, time_steps=steps), time_first(dataset.test.select(part).codes))
            for part in np.array_split(chosen, -(-count // BATCH))
        ]
    )
    return {
        "neurons": "IF" if last.neuron.leak == 1 else f"LIF {last.neuron.leak}",
        "size": last.size,
        "trained_steps": card.time_steps,
        "extent": f"{card.description}; hardware timing",
        "samples": count,
        "seed": arguments.seed,
        "mean": [float(f"{value:.4g}") for value in found.mean(axis=0)],
        "one": [float(f"{value:.4g}") for value in found[0]],
        "commit": commit(),
    }


def distances(network: HardwareNetwork, codes: Array) -> Array:
    """(B, T) distance of the last population's rates after t steps from what the map of the rates makes of them."""
    last = network.populations[-1]
    spikes = FloatSimulator(keep=()).run(network, codes, record=[last.name]).spikes[last.name]
    shares = [rate_weights(t, last.neuron.leak) for t in range(1, len(spikes) + 1)]
    found = np.empty((spikes.shape[1], len(spikes)))
    settling = RateMap(network)
    for t, share in enumerate(shares):
        rates = np.tensordot(share, spikes[: t + 1], axes=1)
        mapped = settling.rates_of(codes, {last.name: rates})[last.name]
        found[:, t] = np.sqrt(np.square(mapped - rates).reshape(len(rates), -1).sum(axis=1))
    return found


def curves_of(trained: TrainedNetwork, dataset: Dataset, arguments: Arguments) -> tuple[Curve, Curve]:
    """Distances at t = 1 .. T: mean over the samples drawn, and of the first of them."""
    count = min(arguments.samples, len(dataset.test))
    chosen = np.random.default_rng(arguments.seed).choice(len(dataset.test), count, replace=False)
    device = open_device(arguments.device)
    steps = dataset.frames or arguments.time_steps
    with prepared(device):
        model = trained.model()
        place(model, device)
        samples = DeviceSamples(dataset.test.select(chosen), dataset.coding, device=device)
        first, _ = samples.batch(torch.arange(1))
        one = convergence_curve(model, first, time_steps=steps)
        mean = torch.zeros_like(one)
        for x, labels in samples.ordered(BATCH):
            mean += convergence_curve(model, x, time_steps=steps) * (len(labels) / count)
    return mean.tolist(), one.tolist()


def description(curves: dict[str, Any]) -> str:
    """Name the figures that the picture was drawn from."""
    return drawn_from(curves, what="curves")


def draw(curves: dict[str, Any], path: Path) -> None:
    """Write the picture: averages as lines, single samples dotted.

    Raises
    ------
    MissingDependencyError : if matplotlib is absent.
    """
    figure = new_figure("convergence", size=(7, 4.5))
    axes = figure.add_subplot()
    for name, curve in sorted(curves.items()):
        steps = range(1, len(curve["mean"]) + 1)
        (line,) = axes.loglog(steps, curve["mean"], label=name)
        axes.loglog(steps, curve["one"], ":", color=line.get_color(), linewidth=1)
    axes.set_xlabel("time step t")
    axes.set_ylabel("||f(a[t]) - a[t]||")
    axes.set_title("mean over test samples; dotted: one of them", fontsize=10)
    axes.legend(fontsize=7)
    save_figure(figure, path, says=description(curves))


if __name__ == "__main__":
    run_script(main)
