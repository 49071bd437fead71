"""What every training method returns: measured rates, whose backward pass finds the gradient its own way."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from fsnn_lava.network import FixedPoint, Simulation


@dataclass(frozen=True, eq=False)
class ImplicitRates:
    """Measured rates, and how their gradient is found.

    Parameters
    ----------
    rates : (B, *N) measured firing rate of the last population; its backward pass solves the adjoint system.
    simulation : the spiking run.
    adjoint : one `FixedPoint` per backward pass so far, for the solver's residual and steps; none but with IDE.
    backward_phases : one per backward pass so far; none but with SPIDE.
    """

    rates: Tensor
    simulation: Simulation
    adjoint: list[FixedPoint] = field(default_factory=list)
    backward_phases: list[BackwardPhase] = field(default_factory=list)


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
