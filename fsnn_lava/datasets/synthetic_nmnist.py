"""Made-up N-MNIST recordings in the real file format, for tests and for those who have not the data.

A digit of 8x8 pixels is enlarged and moved before a simulated event camera along the three saccades of the original,
which form a triangle and take 100 ms each. A pixel sends an event whenever its brightness has changed by a threshold
since its last one. No noise is added.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsnn_lava.datasets.digits import load_digits
from fsnn_lava.datasets.nmnist import SENSOR_SIZE, SYNTHETIC_MARK
from fsnn_lava.errors import DatasetError, OutputError
from fsnn_lava.samples import Samples
from fsnn_lava.whole_file import write_whole

Array = npt.NDArray[Any]

_ENLARGED = 3
_CORNERS = ((0.0, 0.0), (7.0, 3.5), (0.0, 7.0), (0.0, 0.0))
"""Where the digit is at the beginning and after each saccade, (row, column) in pixels."""
_SACCADE_STEPS = 50
_STEP_MICROSECONDS = 2000
_MARGIN = 1.5
_THRESHOLD = 0.2
_CLASSES = 10


def write_synthetic_nmnist(folder: Path, *, train: int, test: int, seed: int, as_zip: bool = False) -> None:
    """Nothing; afterwards the folder holds recordings as the original does, and a file that says they are made up.

    The files are ``Train/<digit>/NNNNN.bin`` and ``Test/<digit>/NNNNN.bin``, of the same bytes for the same arguments.
    With ``nmnist`` as the folder's name, `load_dataset` finds them in the folder above.

    Parameters
    ----------
    folder : made if it is not there; it must not hold recordings already.
    train, test : recordings of each split, at least 10 and as many as there are digits in scikit-learn at most; every
        class occurs.
    seed : of the choice of digits, their order and the times of events within a step.
    as_zip : write ``Train.zip`` and ``Test.zip`` instead of the folders.

    Raises
    ------
    DatasetError : if the numbers are out of range, or the folder holds recordings already.
    OutputError : if it cannot be written.
    """
    digits = load_digits(None)
    parts = {"Train": (digits.train, train), "Test": (digits.test, test)}
    for part, (samples, count) in parts.items():
        if not _CLASSES <= count <= len(samples):
            raise DatasetError(f"{part}: cannot make {count} recordings; allowed: {_CLASSES} .. {len(samples)}.")
        if (folder / part).exists() or (folder / f"{part}.zip").exists():
            raise DatasetError(f"{folder} holds recordings already ({part}); choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / SYNTHETIC_MARK, b"Made-up recordings, not N-MNIST: moving 8x8 digits of scikit-learn.\n")
        for i, (part, (samples, count)) in enumerate(parts.items()):
            files = _recordings(part, samples, count, np.random.default_rng([seed, i]))
            _write_zip(folder / f"{part}.zip", files) if as_zip else _write_tree(folder, files)
    except OSError as error:
        raise OutputError(f"{folder}: recordings cannot be written ({error}); choose another folder") from error


def _write_tree(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _write_zip(path: Path, files: dict[str, bytes]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # ZipInfo: always the same date
    write_whole(path, packed.getvalue())


def _recordings(part: str, samples: Samples, count: int, generator: np.random.Generator) -> dict[str, bytes]:
    """Contents of a split's files by name; the first ten recordings are of ten classes."""
    shuffled = samples.select(generator.permutation(len(samples)))
    firsts = np.unique(shuffled.labels, return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(samples)), firsts)[: count - _CLASSES]
    chosen = shuffled.select(np.concatenate([generator.permutation(firsts), rest]))
    events = _events(chosen.codes[:, 0], generator)
    return {
        f"{part}/{label}/{number:05d}.bin": content
        for number, (label, content) in enumerate(zip(chosen.labels, events, strict=True), start=1)
    }


def _events(digits: Array, generator: np.random.Generator) -> list[bytes]:
    """5-byte events of each digit, in the order of their times.

    Parameters
    ----------
    digits : (n, 8, 8) in 0 .. 16.
    """
    scene = np.kron(digits / 16, np.ones((_ENLARGED, _ENLARGED)))
    last = _view(scene, (0.0, 0.0))
    found = []
    for step, position in enumerate(_path()):
        now = _view(scene, position)
        for polarity, change in enumerate((last - now, now - last)):
            sample, y, x = np.nonzero(change >= _THRESHOLD)
            time = step * _STEP_MICROSECONDS + generator.integers(0, _STEP_MICROSECONDS, len(sample))
            found.append(np.stack([sample, time, x, y, np.full(len(sample), polarity)]))
        last = np.where(np.abs(now - last) >= _THRESHOLD, now, last)
    table = np.concatenate(found, axis=1)
    sample, time, x, y, polarity = table[:, np.lexsort((table[1], table[0]))]  # by sample, then by time
    coded = np.stack([x, y, polarity << 7 | time >> 16, time >> 8 & 255, time & 255], axis=1).astype(np.uint8)
    borders = np.searchsorted(sample, np.arange(1, len(digits)))
    return [part.tobytes() for part in np.split(coded, borders)]


def _path() -> list[tuple[float, float]]:
    """(row, column) of the digit after every step of the three saccades."""
    corners = np.array(_CORNERS)
    shares = np.arange(1, _SACCADE_STEPS + 1)[:, None] / _SACCADE_STEPS
    legs = [a + shares * (b - a) for a, b in itertools.pairwise(corners)]
    return [(float(row), float(column)) for row, column in np.concatenate(legs)]


def _view(scene: Array, position: tuple[float, float]) -> Array:
    """What the camera sees, (n, 34, 34) in [0, 1]: the scene at that place, between pixels interpolated."""
    size = scene.shape[-1]
    places = np.arange(SENSOR_SIZE)[None, :] - np.array(position)[:, None] - _MARGIN  # where a pixel looks
    weights = np.maximum(0, 1 - np.abs(places[:, :, None] - np.arange(size)))  # (2, 34, size)
    view: Array = weights[0] @ scene @ weights[1].T
    return view
