"""The T steps of a spiking network on a CPU, event by event, on all threads that torch uses.

Samples do not see each other, so each thread takes a few of them through all steps at once: their potentials stay in
the cache, and nothing but spike counts is kept. The result does not depend on the number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.hardware import Array, FloatNeuron
from fsnn_lava.kernels.float_events import CONNECTION, run_samples
from fsnn_lava.network.event_maps import PACKED_BYTES, EventMap, by_population, in_threads, inner, join_maps
from fsnn_lava.network.neuron import SpikeCounts


@dataclass(frozen=True, eq=False)
class EventConnection:
    """One connection of a run: current of the target = mask (pool(scale · map(spikes)) + shift).

    Parameters
    ----------
    source, target : populations from 0; source -1 is the input.
    delay : steps until a spike arrives: 0 from an earlier population, at least 1 from the same or a later one.
    map : linear map from the source's shape.
    scale, shift : (C,) of the response's channels.
    pool : window of the average pooling, 1 without.
    mask : (B, *N) dropout mask, or None.
    """

    source: int
    target: int
    delay: int
    map: EventMap
    scale: Tensor
    shift: Tensor
    pool: int
    mask: Tensor | None


def event_run(
    connections: Sequence[EventConnection],
    shapes: Sequence[tuple[int, ...]],
    *,
    neurons: Sequence[FloatNeuron],
    drive: Sequence[Tensor | None],
    events: Tensor | None,
    batch: int,
    dtype: torch.dtype,
    time_steps: int,
    record: bool = False,
) -> SpikeCounts:
    """Spike counts of every population after T steps; what came back is in the order of the connections with a delay.

    Parameters
    ----------
    connections : between populations, and from the events to them.
    shapes : (C, H, W) or (N,) of each population.
    neurons : of each population.
    drive : (B, *N) constant current of each population, or None.
    events : (T, B, *shape) binary frames for the connections whose source is -1, or None.
    record : keep every spike.
    """
    plan = _Plan(connections, shapes, neurons, [current is not None for current in drive], dtype)
    constant = [current for current in drive if current is not None]
    counts = [torch.empty((batch, plan.neurons), dtype=dtype) for _ in range(2)]
    late = [shapes[c.source] for c in connections if c.delay > 0]
    returned = torch.empty((batch, sum(map(prod, late))), dtype=dtype)
    recorded = torch.empty((time_steps if record else 0, batch, plan.neurons), dtype=torch.uint8)

    def run(begin: int, end: int) -> None:
        part = slice(begin, end)
        packed = (
            _packed([current[part] for current in constant], end - begin, dtype),
            _frames(events, part, (time_steps, end - begin), dtype),
            _packed([c.mask[part] for c in connections if c.mask is not None], end - begin, dtype),
        )
        rates = tuple(count[part].zero_().numpy() for count in (*counts, returned))
        kept = np.empty((time_steps if record else 0, end - begin, plan.neurons), np.uint8)
        run_samples(plan.arrays, packed, rates, kept, constants=plan.constants, time_steps=time_steps)
        recorded[:, part] = torch.from_numpy(kept)

    in_threads(run, batch, most=max(1, PACKED_BYTES // plan.sample_bytes))
    weighted, plain = (by_population(count, shapes) for count in counts)
    return SpikeCounts(
        weighted, plain, by_population(recorded, shapes) if record else None, by_population(returned, late)
    )


class _Plan:
    """The connections as the flat arrays that the compiled loop reads."""

    def __init__(
        self,
        connections: Sequence[EventConnection],
        shapes: Sequence[tuple[int, ...]],
        neurons: Sequence[FloatNeuron],
        driven: Sequence[bool],
        dtype: torch.dtype,
    ) -> None:
        sizes = [prod(shape) for shape in shapes]
        bounds = np.cumsum([0, *sizes], dtype=np.int64)
        self.neurons = int(bounds[-1])
        rows, maps = join_maps([c.map for c in connections], dtype)
        late = sorted({c.source for c in connections if c.delay > 0})
        first_late = dict(zip(late, np.cumsum([0, *(sizes[p] for p in late)]).tolist(), strict=False))
        table, channels, masked = [], 0, 0
        for c, row in zip(connections, rows, strict=True):
            table.append(
                row._replace(
                    source=c.source,
                    target=c.target,
                    delay=c.delay,
                    first_late=first_late.get(c.source, 0),
                    pool=c.pool,
                    first_affine=channels,
                    first_mask=-1 if c.mask is None else masked,
                )
            )
            channels += len(c.scale)
            masked += 0 if c.mask is None else c.mask[0].numel()
        empty = torch.empty(0, dtype=dtype)
        scale, shift = (
            [empty, *numbers] for numbers in ((c.scale for c in connections), (c.shift for c in connections))
        )
        affine = torch.stack([torch.cat(scale), torch.cat(shift)])
        begins = np.cumsum([0, *(size if has else 0 for size, has in zip(sizes, driven, strict=True))])[:-1]
        self.arrays = (
            np.array(table, CONNECTION),
            bounds,
            np.where(driven, begins, -1).astype(np.int64),
            np.array([(bounds[p], bounds[p + 1]) for p in late], np.int64).reshape(-1, 2),
            maps,
            affine.numpy(),
        )
        values = [(n.v_threshold, n.reset_amount, n.leak, float(n.reset == "zero")) for n in neurons]
        self.constants = torch.tensor(values, dtype=dtype).numpy()
        self.sample_bytes = self.constants.itemsize * (2 * self.neurons + masked)


def _packed(tensors: Sequence[Tensor], batch: int, dtype: torch.dtype) -> Array:
    """(B, sum of N) of one type, channels innermost; no columns if there is nothing."""
    rows = [inner(x.detach()) for x in tensors]
    packed: Array = (
        (rows[0] if len(rows) == 1 else torch.cat(rows, 1) if rows else torch.empty(batch, 0)).to(dtype).numpy()
    )
    return packed


def _frames(events: Tensor | None, part: slice, empty: tuple[int, int], dtype: torch.dtype) -> Array:
    """(T, B, M), channels innermost; no columns if there are no frames."""
    frames: Array = (
        (torch.empty(*empty, 0) if events is None else inner(events[:, part], batch_axes=2)).to(dtype).numpy()
    )
    return frames
