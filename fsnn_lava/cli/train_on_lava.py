"""Train a small fully connected network by SPIDE with every epoch executed in Lava: a simulation of on-chip training.

Both phases are Lava processes on the CPU, in float64, and every connection changes its own weights. No chip is used;
docs/training-on-chip.md says what Loihi 2 would need. Without arguments: sklearn's 8x8 digits, as `fsnn train` does
with the config digits_spide, but without dropout, which is refused here. A --config sets the defaults of every
other option. Writes what `fsnn train` writes, so that `fsnn export`, `run` and `verify` take it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape

from fsnn_lava.backends import require_lava
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import Places, working
from fsnn_lava.cli.training_display import dataset_of_settings, named, new_folder, report, shown, source_of
from fsnn_lava.config import TrainConfig, with_given
from fsnn_lava.datasets import DATASETS, Dataset
from fsnn_lava.errors import BackendError, counted
from fsnn_lava.training import (
    TOLERANCE,
    Agreement,
    FitResult,
    check_dataset,
    check_on_lava,
    chosen_samples,
    fit_on_lava,
    require_on_chip,
)

DEFAULT_CONFIG = "digits_spide"
console = Console()


@dataclass(frozen=True)
class Arguments(Places):
    """Train by SPIDE in Lava's processes."""

    config: str | None = None
    """TOML file with the settings below; default: digits_spide.toml without dropout."""
    resume: Path | None = None
    """Folder of an interrupted run of this command, to go on with bit for bit; its settings are kept."""
    epochs: int | None = None
    """Short for --training.epochs."""
    samples: int | None = None
    """Short for --train-samples: training samples to use; 0: all."""
    check: int = 0
    """Before training, hold so many samples, from the first one, against gradients/spide.py in float64: every spike in
    both phases, the gradients of the last one's batch and the weights after it; what differs by more than
    rounding is refused."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def parse_arguments(argv: list[str]) -> Arguments:
    """Read the options, whose defaults are those of the config file or of the resumed run."""
    source = source_of(argv)
    settings = source.settings(DEFAULT_CONFIG)
    if source.config is None and source.resume is None:
        settings = dataclasses.replace(settings, network=dataclasses.replace(settings.network, dropout=0.0))
    default = Arguments(settings=settings)
    description = f"{__doc__}\n\nDatasets: {DATASETS.help()}."
    arguments = read_options(Arguments, argv, command="train-on-lava", description=description, default=default)
    own, training = {"train_samples": arguments.samples}, {"epochs": arguments.epochs}
    chosen = with_given(arguments.settings, own=own, training=training)
    return dataclasses.replace(arguments, settings=named(chosen, settings))


def main(argv: list[str]) -> int:
    """Train in Lava and return the exit status: 0 if done, 130 if interrupted, so that it can be resumed."""
    arguments = parse_arguments(argv)
    config = arguments.settings
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    with working(console, f"reading {config.dataset}"):
        dataset = dataset_of_settings(config, argv, arguments)
    require_on_chip(config, dataset)  # this and the next three refuse before anything is started or written
    dataset = chosen_samples(config, dataset)
    check_dataset(config, dataset)
    require_lava()
    console.print(
        "a simulation of on-chip training: Lava's processes on this CPU, in float64; no chip is used", soft_wrap=True
    )
    if arguments.check:
        show_agreement(check_on_lava(config, dataset, samples=arguments.check))
    folder = arguments.resume or new_folder(arguments.runs, f"{config.name}_on_lava", config)
    what = f"{config.network.title} on {config.dataset}, {counted(config.training.epochs, 'epoch')} -> {folder}"
    console.print(escape(what), soft_wrap=True)
    result, kept = train(arguments, dataset, folder), "all whole updates of the next one are kept"
    return report(console, result, folder, command="train-on-lava", kept=kept, data_dir=arguments.data_dir)


def show_agreement(found: Agreement) -> None:
    """Say how the batches that Lava was checked on compare with `gradients.spide`.

    Raises
    ------
    BackendError : if a spike differs, or a gradient or weight by more than rounding.
    """
    gradient, weight = max(found.gradient_error.values()), max(found.weight_error.values())
    console.print(
        f"check: {counted(found.samples, 'sample')}, {counted(found.updates, 'update')}, spikes forward: "
        f"{found.spikes}, backward: {found.spikes_back}; different at {found.different} and "
        f"{found.different_back} places; gradients within {gradient:.1e}, weights within {weight:.1e} of the largest",
        soft_wrap=True,
    )
    if found.disagreements:
        raise BackendError(
            "Lava's spikes, gradients or weights are not those of gradients/spide.py; nothing was trained. Found: "
            f"different {', '.join(found.disagreements)}; allowed: no other spike, and {TOLERANCE:.0e} of an array's "
            "largest value. A potential within 1e-15 of its threshold may move a spike: try another --training.seed; "
            "if that differs too, it is a fault of this package: report it with the settings of this run"
        )


def train(arguments: Arguments, dataset: Dataset, folder: Path) -> FitResult:
    """Train, and show how it goes."""
    resume = arguments.resume is not None
    with shown(console, folder, epoch_lines, starting="starting Lava") as screen:
        return fit_on_lava(arguments.settings, dataset, folder, resume=resume, observer=screen)


def epoch_lines(epoch: int, metrics: Mapping[str, float]) -> Iterator[str]:
    """The epoch's figures, and how often neurons fired in both phases."""
    yield (
        f"epoch {epoch:3d}  loss {metrics['train/loss']:.4f}  train {metrics['train/accuracy']:.2%}  "
        f"test {metrics['test/accuracy']:.2%} (by torch)  {metrics['train/seconds']:.1f} s  "
        f"{metrics['train/steps_per_second']:.0f} steps/s"
    )
    for title, kind in (("forward", "firing_rate"), ("backward", "backward_firing_rate")):
        prefix = f"train/{kind}/"
        rates = [f"{n.removeprefix(prefix)} {v:.4f}" for n, v in metrics.items() if n.startswith(prefix)]
        yield f"           {title} spikes per neuron and step: {', '.join(rates)}"
