"""Evaluate a trained network on its test samples: accuracy, firing rates, distance from the equilibrium.

Reads best.safetensors in the run's folder; without arguments, of the newest run.
"""

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import RunPlaces, chosen_run, dataset_of, show_next, working
from fsnn_lava.datasets import check_time_steps
from fsnn_lava.errors import ConfigError, counted
from fsnn_lava.hardware import reasons_against_equilibrium
from fsnn_lava.network import open_device, place, prepared
from fsnn_lava.training import BEST, DeviceSamples, Evaluation, convergence_curve, evaluate, load_checkpoint, settling

console = Console()


@dataclass(frozen=True)
class Arguments(RunPlaces):
    """Evaluate a trained network."""

    samples: int = 0
    """Test samples, evenly spread over the test set; 0: all."""
    time_steps: int = 0
    """Steps T of the spiking run; 0: as trained."""
    curve_samples: int = 100
    """On how many of them the equilibrium is looked for, evenly spread."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""


def check(arguments: Arguments) -> None:
    """Refuse numbers that mean nothing."""
    for name, least in {"samples": 0, "time_steps": 0, "curve_samples": 1}.items():
        found = getattr(arguments, name)
        if found < least:
            raise ConfigError(f"--{name.replace('_', '-')}: found {found}; allowed: at least {least}")


def main(argv: list[str]) -> int:
    """Evaluate a network and return the exit status, 0."""
    arguments = read_options(Arguments, argv, command="evaluate", description=__doc__)
    check(arguments)
    device = open_device(arguments.device)
    folder = chosen_run(console, arguments, BEST)
    trained = load_checkpoint(folder / BEST)
    with working(console, f"reading {trained.config.dataset}"):
        dataset = dataset_of(trained, arguments)
    time_steps = arguments.time_steps or trained.config.network.time_steps
    check_time_steps(dataset, time_steps)
    if arguments.samples > len(dataset.test):
        raise ConfigError(
            f"--samples: found {arguments.samples}; allowed: 0 (all) .. {len(dataset.test)}, the size of the test set"
        )
    test = dataset.test.spread(arguments.samples or len(dataset.test))
    model = trained.model()
    place(model, device)
    few = DeviceSamples(test.spread(arguments.curve_samples), trained.coding, device=device)
    x, _ = next(few.ordered(len(few)))
    with prepared(device), working(console, f"evaluating {counted(len(test), 'sample')}") as say:
        found = evaluate(model, test, trained.coding, time_steps=time_steps)
        reasons = {reason for neuron in model.neurons for reason in reasons_against_equilibrium(neuron)}
        curve, settled = None, None
        if not reasons:
            say(f"looking for the equilibrium of {counted(len(few), 'sample')}")
            curve = convergence_curve(model, x, time_steps=time_steps)
            settled = settling(model, x, time_steps=time_steps)
    what = f"{trained.config.network.title} on {trained.config.dataset}"
    console.print(f"{escape(str(folder / BEST))}: {what}, T = {time_steps}", soft_wrap=True)
    console.print(f"test accuracy {found.accuracy:.2%}, loss {found.loss:.4f} on test samples: {test.chosen}")
    console.print(firing_table(found))
    if curve is None or settled is None:
        console.print(f"no equilibrium, from which a distance could be told: {', '.join(sorted(reasons))}")
        show_next(console, "export", f"--to lava --run {folder}", data_dir=arguments.data_dir)
        return 0
    console.print(
        f"residual of the equilibrium's equation, mean of {counted(len(few), 'sample')}; it falls as 1/t for IF, to a "
        "floor for LIF"
    )
    console.print(curve_table(curve.tolist()))
    console.print(f"on these: {settled.words()}", soft_wrap=True)
    for warning in settled.warnings():
        console.print(f"warning: {warning}", soft_wrap=True)
    show_next(console, "export", f"--to lava --run {folder}", data_dir=arguments.data_dir)
    return 0


def firing_table(found: Evaluation) -> Table:
    """Firing of every population, spikes per neuron and step."""
    table = Table("population", "spikes per neuron and step", "leak-weighted rate")
    for name, mean in found.mean_spikes.items():
        table.add_row(name, f"{mean:.4f}", f"{found.firing_rates[name]:.4f}")
    return table


def curve_table(curve: list[float]) -> Table:
    """Residual ||f(a[t]) - a[t]|| of the last population at t = 1, 2, 5, 10, 20, 50, ... and T."""
    table = Table("t", escape("||f(a[t]) - a[t]||"))
    steps = {factor * 10**power for power in range(len(str(len(curve)))) for factor in (1, 2, 5)} | {len(curve)}
    for t in sorted(steps):
        if t <= len(curve):
            table.add_row(str(t), f"{curve[t - 1]:.4f}")
    return table
