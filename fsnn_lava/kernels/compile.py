"""Compilation of the kernels by numba, and the cache that spares the next process from it.

Every kernel is decorated with `compiled` or `compiled_fused`. Numba's cache notices that a function's own file has
changed, but not another file whose compiled functions were built into it. So the machine code lies in a folder named
after the sources of all files that compile, in the user's cache folder or where NUMBA_CACHE_DIR says, never beside the
sources: a change in any of them begins a new folder. Folders that nothing has used for long are removed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from fsnn_lava.files import user_cache

Function = Callable[..., Any]

_PREFIX = "machine-code-"
_NEWEST = 4
"""So many folders are always left: those of other installations of the package, or of other branches."""
_UNUSED_S = 7 * 24 * 3600
"""The other ones are removed if no process has begun to use them for so many seconds."""


def compiled(function: Function) -> Function:
    """Compile the function on its first call; it releases Python's lock while it runs."""
    return _cached(function, nogil=True)


def compiled_fused(function: Function) -> Function:
    """Compile it likewise; a product and the sum that it goes into may be rounded once instead of twice (FMA)."""
    return _cached(function, nogil=True, fastmath={"contract"})


def _cached(function: Function, **options: Any) -> Function:
    njit: Any = numba.njit
    config: Any = numba.config
    before = config.CACHE_DIR
    folder = _cache_folder(before)
    if folder is None:  # numba would try the folder of the source: compile once per process instead
        return njit(**options)(function)  # type: ignore[no-any-return]
    config.CACHE_DIR = str(folder)  # read where a function is decorated
    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # code without a file, which numba cannot cache
        return njit(**options)(function)  # type: ignore[no-any-return]
    finally:
        config.CACHE_DIR = before


@functools.cache
def _cache_folder(chosen: str) -> Path | None:
    """Return the folder of these sources, below NUMBA_CACHE_DIR or the user's cache; None if it cannot be written."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        source = path.read_bytes()
        if b"kernels.compile" in source or b"numba" in source:
            digest.update(str(path.relative_to(package)).encode() + b"\0" + source + b"\0")
    root = Path(chosen) if chosen else user_cache()
    folder = root / f"{_PREFIX}{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.utime(folder)  # in use from now on
    except OSError:
        return None
    _remove_unused(root)
    return folder


def _remove_unused(root: Path) -> None:
    """Remove the folders of older sources; a process that still runs with them would compile and go on."""
    with contextlib.suppress(OSError):  # another process removes the same folders
        used = sorted(((folder.stat().st_mtime, folder) for folder in root.glob(f"{_PREFIX}*")), reverse=True)
        for since, folder in used[_NEWEST:]:
            if time.time() - since > _UNUSED_S:
                shutil.rmtree(folder, ignore_errors=True)
