"""The datasets by name. What a dataset is stands in `samples`, how each is read in `datasets`.

Files are looked for below one folder, given as ``data_dir`` or by the environment variable FSNN_DATA; nothing is
downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from fsnn_lava.datasets.cifar import load_cifar10, load_cifar100
from fsnn_lava.datasets.cifar10_dvs import load_cifar10_dvs
from fsnn_lava.datasets.digits import load_digits
from fsnn_lava.datasets.files import DATA_VARIABLE
from fsnn_lava.datasets.input_coding import InputCoding
from fsnn_lava.datasets.mnist import load_fashion_mnist, load_mnist
from fsnn_lava.datasets.nmnist import load_nmnist
from fsnn_lava.datasets.samples import (
    Augmentation,
    Dataset,
    Samples,
    check_classes,
    check_time_steps,
    hold_out,
)
from fsnn_lava.errors import DatasetError

__all__ = [
    "DATASETS",
    "DATA_VARIABLE",
    "Augmentation",
    "Dataset",
    "InputCoding",
    "Samples",
    "check_time_steps",
    "hold_out",
    "load_dataset",
]

DATASETS: Mapping[str, Callable[[Path | None], Dataset]] = MappingProxyType(
    {
        "digits": load_digits,
        "mnist": load_mnist,
        "fashion_mnist": load_fashion_mnist,
        "nmnist": load_nmnist,
        "cifar10": load_cifar10,
        "cifar100": load_cifar100,
        "cifar10_dvs": load_cifar10_dvs,
    }
)
"""Loaders by name. A new dataset adds its own here."""


def load_dataset(name: str, data_dir: Path | None = None) -> Dataset:
    """The dataset of that name, read from files below ``data_dir`` (digits needs none).

    Parameters
    ----------
    name : a key of `DATASETS`.
    data_dir : folder that holds the datasets; None takes the environment variable FSNN_DATA.

    Raises
    ------
    DatasetError : if the name is unknown, no folder is given, a file is missing, truncated or not what it should be,
        or a class has no sample.
    MissingDependencyError : if a package that reads the files is absent.
    OutputError : if decoded data cannot be kept in the cache folder (environment variable FSNN_CACHE).
    """
    if name not in DATASETS:
        raise DatasetError(f'no dataset is called "{name}"; there are: {", ".join(DATASETS)}.')
    dataset = DATASETS[name](data_dir)
    check_classes(dataset)
    return dataset
