"""Class folders: whose files are which samples, in two parts or in one, and a hash of all of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.files import read_bytes
from fsnn_lava.datasets.input_coding import Array
from fsnn_lava.errors import DatasetError

_PARTS = ("train", "test")


@dataclass(frozen=True, eq=False)
class ClassFiles:
    """The files of a folder of class folders.

    Parameters
    ----------
    files, names : paths, and the same from the folder on, with "/" on every system; in the order of classes and names.
    labels : (n,) int64, classes from 0.
    classes : their names, which are the folders'.
    tests : (n,) bool, which belong to the test part; None: the folder has no parts.
    sha256 : hash of all names and contents.
    """

    files: list[Path]
    names: list[str]
    labels: Array
    classes: tuple[str, ...]
    tests: Array | None
    sha256: str


def class_files(folder: Path, endings: Sequence[str], *, what: str) -> ClassFiles:
    """List the files of those endings; others are left alone.

    Parameters
    ----------
    what : a file is, for messages.

    Raises
    ------
    DatasetError : if there are no class folders, one has no such file, or the two parts have other classes.
    """
    parts = [folder / name for name in _PARTS if (folder / name).is_dir()]
    if len(parts) == 1:
        raise DatasetError(f"{folder}: found {parts[0].name}/ alone; expected train/ and test/, or class folders")
    files, labels, classes = _listed(parts[0] if parts else folder, endings, what)
    tests = None
    if parts:
        more, their_labels, theirs = _listed(parts[1], endings, what)
        if theirs != classes:
            odd = ", ".join(sorted(set(classes) ^ set(theirs)))
            raise DatasetError(
                f"{folder}: train/ and test/ differ in the classes {odd}; expected the same folders in both"
            )
        tests = np.repeat([False, True], [len(files), len(more)])
        files, labels = [*files, *more], np.concatenate([labels, their_labels])
    names = [file.relative_to(folder).as_posix() for file in files]
    contents = [hashlib.sha256(read_bytes(file)).hexdigest() for file in files]
    listed = "\n".join(f"{name} {content}" for name, content in sorted(zip(names, contents, strict=True)))
    return ClassFiles(files, names, labels, classes, tests, hashlib.sha256(listed.encode()).hexdigest())


def endings_in(folder: Path) -> set[str]:
    """Endings of the files in the class folders there, in small letters."""
    return {file.suffix.lower() for file in folder.rglob("*") if file.is_file()}


def _listed(folder: Path, endings: Sequence[str], what: str) -> tuple[list[Path], Array, tuple[str, ...]]:
    """Files in the order of their classes and names, their labels, and the classes' names."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DatasetError(f"{folder}: found no folders; expected one for each class, in which each {what} is a sample")
    files: list[Path] = []
    labels: list[int] = []
    for label, entry in enumerate(classes):
        found = sorted(file for file in entry.rglob("*") if file.suffix.lower() in endings and file.is_file())
        if not found:
            raise DatasetError(
                f"{entry}: found no {what}; expected files that end in {', '.join(endings)}; a folder that is no "
                "class, such as one of runs, belongs elsewhere"
            )
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, np.int64), tuple(entry.name for entry in classes)
