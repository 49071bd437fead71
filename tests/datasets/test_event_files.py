"""Frames of equal event count: against a plain loop, against tonic where it drops nothing, and on real recordings."""

import itertools
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st

from fsnn_lava.datasets.event_files import equal_count_frames
from fsnn_lava.errors import DatasetError

Array = npt.NDArray[Any]

_EVENT = [("t", np.uint64), ("x", np.uint16), ("y", np.uint16), ("on", np.bool_)]


def _events(rows: list[tuple[int, int, int, bool]]) -> Array:
    return np.array(rows, _EVENT)


def _random_events(count: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    events = np.empty(count, _EVENT)
    for name, high in (("t", 50), ("x", 128), ("y", 128), ("on", 2)):  # few times, so that many are equal
        events[name] = generator.integers(0, high, count)
    return events


def _plain_frames(events: Array, frames: int, sensor_size: int, size: int) -> Array:
    """The same, one slice and one event after another: the slices are what is left, divided by the slices left."""
    waiting = sorted(events.tolist(), key=lambda event: event[0])
    found = np.zeros((frames, 2, size, size), bool)
    taken = 0
    for i in range(frames):
        end = (i + 1) * len(waiting) // frames
        for _, x, y, on in waiting[taken:end]:
            found[i, int(on), int(y / sensor_size * size), int(x / sensor_size * size)] = True
        taken = end
    assert taken == len(waiting)
    return found


def test_events_set_their_cells() -> None:
    events = _events(
        [
            (5, 0, 0, False),
            (6, 2, 2, False),  # the same cell: 2 * 48 // 128 is 0
            (7, 2, 2, True),  # the other polarity does not cancel it
            (8, 3, 127, True),
            (9, 127, 3, False),
        ]
    )
    frames = equal_count_frames(events, frames=2, sensor_size=128, size=48)
    assert frames.shape == (2, 2, 48, 48)
    assert frames.dtype == bool
    # (slice, polarity, y, x); the first slice has floor(5 / 2) events
    assert np.argwhere(frames).tolist() == [[0, 0, 0, 0], [1, 0, 1, 47], [1, 1, 0, 0], [1, 1, 47, 1]]


@pytest.mark.parametrize(
    ("count", "sizes"), [(4, [1, 1, 1, 1]), (5, [1, 1, 1, 2]), (6, [1, 2, 1, 2]), (7, [1, 2, 2, 2]), (8, [2, 2, 2, 2])]
)
def test_slices_differ_by_at_most_one_event(count: int, sizes: list[int]) -> None:
    events = _events([(k, k, 0, True) for k in range(count)])
    frames = equal_count_frames(events, frames=4, sensor_size=128, size=128)
    assert frames.sum((1, 2, 3)).tolist() == sizes
    assert np.argwhere(frames)[:, 3].tolist() == list(range(count))


def test_events_of_one_time_keep_their_order() -> None:
    events = _events([(9, 5, 0, True), (9, 4, 0, True), (3, 7, 0, True), (9, 3, 0, True)])
    frames = equal_count_frames(events, frames=4, sensor_size=128, size=128)
    assert np.argwhere(frames)[:, 3].tolist() == [7, 5, 4, 3]


@given(st.data())
def test_every_event_sets_its_cell_and_nothing_else_is_set(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 7))
    sensor_size = data.draw(st.integers(1, 130))
    size = data.draw(st.integers(1, 50))
    pixel = st.integers(0, sensor_size - 1)
    event = st.tuples(st.integers(0, 2**50), pixel, pixel, st.booleans())
    events = _events(data.draw(st.lists(event, min_size=frames, max_size=40)))
    found = equal_count_frames(events, frames=frames, sensor_size=sensor_size, size=size)
    due, counts = set(), [0] * frames
    for k, (_, x, y, on) in enumerate(sorted(events.tolist(), key=lambda e: e[0])):
        slice_ = next(i for i in range(frames) if i * len(events) // frames <= k < (i + 1) * len(events) // frames)
        counts[slice_] += 1
        due.add((slice_, int(on), y * size // sensor_size, x * size // sensor_size))
    assert {tuple(cell) for cell in np.argwhere(found).tolist()} == due
    assert sum(counts) == len(events)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("count", [30, 31, 59, 60, 1234, 20_000])
def test_frames_are_those_of_a_plain_loop(count: int) -> None:
    events = _random_events(count, seed=count)
    found = equal_count_frames(events, frames=30, sensor_size=128, size=48)
    assert np.array_equal(found, _plain_frames(events, 30, 128, 48))


def test_frames_are_tonics_where_it_drops_no_event() -> None:
    transforms = pytest.importorskip("tonic.transforms", reason='needs tonic: pip install -e ".[events]"')
    events = _random_events(30 * 77, seed=3)
    ordered = events[np.argsort(events["t"], kind="stable")]  # tonic takes them as ordered
    ordered = ordered.astype([("t", np.uint64), ("x", np.uint16), ("y", np.uint16), ("p", np.bool_)])
    small = transforms.Downsample(sensor_size=(128, 128, 2), target_size=(48, 48))(ordered)
    counts = transforms.ToFrame(sensor_size=(48, 48, 2), n_event_bins=30)(small)
    assert np.array_equal(equal_count_frames(events, frames=30, sensor_size=128, size=48), counts > 0)


@pytest.mark.parametrize("count", [0, 29])
def test_fewer_events_than_frames_are_refused(count: int) -> None:
    with pytest.raises(DatasetError, match=f"{count} events; 30 frames need at least one event each"):
        equal_count_frames(_random_events(count, seed=0), frames=30, sensor_size=128, size=48)


@pytest.mark.parametrize(("x", "y"), [(128, 2), (2, 128), (65_535, 0)])
def test_event_off_the_sensor_is_refused(x: int, y: int) -> None:
    events = _events([(0, 1, 1, True), (1, x, y, True)])
    with pytest.raises(DatasetError, match=f"an event at x = {x}, y = {y}; the sensor has 128x128 pixels"):
        equal_count_frames(events, frames=2, sensor_size=128, size=48)


@pytest.mark.parametrize(("x", "y"), [(3, -1), (-1, 3)])
def test_event_at_a_negative_place_is_refused(x: int, y: int) -> None:
    events = np.array([(0, 1, 1, True), (1, x, y, True)], [("t", int), ("x", int), ("y", int), ("on", bool)])
    with pytest.raises(DatasetError, match=re.escape(f"an event at x = {x}, y = {y}; the sensor")):
        equal_count_frames(events, frames=2, sensor_size=128, size=48)


def test_real_recordings_of_a_camera_of_that_size(data_dir: Path) -> None:
    path = data_dir / "dvs-gesture-samples" / "samples.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with zipfile.ZipFile(path) as archive:
        contents = [archive.read(f"{number:02d}.bin") for number in range(1, 11)]
    for raw in contents:
        e = np.frombuffer(raw, np.uint8).reshape(-1, 5).astype(np.int64)
        events = np.empty(len(e), _EVENT)
        events["x"], events["y"], events["on"] = e[:, 0], e[:, 1], e[:, 2] >> 7
        events["t"] = (e[:, 2] & 127) << 16 | e[:, 3] << 8 | e[:, 4]
        frames = equal_count_frames(events, frames=30, sensor_size=128, size=48)
        assert frames.shape == (30, 2, 48, 48)
        assert np.array_equal(frames, _plain_frames(events, 30, 128, 48))
        ordered = events[np.argsort(events["t"], kind="stable")]
        borders = np.arange(31) * len(e) // 30
        assert set(np.diff(borders)) <= {len(e) // 30, len(e) // 30 + 1}
        for i, (begin, end) in enumerate(itertools.pairwise(borders)):
            for polarity in (0, 1):  # each polarity alone gives its own channel
                part = ordered[begin:end][ordered["on"][begin:end] == polarity]
                cells = np.unique(part["y"].astype(int) * 48 // 128 * 48 + part["x"].astype(int) * 48 // 128)
                assert np.array_equal(np.flatnonzero(frames[i, polarity]), cells)
