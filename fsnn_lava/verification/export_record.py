"""What an export wrote down of the two networks that it made, in a file of its own beside theirs.

A network file proves by its checksum that nothing was damaged, but a file that was written anew has a valid one. So the
export keeps, apart from them, every number of both networks, the hash and the sums of every array, the errors that
rounding made in every connection, and what it measured: how far each neuron's rate is from the float network's on
training samples, in the same timing, and which part of the network makes it so. `verify_network` holds what it is
given against that.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsnn_lava.backends import FloatSimulator, IntegerSimulator
from fsnn_lava.datasets import evenly_spaced
from fsnn_lava.errors import NetworkError
from fsnn_lava.files import write_whole
from fsnn_lava.hardware import Array, HardwareNetwork
from fsnn_lava.verification.rates import RateDifferences, as_deployed, joined, row_effects
from fsnn_lava.verification.structure import ArraySummary, arrays_of, numbers_of

RECORD = "export-record.npz"
"""Name of the file in an export's folder."""
VERSION = 1
RATE_SAMPLES = 256
"""Most training samples on which rates are measured; of large networks fewer, but never less than a quarter."""
_RATES = 2**23
"""Most rates that are measured, of all samples and neurons."""
_CHUNK_NUMBERS = 2**23
"""Rates that are held at a time."""


@dataclass(frozen=True, eq=False)
class NetworkRecord:
    """One network as the export wrote it: `numbers_of` it, and a summary of each array."""

    numbers: Mapping[str, Any]
    arrays: Mapping[str, ArraySummary]

    @classmethod
    def of(cls, network: HardwareNetwork) -> NetworkRecord:
        """Record of a network."""
        arrays = {place: ArraySummary.of(array) for place, array in arrays_of(network).items()}
        return cls(numbers_of(network), arrays)

    def is_of(self, network: HardwareNetwork) -> bool:
        """Whether this is, to the last bit, the network that was recorded."""
        now = NetworkRecord.of(network)
        digests = ({place: s.digest for place, s in record.arrays.items()} for record in (self, now))
        return self.numbers == now.numbers and next(digests) == next(digests)


@dataclass(frozen=True, eq=False)
class ExportRecord:
    """Everything that an export knows of its networks.

    Parameters
    ----------
    floating, integer : both networks.
    quantization : errors that rounding made, as in the integer network's provenance; None: it is not of `quantize`.
    rates : population -> what was measured on training samples.
    rows : population -> part of the network -> (N,) what it does to the rates (`row_effects`).
    """

    floating: NetworkRecord
    integer: NetworkRecord
    quantization: Mapping[str, Any] | None
    rates: Mapping[str, RateDifferences]
    rows: Mapping[str, Mapping[str, Array]]

    def is_of(self, floating: HardwareNetwork, integer: HardwareNetwork) -> bool:
        """Whether these are, to the last bit, the networks that were recorded."""
        return self.floating.is_of(floating) and self.integer.is_of(integer)


def record_export(floating: HardwareNetwork, integer: HardwareNetwork, inputs: Array) -> ExportRecord:
    """Write down an export: both networks, and what their rates are on training samples.

    Parameters
    ----------
    inputs : training samples as a backend takes them, of which `RATE_SAMPLES` at most are used. A rounding is better on
        the samples that it was fitted to than on others, so give others (`Samples.to_measure`).

    Raises
    ------
    InputError : if the inputs do not fit the networks.
    """
    deployed = as_deployed(floating, integer)
    neurons = sum(p.size for p in floating.populations)
    most = min(max(_RATES // neurons, RATE_SAMPLES // 4), RATE_SAMPLES)
    samples = floating.input.samples(inputs)
    some = floating.input.take(inputs, evenly_spaced(samples, min(samples, most)))
    size, samples = max(1, _CHUNK_NUMBERS // neurons), floating.input.samples(some)
    differences: dict[str, list[Array]] = {p.name: [] for p in floating.populations}
    rows: dict[str, dict[str, Array]] = {}
    for first in range(0, samples, size):
        chunk = floating.input.take(some, slice(first, first + size))
        exact = FloatSimulator().run(deployed, chunk).firing_rates
        found = IntegerSimulator().run(integer, chunk).firing_rates
        share = floating.input.samples(chunk) / samples
        for name, effects in row_effects(deployed, integer, chunk, exact).items():
            total = rows.setdefault(name, {})
            for row, effect in effects.items():
                total[row] = total.get(row, 0.0) + np.float32(share) * effect
        for name, parts in differences.items():
            parts.append((found[name] - exact[name]).astype(np.float32))
    return ExportRecord(
        NetworkRecord.of(floating),
        NetworkRecord.of(integer),
        integer.provenance.get("quantization"),
        {name: RateDifferences.of(joined(parts)) for name, parts in differences.items()},
        rows,
    )


# ---- the file --------------------------------------------------------------------------------------------------


def save_record(record: ExportRecord, path: Path) -> None:
    """Write a record; after an error the file is as it was before.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    arrays: dict[str, Array] = {}
    for kind, network in (("float", record.floating), ("integer", record.integer)):
        for place, summary in network.arrays.items():
            arrays[f"{kind}/{place}/rows"], arrays[f"{kind}/{place}/columns"] = summary.rows, summary.columns
    for i, (name, measured) in enumerate(record.rates.items()):
        arrays[f"rates/{i}/mean"], arrays[f"rates/{i}/square"] = measured.mean, measured.square
        for row, effect in record.rows[name].items():
            arrays[f"effects/{i}/{row}"] = effect
    text = {
        "version": VERSION,
        "networks": {
            kind: {"numbers": network.numbers, "digests": {p: s.digest for p, s in network.arrays.items()}}
            for kind, network in (("float", record.floating), ("integer", record.integer))
        },
        "quantization": record.quantization,
        "rates": [
            {"population": name, "samples": r.samples, "largest": r.largest, "shift": r.shift, "size": r.size}
            for name, r in record.rates.items()
        ],
    }
    content = io.BytesIO()
    np.savez_compressed(content, text=np.array(json.dumps(text, sort_keys=True)), **arrays)
    write_whole(path, content.getvalue())


def load_record(path: Path) -> ExportRecord | None:
    """Read a record that `save_record` wrote; None if there is no such file.

    Raises
    ------
    NetworkError : if the file is damaged, of another version or something else.
    """
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
        text = json.loads(str(arrays.pop("text")))
        if text["version"] != VERSION:
            raise NetworkError(f"{path}: version {text['version']}; this release reads {VERSION}; export again")
        return _record_of(text, arrays)
    except NetworkError:
        raise
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise NetworkError(
            f"{path}: cannot be read as an export's record, it is damaged ({error}); export again"
        ) from error


def _record_of(text: Mapping[str, Any], arrays: Mapping[str, Array]) -> ExportRecord:
    networks = {}
    for kind, held in text["networks"].items():
        summaries = {
            place: ArraySummary(digest, arrays[f"{kind}/{place}/rows"], arrays[f"{kind}/{place}/columns"])
            for place, digest in held["digests"].items()
        }
        networks[kind] = NetworkRecord(held["numbers"], summaries)
    rates, rows = {}, {}
    for i, r in enumerate(text["rates"]):
        rates[r["population"]] = RateDifferences(
            r["samples"],
            arrays[f"rates/{i}/mean"],
            arrays[f"rates/{i}/square"],
            r["largest"],
            tuple(r["shift"]),
            tuple(r["size"]),
        )
        prefix = f"effects/{i}/"
        rows[r["population"]] = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
    return ExportRecord(networks["float"], networks["integer"], text["quantization"], rates, rows)
