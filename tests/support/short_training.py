"""A training that takes a tenth of a second, and what tests tell and ask of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.datasets import Dataset, load_dataset

NETWORK = NetworkConfig(notation="12-10 (F12)", time_steps=6, dropout=0.2)
TRAINING = TrainingConfig(epochs=3, batch_size=32, milestones=(2,), warmup_iterations=4, seed=5)
CONFIG = TrainConfig(name="test", network=NETWORK, training=TRAINING)
PER_EPOCH = 5
"""Iterations per epoch: 150 samples in batches of 32."""


def changed(*, network: Mapping[str, Any] | None = None, **training: Any) -> TrainConfig:
    """`CONFIG` with other settings."""
    return replace(CONFIG, network=replace(NETWORK, **(network or {})), training=replace(TRAINING, **training))


def short_digits() -> Dataset:
    """150 training and 60 test images."""
    whole = load_dataset("digits")
    return replace(whole, train=whole.train.select(np.arange(150)), test=whole.test.select(np.arange(60)))


class Told:
    """An observer that notes what it is told and acts after chosen iterations, counted over the whole run."""

    def __init__(self, act: Callable[[int], None] = lambda _: None) -> None:
        self.act = act
        self.iterations: list[tuple[int, int, int]] = []
        self.figures: list[Mapping[str, float]] = []
        self.epochs: list[tuple[int, Mapping[str, float]]] = []

    def iteration(
        self, *, epoch: int, done: int, total: int, loss: float, figures: Mapping[str, float] | None = None
    ) -> None:
        assert 0 < loss < 100
        self.iterations.append((epoch, done, total))
        self.figures.append(figures or {})
        self.act(epoch * total + done)

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        self.epochs.append((epoch, metrics))
