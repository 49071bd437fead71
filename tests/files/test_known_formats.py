"""Files given in the place of others are named for what they are, by whoever reads them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from fsnn_lava.datasets import load_dataset
from fsnn_lava.datasets.files import read_bytes, zip_contents
from fsnn_lava.errors import CheckpointError, DatasetError
from fsnn_lava.files import known_format
from fsnn_lava.training import load_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def _netx(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("layer/0")["type"] = b"input"


def _matlab(path: Path) -> None:
    savemat(path, {"x": np.zeros(3)})


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": 1}))


FORMATS: list[tuple[bytes | Callable[[Path], None], str]] = [
    (POINTER, "a Git LFS pointer: the file itself was not downloaded"),
    (b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n", "a recording in the format AEDAT 2"),
    (b"% Data file containing CD events.\n% Version 2\n", "a recording in the .dat format of Prophesee"),
    (_matlab, "a MATLAB file (.mat)"),
    (_netx, "an HDF5 file, as are netx networks of lava-dl"),
    (_pickled, "a Python pickle"),
    (b"<!DOCTYPE html>\n<html>not found</html>", "a web page, so the download failed"),
]


@pytest.mark.parametrize(("content", "name"), FORMATS)
def test_formats_are_named_wherever_another_is_expected(
    tmp_path: Path, content: bytes | Callable[[Path], None], name: str
) -> None:
    path = tmp_path / "given"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    assert known_format(path) == known_format(path.read_bytes())
    assert known_format(path).startswith(f" It is {name}")
    for read, error in (
        (lambda: zip_contents(path), DatasetError),
        (lambda: load_checkpoint(path), CheckpointError),
    ):
        with pytest.raises(error) as raised:
            read()
        assert known_format(path) in str(raised.value)


def test_what_is_not_known_has_no_name(tmp_path: Path) -> None:
    assert known_format(b"") == known_format(b"anything") == known_format(tmp_path / "missing") == ""


def test_pointer_in_place_of_data_is_refused_by_every_reader(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(POINTER)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").write_bytes(POINTER)
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte does not hold the data\. It is a Git LFS pointer"):
        load_dataset("mnist", tmp_path)
    with pytest.raises(DatasetError, match="run git lfs pull"):
        read_bytes(tmp_path / "mnist" / "train-labels-idx1-ubyte")
