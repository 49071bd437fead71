"""The order of neurons on Lava: its Conv wants shapes (W, H, C), where ours are (C, H, W)."""

from __future__ import annotations

from math import prod

import numpy as np

from fsnn_lava.hardware import Array

Shape = tuple[int, ...]


def lava_shape(shape: Shape) -> Shape:
    """(W, H, C) of (C, H, W), and so for any number of axes."""
    return tuple(reversed(shape))


def to_lava(values: Array, shape: Shape) -> Array:
    """(..., N) in Lava's order, of values (..., *shape)."""
    leading = values.ndim - len(shape)
    axes = (*range(leading), *reversed(range(leading, values.ndim)))
    return values.transpose(axes).reshape(*values.shape[:leading], prod(shape))


def from_lava(values: Array, shape: Shape) -> Array:
    """(..., *shape), C-contiguous, of values (..., N) in Lava's order."""
    leading = values.ndim - 1
    axes = (*range(leading), *reversed(range(leading, leading + len(shape))))
    return np.ascontiguousarray(values.reshape(*values.shape[:-1], *lava_shape(shape)).transpose(axes))


def lava_order(shape: Shape) -> Array:
    """(N,) flat index in C order of each neuron in Lava's order."""
    return to_lava(np.arange(prod(shape)).reshape(shape), shape)
