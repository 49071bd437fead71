"""Solvers for x = f(x): fixed-point iteration, Anderson acceleration, Broyden's method.

All three take the same arguments and return a `FixedPoint`. They treat x as one vector per sample of the batch, judge
each sample by its own residual ||f(x) - x|| / ||f(x)||, and keep its best iterate: a sample that does not converge
changes no other. `solve` hands what one solver could not do to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.config import SOLVERS
from fsnn_lava.errors import ConvergenceError
from fsnn_lava.hardware import Array

Map = Callable[[Tensor], Tensor]
OfRows = Callable[[Tensor], Map]
"""Gives a map for some samples of its batch alone, (b,) their numbers."""
Sums = Callable[[Tensor], Tensor]
"""Adds up values over several processes that hold a part of the batch each."""

FALLBACKS = ("fixed_point", "anderson", "broyden")
"""Solvers from the cheapest to the most robust; those behind the chosen one take over what it cannot do."""
GROWTH = 4
"""Plain iterations in a row that enlarge the change of a sample after which it is given up."""

MOST_SOURCES = 8
"""Iterates that are kept before those of which no sample's is the best are let go."""
POWER_STEPS = 16
"""Products of the power iteration that finds a loop's gain."""


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """What a solver found for a batch of B samples.

    Parameters
    ----------
    value : (B, *shape) iterate of each sample with its smallest residual. Where a fixed-point iteration has converged
        it is the image f(x) instead, which is one step nearer and already known.
    residuals : (B,) ||f(x) - x|| / ||f(x)|| of those iterates x, float64 on the CPU; infinite where none was finite.
    steps : evaluations of f, of the sample that took the most.
    done : (B,) bool on the CPU, whether the residual reached the tolerance.
    gains : (B,) factor by which the last plain iteration changed the difference of two iterates, float64 on the CPU.
        For a linear map it is a step of power iteration, so that it approaches the spectral radius; NaN if unknown.
    """

    value: Tensor
    residuals: Tensor
    steps: int
    done: Tensor
    gains: Tensor

    @property
    def residual(self) -> float:
        """The largest residual of a sample."""
        return float(self.residuals.max())

    @property
    def converged(self) -> bool:
        """Whether every sample's residual reached the tolerance."""
        return bool(self.done.all())

    @property
    def unconverged(self) -> int:
        """How many samples' residuals did not reach the tolerance."""
        return int((~self.done).sum())

    def replaced(self, rows: Tensor, better: FixedPoint) -> FixedPoint:
        """Return this one with the results of another one in some rows, where its residuals are smaller."""
        wins = better.residuals < self.residuals[rows]
        rows, value = rows[wins], self.value.clone()
        value[rows.to(value.device)] = better.value[wins.to(value.device)]
        residuals, done, gains = self.residuals.clone(), self.done.clone(), self.gains.clone()
        residuals[rows], done[rows] = better.residuals[wins], better.done[wins]
        gains[rows] = torch.where(better.gains[wins].isnan(), gains[rows], better.gains[wins])
        return FixedPoint(value, residuals, self.steps + better.steps, done, gains)


class Solver(Protocol):
    """Finds x = f(x) from a start (B, *shape) in at most max_steps evaluations of f."""

    def __call__(
        self, f: Map, start: Tensor, *, tolerance: float, max_steps: int, least_norm: float = 0.0
    ) -> FixedPoint:
        """The fixed point or the best iterate of each sample; parameters as of `solve`."""


def solve(
    f: Map,
    start: Tensor,
    *,
    method: str,
    tolerance: float,
    max_steps: int,
    least_norm: float = 0.0,
    of_rows: OfRows | None = None,
) -> FixedPoint:
    """Fixed point of f by the named method, and by the more robust ones for samples with which it does not converge.

    Parameters
    ----------
    start : (B, *shape) first iterate.
    method : of `SOLVERS`; behind it come those that follow it in `FALLBACKS`.
    tolerance : relative residual at which a sample is done.
    max_steps : largest number of evaluations of f by each method.
    least_norm : a sample's residual is relative to its own norm, but at least to this one.
    of_rows : f for some samples alone; None: where a method fails, f takes any number of samples.

    Raises
    ------
    ConfigError : if no solver of that name is registered.
    ConvergenceError : if the start is not finite.
    """
    if not math.isfinite(float(torch.linalg.vector_norm(start))):
        raise ConvergenceError("the start of a solve is not finite, so no solution can be: lower the learning rate")
    solver: Solver = SOLVERS.get(method)
    if solver is fixed_point_iteration:
        solver = partial(fixed_point_iteration, of_rows=of_rows)
    found = solver(f, start, tolerance=tolerance, max_steps=max_steps, least_norm=least_norm)
    behind = FALLBACKS[FALLBACKS.index(method) + 1 :] if method in FALLBACKS else FALLBACKS[1:]
    for name in behind:
        if found.converged:
            break
        rows = (~found.done).nonzero().flatten()
        some = f if of_rows is None else of_rows(rows)
        solver = SOLVERS.get(name)
        begin = found.value[rows.to(start.device)]
        better = solver(some, begin, tolerance=tolerance, max_steps=max_steps, least_norm=least_norm)
        found = found.replaced(rows, better)
    return found


def spectral_radii(times: Map, like: Tensor) -> Tensor:
    """(B,) float64 spectral radius of each sample's linear map, by power iteration, on the CPU.

    Geometric mean of the growth in the later half of `POWER_STEPS` products. All samples start from one random vector,
    which has a part of every direction, so that a sample's radius does not depend on its neighbours.

    Parameters
    ----------
    times : linear map of the batch.
    like : (B, *shape), what the map takes; its shape and type count.
    """
    one = torch.rand(like.shape[1:], generator=torch.Generator().manual_seed(0)).to(like)
    vector, growth = one.expand_as(like), torch.zeros(len(like), dtype=torch.float64)
    for step in range(POWER_STEPS):
        length = vector.flatten(1).norm(dim=1).clamp_min(1e-30)
        vector = times(vector / length.view(-1, *[1] * (vector.dim() - 1)))
        if step >= POWER_STEPS // 2:
            growth += vector.flatten(1).norm(dim=1).clamp_min(1e-30).double().log().cpu()
    return (growth / (POWER_STEPS - POWER_STEPS // 2)).exp()


def fixed_point_iteration(
    f: Map,
    start: Tensor,
    *,
    tolerance: float,
    max_steps: int,
    least_norm: float = 0.0,
    of_rows: OfRows | None = None,
    last_change: Array | None = None,
) -> FixedPoint:
    """x <- f(x): the cheapest step; converges as the powers of the Jacobian do (Neumann series if f is linear).

    Parameters
    ----------
    of_rows : f for some samples alone: once half of the samples are done or given up, the others go on by
        themselves. None: all samples go on until the last one is done.
    last_change : (B,) norm of the change that led to the start; None: of the start itself, as if it came from zero.
    """
    change = _norms(start) if last_change is None else last_change
    best = _Best(start, tolerance, least_norm, last_change=change)
    x = start
    for step in range(1, max_steps + 1):
        image = f(x)
        if best.update(x, image):
            break
        left = best.left
        if of_rows is not None and len(left) <= len(x) // 2 and step < max_steps:
            rows = torch.from_numpy(left)
            rest = fixed_point_iteration(
                of_rows(rows),
                image[rows.to(image.device)],
                tolerance=tolerance,
                max_steps=max_steps - step,
                least_norm=least_norm,
                of_rows=_within(of_rows, rows),
                last_change=best.change[left],
            )
            return best.result().replaced(rows, rest)
        x = image
    return best.result()


def _within(of_rows: OfRows, rows: Tensor) -> OfRows:
    """`of_rows` for numbers that count these rows alone."""
    return lambda some: of_rows(rows[some])


def anderson(f: Map, start: Tensor, *, tolerance: float, max_steps: int, least_norm: float = 0.0) -> FixedPoint:
    """Anderson acceleration of depth 5: mixes the last images so that the linearised residual is smallest.

    References
    ----------
    Anderson, D. G. Iterative procedures for nonlinear integral equations. J. ACM 12 (1965).
    """
    depth = 5
    best = _Best(start, tolerance, least_norm)
    x = start
    images: list[Tensor] = []
    residuals: list[Tensor] = []
    for _ in range(max_steps):
        image = f(x)
        if best.update(x, image):
            break
        images = [*images, image.flatten(1)][-depth:]
        residuals = [*residuals, (image - x).flatten(1)][-depth:]
        x = _mix(images, residuals).view_as(start)
    return best.result()


def broyden(f: Map, start: Tensor, *, tolerance: float, max_steps: int, least_norm: float = 0.0) -> FixedPoint:
    """Broyden's good method on f(x) - x, the inverse Jacobian kept as rank-one updates of -1 per sample.

    References
    ----------
    Broyden, C. G. A class of methods for solving nonlinear simultaneous equations. Math. Comp. 19 (1965).
    """
    best = _Best(start, tolerance, least_norm)
    x = start.flatten(1)
    lefts: list[Tensor] = []
    rights: list[Tensor] = []

    def residual(flat: Tensor) -> tuple[Tensor, bool]:
        image = f(flat.view_as(start)).flatten(1)
        return image - flat, best.update(flat.view_as(start), image.view_as(start))

    g, done = residual(x)
    for _ in range(max_steps - 1):
        if done:
            break
        step = -_inverse_times(lefts, rights, g)
        x = x + step
        new, done = residual(x)
        change = new - g
        applied = _inverse_times(lefts, rights, change)
        right = _times_inverse(lefts, rights, step)
        scale = (right * change).sum(1, keepdim=True)
        lefts.append(torch.where(scale == 0, torch.zeros_like(step), (step - applied) / scale))
        rights.append(right)
        g = new
    return best.result()


class _Best:
    """Each sample's iterate with the smallest residual so far, and when to stop.

    No iterate is copied before the end: of each sample it is known which tensor holds its best one. What is known of
    the samples are NumPy arrays (B,), whose operations take a tenth of the time of torch's at this size.
    """

    def __init__(self, start: Tensor, tolerance: float, least_norm: float, *, last_change: Array | None = None) -> None:
        """Begin with a start and, for plain iteration, with the norm (B,) of the change that led to it.

        Of a sample that plain iteration has solved the image is kept, which is one step nearer.
        """
        self._tolerance, self._least_norm, self._plain = tolerance, least_norm, last_change is not None
        self._steps = 0
        batch = len(start)
        self._sources = {0: start}
        self._best = np.zeros(batch, np.int64)  # keys of the sources
        self._residuals = np.full(batch, np.inf)
        self._done = np.zeros(batch, bool)
        self._grown = np.zeros(batch, np.int64)
        self.left = np.arange(batch)
        """Samples that are neither done nor given up."""
        self._gains = np.full(batch, np.nan)
        self.change = self._gains if last_change is None else last_change
        """(B,) norm of the last change."""

    @np.errstate(invalid="ignore")  # of infinite norms
    def update(self, x: Tensor, image: Tensor) -> bool:
        """Note one evaluation; true once every sample is done or given up."""
        self._steps += 1
        change, norm = _norms(image - x), np.maximum(_norms(image), self._least_norm)
        residuals = np.divide(change, norm, out=change.copy(), where=norm > 0)
        better = ~self._done & (residuals < self._residuals)  # false where it is not a number
        reached = better & (residuals <= self._tolerance)
        self._best[better] = 2 * self._steps
        self._sources[2 * self._steps] = x
        if self._plain:
            self._best[reached] += 1
            self._sources[2 * self._steps + 1] = image
            known = ~self._done & np.isfinite(change) & (self.change > 0)
            np.divide(change, self.change, out=self._gains, where=known)
            grown = change > self.change
            self._grown += grown
            self._grown *= grown
            self.change = change
        if len(self._sources) > MOST_SOURCES:
            self._sources = {key: self._sources[key] for key in np.unique(self._best)}
        np.copyto(self._residuals, residuals, where=better)
        self._done |= reached
        self.left = (~(self._done | (self._grown >= GROWTH) | ~np.isfinite(residuals))).nonzero()[0]
        return not len(self.left)

    def result(self) -> FixedPoint:
        keys, counts = np.unique(self._best, return_counts=True)
        most = keys[counts.argmax()]
        value = self._sources[most]
        if len(keys) > 1:
            value = value.clone()
            for key in keys[keys != most]:
                rows = torch.from_numpy((self._best == key).nonzero()[0]).to(value.device)
                value.index_copy_(0, rows, self._sources[key].index_select(0, rows))
        found = (torch.from_numpy(values) for values in (self._residuals, self._done, self._gains))
        residuals, done, gains = found
        return FixedPoint(value, residuals, self._steps, done, gains)


def _norms(x: Tensor) -> Array:
    """(B,) norm of each sample, float64."""
    norms: Array = torch.linalg.vector_norm(x.flatten(1), dim=1).double().cpu().numpy()
    return norms


def _mix(images: list[Tensor], residuals: list[Tensor]) -> Tensor:
    """(B, D) combination of the images whose residuals' combination is smallest, weights summing to one."""
    if len(images) == 1:
        return images[0]
    stack = torch.stack(residuals, 1)
    differences = stack[:, 1:] - stack[:, :-1]
    gram = differences @ differences.transpose(1, 2)
    size = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    eps = torch.finfo(gram.dtype).eps
    identity = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    ridge = (10 * eps * size + torch.finfo(gram.dtype).tiny) * identity
    weights: Tensor = torch.linalg.solve_ex(gram + ridge, differences @ stack[:, -1:].transpose(1, 2)).result
    outputs = torch.stack(images, 1)
    return images[-1] - (weights * (outputs[:, 1:] - outputs[:, :-1])).sum(1)


def _inverse_times(lefts: list[Tensor], rights: list[Tensor], x: Tensor) -> Tensor:
    """(-1 + sum left right^T) x per sample."""
    total = -x
    for left, right in zip(lefts, rights, strict=True):
        total = total + left * (right * x).sum(1, keepdim=True)
    return total


def _times_inverse(lefts: list[Tensor], rights: list[Tensor], x: Tensor) -> Tensor:
    """x^T (-1 + sum left right^T) per sample."""
    return _inverse_times(rights, lefts, x)
