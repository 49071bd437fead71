"""Compiled loops over events for a CPU: a linear map of mostly zeros, and all steps of a spiking network.

A spike vector is mostly zeros, and so is a gradient behind silent neurons; a dense product multiplies by every zero.
Here each nonzero value adds its weights to the outputs that it reaches, which costs what the spikes cost: at the firing
rates of trained networks, 1 to 20 %, several times less (`benchmarks.ide.training_speed`). Sums differ from a dense
product's by their order alone. All arrays are flat, and channels lie innermost, (H, W, C), so that one value's
weights for a run of neighbouring outputs are one contiguous run of numbers.

The functions release Python's lock and use one core; `event_run` starts several (numba's own threads would change
the number of threads that torch uses).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fsnn_lava.hardware import Array
from fsnn_lava.kernels.compile import compiled, compiled_fused


class ConnectionRow(NamedTuple):
    """Sizes of one connection, and its offsets into the flat arrays: a row of the table that the kernels read.

    Parameters
    ----------
    channels, height, width : of the source.
    out_channels, out_height, out_width : of the response, before pooling.
    down, up : stride of a convolution; stride of a transposed one (1: not transposed).
    top, left : zeros' margin above and left of the response in its buffer, which outputs off the edge fall into.
    buffer_width, buffer_size : columns of that buffer, and its numbers in all.
    pool : window of the average pooling, 1 without.
    block : source channels whose weights are used together.
    row, first_weight : numbers of one source channel's weights, and where the first channel's begin.
    first_start : where this connection's entries in `starts` begin.
    source, target : populations from 0; source -1 is the input.
    delay, first_late : steps until a spike arrives; where the source's late spikes begin among those that are kept, if
        any arrive late.
    first_affine, first_mask : where its (scale, shift) of each channel, and its dropout mask begin; -1: no mask.
    """

    channels: int
    height: int
    width: int
    out_channels: int
    out_height: int
    out_width: int
    down: int
    up: int
    top: int
    left: int
    buffer_width: int
    buffer_size: int
    pool: int
    block: int
    row: int
    first_weight: int = 0
    first_start: int = 0
    source: int = 0
    target: int = 0
    delay: int = 0
    first_late: int = 0
    first_affine: int = 0
    first_mask: int = 0


CONNECTION = np.dtype([(name, np.int64) for name in ConnectionRow._fields])
"""Type of such rows in an array, whose fields the kernels read by name."""


@compiled
def _scatter(values: Array, g: Any, maps: Any, out: Array, active: Array) -> None:
    """Add the response of one sample to `out`, a buffer of zeros; `active` is a scratch array for channel numbers."""
    # Blocks of channels outermost: their weights stay in the second-level cache for all positions.
    for block in range(0, g.channels, g.block):
        end = min(block + g.block, g.channels)
        for y in range(g.height):
            for x in range(g.width):
                # Compress the nonzero channels without a branch: zeros and spikes alternate too irregularly to predict.
                first = (y * g.width + x) * g.channels
                count = 0
                for c in range(block, end):
                    active[count] = c
                    count += values[first + c] != 0
                # Positions without an event cost nothing more; the others' class says which outputs they reach.
                if count:
                    corner = (y // g.down) * g.up * g.buffer_width + (x // g.down) * g.up
                    kind = g.first_start + (y % g.down) * g.down + x % g.down
                    add_channels(
                        values[first : first + g.channels],
                        active[:count],
                        (g.first_weight, g.row, kind),
                        maps,
                        out[corner * g.out_channels :],
                    )


@compiled_fused
def add_channels(values: Array, active: Array, place: Any, maps: Any, out: Array) -> None:
    """Add the weights of the active channels of one position, times their values, to the outputs that it reaches."""
    weights, segments, starts = maps
    first_weight, row, kind = place
    zero, count = values.dtype.type(0), len(active)
    # Four rows of weights in one pass over the outputs, which are loaded and stored a quarter as often. A last group of
    # two or three is filled up with a row times zero.
    for k in range(0, count - 1, 4):
        a, b, c, d = active[k], active[k + 1], active[min(k + 2, count - 1)], active[min(k + 3, count - 1)]
        va, vb = values[a], values[b]
        vc = values[c] if k + 2 < count else zero
        vd = values[d] if k + 3 < count else zero
        at, bt, ct, dt = first_weight + a * row, first_weight + b * row, first_weight + c * row, first_weight + d * row
        # Each segment is contiguous in the weights and in the outputs: the inner loop is vectorized, and fuses its
        # products and sums (FMA).
        for s in range(starts[kind], starts[kind + 1]):
            begin, end = segments[s, 0], segments[s, 0] + segments[s, 1]
            total = out[segments[s, 2] : segments[s, 2] + segments[s, 1]]
            wa, wb = weights[at + begin : at + end], weights[bt + begin : bt + end]
            wc, wd = weights[ct + begin : ct + end], weights[dt + begin : dt + end]
            for i in range(len(total)):
                total[i] += va * wa[i] + vb * wb[i] + vc * wc[i] + vd * wd[i]
    # A single row left over: filled up, it would cost four.
    if count % 4 == 1:
        va, at = values[active[count - 1]], first_weight + active[count - 1] * row
        for s in range(starts[kind], starts[kind + 1]):
            begin, end = segments[s, 0], segments[s, 0] + segments[s, 1]
            total = out[segments[s, 2] : segments[s, 2] + segments[s, 1]]
            wa = weights[at + begin : at + end]
            for i in range(len(total)):
                total[i] += va * wa[i]


@compiled
def count_nonzero(values: Array) -> int:
    """Count as np.count_nonzero does, several times faster on floats."""
    # A sum of comparisons, without a branch: the compiler vectorizes it.
    count = 0
    for value in values.flat:
        count += value != 0
    return count


@compiled
def apply_map(values: Array, connections: Array, maps: Any, product: Array) -> None:
    """Write the responses (B, H W C) of the first connection to values (B, H W C), without pooling."""
    g = connections[0]
    out = np.empty(g.buffer_size, values.dtype)
    active = np.empty(g.channels + 1, np.int64)
    run = g.out_width * g.out_channels
    # One buffer for all samples: it stays in the cache.
    for sample in range(values.shape[0]):
        out[:] = 0
        _scatter(values[sample], g, maps, out, active)
        # Rows of the response are contiguous between the margins: one copy each.
        for y in range(g.out_height):
            at = ((y + g.top) * g.buffer_width + g.left) * g.out_channels
            product[sample, y * run : (y + 1) * run] = out[at : at + run]


@compiled_fused
def _add_current(out: Array, g: Any, affine: Array, mask: Array, current: Array) -> None:
    """Add mask (scale pool(response) + shift) to the current: batch norm, bias and dropout of one connection."""
    height, width, channels = g.out_height // g.pool, g.out_width // g.pool, g.out_channels
    scale = affine[0, g.first_affine : g.first_affine + channels]
    shift = affine[1, g.first_affine : g.first_affine + channels]
    for y in range(height):
        for x in range(width):
            # Pooled where it lies in the buffer, so that no response is stored a second time.
            response = _pooled(out, g, y, x)
            first = (y * width + x) * channels
            to = current[first : first + channels]
            # The test for a mask lies outside the loop over channels, which is vectorized then.
            if g.first_mask >= 0:
                kept = mask[g.first_mask + first : g.first_mask + first + channels]
                for c in range(channels):
                    to[c] += kept[c] * (scale[c] * response[c] + shift[c])
            else:
                for c in range(channels):
                    to[c] += scale[c] * response[c] + shift[c]


@compiled
def _pooled(out: Array, g: Any, y: int, x: int) -> Array:
    """Return the (C,) mean response of one window, in place of the window's first position in `out`."""
    channels = g.out_channels
    corner = ((y * g.pool + g.top) * g.buffer_width + x * g.pool + g.left) * channels
    response = out[corner : corner + channels]
    if g.pool == 1:
        return response
    # The other positions of the window are added to the first, all channels of a position at once.
    for dy in range(g.pool):
        for dx in range(1 if dy == 0 else 0, g.pool):
            at = corner + (dy * g.buffer_width + dx) * channels
            other = out[at : at + channels]
            for c in range(channels):
                response[c] += other[c]
    response /= g.pool * g.pool
    return response


@compiled_fused
def _advance(state: Any, current: Array, constants: Array, begin: int, end: int) -> None:
    """Advance the neurons begin .. end by a step: v <- leak (v - r s) + current; s <- 1 where v >= v_threshold.

    With reset to zero r is v.
    """
    v, spikes = state[0][begin:end], state[1][begin:end]
    weighted_count, count = state[3][begin:end], state[4][begin:end]
    v_threshold, reset_amount, leak, to_zero = constants[0], constants[1], constants[2], constants[3] != 0
    one, zero = constants.dtype.type(1), constants.dtype.type(0)
    # Leak, reset, integration, threshold and both counts in one pass over memory. Spikes are floats of the same width
    # as the potentials, and the threshold is a select: the loop has no branch and is vectorized.
    for i in range(len(v)):
        amount = v[i] if to_zero else reset_amount
        after = leak * (v[i] - amount * spikes[i]) + current[i]
        fired = one if after >= v_threshold else zero
        v[i] = after
        spikes[i] = fired
        weighted_count[i] = leak * weighted_count[i] + fired
        count[i] += fired


@compiled
def run_samples(
    plan: Any,
    inputs: Any,
    rates: Any,
    recorded: Array,
    *,
    constants: Any,
    time_steps: int,
) -> None:
    """Run all steps of every sample, one sample after the other, so that its potentials stay in the cache.

    In each step the populations follow each other, first to last, and see the spikes of this step from below; what
    feeds back arrives as many steps late as its connection says.

    Parameters
    ----------
    plan : (connections, bounds, driven, late, maps, affine): `CONNECTION` rows, (P + 1,) first neuron of each
        population, (P,) where its constant current begins or -1, (L, 2) first and last neuron of each population whose
        spikes are kept, the flat (weights, segments, starts), and (2, channels) scale and shift of the responses.
    inputs : (drive, events, masks): constant currents (B, sum of N), frames (T, B, M), dropout masks (B, sum of N);
        each may have no columns.
    rates : (weighted_count, count, returned), zeros that are filled: (B, all neurons) the first two; (B, sum of N) for
        each connection with a delay the weighted count of its source `delay` steps before the end.
    recorded : (T, B, all neurons) uint8, filled if it is not empty.
    constants : (P, 4) (v_threshold, reset_amount, leak, whether a spike resets to zero) in the type of the potentials.
    """
    connections, bounds, driven, late, _, affine = plan
    drive, events, masks = inputs
    weighted_counts, counts, returned = rates
    # All arrays of a sample are allocated once, as large as the largest connection needs.
    neurons, widest, deepest, largest, depth, kept = bounds[-1], 0, 0, 0, 1, 0
    for k in range(len(connections)):
        g = connections[k]
        largest, deepest, depth = max(largest, g.buffer_size), max(deepest, g.channels), max(depth, g.delay)
    for p in range(len(bounds) - 1):
        widest = max(widest, bounds[p + 1] - bounds[p])
    for source in range(len(late)):
        kept += late[source, 1] - late[source, 0]
    v, spikes = np.empty(neurons, affine.dtype), np.empty(neurons, affine.dtype)
    returning = np.empty((depth, kept), affine.dtype)
    current, out = np.empty(widest, affine.dtype), np.empty(largest, affine.dtype)
    active = np.empty(deepest + 1, np.int64)
    for sample in range(len(weighted_counts)):
        v[:], spikes[:], returning[:] = 0, 0, 0
        state = (v, spikes, returning, weighted_counts[sample], counts[sample])
        for t in range(time_steps):
            # Current of one population at a time, then its neurons: nothing but spikes is passed on.
            for p in range(len(bounds) - 1):
                size = bounds[p + 1] - bounds[p]
                current[:] = 0
                if driven[p] >= 0:
                    current[:size] = drive[sample, driven[p] : driven[p] + size]
                for k in range(len(connections)):
                    g = connections[k]
                    if g.target == p:
                        values = _values(g, events[t, sample], state, bounds, t)
                        out[: g.buffer_size] = 0
                        _scatter(values, g, plan[4], out, active)
                        _add_current(out, g, affine, masks[sample], current)
                _advance(state, current, constants[p], bounds[p], bounds[p + 1])
            # Spikes that arrive late wait in a ring of as many steps as the slowest feedback takes.
            first = 0
            for source in range(len(late)):
                begin, end = late[source, 0], late[source, 1]
                returning[t % depth, first : first + end - begin] = spikes[begin:end]
                first += end - begin
            first = 0
            for k in range(len(connections)):
                g = connections[k]
                if g.delay > 0:
                    begin, end = bounds[g.source], bounds[g.source + 1]
                    if t + 1 == time_steps - g.delay:
                        returned[sample, first : first + end - begin] = weighted_counts[sample, begin:end]
                    first += end - begin
            if recorded.size:
                recorded[t, sample] = spikes.astype(np.uint8)


@compiled
def _values(g: Any, frame: Array, state: tuple[Array, ...], bounds: Array, t: int) -> Array:
    """Return a connection's values at step t: the input, late spikes, or those of this step from below."""
    # Views alone, nothing is copied. Before anything has come back the ring holds zeros there.
    if g.source < 0:
        return frame
    begin, end = bounds[g.source], bounds[g.source + 1]
    if g.delay > 0:
        returning: Array = state[2][(t - g.delay) % len(state[2])]
        return returning[g.first_late : g.first_late + end - begin]
    return state[1][begin:end]
