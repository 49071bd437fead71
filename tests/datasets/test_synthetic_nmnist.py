"""Made-up recordings: the real format, the same bytes each time, and digits that can be told apart."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.errors import DatasetError, OutputError
from fsnn_lava.files import CACHE_VARIABLE
from synthetic_nmnist import write_synthetic_nmnist


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.bin")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "nmnist"
    write_synthetic_nmnist(folder, train=60, test=20, seed=3)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    pytest.importorskip("tonic", reason='needs tonic: pip install -e ".[events]"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        return load_dataset("nmnist", folder.parent)


def test_files_are_events_of_the_real_format(folder: Path) -> None:
    files = _tree(folder)
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


def test_same_arguments_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_synthetic_nmnist(tmp_path / "again", train=60, test=20, seed=3)
    assert _tree(tmp_path / "again") == _tree(folder)
    write_synthetic_nmnist(tmp_path / "other", train=60, test=20, seed=4)
    assert _tree(tmp_path / "other") != _tree(folder)


def test_zip_holds_the_same_files_and_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_synthetic_nmnist(tmp_path / name, train=60, test=20, seed=3, as_zip=True)
    found = {}
    for part in ("Train", "Test"):
        assert (tmp_path / "a" / f"{part}.zip").read_bytes() == (tmp_path / "b" / f"{part}.zip").read_bytes()
        with zipfile.ZipFile(tmp_path / "a" / f"{part}.zip") as archive:
            found |= {name: archive.read(name) for name in archive.namelist()}
    assert found == _tree(folder)


def test_loader_reads_them_and_says_that_they_are_made_up(dataset: Dataset) -> None:
    assert dataset.note == "synthetic recordings, 60 + 20 samples"
    assert (len(dataset.train), len(dataset.test), dataset.frames) == (60, 20, 30)
    assert set(dataset.train.labels) == set(dataset.test.labels) == set(range(10))


def test_digits_can_be_told_apart_and_move(dataset: Dataset) -> None:
    train, test = (s.codes.sum(1).reshape(len(s), -1).astype(float) for s in (dataset.train, dataset.test))
    distances = ((test[:, None] - train[None]) ** 2).sum(2)
    nearest = dataset.train.labels[distances.argmin(1)]
    assert (nearest == dataset.test.labels).mean() >= 0.6  # by chance 0.1
    weight = np.arange(34)
    early, late = (dataset.train.codes[:, steps].sum((0, 1, 2)) for steps in (slice(0, 5), slice(25, 30)))
    moved = [(late.sum(axis) @ weight) / late.sum() - (early.sum(axis) @ weight) / early.sum() for axis in (1, 0)]
    assert moved[0] > 3  # the first saccade goes down by 7 pixels and right by 3.5
    assert moved[1] > 1.5


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (9, 20, "Train: cannot make 9 recordings; allowed: 10 .. 1437."),
        (20, 361, "Test: cannot make 361 recordings; allowed: 10 .. 360."),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, train: int, test: int, message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        write_synthetic_nmnist(tmp_path / "nmnist", train=train, test=test, seed=0)
    assert not (tmp_path / "nmnist").exists()


@pytest.mark.parametrize("held", ["Train", "Test.zip"])
def test_recordings_are_never_overwritten(tmp_path: Path, held: str) -> None:
    (tmp_path / held).mkdir()
    with pytest.raises(DatasetError, match=f"{tmp_path} holds recordings already"):
        write_synthetic_nmnist(tmp_path, train=10, test=10, seed=0)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=f"{tmp_path}/file/nmnist: recordings cannot be written"):
        write_synthetic_nmnist(tmp_path / "file" / "nmnist", train=10, test=10, seed=0)
