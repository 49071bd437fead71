"""Checkpoints: what is saved comes back and behaves the same; what was damaged is refused."""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fsnn_lava.config import ConnectionConfig, NetworkConfig, TrainConfig
from fsnn_lava.datasets import InputCoding
from fsnn_lava.errors import CheckpointError, OutputError
from fsnn_lava.network.layers import FrobeniusRestriction, Synapse
from fsnn_lava.training.checkpoint import (
    TrainedNetwork,
    load_checkpoint,
    load_training,
    new_model,
    save_checkpoint,
    take_weights,
)
from short_training import short_digits

CODING = InputCoding("graded", maximum=255, scale=1 / 255, mean=(0.1307,), std=(0.3081,))
NETWORK = NetworkConfig(notation="2C3s-2C3 (F2C3)", leak=0.9, time_steps=7)


def trained(network: NetworkConfig = NETWORK) -> TrainedNetwork:
    """A network whose every tensor, running statistics too, differs from a new one's."""
    config = TrainConfig(name="test", network=network)
    model = new_model(config, (1, 4, 4), 3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    return TrainedNetwork(config, (1, 4, 4), ("a", "b", "c"), CODING, model.state_dict(), {"accuracy": 0.1})


def images() -> Tensor:
    return torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "network",
    [
        NETWORK,
        NetworkConfig(notation="6-5 (F6)", batch_norm=False, time_steps=7),
        NetworkConfig(notation="6-5"),
        NetworkConfig(
            notation="2C3-P2-3C3 (F2C3u)",
            pooling="spiking",
            batch_norm=False,
            v_threshold=1.0,
            spectral_norm="frobenius",
            time_steps=7,
        ),
    ],
    ids=lambda n: n.notation,
)
def test_network_behaves_the_same_when_it_comes_back(tmp_path: Path, network: NetworkConfig) -> None:
    before = trained(network)
    save_checkpoint(before, tmp_path / "a.safetensors")
    after = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(after.model()(images(), 7), before.model()(images(), 7))
    assert not torch.equal(after.model()(images(), 7), new_model(before.config, (1, 4, 4), 3).eval()(images(), 7))
    for name in ("config", "input_shape", "classes", "coding", "metrics"):
        assert getattr(after, name) == getattr(before, name), name
    assert not after.model().training


def test_model_gets_every_setting_of_the_network() -> None:
    settings = {"batch_norm": False, "dropout": 0.5, "dropout_on": "last", "pooling": "spiking"}
    settings |= {"spectral_norm": "frobenius", "spectral_norm_bound": 0.25}
    settings |= {"initial_weights": "kaiming_normal", "initial_transposed_scale": 0.01}
    network = NetworkConfig("2C3-P2-3C3 (F2C3u)", v_threshold=1.0, **settings)
    model = new_model(TrainConfig(network=network), (1, 4, 4), 3)
    assert model.population_shapes == ((2, 4, 4), (2, 2, 2), (3, 2, 2))
    bound = model.bind(2, generator=torch.Generator().manual_seed(0))
    assert [synapse.mask is not None for synapse in bound.feedforward] == [False, False, True]
    assert isinstance(model.feedback, Synapse)
    assert isinstance(model.feedback.restriction, FrobeniusRestriction)
    assert model.feedback.restriction.bound == 0.25
    assert 0 < float(model.feedback.weight.detach().norm()) < 0.1
    assert float(model.feedforward[0].weight.detach().flatten(1).norm(dim=1)[0]) != pytest.approx(1.0, abs=1e-3)


def test_progress_and_state_come_back(tmp_path: Path) -> None:
    state = {"generator": torch.Generator().get_state(), "momentum.w": torch.rand(2, 3)}
    progress = {"epoch": 3, "sums": {"loss": 0.1 + 0.2}, "history": [{"test/accuracy": 1 / 3}]}
    save_checkpoint(trained(), tmp_path / "a.safetensors", progress=progress, state=state)
    _, found_progress, found_state = load_training(tmp_path / "a.safetensors")
    assert found_progress == progress, "floats come back to the last bit"
    assert found_state.keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in found_state.items())


def test_saving_leaves_one_file(tmp_path: Path) -> None:
    for _ in range(2):
        save_checkpoint(trained(), tmp_path / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Checkpoint of a network so small that every byte of it can be tried."""
    path = tmp_path / "small.safetensors"
    config = TrainConfig(network=NetworkConfig(notation="1 (F1)", batch_norm=False))
    model = new_model(config, (1, 1, 1), 1)
    save_checkpoint(TrainedNetwork(config, (1, 1, 1), ("a",), CODING, model.state_dict()), path)
    return path


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file; train first: fsnn train"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_every_truncation_is_refused(small: Path) -> None:
    whole = small.read_bytes()
    for length in [0, 1, 7, 8, 9, *range(10, len(whole), 97), len(whole) - 1]:
        small.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"truncated or not a safetensors file .* train again"):
            load_checkpoint(small)


def test_flipped_bit_anywhere_is_refused(small: Path) -> None:
    whole = small.read_bytes()
    data_begins = 8 + struct.unpack("<Q", whole[:8])[0]
    header_ends = len(whole[:data_begins].rstrip(b" "))  # JSON's trailing blanks say nothing
    for at in [*range(0, header_ends, 3), *range(data_begins, len(whole))]:
        small.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"checkpoint .*small\.safetensors: "):
            load_checkpoint(small)
    small.write_bytes(whole)
    load_checkpoint(small)


def test_altered_weight_is_refused_by_its_checksum(small: Path) -> None:
    whole = bytearray(small.read_bytes())
    whole[-1] ^= 1
    small.write_bytes(whole)
    with pytest.raises(CheckpointError, match="the checksum does not match; the file was altered after writing"):
        load_checkpoint(small)


def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("hello, this is a text file and no network")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: truncated or not a safetensors file"):
        load_checkpoint(path)
    save_file({"w": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"""found format 'pt'; expected "fsnn-lava-checkpoint\""""):
        load_checkpoint(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="found format None"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path)


def test_other_version_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsnn_lava.training.checkpoint.VERSION", 2)
    with pytest.raises(CheckpointError, match="found version 1; this program reads version 2"):
        load_checkpoint(small)


def test_header_of_another_program_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound checksum over settings that this program does not know."""
    known = json.dumps

    def dumps(value: object) -> str:
        return known({**value, "colour": "red"} if isinstance(value, dict) and "network" in value else value)

    with monkeypatch.context() as patch:
        patch.setattr("fsnn_lava.training.checkpoint.json.dumps", dumps)
        save_checkpoint(trained(), small)
    with pytest.raises(CheckpointError, match='its header cannot be understood: unknown key "colour"'):
        load_checkpoint(small)


def without(weights: dict[str, Tensor]) -> None:
    del weights["readout.bias"]


def extra(weights: dict[str, Tensor]) -> None:
    weights["readout.scale"] = torch.zeros(1)


def reshaped(weights: dict[str, Tensor]) -> None:
    weights["readout.bias"] = torch.zeros(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, r"weights do not fit the network .*differing names or shapes: readout\.bias \(3,\)"),
        (extra, r"weights do not fit the network .*readout\.scale \(1,\)"),
        (reshaped, r"weights do not fit the network .*readout\.bias \(3,\), readout\.bias \(4,\)"),
    ],
)
def test_others_weights_are_refused(tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str) -> None:
    before = trained()
    weights = dict(before.weights)
    change(weights)
    save_checkpoint(replace(before, weights=weights), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "a.safetensors").model()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(poison: float) -> None:
    before = trained()
    weights = {k: v.clone() for k, v in before.weights.items()}
    weights["feedback.weight"][0, 0, 0, 0] = poison
    with pytest.raises(CheckpointError, match=r'weight "feedback\.weight" has values that are not finite'):
        replace(before, weights=weights).model()


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file.a\.safetensors: cannot be written: Not a directory"):
        save_checkpoint(trained(), tmp_path / "file" / "a.safetensors")
    with pytest.raises(OutputError, match=r"cannot be written: No such file or directory; choose a folder"):
        save_checkpoint(trained(), tmp_path / "none" / "a.safetensors")


@pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
def test_old_checkpoint_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(trained(), path)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(OutputError, match=r"a\.safetensors: cannot be written: No space left on device"):
            save_checkpoint(trained(NetworkConfig(notation="6-5 (F6)")), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"], "no temporary file is left"


def test_weights_of_another_wiring_are_refused_though_all_shapes_are_the_same() -> None:
    def graph(*pairs: str) -> NetworkConfig:
        connections = [ConnectionConfig(*pair.split(">"), "5") for pair in ("input>a", "a>b", "b>c", *pairs)]
        return NetworkConfig("", tuple(connections), batch_norm=False)

    data = short_digits()
    config, rewired = (TrainConfig(network=graph(pair)) for pair in ("c>a", "c>b"))
    origin, other = (new_model(c, data.input_shape, len(data.classes)) for c in (config, rewired))
    assert {n: t.shape for n, t in origin.state_dict().items()} == {n: t.shape for n, t in other.state_dict().items()}
    given = TrainedNetwork(config, data.input_shape, data.classes, data.coding, origin.state_dict(), {})
    message = r"do not fit .*: the network is to have input -5-> a, a -5-> b, b -5-> c, c -5-> b; a training"
    with pytest.raises(CheckpointError, match=message):
        take_weights(other, given, dataset=data)
    again = new_model(config, data.input_shape, len(data.classes))
    take_weights(again, given, dataset=data)
