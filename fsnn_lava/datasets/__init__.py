"""What a dataset is, and how each known one is read from disk; `Dataset.from_arrays` takes your own."""

from fsnn_lava.datasets.catalog import DATASETS as DATASETS, load_dataset as load_dataset
from fsnn_lava.datasets.files import DATA_VARIABLE as DATA_VARIABLE
from fsnn_lava.datasets.input_coding import InputCoding as InputCoding
from fsnn_lava.datasets.own.inputs import read_inputs as read_inputs
from fsnn_lava.datasets.samples import (
    Augmentation as Augmentation,
    Dataset as Dataset,
    Samples as Samples,
    check_classes as check_classes,
    check_time_steps as check_time_steps,
    codes_of as codes_of,
    evenly_spaced as evenly_spaced,
    hold_out as hold_out,
    pack as pack,
    time_first as time_first,
)
