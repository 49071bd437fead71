"""A simulated event camera before which pictures move, and the files of its recordings. No noise is added."""

import io
import itertools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsnn_lava.files import write_whole

Array = npt.NDArray[Any]

_THRESHOLD = 0.2
"""Change of brightness, whose range is [0, 1], after which a pixel sends an event."""
EVENT = np.dtype([("t", np.int64), ("x", np.int64), ("y", np.int64), ("on", np.bool_)])
"""An event: time in microseconds from the beginning, column, row, and whether the pixel became brighter."""


@dataclass(frozen=True)
class Movement:
    """How a picture moves before the camera: along straight legs, in small steps of equal time.

    Parameters
    ----------
    corners : (row, column) of the picture at the beginning and after each leg, in pixels, counted from the margin.
    margin : pixels of the sensor above the picture and left of it where both are zero.
    leg_steps : steps of a leg.
    step_microseconds : duration of a step; its events are spread over it at random.
    """

    corners: tuple[tuple[float, float], ...]
    margin: float
    leg_steps: int
    step_microseconds: int

    def positions(self) -> list[tuple[float, float]]:
        """(row, column) after every step."""
        corners = np.array(self.corners)
        shares = np.arange(1, self.leg_steps + 1)[:, None] / self.leg_steps
        legs = [a + shares * (b - a) for a, b in itertools.pairwise(corners)]
        return [(float(row), float(column)) for row, column in np.concatenate(legs)]

    def view(self, pictures: Array, position: tuple[float, float], sensor_size: int) -> Array:
        """What the camera sees, (n, sensor_size, sensor_size): pictures at that place, interpolated between pixels."""
        size = pictures.shape[-1]
        places = np.arange(sensor_size)[None, :] - np.array(position)[:, None] - self.margin  # where a pixel looks
        weights = np.maximum(0, 1 - np.abs(places[:, :, None] - np.arange(size)))  # (2, sensor_size, size)
        view: Array = weights[0] @ pictures @ weights[1].T
        return view


def recorded(pictures: Array, movement: Movement, *, sensor_size: int, generator: np.random.Generator) -> list[Array]:
    """The events of each picture, an array of type `EVENT` in the order of their times.

    A pixel sends an event whenever its brightness has changed by a threshold since its last one, one a step at most.

    Parameters
    ----------
    pictures : brightness, (n, size, size) in [0, 1].
    movement : the same for all pictures.
    sensor_size : pixels a side.
    generator : draws the times of events within a step.
    """
    last = movement.view(pictures, movement.corners[0], sensor_size)
    found = []
    for step, position in enumerate(movement.positions()):
        now = movement.view(pictures, position, sensor_size)
        change = now - last
        for polarity, sent in enumerate((change <= -_THRESHOLD, change >= _THRESHOLD)):
            sample, y, x = np.nonzero(sent)
            last[sent] = now[sent]
            duration = movement.step_microseconds
            time = step * duration + generator.integers(0, duration, len(sample))
            found.append(np.stack([sample, time, x, y, np.full(len(sample), polarity)]))
    table = np.concatenate(found, axis=1)
    sample, *columns = table[:, np.lexsort((table[1], table[0]))]  # by sample, then by time
    events = np.empty(len(sample), EVENT)
    for name, column in zip(("t", "x", "y", "on"), columns, strict=True):
        events[name] = column
    return np.split(events, np.searchsorted(sample, np.arange(1, len(pictures))))


def write_recordings(folder: Path, files: dict[str, bytes], *, archive: str = "") -> None:
    """Write files into the folder, or into the zip file of that name in it.

    Parameters
    ----------
    files : contents by name, with "/" between folders.
    archive : name of the zip file, which is the same for the same files; empty for files in folders.

    Raises
    ------
    OSError, OutputError : if they cannot be written.
    """
    if archive:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened_archive:
            for name, content in files.items():  # ZipInfo: always the same date
                opened_archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        write_whole(folder / archive, packed.getvalue())
        return
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
