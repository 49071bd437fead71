"""What each iteration of a training uses: its samples, learning rate and random numbers.

All of it is a function of the configuration and of the iteration's number, so that a run goes on from anywhere, on any
device and with any number of processes.
"""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from torch import Tensor

from fsnn_lava.config import TrainConfig, TrainingConfig
from fsnn_lava.data import Dataset, Samples, hold_out
from fsnn_lava.errors import ConfigError

_PART_SEED = 0
"""Of the choice of samples where not all are used: the same for every seed of a training."""


def chosen_samples(config: TrainConfig, dataset: Dataset) -> Dataset:
    """The dataset with as many samples as `train_samples` and `test_samples` say, the classes in proportion.

    Raises
    ------
    ConfigError : the dataset holds fewer.
    """
    train = _part(dataset.train, config.train_samples, "train_samples")
    test = _part(dataset.test, config.test_samples, "test_samples")
    return dataclasses.replace(dataset, train=train, test=test)


def _part(samples: Samples, count: int, name: str) -> Samples:
    if count in (0, len(samples)):
        return samples
    if count > len(samples):
        raise ConfigError(f"{name}: found {count}; the dataset holds {len(samples)}; allowed: 0 (all) .. that number")
    return hold_out(samples, count=count, seed=_PART_SEED)[1]


def learning_rate(training: TrainingConfig, *, epoch: int, iteration: int) -> float:
    """Learning rate of one iteration (counted over the whole run from 0) in an epoch (from 0)."""
    rate = training.learning_rate * training.learning_rate_decay ** sum(m <= epoch for m in training.milestones)
    if iteration < training.warmup_iterations:
        rate *= (iteration + 1) / training.warmup_iterations
    return rate


def batches_of_epoch(training: TrainingConfig, samples: int, *, epoch: int) -> list[Tensor]:
    """Sample indices of an epoch's batches, int64; a single left-over sample joins the batch before it."""
    order = torch.Generator().manual_seed(training.seed * 1_000_003 + epoch)
    batches = list(torch.randperm(samples, generator=order).split(training.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def iteration_seed(training: TrainingConfig, *, iteration: int) -> int:
    """Seed of an iteration's random numbers, 0 .. 2**32 - 1: unrelated even for neighbours."""
    digest = hashlib.blake2b(f"{training.seed} {iteration}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
