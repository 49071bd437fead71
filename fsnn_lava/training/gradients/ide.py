"""Implicit differentiation at the equilibrium (IDE).

The spiking run is a black box that solves a = f(a, x). At the measured rates a = a^N[T], with J = df/da, the
gradient of the loss follows from one linear system (Eq. 3):

    g = dL/da + J^T g,        dL/dtheta = (df/dtheta)^T g

No graph of the T steps exists, so memory does not grow with T. The value that the readout sees is the measured rate.

Precision, measured by `benchmarks/ide/precision.py` on a trained network of four convolutions. Products with J^T may be
in bfloat16, and so may the map's backward pass be in TF32: the gradient is then off by 6e-4, as by the tolerance of the
solve. The spiking run may not: a third of its spikes move and the rates by 3 %. Nor may the map: its clamp passes
another part of the gradient, which is then off by 7 % (bfloat16) or 0.3 % (TF32).
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fsnn_lava.config import TrainingConfig
from fsnn_lava.network import BoundNetwork, BoundSynapse, Drive, FeedbackSNN, FixedPoint, Map, Sums, solve, tf32
from fsnn_lava.training.gradients.measured_rates import ImplicitRates

UNCONVERGED = "adjoint_unconverged"
"""Figure of an epoch: how many of its samples' adjoint solves did not converge."""


@dataclass(frozen=True)
class AdjointSettings:
    """How the linear system of the gradient is solved.

    Parameters
    ----------
    solver : name of the method.
    tolerance : relative residual at which it stops.
    max_steps : largest number of products with J^T.
    sums : adds up over the processes that share a batch, for the size of its typical gradient.
    bfloat16 : take products with J^T in bfloat16, and sums of them in float32.
    """

    solver: str = "fixed_point"
    tolerance: float = 6e-3
    max_steps: int = 50
    sums: Sums | None = None
    bfloat16: bool = False


def ide(
    model: FeedbackSNN,
    x: Tensor,
    *,
    training: TrainingConfig,
    time_steps: int,
    generator: torch.Generator | None,
    sums: Sums | None,
    processes: int,
) -> ImplicitRates:
    """Measure rates with the gradient of the equilibrium, as a configuration says; registered as "ide"."""
    settings = AdjointSettings(
        training.adjoint_solver,
        training.adjoint_tolerance,
        training.adjoint_max_steps,
        sums=sums,
        bfloat16=training.precision == "bf16",
    )
    return implicit_rates(model, x, time_steps=time_steps, settings=settings, generator=generator)


def implicit_rates(
    model: FeedbackSNN,
    x: Tensor,
    *,
    time_steps: int,
    settings: AdjointSettings,
    generator: torch.Generator | None = None,
) -> ImplicitRates:
    """Firing rates of the last population after T steps, with the gradient of the equilibrium.

    Parameters
    ----------
    model, x, generator : as of `rates_with_gradient`.
    """
    bound = model.bind_to(x, generator=generator)
    drive = bound.drive(x, time_steps=time_steps)
    simulation = bound.detached().simulate(drive, time_steps=time_steps)
    found: list[FixedPoint] = []
    rates = with_implicit_gradient(bound, drive, simulation.firing_rates[-1], settings=settings, found=found)
    return ImplicitRates(rates, simulation, found, _figures)


def _figures(found: FixedPoint, names: tuple[str, ...], *, count: float, total: int) -> dict[str, Tensor | float]:
    """How the solve went; of solves that did not converge, their number."""
    return {
        "adjoint_residual": float(found.residuals.nan_to_num(posinf=1.0).sum()),
        "adjoint_steps": found.steps * count,
        "loop_gain": float(found.gains.nan_to_num().sum()),
        UNCONVERGED: found.unconverged,
    }


def largest_gain(implicit: ImplicitRates) -> float:
    """Return the largest gain of the loop that the last adjoint solve found in a sample; 0 where it knows none."""
    found = implicit.passes[-1] if implicit.passes else None
    return float(found.gains.nan_to_num().max()) if isinstance(found, FixedPoint) else 0.0


def with_implicit_gradient(
    bound: BoundNetwork, drive: Drive, rates: Tensor, *, settings: AdjointSettings, found: list[FixedPoint]
) -> Tensor:
    """The same rates (B, *N), their gradient being that of the equilibrium at which they are taken to be.

    Parameters
    ----------
    rates : (B, *N) of the last population.
    found : receives the adjoint system's `FixedPoint` in each backward pass.
    """
    # In training this call updates the running statistics of the batch norms after the first, before J uses them.
    around = bound.rates_around(rates, drive.mean, statistics="batch" if bound.training else "running")
    at = tuple(rate.detach() for rate in around)

    def adjoint(gradient: Tensor) -> Tensor:
        if bound.feedback is None:  # J is zero
            return gradient
        here = at  # of the first population alone, whose batch norm is in drive.mean
        if len(at) > 1:
            with torch.no_grad(), tf32(False):
                here = bound.rates_around(rates, drive.mean)
        loop = _in_bfloat16(bound) if settings.bfloat16 else bound
        times = loop.transposed_jacobian(here)
        # A gradient far below the batch's typical one need not be exact to its own last digits.
        squares = gradient.square().sum(), gradient.new_tensor(float(len(gradient)))
        total, samples = squares if settings.sums is None else settings.sums(torch.stack(squares)).unbind()
        typical = float((total / samples).sqrt())
        if not math.isfinite(typical):  # in all processes: the training takes the step before back
            return gradient

        def of_rows(rows: Tensor) -> Map:
            some, constant = times.of_rows(rows), gradient[rows]
            return lambda g: some(g).add_(constant)

        fixed_point = solve(
            lambda g: times(g).add_(gradient),
            gradient,
            method=settings.solver,
            tolerance=settings.tolerance,
            max_steps=settings.max_steps,
            least_norm=typical,
            of_rows=of_rows,
        )
        found.append(fixed_point)
        return fixed_point.value

    implicit: Tensor = _ImplicitGradient.apply(around[-1], rates, adjoint)  # type: ignore[no-untyped-call]
    return implicit


def _in_bfloat16(bound: BoundNetwork) -> BoundNetwork:
    """The network with the weights of its loop rounded, but for a CPU's sparse products, which know no bfloat16."""

    def rounded(synapse: BoundSynapse) -> BoundSynapse:
        if synapse.synapse.layer.kind == "linear" and synapse.weight.device.type == "cpu":
            return synapse
        return dataclasses.replace(synapse, weight=synapse.weight.detach().bfloat16())

    feedback = None if bound.feedback is None else rounded(bound.feedback)
    return dataclasses.replace(bound, feedforward=tuple(map(rounded, bound.feedforward)), feedback=feedback)


class _ImplicitGradient(torch.autograd.Function):
    """Value: the measured rates. Backward, to the map evaluated once at them: the adjoint solution."""

    @staticmethod
    def forward(ctx: Any, mapped: Tensor, measured: Tensor, adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.adjoint = adjoint
        return measured.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.adjoint(gradient), None, None
