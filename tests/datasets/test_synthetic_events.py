"""Made-up recordings: the real formats, the same bytes each time, and classes that can be told apart."""

import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.datasets.aedat4 import events_from_aedat4
from fsnn_lava.datasets.cifar10_dvs import CLASSES
from fsnn_lava.errors import DatasetError, OutputError
from fsnn_lava.files import CACHE_VARIABLE
from synthetic_cifar10_dvs import write_synthetic_cifar10_dvs
from synthetic_nmnist import write_synthetic_nmnist

PER_CLASS = 12
WRITERS: dict[str, Callable[..., None]] = {
    "nmnist": partial(write_synthetic_nmnist, train=60, test=20),
    "cifar10_dvs": partial(write_synthetic_cifar10_dvs, recordings=PER_CLASS),
}
each = pytest.mark.parametrize("name", WRITERS)


def _tree(folder: Path) -> dict[str, bytes]:
    files = [path for ending in ("*.bin", "*.aedat4") for path in folder.rglob(ending)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both datasets."""
    made = tmp_path_factory.mktemp("data")
    for name, write in WRITERS.items():
        write(made / name, seed=3)
    return made


@pytest.fixture(scope="module")
def loaded(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    pytest.importorskip("tonic", reason='needs tonic: pip install -e ".[events]"')
    pytest.importorskip("aedat", reason='needs aedat: pip install -e ".[events]"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        return {name: load_dataset(name, folders) for name in WRITERS}


@each
def test_same_arguments_give_the_same_bytes_zipped_or_not(name: str, folders: Path, tmp_path: Path) -> None:
    expected = _tree(folders / name)
    for copy in ("a", "b"):
        WRITERS[name](tmp_path / copy, seed=3, as_zip=True)
    found = {}
    for path in (tmp_path / "a").glob("*.zip"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        with zipfile.ZipFile(path) as archive:
            found |= {file: archive.read(file) for file in archive.namelist()}
    assert found == expected
    WRITERS[name](tmp_path / "other", seed=4)
    assert not set(expected.values()) & set(_tree(tmp_path / "other").values())


def test_files_are_events_of_the_real_format(folders: Path) -> None:
    files = _tree(folders / "nmnist")
    names = [re.fullmatch(r"(Train|Test)/([0-9])/([0-9]{5})\.bin", name) for name in files]
    numbers = {part: sorted(int(n[3]) for n in names if n and n[1] == part) for part in ("Train", "Test")}
    assert numbers == {"Train": list(range(1, 61)), "Test": list(range(1, 21))}
    for content in files.values():
        e = np.frombuffer(content, np.uint8).reshape(-1, 5).astype(np.int64)
        t = (e[:, 2] & 127) << 16 | e[:, 3] << 8 | e[:, 4]
        assert e[:, :2].max() < 34
        assert (np.diff(t) >= 0).all()
        assert t[-1] < 300_000
        assert 500 < len(e) < 10_000
        assert 0.4 < (e[:, 2] >> 7).mean() < 0.6  # a moving digit covers as many pixels as it leaves


def test_files_are_named_as_the_real_ones(folders: Path) -> None:
    expected = {f"{name}/cifar10_{name}_{number}.aedat4" for name in CLASSES for number in range(PER_CLASS)}
    assert set(_tree(folders / "cifar10_dvs")) == expected
    assert "not CIFAR10-DVS" in (folders / "cifar10_dvs" / "SYNTHETIC.txt").read_text()


def test_events_are_those_of_a_camera_and_no_digit_is_recorded_twice(folders: Path) -> None:
    pytest.importorskip("aedat", reason='needs aedat: pip install -e ".[events]"')
    seen = set()
    for content in _tree(folders / "cifar10_dvs").values():
        events = events_from_aedat4(content, "here")
        assert 4000 < len(events) < 20_000
        assert max(events["x"].max(), events["y"].max()) < 128
        assert (np.diff(events["t"].astype(np.int64)) >= 0).all()
        assert events["t"][-1] < 320_000
        assert 0.45 < events["on"].mean() < 0.55  # a picture covers as many pixels as it leaves
        counts = np.zeros((128, 128), np.int64)  # of one digit always the same, whatever the times of its events
        np.add.at(counts, (events["y"], events["x"]), 1)
        seen.add(counts.tobytes())
    assert len(seen) == 10 * PER_CLASS


@pytest.mark.parametrize(("name", "train", "test"), [("nmnist", 60, 20), ("cifar10_dvs", 100, 20)])
def test_loader_says_that_they_are_made_up(name: str, train: int, test: int, loaded: dict[str, Dataset]) -> None:
    dataset = loaded[name]
    assert dataset.note == f"synthetic recordings, {train} + {test} samples"
    assert (len(dataset.train), len(dataset.test), dataset.frames) == (train, test, 30)
    for samples in (dataset.train, dataset.test):
        assert set(samples.labels) == set(range(10))
        if name == "cifar10_dvs":
            assert np.bincount(samples.labels).tolist() == [len(samples) // 10] * 10
            assert samples.codes.any((2, 3, 4)).all()  # no frame is empty


@each
def test_classes_can_be_told_apart(name: str, loaded: dict[str, Dataset]) -> None:
    parts = (loaded[name].train, loaded[name].test)
    train, test = (s.codes.sum(1).reshape(len(s), -1).astype(float) for s in parts)
    nearest = parts[0].labels[((test[:, None] - train[None]) ** 2).sum(2).argmin(1)]
    assert (nearest == parts[1].labels).mean() >= 0.6  # by chance 0.1


def _place(dataset: Dataset, *steps: int) -> list[float]:
    """Mean (row, column) of what is seen from the first of those steps to before the last."""
    seen = dataset.train.codes[:, slice(*steps)].sum((0, 1, 2)).astype(float)
    weight = np.arange(len(seen))
    return [(seen.sum(axis) @ weight) / seen.sum() for axis in (1, 0)]


def test_digits_move(loaded: dict[str, Dataset]) -> None:
    early, late = (_place(loaded["nmnist"], *steps) for steps in ((0, 5), (25, 30)))
    assert late[0] - early[0] > 3  # the first saccade goes down by 7 pixels and right by 3.5
    assert late[1] - early[1] > 1.5


def test_pictures_move_in_a_loop(loaded: dict[str, Dataset]) -> None:
    """Right and down, left and down, left and up, right and up, 3 cells each."""
    dataset = loaded["cifar10_dvs"]
    moved = [_place(dataset, *steps) for steps in ((0, 2), (7, 9), (14, 16), (22, 24), (28, 30))]
    assert np.sign(np.round(np.diff(moved, axis=0))).tolist() == [[1, 1], [1, -1], [-1, -1], [-1, 1]]


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("nmnist", {"train": 9}, "Train: cannot make 9 recordings; allowed: 10 .. 1437."),
        ("nmnist", {"test": 361}, "Test: cannot make 361 recordings; allowed: 10 .. 360."),
        ("cifar10_dvs", {"recordings": 9}, "cannot make 9 recordings of each class; allowed: 10 .. 174."),
        ("cifar10_dvs", {"recordings": 175}, "cannot make 175 recordings of each class; allowed: 10 .. 174."),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        WRITERS[name](tmp_path / "new", seed=0, **sizes)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "held"),
    [("nmnist", "Train"), ("nmnist", "Test.zip"), ("cifar10_dvs", "airplane"), ("cifar10_dvs", "truck.zip")],
)
def test_recordings_are_never_overwritten(tmp_path: Path, name: str, held: str) -> None:
    (tmp_path / held).mkdir()
    with pytest.raises(DatasetError, match=f"{tmp_path} holds recordings already"):
        WRITERS[name](tmp_path, seed=0)


@each
def test_folder_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=f"{tmp_path}/file/{name}: recordings cannot be written"):
        WRITERS[name](tmp_path / "file" / name, seed=0)
