"""A NIR graph, whoever wrote it, as the float network that can be exported for the samples of a dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fsnn_lava.conversion.fold_normalisation import on_codes
from fsnn_lava.conversion.nir_read import read_nir
from fsnn_lava.datasets import Dataset
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import HardwareNetwork, with_timing


def import_nir(path: Path, dataset: Dataset, *, time_steps: int | None = None) -> HardwareNetwork:
    """Read the float network of a NIR graph in hardware timing, for the codes of a dataset.

    Parameters
    ----------
    dataset : whose normalised values the graph was made for, unless it is one of ours, which takes codes.
    time_steps : T; None: the graph's own.

    Raises
    ------
    UnsupportedError, NetworkError : if the graph cannot be understood, has delays that hardware timing would change,
        or is one of integers already.
    """
    network = read_nir(path, time_steps=time_steps)
    if network.arithmetic != "float":
        raise UnsupportedError(f"NIR file {path}: holds integers; export the float graph")
    if "config" not in network.provenance:
        network = on_codes(network, dataset.coding)
    sequential, hardware = (with_timing(network, timing) for timing in ("sequential", "hardware"))
    if not any(
        [c.delay for c in network.connections] == [c.delay for c in timed.connections]
        for timed in (sequential, hardware)
    ):
        raise UnsupportedError(
            f"NIR file {path}: has delays of its own; allowed: none but one step on every feedback edge"
        )
    config = {**network.provenance.get("config", {}), "dataset": dataset.name}
    return dataclasses.replace(hardware, provenance={**network.provenance, "config": config})
