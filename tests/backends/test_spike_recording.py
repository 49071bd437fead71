"""Recordings: what comes back is what the run did, also after an interruption; files that contradict themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import networks
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.backends.spike_recording import Recording, SpikeRecorder, load_recording
from fsnn_lava.errors import DatasetError, IncompleteRunError, InputError, NetworkError, OutputError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork
from fsnn_lava.hardware.network_file import save_network
from random_networks import random_case
from simulated import names

SEED = 1


@pytest.fixture
def network() -> HardwareNetwork:
    return random_case(SEED, lava=False).network


@pytest.fixture
def inputs(network: HardwareNetwork) -> Array:
    """Seven samples, graded codes."""
    case = random_case(SEED, lava=False)
    assert network.input.kind == "graded"
    return np.concatenate([case.inputs] * 4)[:7]


def recorded(path: Path, network: HardwareNetwork, inputs: Array, **options: Any) -> Recording:
    """The file of a run in batches of two."""
    with SpikeRecorder(path, network, record=names(network), samples=len(inputs)) as recorder:
        simulator = IntegerSimulator(batch_size=2)
        result = simulator.run(network, inputs, record=names(network), sink=recorder.add, **options)
    assert result.spikes == {}
    return load_recording(path)


def test_recording_holds_every_spike(tmp_path: Path, network: HardwareNetwork, inputs: Array) -> None:
    recording = recorded(tmp_path / "spikes.h5", network, inputs)
    expected = IntegerSimulator().run(network, inputs, record=names(network)).spikes
    assert sum(int(s.sum()) for s in expected.values()) > 0
    assert (recording.network, recording.time_steps) == (network.name, network.time_steps)
    assert (recording.samples, recording.planned) == (7, 7)
    assert recording.shapes == {p.name: p.shape for p in network.populations}
    for name, spikes in expected.items():
        assert np.array_equal(recording.spikes(name), spikes)
        assert np.array_equal(recording.spikes(name, slice(1, 4)), spikes[:, 1:4])
        assert recording.spikes(name).dtype == np.uint8
        assert recording.spikes(name, slice(5, 2)).shape == (network.time_steps, 0, *spikes.shape[2:])
    assert [path.name for path in tmp_path.iterdir()] == ["spikes.h5"]


def test_bits_lie_as_the_format_says(tmp_path: Path) -> None:
    network = networks.worked_example()
    with SpikeRecorder(tmp_path / "a.h5", network, record=["a"], samples=1) as recorder:
        recorder.add(0, {"a": np.array([[[1, 0]], [[0, 0]], [[1, 1]]], np.uint8)})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["populations/000/spikes"][()].tolist() == [[[128], [0], [192]]]


def interrupting(after: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    return progress


def test_interrupted_run_leaves_what_it_had_recorded(tmp_path: Path, network: HardwareNetwork, inputs: Array) -> None:
    path = tmp_path / "spikes.h5"
    with pytest.raises(IncompleteRunError) as error:
        recorded(path, network, inputs, progress=interrupting(4))
    recording = load_recording(path)
    assert (recording.samples, recording.planned, error.value.samples) == (4, 7, 4)
    expected = IntegerSimulator().run(network, inputs, record=names(network)).spikes
    for name, spikes in expected.items():
        assert np.array_equal(recording.spikes(name), spikes[:, :4])


def test_what_an_interruption_cuts_short_does_not_count(
    tmp_path: Path, network: HardwareNetwork, inputs: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption comes while the second batch is being packed, when some populations are written."""
    packbits, calls = np.packbits, 0

    def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 * len(network.populations):
            raise KeyboardInterrupt
        return packbits(*arguments, **options)

    assert len(network.populations) > 1
    monkeypatch.setattr(np, "packbits", interrupted)
    with pytest.raises(IncompleteRunError):
        recorded(tmp_path / "spikes.h5", network, inputs)
    assert load_recording(tmp_path / "spikes.h5").samples == 2


def test_failure_before_the_first_sample_leaves_no_file(tmp_path: Path, network: HardwareNetwork) -> None:
    with (
        pytest.raises(ValueError, match="no luck"),
        SpikeRecorder(tmp_path / "spikes.h5", network, record=names(network), samples=3),
    ):
        raise ValueError("no luck")
    assert list(tmp_path.iterdir()) == []


def test_old_file_stays_until_the_new_one_is_complete(tmp_path: Path, network: HardwareNetwork, inputs: Array) -> None:
    path = tmp_path / "spikes.h5"
    for samples in (1, 2):
        with SpikeRecorder(path, network, record=names(network)[:1], samples=samples) as recorder:
            IntegerSimulator().run(network, inputs[:samples], record=names(network)[:1], sink=recorder.add)
            assert not path.exists() if samples == 1 else load_recording(path).samples == 1
        assert load_recording(path).samples == samples


def test_nothing_but_a_recording_is_replaced(tmp_path: Path, network: HardwareNetwork) -> None:
    """A checkpoint or network file named by mistake stays."""
    (tmp_path / "text.h5").write_text("old")
    save_network(network, tmp_path / "network.h5")
    for path in (tmp_path / "text.h5", tmp_path / "network.h5"):
        before = path.read_bytes()
        with pytest.raises(OutputError, match="is there and is no recording of spikes, so it is not replaced"):
            SpikeRecorder(path, network, record=names(network)[:1], samples=1)
        assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["network.h5", "text.h5"]


def test_wrong_uses_are_refused(tmp_path: Path) -> None:
    network = networks.worked_example()
    spikes = {"a": np.zeros((3, 2, 2), np.uint8)}
    with pytest.raises(NetworkError, match='no population "c"'):
        SpikeRecorder(tmp_path / "a.h5", network, record=["c"], samples=1)
    with pytest.raises(InputError, match=r"a\.h5: no population to record; name some of \['a', 'b'\]"):
        SpikeRecorder(tmp_path / "a.h5", network, record=[], samples=1)
    with pytest.raises(OutputError, match=r"nowhere/a\.h5: cannot be written"):
        SpikeRecorder(tmp_path / "nowhere" / "a.h5", network, record=["a"], samples=1)
    with SpikeRecorder(tmp_path / "a.h5", network, record=["a"], samples=4) as recorder:
        recorder.add(0, spikes)
        with pytest.raises(InputError, match=r"from sample 0; expected .* from sample 2"):
            recorder.add(0, spikes)
        with pytest.raises(InputError, match=r"recording of \{'b': \(3, 2, 1\)\} from sample 2; expected \{'a': "):
            recorder.add(2, {"b": spikes["a"][..., :1]})
    recording = load_recording(tmp_path / "a.h5")
    assert (recording.samples, recording.planned) == (2, 4)
    with pytest.raises(InputError, match='no spikes of population "b"; there are: a'):
        recording.spikes("b")
    with pytest.raises(InputError, match="samples with step 2; expected a contiguous part"):
        recording.spikes("a", slice(0, 2, 2))


def test_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.worked_example()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    spikes = {"a": np.zeros((3, 2, 2), np.uint8)}
    recorder = SpikeRecorder(tmp_path / "a.h5", network, record=["a"], samples=4)
    with recorder:
        recorder.add(0, spikes)
        with monkeypatch.context() as patch:
            patch.setattr(h5py.Dataset, "resize", full)
            with pytest.raises(OutputError, match=r"a\.h5: cannot be written: No space left on device"):
                recorder.add(2, spikes)
    assert load_recording(tmp_path / "a.h5").samples == 2
    last = SpikeRecorder(tmp_path / "b.h5", network, record=["a"], samples=4)
    monkeypatch.setattr(h5py.Dataset, "resize", full)
    with pytest.raises(OutputError, match=r"b\.h5: cannot be written: No space left on device"), last:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def altered(path: Path, change: Callable[[Any], None]) -> Path:
    """A recording of three samples, changed."""
    network = networks.worked_example()
    with SpikeRecorder(path, network, record=["a", "b"], samples=3) as recorder:
        recorder.add(0, {"a": np.zeros((3, 3, 2), np.uint8), "b": np.zeros((3, 3, 1), np.uint8)})
    with h5py.File(path, "a") as file:
        change(file)
    return path


def cut_short(file: Any) -> None:
    for place in ("000", "001"):
        file[f"populations/{place}/spikes"].resize(2, axis=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.pop("format"), "not a recording of spikes"),
        (lambda f: f.attrs.update(version=2), "version 2 of the format; this program reads 1"),
        (lambda f: f.attrs.update(samples=-1), "attribute samples: found -1; allowed: an integer, at least 0"),
        (lambda f: f.attrs.pop("time_steps"), "attribute time_steps: found None"),
        (
            cut_short,
            r'2 fault\(s\).*\n.*000, "a" of shape \(2,\): spikes are uint8 \(2, 3, 1\); .* = \(3, 3, 1\)\n.*"b"',
        ),
        (lambda f: f["populations/000"].attrs.update(shape=[9]), r'"a" of shape \(9,\).* = \(3, 3, 2\)'),
        (lambda f: f["populations/001"].attrs.pop("name"), "/populations/001: name None.*one is missing"),
    ],
)
def test_contradicting_files_are_refused(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_recording(altered(tmp_path / "spikes.h5", change))


def test_what_is_no_hdf5_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("text")
    for name in ("text.h5", "absent.h5"):
        with pytest.raises(DatasetError, match=rf"{name}: cannot be read: .*record again"):
            load_recording(tmp_path / name)
