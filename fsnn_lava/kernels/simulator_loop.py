"""All steps of a network, event by event, one sample after the other: what the event-driven engine compiles.

A sample goes through all its steps before the next one begins, so that its potentials stay in the cache. What a step
costs is its synaptic operations, and a few passes over the neurons. Populations of shape (C, H, W) lie as (H, W, C).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fsnn_lava.hardware import Array
from fsnn_lava.kernels.compile import compiled
from fsnn_lava.kernels.neuron_step import advance
from fsnn_lava.kernels.spike_sums import ScatterMap, gather, nonzero, scatter


class Tables(NamedTuple):
    """A network as flat arrays.

    Parameters
    ----------
    weights, segments, starts, corners, classes : of all connections' `ScatterMap`, one after the other.
    connections : (connections,) `ROW` of each, in the order of their targets.
    first_connection : (P + 1,) int64: first row of each population, and the end.
    first_neuron : (P + 1,) int64: first neuron of each population, and the end.
    ring : (1 + P, 3) int64 for the input and each population, as sources of spikes: where in the ring its lists begin,
        the places of one list, and how many steps are held.
    neurons : (P, NEURON_NUMBERS) as `advance` takes it, in the type of the potentials.
    constant : (neurons,) current that arrives in every step.
    graded : (G, 3) int64: target, delay and first column of each current that a sample's codes make.
    pulses : (Q, 3) int64: target, period and first number, in `pulse_currents`, of each current that arrives in one
        step of so many.
    pulse_currents : those of all, one after the other, in the type of `constant`.
    """

    weights: Array
    segments: Array
    starts: Array
    corners: Array
    classes: Array
    connections: Array
    first_connection: Array
    first_neuron: Array
    ring: Array
    neurons: Array
    constant: Array
    graded: Array
    pulses: Array
    pulse_currents: Array


class Row(NamedTuple):
    """One connection; ``*_at`` and ``*_end``: its part of the flat arrays.

    Parameters
    ----------
    source : 0 for the input, else population source - 1.
    delay : local, in steps.
    shift : power of two of the sums.
    wide : whether sums need the wider of the two buffers.
    channels ... size : as in `ScatterMap`.
    """

    weights_at: int
    weights_end: int
    segments_at: int
    segments_end: int
    starts_at: int
    starts_end: int
    positions_at: int
    positions_end: int
    source: int
    delay: int
    shift: int
    wide: int
    channels: int
    row: int
    rows: int
    run: int
    first: int
    pitch: int
    size: int


ROW = np.dtype([(name, np.int64) for name in Row._fields])
"""Type of such rows in an array, whose fields the kernels read by name."""


class Outcome(NamedTuple):
    """What a run fills in.

    Parameters
    ----------
    counts : (B, neurons) zeros of an integer type.
    rates : (B, columns) zeros in float64, for the populations whose rate is not their count over T.
    rate_column : (P,) int64: where each population's rates begin; -1: it has none.
    shares : (P, T) weight of each step in the rate.
    spikes : (B, T, columns) uint8 zeros, for the populations that are recorded.
    spike_column : (P,) int64: where each population's spikes begin; -1: it is not recorded.
    early : (B, columns) float64 zeros for the last population's rates, or counts where it has none, before the last
        `loop_delay` steps: those of the spikes that come back within the window. No columns where nobody asks for it.
    loop_delay : steps after which its spikes come back.
    peaks : (B, P) zeros in the type of the potentials, for the largest of what `advance` returns; stays so in floats.
    """

    counts: Array
    rates: Array
    rate_column: Array
    shares: Array
    spikes: Array
    spike_column: Array
    early: Array
    loop_delay: int
    peaks: Array


@compiled
def _list(tables: Any, lists: Array, source: int, step: int) -> Array:
    """Return the array for the places of that source's spikes in that step."""
    # A ring of as many steps as the longest delay behind the source: no list is ever moved.
    begin, places, held = tables.ring[source]
    at = begin + (step % held) * places
    return lists[at : at + places]


@compiled
def _add_codes(tables: Any, codes_current: Array, population: int, step: int, arriving: Array) -> None:
    """Add the current of the samples' codes, from each connection's delay on."""
    # Codes are the same in every step: their current was computed once per sample, as a dense product.
    for g in range(len(tables.graded)):
        target, delay, column = tables.graded[g]
        if target == population and step >= delay:
            arriving += codes_current[column : column + len(arriving)]


@compiled
def _add_pulses(tables: Any, population: int, step: int, arriving: Array) -> None:
    """Add the currents that arrive in one step of so many, if this is one."""
    for q in range(len(tables.pulses)):
        target, period, first = tables.pulses[q]
        if target == population and step % period == period // 2:
            arriving += tables.pulse_currents[first : first + len(arriving)]


@compiled
def _add_spikes(tables: Any, c: Any, spiking: Array, narrow: Array, wide: Array, arriving: Array) -> None:
    """Add the current of one connection's spikes."""
    # Views of the flat arrays, built in each step by a few instructions: one kernel serves a network of any depth.
    m = ScatterMap(
        tables.weights[c.weights_at : c.weights_end],
        tables.segments[c.segments_at : c.segments_end],
        tables.starts[c.starts_at : c.starts_end],
        tables.corners[c.positions_at : c.positions_end],
        tables.classes[c.positions_at : c.positions_end],
        c.channels,
        c.row,
        c.rows,
        c.run,
        c.first,
        c.pitch,
        c.size,
    )
    # Sums in 16 bits wherever they are proven to fit: twice as many fit into one vector instruction.
    if c.wide:
        wide[: c.size] = 0
        scatter(spiking, len(spiking), m, wide)
        gather(wide, m, c.shift, arriving)
    else:
        narrow[: c.size] = 0
        scatter(spiking, len(spiking), m, narrow)
        gather(narrow, m, c.shift, arriving)


@compiled
def _count(outcome: Any, spiking: Array, sample: int, step: int, population: int, first_neuron: int) -> None:
    """Count the spikes of one step of one population, and record what is asked for."""
    # Over the spikes alone, not over all neurons, in each of the three.
    for n in spiking:
        outcome.counts[sample, first_neuron + n] += 1
    rate, spike = outcome.rate_column[population], outcome.spike_column[population]
    if rate >= 0:
        for n in spiking:
            outcome.rates[sample, rate + n] += outcome.shares[population, step]
    if spike >= 0:
        for n in spiking:
            outcome.spikes[sample, step, spike + n] = 1
    # What comes back d steps later is what was counted d steps before the end.
    steps = outcome.shares.shape[1]
    if outcome.early.shape[1] and population == len(outcome.shares) - 1 and step + 1 == steps - outcome.loop_delay:
        if rate >= 0:
            outcome.early[sample] = outcome.rates[sample, rate : rate + outcome.early.shape[1]]
        else:
            outcome.early[sample] = outcome.counts[sample, first_neuron:]


@compiled
def _first_beyond(potential: Array, limit: int) -> int:
    """Return the first neuron whose potential is out of range, or -1."""
    # Only called once the largest potential is: the search costs the loop nothing.
    for n in range(len(potential)):
        if abs(potential[n]) > limit:
            return n
    return -1


@compiled
def run_samples(
    tables: Any, codes_current: Array, frames: Array, outcome: Any, narrow: Array, wide: Array, limit: int
) -> tuple[int, int, int, int, float]:
    """Run all steps of every sample, and stop where a potential leaves its range.

    Parameters
    ----------
    tables : `Tables`.
    codes_current : (B, columns) current that the samples' codes make, in the type of `constant`.
    frames : (B, T, M) uint8 events; M = 0 where there are none.
    outcome : `Outcome`.
    narrow, wide : buffers for the largest map, of two types of sums.
    limit : largest |potential|; for integers.

    Returns
    -------
    Sample, step, population, neuron and potential where the run stopped; sample -1: nowhere.
    """
    # All arrays of a sample are allocated once; samples follow each other, so that these stay in the cache.
    populations = len(tables.neurons)
    potential = np.zeros(tables.first_neuron[populations], tables.neurons.dtype)
    memory = np.zeros_like(potential if (tables.neurons[:, 4] > 0).any() else potential[:0])
    current = np.empty(len(potential), tables.constant.dtype)
    fired = np.empty(len(potential), np.uint8)
    lists = np.empty(tables.ring[populations, 0] + tables.ring[populations, 1] * tables.ring[populations, 2], np.int32)
    counts = np.zeros((populations + 1, frames.shape[1]), np.int64)  # spikes of each source in each step
    for sample in range(len(outcome.counts)):
        potential[:] = 0
        memory[:] = 0
        for step in range(frames.shape[1]):
            # Frames become lists of places once per step, for all connections that read them.
            if frames.shape[2]:
                counts[0, step] = nonzero(frames[sample, step], _list(tables, lists, 0, step))
            for p in range(populations):
                begin, end = tables.first_neuron[p], tables.first_neuron[p + 1]
                # What arrives: constants, codes, then each connection whose source spiked `delay` steps ago.
                arriving = current[begin:end]
                arriving[:] = tables.constant[begin:end]
                _add_codes(tables, codes_current[sample], p, step, arriving)
                _add_pulses(tables, p, step, arriving)
                for k in range(tables.first_connection[p], tables.first_connection[p + 1]):
                    c = tables.connections[k]
                    sent = step - c.delay
                    if sent >= 0 and counts[c.source, sent]:
                        spiking = _list(tables, lists, c.source, sent)[: counts[c.source, sent]]
                        _add_spikes(tables, c, spiking, narrow, wide, arriving)
                # One pass over the neurons; the range is tested once per step, by the largest potential.
                state, remembered = potential[begin:end], memory[begin:end]
                peak = advance(state, remembered, arriving, tables.neurons[p], fired[begin:end])
                if peak > limit:
                    n = _first_beyond(state, limit)
                    if n < 0:  # the potential is in range, the current is not
                        state, n = remembered, _first_beyond(remembered, limit)
                    return sample, step, p, n, float(state[n])
                outcome.peaks[sample, p] = max(outcome.peaks[sample, p], peak)
                # The new spikes become a list at once: whatever follows costs what they cost.
                spiking = _list(tables, lists, p + 1, step)
                counts[p + 1, step] = nonzero(fired[begin:end], spiking)
                _count(outcome, spiking[: counts[p + 1, step]], sample, step, p, begin)
    return -1, 0, 0, 0, 0.0
