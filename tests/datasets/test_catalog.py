"""The registry of datasets: names, folders, and what is checked of every dataset."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fsnn_lava.datasets.catalog import DATA_VARIABLE, DATASETS, Dataset, InputCoding, Samples, load_dataset
from fsnn_lava.errors import DatasetError

FROM_FILES = {
    "mnist": "mnist",
    "fashion_mnist": "fashion-mnist",
    "nmnist": "nmnist",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "cifar10_dvs": "cifar10_dvs",
}


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DatasetError, match='no dataset is called "imagenet"; there are: digits, mnist, fashion_mnist'):
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


def test_class_without_a_sample_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(data_dir: Path | None) -> Dataset:
        part = Samples(np.zeros((2, 1, 1, 1), np.uint8), np.array([0, 2]))
        coding = InputCoding("graded", 1, 1.0, (0.0,), (1.0,))
        return Dataset("three", part, part, (1, 1, 1), ("a", "b", "c"), coding)

    monkeypatch.setattr("fsnn_lava.datasets.catalog.DATASETS", {"three": load})
    message = 'three: the training part holds 2 samples, none of class 1 ("b"); every class must occur in both parts.'
    with pytest.raises(DatasetError, match=re.escape(message)):
        load_dataset("three")
