"""Train a feedback spiking network: by implicit differentiation (IDE), by spikes (SPIDE), or through time (BPTT).

Without arguments: sklearn's 8x8 digits, which need no download. A --config sets the defaults of every other option;
options given on the command line win. Writes last.safetensors, best.safetensors, config.json and a TensorBoard log
into runs/<name>. Several processes share each batch when torchrun starts them:
torchrun --nproc-per-node 2 train/train.py --device cuda
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fsnn_lava.cli.script import run_script, show_next
from fsnn_lava.cli.tensorboard_log import TensorBoardLog
from fsnn_lava.config import TrainConfig, changed_settings, parse_spec, read_config
from fsnn_lava.datasets import DATASETS, Dataset, load_dataset
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import new_run_folder, write_json
from fsnn_lava.network import device_title, open_device
from fsnn_lava.training import (
    FREE_ON_RESUME,
    LAST,
    FitResult,
    Ranks,
    check_dataset,
    check_shares,
    chosen_samples,
    couple_warnings,
    fit,
    joined,
    load_checkpoint,
    ranks_of_environment,
)

DEFAULT_CONFIG = "digits"
SECONDS_BETWEEN_LINES = 60.0
"""How often the progress within an epoch is shown where no terminal can show a bar."""
EXACT_ON_RESUME = ("epochs", "checkpoint_minutes")
"""Settings whose change leaves every bit of a resumed run as it would have been."""

console = Console()


@dataclass(frozen=True)
class Arguments:
    """Train a feedback spiking network by implicit differentiation (IDE)."""

    config: str = DEFAULT_CONFIG
    """Name of a configuration that comes with fsnn (`fsnn configs`), or a TOML file with the settings below."""
    resume: Path | None = None
    """Folder of a run to go on with, bit for bit; its settings are kept."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""
    runs: Path = Path("runs")
    """Where the run's folder is made."""
    device: str | None = None
    """Short for --training.device: cpu, cuda or cuda:N."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class Source:
    """The options that decide where the defaults of all others come from."""

    config: str | None = None
    resume: Path | None = None


class Screen:
    """Shows a training's course: a progress bar, and a line per epoch."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("epoch 1", total=None)
        self._shown = time.monotonic()

    def iteration(self, *, epoch: int, done: int, total: int, loss: float) -> None:
        """Moves the bar; where there is none, shows a line from time to time."""
        if not self._progress.console.is_terminal:
            if time.monotonic() - self._shown > SECONDS_BETWEEN_LINES:
                self._shown = time.monotonic()
                self._progress.console.print(f"epoch {epoch + 1:3d}  {done}/{total}  loss {loss:.4f}")
            return
        self._progress.update(
            self._task, completed=done, total=total, description=f"epoch {epoch + 1}  loss {loss:.4f}"
        )

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Prints the epoch's figures."""
        self._progress.console.print(
            f"epoch {epoch:3d}  loss {metrics['train/loss']:.4f}  train {metrics['train/accuracy']:.2%}  "
            f"test {metrics['test/accuracy']:.2%}  {metrics['train/seconds']:.1f} s"
        )
        for warning in couple_warnings(metrics):
            self._progress.console.print(f"           warning: {warning}", soft_wrap=True)


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
    description = f"{__doc__}\nDatasets: {DATASETS.help()}."
    arguments = tyro.cli(Arguments, args=argv, default=Arguments(settings=settings), description=description)
    if arguments.device is not None:
        training = dataclasses.replace(arguments.settings.training, device=arguments.device)
        arguments = dataclasses.replace(arguments, settings=dataclasses.replace(arguments.settings, training=training))
    return arguments


def main(argv: list[str]) -> int:
    """Exit status: 0 done, 130 interrupted (resumable), 2 refused."""
    ranks = ranks_of_environment()
    console.quiet = not ranks.first
    arguments = parse_arguments(argv)
    config = arguments.settings
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    device = open_device(config.training.device, local_rank=ranks.local_rank, processes=ranks.size)
    dataset = chosen_samples(config, load_dataset(config.dataset, arguments.data_dir))
    check_dataset(config, dataset)  # refuses before anything is written
    check_shares(config, len(dataset.train), processes=ranks.size)
    where = device_title(device) + (f", {ranks.size} processes" if ranks.size > 1 else "")
    with joined(ranks, device):
        folder = arguments.resume or Path(ranks.same_text(str(new_folder(arguments)) if ranks.first else ""))
        what = f"{config.network.notation} on {config.dataset}, {parts(config, dataset)}, on {where}"
        console.print(escape(f"{what} -> {folder}"), soft_wrap=True)
        if arguments.resume is not None:
            tell_of_resume(config, arguments.resume, processes=ranks.size)
        result = train(arguments, dataset, folder, ranks)
        return report(result, folder, config, arguments.data_dir)


def new_folder(arguments: Arguments) -> Path:
    """Where a new run writes; its settings are in it."""
    folder = new_run_folder(arguments.runs, arguments.settings.name)
    write_json(folder / "config.json", dataclasses.asdict(arguments.settings))
    return folder


def parts(config: TrainConfig, dataset: Dataset) -> str:
    """How many samples are used."""
    count = f"{len(dataset.train)} samples"
    if config.train_samples or config.test_samples:
        count += f", tested on {len(dataset.test)} (a part of the data: not comparable with published figures)"
    return f"{count} ({dataset.note}: not comparable with published figures)" if dataset.note else count


def tell_of_resume(config: TrainConfig, folder: Path, *, processes: int) -> None:
    """Says what changes when a run goes on, or that it is done; what may not change is refused later."""
    before = load_checkpoint(folder / LAST)
    if changed_settings(before.config, config, free=FREE_ON_RESUME):
        return
    changed = changed_settings(before.config, config, free=EXACT_ON_RESUME)
    if changed:
        console.print(f"{', '.join(changed)}: what follows differs by rounding", soft_wrap=True)
    found = before.metrics.get("processes", 1)
    if found != processes:
        apart = "by rounding" if config.training.sync_batch_norm else "in its batch norms, whose batches are others"
        console.print(f"processes ({found} -> {processes}): what follows differs {apart}", soft_wrap=True)
    if before.metrics["epoch"] >= config.training.epochs:
        console.print(f"all {before.metrics['epoch']} epochs are done; more with --training.epochs", soft_wrap=True)


def train(arguments: Arguments, dataset: Dataset, folder: Path, ranks: Ranks) -> FitResult:
    """Trains; the first process shows and logs how it goes."""
    config, resume = arguments.settings, arguments.resume is not None
    if not ranks.first:
        return fit(config, dataset, folder, resume=resume, ranks=ranks)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress, TensorBoardLog(folder) as log:
        observer = Both(Screen(progress), log)
        return fit(config, dataset, folder, resume=resume, observer=observer, ranks=ranks)


def report(result: FitResult, folder: Path, config: TrainConfig, data_dir: Path | None) -> int:
    """Says how it ended and what to run next."""
    if not result.finished:
        console.print(f"interrupted after {result.epochs} whole epochs; what was done of the next one is kept")
        show_next(console, f"python train/train.py --resume {folder}", data_dir=data_dir)
        return 130
    console.print(f"best test accuracy {result.best_accuracy:.2%} (epoch {result.best_epoch} of {result.epochs})")
    layers = parse_spec(config.network.notation).layers
    if all(layer.kind == "linear" for layer in layers):
        show_next(console, f"python deploy/export.py --to lava --run {folder}", data_dir=data_dir)
    else:  # convolutional networks cannot be exported yet
        show_next(console, f"python train/evaluate.py --run {folder}", data_dir=data_dir)
    return 0


if __name__ == "__main__":
    run_script(main)
