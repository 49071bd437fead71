"""Whether inputs, and the populations to record, fit the network they are given to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsnn_lava.errors import InputError
from fsnn_lava.hardware.network import Array, HardwareNetwork


def check_inputs(network: HardwareNetwork, inputs: Array, *, record: Sequence[str] = ()) -> int:
    """The number of samples B, once everything is known to fit.

    Parameters
    ----------
    inputs : graded input: (B, *shape) integer codes, 0 .. ``network.input.maximum``;
        event input: (T, B, *shape) integers or booleans, 0 or 1.
    record : names of the populations whose spikes are asked for.

    Raises
    ------
    InputError : saying what was found, what the network allows and what to do.
    """
    where = f'network "{network.name}"'
    if not isinstance(inputs, np.ndarray):
        raise InputError(f"{where}: inputs are a {type(inputs).__name__}; expected a NumPy array, see np.asarray")
    _check_shape(where, network, inputs.shape)
    _check_codes(where, network, inputs)
    _check_record(where, network, record)
    return int(inputs.shape[1 if network.input.kind == "event" else 0])


def _check_shape(where: str, network: HardwareNetwork, shape: tuple[int, ...]) -> None:
    event = network.input.kind == "event"
    leading = 2 if event else 1
    sizes = ", ".join(map(str, network.input.shape))
    expected = f"(T, B, {sizes}) = ({network.time_steps}, B, {sizes})" if event else f"(B, {sizes})"
    if len(shape) != leading + len(network.input.shape) or shape[leading:] != tuple(network.input.shape):
        raise InputError(f"{where}: {network.input.kind} inputs of shape {shape}; expected {expected}")
    if event and shape[0] != network.time_steps:
        raise InputError(
            f"{where}: {shape[0]} event frames per sample; the network runs {network.time_steps} steps and needs "
            f"as many frames, shape {expected}"
        )
    if shape[leading - 1] < 1:
        raise InputError(f"{where}: no sample in inputs of shape {shape}; expected at least one, shape {expected}")


def _check_codes(where: str, network: HardwareNetwork, inputs: Array) -> None:
    event = network.input.kind == "event"
    if not (np.issubdtype(inputs.dtype, np.integer) or (event and inputs.dtype == np.bool_)):
        allowed = "integers or booleans, 0 or 1" if event else f"integer codes 0 .. {network.input.maximum}"
        raise InputError(f"{where}: inputs of type {inputs.dtype}; expected {allowed}; convert them on purpose")
    lowest, highest = int(inputs.min()), int(inputs.max())
    if lowest < 0 or highest > network.input.maximum:
        raise InputError(f"{where}: input codes from {lowest} to {highest}; allowed: 0 .. {network.input.maximum}")


def _check_record(where: str, network: HardwareNetwork, record: Sequence[str]) -> None:
    if isinstance(record, str):
        raise InputError(f'{where}: record is the string "{record}"; expected a sequence of names: ["{record}"]')
    known = [p.name for p in network.populations]
    unknown = [name for name in record if name not in known]
    if unknown:
        raise InputError(f"{where}: no population {unknown} to record; there are: {', '.join(known)}")
