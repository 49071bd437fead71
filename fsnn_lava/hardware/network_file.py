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
VERSION = 2

_LIBVER = ("v108", "v108")
"""The oldest HDF5 format that guards its own structure by checksums: damage there is an error, not a surprise."""

_INTEGER_NEURON = ("v_threshold", "reset_mantissa", "reset_exponent", "decay")
_FLOAT_NEURON = ("v_threshold", "reset_amount", "leak")
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
    writer.text("/", "format", FORMAT)
    writer.number("/", "version", VERSION, dtype=np.int64)
    writer.text("/", "name", network.name)
    writer.text("/", "arithmetic", network.arithmetic)
    writer.number("/", "time_steps", network.time_steps, dtype=np.int64)
    writer.long_text("/", "provenance", metadata_text(network, dict(network.provenance)))
    writer.text("/input", "kind", network.input.kind)
    writer.number("/input", "maximum", network.input.maximum, dtype=np.int64)
    writer.numbers("/input", "shape", np.asarray(network.input.shape, np.int64))
    for i, population in enumerate(network.populations):
        _write_population(writer, f"/populations/{i:03d}", population)
    writer.group("/connections")
    for i, connection in enumerate(network.connections):
        _write_connection(writer, f"/connections/{i:03d}", connection)
    _write_readout(writer, network.readout)
    writer.text("/", "checksum", writer.checksum.hexdigest())


def _write_population(writer: EntryWriter, group: str, population: Population) -> None:
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


def _write_connection(writer: EntryWriter, group: str, connection: Connection) -> None:
    for name in ("name", "source", "target"):
        writer.text(group, name, getattr(connection, name))
    for name in ("delay", "weight_exponent", "weight_bits"):
        writer.number(group, name, getattr(connection, name), dtype=np.int64)
    geometry = connection.geometry
    writer.text(group, "geometry", _GEOMETRIES[type(geometry)])
    for name, absent in _GEOMETRY_NUMBERS.items():
        writer.number(group, name, getattr(geometry, name, absent), dtype=np.int64)
    integer = connection.weight.dtype == np.int32  # mantissas of at most 8 bits
    writer.array(group, "weight", connection.weight.astype(np.int8) if integer else connection.weight)


def _write_readout(writer: EntryWriter, readout: Readout) -> None:
    writer.text("/readout", "source", readout.source)
    writer.array("/readout", "weight", readout.weight.astype(np.float64))
    writer.array("/readout", "bias", readout.bias.astype(np.float64))
    integrators = readout.integrators
    writer.number("/readout", "parts", integrators.parts if integrators else 0, dtype=np.int64)
    if integrators is not None:
        group = "/readout/integrators"
        writer.array(group, "weight", integrators.weight.astype(np.int8))
        writer.number(group, "weight_exponent", integrators.weight_exponent, dtype=np.int64)
        writer.number(group, "weight_bits", integrators.weight_bits, dtype=np.int64)
        writer.number(group, "scale", integrators.scale, dtype=np.float64)


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
    readout = _read_readout(reader)
    network = HardwareNetwork(name, spec, populations, connections, readout, time_steps, provenance)
    found, stored = reader.checksum.hexdigest(), reader.stored_checksum()
    if found != stored:
        raise NetworkError(f"content has checksum {found}, the file says {stored}: it was altered; export it again")
    return network


def _check_header(reader: EntryReader) -> None:
    kind = reader.text("/", "format")
    if kind != FORMAT:
        raise NetworkError(f'format is "{kind}"; expected "{FORMAT}"')
    version = reader.integer("/", "version")
    if version != VERSION:
        raise NetworkError(f"version {version}; this release reads version {VERSION}; export the network again")


def _read_provenance(reader: EntryReader) -> Mapping[str, Any]:
    try:
        provenance = json.loads(reader.long_text("/", "provenance"))
    except ValueError as error:
        raise NetworkError(f'dataset "/provenance" is not JSON ({error})') from error
    if not isinstance(provenance, dict):
        raise NetworkError(f'dataset "/provenance" holds a {type(provenance).__name__}; expected a JSON object')
    return provenance


def _read_input(reader: EntryReader) -> InputSpec:
    kind = reader.text("/input", "kind")
    if kind != "graded" and kind != "event":
        raise NetworkError(f'input kind is "{kind}"; expected "graded" or "event"')
    return InputSpec(reader.shape("/input", "shape"), kind, reader.integer("/input", "maximum"))  # type: ignore[arg-type]


def _read_population(reader: EntryReader, group: str, arithmetic: str) -> Population:
    neuron: Neuron
    if arithmetic == "integer":
        integers = {name: reader.integer(group, name) for name in _INTEGER_NEURON}
        neuron = IntegerNeuron(**integers, scale=reader.real(group, "scale"))
    else:
        neuron = FloatNeuron(**{name: reader.real(group, name) for name in _FLOAT_NEURON})
    name = reader.text(group, "name")
    return Population(name, reader.shape(group, "shape"), neuron, reader.integer(group, "start"))


def _read_connection(reader: EntryReader, group: str, arithmetic: str) -> Connection:
    integer = arithmetic == "integer"
    geometry = _read_geometry(reader, group)
    axes = (None, None) if geometry == DENSE else (None,) * 4
    weight = reader.array(group, "weight", dtype=np.int8 if integer else np.float64, shape=axes)
    return Connection(
        name=reader.text(group, "name"),
        source=reader.text(group, "source"),
        target=reader.text(group, "target"),
        weight=weight.astype(np.int32) if integer else weight,
        delay=reader.integer(group, "delay"),
        weight_exponent=reader.integer(group, "weight_exponent"),
        weight_bits=reader.integer(group, "weight_bits"),
        geometry=geometry,
    )


def _read_geometry(reader: EntryReader, group: str) -> Geometry:
    kind = reader.text(group, "geometry")
    stride, padding, output_padding = (reader.integer(group, name) for name in _GEOMETRY_NUMBERS)
    if kind == _GEOMETRIES[Convolution]:
        return Convolution(stride, padding)
    if kind == _GEOMETRIES[TransposedConvolution]:
        return TransposedConvolution(stride, padding, output_padding)
    if kind != _GEOMETRIES[type(DENSE)]:
        known = ", ".join(f'"{name}"' for name in _GEOMETRIES.values())
        raise NetworkError(f'geometry of group "{group}" is "{kind}"; expected one of {known}')
    return DENSE


def _read_readout(reader: EntryReader) -> Readout:
    source = reader.text("/readout", "source")
    weight = reader.array("/readout", "weight", dtype=np.float64, shape=(None, None))
    bias = reader.array("/readout", "bias", dtype=np.float64, shape=(len(weight),))
    parts = reader.integer("/readout", "parts")
    if not parts:
        return Readout(source, weight, bias)
    group = "/readout/integrators"
    mantissas = reader.array(group, "weight", dtype=np.int8, shape=weight.shape).astype(np.int32)
    exponent, bits = reader.integer(group, "weight_exponent"), reader.integer(group, "weight_bits")
    return Readout(source, weight, bias, Integrators(mantissas, exponent, bits, parts, reader.real(group, "scale")))
