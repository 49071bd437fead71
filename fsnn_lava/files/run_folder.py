"""Folders: one per training, never overwritten; and the user's, for what can be made anew (datasets, kernels)."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import platformdirs

from fsnn_lava.errors import ConfigError, OutputError
from fsnn_lava.files.atomic_write import write_whole

CACHE_VARIABLE = "FSNN_CACHE"
"""Environment variable that names the cache folder; without it, that of the operating system is taken."""

SETTINGS = "config.json"
"""File of a training's run folder that is written first: its settings."""


def new_run_folder(parent: Path, name: str) -> Path:
    """Make a new folder parent/name, or parent/name-2, -3, ... if that exists.

    Raises
    ------
    OutputError : if it cannot be made.
    """
    folder = parent / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            try:
                folder.mkdir()
            except FileExistsError:
                folder = parent / f"{name}-{number}"
            else:
                break
    except OSError as error:
        message = f"folder {folder}: cannot be made ({error.strerror}); choose another with --runs"
        raise OutputError(message) from None
    return folder


def newest_run(parent: Path, holding: str) -> tuple[Path, list[Path]]:
    """Find the run folder below parent whose file of that name was written last, and newer ones without such a file.

    Raises
    ------
    ConfigError : if no run holds such a file.
    """
    found = sorted(parent.glob(f"*/{holding}"), key=_written)
    without = [path.parent for path in parent.glob(f"*/{SETTINGS}") if not (path.parent / holding).exists()]
    if not found:
        there = f"; without it: {', '.join(sorted(map(str, without)))}" if without else ""
        raise ConfigError(f"{parent}: no run holds {holding}{there}; train and export first: fsnn train")
    return found[-1].parent, sorted(path for path in without if _written(path / SETTINGS) > _written(found[-1]))


def _written(path: Path) -> float:
    return path.stat().st_mtime


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises
    ------
    OutputError : if it cannot be written; an older file stays as it was.
    """
    write_whole(path, text.encode())


def write_json(path: Path, values: Any) -> None:
    """Write JSON, whole or not at all; errors as `write_text`."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def user_cache() -> Path:
    """Return FSNN_CACHE or the system's folder, on Linux ~/.cache/fsnn-lava; it need not be there yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("fsnn-lava", appauthor=False))
