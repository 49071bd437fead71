"""Python functions turned into machine code, which is kept for the next process wherever some folder takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, made on its first call; it releases Python's lock while it runs."""
    njit: Any = numba.njit
    machine_code: Callable[..., Any]
    try:
        machine_code = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # Numba found no folder for its cache: compile once per process instead
        machine_code = njit(nogil=True)(function)
    return machine_code
