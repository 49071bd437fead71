"""How fast networks run on Lava and in the simulator, as ratios from one run.

Takes exported runs (python deploy/export.py --run RUN). Sections: lava: a step with Lava's own process models and with
ours; sets: whole test sets in the simulator; kernels: synaptic operations per second beside the machine's limits;
rates, steps: cost against the firing rate and against T. The figures are kept in benchmarks/results/deployment.json,
from which the pictures beside it are drawn. With --readme nothing is run: the documents' tables are made of that file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from benchmarks.deployment.engine_cost import engine_costs
from benchmarks.deployment.kernel_speed import FIRING, measure_kernels
from benchmarks.deployment.measured_runs import Subject, measure_lava, measure_sets, read_subject
from benchmarks.deployment.pictures import PICTURES, draw_costs
from benchmarks.deployment.tables import tables
from benchmarks.shared.machine import conditions
from benchmarks.shared.results import BENCHMARKS_README, README, RESULTS, stored
from benchmarks.shared.text_table import with_blocks
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import write_json, write_text

Section = Literal["lava", "sets", "kernels", "rates", "steps"]
RESULT = "deployment.json"
DOCUMENTS = {
    README: ("deployment-speed",),
    BENCHMARKS_README: (
        *("deployment-models", "deployment-simulator", "deployment-sets", "deployment-kernels"),
        *("deployment-rates", "deployment-steps"),
    ),
}
"""Which blocks are in which document."""
STEPS = (5, 10, 20, 30, 50, 100)
"""T of the section of that name."""
STEPS_FIRING, RATES_STEPS = 0.05, 30
"""What stays in the sections steps and rates."""

console = Console(width=160)


@dataclass(frozen=True)
class Arguments:
    """Measure how fast networks run on Lava and in the simulator."""

    mnist: Path | None = None
    """Folder of an exported run of `64C5s (F64C5)` on MNIST."""
    alexnet: Path | None = None
    """Folder of an exported run of AlexNet-F on CIFAR-10."""
    fashion: Path | None = None
    """Folder of an exported run of `400 (F400)` on Fashion-MNIST."""
    only: tuple[Section, ...] = get_args(Section)
    """Which sections; what is kept of the others stays. Without a network, lava and sets have nothing to do."""
    images: int | None = None
    """At most so many test images of each network in the simulator; default: 10,000, of AlexNet-F 1,000."""
    repeats: int = 3
    """Measured runs of kernels and engines, of which the median is taken."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    results: Path | None = None
    """Where figures and pictures are kept; default: benchmarks/results, and nowhere with --quick."""
    quick: bool = False
    """Tiny sizes: shows that everything works, and measures nothing."""
    readme: bool = False
    """Only put the tables of the kept figures into README.md and benchmarks/README.md."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status: 0, or 1 if Lava's spike counts differ from the simulator's."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.deployment.speed", description=__doc__)
    folder = arguments.results or (None if arguments.quick else RESULTS)
    kept: dict[str, Any] = (stored(folder / RESULT) if folder else None) or {}
    if arguments.readme:
        write_documents(kept)
        return 0
    for section, figures in measured(arguments):
        kept[section] = {"conditions": figures.pop("conditions"), **figures}
        if folder:  # at once: what comes later may fail
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / RESULT, {name: kept[name] for name in get_args(Section) if name in kept})
    for table in tables(kept).values():
        console.print(table.screen())
    for section in PICTURES:
        if folder and section in kept:
            console.print(f"{draw_costs(kept, section, folder)}: drawn", soft_wrap=True)
    lava = kept.get("lava", {"networks": {}})["networks"].values()
    return 0 if all(row[models]["identical"] for row in lava for models in ("stock", "ours")) else 1


def measured(arguments: Arguments) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each section with its figures, as it is finished."""
    subjects = read_subjects(arguments)
    with console.status("") as status:
        for section in get_args(Section):
            if section not in arguments.only or (section in ("lava", "sets") and not subjects):
                continue
            before = conditions()
            status.update(section)
            yield section, {"conditions": before, **figures_of(section, subjects, arguments, status.update)}


def read_subjects(arguments: Arguments) -> dict[str, Subject]:
    """Load the networks that are named, if a section needs them.

    Raises
    ------
    ConfigError : if none is, and no other section is asked for.
    """
    named = {"fashion": arguments.fashion, "mnist": arguments.mnist, "alexnet": arguments.alexnet}
    needed = {"lava", "sets"} & set(arguments.only)
    if needed and needed == set(arguments.only) and not any(named.values()):
        raise ConfigError("sections lava and sets: no network is named; give --mnist, --alexnet or --fashion RUN")
    return {
        key: read_subject(key, run, data_dir=arguments.data_dir, images=arguments.images, quick=arguments.quick)
        for key, run in named.items()
        if run is not None and needed
    }


def figures_of(section: str, subjects: dict[str, Subject], arguments: Arguments, say: Any) -> dict[str, Any]:
    """Measure a section, as it is kept."""
    if section == "lava":
        return {"networks": measure_lava(subjects, say)}
    if section == "sets":
        return {"networks": measure_sets(subjects, say)}
    if section == "kernels":
        return dict(measure_kernels(repeats=arguments.repeats, quick=arguments.quick))
    images = 2 if arguments.quick else 128
    points = [(firing, RATES_STEPS) for firing in FIRING]
    if section == "steps":
        points = [(STEPS_FIRING, time_steps) for time_steps in STEPS]
    some = points[:2] if arguments.quick else points
    return {"images": images, "rows": engine_costs(some, images=images, repeats=arguments.repeats)}


def write_documents(kept: dict[str, Any]) -> None:
    """Put the tables into the documents.

    Raises
    ------
    ConfigError : if a table's figures are not kept, or a document lacks a table's place.
    """
    found = tables(kept)
    texts = {}
    for path, names in DOCUMENTS.items():
        missing = [name for name in names if name not in found]
        if missing:
            raise ConfigError(f"{RESULT} holds no figures for {', '.join(missing)}; measure them first")
        texts[path] = with_blocks(path.read_text(encoding="utf-8"), {name: found[name].markdown() for name in names})
    for path, text in texts.items():
        write_text(path, text)
        console.print(f"{path}: tables written", soft_wrap=True)


if __name__ == "__main__":
    run_script(main)
