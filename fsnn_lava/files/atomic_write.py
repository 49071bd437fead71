"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path

from fsnn_lava.errors import OutputError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: after an error or interrupt it holds what it held before.

    It is written beside the file, flushed to the disk and renamed over it, so that a reader sees the old content or
    the new one, also after a kill or a power cut.

    Raises
    ------
    OutputError : if it cannot be written.
    """
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        put_in_place(temporary, path)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise not_writable(path, error) from error
        raise


def temporary_beside(path: Path) -> Path:
    """Return a name in the same folder under which a file is written before it is renamed."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def put_in_place(temporary: Path, path: Path) -> None:
    """Flush the temporary file to the disk, and rename it over the other one."""
    _flush(temporary)
    os.replace(temporary, path)
    _flush(path.parent)


def not_writable(path: Path, error: OSError) -> OutputError:
    """Return the error for a file that the system does not let us write."""
    return OutputError(
        f"{path}: cannot be written: {error.strerror or error}; choose a folder that is there and writable"
    )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
