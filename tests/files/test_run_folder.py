"""Run folders and the files in them."""

import json
import os
from pathlib import Path

import pytest

from fsnn_lava.errors import ConfigError, OutputError
from fsnn_lava.files.run_folder import new_run_folder, newest_run, write_json, write_text


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
    (tmp_path / "newer, without the file").mkdir()
    assert newest_run(tmp_path, "best") == tmp_path / "a"


def test_no_run_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run holds best; .*fsnn train"):
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
