"""SPIDE's backward phase on a CPU, event by event, on all threads that torch uses.

One ternary couple stands behind every neuron; couples are chained backwards, from the last population to the first and
from there, through the transposed feedback, to the last again. Samples do not see each other, so each thread takes a
few of them through all steps; nothing but spike counts is kept, so memory does not depend on the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.config import LayerSpec
from fsnn_lava.hardware import Array
from fsnn_lava.kernels.ternary_couples import Couples, run_couples
from fsnn_lava.network import PACKED_BYTES, EventMap, event_map, in_threads, inner, outer


@dataclass(frozen=True, eq=False)
class CoupleLink:
    """The transposed connection that takes one population's signed spikes backwards.

    Parameters
    ----------
    layer, weight, input_shape : the forward connection, as `layers.apply_layer` takes it.
    factor : (B, *N) of the population that sends: by what each of its spikes is multiplied, D m / r.
    """

    layer: LayerSpec
    weight: Tensor
    input_shape: tuple[int, ...]
    factor: Tensor


@dataclass(frozen=True, eq=False)
class CoupleCounts:
    """What the backward phase gave; tuples have one entry per population, first to last.

    Parameters
    ----------
    weighted : (B, *N) sum of leak**(T-1-t) p[t], p being +1, 0 or -1.
    fired : (*N,) int64 numbers of spikes of either sign, over all steps and samples.
    spikes : (T, B, *N) int8, or None if they were not recorded.
    """

    weighted: tuple[Tensor, ...]
    fired: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...] | None


def couple_run(
    links: Sequence[CoupleLink | None],
    shapes: Sequence[tuple[int, ...]],
    *,
    drive: Tensor,
    leak: float,
    time_steps: int,
    loop_delay: int = 1,
    record: bool = False,
) -> CoupleCounts:
    """Signed spike counts of every population after so many steps of the backward phase.

    In each step, last population first: q += what arrives, p = +1 where q >= 1/2, -1 where q <= -1/2, then
    q <- leak (q - p).

    Parameters
    ----------
    links : for each population, first to last, the connection that its spikes run back through: the feedback for the
        first one (None: there is no feedback), the connection from below for the others.
    shapes : (C, H, W) or (N,) of each population.
    drive : (B, *N) of the last population, added to its q in every step.
    leak : share of q that is kept.
    loop_delay : steps until the first population's spikes reach the last.
    record : keep every spike.
    """
    plan = _Plan(links, shapes, drive.dtype)
    batch, neurons = len(drive), plan.neurons
    weighted = torch.empty((batch, neurons), dtype=drive.dtype)
    recorded = torch.zeros((time_steps, batch, neurons) if record else (1, 1, 0), dtype=torch.int8)
    steps = torch.tensor([leak ** (time_steps - 1 - t) for t in range(time_steps)], dtype=drive.dtype).numpy()
    fired: list[Array] = []

    def run(begin: int, end: int) -> None:
        part = slice(begin, end)
        counted = np.zeros(neurons, np.int64)
        run_couples(
            plan.arrays,
            (inner(drive[part]).numpy(), plan.factors(links, part, drive[part])),
            (weighted[part].zero_().numpy(), counted),
            recorded[:, part].numpy() if record else recorded.numpy(),
            leak=steps.dtype.type(leak),
            step_weights=steps,
            loop_delay=loop_delay,
        )
        fired.append(counted)

    in_threads(run, batch, most=max(1, PACKED_BYTES // (weighted.element_size() * neurons)))
    return CoupleCounts(
        plan.populations(weighted),
        plan.populations(torch.from_numpy(np.sum(fired, axis=0))),
        plan.populations(recorded) if record else None,
    )


class _Plan:
    """Populations and connections as the flat arrays that the compiled loop reads."""

    def __init__(
        self, links: Sequence[CoupleLink | None], shapes: Sequence[tuple[int, ...]], dtype: torch.dtype
    ) -> None:
        self._shapes = shapes
        self._sizes = [math.prod(shape) for shape in shapes]
        self.neurons = sum(self._sizes)
        maps = [
            None if k is None else event_map(k.layer, k.weight.to(dtype), k.input_shape, adjoint=True) for k in links
        ]
        # The map that leads into a population fixes the buffer of its potentials; the last one's is the feedback's.
        into = [*maps[1:], maps[0]]
        starts, weights, offset = 0, 0, 0
        rows = []
        for p, arriving in enumerate(into):
            row = _population(shapes[p], arriving)._replace(first_q=offset, first_neuron=sum(self._sizes[:p]))
            offset += row.buffer_size
            leaving = maps[p]
            if leaving is not None:
                g = leaving.geometry
                row = row._replace(
                    target=(p - 1) % len(shapes),
                    down=g.down,
                    up=g.up,
                    target_width=g.buffer_width,
                    target_channels=g.out_channels,
                    row=g.row,
                    first_weight=weights,
                    first_start=starts,
                )
                weights, starts = weights + leaving.weights.size, starts + leaving.starts.size
            rows.append(row)
        self.arrays = (np.array(rows, np.int64), _joined([m for m in maps if m is not None], dtype))

    def factors(self, links: Sequence[CoupleLink | None], part: slice, like: Tensor) -> Array:
        """(b, all neurons) of a part of the batch, channels innermost; zeros where nothing is sent."""
        rows = [
            like.new_zeros(len(like), size) if link is None else inner(link.factor[part]).to(like.dtype)
            for size, link in zip(self._sizes, links, strict=True)
        ]
        packed: Array = torch.cat(rows, 1).numpy()
        return packed

    def populations(self, flat: Tensor) -> tuple[Tensor, ...]:
        """One (..., *N) tensor per population of the last axis, whose channels lie innermost."""
        parts = flat.split(self._sizes, -1)
        return tuple(outer(part, shape) for part, shape in zip(parts, self._shapes, strict=True))


def _population(shape: tuple[int, ...], arriving: EventMap | None) -> Couples:
    """Sizes of a population whose potentials lie as the arriving connection writes them."""
    channels, height, width = shape if len(shape) == 3 else (math.prod(shape), 1, 1)
    top, left, columns, size = 0, 0, width, math.prod(shape)
    if arriving is not None and arriving.geometry.buffer_size != size:  # a convolution's, with margins
        g = arriving.geometry
        top, left, columns, size = g.top, g.left, g.buffer_width, g.buffer_size
    return Couples(channels, height, width, top, left, columns, size, 0, 0, -1, 1, 1, 0, 0, 0, 0, 0)


def _joined(maps: Sequence[EventMap], dtype: torch.dtype) -> tuple[Array, Array, Array]:
    """Flat (weights, segments, starts) of all connections, the latter shifted to where their segments lie."""
    shifted = np.cumsum([0, *(len(m.segments) for m in maps)])
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    return (
        np.concatenate([np.empty(0, kind), *(m.weights for m in maps)]),
        np.concatenate([np.empty((0, 3), np.int64), *(m.segments for m in maps)]),
        np.concatenate([np.empty(0, np.int64), *(m.starts + n for m, n in zip(maps, shifted, strict=False))]),
    )
