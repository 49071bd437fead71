"""Error of SPIDE's gradient against the implicit gradient that its second phase tends to, and what limits it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.spide.plain_training import firing_mask, plain_connections, plain_readout, plain_updates
from fsnn_lava.errors import ConvergenceError
from fsnn_lava.network import BoundNetwork, FeedbackSNN
from fsnn_lava.training import SpideSettings, spide_rates

TOLERANCE = 1e-12
"""Relative change at which the adjoint solution counts as converged; float64."""
MOST_TURNS = 5000
ACCURATE = SpideSettings(time_steps_back=250, loss_scale=400.0)
"""Where the gradient is to be accurate; the energy is counted there too."""


@dataclass(frozen=True)
class GradientError:
    """SPIDE's gradient of one batch beside the converged implicit one, all synapses' parameters as one vector.

    Parameters
    ----------
    error : ||g_spide - g_implicit|| / ||g_implicit||.
    cosine : of the angle between them.
    saturated : share of couples whose rate would have to exceed 1 in size: |loss_scale beta*| > 1.
    saturated_part : their share of ||beta*||^2; those of a few misclassified samples can hold most of it.
    unresolved : share of couples whose rate is not 0 but below what one spike in T_back steps gives.
    """

    time_steps_back: int
    loss_scale: float
    error: float
    cosine: float
    saturated: float
    saturated_part: float
    unresolved: float


@torch.no_grad()
def converged_adjoint(bound: BoundNetwork, rates: tuple[Tensor, ...], gradient: Tensor) -> tuple[Tensor, ...]:
    """beta* of every population, (B, *N) each, where the couples' rates would settle at a loss_scale of 1.

    beta^N = dL/da + (1/r) W^T (D_W m^1 beta^1), beta^l = (1/r) (F^{l+1})^T (D m beta)^{l+1}, by iteration around the
    loop until nothing changes.

    Parameters
    ----------
    rates : (B, *N) measured firing rates of all populations.
    gradient : (B, *N) dL/da of the last one.

    Raises
    ------
    ConvergenceError : the loop does not settle.
    """
    feedforward, feedback = plain_connections(bound)
    r = bound.neurons[0].reset_amount

    def through(rate: Tensor, mask: Tensor | None) -> Tensor:
        return firing_mask(rate) / r if mask is None else firing_mask(rate) * mask / r

    betas = [torch.zeros_like(rate) for rate in rates]
    for _ in range(MOST_TURNS):
        last = gradient
        if feedback is not None:
            last = gradient + feedback.backwards(betas[0] * through(rates[0], feedback.mask))
        change = float((last - betas[-1]).norm() / last.norm())
        betas[-1] = last
        for layer in reversed(range(len(betas) - 1)):
            above = betas[layer + 1] * through(rates[layer + 1], feedforward[layer + 1].mask)
            betas[layer] = feedforward[layer + 1].backwards(above)
        if change < TOLERANCE:
            return tuple(betas)
    raise ConvergenceError(
        f"adjoint system: the relative change is {change:.1e} after {MOST_TURNS} turns; expected below {TOLERANCE:g}; "
        "the loop may not contract"
    )


def gradient_errors(
    model: FeedbackSNN,
    x: Tensor,
    labels: Tensor,
    *,
    time_steps: int,
    settings: tuple[SpideSettings, ...],
    seed: int = 0,
) -> Iterator[GradientError]:
    """The error at each of the settings, all with the same rates and dropout masks.

    Parameters
    ----------
    model : float64, in training mode.
    x, labels : one batch; the loss is its mean.
    """
    bound = model.bind(len(labels), generator=torch.Generator().manual_seed(seed)).detached()
    drive = bound.drive(x, time_steps=time_steps)
    rates = bound.simulate(drive, time_steps=time_steps).firing_rates
    _, gradient = plain_readout(model, rates[-1], labels)
    exact = converged_adjoint(bound, rates, gradient)
    plain_updates(model, bound, rates, exact, drive.mean_inputs[0], loss_scale=1.0)
    wanted = _gradients(model)
    for setting in settings:
        model.zero_grad()
        found = spide_rates(
            model, x, time_steps=time_steps, settings=setting, generator=torch.Generator().manual_seed(seed)
        )
        functional.cross_entropy(model.classify(found.rates), labels).backward()
        yield _compared(_gradients(model), wanted, exact, setting)


def _gradients(model: FeedbackSNN) -> dict[str, Tensor]:
    """Collect the gradients of every synapse's parameters; the classifier's gradient is exact in SPIDE."""
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not name.startswith("readout")
    }


def _compared(
    found: dict[str, Tensor],
    wanted: dict[str, Tensor],
    exact: tuple[Tensor, ...],
    setting: SpideSettings,
) -> GradientError:
    assert found.keys() == wanted.keys()
    ours, theirs = (torch.cat([each[name].flatten() for name in wanted]) for each in (found, wanted))
    size = setting.loss_scale * torch.cat([beta.abs().flatten() for beta in exact])
    return GradientError(
        time_steps_back=setting.time_steps_back,
        loss_scale=setting.loss_scale,
        error=float((ours - theirs).norm() / theirs.norm()),
        cosine=float(functional.cosine_similarity(ours, theirs, dim=0)),
        saturated=float((size > 1).double().mean()),
        saturated_part=float(size[size > 1].square().sum() / size.square().sum()),
        unresolved=float(((size > 0) & (size < 1 / setting.time_steps_back)).double().mean()),
    )
