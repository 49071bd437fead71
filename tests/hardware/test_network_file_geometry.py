"""The network file of convolutional networks: round trips, and declared shapes that disagree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fsnn_lava.errors import NetworkError
from fsnn_lava.hardware.geometry import Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.network import (
    ALWAYS_ON,
    INPUT,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Integrators,
    Neuron,
    Population,
    Readout,
)
from fsnn_lava.hardware.network_file import load_network, save_network
from networks import assert_equal_networks

Edit = Callable[[h5py.File], Any]


def rewrite(file: h5py.File, path: str, value: Any) -> None:
    del file[path]
    file[path] = value


def convolutional_network(*, integer: bool) -> HardwareNetwork:
    """Every geometry, and integrators for the readout where there are integers."""
    rng = np.random.default_rng(0)
    bits = 8 if integer else 0

    def weight(*shape: int) -> Array:
        return rng.integers(-128, 128, shape).astype(np.int32) if integer else rng.normal(size=shape)

    neuron: Neuron = IntegerNeuron(150, 150, 0, 40, 0.1) if integer else FloatNeuron(1.0, 1.0, 0.9)
    readout = Readout("b", rng.normal(size=(2, 2 * 3 * 2)), rng.normal(size=2))
    if integer:
        readout = dataclasses.replace(readout, integrators=Integrators(weight(2, 12), 3, 8, 2, 0.25))
    return HardwareNetwork(
        "convolutions",
        InputSpec((1, 6, 4), "event", 1),
        (Population("a", (4, 6, 4), neuron, 1), Population("b", (2, 3, 2), neuron, 2)),
        (
            Connection("in", INPUT, "a", weight(4, 1, 3, 3), 1, 0, bits, Convolution(1, 1)),
            Connection("on", ALWAYS_ON, "a", weight(96, 1), 0, 0, bits),
            Connection("down", "a", "b", weight(2, 4, 4, 4), 1, 0, bits, Convolution(2, 1)),
            Connection("up", "b", "a", weight(2, 4, 3, 3), 1, 0, bits, TransposedConvolution(2, 1, 1)),
        ),
        readout,
        7,
    )


@pytest.mark.parametrize("integer", [True, False])
def test_geometries_and_integrators_come_back(integer: bool, tmp_path: Path) -> None:
    network = convolutional_network(integer=integer)
    save_network(network, tmp_path / "network.h5")
    assert_equal_networks(network, load_network(tmp_path / "network.h5"))


GEOMETRY_EDITS: dict[str, tuple[Edit, str]] = {
    "unknown": (
        lambda f: f["connections/000"].attrs.create("geometry", "spiral"),
        r'geometry of group "/connections/000" is "spiral"; expected one of "dense", "convolution", "transposed_conv',
    ),
    "dense": (
        lambda f: f["connections/000"].attrs.create("geometry", "dense"),
        r'dataset "/connections/000/weight" is int8 of shape \(4, 1, 3, 3\); expected int8 of shape \(any, any\)',
    ),
    "kernels": (
        lambda f: rewrite(f, "connections/002/weight", np.zeros((2, 3, 4, 4), np.int8)),
        r'connection "down" .*found kernels of shape \(2, 3, 4, 4\); allowed: \(2, 4, 4, 4\)',
    ),
    "stride": (
        lambda f: f["connections/002"].attrs.modify("stride", 1),
        r'connection "down" .*found a target of shape \(2, 3, 2\); allowed: \(2, 5, 3\), where these kernels lead',
    ),
    "output padding": (
        lambda f: f["connections/003"].attrs.modify("output_padding", 2),
        r'connection "up" .*found output padding 2; allowed: 0 .. 1',
    ),
    "padding": (
        lambda f: f["connections/000"].attrs.modify("padding", -1),
        r'connection "in" .*found stride 1, padding -1; allowed: stride at least 1, padding 0 .. 2',
    ),
    "oblong": (
        lambda f: rewrite(f, "connections/002/weight", np.zeros((2, 4, 4, 3), np.int8)),
        r'connection "down" .*found kernels of shape \(2, 4, 4, 3\); allowed: four axes, the last two of one size',
    ),
    "population": (
        lambda f: f["populations/001"].attrs.create("shape", np.array([12])),
        r'connection "down" .*found a convolution from shape \(4, 6, 4\) to \(12,\); allowed: shapes \(C, H, W\)',
    ),
    "parts": (
        lambda f: f["readout"].attrs.modify("parts", 13),
        r"readout's integrators: found 13 parts; allowed: 1 .. 12",
    ),
    "integrators": (
        lambda f: rewrite(f, "readout/integrators/weight", np.zeros((2, 11), np.int8)),
        r'"/readout/integrators/weight" is int8 of shape \(2, 11\); expected int8 of shape \(2, 12\)',
    ),
    "stride altered": (
        lambda f: f["connections/001"].attrs.modify("stride", 3),
        r"content has checksum",
    ),
}


@pytest.mark.parametrize("edit", GEOMETRY_EDITS)
def test_declared_shapes_that_disagree_are_refused(edit: str, tmp_path: Path) -> None:
    path = tmp_path / "edited.h5"
    save_network(convolutional_network(integer=True), path)
    change, message = GEOMETRY_EDITS[edit]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(NetworkError, match=r'network file ".*edited.h5": (.|\n)*' + message):
        load_network(path)


def test_a_network_without_connections_comes_back(tmp_path: Path) -> None:
    network = dataclasses.replace(convolutional_network(integer=True), connections=())
    save_network(network, tmp_path / "network.h5")
    assert_equal_networks(network, load_network(tmp_path / "network.h5"))
