"""Solvers for x = f(x): fixed-point iteration, Anderson acceleration, Broyden's method.

All three take the same arguments and return a `FixedPoint`. They treat x as one vector per sample of the batch
and stop on the residual of the whole batch, ||f(x) - x|| / ||f(x)||. A solve that does not converge returns its
best iterate with ``converged`` false; values that are not finite raise.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fsnn_lava.config import SOLVERS
from fsnn_lava.errors import ConvergenceError

Map = Callable[[Tensor], Tensor]
Sums = Callable[[Tensor], Tensor]
"""Adds up values over several processes that hold a part of the batch each."""


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """What a solver found.

    Parameters
    ----------
    value : the iterate with the smallest residual, in the shape of the start. A fixed-point iteration that has
        converged gives the image f(x) instead, which is one step nearer and already known.
    residual : ||f(x) - x|| / ||f(x)|| of that iterate x.
    steps : evaluations of f.
    converged : whether the residual reached the tolerance.
    """

    value: Tensor
    residual: float
    steps: int
    converged: bool


class Solver(Protocol):
    """Finds x = f(x) from a start (B, *shape) in at most max_steps evaluations of f."""

    def __call__(
        self, f: Map, start: Tensor, *, tolerance: float, max_steps: int, sums: Sums | None = None
    ) -> FixedPoint:
        """The fixed point, or the best iterate."""


def solve(
    f: Map, start: Tensor, *, method: str, tolerance: float, max_steps: int, sums: Sums | None = None
) -> FixedPoint:
    """Fixed point of f by the named method.

    Parameters
    ----------
    start : (B, *shape) first iterate.
    method : of `SOLVERS`.
    tolerance : relative residual at which to stop.
    max_steps : largest number of evaluations of f.
    sums : where processes share a batch: what they hold is one batch, whose residual stops all of them in one step.

    Raises
    ------
    ConfigError : if no solver of that name is registered.
    ConvergenceError : if an iterate is not finite.
    """
    solver: Solver = SOLVERS.get(method)
    return solver(f, start, tolerance=tolerance, max_steps=max_steps, sums=sums)


def fixed_point_iteration(
    f: Map, start: Tensor, *, tolerance: float, max_steps: int, sums: Sums | None = None
) -> FixedPoint:
    """x <- f(x): the cheapest step; converges as the powers of the Jacobian do (Neumann series if f is linear)."""
    best = _Best(tolerance, sums)
    x = start
    for _ in range(max_steps):
        image = f(x)
        if best.update(x, image):
            return dataclasses.replace(best.result(), value=image)
        x = image
    return best.result()


def anderson(f: Map, start: Tensor, *, tolerance: float, max_steps: int, sums: Sums | None = None) -> FixedPoint:
    """Anderson acceleration of depth 5: mixes the last images so that the linearised residual is smallest.

    References
    ----------
    Anderson, D. G. Iterative procedures for nonlinear integral equations. J. ACM 12 (1965).
    """
    depth = 5
    best = _Best(tolerance, sums)
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


def broyden(f: Map, start: Tensor, *, tolerance: float, max_steps: int, sums: Sums | None = None) -> FixedPoint:
    """Broyden's good method on f(x) - x, the inverse Jacobian kept as rank-one updates of -1 per sample.

    References
    ----------
    Broyden, C. G. A class of methods for solving nonlinear simultaneous equations. Math. Comp. 19 (1965).
    """
    best = _Best(tolerance, sums)
    x = start.flatten(1)
    lefts: list[Tensor] = []
    rights: list[Tensor] = []

    def residual(flat: Tensor) -> tuple[Tensor, bool]:
        image = f(flat.view_as(start)).flatten(1)
        return image - flat, best.update(flat, image)

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
    return best.result(start)


class _Best:
    """The iterate with the smallest residual so far, and when to stop."""

    def __init__(self, tolerance: float, sums: Sums | None) -> None:
        self._tolerance, self._steps, self._residual = tolerance, 0, float("inf")
        self._sums = sums
        self._value: Tensor | None = None

    def update(self, x: Tensor, image: Tensor) -> bool:
        """Note one evaluation; true once the tolerance is reached."""
        self._steps += 1
        norms = torch.stack([image.norm(), (image - x).norm()])
        if self._sums is not None:
            norms = self._sums(norms.square()).sqrt()
        size, difference = map(float, norms.tolist())
        residual = difference / size if size else difference
        if not residual < float("inf"):
            raise ConvergenceError(
                f"solver step {self._steps}: the iterate is not finite (residual {residual}); "
                "expected a contracting map: lower the learning rate or network.spectral_norm_bound"
            )
        if residual < self._residual:
            self._residual = residual
            self._value = x
        return residual <= self._tolerance

    def result(self, like: Tensor | None = None) -> FixedPoint:
        assert self._value is not None
        value = self._value if like is None else self._value.view_as(like)
        return FixedPoint(value, self._residual, self._steps, self._residual <= self._tolerance)


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
    weights: Tensor = torch.linalg.solve(gram + ridge, differences @ stack[:, -1:].transpose(1, 2))
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
