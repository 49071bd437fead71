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
    links: Sequence[CoupleLink | None],
    shapes: Sequence[tuple[int, ...]],
    *,
    drive: Tensor,
    leak: float,
    time_steps: int,
    loop_delay: int = 1,
    record: bool = False,
    settings: DenseSettings = DenseSettings(),  # noqa: B008 - frozen
) -> CoupleCounts:
    """Signed spike counts of every population, as `couple_run` gives them for the same arguments.

    Parameters
    ----------
    settings : how products and steps are computed; all others as of `spide_by_events.couple_run`.
    """
    populations = [
        _Couples(drive, (len(drive), *shape), link, split=settings.split)
        for shape, link in zip(shapes, links, strict=True)
    ]
    step, constant = _couple_step(settings.compiled), flat(drive)
    returning: deque[Tensor | None] = deque([None] * loop_delay)  # what the first population sent, on its way
    for _ in range(time_steps):
        response = returning.popleft()
        for couples in reversed(populations):
            base = constant if couples is populations[-1] else None
            spikes, sent = step(*couples.state, base, response, couples.gate, leak)
            response = couples.arriving(sent)
            if record:
                couples.spikes.append(shaped(spikes, couples.shape).to(torch.int8).contiguous())
        returning.append(response)
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
    gate: Tensor | None,
    leak: float,
) -> tuple[Tensor, Tensor]:
    """Ternary spikes of one population in its next step, and what it sends; all (B * N,), the first three updated.

    q <- q + input;  p = 1 where q >= 1/2, -1 where q <= -1/2, else 0;  q <- leak (q - p).

    Parameters
    ----------
    q, weighted, fired : potential, leak-weighted sum of p and number of spikes.
    base, response : constant input and what a connection brings; None where there is none.
    gate : factor of each spike on its way out; None: all are sent as they are.
    """
    if base is not None:
        q.add_(base)
    if response is not None:
        q.add_(response)
    spikes = (q >= V_BACK).to(q.dtype) - (q <= -V_BACK).to(q.dtype)
    q.sub_(spikes).mul_(leak)
    weighted.mul_(leak).add_(spikes)
    fired.add_(spikes.abs())
    return spikes, spikes if gate is None else spikes * gate


@functools.cache
def _couple_step(compiled: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """`couple_step`, fused or not; a network needs five programs at most, for what may be absent."""
    return torch.compile(couple_step, dynamic=True) if compiled else couple_step


class _Couples:
    """One population and the connection that its spikes run back through; all flat, (B * N,)."""

    def __init__(self, like: Tensor, shape: tuple[int, ...], link: CoupleLink | None, *, split: bool) -> None:
        self.shape, self._link = shape, link
        q, self.weighted, self.fired = (like.new_zeros(math.prod(shape)) for _ in range(3))
        self.state = (q, self.weighted, self.fired)
        self.spikes: list[Tensor] = []  # (B, *N) of each step, if they are recorded
        self.gate: Tensor | None = None  # factor of each spike before the product; None where nothing is sent
        self._weights: tuple[Tensor, ...] = ()
        self._split = False
        if link is not None:
            self._split = split and link.weight.dtype == torch.float32
            self.gate, self._weights = _split_gate(link) if self._split else (flat(link.factor), (link.weight,))

    def arriving(self, sent: Tensor) -> Tensor | None:
        """Input (B * M,) of the next population, of gated spikes (B * N,): the transposed product."""
        if self._link is None:
            return None
        spikes, layer, source = shaped(sent, self.shape), self._link.layer, self._link.input_shape
        with tf32(self._split):
            response = apply_transpose(layer, self._weights[0], spikes, source)
            for rest in self._weights[1:]:
                response += apply_transpose(layer, rest, spikes, source)
        return flat(response)


def _split_gate(link: CoupleLink) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Gate and weights of a product of numbers that TF32 holds.

    A factor has one value beside 0, D m / r. With it in the weight, what is multiplied is 0 or +-1.
    """
    return flat((link.factor > 0).to(link.weight.dtype)), split_tf32(link.weight * link.factor.amax())
