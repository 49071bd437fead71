"""The files of event recordings: what each format holds, by the ending of its name.

Read are AEDAT4, AEDAT 2 and 3, Prophesee's DAT, the 5 bytes an event of N-MNIST (.bin), and arrays of NumPy's (.npy,
.npz): structured ones with the fields x, y, t, p, or (n, 4) in that order. `event_folder` makes frames of them.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsnn_lava.datasets.aedat4 import events_from_aedat4
from fsnn_lava.datasets.event_files import EVENT
from fsnn_lava.datasets.files import read_bytes
from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.datasets.own.prophesee_dat import events_from_dat
from fsnn_lava.errors import DatasetError


def read_events(file: Path) -> Array:
    """Read all events of a recording: (n,) with the fields t (microseconds), x (column), y (row), on.

    Raises
    ------
    DatasetError : if the file is damaged, or holds no events.
    MissingDependencyError : if a package that reads the format is absent.
    """
    events = READERS[file.suffix.lower()](read_bytes(file), str(file))
    if not len(events):
        raise DatasetError(f"{file}: holds no events; remove it")
    return events


def _plain(events: Any, on: Any) -> Array:
    plain = np.empty(len(events), EVENT)
    for name in ("t", "x", "y"):
        plain[name] = events[name]
    plain["on"] = on
    return plain


def _of_aedat4(content: bytes, source: str) -> Array:
    events = events_from_aedat4(content, source)
    return _plain(events, events["on"])


def _of_bin(content: bytes, source: str) -> Array:
    if not content or len(content) % 5:
        raise DatasetError(f"{source}: found {len(content)} bytes; expected 5 for each event, at least one")
    raw = np.frombuffer(content, np.uint8).reshape(-1, 5).astype(np.int64)
    events = np.empty(len(raw), EVENT)
    events["x"], events["y"], events["on"] = raw[:, 0], raw[:, 1], raw[:, 2] >> 7
    events["t"] = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    return events


def _of_arrays(content: bytes, source: str) -> Array:
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            names = list(found.files)
            if set("xytp") <= set(names):
                columns: Mapping[str, Array] = {name: found[name] for name in "xytp"}
            elif len(names) == 1:
                found = found[names[0]]
                columns = _columns(found, source)
            else:
                raise DatasetError(
                    f"{source}: found the arrays {', '.join(names)}; expected x, y, t, p, or a single one"
                )
        else:
            columns = _columns(found, source)
        events = np.empty(len(columns["t"]), EVENT)
        for name in ("t", "x", "y"):
            events[name] = columns[name]
        events["on"] = columns["p"] > 0
    except DatasetError:  # which is a ValueError, and says what is wrong
        raise
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise DatasetError(f"{source}: cannot be read as arrays of events: {error}") from error
    return events


def _columns(found: Array, source: str) -> Mapping[str, Array]:
    if found.dtype.names is not None:
        missing = [name for name in "xytp" if name not in found.dtype.names]
        if missing:
            raise DatasetError(f"{source}: found the fields {', '.join(found.dtype.names)}; expected x, y, t, p")
        return {name: found[name] for name in "xytp"}
    if found.ndim != 2 or found.shape[1] != 4:
        raise DatasetError(f"{source}: found an array of shape {found.shape}; expected (n, 4) of x, y, t, p")
    return dict(zip("xytp", found.T, strict=True))


def _of_aedat(content: bytes, source: str) -> Array:
    """AEDAT 3.1, or AEDAT 2 of a DVS128: lines that begin with "#", then pairs of an address and a time.

    In AEDAT 3.1 they are in packets, whose headers of 28 bytes hold, little-endian, the type of their events (2 bytes
    from 0; 1: polarity), an event's size (4 from 4) and how many there are (4 from 20). tonic 1.7 reads neither: its
    `read_dvs_ibm` and `read_dvs_128` end with an error.
    """
    version = content[:12]
    if version not in _ADDRESSES:
        expected = " or ".join(kind.decode() for kind in _ADDRESSES)
        raise DatasetError(f"{source}: begins with {version!r}; expected {expected}; files of AEDAT4 end in .aedat4")
    at = 0
    while content[at : at + 1] == b"#":
        at = content.find(b"\n", at) + 1 or len(content)
    if version.endswith(b"2.0"):
        data, order = content[at:], ">u4"
    else:
        data, order = b"".join(_polarity_packets(content, at, source)), "<u4"
    if len(data) % 8:
        raise DatasetError(f"{source}: is cut short: {len(data)} bytes of events, no multiple of 8; get it again")
    address, times = np.frombuffer(data, order).reshape(-1, 2).astype(np.int64).T
    events = np.empty(len(times), EVENT)
    for name, (shift, mask) in _ADDRESSES[version].items():
        events[name] = address >> shift & mask
    events["t"] = times
    return events


def _polarity_packets(content: bytes, at: int, source: str) -> Iterator[bytes]:
    """The events of each packet of AEDAT 3.1 that holds such of a camera's pixels."""
    while at < len(content):
        header = content[at : at + 28]
        if len(header) < 28:
            raise DatasetError(f"{source}: is cut short: its last packet has no whole header; get it again")
        (kind,), (size, _, _, _, count) = struct.unpack_from("<h", header), struct.unpack_from("<5i", header, 4)
        at += 28 + size * count
        if size < 1 or count < 0 or at > len(content):
            raise DatasetError(
                f"{source}: is cut short or damaged: a packet of {count} events of {size} bytes; get it again"
            )
        if kind == 1:
            yield content[at - size * count : at]


_ADDRESSES = {
    b"#!AER-DAT2.0": {"x": (8, 0x7F), "y": (1, 0x7F), "on": (0, 1)},
    b"#!AER-DAT3.1": {"x": (17, 0x1FFF), "y": (2, 0x1FFF), "on": (1, 1)},
}
"""How far an address is shifted, and which of its bits are column, row and polarity: in AEDAT 2 those of a DVS128."""

READERS: Mapping[str, Callable[[bytes, str], Array]] = {
    ".aedat4": _of_aedat4,
    ".aedat": _of_aedat,
    ".dat": events_from_dat,
    ".bin": _of_bin,
    ".npy": _of_arrays,
    ".npz": _of_arrays,
}
"""How a recording is read, by the ending of its file."""
