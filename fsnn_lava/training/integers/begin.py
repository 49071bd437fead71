"""How a training in integers begins: with scales, which are chosen here once."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fsnn_lava.config import DeployConfig
from fsnn_lava.datasets import Dataset, time_first
from fsnn_lava.hardware import HardwareNetwork
from fsnn_lava.network import FeedbackSNN, lower_model
from fsnn_lava.quantization import quantize
from fsnn_lava.training.integers.network import IntegerSNN

if TYPE_CHECKING:
    from fsnn_lava.training.checkpoint import TrainedNetwork

ROOM = 2.0
"""Factor by which the scales of new weights, which will grow, are smaller than the largest that is proven."""
STATISTICS_BATCHES = 40
"""Batches by which the running statistics of an untrained network's batch norms are measured."""


def measure_statistics(model: FeedbackSNN, batches: Sequence[Tensor], *, time_steps: int) -> None:
    """Set the running statistics of an untrained network's batch norms to those of some batches.

    Parameters
    ----------
    batches : (B, *input_shape) constant inputs, or (T, B, *input_shape) event frames.
    """
    model.train()
    with torch.no_grad():
        for x in batches:
            bound = model.bind_to(x)
            drive = bound.drive(x, time_steps=time_steps)
            rates = bound.simulate(drive, time_steps=time_steps).firing_rates
            bound.rates_around(rates, drive.mean, statistics="batch")


def begin_integers(
    model: IntegerSNN,
    dataset: Dataset,
    *,
    origin: TrainedNetwork | None,
    progress: Callable[[str], None] = lambda text: None,
) -> None:
    """Choose the scales of a network as an export of it would, and begin with the integers that this gives.

    Parameters
    ----------
    origin : whose weights the model has; integers, if it was trained in them; None: they are new.
    progress : called with what is done next.
    """
    config = DeployConfig(
        weight_bits=model.weight_bits, symmetric=model.symmetric, exponents=model.exponents, currents="whole"
    )
    before = None if origin is None else origin.model()
    if isinstance(before, IntegerSNN):
        floating = dataclasses.replace(before.dequantized(), provenance={}, time_steps=model.most_steps)
    else:
        steps = model.most_steps
        floating = lower_model(copy.deepcopy(model).eval().double(), dataset.coding, name="shadows", time_steps=steps)
    codes = time_first(dataset.train.spread(config.calibration_samples).codes)
    # A connection of which rounding leaves little can still be trained.
    room = ROOM if origin is None else 1.0

    def factors(integer: HardwareNetwork) -> dict[str, float]:
        return {name: room * share for name, share in model.shares_of(integer).items()}

    model.start(quantize(floating, codes, config=config, keep_lost=True, room=factors, progress=progress)[0])
