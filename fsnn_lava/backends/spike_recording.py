"""Spikes of every step, kept in one HDF5 file while a run goes on: eight to a byte, batch after batch.

`SpikeRecorder` writes, as the sink of a run; `Recording` reads. The file, version 1:

====================  =================  ==========================================================================
`/`                   ``format``         text: ``fsnn-lava-recording``
                      ``version``        int: 1
                      ``network``        text: the network's name
                      ``time_steps``     int: T
                      ``samples``        int: how many samples are recorded, from the first
                      ``planned``        int: how many the run was to have; more than ``samples`` if it was interrupted
`/populations/000`    ``name``           text
and so on             ``shape``          list of int: sizes of the population; N is their product
                      ``spikes``         dataset, uint8 (samples, T, ceil(N / 8)): neuron n of the flattened population
                                         is bit 7 - n % 8 of byte n // 8
====================  =================  ==========================================================================

Until the run is over the file has a temporary name. A run that is interrupted leaves a file with what it had
recorded; one that is killed leaves no file of that name, or the old one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, final

import h5py
import numpy as np

from fsnn_lava.errors import DatasetError, InputError, OutputError
from fsnn_lava.files import not_writable, put_in_place, temporary_beside
from fsnn_lava.hardware import Array, HardwareNetwork

FORMAT, VERSION = "fsnn-lava-recording", 1


@final
class SpikeRecorder:
    """A sink that writes a file; to be used as a context, whose end gives the file its name.

    >>> with SpikeRecorder(path, network, record=names, samples=len(codes)) as recorder:
    ...     result = simulator.run(network, codes, record=names, sink=recorder.add)

    Parameters
    ----------
    path : of the file; a recording that is there is replaced at the end.
    record : names of the populations, as the run is given.
    samples : how many the run will have.

    Raises
    ------
    NetworkError : if the network has no population of such a name.
    InputError : if none is named.
    OutputError : if the file cannot be written, or is there already and is no recording.
    """

    def __init__(self, path: Path, network: HardwareNetwork, *, record: Sequence[str], samples: int) -> None:
        if not record:
            raise InputError(f"{path}: no population to record; name some of {[p.name for p in network.populations]}")
        _refuse_foreign(path)
        self.path = path
        self.samples = 0
        self._shapes = {name: network.population(name).shape for name in record}
        self._steps = network.time_steps
        self._temporary = temporary_beside(path)
        self._file: Any = None
        try:
            self._file = h5py.File(self._temporary, "x")
            self._begin(network.name, samples)
        except OSError as error:
            self._remove()
            raise not_writable(path, error) from error

    def add(self, first: int, spikes: Mapping[str, Array]) -> None:
        """Takes the next samples: the number of the first one, and population -> (T, b, *N) uint8.

        Raises
        ------
        InputError : if they are not the next ones, or not of the recorded populations.
        OutputError : if they cannot be written.
        """
        found = {name: s.shape for name, s in spikes.items()}
        count = next((shape[1] for shape in found.values() if len(shape) > 1), 0)
        expected = {name: (self._steps, count, *shape) for name, shape in self._shapes.items()}
        if first != self.samples or found != expected:
            raise InputError(
                f"{self.path}: recording of {found} from sample {first}; expected {expected} from sample {self.samples}"
            )
        try:
            self._append(spikes, count)
        except OSError as error:
            raise not_writable(self.path, error) from error

    def __enter__(self) -> SpikeRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.samples:
            self._remove()
            return
        try:
            self._end()
        except OSError as failure:
            self._remove()
            if error is None:
                raise not_writable(self.path, failure) from failure

    def _begin(self, network: str, planned: int) -> None:
        about = {"format": FORMAT, "version": VERSION, "network": network, "time_steps": self._steps}
        self._file.attrs.update(about | {"samples": 0, "planned": planned})
        for i, (name, shape) in enumerate(self._shapes.items()):
            group = self._file.create_group(f"populations/{i:03d}")
            group.attrs.update({"name": name, "shape": shape})
            one = (self._steps, -(-prod(shape) // 8))
            group.create_dataset("spikes", (0, *one), np.uint8, maxshape=(None, *one), chunks=(1, *one))

    def _append(self, spikes: Mapping[str, Array], count: int) -> None:
        """The number of samples is written last, so that what an interruption cuts short does not count."""
        end = self.samples + count
        for group in self._file["populations"].values():
            numbers = spikes[group.attrs["name"]]
            by_sample = np.moveaxis(numbers.reshape(self._steps, count, -1), 1, 0)
            group["spikes"].resize(end, axis=0)
            group["spikes"][self.samples : end] = np.packbits(by_sample, axis=-1)
        self._file.attrs["samples"] = end
        self.samples = end

    def _end(self) -> None:
        for group in self._file["populations"].values():
            group["spikes"].resize(self.samples, axis=0)
        self._file.close()
        put_in_place(self._temporary, self.path)

    def _remove(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()


@final
@dataclass(frozen=True)
class Recording:
    """A recording; the spikes are read when they are asked for.

    Parameters
    ----------
    network : its name.
    samples, planned : how many are recorded, and how many the run was to have.
    shapes : population -> shape.
    """

    path: Path
    network: str
    time_steps: int
    samples: int
    planned: int
    shapes: Mapping[str, tuple[int, ...]]

    def spikes(self, population: str, samples: slice = slice(None)) -> Array:
        """(T, b, *N) uint8 spikes of one population, of all samples or of a contiguous part of them.

        Raises
        ------
        InputError : if it is not recorded, or the samples are not contiguous.
        DatasetError : if the file is no longer what it was.
        """
        if population not in self.shapes:
            raise InputError(
                f'{self.path}: no spikes of population "{population}"; there are: {", ".join(self.shapes)}'
            )
        begin, end, step = samples.indices(self.samples)
        if step != 1:
            raise InputError(f"{self.path}: samples with step {step}; expected a contiguous part, step 1")
        place = list(self.shapes).index(population)
        with _opened(self.path) as file:
            packed = file[f"populations/{place:03d}/spikes"][begin : max(begin, end)]
        shape = self.shapes[population]
        flat = np.unpackbits(packed, axis=-1, count=prod(shape)).swapaxes(0, 1)
        return np.ascontiguousarray(flat).reshape(self.time_steps, -1, *shape)


def _refuse_foreign(path: Path) -> None:
    """Refuses to take the place of anything but a recording."""
    if not path.exists():
        return
    try:
        with h5py.File(path, "r") as file:
            recording = _plain(file.attrs.get("format")) == FORMAT
    except (OSError, RuntimeError):
        recording = False
    if not recording:
        raise OutputError(f"{path}: is there and is no recording of spikes, so it is not replaced; choose another name")


def load_recording(path: Path) -> Recording:
    """Read the file, after its declared sizes were checked against its contents.

    Raises
    ------
    DatasetError : if the file is missing, no recording, of another version, or contradicts itself, naming every fault.
    """
    with _opened(path) as file:
        found = {key: _plain(value) for key, value in file.attrs.items()}
        if found.get("format") != FORMAT:
            raise DatasetError(f"{path}: not a recording of spikes; expected a file that fsnn run --record wrote")
        if found.get("version") != VERSION:
            raise DatasetError(f"{path}: version {found.get('version')} of the format; this program reads {VERSION}")
        faults = [
            f"attribute {name}: found {found.get(name)!r}; allowed: an integer, at least {least}"
            for name, least in (("time_steps", 1), ("samples", 0), ("planned", 0))
            if not isinstance(found.get(name), int) or found[name] < least
        ]
        groups = file.get("populations", {})
        shapes = {} if faults else _shapes(groups, found, faults)
        if faults:
            listed = "\n  ".join(faults)
            raise DatasetError(f"{path}: {len(faults)} fault(s); record again:\n  {listed}")
    return Recording(path, str(found.get("network")), found["time_steps"], found["samples"], found["planned"], shapes)


def _shapes(groups: Any, found: Mapping[str, Any], faults: list[str]) -> dict[str, tuple[int, ...]]:
    """Shape of each population; what does not fit is added to the faults."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key in sorted(groups):
        attributes = {name: _plain(value) for name, value in groups[key].attrs.items()}
        name, shape, spikes = attributes.get("name"), attributes.get("shape"), groups[key].get("spikes")
        if not isinstance(name, str) or not isinstance(shape, list) or not isinstance(spikes, h5py.Dataset):
            faults.append(f"/populations/{key}: name {name!r}, shape {shape!r}, spikes {spikes!r}; one is missing")
            continue
        expected = (found["samples"], found["time_steps"], -(-prod(shape) // 8))
        if spikes.shape != expected or spikes.dtype != np.uint8:
            faults.append(
                f'/populations/{key}, "{name}" of shape {tuple(shape)}: spikes are {spikes.dtype} {spikes.shape}; '
                f"allowed: uint8 (samples, T, bytes) = {expected}"
            )
        shapes[name] = tuple(shape)
    return shapes


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error}; record again, or choose another file") from error
