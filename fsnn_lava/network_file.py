"""A hardware network as an HDF5 file, and back; ``docs/network-format.md`` describes every entry.

The file holds plain numbers and text: reading it never executes anything. `_Writer` and `_Reader` pass each entry
through one place, so that the checksum covers exactly what is written and read.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fsnn_lava.errors import NetworkError
from fsnn_lava.ir import (
    Array,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Neuron,
    Population,
    Readout,
)
from fsnn_lava.whole_file import write_whole

FORMAT = "fsnn-lava-network"
VERSION = 1

_LIBVER = ("v108", "v108")
"""The oldest HDF5 format that guards its own structure by checksums: damage there is an error, not a surprise."""

_INTEGER_NEURON = ("v_threshold", "reset_mantissa", "reset_exponent", "decay")
_FLOAT_NEURON = ("v_threshold", "reset_amount", "leak")


def save_network(network: HardwareNetwork, path: str | Path) -> None:
    """Nothing; afterwards the file holds the network, or, after an error, what it held before.

    Equal networks give equal bytes under one version of HDF5.

    Raises
    ------
    OutputError : if the file cannot be written.
    NetworkError : if the provenance is not JSON.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", libver=_LIBVER) as file:
        _write_network(_Writer(file), network)
    write_whole(Path(path), image.getvalue())


def load_network(path: str | Path) -> HardwareNetwork:
    """The network that `save_network` wrote.

    Raises
    ------
    NetworkError : naming the file and what is wrong with it: not HDF5, truncated, another version, an entry that is
        missing or of the wrong type or shape, a broken invariant, or content that does not fit its checksum.
    """
    where = f'network file "{path}"'
    if not Path(path).is_file():
        raise NetworkError(f"{where}: there is no such file; deploy/export.py writes network files")
    try:
        with h5py.File(path, "r") as file:
            return _read_network(_Reader(file))
    except NetworkError as error:
        raise NetworkError(f"{where}: {error}") from error
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise NetworkError(
            f"{where}: cannot be read as HDF5, it is truncated, damaged or something else ({error}); export it again"
        ) from error


# ---- entries -------------------------------------------------------------------------------------------


class _Checksum:
    """SHA-256 over all entries in the order of their labels, each hashed as label, type, sizes and bytes."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    def add(self, label: str, value: str | Array) -> None:
        if isinstance(value, str):
            kind, data = "text", value.encode()
            sizes = str(len(data))
        else:
            kind, sizes = value.dtype.name, ",".join(map(str, value.shape))
            data = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
        header = f"{label}\0{kind}\0{sizes}\0".encode()
        self._entries[label] = hashlib.sha256(header + data).digest()

    def hexdigest(self) -> str:
        labels = sorted(self._entries, key=str.encode)
        return hashlib.sha256(b"".join(self._entries[label] for label in labels)).hexdigest()


class _Writer:
    """Puts entries into a file and into the checksum. Groups are made on the way."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.checksum = _Checksum()

    def text(self, group: str, name: str, value: str) -> None:
        self.checksum.add(f"{group}@{name}", value)
        self._file.require_group(group).attrs[name] = _fixed_length(value)

    def long_text(self, group: str, name: str, value: str) -> None:
        """A dataset, because attributes are limited to 64 KiB."""
        self.checksum.add(f"{_joined(group, name)}", value)
        self._file.require_group(group).create_dataset(name, data=_fixed_length(value), track_times=False)

    def number(self, group: str, name: str, value: int | float, *, dtype: type[np.generic]) -> None:
        self.numbers(group, name, np.asarray(value, dtype))

    def numbers(self, group: str, name: str, value: Array) -> None:
        self.checksum.add(f"{group}@{name}", value)
        self._file.require_group(group).attrs[name] = value

    def array(self, group: str, name: str, value: Array) -> None:
        self.checksum.add(f"{_joined(group, name)}", value)
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


class _Reader:
    """Takes entries out of a file, refusing what is missing or of another type, and keeps their checksum."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.checksum = _Checksum()

    def groups(self, parent: str) -> list[str]:
        """Names of the numbered groups in a group: parent/000, parent/001, ..."""
        found = sorted(self._group(parent))
        expected = [f"{i:03d}" for i in range(len(found))]
        if sorted(expected) != found:
            raise NetworkError(f'group "{parent}" holds {found}; expected groups numbered from 000 without gaps')
        return [f"{parent}/{name}" for name in expected]

    def text(self, group: str, name: str) -> str:
        value = _decoded(f'attribute "{name}" of group "{group}"', self._attribute(group, name))
        self.checksum.add(f"{group}@{name}", value)
        return value

    def long_text(self, group: str, name: str) -> str:
        dataset = self._dataset(group, name, "text")
        value = _decoded(f'dataset "{_joined(group, name)}"', dataset[()])
        self.checksum.add(f"{_joined(group, name)}", value)
        return value

    def integer(self, group: str, name: str) -> int:
        return int(self._numbers(group, name, dtype=np.int64, ndim=0))

    def real(self, group: str, name: str) -> float:
        return float(self._numbers(group, name, dtype=np.float64, ndim=0))

    def shape(self, group: str, name: str) -> tuple[int, ...]:
        sizes = tuple(int(n) for n in self._numbers(group, name, dtype=np.int64, ndim=1))
        if any(n < 1 for n in sizes):
            raise NetworkError(f'attribute "{name}" of group "{group}" is {sizes}; expected sizes of at least 1')
        return sizes

    def array(self, group: str, name: str, *, dtype: type[np.generic], shape: tuple[int | None, ...]) -> Array:
        """A dataset; ``None`` in ``shape`` stands for any size."""
        expected = f"{np.dtype(dtype).name} of shape ({', '.join('any' if n is None else str(n) for n in shape)})"
        dataset = self._dataset(group, name, expected)
        fits = len(shape) == dataset.ndim and all(n in (None, m) for n, m in zip(shape, dataset.shape, strict=True))
        if dataset.dtype.newbyteorder("=") != np.dtype(dtype) or not fits:
            found = f"{dataset.dtype} of shape {dataset.shape}"
            raise NetworkError(f'dataset "{_joined(group, name)}" is {found}; expected {expected}')
        value = np.asarray(dataset[()], dtype)
        self.checksum.add(f"{_joined(group, name)}", value)
        return value

    def stored_checksum(self) -> str:
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


# ---- network to entries --------------------------------------------------------------------------------


def _write_network(writer: _Writer, network: HardwareNetwork) -> None:
    writer.text("/", "format", FORMAT)
    writer.number("/", "version", VERSION, dtype=np.int64)
    writer.text("/", "name", network.name)
    writer.text("/", "arithmetic", network.arithmetic)
    writer.number("/", "time_steps", network.time_steps, dtype=np.int64)
    writer.long_text("/", "provenance", _provenance_text(network))
    writer.text("/input", "kind", network.input.kind)
    writer.number("/input", "maximum", network.input.maximum, dtype=np.int64)
    writer.numbers("/input", "shape", np.asarray(network.input.shape, np.int64))
    for i, population in enumerate(network.populations):
        _write_population(writer, f"/populations/{i:03d}", population)
    for i, connection in enumerate(network.connections):
        _write_connection(writer, f"/connections/{i:03d}", connection)
    writer.text("/readout", "source", network.readout.source)
    writer.array("/readout", "weight", network.readout.weight.astype(np.float64))
    writer.array("/readout", "bias", network.readout.bias.astype(np.float64))
    writer.text("/", "checksum", writer.checksum.hexdigest())


def _write_population(writer: _Writer, group: str, population: Population) -> None:
    writer.text(group, "name", population.name)
    writer.numbers(group, "shape", np.asarray(population.shape, np.int64))
    writer.number(group, "start", population.start, dtype=np.int64)
    neuron = population.neuron
    if isinstance(neuron, IntegerNeuron):
        for name in _INTEGER_NEURON:
            writer.number(group, name, getattr(neuron, name), dtype=np.int64)
        writer.number(group, "scale", neuron.scale, dtype=np.float64)
    else:
        for name in _FLOAT_NEURON:
            writer.number(group, name, getattr(neuron, name), dtype=np.float64)


def _write_connection(writer: _Writer, group: str, connection: Connection) -> None:
    for name in ("name", "source", "target"):
        writer.text(group, name, getattr(connection, name))
    for name in ("delay", "weight_exponent", "weight_bits"):
        writer.number(group, name, getattr(connection, name), dtype=np.int64)
    integer = connection.weight.dtype == np.int32  # mantissas of at most 8 bits
    writer.array(group, "weight", connection.weight.astype(np.int8) if integer else connection.weight)


def _provenance_text(network: HardwareNetwork) -> str:
    try:
        return json.dumps(dict(network.provenance), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NetworkError(
            f'network "{network.name}": the provenance is not JSON ({error}); use text, finite numbers, lists, dicts'
        ) from error


# ---- entries to network --------------------------------------------------------------------------------


def _read_network(reader: _Reader) -> HardwareNetwork:
    _check_header(reader)
    arithmetic = reader.text("/", "arithmetic")
    if arithmetic not in ("float", "integer"):
        raise NetworkError(f'arithmetic is "{arithmetic}"; expected "float" or "integer"')
    name = reader.text("/", "name")
    time_steps = reader.integer("/", "time_steps")
    provenance = _read_provenance(reader)
    spec = _read_input(reader)
    populations = tuple(_read_population(reader, g, arithmetic) for g in reader.groups("/populations"))
    connections = tuple(_read_connection(reader, g, arithmetic) for g in reader.groups("/connections"))
    source = reader.text("/readout", "source")
    weight = reader.array("/readout", "weight", dtype=np.float64, shape=(None, None))
    readout = Readout(source, weight, reader.array("/readout", "bias", dtype=np.float64, shape=(len(weight),)))
    network = HardwareNetwork(name, spec, populations, connections, readout, time_steps, provenance)
    found, stored = reader.checksum.hexdigest(), reader.stored_checksum()
    if found != stored:
        raise NetworkError(f"content has checksum {found}, the file says {stored}: it was altered; export it again")
    return network


def _check_header(reader: _Reader) -> None:
    kind = reader.text("/", "format")
    if kind != FORMAT:
        raise NetworkError(f'format is "{kind}"; expected "{FORMAT}"')
    version = reader.integer("/", "version")
    if version != VERSION:
        raise NetworkError(f"version {version}; this release reads version {VERSION}; export the network again")


def _read_provenance(reader: _Reader) -> Mapping[str, Any]:
    try:
        provenance = json.loads(reader.long_text("/", "provenance"))
    except ValueError as error:
        raise NetworkError(f'dataset "/provenance" is not JSON ({error})') from error
    if not isinstance(provenance, dict):
        raise NetworkError(f'dataset "/provenance" holds a {type(provenance).__name__}; expected a JSON object')
    return provenance


def _read_input(reader: _Reader) -> InputSpec:
    kind = reader.text("/input", "kind")
    if kind != "graded" and kind != "event":
        raise NetworkError(f'input kind is "{kind}"; expected "graded" or "event"')
    return InputSpec(reader.shape("/input", "shape"), kind, reader.integer("/input", "maximum"))  # type: ignore[arg-type]


def _read_population(reader: _Reader, group: str, arithmetic: str) -> Population:
    neuron: Neuron
    if arithmetic == "integer":
        integers = {name: reader.integer(group, name) for name in _INTEGER_NEURON}
        neuron = IntegerNeuron(**integers, scale=reader.real(group, "scale"))
    else:
        neuron = FloatNeuron(**{name: reader.real(group, name) for name in _FLOAT_NEURON})
    name = reader.text(group, "name")
    return Population(name, reader.shape(group, "shape"), neuron, reader.integer(group, "start"))


def _read_connection(reader: _Reader, group: str, arithmetic: str) -> Connection:
    integer = arithmetic == "integer"
    weight = reader.array(group, "weight", dtype=np.int8 if integer else np.float64, shape=(None, None))
    return Connection(
        name=reader.text(group, "name"),
        source=reader.text(group, "source"),
        target=reader.text(group, "target"),
        weight=weight.astype(np.int32) if integer else weight,
        delay=reader.integer(group, "delay"),
        weight_exponent=reader.integer(group, "weight_exponent"),
        weight_bits=reader.integer(group, "weight_bits"),
    )
