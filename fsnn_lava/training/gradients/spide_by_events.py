"""SPIDE's backward phase on a CPU, event by event, on all threads that torch uses.

One ternary couple stands behind every neuron; couples are chained backwards, from the last population to the first and
from there, through the transposed feedback, to the last again. Samples do not see each other, so each thread takes a
few of them through all steps; nothing but spike counts is kept, so memory does not depend on the number of steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.config import LayerSpec
from fsnn_lava.hardware import Array
from fsnn_lava.kernels.ternary_couples import COUPLES, Couples, run_couples
from fsnn_lava.network import PACKED_BYTES, EventMap, by_population, event_map, in_threads, inner, join_maps


@dataclass(frozen=True, eq=False)
class CoupleLink:
    """The transpose of a connection (as `layers.apply_layer` takes it), by which signed spikes run backwards."""

    layer: LayerSpec
    weight: Tensor
    input_shape: tuple[int, ...]
    factor: Tensor  # (B, *N) of the population that sends: by what each of its spikes is multiplied, D m / r


@dataclass(frozen=True, eq=False)
class CoupleCounts:
    """What the backward phase gave; tuples have one entry per population, first to last."""

    weighted: tuple[Tensor, ...]  # (B, *N) sum of leak**(T-1-t) p[t], p being +1, 0 or -1
    fired: tuple[Tensor, ...]  # (*N,) int64 numbers of spikes of either sign, over all steps and samples
    spikes: tuple[Tensor, ...] | None  # (T, B, *N) int8, or None if they were not recorded


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
        by_population(weighted, shapes),
        by_population(torch.from_numpy(np.sum(fired, axis=0)), shapes),
        by_population(recorded, shapes) if record else None,
    )


class _Plan:
    """Populations and connections as the flat arrays that the compiled loop reads."""

    def __init__(
        self, links: Sequence[CoupleLink | None], shapes: Sequence[tuple[int, ...]], dtype: torch.dtype
    ) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self._sizes, self.neurons = sizes, sum(sizes)
        maps = [
            None if k is None else event_map(k.layer, k.weight.to(dtype), k.input_shape, adjoint=True) for k in links
        ]
        joined, flat = join_maps([m for m in maps if m is not None], dtype)
        leaving = iter(joined)
        rows: list[Couples] = []
        # The map that leads into a population fixes the buffer of its potentials; the last one's is the feedback's.
        for p, arriving in enumerate([*maps[1:], maps[0]]):
            first_q = rows[-1].first_q + rows[-1].buffer_size if rows else 0
            row = _population(shapes[p], arriving)._replace(first_q=first_q, first_neuron=sum(sizes[:p]))
            if maps[p] is not None:
                g = next(leaving)
                row = row._replace(
                    target=(p - 1) % len(shapes),
                    down=g.down,
                    up=g.up,
                    target_width=g.buffer_width,
                    target_channels=g.out_channels,
                    row=g.row,
                    first_weight=g.first_weight,
                    first_start=g.first_start,
                )
            rows.append(row)
        self.arrays = np.array(rows, COUPLES), flat

    def factors(self, links: Sequence[CoupleLink | None], part: slice, like: Tensor) -> Array:
        """(b, all neurons) of a part of the batch, channels innermost; zeros where nothing is sent."""
        rows = [
            like.new_zeros(len(like), size) if link is None else inner(link.factor[part]).to(like.dtype)
            for size, link in zip(self._sizes, links, strict=True)
        ]
        packed: Array = torch.cat(rows, 1).numpy()
        return packed


def _population(shape: tuple[int, ...], arriving: EventMap | None) -> Couples:
    """Sizes of a population whose potentials lie as the arriving connection writes them."""
    channels, height, width = shape if len(shape) == 3 else (math.prod(shape), 1, 1)
    top, left, columns, size = 0, 0, width, math.prod(shape)
    if arriving is not None and arriving.row.buffer_size != size:  # a convolution's, with margins
        g = arriving.row
        top, left, columns, size = g.top, g.left, g.buffer_width, g.buffer_size
    return Couples(channels, height, width, top, left, columns, size, 0, 0, -1, 1, 1, 0, 0, 0, 0, 0)
