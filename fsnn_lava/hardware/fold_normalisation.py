"""Fold a dataset's normalisation into a network, so that it takes the codes as they are stored."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware.geometry import DENSE, Array, TransposedConvolution
from fsnn_lava.hardware.linear_maps import LinearMap, linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec

if TYPE_CHECKING:
    from fsnn_lava.datasets import InputCoding


def on_codes(network: HardwareNetwork, coding: InputCoding) -> HardwareNetwork:
    """Change a float network so that it does with codes what it did with (code * scale - mean) / std.

    The factor goes into the weights of the input's connections, the rest into constant currents. A convolution pads
    with zeros what is normalised: so on codes the constant current differs at the border.

    Parameters
    ----------
    network : float network; its input's kind and maximum are replaced by the coding's.

    Raises
    ------
    UnsupportedError : if inputs reach a population later than its window opens, when a constant current would not.
    """
    codes = InputSpec(network.input.shape, coding.kind, coding.maximum)
    connections = []
    shifts: dict[str, Array] = {}
    for connection in network.connections:
        if connection.source == INPUT:
            _refuse_late(network, connection)
            weight, shift = _folded(linear_map(network, connection), coding)
            connection = dataclasses.replace(connection, weight=weight)
            shifts[connection.target] = shifts.get(connection.target, 0.0) + shift
        connections.append(connection)
    for target, shift in shifts.items():
        connections = _with_current(connections, target, -shift)
    return dataclasses.replace(network, input=codes, connections=tuple(connections))


def _refuse_late(network: HardwareNetwork, connection: Connection) -> None:
    if network.local_delay(connection):
        raise UnsupportedError(
            f"{connection.label}: found inputs that arrive {network.local_delay(connection)} step(s) after the window "
            "opens; allowed: 0, where a network made for normalised values is to take codes"
        )


def _folded(connection: LinearMap, coding: InputCoding) -> tuple[Array, Array]:
    """Weight on codes, and the current (N,) by which it is too large."""
    per_channel = int(np.prod(connection.source[1:]))
    mean, std = (np.asarray(value, dtype=np.float64) for value in (coding.mean, coding.std))
    shift = connection.product(np.repeat(mean / std, per_channel)[None])[0]
    factor = coding.scale / std
    if connection.geometry == DENSE:
        return connection.weight * np.repeat(factor, per_channel), shift
    transposed = isinstance(connection.geometry, TransposedConvolution)
    return connection.weight * factor.reshape((-1, 1, 1, 1) if transposed else (-1, 1, 1)), shift


def _with_current(connections: list[Connection], target: str, current: Array) -> list[Connection]:
    """Add a constant current to a population's, or a connection for it."""
    for i, connection in enumerate(connections):
        if connection.source == ALWAYS_ON and connection.target == target:
            more = dataclasses.replace(connection, weight=connection.weight + current[:, None])
            return [*connections[:i], more, *connections[i + 1 :]]
    return [*connections, Connection(f"{target}_current", ALWAYS_ON, target, current[:, None])]
