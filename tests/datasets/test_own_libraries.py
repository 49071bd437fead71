"""Datasets that torchvision and tonic read, found as these libraries leave them; written here in their formats."""

import socket
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from fsnn_lava.cli import export, run, train
from fsnn_lava.config import DataConfig
from fsnn_lava.datasets import load_dataset
from fsnn_lava.errors import DatasetError
from fsnn_lava.training import BEST, load_checkpoint
from synthetic_nmnist import write_synthetic_nmnist

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not asked for is not fetched."""

    def refused(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_kmnist(root: Path, *, train: int = 30, test: int = 20) -> dict[str, tuple[Array, Array]]:
    """KMNIST as torchvision keeps it: four idx files."""
    folder = root / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    written = {}
    for part, prefix, count in (("train", "train", train), ("test", "t10k", test)):
        rng = np.random.default_rng(count)
        images, labels = (
            rng.integers(0, 256, (count, 28, 28)).astype(np.uint8),
            (np.arange(count) % 10).astype(np.uint8),
        )
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, count)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
        written[part] = images, labels
    return written


def test_images_of_torchvision_in_its_own_parts(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    written = write_kmnist(tmp_path)
    found = load_dataset("torchvision:KMNIST", tmp_path)
    for part, samples in (("train", found.train), ("test", found.test)):
        images, labels = written[part]
        assert np.array_equal(samples.codes[:, 0], images)
        assert np.array_equal(samples.labels, labels)
    assert found.classes[:2] == ("o", "ki")
    assert found.coding.mean == pytest.approx(((written["train"][0] / 255).mean(),))
    assert len(found.sha256) == 64
    scaled = load_dataset("torchvision:KMNIST", tmp_path, settings=DataConfig(height=14, width=14, flip=True))
    assert scaled.input_shape == (1, 14, 14)
    assert scaled.augmentation is not None


def test_images_of_torchvision_without_parts_are_split(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    for label in ("AnnualCrop", "Forest"):
        folder = tmp_path / "eurosat" / "2750" / label
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}_{number}.png")
    found = load_dataset("torchvision:EuroSAT", tmp_path)
    assert (len(found.train), len(found.test), found.input_shape) == (16, 4, (3, 8, 8))
    assert np.bincount(found.test.labels).tolist() == [2, 2]


def test_what_is_not_there_is_not_fetched(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("tonic")
    for name in ("torchvision:KMNIST", "tonic:SHD", "tonic:POKERDVS"):
        with pytest.raises(DatasetError, match=rf"{name}: .*give --download, and \w+ fetches it"):
            load_dataset(name, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    for name, message in {
        "torchvision:Digits": r"torchvision torchvision.datasets: found no dataset Digits; there are: .*KMNIST",
        "torchvision:FakeData": r"torchvision:FakeData: reads no files; expected a dataset that takes a folder, root",
        "tonic:NCALTECH101": r"its recordings have no common sensor size",
    }.items():
        with pytest.raises(DatasetError, match=message):
            load_dataset(name, tmp_path)


def write_shd(root: Path, *, count: int = 12, told_apart: bool = False) -> list[tuple[Array, Array]]:
    """SHD as tonic keeps it: an HDF5 file of spike times in seconds and units for each part, beside its archive.

    Parameters
    ----------
    told_apart : each of the four classes has units of its own, which sweep through the second; else all is chance.
    """
    folder = root / "SHD"
    folder.mkdir(parents=True)
    made = []
    for part in ("train", "test"):
        (folder / f"shd_{part}.h5.zip").write_bytes(b"")
        with h5py.File(folder / f"shd_{part}.h5", "w") as file:
            kind = h5py.vlen_dtype(np.float32), h5py.vlen_dtype(np.uint16)
            times = file.create_dataset("spikes/times", (count,), dtype=kind[0])
            units = file.create_dataset("spikes/units", (count,), dtype=kind[1])
            for number in range(count):
                rng = np.random.default_rng(number + 100 * (part == "test"))
                times[number] = np.sort(rng.random(60)).astype(np.float32)
                units[number] = rng.integers(0, 700, 60).astype(np.uint16)
                if told_apart:
                    swept = 150 * (number % 4) + 140 * times[number] + rng.normal(0, 30, 60)
                    units[number] = swept.clip(0, 699).astype(np.uint16)
                made.append((times[number], units[number]))
            file["labels"] = np.arange(count) % 4
            file["extra/keys"] = np.array([b"zero", b"one", b"two", b"three"])
            file["extra/speaker"] = np.zeros(count)
    return made


def test_spikes_of_shd_become_frames_of_700_channels(tmp_path: Path) -> None:
    pytest.importorskip("tonic")
    made = write_shd(tmp_path)
    found = load_dataset("tonic:SHD", tmp_path, settings=DataConfig(frames=6, frames_by="time"))
    assert (found.input_shape, found.frames, len(found.train), len(found.test)) == ((1, 1, 700), 6, 12, 12)
    assert found.classes == ("zero", "one", "two", "three")
    times, units = made[3]
    microseconds = (times.astype(np.float64) * 1e6).astype(np.int64)
    expected = np.zeros((6, 700), np.uint8)
    passed = microseconds - microseconds.min()
    expected[passed * 6 // (passed.max() + 1), units] = 1
    assert np.array_equal(found.train.codes[3, :, 0, 0], expected)
    small = load_dataset("tonic:SHD", tmp_path, settings=DataConfig(frames=6, height=1, width=70))
    assert small.input_shape == (1, 1, 70)
    with pytest.raises(DatasetError, match=r"found data.window_ms 5; it is a setting of your own recordings"):
        load_dataset("tonic:SHD", tmp_path, settings=DataConfig(window_ms=5))


def test_spikes_of_shd_are_learned_exported_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tonic")
    write_shd(tmp_path / "data", count=80, told_apart=True)
    monkeypatch.setenv("FSNN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    frames = ["--data.frames", "8", "--data.frames-by", "time", "--network.time-steps", "8"]
    few = ["--training.epochs", "12", "--training.batch-size", "20", "--training.milestones"]
    network = ["--network.notation", "24 (F24)", "--network.dropout", "0"]
    assert train.main(["--dataset", "tonic:SHD", "--name", "shd", *frames, *few, *network]) == 0
    trained = load_checkpoint(tmp_path / "runs" / "shd" / BEST)
    assert trained.metrics["best_test_accuracy"] > 0.8, "chance is 0.25"
    assert (trained.config.data.frames, trained.config.data.frames_by) == (8, "time")
    assert export.main([]) == 0
    assert run.main(["--backend", "simulator"]) == 0


def test_recordings_of_nmnist_are_read_from_tonics_folders(tmp_path: Path) -> None:
    """A part of the dataset, as it is: tonic would fetch all of it."""
    pytest.importorskip("tonic")
    write_synthetic_nmnist(tmp_path / "NMNIST", train=20, test=10, seed=0)
    settings = DataConfig(frames=5, frames_by="time", height=17, width=17)
    found = load_dataset("tonic:NMNIST", tmp_path, settings=settings)
    assert (found.input_shape, found.frames) == ((2, 17, 17), 5)
    assert found.classes == tuple(f"{i} - {name}" for i, name in enumerate(DIGITS))
    for part, samples in (("Train", found.train), ("Test", found.test)):
        files = sorted((tmp_path / "NMNIST" / part).glob("*/*.bin"))
        assert samples.labels.tolist() == [int(file.parent.name) for file in files]
        for file, frames in zip(files, samples.codes, strict=True):
            raw = np.frombuffer(file.read_bytes(), np.uint8).reshape(-1, 5).astype(int)
            times = (raw[:, 2] % 128) * 65536 + raw[:, 3] * 256 + raw[:, 4]
            expected = np.zeros((5, 2, 17, 17), np.uint8)
            for (x, y, high, *_), passed in zip(raw, times - times.min(), strict=True):
                expected[passed * 5 // (times.max() - times.min() + 1), int(high >= 128), y // 2, x // 2] = 1
            assert np.array_equal(frames, expected), file


def test_recordings_of_dvs_gesture_are_read_from_tonics_folders(tmp_path: Path) -> None:
    """A part of the dataset, as it is: tonic would fetch all of it."""
    pytest.importorskip("tonic")
    for part in ("Train", "Test"):
        folder = tmp_path / "DVSGesture" / f"ibmGesture{part}" / "user01_led"
        folder.mkdir(parents=True)
        for label in range(3):
            rng = np.random.default_rng(label)
            events = np.stack(
                [*rng.integers(0, 128, (2, 50)), rng.integers(0, 2, 50), np.sort(rng.integers(0, 90, 50))]
            )
            np.save(folder / f"{label}.npy", events.T.astype(np.float64))
    found = load_dataset("tonic:DVSGesture", tmp_path, settings=DataConfig(frames=5, height=32, width=32))
    assert (found.input_shape, found.frames, len(found.train), len(found.test)) == ((2, 32, 32), 5, 3, 3)
    assert found.classes == ("Hand clapping", "Right hand wave", "Left hand wave"), "three of eleven"
    events = np.load(tmp_path / "DVSGesture" / "ibmGestureTest" / "user01_led" / "1.npy").astype(np.int64)
    expected = np.zeros((5, 2, 32, 32), np.uint8)
    for k, (x, y, p, _) in enumerate(events):
        expected[((k + 1) * 5 - 1) // 50, p, y // 4, x // 4] = 1
    assert any(np.array_equal(frames, expected) for frames in found.test.codes)
