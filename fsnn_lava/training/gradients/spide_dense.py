"""The backward phase of SPIDE with dense products: that of a GPU, where every ternary couple takes part in every step.

The law is that of `couple_run`, which follows single spikes on a CPU. As in `dense_run`, what follows a product (input,
threshold, reset, leak, counts, masks) reads and writes every couple once where `torch.compile` fuses it, all of it flat
in memory, and a weight may be the sum of two TF32 values. Potentials and counts are written in place; of the spikes
nothing is kept but what is under way. Nothing waits for the device until the counts are read.
"""

import functools
import math
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fsnn_lava.kernels.ternary_couples import V_BACK
from fsnn_lava.network import DenseSettings, apply_transpose, flat, shaped, split_tf32, tf32
from fsnn_lava.training.gradients.spide_by_events import CoupleCounts, CoupleLink


@torch.no_grad()
def dense_couples(
    links: Sequence[CoupleLink],
    shapes: Sequence[tuple[int, ...]],
    *,
    drive: Tensor,
    leaks: Sequence[float],
    time_steps: int,
    record: bool = False,
    settings: DenseSettings = DenseSettings(),  # noqa: B008 - frozen
) -> CoupleCounts:
    """Signed spike counts of every population, as `couple_run` gives them for the same arguments.

    Parameters
    ----------
    settings : how products and steps are computed; all others as of `spide_by_events.couple_run`.
    """
    populations = [_Couples(drive, (len(drive), *shape)) for shape in shapes]
    products = [(link, _Product(link, (len(drive), *shapes[link.source]), split=settings.split)) for link in links]
    step, constant = _couple_step(settings.compiled), flat(drive)
    # What links with a delay have sent, on its way; and of those without one what they bring in this step.
    returning: list[deque[Tensor | None]] = [deque([None] * link.delay) for link in links]
    for _ in range(time_steps):
        arriving = [waiting.popleft() if waiting else None for waiting in returning]
        for p in reversed(range(len(populations))):
            couples = populations[p]
            brought = [r for r, (link, _) in zip(arriving, products, strict=True) if link.target == p and r is not None]
            base = constant if p == len(populations) - 1 else None
            for other in brought[:-1]:
                base = other if base is None else base + other
            response = brought[-1] if brought else None
            spikes = step(*couples.state, base, response, leaks[p])
            for number, (link, product) in enumerate(products):
                if link.source == p:
                    sent = product(spikes)
                    if link.delay:
                        returning[number].append(sent)
                    else:
                        arriving[number] = sent
            if record:
                couples.spikes.append(shaped(spikes, couples.shape).to(torch.int8).contiguous())
    return CoupleCounts(
        tuple(shaped(couples.weighted, couples.shape) for couples in populations),
        tuple(shaped(couples.fired, couples.shape).sum(0, dtype=torch.int64) for couples in populations),
        tuple(torch.stack(couples.spikes) for couples in populations) if record else None,
    )


def couple_step(
    q: Tensor,
    weighted: Tensor,
    fired: Tensor,
    base: Tensor | None,
    response: Tensor | None,
    leak: float,
) -> Tensor:
    """Ternary spikes of one population in its next step; all (B * N,), the first three updated.

    q <- q + input;  p = 1 where q >= 1/2, -1 where q <= -1/2, else 0;  q <- leak (q - p).

    Parameters
    ----------
    q, weighted, fired : potential, leak-weighted sum of p and number of spikes.
    base, response : constant input and what a connection brings; None where there is none.
    """
    if base is not None:
        q.add_(base)
    if response is not None:
        q.add_(response)
    spikes = (q >= V_BACK).to(q.dtype) - (q <= -V_BACK).to(q.dtype)
    q.sub_(spikes).mul_(leak)
    weighted.mul_(leak).add_(spikes)
    fired.add_(spikes.abs())
    return spikes


@functools.cache
def _couple_step(compiled: bool) -> Callable[..., Tensor]:
    """`couple_step`, fused or not; a network needs four programs at most, for what may be absent."""
    return torch.compile(couple_step, dynamic=True) if compiled else couple_step


class _Couples:
    """One population; all flat, (B * N,)."""

    def __init__(self, like: Tensor, shape: tuple[int, ...]) -> None:
        self.shape = shape
        q, self.weighted, self.fired = (like.new_zeros(math.prod(shape)) for _ in range(3))
        self.state = (q, self.weighted, self.fired)
        self.spikes: list[Tensor] = []  # (B, *N) of each step, if they are recorded


class _Product:
    """What spikes (B * N,) bring at the other end of a link, (B * M,): gated, by the transposed product."""

    def __init__(self, link: CoupleLink, shape: tuple[int, ...], *, split: bool) -> None:
        self._link, self._shape = link, shape
        self._split = split and link.weight.dtype == torch.float32
        self._gate, self._weights = _split_gate(link) if self._split else (flat(link.factor), (link.weight,))

    def __call__(self, spikes: Tensor) -> Tensor:
        sent, layer, source = shaped(spikes * self._gate, self._shape), self._link.layer, self._link.input_shape
        with tf32(self._split):
            response = apply_transpose(layer, self._weights[0], sent, source)
            for rest in self._weights[1:]:
                response += apply_transpose(layer, rest, sent, source)
        return flat(response)


def _split_gate(link: CoupleLink) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Gate and weights of a product of numbers that TF32 holds.

    A factor has one value beside 0, D m / r. With it in the weight, what is multiplied is 0 or +-1.
    """
    return flat((link.factor > 0).to(link.weight.dtype)), split_tf32(link.weight * link.factor.amax())
