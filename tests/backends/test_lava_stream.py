"""Samples streaming through Lava: bounded memory, slots in turn, sinks, and results added up one by one."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from fsnn_lava.backends.finished_samples import FinishedSamples
from fsnn_lava.backends.lava import runner as lava_runner
from fsnn_lava.backends.lava.lava_format import from_lava, lava_order, lava_shape, to_lava
from fsnn_lava.backends.lava.runner import LavaRunner, Stream
from fsnn_lava.backends.lava.sample_ring import RING_BYTES, GraphJob, SampleRing
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import IntegerNeuron
from fsnn_lava.hardware.run_io import rates_from_spikes
from random_networks import random_case
from side_by_side import run_side_by_side

SHAPE = (2, 3, 4)


def network(kind: Any = "event", *, time_steps: int = 3, start: int = 2) -> HardwareNetwork:
    """One population of shape (2, 3, 4) and one of 5, LIF and IF; nothing connects them."""
    lif, neuron = IntegerNeuron(9, 9, 0, 819, 1.0), IntegerNeuron(9, 9, 0, 0, 1.0)
    populations = (Population("a", SHAPE, lif, start), Population("b", (5,), neuron, 1))
    readout = Readout("b", np.ones((2, 5)), np.zeros(2))
    spec = InputSpec((2, 2, 3), kind, 1 if kind == "event" else 300)
    return HardwareNetwork("streamed", spec, populations, (), readout, time_steps)


@pytest.fixture
def rings() -> Iterator[list[SampleRing]]:
    made: list[SampleRing] = []
    yield made
    for ring in made:
        ring.close()


def test_lava_order_has_the_channels_last() -> None:
    values = np.arange(24).reshape(SHAPE)
    assert lava_shape(SHAPE) == (4, 3, 2)
    image = to_lava(values, SHAPE).reshape(lava_shape(SHAPE))
    assert all(image[x, y, c] == values[c, y, x] for c, y, x in np.ndindex(SHAPE))
    assert np.array_equal(lava_order(SHAPE), to_lava(values, SHAPE))
    assert np.array_equal(lava_order((5,)), np.arange(5))


@pytest.mark.parametrize("shape", [(7,), SHAPE, (3, 4)])
def test_layouts_are_inverse_of_each_other(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 9, (6, 2, *shape))
    back = from_lava(to_lava(values, shape), shape)
    assert np.array_equal(back, values)
    assert back.flags.c_contiguous


def test_memory_does_not_grow_with_the_batch(rings: list[SampleRing]) -> None:
    net = network(time_steps=30)
    sizes = {}
    for samples in (1, 2, 10_000, 10_000_000):
        ring = SampleRing(GraphJob((net,), (samples,)))
        rings.append(ring)
        arrays = [*ring.inputs.values(), *ring.spikes.values()]
        sizes[samples] = sum(a.nbytes for a in arrays)
        assert {len(a) for a in arrays} == {ring.slots}
    assert [ring.slots for ring in rings[:2]] == [1, 2]
    assert 0.9 * RING_BYTES < sizes[10_000_000] <= RING_BYTES
    tight = SampleRing(GraphJob((net,), (100,), ring_bytes=1))
    rings.append(tight)
    assert tight.slots == 2


def test_both_ends_see_the_same_memory(rings: list[SampleRing]) -> None:
    job = GraphJob((network(), network("graded")), (7, 3), ring_bytes=1)
    here = SampleRing(job)
    rings.append(here)
    there = SampleRing(job, here.descriptor)
    rng = np.random.default_rng(1)
    codes, events = rng.integers(0, 301, (3, 2, 2, 3)), rng.integers(0, 2, (3, 7, 2, 2, 3))
    here.write_input(0, job.networks[0], sample=5, inputs=events)
    here.write_input(1, job.networks[1], sample=2, inputs=codes)
    assert np.array_equal(there.inputs[0][1], to_lava(events[:, 5], (2, 2, 3)))
    assert np.array_equal(there.inputs[1][0], to_lava(codes[2:3], (2, 2, 3)))
    here.write_input(1, job.networks[1], sample=6, inputs=codes)  # beyond its batch
    assert not here.inputs[1][0].any()
    spikes, flat = rng.integers(0, 2, (3, *SHAPE)), rng.integers(0, 2, (3, 5))
    there.spikes[0, "a"][1], there.spikes[0, "b"][1] = to_lava(spikes, SHAPE), flat
    found = here.read_spikes(0, job.networks[0], sample=3)
    there.spikes[0, "a"][1] = there.spikes[0, "b"][1] = 0
    assert np.array_equal(found["a"], spikes)  # copies
    assert np.array_equal(found["b"], flat)
    there.clocks[-1] = 9
    assert here.clocks.tolist() == [0, 0, 0, 9]


def test_a_sample_begins_when_its_slot_is_free(rings: list[SampleRing]) -> None:
    """Played by hand: five samples through two slots, three steps and two of them before the first window."""
    net = network()
    events = np.random.default_rng(2).integers(0, 2, (3, 5, 2, 2, 3))
    spikes = np.random.default_rng(3).integers(0, 2, (5, 3, *SHAPE)).astype(np.uint8)
    told: list[tuple[int, int]] = []
    done = FinishedSamples("lava", net, samples=5, record=["a"])
    job = GraphJob((net,), (5,), ring_bytes=1)
    assert (job.sample_steps, job.steps) == (5, 25)
    stream = Stream(job, (events,), (done,), progress=lambda *n: told.append(n))
    rings.append(stream.ring)
    for sample in range(5):
        assert stream.ring.ready[0] == min(sample + 2, 5)
        assert np.array_equal(stream.ring.inputs[0][sample % 2], to_lava(events[:, sample], (2, 2, 3)))
        assert stream.on_message(("step", 5 * sample + 4)) is False
        assert done.finished == sample
        stream.ring.spikes[0, "a"][sample % 2] = to_lava(spikes[sample], SHAPE)
        stream.on_message(("step", 5 * sample + 5))
        assert done.finished == sample + 1
    assert stream.on_message(("done", None)) is True
    stream.require_success()
    assert told == [(n, 5) for n in range(1, 6)]
    assert np.array_equal(done.result().spikes["a"], spikes.swapaxes(0, 1))


def test_finished_samples_add_up() -> None:
    net = network()
    spikes = {"a": np.random.default_rng(4).integers(0, 2, (3, 6, *SHAPE)).astype(np.uint8)}
    spikes["b"] = np.random.default_rng(5).integers(0, 2, (3, 6, 5)).astype(np.uint8)
    handed: list[tuple[int, Mapping[str, Array]]] = []
    kept = FinishedSamples("x", net, samples=6, record=["b"])
    sunk = FinishedSamples("x", net, samples=6, record=["b"], sink=lambda *args: handed.append(args))
    silent = FinishedSamples("x", net, samples=6, record=[], sink=lambda *args: handed.append(args))
    for b in range(4):
        for finished in (kept, sunk, silent):
            finished.add({name: s[:, b] for name, s in spikes.items()}, None)
    for result in (kept.result(), sunk.result()):
        for p in net.populations:
            some = spikes[p.name][:, :4]
            assert np.array_equal(result.spike_counts[p.name], some.sum(axis=0))
            # atol: the sum of three products in another order
            expected = rates_from_spikes(some, p.neuron.leak)
            np.testing.assert_allclose(result.firing_rates[p.name], expected, rtol=0, atol=1e-15)
        assert np.array_equal(result.logits, np.repeat(result.firing_rates["b"].sum(axis=1)[:, None], 2, axis=1))
    assert np.array_equal(kept.result().spikes["b"], spikes["b"][:, :4])
    assert sunk.result().spikes == {}
    assert [first for first, _ in handed] == [0, 1, 2, 3]
    assert np.array_equal(np.concatenate([s["b"] for _, s in handed], axis=1), spikes["b"][:, :4])


class Counted:
    """A number in shared memory that grows whenever somebody looks at it."""

    def __init__(self) -> None:
        self.value = 0

    def __getitem__(self, index: int) -> int:
        self.value += 1
        return self.value


class Silent:
    """A port."""

    def recv(self) -> Array:
        return np.array([1, 0])

    def send(self, data: Array) -> None: ...


@pytest.mark.lava
def test_a_recorder_holds_the_run_up_until_the_next_sample_may_begin() -> None:
    """Samples of three steps; after the last step of sample b, ready must be more than b + 1, but at the very end."""
    host = pytest.importorskip("fsnn_lava.backends.lava.models.host_processes", reason="Lava is not installed")
    ready, spikes, clock = Counted(), np.zeros((2, 2, 2), np.uint8), np.zeros(1, np.int64)
    model = host.HostRecorderFixed(
        {"spikes": spikes, "start": 1, "sample_steps": 3, "samples": 6, "clock": clock, "ready": ready}
    )
    model.a_in = model.joint_in = model.joint_out = Silent()
    seen = []
    for step in range(1, 19):
        model.time_step = step
        model.run_spk()
        assert clock[0] == step
        seen.append(ready.value)
    assert seen == [0, 0, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 6]
    assert spikes.tolist() == [[[1, 0], [1, 0]]] * 2


@pytest.mark.lava
@pytest.mark.parametrize("stock", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_many_samples_through_two_slots(monkeypatch: pytest.MonkeyPatch, stock: bool) -> None:
    """Graded and event input, batches of different length; the two samples of each case take turns."""
    cases = [random_case(seed) for seed in (0, 1, 2)]
    assert {c.network.input.kind for c in cases} == {"graded", "event"}
    lengths = (5, 7, 3)
    inputs = []
    for case, length in zip(cases, lengths, strict=True):
        axis = 1 if case.network.input.kind == "event" else 0
        inputs.append(np.take(case.inputs, np.arange(length) % 2, axis=axis))
    monkeypatch.setattr(lava_runner, "RING_BYTES", 1)
    results = run_side_by_side(LavaRunner(stock_models=stock), [c.network for c in cases], inputs)
    for case, length, result in zip(cases, lengths, results, strict=True):
        for name, spikes in case.spikes.items():
            assert np.array_equal(result.spikes[name], np.take(spikes, np.arange(length) % 2, axis=1))


@pytest.mark.lava
def test_a_sink_takes_the_spikes_and_progress_counts_samples() -> None:
    case = random_case(3)
    names = [p.name for p in case.network.populations]
    handed: list[tuple[int, Mapping[str, Array]]] = []
    told: list[tuple[int, int]] = []
    result = LavaRunner().run(
        case.network,
        case.inputs,
        record=names,
        sink=lambda first, spikes: handed.append((first, spikes)),
        progress=lambda done, total: told.append((done, total)),
    )
    assert result.spikes == {}
    assert [first for first, _ in handed] == [0, 1]
    for name in names:
        assert np.array_equal(np.concatenate([s[name] for _, s in handed], axis=1), case.spikes[name])
        assert np.array_equal(result.spike_counts[name], case.spikes[name].sum(axis=0))
    assert told == [(1, 2), (2, 2)]
