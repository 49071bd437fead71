"""A folder of class folders of event recordings: frames of 0 and 1, one for each time step.

``train/CLASS/*`` and ``test/CLASS/*``, or ``CLASS/*``: then a part is set aside by a hash of each file's name or, where
recordings are cut into windows, the late windows of each. `recordings` says which formats are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsnn_lava.config import DataConfig
from fsnn_lava.datasets.event_files import frames_of, slices_of
from fsnn_lava.datasets.files import cached
from fsnn_lava.datasets.input_coding import Array, InputCoding
from fsnn_lava.datasets.own.class_folders import ClassFiles, class_files
from fsnn_lava.datasets.own.places import tests_by_hash
from fsnn_lava.datasets.own.recordings import READERS, read_events
from fsnn_lava.datasets.samples import Dataset, Samples, check_classes, packed_bytes
from fsnn_lava.errors import DatasetError, counted

_AS_DECODED = 1
"""Changes when the same files give other frames."""
_MICROSECONDS = 1000


def load_event_folder(path: Path, settings: DataConfig) -> Dataset:
    """Read the recordings.

    Raises
    ------
    DatasetError : if the sensor's size is not given, a recording is damaged, empty, or larger than the sensor, a class
        has none, or the two parts have other classes.
    MissingDependencyError : if tonic and aedat, which read AEDAT4, are absent.
    """
    if not settings.sensor_height:
        raise DatasetError(
            f"{path}: found recordings of events; say how large the sensor is: --data.sensor-height N "
            "--data.sensor-width N"
        )
    found = class_files(path, tuple(READERS), what="recording")
    sensor = settings.sensor_height, settings.sensor_width
    size = (settings.height, settings.width) if settings.height else sensor
    counts = [1] * len(found.files)
    if settings.window_ms:
        counts = [_windows(file, settings) for file in found.files]
    labels = np.repeat(found.labels, counts)
    tests = _tests(found, counts, settings, path)
    frame = (2, *size)
    stored = (len(labels), settings.frames, packed_bytes(frame))

    def make() -> Array:
        packed, place = np.empty(stored, np.uint8), 0
        for file, count in zip(found.files, counts, strict=True):
            for frames in _frames(file, count, settings, sensor=sensor, size=size):
                packed[place] = np.packbits(frames.reshape(settings.frames, -1), axis=1)
                place += 1
        return packed

    how = (settings.frames, settings.frames_by, settings.window_ms, sensor, size)
    codes = cached("events", f"{_AS_DECODED} {found.sha256} {how}", shape=stored, make=make)
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    train, test = (Samples(codes[which], labels[which], frame) for which in (~tests, tests))
    dataset = Dataset(str(path), train, test, frame, found.classes, coding, sha256=found.sha256)
    check_classes(dataset)
    return dataset


def _tests(found: ClassFiles, counts: Sequence[int], settings: DataConfig, path: Path) -> Array:
    """(n,) bool: which samples test."""
    if found.tests is not None:
        return np.repeat(found.tests, counts)
    if settings.window_ms:
        late = [np.arange(count) >= count - max(1, round(settings.test_share * count)) for count in counts]
        return np.concatenate(late)
    try:
        return tests_by_hash(found.names, found.labels, share=settings.test_share)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}; the classes are {', '.join(found.classes)}, from 0") from None


def _windows(file: Path, settings: DataConfig, *, least: int = 2) -> int:
    """How many whole windows a recording has."""
    times = read_events(file)["t"]
    count = int((times.max() - times.min() + 1) // (settings.window_ms * _MICROSECONDS))
    if count < least:
        length = (times.max() - times.min() + 1) / _MICROSECONDS
        needed = "at least 2, one for the test; make data.window_ms smaller" if least > 1 else "at least one"
        raise DatasetError(
            f"{file}: found a recording of {length:g} ms, {counted(count, 'whole window')} of "
            f"{settings.window_ms:g} ms; allowed: {needed}"
        )
    return count


def recording_frames(file: Path, settings: DataConfig) -> Array:
    """(n, T, 2, H, W) uint8 frames of a recording, or of each whole window of it.

    Raises
    ------
    DatasetError : if it cannot be read, or is shorter than a window.
    """
    sensor = settings.sensor_height, settings.sensor_width
    size = (settings.height, settings.width) if settings.height else sensor
    count = _windows(file, settings, least=1) if settings.window_ms else 1
    return np.stack(_frames(file, count, settings, sensor=sensor, size=size)).astype(np.uint8)


def _frames(
    file: Path, count: int, settings: DataConfig, *, sensor: tuple[int, int], size: tuple[int, int]
) -> list[Array]:
    """Frames of each window of a recording."""
    events = read_events(file)
    begin = int(events["t"].min())
    length = settings.window_ms * _MICROSECONDS if settings.window_ms else float(events["t"].max() - begin + 1)
    window = ((events["t"] - begin) // length).astype(np.int64)
    frames = []
    for number in range(count):
        part = events[window == number]
        try:
            slices = slices_of(
                part["t"],
                frames=settings.frames,
                by=settings.frames_by,
                begin=begin + number * length,
                length=length,
            )
            frames.append(frames_of(part, slices, frames=settings.frames, sensor=sensor, size=size))
        except DatasetError as error:
            where = f"{file}, window {number}" if settings.window_ms else str(file)
            raise DatasetError(f"{where}: {error}") from None
    return frames
