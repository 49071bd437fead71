"""SPIDE's backward phase on a CPU, event by event, on all threads that torch uses.

One ternary couple stands behind every neuron; spikes run backwards through the transposes of all connections: in a
chain from the last population to the first and from there, through the transposed feedback, to the last again. Samples
do not see each other, so each thread takes a few of them through all steps; nothing but spike counts is kept, so memory
does not depend on the number of steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.config import LayerSpec
from fsnn_lava.hardware import Array
from fsnn_lava.kernels.ternary_couples import COUPLES, LINK, Couples, Link, run_couples
from fsnn_lava.network import PACKED_BYTES, EventMap, by_population, event_map, in_threads, inner, join_maps


@dataclass(frozen=True, eq=False)
class CoupleLink:
    """The transpose of a connection (as `layers.apply_layer` takes it), by which signed spikes run backwards.

    Parameters
    ----------
    source, target : the population that sends, which is the connection's target, and the one that receives.
    layer, weight, input_shape : of the connection.
    factor : (B, *N) of the population that sends: by what each of its spikes is multiplied, D m / r.
    delay : steps until a spike arrives: 0 in an earlier population, at least 1 in the same or a later one.
    """

    source: int
    target: int
    layer: LayerSpec
    weight: Tensor
    input_shape: tuple[int, ...]
    factor: Tensor
    delay: int


@dataclass(frozen=True, eq=False)
class CoupleCounts:
    """What the backward phase gave; tuples have one entry per population, first to last."""

    weighted: tuple[Tensor, ...]  # (B, *N) sum of leak**(T-1-t) p[t], p being +1, 0 or -1
    fired: tuple[Tensor, ...]  # (*N,) int64 numbers of spikes of either sign, over all steps and samples
    spikes: tuple[Tensor, ...] | None  # (T, B, *N) int8, or None if they were not recorded


def couple_run(
    links: Sequence[CoupleLink],
    shapes: Sequence[tuple[int, ...]],
    *,
    drive: Tensor,
    leaks: Sequence[float],
    time_steps: int,
    record: bool = False,
) -> CoupleCounts:
    """Signed spike counts of every population after so many steps of the backward phase.

    In each step, last population first: q += what arrives, p = +1 where q >= 1/2, -1 where q <= -1/2, then
    q <- leak (q - p).

    Parameters
    ----------
    links : by which spikes leave the populations.
    shapes : (C, H, W) or (N,) of each population.
    drive : (B, *N) of the last population, added to its q in every step.
    leaks : share of q that is kept, of each population.
    record : keep every spike.
    """
    plan = _Plan(links, shapes, drive.dtype)
    batch, neurons = len(drive), plan.neurons
    weighted = torch.empty((batch, neurons), dtype=drive.dtype)
    recorded = torch.zeros((time_steps, batch, neurons) if record else (1, 1, 0), dtype=torch.int8)
    shares = [[leak ** (time_steps - 1 - t) for t in range(time_steps)] for leak in leaks]
    steps = torch.tensor(shares, dtype=drive.dtype).numpy()
    kept = torch.tensor(list(leaks), dtype=drive.dtype).numpy()
    fired: list[Array] = []

    def run(begin: int, end: int) -> None:
        part = slice(begin, end)
        counted = np.zeros(neurons, np.int64)
        run_couples(
            plan.arrays,
            (inner(drive[part]).numpy(), plan.factors(part, drive[part])),
            (weighted[part].zero_().numpy(), counted),
            recorded[:, part].numpy() if record else recorded.numpy(),
            leaks=kept,
            step_weights=steps,
        )
        fired.append(counted)

    in_threads(run, batch, most=max(1, PACKED_BYTES // (weighted.element_size() * neurons)))
    return CoupleCounts(
        by_population(weighted, shapes),
        by_population(torch.from_numpy(np.sum(fired, axis=0)), shapes),
        by_population(recorded, shapes) if record else None,
    )


class _Plan:
    """Populations and links as the flat arrays that the compiled loop reads."""

    def __init__(self, links: Sequence[CoupleLink], shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> None:
        self._links = sorted(links, key=lambda link: link.source)
        sizes = [math.prod(shape) for shape in shapes]
        self.neurons = sum(sizes)
        maps = [event_map(k.layer, k.weight.to(dtype), k.input_shape, adjoint=True) for k in self._links]
        joined, flat = join_maps(maps, dtype)
        # The first link without delay that leads to a population writes straight into its potentials, and so fixes the
        # margins of their buffer; where all have delays, so does the first of these, which is added as a whole.
        direct: dict[int, int] = {}
        margins: dict[int, int] = {}
        for number, link in enumerate(self._links):
            if not link.delay:
                direct.setdefault(link.target, number)
        for number, link in enumerate(self._links):
            margins.setdefault(link.target, direct.get(link.target, number))
        populations: list[Couples] = []
        first = 0
        for p, shape in enumerate(shapes):
            outer = [number for number, link in enumerate(self._links) if link.source == p]
            ends = (outer[0], outer[-1] + 1) if outer else (0, 0)
            top, left, columns, size = _margins(shape, maps[margins[p]] if p in margins else None)
            form = (top, left, columns, size, first, sum(sizes[:p]), *ends)
            populations.append(Couples(*_image(shape), *form))
            first += size
        rows: list[Link] = []
        factors = waiting = 0
        for number, (link, g) in enumerate(zip(self._links, joined, strict=True)):
            slots = 0 if direct.get(link.target) == number else max(1, link.delay)
            top, left, columns, size = _margins(shapes[link.target], maps[number])
            sizes_of = (link.target, slots, g.down, g.up, g.out_channels, top, left, columns, size)
            rows.append(Link(*sizes_of, g.row, g.first_weight, g.first_start, factors, waiting))
            factors += sizes[link.source]
            waiting += slots * size
        self.arrays = np.array(populations, COUPLES), np.array(rows, LINK), flat

    def factors(self, part: slice, like: Tensor) -> Array:
        """(b, sum of N) of a part of the batch, of each link's source, channels innermost."""
        rows = [inner(link.factor[part]).to(like.dtype) for link in self._links]
        packed: Array = (torch.cat(rows, 1) if rows else like.new_zeros(len(like), 0)).numpy()
        return packed


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width."""
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (math.prod(shape), 1, 1)


def _margins(shape: tuple[int, ...], arriving: EventMap | None) -> tuple[int, int, int, int]:
    """Margin above and left, columns and size of a buffer as the arriving link writes it; None: of one without margins.

    A linear layer's has none either, whatever the shape.
    """
    size = math.prod(shape)
    if arriving is None or arriving.row.buffer_size == size:
        return 0, 0, _image(shape)[2], size
    g = arriving.row
    return g.top, g.left, g.buffer_width, g.buffer_size
