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
    """Read the recordings, each once; where the cache has their frames, and the lengths that windows need, none.

    Raises
    ------
    DatasetError : if the sensor's size is not given, a recording is damaged, empty, or larger than the sensor, a class
        has none, the two parts have other classes, or a recording has no window for either part.
    MissingDependencyError : if tonic and aedat, which read AEDAT4, are absent.
    """
    if not settings.sensor_height:
        raise DatasetError(
            f"{path}: found recordings of events; say how large the sensor is: --data.sensor-height N "
            "--data.sensor-width N"
        )
    found = class_files(path, tuple(READERS), what="recording")
    sensor, size = _sizes(settings)
    frame = (2, *size)
    decoded: list[Array] = []

    def decode() -> Array:
        """Lengths of all recordings in microseconds, as 8 bytes each; their frames are left in `decoded`."""
        lengths = []
        for file, label in zip(found.files, found.labels, strict=True):
            events = read_events(file)
            lengths.append(_length(events))
            if settings.window_ms:
                _check_windows(file, lengths[-1], settings, label=found.classes[label], split=found.tests is None)
            frames = np.stack(_frames(file, events, settings))
            decoded.append(np.packbits(frames.reshape(*frames.shape[:2], -1), axis=2))
        return np.array(lengths, "<i8").view(np.uint8).reshape(-1, 8)

    counts = [1] * len(found.files)
    if settings.window_ms:
        # Of its own, since the number of windows, and so the shape of the frames, follows from it.
        source = f"{_AS_DECODED} {found.sha256}"
        lengths = cached("event-lengths", source, shape=(len(found.files), 8), make=decode).view("<i8")[:, 0]
        for file, label, length in zip(found.files, found.labels, lengths, strict=True):
            _check_windows(file, int(length), settings, label=found.classes[label], split=found.tests is None)
        counts = [_windows(int(length), settings) for length in lengths]
    labels = np.repeat(found.labels, counts)
    tests = _tests(found, counts, settings, path)

    def make() -> Array:
        if not decoded:
            decode()
        packed = np.concatenate(decoded)
        decoded.clear()
        return packed

    how = (settings.frames, settings.frames_by, settings.window_ms, sensor, size)
    stored = (len(labels), settings.frames, packed_bytes(frame))
    codes = cached("events", f"{_AS_DECODED} {found.sha256} {how}", shape=stored, make=make)
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    train, test = (Samples(codes[which], labels[which], frame) for which in (~tests, tests))
    dataset = Dataset(str(path), train, test, frame, found.classes, coding, sha256=found.sha256)
    check_classes(dataset)
    return dataset


def recording_frames(file: Path, settings: DataConfig) -> Array:
    """(n, T, 2, H, W) uint8 frames of a recording, or of each whole window of it.

    Raises
    ------
    DatasetError : if it cannot be read, or is shorter than a window.
    """
    events = read_events(file)
    if settings.window_ms and not _windows(_length(events), settings):
        few = _few_windows(file, _length(events), settings)
        raise DatasetError(f"{few}, on which the network was trained; allowed: at least one; give a longer recording")
    return np.stack(_frames(file, events, settings)).astype(np.uint8)


def _sizes(settings: DataConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the sensor in pixels, and of a frame in cells."""
    sensor = settings.sensor_height, settings.sensor_width
    return sensor, (settings.height, settings.width) if settings.height else sensor


def _frames(file: Path, events: Array, settings: DataConfig) -> list[Array]:
    """Frames of a recording, or of each whole window of it."""
    sensor, size = _sizes(settings)
    begin = int(events["t"].min())
    length = settings.window_ms * _MICROSECONDS if settings.window_ms else float(_length(events))
    window = ((events["t"] - begin) // length).astype(np.int64)
    frames = []
    for number in range(_windows(_length(events), settings) if settings.window_ms else 1):
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


# ---- windows, and which of them test ---------------------------------------------------------------------------------


def _length(events: Array) -> int:
    """Microseconds from the first event to the last, both included."""
    return int(events["t"].max() - events["t"].min() + 1)


def _windows(length: int, settings: DataConfig) -> int:
    """How many whole windows a recording of so many microseconds has."""
    return int(length // (settings.window_ms * _MICROSECONDS))


def _late(count: int, settings: DataConfig) -> int:
    """How many of its windows test, the late ones: the share, rounded, and at least one."""
    return max(1, round(settings.test_share * count))


def _few_windows(file: Path, length: int, settings: DataConfig) -> str:
    """What there is of windows, for messages."""
    count = counted(_windows(length, settings), "whole window")
    return f"{file}: found a recording of {length / _MICROSECONDS:g} ms, {count} of {settings.window_ms:g} ms"


def _check_windows(file: Path, length: int, settings: DataConfig, *, label: str, split: bool) -> None:
    """Raise if a recording has no window or, where its late ones are split off for the test, none that trains."""
    count = _windows(length, settings)
    few = f"{_few_windows(file, length, settings)}, in class {label}"
    if not count:
        raise DatasetError(f"{few}; allowed: at least one; make data.window_ms smaller, or remove the recording")
    late = _late(count, settings)
    if split and late >= count:
        raise DatasetError(
            f"{few}; data.test_share {settings.test_share:g} sets the last {late} aside for the test, at least one, "
            "and none is left to train; make data.window_ms or data.test_share smaller, or put recordings into train/ "
            "and test/"
        )


def _tests(found: ClassFiles, counts: Sequence[int], settings: DataConfig, path: Path) -> Array:
    """(n,) bool: which samples test."""
    if found.tests is not None:
        return np.repeat(found.tests, counts)
    if settings.window_ms:
        return np.concatenate([np.arange(count) >= count - _late(count, settings) for count in counts])
    try:
        return tests_by_hash(found.names, found.labels, share=settings.test_share, classes=found.classes)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}, or recordings in windows, with data.window_ms") from None
