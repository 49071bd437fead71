"""How Lava 0.10.0 wants things, where that differs from ours: the order of neurons, kernels, mantissas.

Its Conv takes shapes (W, H, C), where ours are (C, H, W), so all neurons lie in that order. It convolves, where we
correlate. And of weights with mixed signs it keeps even ones only.
"""

from math import prod

import numpy as np

from fsnn_lava.hardware import Array, Shape

WEIGHT_FACTOR = 2
"""Integer mantissas are given to Lava times this: with mixed signs it drops the last bit of a weight."""


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


def lava_kernels(kernels: Array) -> Array:
    """(C_out, W, H, C_in), flipped: Lava convolves; of kernels (C_out, C_in, H, W)."""
    return kernels[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)


def our_kernels(kernels: Array) -> Array:
    """The inverse of `lava_kernels`."""
    return kernels[:, ::-1, ::-1].transpose(0, 3, 2, 1)
