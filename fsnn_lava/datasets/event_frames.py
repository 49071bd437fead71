"""Binary frames of equal event count: a recording cut by its number of events, not by its time."""

from __future__ import annotations

import numpy as np

from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.errors import DatasetError


def equal_count_frames(events: Array, *, frames: int, sensor_size: int, size: int) -> Array:
    """Frames of a recording, bool (frames, 2, size, size): channel 0 is OFF, channel 1 ON.

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
    count = len(events)
    if count < frames:
        raise DatasetError(f"{count} events; {frames} frames need at least one event each")
    x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
    outside = (x < 0) | (x >= sensor_size) | (y < 0) | (y >= sensor_size)
    if outside.any():
        raise DatasetError(
            f"an event at x = {x[outside][0]}, y = {y[outside][0]}; "
            f"the sensor has {sensor_size}x{sensor_size} pixels, counted from 0"
        )
    slices = np.empty(count, np.int64)
    slices[np.argsort(events["t"], kind="stable")] = (np.arange(1, count + 1) * frames - 1) // count
    set_frames = np.zeros((frames, 2, size, size), np.bool_)
    set_frames[slices, events["on"].astype(np.int64), y * size // sensor_size, x * size // sensor_size] = True
    return set_frames
