"""CIFAR10-DVS: event-camera recordings of moving CIFAR-10 pictures, as 30 binary frames of equal event count.

The dataset is of Li, Liu, Ji, Li and Shi (Frontiers in Neuroscience 11:309, 2017): 1,000 recordings of each class by a
camera of 128x128 pixels. They are read from the AEDAT4 files that tonic distributes. `equal_count_frames` says how
events become frames; channel 0 of a frame is OFF and channel 1 is ON.

There is no official split. As usual, the first 90 % of each class, in the order of the numbers in the files' names, are
the training part (n * 9 // 10 of n recordings), and the rest the test part.
"""

import re
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.aedat4 import events_from_aedat4
from fsnn_lava.datasets.event_files import (
    SYNTHETIC_MARK,
    Recording,
    equal_count_frames,
    files_in,
    load_events,
    other_forms,
    place_of,
)
from fsnn_lava.datasets.files import data_root
from fsnn_lava.datasets.input_coding import Array, InputCoding
from fsnn_lava.datasets.samples import Dataset, Samples
from fsnn_lava.errors import DatasetError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FRAMES = 30
FRAME_SIZE = 48
SENSOR_SIZE = 128

_FRAME_SHAPE = (2, FRAME_SIZE, FRAME_SIZE)
_FOLDERS = ("cifar10_dvs", "CIFAR10DVS", "cifar10-dvs")
_FULL_SIZES = (9000, 1000)
_EXPECTED = "cifar10_<class>_<number>.aedat4"
_HOW_TO_GET = (
    "Get it from https://figshare.com/ndownloader/files/38023437 (CIFAR10DVS.zip, the AEDAT4 files of tonic) and put "
    "airplane.zip .. truck.zip, or the folders airplane/ .. truck/ that they hold, into cifar10_dvs/ there."
)


def load_cifar10_dvs(data_dir: Path | None) -> Dataset:
    """Read CIFAR10-DVS: 9,000 + 1,000 recordings, or as many as are there; each 30 frames of (2, 48, 48), packed.

    Both parts hold the first recording of each class, then the second of each, and so on.

    Raises
    ------
    MissingDependencyError : if tonic or aedat is absent, unless the frames are in the cache already.
    """
    root = data_root("cifar10_dvs", data_dir, holds="cifar10_dvs", how_to_get=_HOW_TO_GET)
    found = [(folder, [place_of(root / folder, name) for name in CLASSES]) for folder in _FOLDERS]
    folder, places = next((f for f in found if any(f[1])), found[0])
    missing = [name for name, place in zip(CLASSES, places, strict=True) if place is None]
    if missing:
        looked = "\n  ".join(f"{root / f}/{name}.zip or {name}/" for f in _FOLDERS for name in missing)
        raise DatasetError(f"cifar10_dvs: {', '.join(missing)} is missing. Looked at:\n  {looked}\n{_HOW_TO_GET}")
    frames = [_read(place, name) for place, name in zip(places, CLASSES, strict=True) if place]
    cuts = [len(of_class) * 9 // 10 for of_class in frames]
    train = _in_turn([of_class[:cut] for of_class, cut in zip(frames, cuts, strict=True)])
    test = _in_turn([of_class[cut:] for of_class, cut in zip(frames, cuts, strict=True)])
    notes = ["synthetic recordings"] if (root / folder / SYNTHETIC_MARK).exists() else []
    if (len(train), len(test)) != _FULL_SIZES:
        notes.append(f"{len(train):,} + {len(test):,} samples")
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    return Dataset("cifar10_dvs", train, test, _FRAME_SHAPE, CLASSES, coding, note=", ".join(notes))


def _in_turn(frames: list[Array]) -> Samples:
    """Take one sample of each class after another, each class in its order."""
    labels = np.repeat(np.arange(len(frames)), [len(of_class) for of_class in frames])
    places = np.concatenate([np.arange(len(of_class)) for of_class in frames])
    order = np.lexsort((labels, places))
    return Samples(np.concatenate(frames)[order], labels[order].astype(np.int64), _FRAME_SHAPE)


def _read(place: Path, name: str) -> Array:
    """Read packed frames of a class, (n, T, bytes) uint8, in the order of the files' numbers."""
    return load_events(
        place,
        _recordings(place, name),
        name=f"cifar10_dvs-{name}",
        version=f"CIFAR10-DVS 1 {FRAMES} {FRAME_SIZE}",
        shape=(FRAMES, *_FRAME_SHAPE),
        decode=_frames,
    )


def _recordings(place: Path, name: str) -> list[Recording]:
    """List the recordings of a class in a zip file or folder, by number."""
    found = []
    for file, state in files_in(place, "*"):
        base = re.split(r"[/\\]", file)[-1]
        if base.startswith(".") or not base.endswith(".aedat4"):
            continue  # not a recording: a readme, or what a file system leaves behind
        match = re.fullmatch(r"cifar10_([a-z]+)_([0-9]+)\.aedat4", base)
        if match is None or match[1] != name:
            raise DatasetError(f"{place}: found {file}; expected {_EXPECTED} of the class {name}.")
        found.append(Recording(int(match[2]), file, state))
    if not found:
        expected = f"expected files {_EXPECTED}.{other_forms(place)}"
        raise DatasetError(f"{place}: holds no recordings; {expected} {_HOW_TO_GET}")
    return sorted(found, key=lambda r: r.number)


def _frames(raw: bytes, source: str) -> Array:
    events = events_from_aedat4(raw, source)
    try:
        return equal_count_frames(events, frames=FRAMES, sensor_size=SENSOR_SIZE, size=FRAME_SIZE)
    except DatasetError as error:
        raise DatasetError(f"{source}: {error}. It is damaged or of another dataset; get it again.") from error
