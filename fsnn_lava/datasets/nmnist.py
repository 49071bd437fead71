"""N-MNIST: event-camera recordings of MNIST digits, as 30 binary frames of 3 ms.

A recording is a file ``Train/<digit>/NNNNN.bin`` of 5-byte events: x, y, then the polarity (1 bit, 1 is ON) and the
time in microseconds (23 bits). Channel 0 of a frame is OFF and channel 1 is ON. Several events of one pixel and
polarity within a frame count as one, and events from 90 ms on are left out: the first of the three saccades remains.
"""

import io
import re
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.event_files import SYNTHETIC_MARK, Recording, files_in, load_events, other_forms, place_of
from fsnn_lava.datasets.files import data_root
from fsnn_lava.datasets.input_coding import Array, InputCoding
from fsnn_lava.datasets.samples import Dataset, Samples
from fsnn_lava.errors import DatasetError, MissingDependencyError

FRAMES = 30
FRAME_MICROSECONDS = 3000
SENSOR_SIZE = 34

_FRAME_SHAPE = (2, SENSOR_SIZE, SENSOR_SIZE)
_FOLDERS = ("nmnist", "NMNIST", "nmnist-small")
_FULL_SIZES = (60_000, 10_000)
_HOW_TO_GET = (
    "Get it from https://www.garrickorchard.com/datasets/n-mnist and put Train.zip and Test.zip, or the folders "
    "Train/ and Test/ that they hold, into nmnist/ there."
)


def load_nmnist(data_dir: Path | None) -> Dataset:
    """Read N-MNIST: 60,000 + 10,000 recordings, or as many as are there; each 30 frames of (2, 34, 34), packed.

    Samples come in the order of the files' numbers, which is that of MNIST.

    Raises
    ------
    MissingDependencyError : if tonic is absent, unless the frames are in the cache already.
    """
    root = data_root("nmnist", data_dir, holds="nmnist", how_to_get=_HOW_TO_GET)
    places = [(root / f, place_of(root / f, "Train"), place_of(root / f, "Test")) for f in _FOLDERS]
    folder, train_place, test_place = next((p for p in places if p[1] or p[2]), places[0])
    if train_place is None or test_place is None:
        looked = "\n  ".join(f"{p[0]}/{part}.zip or {part}/" for p in places for part in ("Train", "Test"))
        part = "Train" if train_place is None else "Test"
        raise DatasetError(f"nmnist: {part} is missing. Looked at:\n  {looked}\n{_HOW_TO_GET}")
    train, test = _read(train_place, "train"), _read(test_place, "test")
    notes = ["synthetic recordings"] if (folder / SYNTHETIC_MARK).exists() else []
    if (len(train), len(test)) != _FULL_SIZES:
        notes.append(f"{len(train):,} + {len(test):,} samples")
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    return Dataset("nmnist", train, test, _FRAME_SHAPE, tuple("0123456789"), coding, note=", ".join(notes))


def _read(place: Path, part: str) -> Samples:
    """Read all samples of a split, their frames packed."""
    recordings = _recordings(place)
    if not recordings:
        expected = f"expected files <digit>/NNNNN.bin.{other_forms(place)}"
        raise DatasetError(f"{place}: holds no recordings; {expected} {_HOW_TO_GET}")
    stored = load_events(
        place,
        recordings,
        name=f"nmnist-{part}",
        version=f"N-MNIST 1 {FRAMES} {FRAME_MICROSECONDS}",
        shape=(FRAMES, *_FRAME_SHAPE),
        decode=_frames,
    )
    return Samples(stored, np.array([r.label for r in recordings], np.int64), _FRAME_SHAPE)


def _recordings(place: Path) -> list[Recording]:
    """List the recordings among the files of a zip file or folder, by number."""
    found = []
    for name, state in files_in(place, "*/*.bin"):
        match = re.search(r"(?:^|/)([^/]*)/([^/.]+)\.bin$", name)
        if match is None:
            continue  # not a recording: a readme, or what a file system leaves behind
        if not re.fullmatch("[0-9]", match[1]) or not re.fullmatch("[0-9]+", match[2]):
            raise DatasetError(f"{place}: found {name}; expected <digit>/NNNNN.bin with a digit 0 .. 9.")
        found.append(Recording(int(match[2]), name, f"{match[1]}:{state}", int(match[1])))
    return sorted(found, key=lambda r: r.number)


def _frames(raw: bytes, source: str) -> Array:
    """Make the frames of a recording, bool (T, 2, 34, 34); events are read and binned by tonic."""
    try:
        from tonic.datasets import NMNIST
        from tonic.io import read_mnist_file
        from tonic.transforms import ToFrame
    except ImportError as error:
        raise MissingDependencyError(
            'nmnist: its events are read by tonic; install it with: pip install "fsnn-lava[events]"'
        ) from error
    if not raw or len(raw) % 5:
        problem = f"{len(raw)} bytes, expected a multiple of 5, at least one event"
        raise DatasetError(f"{source} is truncated: {problem}. Get it again.")
    events = read_mnist_file(io.BytesIO(raw), dtype=NMNIST.dtype, is_stream=True)
    outside = (events["x"] >= SENSOR_SIZE) | (events["y"] >= SENSOR_SIZE)
    if outside.any():
        x, y = (int(events[axis][outside][0]) for axis in "xy")
        raise DatasetError(
            f"{source}: an event at x = {x}, y = {y}; the sensor has {SENSOR_SIZE}x{SENSOR_SIZE} "
            "pixels. The file is damaged or no recording of N-MNIST; get it again."
        )
    counts: Array = ToFrame(
        sensor_size=(SENSOR_SIZE, SENSOR_SIZE, 2),
        time_window=FRAME_MICROSECONDS,
        start_time=0,
        end_time=FRAMES * FRAME_MICROSECONDS,
    )(events[np.argsort(events["t"], kind="stable")])  # tonic searches times as sorted ones
    return counts > 0
