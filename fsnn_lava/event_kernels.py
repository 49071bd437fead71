"""Compiled kernels for a CPU: products with sparse vectors, and one pass over all neurons in a step.

A spike vector is mostly zeros, and so is a gradient behind neurons that are silent or saturated; a dense product
multiplies by every zero. Adding the rows that count costs what the spikes cost: at the firing rates of trained
networks, 5 to 20 %, several times less (`benchmarks/training.py`). Sums differ from a dense product's by their order
alone. The kernels run on one core: numba's parallel loops would change the number of threads that torch uses.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from fsnn_lava.result import Array

DENSE_SHARE = 0.4
"""Share of nonzero values above which the dense product is faster."""


def sparse_product(x: Tensor, rows: Tensor) -> Tensor:
    """x @ rows, (B, N), for x (B, M) with many zeros and rows (M, N), without gradients.

    Not on a CPU, or with few zeros, this is the dense product.
    """
    if x.device.type != "cpu":
        return x @ rows
    values, matrix = x.detach().contiguous().numpy(), rows.detach().contiguous().numpy()
    if _nonzero(values) > DENSE_SHARE * values.size:
        return x.detach() @ rows.detach()
    product = torch.zeros(
        len(values), matrix.shape[1], dtype=rows.dtype
    )  # torch aligns it: dense products of it repeat
    _add_rows(values, matrix, product.numpy())
    return product


def advance_neurons(
    v: Tensor,
    spikes: Tensor,
    current: Tensor,
    *,
    weighted_count: Tensor,
    count: Tensor,
    constants: tuple[float, float, float],
) -> Tensor:
    """Spikes (B, *N) of the next step; potentials and counts are changed in place.

    v <- leak (v - r s) + current;  s <- 1 where v >= v_threshold;  weighted_count <- leak weighted_count + s.

    Parameters
    ----------
    v, spikes, current : (B, *N) contiguous but for `current`, of one type: potential, last spikes, input current.
    weighted_count, count : (B, *N); one tensor if the leak is 1.
    constants : v_threshold, reset_amount r and leak.
    """
    fired = torch.empty_like(v)
    arrays = (v, spikes, current.contiguous(), weighted_count, count, fired)
    flat = tuple(array.view(-1).numpy() for array in arrays)
    _advance(flat, tuple(flat[0].dtype.type(value) for value in constants), weighted_count is not count)
    return fired


@numba.njit(cache=True, nogil=True)
def _advance(arrays: tuple[Array, ...], constants: tuple[Any, ...], leaky: bool) -> None:
    v, spikes, current, weighted_count, count, fired = arrays
    v_threshold, reset_amount, leak = constants
    for i in range(v.size):
        v[i] = leak * (v[i] - reset_amount * spikes[i]) + current[i]
        fired[i] = v[i] >= v_threshold
        weighted_count[i] = leak * weighted_count[i] + fired[i]
        if leaky:
            count[i] += fired[i]


@numba.njit(cache=True, nogil=True)
def _nonzero(values: Array) -> int:
    """As np.count_nonzero, several times faster on floats."""
    count = 0
    for value in values.flat:
        count += value != 0
    return count


@numba.njit(cache=True, nogil=True)
def _add_rows(values: Array, rows: Array, product: Array) -> None:
    """Adds value * row of each nonzero value to its sample's product, four rows in one pass over it."""
    sources = np.empty(values.shape[1], np.int64)
    for sample in range(values.shape[0]):
        total = product[sample]
        count = 0
        for source in range(values.shape[1]):
            sources[count] = source
            count += values[sample, source] != 0
        fours = count - count % 4
        for k in range(0, fours, 4):
            a, b, c, d = sources[k], sources[k + 1], sources[k + 2], sources[k + 3]
            w, x, y, z = values[sample, a], values[sample, b], values[sample, c], values[sample, d]
            row_a, row_b, row_c, row_d = rows[a], rows[b], rows[c], rows[d]
            for t in range(total.size):
                total[t] += w * row_a[t] + x * row_b[t] + y * row_c[t] + z * row_d[t]
        for k in range(fours, count):
            w, row_a = values[sample, sources[k]], rows[sources[k]]
            for t in range(total.size):
                total[t] += w * row_a[t]
