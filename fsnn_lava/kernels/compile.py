"""Python functions turned into machine code, which is kept for the next process wherever some folder takes it.

Numba's cache notices that a function's own file has changed, but not another file whose compiled functions were built
into it. So what is kept lies in a folder named after the sources of all files that compile: a change in any of them
begins a new one.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from fsnn_lava.files import user_cache

Function = Callable[..., Any]


def compiled(function: Function) -> Function:
    """The function as machine code, made on its first call; it releases Python's lock while it runs."""
    return _kept(function, nogil=True)


def compiled_fused(function: Function) -> Function:
    """The same; a product and the sum that it goes into may be rounded once instead of twice."""
    return _kept(function, nogil=True, fastmath={"contract"})


def _kept(function: Function, **options: Any) -> Function:
    njit: Any = numba.njit
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_cache_folder(before))  # read where a function is decorated
    try:
        machine_code: Function = njit(cache=True, **options)(function)
    except RuntimeError:  # Numba found no folder for its cache: compile once per process instead
        machine_code = njit(**options)(function)
    finally:
        config.CACHE_DIR = before
    return machine_code


@functools.cache
def _cache_folder(chosen: str) -> Path:
    """Folder named after the compiling sources: where Numba was told to keep it, else in the user's cache folder."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        source = path.read_bytes()
        if b"kernels.compile" in source or b"numba" in source:
            digest.update(str(path.relative_to(package)).encode() + b"\0" + source + b"\0")
    root = Path(chosen) if chosen else user_cache()
    return root / f"machine-code-{digest.hexdigest()[:16]}"
