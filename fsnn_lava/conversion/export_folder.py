"""Network files: one by itself, and those of an export in a run folder, with the test samples to try them on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fsnn_lava.config import DataConfig
from fsnn_lava.conversion.netx_write import write_netx
from fsnn_lava.conversion.nir_plain import PlainForm, require_plain, write_plain_nir
from fsnn_lava.conversion.nir_write import write_nir
from fsnn_lava.datasets import Dataset, InputCoding, Samples, load_dataset, time_first
from fsnn_lava.errors import ConfigError, NetworkError
from fsnn_lava.files import not_writable
from fsnn_lava.hardware import Arithmetic, Array, HardwareNetwork, load_network, save_network

if TYPE_CHECKING:
    from fsnn_lava.training import TrainedNetwork

NETWORK_FILES: dict[Arithmetic, str] = {"float": "network-float.h5", "integer": "network-integer.h5"}
"""Name of the exported network of each arithmetic in a run folder."""
MADE_OF_NETWORKS = (
    *(f"report{part}.{ending}" for part in ("", "-*-samples") for ending in ("md", "json")),
    *(f"anytime{part}.{ending}" for part in ("", "-interrupted") for ending in ("md", "json", "svg")),
    "network.net",
    "network-float.nir",
    "network-integer.nir",
)
"""Files of a run folder that are about the exported networks of their time; * stands for a number."""
_HDF5 = b"\x89HDF\r\n\x1a\n"


def save(network: HardwareNetwork | TrainedNetwork, path: str | Path) -> None:
    """Write a network: a trained one as safetensors, one for hardware as HDF5 (docs/network-format.md).

    Raises
    ------
    NetworkError : if it is neither.
    OutputError : if the file cannot be written; an older one stays as it was.
    """
    if isinstance(network, HardwareNetwork):
        save_network(network, Path(path))
        return
    from fsnn_lava import training  # imports torch, which a network for hardware does not need

    if not isinstance(network, training.TrainedNetwork):
        raise NetworkError(f"cannot save a {type(network).__name__}; allowed: TrainedNetwork or HardwareNetwork")
    training.save_checkpoint(network, Path(path))


def load(path: str | Path) -> HardwareNetwork | TrainedNetwork:
    """Read a network that `save`, a training or an export has written.

    Raises
    ------
    NetworkError, CheckpointError : if there is no such file, or it is damaged or something else.
    """
    path = Path(path)
    if path.is_file():
        with open(path, "rb") as file:
            is_hdf5 = file.read(len(_HDF5)) == _HDF5
    else:
        is_hdf5 = path.suffix == ".h5"
    if is_hdf5:
        return load_network(path)
    from fsnn_lava.training import load_checkpoint

    return load_checkpoint(path)


def write_export(
    to: Literal["lava", "netx", "nir"],
    folder: Path,
    *,
    floating: HardwareNetwork,
    integer: HardwareNetwork,
    plain: PlainForm | None = None,
) -> Iterator[Path]:
    """Write the networks, and yield each file once it is there; a target that refuses a network leaves none behind.

    Parameters
    ----------
    to : ``lava``: the two network files alone; ``netx``: also lava-dl's; ``nir``: also both as NIR graphs.
    plain : NIR graphs in this plain form; None: exact.

    Raises
    ------
    UnsupportedError : naming everything that the target cannot say.
    OutputError : if a file cannot be written.
    """
    if to == "netx":
        yield write_netx(integer, folder / "network.net")
    elif to == "nir":
        if plain is not None:
            for network in (floating, integer):  # before the first is written
                require_plain(network, form=plain)
        for network in (floating, integer):
            path = folder / f"network-{network.arithmetic}.nir"
            yield write_nir(network, path) if plain is None else write_plain_nir(network, path, form=plain)
    for network in (floating, integer):
        path = folder / NETWORK_FILES[network.arithmetic]
        save_network(network, path)
        yield path


def network_hashes(folder: Path) -> dict[str, str]:
    """Hashes of the network files in a run folder, of those that are there."""
    paths = [folder / name for name in NETWORK_FILES.values() if (folder / name).is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def set_aside(folder: Path, *, written: Collection[Path]) -> dict[str, str]:
    """Rename what was made of an earlier export's networks, once others are there; return old and new names.

    Parameters
    ----------
    written : files of the new export, which stay.

    Raises
    ------
    OutputError : if a file cannot be renamed.
    """
    renamed = {}
    for path in (path for name in MADE_OF_NETWORKS for path in sorted(folder.glob(name))):
        if path.is_file() and path not in written:
            aside = path.with_stem(f"{path.stem}-of-earlier-export")
            try:
                path.replace(aside)
            except OSError as error:
                raise not_writable(aside, error) from error
            renamed[path.name] = aside.name
    return renamed


@dataclass(frozen=True, eq=False)
class Deployed:
    """Both networks that `fsnn export` wrote into a run folder, in hardware timing."""

    folder: Path
    floating: HardwareNetwork
    integer: HardwareNetwork

    def network(self, arithmetic: Arithmetic) -> HardwareNetwork:
        """The network of that arithmetic."""
        return self.integer if arithmetic == "integer" else self.floating

    def is_outdated(self, trained: TrainedNetwork) -> bool:
        """Whether the run's best checkpoint is no longer the one that was exported."""
        return dict(trained.metrics) != self.floating.provenance.get("metrics")


def load_deployed(folder: Path) -> Deployed:
    """Load the exported networks of a run folder.

    Raises
    ------
    ConfigError : if nothing was exported.
    NetworkError : if a file is damaged, or the two are not of one export.
    """
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
    network: HardwareNetwork,
    *,
    data_dir: Path | None,
    count: int | None,
    most: int | None = None,
    dataset: str | None = None,
) -> Samples:
    """Load test samples of the dataset that a network was trained on, evenly spread over the test set.

    Parameters
    ----------
    count : how many; None: all.
    most : how many at most, if no count is given.
    dataset : where the data is, if it is not where the network's file says.

    Raises
    ------
    DatasetError : if the dataset cannot be read.
    ConfigError : if there are fewer samples than asked for, or the network's file does not name its dataset.
    """
    test = _dataset(network, data_dir, dataset).test
    if count is None:
        return test.spread(len(test) if most is None else most)
    if not 1 <= count <= len(test):
        raise ConfigError(f"--samples: found {count}; allowed: 1 .. {len(test)}, the size of the test set")
    return test.spread(count)


def training_samples(network: HardwareNetwork, *, data_dir: Path | None, dataset: str | None = None) -> Samples:
    """Load the training samples of the dataset that a network was trained on, some of which an export is calibrated on.

    Raises
    ------
    DatasetError, ConfigError : as `samples_to_test`.
    """
    return _dataset(network, data_dir, dataset).train


def calibration_codes(dataset: Dataset, *, count: int) -> Array:
    """Take the inputs of `count` training samples, evenly spread over the training set; three quarters of it at most.

    Event frames come time first, (T, count, *shape), as networks take them.
    """
    return time_first(dataset.train.to_fit(count).codes)


def input_facts(network: HardwareNetwork) -> tuple[InputCoding, tuple[str, ...], DataConfig]:
    """What its input's codes mean, the names of its classes, and how its data became samples, as its file says.

    Raises
    ------
    ConfigError : if the file does not say it.
    """
    provenance = network.provenance
    try:
        coding = InputCoding.from_dict(provenance["input_coding"])
        return coding, tuple(provenance["classes"]), DataConfig(**provenance["config"].get("data", {}))
    except (KeyError, TypeError, AttributeError):
        raise ConfigError(
            f'network "{network.name}": its file does not say what its inputs and classes mean; export it again'
        ) from None


def _dataset(network: HardwareNetwork, data_dir: Path | None, asked: str | None) -> Dataset:
    provenance = network.provenance
    try:
        name = asked or str(provenance["config"]["dataset"])
        settings = DataConfig(**provenance["config"].get("data", {}))
        coding = provenance.get("input_coding")
        if coding is not None:
            coding = InputCoding.from_dict(coding)
    except (KeyError, TypeError, AttributeError):
        raise ConfigError(f'network "{network.name}": its file does not name the dataset it was trained on') from None
    return load_dataset(
        name,
        data_dir,
        classes=provenance.get("classes"),
        coding=coding,
        settings=settings,
        asked=asked is not None,
    )
