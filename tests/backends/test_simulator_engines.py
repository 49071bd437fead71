"""Both engines on every geometry, the choice between them, and how a run is cut, kept, handed on and interrupted."""

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest

from fsnn_lava.backends.simulator import (
    FloatSimulator,
    IntegerSimulator,
    event_engine as event_engine_module,
    run as engine_module,
)
from fsnn_lava.backends.simulator.dense_engine import DenseEngine
from fsnn_lava.backends.simulator.event_engine import PARTS_PER_CORE, EventEngine, usable_cores
from fsnn_lava.errors import ConfigError, IncompleteRunError, StateOverflowError
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.linear_maps import LinearMap, linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron
from fsnn_lava.hardware.run_io import RatesOfCounts, RunResult, rates_from_spikes
from random_networks import random_case
from simulated import float_twin, names, same_run

RANDOM_NETWORKS = 60
ENGINES: tuple[Literal["event", "dense"], ...] = ("event", "dense")


def image_chain(*, decay: int = 0, event: bool = False, time_steps: int = 12, start: int = 1) -> HardwareNetwork:
    """Strided, plain and transposed convolutions in a ring, a dense shortcut and a recurrent connection."""
    rng = np.random.default_rng(5)

    def weight(*shape: int) -> Array:
        return rng.integers(-30, 45, shape).astype(np.int32)

    neuron = IntegerNeuron(150, 150, 0, decay, 1.0)
    populations = (
        Population("a", (5, 6, 6), neuron, start),
        Population("b", (4, 3, 3), neuron, start + 1),
        Population("c", (7,), neuron, start + 2),
    )
    on = np.full((180, 1), -5, np.int32)
    connections = (
        Connection("in", INPUT, "a", weight(5, 2, 4, 4), start, 0 if event else -6, 8, Convolution(2, 1)),
        Connection("on", ALWAYS_ON, "a", on, 0, 0, 8),
        Connection("down", "a", "b", weight(4, 5, 3, 3), 1, 0, 8, Convolution(2, 1)),
        Connection("recurrent", "b", "b", weight(4, 4, 3, 3), 3, 0, 8, Convolution(1, 1)),
        Connection("flat", "b", "c", weight(7, 36), 1, 0, 8, DENSE),
        Connection("back", "b", "a", weight(4, 5, 3, 3), 1, 1, 8, TransposedConvolution(2, 1, 1)),
        Connection("short", "c", "a", weight(180, 7), 2, 0, 8, DENSE),
    )
    spec = InputSpec((2, 12, 12), "event" if event else "graded", 1 if event else 255)
    readout = Readout("b", rng.normal(size=(3, 36)), np.zeros(3))
    return HardwareNetwork("images", spec, populations, connections, readout, time_steps)


def image_inputs(network: HardwareNetwork, samples: int) -> Array:
    rng = np.random.default_rng(2)
    shape = ((network.time_steps,) if network.input.kind == "event" else ()) + (samples, *network.input.shape)
    return rng.integers(0, network.input.maximum + 1, shape) * (rng.random(shape) < 0.3)


def unrolled(network: HardwareNetwork) -> HardwareNetwork:
    """The same network with a matrix for every kernel."""
    return dataclasses.replace(
        network,
        connections=tuple(
            dataclasses.replace(
                c, weight=linear_map(network, c).unrolled().toarray().astype(c.weight.dtype), geometry=DENSE
            )
            for c in network.connections
        ),
    )


# ---- every geometry -------------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ENGINES)
def test_every_spike_of_random_networks_is_the_references(engine: Literal["event", "dense"]) -> None:
    """Convolutions of every kind, mixed with dense connections, any delays; equal at every step and neuron."""
    compared = lively = 0
    for seed in range(RANDOM_NETWORKS):
        case = random_case(seed, lava=False)
        found = IntegerSimulator(engine=engine).run(case.network, case.inputs, record=names(case.network))
        for p in case.network.populations:
            expected = case.spikes[p.name]
            assert np.array_equal(found.spikes[p.name], expected), f"seed {seed}, {p.name}"
            assert np.array_equal(found.spike_counts[p.name], expected.sum(axis=0)), f"seed {seed}, {p.name}"
            # The weighted mean is the same sum in another order.
            np.testing.assert_allclose(
                found.firing_rates[p.name], rates_from_spikes(expected, p.neuron.leak), rtol=0, atol=1e-14
            )
            compared += 1
            lively += 0 < expected.mean() < 1
    assert lively > compared / 2, "too many populations are silent or saturated: the test has lost its meaning"


@pytest.mark.parametrize("event", [False, True])
@pytest.mark.parametrize("decay", [0, 205])
def test_engines_and_unrolled_kernels_give_the_same_run(decay: int, event: bool) -> None:
    network = image_chain(decay=decay, event=event)
    samples = 3 * PARTS_PER_CORE * usable_cores()  # each part of a batch has three
    inputs = image_inputs(network, samples)
    runs = [
        IntegerSimulator(engine=engine, batch_size=size).run(n, inputs, record=names(network))
        for n in (network, unrolled(network))
        for engine in ENGINES
        for size in (samples // 2 + 1, None)
    ]
    assert all(0.02 < float(s.mean()) < 0.98 for s in runs[0].spikes.values()), "silent or saturated"
    assert all(same_run(runs[0], run) for run in runs[1:])


@pytest.mark.parametrize("engine", ENGINES)
def test_float_run_of_whole_numbers_is_the_integer_run(engine: Literal["event", "dense"]) -> None:
    """Without leak and rounding shifts both laws are the same arithmetic on integers, so nothing may differ."""
    network = image_chain(event=True)
    inputs = image_inputs(network, 3)
    integer = IntegerSimulator().run(network, inputs, record=names(network))
    assert same_run(integer, FloatSimulator(engine=engine).run(float_twin(network), inputs, record=names(network)))


def test_float_engines_differ_by_the_order_of_sums_alone() -> None:
    """LIF with random weights: no potential comes within 1e-12 of the threshold here, so no spike may differ."""
    rng = np.random.default_rng(3)
    network = image_chain()
    network = dataclasses.replace(
        network,
        populations=tuple(dataclasses.replace(p, neuron=FloatNeuron(1.0, 2.0, 0.95)) for p in network.populations),
        connections=tuple(
            dataclasses.replace(
                c, weight=rng.normal(0.01, 0.15, c.weight.shape) * (0.01 if c.source == INPUT else 1),
                weight_exponent=0, weight_bits=0,
            )
            for c in network.connections
        ),
    )  # fmt: skip
    inputs = image_inputs(network, 4)
    event, dense = (FloatSimulator(engine=e).run(network, inputs, record=names(network)) for e in ENGINES)
    for name in names(network):
        assert 0.02 < float(event.spikes[name].mean()) < 0.98
        assert np.array_equal(event.spikes[name], dense.spikes[name])


@pytest.mark.parametrize("engine", ENGINES)
def test_overflow_names_the_neuron_of_an_image(engine: Literal["event", "dense"]) -> None:
    """One pixel of (2, 3, 4) is bright; its neuron, flat in C order, is channel 1, row 2, column 1: 21."""
    population = Population("p", (2, 3, 4), IntegerNeuron(65536, 255, 7, 0, 1.0))
    weight = np.zeros((2, 2, 1, 1), np.int32)
    weight[0, 0] = weight[1, 1] = -127
    connection = Connection("in", INPUT, "p", weight, 0, 0, 8, Convolution())
    readout = Readout("p", np.ones((1, 24)), np.zeros(1))
    spec = InputSpec((2, 3, 4), "graded", 255)
    network = HardwareNetwork("wide", spec, (population,), (connection,), readout, 9)
    inputs = np.zeros((4, 2, 3, 4), int)
    inputs[2, 1, 2, 1] = 100
    message = r'"wide", population "p", sample 2, step 5, neuron 21: potential -9753600 .*allowed: -8388607 .. 8388607'
    with pytest.raises(StateOverflowError, match=message):
        IntegerSimulator(engine=engine, batch_size=3).run(network, inputs)


def test_sums_that_need_more_than_16_bits_are_exact() -> None:
    """300 neurons that always fire, through 127, are 38100 weight units, above the threshold; in 16 bits -27436."""
    source = Population("s", (300,), IntegerNeuron(1, 1, 0, 0, 1.0))
    target = Population("p", (1,), IntegerNeuron(38100, 255, 7, 0, 1.0))
    connections = (
        Connection("on", ALWAYS_ON, "s", np.ones((300, 1), np.int32), 0, 0, 8),
        Connection("sum", "s", "p", np.full((1, 300), 127, np.int32), 0, 0, 8),
    )
    spec, readout = InputSpec((1,), "graded", 255), Readout("p", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("wide", spec, (source, target), connections, readout, 1)
    result = IntegerSimulator(engine="event").run(network, np.zeros((1, 1), int), record=["p"])
    assert result.spikes["p"].ravel().tolist() == [1]


@pytest.mark.parametrize("wide", ["all", "some"])
def test_wide_sums_begin_from_zero_in_every_step(wide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks have narrow sums, so wide ones are ordered here."""

    def ordered(linear_map: LinearMap) -> type:
        return np.int32 if wide == "all" or len(linear_map.target) == 3 else np.int16

    network = image_chain(event=True)
    inputs = image_inputs(network, 3)
    monkeypatch.setattr(event_engine_module, "sum_dtype", ordered)
    event, dense = (IntegerSimulator(engine=e).run(network, inputs, record=names(network)) for e in ENGINES)
    assert same_run(event, dense)


# ---- the choice of the engine ---------------------------------------------------------------------------
class Used:
    """Which engine ran how many samples."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[tuple[str, int]] = []
        for made, name in ((EventEngine, "event"), (DenseEngine, "dense")):
            monkeypatch.setattr(made, "run", self._counted(made.run, name))

    def _counted(self, run: Any, name: str) -> Any:
        def counted(engine: Any, inputs: Array, **options: Any) -> Any:
            self.batches.append((name, len(inputs)))
            return run(engine, inputs, **options)

        return counted


def driven(constant: int) -> HardwareNetwork:
    """300 neurons, fully connected among themselves with weights of 0: only the constant makes them fire."""
    neuron = IntegerNeuron(100, 100, 0, 0, 1.0)
    connections = (
        Connection("on", ALWAYS_ON, "p", np.full((300, 1), constant, np.int32), 0, 0, 8),
        Connection("loop", "p", "p", np.zeros((300, 300), np.int32), 1, 0, 8),
    )
    spec, readout = InputSpec((1,), "graded", 255), Readout("p", np.ones((1, 300)), np.zeros(1))
    return HardwareNetwork("driven", spec, (Population("p", (300,), neuron),), connections, readout, 20)


@pytest.mark.parametrize(("constant", "chosen"), [(0, "event"), (10, "event"), (90, "dense")])
def test_few_spikes_run_event_by_event_and_many_densely(
    constant: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0, 0.1 and 0.9 spikes per step. The first 32 samples run event by event in any case, and they decide."""
    used = Used(monkeypatch)
    result = IntegerSimulator(batch_size=50).run(driven(constant), np.zeros((100, 1), int))
    assert used.batches == [("event", 32), (chosen, 50), (chosen, 18)]
    assert result.spike_counts["p"].mean() == constant * 20 // 100


def test_events_count_as_firing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = driven(0)
    spec = InputSpec((300,), "event", 1)
    connections = (dataclasses.replace(network.connections[1], source=INPUT),)
    network = dataclasses.replace(network, input=spec, connections=connections)
    for frames, chosen in ((np.zeros((20, 40, 300), int), "event"), (np.ones((20, 40, 300), int), "dense")):
        used = Used(monkeypatch)
        IntegerSimulator().run(network, frames)
        assert [name for name, _ in used.batches] == ["event", chosen]


def test_network_without_spiking_connections_runs_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    network = driven(10)
    used = Used(monkeypatch)
    IntegerSimulator().run(dataclasses.replace(network, connections=network.connections[:1]), np.zeros((3, 1), int))
    assert used.batches == [("dense", 3)]


@pytest.mark.parametrize("engine", ENGINES)
def test_batches_fill_the_budget(engine: Literal["event", "dense"], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the budget allows a fifth of the samples; one sample always runs."""
    network, inputs = image_chain(), image_inputs(image_chain(), 12)
    sizes = []
    for budget in (100_000, 20_000, 1):
        used = Used(monkeypatch)
        monkeypatch.setattr(engine_module, "BATCH_BYTES", budget)
        IntegerSimulator(engine=engine).run(network, inputs)
        sizes.append(used.batches[0][1])
    assert 1 <= sizes[1] <= sizes[0] / 4 <= 3
    assert sizes[2] == 1


@pytest.mark.parametrize("simulator", [IntegerSimulator, FloatSimulator])
def test_settings_that_mean_nothing_are_refused(simulator: Any) -> None:
    network = image_chain() if simulator is IntegerSimulator else float_twin(image_chain())
    inputs = image_inputs(network, 1)
    with pytest.raises(ConfigError, match='engine "fast"; expected one of auto, event, dense'):
        simulator(engine="fast").run(network, inputs)
    with pytest.raises(ConfigError, match=r"keep names \['d'\]; the populations are a, b, c"):
        simulator(keep=("a", "d")).run(network, inputs)
    with pytest.raises(ConfigError, match="batch_size -1; expected at least 1"):
        simulator(batch_size=-1).run(network, inputs)


# ---- what is kept, handed on, and left after an interruption ---------------------------------------------
@pytest.mark.parametrize("decay", [0, 205])
def test_rates_and_counts_are_kept_of_the_populations_asked_for(decay: int) -> None:
    network = image_chain(decay=decay)
    inputs = image_inputs(network, 3)
    everything = IntegerSimulator().run(network, inputs)
    for keep, expected in (((), {"b"}), (("c",), {"b", "c"})):
        found = IntegerSimulator(keep=keep).run(network, inputs)
        assert set(found.firing_rates) == set(found.spike_counts) == expected
        assert np.array_equal(found.logits, everything.logits)
        for name in expected:
            assert np.array_equal(found.firing_rates[name], everything.firing_rates[name])
            assert np.array_equal(found.spike_counts[name], everything.spike_counts[name])


def test_rates_of_counts_are_divided_when_asked_for() -> None:
    counts = {"a": np.array([[0, 3]], np.int16), "b": np.array([[2, 2]], np.int16)}
    rates = RatesOfCounts(counts, 4, weighted={"b": np.array([[0.3, 0.1]])})
    assert dict(rates).keys() == {"a", "b"}
    assert len(rates) == 2
    assert rates["a"].tolist() == [[0, 0.75]]
    assert rates["a"].dtype == np.float64
    assert rates["b"].tolist() == [[0.3, 0.1]]
    with pytest.raises(KeyError):
        rates["c"]


@pytest.mark.parametrize("engine", ENGINES)
def test_sink_is_given_every_batch_in_order(engine: Literal["event", "dense"]) -> None:
    network = image_chain(event=True)
    inputs = image_inputs(network, 5)
    expected = IntegerSimulator().run(network, inputs, record=["c", "a"])
    firsts: list[int] = []
    parts: list[dict[str, Array]] = []

    def sink(first: int, spikes: Any) -> None:
        firsts.append(first)
        parts.append(dict(spikes))

    result = IntegerSimulator(engine=engine, batch_size=2).run(network, inputs, record=["c", "a"], sink=sink)
    assert firsts == [0, 2, 4]
    assert result.spikes == {}
    assert np.array_equal(result.logits, expected.logits)
    for name in ("a", "c"):
        together = np.concatenate([part[name] for part in parts], axis=1)
        assert together.dtype == np.uint8
        assert np.array_equal(together, expected.spikes[name])
    assert all(part.keys() == {"a", "c"} for part in parts)


@pytest.mark.parametrize("engine", ENGINES)
def test_interrupted_run_keeps_what_is_finished(engine: Literal["event", "dense"]) -> None:
    network = image_chain(decay=205)
    inputs = image_inputs(network, 7)

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    message = r'backend "simulator", network "images": interrupted when 4 of 7 samples were finished; .* the next 2 '
    with pytest.raises(IncompleteRunError, match=message) as error:
        IntegerSimulator(engine=engine, batch_size=2).run(network, inputs, record=["a"], progress=interrupt)
    assert isinstance(error.value.__cause__, KeyboardInterrupt)
    assert error.value.samples == 4
    assert isinstance(error.value.result, RunResult)
    assert same_run(error.value.result, IntegerSimulator().run(network, inputs[:4], record=["a"]))


@pytest.mark.parametrize(("call", "samples"), [(1, 0), (5, 4)])
def test_interruption_within_a_batch_keeps_the_batches_before(
    call: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch, or the second one, is interrupted while its parts run."""
    network, inputs = image_chain(), image_inputs(image_chain(), 7)
    run_part, calls = EventEngine._run_part, 0

    def interrupted(engine: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise KeyboardInterrupt
        return run_part(engine, *arguments)

    monkeypatch.setattr(EventEngine, "_run_part", interrupted)
    with pytest.raises(IncompleteRunError, match=f"interrupted when {samples} of 7 samples") as error:
        IntegerSimulator(engine="event", batch_size=4).run(network, inputs)
    assert error.value.samples == samples
    assert (error.value.result is None) == (samples == 0)
