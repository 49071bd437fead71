"""The datasets by name. What a dataset is stands in `samples`, how each is read in the file of its name.

A user's own data, which has no name, is read in `own`. Files are looked for below one folder, given as ``data_dir`` or
by the environment variable FSNN_DATA; nothing is downloaded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from fsnn_lava.config import DataConfig, Registry
from fsnn_lava.datasets.files import existing_folder
from fsnn_lava.datasets.input_coding import InputCoding
from fsnn_lava.datasets.own import FORMS, is_own, load_own
from fsnn_lava.datasets.samples import Dataset, check_classes
from fsnn_lava.errors import DatasetError

DATASETS: Registry[Callable[[Path | None], Dataset]] = Registry(
    "dataset", group="fsnn_lava.datasets", error=DatasetError
)
"""Loaders by name: the one place where a dataset is added, by `Registry.register` or by an entry point of the group."""

for _name, _loader, _help in (
    ("digits", "digits:load_digits", "1,797 digits, 8x8 grey, inside scikit-learn: no files needed"),
    ("mnist", "mnist:load_mnist", "70,000 handwritten digits, 28x28 grey"),
    ("fashion_mnist", "mnist:load_fashion_mnist", "70,000 pieces of clothing, 28x28 grey"),
    ("nmnist", "nmnist:load_nmnist", "MNIST before an event camera, 30 frames of 34x34"),
    ("cifar10", "cifar:load_cifar10", "60,000 photographs, 32x32 RGB, 10 classes"),
    ("cifar100", "cifar:load_cifar100", "60,000 photographs, 32x32 RGB, 100 classes"),
    ("cifar10_dvs", "cifar10_dvs:load_cifar10_dvs", "CIFAR-10 before an event camera, 30 frames of 48x48"),
):
    DATASETS.register(_name, f"fsnn_lava.datasets.{_loader}", help=_help)


def load_dataset(
    name: str,
    data_dir: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    coding: InputCoding | None = None,
    settings: DataConfig | None = None,
    asked: bool = True,
    download: bool = False,
) -> Dataset:
    """Read the dataset of that name from files below ``data_dir`` (digits needs none), or a user's own.

    >>> load_dataset("digits").input_shape
    (1, 8, 8)

    Parameters
    ----------
    name : of `DATASETS`; or the path of a file of arrays (.npz), or of a folder of class folders of images or of
        recordings; or ``torchvision:NAME``, ``tonic:NAME``; or ``package.module:function``, which returns a `Dataset`.
    data_dir : folder that holds the datasets; None takes the environment variable FSNN_DATA.
    classes : those that a network was trained to tell apart; they must be the dataset's.
    coding : what input codes mean to a network; it must be the dataset's.
    settings : how a user's own data becomes samples.
    asked : the user names it in this call; a function that a file names is not run.
    download : torchvision or tonic may fetch what is missing of a dataset of theirs.

    Raises
    ------
    DatasetError : if the name is unknown, no folder is given, a file is missing, truncated or not what it should be,
        a class has no sample, or the classes are others.
    MissingDependencyError : if a package that reads the files is absent.
    OutputError : if decoded data cannot be kept in the cache folder (environment variable FSNN_CACHE).
    """
    settings = settings or DataConfig()
    if name not in DATASETS and is_own(name):
        dataset = load_own(name, data_dir, settings, asked=asked, download=download)
    else:
        try:
            loader = DATASETS.get(name)
        except DatasetError as error:
            raise DatasetError(f"{error}; or {FORMS}") from None
        if settings != DataConfig():
            raise DatasetError(f'dataset "{name}": found settings under [data]; these are of your own data alone')
        dataset = loader(data_dir)
    if data_dir is not None:
        existing_folder(name, data_dir, "")  # also where the loader needs none: nothing given is ignored in silence
    check_classes(dataset)
    if classes is not None and tuple(classes) != dataset.classes:
        raise DatasetError(
            f'dataset "{name}": the network was trained on the classes {_listed(classes)}; the dataset has '
            f"{_listed(dataset.classes)}; a network can be tried on the samples of its own classes alone"
        )
    if coding is not None and coding != dataset.coding:
        raise DatasetError(
            f'dataset "{name}": the network was trained on codes that mean {coding}; those of the dataset mean '
            f"{dataset.coding}; give the data that it was trained on, as Dataset.save writes it"
        )
    return dataset


def _listed(classes: Sequence[str]) -> str:
    """How many classes, and the first ten of them."""
    return f"{len(classes)} ({', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''})"
