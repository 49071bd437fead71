"""The network files of an export: ours, and those of other programs beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fsnn_lava.conversion.export_folder import NETWORK_FILES
from fsnn_lava.conversion.netx_write import write_netx
from fsnn_lava.conversion.nir_write import write_nir
from fsnn_lava.hardware import HardwareNetwork, save_network


def write_export(
    to: Literal["lava", "netx", "nir"], folder: Path, *, floating: HardwareNetwork, integer: HardwareNetwork
) -> Iterator[Path]:
    """Write the networks, and yield each file once it is there; a target that refuses a network leaves none behind.

    Parameters
    ----------
    to : ``lava``: the two network files alone; ``netx``: also lava-dl's; ``nir``: also both as NIR graphs.

    Raises
    ------
    UnsupportedError : naming everything that the target cannot say.
    OutputError : if a file cannot be written.
    """
    if to == "netx":
        yield write_netx(integer, folder / "network.net")
    elif to == "nir":
        for network in (floating, integer):
            yield write_nir(network, folder / f"network-{network.arithmetic}.nir")
    for network in (floating, integer):
        path = folder / NETWORK_FILES[network.arithmetic]
        save_network(network, path)
        yield path
