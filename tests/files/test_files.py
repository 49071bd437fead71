"""Folders of runs and of the cache, and formats of files that other versions wrote."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from fsnn_lava.datasets import load_dataset
from fsnn_lava.datasets.files import read_bytes, zip_contents
from fsnn_lava.errors import CheckpointError, ConfigError, DatasetError, OutputError
from fsnn_lava.files import CACHE_VARIABLE, known_format, user_cache
from fsnn_lava.files.run_folder import SETTINGS, new_run_folder, newest_run, write_json, write_text
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
def test_formats_are_named_for_others(tmp_path: Path, content: bytes | Callable[[Path], None], name: str) -> None:
    path = tmp_path / "given"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    assert known_format(path) == known_format(path.read_bytes())
    assert known_format(path).startswith(f" It is {name}")
    for read, error in ((lambda: zip_contents(path), DatasetError), (lambda: load_checkpoint(path), CheckpointError)):
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


def test_no_folder_is_ever_given_twice(tmp_path: Path) -> None:
    parent = tmp_path / "deep" / "runs"
    assert [new_run_folder(parent, "digits").name for _ in range(3)] == ["digits", "digits-2", "digits-3"]
    assert sorted(p.name for p in parent.iterdir()) == ["digits", "digits-2", "digits-3"]


def test_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "digits").write_text("mine")
    assert new_run_folder(tmp_path, "digits").name == "digits-2"
    assert (tmp_path / "digits").read_text() == "mine"


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_parent_that_is_a_file_is_refused(tmp_path: Path, inside: str) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutputError, match=r"folder .*digits: cannot be made \(.*\); choose another with --runs"):
        new_run_folder(tmp_path / "runs" / inside, "digits")


def test_parent_that_is_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"folder .*digits: cannot be made \(File exists\)"):
        new_run_folder(tmp_path / "runs", "digits")


def test_newest_run_is_the_one_whose_file_was_written_last(tmp_path: Path) -> None:
    for second, name in enumerate(["b", "c", "a"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best").write_text("")
        os.utime(tmp_path / name / "best", (second, second))
    (tmp_path / "not a run, without the file").mkdir()
    for second, name in ((1, "older, unfinished"), (3, "newer, unfinished")):
        (tmp_path / name).mkdir()
        (tmp_path / name / SETTINGS).write_text("{}")
        os.utime(tmp_path / name / SETTINGS, (second, second))
    assert newest_run(tmp_path, "best") == (tmp_path / "a", [tmp_path / "newer, unfinished"])


def test_no_run_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run holds best; .*fsnn train"):
        newest_run(tmp_path, "best")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / SETTINGS).write_text("{}")
    with pytest.raises(ConfigError, match=r"no run holds best; without it: .*begun; train and export first"):
        newest_run(tmp_path, "best")


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"rate": 0.1, "names": ["a"]})
    write_json(tmp_path / "a.json", {"rate": 0.2, "names": ["a"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"rate": 0.2, "names": ["a"]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"], "no temporary file is left"


def test_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: Not a directory"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_old_text_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left on device"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_folder_is_the_named_one_or_below_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv(CACHE_VARIABLE, "~/mine")
    assert user_cache() == Path("/home/somebody/mine")
    monkeypatch.delenv(CACHE_VARIABLE)
    assert user_cache() == Path("/xdg/fsnn-lava")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache() == Path("/home/somebody/.cache/fsnn-lava")
