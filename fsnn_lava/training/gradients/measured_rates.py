"""Measured rates, whose backward pass finds the gradient by the method that a configuration names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from fsnn_lava.config import METHODS, TrainingConfig
from fsnn_lava.network import FeedbackSNN, Simulation, Sums


def no_figures(found: object, names: tuple[str, ...], *, count: float, total: int) -> dict[str, Tensor | float]:
    """Log nothing of a backward pass."""
    return {}


@dataclass(frozen=True, eq=False)
class ImplicitRates:
    """Measured rates, and how their gradient is found.

    Parameters
    ----------
    rates : (B, *N) measured firing rate of the last population; its backward pass solves the adjoint system.
    simulation : the spiking run.
    passes : what each backward pass so far gave, of a kind that the method chooses: a `FixedPoint` with IDE, a
        `BackwardPhase` with SPIDE, nothing with BPTT.
    figures : what is to be logged of one of them.
    """

    rates: Tensor
    simulation: Simulation
    passes: list[Any] = field(default_factory=list)
    figures: Figures = no_figures


class Figures(Protocol):
    """Figures of a backward pass, to be summed over the samples of an epoch."""

    def __call__(self, found: Any, names: tuple[str, ...], *, count: float, total: int) -> dict[str, Tensor | float]:
        """Name -> mean over these samples times their count.

        Parameters
        ----------
        found : an entry of `ImplicitRates.passes`.
        names : of the populations.
        count : of samples: those of this process.
        total : samples of the whole batch.
        """


class RatesWithGradient(Protocol):
    """What is registered as a gradient method: see `fsnn_lava.config.METHODS`."""

    def __call__(
        self,
        model: FeedbackSNN,
        x: Tensor,
        *,
        training: TrainingConfig,
        time_steps: int,
        generator: torch.Generator | None,
        sums: Sums | None,
        processes: int,
    ) -> ImplicitRates:
        """Measured rates of the last population; parameters as of `rates_with_gradient`."""


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
    model : in training mode for dropout and batch statistics.
    x : (B, *input_shape) constant input, or (T, B, *input_shape) event frames.
    generator : source of the dropout masks.
    sums : adds up over the processes that share a batch; None: there is one.
    processes : how many do.
    """
    method: RatesWithGradient = METHODS.get(training.method).load()
    return method(
        model, x, training=training, time_steps=time_steps, generator=generator, sums=sums, processes=processes
    )


@dataclass(frozen=True, eq=False)
class BackwardPhase:
    """What the ternary couples of SPIDE's second phase gave; tuples have one entry per population, first to last.

    Parameters
    ----------
    rates : (B, *N) leak-weighted mean of the signed spikes, beta, in [-1, 1].
    mean_spikes : (*N,) spikes of either sign per step and sample.
    spikes : (T_back, B, *N) int8, +1, 0 or -1, or None if they were not recorded.
    """

    rates: tuple[Tensor, ...]
    mean_spikes: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...] | None
