"""Datasets: splits that never change, codes, and files that are missing, short or not what they say."""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fsnn_lava.data import DATA_VARIABLE, DATASETS, InputCoding, Samples, hold_out, load_dataset
from fsnn_lava.errors import DatasetError, InputError, MissingDependencyError

Array = npt.NDArray[Any]

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
COUNTS = {"train": 12, "t10k": 10}


def _idx(magic: int, values: Array) -> bytes:
    return np.array([magic, *values.shape], ">u4").tobytes() + values.tobytes()


def _files() -> dict[str, bytes]:
    """Unpacked bytes of twelve training and ten test samples."""
    rng = np.random.default_rng(0)
    files = {}
    for prefix, count in COUNTS.items():
        files[f"{prefix}-images-idx3-ubyte"] = _idx(2051, rng.integers(0, 256, (count, 28, 28), np.uint8))
        files[f"{prefix}-labels-idx1-ubyte"] = _idx(2049, np.arange(count, dtype=np.uint8) % 10)
    return files


def _write(folder: Path, files: dict[str, bytes], *, packed: bool = True) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)


# ---- digits ----------------------------------------------------------------------------------------------


def test_digits_split_never_changes() -> None:
    digits = load_dataset("digits")
    assert (len(digits.train), len(digits.test), digits.input_shape) == (1437, 360, (1, 8, 8))
    assert digits.train.codes.shape == (1437, 1, 8, 8)
    # checksums of the split as it was first made
    assert zlib.crc32(digits.train.codes.tobytes()) == 3994709209
    assert zlib.crc32(digits.test.labels.tobytes()) == 2624955374


def test_digits_split_is_stratified_and_complete() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    digits = load_dataset("digits")
    both = np.concatenate([digits.train.codes, digits.test.codes]).reshape(-1, 64)
    assert sorted(row.tobytes() for row in both) == sorted(row.tobytes() for row in images.astype(np.uint8))
    share = np.bincount(labels) * 360 / 1797
    assert (np.abs(np.bincount(digits.test.labels) - share) < 1).all()


def test_digits_constants_are_those_of_the_training_split() -> None:
    digits = load_dataset("digits")
    pixels = digits.train.codes / 16
    assert digits.coding == InputCoding("graded", 16, 1 / 16, (round(pixels.mean(), 4),), (round(pixels.std(), 4),))


def test_digits_without_scikit_learn_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependencyError, match="digits needs scikit-learn; install it with: pip install"):
        load_dataset("digits")


# ---- idx files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_in_every_layout(tmp_path: Path, name: str, folder: str, packed: bool) -> None:
    files = _files()
    _write(tmp_path / folder, files, packed=packed)
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
    _write(tmp_path / "mnist", _files())
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert len(load_dataset("mnist").train) == 12


def test_no_folder_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    message = "fashion_mnist: no data folder is given. Set FSNN_DATA or pass --data-dir to the folder that holds"
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        load_dataset("fashion_mnist")
    assert 'torchvision.datasets.FashionMNIST("DIR", download=True)' in str(raised.value)


def test_missing_file_names_every_place_and_the_way_to_get_it(tmp_path: Path) -> None:
    files = _files()
    del files[TEST_LABELS]
    _write(tmp_path / "fashion-mnist", files)
    with pytest.raises(DatasetError, match=f"fashion_mnist: {TEST_LABELS} is missing. Looked at:") as raised:
        load_dataset("fashion_mnist", tmp_path)
    places = [tmp_path / f / (TEST_LABELS + s) for f in ("fashion-mnist", "FashionMNIST/raw") for s in (".gz", "")]
    for place in places:
        assert f"\n  {place}\n" in str(raised.value)
    assert f'torchvision.datasets.FashionMNIST("{tmp_path}", download=True)' in str(raised.value)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DatasetError, match='no dataset is called "imagenet"; there are: digits, mnist, fashion_mnist'):
        load_dataset("imagenet")
    assert list(DATASETS) == ["digits", "mnist", "fashion_mnist", "nmnist", "cifar10", "cifar100"]


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
        (TRAIN_IMAGES, lambda d: _idx(2051, np.zeros((12, 27, 28), np.uint8)), ": images of 27x28, expected 28x28"),
        (TEST_LABELS, lambda d: _idx(2049, np.zeros(4, np.uint8)), "4 labels; must agree"),
        (TEST_LABELS, lambda d: d[:-1] + b"\x0a", ": found label 10; allowed: 0 .. 9"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_broken_idx_file_is_refused(tmp_path: Path, packed: bool, name: str, change: Any, message: str) -> None:
    files = _files()
    files[name] = change(files[name])
    _write(tmp_path / "mnist", files, packed=packed)
    path = tmp_path / "mnist" / (f"{name}.gz" if packed else name)
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        load_dataset("mnist", tmp_path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("cut", [1, 8, 9, 1000])
def test_truncated_gz_is_refused(tmp_path: Path, cut: int) -> None:
    _write(tmp_path / "mnist", _files())
    path = tmp_path / "mnist" / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-cut])
    pattern = f"{path} is truncated: expected {FULL} bytes, found [0-9]+ bytes before the gzip stream breaks off"
    with pytest.raises(DatasetError, match=pattern):
        load_dataset("mnist", tmp_path)


def test_gz_with_a_flipped_bit_or_without_gzip_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "mnist", _files())
    path = tmp_path / "mnist" / f"{TRAIN_IMAGES}.gz"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    for broken in (bytes(data), _files()[TRAIN_IMAGES]):
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=f"{path} is not a sound gzip file"):
            load_dataset("mnist", tmp_path)


def test_gz_in_several_members_is_read(tmp_path: Path) -> None:
    files = _files()
    _write(tmp_path / "mnist", files)
    data = files[TRAIN_IMAGES]
    packed = gzip.compress(data[:500]) + gzip.compress(data[500:])
    (tmp_path / "mnist" / f"{TRAIN_IMAGES}.gz").write_bytes(packed)
    assert load_dataset("mnist", tmp_path).train.codes.tobytes() == data[16:]


# ---- real files ------------------------------------------------------------------------------------------


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


# ---- input coding ----------------------------------------------------------------------------------------


def test_decode_normalises_each_channel() -> None:
    coding = InputCoding("graded", 255, 1 / 255, mean=(0.5, 0.25), std=(0.5, 2.0))
    codes = np.array([0, 255, 51, 102], np.uint8).reshape(1, 2, 1, 2)
    values = coding.decode(codes)
    assert values.dtype == np.float32
    # exact: each value is the float32 nearest to the one computed in float64
    expected = np.array([-1.0, 1.0, (0.2 - 0.25) / 2, (0.4 - 0.25) / 2], np.float32).reshape(1, 2, 1, 2)
    assert np.array_equal(values, expected)


def test_decode_takes_frames_with_time_first() -> None:
    coding = InputCoding("event", 1, 1.0, mean=(0.0, 0.5), std=(1.0, 1.0))
    codes = np.random.default_rng(1).integers(0, 2, (3, 4, 2, 5, 6), np.uint8)
    expected = codes - np.array([0.0, 0.5], np.float32).reshape(1, 1, 2, 1, 1)
    assert np.array_equal(coding.decode(codes), expected)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.full((1, 1, 2, 2), 17, np.uint8), "found input code 17; allowed: 0 .. 16."),
        (np.zeros((1, 1, 2, 2), np.int32), "codes of dtype int32 and shape (1, 1, 2, 2); expected uint8 (B, 1, H, W)"),
        (np.zeros((1, 2, 2), np.uint8), "codes of dtype uint8 and shape (1, 2, 2); expected"),
        (np.zeros((1, 3, 2, 2), np.uint8), "codes of dtype uint8 and shape (1, 3, 2, 2); expected"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: Array, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        InputCoding("graded", 16, 1 / 16, (0.0,), (1.0,)).decode(codes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("graded", 256, 1.0, (0.0,), (1.0,)), "maximum 256; allowed: 1 for events, 1 .. 255 for graded"),
        (("graded", 0, 1.0, (0.0,), (1.0,)), "maximum 0; allowed"),
        (("event", 2, 1.0, (0.0,), (1.0,)), "maximum 2; allowed: 1 for events"),
        (("graded", 16, 1.0, (0.0, 0.0), (1.0,)), "2 means, 1 stds; needs one of each a channel"),
        (("graded", 16, 1.0, (), ()), "0 means, 0 stds"),
        (("graded", 16, 0.0, (0.0,), (1.0,)), "scale and std must be finite and > 0"),
        (("graded", 16, 1.0, (0.0,), (0.0,)), "scale and std must be finite and > 0"),
        (("graded", 16, 1.0, (float("nan"),), (1.0,)), "scale and std must be finite and > 0, mean finite"),
    ],
)
def test_impossible_coding_is_refused(fields: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        InputCoding(*fields)


# ---- hold_out --------------------------------------------------------------------------------------------


def _samples(labels: list[int]) -> Samples:
    return Samples(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), np.array(labels, np.int64))


def test_hold_out_keeps_every_sample_once_and_the_classes_in_proportion() -> None:
    samples = _samples([0] * 50 + [1] * 30 + [2] * 20)
    rest, held = hold_out(samples, count=10, seed=3)
    assert np.bincount(held.labels).tolist() == [5, 3, 2]
    assert sorted([*rest.codes.ravel(), *held.codes.ravel()]) == list(range(100))
    for part in (rest, held):
        assert (np.diff(part.codes.ravel().astype(int)) > 0).all()  # in the order of the samples
        assert np.array_equal(part.labels, samples.labels[part.codes.ravel()])


def test_hold_out_gives_exactly_the_count_when_shares_are_not_whole() -> None:
    _, held = hold_out(_samples([0] * 3 + [1] * 3 + [2] * 4), count=4, seed=0)
    # shares 1.2, 1.2, 1.6: floors 1, 1, 1 and the fourth to the largest remainder
    assert np.bincount(held.labels).tolist() == [1, 1, 2]


def test_hold_out_is_the_same_everywhere_and_differs_by_seed() -> None:
    samples = _samples([0, 1] * 20)
    chosen = [hold_out(samples, count=6, seed=seed)[1].codes.ravel().tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] == [2, 3, 11, 13, 20, 32]  # as first drawn
    assert chosen[2] != chosen[0]


@pytest.mark.parametrize("count", [0, 10, -1])
def test_hold_out_refuses_a_count_that_leaves_nothing(count: int) -> None:
    with pytest.raises(DatasetError, match=f"cannot hold out {count} of 10 samples; allowed: 1 .. 9."):
        hold_out(_samples([0] * 10), count=count, seed=0)


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (np.zeros((2, 1), np.int32), np.zeros(2, np.int64), "dtypes int32, int64; expected uint8, int64"),
        (np.zeros((2, 1), np.uint8), np.zeros(2, np.uint8), "dtypes uint8, uint8; expected uint8, int64"),
        (np.zeros((2, 1), np.uint8), np.zeros(3, np.int64), "2 inputs, labels (3,); expected one each"),
        (np.zeros((2, 1), np.uint8), np.zeros((2, 1), np.int64), "2 inputs, labels (2, 1); expected one each"),
    ],
)
def test_samples_that_do_not_fit_are_refused(codes: Array, labels: Array, message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        Samples(codes, labels)


def test_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "mnist", _files())

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DatasetError, match=r"ubyte.gz cannot be read: Permission denied. Check its permissions"):
        load_dataset("mnist", tmp_path)
