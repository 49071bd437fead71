"""Run test samples once and report what stopping earlier costs: after t steps, or early exit of each sample.

Writes anytime.json, anytime.md and the picture anytime.svg into the run's folder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape

from fsnn_lava.backends import get_backend
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import DeployedPlaces, chosen_run, working, write_report
from fsnn_lava.conversion import NETWORK_FILES, load_deployed, samples_to_test
from fsnn_lava.datasets import time_first
from fsnn_lava.errors import ConfigError, IncompleteRunError, counted
from fsnn_lava.files import write_text

if TYPE_CHECKING:
    from fsnn_lava.verification import AnytimeReadout

console = Console()


@dataclass(frozen=True)
class Arguments(DeployedPlaces):
    """Accuracy over time steps, and early exit, from one run."""

    backend: Literal["simulator", "lava-fixed"] = "simulator"
    """simulator: integers, bit-accurate, fast. lava-fixed: the same integers on Lava's CPU simulator."""
    samples: int | None = None
    """How many test samples, evenly spread; default: 100 on Lava, all in the simulator."""
    settled: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, float("inf"))
    """Early exit: a sample leaves when its margin, the largest logit less the second, has moved by less than this
    share of it."""
    margins: tuple[float, ...] = (20.0, 10.0, 5.0, 3.0, 2.0, 1.0, 0.0)
    """Early exit by a second rule: a sample leaves when its margin is above this, in logits."""
    stable_steps: int = 2
    """For both, its class must have stayed the same for so many steps."""
    reference: Literal["equilibrium", "final"] = "equilibrium"
    """Rates that the rate error is against: equilibrium, or final: the same run's after all steps."""
    rate_samples: int = 200
    """How many of the samples the rate error is measured on: an equilibrium takes longer than a run."""
    picture: bool = True
    """Draw the picture, which needs matplotlib."""


def main(argv: list[str]) -> int:
    """Run a network, report on every step, and return the exit status, 0."""
    arguments = read_options(Arguments, argv, command="anytime", description=__doc__)
    from fsnn_lava.verification import AnytimeReadout, check_exits, require_matplotlib  # torch, not needed by --help

    check_exits((*arguments.settled, *arguments.margins), stable_steps=arguments.stable_steps)
    if arguments.picture:
        require_matplotlib()
    deployed = load_deployed(chosen_run(console, arguments, NETWORK_FILES["integer"]))
    if arguments.stable_steps >= deployed.integer.time_steps:
        raise ConfigError(
            f"--stable-steps: found {arguments.stable_steps}; allowed: less than T = {deployed.integer.time_steps}"
        )
    backend = get_backend(arguments.backend)
    count = 100 if arguments.samples is None and arguments.backend == "lava-fixed" else arguments.samples
    samples = samples_to_test(deployed.integer, data_dir=arguments.data_dir, dataset=arguments.dataset, count=count)
    codes = time_first(samples.codes)
    readout = AnytimeReadout(
        deployed.integer,
        codes,
        labels=samples.labels,
        reference=arguments.reference,
        rate_samples=min(arguments.rate_samples, len(samples)),
    )
    try:
        with working(console, arguments.backend) as say:
            backend.run(
                deployed.integer,
                codes,
                record=readout.record,
                sink=readout,
                progress=lambda done, total: say(f"{arguments.backend}: {done} of {counted(total, 'sample')}"),
            )
    except IncompleteRunError:
        if readout.samples:
            write(readout, deployed.folder, arguments, name="anytime-interrupted")
        raise
    write(readout, deployed.folder, arguments)
    return 0


def write(readout: "AnytimeReadout", folder: Path, arguments: Arguments, *, name: str = "anytime") -> None:
    """Print and write the report of the samples that are done, under a name of its own if these are not all."""
    from fsnn_lava.verification import AnytimeReport, early_exits

    anytime = readout.result()
    settled = early_exits(anytime, "settled", limits=arguments.settled, stable_steps=arguments.stable_steps)
    margin = early_exits(anytime, "margin", limits=arguments.margins, stable_steps=arguments.stable_steps)
    report = AnytimeReport(arguments.backend, anytime, settled + margin)
    write_report(console, folder, name, markdown=report.as_markdown(), values=report.as_dict())
    if arguments.picture:
        write_text(folder / f"{name}.svg", report.picture().decode())
    others = f"{name}.json and {name}.svg" if arguments.picture else f"{name}.json"
    console.print(f"report: {escape(str(folder / f'{name}.md'))}, {others}", soft_wrap=True)
