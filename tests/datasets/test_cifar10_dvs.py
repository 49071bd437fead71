"""CIFAR10-DVS: frames against a plain loop over events, the split, every layout on disk, and what does not fit."""

import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aedat4_writer import aedat4_from_events
from fsnn_lava.datasets import load_dataset
from fsnn_lava.datasets.cifar10_dvs import CLASSES
from fsnn_lava.errors import DatasetError, MissingDependencyError
from fsnn_lava.files import CACHE_VARIABLE

Array = npt.NDArray[Any]
Files = dict[str, bytes]

pytest.importorskip("tonic", reason='needs tonic: pip install -e ".[events]"')
pytest.importorskip("aedat", reason='needs aedat: pip install -e ".[events]"')

_EVENT = [("t", np.int64), ("x", np.int64), ("y", np.int64), ("on", np.bool_)]
PER_CLASS = 11
"""Recordings of a class: floor(11 * 0.9) = 9 for training and 2 for testing."""
FIRST = "airplane/cifar10_airplane_0.aedat4"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def _events(label: int, number: int, count: int = 64) -> Array:
    generator = np.random.default_rng([label, number])
    events = np.empty(count, _EVENT)
    for name, high in (("t", 20), ("x", 128), ("y", 128), ("on", 2)):  # out of order, with equal times
        events[name] = generator.integers(0, high, count)
    events["t"] += 1_500_000_000_000_000  # as cameras count: since 1970
    return events


def _file(events: Array) -> bytes:
    return aedat4_from_events(events, sensor_size=1000, packet_events=25)


def _files(per_class: int = PER_CLASS) -> Files:
    """By name without order: numbers as text would come 0, 1, 10, 2 .."""
    return {
        f"{name}/cifar10_{name}_{number}.aedat4": _file(_events(label, number))
        for label, name in enumerate(CLASSES)
        for number in range(per_class)
    }


def _write(folder: Path, files: Files, *, zipped: tuple[str, ...] = ()) -> None:
    """The files in folders, or those of some classes in a zip file of the class."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in zipped:
        with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file, content in files.items():
                if file.startswith(f"{name}/"):
                    archive.writestr(file, content)
    for file, content in files.items():
        if file.split("/")[0] not in zipped:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)


def _plain_frames(label: int, number: int) -> Array:
    """Frames (30, 2, 48, 48) of a recording, one event after another."""
    events = sorted(_events(label, number).tolist(), key=lambda event: event[0])
    frames = np.zeros((30, 2, 48, 48), np.uint8)
    for i in range(30):
        for _, x, y, on in events[i * len(events) // 30 : (i + 1) * len(events) // 30]:
            frames[i, int(on), y * 3 // 8, x * 3 // 8] = 1
    return frames


def _expected(numbers: range) -> Array:
    return np.stack([_plain_frames(label, number) for number in numbers for label in range(10)])


def test_recordings_become_frames_and_two_parts(tmp_path: Path) -> None:
    _write(tmp_path / "cifar10_dvs", _files())
    dataset = load_dataset("cifar10_dvs", tmp_path)
    assert dataset.train.labels.tolist() == list(range(10)) * 9
    assert dataset.test.labels.tolist() == list(range(10)) * 2
    assert np.array_equal(dataset.train.codes, _expected(range(9)))
    assert np.array_equal(dataset.test.codes, _expected(range(9, 11)))  # 9 and 10: by number, not as text
    assert dataset.input_shape == (2, 48, 48)
    assert dataset.frames == 30
    assert dataset.classes == CLASSES
    assert dataset.coding.kind == "event"
    assert np.array_equal(dataset.coding.table(), [[0, 1], [0, 1]])
    assert dataset.note == "90 + 20 samples"
    assert dataset.augmentation is None


def test_frames_are_kept_as_bits(tmp_path: Path) -> None:
    _write(tmp_path / "cifar10_dvs", _files())
    train = load_dataset("cifar10_dvs", tmp_path).train
    assert train.stored.nbytes == 90 * 30 * 576
    assert train.packed_frame == (2, 48, 48)


def test_polarity_and_place(tmp_path: Path) -> None:
    """Slice k of 30 events is event k; the first is OFF in the corner, the last ON in the other one."""
    events = np.zeros(30, _EVENT)
    events["t"] = np.arange(30)
    events[29] = (29, 127, 126, True)
    events[10] = (10, 3, 8, True)
    _write(tmp_path / "cifar10_dvs", _files() | {FIRST: _file(events)})
    frames = load_dataset("cifar10_dvs", tmp_path).train.codes[0]
    assert frames.sum() == 30
    assert np.argwhere(frames)[[0, 10, 29]].tolist() == [[0, 0, 0, 0], [10, 1, 3, 1], [29, 1, 47, 47]]


def test_classes_of_different_size(tmp_path: Path) -> None:
    files = _files() | {f"truck/cifar10_truck_{n}.aedat4": _file(_events(9, n)) for n in range(20, 40)}
    del files["frog/cifar10_frog_3.aedat4"]
    _write(tmp_path / "cifar10_dvs", files)
    dataset = load_dataset("cifar10_dvs", tmp_path)
    assert np.bincount(dataset.train.labels).tolist() == [9, 9, 9, 9, 9, 9, 9, 9, 9, 27]
    assert np.bincount(dataset.test.labels).tolist() == [2, 2, 2, 2, 2, 2, 1, 2, 2, 4]
    trucks = dataset.test.select(dataset.test.labels == 9)
    assert np.array_equal(trucks.codes, np.stack([_plain_frames(9, n) for n in range(36, 40)]))


@pytest.mark.parametrize("folder", ["cifar10_dvs", "CIFAR10DVS", "cifar10-dvs"])
@pytest.mark.parametrize("zipped", [(), CLASSES, ("bird", "ship")])
def test_every_layout_gives_the_same(tmp_path: Path, folder: str, zipped: tuple[str, ...]) -> None:
    _write(tmp_path / folder, _files(), zipped=zipped)
    dataset = load_dataset("cifar10_dvs", tmp_path)
    assert np.array_equal(dataset.train.codes, _expected(range(9)))
    assert np.array_equal(dataset.test.codes, _expected(range(9, 11)))


def test_other_files_beside_the_recordings_are_left_alone(tmp_path: Path) -> None:
    others = {"bird/readme.txt": b"read me", "bird/._cifar10_bird_0.aedat4": b"\0", "bird/cifar10_bird_0.aedat": b""}
    for zipped in ((), ("bird",)):
        folder = tmp_path / f"data{len(zipped)}"
        _write(folder / "cifar10_dvs", _files() | others, zipped=zipped)
        (folder / "cifar10_dvs" / "cat" / "more").mkdir()
        assert len(load_dataset("cifar10_dvs", folder).train) == 90


def test_events_are_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "cifar10_dvs", _files(), zipped=("dog",))
    first = load_dataset("cifar10_dvs", tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "aedat", None)  # not even aedat is needed
        again = load_dataset("cifar10_dvs", tmp_path)
    assert np.array_equal(first.train.codes, again.train.codes)
    assert np.array_equal(first.test.codes, again.test.codes)
    assert len(list(cache.iterdir())) == 10  # a file a class, so that an interrupt costs one class


@pytest.mark.parametrize("zipped", [(), ("airplane",)])
def test_changed_recording_is_read_again(tmp_path: Path, zipped: tuple[str, ...]) -> None:
    _write(tmp_path / "cifar10_dvs", _files(), zipped=zipped)
    load_dataset("cifar10_dvs", tmp_path)
    _write(tmp_path / "cifar10_dvs", _files() | {FIRST: _file(_events(7, 7))}, zipped=zipped)  # of the same size
    if not zipped:
        os.utime(tmp_path / "cifar10_dvs" / FIRST, (1, 1))  # however coarse the clock of files is
    assert np.array_equal(load_dataset("cifar10_dvs", tmp_path).train.codes[0], _plain_frames(7, 7))


def test_without_a_folder_every_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cifar10_dvs: airplane, automobile, bird.*, truck is missing") as raised:
        load_dataset("cifar10_dvs", tmp_path)
    for folder in ("cifar10_dvs", "CIFAR10DVS", "cifar10-dvs"):
        assert f"\n  {tmp_path / folder}/airplane.zip or airplane/\n" in str(raised.value)
    assert "figshare.com/ndownloader/files/38023437 (CIFAR10DVS.zip" in str(raised.value)


def test_missing_class_is_named(tmp_path: Path) -> None:
    files = {name: content for name, content in _files().items() if not name.startswith(("cat", "dog"))}
    _write(tmp_path / "CIFAR10DVS", files)
    with pytest.raises(DatasetError, match=r"cifar10_dvs: cat, dog is missing\. Looked at:") as raised:
        load_dataset("cifar10_dvs", tmp_path)
    assert f"{tmp_path / 'CIFAR10DVS'}/cat.zip or cat/" in str(raised.value)


@pytest.mark.parametrize("zipped", [(), ("horse",)])
def test_class_without_recordings_is_refused(tmp_path: Path, zipped: tuple[str, ...]) -> None:
    files = {name: content for name, content in _files().items() if not name.startswith("horse")}
    _write(tmp_path / "cifar10_dvs", files | {"horse/readme.txt": b"none"}, zipped=zipped)
    with pytest.raises(DatasetError, match=r"holds no recordings; expected files cifar10_<class>_<number>\.aedat4\. G"):
        load_dataset("cifar10_dvs", tmp_path)


@pytest.mark.parametrize("zipped", [(), CLASSES])
@pytest.mark.parametrize(
    ("ending", "named"),
    [(".aedat", "AEDAT 2.0 (.aedat)"), (".dat", "Prophesee's format (.dat)"), (".mat", "MATLAB (.mat)")],
)
def test_other_formats_are_named(tmp_path: Path, ending: str, named: str, zipped: tuple[str, ...]) -> None:
    files = {name.replace(".aedat4", ending): b"#!AER-DAT2.0\r\n" for name in _files()}
    _write(tmp_path / "cifar10_dvs", files, zipped=zipped)
    message = f"The 11 files of {named} there are another form of it, not read here."
    with pytest.raises(DatasetError, match=re.escape(message)):
        load_dataset("cifar10_dvs", tmp_path)


SOUND = _file(_events(0, 0))
FAR = _events(0, 0)
FAR["y"][5] = 128


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        pytest.param(FIRST, b"", "cifar10_airplane_0.aedat4 is no AEDAT4 file: it begins with b''", id="empty"),
        pytest.param(FIRST, b"#!AER-DAT2.0\r\n", "'. It is a recording in the format AEDAT 2. Get", id="2"),
        pytest.param(FIRST, b"#!AER-DAT2.0\r\n", "0.aedat4 is no AEDAT4 file: it begins with b'#!AER-DAT2", id="older"),
        pytest.param(FIRST, SOUND[:-1], "0.aedat4 is damaged or holds no events: failed to fill", id="cut short"),
        pytest.param(FIRST, SOUND[:60], "cifar10_airplane_0.aedat4: the header is damaged", id="cut very short"),
        pytest.param(FIRST, _file(_events(0, 0, 0)), "0.aedat4 is damaged or holds no events", id="no events"),
        pytest.param(
            FIRST,
            _file(_events(0, 0, 29)),
            "cifar10_airplane_0.aedat4: 29 events; 30 frames need at least one event each. It is damaged or of another",
            id="too few events",
        ),
        pytest.param(FIRST, _file(FAR), ", y = 128; the sensor has 128x128 pixels, counted from 0. It is", id="off"),
        pytest.param("cat/cifar10_dog_0.aedat4", SOUND, "_<number>.aedat4 of the class cat.", id="of another class"),
        pytest.param("cat/first.aedat4", SOUND, "cat/first.aedat4; expected cifar10_<class>_<number>", id="no number"),
        pytest.param("cat/cifar10_cat_007.aedat4", SOUND, "have one number; each recording has its own", id="twice"),
    ],
)
@pytest.mark.parametrize("zipped", [(), CLASSES])
def test_misfit_recording_is_refused(
    tmp_path: Path, zipped: tuple[str, ...], file: str, content: bytes, message: str
) -> None:
    _write(tmp_path / "cifar10_dvs", _files() | {file: content}, zipped=zipped)
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        load_dataset("cifar10_dvs", tmp_path)
    assert str(tmp_path / "cifar10_dvs" / file.split("/")[0]) + (".zip" if zipped else "") in str(raised.value)
    assert file in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "is not a whole zip file: File is not a zip file"),
        (lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:], "0.aedat4 is damaged: "),
    ],
)
def test_damaged_zip_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    _write(tmp_path / "cifar10_dvs", _files(), zipped=("deer",))
    path = tmp_path / "cifar10_dvs" / "deer.zip"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        load_dataset("cifar10_dvs", tmp_path)
    assert str(path) in str(raised.value)


def test_one_recording_of_a_class_is_too_few(tmp_path: Path) -> None:
    _write(tmp_path / "cifar10_dvs", _files(1))
    with pytest.raises(
        DatasetError, match=re.escape('the training part holds 0 samples, none of class 0 ("airplane")')
    ):
        load_dataset("cifar10_dvs", tmp_path)


def test_without_the_packages_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "cifar10_dvs", _files())
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(MissingDependencyError, match=re.escape("by tonic and aedat; install them with: pip install")):
        load_dataset("cifar10_dvs", tmp_path)
