"""The method that a configuration names: how rates are measured and their gradient found."""

from __future__ import annotations

import torch
from torch import Tensor

from fsnn_lava.config import TrainingConfig
from fsnn_lava.network import FeedbackSNN, Sums
from fsnn_lava.training.gradients.bptt import bptt_rates
from fsnn_lava.training.gradients.ide import AdjointSettings, implicit_rates
from fsnn_lava.training.gradients.measured_rates import ImplicitRates
from fsnn_lava.training.gradients.spide import SpideSettings, spide_rates


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
    if training.method == "bptt":
        return bptt_rates(
            model,
            x,
            time_steps=time_steps,
            surrogate=training.surrogate,
            width=training.surrogate_width,
            generator=generator,
        )
    if training.method == "spide":
        spide = SpideSettings(training.time_steps_back, training.loss_scale, processes)
        return spide_rates(model, x, time_steps=time_steps, settings=spide, generator=generator)
    settings = AdjointSettings(
        training.adjoint_solver,
        training.adjoint_tolerance,
        training.adjoint_max_steps,
        sums=sums,
        bfloat16=training.precision == "bf16",
    )
    return implicit_rates(model, x, time_steps=time_steps, settings=settings, generator=generator)
