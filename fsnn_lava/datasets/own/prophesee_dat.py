"""DAT, the format in which Prophesee's tools keep decoded events, N-CARS' among them; read for `recordings`.

A file is lines of text that begin with ``%`` (``% Version 2``, ``% Width 304``, ``% Height 240``), two bytes, which are
the events' type and size, and the events, 8 bytes each, little-endian: a time in microseconds (32 bits), and a word of
column, row and polarity from the lowest bit on: 14, 14 and 4 bits in version 2, 9, 8 and 1 in version 1, whose other
bits mean nothing.

References
----------
Prophesee, "DAT File Format", https://docs.prophesee.ai/stable/data/file_formats/dat.html, for version 2, and
``load_atis_data.m``, which comes with N-CARS, for version 1.
"""

import numpy as np

from fsnn_lava.datasets.event_files import EVENT
from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.errors import DatasetError
from fsnn_lava.files import known_format

_FIELDS = {
    "1": {"x": (0, 0x1FF), "y": (9, 0xFF), "on": (17, 1)},
    "2": {"x": (0, 0x3FFF), "y": (14, 0x3FFF), "on": (28, 15)},
}
"""Of each version: how far a word is shifted, and which of its bits are then column, row and polarity."""
_CHANGES = {0: "Event2d", 12: "EventCD"}
"""Types of events that are changes of brightness; another one is 14, signals at the camera's trigger."""
_SIZE = 8
"""Bytes of an event, whatever its type."""
_HALF_THE_CLOCK = 2**31


def events_from_dat(content: bytes, source: str) -> Array:
    """Return the events of a file in its order: fields t (microseconds), x (column), y (row), on (true is ON).

    Parameters
    ----------
    content : of the whole file.
    source : where it comes from, for messages.

    Raises
    ------
    DatasetError : if the header names no version that is known, the events are of another type, the file is cut short,
        an event is outside the sensor that the header states, or has no polarity of a change, or times decrease.
    """
    header, begin = _header(content, source)
    version = header.get("Version")
    if version not in _FIELDS:
        found = "no Version" if version is None else f"Version {version}"
        raise DatasetError(
            f"{source}: its header has {found}; expected % Version {' or '.join(_FIELDS)}, which says how many "
            "bits column and row have"
        )
    kind = content[begin : begin + 2]
    if len(kind) < 2:
        raise DatasetError(f"{source}: is cut short: it ends after its header of {begin} bytes; get it again")
    if kind[0] not in _CHANGES or kind[1] != _SIZE:
        allowed = " or ".join(f"{number} ({name})" for number, name in _CHANGES.items())
        raise DatasetError(
            f"{source}: found events of type {kind[0]} and {kind[1]} bytes; expected changes of brightness, of type "
            f"{allowed} and {_SIZE} bytes"
        )
    data = content[begin + 2 :]
    if len(data) % _SIZE:
        raise DatasetError(f"{source}: is cut short: {len(data)} bytes of events, no multiple of {_SIZE}; get it again")
    times, words = np.frombuffer(data, "<u4").reshape(-1, 2).astype(np.int64).T
    fields = {name: words >> shift & mask for name, (shift, mask) in _FIELDS[version].items()}
    _check_polarities(fields["on"], source)
    _check_places(fields["x"], fields["y"], header, source)
    _check_times(times, source)
    events = np.empty(len(times), EVENT)
    events["t"] = times
    for name, values in fields.items():
        events[name] = values
    return events


def _header(content: bytes, source: str) -> tuple[dict[str, str], int]:
    """What the lines of text say, by keyword, and where these end."""
    if not content.startswith(b"%"):
        raise DatasetError(
            f"{source}: begins with {content[:12]!r}; expected lines that begin with %, as in files of Prophesee's DAT "
            f"format.{known_format(content[:32])}"
        )
    said, at = {}, 0
    while content[at : at + 1] == b"%":
        end = content.find(b"\n", at)
        if end < 0:
            raise DatasetError(f"{source}: is cut short: its header has no end; get it again")
        keyword, _, value = content[at + 1 : end].decode("latin-1").strip().partition(" ")
        said[keyword] = value.strip()
        at = end + 1
    return said, at


def _check_polarities(found: Array, source: str) -> None:
    odd = np.flatnonzero(found > 1)
    if len(odd):
        raise DatasetError(
            f"{source}: event {odd[0]} has polarity {found[odd[0]]}; expected 0 or 1: it is damaged; get it again"
        )


def _check_places(x: Array, y: Array, header: dict[str, str], source: str) -> None:
    """Raise if an event is outside the sensor of the header, where that states one."""
    for name, places in (("Width", x), ("Height", y)):
        if name not in header:
            continue
        if not header[name].isdecimal():
            raise DatasetError(f"{source}: its header states a {name} of {header[name]!r}; expected a whole number")
        outside = np.flatnonzero(places >= int(header[name]))
        if len(outside):
            k = outside[0]
            raise DatasetError(
                f"{source}: event {k} is at x = {x[k]}, y = {y[k]}, counted from 0; its header states a {name} of "
                f"{header[name]}: it is damaged, or of another version; get it again"
            )


def _check_times(times: Array, source: str) -> None:
    earlier = np.flatnonzero(np.diff(times) < 0)
    if not len(earlier):
        return
    before, after = times[earlier[0]], times[earlier[0] + 1]
    cause = "it is damaged, or was put together of several; put its events in order of time"
    if before - after > _HALF_THE_CLOCK:
        cause = "its clock of 32 bits began anew, as it does after 71 minutes; cut the recording there"
    raise DatasetError(
        f"{source}: event {earlier[0] + 1} is at {after} us, after one at {before} us; expected times that never "
        f"decrease: {cause}"
    )
