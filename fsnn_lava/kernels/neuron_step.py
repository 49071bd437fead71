"""One step of one population, compiled: leak, reset, integrate, threshold, in a single pass over memory.

Both engines of the simulator use the same law, for a batch (`batch_step`, which also counts) or for one sample
(`advance`, in `simulator_loop`). Nothing is allocated in them. They need one core: a step takes a quarter of a
nanosecond per neuron, a few percent of the sums that feed it; of potentials in 64 bits it takes three times as long on
a processor without AVX-512, which cannot multiply these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.extending import overload

from fsnn_lava.hardware import DECAY_UNITY, Array
from fsnn_lava.kernels.compile import compiled

_int32: Any = numba.int32
"""For numba alone: a sum or product of two such numbers would have 64 bits."""


def law(before: Any, current: Any, kept: Any, reset: Any, threshold: Any) -> tuple[Any, bool]:
    """Return the potential after a step, and whether the neuron fires, by `integer_law` or `float_law`.

    Compiled functions alone call it.
    """
    raise NotImplementedError("only compiled functions can call this one")


@overload(law, strict=False)  # strict: it would compare the annotations too
def _law_by_type(before: Any, current: Any, kept: Any, reset: Any, threshold: Any) -> Callable[..., Any]:
    if before == numba.types.int32:
        return narrow_law
    return integer_law if isinstance(before, numba.types.Integer) else float_law


def integer_law(before: int, current: int, kept: int, reset: int, threshold: int) -> tuple[int, bool]:
    """Leak, reset and integrate in units of state (the current: in units of 64 of them); fire above the threshold."""
    # The decay rounds towards zero, as hardware does: a shift of the magnitude, then its sign again.
    after = (abs(before) * kept) >> 12
    if before < 0:
        after = -after
    # The spike is recovered from the potential, which was not reset yet: no array of spikes is read.
    if before > threshold:
        after -= reset
    after += 64 * current
    return after, after > threshold


def narrow_law(before: int, current: int, kept: int, reset: int, threshold: int) -> tuple[int, bool]:
    """The same where nothing leaves 32 bits: of a potential within 24 bits, and a current for which that is known."""
    after = before if kept == DECAY_UNITY else _kept_of(before, kept)
    if before > threshold:
        after -= reset
    after = _int32(after + 64 * current)
    return after, after > threshold


@compiled
def _kept_of(before: int, kept: int) -> int:
    """Return the potential after the decay."""
    # The magnitude in two halves of 12 bits, so that no product leaves 32 bits: more of those fit into a vector, and
    # not every processor multiplies wider ones. The upper half times `kept` has no bits that the shift would cut off.
    magnitude = _int32(abs(before))
    upper = _int32(_int32(magnitude >> 12) * kept)
    lower = _int32(_int32(magnitude & 4095) * kept) >> 12
    after = upper + lower
    kept_of: int = _int32(-after if before < 0 else after)
    return kept_of


def float_law(before: float, current: float, leak: float, reset: float, threshold: float) -> tuple[float, bool]:
    """Leak, reset and integrate in the unit of the threshold, v = leak (v - reset s) + I; fire where v >= threshold."""
    # As above: the spike of the step before is recovered from its potential.
    if before >= threshold:
        before -= reset
    after = leak * before + current
    return after, after >= threshold


@compiled
def batch_step(
    potential: Array,
    drive: Array,
    arriving: Array,
    spikes: Array,
    counts: Array,
    rates: Array,
    share: float,
    neuron: Array,
) -> Any:
    """Advance a batch by one step, and return the largest |potential|.

    Parameters
    ----------
    potential : (B, N) int64 in units of state, or float64 in the unit of the threshold; updated.
    drive, arriving : (B, N) constant and spike-driven current, integers in units of 64 states, or float64.
    spikes : (B, N) 0/1; written.
    counts : (B, N) integer spikes so far; updated.
    rates : (B, N) float64 weighted rate so far; updated, unless ``share`` is 0.
    share : weight of this step in the firing rate; 0 where the rate is counts / T.
    neuron : (3,) int64: 4096 - decay, 128 rho and 64 (2 V - 1); or float64: leak, reset, threshold.
    """
    kept, reset, threshold = neuron[0], neuron[1], neuron[2]
    peak = potential.dtype.type(0)
    # All that a neuron does in one pass over memory, which bounds the speed; the largest potential is found on the way.
    for b in range(potential.shape[0]):
        for n in range(potential.shape[1]):
            current = drive[b, n] + drive.dtype.type(arriving[b, n])
            after, fired = law(potential[b, n], current, kept, reset, threshold)
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
def batch_steps(
    first: int,
    end: int,
    arriving: Array,
    spikes: Array,
    potential: Array,
    drive: Array,
    counts: Array,
    rates: Array,
    shares: Array,
    neuron: Array,
) -> Any:
    """Advance some of a batch by several steps whose currents are known, and return their largest |potential|.

    Parameters
    ----------
    first, end : samples. Parts of the arrays would not be known to be contiguous, and be read number by number.
    arriving, spikes : (steps, B, N) spike-driven current, and 0/1, which is written.
    potential, drive, counts, rates, neuron : as of `batch_step`.
    shares : (steps,) weight of each step in the firing rate; empty where the rate is counts / T.
    """
    kept, reset, threshold = neuron[0], neuron[1], neuron[2]
    peak = potential.dtype.type(0)
    # A sample's potentials stay in the cache while it goes through the steps; only currents and spikes are moved.
    for b in range(first, end):
        for t in range(len(arriving)):
            for n in range(potential.shape[1]):
                current = drive[b, n] + drive.dtype.type(arriving[t, b, n])
                after, fired = law(potential[b, n], current, kept, reset, threshold)
                potential[b, n] = after
                spikes[t, b, n] = fired
                counts[b, n] += fired
                peak = max(peak, abs(after))
            if len(shares) > 0:
                for n in range(potential.shape[1]):
                    rates[b, n] += shares[t] * spikes[t, b, n]
    return peak


@compiled
def float_batch_steps(
    first: int,
    end: int,
    upper: Array,
    lower: Array,
    spikes: Array,
    potential: Array,
    counts: Array,
    rates: Array,
    shares: Array,
    neuron: Array,
) -> None:
    """Advance some of a batch by several steps of `float_law` whose currents are known, in floats of one type.

    Parameters
    ----------
    first, end : samples, as above.
    upper, lower : (steps, B, N) the current is their sum; one step stands for all where it is the only one.
    spikes : (steps, B, N) 0/1; written.
    potential : (B, N) in the unit of the threshold; updated.
    counts : (B, N) integer spikes so far; updated.
    rates : (B, N) float64 weighted count so far; updated, unless there are no shares.
    shares : (steps,) weight of each step's spikes in it, or empty.
    neuron : (3,) leak, reset, threshold, in the type of the potentials.
    """
    leak, reset, threshold = neuron[0], neuron[1], neuron[2]
    # Unlike `batch_steps` it looks for no largest potential: of floats, whose order matters for NaN, that would be a
    # loop over single numbers.
    for b in range(first, end):
        for t in range(len(spikes)):
            u, w = t % len(upper), t % len(lower)
            for n in range(potential.shape[1]):
                after, fired = law(potential[b, n], upper[u, b, n] + lower[w, b, n], leak, reset, threshold)
                potential[b, n] = after
                spikes[t, b, n] = fired
                counts[b, n] += fired
            if len(shares) > 0:
                for n in range(potential.shape[1]):
                    rates[b, n] += shares[t] * spikes[t, b, n]


def advance(potential: Array, current: Array, neuron: Array, fired: Array) -> float:
    """Advance one sample's neurons by a step, by the law for the type of the numbers; return the largest |potential|.

    Compiled functions alone call it.

    Parameters
    ----------
    potential : (N,) int64 in units of state, int32 as `narrow_law` says, or float64; updated.
    current : (N,) all that arrives; int32 in units of 64 states, or float64.
    neuron : (3,), as above, in the type of the potentials.
    fired : (N,) uint8 0/1; written.
    """
    raise NotImplementedError("only compiled functions can call this one")


@overload(advance, strict=False)
def _advance_by_type(potential: Any, current: Any, neuron: Any, fired: Any) -> Callable[..., Any]:
    return _advance_integers if isinstance(potential.dtype, numba.types.Integer) else _advance_floats


def _advance_integers(potential: Array, current: Array, neuron: Array, fired: Array) -> int:
    kept, reset, threshold = neuron[0], neuron[1], neuron[2]
    peak: int = potential.dtype.type(0)
    # One pass over memory; spikes are bytes, so that it moves little.
    for n in range(len(potential)):
        after, fired[n] = law(potential[n], current[n], kept, reset, threshold)
        potential[n] = after
        peak = max(peak, potential.dtype.type(abs(after)))
    return peak


def _advance_floats(potential: Array, current: Array, neuron: Array, fired: Array) -> float:
    leak, reset, threshold = neuron[0], neuron[1], neuron[2]
    # The same pass without the largest potential: floats have no range to leave.
    for n in range(len(potential)):
        potential[n], fired[n] = law(potential[n], current[n], leak, reset, threshold)
    return 0.0
