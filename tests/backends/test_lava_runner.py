"""The Lava runner: hand-computed spikes, reset between samples, both neurons, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from fsnn_lava.backends import get_backend
from fsnn_lava.backends.lava import runner as lava_runner
from fsnn_lava.backends.lava.runner import LavaRunner
from fsnn_lava.backends.simulator import FloatSimulator
from fsnn_lava.errors import (
    ConfigError,
    IncompleteRunError,
    InputError,
    MissingDependencyError,
    StateOverflowError,
    UnsupportedError,
)
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import (
    ALWAYS_ON,
    INPUT,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Neuron,
    Population,
    Readout,
    with_timing,
)
from random_networks import random_case

pytestmark = pytest.mark.lava

ONE_INPUT = np.zeros((1, 1), dtype=np.int32)
GRADED = InputSpec((1,), "graded", 255)
EVENT = InputSpec((1,), "event", 1)


def weights(*values: float, integer: bool = True) -> Array:
    return np.array(values, dtype=np.int32 if integer else np.float64).reshape(-1, 1)


def one_neuron(neuron: Neuron, connections: tuple[Connection, ...], *, spec: InputSpec = GRADED) -> HardwareNetwork:
    """A single neuron whose window is global steps 2 .. 6."""
    readout = Readout("a", np.ones((1, 1)), np.zeros(1))
    return HardwareNetwork("one neuron", spec, (Population("a", (1,), neuron, 2),), connections, readout, 5)


def constant(value: float) -> Connection:
    integer = isinstance(value, int)
    return Connection("on", ALWAYS_ON, "a", weights(value, integer=integer), 0, 0, 8 if integer else 0)


# 60 per step, threshold and reset 100:    60, 120 s, 80, 140 s, 100 s (the threshold itself fires)
# 120 per step, half is kept, then -100:  120 s, 80, 160 s, 100 s, 70
BY_HAND = {
    "IF": (IntegerNeuron(100, 100, 0, 0, 1.0), 60, [0, 1, 0, 1, 1]),
    "LIF": (IntegerNeuron(100, 100, 0, 2048, 1.0), 120, [1, 0, 1, 1, 0]),
    "IF, reset with an exponent": (IntegerNeuron(100, 25, 2, 0, 1.0), 60, [0, 1, 0, 1, 1]),
    "float IF": (FloatNeuron(100.0, 100.0, 1.0), 60.0, [0, 1, 0, 1, 1]),
    "float LIF": (FloatNeuron(100.0, 200.0, 0.5), 120.0, [1, 0, 1, 1, 0]),
}


@pytest.mark.parametrize("kind", ["stock", "soft_reset"])
@pytest.mark.parametrize("case", BY_HAND)
def test_one_neuron_by_hand(case: str, kind: lava_runner.NeuronKind) -> None:
    neuron, current, expected = BY_HAND[case]
    network = one_neuron(neuron, (constant(current),))
    result = LavaRunner(network.arithmetic, neuron=kind).run(network, ONE_INPUT, record=["a"])
    assert result.spikes["a"].dtype == np.uint8
    assert result.spikes["a"].ravel().tolist() == expected
    assert result.spike_counts["a"].tolist() == [[sum(expected)]]
    powers = np.array([neuron.leak ** (4 - t) for t in range(5)])
    assert result.firing_rates["a"].item() == pytest.approx((powers * expected).sum() / powers.sum(), abs=1e-15)
    assert result.logits.item() == result.firing_rates["a"].item()


def test_delays_count_global_steps() -> None:
    """A frame at step 0 arrives at 3, one step into the window; its spike returns two steps later, then again."""
    echo = Connection("echo", "a", "a", weights(100), 2, 0, 8)
    pulse = Connection("in", INPUT, "a", weights(100), 3, 0, 8)
    network = one_neuron(IntegerNeuron(100, 100, 0, 0, 1.0), (pulse, echo), spec=EVENT)
    frames = np.zeros((5, 2, 1), dtype=np.int64)
    frames[0, 0] = 1
    result = LavaRunner().run(network, frames, record=["a"])
    assert result.spikes["a"][:, :, 0].T.tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]


def test_negative_exponent_rounds_the_sum_down() -> None:
    """-3 codes times 1/4: floor(2 * -3 / 4) * 64 = -128 units of state: one weight unit, not three quarters."""
    drain = Connection("in", INPUT, "a", weights(-1), 2, -2, 8)
    network = one_neuron(IntegerNeuron(2, 2, 0, 0, 1.0), (drain, constant(1)))
    result = LavaRunner().run(network, np.array([[0], [3]]), record=["a"])
    assert result.spikes["a"][:, :, 0].T.tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]


def test_the_most_negative_weight_is_not_clipped() -> None:
    """128 - 128 + 1 per step, threshold and reset 2. Left to guess, Lava would make -255 of the doubled -128."""
    connections = (
        Connection("plus", ALWAYS_ON, "a", weights(64), 0, 1, 8),
        Connection("minus", ALWAYS_ON, "a", weights(-128), 0, 0, 8),
        constant(1),
    )
    network = one_neuron(IntegerNeuron(2, 2, 0, 0, 1.0), connections)
    assert LavaRunner().run(network, ONE_INPUT, record=["a"]).spikes["a"].ravel().tolist() == [0, 1, 0, 1, 0]


def test_samples_are_independent() -> None:
    """A batch in one Lava run gives what every sample gives alone in a fresh one."""
    network, inputs, spikes = next(c for c in map(random_case, range(20)) if len(c.network.populations) == 3)
    axis = int(network.input.kind == "event")
    assert any((s[:, 0] != s[:, 1]).any() for s in spikes.values())
    inputs = np.concatenate([inputs, np.flip(inputs, axis)], axis)
    names = [p.name for p in network.populations]
    together = LavaRunner().run(network, inputs, record=names)
    for b in range(2):
        alone = LavaRunner().run(network, inputs.take([b], axis), record=names)
        for name in names:
            assert np.array_equal(together.spikes[name][:, b], alone.spikes[name][:, 0])
            assert np.array_equal(together.spikes[name][:, b], together.spikes[name][:, 3 - b])


def test_soft_reset_neuron_gives_the_same_spikes() -> None:
    cases = [random_case(seed) for seed in range(1000, 1010)]
    networks, inputs = [c[0] for c in cases], [c[1] for c in cases]
    stock = LavaRunner().run_side_by_side(networks, inputs)
    own = LavaRunner(neuron="soft_reset").run_side_by_side(networks, inputs)
    assert own[0].backend == "lava-fixed-soft-reset"
    for a, b in zip(stock, own, strict=True):
        assert a.spikes.keys() == b.spikes.keys()
        assert all(np.array_equal(a.spikes[name], b.spikes[name]) for name in a.spikes)
    assert sum(int(s.sum()) for a in stock for s in a.spikes.values()) > 100


@pytest.mark.parametrize("kind", ["stock", "soft_reset"])
def test_float_agrees_with_the_float_simulator(kind: lava_runner.NeuronKind) -> None:
    """Drawn weights are in general position: no potential comes within rounding of the threshold, so rates are equal.

    The tolerance is that of summing T weighted spikes in another order.
    """
    rng = np.random.default_rng(5)
    leaks, sizes = [1.0, 0.95], [12, 9]
    populations = tuple(
        Population(f"p{i}", (n,), FloatNeuron(1.0, 2.0, leak), i)
        for i, (n, leak) in enumerate(zip(sizes, leaks, strict=True))
    )
    connections = (
        Connection("in", INPUT, "p0", rng.normal(0, 0.004, (12, 10))),
        Connection("on", ALWAYS_ON, "p0", rng.normal(0.2, 0.2, (12, 1))),
        Connection("forward", "p0", "p1", rng.normal(0.2, 0.5, (9, 12)), 1),
        Connection("feedback", "p1", "p0", rng.normal(0, 0.5, (12, 9)), 1),
    )
    readout = Readout("p1", rng.normal(size=(3, 9)), rng.normal(size=3))
    spec = InputSpec((10,), "graded", 255)
    network = with_timing(HardwareNetwork("float", spec, populations, connections, readout, 20), "hardware")
    inputs = rng.integers(0, 256, (5, 10))
    lava = LavaRunner("float", neuron=kind).run(network, inputs)
    simulated = FloatSimulator().run(network, inputs)
    for name in lava.firing_rates:
        assert 0.05 < lava.firing_rates[name].mean() < 0.95
        np.testing.assert_allclose(lava.firing_rates[name], simulated.firing_rates[name], atol=1e-12)
    np.testing.assert_allclose(lava.logits, simulated.logits, atol=1e-12)


# ---- refusals ------------------------------------------------------------------------------------------


def test_overflow_in_a_lava_process_raises() -> None:
    on = Connection("on", ALWAYS_ON, "a", weights(127), 0, 7, 8)
    network = one_neuron(IntegerNeuron(65536, 1, 0, 0, 1.0), (on,))
    with pytest.raises(
        StateOverflowError, match=r"potential 10\d+ units of state at neuron 0 of 1, Lava step 7"
    ) as caught:
        LavaRunner(neuron="soft_reset").run(network, ONE_INPUT)
    assert isinstance(caught.value.__cause__, IncompleteRunError)


def test_refuses_what_it_cannot_run() -> None:
    network = one_neuron(IntegerNeuron(100, 100, 0, 0, 1.0), (constant(60),))
    with pytest.raises(UnsupportedError, match=r'"lava-float" runs float networks.* use the lowered \(float\)'):
        get_backend("lava-float").run(network, ONE_INPUT)
    with pytest.raises(UnsupportedError, match=r"cannot say.*\n.*starts at step 0.*\n.*with_timing"):
        LavaRunner().run(with_timing(network, "sequential"), ONE_INPUT)
    with pytest.raises(InputError, match=r"input codes from 256 to 256; allowed: 0 .. 255"):
        LavaRunner().run(network, ONE_INPUT + 256)
    with pytest.raises(ConfigError, match=r'timeout_s 0; allowed: "stock", "soft_reset"; "host", "lava"; more than 0'):
        LavaRunner(timeout_s=0)


def test_loihi2_says_what_is_missing_and_how_to_get_it() -> None:
    with pytest.raises(MissingDependencyError, match=r"lava-loihi is not installed.*INRC.*from Intel"):
        get_backend("loihi2")
