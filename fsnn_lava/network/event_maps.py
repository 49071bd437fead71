"""Linear maps of layers, and their adjoints, prepared for event-driven products on a CPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.config import LayerSpec
from fsnn_lava.hardware import Array
from fsnn_lava.kernels.convolution_reach import convolution_reach
from fsnn_lava.kernels.float_events import CONNECTION, ConnectionRow, apply_map, count_nonzero

DENSE_SHARE = {
    "AVX512": {"linear": 0.4, "conv": 0.15, "pool": 0.15},
    "AVX2": {"linear": 0.22, "conv": 0.33, "pool": 0.33},
}
"""Share of nonzero values above which a dense product is faster, by what torch multiplies with; measured.

Not measured anew in each training: the two add in different orders, so that what is trained would depend on the clock.
"""

BLOCK_NUMBERS = 2**18
"""Weights that are used together: a second-level cache of 1 MiB of them, in float32."""

PACKED_BYTES = 4 * 2**20
"""Size of what a run through all steps packs for one thread's samples at a time."""


@dataclass(frozen=True, eq=False)
class EventMap:
    """A layer's linear map (or its adjoint) as rows of weights, one row per source channel.

    Parameters
    ----------
    row : sizes; its offsets are those of this map alone.
    weights : flat; for each source channel its weights, ordered (tap, target channel).
    segments : (S, 3) int64: contiguous runs of a row: where the run begins, its length, and by how many places of the
        response its first output lies after the corner of the source's position.
    starts : first segment of each class of positions (their remainders under the stride), and the end.
    """

    row: ConnectionRow
    weights: Array
    segments: Array
    starts: Array

    def product(self, x: Tensor, target: tuple[int, ...]) -> Tensor:
        """(B, *target) of x (B, *source) with many zeros, without gradients."""
        values = inner(x.detach()).numpy()
        product = torch.empty(len(x), prod(target), dtype=x.dtype)  # torch aligns it: dense products of it repeat
        into, rows = product.numpy(), np.array([self.row], CONNECTION)
        maps = (self.weights, self.segments, self.starts)

        def run(begin: int, end: int) -> None:
            apply_map(values[begin:end], rows, maps, into[begin:end])

        in_threads(run, len(x), most=len(x))
        if len(target) == 3:
            return product.view(len(x), *target[1:], target[0]).movedim(-1, 1)
        return product.view(len(x), *target)


def event_map(layer: LayerSpec, weight: Tensor, input_shape: tuple[int, ...], *, adjoint: bool = False) -> EventMap:
    """The map (B, *input_shape) -> (B, *N) of a layer without bias and pooling, or its adjoint.

    Parameters
    ----------
    layer : linear, convolution, transposed convolution, or pool, which is a convolution too.
    weight : as `layers.apply_layer` takes it.
    """
    weight = weight.detach()
    if layer.kind == "linear":
        return _linear_map(weight, input_shape, adjoint=adjoint)
    source, target = tuple(input_shape), layer.output_shape(input_shape)
    if adjoint:
        source, target = target, source
    upwards = layer.transposed != adjoint
    rows_first = weight if layer.transposed else weight.transpose(0, 1)  # (in, out, K, K)
    if adjoint:
        rows_first = rows_first.transpose(0, 1)
    return _conv_map(rows_first, source, target, layer=layer, upwards=upwards)


def join_maps(maps: Sequence[EventMap], dtype: torch.dtype) -> tuple[list[ConnectionRow], tuple[Array, Array, Array]]:
    """Put maps behind each other, as a kernel that runs a network takes them.

    Returns
    -------
    The row of each map, whose offsets point into the flat arrays; these (weights, segments, starts).
    """
    sizes = np.array([(0, 0, 0), *((m.weights.size, len(m.segments), m.starts.size) for m in maps)])
    offsets = list(zip(maps, np.cumsum(sizes, 0).tolist(), strict=False))
    rows = [m.row._replace(first_weight=weight, first_start=start) for m, (weight, _, start) in offsets]
    flat = torch.cat([torch.empty(0, dtype=dtype), *(torch.from_numpy(m.weights) for m in maps)])
    return rows, (
        flat.numpy(),
        np.concatenate([np.empty((0, 3), np.int64), *(m.segments for m in maps)]),
        np.concatenate([np.empty(0, np.int64), *(m.starts + segment for m, (_, segment, _) in offsets)]),
    )


def is_sparse(x: Tensor, layer: LayerSpec) -> bool:
    """Whether so many values of x are zero that an event-driven product with a layer is faster than a dense one.

    A layer of a kind from outside has no event-driven product.
    """
    if layer.is_outside:
        return False
    share = count_nonzero(inner(x.detach()).numpy()) / x.numel()
    known = DENSE_SHARE.get(torch.backends.cpu.get_cpu_capability(), DENSE_SHARE["AVX2"])
    return bool(share < known[layer.kind])


def inner(x: Tensor, *, batch_axes: int = 1) -> Tensor:
    """(..., H W C), contiguous, of (..., C, H, W) behind the batch axes; a copy only if x lies otherwise."""
    if x.dim() == batch_axes + 3:
        x = x.movedim(-3, -1)
    return x.flatten(batch_axes).contiguous()


def outer(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(..., C, H, W) view of (..., H W C)."""
    lead = flat.shape[:-1]
    if len(shape) != 3:
        return flat.view(*lead, *shape)
    channels, height, width = shape
    return flat.view(*lead, height, width, channels).movedim(-1, -3)


def by_population(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """(..., *N) view of each population of (..., all neurons), whose channels lie innermost."""
    parts = flat.split([prod(shape) for shape in shapes], -1)
    return tuple(outer(part, shape) for part, shape in zip(parts, shapes, strict=True))


def in_threads(run: Callable[[int, int], None], batch: int, *, most: int) -> None:
    """Calls run(begin, end) for parts of a batch, each of so many samples at most, on all threads that torch uses."""
    threads = torch.get_num_threads()
    size = max(1, min(most, -(-batch // threads)))
    parts = [(begin, min(begin + size, batch)) for begin in range(0, batch, size)]
    if threads == 1 or len(parts) == 1:
        for begin, end in parts:
            run(begin, end)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: run(*part), parts))


def _linear_map(weight: Tensor, input_shape: tuple[int, ...], *, adjoint: bool) -> EventMap:
    features = len(weight)
    matrix = inner(weight.view(features, *input_shape))
    rows = matrix if adjoint else matrix.t()
    sources, targets = rows.shape
    sizes = (sources, 1, 1, targets, 1, 1, 1, 1, 0, 0, 1, targets)
    row = ConnectionRow(*sizes, pool=1, block=_block(targets), row=targets)
    segments = np.array([[0, targets, 0]], np.int64)
    return EventMap(row, _flat(rows), segments, np.array([0, 1], np.int64))


def _conv_map(
    rows_first: Tensor, source: tuple[int, ...], target: tuple[int, ...], *, layer: LayerSpec, upwards: bool
) -> EventMap:
    reach = convolution_reach(
        source, target, kernel=layer.kernel, stride=layer.stride, padding=layer.padding, transposed=upwards
    )
    flat = rows_first.flatten(2)[:, :, torch.from_numpy(reach.taps)].transpose(1, 2)  # (source, tap, target)
    row = len(reach.taps) * target[0]
    buffer = (reach.margin, reach.margin, reach.width, reach.height * reach.width * target[0])
    sizes = ConnectionRow(*source, *target, reach.down, reach.up, *buffer, 1, _block(row), row)  # type: ignore[call-arg]
    return EventMap(sizes, _flat(flat), reach.segments, reach.starts)


def _block(row: int) -> int:
    """Channels whose rows of weights fit the cache, at least as many as are added at a time."""
    return max(4, BLOCK_NUMBERS // row)


def _flat(rows: Tensor) -> Array:
    flat: Array = rows.contiguous().flatten().numpy()
    return flat
