"""Trained networks for tests: with random parameters at once, or really trained on digits for a moment."""

import functools
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.config.notation import Pooling
from fsnn_lava.conversion.lowering import lower
from fsnn_lava.datasets import Dataset, InputCoding, load_dataset
from fsnn_lava.hardware.network import HardwareNetwork, Timing
from fsnn_lava.training import BEST, fit
from fsnn_lava.training.checkpoint import TrainedNetwork, load_checkpoint, new_model


@functools.cache
def digits() -> Dataset:
    return load_dataset("digits")


def random_network(
    notation: str,
    *,
    leak: float = 1.0,
    batch_norm: bool = True,
    input_shape: tuple[int, ...] = (1, 8, 8),
    coding: InputCoding | None = None,
    time_steps: int = 20,
    v_threshold: float = 2.0,
    pooling: Pooling = "merged",
    timing: Timing = "sequential",
    seed: int = 0,
) -> TrainedNetwork:
    """A network whose every parameter and running statistic was drawn at random; about a third of it fires."""
    settings: dict[str, Any] = {"batch_norm": batch_norm, "time_steps": time_steps, "dropout": 0.5, "pooling": pooling}
    network = NetworkConfig(notation, v_threshold=v_threshold, leak=leak, **settings)
    config = TrainConfig(name="random", network=network, training=TrainingConfig(seed=7, timing=timing))
    model = new_model(config, input_shape, 10)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or name.endswith("batch_norm.weight"):
            drawn = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif name.endswith(("bias", "running_mean")):
            drawn = 0.6 * torch.randn(tensor.shape, generator=generator) + 0.3
        elif name.endswith("gain"):  # beyond the bound, so that the restriction matters
            drawn = 0 * tensor + 1.7
        else:
            drawn = tensor
        weights[name] = drawn.to(tensor.dtype)
    classes = tuple("0123456789")
    metrics = {"test/accuracy": 0.25, "epoch": 3}
    return TrainedNetwork(config, input_shape, classes, coding or digits().coding, weights, metrics)


def train_into(folder: Path, *, notation: str = "40 (F40)", leak: float = 1.0, time_steps: int = 10) -> None:
    """Train on digits for three epochs, which takes about a second; the folder then holds its checkpoints."""
    network = NetworkConfig(notation, leak=leak, time_steps=time_steps, dropout=0.1)
    training = TrainingConfig(epochs=3, batch_size=64, milestones=(), seed=1)
    fit(TrainConfig(name=folder.name, network=network, training=training), digits(), folder)


def shared_folder() -> Path:
    """A folder that all workers of a test session share; see conftest.py."""
    return Path(tempfile.gettempdir()) / "shared"


@functools.cache
def trained_network(notation: str = "40 (F40)", leak: float = 1.0) -> TrainedNetwork:
    """A network trained on digits, once a session, by whichever worker asks first."""
    folder = shared_folder() / f"{re.sub('[^0-9A-Za-z]+', '_', notation)}{leak}"
    with FileLock(f"{folder}.lock"):
        if not (folder / BEST).exists():
            folder.mkdir(exist_ok=True)
            train_into(folder, notation=notation, leak=leak)
    return load_checkpoint(folder / BEST)


def on_hardware(trained: TrainedNetwork) -> HardwareNetwork:
    return lower(trained)


def some_codes(count: int = 40) -> np.ndarray:
    return digits().test.codes[:count]
