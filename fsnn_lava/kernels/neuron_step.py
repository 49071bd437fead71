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
import numpy as np
from numba.extending import overload

from fsnn_lava.hardware import DECAY_UNITY, Array, IntegerNeuron, Neuron
from fsnn_lava.kernels.compile import compiled

_int32: Any = numba.int32
"""For numba alone: a sum or product of two such numbers would have 64 bits."""


NEURON_NUMBERS = 5
"""Numbers of a neuron, in the type of its potentials, as `neuron_numbers` gives them."""


def neuron_numbers(neuron: Neuron) -> Array:
    """(NEURON_NUMBERS,) int64 or float64: leak, reset, threshold, what remains after a spike, memory of the current.

    Integers: 4096 - decay, 128 rho, 64 (2 V - 1), the mask -1, 4096 - current_decay. Floats: leak, reset amount,
    threshold, the factor 1, current_leak. Where a spike resets to zero, mask or factor and reset are 0: so there is no
    branch, which would keep loops from being vectorized.
    """
    zero = neuron.reset == "zero"
    if isinstance(neuron, IntegerNeuron):
        kept, keeps = DECAY_UNITY - neuron.decay, DECAY_UNITY - neuron.current_decay
        reset = 0 if zero else neuron.reset_state
        return np.array([kept, reset, neuron.fires_above, 0 if zero else -1, keeps], np.int64)
    reset_amount = 0.0 if zero else neuron.reset_amount
    numbers = [neuron.leak, reset_amount, neuron.v_threshold, 0.0 if zero else 1.0, neuron.current_leak]
    return np.array(numbers, np.float64)


def law(before: Any, current: Any, kept: Any, reset: Any, threshold: Any, remains: Any) -> tuple[Any, bool]:
    """Return the potential after a step, and whether the neuron fires, by `integer_law` or `float_law`.

    Compiled functions alone call it. The current is in the unit of the potential: see `states_of`.
    """
    raise NotImplementedError("only compiled functions can call this one")


@overload(law, strict=False)  # strict: it would compare the annotations too
def _law_by_type(before: Any, current: Any, kept: Any, reset: Any, threshold: Any, remains: Any) -> Callable[..., Any]:
    if before == numba.types.int32:
        return narrow_law
    return integer_law if isinstance(before, numba.types.Integer) else float_law


def integer_law(before: int, current: int, kept: int, reset: int, threshold: int, remains: int) -> tuple[int, bool]:
    """Leak, reset and integrate in units of state; fire above the threshold."""
    # The decay rounds towards zero, as hardware does: a shift of the magnitude, then its sign again.
    after = (abs(before) * kept) >> 12
    if before < 0:
        after = -after
    # The spike is recovered from the potential, which was not reset yet: no array of spikes is read.
    if before > threshold:
        after = (after & remains) - reset
    after += current
    return after, after > threshold


def narrow_law(before: int, current: int, kept: int, reset: int, threshold: int, remains: int) -> tuple[int, bool]:
    """The same where nothing leaves 32 bits: of a potential within 24 bits, and a current for which that is known."""
    after = before if kept == DECAY_UNITY else _kept_of(before, kept)
    if before > threshold:
        after = (after & remains) - reset
    after = _int32(after + current)
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


def float_law(
    before: float, current: float, leak: float, reset: float, threshold: float, remains: float
) -> tuple[float, bool]:
    """Leak, reset and integrate in the unit of the threshold, v = leak (v - reset s) + I; fire where v >= threshold."""
    # As above: the spike of the step before is recovered from its potential.
    if before >= threshold:
        before = remains * before - reset
    after = leak * before + current
    return after, after >= threshold


def states_of(potential: Any, arriving: Any) -> Any:
    """Return what arrives, in the unit and the type of that potential: integers arrive in units of 64 states.

    Compiled functions alone call it.
    """
    raise NotImplementedError("only compiled functions can call this one")


@overload(states_of, strict=False)
def _states_by_type(potential: Any, arriving: Any) -> Callable[..., Any]:
    if potential == numba.types.int32:
        return lambda potential, arriving: _int32(64 * arriving)
    if isinstance(potential, numba.types.Integer):
        return lambda potential, arriving: 64 * arriving
    return lambda potential, arriving: arriving


def with_memory(current: Any, arriving: Any, kept: Any) -> Any:
    """Return the synaptic current after a step of its decay, and of what arrives, both in its own unit.

    Compiled functions alone call it.
    """
    raise NotImplementedError("only compiled functions can call this one")


@overload(with_memory, strict=False)
def _memory_by_type(current: Any, arriving: Any, kept: Any) -> Callable[..., Any]:
    if current == numba.types.int32:
        return lambda current, arriving, kept: _int32(_kept_of(current, kept) + arriving)
    if isinstance(current, numba.types.Integer):
        return _integer_memory
    return lambda current, arriving, kept: kept * current + arriving


def _integer_memory(current: int, arriving: int, kept: int) -> int:
    after = (abs(current) * kept) >> 12
    return (-after if current < 0 else after) + arriving


@compiled
def _keep(after: Any, fired: bool, b: int, n: int, potential: Array, spikes: Array, counts: Array) -> None:
    """Write down what a step of a neuron came to."""
    potential[b, n] = after
    spikes[b, n] = fired
    counts[b, n] += fired


@compiled
def batch_step(
    potential: Array,
    memory: Array,
    drive: Array,
    arriving: Array,
    spikes: Array,
    counts: Array,
    rates: Array,
    share: float,
    neuron: Array,
) -> Any:
    """Advance a batch by one step, and return the largest |potential|, or |current| where that has memory.

    Parameters
    ----------
    potential : (B, N) int64 in units of state, or float64 in the unit of the threshold; updated.
    memory : (B, N) synaptic current in the unit of the potential, updated; without numbers where it has no memory.
    drive, arriving : (B, N) constant and spike-driven current, integers in units of 64 states, or float64.
    spikes : (B, N) 0/1; written.
    counts : (B, N) integer spikes so far; updated.
    rates : (B, N) float64 weighted rate so far; updated, unless ``share`` is 0.
    share : weight of this step in the firing rate; 0 where the rate is counts / T.
    neuron : (NEURON_NUMBERS,) int64 or float64.
    """
    kept, reset, threshold, remains, keeps = neuron[0], neuron[1], neuron[2], neuron[3], neuron[4]
    peak = potential.dtype.type(0)
    # All that a neuron does in one pass over memory, which bounds the speed; the largest potential is found on the way.
    for b in range(potential.shape[0]):
        # A loop of its own for currents with memory: a condition within it would keep the other from being vectorized.
        if keeps > 0:
            for n in range(potential.shape[1]):
                current = states_of(potential[b, n], drive[b, n] + drive.dtype.type(arriving[b, n]))
                current = with_memory(memory[b, n], current, keeps)
                memory[b, n] = current
                after, fired = law(potential[b, n], current, kept, reset, threshold, remains)
                _keep(after, fired, b, n, potential, spikes, counts)
                peak = max(peak, abs(after), abs(current))
        else:
            for n in range(potential.shape[1]):
                current = states_of(potential[b, n], drive[b, n] + drive.dtype.type(arriving[b, n]))
                after, fired = law(potential[b, n], current, kept, reset, threshold, remains)
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

    Currents have no memory here.

    Parameters
    ----------
    first, end : samples. Parts of the arrays would not be known to be contiguous, and be read number by number.
    arriving, spikes : (steps, B, N) spike-driven current, and 0/1, which is written.
    potential, drive, counts, rates, neuron : as of `batch_step`.
    shares : (steps,) weight of each step in the firing rate; empty where the rate is counts / T.
    """
    kept, reset, threshold, remains = neuron[0], neuron[1], neuron[2], neuron[3]
    peak = potential.dtype.type(0)
    # A sample's potentials stay in the cache while it goes through the steps; only currents and spikes are moved.
    for b in range(first, end):
        for t in range(len(arriving)):
            for n in range(potential.shape[1]):
                current = states_of(potential[b, n], drive[b, n] + drive.dtype.type(arriving[t, b, n]))
                after, fired = law(potential[b, n], current, kept, reset, threshold, remains)
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
    neuron : the first four of `neuron_numbers`, in the type of the potentials.
    """
    leak, reset, threshold, remains = neuron[0], neuron[1], neuron[2], neuron[3]
    # Unlike `batch_steps` it looks for no largest potential: of floats, whose order matters for NaN, that would be a
    # loop over single numbers.
    for b in range(first, end):
        for t in range(len(spikes)):
            u, w = t % len(upper), t % len(lower)
            for n in range(potential.shape[1]):
                after, fired = law(potential[b, n], upper[u, b, n] + lower[w, b, n], leak, reset, threshold, remains)
                potential[b, n] = after
                spikes[t, b, n] = fired
                counts[b, n] += fired
            if len(shares) > 0:
                for n in range(potential.shape[1]):
                    rates[b, n] += shares[t] * spikes[t, b, n]


def advance(potential: Array, memory: Array, current: Array, neuron: Array, fired: Array) -> float:
    """Advance one sample's neurons by a step, by the law for the type of the numbers; return the largest |potential|.

    Or the largest |current|, if that is larger and has memory. Compiled functions alone call it.

    Parameters
    ----------
    potential : (N,) int64 in units of state, int32 as `narrow_law` says, or float64; updated.
    memory : (N,) synaptic current in the unit and the type of the potential, updated; without numbers where it has no
        memory.
    current : (N,) all that arrives; int32 in units of 64 states, or float64.
    neuron : (NEURON_NUMBERS,), in the type of the potentials.
    fired : (N,) uint8 0/1; written.
    """
    raise NotImplementedError("only compiled functions can call this one")


@overload(advance, strict=False)
def _advance_by_type(potential: Any, memory: Any, current: Any, neuron: Any, fired: Any) -> Callable[..., Any]:
    return _advance_integers if isinstance(potential.dtype, numba.types.Integer) else _advance_floats


def _advance_integers(potential: Array, memory: Array, current: Array, neuron: Array, fired: Array) -> int:
    kept, reset, threshold, remains, keeps = neuron[0], neuron[1], neuron[2], neuron[3], neuron[4]
    peak: int = potential.dtype.type(0)
    # One pass over memory; spikes are bytes, so that it moves little.
    for n in range(len(potential)):
        states = states_of(potential[n], current[n])
        if keeps > 0:
            states = with_memory(memory[n], states, keeps)
            memory[n] = states
            peak = max(peak, potential.dtype.type(abs(states)))
        after, fired[n] = law(potential[n], states, kept, reset, threshold, remains)
        potential[n] = after
        peak = max(peak, potential.dtype.type(abs(after)))
    return peak


def _advance_floats(potential: Array, memory: Array, current: Array, neuron: Array, fired: Array) -> float:
    leak, reset, threshold, remains, keeps = neuron[0], neuron[1], neuron[2], neuron[3], neuron[4]
    # The same pass without the largest potential: floats have no range to leave.
    for n in range(len(potential)):
        arriving = current[n]
        if keeps > 0:
            arriving = with_memory(memory[n], arriving, keeps)
            memory[n] = arriving
        potential[n], fired[n] = law(potential[n], arriving, leak, reset, threshold, remains)
    return 0.0
