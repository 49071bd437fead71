"""What a dataset is, and how each known one is read from disk; `Dataset.from_arrays` takes your own."""

from fsnn_lava.datasets.catalog import DATASETS, load_dataset
from fsnn_lava.datasets.files import DATA_VARIABLE
from fsnn_lava.datasets.input_coding import InputCoding
from fsnn_lava.datasets.samples import (
    Augmentation,
    Dataset,
    Samples,
    check_classes,
    check_time_steps,
    codes_of,
    hold_out,
    pack,
    time_first,
)

__all__ = [
    "DATASETS",
    "DATA_VARIABLE",
    "Augmentation",
    "Dataset",
    "InputCoding",
    "Samples",
    "check_classes",
    "check_time_steps",
    "codes_of",
    "hold_out",
    "load_dataset",
    "pack",
    "time_first",
]
