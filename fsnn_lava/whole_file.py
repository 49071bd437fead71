"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from fsnn_lava.errors import OutputError


def write_whole(path: Path, content: bytes) -> None:
    """Nothing; afterwards the file holds the content or, after an error or an interrupt, what it held before.

    It is written beside the file, flushed to the disk and renamed over it, so that a reader sees the old content or
    the new one, also after a kill or a power cut.

    Raises
    ------
    OutputError : if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; choose a folder that is there and writable"
        ) from error
