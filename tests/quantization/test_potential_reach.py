"""How far potentials go: observed, attacked, proven."""

import dataclasses

import numpy as np
import pytest

import networks
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.errors import NetworkError
from fsnn_lava.hardware.network import Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import STATE_LIMIT, IntegerNeuron
from fsnn_lava.hardware.overflow_proof import potential_bounds, prove
from fsnn_lava.quantization.potential_reach import PotentialReach, measured_reach
from random_networks import random_network


def two_populations(kind: str = "graded") -> HardwareNetwork:
    """Four inputs inhibit and excite one neuron, and drive four others that inhibit a second one, which feeds back."""
    neuron = IntegerNeuron(10, 10, 0, 0, 1.0)
    maximum = 255 if kind == "graded" else 1
    exponent = -8 if kind == "graded" else 0
    weight = np.array([[-100, -50, 7, 0], [90, 0, 0, 0], [0, 90, 0, 0], [0, 0, 90, 0]], np.int32)
    connections = (
        Connection("input", "input", "first", weight, 0, exponent, 8),
        Connection("on", "first", "second", np.array([[20, -60, -50, 40]], np.int32), 1, 0, 8),
        Connection("feedback", "second", "first", np.array([[5], [-5], [5], [5]], np.int32), 1, 0, 8),
    )
    populations = Population("first", (4,), neuron), Population("second", (1,), neuron)
    readout = Readout("second", np.ones((2, 1)), np.zeros(2))
    spec = InputSpec((4,), kind, maximum)  # type: ignore[arg-type]
    return HardwareNetwork("two", spec, populations, connections, readout, time_steps=12)


@pytest.mark.parametrize("kind", ["graded", "event"])
def test_the_attack_finds_what_by_hand_is_the_worst_input(kind: str) -> None:
    """-150 a step from the two inhibiting inputs, the third dark; their spikes inhibit the second neuron by 110.

    Those excite two of the four neurons to fire in each step but the first, which is the second neuron's worst.
    """
    network = two_populations(kind)
    dark = np.zeros((12, 2, 4) if kind == "event" else (2, 4), np.int64)
    observed = IntegerSimulator().run(network, dark).peaks
    reach = measured_reach(network, dark, observed)
    assert observed == {"first": 0, "second": 0}
    worst = np.array([[1, 1, 0, 0]]) * network.input.maximum
    by_hand = IntegerSimulator().run(network, np.repeat(worst[None], 12, axis=0) if kind == "event" else worst).peaks
    assert {name: r.attacked for name, r in reach.items()} == by_hand
    assert by_hand["second"] > 128 * 110 * 10


def test_what_is_observed_is_at_most_what_an_attack_reaches_and_that_at_most_what_is_proven() -> None:
    compared = beyond = 0
    for seed in range(40):
        network = random_network(seed)
        bounds = potential_bounds(network)
        if any(max(-low.min(), high.max()) >= 2**23 for low, high in bounds.values()):
            continue
        prove(network)
        inputs = networks.random_inputs(network, 3, seed=seed)
        observed = IntegerSimulator().run(network, inputs).peaks
        for name, reach in measured_reach(network, inputs, observed).items():
            assert reach.observed == observed[name]
            assert reach.bound == max(-bounds[name][0].min(), bounds[name][1].max())
            assert reach.observed <= reach.attacked <= reach.bound, (seed, name)
            compared += 1
            beyond += reach.attacked > reach.observed
    assert compared > 20
    assert beyond > compared / 3


def test_the_same_network_and_inputs_give_the_same() -> None:
    network = two_populations()
    inputs = np.array([[10, 20, 30, 40], [200, 0, 3, 1]])
    observed = IntegerSimulator().run(network, inputs).peaks
    assert measured_reach(network, inputs, observed) == measured_reach(network, inputs, observed)


def test_a_single_input_is_enough_and_is_not_changed() -> None:
    network, inputs = two_populations(), np.array([[10, 20, 30, 40]])
    reach = measured_reach(network, inputs, {"first": 1, "second": 2})
    assert inputs.tolist() == [[10, 20, 30, 40]]
    assert reach["first"].observed == 1
    assert isinstance(reach["second"], PotentialReach)


def test_a_float_network_has_no_integer_state() -> None:
    with pytest.raises(NetworkError, match="quantize it first"):
        measured_reach(networks.small_float_network(), np.ones((1, 3), np.int64), {})


def test_an_attack_that_leaves_the_range_says_so() -> None:
    """A potential of 24 bits holds 65,536 weight units; -127 arrive in each of 1,000 steps if the input is on."""
    neuron = IntegerNeuron(10, 10, 0, 0, 1.0)
    into = Connection("input", "input", "p", np.array([[-127]], np.int32), 0, 0, 8)
    readout, spec = Readout("p", np.ones((2, 1)), np.zeros(2)), InputSpec((1,), "event", 1)
    network = HardwareNetwork("one", spec, (Population("p", (1,), neuron),), (into,), readout, time_steps=1000)
    dark = np.zeros((1000, 1, 1), np.int64)
    reach = measured_reach(network, dark, {"p": 0})
    assert reach["p"] == PotentialReach(127 * 1000 * 128, STATE_LIMIT + 1, 0)


def test_neurons_that_the_input_does_not_reach_are_left_alone() -> None:
    network = two_populations()
    cut = dataclasses.replace(network, connections=network.connections[1:])
    inputs = np.array([[10, 20, 30, 40]])
    observed = IntegerSimulator().run(cut, inputs).peaks
    assert {name: r.attacked for name, r in measured_reach(cut, inputs, observed).items()} == observed
