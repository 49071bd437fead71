"""What a dataset is, and how each known one is read from disk."""

from fsnn_lava.datasets.catalog import Dataset, InputCoding, Samples, check_time_steps, hold_out, load_dataset
from fsnn_lava.datasets.samples import Augmentation, pack, time_first

__all__ = [
    "Augmentation",
    "Dataset",
    "InputCoding",
    "Samples",
    "check_time_steps",
    "hold_out",
    "load_dataset",
    "pack",
    "time_first",
]
