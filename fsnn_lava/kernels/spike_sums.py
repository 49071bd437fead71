"""Compiled event-driven sums: each spike adds its weights to the outputs that it reaches, and nothing else is done.

Spikes are 0 or 1, so there is nothing to multiply, and the work is the number of synaptic operations: spikes times
the synapses behind each. For integers the sums are exact in any order. All arrays are flat, and channels lie
innermost, (H, W, C); `convolution_reach.py` says how runs of outputs are found.

    spikes (B, H W C) --nonzero--> places of the spikes --scatter--> buffer with margins --gather--> current (N_target,)

The functions release Python's lock, allocate nothing, and use one core.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Literal, NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import overload

from fsnn_lava.hardware import Array, Dense, LinearMap, Shape, TransposedConvolution
from fsnn_lava.kernels.compile import compiled
from fsnn_lava.kernels.convolution_reach import convolution_reach
from fsnn_lava.kernels.row_sums import add_rows

Order = Literal["hwc", "whc"]
"""In which order populations of shape (C, H, W) lie in flat arrays; the last letter runs fastest."""


class ScatterMap(NamedTuple):
    """A linear map as rows of weights, one row per source channel, in the form that the compiled loops take.

    Parameters
    ----------
    weights : flat; for each source channel its weights, ordered (tap, target channel).
    segments : (S, 3) int64: contiguous runs of a row: where the run begins, its length, and by how many places of the
        buffer its first output lies after the corner of the source's position.
    starts : (classes + 1,) int64: first segment of each class of positions, and the end.
    corners, classes : (positions,) int64: where in the buffer each position of the source has its corner; its class.
    channels : of the source; spike i is of channel i % channels at position i // channels.
    row : weights of one source channel.
    rows, run : the response is so many runs of so many numbers in the buffer,
    first, pitch : the first of which begins at `first`, the next ones `pitch` further each.
    size : numbers of the buffer.
    """

    weights: Array
    segments: Array
    starts: Array
    corners: Array
    classes: Array
    channels: int
    row: int
    rows: int
    run: int
    first: int
    pitch: int
    size: int


def scatter_map(linear_map: LinearMap, *, dtype: Any, order: Order = "hwc") -> ScatterMap:
    """The map's weights and geometry, prepared for `scatter`.

    Parameters
    ----------
    dtype : type of the weights that are kept; it must hold them exactly. int8 takes the least memory traffic.
    order : layout of both ends, if they have three axes; others lie in C order.
    """
    weight = linear_map.weight
    kept = weight.astype(dtype)
    assert np.array_equal(kept, weight), f"{dtype} does not hold these weights"
    if isinstance(linear_map.geometry, Dense):
        columns, rows = (flat_order(shape, order) for shape in (linear_map.source, linear_map.target))
        return _dense_map(kept[rows[:, None], columns[None]])
    source, target = linear_map.source, linear_map.target
    if order == "whc":
        kept = kept.swapaxes(2, 3)
        source, target = (source[0], *source[:0:-1]), (target[0], *target[:0:-1])
    transposed = isinstance(linear_map.geometry, TransposedConvolution)
    by_source = kept if transposed else kept.swapaxes(0, 1)  # (C_source, C_target, K, K)
    geometry = linear_map.geometry
    reach = convolution_reach(
        source,
        target,
        kernel=kept.shape[2],
        stride=geometry.stride,
        padding=geometry.padding,
        transposed=transposed,
    )
    flat = by_source.reshape(*by_source.shape[:2], -1)[:, :, reach.taps].swapaxes(1, 2)  # (source, tap, target)
    y, x = (axis.ravel() for axis in np.indices(source[1:]))
    corner = ((y // reach.down) * reach.up * reach.width + (x // reach.down) * reach.up) * target[0]
    return ScatterMap(
        weights=np.ascontiguousarray(flat).ravel(),
        segments=reach.segments,
        starts=reach.starts,
        corners=corner.astype(np.int64),
        classes=((y % reach.down) * reach.down + x % reach.down).astype(np.int64),
        channels=source[0],
        row=len(reach.taps) * target[0],
        rows=target[1],
        run=target[2] * target[0],
        first=(reach.margin * reach.width + reach.margin) * target[0],
        pitch=reach.width * target[0],
        size=reach.height * reach.width * target[0],
    )


def flat_order(shape: Shape, order: Order = "hwc") -> Array:
    """(N,) place in C order of each element of that layout: what lies in C order, indexed with it, lies in that one."""
    places = np.arange(prod(shape))
    if len(shape) != 3:
        return places
    axes = (1, 2, 0) if order == "hwc" else (2, 1, 0)
    return places.reshape(shape).transpose(axes).ravel()


def sum_dtype(linear_map: LinearMap) -> type[np.signedinteger[Any]]:
    """int16 if no sum of some of the weights into one target can leave it, else int32.

    A sum of some of the weights lies between that of the negative and that of the positive ones.
    """
    worst = max(
        float(linear_map.with_weight(np.maximum(sign * linear_map.weight.astype(np.float64), 0)).sums().max())
        for sign in (-1, 1)
    )
    assert worst < 2**31, "networks keep their mantissas within 8 bits"
    return np.int16 if worst < 2**15 else np.int32


def _dense_map(matrix: Array) -> ScatterMap:
    """All source neurons as channels of one position."""
    targets, sources = matrix.shape
    nowhere = np.zeros(1, np.int64)
    weights, segments = np.ascontiguousarray(matrix.T).ravel(), np.array([[0, targets, 0]], np.int64)
    starts = np.array([0, 1], np.int64)
    return ScatterMap(weights, segments, starts, nowhere, nowhere, sources, targets, *one_run(targets))


def one_run(targets: int) -> tuple[int, int, int, int, int]:
    """Return `rows` to `size` of a `ScatterMap` whose response is one run, without margins."""
    return 1, targets, 0, targets, targets


@compiled
def nonzero(spikes: Array, spiking: Array) -> int:
    """Return the number of spikes, and write their places into `spiking`, in rising order.

    Parameters
    ----------
    spikes : (N,), nonzero where there is a spike.
    spiking : (N + 1,) int32 or wider: one place more than there can be spikes.
    """
    # Stream compaction without a branch: every place is written, and kept only if the count moves past it.
    count = 0
    for i in range(len(spikes)):
        spiking[count] = i
        count += spikes[i] != 0
    return count


NEAR_BYTES = 2**18
"""Weights of a connection that a second-level cache holds beside the rest."""

_place: Any = numba.uint64
"""A place in an array, without sign: for a signed one, numba would look out for places counted from the end."""


@compiled
def _add_four(weights: Array, rows: tuple[int, int, int, int], length: int, out: Array, to: int) -> None:
    """Add the runs of weights that begin at four places to out[to ..]."""
    a, b, c, d = rows
    # One pass over the outputs for four spikes: they are loaded and stored a quarter as often.
    for j in range(length):
        out[to + j] += weights[a + j] + weights[b + j] + weights[c + j] + weights[d + j]


@compiled
def _add_one(weights: Array, row: int, length: int, out: Array, to: int) -> None:
    """Add the run of weights that begins at one place to out[to ..]."""
    # Nothing but vector additions: a spike is 1, so there is nothing to multiply.
    for j in range(length):
        out[to + j] += weights[row + j]


@compiled
def _add_long_rows(
    weights: Array, start: int, row: int, spiking: Array, first: int, end: int, out: Array, to: int, length: int
) -> None:
    """Add a run of weights of each spike to out[to ..], as `add_rows` does."""
    i, run, target = first, _place(length), _place(to)
    while i + 4 <= end:
        a, b = _place(start + spiking[i] * row), _place(start + spiking[i + 1] * row)
        c, d = _place(start + spiking[i + 2] * row), _place(start + spiking[i + 3] * row)
        _add_four(weights, (a, b, c, d), run, out, target)
        i += 4
    while i < end:
        _add_one(weights, _place(start + spiking[i] * row), run, out, target)
        i += 1


@compiled
def scatter(spiking: Array, count: int, m: Any, out: Array) -> None:
    """Add the weights of all spikes to `out`.

    Parameters
    ----------
    spiking : int32 places of the spikes in the source; fastest if they rise.
    count : so many of them count.
    m : the `ScatterMap`.
    out : (size,) buffer with margins, of a type that holds every partial sum (`sum_dtype`), in which sums begin with
        zeros, or with what they are to be added to.
    """
    near = m.weights.nbytes <= NEAR_BYTES
    k = 0
    while k < count:
        # Spikes that follow each other at one position reach the same outputs: they go over these together, and their
        # class and corner are looked up once.
        position = spiking[k] // m.channels
        base = position * m.channels
        end = k + 1
        while end < count and base <= spiking[end] < base + m.channels:
            end += 1
        kind, corner = m.classes[position], m.corners[position]
        # Segments outermost: the outputs of one stay in registers, or the first-level cache, for all spikes of the
        # position. Weights that are far away are read in long runs instead, which the processor sees coming.
        for s in range(m.starts[kind], m.starts[kind + 1]):
            begin, length, to = m.segments[s, 0], m.segments[s, 1], corner + m.segments[s, 2]
            if near:
                add_rows(m.weights, begin - base * m.row, m.row, spiking, k, end, out, to, length)
            else:
                _add_long_rows(m.weights, begin - base * m.row, m.row, spiking, k, end, out, to, length)
        k = end


def _rounded_down(number: Any, bits: Any) -> Any:
    """Return an integer times 2**-bits, rounded down. Compiled functions alone call it, of floats never."""
    raise NotImplementedError("only compiled functions can call this one")


@overload(_rounded_down, strict=False)  # strict: it would compare the annotations too
def _rounded_down_by_type(number: Any, bits: Any) -> Callable[..., Any]:
    # Floats have no shift, and no exponent: for them there must be code, which is never reached.
    return (lambda number, bits: number >> bits) if isinstance(number, types.Integer) else (lambda number, bits: number)


@compiled
def gather(out: Array, m: Any, shift: int, current: Array) -> None:
    """Add the response in the buffer, times 2**shift and rounded down, to the current (N_target,), in its type."""
    # Row by row between the margins; a product, for it also serves floats, and widens to the current's type first.
    factor = current.dtype.type(1 << max(shift, 0))
    for y in range(m.rows):
        begin = m.first + y * m.pitch
        response, to = out[begin : begin + m.run], current[y * m.run : (y + 1) * m.run]
        if shift >= 0:
            for i in range(m.run):
                to[i] += response[i] * factor
        else:
            for i in range(m.run):
                to[i] += _rounded_down(response[i], -shift)
