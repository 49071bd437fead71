"""Weights in floats as whole numbers, with what they add up to, in one pass over memory."""

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
