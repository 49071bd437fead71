"""A hardware network as an HDF5 file, and back; ``docs/network-format.md`` describes every entry.

The file holds plain numbers and text: reading it never executes anything.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fsnn_lava.errors import NetworkError
from fsnn_lava.files import write_whole
from fsnn_lava.hardware.geometry import DENSE, Convolution, Geometry, TransposedConvolution
from fsnn_lava.hardware.hdf5_entries import EntryReader, EntryWriter
from fsnn_lava.hardware.network import Connection, HardwareNetwork, InputSpec, Integrators, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron, Neuron

FORMAT = "fsnn-lava-network"
VERSIONS = (2, 3, 4, 5)
"""That are read, each with what the ones before have. 3: negative exponents of spikes and events. 4: a period. 5: reset
to zero, and currents that decay."""

_LIBVER = ("v108", "v108")
"""The oldest HDF5 format that guards its own structure by checksums: damage there is an error, not a surprise."""

_INPUT = {"kind": str, "maximum": int, "shape": tuple}
_POPULATION = {"name": str, "shape": tuple, "start": int}
_INTEGER_NEURON = {"v_threshold": int, "reset_mantissa": int, "reset_exponent": int, "decay": int, "scale": float}
_FLOAT_NEURON = {"v_threshold": float, "reset_amount": float, "leak": float}
_INTEGER_NEURON_5 = {"reset": str, "current_decay": int}
_FLOAT_NEURON_5 = {"reset": str, "current_leak": float}
_CONNECTION = {"name": str, "source": str, "target": str, "delay": int, "weight_exponent": int, "weight_bits": int}
_INTEGRATORS = {"weight_exponent": int, "weight_bits": int, "scale": float}
_GEOMETRIES = {type(DENSE): "dense", Convolution: "convolution", TransposedConvolution: "transposed_convolution"}
_GEOMETRY_NUMBERS = {"stride": 1, "padding": 0, "output_padding": 0}
"""Numbers of every connection's geometry, and what is written where a geometry has no such number."""


def save_network(network: HardwareNetwork, path: str | Path) -> None:
    """Write a network to a file; after an error the file is as it was before.

    Equal networks give equal bytes under one version of HDF5.

    Raises
    ------
    OutputError : if the file cannot be written.
    NetworkError : if the provenance is not JSON.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", libver=_LIBVER) as file:
        _write_network(EntryWriter(file), network)
    write_whole(Path(path), image.getvalue())


def load_network(path: str | Path) -> HardwareNetwork:
    """Read a network that `save_network` wrote.

    Raises
    ------
    NetworkError : naming the file and what is wrong with it: not HDF5, truncated, another version, an entry that is
        missing or of the wrong type or shape, a broken invariant, or content that does not fit its checksum.
    """
    where = f'network file "{path}"'
    if not Path(path).is_file():
        raise NetworkError(f"{where}: there is no such file; fsnn export writes network files")
    try:
        with h5py.File(path, "r") as file:
            return _read_network(EntryReader(file))
    except NetworkError as error:
        raise NetworkError(f"{where}: {error}") from error
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise NetworkError(
            f"{where}: cannot be read as HDF5, it is truncated, damaged or something else ({error}); export it again"
        ) from error


def _write_network(writer: EntryWriter, network: HardwareNetwork) -> None:
    writer.attribute("/", "format", str, FORMAT)
    writer.attribute("/", "version", int, _version(network))
    writer.attributes("/", {"name": str, "arithmetic": str, "time_steps": int}, network)
    writer.text("/", "provenance", metadata_text(network, dict(network.provenance)))
    writer.attributes("/input", _INPUT, network.input)
    neuron = _neuron_entries(network.arithmetic == "integer", _version(network))
    for i, population in enumerate(network.populations):
        writer.attributes(f"/populations/{i:03d}", _POPULATION, population)
        writer.attributes(f"/populations/{i:03d}", neuron, population.neuron)
    writer.group("/connections")
    for i, connection in enumerate(network.connections):
        _write_connection(writer, f"/connections/{i:03d}", connection, _version(network))
    _write_readout(writer, network.readout)
    writer.attribute("/", "checksum", str, writer.checksum.hexdigest())


def _version(network: HardwareNetwork) -> int:
    """The oldest one whose readers understand the network."""
    if any(p.neuron.reset != "subtract" or p.neuron.has_memory_of_current for p in network.populations):
        return 5
    if any(c.period != 1 for c in network.connections):
        return 4
    finer = any(c.weight_exponent < 0 and not network.is_graded(c) for c in network.connections)
    return 3 if finer else 2


def _neuron_entries(integer: bool, version: int) -> dict[str, type]:
    """Names and types of a neuron's numbers and words."""
    if integer:
        return _INTEGER_NEURON | (_INTEGER_NEURON_5 if version >= 5 else {})
    return _FLOAT_NEURON | (_FLOAT_NEURON_5 if version >= 5 else {})


def _connection_entries(version: int) -> dict[str, type]:
    """Names and types of a connection's numbers and words."""
    return _CONNECTION | ({"period": int} if version >= 4 else {})


def _write_connection(writer: EntryWriter, group: str, connection: Connection, version: int) -> None:
    writer.attributes(group, _connection_entries(version), connection)
    geometry = connection.geometry
    writer.attribute(group, "geometry", str, _GEOMETRIES[type(geometry)])
    for name, absent in _GEOMETRY_NUMBERS.items():
        writer.attribute(group, name, int, getattr(geometry, name, absent))
    integer = connection.weight.dtype == np.int32  # mantissas of at most 8 bits
    writer.array(group, "weight", connection.weight.astype(np.int8) if integer else connection.weight)


def _write_readout(writer: EntryWriter, readout: Readout) -> None:
    writer.attribute("/readout", "source", str, readout.source)
    writer.array("/readout", "weight", readout.weight.astype(np.float64))
    writer.array("/readout", "bias", readout.bias.astype(np.float64))
    integrators = readout.integrators
    writer.attribute("/readout", "parts", int, integrators.parts if integrators else 0)
    if integrators is not None:
        writer.array("/readout/integrators", "weight", integrators.weight.astype(np.int8))
        writer.attributes("/readout/integrators", _INTEGRATORS, integrators)


def metadata_text(network: HardwareNetwork, content: Mapping[str, Any]) -> str:
    """JSON of what a file says about a network, its provenance included.

    Raises
    ------
    NetworkError : if the provenance is not JSON.
    """
    try:
        return json.dumps(content, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NetworkError(
            f'network "{network.name}": the provenance is not JSON ({error}); use text, finite numbers, lists, dicts'
        ) from error


def _read_network(reader: EntryReader) -> HardwareNetwork:
    version = _checked_version(reader)
    arithmetic = reader.attribute("/", "arithmetic", str)
    if arithmetic not in ("float", "integer"):
        raise NetworkError(f'arithmetic is "{arithmetic}"; expected "float" or "integer"')
    integer = arithmetic == "integer"
    network = HardwareNetwork(
        reader.attribute("/", "name", str),
        _read_input(reader),
        tuple(_read_population(reader, group, integer, version) for group in reader.groups("/populations")),
        tuple(_read_connection(reader, group, integer, version) for group in reader.groups("/connections")),
        _read_readout(reader),
        reader.attribute("/", "time_steps", int),
        _read_provenance(reader),
    )
    found, stored = reader.checksum.hexdigest(), reader.stored_checksum()
    if found != stored:
        raise NetworkError(f"content has checksum {found}, the file says {stored}: it was altered; export it again")
    return network


def _checked_version(reader: EntryReader) -> int:
    kind = reader.attribute("/", "format", str)
    if kind != FORMAT:
        raise NetworkError(f'format is "{kind}"; expected "{FORMAT}"')
    version = reader.attribute("/", "version", int)
    if version not in VERSIONS:
        known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
        raise NetworkError(f"version {version}; this release reads versions {known}; export the network again")
    return int(version)


def _read_provenance(reader: EntryReader) -> Mapping[str, Any]:
    try:
        provenance = json.loads(reader.text("/", "provenance"))
    except ValueError as error:
        raise NetworkError(f'dataset "/provenance" is not JSON ({error})') from error
    if not isinstance(provenance, dict):
        raise NetworkError(f'dataset "/provenance" holds a {type(provenance).__name__}; expected a JSON object')
    return provenance


def _read_input(reader: EntryReader) -> InputSpec:
    spec = InputSpec(**reader.attributes("/input", _INPUT))
    if spec.kind not in ("graded", "event"):
        raise NetworkError(f'input kind is "{spec.kind}"; expected "graded" or "event"')
    return spec


def _read_population(reader: EntryReader, group: str, integer: bool, version: int) -> Population:
    entries = reader.attributes(group, _neuron_entries(integer, version))
    neuron: Neuron = IntegerNeuron(**entries) if integer else FloatNeuron(**entries)
    return Population(neuron=neuron, **reader.attributes(group, _POPULATION))


def _read_connection(reader: EntryReader, group: str, integer: bool, version: int) -> Connection:
    geometry = _read_geometry(reader, group)
    axes = (None, None) if geometry == DENSE else (None,) * 4
    weight = reader.array(group, "weight", dtype=np.int8 if integer else np.float64, shape=axes)
    weight = weight.astype(np.int32) if integer else weight
    return Connection(weight=weight, geometry=geometry, **reader.attributes(group, _connection_entries(version)))


def _read_geometry(reader: EntryReader, group: str) -> Geometry:
    kind = reader.attribute(group, "geometry", str)
    stride, padding, output_padding = (reader.attribute(group, name, int) for name in _GEOMETRY_NUMBERS)
    if kind == _GEOMETRIES[Convolution]:
        return Convolution(stride, padding)
    if kind == _GEOMETRIES[TransposedConvolution]:
        return TransposedConvolution(stride, padding, output_padding)
    if kind != _GEOMETRIES[type(DENSE)]:
        known = ", ".join(f'"{name}"' for name in _GEOMETRIES.values())
        raise NetworkError(f'geometry of group "{group}" is "{kind}"; expected one of {known}')
    return DENSE


def _read_readout(reader: EntryReader) -> Readout:
    source = reader.attribute("/readout", "source", str)
    weight = reader.array("/readout", "weight", dtype=np.float64, shape=(None, None))
    bias = reader.array("/readout", "bias", dtype=np.float64, shape=(len(weight),))
    parts = reader.attribute("/readout", "parts", int)
    if not parts:
        return Readout(source, weight, bias)
    group = "/readout/integrators"
    mantissas = reader.array(group, "weight", dtype=np.int8, shape=weight.shape).astype(np.int32)
    return Readout(source, weight, bias, Integrators(mantissas, parts=parts, **reader.attributes(group, _INTEGRATORS)))
