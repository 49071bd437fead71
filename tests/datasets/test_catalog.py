"""The registry of datasets: names, folders, and what is checked of every dataset."""

import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsnn_lava.datasets import DATA_VARIABLE, DATASETS, Dataset, InputCoding, Samples, load_dataset
from fsnn_lava.errors import DatasetError, MissingDependencyError
from fsnn_lava.training import fit
from short_training import changed


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


FROM_FILES = {
    "mnist": "mnist",
    "fashion_mnist": "fashion-mnist",
    "nmnist": "nmnist",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "cifar10_dvs": "cifar10_dvs",
}


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DatasetError, match='no dataset "imagenet"; there are: digits, mnist, fashion_mnist'):
        load_dataset("imagenet")
    assert list(DATASETS) == ["digits", *FROM_FILES]


@pytest.mark.parametrize(("name", "folder"), FROM_FILES.items())
def test_no_folder_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch, name: str, folder: str) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    message = f"{name}: no data folder is given. Set FSNN_DATA or pass --data-dir to the folder that holds {folder}/. "
    with pytest.raises(DatasetError, match=re.escape(message) + "Get it "):
        load_dataset(name)


@pytest.mark.parametrize(("name", "folder"), FROM_FILES.items())
def test_folder_that_is_not_there_is_named(tmp_path: Path, name: str, folder: str) -> None:
    missing = tmp_path / "nowhere"
    message = f"{name}: the data folder {missing} is not there. Set FSNN_DATA or pass --data-dir to the folder that"
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        load_dataset(name, missing)
    assert f"holds {folder}/. Get it " in str(raised.value)


@pytest.mark.parametrize("name", FROM_FILES)
def test_empty_folder_lists_what_was_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        DatasetError, match=rf"{name}.* is missing. Looked (at|for the folders):\n  {tmp_path}"
    ) as raised:
        load_dataset(name, tmp_path)
    assert str(tmp_path / FROM_FILES[name]) in str(raised.value)


@pytest.mark.parametrize("name", ["digits", *FROM_FILES])
def test_file_in_place_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a"
    file.touch()
    with pytest.raises(DatasetError, match=f"{name}: the data folder {file} is a file, not a folder"):
        load_dataset(name, file)


def test_folder_that_digits_would_not_read_must_be_there(tmp_path: Path) -> None:
    assert load_dataset("digits", tmp_path).name == "digits"
    with pytest.raises(DatasetError, match=r"digits: the data folder .*nowhere is not there"):
        load_dataset("digits", tmp_path / "nowhere")


def test_network_of_other_classes_is_refused_with_both_lists() -> None:
    assert load_dataset("digits", classes=list("0123456789")).name == "digits"
    message = (
        'dataset "digits": the network was trained on the classes 12 (a, b, c, d, e, f, g, h, i, j, ...); the dataset '
        "has 10 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"
    )
    with pytest.raises(DatasetError, match=re.escape(message)):
        load_dataset("digits", classes="abcdefghijkl")


def _three(labels: list[int]) -> Dataset:
    part = Samples(np.array(labels, np.uint8).reshape(-1, 1, 1, 1), np.array(labels))
    return Dataset("three", part, part, (1, 1, 1), ("a", "b", "c"), InputCoding("graded", 2, 1.0, (1.0,), (1.0,)))


@pytest.fixture
def three() -> Iterator[list[int]]:
    """Labels of the samples of a registered dataset of three classes."""
    labels: list[int] = []
    DATASETS.register("three", lambda data_dir: _three(labels), help="made by a test")
    yield labels
    DATASETS.remove("three")


def test_class_without_a_sample_is_refused(three: list[int]) -> None:
    three.extend([0, 2])
    message = 'three: the training part holds 2 samples, none of class 1 ("b"); every class must occur in both parts.'
    with pytest.raises(DatasetError, match=re.escape(message)):
        load_dataset("three")


def test_dataset_from_outside_is_offered_and_trained_on(three: list[int], tmp_path: Path) -> None:
    three.extend([0, 1, 2] * 40)
    assert "three: made by a test" in DATASETS.help()
    with pytest.raises(DatasetError, match=re.escape('no dataset "thre" (did you mean "three"?); there are: digits, ')):
        load_dataset("thre")
    config = changed(network={"notation": "12 (F12)"}, epochs=12, learning_rate=0.1, milestones=(9,))
    config = replace(config, dataset="three")
    assert fit(config, load_dataset(config.dataset), tmp_path).best_accuracy == 1
