"""Equilibrium rates: by hand, against what simulators settle at, and the law by which they get there."""

from dataclasses import replace

import numpy as np
import pytest

import random_networks
import trained
from equilibrium_reference import iterated_rates
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.config import DeployConfig
from fsnn_lava.errors import InputError
from fsnn_lava.hardware import real_weight, with_timing
from fsnn_lava.hardware.geometry import Array, Dense
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron
from fsnn_lava.network import equilibrium as module
from fsnn_lava.network.equilibrium import equilibrium_rates
from fsnn_lava.quantization.quantizer import quantize

LAW_STEPS = (10, 32, 100, 320, 1000)


def loop(
    *, first: float = 1.0, second: float = 1.0, feedback: float = 0.4, v_threshold: float = 2.0
) -> HardwareNetwork:
    """Input -> a -> b -> a, one neuron each, r = 2, constant currents 0.2 and 0.1."""
    neuron = FloatNeuron(v_threshold, 2.0, 1.0)
    weights = {
        "in": (INPUT, "a", first),
        "on a": (ALWAYS_ON, "a", 0.2),
        "forward": ("a", "b", second),
        "on b": (ALWAYS_ON, "b", 0.1),
        "back": ("b", "a", feedback),
    }
    connections = [Connection(n, s, t, np.array([[w]]), delay=int(n == "back")) for n, (s, t, w) in weights.items()]
    populations = (Population("a", (1,), neuron), Population("b", (1,), neuron))
    readout = Readout("b", np.ones((1, 1)), np.zeros(1))
    return HardwareNetwork("loop", InputSpec((1,), "graded", 4), populations, tuple(connections), readout, 10)


def integer_neurons(spec: InputSpec, *, exponent: int, time_steps: int) -> HardwareNetwork:
    """Seven IF neurons with a little feedback; every current is between 0 and r, so potentials stay below 2 r."""
    rng = np.random.default_rng(3)
    weight = rng.integers(0, 128, (7, 5)).astype(np.int32)
    largest = weight.sum(axis=1).max() * spec.maximum * 2.0**exponent + 3 + 7
    reset_exponent = max(0, int(np.ceil(np.log2(largest / 255))))
    mantissa = int(np.ceil(largest / 2**reset_exponent))
    neuron = IntegerNeuron(mantissa << reset_exponent, mantissa, reset_exponent, 0, 1.0)
    connections = (
        Connection("in", INPUT, "p", weight, 1, exponent, 8),
        Connection("on", ALWAYS_ON, "p", np.full((7, 1), 3, np.int32), 0, 0, 8),
        Connection("back", "p", "p", rng.integers(0, 2, (7, 7)).astype(np.int32), 1, 0, 8),
    )
    readout = Readout("p", np.ones((1, 7)), np.zeros(1))
    return HardwareNetwork("if", spec, (Population("p", (7,), neuron, start=1),), connections, readout, time_steps)


def test_two_populations_by_hand() -> None:
    """Input 1: a = (1 + 0.2 + 0.4 b) / 2 and b = (a + 0.1) / 2 give a = 0.61 / 0.9 = 61/90 and b = 35/90."""
    found = equilibrium_rates(loop(), np.array([[1], [4], [0]]), tolerance=1e-13)
    # 1e-12: the iteration stops at 1e-13 and contracts tenfold in each step.
    np.testing.assert_allclose(found.firing_rates["a"][0], 61 / 90, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.firing_rates["b"][0], 35 / 90, rtol=0, atol=1e-12)
    # Input 4 saturates a, so b = 1.1 / 2; input 0: 2 a = 0.2 + 0.4 b and 2 b = a + 0.1 give a = 11/90, b = 10/90.
    np.testing.assert_allclose(found.firing_rates["a"][1:, 0], [1.0, 11 / 90], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.firing_rates["b"][1:, 0], [0.55, 10 / 90], rtol=0, atol=1e-12)
    assert found.converged
    assert found.residuals.max() <= 1e-13


def test_rates_are_clamped_to_zero() -> None:
    found = equilibrium_rates(loop(first=-1.0), np.array([[2]]))
    assert found.firing_rates["a"][0, 0] == 0.0
    np.testing.assert_allclose(found.firing_rates["b"][0, 0], 0.05, rtol=0, atol=1e-15)


def test_a_fixed_point_that_the_network_leaves_is_not_called_settled() -> None:
    """Feedback -4 with r = 2: a = 1.1 - 2 b and b = a + 0.05, so a = 1/3 and b = 23/60, and the slope is -2."""
    found = equilibrium_rates(loop(second=2.0, feedback=-4.0), np.array([[2]]))
    np.testing.assert_allclose(found.firing_rates["a"], 1 / 3, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.firing_rates["b"], 23 / 60, rtol=0, atol=1e-9)
    assert found.gains is not None
    np.testing.assert_allclose(found.gains, 2.0, rtol=1e-6)
    assert (found.unsettled, found.converged) == (1, False)
    assert found.residuals[0] <= 1e-9
    unknown = equilibrium_rates(loop(second=2.0, feedback=-4.0), np.array([[2]]), with_gains=False)
    assert unknown.gains is None
    assert unknown.converged


def test_residual_is_the_change_by_one_more_sweep() -> None:
    """Whatever is returned with a coarse tolerance: one sweep in float64 changes it by that much."""
    found = equilibrium_rates(loop(), np.array([[1]]), tolerance=1e-3)
    a, b = (found.firing_rates[name][0, 0] for name in ("a", "b"))
    new_a = (1 + 0.2 + 0.4 * b) / 2
    change = max(abs(new_a - a), abs((new_a + 0.1) / 2 - b))
    assert change <= found.residuals[0] <= 1e-3


def test_gain_by_hand() -> None:
    """One round takes a change of b by 0.4 / 2 to a and by 1 / 2 back; where a saturates nothing comes back."""
    found = equilibrium_rates(loop(), np.array([[1], [4]]))
    assert found.gains is not None
    np.testing.assert_allclose(found.gains, [0.1, 0.0], rtol=0, atol=1e-6)


def test_delays_and_thresholds_do_not_appear() -> None:
    inputs = np.arange(5)[:, None]
    expected = equilibrium_rates(loop(), inputs).firing_rates
    late = loop()
    late = replace(late, connections=tuple(replace(c, delay=7 * (c.source != ALWAYS_ON)) for c in late.connections))
    for other in (with_timing(loop(), "hardware"), late, loop(v_threshold=1.0), loop(v_threshold=5.0)):
        found = equilibrium_rates(other, inputs).firing_rates
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_integer_current_is_rounded_down_by_hand() -> None:
    """15 * 2**-3 = 1.875 becomes 1.5 and -1.875 becomes -2: twice the sum is rounded down to whole units."""
    neuron = IntegerNeuron(10, 10, 0, 0, 1.0)
    connections = (
        Connection("in", INPUT, "p", np.array([[5], [-5]], np.int32), 0, -3, 8),
        Connection("on", ALWAYS_ON, "p", np.array([[1], [3]], np.int32), 0, 1, 8),
    )
    readout = Readout("p", np.ones((1, 2)), np.zeros(1))
    spec = InputSpec((1,), "graded", 3)
    network = HardwareNetwork("floor", spec, (Population("p", (2,), neuron),), connections, readout, 10)
    found = equilibrium_rates(network, np.array([[3]]))
    np.testing.assert_allclose(found.firing_rates["p"], [[0.35, 0.4]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("exponent", [-8, -5, -2, -1, 0])
def test_integer_runs_settle_at_it(exponent: int) -> None:
    """IF: a potential between 0 and 2 r leaves two spikes at most, the feedback's share adds less than as many."""
    network = integer_neurons(InputSpec((5,), "graded", 15), exponent=exponent, time_steps=20_000)
    codes = np.random.default_rng(0).integers(0, 16, (25, 5)).astype(np.uint8)
    found = equilibrium_rates(network, codes, tolerance=1e-12)
    assert found.converged
    rates = IntegerSimulator().run(network, codes).firing_rates["p"]
    assert 0.1 < rates.mean() < 0.9
    assert np.abs(rates - found.firing_rates["p"]).max() <= 4 / network.time_steps


def test_what_rounding_down_takes_is_large_enough_to_be_seen() -> None:
    """Without the floor the test above must fail: up to half a unit of a reset of about 50 is 0.01, 200/T."""
    network = integer_neurons(InputSpec((5,), "graded", 15), exponent=-8, time_steps=20_000)
    codes = np.random.default_rng(0).integers(0, 16, (25, 5)).astype(np.uint8)
    rates = equilibrium_rates(network, codes).firing_rates["p"]
    current = codes @ real_weight(network.connections[0]).T + 3 + rates @ real_weight(network.connections[2]).T
    exact = current / network.populations[0].neuron.reset_amount
    assert np.abs(exact - rates).max() > 100 / network.time_steps


@pytest.mark.parametrize("leak", [1.0, 0.8])
def test_event_frames_are_averaged_as_the_rate_is(leak: float) -> None:
    """Frames 1, 0, 1, 1, the last weighing most; one neuron with weight 1.5, r = 2."""
    neuron = FloatNeuron(2.0, 2.0, leak)
    connections = (Connection("in", INPUT, "p", np.array([[1.5]])),)
    population = Population("p", (1,), neuron)
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("events", InputSpec((1,), "event", 1), (population,), connections, readout, 4)
    frames = np.array([1, 0, 1, 1], np.uint8).reshape(4, 1, 1)
    mean = (leak**3 + leak + 1) / (leak**3 + leak**2 + leak + 1)
    found = equilibrium_rates(network, frames).firing_rates["p"]
    np.testing.assert_allclose(found, [[0.75 * mean]], rtol=1e-14)  # a few roundings of float64


def test_many_event_frames_settle_at_it() -> None:
    """IF: whatever the order of the frames, their mean decides, up to a few spikes."""
    frames = (np.random.default_rng(0).random((4000, 6, 5)) < 0.6).astype(np.uint8)
    network = integer_neurons(InputSpec((5,), "event", 1), exponent=0, time_steps=4000)
    found = equilibrium_rates(network, frames, tolerance=1e-12)
    rates = IntegerSimulator().run(network, frames).firing_rates["p"]
    assert found.converged
    assert 0.1 < rates.mean() < 0.9
    assert np.abs(rates - found.firing_rates["p"]).max() <= 4 / 4000


def test_refuses_inputs_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"graded inputs of shape \(2, 3\); expected \(B, 1\)"):
        equilibrium_rates(loop(), np.zeros((2, 3), np.uint8))
    with pytest.raises(InputError, match=r"input codes from 5 to 5; allowed: 0 \.\. 4"):
        equilibrium_rates(loop(), np.array([[5]]))


def two_neurons(*feedback: Array) -> HardwareNetwork:
    """Two neurons, r = 1, constant current 0.3 each, with connections to themselves that all have one name."""
    connections = (
        Connection("on", ALWAYS_ON, "a", np.full((2, 1), 0.3)),
        *(Connection("back", "a", "a", weight, delay=1) for weight in feedback),
    )
    population = Population("a", (2,), FloatNeuron(1.0, 1.0, 1.0))
    readout = Readout("a", np.ones((1, 2)), np.zeros(1))
    return HardwareNetwork("two", InputSpec((1,), "graded", 1), (population,), connections, readout, 10)


def test_connections_of_one_name_keep_their_own_weights() -> None:
    """a = 0.3 + 0.2 a + 0.4 a."""
    found = equilibrium_rates(two_neurons(0.2 * np.eye(2), 0.4 * np.eye(2)), np.array([[0]]))
    np.testing.assert_allclose(found.firing_rates["a"], 0.75, rtol=0, atol=1e-9)


def test_gain_is_found_where_it_lies_in_a_difference_between_neurons() -> None:
    """Eigenvalues 0, of both alike, and 1.5, of one against the other: two neurons of which one would win."""
    found = equilibrium_rates(two_neurons(np.array([[0.75, -0.75], [-0.75, 0.75]])), np.array([[0]]))
    np.testing.assert_allclose(found.firing_rates["a"], 0.3, rtol=0, atol=1e-9)
    assert found.gains is not None
    np.testing.assert_allclose(found.gains, 1.5, rtol=1e-5)
    assert not found.converged


def test_sample_that_needs_more_sweeps_than_one_solve_takes_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring of 40 neurons that hand on 0.9 of their rate: eigenvalues on a circle, where mixing helps little."""
    size = 40
    ring = 0.9 * np.roll(np.eye(size), 1, axis=0)
    current = np.random.default_rng(5).random((size, 1)) / 10
    neuron = FloatNeuron(1.0, 1.0, 1.0)
    connections = (
        Connection("in", INPUT, "a", current),
        Connection("back", "a", "a", ring, delay=1),
    )
    readout = Readout("a", np.ones((1, size)), np.zeros(1))
    population = Population("a", (size,), neuron)
    network = HardwareNetwork("ring", InputSpec((1,), "graded", 1), (population,), connections, readout, 10)
    codes = np.array([[1], [0], [1]])
    found = equilibrium_rates(network, codes)
    exact = np.linalg.solve(np.eye(size) - ring, current[:, 0])
    assert 0.1 < exact.min() < exact.max() < 1
    assert found.residuals.max() <= 1e-9
    assert found.converged
    assert found.steps > 100
    np.testing.assert_allclose(found.firing_rates["a"], [exact, 0 * exact, exact], rtol=0, atol=1e-8)  # 1e-9 / 0.1
    monkeypatch.setattr(module, "SOLVES", [solve for solve in module.SOLVES if solve[0] != "fixed_point"])
    given_up = equilibrium_rates(network, codes)
    assert given_up.settled.tolist() == [False, True, False]


def test_rates_have_the_populations_shapes() -> None:
    shaped = loop()
    populations = tuple(replace(p, shape=(1, 1, 1)) for p in shaped.populations)
    found = equilibrium_rates(replace(shaped, populations=populations), np.array([[1], [2]]))
    assert found.firing_rates["a"].shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("notation", "kind"),
    [
        ("40 (F40)", "float"),
        ("40 (F40)", "integer, full"),
        ("40 (F40)", "integer, half"),
        ("24-20 (F24)", "float"),
        pytest.param("24-20 (F24)", "integer, full", marks=pytest.mark.slow),
        pytest.param("24-20 (F24)", "integer, half", marks=pytest.mark.slow),
    ],
)
def test_deviation_falls_as_one_over_time_steps(notation: str, kind: str) -> None:
    """IF, hardware timing, T = 10 .. 1000: slope of the mean deviation in log-log between -0.8 and -1.2.

    The integer network is quantized anew for every T, since its scale depends on T, and held to its own equilibrium.
    Without exponents of spikes, whose rounding down costs its known mean only nearly: that does not fall with T.
    """
    floating = trained.on_hardware(trained.trained_network(notation))
    codes = trained.some_codes(40)
    deviations = []
    for steps in LAW_STEPS:
        network = replace(floating, time_steps=steps)
        if kind == "float":
            rates = FloatSimulator().run(network, codes).firing_rates
        else:
            threshold = "half" if kind.endswith("half") else "full"
            network, _ = quantize(network, codes, config=DeployConfig(threshold=threshold, exponents="input"))
            rates = IntegerSimulator().run(network, codes).firing_rates
        settled = equilibrium_rates(network, codes)
        assert settled.converged
        deviations.append([np.abs(rates[name] - rate).mean() for name, rate in settled.firing_rates.items()])
    slopes = np.polyfit(np.log(LAW_STEPS), np.log(deviations), 1)[0]  # one per population
    assert ((slopes > -1.2) & (slopes < -0.8)).all(), slopes


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_gains_of_a_large_network_are_those_of_some_samples(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Of the first, the last and those between, whatever the chunks; the others are settled by their residuals."""
    network, codes = trained.on_hardware(trained.trained_network("24-20 (F24)")), trained.some_codes(9)
    whole = equilibrium_rates(network, codes)
    monkeypatch.setattr(module, "GAIN_PRODUCTS", 0.0)
    monkeypatch.setattr(module, "GAIN_SAMPLES", 3)
    monkeypatch.setattr(
        module, "CHUNK_NUMBERS", chunk * (network.input.size + sum(p.size for p in network.populations))
    )
    found = equilibrium_rates(network, codes)
    assert whole.gains is not None and found.gains is not None
    assert np.flatnonzero(~np.isnan(found.gains)).tolist() == [0, 4, 8]
    np.testing.assert_allclose(found.gains[[0, 4, 8]], whole.gains[[0, 4, 8]], rtol=1e-6)
    assert found.settled.all()
    summed = found.settling()
    assert (summed.samples, summed.gain_samples, whole.settling().gain_samples) == (9, 3, 9)
    assert summed.largest_gain == np.nanmax(found.gains)
    assert "(3 of the samples)" in summed.words()
    assert "of the samples" not in whole.settling().words()


@pytest.mark.parametrize("steps", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("notation", ["40 (F40)", "24-20 (F24)"])
def test_exponents_of_spikes_bring_runs_nearer_to_the_trained_equilibrium(notation: str, steps: int) -> None:
    """Of every population, by a twentieth at least; and what rounding down costs is known to 0.003 spikes a step."""
    floating = replace(trained.on_hardware(trained.trained_network(notation)), time_steps=steps)
    codes = trained.some_codes(40)
    wanted = equilibrium_rates(floating, codes).firing_rates
    errors = {}
    for exponents in ("input", "all"):
        config = DeployConfig(threshold="half", exponents=exponents)
        network, _ = quantize(floating, codes, config=config, keep_lost=True)
        rates = IntegerSimulator().run(network, codes).firing_rates
        errors[exponents] = {name: np.abs(rates[name] - rate).mean() for name, rate in wanted.items()}
        own = equilibrium_rates(network, codes).firing_rates
        assert all(abs((rates[name] - rate).mean()) < 0.003 for name, rate in own.items())
    assert all(errors["all"][name] < 0.95 * error for name, error in errors["input"].items())


@pytest.mark.parametrize("notation", ["40 (F40)", "24-20 (F24)"])
def test_deviation_of_one_integer_network_with_its_feedback_falls_too(notation: str) -> None:
    """At T = 1000 rounding leaves little of the feedback; here one export keeps it, and runs for T = 10 .. 100."""
    floating = replace(trained.on_hardware(trained.trained_network(notation)), time_steps=100)
    codes = trained.some_codes(40)
    integer, report = quantize(floating, codes)
    assert report.lost() == ()
    (feedback,) = (c for c in integer.connections if c.name == "feedback")
    assert np.count_nonzero(feedback.weight) > feedback.weight.size / 2
    settled = equilibrium_rates(integer, codes)
    without = replace(
        integer, connections=tuple(replace(c, weight=0 * c.weight) if c is feedback else c for c in integer.connections)
    )
    steps = (10, 18, 32, 56, 100)
    deviations, wrong = [], []
    for t in steps:
        rates = IntegerSimulator().run(replace(integer, time_steps=t), codes).firing_rates
        deviations.append([np.abs(rates[name] - rate).mean() for name, rate in settled.firing_rates.items()])
        rates = IntegerSimulator().run(replace(without, time_steps=t), codes).firing_rates
        wrong.append([np.abs(rates[name] - rate).mean() for name, rate in settled.firing_rates.items()])
    slopes = np.polyfit(np.log(steps), np.log(deviations), 1)[0]
    assert ((slopes > -1.2) & (slopes < -0.8)).all(), slopes
    assert (np.array(wrong[-1]) > 2 * np.array(deviations[-1])).all(), "a network without feedback settles elsewhere"


def drawn(seed: int) -> tuple[HardwareNetwork, Array]:
    rng = np.random.default_rng(seed)
    network = random_networks.random_network(rng, f"seed {seed}", lava=True, equilibrium=True)
    return network, random_networks.random_inputs(rng, network)


def assert_close(found: dict[str, Array], expected: dict[str, Array], tolerance: float) -> None:
    for name, rates in expected.items():
        np.testing.assert_allclose(found[name], rates, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def iterated() -> list[tuple[HardwareNetwork, Array, dict[str, Array], Array]]:
    """Sixty random networks, two inputs each, their rates by plain iteration, and which samples came to rest."""
    return [(*drawn(seed), *iterated_rates(*drawn(seed))) for seed in range(60)]


def test_rates_are_those_of_plain_iteration(
    iterated: list[tuple[HardwareNetwork, Array, dict[str, Array], Array]],
) -> None:
    """Dense and convolutional, several loops, integer and float; where plain iteration comes to rest."""
    convolutions = active = compared = 0
    for network, inputs, expected, at_rest in iterated:
        found = equilibrium_rates(network, inputs)
        assert found.gains is not None
        for name, rates in expected.items():
            # A fixed point need not be the only one; that of a loop that contracts is.
            rows = at_rest & found.settled
            got = found.firing_rates[name].reshape(rates.shape)
            np.testing.assert_allclose(got[rows], rates[rows], rtol=0, atol=2e-9)
        compared += int((at_rest & found.settled).sum())
        convolutions += sum(not isinstance(c.geometry, Dense) for c in network.connections)
        active += sum(bool(((r > 0) & (r < 1)).any()) for r in found.firing_rates.values())
    assert convolutions > 100
    assert active > 30
    assert compared > 60


def settling() -> tuple[HardwareNetwork, Array]:
    """A network with feedback that settles, and 2 x 6 inputs."""
    for seed in range(100):
        network, inputs = drawn(seed)
        found = equilibrium_rates(network, inputs, tolerance=1e-12)
        inside = any(((r > 0) & (r < 1)).any() for r in found.firing_rates.values())
        if found.converged and found.gains.min() > 0.01 and inside and network.input.kind == "graded":
            rng = np.random.default_rng(seed)
            return network, np.concatenate([random_networks.random_inputs(rng, network) for _ in range(6)])
    raise AssertionError("no such network")


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = settling()
    whole = equilibrium_rates(network, inputs, tolerance=1e-12)
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 5 * (network.input.size + sum(p.size for p in network.populations)))
    done: list[tuple[int, int]] = []
    parts = equilibrium_rates(network, inputs, tolerance=1e-12, progress=lambda *now: done.append(now))
    assert done == [(5, 12), (10, 12), (12, 12)]
    assert parts.converged
    assert_close(parts.firing_rates, whole.firing_rates, 1e-12)
    one = equilibrium_rates(network, inputs[7:8], tolerance=1e-12)
    assert_close({n: r[7:8] for n, r in whole.firing_rates.items()}, one.firing_rates, 1e-12)


def test_float64_is_used_only_where_it_is_needed() -> None:
    network, inputs = settling()
    exact = equilibrium_rates(network, inputs, tolerance=1e-12)
    coarse = equilibrium_rates(network, inputs, tolerance=1e-4)
    assert coarse.converged
    assert coarse.steps < exact.steps
    assert exact.residuals.max() <= 1e-12
    assert_close(coarse.firing_rates, exact.firing_rates, 1e-3)  # ten times what the last sweep changed


def test_start_decides_nothing_but_the_time() -> None:
    network, inputs = settling()
    solution = equilibrium_rates(network, inputs, tolerance=1e-13)
    kept = {name: r.copy() for name, r in solution.firing_rates.items()}
    again = equilibrium_rates(network, inputs, tolerance=1e-10, start=solution.firing_rates)
    assert again.converged
    assert again.steps < equilibrium_rates(network, inputs, tolerance=1e-10).steps
    assert_close(again.firing_rates, solution.firing_rates, 1e-10)
    assert all(np.array_equal(kept[name], r) for name, r in solution.firing_rates.items()), "the start was overwritten"
    far = equilibrium_rates(network, inputs, tolerance=1e-12, start={n: 1 - r for n, r in kept.items()})
    assert_close(far.firing_rates, solution.firing_rates, 1e-10)


def test_refuses_a_start_that_does_not_fit() -> None:
    network, inputs = settling()
    rates = equilibrium_rates(network, inputs).firing_rates
    (first, *_) = network.populations
    with pytest.raises(InputError, match=r'rates of population "p0" to start from have shape \(3, .*expected \(12, '):
        equilibrium_rates(network, inputs, start={**rates, first.name: rates[first.name][:3]})
    with pytest.raises(InputError, match='rates of population "p0" to start from have shape none'):
        equilibrium_rates(network, inputs, start={n: r for n, r in rates.items() if n != first.name})


def test_sample_that_does_not_settle_holds_up_no_other() -> None:
    """Input 2 has an equilibrium that the loop leaves; input 0 is at rest."""
    found = equilibrium_rates(loop(second=2.0, feedback=-4.0), np.array([[2], [0], [2]]))
    assert (found.settled.tolist(), found.unsettled, found.converged) == ([False, True, False], 2, False)
    alone = equilibrium_rates(loop(second=2.0, feedback=-4.0), np.array([[0]]))
    assert alone.converged
    np.testing.assert_allclose(found.firing_rates["a"][1], alone.firing_rates["a"][0], rtol=0, atol=1e-12)
