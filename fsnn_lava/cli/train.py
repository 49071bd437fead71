"""Train a feedback spiking network: by implicit differentiation (IDE), by spikes (SPIDE), or through time (BPTT).

Without arguments: sklearn's 8x8 digits, which need no download. A --config sets the defaults of every other option;
options given on the command line win. Writes last.safetensors, best.safetensors, config.json and a TensorBoard log
into runs/<name>. Several processes share each batch when torchrun starts them:
torchrun --nproc-per-node 2 -m fsnn_lava train --device cuda
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

from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import Places, working
from fsnn_lava.cli.training_display import dataset_of_settings, named, new_folder, report, shown, source_of
from fsnn_lava.config import METHODS, NEURONS, TrainConfig, changed_settings, topology_of, with_given
from fsnn_lava.datasets import DATASETS, Dataset
from fsnn_lava.errors import counted
from fsnn_lava.network import device_title, open_device
from fsnn_lava.training import (
    BEST,
    FREE_ON_RESUME,
    LAST,
    RUN_SECONDS,
    FitResult,
    Ranks,
    TrainedNetwork,
    check_dataset,
    check_shares,
    chosen_samples,
    fit,
    free_on_resume,
    joined,
    load_checkpoint,
    load_training,
    new_model,
    ranks_of_environment,
    take_weights,
)

DEFAULT_CONFIG = "digits"
EXACT_ON_RESUME = ("epochs", "checkpoint_minutes")
"""Settings whose change leaves every bit of a resumed run as it would have been."""

console = Console()


@dataclass(frozen=True)
class Arguments(Places):
    """Train a feedback spiking network by implicit differentiation (IDE)."""

    config: str = DEFAULT_CONFIG
    """Name of a configuration that comes with fsnn (`fsnn configs`), or a TOML file with the settings below."""
    resume: Path | None = None
    """Folder of a run to go on with, bit for bit; its settings are kept."""
    origin: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder of a run whose best weights a new one begins with; its settings are the defaults of all others."""
    device: str | None = None
    """Short for --training.device: cpu, cuda or cuda:N."""
    validation: int | None = None
    """Short for --validation-samples: training samples held out, on which the best epoch is chosen."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def parse_arguments(argv: list[str]) -> Arguments:
    """Read the options, whose defaults are those of the config file or of the resumed run."""
    default = Arguments(settings=source_of(argv).settings(DEFAULT_CONFIG))
    description = (
        f"{__doc__}\n\nDatasets: {DATASETS.help()}.\n\nMethods: {METHODS.help()}.\n\nNeurons: {NEURONS.help()}."
    )
    arguments = read_options(Arguments, argv, command="train", description=description, default=default)
    own, training = {"validation_samples": arguments.validation}, {"device": arguments.device}
    settings = with_given(arguments.settings, own=own, training=training)
    return dataclasses.replace(arguments, settings=named(settings, default.settings))


def main(argv: list[str]) -> int:
    """Train and return the exit status: 0 if done, 130 if interrupted, so that it can be resumed."""
    ranks = ranks_of_environment()
    console.quiet = not ranks.first
    arguments = parse_arguments(argv)
    config = arguments.settings
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    device = open_device(config.training.device, local_rank=ranks.local_rank, processes=ranks.size)
    with working(console, f"reading {config.dataset}"):
        whole = dataset_of_settings(config, argv, arguments)
        if arguments.resume is None:
            config = noted(config, whole)
            arguments = dataclasses.replace(arguments, settings=config)
        dataset = chosen_samples(config, whole)
    check_dataset(config, dataset)  # refuses before anything is written
    check_shares(config, len(dataset.train), processes=ranks.size)
    origin = None if arguments.origin is None else load_checkpoint(arguments.origin / BEST)
    if origin is not None:  # does it fit? a model that nobody keeps says so before a folder is made
        take_weights(
            new_model(config, dataset.input_shape, len(dataset.classes), coding=dataset.coding), origin, dataset=dataset
        )
    where = device_title(device) + (f", {ranks.size} processes" if ranks.size > 1 else "")
    with joined(ranks, device):
        made = new_folder(arguments.runs, config.name, config) if ranks.first and not arguments.resume else ""
        folder = arguments.resume or Path(ranks.same_text(str(made)))
        kind = "IF" if config.network.leak == 1 else f"LIF (leak {config.network.leak:g})"
        kind += ", reset to zero," if config.network.reset == "zero" else ""
        own = ", ".join(p.name for p in config.network.populations)
        kind += f" (but {own})" if own else ""
        how = f"by {config.training.method}, {kind} neurons, {steps_of(config)}{arithmetic_of(config)}"
        what = f"{config.network.title} on {config.dataset}, {how}, {parts(config, dataset)}, on {where}"
        console.print(escape(f"{what} -> {folder}"), soft_wrap=True)
        for late in late_feedbacks(config, dataset):
            console.print(f"warning: {late}", soft_wrap=True)
        if arguments.origin is not None:
            console.print(f"begins with the best weights of {escape(str(arguments.origin))}", soft_wrap=True)
        if arguments.resume is not None:
            tell_of_resume(config, arguments.resume, processes=ranks.size)
        result = train(arguments, dataset, folder, ranks, origin=origin)
        kept = "what was done of the next one is kept"
        return report(console, result, folder, command="train", kept=kept, data_dir=arguments.data_dir)


def noted(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The settings with the hash of a user's own data, and where that is from anywhere."""
    if not dataset.sha256:
        return config
    data = dataclasses.replace(config.data, sha256=dataset.sha256)
    where = str(Path(dataset.name).absolute()) if Path(dataset.name).exists() else dataset.name
    return dataclasses.replace(config, dataset=where, data=data)


def steps_of(config: TrainConfig) -> str:
    """Say for how many steps it runs."""
    schedule = config.training.time_steps_schedule
    if not schedule:
        return f"T = {config.network.time_steps}"
    how = "drawn of" if config.training.time_steps_by == "batch" else "in turn"
    return f"T {how} {', '.join(map(str, schedule))} (tests: {config.network.time_steps})"


def arithmetic_of(config: TrainConfig) -> str:
    """Say what the training runs in, where that is not floats in the papers' timing."""
    training = config.training
    if training.arithmetic == "integer":
        without = ", without dropout" if config.network.dropout else ""
        kind = "ternary" if training.symmetric and training.weight_bits == 2 else f"{training.weight_bits} bits"
        return f" in integers ({kind}, hardware timing{without})"
    return " in hardware timing" if training.timing == "hardware" else ""


def late_feedbacks(config: TrainConfig, dataset: Dataset) -> list[str]:
    """Say which feedbacks no spike comes back over within T steps."""
    network = config.network
    topology = topology_of(network, dataset.input_shape)
    delays = zip(topology.feedback, topology.loop_delays(config.training.runs_in), strict=True)
    steps = network.time_steps
    return [
        f"{'the feedback' if network.notation else c.name} has no part in this training: a spike comes back "
        f"{counted(delay, 'step')} later, and T = {steps}"
        for c, delay in delays
        if delay >= steps
    ]


def parts(config: TrainConfig, dataset: Dataset) -> str:
    """Say how many samples are used."""
    count = counted(len(dataset.train), "sample")
    if config.validation_samples:
        count += f", {config.validation_samples} of them held out for validation"
    if config.train_samples or config.test_samples:
        count += f", tested on {len(dataset.test)} (a part of the data: not comparable with published figures)"
    return f"{count} ({dataset.note}: not comparable with published figures)" if dataset.note else count


def tell_of_resume(config: TrainConfig, folder: Path, *, processes: int) -> None:
    """Say what changes when a run goes on, or that it is done; what may not change is refused later."""
    before, progress, _ = load_training(folder / LAST)
    done = f"{counted(progress['epoch'], 'whole epoch')} and {counted(progress['iteration'], 'iteration')} of the next"
    console.print(f"goes on after {done}", soft_wrap=True)
    free = free_on_resume(config.training, FREE_ON_RESUME)
    if changed_settings(before.config, config, free=free):
        return
    changed = changed_settings(before.config, config, free=EXACT_ON_RESUME)
    if changed:
        console.print(f"{', '.join(changed)}: what follows differs by rounding", soft_wrap=True)
    found = before.metrics.get("processes", 1)
    if found != processes:
        apart = "by rounding" if config.training.sync_batch_norm else "in its batch norms, whose batches are others"
        console.print(f"processes ({found} -> {processes}): what follows differs {apart}", soft_wrap=True)
    if before.metrics["epoch"] >= config.training.epochs:
        more = "; more with --training.epochs" if "epochs" in free else ""
        console.print(f"epochs done: all {before.metrics['epoch']}{more}", soft_wrap=True)


def train(
    arguments: Arguments, dataset: Dataset, folder: Path, ranks: Ranks, *, origin: TrainedNetwork | None
) -> FitResult:
    """Train; the first process shows and logs how it goes."""
    config, resume = arguments.settings, arguments.resume is not None
    if not ranks.first:
        return fit(config, dataset, folder, resume=resume, ranks=ranks, origin=origin)
    with shown(console, folder, epoch_lines) as screen:
        return fit(
            config,
            dataset,
            folder,
            resume=resume,
            observer=screen,
            ranks=ranks,
            origin=origin,
            progress=screen.preparing,
        )


def epoch_lines(epoch: int, metrics: Mapping[str, float]) -> Iterator[str]:
    """The line of an epoch."""
    held_out = f"validation {metrics['validation/accuracy']:.2%}  " if "validation/accuracy" in metrics else ""
    runs = sorted((v, n.removeprefix(RUN_SECONDS)) for n, v in metrics.items() if n.startswith(RUN_SECONDS))
    ways = ", ".join(f"{way} {1e3 * seconds:.3g} ms" for seconds, way in runs)
    yield (
        f"epoch {epoch:3d}  loss {metrics['train/loss']:.4f}  train {metrics['train/accuracy']:.2%}  {held_out}"
        f"test {metrics['test/accuracy']:.2%}  {metrics['train/seconds']:.1f} s"
        f"{f'  (a batch runs by {ways})' if len(runs) > 1 else ''}"
    )
