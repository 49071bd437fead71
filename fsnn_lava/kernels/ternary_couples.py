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
    """Sizes of one population of couples, and where its numbers lie.

    Parameters
    ----------
    channels, height, width : of the population.
    top, left, buffer_width, buffer_size : zeros' margin above and left of its potentials in their buffer, the buffer's
        columns, and its numbers in all.
    first_q, first_neuron : where its buffer, and its neurons among all neurons, begin.
    first_link, end_link : the links that its spikes leave by.
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
    first_link: int
    end_link: int


class Link(NamedTuple):
    """One transposed connection, by which spikes of one population reach the potentials of another.

    Parameters
    ----------
    target : population that it leads to.
    slots : buffers in which what it brings waits, one for each step of its delay; 0: it goes straight to the target's
        potentials.
    down, up : stride of a convolution; stride of a transposed one (1: not transposed).
    out_channels : channels of the target.
    top, left, buffer_width, buffer_size : of what it brings, as of `Couples`.
    row, first_weight, first_start : numbers of one channel's weights; where the weights, and its entries in `starts`,
        begin.
    first_factor, first_waiting : where the factors of its source, and its buffers among all that wait, begin.
    """

    target: int
    slots: int
    down: int
    up: int
    out_channels: int
    top: int
    left: int
    buffer_width: int
    buffer_size: int
    row: int
    first_weight: int
    first_start: int
    first_factor: int
    first_waiting: int


COUPLES, LINK = (np.dtype([(name, np.int64) for name in row._fields]) for row in (Couples, Link))
"""Types of such rows in arrays, whose fields the kernel reads by name."""


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
def _step(g: Any, own: Array, step: Any, spikes: Array, found: Any, statistics: Any) -> int:
    """Advance a population by a step: note who fires, and let the rest of the potentials leak.

    Returns the number of positions where some couple has fired; ``found`` then holds each one's row and column, where
    its spikes begin in the list of all, and of each spike its channel and sign.
    """
    leak, weight = step
    rows, columns, begins, channels, signs = found
    weighted, fired, recorded = statistics
    run, positions, count = g.width * g.channels, 0, 0
    # Whole rows are tested first, then positions: about one couple in a hundred fires, so most tests end here.
    for y in range(g.height):
        at = ((y + g.top) * g.buffer_width + g.left) * g.channels
        row = own[at : at + run]
        if _any_fires(row):
            for x in range(g.width):
                here = row[x * g.channels : (x + 1) * g.channels]
                if _any_fires(here):
                    _fire(here, spikes)
                    rows[positions], columns[positions], begins[positions] = y, x, count
                    positions += 1
                    first = g.first_neuron + y * run + x * g.channels
                    for c in range(g.channels):
                        spike = spikes[c]
                        if spike != 0:
                            weighted[first + c] += weight * spike
                            fired[first + c] += 1
                            if recorded.size:
                                recorded[first + c] = spike
                            channels[count], signs[count] = c, spike
                            count += 1
        # The row is still in the cache from the test.
        if leak != 1:
            for i in range(run):
                row[i] *= leak
    begins[positions] = count
    return positions


@compiled
def _send(g: Any, link: Any, found: Any, positions: int, factor: Array, scratch: Any, maps: Any, into: Array) -> None:
    """Add the weights of the spikes of all positions to the potentials that they reach over one link."""
    rows, columns, begins, channels, signs = found
    active, values = scratch
    for k in range(positions):
        y, x, first = rows[k], columns[k], (rows[k] * g.width + columns[k]) * g.channels
        # A spike whose factor is zero (a saturated or dropped neuron) is not sent.
        count = 0
        for i in range(begins[k], begins[k + 1]):
            c = channels[i]
            values[c] = signs[i] * factor[first + c]
            active[count] = c
            count += values[c] != 0
        # The same sums as in the forward phase, straight into the target's potentials or where they wait for it.
        if count:
            corner = ((y // link.down) * link.up * link.buffer_width + (x // link.down) * link.up) * link.out_channels
            kind = link.first_start + (y % link.down) * link.down + x % link.down
            add_channels(values, active[:count], (link.first_weight, link.row, kind), maps, into[corner:])


@compiled
def _add_rows(g: Any, own: Array, top: int, left: int, columns: int, current: Array) -> None:
    """Add to the potentials what lies in a buffer with other margins."""
    run = g.width * g.channels
    # Row by row, each contiguous on both sides.
    for y in range(g.height):
        at = ((y + g.top) * g.buffer_width + g.left) * g.channels
        begin = ((y + top) * columns + left) * g.channels
        row, more = own[at : at + run], current[begin : begin + run]
        for i in range(run):
            row[i] += more[i]


@compiled
def run_couples(plan: Any, inputs: Any, rates: Any, recorded: Array, *, leaks: Array, step_weights: Array) -> None:
    """Run all steps of every sample, one sample after the other, so that its potentials stay in the cache.

    In each step the last population comes first. What a link with a delay brings waits in a ring of buffers.

    Parameters
    ----------
    plan : (populations, links, maps): `COUPLES` of each population, first population first; `LINK` of each link, those
        that leave one population together; and the flat (weights, segments, starts) of the connections.
    inputs : (drive, factor): (B, N of the last population) added in every step; (B, sum of N) by what each spike is
        multiplied before it is sent, of each link's source.
    rates : (weighted, fired): (B, all neurons) sums of step weight times spike, zeros that are filled; (all neurons,)
        int64 numbers of spikes, added to.
    recorded : (T, B, all neurons) int8 zeros, filled; or (1, 1, 0) if spikes are not kept.
    leaks : (P,) share of q that is kept, in the type of the potentials.
    step_weights : (P, T) of each step's spikes in `weighted`.
    """
    populations, links, maps = plan
    drive, factor = inputs
    weighted, fired = rates
    # Potentials of all populations in one array, with margins, allocated once for all samples; so are those that wait.
    last = len(populations) - 1
    end, deepest, held, widest, largest = 0, 0, 0, 0, 0
    for p in range(last + 1):
        g = populations[p]
        end, deepest = max(end, g.first_q + g.buffer_size), max(deepest, g.channels)
        widest, largest = max(widest, g.height * g.width), max(largest, g.channels * g.height * g.width)
    for number in range(len(links)):
        link = links[number]
        held = max(held, link.first_waiting + link.slots * link.buffer_size)
    q, waiting = np.empty(end, drive.dtype), np.empty(held, drive.dtype)
    spikes, scratch = np.empty(deepest, q.dtype), (np.empty(deepest + 1, np.int64), np.empty(deepest, q.dtype))
    found = (
        np.empty(widest, np.int64),
        np.empty(widest, np.int64),
        np.empty(widest + 1, np.int64),
        np.empty(largest, np.int64),
        np.empty(largest, q.dtype),
    )
    for sample in range(len(weighted)):
        q[:], waiting[:] = 0, 0
        for t in range(step_weights.shape[1]):
            kept = recorded[t, sample] if recorded.size else recorded[0, 0]
            statistics = (weighted[sample], fired, kept)
            # Last population first: what it sends arrives in earlier ones within the same step.
            for p in range(last, -1, -1):
                g = populations[p]
                own = q[g.first_q : g.first_q + g.buffer_size]
                if p == last:
                    _add_rows(g, own, 0, 0, g.width, drive[sample])
                for number in range(len(links)):
                    link = links[number]
                    if link.target == p and link.slots:
                        # Emptied, so that what the source sends in this step finds its place: its turn comes later.
                        begin = link.first_waiting + t % link.slots * link.buffer_size
                        brought = waiting[begin : begin + link.buffer_size]
                        if link.buffer_size == g.buffer_size and link.buffer_width == g.buffer_width:
                            own += brought
                        else:
                            _add_rows(g, own, link.top, link.left, link.buffer_width, brought)
                        brought[:] = 0
                positions = _step(g, own, (leaks[p], step_weights[p, t]), spikes, found, statistics)
                for number in range(g.first_link, g.end_link):
                    link = links[number]
                    if link.slots:
                        into = waiting[link.first_waiting + t % link.slots * link.buffer_size :]
                    else:
                        into = q[populations[link.target].first_q :]
                    _send(g, link, found, positions, factor[sample, link.first_factor :], scratch, maps, into)
