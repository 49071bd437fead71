"""The network file: round trips, and everything that must be refused."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import networks
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.errors import NetworkError, OutputError, StateOverflowError
from fsnn_lava.hardware import Readout
from fsnn_lava.hardware.geometry import Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Integrators, Population
from fsnn_lava.hardware.network_file import load_network, save_network
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron, Neuron
from networks import assert_equal_networks, small_float_network, worked_example
from random_networks import random_network


def test_integer_networks_come_back_and_run_the_same(tmp_path: Path) -> None:
    for seed in range(20):
        network = random_network(seed)
        save_network(network, tmp_path / "network.h5")
        loaded = load_network(tmp_path / "network.h5")
        assert_equal_networks(network, loaded)
        inputs = networks.random_inputs(network, 3, seed=seed)
        try:
            runs = [
                IntegerSimulator().run(n, inputs, record=[p.name for p in n.populations]) for n in (network, loaded)
            ]
        except StateOverflowError:
            continue
        assert all(np.array_equal(runs[0].spikes[name], runs[1].spikes[name]) for name in runs[0].spikes)
        assert np.array_equal(runs[0].logits, runs[1].logits)


def test_float_networks_come_back_and_run_the_same(tmp_path: Path) -> None:
    network = small_float_network()
    save_network(network, tmp_path / "network.h5")
    loaded = load_network(tmp_path / "network.h5")
    assert_equal_networks(network, loaded)
    inputs = np.random.default_rng(1).integers(0, 4, (5, 3))
    runs = [FloatSimulator().run(n, inputs, record=["p0", "p1"]) for n in (network, loaded)]
    assert all(np.array_equal(runs[0].spikes[name], runs[1].spikes[name]) for name in ("p0", "p1"))
    assert 0 < runs[0].spikes["p1"].mean() < 1


def test_version_is_the_oldest_that_has_what_the_network_needs(tmp_path: Path) -> None:
    """Exponents of spikes that are negative came with version 3; of codes they were there before."""
    network, path = worked_example(), tmp_path / "network.h5"
    assert [c.weight_exponent for c in network.connections] == [-8, 0, 1, 0]
    for exponent, version in ((0, 2), (-1, 3), (-8, 3)):
        connections = (*network.connections[:3], replace(network.connections[3], weight_exponent=exponent))
        save_network(replace(network, connections=connections), path)
        with h5py.File(path) as file:
            assert file.attrs["version"] == version
        assert load_network(path).connections[3].weight_exponent == exponent


def test_a_period_comes_with_version_4(tmp_path: Path) -> None:
    network, path = worked_example(), tmp_path / "network.h5"
    assert network.connections[1].source == "always_on"
    pulsed = replace(network.connections[1], period=16)
    save_network(replace(network, connections=(network.connections[0], pulsed, *network.connections[2:])), path)
    with h5py.File(path, "r+") as file:
        assert file.attrs["version"] == 4
        assert [file[f"connections/{i:03d}"].attrs["period"] for i in range(4)] == [1, 16, 1, 1]
    assert [c.period for c in load_network(path).connections] == [1, 16, 1, 1]
    with h5py.File(path, "r+") as file:
        del file["connections/002"].attrs["period"]
    with pytest.raises(NetworkError, match=r'attribute "period" of group "/connections/002" is missing'):
        load_network(path)


@pytest.mark.parametrize("changed", [{"reset": "zero"}, {"current_decay": 3000}])
def test_reset_to_zero_and_decaying_currents_come_with_version_5(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Of one population: the others then say that they have neither."""
    network, path = worked_example(), tmp_path / "network.h5"
    first = replace(network.populations[0], neuron=replace(network.populations[0].neuron, **changed))
    network = replace(network, populations=(first, *network.populations[1:]))
    save_network(network, path)
    expected = [({"reset": "subtract", "current_decay": 4096} | more) for more in (changed, {})]
    with h5py.File(path) as file:
        assert file.attrs["version"] == 5
        for i, entries in enumerate(expected):
            attributes = file[f"populations/{i:03d}"].attrs
            assert attributes["reset"].decode() == entries["reset"]
            assert attributes["current_decay"] == entries["current_decay"]
    assert_equal_networks(network, load_network(path))


def test_floats_have_them_too(tmp_path: Path) -> None:
    network, path = small_float_network(), tmp_path / "network.h5"
    neuron = FloatNeuron(1.25, 1.0, 0.5, "zero", 0.3)
    network = replace(network, populations=tuple(replace(p, neuron=neuron) for p in network.populations))
    save_network(network, path)
    with h5py.File(path) as file:
        assert (file.attrs["version"], file["populations/001"].attrs["current_leak"]) == (5, 0.3)
    assert_equal_networks(network, load_network(path))
    with h5py.File(path, "r+") as file:
        file["populations/000"].attrs["reset"] = "to rest"
    with pytest.raises(NetworkError, match=r'population "p0": found reset to rest; allowed: subtract or zero'):
        load_network(path)


def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    save_network(worked_example(), tmp_path / "one.h5")
    save_network(load_network(tmp_path / "one.h5"), tmp_path / "two.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def rewrite(file: h5py.File, path: str, value: Any) -> None:
    del file[path]
    file[path] = value


def rename(file: h5py.File, old: str, new: str) -> None:
    file.move(old, new)


Edit = Callable[[h5py.File], Any]


def _at(group: str | int, name: str, value: Any) -> Edit:
    """Set an attribute of a group, a number being that of a connection."""
    path = group if isinstance(group, str) else f"connections/{group:03d}"
    return lambda f: f[path].attrs.create(name, value)


def _weight(number: int, shape: tuple[int, ...]) -> Edit:
    return lambda f: rewrite(f, f"connections/{number:03d}/weight", np.zeros(shape, np.int8))


EDITS: dict[str, tuple[Edit, str]] = {
    "other format": (_at("/", "format", "nir"), r'format is "nir"; expected "fsnn-lava-network"'),
    "other version": (_at("/", "version", 1), r"version 1; this release reads versions 2 to 5; export"),
    "no version": (lambda f: f.attrs.pop("version"), r'attribute "version" of group "/" is missing'),
    "version is text": (_at("/", "version", "1"), r'attribute "version" of group "/" is <U1 .*; expected int64'),
    "name is a number": (_at("/", "name", 3), r'attribute "name" of group "/" is a int64; expected text'),
    "other arithmetic": (_at("/", "arithmetic", "ternary"), r'arithmetic is "ternary"; expected "float"'),
    "provenance no JSON": (lambda f: rewrite(f, "provenance", "{"), r'"/provenance" is not JSON'),
    "provenance a list": (lambda f: rewrite(f, "provenance", "[]"), r'"/provenance" holds a list; expected a JSON'),
    "other input": (_at("input", "kind", "rate"), r'input kind is "rate"; expected "graded" or "ev'),
    "empty sample": (_at("input", "shape", [0]), r'"shape" of group "/input" is \(0,\); expected sizes'),
    "shape is a number": (_at("input", "shape", 2), r"int64 with 0 dimension\(s\); expected int64 with 1"),
    "no input": (lambda f: f.pop("input"), r'group "/input" is missing'),
    "no readout": (lambda f: f.pop("readout"), r'group "/readout" is missing'),
    "no populations": (lambda f: f.pop("populations"), r'group "/populations" is missing'),
    "no weight": (
        lambda f: f.pop("connections/002/weight"),
        r'dataset "/connections/002/weight" is missing; expected int8',
    ),
    "gap": (lambda f: rename(f, "connections/001", "connections/007"), r"\"/connections\" holds .*'007'.*without gaps"),
    "wide weights": (
        lambda f: rewrite(f, "connections/002/weight", np.array([[3, 2]])),
        r'dataset "/connections/002/weight" is int64 of shape \(1, 2\); expected int8 of shape \(any, any\)',
    ),
    "flat weights": (
        lambda f: rewrite(f, "connections/002/weight", np.array([3, 2], np.int8)),
        r"int8 of shape \(2,\); expected int8 of shape \(any, any\)",
    ),
    "wrong bias": (
        lambda f: rewrite(f, "readout/bias", np.zeros(3)),
        r'dataset "/readout/bias" is float64 of shape \(3,\); expected float64 of shape \(2\)',
    ),
    "weights do not fit": (_weight(2, (1, 3)), r'connection "a to b" .*weight of shape \(1, 3\)'),
    "NaN": (
        lambda f: f["readout/weight"].write_direct(np.full((2, 1), np.nan)),
        r"readout: found values that are not fin",
    ),
    "dangling": (_at(3, "source", "c"), r"connection .*found an end that does not exi"),
    "mantissa": (_at(3, "weight_bits", 4), r'connection "b to a" .*found 1 mantissa out of range; allowed: -8 .. 7'),
    "exponent": (_at(3, "weight_exponent", -9), r"found weight exponent -9; allowed: -8 .. 7"),
    "altered weight": (
        lambda f: f["connections/003/weight"].write_direct(np.array([[-2], [51]], np.int8)),
        r"content has checksum \w+, the file says \w+: it was altered; export it again",
    ),
    "altered provenance": (lambda f: rewrite(f, "provenance", "{}"), r"content has checksum"),
    "connection removed": (lambda f: f.pop("connections/003"), r"content has checksum"),
    "no checksum": (lambda f: f.attrs.pop("checksum"), r'attribute "checksum" of group "/" is missing'),
}


def assert_refused(path: Path, network: HardwareNetwork, change: Edit, message: str) -> None:
    """A file of that network, changed so, is refused by its name and for that reason."""
    save_network(network, path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(NetworkError, match=rf'network file ".*{path.name}": (.|\n)*' + message):
        load_network(path)


@pytest.mark.parametrize("edit", EDITS)
def test_edited_files_are_refused_by_name_and_reason(edit: str, tmp_path: Path) -> None:
    assert_refused(tmp_path / "edited.h5", worked_example(), *EDITS[edit])


def test_nan_weights_of_float_networks_are_refused(tmp_path: Path) -> None:
    save_network(small_float_network(), tmp_path / "network.h5")
    with h5py.File(tmp_path / "network.h5", "r+") as file:
        file["connections/001/weight"][2, 3] = np.nan
    with pytest.raises(
        NetworkError, match=r'network.h5": network "floats" (.|\n)* found weights that are not finite: 1'
    ):
        load_network(tmp_path / "network.h5")


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r'"absent.h5": there is no such file; fsnn export writes'):
        load_network("absent.h5")
    with pytest.raises(NetworkError, match="there is no such file"):
        load_network(tmp_path)
    (tmp_path / "text.h5").write_text("not HDF5 at all")
    with pytest.raises(NetworkError, match=r'text.h5": cannot be read as HDF5, .*; export it again'):
        load_network(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(NetworkError, match=r'other.h5": attribute "format" of group "/" is missing'):
        load_network(tmp_path / "other.h5")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "network.h5"
    save_network(worked_example(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(NetworkError, match=r'network.h5": cannot be read as HDF5, it is truncated, damaged'):
        load_network(path)


def test_flipped_bits_in_numbers_are_noticed(tmp_path: Path) -> None:
    """A bit of each scalar attribute's and text's bytes, wherever they lie in the file."""
    path = tmp_path / "network.h5"
    save_network(worked_example(), path)
    data = path.read_bytes()
    needles = [np.int64(1000).tobytes(), np.float64(0.125).tobytes(), b"always_on", b"accuracy"]
    flipped = 0
    for needle in needles:
        for found in re.finditer(re.escape(needle), data):
            altered = bytearray(data)
            altered[found.start()] ^= 1
            path.write_bytes(altered)
            with pytest.raises(NetworkError, match=r'network.h5": '):
                load_network(path)
            flipped += 1
    assert flipped >= 4


def test_flipped_bits_anywhere_are_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "network.h5"
    save_network(worked_example(), path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position, bit in zip(rng.integers(len(data), size=100), rng.integers(8, size=100), strict=True):
        altered = bytearray(data)
        altered[position] ^= 1 << bit
        path.write_bytes(altered)
        try:
            assert_equal_networks(load_network(path), worked_example())  # HDF5 leaves gaps, where a bit means nothing
        except NetworkError:
            refused += 1
    assert refused > 10


def test_folders_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"absent/network.h5: cannot be written: No such file or directory; ch"):
        save_network(worked_example(), tmp_path / "absent" / "network.h5")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Not a directory; choose a folder"):
        save_network(worked_example(), tmp_path / "file" / "network.h5")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.h5"
    save_network(worked_example(), path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_network(worked_example("another"), path)
    assert load_network(path).name == "example"
    assert [p.name for p in tmp_path.iterdir()] == ["network.h5"]


@pytest.mark.parametrize("value", [float("nan"), np.float32(1), {1, 2}])
def test_provenance_that_is_not_json_is_refused(value: Any, tmp_path: Path) -> None:
    network = replace(worked_example(), provenance={"value": value})
    with pytest.raises(NetworkError, match=r'network "example": the provenance is not JSON .*; use text, finite'):
        save_network(network, tmp_path / "network.h5")
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_readable_json(tmp_path: Path) -> None:
    save_network(worked_example(), tmp_path / "network.h5")
    with h5py.File(tmp_path / "network.h5", "r") as file:
        assert json.loads(file["provenance"][()])["metrics"]["note"] == "Überschuß"


def convolutional_network(*, integer: bool) -> HardwareNetwork:
    """Every geometry, and integrators for the readout where there are integers."""
    rng = np.random.default_rng(0)
    bits = 8 if integer else 0

    def weight(*shape: int) -> Array:
        return rng.integers(-128, 128, shape).astype(np.int32) if integer else rng.normal(size=shape)

    neuron: Neuron = IntegerNeuron(150, 150, 0, 40, 0.1) if integer else FloatNeuron(1.0, 1.0, 0.9)
    readout = Readout("b", rng.normal(size=(2, 2 * 3 * 2)), rng.normal(size=2))
    if integer:
        readout = replace(readout, integrators=Integrators(weight(2, 12), 3, 8, 2, 0.25))
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
        _at(0, "geometry", "spiral"),
        r'geometry of group "/connections/000" is "spiral"; expected one of "dense", "convolution", "transposed_conv',
    ),
    "dense": (
        _at(0, "geometry", "dense"),
        r'dataset "/connections/000/weight" is int8 of shape \(4, 1, 3, 3\); expected int8 of shape \(any, any\)',
    ),
    "kernels": (
        _weight(2, (2, 3, 4, 4)),
        r'connection "down" .*found kernels of shape \(2, 3, 4, 4\); allowed: \(2, 4, 4, 4\)',
    ),
    "stride": (
        _at(2, "stride", 1),
        r'connection "down" .*found a target of shape \(2, 3, 2\); allowed: \(2, 5, 3\), where these kernels lead',
    ),
    "output padding": (_at(3, "output_padding", 2), r'connection "up" .*found output padding 2; allowed: 0 .. 1'),
    "padding": (
        _at(0, "padding", -1),
        r'connection "in" .*found stride 1, padding -1; allowed: stride at least 1, padding 0 .. 2',
    ),
    "oblong": (
        _weight(2, (2, 4, 4, 3)),
        r'connection "down" .*found kernels of shape \(2, 4, 4, 3\); allowed: four axes, the last two of one size',
    ),
    "population": (
        _at("populations/001", "shape", np.array([12])),
        r'connection "down" .*found a convolution from shape \(4, 6, 4\) to \(12,\); allowed: shapes \(C, H, W\)',
    ),
    "parts": (_at("readout", "parts", 13), r"readout's integrators: found 13 parts; allowed: 1 .. 12"),
    "integrators": (
        lambda f: rewrite(f, "readout/integrators/weight", np.zeros((2, 11), np.int8)),
        r'"/readout/integrators/weight" is int8 of shape \(2, 11\); expected int8 of shape \(2, 12\)',
    ),
    "stride altered": (_at(1, "stride", 3), r"content has checksum"),
}


@pytest.mark.parametrize("edit", GEOMETRY_EDITS)
def test_declared_shapes_that_disagree_are_refused(edit: str, tmp_path: Path) -> None:
    assert_refused(tmp_path / "edited.h5", convolutional_network(integer=True), *GEOMETRY_EDITS[edit])


def test_a_network_without_connections_comes_back(tmp_path: Path) -> None:
    network = replace(convolutional_network(integer=True), connections=())
    save_network(network, tmp_path / "network.h5")
    assert_equal_networks(network, load_network(tmp_path / "network.h5"))
