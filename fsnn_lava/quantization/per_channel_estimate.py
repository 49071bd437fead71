"""What one scale for every channel would give, to say what one for all costs. No target has it: an estimate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from fsnn_lava.hardware import (
    ALWAYS_ON,
    STATE_LIMIT,
    Array,
    Connection,
    Convolution,
    Dense,
    HardwareNetwork,
    Population,
    real_weight,
)
from fsnn_lava.quantization.candidates import Rounder, Size, reset_sizes, value_of
from fsnn_lava.quantization.input_correlations import weight_rows
from fsnn_lava.quantization.rounding import round_weights


def channel_scaled(rounder: Rounder, resets: Mapping[str, Size], *, reach: Mapping[str, Array]) -> HardwareNetwork:
    """The float network with weights rounded as if every channel had a scale, threshold and reset of its own.

    Parameters
    ----------
    reach : population -> (*N) largest potential in the network of these sizes; a channel's scale is refined until it,
        or the largest weight of a convolution, reaches its limit.
    """
    connections: list[Connection] = []
    for population in rounder.network.populations:
        done = rounder.rounded(population.name, resets[population.name])
        incoming = rounder.network.incoming(population.name)
        finer = _room(population, reach[population.name], resets[population.name])
        for c in incoming:
            if isinstance(c.geometry, Convolution) and not rounder.graded(c):
                finer = np.minimum(finer, _fitting(c, done.neuron.scale, rounder.config.weight_bits))
        scale = done.neuron.scale / np.maximum(finer, 1.0)
        cost: Array | float = 0.0
        for c in (c for c in incoming if c.source != ALWAYS_ON):
            whole = _rounded(rounder, c, _per_weight(c, population, scale))
            connections.append(whole)
            cost = cost + rounder.mean_current(c, c.weight - whole.weight)
        for c in (c for c in incoming if c.source == ALWAYS_ON):
            connections.append(dataclasses.replace(c, weight=c.weight + cost))
            cost = 0.0
    return dataclasses.replace(rounder.network, connections=tuple(connections))


def _room(population: Population, reach: Array, size: Size) -> Array:
    """(C,) factor by which each channel's weights could grow within 24 bits and the largest reset synapse."""
    most = reach.reshape(len(reach), -1).max(axis=1)
    return np.asarray(np.minimum(STATE_LIMIT / np.maximum(most, 1), value_of(reset_sizes()[-1]) / value_of(size)))


def _fitting(connection: Connection, scale: float, bits: int) -> Array:
    """(C,) factor by which each channel's weights could grow within the mantissa."""
    largest = np.abs(weight_rows(connection.geometry, connection.weight)).max(axis=1) / scale
    return np.asarray(((1 << (bits - 1)) - 1) / np.maximum(largest, 1e-12))


def _per_weight(connection: Connection, population: Population, scale: Array) -> Array:
    """The scales (C,) of the target's channels in a shape that broadcasts with the weights."""
    if isinstance(connection.geometry, Dense):
        return np.repeat(scale, population.size // len(scale))[:, None]
    axis = 0 if isinstance(connection.geometry, Convolution) else 1
    return np.expand_dims(scale, tuple(i for i in range(4) if i != axis))


def _rounded(rounder: Rounder, connection: Connection, scale: Array) -> Connection:
    """The float connection whose weights are whole multiples of their scales."""
    parts, _ = round_weights(
        connection,
        scale,
        bits=rounder.config.weight_bits,
        graded=rounder.graded(connection),
        groups=rounder.groups.get(connection.name, ()),
    )
    return dataclasses.replace(connection, weight=np.sum([real_weight(c) for c in parts], axis=0) * scale)
