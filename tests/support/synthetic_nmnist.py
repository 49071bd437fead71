"""Made-up N-MNIST recordings in the real file format, for tests and for those who have not the data.

A digit of 8x8 pixels is enlarged and moved before a simulated event camera along the three saccades of the original,
which form a triangle and take 100 ms each.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsnn_lava.datasets import Samples
from fsnn_lava.datasets.digits import load_digits
from fsnn_lava.datasets.event_files import SYNTHETIC_MARK
from fsnn_lava.datasets.nmnist import SENSOR_SIZE
from fsnn_lava.errors import DatasetError, OutputError
from fsnn_lava.files.atomic_write import write_whole
from made_up_events import Movement, recorded, write_recordings

Array = npt.NDArray[Any]

_ENLARGED = 3
_SACCADES = Movement(
    corners=((0.0, 0.0), (7.0, 3.5), (0.0, 7.0), (0.0, 0.0)), margin=1.5, leg_steps=50, step_microseconds=2000
)
_CLASSES = 10


def write_synthetic_nmnist(folder: Path, *, train: int, test: int, seed: int, as_zip: bool = False) -> None:
    """Write recordings as the original holds them, and a file that says they are made up.

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
            write_recordings(folder, files, archive=f"{part}.zip" if as_zip else "")
    except OSError as error:
        raise OutputError(f"{folder}: recordings cannot be written ({error}); choose another folder") from error


def _recordings(part: str, samples: Samples, count: int, generator: np.random.Generator) -> dict[str, bytes]:
    """Contents of a split's files by name; the first ten recordings are of ten classes."""
    shuffled = samples.select(generator.permutation(len(samples)))
    firsts = np.unique(shuffled.labels, return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(samples)), firsts)[: count - _CLASSES]
    chosen = shuffled.select(np.concatenate([generator.permutation(firsts), rest]))
    pictures = np.kron(chosen.codes[:, 0] / 16, np.ones((_ENLARGED, _ENLARGED)))
    events = recorded(pictures, _SACCADES, sensor_size=SENSOR_SIZE, generator=generator)
    return {
        f"{part}/{label}/{number:05d}.bin": _coded(recording)
        for number, (label, recording) in enumerate(zip(chosen.labels, events, strict=True), start=1)
    }


def _coded(events: Array) -> bytes:
    """The events, 5 bytes each."""
    time, x, y, polarity = events["t"], events["x"], events["y"], events["on"].astype(np.int64)
    coded: Array = np.stack([x, y, polarity << 7 | time >> 16, time >> 8 & 255, time & 255], axis=1).astype(np.uint8)
    return coded.tobytes()
