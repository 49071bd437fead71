"""AEDAT4 files of made-up recordings, as `fsnn_lava.datasets.aedat4` reads them."""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from fsnn_lava.datasets.aedat4 import MAGIC
from fsnn_lava.errors import DatasetError

Array = npt.NDArray[Any]

_STREAM = 0
_LARGEST = 2**15
"""Pixels a side, whose coordinates are stored in 16 bits with a sign."""
_EVENT = np.dtype(
    {"names": ["t", "x", "y", "on"], "formats": ["<i8", "<i2", "<i2", "?"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
_DESCRIPTION = """<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/"><node name="{stream}">
<attr key="compression" type="string">NONE</attr><attr key="typeIdentifier" type="string">EVTS</attr>
<node name="info"><attr key="sizeX" type="int">{size}</attr><attr key="sizeY" type="int">{size}</attr></node>
</node></node></dv>"""


def aedat4_from_events(events: Array, *, sensor_size: int, packet_events: int = 4096) -> bytes:
    """An uncompressed file of one stream of events, as `events_from_aedat4` reads it.

    Parameters
    ----------
    events : structured array (n,) with the fields t (microseconds), x (column), y (row) and on (true is ON).
    sensor_size : pixels a side of the camera.
    packet_events : most events of a packet.

    Raises
    ------
    DatasetError : if an event is off the sensor, or the sensor larger than the format allows.
    """
    if not 1 <= sensor_size <= _LARGEST:
        raise DatasetError(f"sensor_size: found {sensor_size}; allowed: 1 .. {_LARGEST}.")
    for axis in ("x", "y"):
        if len(events) and not 0 <= events[axis].min() <= events[axis].max() < sensor_size:
            found = f"{events[axis].min()} .. {events[axis].max()}"
            raise DatasetError(f"events: {axis} is {found}; allowed: 0 .. {sensor_size - 1}, the pixels of the sensor.")
    coded = np.zeros(len(events), _EVENT)
    for name in ("t", "x", "y", "on"):
        coded[name] = events[name]
    packets = [_packet(coded[i : i + packet_events]) for i in range(0, len(coded), packet_events)]
    return b"".join([MAGIC, _header(sensor_size), *packets])


def _header(sensor_size: int) -> bytes:
    """The header: compression (0: none), where the table of packets is (-1: there is none), and the text."""
    text = _DESCRIPTION.format(stream=_STREAM, size=sensor_size).encode()
    fields = struct.pack("<iqI", 0, -1, 4)  # at 4, 8 and 16 of the table; the text's length is 4 bytes further
    table = _table(b"IOHE", (4, 8, 16), fields)
    return _with_length(table + struct.pack("<I", len(text)) + text + b"\0")


def _packet(events: Array) -> bytes:
    """A packet: its table's one field is the list of events, 16 bytes each."""
    table = _table(b"EVTS", (4,), struct.pack("<I", 4))  # the list's length is 4 bytes further
    buffer = _with_length(table + struct.pack("<I", len(events)) + events.tobytes())
    return struct.pack("<iI", _STREAM, len(buffer)) + buffer


def _table(identifier: bytes, offsets: tuple[int, ...], fields: bytes) -> bytes:
    """Beginning of a FlatBuffer up to the end of its root table.

    These are: where the table is; the identifier; the table's description, 2 bytes each: its length, the table's
    length and where in the table each field is; the table: how far its description is before it, then the fields.
    """
    description = struct.pack(f"<{2 + len(offsets)}H", 4 + 2 * len(offsets), 4 + len(fields), *offsets)
    start = 8 + len(description) + 2  # 2: padding
    assert start % 4 == 0
    return struct.pack("<I", start) + identifier + description + b"\0\0" + struct.pack("<i", start - 8) + fields


def _with_length(buffer: bytes) -> bytes:
    return struct.pack("<I", len(buffer)) + buffer
