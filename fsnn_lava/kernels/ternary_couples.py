"""The compiled loop of SPIDE's backward phase: ternary couples that send signed spikes backwards through a network.

About one couple in a hundred fires in a step, so nothing is computed for the others but the test of their potential: a
spike adds its row of weights to the potentials that it reaches (`float_events.add_channels`). These lie in buffers
whose margins take what falls off the edge (see `convolution_reach`), so that no current is ever kept or copied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fsnn_lava.hardware import Array
from fsnn_lava.kernels.compile import compiled
from fsnn_lava.kernels.float_events import add_channels

V_BACK = 0.5
"""Threshold of a couple: it fires +1 at q >= V_BACK, -1 at q <= -V_BACK; a spike takes 2 V_BACK off |q|."""


class Couples(NamedTuple):
    """Sizes of one population of couples, where its numbers lie, and the connection that takes its spikes on.

    Parameters
    ----------
    channels, height, width : of the population.
    top, left, buffer_width, buffer_size : zeros' margin above and left of its potentials in their buffer, the buffer's
        columns, and its numbers in all.
    first_q, first_neuron : where its buffer, and its neurons among all neurons, begin.
    target : population that its spikes go to; -1: none.
    down, up : stride of a convolution towards it; stride of a transposed one (1: not transposed).
    target_width, target_channels : columns and channels of the target's buffer.
    row, first_weight, first_start : numbers of one channel's weights; where the weights, and this connection's entries
        in `starts`, begin.
    """

    channels: int
    height: int
    width: int
    top: int
    left: int
    buffer_width: int
    buffer_size: int
    first_q: int
    first_neuron: int
    target: int
    down: int
    up: int
    target_width: int
    target_channels: int
    row: int
    first_weight: int
    first_start: int


COUPLES = np.dtype([(name, np.int64) for name in Couples._fields])
"""Type of such rows in an array, whose fields the kernel reads by name."""


@compiled
def _any_fires(q: Array) -> bool:
    """Tell whether any of these potentials has reached the threshold."""
    # It counts them all instead of stopping at the first: without a branch the loop is vectorized.
    count, threshold = np.int32(0), q.dtype.type(V_BACK)  # as wide as a float32: so the compiler takes many at a time
    for i in range(len(q)):
        count = np.int32(count + np.int32(abs(q[i]) >= threshold))
    return bool(count > 0)


@compiled
def _fire(q: Array, spikes: Array) -> None:
    """Write the spikes of these couples, +1, -1 or 0 each, and subtract them from the potentials."""
    # Two selects instead of branches; threshold 1/2 and reset 1 make the spike itself what is subtracted.
    one, zero, threshold = q.dtype.type(1), q.dtype.type(0), q.dtype.type(V_BACK)
    for i in range(len(q)):
        spike = one if q[i] >= threshold else (-one if q[i] <= -threshold else zero)
        q[i] -= spike
        spikes[i] = spike


@compiled
def _send(g: Any, place: Any, spikes: Array, state: Any, maps: Any, into: Array) -> None:
    """Count the spikes of one position's channels, and add their weights to the potentials that they reach."""
    y, x, first, weight = place
    active, values, factor, weighted, fired, recorded = state
    # Statistics and the list of events in one loop over the channels, of which few enter its body. A spike whose factor
    # is zero (a saturated or dropped neuron) is counted, but not sent.
    count = 0
    for c in range(g.channels):
        spike = spikes[c]
        if spike != 0:
            weighted[first + c] += weight * spike
            fired[first + c] += 1
            if recorded.size:
                recorded[first + c] = spike
            values[c] = spike * factor[first + c]
            active[count] = c
            count += values[c] != 0
    # The same sums as in the forward phase, straight into the target's potentials.
    if count and g.target >= 0:
        corner = (y // g.down) * g.up * g.target_width + (x // g.down) * g.up
        kind = g.first_start + (y % g.down) * g.down + x % g.down
        add_channels(values, active[:count], (g.first_weight, g.row, kind), maps, into[corner * g.target_channels :])


@compiled
def _step(g: Any, q: Array, leak: Any, weight: Any, spikes: Array, state: Any, maps: Any, into: Array) -> None:
    """Advance a population by a step: its spikes leave, and the rest of the potentials leaks."""
    run = g.width * g.channels
    # Whole rows are tested first, then positions: about one couple in a hundred fires, so most tests end here.
    for y in range(g.height):
        at = ((y + g.top) * g.buffer_width + g.left) * g.channels
        row = q[at : at + run]
        if _any_fires(row):
            for x in range(g.width):
                here = row[x * g.channels : (x + 1) * g.channels]
                if _any_fires(here):
                    _fire(here, spikes)
                    place = (y, x, g.first_neuron + y * run + x * g.channels, weight)
                    _send(g, place, spikes, state, maps, into)
        # The row is still in the cache from the test.
        if leak != 1:
            for i in range(run):
                row[i] *= leak


@compiled
def _add_drive(g: Any, q: Array, drive: Array) -> None:
    """Add the drive, which has no margins, to the potentials."""
    run = g.width * g.channels
    # Row by row, each contiguous on both sides.
    for y in range(g.height):
        at = ((y + g.top) * g.buffer_width + g.left) * g.channels
        row, current = q[at : at + run], drive[y * run : (y + 1) * run]
        for i in range(run):
            row[i] += current[i]


@compiled
def run_couples(
    plan: Any, inputs: Any, rates: Any, recorded: Array, *, leak: Any, step_weights: Array, loop_delay: int
) -> None:
    """Run all steps of every sample, one sample after the other, so that its potentials stay in the cache.

    In each step the last population comes first. What the first population sends to the last arrives `loop_delay`
    steps later, in a ring of buffers.

    Parameters
    ----------
    plan : (populations, maps): `COUPLES` of each population, first population first, and the flat
        (weights, segments, starts) of the connections.
    inputs : (drive, factor): (B, N of the last population) added in every step; (B, all neurons) by what each spike is
        multiplied before it is sent.
    rates : (weighted, fired): (B, all neurons) sums of step weight times spike, zeros that are filled; (all neurons,)
        int64 numbers of spikes, added to.
    recorded : (T, B, all neurons) int8 zeros, filled; or (1, 1, 0) if spikes are not kept.
    leak : share of q that is kept, in the type of the potentials.
    step_weights : (T,) of each step's spikes in `weighted`.
    """
    populations, maps = plan
    drive, factor = inputs
    weighted, fired = rates
    # Potentials of all populations in one array, with margins, allocated once for all samples.
    last = len(populations) - 1
    end, deepest = 0, 0
    for p in range(last + 1):
        g = populations[p]
        end, deepest = max(end, g.first_q + g.buffer_size), max(deepest, g.channels)
    top = populations[last]
    q = np.empty(end, drive.dtype)
    ring = np.empty((loop_delay, top.buffer_size), drive.dtype)
    values, spikes, active = np.empty(deepest, q.dtype), np.empty(deepest, q.dtype), np.empty(deepest + 1, np.int64)
    for sample in range(len(weighted)):
        q[:], ring[:] = 0, 0
        for t in range(len(step_weights)):
            kept = recorded[t, sample] if recorded.size else recorded[0, 0]
            state = (active, values, factor[sample], weighted[sample], fired, kept)
            returning = ring[t % loop_delay]
            # Last population first: what it sends arrives in the next one within the same step.
            for p in range(last, -1, -1):
                g = populations[p]
                own = q[g.first_q : g.first_q + g.buffer_size]
                if p == last:
                    _add_drive(g, own, drive[sample])
                    own += returning
                    returning[:] = 0
                # The first population's spikes go round: into the slot that the last one has just emptied.
                into = returning if p == 0 else q[populations[p - 1].first_q :]
                _step(g, own, leak, step_weights[t], spikes, state, maps, into)
