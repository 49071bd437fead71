"""The ways by which a network in integers runs: the same spikes, counts and rates, and the faster one is taken."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fsnn_lava.backends import BatchResult, BatchRunner, BatchWeights
from fsnn_lava.errors import StateOverflowError
from fsnn_lava.hardware import Array
from fsnn_lava.network import int8_fault
from fsnn_lava.network.dense_runs import int8_products
from fsnn_lava.training.integers import int8_run, measured_run
from fsnn_lava.training.integers.int8_run import Int8Runner
from fsnn_lava.training.integers.measured_run import AT_LEAST, CHANGE, EVENT, INT8, MeasuredRunner
from fsnn_lava.training.integers.network import BoundIntegers, codes_of
from integer_networks import EVENTS, GRADED, STEPS, Started, started, train_a_little

SAMPLES = 2
LONG = 60
SPIKING: dict[str, Any] = {"batch_norm": False, "pooling": "spiking"}
NETWORKS = {
    "20 (F20)": {},
    "12-10-8 (F12)": {},
    "12-10": {},
    "4C3s-P2 (F4C3)": {},
    "3C3-4C3s (F3C3u)": {},
    "3C3s-4C3u-3C5s (F3C3)": {"batch_norm": False},
    "3C3-P2-4C3 (F3C3u)": SPIKING,
    "3C3s-9": {"batch_norm": False},
}
needs_int8 = pytest.mark.skipif(bool(int8_fault()), reason=f"no products in 8 bits: {int8_fault()}")


def batch(case: Started, count: int = 6, *, steps: int = STEPS) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a run, in training."""
    train_a_little(case.model)
    x, _ = case.inputs(count)
    bound = case.model.train().bind_to(x)
    assert isinstance(bound, BoundIntegers)
    options = {"time_steps": steps, "threads": 1}
    return (codes_of(x, case.data.coding), bound.weights), options


def delay_of(case: Started) -> int:
    """Steps until a spike comes back."""
    return max(case.model.loop_delays, default=1)


def assert_same(found: BatchResult, expected: BatchResult) -> None:
    """Every number of two results."""
    for ours, theirs in (
        (found.counts, expected.counts),
        (found.rates, expected.rates),
        (found.spikes, expected.spikes),
    ):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert np.array_equal(ours[name], theirs[name]), name
    assert found.returned is not None and expected.returned is not None
    assert np.array_equal(found.returned, expected.returned)


@needs_int8
@pytest.mark.parametrize(
    ("coding", "leak", "bits"),
    [(GRADED, 1.0, 8), (GRADED, 0.9, 4), (EVENTS, 0.9, 8)],
    ids=["graded, IF", "graded, LIF, 4 bits", "events, LIF"],
)
@pytest.mark.parametrize("notation", NETWORKS)
def test_products_in_8_bits_give_what_events_give(
    notation: str, coding: Any, leak: float, bits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every spike, count, rate, and what came back; whole batches and a few samples at a time."""
    case = started(notation, leak=leak, coding=coding, v_threshold=1.0, bits=bits, **NETWORKS[notation])
    given, options = batch(case)
    network = case.model.integer_network()
    names = [p.name for p in network.populations]
    expected = BatchRunner(network, loop_delay=delay_of(case)).run(*given, **options, record=names)
    assert all(0.01 < spikes.mean() < 0.99 for spikes in expected.spikes.values())
    runner = Int8Runner(network, loop_delay=delay_of(case))
    assert_same(runner.run(*given, **options, record=names), expected)
    monkeypatch.setattr(int8_run, "TOGETHER", 4 * sum(p.size for p in network.populations))
    assert_same(runner.run(*given, **{**options, "threads": 3}, record=names), expected)


@needs_int8
@pytest.mark.parametrize("notation", ["12-10-8 (F12)", "3C3-4C3s (F3C3u)"])
def test_sums_with_a_negative_exponent_are_rounded_down_alike(notation: str) -> None:
    """An eighth of every sum of spikes, which changes what the network does."""
    case = started(notation, v_threshold=1.0)
    given, options = batch(case)
    network, delay = case.model.integer_network(), delay_of(case)
    names = [p.name for p in network.populations]
    finer = tuple(replace(c, weight_exponent=-3) if c.source in names else c for c in network.connections)
    scaled = replace(network, connections=finer)
    expected = BatchRunner(scaled, loop_delay=delay).run(*given, **options, record=names)
    assert_same(Int8Runner(scaled, loop_delay=delay).run(*given, **options, record=names), expected)
    before = BatchRunner(network, loop_delay=delay).run(*given, **options)
    assert not np.array_equal(before.counts[names[1]], expected.counts[names[1]])
    assert 0.01 < expected.spikes[names[1]].mean() < 0.99


@needs_int8
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_nothing_comes_back_in_a_window_of_one_loop(steps: int) -> None:
    case = started("12-10-8 (F12)", v_threshold=1.0)
    given, options = batch(case, steps=steps)
    network, delay = case.model.integer_network(), delay_of(case)
    expected = BatchRunner(network, loop_delay=delay).run(*given, **options)
    assert expected.returned is not None
    assert bool(expected.returned.any()) == (steps > delay)
    assert_same(Int8Runner(network, loop_delay=delay).run(*given, **options), expected)


@needs_int8
@pytest.mark.parametrize("skips", [(), (9, 14, 19, 24, 29, 34, 39)], ids=["chain", "and around it"])
@pytest.mark.parametrize("notation", ["12-10-8 (F12)", "12-10-8-9-7"])
def test_spikes_are_kept_as_long_as_they_are_needed(notation: str, skips: tuple[int, ...]) -> None:
    """In long windows of which nothing is recorded; connections around the chain make its end fall back."""
    case = started(notation, v_threshold=1.0, steps=LONG)
    (codes, weights), options = batch(case, steps=LONG)
    network, delay = case.model.integer_network(), delay_of(case)
    first, *_, before, last = network.populations
    like = next(c for c in network.connections if c.source == before.name)
    rng = np.random.default_rng(0)
    around = [
        replace(
            like,
            name=f"skip{later}",
            source=first.name,
            weight=rng.integers(-3, 4, (last.size, first.size)).astype(like.weight.dtype),
            delay=like.delay + later,
        )
        for later in skips
    ]
    network = replace(network, connections=(*network.connections, *around))
    given = weights._replace(
        mantissas={**weights.mantissas, **{c.name: c.weight for c in around}},
        largest={**weights.largest, **{c.name: 3 * first.size for c in around}},
    )
    expected = BatchRunner(network, loop_delay=delay).run(codes, given, **options)
    assert all(0.005 < counts.mean() / LONG < 0.99 for counts in expected.counts.values())
    assert_same(Int8Runner(network, loop_delay=delay).run(codes, given, **options), expected)


@needs_int8
@pytest.mark.parametrize("notation", ["20 (F20)", "4C3s (F4C3)"])
def test_an_overflow_is_named_alike(notation: str) -> None:
    """Constant currents that no proof allows, into the last neuron alone."""
    case = started(notation, v_threshold=1.0)
    (codes, weights), options = batch(case, 1)
    network, delay = case.model.integer_network(), delay_of(case)
    planted = {name: current.copy() for name, current in weights.constants.items()}
    planted["population1"][-1] = 2**15
    messages = []
    for runner in (BatchRunner(network, loop_delay=delay), Int8Runner(network, loop_delay=delay)):
        with pytest.raises(StateOverflowError) as caught:
            runner.run(codes, weights._replace(constants=planted), **options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert f"neuron {len(planted['population1']) - 1}:" in messages[0]


def test_products_that_are_wrong_or_missing_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    if not int8_fault():
        whole = int8_products.int8_sums
        monkeypatch.setattr(
            int8_products, "int8_sums", lambda *of: lambda spikes: whole(*of)(spikes).clamp(max=2**15 - 1)
        )
        assert int8_products.int8_fault.__wrapped__() == "its sums of Dense connections are wrong"

    def missing(*_: Any) -> Any:
        raise RuntimeError("no such operator\nat all")

    monkeypatch.setattr(int8_products, "int8_sums", missing)
    found = int8_products.int8_fault.__wrapped__()
    assert found == f"torch {torch.__version__} has no such products here: no such operator"
    monkeypatch.setattr(measured_run, "int8_fault", lambda: found)
    case = started("20 (F20)", v_threshold=1.0)
    given, options = batch(case)
    runner = MeasuredRunner(case.model.integer_network(), loop_delay=1)
    runner.run(*given, **options)
    assert list(runner.choices[STEPS, 6].seconds) == [EVENT]


# ---- the choice ------------------------------------------------------------------------------------------------------


class Scripted:
    """A way that takes as long as it is told, and gives so many spikes."""

    def __init__(self, clock: "Clock", seconds: float) -> None:
        self.clock, self.seconds, self.spikes, self.runs = clock, seconds, 10, 0

    def run(self, inputs: Array, weights: Any, **_: Any) -> BatchResult:
        self.clock.now += self.seconds
        self.runs += 1
        return BatchResult({"p": np.full((2, 10), self.spikes)}, {}, {})


class Clock:
    """Time that only runs make pass."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def scripted(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> tuple[MeasuredRunner, Mapping[str, Scripted]]:
    """A runner with such ways, on a clock that they alone move."""
    clock = Clock()
    monkeypatch.setattr(measured_run, "time", clock)
    ways = {name: Scripted(clock, value) for name, value in seconds.items()}
    network = started("20 (F20)").model.integer_network()
    return MeasuredRunner(network, loop_delay=1, ways=ways), ways


def run(runner: MeasuredRunner, times: int, *, steps: int = 100, samples: int = SAMPLES) -> None:
    """So many batches."""
    for _ in range(times):
        runner.run(np.zeros((samples, 1, 8, 8)), BatchWeights({}, {}, {}), time_steps=steps, threads=1)


@pytest.mark.parametrize(("event", "int8", "fastest"), [(1.0, 1.5, EVENT), (1.5, 1.0, INT8)])
def test_the_faster_way_runs(event: float, int8: float, fastest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, ways = scripted(monkeypatch, event=event, int8=int8)
    run(runner, 11)
    assert {name: way.runs for name, way in ways.items()} == {EVENT: 2, INT8: 2, fastest: 12}
    assert runner.choices[100, SAMPLES].seconds == {EVENT: event, INT8: int8}
    assert runner.choices[100, SAMPLES].firing == 0.1


def test_what_a_first_run_makes_ready_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, ways = scripted(monkeypatch, event=1.0, int8=0.5)
    run_once, started = ways[INT8].run, []

    def slow_at_first(*given: Any, **more: Any) -> BatchResult:
        ways[INT8].clock.now += 0.0 if started else 99.0
        started.append(True)
        return run_once(*given, **more)

    monkeypatch.setattr(ways[INT8], "run", slow_at_first)
    run(runner, 1)
    assert runner.choices[100, SAMPLES].seconds == {EVENT: 1.0, INT8: 0.5}


@pytest.mark.parametrize("factor", [1.01 * CHANGE, 0.99 / CHANGE, 0.0])
def test_other_firing_is_measured_again(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not before a number of batches, and not for less."""
    runner, ways = scripted(monkeypatch, event=1.0, int8=1.5)
    for way in ways.values():
        way.spikes = 1000
    run(runner, 1)
    ways[EVENT].seconds = 3.0
    for way in ways.values():
        way.spikes = int(1000 * factor)
    run(runner, AT_LEAST - 1)
    assert ways[INT8].runs == 2
    run(runner, 1)
    assert (ways[INT8].runs, runner.choices[100, SAMPLES].fastest) == (3, INT8)


def test_firing_that_hardly_changes_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, ways = scripted(monkeypatch, event=1.0, int8=1.5)
    run(runner, 1)
    for spikes in itertools.islice(itertools.cycle((9, 12)), 2 * AT_LEAST):
        ways[EVENT].spikes = spikes
        run(runner, 1)
    assert ways[INT8].runs == 2


def test_it_is_measured_again_after_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first measurement may have been disturbed."""
    monkeypatch.setattr(measured_run, "OFTEN", 2 * AT_LEAST)
    runner, ways = scripted(monkeypatch, event=1.0, int8=1.5)
    run(runner, 1)
    ways[INT8].seconds = 0.5
    run(runner, 2 * AT_LEAST - 1)
    assert runner.choices[100, SAMPLES].fastest == EVENT
    run(runner, 1)
    assert runner.choices[100, SAMPLES].fastest == INT8


def test_batches_of_another_size_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, ways = scripted(monkeypatch, event=1.0, int8=1.5)
    run(runner, 1)
    ways[EVENT].seconds = 2.0
    run(runner, 1, samples=1)
    assert {key: choice.fastest for key, choice in runner.choices.items()} == {(100, 2): EVENT, (100, 1): INT8}


def test_a_training_tells_of_its_own_batches() -> None:
    """Of the T and size that most of them had since it was asked last, not of a test's."""
    case = started("20 (F20)", v_threshold=1.0)
    assert case.model.run_seconds() == {}

    def simulated(count: int, steps: int) -> Any:
        x, _ = case.inputs(count)
        bound = case.model.bind_to(x)
        bound.simulate(bound.drive(x, time_steps=steps), time_steps=steps)
        return case.model._runner.choices[steps, count].seconds  # type: ignore[union-attr]

    case.model.train()
    simulated(6, 5)
    expected = [simulated(4, 3) for _ in range(2)][-1]
    case.model.eval()
    for _ in range(5):
        simulated(4, STEPS)
    assert case.model.run_seconds() is expected
    assert case.model.run_seconds() == {}


def test_each_number_of_steps_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, ways = scripted(monkeypatch, event=1.0, int8=1.5)
    run(runner, 1)
    ways[EVENT].seconds = 2.0
    run(runner, 1, steps=50)
    assert {steps: choice.fastest for steps, choice in runner.choices.items()} == {
        (100, SAMPLES): EVENT,
        (50, SAMPLES): INT8,
    }


def test_ways_that_differ_are_our_own_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, ways = scripted(monkeypatch, event=1.0, int8=1.5)
    ways[INT8].spikes = 11
    with pytest.raises(AssertionError, match="int8: other spikes"):
        run(runner, 1)
