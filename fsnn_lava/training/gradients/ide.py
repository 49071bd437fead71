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
c_{j+1} / c_1. J and the map are taken at that mean instead of at a. With several feedbacks, each of a delay of its own,
the terms are those of all ways back, each with the share of the sum of its delays.

Precision, measured by `benchmarks/ide/precision.py` on a trained network of four convolutions. Products with J^T may be
in bfloat16, and so may the map's backward pass be in TF32: the gradient is then off by 6e-4, as by the tolerance of the
solve. On a CPU that pass is in bfloat16 too: off by 3e-3. The spiking run may not: a third of its spikes move and the
rates by 3 %. Nor may the map: its clamp passes another part of the gradient, which is then off by 7 % (bfloat16) or 0.3
% (TF32).
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
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
    Statistics,
    Sums,
    leak_weights,
    slope_of_rate,
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
        rates = with_implicit_gradient(bound, drive, simulation.firing_rates, settings=settings, found=found)
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
    bound: BoundNetwork, drive: Drive, rates: Sequence[Tensor], *, settings: AdjointSettings, found: list[FixedPoint]
) -> Tensor:
    """The same rates (B, *N) of the last population, their gradient being that of the equilibrium.

    Parameters
    ----------
    rates : (B, *N) of all populations, which are taken to be at rest.
    found : receives the adjoint system's `FixedPoint` in each backward pass.
    """
    # In training this call updates the running statistics of the batch norms behind populations, before J uses them.
    around = bound.rates_around(rates, drive.mean, statistics="batch" if bound.training else "running")
    at = tuple(rate.detach() for rate in around)

    def feedbacks() -> list[Tensor]:
        return [synapse.current(rates[synapse.source]) for synapse in bound.feedback]

    def adjoint(gradient: Tensor) -> tuple[Tensor, ...]:
        if not bound.feedback:  # J is zero
            return (gradient,)
        times = _loop(bound, settings).transposed_jacobian(_running(bound, drive, feedbacks, at))
        typical = _typical_length(gradient, settings)
        if not math.isfinite(typical):  # in all processes: the training takes the step before back
            return _at_last(bound, gradient)
        start = bound.join(dict(zip(bound.state, _at_last(bound, gradient), strict=True)))

        def of_rows(rows: Tensor) -> Map:
            some, constant = times.of_rows(rows), start[rows]
            return lambda g: some(g).add_(constant)

        fixed_point = solve(
            lambda g: times(g).add_(start),
            start,
            method=settings.solver,
            tolerance=settings.tolerance,
            max_steps=settings.max_steps,
            least_norm=typical,
            of_rows=of_rows,
        )
        found.append(fixed_point)
        return tuple(bound.split(fixed_point.value).values())

    mapped = [around[p] for p in bound.state]
    implicit: Tensor = _ImplicitGradient.apply(rates[-1], adjoint, *mapped)  # type: ignore[no-untyped-call]
    return implicit


def _at_last(bound: BoundNetwork, gradient: Tensor) -> tuple[Tensor, ...]:
    """Gradients to the populations of the state: that of the last one, to others zeros."""
    others = (gradient.new_zeros((len(gradient), *bound.shapes[p])) for p in bound.state[:-1])
    return (*others, gradient)


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
        0 where the window did; its gain the growth of the last term, unknown of the first two and of several feedbacks.
    """
    if not bound.feedback:
        return with_implicit_gradient(bound, drive, simulation.firing_rates, settings=settings, found=found)
    currents = [s.current(back) for s, back in zip(bound.feedback, simulation.returned, strict=True)]
    statistics: Statistics = "batch" if bound.training else "running"
    around = bound.rates_of([current.detach() for current in currents], drive.mean, statistics=statistics)
    at = tuple(rate.detach() for rate in around)
    # S(n): what n steps that are left of the window count.
    left = [leak_weights(steps, bound.neurons[-1].leak) for steps in range(time_steps + 1)]

    def adjoint(gradient: Tensor) -> tuple[Tensor, ...]:
        here = _running(bound, drive, lambda: currents, at)
        times = _loop(bound, settings).transposed_jacobian(here)
        typical = _typical_length(gradient, settings)
        total = dict(zip(bound.state, _at_last(bound, gradient.clone()), strict=True))
        at_targets = [torch.zeros_like(here[s.target]) for s in bound.feedback]
        if not math.isfinite(typical):  # in all processes: the training takes the step before back
            return (*total.values(), *at_targets)
        # What a change so many steps before the end of the window brings, of each population that it reaches.
        terms = {0: {bound.state[-1]: gradient}}
        length = _lengths([gradient])
        residuals, gains = torch.zeros_like(length), torch.full_like(length, math.nan)
        loops = 0
        while terms:
            earlier = min(terms)
            arriving = times.to_populations(terms.pop(earlier))
            before, added = length, []
            for number, (s, delay) in enumerate(zip(bound.feedback, bound.loop_delays, strict=True)):
                then = earlier + delay
                if then >= time_steps or s.target not in arriving:
                    continue
                share = left[time_steps - then]
                at_targets[number].add_(arriving[s.target], alpha=share / left[time_steps - delay])
                term = times.back_over(number, arriving[s.target])
                total[s.source].add_(term, alpha=share / left[time_steps])
                waiting = terms.setdefault(then, {})
                waiting[s.source] = waiting[s.source] + term if s.source in waiting else term
                added.append(term)
            if not added:
                continue
            loops += 1
            length = _lengths(added)
            if loops > 2 and len(bound.feedback) == 1:
                gains = length / before.clamp_min(1e-30)
            under_way = _lengths([term for waiting in terms.values() for term in waiting.values()])
            relative = under_way / _lengths(total.values()).clamp_min(max(typical, 1e-30))
            ends = max(terms) + min(bound.loop_delays) >= time_steps
            if not ends and bool((relative <= settings.tolerance).all()):
                residuals = relative
                break
        done = torch.ones(len(gradient), dtype=torch.bool)
        found.append(FixedPoint(bound.join(total), residuals, loops, done, gains))
        slopes = {s.target: slope_of_rate(here[s.target], neuron=bound.neurons[s.target]) for s in bound.feedback}
        return (*total.values(), *(a.mul_(slopes[s.target]) for s, a in zip(bound.feedback, at_targets, strict=True)))

    mapped = [*(around[p] for p in bound.state), *currents]
    implicit: Tensor = _ImplicitGradient.apply(  # type: ignore[no-untyped-call]
        simulation.firing_rates[-1], adjoint, *mapped
    )
    return implicit


def _lengths(parts: Iterable[Tensor]) -> Tensor:
    """(B,) length of each sample's values (B, *N) of all parts, float64 on the CPU."""
    each = [torch.linalg.vector_norm(x.flatten(1), dim=1).double().cpu() for x in parts]
    lengths: Tensor = each[0] if len(each) == 1 else torch.linalg.vector_norm(torch.stack(each), dim=0)
    return lengths


def _running(
    bound: BoundNetwork, drive: Drive, back: Callable[[], Sequence[Tensor]], at: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Rates of all populations, with running statistics, where these currents (B, *N) arrive over each feedback.

    Parameters
    ----------
    at : those with the statistics of the batch.
    """
    if all(s.synapse.batch_norm is None for s in bound.feedforward if s.source >= 0):  # the others' are in drive.mean
        return at
    with torch.no_grad(), tf32(False):
        return bound.rates_of(back(), drive.mean)


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

    return dataclasses.replace(
        bound, feedforward=tuple(map(rounded, bound.feedforward)), feedback=tuple(map(rounded, bound.feedback))
    )


class _ImplicitGradient(torch.autograd.Function):
    """Value: the measured rates. Backward: what the adjoint gives, to the map evaluated once at them.

    That is to the rates (B, *N) of the populations of the state, and to the feedbacks' currents (B, *N) where these are
    no part of the map's graph.
    """

    @staticmethod
    def forward(ctx: Any, measured: Tensor, adjoint: Callable[[Tensor], tuple[Tensor, ...]], *mapped: Tensor) -> Tensor:
        ctx.adjoint = adjoint
        return measured.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.adjoint(gradient)
