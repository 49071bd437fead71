"""Digits: a split that never changes."""

import sys
import zlib

import numpy as np
import pytest

from fsnn_lava.datasets import InputCoding, load_dataset
from fsnn_lava.errors import MissingDependencyError


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
