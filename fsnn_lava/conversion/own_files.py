"""One call to write a network to a file, and one to read it again, whichever kind of network it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fsnn_lava.errors import NetworkError
from fsnn_lava.hardware import HardwareNetwork, load_network, save_network

if TYPE_CHECKING:
    from fsnn_lava.training import TrainedNetwork

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
