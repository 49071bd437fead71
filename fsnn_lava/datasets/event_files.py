"""Recordings of event cameras: many small files in a zip file or in a folder, decoded once and kept as packed frames.

`nmnist` and `cifar10_dvs` say which files they take and how events become frames; `load_events` does the rest.
"""

import collections
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.files import cached, read_bytes, zip_contents
from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.datasets.samples import packed_bytes
from fsnn_lava.errors import DatasetError, counted

SYNTHETIC_MARK = "SYNTHETIC.txt"
"""A folder that holds a file of this name holds made-up recordings, and the dataset's note says so."""

EVENT = np.dtype([("t", np.int64), ("x", np.int64), ("y", np.int64), ("on", np.bool_)])
"""An event: time in microseconds, column, row, and whether its polarity is ON."""

_OTHER_FORMS = {".aedat": "AEDAT 2.0", ".dat": "Prophesee's format", ".mat": "MATLAB", ".hdf5": "HDF5", ".h5": "HDF5"}


def place_of(folder: Path, name: str) -> Path | None:
    """Find the recordings of that name: ``<name>.zip``, also in small letters, or ``<name>/``; None if nowhere."""
    for archive in (f"{name}.zip", f"{name.lower()}.zip"):
        if (folder / archive).is_file():
            return folder / archive
    return folder / name if (folder / name).is_dir() else None


def files_in(place: Path, pattern: str) -> list[tuple[str, str]]:
    """List name and state of each file; the state is text that changes with the file's content.

    Parameters
    ----------
    place : zip file, all of whose files are listed, or folder.
    pattern : which files of a folder are listed.

    Raises
    ------
    DatasetError : if the zip file cannot be read.
    """
    if place.suffix == ".zip":
        return [(e.filename, f"{e.file_size}:{e.CRC}") for e in zip_contents(place) if not e.is_dir()]
    stats = [(path, path.stat()) for path in place.glob(pattern)]
    return [(str(path), f"{s.st_size}:{s.st_mtime_ns}") for path, s in stats]


def other_forms(place: Path) -> str:
    """Return a sentence on recordings there in formats that are not read here, with a space before it, or nothing."""
    endings = collections.Counter(Path(name).suffix.lower() for name, _ in files_in(place, "**/*"))
    found = [f"{counted(endings[e], 'file')} of {name} ({e})" for e, name in _OTHER_FORMS.items() if endings[e]]
    return f" The {' and '.join(found)} there are another form of it, not read here." if found else ""


@contextmanager
def opened(place: Path) -> Iterator[Callable[[str], bytes]]:
    """Open a place: give a function that reads a file by its name of `files_in`, a DatasetError if that is damaged."""
    if place.suffix != ".zip":
        yield lambda name: read_bytes(Path(name))
        return
    with zipfile.ZipFile(place) as archive:

        def read(name: str) -> bytes:
            try:
                return archive.read(name)
            except (OSError, zipfile.BadZipFile, zlib.error) as error:
                raise DatasetError(f"{place}: {name} is damaged: {error}. Get it again.") from error

        yield read


@dataclass(frozen=True)
class Recording:
    """A file of events."""

    number: int  # from the file's name; recordings are taken in this order
    name: str  # as `files_in` gives it
    state: str  # text that changes with the content and the label
    label: int = 0  # class, from 0


def load_events(
    place: Path,
    recordings: Sequence[Recording],
    *,
    name: str,
    version: str,
    shape: tuple[int, ...],
    decode: Callable[[bytes, str], Array],
) -> Array:
    """Return packed frames of recordings, (n, T, bytes) uint8: from the cache, else decoded and kept there.

    Parameters
    ----------
    place : zip file or folder that holds the recordings.
    recordings : by number.
    name : what the file in the cache is called, before the checksum.
    version : text that changes when frames are made in another way.
    shape : of the frames, (T, C, H, W).
    decode : frames of that shape, true where an event is, from a file's content and a text that names it in messages.

    Raises
    ------
    DatasetError : if two recordings have one number, or a file is damaged.
    OutputError : if the cache cannot be written.
    """
    for before, after in itertools.pairwise(recordings):
        if before.number == after.number:
            raise DatasetError(f"{place}: {before.name} and {after.name} have one number; each recording has its own.")
    steps, *frame = shape
    stored = (len(recordings), steps, packed_bytes(tuple(frame)))

    def make() -> Array:
        packed = np.empty(stored, np.uint8)
        with opened(place) as read:
            for row, recording in zip(packed, recordings, strict=True):
                frames = decode(read(recording.name), f"{place}: {recording.name}")
                row[:] = np.packbits(frames.reshape(steps, -1), axis=1)
        return packed

    states = " ".join(f"{r.number}:{r.state}" for r in recordings)
    return cached(name, f"{version} {states}", shape=stored, make=make)


def equal_count_frames(events: Array, *, frames: int, sensor_size: int, size: int) -> Array:
    """Cut a recording into frames, bool (frames, 2, size, size): channel 0 is OFF, channel 1 ON.

    Event k = 0 .. n - 1 in the order of time falls into slice ((k + 1) * frames - 1) // n. So slice i holds the
    events floor(i * n / frames) .. floor((i + 1) * n / frames) - 1: every event is in one slice, and where n is no
    multiple of ``frames`` the slices of one event more are spread evenly. An event at x, y sets the cell of column
    x * size // sensor_size and row y * size // sensor_size in its slice and its polarity's channel. Any number of
    events of a cell count as one; polarities never cancel, nor merge.

    Parameters
    ----------
    events : structured array (n,) with the fields t (any unit), x (column), y (row) and on (true is ON), in any order.
        Events of one time keep their order.
    frames : number of slices.
    sensor_size : pixels a side of the camera.
    size : cells a side of a frame.

    Raises
    ------
    DatasetError : if there are fewer events than frames, or one is off the sensor.
    """
    slices = equal_count_slices(events["t"], frames=frames)
    return frames_of(events, slices, frames=frames, sensor=(sensor_size, sensor_size), size=(size, size))


def equal_count_slices(times: Array, *, frames: int) -> Array:
    """(n,) in which of so many slices of equal count each event falls, see `equal_count_frames`.

    Raises
    ------
    DatasetError : if there are fewer events than frames.
    """
    count = len(times)
    if count < frames:
        raise DatasetError(f"{counted(count, 'event')}; {frames} frames need at least one event each")
    slices = np.empty(count, np.int64)
    slices[np.argsort(times, kind="stable")] = (np.arange(1, count + 1) * frames - 1) // count
    return slices


def slices_of(times: Array, *, frames: int, by: str, begin: float | None = None, length: float | None = None) -> Array:
    """(n,) in which of so many slices each event falls.

    Parameters
    ----------
    by : "count": of equal count; "time": of equal time, from ``begin`` on over ``length``; None: from the first event
        to the last.

    Raises
    ------
    DatasetError : if there are fewer events than frames of equal count, or none.
    """
    if by == "count":
        return equal_count_slices(times, frames=frames)
    if not len(times):
        raise DatasetError("no event")
    start = times.min() if begin is None else begin
    whole = times.max() - start + 1 if length is None else length
    return np.minimum(((times - start) * frames / whole).astype(np.int64), frames - 1)


def frames_of(events: Array, slices: Array, *, frames: int, sensor: tuple[int, int], size: tuple[int, int]) -> Array:
    """Set the cells of events in their frames: bool (frames, 2, *size), see `equal_count_frames`.

    Parameters
    ----------
    slices : (n,) frame of each event.
    sensor, size : height and width of the camera in pixels, and of a frame in cells.

    Raises
    ------
    DatasetError : if an event is off the sensor.
    """
    x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
    outside = (x < 0) | (x >= sensor[1]) | (y < 0) | (y >= sensor[0])
    if outside.any():
        raise DatasetError(
            f"an event at x = {x[outside][0]}, y = {y[outside][0]}; "
            f"the sensor has {sensor[1]}x{sensor[0]} pixels, counted from 0"
        )
    set_frames = np.zeros((frames, 2, *size), np.bool_)
    set_frames[slices, events["on"].astype(np.int64), y * size[0] // sensor[0], x * size[1] // sensor[1]] = True
    return set_frames
