"""SPIDE: time, memory, firing, energy and gradient error of its training, against its alternatives in the same run.

Sections: speed: an iteration, phase by phase, against a plain dense restatement of the published procedure
(`spide/plain_training.py`), and beside the machine's limits; memory: peak of an iteration for several T and T_back,
against BPTT; energy: firing rates of both phases, synaptic operations, and an estimate of the energy of training on one
sample against IDE and BPTT (`spide/energy.py` has the formulas); error: of the gradient, against the
converged implicit one, by T_back and loss scale. The figures are kept in benchmarks/results/spide.json, case by case;
what is kept of others stays. With --readme nothing is run: the documents' tables are made of that file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from benchmarks.shared.results import BENCHMARKS_README, RESULTS, stored
from benchmarks.shared.text_table import with_blocks
from benchmarks.spide.cases import Case, energy_of, error_of, memory_of, read_cases, speed_of
from benchmarks.spide.energy import EnergyCosts
from benchmarks.spide.tables import tables
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import write_json, write_text

Section = Literal["speed", "memory", "energy", "error"]
RESULT = "spide.json"
DOCUMENT = BENCHMARKS_README
"""Where the blocks of all tables are."""

console = Console(width=160)


@dataclass(frozen=True)
class Arguments:
    """Measure SPIDE's training."""

    cases: tuple[str, ...] = ("mnist_spide_conv", "digits_spide")
    """Untrained networks: a name or a path, with another batch size after a colon if wanted."""
    runs: tuple[Path, ...] = ()
    """Folders of trainings by SPIDE, whose last weights are taken."""
    only: tuple[Section, ...] = get_args(Section)
    """Which sections."""
    repeats: int = 10
    """Measured iterations of each variant, at least; the median is taken."""
    threads: int = 0
    """CPU threads; 0: all cores."""
    time_steps: tuple[int, ...] = (10, 30, 100)
    """T at which memory is measured, with T_back = 100."""
    time_steps_back: tuple[int, ...] = (30, 100, 1000)
    """T_back at which memory is measured, with T = 30."""
    memory_batch: int = 32
    """Samples of an iteration whose memory is measured."""
    error_steps: tuple[int, ...] = (30, 100, 250, 1000)
    """T_back at which the gradient's error is measured."""
    error_scales: tuple[float, ...] = (100.0, 400.0, 1000.0)
    """Loss scales at which it is."""
    costs: EnergyCosts = field(default_factory=EnergyCosts)
    """Energies of operations."""
    seed: int = 0
    """Seed of the untrained weights and of batches and masks."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    results: Path = RESULTS
    """Where the figures are kept."""
    readme: bool = False
    """Only put the tables of the kept figures into benchmarks/README.md."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.spide.training", description=__doc__)
    path = arguments.results / RESULT
    kept: dict[str, Any] = stored(path) or {}
    if arguments.readme:
        write_document(kept)
        return 0
    threads = arguments.threads or len(os.sched_getaffinity(0))
    cases = read_cases(
        arguments.cases, arguments.runs, data_dir=arguments.data_dir, seed=arguments.seed, threads=threads
    )
    arguments.results.mkdir(parents=True, exist_ok=True)
    with console.status("") as status:
        for section in get_args(Section):
            for case in cases if section in arguments.only else ():
                status.update(f"{section}: {case.key}")
                facts = case.facts()
                kept.setdefault(section, {})[case.key] = facts | measured(section, case, arguments, status.update)
                write_json(path, {name: kept[name] for name in get_args(Section) if name in kept})
    for table in tables(stored(path)).values():
        console.print(table.screen())
    return 0


def measured(section: Section, case: Case, arguments: Arguments, say: Callable[[str], object]) -> dict[str, Any]:
    """Measure a section for one case."""
    if section == "speed":
        return speed_of(case, repeats=arguments.repeats)
    if section == "memory":
        return memory_of(
            case,
            time_steps=arguments.time_steps,
            time_steps_back=arguments.time_steps_back,
            batch_size=arguments.memory_batch,
        )
    if section == "energy":
        return energy_of(case, costs=arguments.costs)
    return error_of(case, time_steps_back=arguments.error_steps, loss_scales=arguments.error_scales, say=say)


def write_document(kept: dict[str, Any]) -> None:
    """Put the tables into the document.

    Raises
    ------
    ConfigError : if no figures are kept, or the document lacks a table's place.
    """
    found = tables(kept)
    if not found:
        raise ConfigError(f"{RESULT} holds no figures; measure them first: python -m benchmarks.spide.training")
    text = with_blocks(DOCUMENT.read_text(encoding="utf-8"), {name: t.markdown() for name, t in found.items()})
    write_text(DOCUMENT, text)
    console.print(f"{DOCUMENT}: tables written", soft_wrap=True)


if __name__ == "__main__":
    run_script(main)
