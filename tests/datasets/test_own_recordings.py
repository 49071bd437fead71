"""Folders of event recordings: every format gives the same frames, windows and parts are as stated."""

import dataclasses
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aedat4_writer import aedat4_from_events
from dat_writer import dat_from_events
from fsnn_lava.config import DataConfig
from fsnn_lava.datasets import Dataset, InputCoding, load_dataset, read_inputs
from fsnn_lava.datasets.own import event_folder
from fsnn_lava.datasets.own.recordings import read_events
from fsnn_lava.errors import DatasetError, InputError
from fsnn_lava.files import CACHE_VARIABLE

pytest.importorskip("aedat", reason="AEDAT4 needs the extra: pip install -e '.[events]'")
Array = np.ndarray[Any, Any]
SENSOR = DataConfig(sensor_height=20, sensor_width=30, frames=4)
EVENT = np.dtype([("t", np.int64), ("x", np.int64), ("y", np.int64), ("on", np.bool_)])


def some_events(n: int = 200, *, seed: int = 0, end: int = 80_000) -> Array:
    rng = np.random.default_rng(seed)
    events = np.empty(n, EVENT)
    events["t"] = np.sort(rng.integers(0, end, n))
    events["x"], events["y"], events["on"] = rng.integers(0, 30, n), rng.integers(0, 20, n), rng.random(n) < 0.5
    return events


def as_bin(events: Array) -> bytes:
    raw = np.empty((len(events), 5), np.uint8)
    t = events["t"]
    raw[:, 0], raw[:, 1] = events["x"], events["y"]
    raw[:, 2], raw[:, 3], raw[:, 4] = events["on"].astype(int) << 7 | t >> 16, t >> 8 & 255, t & 255
    return raw.tobytes()


def as_aedat2(events: Array) -> bytes:
    address = events["x"] << 8 | events["y"] << 1 | events["on"]
    pairs = np.stack([address, events["t"]], axis=1).astype(">u4")
    return b"#!AER-DAT2.0\r\n# made for a test\r\n" + pairs.tobytes()


def as_aedat3(events: Array) -> bytes:
    """Packets of 64 events, after one of another type that holds none of a camera's pixels."""
    address = events["x"] << 17 | events["y"] << 2 | events["on"].astype(int) << 1 | 1
    pairs = np.stack([address, events["t"]], axis=1).astype("<u4")
    parts = [pairs[i : i + 64] for i in range(0, len(pairs), 64)]
    packets = [struct.pack("<hhiiiiii", 1, 0, 8, 4, 0, len(p), len(p), len(p)) + p.tobytes() for p in parts]
    other = struct.pack("<hhiiiiii", 0, 0, 8, 4, 0, 1, 1, 1) + b"12345678"
    return b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + other + b"".join(packets)


def write(path: Path, events: Array) -> Path:
    """The events in the format of the file's ending; ``.a2.aedat`` is AEDAT 2, ``.v1.dat`` version 1 of DAT."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"x": events["x"], "y": events["y"], "t": events["t"], "p": events["on"].astype(np.int64)}
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".npy" and "flat" in path.stem:
        np.save(path, np.stack([columns[name] for name in "xytp"], axis=1))
    elif path.suffix == ".npy":
        kind = np.dtype([(name, np.int64) for name in "pxyt"])
        structured = np.empty(len(events), kind)
        for name in "xytp":
            structured[name] = columns[name]
        np.save(path, structured)
    elif path.suffix == ".dat":
        path.write_bytes(dat_from_events(events, version=1 if "v1" in path.stem else 2, sensor=(20, 30)))
    elif path.suffix == ".aedat4":
        path.write_bytes(aedat4_from_events(events, sensor_size=30))
    else:
        form = as_bin if path.suffix == ".bin" else as_aedat2 if "a2" in path.stem else as_aedat3
        path.write_bytes(form(events))
    return path


def write_folder(folder: Path, *, count: int = 6, **options: Any) -> list[Array]:
    made = []
    for label in range(2):
        for number in range(count):
            made.append(some_events(seed=10 * label + number, **options))
            write(folder / f"gesture {label}" / f"{number}.bin", made[-1])
    return made


FORMATS = (
    "one.bin",
    "one.npy",
    "one.flat.npy",
    "one.npz",
    "one.aedat4",
    "one.a2.aedat",
    "one.aedat",
    "one.dat",
    "one.v1.dat",
)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_events(name: str, tmp_path: Path) -> None:
    events = some_events()
    found = read_events(write(tmp_path / name, events))
    for field in ("t", "x", "y", "on"):
        assert np.array_equal(found[field], events[field]), field


def test_class_folders_hold_the_same_frames_in_every_version_of_dat(tmp_path: Path) -> None:
    for ending in ("bin", "dat", "v1.dat"):
        for label in range(2):
            for number in range(6):
                events = some_events(seed=10 * label + number)
                write(tmp_path / ending / f"gesture {label}" / f"{number}.{ending}", events)
    folders = [tmp_path / ending for ending in ("bin", "dat", "v1.dat")]
    for window_ms in (0.0, 19.0):
        settings = DataConfig(sensor_height=20, sensor_width=30, frames=4, window_ms=window_ms)
        bins, *dats = (load_dataset(str(folder), settings=settings) for folder in folders)
        for found in dats:
            assert found.classes == ("gesture 0", "gesture 1")
            assert len(found.test) == len(bins.test) > 0
            # Whole recordings are set aside by a hash of their names, which end otherwise.
            parts = [(found.test.codes, bins.test.codes)] if window_ms else []
            everything = [np.concatenate([data.train.codes, data.test.codes]) for data in (found, bins)]
            everything = [codes[np.lexsort(codes.reshape(len(codes), -1).T)] for codes in everything]
            for ours, theirs in [*parts, (everything[0], everything[1])]:
                assert np.array_equal(ours, theirs)


def test_frames_have_equal_counts_or_equal_times(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    events = some_events(seed=0)
    for by in ("count", "time"):
        settings = DataConfig(sensor_height=20, sensor_width=30, frames=4, frames_by=by)  # type: ignore[arg-type]
        found = load_dataset(str(tmp_path / "data"), settings=settings)
        assert (found.input_shape, found.frames, found.coding.kind) == ((2, 20, 30), 4, "event")
        expected = np.zeros((4, 2, 20, 30), np.uint8)
        length = int(events["t"].max() - events["t"].min()) + 1
        for k, event in enumerate(events):
            passed = int(event["t"] - events["t"].min())
            place = ((k + 1) * 4 - 1) // len(events) if by == "count" else passed * 4 // length
            expected[place, int(event["on"]), event["y"], event["x"]] = 1
        everything = np.concatenate([found.train.codes, found.test.codes])
        assert any(np.array_equal(frames, expected) for frames in everything), by


def test_cells_are_smaller_than_pixels_where_that_is_asked(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    fine = load_dataset(str(tmp_path / "data"), settings=SENSOR)
    settings = DataConfig(sensor_height=20, sensor_width=30, frames=4, height=10, width=15)
    coarse = load_dataset(str(tmp_path / "data"), settings=settings)
    assert coarse.input_shape == (2, 10, 15)
    codes = fine.test.codes.reshape(*fine.test.codes.shape[:-2], 10, 2, 15, 2)
    assert np.array_equal(coarse.test.codes, codes.max(axis=(-1, -3)))


def test_late_windows_test_and_early_ones_train(tmp_path: Path) -> None:
    """Recordings of 80 ms in windows of 20: of each the last one tests."""
    made = write_folder(tmp_path / "data", count=3)
    settings = DataConfig(sensor_height=20, sensor_width=30, frames=2, frames_by="time", window_ms=19)
    found = load_dataset(str(tmp_path / "data"), settings=settings)
    assert (len(found.train), len(found.test)) == (6 * 3, 6)
    assert found.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    first = made[0]
    passed = first["t"] - first["t"].min()
    expected = np.zeros((2, 2, 20, 30), np.uint8)
    for event, at in zip(first, passed, strict=True):
        if 3 * 19000 <= at < 4 * 19000:
            expected[int((at - 3 * 19000) * 2 // 19000), int(event["on"]), event["y"], event["x"]] = 1
    assert np.array_equal(found.test.codes[0], expected)


def test_a_recording_without_a_window_for_either_part_is_refused_before_and_after_it_is_kept(tmp_path: Path) -> None:
    """Recordings of 80 ms, but for one of 30."""
    write_folder(tmp_path / "data", count=2)
    write(tmp_path / "data" / "gesture 1" / "short.bin", some_events(seed=99, end=30_000))
    place = str(tmp_path / "data")
    allowed = dataclasses.replace(SENSOR, window_ms=14)
    few = r"short.bin: found a recording of 29\.\d+ ms"
    none_trains = (
        r"sets the last {} aside for the test, at least one, and none is left to train; make data.window_ms or "
        r"data.test_share smaller, or put recordings into train/ and test/"
    )
    refused = [
        (
            dataclasses.replace(SENSOR, window_ms=35),
            few + r", 0 whole windows of 35 ms, in class gesture 1; allowed: at least one; make data.window_ms smaller",
        ),
        (
            dataclasses.replace(SENSOR, window_ms=20),
            few + r", 1 whole window of 20 ms, in class gesture 1; data.test_share 0.2 " + none_trains.format(1),
        ),
        (
            dataclasses.replace(SENSOR, window_ms=14, test_share=0.8),
            few + r", 2 whole windows of 14 ms, in class gesture 1; data.test_share 0.8 " + none_trains.format(2),
        ),
    ]
    for _ in range(2):
        for settings, message in refused:
            with pytest.raises(DatasetError, match=message):
                load_dataset(place, settings=settings)
        found = load_dataset(place, settings=allowed)
        assert np.bincount(found.train.labels).tolist() == [2 * 4, 2 * 4 + 1]
        assert np.bincount(found.test.labels).tolist() == [2, 3]


def test_one_window_of_a_recording_is_enough_where_it_is_in_a_part(tmp_path: Path) -> None:
    for part, seeds in (("train", 20), ("test", 50)):
        for label in range(2):
            events = some_events(seed=seeds + label, end=30_000)
            write(tmp_path / "data" / part / f"gesture {label}" / "0.bin", events)
    found = load_dataset(str(tmp_path / "data"), settings=dataclasses.replace(SENSOR, window_ms=20))
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([0, 1], [0, 1])


def test_one_whole_recording_of_a_class_needs_windows(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", count=1)
    message = (
        r"class gesture 0: found 1 sample, of which none is left to train or to test; allowed: at least 2, or a test "
        r"part of its own, or recordings in windows, with data.window_ms$"
    )
    with pytest.raises(DatasetError, match=message):
        load_dataset(str(tmp_path / "data"), settings=SENSOR)
    assert len(load_dataset(str(tmp_path / "data"), settings=dataclasses.replace(SENSOR, window_ms=20)).test) == 2


def test_each_recording_is_decoded_once_and_not_again_where_its_frames_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "data", count=3)
    place, read = str(tmp_path / "data"), []

    def noted(file: Path) -> Array:
        read.append(file)
        return read_events(file)

    monkeypatch.setattr(event_folder, "read_events", noted)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    whole, cut = SENSOR, dataclasses.replace(SENSOR, window_ms=19)
    first: dict[DataConfig, Dataset] = {}
    # Other frames of the same windows need the events again, though not to count the windows.
    for settings in (whole, cut, dataclasses.replace(cut, frames=3), dataclasses.replace(cut, window_ms=25)):
        read.clear()
        first[settings] = load_dataset(place, settings=settings)
        assert sorted(read) == sorted((tmp_path / "data").rglob("*.bin"))
    read.clear()
    for settings, expected in first.items():
        found = load_dataset(place, settings=settings)
        for ours, theirs in ((found.train, expected.train), (found.test, expected.test)):
            assert np.array_equal(ours.codes, theirs.codes) and np.array_equal(ours.labels, theirs.labels)
    assert not read


def test_a_folder_with_both_parts_keeps_them(tmp_path: Path) -> None:
    write_folder(tmp_path / "data" / "train", count=4)
    write_folder(tmp_path / "data" / "test", count=2)
    found = load_dataset(str(tmp_path / "data"), settings=SENSOR)
    assert (len(found.train), len(found.test)) == (8, 4)
    assert found.classes == ("gesture 0", "gesture 1")


def test_what_cannot_become_samples_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    place = str(tmp_path / "data")
    refused: list[tuple[DataConfig, str]] = [
        (DataConfig(), r"say how large the sensor is: --data.sensor-height N --data.sensor-width N"),
        (DataConfig(sensor_height=9, sensor_width=30), r"0.bin: an event at x = .*; the sensor has 30x9 pixels"),
        (DataConfig(sensor_height=20, sensor_width=30, frames=900), r"0.bin: 200 events; 900 frames need at least one"),
    ]
    for settings, message in refused:
        with pytest.raises(DatasetError, match=message):
            load_dataset(place, settings=settings)
    (tmp_path / "data" / "gesture 1" / "3.bin").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"3.bin: found 0 bytes; expected 5 for each event, at least one"):
        load_dataset(place, settings=SENSOR)
    (tmp_path / "data" / "gesture 1" / "picture.png").write_bytes(b"x")
    with pytest.raises(
        DatasetError, match=r"found images \(.png\) and recordings \(.bin\); expected files of one kind"
    ):
        load_dataset(place, settings=SENSOR)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("one.aedat", b"#!AER-DAT1.0\r\n", r"begins with b'#!AER-DAT1.0'; expected #!AER-DAT2.0 or #!AER-DAT3.1"),
        ("one.aedat", b"#!AER-DAT3.1\r\n#x\r\n", r"one.aedat: holds no events; remove it"),
        ("one.aedat", b"#!AER-DAT3.1\r\n#x\r\nab", r"one.aedat: is cut short: its last packet has no whole header"),
        ("one.aedat", as_aedat3(some_events())[:-9], r"one.aedat: is cut short or damaged: a packet of 8 events of 8"),
        ("one.aedat", as_aedat2(some_events())[:-3], r"one.aedat: is cut short: 1597 bytes of events, no multiple"),
        ("one.npy", b"\x93NUMPY", r"one.npy: cannot be read as arrays of events"),
        ("one.aedat4", b"no", r"one.aedat4 is no AEDAT4 file"),
    ],
)
def test_damaged_recordings_are_refused_by_name(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_events(tmp_path / name)


def test_arrays_of_other_forms_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((5, 3)))
    np.save(tmp_path / "named.npy", np.zeros(5, [("x", int), ("y", int)]))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    messages = {
        "wide.npy": r"found an array of shape \(5, 3\); expected \(n, 4\) of x, y, t, p",
        "named.npy": r"found the fields x, y; expected x, y, t, p",
        "two.npz": r"found the arrays a, b; expected x, y, t, p, or a single one",
    }
    for name, message in messages.items():
        with pytest.raises(DatasetError, match=rf"^{tmp_path / name}: {message}"):
            read_events(tmp_path / name)


def test_a_recording_is_an_input_of_a_network_that_was_trained_on_such(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", count=3)
    dataset = load_dataset(str(tmp_path / "data"), settings=SENSOR)
    coding, shape = dataset.coding, (4, 2, 20, 30)
    everything = np.concatenate([dataset.train.codes, dataset.test.codes])
    for name in ("one.bin", "one.dat", "one.v1.dat", "one.npy", "one.flat.npy", "one.npz"):
        codes, names = read_inputs([write(tmp_path / name, some_events(seed=0))], coding, shape=shape, settings=SENSOR)
        assert codes.shape == (1, *shape) and len(names) == 1
        assert any(np.array_equal(codes[0], frames) for frames in everything)
    np.save(tmp_path / "frames.npy", everything[:2])
    codes, _ = read_inputs([tmp_path / "frames.npy"], coding, shape=shape, settings=SENSOR)
    assert np.array_equal(codes, everything[:2])
    write(tmp_path / "short.bin", some_events(seed=0, end=30_000))
    message = r"short.bin: .* 0 whole windows of 40 ms, on which the network was trained; .* give a longer recording"
    with pytest.raises(DatasetError, match=message):
        read_inputs([tmp_path / "short.bin"], coding, shape=shape, settings=dataclasses.replace(SENSOR, window_ms=40))
    with pytest.raises(InputError, match=r"found frames of shape \(4, 2, 20, 30\); the network takes inputs of shape"):
        read_inputs([tmp_path / "one.bin"], coding, shape=(5, 2, 20, 30), settings=SENSOR)
    with pytest.raises(InputError, match=r"found a file that ends in .bin; allowed: .bmp"):
        read_inputs([tmp_path / "one.bin"], InputCoding("graded", 255, 1.0, (0.0,), (1.0,)), shape=(1, 2, 2))
