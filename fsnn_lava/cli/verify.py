"""Verify an exported network: its structure against the export, its rates against the float network's, and its spikes.

Exit status 1 if one of these checks fails. Writes report.json and report.md into the run's folder; an earlier report
that rests on more samples, or is on another network, is kept under another name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.markup import escape

from fsnn_lava.backends import BACKENDS
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import DeployedPlaces, chosen_run, command_line, show_next, working, write_report
from fsnn_lava.conversion import NETWORK_FILES, load_deployed, samples_to_test, training_samples
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import not_writable
from fsnn_lava.training import BEST, TrainedNetwork, load_checkpoint
from fsnn_lava.verification import RECORD, TORCH, Report, check_backends, load_record, verify

console = Console()
SAMPLES = 100
"""Test samples, if no number is given."""

if TYPE_CHECKING:
    Backend = str
else:
    Backend = tyro.extras.literal_type_from_choices([TORCH, *BACKENDS])


@dataclass(frozen=True)
class Arguments(DeployedPlaces):
    """Verify an exported network, and compare backends on the same test samples."""

    backends: tuple[Backend, ...] | None = None
    """Two or more; default: torch simulator lava-fixed. torch is the trained network itself, in float64 and the timing
    of its training; a network that was not trained here (a NIR graph) has none."""
    samples: int | None = None
    """How many test samples, evenly spread over the test set; default: 100."""
    stock_models: bool = False
    """lava-fixed runs with Lava's own process models instead of our faster ones. The same spikes."""


def main(argv: list[str]) -> int:
    """Verify a network and return the exit status: 0 if structure, rates and spikes agree, 1 if one does not."""
    arguments = read_options(Arguments, argv, command="verify", description=__doc__)
    if arguments.backends is not None:
        check_backends(arguments.backends, trained=True, stock_models=False)
    deployed = load_deployed(chosen_run(console, arguments, NETWORK_FILES["integer"]))
    trained: TrainedNetwork | None = None
    if (deployed.folder / BEST).exists():
        trained = load_checkpoint(deployed.folder / BEST)
        if deployed.is_outdated(trained):
            raise ConfigError(
                f"{deployed.folder}: was trained further after its export; export again: "
                f"{command_line('export')} --to lava --run {deployed.folder}"
            )
    else:
        console.print(f"no {BEST} in {deployed.folder}: PyTorch is left out", soft_wrap=True)
    samples = samples_to_test(
        deployed.integer, data_dir=arguments.data_dir, dataset=arguments.dataset, count=arguments.samples, most=SAMPLES
    )
    record, calibration = load_record(deployed.folder / RECORD), None
    if record is None or not record.is_of(deployed.floating, deployed.integer):
        # What is not as recorded is derived anew, so that each integer that is wrong is known.
        calibration = training_samples(deployed.integer, data_dir=arguments.data_dir, dataset=arguments.dataset)
    with working(console, "verifying") as progress:
        report = verify(
            trained,
            deployed.integer,
            samples,
            backends=arguments.backends,
            floating=deployed.floating,
            record=record,
            calibration=calibration,
            stock_models=arguments.stock_models,
            progress=progress,
        )
    for line in keep_earlier(deployed.folder, report):
        console.print(escape(line), soft_wrap=True)
    write_report(console, deployed.folder, "report", markdown=report.as_markdown(), values=report.as_json())
    console.print(f"{report.verdict} {report.scope}", soft_wrap=True)
    for line in (*report.findings(), *(f"warning: {line}" for line in report.warnings())):
        console.print(escape(line), soft_wrap=True)
    console.print(f"report: {escape(str(deployed.folder / 'report.md'))} and report.json", soft_wrap=True)
    if not report.agrees:
        return 1
    show_next(console, "anytime", f"--run {deployed.folder}", data_dir=arguments.data_dir)
    return 0


def keep_earlier(folder: Path, report: Report) -> Iterator[str]:
    """Rename an earlier report if it is on another network or rests on more samples, and say so.

    `conversion.set_aside` knows these names too.

    Raises
    ------
    OutputError : if a file cannot be renamed.
    """
    try:
        earlier = json.loads((folder / "report.json").read_text())
        network, samples = earlier["network"]["fingerprint"], int(earlier["samples"])
    except (OSError, ValueError, LookupError, TypeError):  # none, or none of ours
        return
    if network != report.network["fingerprint"]:
        why, kept = f"is on another network, {network}", f"report-of-{network}"
    elif samples > report.samples:
        why, kept = f"rests on more samples, {samples}", f"report-{samples}-samples"
    else:
        return
    for old in (folder / "report.json", folder / "report.md"):
        if old.exists():
            try:
                old.replace(old.with_stem(kept))
            except OSError as error:
                raise not_writable(old.with_stem(kept), error) from error
            yield f"{old.name} {why}: kept as {kept}{old.suffix}"
