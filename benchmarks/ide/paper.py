"""The IDE paper's tables with its figures and ours, each row marked as full, in part or not run.

With --runs, the trainings in that folder (`python train/train.py --config <name>`) are read first,
finished or not, and each one's figures are kept in benchmarks/results/trainings/. Without it the tables are made from
what is kept there. --readme puts them into README.md and benchmarks/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.ide.published import TITLES, Row, published_rows
from benchmarks.ide.tables import accuracy_table, convergence_table, memory_table, rates_table
from benchmarks.ide.trainings import TRAININGS, RunResult, read_run, save_result, stored_results
from benchmarks.shared.results import BENCHMARKS_README, README, RESULTS, stored
from benchmarks.shared.text_table import TextTable, with_blocks
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.datasets import load_dataset
from fsnn_lava.errors import ConfigError, DatasetError
from fsnn_lava.files import write_json, write_text
from fsnn_lava.training import LAST

DOCUMENTS = {README: ("accuracy", "memory"), BENCHMARKS_README: ("rates", "convergence")}
"""Which tables each document shows."""

console = Console(width=150)


@dataclass(frozen=True)
class Arguments:
    """Print the paper's tables with our figures."""

    runs: tuple[Path, ...] = ()
    """Folders of trainings whose figures are to be kept, each with one folder per run."""
    data_dir: Path | None = None
    """Folder of the datasets, to say with --runs which are not at hand; default: the variable FSNN_DATA."""
    results: Path = RESULTS
    """Where figures are kept."""
    replace: bool = False
    """Keep a run's figures even where those kept under its name are of more samples."""
    readme: bool = False
    """Put the tables into the documents that show them."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.ide.paper", description=__doc__)
    rows = published_rows()
    if arguments.runs:
        keep(rows, arguments)
    tables = all_tables(rows, arguments.results)
    for table in tables.values():
        console.print(table.screen(), "")
    if arguments.readme:
        for path in DOCUMENTS:
            write_text(path, with_tables(path.read_text(encoding="utf-8"), path, tables))
            console.print(f"{path}: tables written", soft_wrap=True)
    return 0


def keep(rows: list[Row], arguments: Arguments) -> None:
    """Keep the figures of all runs of published rows, and why other rows have none.

    Raises
    ------
    ConfigError : if a folder holds no run, or two hold one of the same name.
    """
    configs = {row.config.name: row.config for row in rows}
    names: dict[str, Path] = {}
    for parent in arguments.runs:
        folders = sorted(path.parent for path in parent.glob(f"*/{LAST}"))
        if not folders:
            raise ConfigError(f"{parent}: no run is in it; train first: python train/train.py --runs {parent}")
        for folder in folders:
            if folder.name in names:
                raise ConfigError(f"{folder} and {names[folder.name]}: two runs of one name; rename one of the folders")
            names[folder.name] = folder
            result = read_run(folder, configs)
            if result is None:
                console.print(f"{folder}: left out; it is of no published row, or no epoch is done")
            else:
                keep_result(result, arguments)
    done = {result.config for result in stored_results(arguments.results / TRAININGS)}
    reasons = {dataset: absence(dataset, arguments.data_dir) for dataset in {r.config.dataset for r in rows}}
    write_json(
        arguments.results / "not_run.json",
        {row.config.name: reasons[row.config.dataset] for row in rows if row.config.name not in done},
    )


def keep_result(result: RunResult, arguments: Arguments) -> None:
    """Keep a run's figures, unless those kept under its name are of more samples."""
    folder = arguments.results / TRAININGS
    before = next((kept for kept in stored_results(folder) if kept.run == result.run), None)
    if before is not None and before.seen > result.seen and not arguments.replace:
        console.print(
            f"{result.run}: left out; what is kept under that name saw more ({before.epochs} epochs of "
            f"{before.train_samples} samples, this run {result.epochs} of {result.train_samples}); --replace takes it"
        )
        return
    save_result(result, folder)


def absence(dataset: str, data_dir: Path | None) -> str:
    """Why a dataset cannot be trained on; empty if it can."""
    try:
        load_dataset(dataset, data_dir)
    except DatasetError:
        return f"no {TITLES[dataset]} at hand"
    return ""


def all_tables(rows: list[Row], folder: Path) -> dict[str, TextTable]:
    """Every table, by name, from the figures kept in a folder."""
    results: list[RunResult] = stored_results(folder / TRAININGS)
    measured = [found for device in ("cpu", "cuda") if (found := stored(folder / f"memory_{device}.json"))]
    return {
        "accuracy": accuracy_table(rows, results, stored(folder / "not_run.json") or {}),
        "memory": memory_table(measured, rows, results),
        "rates": rates_table(rows, results),
        "convergence": convergence_table(stored(folder / "convergence.json") or {}),
    }


def with_tables(document: str, path: Path, tables: dict[str, TextTable]) -> str:
    """Put the tables as they are now into the text of the document at that path."""
    return with_blocks(document, {table: tables[table].markdown() for table in DOCUMENTS[path]})


if __name__ == "__main__":
    run_script(main)
