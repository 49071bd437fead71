"""The method that a configuration names: how rates are measured and their gradient found."""

from __future__ import annotations

import torch
from torch import Tensor

from fsnn_lava.config import METHODS, TrainingConfig
from fsnn_lava.network import FeedbackSNN, Sums
from fsnn_lava.training.gradients.measured_rates import ImplicitRates, RatesWithGradient


def rates_with_gradient(
    model: FeedbackSNN,
    x: Tensor,
    *,
    training: TrainingConfig,
    time_steps: int,
    generator: torch.Generator | None = None,
    sums: Sums | None = None,
    processes: int = 1,
) -> ImplicitRates:
    """Measured rates of the last population, whose gradient is found by `training.method`.

    Parameters
    ----------
    x : (B, *input_shape) constant input, or (T, B, *input_shape) event frames.
    generator : source of the dropout masks.
    sums : where several processes share a batch, see `solver.solve`.
    processes : how many do.
    """
    method: RatesWithGradient = METHODS.get(training.method).load()
    return method(
        model,
        x,
        training=training,
        time_steps=time_steps,
        generator=generator,
        sums=sums,
        processes=processes,
    )
