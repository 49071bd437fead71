"""Which outputs each position of a convolution reaches, as runs of contiguous numbers, for event-driven products.

All arrays are flat and channels lie innermost, (H, W, C): then one value's weights for a run of neighbouring outputs
are one contiguous run of numbers, and so are these outputs. Responses go into a buffer with margins, which outputs off
the edge fall into, so that no run is ever cut. Positions that reach their outputs in the same way form a class: one for
each remainder under the stride of a convolution, and one in all for a transposed convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fsnn_lava.hardware import Array, Shape


class Reach(NamedTuple):
    """What convolutions of one size have in common, whatever their weights.

    Parameters
    ----------
    taps : (row,) int64: in what order a source channel's weights lie, as places ky K + kx in its kernel. Each source
        channel has one row of weights, ordered (tap, target channel).
    segments : (S, 3) int64: contiguous runs of a row: where the run begins, its length, and by how many places of the
        buffer its first output lies after the corner of the source's position.
    starts : (classes + 1,) int64: first segment of each class of positions, row by row, and the end.
    down, up : stride of a convolution; stride of a transposed one (1: the other kind). Position (y, x) is of class
        (y % down) down + x % down, and has its corner at row (y // down) up, column (x // down) up of the buffer.
    margin : rows above, and columns left of the response in its buffer.
    width, height : columns and rows of the buffer.
    """

    taps: Array
    segments: Array
    starts: Array
    down: int
    up: int
    margin: int
    width: int
    height: int


def convolution_reach(
    source: Shape, target: Shape, *, kernel: int, stride: int, padding: int, transposed: bool
) -> Reach:
    """The reach of a convolution from (C, H, W) to (C', H', W'), or of a transposed one."""
    down, up = (1, stride) if transposed else (stride, 1)
    # Along one axis: for each remainder of the position, the (output's offset, tap) pairs that it reaches, rising.
    if transposed:
        classes = [[(k - padding, k) for k in range(kernel)]]
    else:
        classes = [
            sorted(((r + padding - k) // stride, k) for k in range(kernel) if (r + padding - k) % stride == 0)
            for r in range(stride)
        ]
    reached = [offset for pairs in classes for offset, _ in pairs]
    margin = max(0, -min(reached))
    corners = [(size - 1) // down * up for size in source[1:]]
    height, width = (
        margin + max(size, corner + max(reached) + 1) for size, corner in zip(target[1:], corners, strict=True)
    )
    taps, segments, starts = _segments(classes, kernel=kernel, margin=margin, width=width, channels=target[0])
    return Reach(taps, segments, starts, down, up, margin, width, height)


def _segments(
    classes: list[list[tuple[int, int]]], *, kernel: int, margin: int, width: int, channels: int
) -> tuple[Array, Array, Array]:
    """Order of the taps in a row, and the runs of each class of positions."""
    taps: list[int] = []
    segments: list[tuple[int, int, int]] = []
    starts = [0]
    for rows in classes:
        for columns in classes:
            for dy, ky in rows if columns else []:
                offset = ((dy + margin) * width + columns[0][0] + margin) * channels
                segments.append((len(taps) * channels, len(columns) * channels, offset))
                taps += [ky * kernel + kx for _, kx in columns]
            starts.append(len(segments))
    return np.array(taps, np.int64), np.array(segments, np.int64).reshape(-1, 3), np.array(starts, np.int64)
