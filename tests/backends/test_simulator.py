"""The simulators against a plain-Python oracle, against each other, and against traces worked out by hand."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

import networks
from fsnn_lava.backends.simulator import (
    FloatSimulator,
    IntegerSimulator,
    event_engine as event_engine_module,
    run as engine_module,
)
from fsnn_lava.backends.simulator.dense_engine import DenseEngine
from fsnn_lava.backends.simulator.event_engine import PARTS_PER_CORE, EventEngine, usable_cores
from fsnn_lava.backends.simulator.plan import float_dtype, make_plan
from fsnn_lava.backends.simulator.run import EngineName
from fsnn_lava.errors import ConfigError, IncompleteRunError, InputError, StateOverflowError, UnsupportedError
from fsnn_lava.hardware import with_timing
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.linear_maps import LinearMap, linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron, Reset
from fsnn_lava.hardware.run_io import RatesOfCounts, RunResult, rate_weights, rates_from_spikes
from random_networks import Overflow, random_case, random_network, reference_run, reference_spikes
from simulated import float_twin, names, same_run

RANDOM_NETWORKS = 80


def one_neuron(
    neuron: Any, weights: list[tuple[str, float, int, int]], *, time_steps: int, maximum: int = 255
) -> HardwareNetwork:
    """A network of one neuron; ``weights``: (source, weight, exponent, delay)."""
    integer = isinstance(neuron, IntegerNeuron)
    dtype, bits = (np.int32, 8) if integer else (np.float64, 0)
    connections = tuple(
        Connection(f"c{i}", source, "p", np.array([[w]], dtype), delay, exponent, bits)
        for i, (source, w, exponent, delay) in enumerate(weights)
    )
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    spec = InputSpec((1,), "graded", maximum)
    return HardwareNetwork("one", spec, (Population("p", (1,), neuron),), connections, readout, time_steps)


def code(value: int) -> Array:
    return np.array([[value]])


def trace(result: RunResult) -> list[int]:
    return [int(s) for s in result.spikes["p"].ravel()]


def test_every_spike_of_random_networks_is_the_oracles() -> None:
    """Integers: equal at every step, in every population; three samples in batches of two."""
    lively = compared = 0
    for seed in range(RANDOM_NETWORKS):
        network = random_network(seed)
        inputs = networks.random_inputs(network, 3, seed=seed)
        try:
            result = IntegerSimulator(batch_size=2).run(network, inputs, record=names(network))
        except StateOverflowError:
            with pytest.raises(Overflow):
                reference_spikes(network, inputs)
            continue
        for name, expected in reference_spikes(network, inputs).items():
            assert np.array_equal(result.spikes[name], expected), f"seed {seed}, {name}"
            assert np.array_equal(result.spike_counts[name], expected.sum(axis=0))
            compared += 1
            lively += 0 < expected.mean() < 1
    assert compared > 1.5 * RANDOM_NETWORKS, "too many networks overflow: the test has lost its meaning"
    assert lively > compared / 3, "too many populations are silent or saturated: the test has lost its meaning"


def test_float_and_integer_runs_of_the_same_if_network_are_equal() -> None:
    """Without leak and rounding shifts both laws are the same arithmetic on integers, so nothing may differ."""
    compared = 0
    for seed in range(RANDOM_NETWORKS):
        drawn = random_network(seed)
        network = replace(
            drawn,
            populations=tuple(
                replace(p, neuron=replace(p.neuron, decay=0, current_decay=4096)) for p in drawn.populations
            ),
            connections=tuple(
                replace(c, weight_exponent=max(c.weight_exponent, 0), period=1) for c in drawn.connections
            ),
        )
        inputs = networks.random_inputs(network, 3, seed=seed)
        try:
            integer = IntegerSimulator().run(network, inputs, record=names(network))
        except StateOverflowError:
            continue
        compared += 1
        assert same_run(integer, FloatSimulator().run(float_twin(network), inputs, record=names(network))), seed
    assert compared > RANDOM_NETWORKS / 2


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_batches_change_nothing(seed: int) -> None:
    network = random_network(seed)
    inputs = networks.random_inputs(network, 7, seed=seed)
    runs = [IntegerSimulator(batch_size=n).run(network, inputs, record=names(network)) for n in (1, 3, 7, 100)]
    assert all(same_run(runs[0], run) for run in runs[1:])


@pytest.mark.parametrize("engine", ["event", "dense"])
def test_the_largest_potentials_are_the_oracles(engine: EngineName) -> None:
    """Of all steps, samples and batches; three samples in batches of two."""
    compared = 0
    for seed in range(30):
        network = random_network(seed)
        inputs = networks.random_inputs(network, 3, seed=seed)
        try:
            _, peaks = reference_run(network, inputs)
        except Overflow:
            continue
        assert IntegerSimulator(batch_size=2, engine=engine).run(network, inputs).peaks == peaks, f"seed {seed}"
        compared += len(set(peaks.values()))
    assert compared > 30


def test_a_float_run_tells_no_potentials() -> None:
    assert FloatSimulator().run(networks.small_float_network(), np.ones((2, 3), np.int64)).peaks == {}


def test_what_is_not_recorded_is_not_kept() -> None:
    network = random_network(4)
    inputs = networks.random_inputs(network, 2, seed=0)
    recorded = IntegerSimulator().run(network, inputs, record=names(network))
    bare = IntegerSimulator().run(network, inputs)
    assert bare.spikes == {}
    assert same_run(replace(recorded, spikes={}), bare)


@pytest.mark.parametrize("engine", ["event", "dense"])
def test_reset_to_zero_by_hand(engine: EngineName) -> None:
    """V = 3 and 2 arrive a step, in weight units: u = 2, 4 (spike), 2 again, whatever the reset synapse says."""
    neuron = IntegerNeuron(3, 3, 0, 0, 1.0, reset="zero")
    network = one_neuron(neuron, [(ALWAYS_ON, 2, 0, 0)], time_steps=6)
    result = IntegerSimulator(engine=engine).run(network, code(0), record=["p"])
    assert trace(result) == [0, 1, 0, 1, 0, 1]
    assert result.peaks == {"p": 4 * 128}


@pytest.mark.parametrize("engine", ["event", "dense"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_current_that_decays_by_hand(engine: EngineName, reset: Reset) -> None:
    """Units of state: V = rho = 3, so a spike above 320; 128 arrive a step, half of the current is kept."""
    neuron = IntegerNeuron(3, 3, 0, 1024, 1.0, reset, 2048)
    network = one_neuron(neuron, [(ALWAYS_ON, 1, 0, 0)], time_steps=8)
    i = u = s = 0
    spikes = []
    for _ in range(8):
        i = i // 2 + 128
        u = (0 if s else u * 3 // 4) + i if reset == "zero" else u * 3 // 4 - 384 * s + i
        s = int(u > 320)
        spikes.append(s)
    result = IntegerSimulator(engine=engine).run(network, code(0), record=["p"])
    assert trace(result) == spikes
    assert 0 < sum(spikes) < 8


@pytest.mark.parametrize("engine", ["event", "dense"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("current_leak", [0.0, 0.625])
def test_floats_follow_their_law(engine: EngineName, reset: Reset, current_leak: float) -> None:
    """Multiples of 1/8 and leaks of eighths: no sum is rounded in eight steps."""
    rng = np.random.default_rng(3)
    neuron = FloatNeuron(2.0, 1.5, 0.875, reset, current_leak)
    frames = rng.integers(0, 2, (8, 5, 3))
    weight = rng.integers(-4, 16, (4, 3)) / 8.0
    readout = Readout("p", np.ones((1, 4)), np.zeros(1))
    network = HardwareNetwork(
        "f", InputSpec((3,), "event", 1), (Population("p", (4,), neuron),), (Connection("c", INPUT, "p", weight),),
        readout, 8,
    )  # fmt: skip
    spikes = FloatSimulator(engine=engine).run(network, frames, record=["p"]).spikes["p"]
    i, v, s = np.zeros((5, 4)), np.zeros((5, 4)), np.zeros((5, 4), bool)
    for t in range(8):
        i = current_leak * i + frames[t] @ weight.T
        v = 0.875 * (np.where(s, 0.0, v) if reset == "zero" else v - 1.5 * s) + i
        s = v >= 2
        assert np.array_equal(spikes[t], s)
    assert 0.1 < spikes.mean() < 0.9


@pytest.mark.parametrize("engine", ["event", "dense"])
def test_a_current_beyond_24_bits_is_an_overflow(engine: EngineName) -> None:
    """A large reset keeps the potential within them, while 38100 weight units a step add up in the current."""
    neuron = IntegerNeuron(1, 255, 7, 4095, 1.0, current_decay=1)
    network = one_neuron(neuron, [(INPUT, 127, 0, 0)], time_steps=3, maximum=300)
    message = r"sample 1, step 1, neuron 0: potential or current 9752409 units of state; allowed: .*24 bits"
    with pytest.raises(StateOverflowError, match=message):
        IntegerSimulator(engine=engine).run(network, np.array([[9], [300]]))


def test_if_neuron_by_hand() -> None:
    """V = rho = 3 and 2 arrive a step, in weight units: u = 2, 4 (spike), 3 (spike), 2, 4 (spike), 3 (spike)."""
    network = one_neuron(IntegerNeuron(3, 3, 0, 0, 1.0), [(ALWAYS_ON, 2, 0, 0)], time_steps=6)
    result = IntegerSimulator().run(network, code(0), record=["p"])
    assert trace(result) == [0, 1, 1, 0, 1, 1]
    assert result.spike_counts["p"].item() == 4
    assert result.firing_rates["p"].item() == 4 / 6
    assert result.logits.item() == 4 / 6


@pytest.mark.parametrize("engine", ["event", "dense"])
def test_a_pulse_arrives_in_one_step_of_so_many(engine: EngineName) -> None:
    """V = rho = 2, and 2 arrive in steps 2, 6, 10 of a period of 4: a spike in each of them, whose reset follows."""
    neuron = IntegerNeuron(2, 2, 0, 0, 1.0)
    network = one_neuron(neuron, [(ALWAYS_ON, 2, 0, 0)], time_steps=11)
    pulsed = replace(network, connections=(replace(network.connections[0], period=4),))
    found = trace(IntegerSimulator(engine=engine).run(pulsed, code(0), record=["p"]))
    assert found == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_pulses_of_several_periods_add_up() -> None:
    """1 in every step, 1 in steps 1, 3, .. and 2 in steps 4 and 12 into a neuron that never fires: its potential."""
    neuron = IntegerNeuron(1000, 1, 0, 0, 1.0)
    network = one_neuron(neuron, [(ALWAYS_ON, 1, 0, 0), (ALWAYS_ON, 1, 0, 0), (ALWAYS_ON, 2, 0, 0)], time_steps=13)
    periods = [replace(c, period=p) for c, p in zip(network.connections, (1, 2, 8), strict=True)]
    run = IntegerSimulator().run(replace(network, connections=tuple(periods)), code(0))
    assert run.peaks == {"p": 128 * (13 + 6 + 2 * 2)}


def test_leak_rounds_towards_zero() -> None:
    """u is halved each step. The code 1 adds -64 a step: u = -64, -96, ..., -126, -127; from step 7 on it adds 128.

    -127 becomes -63 (rounded down it would be -64), so u = 65 in step 7, above the threshold of 64: a spike.
    """
    weights = [(INPUT, -1, -1, 0), (INPUT, 3, -1, 7)]
    network = one_neuron(IntegerNeuron(1, 1, 0, 2048, 1.0), weights, time_steps=8)
    assert trace(IntegerSimulator().run(network, code(1), record=["p"])) == [0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(("value", "spikes"), [(-3, [0, 0]), (-1, [0, 0]), (1, [0, 1]), (3, [1, 1])])
def test_negative_exponent_rounds_down(value: int, spikes: list[int]) -> None:
    """2 w >> 2 is -2, -1, 0, 1 for the code 1; the second connection adds 2 * 2 >> 2 = 1. Fires above 1 unit of 64."""
    weights: list[tuple[str, float, int, int]] = [(INPUT, value, -2, 0), (INPUT, 2, -2, 0)]
    network = one_neuron(IntegerNeuron(1, 1, 0, 0, 1.0), weights, time_steps=2)
    assert trace(IntegerSimulator().run(network, code(1), record=["p"])) == spikes


def test_float_lif_by_hand() -> None:
    """Leak 0.5, threshold 1, reset 1, 0.75 a step: v = 0.75, 1.125 (spike), 0.8125, 1.15625 (spike)."""
    network = one_neuron(FloatNeuron(1.0, 1.0, 0.5), [(ALWAYS_ON, 0.75, 0, 0)], time_steps=4)
    result = FloatSimulator().run(network, code(0), record=["p"])
    assert trace(result) == [0, 1, 0, 1]
    assert result.firing_rates["p"].item() == pytest.approx((0.25 + 1) / 1.875, rel=1e-15)  # a few roundings


@pytest.mark.parametrize("engine", ["event", "dense"])
def test_float_neuron_fires_at_its_threshold(engine: Literal["event", "dense"]) -> None:
    network = one_neuron(FloatNeuron(1.0, 2.0, 1.0), [(INPUT, 0.5, 0, 0)], time_steps=4)
    assert trace(FloatSimulator(engine=engine).run(network, code(1), record=["p"])) == [0, 1, 0, 0]


@pytest.mark.parametrize("engine", ["event", "dense"])
def test_integer_neuron_fires_at_its_threshold(engine: Literal["event", "dense"]) -> None:
    """V = 4, and 2 arrive in a step; the reset of 8 leaves -2, -0, 2, 4."""
    network = one_neuron(IntegerNeuron(4, 8, 0, 0, 1.0), [(INPUT, 2, 0, 0)], time_steps=6)
    assert trace(IntegerSimulator(engine=engine).run(network, code(1), record=["p"])) == [0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("decay", [1, 205])
def test_lif_rate_weighs_late_spikes_more(decay: int) -> None:
    network = one_neuron(IntegerNeuron(90, 90, 0, decay, 1.0), [(ALWAYS_ON, 40, 0, 0)], time_steps=9)
    result = IntegerSimulator().run(network, code(0), record=["p"])
    expected = rate_weights(9, (4096 - decay) / 4096) @ np.array(trace(result))
    assert 0 < result.spike_counts["p"].item() < 9
    assert result.firing_rates["p"].item() == pytest.approx(expected, rel=1e-14)  # the same sum in another order


def chain(time_steps: int = 12) -> HardwareNetwork:
    """Three populations in a chain with feedback from the last to the first, in sequential timing."""
    rng = np.random.default_rng(7)

    def weight(rows: int, columns: int) -> Array:
        return rng.integers(-90, 120, (rows, columns), dtype=np.int32)

    neuron = IntegerNeuron(150, 150, 0, 40, 1.0)
    connections = (
        Connection("in", INPUT, "a", weight(8, 5), 0, -7, 8),
        Connection("bias", ALWAYS_ON, "b", weight(9, 1), 0, 0, 8),
        Connection("ab", "a", "b", weight(9, 8), 0, 0, 8),
        Connection("bc", "b", "c", weight(7, 9), 0, 0, 8),
        Connection("ca", "c", "a", weight(8, 7), 1, 0, 8),
    )
    populations = tuple(Population(n, (s,), neuron) for n, s in zip("abc", (8, 9, 7), strict=True))
    readout = Readout("c", np.ones((2, 7)), np.zeros(2))
    return HardwareNetwork("chain", InputSpec((5,), "graded", 255), populations, connections, readout, time_steps)


def test_hardware_timing_is_sequential_timing_with_feedback_three_steps_late() -> None:
    network = chain()
    late = replace(network, connections=tuple(replace(c, delay=3 * (c.name == "ca")) for c in network.connections))
    inputs = np.random.default_rng(0).integers(0, 256, (6, 5))
    runs = [IntegerSimulator().run(n, inputs, record=["a", "b", "c"]) for n in (with_timing(network, "hardware"), late)]
    assert same_run(*runs)
    in_time = IntegerSimulator().run(network, inputs, record=["a", "b", "c"])
    assert not same_run(runs[0], in_time), "feedback makes no difference here: the test has lost its meaning"


def test_late_input_arrives_from_its_delay_on() -> None:
    network = one_neuron(IntegerNeuron(1, 1, 0, 0, 1.0), [(INPUT, 1, 0, 2)], time_steps=5)
    assert trace(IntegerSimulator().run(network, code(1), record=["p"])) == [0, 0, 1, 1, 1]


def test_delay_beyond_the_window_delivers_nothing() -> None:
    weights = [(ALWAYS_ON, 1, 0, 0), ("p", 100, 0, 9), (INPUT, 100, 0, 9)]
    network = one_neuron(IntegerNeuron(2, 2, 0, 0, 1.0), weights, time_steps=4)
    assert trace(IntegerSimulator().run(network, code(1), record=["p"])) == [0, 1, 0, 1]


def test_sums_beyond_float32_are_exact() -> None:
    """700 codes of 255 through 127, less 189: twice the sum, shifted right by 8, is 177103; one more would be 177104.

    The constants bring it down to 1 unit of 64, which does not fire; 2 would. float32 cannot tell the two sums apart.
    """
    weight = np.full((1, 701), 127, np.int32)
    weight[0, 700] = -63
    constants = [(-127, 7)] * 5 + [(-56, 7), (-103, 0)]
    connections = [Connection("in", INPUT, "p", weight, 0, -8, 8)]
    connections += [Connection("b", ALWAYS_ON, "p", np.array([[w]], np.int32), 0, e, 8) for w, e in constants]
    population = Population("p", (1,), IntegerNeuron(1, 1, 0, 0, 1.0))
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    spec = InputSpec((701,), "graded", 255)
    network = HardwareNetwork("wide", spec, (population,), tuple(connections), readout, 1)
    inputs = np.full((2, 701), 255)
    inputs[:, 700] = [3, 1]
    result = IntegerSimulator().run(network, inputs, record=["p"])
    assert result.spikes["p"].ravel().tolist() == [0, 1]


def test_float_dtype_is_wide_enough_for_every_partial_sum() -> None:
    assert float_dtype(2**24 - 1) is np.float32
    assert float_dtype(2**24) is np.float64
    assert float_dtype(2**53 - 1) is np.float64
    with pytest.raises(UnsupportedError, match=r"sums up to 9007199254740992 .* below 2\*\*53"):
        float_dtype(2**53)


def test_wide_spike_sums_run_in_float64() -> None:
    """600 neurons that always fire, through +127 and -127 at exponent 7, cancel; one unit is left and fires."""
    sources = Population("s", (600,), IntegerNeuron(1, 1, 0, 0, 1.0))
    target = Population("p", (1,), IntegerNeuron(1, 1, 0, 0, 1.0))
    large = np.where(np.arange(600) % 2, 127, -127)[None].astype(np.int32)
    connections = (
        Connection("on", ALWAYS_ON, "s", np.ones((600, 1), np.int32), 0, 0, 8),
        Connection("large", "s", "p", large, 0, 7, 8),
        Connection("small", "s", "p", np.eye(1, 600, dtype=np.int32), 0, 0, 8),
    )
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("wide", InputSpec((1,), "graded", 255), (sources, target), connections, readout, 3)
    assert trace(IntegerSimulator(engine="dense").run(network, code(0), record=["p"])) == [1, 1, 1]


@pytest.mark.parametrize("sign", [1, -1])
def test_potential_may_reach_24_bits_and_not_more(sign: int) -> None:
    """Each unit of the code is 64 states: 131071 of them fit, 131072 are 2**23."""
    network = one_neuron(IntegerNeuron(65536, 255, 7, 0, 1.0), [(INPUT, sign, -1, 0)], time_steps=1, maximum=2**18)
    IntegerSimulator().run(network, code(131071))
    with pytest.raises(
        StateOverflowError,
        match=rf'"one", population "p", sample 1, step 0, neuron 0: potential {sign * 2**23} .*allowed: -8388607 ',
    ):
        IntegerSimulator().run(network, np.array([[5], [131072]]))


def test_overflow_names_sample_and_step_across_batches() -> None:
    network = one_neuron(IntegerNeuron(65536, 255, 7, 0, 1.0), [(INPUT, -127, 0, 0)], time_steps=9)
    inputs = np.array([[0], [0], [1], [100]])
    with pytest.raises(StateOverflowError, match=r"sample 3, step 5, neuron 0: potential -97.*fewer time steps"):
        IntegerSimulator(batch_size=2).run(network, inputs)


@pytest.mark.parametrize("engine", ["event", "dense"])
def test_a_potential_beyond_32_bits_is_named_as_it_is(engine: Literal["event", "dense"]) -> None:
    """What arrives in the second step just fits 32 bits; added to the potential of the first it does not."""
    constant, graded = 4 * 64 * 2 * 122 * 2**7, 64 * 2 * 127 * 131600
    assert constant + graded < 2**31 <= 2 * constant + graded
    weights = [*4 * [(ALWAYS_ON, 122.0, 7, 0)], (INPUT, 127.0, 0, 1)]
    network = one_neuron(IntegerNeuron(65536, 100, 0, 0, 1.0), weights, time_steps=2, maximum=131600)
    with pytest.raises(StateOverflowError, match=f"step 1, neuron 0: potential {2 * constant + graded} units of state"):
        IntegerSimulator(engine=engine).run(network, code(131600))


def test_networks_of_the_other_arithmetic_are_refused() -> None:
    integer = one_neuron(IntegerNeuron(3, 3, 0, 0, 1.0), [(ALWAYS_ON, 1, 0, 0)], time_steps=2)
    floating = one_neuron(FloatNeuron(1.0, 1.0, 1.0), [(ALWAYS_ON, 1, 0, 0)], time_steps=2)
    with pytest.raises(UnsupportedError, match=r'"simulator" runs integer networks; network "one" holds float'):
        IntegerSimulator().run(floating, code(0))
    with pytest.raises(UnsupportedError, match='"simulator-float" runs float networks; network "one" holds integer'):
        FloatSimulator().run(integer, code(0))


def test_sums_beyond_lavas_32_bits_are_refused() -> None:
    network = one_neuron(IntegerNeuron(3, 3, 0, 0, 1.0), [(INPUT, 127, 0, 0)], time_steps=2, maximum=2**20)
    with pytest.raises(UnsupportedError, match=r'could exceed Lava\'s 32-bit sums:\n  population "p".*at most'):
        IntegerSimulator().run(network, code(0))


def test_wrong_requests_are_refused() -> None:
    network = one_neuron(IntegerNeuron(3, 3, 0, 0, 1.0), [(ALWAYS_ON, 1, 0, 0)], time_steps=2)
    with pytest.raises(InputError, match="no population"):
        IntegerSimulator().run(network, code(0), record=["q"])
    with pytest.raises(InputError, match="300"):
        IntegerSimulator().run(network, code(300))
    with pytest.raises(ConfigError, match="batch_size 0; expected at least 1"):
        IntegerSimulator(batch_size=0).run(network, code(0))


def test_progress_is_told_after_each_batch() -> None:
    told: list[tuple[int, int]] = []
    network = one_neuron(IntegerNeuron(3, 3, 0, 0, 1.0), [(ALWAYS_ON, 1, 0, 0)], time_steps=2)
    IntegerSimulator(batch_size=2).run(network, np.zeros((5, 1), int), progress=lambda *done: told.append(done))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_result_has_the_shapes_of_the_populations() -> None:
    population = Population("p", (2, 3), IntegerNeuron(3, 3, 0, 0, 1.0))
    spec = InputSpec((1, 2, 2), "event", 1)
    weight = np.ones((6, 4), np.int32)
    readout = Readout("p", np.ones((5, 6)), np.zeros(5))
    connection = Connection("in", INPUT, "p", weight, 0, 0, 8)
    network = HardwareNetwork("shaped", spec, (population,), (connection,), readout, 7)
    result = IntegerSimulator(batch_size=3).run(network, np.ones((7, 4, 1, 2, 2), bool), record=["p"])
    assert (result.backend, result.network, result.arithmetic, result.time_steps) == (
        "simulator",
        "shaped",
        "integer",
        7,
    )
    assert result.spikes["p"].shape == (7, 4, 2, 3)
    assert result.spikes["p"].dtype == np.uint8
    assert result.spike_counts["p"].shape == (4, 2, 3)
    assert result.spike_counts["p"].dtype == np.int16
    assert result.firing_rates["p"].shape == (4, 2, 3)
    assert result.logits.shape == (4, 5)


NETWORKS_PER_ENGINE = 60
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
    return replace(
        network,
        connections=tuple(
            replace(c, weight=linear_map(network, c).unrolled().toarray().astype(c.weight.dtype), geometry=DENSE)
            for c in network.connections
        ),
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_every_spike_of_random_networks_is_the_references(engine: Literal["event", "dense"]) -> None:
    """Convolutions of every kind, mixed with dense connections, any delays; equal at every step and neuron."""
    compared = lively = 0
    for seed in range(NETWORKS_PER_ENGINE):
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
    network = replace(
        network,
        populations=tuple(replace(p, neuron=FloatNeuron(1.0, 2.0, 0.95)) for p in network.populations),
        connections=tuple(
            replace(
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
def test_few_spikes_run_by_events_and_many_densely(constant: int, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """0, 0.1 and 0.9 spikes per step. The first 32 samples run event by event in any case, and they decide."""
    used = Used(monkeypatch)
    result = IntegerSimulator(batch_size=50).run(driven(constant), np.zeros((100, 1), int))
    assert used.batches == [("event", 32), (chosen, 50), (chosen, 18)]
    assert result.spike_counts["p"].mean() == constant * 20 // 100


def test_events_count_as_firing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = driven(0)
    spec = InputSpec((300,), "event", 1)
    connections = (replace(network.connections[1], source=INPUT),)
    network = replace(network, input=spec, connections=connections)
    for frames, chosen in ((np.zeros((20, 40, 300), int), "event"), (np.ones((20, 40, 300), int), "dense")):
        used = Used(monkeypatch)
        IntegerSimulator().run(network, frames)
        assert [name for name, _ in used.batches] == ["event", chosen]


def test_network_without_spiking_connections_runs_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    network = driven(10)
    used = Used(monkeypatch)
    IntegerSimulator().run(replace(network, connections=network.connections[:1]), np.zeros((3, 1), int))
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
    assert same_run(error.value.result, IntegerSimulator().run(network, inputs[:4], record=["a"]))


@pytest.mark.parametrize(("call", "samples"), [(1, 0), (5, 4)])
def test_interruption_in_a_batch_keeps_those_before(call: int, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(("exponent", "dtype"), [(2, np.float32), (3, np.float64)])
def test_sums_are_added_in_the_narrowest_type_that_is_exact(exponent: int, dtype: type[np.floating[Any]]) -> None:
    """Sums in half units: 127 * 2**14 * 2**(2 + 1) is just below 2**24, twice that is not; a sign changes nothing."""
    weight = np.tile(np.array([[127, -127]], np.int32), (1, 8192))
    neuron = IntegerNeuron(100, 100, 0, 0, 1.0)
    populations = (Population("a", (2**14,), neuron, 1), Population("b", (1,), neuron, 2))
    connections = (
        Connection("in", INPUT, "a", np.zeros((2**14, 1), np.int32), 1, 0, 8),
        Connection("a to b", "a", "b", weight, 1, exponent, 8),
    )
    readout = Readout("b", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("wide", InputSpec((1,), "graded", 1), populations, connections, readout, 3)
    assert (127 * 2**14 * 2 ** (exponent + 1) < 2**24) == (dtype is np.float32)
    assert make_plan(network).sum_dtype is dtype
