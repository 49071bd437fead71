"""Data that has no name here: a file of arrays, a folder of class folders of images, what a function returns."""

from collections.abc import Callable
from pathlib import Path

from fsnn_lava.config import DataConfig
from fsnn_lava.datasets.own.arrays import load_arrays
from fsnn_lava.datasets.own.class_folders import endings_in
from fsnn_lava.datasets.own.event_folder import load_event_folder
from fsnn_lava.datasets.own.function import is_function, load_from_function
from fsnn_lava.datasets.own.image_folder import ENDINGS, load_image_folder
from fsnn_lava.datasets.own.libraries import is_library, load_from_library
from fsnn_lava.datasets.own.places import ARRAYS, found_at, is_place
from fsnn_lava.datasets.own.recordings import READERS
from fsnn_lava.datasets.samples import Dataset
from fsnn_lava.errors import DatasetError

FORMS = (
    f"a file of arrays (*{ARRAYS}), a folder of images or of recordings, torchvision:NAME, tonic:NAME, or "
    "package.module:function"
)
"""What a dataset may be that has no name."""


def is_own(name: str) -> bool:
    """Tell whether this says where data is, and is no dataset's name."""
    return is_place(name) or is_function(name)  # a library's dataset looks like a function


def load_own(name: str, data_dir: Path | None, settings: DataConfig, *, asked: bool, download: bool) -> Dataset:
    """Read a user's own data.

    Parameters
    ----------
    name : path of a file or folder, ``torchvision:NAME``, ``tonic:NAME``, or ``package.module:function``.
    data_dir : folder in which a path is looked for too.
    asked : the user named it in this call; a function that a file names is not run.
    download : a library may fetch what is missing of its dataset.

    Raises
    ------
    DatasetError : if there is no such thing, it holds no data of that kind, or it is not what the training saw.
    """
    if is_library(name):
        dataset = load_from_library(name, data_dir, settings, download=download)
    elif is_function(name):
        if not asked:
            raise DatasetError(
                f'dataset "{name}": a function that a file names is not run; if you trust it, name it yourself: '
                f"--dataset {name}"
            )
        dataset = load_from_function(name)
    else:
        path = found_at(name, data_dir)
        dataset = _loader(path)(path, settings)
    if settings.sha256 and settings.sha256 != dataset.sha256:
        raise DatasetError(
            f'dataset "{name}": found content with the hash {dataset.sha256[:12]}, and {settings.sha256[:12]} was '
            "trained on; give the data that was, or train anew"
        )
    return dataset


def _loader(path: Path) -> Callable[[Path, DataConfig], Dataset]:
    """What reads a file, or a folder of such files."""
    if not path.is_dir():
        return load_arrays
    endings = endings_in(path)
    images, recordings = endings & set(ENDINGS), endings & set(READERS)
    if images and recordings:
        raise DatasetError(
            f"{path}: found images ({', '.join(sorted(images))}) and recordings ({', '.join(sorted(recordings))}); "
            "expected files of one kind"
        )
    return load_event_folder if recordings else load_image_folder
