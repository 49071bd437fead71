"""MNIST and Fashion-MNIST: idx files in every layout, and files that are missing, short or not what they say."""

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fsnn_lava.datasets import DATA_VARIABLE, InputCoding, load_dataset
from fsnn_lava.errors import DatasetError

Array = npt.NDArray[Any]

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
COUNTS = {"train": 12, "t10k": 10}


def idx_bytes(magic: int, values: Array) -> bytes:
    return np.array([magic, *values.shape], ">u4").tobytes() + values.tobytes()


def idx_files() -> dict[str, bytes]:
    """Unpacked bytes of twelve training and ten test samples."""
    rng = np.random.default_rng(0)
    files = {}
    for prefix, count in COUNTS.items():
        files[f"{prefix}-images-idx3-ubyte"] = idx_bytes(2051, rng.integers(0, 256, (count, 28, 28), np.uint8))
        files[f"{prefix}-labels-idx1-ubyte"] = idx_bytes(2049, np.arange(count, dtype=np.uint8) % 10)
    return files


def write_idx(folder: Path, files: dict[str, bytes], *, packed: bool = True) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_in_every_layout(tmp_path: Path, folder: str, packed: bool) -> None:
    name, files = "fashion_mnist" if folder.startswith(("f", "F")) else "mnist", idx_files()
    write_idx(tmp_path / folder, files, packed=packed)
    dataset = load_dataset(name, tmp_path)
    for samples, prefix in ((dataset.train, "train"), (dataset.test, "t10k")):
        assert samples.codes.shape == (COUNTS[prefix], 1, 28, 28)
        assert samples.codes.tobytes() == files[f"{prefix}-images-idx3-ubyte"][16:]
        assert samples.labels.tolist() == [i % 10 for i in range(COUNTS[prefix])]
        assert samples.codes.flags.writeable  # torch warns of arrays that are not
    assert dataset.name == name
    assert dataset.input_shape == (1, 28, 28)
    assert len(dataset.classes) == 10
    assert dataset.coding == InputCoding("graded", 255, 1 / 255, (0.1307,), (0.3081,))


def test_folder_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "mnist", idx_files())
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert len(load_dataset("mnist").train) == 12


def test_no_folder_says_how_to_get_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(DatasetError, match=re.escape('torchvision.datasets.FashionMNIST("DIR", download=True)')):
        load_dataset("fashion_mnist")


def test_missing_file_names_every_place_and_the_way_to_get_it(tmp_path: Path) -> None:
    files = idx_files()
    del files[TEST_LABELS]
    write_idx(tmp_path / "fashion-mnist", files)
    with pytest.raises(DatasetError, match=f"fashion_mnist: {TEST_LABELS} is missing. Looked at:") as raised:
        load_dataset("fashion_mnist", tmp_path)
    places = [tmp_path / f / (TEST_LABELS + s) for f in ("fashion-mnist", "FashionMNIST/raw") for s in (".gz", "")]
    for place in places:
        assert f"\n  {place}\n" in str(raised.value)
    assert f'torchvision.datasets.FashionMNIST("{tmp_path}", download=True)' in str(raised.value)


FULL = 16 + 12 * 28 * 28


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (TRAIN_IMAGES, lambda d: d[:-1], f"is truncated: expected {FULL} bytes, found {FULL - 1} bytes"),
        (TRAIN_IMAGES, lambda d: d[:16], f"is truncated: expected {FULL} bytes, found 16 bytes"),
        (TRAIN_IMAGES, lambda d: d[:15], "is truncated: expected a header of 16 bytes, found 15 bytes"),
        (TRAIN_IMAGES, lambda d: b"", "is truncated: expected a header of 16 bytes, found 0 bytes"),
        (TRAIN_LABELS, lambda d: d[:-1], "is truncated: expected 20 bytes, found 19 bytes"),
        (TRAIN_IMAGES, lambda d: d + b"\0", f"has bytes after its end: expected {FULL} bytes, found {FULL + 1} bytes"),
        (
            TRAIN_IMAGES,
            lambda d: b"\0\0\x08\x01" + d[4:],
            "is not the idx file that its name says: magic 2049, expected",
        ),
        (
            TRAIN_LABELS,
            lambda d: b"\0\0\x08\x03" + d[4:],
            "is not the idx file that its name says: magic 2051, expected",
        ),
        (
            TRAIN_IMAGES,
            lambda d: idx_bytes(2051, np.zeros((12, 27, 28), np.uint8)),
            ": images of 27x28, expected 28x28",
        ),
        (TEST_LABELS, lambda d: idx_bytes(2049, np.zeros(4, np.uint8)), "4 labels; must agree"),
        (TEST_LABELS, lambda d: d[:-1] + b"\x0a", ": found label 10; allowed: 0 .. 9"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_broken_idx_file_is_refused(tmp_path: Path, packed: bool, name: str, change: Any, message: str) -> None:
    files = idx_files()
    files[name] = change(files[name])
    write_idx(tmp_path / "mnist", files, packed=packed)
    path = tmp_path / "mnist" / (f"{name}.gz" if packed else name)
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        load_dataset("mnist", tmp_path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("cut", [1, 8, 9, 1000])
def test_truncated_gz_is_refused(tmp_path: Path, cut: int) -> None:
    write_idx(tmp_path / "mnist", idx_files())
    path = tmp_path / "mnist" / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-cut])
    pattern = f"{path} is truncated: expected {FULL} bytes, found [0-9]+ bytes before the gzip stream breaks off"
    with pytest.raises(DatasetError, match=pattern):
        load_dataset("mnist", tmp_path)


def test_gz_with_a_flipped_bit_or_without_gzip_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist", idx_files())
    path = tmp_path / "mnist" / f"{TRAIN_IMAGES}.gz"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    for broken in (bytes(data), idx_files()[TRAIN_IMAGES]):
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=f"{path} is not a whole gzip file"):
            load_dataset("mnist", tmp_path)


def test_gz_in_several_members_is_read(tmp_path: Path) -> None:
    files = idx_files()
    write_idx(tmp_path / "mnist", files)
    data = files[TRAIN_IMAGES]
    packed = gzip.compress(data[:500]) + gzip.compress(data[500:])
    (tmp_path / "mnist" / f"{TRAIN_IMAGES}.gz").write_bytes(packed)
    assert load_dataset("mnist", tmp_path).train.codes.tobytes() == data[16:]


def test_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "mnist", idx_files())

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DatasetError, match=r"ubyte.gz cannot be read: Permission denied. Check its permissions"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize(("name", "part"), [(TRAIN_LABELS, "training"), (TEST_LABELS, "test")])
def test_class_without_a_sample_is_refused(tmp_path: Path, name: str, part: str) -> None:
    files = idx_files()
    files[name] = idx_bytes(2049, np.where(np.arange(len(files[name]) - 8) % 10 == 3, 4, 0).astype(np.uint8))
    write_idx(tmp_path / "mnist", files)
    message = rf'mnist: the {part} part holds 1[02] samples, none of class 1 \("1"\), 2 \("2"\), 3 \("3"\), 5'
    with pytest.raises(DatasetError, match=message):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "first_train", "first_test", "pixel_sums"),
    [
        ("mnist", [5, 0, 4, 1, 9, 2, 1, 3], [7, 2, 1, 0, 4, 1, 4, 9], (1_567_298_545, 264_923_200)),
        ("fashion_mnist", [9, 0, 0, 3, 0, 2, 7, 2], [9, 2, 1, 1, 6, 1, 4, 6], (3_431_114_169, 573_469_082)),
    ],
)
def test_real_files(
    data_dir: Path, name: str, first_train: list[int], first_test: list[int], pixel_sums: tuple[int, int]
) -> None:
    dataset = load_dataset(name, data_dir)
    assert dataset.train.codes.shape == (60_000, 1, 28, 28)
    assert dataset.test.codes.shape == (10_000, 1, 28, 28)
    assert dataset.train.labels[:8].tolist() == first_train
    assert dataset.test.labels[:8].tolist() == first_test
    assert (int(dataset.train.codes.sum(dtype=np.int64)), int(dataset.test.codes.sum(dtype=np.int64))) == pixel_sums
    assert np.unique(dataset.test.labels).tolist() == list(range(10))
