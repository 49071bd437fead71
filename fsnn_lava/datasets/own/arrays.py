"""Arrays in a file of NumPy's: ``x_train, y_train, x_test, y_test``, or ``x, y``, of which a part is set aside.

A file that `Dataset.save` wrote holds codes and what they stand for, and gives the same dataset again.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np

from fsnn_lava.config import DataConfig
from fsnn_lava.datasets.files import read_bytes
from fsnn_lava.datasets.input_coding import Array, InputCoding
from fsnn_lava.datasets.own.places import tests_by_seed
from fsnn_lava.datasets.samples import Augmentation, Dataset, check_classes, from_codes
from fsnn_lava.errors import DatasetError

_PARTS = ("x_train", "y_train", "x_test", "y_test")
_CHANNELS = (1, 3)
"""How many channels an image has, for it to be told where they are."""


def load_arrays(path: Path, settings: DataConfig) -> Dataset:
    """Read the arrays.

    Raises
    ------
    DatasetError : if the file is damaged, lacks an array, or an array is not what it should be.
    """
    arrays = _read(path)
    for name in ("grey", "height", "width"):
        if getattr(settings, name):
            raise DatasetError(f"{path}: data.{name} is a setting of folders of images; arrays are taken as they are")
    augmentation = Augmentation(0, flip=True) if settings.flip else None
    digest = digest_of(arrays)
    if "coding" in arrays:
        return _saved(path, arrays, augmentation, digest)
    if all(name in arrays for name in _PARTS):
        x_train, y_train, x_test, y_test = (arrays[name] for name in _PARTS)
    elif "x" in arrays and "y" in arrays:
        x, y = arrays["x"], arrays["y"]
        if y.ndim != 1 or x.ndim < 1 or len(x) != len(y):
            raise DatasetError(
                f"{path}: found x of shape {x.shape} and y of shape {y.shape}; expected one y for each x"
            )
        known, labels = np.unique(y, return_inverse=True)
        names = [str(value) for value in known.tolist()]
        try:
            tests = tests_by_seed(labels, share=settings.test_share, seed=settings.seed, classes=names)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from None
        x_train, y_train, x_test, y_test = x[~tests], y[~tests], x[tests], y[tests]
    else:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DatasetError(f"{path}: found the arrays {found}; expected {', '.join(_PARTS)}, or x, y")
    numbers, classes = _numbered(path, y_train, y_test)
    dataset = Dataset.from_arrays(
        _images(x_train), numbers[0], _images(x_test), numbers[1], name=str(path), classes=classes
    )
    return dataclasses.replace(dataset, augmentation=augmentation, sha256=digest)


def _read(path: Path) -> dict[str, Array]:
    content = read_bytes(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        kind = "arrays of Python objects are not read" if "pickle" in str(error) else str(error)
        raise DatasetError(
            f"{path}: cannot be read as a file of numpy.savez ({kind}; {len(content)} bytes); save plain numbers with "
            "numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
        ) from error


def digest_of(arrays: dict[str, Array]) -> str:
    """SHA-256 of all arrays by name, type and shape, however the file is compressed."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _numbered(path: Path, y_train: Array, y_test: Array) -> tuple[list[Array], list[str]]:
    """Labels from 0, and the classes' names: labels may be names, or any whole numbers."""
    for name, y in (("y_train", y_train), ("y_test", y_test)):
        if y.ndim != 1 or y.dtype.kind not in "iuUS":
            raise DatasetError(
                f"{path}: found labels {name} of type {y.dtype} and shape {y.shape}; expected (n,) whole numbers or "
                "names"
            )
    if {y_train.dtype.kind in "US", y_test.dtype.kind in "US"} == {True, False}:
        raise DatasetError(f"{path}: found names in one of y_train and y_test, and numbers in the other")
    known, places = np.unique(np.concatenate([y_train, y_test]), return_inverse=True)
    names = [value.decode() if isinstance(value, bytes) else str(value) for value in known.tolist()]
    return np.split(places.astype(np.int64), [len(y_train)]), names


def _images(x: Array) -> Array:
    """(n, C, H, W) of grey images (n, H, W), and of images whose channels come last; others as they are."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in _CHANNELS and x.shape[3] in _CHANNELS:
        return np.moveaxis(x, 3, 1)
    return x


def _saved(path: Path, arrays: dict[str, Array], augmentation: Augmentation | None, digest: str) -> Dataset:
    """The dataset that `Dataset.save` wrote."""
    try:
        coding = InputCoding.from_dict(json.loads(str(arrays["coding"])))
        codes, labels = ([arrays[f"{name}_{part}"] for part in ("train", "test")] for name in "xy")
        classes = tuple(map(str, arrays["classes"].tolist()))
        dataset = from_codes(
            str(path), codes, labels, classes=classes, coding=coding, augmentation=augmentation, sha256=digest
        )
    except (KeyError, TypeError, ValueError, DatasetError) as error:
        raise DatasetError(f"{path}: is no whole file of Dataset.save: {error}") from error
    check_classes(dataset)
    return dataset
