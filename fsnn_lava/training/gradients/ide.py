"""Implicit differentiation at the equilibrium (IDE), or over a window of T steps.

The spiking run is a black box that solves a = f(a, x). At the measured rates a = a^N[T], with J = df/da, the
gradient of the loss follows from one linear system (Eq. 3):

    g = dL/da + J^T g,        dL/dtheta = (df/dtheta)^T g

No graph of the T steps exists, so memory does not grow with T. The value that the readout sees is the measured rate.

Where T is only a few loops long, that is the gradient of rates that are never reached. A change of a constant current
of the first population acts on the last one's rate for all T steps; once around the loop of D steps, for T - D of them;
after j loops with the share c_j = S(T - j D) / S(T), S(n) = 1 + leak + .. + leak^(n-1): for IF 1 - j D / T, and 0 once
j D >= T. So the gradient of the window is a finite sum, which no gain of the loop makes diverge:

    g = sum_j c_j (J^T)^j dL/da

The feedback's weights act through the mean of the spikes that came back, from step D on, so that their factors are
c_{j+1} / c_1. J and the map are taken at that mean instead of at a.

Precision, measured by `benchmarks/ide/precision.py` on a trained network of four convolutions. Products with J^T may be
in bfloat16, and so may the map's backward pass be in TF32: the gradient is then off by 6e-4, as by the tolerance of the
solve. On a CPU that pass is in bfloat16 too: off by 3e-3. The spiking run may not: a third of its spikes move and the
rates by 3 %. Nor may the map: its clamp passes another part of the gradient, which is then off by 7 % (bfloat16) or 0.3
% (TF32).
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fsnn_lava.config import TrainingConfig
from fsnn_lava.network import (
    BoundNetwork,
    BoundSynapse,
    Drive,
    FeedbackSNN,
    FixedPoint,
    Map,
    Simulation,
    Sums,
    leak_weights,
    solve,
    tf32,
)
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
    bfloat16 : take products with J^T in bfloat16, and on a CPU those of the map's backward pass, and sums in float32.
    of : whose gradient it is: that of the rates at the ``equilibrium``, or after the ``window`` of T steps. The latter
        knows no solver; it ends where the tolerance or the window does.
    """

    solver: str = "fixed_point"
    tolerance: float = 6e-3
    max_steps: int = 50
    sums: Sums | None = None
    bfloat16: bool = False
    of: Literal["equilibrium", "window"] = "equilibrium"


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
        of=training.adjoint,
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
    """Firing rates of the last population after T steps, with the gradient of the equilibrium or of the window.

    Parameters
    ----------
    model, x, generator : as of `rates_with_gradient`.
    """
    bound = model.bind_to(x, generator=generator)
    if settings.bfloat16:
        bound = bound.with_backward_in(torch.bfloat16)
    drive = bound.drive(x, time_steps=time_steps)
    simulation = bound.detached().simulate(drive, time_steps=time_steps)
    found: list[FixedPoint] = []
    if settings.of == "window":
        rates = with_window_gradient(bound, drive, simulation, time_steps=time_steps, settings=settings, found=found)
    else:
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

    def adjoint(gradient: Tensor) -> tuple[Tensor, None]:
        if bound.feedback is None:  # J is zero
            return gradient, None
        times = _loop(bound, settings).transposed_jacobian(_running(bound, drive, rates, at))
        typical = _typical_length(gradient, settings)
        if not math.isfinite(typical):  # in all processes: the training takes the step before back
            return gradient, None

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
        return fixed_point.value, None

    implicit: Tensor = _ImplicitGradient.apply(around[-1], None, rates, adjoint)  # type: ignore[no-untyped-call]
    return implicit


def with_window_gradient(
    bound: BoundNetwork,
    drive: Drive,
    simulation: Simulation,
    *,
    time_steps: int,
    settings: AdjointSettings,
    found: list[FixedPoint],
) -> Tensor:
    """The measured rates (B, *N) of the last population, their gradient being that of a window of T steps.

    Parameters
    ----------
    simulation : the spiking run that measured them.
    found : receives the sum of each backward pass: its residual is the last term's size where the tolerance ended it,
        0 where the window did; its gain the growth of the last term, unknown of the first two.
    """
    rates, returned = simulation.firing_rates[-1], simulation.returned
    if bound.feedback is None:
        return with_implicit_gradient(bound, drive, rates, settings=settings, found=found)
    current = bound.feedback.current(returned)
    around = bound.rates_of(current.detach() + drive.mean, statistics="batch" if bound.training else "running")
    at = tuple(rate.detach() for rate in around)
    # S(T), S(T - D), ..: what is left of the window after so many loops.
    left = [leak_weights(steps, bound.neuron.leak) for steps in range(time_steps, 0, -bound.loop_delay)]

    def adjoint(gradient: Tensor) -> tuple[Tensor, Tensor]:
        here = _running(bound, drive, returned, at)
        times = _loop(bound, settings).transposed_jacobian(here)
        typical = _typical_length(gradient, settings)
        total, at_first = gradient.clone(), torch.zeros_like(here[0])
        if not math.isfinite(typical):  # in all processes: the training takes the step before back
            return total, at_first
        term, length = gradient, _lengths(gradient)
        residuals, gains = torch.zeros_like(length), torch.full_like(length, math.nan)
        for loop, share in enumerate(left[1:], start=1):
            arriving = times.to_first(term)
            at_first.add_(arriving, alpha=share / left[1])
            term = times.back(arriving)
            total.add_(term, alpha=share / left[0])
            before, length = length, _lengths(term)
            if loop > 2:
                gains = length / before.clamp_min(1e-30)
            relative = length / _lengths(total).clamp_min(max(typical, 1e-30))
            if loop < len(left) - 1 and bool((relative <= settings.tolerance).all()):
                residuals = relative
                break
        done = torch.ones(len(gradient), dtype=torch.bool)
        found.append(FixedPoint(total, residuals, loop if len(left) > 1 else 0, done, gains))
        slope = ((here[0] > 0) & (here[0] < 1)).to(at_first.dtype) / bound.neuron.reset_amount
        return total, slope.mul_(at_first)

    implicit: Tensor = _ImplicitGradient.apply(around[-1], current, rates, adjoint)  # type: ignore[no-untyped-call]
    return implicit


def _lengths(x: Tensor) -> Tensor:
    """(B,) length of each sample's values, float64 on the CPU."""
    lengths: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1).double().cpu()
    return lengths


def _running(bound: BoundNetwork, drive: Drive, arriving: Tensor, at: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Rates of all populations, with running statistics, where these (B, *N) come back to the first.

    Parameters
    ----------
    at : those with the statistics of the batch.
    """
    if all(synapse.synapse.batch_norm is None for synapse in bound.feedforward[1:]):  # the first one's is in drive.mean
        return at
    with torch.no_grad(), tf32(False):
        return bound.rates_around(arriving, drive.mean)


def _loop(bound: BoundNetwork, settings: AdjointSettings) -> BoundNetwork:
    """The network whose J is taken."""
    return _in_bfloat16(bound) if settings.bfloat16 else bound


def _typical_length(gradient: Tensor, settings: AdjointSettings) -> float:
    """Root mean square length of the samples' gradients: one far below it need not be exact to its own last digits."""
    squares = gradient.square().sum(), gradient.new_tensor(float(len(gradient)))
    total, samples = squares if settings.sums is None else settings.sums(torch.stack(squares)).unbind()
    return math.sqrt(float(total / samples))


def _in_bfloat16(bound: BoundNetwork) -> BoundNetwork:
    """The network with the weights of its loop rounded, but for a CPU's sparse products, which know no bfloat16."""

    def rounded(synapse: BoundSynapse) -> BoundSynapse:
        if synapse.synapse.layer.kind == "linear" and synapse.weight.device.type == "cpu":
            return synapse
        return dataclasses.replace(synapse, weight=synapse.weight.detach().bfloat16())

    feedback = None if bound.feedback is None else rounded(bound.feedback)
    return dataclasses.replace(bound, feedforward=tuple(map(rounded, bound.feedforward)), feedback=feedback)


class _ImplicitGradient(torch.autograd.Function):
    """Value: the measured rates. Backward: what the adjoint gives, to the map evaluated once at them (B, *N).

    And to the feedback's current (B, *N1), where that is no part of the map's graph.
    """

    @staticmethod
    def forward(
        ctx: Any,
        mapped: Tensor,
        current: Tensor | None,
        measured: Tensor,
        adjoint: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    ) -> Tensor:
        ctx.adjoint = adjoint
        return measured.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        return *ctx.adjoint(gradient), None, None
