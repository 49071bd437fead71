"""AEDAT4, the file format of event cameras: events are read by tonic, and written here for made-up recordings.

A file is the line ``#!AER-DAT4.0``, a header and packets. The header is a FlatBuffer (`_header`) whose text, XML, says
what each stream holds. A packet is the number of its stream, its length (4 bytes each) and a FlatBuffer with some of
the stream's data, compressed or not. All numbers are little-endian, and each FlatBuffer has its length before it.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.errors import DatasetError, MissingDependencyError

_MAGIC = b"#!AER-DAT4.0\r\n"
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


# ---- reading -------------------------------------------------------------------------------------------------


def events_from_aedat4(content: bytes, source: str) -> Array:
    """The events of a file in its order: fields t (microseconds), x (column), y (row), on (true is ON).

    Read by ``tonic.io.read_aedat4``, which takes the stream of events of the lowest number.

    Parameters
    ----------
    content : of the whole file.
    source : where it comes from, for messages.

    Raises
    ------
    DatasetError : if the file is damaged, no AEDAT4 or without events.
    MissingDependencyError : if tonic, or aedat which it uses for these files, is absent.
    """
    try:
        import aedat  # noqa: F401
        from tonic.io import read_aedat4
    except ImportError as error:
        raise MissingDependencyError(
            f"{source}: events in AEDAT4 files are read by tonic and aedat; install them with: "
            'pip install "fsnn-lava[events]"'
        ) from error
    _check_header(content, source)
    with tempfile.TemporaryDirectory() as folder:  # the decoder takes nothing but a file's name
        path = Path(folder) / "recording.aedat4"
        path.write_bytes(content)
        try:
            events: Array = read_aedat4(str(path))
        except BaseException as error:
            # A panic of the decoder is no Exception and has no name to import.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise DatasetError(f"{source} is damaged or holds no events: {error}. Get it again.") from error
    return events


def _check_header(content: bytes, source: str) -> None:
    """Nothing, if the header's text can be found: where it cannot, the decoder may end the whole process."""
    if not content.startswith(_MAGIC):
        raise DatasetError(
            f"{source} is no AEDAT4 file: it begins with {content[:14]!r}, expected {_MAGIC!r}. Get it again."
        )
    try:
        (length,) = struct.unpack_from("<I", content, len(_MAGIC))
        header = content[len(_MAGIC) + 4 :][:length]
        (table,) = struct.unpack_from("<I", header, 0)
        description = table - struct.unpack_from("<i", header, table)[0]
        position_at, text_at = (table + at for at in struct.unpack_from("<2H", header, description + 6))
        position = struct.unpack_from("<q", header, position_at)[0] if position_at > table else -1
        begin = text_at + struct.unpack_from("<I", header, text_at)[0]
        (size,) = struct.unpack_from("<I", header, begin)
        text = header[begin + 4 :][:size]
        if len(text) != size:
            raise ValueError("it is cut short")
        text.decode("utf-8")
    except (struct.error, ValueError) as error:
        raise DatasetError(f"{source}: the header is damaged: {error}. Get it again.") from error
    if position > len(content):
        raise DatasetError(
            f"{source} is cut short: it has {len(content)} bytes, its packets end at {position}. Get it again."
        )


# ---- writing -------------------------------------------------------------------------------------------------


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
    return b"".join([_MAGIC, _header(sensor_size), *packets])


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
