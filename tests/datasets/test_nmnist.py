"""N-MNIST: frames against a plain count of events, every layout on disk, and recordings that do not fit."""

import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fsnn_lava.datasets import Dataset, load_dataset, nmnist
from fsnn_lava.errors import DatasetError, MissingDependencyError
from fsnn_lava.files import CACHE_VARIABLE

Array = npt.NDArray[Any]

pytest.importorskip("tonic", reason='needs tonic: pip install -e ".[events]"')

Events = list[tuple[int, int, int, int]]
"""x, y, polarity, time in microseconds."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def _coded(events: Events) -> bytes:
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, p, t in events)


def _random_events(seed: int) -> Events:
    generator = np.random.default_rng(seed)
    times = np.sort(generator.integers(0, 330_000, 400))
    columns = generator.integers(0, (34, 34, 2), (400, 3))
    return [(int(x), int(y), int(p), int(t)) for (x, y, p), t in zip(columns, times, strict=True)]


def _files(part: str, first: int = 1) -> dict[str, bytes]:
    """One recording of each digit; digit 9 has the lowest number."""
    return {f"{part}/{9 - i}/{first + i:05d}.bin": _coded(_random_events(i)) for i in range(10)}


def _write(folder: Path, files: dict[str, bytes], *, archive: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if archive:
        with zipfile.ZipFile(folder / archive, "w") as opened:
            for name, content in files.items():
                opened.writestr(name, content)
        return
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _write_all(folder: Path) -> None:
    _write(folder, _files("Train") | _files("Test"))


def _plain_frames(raw: bytes) -> Array:
    """Frames (30, 2, 34, 34) by an independent reading of the format."""
    e = np.frombuffer(raw, np.uint8).reshape(-1, 5).astype(np.int64)
    t = (e[:, 2] & 127) << 16 | e[:, 3] << 8 | e[:, 4]
    early = t < 90_000
    frames = np.zeros((30, 2, 34, 34), np.uint8)
    frames[t[early] // 3000, e[early, 2] >> 7, e[early, 1], e[early, 0]] = 1
    return frames


def test_events_become_binary_frames_with_off_before_on(tmp_path: Path) -> None:
    files = _files("Train")
    files["Train/9/00001.bin"] = _coded(
        [
            (0, 0, 0, 0),
            (0, 0, 0, 2999),  # the same pixel, polarity and frame: counts once
            (5, 7, 1, 2999),
            (5, 7, 1, 3000),
            (33, 2, 0, 89_999),
            (1, 1, 1, 90_000),  # after the last frame
            (1, 1, 1, 2**23 - 1),
        ]
    )
    _write(tmp_path / "nmnist", files | _files("Test"))
    frames = load_dataset("nmnist", tmp_path).train.codes[0]
    assert frames.shape == (30, 2, 34, 34)
    # (step, polarity, y, x)
    assert np.argwhere(frames).tolist() == [[0, 0, 0, 0], [0, 1, 7, 5], [1, 1, 7, 5], [29, 0, 2, 33]]
    assert frames.max() == 1


def test_samples_come_by_number_with_the_folder_as_label(tmp_path: Path) -> None:
    train, test = _files("Train"), _files("Test", first=990)
    _write(tmp_path / "nmnist", train | test)
    dataset = load_dataset("nmnist", tmp_path)
    for samples, files in ((dataset.train, train), (dataset.test, test)):
        assert samples.labels.tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
        assert np.array_equal(samples.codes, np.stack([_plain_frames(raw) for raw in files.values()]))
    assert dataset.input_shape == (2, 34, 34)
    assert dataset.frames == 30
    assert dataset.coding.kind == "event"
    assert np.array_equal(dataset.coding.table(), [[0, 1], [0, 1]])
    assert dataset.note == "10 + 10 samples"
    assert dataset.augmentation is None


def test_frames_are_kept_as_bits(tmp_path: Path) -> None:
    _write_all(tmp_path / "nmnist")
    train = load_dataset("nmnist", tmp_path).train
    assert train.stored.nbytes == 10 * 30 * 289
    assert train.packed_frame == (2, 34, 34)


def test_events_out_of_order_fall_into_their_frames(tmp_path: Path) -> None:
    files = _files("Train")
    events = _random_events(0)
    files["Train/9/00001.bin"] = _coded(events[200:] + events[:200])
    _write(tmp_path / "nmnist", files | _files("Test"))
    assert np.array_equal(load_dataset("nmnist", tmp_path).train.codes[0], _plain_frames(_coded(events)))


@pytest.mark.parametrize("folder", ["nmnist", "NMNIST", "nmnist-small"])
@pytest.mark.parametrize(
    "archives", [("", ""), ("Train.zip", "Test.zip"), ("train.zip", "test.zip"), ("Train.zip", "")]
)
def test_every_layout_gives_the_same(tmp_path: Path, folder: str, archives: tuple[str, str]) -> None:
    for part, archive in zip(("Train", "Test"), archives, strict=True):
        _write(tmp_path / folder, _files(part), archive=archive)
    dataset = load_dataset("nmnist", tmp_path)
    expected = np.stack([_plain_frames(raw) for raw in _files("Train").values()])
    assert np.array_equal(dataset.train.codes, expected)
    assert np.array_equal(dataset.test.codes, expected)


def test_full_download_is_preferred_to_the_small_one(tmp_path: Path) -> None:
    _write_all(tmp_path / "nmnist-small")
    _write(tmp_path / "nmnist", _files("Train") | {"Train/4/00011.bin": _coded([(1, 1, 1, 1)])} | _files("Test"))
    assert len(load_dataset("nmnist", tmp_path).train) == 11


def test_other_files_beside_the_recordings_are_left_alone(tmp_path: Path) -> None:
    _write(tmp_path / "nmnist", _files("Test"))
    others = {"Train/": b"", "README.txt": b"read me", "__MACOSX/Train/5/._00001.bin": b"\0"}
    _write(tmp_path / "nmnist", others | _files("Train"), archive="Train.zip")
    assert len(load_dataset("nmnist", tmp_path).train) == 10


def test_events_are_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "nmnist", _files("Train"))
    _write(tmp_path / "nmnist", _files("Test"), archive="Test.zip")
    first = load_dataset("nmnist", tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tonic.io", None)  # not even tonic is needed
        again = load_dataset("nmnist", tmp_path)
    assert np.array_equal(first.train.codes, again.train.codes)
    assert np.array_equal(first.test.codes, again.test.codes)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("archive", ["", "Test.zip"])
def test_changed_recording_is_read_again(tmp_path: Path, archive: str) -> None:
    _write(tmp_path / "nmnist", _files("Train"))
    _write(tmp_path / "nmnist", _files("Test"), archive=archive)
    load_dataset("nmnist", tmp_path)
    changed = {"Test/9/00001.bin": _coded(_random_events(77))}  # of the same size
    _write(tmp_path / "nmnist", _files("Test") | changed, archive=archive)
    if not archive:
        os.utime(tmp_path / "nmnist" / "Test" / "9" / "00001.bin", (1, 1))  # however coarse the clock of files is
    expected = _plain_frames(changed["Test/9/00001.bin"])
    assert np.array_equal(load_dataset("nmnist", tmp_path).test.codes[0], expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "Train/9/00001.bin",
            _coded(_random_events(0))[:-1],
            "00001.bin is truncated: 1999 bytes, expected a multiple",
        ),
        ("Train/9/00001.bin", b"", "00001.bin is truncated: 0 bytes, expected a multiple of 5, at least one event"),
        ("Train/9/00001.bin", _coded([(34, 2, 1, 0)]), "00001.bin: an event at x = 34, y = 2; the sensor has 34x34"),
        ("Train/9/00001.bin", _coded([(2, 255, 1, 0)]), "00001.bin: an event at x = 2, y = 255; the sensor has"),
        ("Train/10/00077.bin", _coded([(2, 2, 1, 0)]), "10/00077.bin; expected <digit>/NNNNN.bin with a digit 0 .. 9"),
        ("Train/9/first.bin", _coded([(2, 2, 1, 0)]), "9/first.bin; expected <digit>/NNNNN.bin"),
        ("Train/3/00001.bin", _coded([(2, 2, 1, 0)]), "00001.bin have one number; each recording has its own"),
    ],
)
@pytest.mark.parametrize("archive", ["", "Train.zip"])
def test_misfit_recording_is_refused(tmp_path: Path, archive: str, name: str, content: bytes, message: str) -> None:
    _write(tmp_path / "nmnist", _files("Train") | {name: content}, archive=archive)
    _write(tmp_path / "nmnist", _files("Test"))
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        load_dataset("nmnist", tmp_path)
    assert str(tmp_path / "nmnist" / (archive or "Train")) in str(raised.value)


@pytest.mark.parametrize("part", ["Train", "Test"])
def test_missing_split_lists_every_place(tmp_path: Path, part: str) -> None:
    _write(tmp_path / "nmnist-small", _files("Test" if part == "Train" else "Train"))
    with pytest.raises(DatasetError, match=f"nmnist: {part} is missing. Looked at:") as raised:
        load_dataset("nmnist", tmp_path)
    for folder in ("nmnist", "NMNIST", "nmnist-small"):
        assert f"\n  {tmp_path / folder}/{part}.zip or {part}/\n" in str(raised.value)


@pytest.mark.parametrize(("part", "label"), [("Train", "training"), ("Test", "test")])
def test_digit_without_a_recording_is_refused(tmp_path: Path, part: str, label: str) -> None:
    _write_all(tmp_path / "nmnist")
    (tmp_path / "nmnist" / part / "6" / "00004.bin").unlink()
    with pytest.raises(DatasetError, match=re.escape(f'the {label} part holds 9 samples, none of class 6 ("6")')):
        load_dataset("nmnist", tmp_path)


@pytest.mark.parametrize("archive", ["", "Train.zip"])
def test_split_without_recordings_is_refused(tmp_path: Path, archive: str) -> None:
    _write(tmp_path / "nmnist", {"Train/readme.txt": b"empty"}, archive=archive)
    _write(tmp_path / "nmnist", _files("Test"))
    with pytest.raises(DatasetError, match=r"holds no recordings; expected files <digit>/NNNNN.bin"):
        load_dataset("nmnist", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "is not a whole zip file: File is not a zip file"),
        (lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:], "00001.bin is damaged: Bad CRC-32"),
    ],
)
def test_damaged_zip_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    _write(tmp_path / "nmnist", _files("Train"), archive="Train.zip")
    _write(tmp_path / "nmnist", _files("Test"))
    path = tmp_path / "nmnist" / "Train.zip"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=message) as raised:
        load_dataset("nmnist", tmp_path)
    assert str(path) in str(raised.value)


def test_without_tonic_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_all(tmp_path / "nmnist")
    monkeypatch.setitem(sys.modules, "tonic.io", None)
    with pytest.raises(MissingDependencyError, match=re.escape('by tonic; install it with: pip install "fsnn-lava[ev')):
        load_dataset("nmnist", tmp_path)


@pytest.fixture(scope="module")
def real(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Dataset]]:
    folder = data_dir / "nmnist-small"
    if not folder.is_dir() or any((data_dir / name).is_dir() for name in ("nmnist", "NMNIST")):
        pytest.skip(f"{data_dir} holds no nmnist-small/, or other recordings before it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield folder, nmnist.load_nmnist(data_dir)


def test_real_recordings_have_their_counts_and_mnists_labels(real: tuple[Path, Dataset], data_dir: Path) -> None:
    _, dataset = real
    assert np.bincount(dataset.train.labels).tolist() == [97, 116, 99, 93, 105, 92, 94, 117, 87, 100]
    assert np.bincount(dataset.test.labels).tolist() == [8, 14, 8, 11, 14, 7, 10, 15, 2, 11]
    assert dataset.note == "1,000 + 100 samples"
    mnist = load_dataset("mnist", data_dir)
    assert np.array_equal(dataset.train.labels, mnist.train.labels[:1000])
    assert np.array_equal(dataset.test.labels, mnist.test.labels[:100])


def test_real_frames_are_those_of_a_plain_count(real: tuple[Path, Dataset]) -> None:
    folder, dataset = real
    for part, samples, some in (("Train", dataset.train, range(0, 1000, 37)), ("Test", dataset.test, range(0, 100, 9))):
        with zipfile.ZipFile(folder / f"{part}.zip") as archive:
            for i in some:
                raw = archive.read(f"{part}/{samples.labels[i]}/{i + 1:05d}.bin")
                assert np.array_equal(samples.select(np.array([i])).codes[0], _plain_frames(raw))
    with zipfile.ZipFile(folder / "Train.zip") as archive:
        assert len(archive.read("Train/5/00001.bin")) == 5 * 4681
