"""One step of one population, compiled: leak, reset, integrate, threshold, count, in a single pass over memory.

The functions are plain Python; `compiled` turns them into machine code on first use. Nothing is allocated in them.
They need one core: a step takes a quarter of a nanosecond per neuron, a few percent of the sums that feed it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from fsnn_lava.ir import Array


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, kept on disk for the next process where some folder is writable."""
    njit: Any = numba.njit
    machine_code: Callable[..., Any]
    try:
        machine_code = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # Numba found no folder for its cache: compile once per process instead
        machine_code = njit(nogil=True)(function)
    return machine_code


def _integer_step(
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
    """Largest |potential| after one integer step of a batch; everything is in units of state.

    Parameters
    ----------
    potential : (B, N) int64, in units of state; updated.
    drive, arriving : (B, N) constant and spike-driven current, integers, in units of 64 states.
    spikes : (B, N) 0/1; written.
    counts : (B, N) int32 spikes so far; updated.
    rates : (B, N) float64 weighted rate so far; updated, unless ``share`` is 0.
    share : weight of this step in the firing rate; 0 where the rate is counts / T.
    kept : 4096 - decay.
    reset : 128 rho.
    threshold : 64 (2 V - 1); a neuron fires above it.
    """
    peak = 0
    for b in range(potential.shape[0]):
        for n in range(potential.shape[1]):
            before = potential[b, n]
            after = (abs(before) * kept) >> 12
            if before < 0:
                after = -after
            if before > threshold:  # it fired in the previous step
                after -= reset
            after += 64 * (drive[b, n] + np.int64(arriving[b, n]))
            fired = after > threshold
            potential[b, n] = after
            spikes[b, n] = fired
            counts[b, n] += fired
            peak = max(peak, abs(after))
        if share > 0.0:
            for n in range(potential.shape[1]):
                rates[b, n] += share * spikes[b, n]
    return peak


def _float_step(
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
    """Largest |potential| after one float step of a batch: v = leak (v - reset s) + I, s = v >= threshold.

    Parameters
    ----------
    potential, drive, arriving : (B, N) float64, in the unit of the threshold.
    spikes, counts, rates, share : as in the integer step.
    """
    peak = 0.0
    for b in range(potential.shape[0]):
        for n in range(potential.shape[1]):
            before = potential[b, n]
            if before >= threshold:  # it fired in the previous step
                before -= reset
            after = leak * before + (drive[b, n] + arriving[b, n])
            fired = after >= threshold
            potential[b, n] = after
            spikes[b, n] = fired
            counts[b, n] += fired
            peak = max(peak, abs(after))
        if share > 0.0:
            for n in range(potential.shape[1]):
                rates[b, n] += share * spikes[b, n]
    return peak


integer_step = compiled(_integer_step)
float_step = compiled(_float_step)
