"""One step of one population, compiled: leak, reset, integrate, threshold, in a single pass over memory.

Both engines use the same law, for a batch (`integer_step`, `float_step`, which also count) or for one sample
(`advance`). Nothing is allocated in them. They need one core: a step takes a quarter of a nanosecond per neuron, a few
percent of the sums that feed it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from fsnn_lava.hardware import Array
from fsnn_lava.kernels.compile import compiled


@compiled
def integer_law(before: int, current: int, kept: int, reset: int, threshold: int) -> int:
    """Return the potential after a step, in units of state; the current is in units of 64 of them."""
    # The decay rounds towards zero, as hardware does: a shift of the magnitude, then its sign again.
    after = (abs(before) * kept) >> 12
    if before < 0:
        after = -after
    if before > threshold:  # it fired in the previous step
        after -= reset
    return after + 64 * current


@compiled
def float_law(before: float, current: float, leak: float, reset: float, threshold: float) -> float:
    """Return the potential after a step: leak (v - reset s) + current."""
    # The spike is recovered from the potential, which was not reset yet: no array of spikes is read.
    if before >= threshold:  # it fired in the previous step
        before -= reset
    return leak * before + current


@compiled
def integer_step(
    potential: Array,
    drive: Array,
    arriving: Array,
    spikes: Array,
    counts: Array,
    rates: Array,
    share: float,
    kept: int,
    reset: int,
    threshold: int,
) -> int:
    """Advance a batch by one integer step, and return the largest |potential|; everything is in units of state.

    Parameters
    ----------
    potential : (B, N) int64, in units of state; updated.
    drive, arriving : (B, N) constant and spike-driven current, integers, in units of 64 states.
    spikes : (B, N) 0/1; written.
    counts : (B, N) integer spikes so far; updated.
    rates : (B, N) float64 weighted rate so far; updated, unless ``share`` is 0.
    share : weight of this step in the firing rate; 0 where the rate is counts / T.
    kept : 4096 - decay.
    reset : 128 rho.
    threshold : 64 (2 V - 1); a neuron fires above it.
    """
    peak = 0
    # All that a neuron does in one pass over memory, which bounds the speed; the largest potential is found on the way.
    for b in range(potential.shape[0]):
        for n in range(potential.shape[1]):
            current = drive[b, n] + np.int64(arriving[b, n])
            after = integer_law(potential[b, n], current, kept, reset, threshold)
            fired = after > threshold
            potential[b, n] = after
            spikes[b, n] = fired
            counts[b, n] += fired
            peak = max(peak, abs(after))
        # A second loop, while the row is in the cache: IF neurons, whose rate is their count, pay nothing for it.
        if share > 0.0:
            for n in range(potential.shape[1]):
                rates[b, n] += share * spikes[b, n]
    return peak


@compiled
def float_step(
    potential: Array,
    drive: Array,
    arriving: Array,
    spikes: Array,
    counts: Array,
    rates: Array,
    share: float,
    leak: float,
    reset: float,
    threshold: float,
) -> float:
    """Advance a batch by v = leak (v - reset s) + I, s = v >= threshold, and return the largest |potential|.

    Parameters
    ----------
    potential, drive, arriving : (B, N) float64, in the unit of the threshold.
    spikes, counts, rates, share : as in the integer step.
    """
    peak = 0.0
    # The same single pass as for integers.
    for b in range(potential.shape[0]):
        for n in range(potential.shape[1]):
            after = float_law(potential[b, n], drive[b, n] + arriving[b, n], leak, reset, threshold)
            fired = after >= threshold
            potential[b, n] = after
            spikes[b, n] = fired
            counts[b, n] += fired
            peak = max(peak, abs(after))
        # As for integers: the leaky neurons' weighted rate.
        if share > 0.0:
            for n in range(potential.shape[1]):
                rates[b, n] += share * spikes[b, n]
    return peak


def advance(potential: Array, current: Array, neuron: Array, fired: Array) -> float:
    """Advance one sample's neurons by a step, by the law for the type of the numbers; return the largest |potential|.

    Compiled functions alone call it.

    Parameters
    ----------
    potential : (N,) int64 in units of state, or float64; updated.
    current : (N,) all that arrives; int32 in units of 64 states, or float64.
    neuron : (3,) int64: kept, reset and threshold as above; or float64: leak, reset, threshold.
    fired : (N,) uint8 0/1; written.
    """
    raise NotImplementedError("only compiled functions can call this one")


@overload(advance, strict=False)  # strict: it would compare the annotations too
def _advance_by_type(potential: Any, current: Any, neuron: Any, fired: Any) -> Callable[..., Any]:
    return _advance_integers if isinstance(potential.dtype, numba.types.Integer) else _advance_floats


def _advance_integers(potential: Array, current: Array, neuron: Array, fired: Array) -> int:
    kept, reset, threshold = neuron[0], neuron[1], neuron[2]
    peak = 0
    # One pass over memory; spikes are bytes, so that it moves little.
    for n in range(len(potential)):
        after = integer_law(potential[n], current[n], kept, reset, threshold)
        potential[n] = after
        fired[n] = after > threshold
        peak = max(peak, abs(after))
    return peak


def _advance_floats(potential: Array, current: Array, neuron: Array, fired: Array) -> float:
    leak, reset, threshold = neuron[0], neuron[1], neuron[2]
    # The same pass without the largest potential: floats have no range to leave.
    for n in range(len(potential)):
        after = float_law(potential[n], current[n], leak, reset, threshold)
        potential[n] = after
        fired[n] = after >= threshold
    return 0.0
