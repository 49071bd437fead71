"""Where the files of datasets are, and how one is read."""

from __future__ import annotations

import os
from pathlib import Path

from fsnn_lava.errors import DatasetError

DATA_VARIABLE = "FSNN_DATA"
"""Environment variable that names the folder of the datasets."""


def data_root(name: str, data_dir: Path | None, *, holds: str, how_to_get: str) -> Path:
    """The folder that holds the datasets: ``data_dir`` or, without it, what the environment variable FSNN_DATA names.

    Parameters
    ----------
    name : of the dataset, for messages.
    holds : folder of the dataset within, for messages.
    how_to_get : sentence that says how to get the dataset.

    Raises
    ------
    DatasetError : if no folder is given, or it is not there.
    """
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    expected = f"Set {DATA_VARIABLE} or pass --data-dir to the folder that holds {holds}/. {how_to_get}"
    if not chosen:
        raise DatasetError(f"{name}: no data folder is given. {expected}")
    root = Path(chosen).expanduser()
    if not root.is_dir():
        raise DatasetError(f"{name}: the data folder {root} is not there. {expected}")
    return root


def read_bytes(path: Path) -> bytes:
    """All of a file.

    Raises
    ------
    DatasetError : if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}. Check its permissions, or get it again."
        ) from error
