"""Decoded codes on disk, so that JPEG files and event recordings are decoded once.

A cache file is the codes' bytes and their CRC-32 (4 bytes, little-endian). One that is short or altered is made anew.
Its name holds a checksum of what it was made from; files of sources that are gone may be deleted at any time.
"""

from __future__ import annotations

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
from fsnn_lava.files import write_whole

CACHE_VARIABLE = "FSNN_CACHE"
"""Environment variable that names the cache folder; without it, fsnn-lava in XDG_CACHE_HOME or in ~/.cache."""


def cached(name: str, source: str, *, shape: tuple[int, ...], make: Callable[[], Array]) -> Array:
    """Decoded codes, uint8 of that shape: from the cache if they are in it, else made and put there.

    Parameters
    ----------
    name : what the file in the cache is called, before the checksum.
    source : text that changes when what the codes are made from, or how, changes.
    make : makes the codes.

    Raises
    ------
    OutputError : if the cache cannot be written.
    """
    folder = cache_folder()
    path = folder / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:16]}.codes"
    codes = _read(path, shape)
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


def cache_folder() -> Path:
    """The folder of decoded data; it need not be there yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fsnn-lava"


def zip_contents(path: Path) -> list[zipfile.ZipInfo]:
    """Table of contents of a zip or npz file; it holds each entry's size and checksum.

    Raises
    ------
    DatasetError : if the file cannot be read or is no zip file (truncated ones are none).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is not a sound zip file: {error}. Get it again.") from error


def _read(path: Path, shape: tuple[int, ...]) -> Array | None:
    """What a cache file holds, or None if there is none or it is not whole."""
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
