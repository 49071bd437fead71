"""What the two training commands share: where their settings come from, and how a training's course is shown."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]

from fsnn_lava.cli import INTERRUPTED
from fsnn_lava.cli.script import Places, show_next, working
from fsnn_lava.config import TrainConfig, read_config
from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.errors import ConfigError, counted
from fsnn_lava.files import SETTINGS, new_run_folder, write_json
from fsnn_lava.training import BEST, LAST, FitResult, epoch_warnings, load_checkpoint

Lines = Callable[[int, Mapping[str, float]], Iterator[str]]
"""What to show of an epoch, given its number and its metrics."""


@dataclass(frozen=True)
class Source:
    """The options that decide where the defaults of all others come from."""

    config: str | None = None
    resume: Path | None = None
    origin: Annotated[Path | None, tyro.conf.arg(name="from")] = None

    def settings(self, default: str) -> TrainConfig:
        """Settings of the run to go on with, or else of the config file, of the run to begin from, or of the default.

        Raises
        ------
        ConfigError, CheckpointError : if two are given that exclude each other, or what is given cannot be read.
        """
        if self.origin is not None and self.resume is not None:
            raise ConfigError(
                "found --from and --resume; allowed: one of them, since a resumed run has its own weights"
            )
        if self.config is not None and self.resume is not None:
            raise ConfigError(
                "found --config and --resume; allowed: one of them, since a resumed run keeps its settings"
            )
        if self.resume is not None:
            return load_checkpoint(self.resume / LAST).config
        if self.origin is not None and self.config is None:
            return load_checkpoint(self.origin / BEST).config
        return read_config(self.config or default)


def source_of(argv: list[str]) -> Source:
    """Read --config, --resume and --from, before the other options can be."""
    options = [a for a in argv if a not in ("-h", "--help")]
    return tyro.cli(Source, args=options, return_unknown_args=True)[0]


def dataset_of_settings(settings: TrainConfig, argv: list[str], places: Places) -> Dataset:
    """Read the dataset that the settings name; a function only if these arguments name it, and no file alone.

    Raises
    ------
    DatasetError : if it cannot be read.
    """
    asked = any(option.partition("=")[0] == "--dataset" for option in argv)
    return load_dataset(
        settings.dataset, places.data_dir, settings=settings.data, asked=asked, download=places.download
    )


def named(settings: TrainConfig, default: TrainConfig) -> TrainConfig:
    """Settings whose name is their dataset's, where this is not the default's any more and no name was given."""
    if settings.dataset == default.dataset or settings.name != default.name:
        return settings
    name = re.sub(r"[^\w.-]", "_", Path(settings.dataset).stem).lstrip(".") or "mine"
    return dataclasses.replace(settings, name=name)


def new_folder(runs: Path, name: str, settings: TrainConfig) -> Path:
    """Make the folder of a new run, with its settings in it."""
    folder = new_run_folder(runs, name)
    write_json(folder / SETTINGS, dataclasses.asdict(settings))
    return folder


class TensorBoardLog:
    """An observer of a training that writes each epoch's metrics into the run's folder, until it is closed."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def iteration(
        self, *, epoch: int, done: int, total: int, loss: float, figures: Mapping[str, float] | None = None
    ) -> None:
        """Write the iteration's figures, and about a hundred times per epoch the mean loss of the epoch so far."""
        at = epoch * total + done
        if done % max(1, total // 100) == 0:
            self._writer.add_scalar("iteration/loss", loss, at)
        for name, value in (figures or {}).items():
            self._writer.add_scalar(f"iteration/{name}", value, at)

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write every metric of the epoch."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Write what is still under way."""
        self._writer.close()


class Screen:
    """An observer that shows a training's course, and has it logged: how far it is, and some lines per epoch.

    Parameters
    ----------
    show : called with the iterations done and all iterations of the epoch, and with what to say of them.
    """

    def __init__(
        self, console: Console, log: TensorBoardLog, lines: Lines, show: Callable[[int, int, str], object]
    ) -> None:
        self._console, self._log, self._lines, self._show = console, log, lines, show

    def preparing(self, text: str) -> None:
        """Show what is done before the first iteration."""
        self._show(0, 0, text)

    def iteration(
        self, *, epoch: int, done: int, total: int, loss: float, figures: Mapping[str, float] | None = None
    ) -> None:
        """Show how far the epoch is; after its last iteration, that it is tested."""
        self._log.iteration(epoch=epoch, done=done, total=total, loss=loss, figures=figures)
        self._show(done, total, f"epoch {epoch + 1}  loss {loss:.4f}" + (", testing" if done == total else ""))

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Show the epoch's lines and what it warns of."""
        self._log.epoch(epoch=epoch, metrics=metrics)
        warnings = (f"           warning: {warning}" for warning in epoch_warnings(metrics))
        for line in (*self._lines(epoch, metrics), *warnings):
            self._console.print(line, soft_wrap=True)


@contextmanager
def shown(console: Console, folder: Path, lines: Lines, *, starting: str = "starting") -> Iterator[Screen]:
    """Show a training on the console, by a bar on a terminal and by lines elsewhere, and log it into its folder."""
    with ExitStack() as stack:
        log = stack.enter_context(closing(TensorBoardLog(folder)))
        if console.is_terminal:
            progress = stack.enter_context(Progress(*_COLUMNS, console=console, transient=True))
            task = progress.add_task(starting, total=None)

            def show(done: int, total: int, text: str) -> None:
                progress.update(task, completed=done, total=total or None, description=text)
        else:
            say = stack.enter_context(working(console, starting))

            def show(done: int, total: int, text: str) -> None:
                say(f"{text}, {done}/{total}" if total else text)

        yield Screen(console, log, lines, show)


_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


def report(console: Console, result: FitResult, folder: Path, *, command: str, kept: str, data_dir: Path | None) -> int:
    """Say how a training ended (what is kept of an interrupted epoch), and what to run next; return the status."""
    if not result.finished:
        console.print(f"interrupted after {counted(result.epochs, 'whole epoch')}; {kept}")
        show_next(console, command, f"--resume {folder}", data_dir=data_dir)
        return INTERRUPTED
    best = "" if "held-out" in result.chosen_on else "best "
    where = f"epoch {result.best_epoch} of {result.epochs}, chosen on {result.chosen_on}"
    console.print(f"{best}test accuracy {result.best_accuracy:.2%} ({where})")
    show_next(console, "export", f"--to lava --run {folder}", data_dir=data_dir)
    return 0
