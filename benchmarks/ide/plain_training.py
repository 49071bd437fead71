"""The published training procedure in plain dense float32 operations: what the library is timed against."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fsnn_lava.network import BoundNetwork, Drive, FixedPoint, Map, Simulation, fire, integrate, rate_from_count

TOLERANCE = 1e-6
"""Relative residual of the adjoint system at which Broyden's method stops."""
PAIRS = 27
"""Rank-one pairs that it keeps, and so its largest number of steps."""


@torch.no_grad()
def plain_run(bound: BoundNetwork, drive: Drive, *, time_steps: int) -> Simulation:
    """T steps of all populations with dense products, one tensor operation after the other (Eq. 10)."""
    neuron, layers = bound.neurons[0], range(len(bound.feedforward))
    given = [drive.at(t)[0] for t in range(time_steps)]
    assert given[0] is not None
    zeros = [given[0].new_zeros((len(given[0]), *synapse.synapse.shape)) for synapse in bound.feedforward]
    v, spikes, weighted, total = (list(zeros) for _ in range(4))
    for t in range(time_steps):
        returned = rate_from_count(weighted[-1], time_steps=time_steps, leak=neuron.leak)  # up to the step before
        for layer in layers:
            if layer > 0:
                current = bound.feedforward[layer].current(spikes[layer - 1])
            elif t == 0 or not bound.feedback:
                current = given[t]
            else:
                current = given[t] + bound.feedback[0].current(spikes[-1])
            v[layer] = integrate(v[layer], spikes[layer], current, neuron=neuron)
            spikes[layer] = fire(v[layer], neuron=neuron)
            weighted[layer] = neuron.leak * weighted[layer] + spikes[layer]
            total[layer] = total[layer] + spikes[layer]
    rates = tuple(rate_from_count(w, time_steps=time_steps, leak=neuron.leak) for w in weighted)
    return Simulation(rates, tuple(count / time_steps for count in total), None, (returned,) * len(bound.feedback))


def plain_gradient(
    bound: BoundNetwork, drive: Drive, rates: Tensor, *, solver: Callable[[Map, Tensor], FixedPoint]
) -> Tensor:
    """Return the rates; f is evaluated once at them, and a hook on its value replaces dL/da by the adjoint solution."""
    mapped = bound.equilibrium_map(rates, drive.mean, statistics="batch" if bound.training else "running")

    def replaced(gradient: Tensor) -> Tensor:
        with torch.enable_grad():
            a = rates.detach().requires_grad_()
            image = bound.detached().equilibrium_map(a, [m if m is None else m.detach() for m in drive.mean])
        return solver(lambda g: torch.autograd.grad(image, a, g, retain_graph=True)[0] + gradient, gradient).value

    mapped.register_hook(replaced)
    return rates + (mapped - mapped.detach())


def plain_broyden(f: Map, start: Tensor) -> FixedPoint:
    """Fixed point of f by Broyden's method per sample, to the relative residual `TOLERANCE`.

    Every rank-one pair is kept, in two buffers (B, D, pairs) made in advance, whose whole filled part each step reads;
    the best iterate is kept as well. Starts from zero, as is usual for equilibrium models.
    """
    batch, size = start.flatten(1).shape
    lefts, rights = start.new_zeros(batch, size, PAIRS), start.new_zeros(batch, PAIRS, size)

    def inverse_times(y: Tensor, count: int) -> Tensor:
        weights = torch.einsum("bke,be->bk", rights[:, :count], y)
        return torch.einsum("bdk,bk->bd", lefts[:, :, :count], weights) - y

    def times_inverse(y: Tensor, count: int) -> Tensor:
        weights = torch.einsum("bd,bdk->bk", y, lefts[:, :, :count])
        return torch.einsum("bk,bke->be", weights, rights[:, :count]) - y

    def residual_of(g: Tensor, x: Tensor) -> float:
        return float(g.norm() / (g + x).norm())

    x = torch.zeros_like(start).flatten(1)
    g = f(x.view_as(start)).flatten(1) - x
    best, lowest, step, count = x, residual_of(g, x), g, 0
    while count < PAIRS and lowest > TOLERANCE:
        x = x + step
        new = f(x.view_as(start)).flatten(1) - x
        change, g = new - g, new
        if (residual := residual_of(g, x)) < lowest:
            best, lowest = x, residual
        right = times_inverse(step, count)
        left = (step - inverse_times(change, count)) / torch.einsum("bd,bd->b", right, change)[:, None]
        rights[:, count], lefts[:, :, count] = torch.nan_to_num(right), torch.nan_to_num(left)
        count += 1
        step = -inverse_times(g, count)
    residuals = torch.full((batch,), lowest, dtype=torch.float64)  # one for the whole batch
    return FixedPoint(best.view_as(start), residuals, count + 1, residuals <= TOLERANCE, residuals * math.nan)
