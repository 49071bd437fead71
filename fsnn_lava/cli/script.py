"""What commands share: options, reports, and how they end, with a status, a message or the command to run next.

The subcommands of ``fsnn`` and the scripts of ``benchmarks/`` use it.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from fsnn_lava.cli import INTERRUPTED, REFUSED
from fsnn_lava.conversion import take_from_zoo
from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.errors import ConfigError, FsnnError
from fsnn_lava.files import newest_run, write_json, write_text

if TYPE_CHECKING:
    from fsnn_lava.training import TrainedNetwork

SCRIPTS = {
    "train": "train/train.py",
    "evaluate": "train/evaluate.py",
    "train-on-lava": "train/on_lava.py",
    "export": "deploy/export.py",
    "run": "deploy/run.py",
    "verify": "deploy/verify.py",
    "anytime": "deploy/anytime.py",
}
"""The script of a checkout that is the same as a subcommand."""
SILENCE = 5.0
"""Seconds after which a command that is at work says so again where no terminal can show it."""


@dataclass(frozen=True)
class Places:
    """Options of every command that makes or reads runs."""

    runs: Path = Path("runs")
    """Where run folders are."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""
    download: bool = False
    """Let torchvision or tonic fetch what is missing of a dataset of theirs (torchvision:NAME, tonic:NAME)."""


@dataclass(frozen=True)
class RunPlaces(Places):
    """Options of every command that works on one run."""

    run: Path | None = None
    """Run folder; default: the newest one that holds what is needed."""
    dataset: str | None = None
    """Where your own data is that it was trained on, if that is not where it was; or the function that returns it."""


@dataclass(frozen=True)
class DeployedPlaces(RunPlaces):
    """Options of every command that works on an exported network."""

    zoo: str | None = None
    """Instead of a run, a network that comes with fsnn (`fsnn zoo`); it is put into the folder zoo-NAME of --runs."""


def chosen_run(console: Console, places: RunPlaces, holding: str) -> Path:
    """Return the folder that --run or --zoo names, or else the newest run that holds a file of this name; say which.

    Raises
    ------
    ConfigError : if there is no such folder, or no run with such a file.
    NetworkError, OutputError : as `take_from_zoo`.
    """
    if isinstance(places, DeployedPlaces) and places.zoo is not None:
        if places.run is not None:
            raise ConfigError(f"found --run {places.run} and --zoo {places.zoo}; allowed: one of them")
        return take_from_zoo(places.zoo, places.runs)
    if places.run is not None:
        if not places.run.is_dir():
            there = ", ".join(sorted(str(path) for path in places.runs.glob("*/") if path.is_dir()))
            raise ConfigError(f"--run {places.run}: no such folder; in {places.runs} there are: {there or 'none'}")
        return places.run
    folder, without = newest_run(places.runs, holding)
    newer = f"; newer, but without it: {', '.join(map(str, without))}" if without else ""
    console.print(f"run: {escape(str(folder))}, the newest with {holding}{escape(newer)}", soft_wrap=True)
    return folder


def dataset_of(trained: "TrainedNetwork", places: RunPlaces) -> Dataset:
    """Read the dataset that a network was trained on, from where --dataset says if that is given.

    Raises
    ------
    DatasetError : if it cannot be read, or is not the one that the network was trained on.
    """
    return load_dataset(
        places.dataset or trained.config.dataset,
        places.data_dir,
        classes=trained.classes,
        coding=trained.coding,
        settings=trained.config.data,
        asked=places.dataset is not None,
        download=places.download,
    )


def command_line(command: str) -> str:
    """How a user who started this program as they did starts a subcommand: as ``fsnn``, as a module, or as a script."""
    started = "/".join(Path(sys.argv[0]).parts[-2:])
    if command in SCRIPTS and started in SCRIPTS.values():
        return f"python {SCRIPTS[command]}"
    if started == "fsnn_lava/__main__.py":
        return f"python -m fsnn_lava {command}"
    on_path = shutil.which("fsnn") is not None or Path(sys.argv[0]).name != "fsnn"
    return f"{'fsnn' if on_path else os.path.relpath(sys.argv[0])} {command}"  # as of an environment that is not active


def show_next(console: Console, command: str, options: str = "", *, data_dir: Path | None) -> None:
    """Say on one line which subcommand to run next, on the same datasets."""
    parts = [command_line(command), options, "" if data_dir is None else f"--data-dir {data_dir}"]
    console.print(f"next: {escape(' '.join(part for part in parts if part))}", soft_wrap=True)


@contextmanager
def working(console: Console, task: str) -> Iterator[Callable[[str], None]]:
    """Show what a command is at: a spinner and the time on a terminal, a line every `SILENCE` in a pipe or a file.

    Yields a function that says what comes next, or how far it is.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    if console.is_terminal:
        with Progress(*columns, console=console, transient=True) as progress:
            shown = progress.add_task(task, total=None)
            yield lambda text: progress.update(shown, description=text)
        return
    began, now, over = time.monotonic(), [task], Event()

    def show() -> None:
        while not over.wait(SILENCE):
            console.print(f"{now[-1]} ({time.monotonic() - began:.0f} s)", markup=False, soft_wrap=True)

    lines = Thread(target=show, daemon=True)
    lines.start()
    try:
        yield now.append
    finally:
        over.set()
        lines.join()


class _WholeCells(TableElement):
    """A table whose long words go on in the next line; rich's own cuts them."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                for column in table.columns:
                    column.overflow = "fold"
            yield table


class _ReportText(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "table_open": _WholeCells}


def write_report(console: Console, folder: Path, name: str, *, markdown: str, values: Mapping[str, Any]) -> None:
    """Show a report, and write it into a run's folder as Markdown and as JSON."""
    console.print(_ReportText(markdown))
    write_json(folder / f"{name}.json", values)
    write_text(folder / f"{name}.md", markdown)


def run_script(main: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> NoReturn:
    """End the program with main's exit status.

    An error of this package becomes one message on stderr and `REFUSED`; Ctrl-C becomes `INTERRUPTED`, also where it
    ended a run, whose error then says how many samples were finished.

    Parameters
    ----------
    argv : what main is given; None: the command line's arguments.
    """
    console = Console(stderr=True)
    try:
        status = main(list(sys.argv[1:] if argv is None else argv))
    except FsnnError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}", soft_wrap=True, highlight=False)
        status = INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else REFUSED
    except KeyboardInterrupt:
        console.print("interrupted")
        status = INTERRUPTED
    except BrokenPipeError:  # as by `fsnn configs | head`; what is left in the buffer must not be written at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = REFUSED
    sys.exit(status)
