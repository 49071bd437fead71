"""Files of datasets and the cache of decoded data: made once, made anew when not whole, never silently absent."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fsnn_lava.datasets.files import cached, zip_contents
from fsnn_lava.errors import DatasetError, OutputError
from fsnn_lava.files import CACHE_VARIABLE

Array = npt.NDArray[Any]
SHAPE = (5, 3, 2)


class Maker:
    """Makes the same codes and counts how often it was asked."""

    def __init__(self, seed: int = 0) -> None:
        self.calls = 0
        self.codes = np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)

    def __call__(self) -> Array:
        self.calls += 1
        return self.codes


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_codes_are_made_once_and_can_be_written_to() -> None:
    make = Maker()
    for _ in range(3):
        codes = cached("name", "source", shape=SHAPE, make=make)
        assert np.array_equal(codes, make.codes)
        assert codes.flags.writeable  # torch warns of arrays that are not
    assert make.calls == 1


def test_another_source_or_shape_is_made_anew() -> None:
    make, other = Maker(), Maker(1)
    cached("name", "source", shape=SHAPE, make=make)
    assert np.array_equal(cached("name", "altered source", shape=SHAPE, make=other), other.codes)
    assert np.array_equal(cached("other", "source", shape=SHAPE, make=other), other.codes)
    assert other.calls == 2
    other.codes = other.codes[:4]
    assert cached("name", "source", shape=(4, 3, 2), make=other).shape == (4, 3, 2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-5],
        lambda content: content[:2],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: content[:7] + bytes([content[7] ^ 1]) + content[8:],
    ],
)
def test_damaged_file_is_made_anew(folder: Path, damage: Any) -> None:
    make = Maker()
    cached("name", "source", shape=SHAPE, make=make)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert np.array_equal(cached("name", "source", shape=SHAPE, make=make), make.codes)
    assert make.calls == 2
    assert path.read_bytes() == whole


def test_codes_in_another_order_of_memory_are_kept_right() -> None:
    make = Maker()
    make.codes = make.codes.transpose(0, 2, 1)
    for _ in range(2):
        assert np.array_equal(cached("name", "source", shape=(5, 2, 3), make=make), make.codes)
    assert make.calls == 1


def test_cache_that_cannot_be_written_says_how_to_choose_another(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    make = Maker()
    message = f"name: decoded data cannot be kept in the cache folder {folder} ("
    with pytest.raises(OutputError, match=re.escape(message)) as raised:
        cached("name", "source", shape=SHAPE, make=make)
    assert "environment variable FSNN_CACHE=DIR" in str(raised.value)
    assert make.calls == 0  # noticed before anything is decoded


def test_cache_file_that_cannot_be_read_is_named(folder: Path) -> None:
    cached("name", "source", shape=SHAPE, make=Maker())
    (path,) = folder.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match=f"{path}: the cached data cannot be read .* FSNN_CACHE=DIR"):
        cached("name", "source", shape=SHAPE, make=Maker())


def test_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"123")
    assert [entry.filename for entry in zip_contents(path)] == ["a"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=f"{path} is not a whole zip file: .* Get it again."):
        zip_contents(path)
