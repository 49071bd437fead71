"""Files of Prophesee's DAT format, written event by event and bit by bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_BITS = {1: (9, 8, 1), 2: (14, 14, 4)}
"""Bits of column, row and polarity."""


def dat_from_events(
    events: Array,
    *,
    version: int = 2,
    sensor: tuple[int, int] | None = None,
    kind: int = 12,
    size: int = 8,
    header: Sequence[str] | None = None,
) -> bytes:
    """A file of events, in their order.

    Parameters
    ----------
    events : structured array (n,) with the fields t (microseconds), x (column), y (row) and on (true is ON).
    sensor : height and width that the header states.
    kind, size : the bytes before the events.
    header : lines of it without the beginning ``% ``, in place of those that are written otherwise.
    """
    lines = ["Data file containing CD events", "Date 2020-09-14 14:18:29", f"Version {version}"]
    if sensor is not None:
        lines += [f"Width {sensor[1]}", f"Height {sensor[0]}"]
    written = b"".join(f"% {line}\n".encode() for line in (lines if header is None else header)) + bytes([kind, size])
    for event in events:
        fields = [(int(event[name]), bits) for name, bits in zip(("x", "y", "on"), _BITS[version], strict=True)]
        word = "".join(f"{value:0{bits}b}" for value, bits in reversed(fields))
        written += int(event["t"]).to_bytes(4, "little") + int(word, 2).to_bytes(4, "little")
    return written
