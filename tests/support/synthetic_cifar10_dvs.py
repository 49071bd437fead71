"""Made-up CIFAR10-DVS recordings in the real file format, for tests and for those who have not the data.

The ten classes are the digits 0 .. 9: one of 8x8 pixels is enlarged and moved before a simulated event camera of
128x128 pixels around a closed loop of four diagonal legs, as the pictures of the original are.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aedat4_writer import aedat4_from_events
from fsnn_lava.datasets.cifar10_dvs import CLASSES, SENSOR_SIZE
from fsnn_lava.datasets.digits import load_digits
from fsnn_lava.datasets.event_files import SYNTHETIC_MARK
from fsnn_lava.errors import DatasetError, OutputError
from fsnn_lava.files.atomic_write import write_whole
from made_up_events import Movement, recorded, write_recordings

Array = npt.NDArray[Any]

_ENLARGED = 8
_LOOP = Movement(
    corners=((0.0, 8.0), (8.0, 16.0), (16.0, 8.0), (8.0, 0.0), (0.0, 8.0)),
    margin=24.0,
    leg_steps=8,
    step_microseconds=10_000,
)
_LEAST = 10
"""Recordings of a class, so that the last tenth is at least one."""


def write_synthetic_cifar10_dvs(folder: Path, *, recordings: int, seed: int, as_zip: bool = False) -> None:
    """Write recordings as the original holds them, and a file that says they are made up.

    The files are ``<class>/cifar10_<class>_<number>.aedat4``, of the same bytes for the same arguments. With
    ``cifar10_dvs`` as the folder's name, `load_dataset` finds them in the folder above.

    Parameters
    ----------
    folder : made if it is not there; it must not hold recordings already.
    recordings : of each class, at least 10 and as many as there are of each digit in scikit-learn at most. No digit
        is recorded twice.
    seed : of the choice of digits and of the times of events within a step.
    as_zip : write ``airplane.zip`` and so on instead of the folders.

    Raises
    ------
    DatasetError : if the number is out of range, or the folder holds recordings already.
    OutputError : if it cannot be written.
    """
    digits = load_digits(None)
    codes = np.concatenate([digits.train.codes, digits.test.codes])[:, 0]
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    most = int(np.bincount(labels).min())
    if not _LEAST <= recordings <= most:
        raise DatasetError(f"cannot make {recordings} recordings of each class; allowed: {_LEAST} .. {most}.")
    for name in CLASSES:
        if (folder / name).exists() or (folder / f"{name}.zip").exists():
            raise DatasetError(f"{folder} holds recordings already ({name}); choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note = b"Made-up recordings, not CIFAR10-DVS: moving 8x8 digits of scikit-learn.\n"
        write_whole(folder / SYNTHETIC_MARK, note)
        for label, name in enumerate(CLASSES):
            files = _recordings(name, codes[labels == label], recordings, np.random.default_rng([seed, label]))
            write_recordings(folder, files, archive=f"{name}.zip" if as_zip else "")
    except OSError as error:
        raise OutputError(f"{folder}: recordings cannot be written ({error}); choose another folder") from error


def _recordings(name: str, digits: Array, count: int, generator: np.random.Generator) -> dict[str, bytes]:
    """Contents of the files of a class by name, each of another digit of (n, 8, 8)."""
    chosen = digits[generator.permutation(len(digits))[:count]]
    pictures = np.kron(chosen / 16, np.ones((_ENLARGED, _ENLARGED)))
    events = recorded(pictures, _LOOP, sensor_size=SENSOR_SIZE, generator=generator)
    return {
        f"{name}/cifar10_{name}_{number}.aedat4": aedat4_from_events(recording, sensor_size=SENSOR_SIZE)
        for number, recording in enumerate(events)
    }
