"""Digits: 1,797 handwritten digits of 8x8 pixels in 17 greys, inside scikit-learn."""

from pathlib import Path

import numpy as np

from fsnn_lava.datasets.input_coding import InputCoding
from fsnn_lava.datasets.samples import Dataset, Samples, hold_out
from fsnn_lava.errors import MissingDependencyError

_SPLIT_SEED = 0
_TEST_SAMPLES = 360
_MEAN = 0.3053
_STD = 0.3759


def load_digits(data_dir: Path | None) -> Dataset:
    """Read 1,437 digits for training and 360 for testing; they need no data folder.

    Raises
    ------
    MissingDependencyError : if scikit-learn is absent.
    """
    del data_dir  # the images come with scikit-learn
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError("digits needs scikit-learn; install it with: pip install scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    samples = Samples(images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64))
    train, test = hold_out(samples, count=_TEST_SAMPLES, seed=_SPLIT_SEED)
    coding = InputCoding("graded", maximum=16, scale=1 / 16, mean=(_MEAN,), std=(_STD,))
    return Dataset("digits", train, test, (1, 8, 8), tuple("0123456789"), coding)
