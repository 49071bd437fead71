"""Recordings of event cameras as they lie on disk: many small files in a zip file or in a folder."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fsnn_lava.datasets.cache import zip_contents
from fsnn_lava.datasets.files import read_bytes
from fsnn_lava.errors import DatasetError
from fsnn_lava.files import write_whole

SYNTHETIC_MARK = "SYNTHETIC.txt"
"""A folder that holds a file of this name holds made-up recordings, and the dataset's note says so."""


def place_of(folder: Path, name: str) -> Path | None:
    """Where the recordings of that name are: ``<name>.zip``, also in small letters, or ``<name>/``; None if nowhere."""
    for archive in (f"{name}.zip", f"{name.lower()}.zip"):
        if (folder / archive).is_file():
            return folder / archive
    return folder / name if (folder / name).is_dir() else None


def files_in(place: Path, pattern: str) -> list[tuple[str, str]]:
    """Name and state of each file; the state is text that changes with the file's content.

    Parameters
    ----------
    place : zip file, all of whose files are listed, or folder.
    pattern : which files of a folder are listed.

    Raises
    ------
    DatasetError : if the zip file cannot be read.
    """
    if place.suffix == ".zip":
        return [(e.filename, f"{e.file_size}:{e.CRC}") for e in zip_contents(place) if not e.is_dir()]
    stats = [(path, path.stat()) for path in place.glob(pattern)]
    return [(str(path), f"{s.st_size}:{s.st_mtime_ns}") for path, s in stats]


@contextmanager
def opened(place: Path) -> Iterator[Callable[[str], bytes]]:
    """A function that reads a file by the name that `files_in` gave; it raises a DatasetError if that is damaged."""
    if place.suffix != ".zip":
        yield lambda name: read_bytes(Path(name))
        return
    with zipfile.ZipFile(place) as archive:

        def read(name: str) -> bytes:
            try:
                return archive.read(name)
            except (OSError, zipfile.BadZipFile, zlib.error) as error:
                raise DatasetError(f"{place}: {name} is damaged: {error}. Get it again.") from error

        yield read


def write_recordings(folder: Path, files: dict[str, bytes], *, archive: str = "") -> None:
    """Nothing; afterwards the folder, or the zip file of that name in it, holds the files.

    Parameters
    ----------
    files : contents by name, with "/" between folders.
    archive : name of the zip file, which is the same for the same files; empty for files in folders.

    Raises
    ------
    OSError, OutputError : if they cannot be written.
    """
    if archive:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened_archive:
            for name, content in files.items():  # ZipInfo: always the same date
                opened_archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        write_whole(folder / archive, packed.getvalue())
        return
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
