"""The user's folder for what can be made anew: decoded datasets and compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "FSNN_CACHE"
"""Environment variable that names the cache folder; without it, that of the operating system is taken."""


def user_cache() -> Path:
    """Return FSNN_CACHE or the system's folder, on Linux ~/.cache/fsnn-lava; it need not be there yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("fsnn-lava", appauthor=False))
