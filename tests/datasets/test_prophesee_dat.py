"""Prophesee's DAT: the events of both versions, as another reader finds them, and what is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dat_writer import dat_from_events
from fsnn_lava.datasets.event_files import EVENT
from fsnn_lava.datasets.own.prophesee_dat import events_from_dat
from fsnn_lava.errors import DatasetError

Array = np.ndarray[Any, Any]


def some_events(*rows: tuple[int, int, int, bool]) -> Array:
    return np.array(list(rows), EVENT)


CORNERS = {
    1: some_events((0, 0, 0, False), (5, 511, 0, True), (5, 0, 255, False), (2**32 - 1, 511, 255, True)),
    2: some_events((0, 0, 0, False), (5, 16383, 0, True), (5, 0, 16383, False), (2**32 - 1, 16383, 16383, True)),
}
FEW = some_events((3, 1, 2, True), (7, 29, 19, False))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", [0, 12])
def test_every_bit_of_an_event_is_where_its_version_has_it(version: int, kind: int) -> None:
    found = events_from_dat(dat_from_events(CORNERS[version], version=version, kind=kind), "one.dat")
    assert found.dtype == EVENT
    assert np.array_equal(found, CORNERS[version])


def test_bytes_of_a_file_by_hand() -> None:
    """x = 258, y = 3, ON at 0x01020304 microseconds: 258 + 3 * 2**14 + 2**28, and 258 - 256 + 3 * 2**9 + 2**17."""
    time = b"\x04\x03\x02\x01"
    two = b"% Version 2\n\x0c\x08" + time + b"\x02\xc1\x00\x10"
    one = b"% Version 1\n\x00\x08" + time + b"\x02\x06\x02\x00"
    assert events_from_dat(two, "two.dat").tolist() == [(0x01020304, 258, 3, True)]
    assert events_from_dat(one, "one.dat").tolist() == [(0x01020304, 2, 3, True)]


def test_bits_beyond_the_polarity_mean_nothing_in_version_1() -> None:
    content = dat_from_events(FEW, version=1)
    assert np.array_equal(events_from_dat(content[:-2] + bytes([content[-2] | 0xFC, 0xFF]), "one.dat"), FEW)


def test_another_reader_finds_the_same_events(tmp_path: Path) -> None:
    """expelliarmus, which tonic brings along; it reads version 2."""
    expelliarmus = pytest.importorskip("expelliarmus")
    rng = np.random.default_rng(0)
    events = np.empty(500, EVENT)
    events["t"] = np.sort(rng.integers(0, 90_000, 500))
    events["x"], events["y"], events["on"] = rng.integers(0, 304, 500), rng.integers(0, 240, 500), rng.random(500) < 0.5
    (tmp_path / "one.dat").write_bytes(dat_from_events(events, sensor=(240, 304)))
    theirs = expelliarmus.Wizard(encoding="dat").read(tmp_path / "one.dat")
    ours = events_from_dat((tmp_path / "one.dat").read_bytes(), "one.dat")
    for name, their_name in (("t", "t"), ("x", "x"), ("y", "y"), ("on", "p")):
        assert np.array_equal(ours[name], theirs[their_name]), name
        assert np.array_equal(ours[name], events[name]), name


def test_the_header_may_say_more_and_no_size() -> None:
    lines = ["Data file containing Event2D events.", "Version 2", "", "camera of ours", "Date 2018-06-08 9:46:3"]
    assert np.array_equal(events_from_dat(dat_from_events(FEW, header=lines, kind=0), "one.dat"), FEW)


def test_a_file_may_end_after_its_header_without_an_event() -> None:
    assert len(events_from_dat(dat_from_events(FEW[:0]), "one.dat")) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"one.dat: begins with b''; expected lines that begin with %, as in files of Prophesee's DAT format"),
        (
            b"\x89HDF\r\n\x1a\n" + bytes(40),
            r"one.dat: begins with .*; expected lines that begin with %.* It is an HDF5 file",
        ),
        (b"% Version 2", r"one.dat: is cut short: its header has no end; get it again"),
        (b"% Version 2\n\x0c", r"one.dat: is cut short: it ends after its header of 12 bytes; get it again"),
        (dat_from_events(FEW)[:-3], r"one.dat: is cut short: 13 bytes of events, no multiple of 8; get it again"),
        (
            dat_from_events(FEW, header=["Version 3"]),
            r"one.dat: its header has Version 3; expected % Version 1 or 2, which says how many bits",
        ),
        (dat_from_events(FEW, header=["Date 2020"]), r"one.dat: its header has no Version; expected % Version 1 or 2"),
        (
            dat_from_events(FEW, kind=14),
            r"one.dat: found events of type 14 and 8 bytes; expected changes of brightness, of type 0 \(Event2d\) or "
            r"12 \(EventCD\) and 8 bytes",
        ),
        (dat_from_events(FEW, size=16), r"one.dat: found events of type 12 and 16 bytes; expected"),
        (
            dat_from_events(FEW, sensor=(20, 29)),
            r"one.dat: event 1 is at x = 29, y = 19, counted from 0; its header states a Width of 29: it is damaged",
        ),
        (dat_from_events(FEW, sensor=(19, 30)), r"one.dat: event 1 is at x = 29, y = 19, .* a Height of 19"),
        (
            dat_from_events(FEW, header=["Version 2", "Width some"]),
            r"one.dat: its header states a Width of 'some'; expected a whole number",
        ),
        (dat_from_events(FEW)[:-1] + b"\x30", r"one.dat: event 1 has polarity 3; expected 0 or 1: it is damaged"),
        (
            dat_from_events(FEW[::-1]),
            r"one.dat: event 1 is at 3 us, after one at 7 us; expected times that never decrease: it is damaged, or",
        ),
        (
            dat_from_events(some_events((2**32 - 5, 1, 1, True), (2, 1, 1, True))),
            r"event 1 is at 2 us, after one at 4294967291 us; expected times that never decrease: its clock of 32 bits "
            r"began anew, as it does after 71 minutes; cut the recording there",
        ),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "file",
)
def test_what_is_no_recording_of_changes_is_refused_with_its_name(content: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        events_from_dat(content, "one.dat")
