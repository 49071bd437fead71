"""Entries of an HDF5 file, written and read one by one: checked for presence, type and shape, under one checksum.

The files hold plain numbers and text: reading them never executes anything. `EntryWriter` and `EntryReader` pass each
entry through one place, so that the checksum covers exactly what is written and read.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from fsnn_lava.errors import NetworkError
from fsnn_lava.hardware.geometry import Array

Kinds = Mapping[str, type]
"""Name of each attribute of a group -> what it holds: str: text; int: int64; float: float64; tuple: int64 sizes."""
_DTYPES: dict[type, type[np.generic]] = {int: np.int64, float: np.float64, tuple: np.int64}


class Checksum:
    """SHA-256 over all entries in the order of their labels, each hashed as label, type, sizes and bytes."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    def add(self, label: str, value: str | Array) -> None:
        """Take in one entry."""
        if isinstance(value, str):
            kind, data = "text", value.encode()
            sizes = str(len(data))
        else:
            kind, sizes = value.dtype.name, ",".join(map(str, value.shape))
            data = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
        header = f"{label}\0{kind}\0{sizes}\0".encode()
        self._entries[label] = hashlib.sha256(header + data).digest()

    def hexdigest(self) -> str:
        """The checksum of all entries so far."""
        labels = sorted(self._entries, key=str.encode)
        return hashlib.sha256(b"".join(self._entries[label] for label in labels)).hexdigest()


class EntryWriter:
    """Writer of entries into a file and into the checksum. Groups are made on the way."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.checksum = Checksum()

    def group(self, name: str) -> None:
        """Make a group, should nothing be written into it."""
        self._file.require_group(name)

    def attributes(self, group: str, kinds: Kinds, values: object) -> None:
        """Write attributes; the values are those of an object's attributes of the same names."""
        for name, kind in kinds.items():
            self.attribute(group, name, kind, getattr(values, name))

    def attribute(self, group: str, name: str, kind: type, value: Any) -> None:
        """Write an attribute of a kind that `Kinds` lists."""
        entry: Any = value if kind is str else np.asarray(value, _DTYPES[kind])
        self.checksum.add(f"{group}@{name}", entry)
        self._file.require_group(group).attrs[name] = _fixed_length(entry) if kind is str else entry

    def text(self, group: str, name: str, value: str) -> None:
        """Write text as a dataset, because attributes are limited to 64 KiB."""
        self.checksum.add(_joined(group, name), value)
        self._file.require_group(group).create_dataset(name, data=_fixed_length(value), track_times=False)

    def array(self, group: str, name: str, value: Array) -> None:
        """Write a compressed dataset."""
        self.checksum.add(_joined(group, name), value)
        self._file.require_group(group).create_dataset(name, data=value, compression="gzip", track_times=False)


def _joined(group: str, name: str) -> str:
    return f"{group.rstrip('/')}/{name}"


def _decoded(where: str, value: Any) -> str:
    """Text, whether the file holds it in fixed or in variable length."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    raise NetworkError(f"{where} is a {type(value).__name__}; expected text")


def _fixed_length(text: str) -> Array:
    """Text of fixed length, which lies beside its name; HDF5 keeps text of variable length in unguarded heaps."""
    data = text.encode()
    return np.array(data, h5py.string_dtype("utf-8", max(len(data), 1)))


class EntryReader:
    """Reader of the entries of a file, which refuses what is missing or of another type and keeps their checksum.

    Raises
    ------
    NetworkError : in every method, naming the entry, what was found and what is expected.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.checksum = Checksum()

    def groups(self, parent: str) -> list[str]:
        """Names of the numbered groups in a group: parent/000, parent/001, ..."""
        found = sorted(self._group(parent))
        expected = [f"{i:03d}" for i in range(len(found))]
        if sorted(expected) != found:
            raise NetworkError(f'group "{parent}" holds {found}; expected groups numbered from 000 without gaps')
        return [f"{parent}/{name}" for name in expected]

    def attributes(self, group: str, kinds: Kinds) -> dict[str, Any]:
        """Attributes by name; sizes are at least 1."""
        return {name: self.attribute(group, name, kind) for name, kind in kinds.items()}

    def attribute(self, group: str, name: str, kind: type) -> Any:
        """An attribute of a kind that `Kinds` lists."""
        if kind is str:
            text = _decoded(f'attribute "{name}" of group "{group}"', self._attribute(group, name))
            self.checksum.add(f"{group}@{name}", text)
            return text
        numbers = self._numbers(group, name, dtype=_DTYPES[kind], ndim=1 if kind is tuple else 0)
        if kind is not tuple:
            return kind(numbers)
        sizes = tuple(int(n) for n in numbers)
        if any(n < 1 for n in sizes):
            raise NetworkError(f'attribute "{name}" of group "{group}" is {sizes}; expected sizes of at least 1')
        return sizes

    def text(self, group: str, name: str) -> str:
        """The text of a dataset."""
        value = _decoded(f'dataset "{_joined(group, name)}"', self._dataset(group, name, "text")[()])
        self.checksum.add(_joined(group, name), value)
        return value

    def array(self, group: str, name: str, *, dtype: type[np.generic], shape: tuple[int | None, ...]) -> Array:
        """A dataset; ``None`` in ``shape`` stands for any size."""
        expected = f"{np.dtype(dtype).name} of shape ({', '.join('any' if n is None else str(n) for n in shape)})"
        dataset = self._dataset(group, name, expected)
        fits = len(shape) == dataset.ndim and all(n in (None, m) for n, m in zip(shape, dataset.shape, strict=True))
        if dataset.dtype.newbyteorder("=") != np.dtype(dtype) or not fits:
            found = f"{dataset.dtype} of shape {dataset.shape}"
            raise NetworkError(f'dataset "{_joined(group, name)}" is {found}; expected {expected}')
        value = np.asarray(dataset[()], dtype)
        self.checksum.add(_joined(group, name), value)
        return value

    def stored_checksum(self) -> str:
        """The checksum that the file states."""
        return _decoded("the checksum", self._attribute("/", "checksum"))

    def _group(self, name: str) -> h5py.Group:
        group = self._file.get(name)
        if not isinstance(group, h5py.Group):
            raise NetworkError(f'group "{name}" is missing')
        return group

    def _dataset(self, group: str, name: str, expected: str) -> h5py.Dataset:
        dataset = self._group(group).get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise NetworkError(f'dataset "{_joined(group, name)}" is missing; expected {expected}')
        return dataset

    def _attribute(self, group: str, name: str) -> Any:
        attributes = self._group(group).attrs
        if name not in attributes:
            raise NetworkError(f'attribute "{name}" of group "{group}" is missing')
        return attributes[name]

    def _numbers(self, group: str, name: str, *, dtype: type[np.generic], ndim: int) -> Array:
        value = np.asarray(self._attribute(group, name))
        if value.dtype.newbyteorder("=") != np.dtype(dtype) or value.ndim != ndim:
            found = f"{value.dtype} with {value.ndim} dimension(s)"
            expected = f"{np.dtype(dtype).name} with {ndim}"
            raise NetworkError(f'attribute "{name}" of group "{group}" is {found}; expected {expected}')
        self.checksum.add(f"{group}@{name}", value.astype(dtype))
        return value
