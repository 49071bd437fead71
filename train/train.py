"""Train a feedback spiking network by implicit differentiation.

Without arguments: sklearn's 8x8 digits, which need no download. A --config sets the defaults of every other option;
options given on the command line win. Writes last.safetensors, best.safetensors, config.json and a TensorBoard log
into runs/<name>.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fsnn_lava.checkpoint import load_checkpoint
from fsnn_lava.command import run_script, show_next
from fsnn_lava.config import TrainConfig, read_config
from fsnn_lava.data import load_dataset
from fsnn_lava.errors import ConfigError
from fsnn_lava.runs import new_run_folder, write_json
from fsnn_lava.spec import parse_spec
from fsnn_lava.tensorboard_log import TensorBoardLog
from fsnn_lava.training import LAST, FitResult, fit

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "digits.toml"

console = Console()


@dataclass(frozen=True)
class Arguments:
    """Train a feedback spiking network by implicit differentiation (IDE)."""

    config: Path = DEFAULT_CONFIG
    """TOML file with the settings below; see train/configs/."""
    resume: Path | None = None
    """Folder of a run to go on with, bit for bit; its settings are kept."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""
    runs: Path = Path("runs")
    """Where the run's folder is made."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class Source:
    """The options that decide where the defaults of all others come from."""

    config: Path | None = None
    resume: Path | None = None


class Screen:
    """Shows a training's course: a progress bar, and a line per epoch."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("epoch 1", total=None)

    def iteration(self, *, epoch: int, done: int, total: int, loss: float) -> None:
        """Moves the bar."""
        self._progress.update(
            self._task, completed=done, total=total, description=f"epoch {epoch + 1}  loss {loss:.4f}"
        )

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Prints the epoch's figures."""
        self._progress.console.print(
            f"epoch {epoch:3d}  loss {metrics['train/loss']:.4f}  train {metrics['train/accuracy']:.2%}  "
            f"test {metrics['test/accuracy']:.2%}  {metrics['train/seconds']:.1f} s"
        )


class Both:
    """Passes everything on to the screen and to TensorBoard."""

    def __init__(self, screen: Screen, log: TensorBoardLog) -> None:
        self._observers = (screen, log)

    def iteration(self, *, epoch: int, done: int, total: int, loss: float) -> None:
        """Passes an iteration on."""
        for observer in self._observers:
            observer.iteration(epoch=epoch, done=done, total=total, loss=loss)

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Passes an epoch on."""
        for observer in self._observers:
            observer.epoch(epoch=epoch, metrics=metrics)


def parse_arguments(argv: list[str]) -> Arguments:
    """Command line over the config file (or the resumed run's settings) over the defaults."""
    first, _ = tyro.cli(Source, args=[a for a in argv if a not in ("-h", "--help")], return_unknown_args=True)
    if first.config is not None and first.resume is not None:
        raise ConfigError("found --config and --resume; allowed: one of them, since a resumed run keeps its settings")
    if first.resume is not None:
        settings = load_checkpoint(first.resume / LAST).config
    else:
        settings = read_config(first.config or DEFAULT_CONFIG)
    return tyro.cli(Arguments, args=argv, default=Arguments(settings=settings), description=__doc__)


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 130 interrupted (resumable), 2 refused."""
    arguments = parse_arguments(argv)
    config = arguments.settings
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    dataset = load_dataset(config.dataset, arguments.data_dir)
    parse_spec(config.network.notation).populations(dataset.input_shape)  # refuses before anything is written
    folder = arguments.resume or new_run_folder(arguments.runs, config.name)
    if arguments.resume is None:
        write_json(folder / "config.json", dataclasses.asdict(config))
    what = f"{config.network.notation} on {config.dataset}, {len(dataset.train)} samples"
    console.print(f"{what} -> {escape(str(folder))}", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress, TensorBoardLog(folder) as log:
        observer = Both(Screen(progress), log)
        result = fit(config, dataset, folder, resume=arguments.resume is not None, observer=observer)
    return report(result, folder, arguments.data_dir)


def report(result: FitResult, folder: Path, data_dir: Path | None) -> int:
    """Says how it ended and what to run next."""
    if not result.finished:
        console.print(f"interrupted after {result.epochs} whole epochs; what was done of the next one is kept")
        show_next(console, f"python train/train.py --resume {folder}", data_dir=data_dir)
        return 130
    console.print(f"best test accuracy {result.best_accuracy:.2%} (epoch {result.best_epoch} of {result.epochs})")
    show_next(console, f"python deploy/export.py --to lava --run {folder}", data_dir=data_dir)
    return 0


if __name__ == "__main__":
    run_script(main)
