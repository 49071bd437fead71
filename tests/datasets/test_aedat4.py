"""AEDAT4 files: what is written here is read by tonic event for event, and damaged files are refused."""

import contextlib
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st

from aedat4_writer import aedat4_from_events
from fsnn_lava.datasets.aedat4 import events_from_aedat4
from fsnn_lava.errors import DatasetError, MissingDependencyError

Array = npt.NDArray[Any]

pytest.importorskip("tonic", reason='needs tonic: pip install -e ".[events]"')
aedat = pytest.importorskip("aedat", reason='needs aedat: pip install -e ".[events]"')

_EVENT = [("t", np.int64), ("x", np.int64), ("y", np.int64), ("on", np.bool_)]
_FIELDS = ("t", "x", "y", "on")


def _random_events(count: int, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    events = np.empty(count, _EVENT)
    for name, high in (("t", 2**60), ("x", 128), ("y", 128), ("on", 2)):  # not in order: files are kept as they are
        events[name] = generator.integers(0, high, count)
    return events


def _assert_same(found: Array, expected: Array) -> None:
    assert len(found) == len(expected)
    for name in _FIELDS:
        assert np.array_equal(found[name], expected[name]), name


@pytest.mark.parametrize("packet_events", [1, 7, 100, 250, 4096])
def test_events_are_read_as_they_were_written(packet_events: int) -> None:
    events = _random_events(250)
    content = aedat4_from_events(events, sensor_size=128, packet_events=packet_events)
    _assert_same(events_from_aedat4(content, "here"), events)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**62), st.integers(0, 32_767), st.integers(0, 32_767), st.booleans()),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 4),
)
def test_any_event_is_kept(rows: list[tuple[int, int, int, bool]], packet_events: int) -> None:
    events = np.array(rows, _EVENT)
    content = aedat4_from_events(events, sensor_size=32_768, packet_events=packet_events)
    _assert_same(events_from_aedat4(content, "here"), events)


def test_file_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat4"
    path.write_bytes(aedat4_from_events(_random_events(25), sensor_size=197, packet_events=10))
    decoder = aedat.Decoder(str(path))
    assert decoder.id_to_stream() == {0: {"type": "events", "width": 197, "height": 197}}
    assert [len(packet["events"]) for packet in decoder] == [10, 10, 5]


def test_numbers_lie_where_flatbuffers_want_them() -> None:
    """Numbers of 8 bytes at multiples of 8, those of 4 at multiples of 4, counted from a buffer's length on."""
    content = aedat4_from_events(_random_events(3), sensor_size=128)
    header = content[14:]
    (root,) = struct.unpack_from("<I", header, 4)
    assert header[8:12] == b"IOHE"
    vtable = 4 + root - struct.unpack_from("<i", header, 4 + root)[0]
    vtable_length, table_length, compression, position, text = struct.unpack_from("<5H", header, vtable)
    assert (vtable_length, table_length) == (10, 20)
    assert (4 + root + compression) % 4 == 0
    assert (4 + root + position) % 8 == 0
    assert struct.unpack_from("<i", header, 4 + root + compression) == (0,)  # not compressed
    assert struct.unpack_from("<q", header, 4 + root + position) == (-1,)  # no table of packets
    begin = 4 + root + text + struct.unpack_from("<I", header, 4 + root + text)[0]
    (length,) = struct.unpack_from("<I", header, begin)
    assert header[begin + 4 :][:20].startswith(b"<dv version")
    (buffer_length,) = struct.unpack_from("<I", header, 0)
    assert begin + 4 + length + 1 == 4 + buffer_length  # a zero ends the text
    packet = header[4 + buffer_length + 8 :]
    assert len(packet) == 4 + struct.unpack_from("<I", packet, 0)[0]
    assert (len(packet) - 3 * 16) % 8 == 0  # where the events begin


_SOUND = aedat4_from_events(_random_events(250), sensor_size=128, packet_events=100)
_NO_EVENTS = aedat4_from_events(_random_events(0), sensor_size=128)


def _with_table_at(position: int) -> bytes:
    """A file whose header says that the table of packets is there; the number is the one of eight bytes of ones."""
    assert _SOUND.count(b"\xff" * 8) == 1
    return _SOUND.replace(b"\xff" * 8, struct.pack("<q", position))


NO_FILE = "here is no AEDAT4 file: it begins with "
HEADER = "here: the header is damaged: "
DECODER = "here is damaged or holds no events: "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", NO_FILE + "b'', expected b'#!AER-DAT4.0", id="empty"),
        pytest.param(b"#!AER-DAT2.0\r\n# This is", NO_FILE + "b'#!AER-DAT2.0\\r\\n', expected", id="older format"),
        pytest.param(_SOUND[:14], HEADER + "unpack_from requires a buffer of at least", id="no header"),
        pytest.param(_SOUND[:50], HEADER, id="no text"),
        pytest.param(_SOUND[:200], HEADER + "it is cut short", id="text cut short"),
        pytest.param(_SOUND[:100] + b"\xff" + _SOUND[101:], HEADER + "'utf-8' codec can't decode", id="text damaged"),
        pytest.param(_SOUND.replace(b"outInfo", b"inInfo_"), DECODER + "the description has no output", id="no stream"),
        pytest.param(_SOUND.replace(b"EVTS<", b"TRIG<"), DECODER + "there are no events in", id="no stream of events"),
        pytest.param(_SOUND[:-1], DECODER + "failed to fill whole buffer", id="packet cut short"),
        pytest.param(
            _with_table_at(len(_SOUND) + 1),
            "here is cut short: it has 4498 bytes, its packets end at 4499",
            id="packets missing",
        ),
        pytest.param(_NO_EVENTS, DECODER + "need at least one array", id="no packets"),
    ],
)
def test_file_that_does_not_fit_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        events_from_aedat4(content, "here")


def test_table_of_packets_ends_them() -> None:
    _assert_same(events_from_aedat4(_with_table_at(len(_SOUND)) + b"the table", "here"), _random_events(250))


@pytest.mark.parametrize("seed", range(20))
def test_damage_never_ends_the_process(seed: int) -> None:
    """One byte of the headers changed: the events are read or refused, whatever the decoder does with it."""
    generator = np.random.default_rng(seed)
    for _ in range(10):
        damaged = bytearray(_SOUND)
        damaged[int(generator.integers(0, 450))] = int(generator.integers(0, 256))
        with contextlib.suppress(DatasetError):
            events_from_aedat4(bytes(damaged), "here")


@pytest.mark.parametrize("package", ["tonic.io", "aedat"])
def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = 'here: events in AEDAT4 files are read by tonic and aedat; install them with: pip install "fsnn-lava[ev'
    with pytest.raises(MissingDependencyError, match=re.escape(message)):
        events_from_aedat4(_SOUND, "here")


def test_interrupt_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str) -> Array:
        raise KeyboardInterrupt

    monkeypatch.setattr("tonic.io.read_aedat4", read)
    with pytest.raises(KeyboardInterrupt):
        events_from_aedat4(_SOUND, "here")


@pytest.mark.parametrize(
    ("x", "sensor_size", "message"),
    [
        (128, 128, "events: x is 128 .. 128; allowed: 0 .. 127, the pixels of the sensor."),
        (-1, 128, "events: x is -1 .. -1; allowed: 0 .. 127"),
        (0, 0, "sensor_size: found 0; allowed: 1 .. 32768."),
        (0, 32_769, "sensor_size: found 32769; allowed: 1 .. 32768."),
    ],
)
def test_event_that_cannot_be_written_is_refused(x: int, sensor_size: int, message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        aedat4_from_events(np.array([(0, x, 0, True)], _EVENT), sensor_size=sensor_size)
