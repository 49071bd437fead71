"""Made-up CIFAR10-DVS recordings: the real format, the same bytes each time, and classes that can be told apart."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.datasets.aedat4 import events_from_aedat4
from fsnn_lava.datasets.cifar10_dvs import CLASSES
from fsnn_lava.errors import DatasetError, OutputError
from fsnn_lava.files import CACHE_VARIABLE
from synthetic_cifar10_dvs import write_synthetic_cifar10_dvs

PER_CLASS = 20


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.aedat4")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cifar10_dvs"
    write_synthetic_cifar10_dvs(folder, recordings=PER_CLASS, seed=3)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    pytest.importorskip("tonic", reason='needs tonic: pip install -e ".[events]"')
    pytest.importorskip("aedat", reason='needs aedat: pip install -e ".[events]"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        return load_dataset("cifar10_dvs", folder.parent)


def test_files_are_named_as_the_real_ones(folder: Path) -> None:
    expected = {f"{name}/cifar10_{name}_{number}.aedat4" for name in CLASSES for number in range(PER_CLASS)}
    assert set(_tree(folder)) == expected
    assert "not CIFAR10-DVS" in (folder / "SYNTHETIC.txt").read_text()


def test_events_are_those_of_a_camera(folder: Path) -> None:
    pytest.importorskip("aedat", reason='needs aedat: pip install -e ".[events]"')
    for content in list(_tree(folder).values())[::17]:
        events = events_from_aedat4(content, "here")
        assert 4000 < len(events) < 20_000
        assert max(events["x"].max(), events["y"].max()) < 128
        assert (np.diff(events["t"].astype(np.int64)) >= 0).all()
        assert events["t"][-1] < 320_000
        assert 0.45 < events["on"].mean() < 0.55  # a picture covers as many pixels as it leaves


def test_same_arguments_give_the_same_bytes_zipped_or_not(tmp_path: Path) -> None:
    for name in ("a", "b", "folders"):
        write_synthetic_cifar10_dvs(tmp_path / name, recordings=10, seed=5, as_zip=name != "folders")
    found = {}
    for name in CLASSES:
        assert (tmp_path / "a" / f"{name}.zip").read_bytes() == (tmp_path / "b" / f"{name}.zip").read_bytes()
        with zipfile.ZipFile(tmp_path / "a" / f"{name}.zip") as archive:
            found |= {file: archive.read(file) for file in archive.namelist()}
    assert found == _tree(tmp_path / "folders")
    write_synthetic_cifar10_dvs(tmp_path / "other", recordings=10, seed=6)
    assert not set(found.values()) & set(_tree(tmp_path / "other").values())


def test_no_digit_is_recorded_twice(folder: Path) -> None:
    pytest.importorskip("aedat", reason='needs aedat: pip install -e ".[events]"')
    seen = set()
    for content in _tree(folder).values():
        events = events_from_aedat4(content, "here")
        counts = np.zeros((128, 128), np.int64)  # of one digit always the same, whatever the times of its events
        np.add.at(counts, (events["y"], events["x"]), 1)
        seen.add(counts.tobytes())
    assert len(seen) == 10 * PER_CLASS


def test_loader_reads_them_and_says_that_they_are_made_up(dataset: Dataset) -> None:
    assert dataset.note == "synthetic recordings, 180 + 20 samples"
    assert dataset.frames == 30
    for samples, count in ((dataset.train, 18), (dataset.test, 2)):
        assert np.bincount(samples.labels).tolist() == [count] * 10
        assert samples.codes.any((2, 3, 4)).all()  # no frame is empty


def test_classes_can_be_told_apart_and_move(dataset: Dataset) -> None:
    train, test = (s.codes.sum(1).reshape(len(s), -1).astype(float) for s in (dataset.train, dataset.test))
    distances = ((test[:, None] - train[None]) ** 2).sum(2)
    nearest = dataset.train.labels[distances.argmin(1)]
    assert (nearest == dataset.test.labels).mean() >= 0.6  # by chance 0.1
    # The loop is right and down, left and down, left and up, right and up, 3 cells each.
    weight = np.arange(48)
    moved = []
    for steps in (slice(0, 2), slice(7, 9), slice(14, 16), slice(22, 24), slice(28, 30)):
        seen = dataset.train.codes[:, steps].sum((0, 1, 2)).astype(float)
        moved.append([(seen.sum(1) @ weight) / seen.sum(), (seen.sum(0) @ weight) / seen.sum()])
    assert np.sign(np.round(np.diff(moved, axis=0))).tolist() == [[1, 1], [1, -1], [-1, -1], [-1, 1]]


@pytest.mark.parametrize("recordings", [9, 175])
def test_number_out_of_range_is_refused(tmp_path: Path, recordings: int) -> None:
    message = f"cannot make {recordings} recordings of each class; allowed: 10 .. 174."
    with pytest.raises(DatasetError, match=re.escape(message)):
        write_synthetic_cifar10_dvs(tmp_path / "cifar10_dvs", recordings=recordings, seed=0)
    assert not (tmp_path / "cifar10_dvs").exists()


@pytest.mark.parametrize("held", ["airplane", "truck.zip"])
def test_recordings_are_never_overwritten(tmp_path: Path, held: str) -> None:
    (tmp_path / held).mkdir()
    with pytest.raises(DatasetError, match=f"{tmp_path} holds recordings already"):
        write_synthetic_cifar10_dvs(tmp_path, recordings=10, seed=0)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=f"{tmp_path}/file/cifar10_dvs: recordings cannot be written"):
        write_synthetic_cifar10_dvs(tmp_path / "file" / "cifar10_dvs", recordings=10, seed=0)
