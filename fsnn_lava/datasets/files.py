"""Where the files of datasets are, how one is read, and decoded codes on disk, so that a file is decoded once.

A cache file is the codes' bytes and their CRC-32 (4 bytes, little-endian). One that is short or altered is made anew.
Its name holds a checksum of what it was made from; files of sources that are gone may be deleted at any time.
"""

import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.errors import DatasetError, OutputError
from fsnn_lava.files import CACHE_VARIABLE, known_format, user_cache, write_whole

DATA_VARIABLE = "FSNN_DATA"
"""Environment variable that names the folder of the datasets."""


def data_root(name: str, data_dir: Path | None, *, holds: str, how_to_get: str) -> Path:
    """Return the folder that holds the datasets: ``data_dir`` or, without it, what the variable FSNN_DATA names.

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
    return existing_folder(name, Path(chosen), expected)


def existing_folder(name: str, folder: Path, expected: str) -> Path:
    """Return the folder, or raise a DatasetError if it is none."""
    folder = folder.expanduser()
    if not folder.is_dir():
        found = "a file, not a folder" if folder.exists() else "not there"
        raise DatasetError(f"{name}: the data folder {folder} is {found}. {expected}".rstrip())
    return folder


def read_bytes(path: Path) -> bytes:
    """Return all of a file.

    Raises
    ------
    DatasetError : if it cannot be read, or is a Git LFS pointer.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}. Check its permissions, or get it again."
        ) from error
    if "Git LFS" in known_format(content[:32]):
        raise DatasetError(f"{path} does not hold the data.{known_format(content[:32])}")
    return content


def cached(name: str, source: str, *, shape: tuple[int, ...], make: Callable[[], Array]) -> Array:
    """Return decoded codes, uint8 of that shape: from the cache if they are in it, else made and put there.

    Parameters
    ----------
    name : what the file in the cache is called, before the checksum.
    source : text that changes when what the codes are made from, or how, changes.
    make : makes the codes.

    Raises
    ------
    OutputError : if the cache cannot be written.
    """
    folder = user_cache()
    path = folder / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:16]}.codes"
    codes = _kept(path, shape)
    if codes is not None:
        return codes
    try:
        folder.mkdir(parents=True, exist_ok=True)
        codes = np.ascontiguousarray(make())
        assert codes.dtype == np.uint8 and codes.shape == shape
        write_whole(path, b"".join((codes.data, zlib.crc32(codes.data).to_bytes(4, "little"))))
    except OSError as error:
        raise OutputError(
            f"{name}: decoded data cannot be kept in the cache folder {folder} ({error}). "
            f"Choose another folder with the environment variable {CACHE_VARIABLE}=DIR."
        ) from error
    return codes


def zip_contents(path: Path) -> list[zipfile.ZipInfo]:
    """List the contents of a zip or npz file; it holds each entry's size and checksum.

    Raises
    ------
    DatasetError : if the file cannot be read or is no zip file (truncated ones are none).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is not a whole zip file: {error}.{known_format(path)} Get it again.") from error


def _kept(path: Path, shape: tuple[int, ...]) -> Array | None:
    """Return what a cache file holds, or None if there is none or it is not whole."""
    try:
        content = np.fromfile(path, np.uint8)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(
            f"{path}: the cached data cannot be read ({error}). Delete the file, or choose another folder with the "
            f"environment variable {CACHE_VARIABLE}=DIR."
        ) from error
    codes, checksum = content[:-4], content[-4:]
    if codes.size != math.prod(shape) or zlib.crc32(codes.data) != int.from_bytes(checksum.tobytes(), "little"):
        return None
    return codes.reshape(shape)
