"""What a training uses in each iteration: samples, learning rate, random numbers; and whether all that fits together.

All of it is a function of the configuration and of the iteration's number, so that a run goes on from anywhere, on any
device and with any number of processes.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from fsnn_lava.config import TrainConfig, TrainingConfig
from fsnn_lava.datasets import Augmentation, Dataset, Samples, check_time_steps, hold_out
from fsnn_lava.errors import ConfigError, DatasetError, counted
from fsnn_lava.network import TRAINING_COPIES, check_memory

RISE = 0.3
"""Share of a training over which the learning rate of one_cycle rises where no warm-up is given."""
LEAST_ITERATIONS = 10
"""Of a training whose learning rate rises and falls."""
_PART_SEED = 0
"""Of the choice of samples where not all are used: the same for every seed of a training."""
_VALIDATION_SEED = 1
"""Of the choice of samples held out for validation, likewise."""


def chosen_samples(config: TrainConfig, dataset: Dataset) -> Dataset:
    """Return the dataset with as many samples as `train_samples` and `test_samples` say, the classes in proportion.

    Raises
    ------
    ConfigError : the dataset holds fewer.
    """
    train = _part(dataset.train, config.train_samples, "train_samples")
    test = _part(dataset.test, config.test_samples, "test_samples")
    return dataclasses.replace(dataset, train=train, test=test)


def without_validation(config: TrainConfig, dataset: Dataset) -> tuple[Dataset, Samples | None]:
    """Split the training part: the dataset without `validation_samples` of it, and those; None if there are none."""
    count = config.validation_samples
    if not count:
        return dataset, None
    rest, held_out = hold_out(dataset.train, count=count, seed=_VALIDATION_SEED)
    return dataclasses.replace(dataset, train=rest), held_out


def chosen_on(config: TrainConfig) -> str:
    """Say what the best epoch of a training is chosen on."""
    count = config.validation_samples
    return f"{count} held-out training samples" if count else "the test set"


def _part(samples: Samples, count: int, name: str) -> Samples:
    if count in (0, len(samples)):
        return samples
    if count > len(samples):
        raise ConfigError(f"{name}: found {count}; the dataset holds {len(samples)}; allowed: 0 (all) .. that number")
    return hold_out(samples, count=count, seed=_PART_SEED)[1]


def check_dataset(config: TrainConfig, dataset: Dataset) -> None:
    """Require that the network can be trained on the dataset.

    Raises
    ------
    DatasetError : samples of other shapes, labels without a class, or none.
    SpecError : the notation does not fit the shape of a sample.
    ConfigError : event frames are not as many as time steps, more samples are held out than there are, or the
        parameters do not fit the machine's memory.
    """
    frames = () if dataset.frames is None else (dataset.frames,)
    expected = (*frames, *dataset.input_shape)
    for part, samples in (("training", dataset.train), ("test", dataset.test)):
        where = f'dataset "{dataset.name}", {part} part'
        if not len(samples):
            raise DatasetError(f"{where}: no samples; expected at least one")
        if samples.shape != expected:
            raise DatasetError(
                f"{where}: samples of shape {samples.shape}; expected {expected}, as the dataset says of itself; "
                "sizes are mixed up: load both parts in the same way"
            )
        low, high = int(samples.labels.min()), int(samples.labels.max())
        if low < 0 or high >= len(dataset.classes):
            raise DatasetError(
                f"{where}: labels {low} .. {high}; allowed: 0 .. {len(dataset.classes) - 1}, one for each class"
            )
    if len(dataset.coding.mean) != dataset.input_shape[0]:
        raise DatasetError(
            f'dataset "{dataset.name}": normalised channels: {len(dataset.coding.mean)}; '
            f"its samples have {dataset.input_shape[0]}; expected one mean and std for each"
        )
    if config.validation_samples >= len(dataset.train):
        raise ConfigError(
            f"validation_samples: found {config.validation_samples}; the training part holds {len(dataset.train)}; "
            "allowed: fewer, so that some are left to train on"
        )
    check_time_steps(dataset, config.network.time_steps)
    if config.training.time_steps_schedule and dataset.frames is not None:
        raise ConfigError(
            f"training.time_steps_schedule: found {list(config.training.time_steps_schedule)} for the event frames of "
            f'"{dataset.name}", one for each step; allowed: none'
        )
    if config.training.random_shift > 0 and dataset.coding.kind == "event":
        raise ConfigError(
            f"training.random_shift: found {config.training.random_shift} for the event frames of "
            f'"{dataset.name}"; allowed: -1 or 0; images alone can be moved'
        )
    check_memory(config, dataset.input_shape, len(dataset.classes), copies=TRAINING_COPIES)


def free_on_resume(training: TrainingConfig, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the settings that may change when a run is resumed: not epochs that the rate follows."""
    return tuple(name for name in names if name != "epochs" or training.schedule == "step")


def check_shares(config: TrainConfig, samples: int, *, processes: int) -> None:
    """Require that every process gets samples of every batch, and two where it normalises by its own.

    Parameters
    ----------
    samples : of the training part, those held out for validation among them.

    Raises
    ------
    ConfigError : if not.
    """
    samples -= config.validation_samples
    sizes = [len(batch) for batch in batches_of_epoch(config.training, samples, epoch=0)]
    own_statistics = config.network.batch_norm and not config.training.sync_batch_norm
    least = processes * (2 if own_statistics else 1)
    if processes > 1 and min(sizes) < least:
        raise ConfigError(
            f"training.batch_size: found {config.training.batch_size}, which leaves a batch of {min(sizes)} of "
            f"{counted(samples, 'sample')} to {processes} processes; allowed: batches of at least {least}; "
            "choose another size"
            + (", fewer processes or training.sync_batch_norm" if own_statistics else " or fewer processes")
        )


def learning_rate(training: TrainingConfig, *, samples: int, epoch: int, iteration: int) -> float:
    """Learning rate of one iteration (counted over the whole run from 0) in an epoch (from 0) of so many samples."""
    rate, warmup = training.learning_rate, training.warmup_iterations
    if training.schedule == "one_cycle":
        iterations = _iterations(training, samples)
        return _one_cycle(rate, iterations, warmup / iterations if warmup else RISE)[iteration]
    if training.schedule == "step":
        rate *= training.learning_rate_decay ** sum(m <= epoch for m in training.milestones)
    elif iteration >= warmup:
        rate = _cosine(rate, _iterations(training, samples) - warmup)[iteration - warmup]
    if iteration < warmup:
        rate *= (iteration + 1) / warmup
    return rate


def _iterations(training: TrainingConfig, samples: int) -> int:
    """Of a whole run."""
    whole, left = divmod(samples, training.batch_size)
    return training.epochs * (whole + (left > 1 or whole == 0))  # a single sample joins the batch before it


@lru_cache(maxsize=4)
def _one_cycle(peak: float, iterations: int, rise: float) -> tuple[float, ...]:
    optimizer = _nothing_to_learn(peak)
    cycle = OneCycleLR(optimizer, peak, total_steps=iterations, pct_start=rise, cycle_momentum=False)
    return _course(optimizer, cycle, iterations)


@lru_cache(maxsize=4)
def _cosine(peak: float, iterations: int) -> tuple[float, ...]:
    optimizer = _nothing_to_learn(peak)
    return _course(optimizer, CosineAnnealingLR(optimizer, iterations), iterations)


def _nothing_to_learn(rate: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


def _course(optimizer: torch.optim.SGD, scheduler: LRScheduler, iterations: int) -> tuple[float, ...]:
    """Learning rate of every iteration, so that a run can go on from any."""
    rates = [float(optimizer.param_groups[0]["lr"])]
    for _ in range(iterations - 1):
        optimizer.step()  # torch warns of a scheduler that goes ahead of its optimizer
        scheduler.step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return tuple(rates)


def check_schedule(training: TrainingConfig, samples: int) -> None:
    """Require that a learning rate that rises and falls once has iterations for both.

    Parameters
    ----------
    samples : that are trained on.

    Raises
    ------
    ConfigError : if not.
    """
    if training.schedule == "step":
        return
    iterations = _iterations(training, samples)
    if iterations < LEAST_ITERATIONS:
        raise ConfigError(
            f'training.schedule: found "{training.schedule}" for {counted(iterations, "iteration")}; allowed: "step", '
            f"or at least {LEAST_ITERATIONS} of them"
        )
    warmup, cycle = training.warmup_iterations, training.schedule == "one_cycle"
    if warmup > iterations - 2 or (cycle and warmup == 1):  # torch's cycle cannot rise within one iteration
        raise ConfigError(
            f"training.warmup_iterations: found {warmup}; the training has {iterations} iterations; allowed with "
            f'"{training.schedule}": {"0, or 2" if cycle else "0"} .. {iterations - 2}'
        )


def augmentation_of(training: TrainingConfig, dataset: Dataset) -> Augmentation | None:
    """How training images are varied: as published, or moved as far as the configuration says."""
    published, shift = dataset.augmentation, training.random_shift
    if shift < 0:
        return published
    flip = published is not None and published.flip
    return Augmentation(shift, flip) if shift or flip else None


def batches_of_epoch(training: TrainingConfig, samples: int, *, epoch: int) -> list[Tensor]:
    """Draw the sample indices of an epoch's batches, int64; a single left-over sample joins the batch before it."""
    order = torch.Generator().manual_seed(training.seed * 1_000_003 + epoch)
    batches = list(torch.randperm(samples, generator=order).split(training.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def time_steps_of(config: TrainConfig, *, epoch: int, iteration: int) -> int:
    """Steps T of one iteration (counted over the whole run from 0) in an epoch (from 0)."""
    training, schedule = config.training, config.training.time_steps_schedule
    if not schedule:
        return config.network.time_steps
    if training.time_steps_by == "epoch":
        return schedule[min(epoch * len(schedule) // training.epochs, len(schedule) - 1)]
    return schedule[iteration_seed(training, iteration=iteration, purpose="time steps") % len(schedule)]


def iteration_seed(training: TrainingConfig, *, iteration: int, purpose: str) -> int:
    """Derive the seed of one purpose in an iteration, 0 .. 2**32 - 1: seeds of neighbours are unrelated."""
    digest = hashlib.blake2b(f"{training.seed} {iteration} {purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
