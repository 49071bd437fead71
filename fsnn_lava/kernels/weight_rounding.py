"""Weights in floats as whole numbers: in one pass over memory, or each making up for the errors of those before."""

from __future__ import annotations

import numpy as np

from fsnn_lava.hardware import Array
from fsnn_lava.kernels.compile import compiled


@compiled
def round_rows(
    weight: Array,
    factor: Array,
    step: Array,
    offset: Array,
    shrunk: Array,
    limits: Array,
    starts: Array,
    which: Array,
    mantissa: Array,
    value: Array,
    excess: Array,
    sums: Array,
) -> None:
    """Round (weight * factor + offset) * shrunk to whole numbers within limits.

    Parameters
    ----------
    weight, offset : (R, n) in floats of one type, which the next three have too.
    factor, step : (n,) steps of the mantissa in a unit of the weight, and the weight that one step is.
    shrunk : (R,) factor of each row.
    limits : (2,) smallest and largest whole number.
    starts : (P + 1,) int64: first column of each phase, and the end; a target meets the columns of one phase alone.
    which : int64, the rows that are rounded; nothing is written of the others.
    mantissa : (R, n) of an integer type; written.
    value : (R, n) floats, what the mantissas stand for; written.
    excess : (R, n) int8, 1 where a number was cut to the largest, -1 to the smallest, else 0; written.
    sums : (R, P, 2) int64: of the negative and of the positive mantissas of each phase; written.
    """
    # A training in integers rounds all of its weights in every iteration: one pass in vectors, a row at a time, whose
    # sums are taken while it is in the cache. In torch each of these steps would be a pass of its own.
    low, high = limits[0], limits[1]
    for r in which:
        row, moved, into, dequantized, cut_at = weight[r], offset[r], mantissa[r], value[r], excess[r]
        smaller = shrunk[r]
        for j in range(len(row)):
            whole = np.rint((row[j] * factor[j] + moved[j]) * smaller)
            cut = min(max(whole, low), high)
            into[j] = np.int32(cut)
            dequantized[j] = cut * step[j]
            cut_at[j] = np.int8(whole > high) - np.int8(whole < low)
        for p in range(len(starts) - 1):
            negative, positive = np.int32(0), np.int32(0)
            for j in range(starts[p], starts[p + 1]):
                number = np.int32(into[j])
                negative += min(number, np.int32(0))
                positive += max(number, np.int32(0))
            sums[r, p, 0], sums[r, p, 1] = negative, positive


@compiled
def round_block(wanted: Array, exact: Array, factor: Array, limits: Array, errors: Array) -> None:
    """Round the weights of a block from the last to the first, each moving those that are still to come.

    Parameters
    ----------
    wanted : (n, R) float32, weights by rows of `exact`, moved already by those of later blocks; written.
    exact : (n, R) float32, the weights; one of 0 stays 0.
    factor : (n, n) float32: the error of weight k moves weight j by -factor[k, j] of it.
    limits : (2,) float32, smallest and largest whole number.
    errors : (n, R) float32, whole number - weight; written.
    """
    # A weight of all rows at a time, so that rows lie side by side in vectors, in strips that stay in the first cache.
    low, high = limits[0], limits[1]
    weights, rows = wanted.shape
    for first in range(0, rows, 64):
        last = min(first + 64, rows)
        for j in range(weights - 1, -1, -1):
            for r in range(first, last):
                whole = min(max(np.rint(wanted[j, r]), low), high)
                errors[j, r] = whole - exact[j, r] if exact[j, r] != 0 else np.float32(0)
            for i in range(j):
                share = factor[j, i]
                for r in range(first, last):
                    wanted[i, r] -= share * errors[j, r]
