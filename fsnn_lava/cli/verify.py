"""Run the same test samples on several backends and report whether their spikes and firing rates agree.

Exit status 1 if a pair of backends breaks its relation. Writes report.json and report.md into the run's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape

from fsnn_lava.backends import BackendSettings, FloatSimulator, get_backend
from fsnn_lava.cli.script import command_line
from fsnn_lava.conversion import Deployed, load_deployed, run_torch, samples_to_test
from fsnn_lava.datasets import time_first
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import write_json, write_text
from fsnn_lava.hardware import Array, RunResult, accuracy, with_timing
from fsnn_lava.training import BEST, load_checkpoint
from fsnn_lava.verification import Report, compare_all, error_budget, spike_agreement

console = Console()
SAMPLES = 100
"""Test samples, if no number is given."""

Backend = Literal["torch", "simulator", "simulator-float", "lava-float", "lava-fixed", "loihi2"]


@dataclass(frozen=True)
class Arguments:
    """Compare backends on the same test samples."""

    backends: tuple[Backend, ...] | None = None
    """Two or more; default: torch simulator lava-fixed. torch is the trained network itself, in float64 and the papers'
    timing; a network that was not trained here (a NIR graph) has none."""
    run: Path | None = None
    """Run folder; default: the one exported last."""
    runs: Path = Path("runs")
    """Where run folders are."""
    samples: int | None = None
    """How many test samples, evenly spread over the test set; default: 100."""
    stock_models: bool = False
    """lava-fixed runs with Lava's own process models instead of our faster ones. The same spikes."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""


def main(argv: list[str]) -> int:
    """Exit status: 0 all pairs agree, 1 a pair does not, 2 refused."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__, prog=command_line("verify"))
    chosen = arguments.backends
    if chosen is not None and len(set(chosen)) < 2:
        raise ConfigError(f"--backends: found {' '.join(chosen)}; at least two different ones are compared")
    deployed = load_deployed(arguments.run, runs=arguments.runs)
    reference: tuple[Backend, ...] = ("torch",) if (deployed.folder / BEST).exists() else ()
    if not reference:
        console.print(f"no {BEST} in {deployed.folder}: PyTorch is left out", soft_wrap=True)
    compared = tuple(dict.fromkeys(chosen or (*reference, "simulator", "lava-fixed")))
    if arguments.stock_models and "lava-fixed" not in compared:
        raise ConfigError(f"--stock-models: found backends {' '.join(compared)}; it is a setting of lava-fixed")
    samples = samples_to_test(deployed.integer, data_dir=arguments.data_dir, count=arguments.samples, most=SAMPLES)
    codes = time_first(samples.codes)
    results = {
        name: run(name, deployed, codes, stock_models=arguments.stock_models)
        for name in dict.fromkeys((*reference, *compared))
    }
    sequential = with_timing(deployed.floating, "sequential")
    lowered = FloatSimulator().run(sequential, codes, record=[p.name for p in sequential.populations])
    trained = results.get("torch")
    report = Report(
        network=facts(deployed),
        samples=len(samples),
        time_steps=deployed.integer.time_steps,
        accuracy={results[name].backend: accuracy(results[name], samples.labels) for name in compared},
        pairs=compare_all(
            [results[name] for name in compared],
            sequential=("torch",) if len(deployed.floating.populations) > 1 else (),
        ),
        lowering=None if trained is None else spike_agreement(sequential, codes, lowered, trained),
        budget=error_budget(
            deployed.floating,
            deployed.integer,
            codes,
            samples.labels,
            trained=trained,
            lowered=lowered,
        ),
    )
    write_json(deployed.folder / "report.json", report.as_json())
    write_text(deployed.folder / "report.md", report.as_markdown())
    console.print(Markdown(report.as_markdown()))
    show_disagreements(report)
    console.print(f"report: {escape(str(deployed.folder / 'report.md'))} and report.json", soft_wrap=True)
    return 0 if report.agrees else 1


def show_disagreements(report: Report) -> None:
    """A line for every pair that breaks its relation, and for lowering if rounding does not explain what it changed."""
    for pair in report.pairs:
        if not pair.agrees:
            console.print(
                f"{pair.a} and {pair.b} do not agree; required ({pair.relation}): {pair.requirement}; "
                f"first divergence: {pair.first_divergence or 'none recorded'}",
                soft_wrap=True,
            )
    if report.lowering is not None and not report.lowering.agrees:
        console.print(f"lowering changed spikes that rounding does not explain: {report.lowering.unexplained[0]}")


def run(name: Backend, deployed: Deployed, codes: Array, *, stock_models: bool) -> RunResult:
    """One backend's run of the samples, every population recorded."""
    with console.status(name):
        if name == "torch":
            trained = load_checkpoint(deployed.folder / BEST)
            if dict(trained.metrics) != deployed.floating.provenance.get("metrics"):
                raise ConfigError(
                    f"{deployed.folder}: was trained further after its export; export again: "
                    f"{command_line('export')} --to lava --run {deployed.folder}"
                )
            return run_torch(trained, deployed.floating, codes, time_steps=deployed.floating.time_steps)
        stock = stock_models and name == "lava-fixed"
        backend = get_backend(name, BackendSettings(stock_models=True) if stock else None)
        network = deployed.network("integer" if backend.arithmetic is None else backend.arithmetic)
        return backend.run(network, codes, record=[p.name for p in network.populations])


def facts(deployed: Deployed) -> dict[str, str]:
    """What the report says about the network."""
    provenance = deployed.integer.provenance
    config, deployment = provenance["config"], provenance["deployment"]
    leak = deployed.floating.populations[0].neuron.leak
    trained = {
        "notation": config.get("network", {}).get("notation"),
        "seed": config.get("training", {}).get("seed"),
        "epoch": provenance.get("metrics", {}).get("best_epoch"),
    }
    return {
        "name": deployed.integer.name,
        "dataset": config["dataset"],
        **{name: str(value) for name, value in trained.items() if value is not None},
        "neurons": "IF" if leak == 1 else f"LIF, leak {leak}",
        "weights": f"{deployment['weight_bits']} bits",
        "threshold": "half the reset amount" if deployment["threshold"] == "half" else _trained_threshold(deployed),
    }


def _trained_threshold(deployed: Deployed) -> str:
    neuron = deployed.floating.populations[0].neuron
    share = neuron.v_threshold / neuron.reset_amount
    return "as trained" if share == 1 else f"as trained, {share:g} of the reset amount"
