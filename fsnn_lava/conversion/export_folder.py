"""The exported networks of a run folder, and the test samples to try them on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsnn_lava.datasets import Dataset, Samples, load_dataset, time_first
from fsnn_lava.errors import ConfigError, NetworkError
from fsnn_lava.files import newest_run
from fsnn_lava.hardware import Arithmetic, Array, HardwareNetwork, evenly_spaced, load_network

NETWORK_FILES: dict[Arithmetic, str] = {"float": "network-float.h5", "integer": "network-integer.h5"}
"""Name of the exported network of each arithmetic in a run folder."""


@dataclass(frozen=True, eq=False)
class Deployed:
    """Both networks that `fsnn export` wrote into a run folder, in hardware timing."""

    folder: Path
    floating: HardwareNetwork
    integer: HardwareNetwork

    def network(self, arithmetic: Arithmetic) -> HardwareNetwork:
        """The network of that arithmetic."""
        return self.integer if arithmetic == "integer" else self.floating


def load_deployed(run: Path | None, *, runs: Path) -> Deployed:
    """Load the exported networks of a run folder; without one, of the newest export below `runs`.

    Raises
    ------
    ConfigError : if nothing was exported.
    NetworkError : if a file is damaged, or the two are not of one export.
    """
    folder = newest_run(runs, NETWORK_FILES["integer"]) if run is None else run
    missing = [name for name in NETWORK_FILES.values() if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{folder}: holds no {' and no '.join(missing)}; export first: fsnn export --to lava --run {folder}"
        )
    floating, integer = (load_network(folder / NETWORK_FILES[kind]) for kind in ("float", "integer"))
    kinds = (floating.arithmetic, integer.arithmetic)
    same = floating.provenance.items() <= integer.provenance.items() and floating.time_steps == integer.time_steps
    if kinds != ("float", "integer") or not same:
        found = f"{kinds[0]} and {kinds[1]} values, T = {floating.time_steps} and {integer.time_steps}"
        raise NetworkError(
            f"{folder}: {' and '.join(NETWORK_FILES.values())} are not of one export: found {found}; export again: "
            f"fsnn export --to lava --run {folder}"
        )
    return Deployed(folder, floating, integer)


def samples_to_test(
    network: HardwareNetwork, *, data_dir: Path | None, count: int | None, most: int | None = None
) -> Samples:
    """Load test samples of the dataset that a network was trained on, evenly spread over the test set.

    (Files may list the classes one after the other.)

    Parameters
    ----------
    count : how many; None: all.
    most : how many at most, if no count is given.

    Raises
    ------
    DatasetError : if the dataset cannot be read.
    ConfigError : if there are fewer samples than asked for, or the network's file does not name its dataset.
    """
    test = _dataset(network, data_dir).test
    if count is None:
        return test if most is None or most >= len(test) else test.select(evenly_spaced(len(test), most))
    if not 1 <= count <= len(test):
        raise ConfigError(f"--samples: found {count}; allowed: 1 .. {len(test)}, the size of the test set")
    return test.select(evenly_spaced(len(test), count))


def calibration_codes(dataset: Dataset, *, count: int) -> Array:
    """Take the inputs of `count` training samples (all, if there are fewer), evenly spread over the training set.

    Event frames come time first, (T, count, *shape), as networks take them.
    """
    return time_first(dataset.train.select(evenly_spaced(len(dataset.train), min(count, len(dataset.train)))).codes)


def _dataset(network: HardwareNetwork, data_dir: Path | None) -> Dataset:
    try:
        name = str(network.provenance["config"]["dataset"])
    except (KeyError, TypeError):
        raise ConfigError(f'network "{network.name}": its file does not name the dataset it was trained on') from None
    return load_dataset(name, data_dir, classes=network.provenance.get("classes"))
