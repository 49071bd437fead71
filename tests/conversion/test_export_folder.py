"""Exported networks in run folders, and the samples to try them on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trained
from fsnn_lava.conversion.export_folder import NETWORK_FILES, calibration_codes, load_deployed, samples_to_test
from fsnn_lava.errors import ConfigError, NetworkError
from fsnn_lava.hardware.network import Arithmetic, HardwareNetwork
from fsnn_lava.hardware.network_file import save_network
from fsnn_lava.quantization.quantizer import quantize


@pytest.fixture(scope="module")
def networks() -> dict[Arithmetic, HardwareNetwork]:
    floating = trained.on_hardware(trained.random_network("16 (F16)"))
    return {"float": floating, "integer": quantize(floating, trained.some_codes(10))[0]}


def export(folder: Path, networks: dict[Arithmetic, HardwareNetwork]) -> Path:
    folder.mkdir(parents=True)
    for kind, network in networks.items():
        save_network(network, folder / NETWORK_FILES[kind])
    return folder


def test_loads_both_networks(tmp_path: Path, networks: dict[Arithmetic, HardwareNetwork]) -> None:
    deployed = load_deployed(export(tmp_path / "a", networks))
    assert deployed.folder == tmp_path / "a"
    assert deployed.network("float") is deployed.floating
    assert deployed.network("integer") is deployed.integer
    assert (deployed.floating.arithmetic, deployed.integer.arithmetic) == ("float", "integer")
    for kind in ("float", "integer"):
        for a, b in zip(deployed.network(kind).connections, networks[kind].connections, strict=True):
            assert np.array_equal(a.weight, b.weight)


def test_refuses_where_nothing_was_exported(tmp_path: Path, networks: dict[Arithmetic, HardwareNetwork]) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: holds no network-float\.h5 and no network-integer\.h5; export"):
        load_deployed(tmp_path / "nowhere")
    half = export(tmp_path / "half", {"float": networks["float"]})
    with pytest.raises(ConfigError, match=r"holds no network-integer\.h5; export first: .*--run .*half"):
        load_deployed(half)


def test_refuses_a_damaged_file(tmp_path: Path, networks: dict[Arithmetic, HardwareNetwork]) -> None:
    folder = export(tmp_path / "a", networks)
    path = folder / NETWORK_FILES["integer"]
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(NetworkError, match=r"network-integer\.h5.*truncated, damaged"):
        load_deployed(folder)


def test_refuses_files_of_two_exports(tmp_path: Path, networks: dict[Arithmetic, HardwareNetwork]) -> None:
    """As an export leaves them that was killed between its two files."""
    longer = replace(networks["float"], time_steps=33)
    retrained = replace(networks["float"], provenance={**networks["float"].provenance, "metrics": {}})
    for number, floating in enumerate((longer, retrained, networks["integer"])):
        folder = export(tmp_path / str(number), {"float": floating, "integer": networks["integer"]})
        with pytest.raises(NetworkError, match=r"are not of one export: found .*; export again"):
            load_deployed(folder)


def test_samples_are_spread_over_the_test_set(networks: dict[Arithmetic, HardwareNetwork]) -> None:
    test = trained.digits().test
    samples = samples_to_test(networks["integer"], data_dir=None, count=7)
    spread = [0, 60, 120, 180, 239, 299, 359]
    assert np.array_equal(samples.codes, test.codes[spread])
    assert np.array_equal(samples.labels, test.labels[spread])
    assert len(samples_to_test(networks["integer"], data_dir=None, count=360)) == 360
    assert np.array_equal(samples_to_test(networks["integer"], data_dir=None, count=None).codes, test.codes)


@pytest.mark.parametrize("count", [0, -1, 361])
def test_refuses_more_samples_than_there_are(count: int, networks: dict[Arithmetic, HardwareNetwork]) -> None:
    with pytest.raises(ConfigError, match=rf"--samples: found {count}; allowed: 1 \.\. 360, the size of the test set"):
        samples_to_test(networks["integer"], data_dir=None, count=count)


@pytest.mark.parametrize("provenance", [{}, {"config": None}, {"config": {"name": "x"}}])
def test_refuses_unknown_data(provenance: dict[str, object], networks: dict[Arithmetic, HardwareNetwork]) -> None:
    network = replace(networks["integer"], provenance=provenance)
    with pytest.raises(ConfigError, match=r"network .*: its file does not name the dataset it was trained on"):
        samples_to_test(network, data_dir=None, count=1)


def test_calibration_samples_are_spread_over_the_training_set() -> None:
    train = trained.digits().train.codes
    codes = calibration_codes(trained.digits(), count=5)
    assert np.array_equal(codes, train[[0, 359, 718, 1077, 1436]])
    assert np.array_equal(calibration_codes(trained.digits(), count=1), train[:1])
    assert len(calibration_codes(trained.digits(), count=10_000)) == len(train) * 3 // 4
