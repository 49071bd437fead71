"""Where a user's own data is, and how a part of it is set aside for the test."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.files import DATA_VARIABLE
from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.errors import DatasetError, counted

ARRAYS = ".npz"
"""Ending of a file of arrays."""


def is_place(name: str) -> bool:
    """Tell whether this is a path: it has a folder or the ending of a file of arrays, or it is there."""
    return name.endswith(ARRAYS) or len(Path(name).parts) > 1 or name in (".", "..") or Path(name).is_dir()


def found_at(name: str, data_dir: Path | None) -> Path:
    """Return where the file or folder is: there, or of the same name in the folder of the datasets.

    Raises
    ------
    DatasetError : if it is in none of these places.
    """
    given = Path(name).expanduser()
    root = data_dir or os.environ.get(DATA_VARIABLE)
    places = [given, *([] if root is None else [Path(root) / given.name])]
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(str(place.absolute()) for place in places)
    raise DatasetError(
        f'dataset "{name}": found nothing at {looked}; say where it is with --dataset PATH, or --data-dir FOLDER that '
        "holds it"
    )


def tests_by_hash(names: list[str], labels: Array, *, share: float, classes: Sequence[str]) -> Array:
    """(n,) bool: which samples test, by a hash of their names, so that more samples leave the others where they are.

    Of each class the share, rounded, one sample at least in either part.

    Parameters
    ----------
    classes : names of the classes, for messages.

    Raises
    ------
    DatasetError : if a class has a single sample.
    """
    keys = np.array([int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in names], np.uint64)
    return _of_each_class(keys, labels, share=share, classes=classes)


def tests_by_seed(labels: Array, *, share: float, seed: int, classes: Sequence[str]) -> Array:
    """(n,) bool: which samples test, drawn with a seed; of each class as `tests_by_hash`."""
    # The raw stream of a bit generator never changes between NumPy versions.
    return _of_each_class(np.random.PCG64(seed).random_raw(len(labels)), labels, share=share, classes=classes)


def _of_each_class(keys: Array, labels: Array, *, share: float, classes: Sequence[str]) -> Array:
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise DatasetError(
                f"class {classes[label]}: found {counted(len(members), 'sample')}, of which none is left to train or "
                "to test; allowed: at least 2, or a test part of its own"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        mask[members[np.argsort(keys[members], kind="stable")[:count]]] = True
    return mask
