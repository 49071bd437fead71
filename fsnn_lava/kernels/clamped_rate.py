"""The rate that a mean current gives, its gradient, and its slope, compiled: each in a single pass over memory.

In torch each of them is two to five passes, which bound the speed of a network whose products are fast. The arithmetic
is torch's, operation by operation, so that the bits are the same.
"""

from __future__ import annotations

from fsnn_lava.hardware import Array
from fsnn_lava.kernels.compile import compiled


@compiled
def clamped_rates(current: Array, reset: float, rates: Array) -> None:
    """Write clamp(current / reset, 0, 1) into rates; all (n,), of one type."""
    for i in range(len(current)):
        rate = current[i] / reset
        # Not min and max: what is no number stays so.
        if rate < 0:
            rate = current.dtype.type(0)
        elif rate > 1:
            rate = current.dtype.type(1)
        rates[i] = rate


@compiled
def clamped_rates_gradient(gradient: Array, current: Array, reset: float, to_current: Array) -> None:
    """Write the gradient to the current, which a rate of exactly 0 or 1 lets through; all (n,), of one type."""
    for i in range(len(current)):
        rate = current[i] / reset
        inside = (rate >= 0) & (rate <= 1)
        to_current[i] = (gradient[i] if inside else current.dtype.type(0)) / reset


@compiled
def rate_slopes(rates: Array, reset: float, slopes: Array) -> None:
    """Write 1 / reset where a rate is strictly between 0 and 1, and 0 elsewhere; all (n,), of one type."""
    for i in range(len(rates)):
        inside = (rates[i] > 0) & (rates[i] < 1)
        slopes[i] = rates.dtype.type(inside) / reset
