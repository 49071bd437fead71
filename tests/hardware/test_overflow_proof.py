"""The bound on potentials: never left, and attained where it can be."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import networks
import random_networks
import reference_simulator as reference
from fsnn_lava.errors import NetworkError, PotentialBoundError
from fsnn_lava.hardware import overflow_proof as module
from fsnn_lava.hardware.geometry import Array, Convolution, Dense
from fsnn_lava.hardware.linear_maps import exact_dtype, linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.network_file import save_network
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron, Reset
from fsnn_lava.hardware.overflow_proof import accumulator_violations, bounds_alone, potential_bounds, prove
from random_networks import random_network


def network_of(
    neurons: dict[str, IntegerNeuron],
    connections: list[tuple[str, str, list[list[int]], int, int]],
    *,
    time_steps: int,
    spec: InputSpec | None = None,
) -> HardwareNetwork:
    """Each connection: (source, target, weight, exponent, delay); the sizes follow from the weights."""
    sizes = {target: len(weight) for _, target, weight, _, _ in connections}
    populations = tuple(Population(name, (sizes[name],), neuron) for name, neuron in neurons.items())
    made = tuple(
        Connection(f"{s}-{t}", s, t, np.array(w, np.int32), delay, exponent, 8)
        for s, t, w, exponent, delay in connections
    )
    last = populations[-1]
    readout = Readout(last.name, np.ones((1, last.size)), np.zeros(1))
    return HardwareNetwork("n", spec or InputSpec((1,), "graded", 255), populations, made, readout, time_steps)


def bounds_of(network: HardwareNetwork, population: str = "p") -> tuple[list[int], list[int]]:
    low, high = potential_bounds(network)[population]
    return low.ravel().tolist(), high.ravel().tolist()


def potentials(network: HardwareNetwork, samples: list[Any], folder: Path) -> dict[str, Array]:
    """Population -> (sample, step, *N) from the plain-Python oracle."""
    save_network(network, folder / "network.h5")
    on_file = reference.read(folder / "network.h5")
    runs = [reference.simulate(on_file, sample)[1] for sample in samples]
    return {p.name: np.array([r[p.name] for r in runs]).reshape(len(runs), -1, *p.shape) for p in network.populations}


def adversarial_inputs(network: HardwareNetwork) -> list[Any]:
    """Constant inputs that push some neurons of each population that sees the input as low and as high as they can."""
    samples = []
    for connection in (c for c in network.connections if c.source == INPUT):
        rows = linear_map(network, connection).unrolled().toarray()
        for row, sign in itertools.product(rows[:: 1 + len(rows) // 8], (-1, 1)):
            frame = np.where(sign * row > 0, network.input.maximum, 0)
            graded = network.input.kind == "graded"
            samples.append(frame.tolist() if graded else [frame.tolist()] * network.time_steps)
    return samples


def test_no_input_leaves_the_bounds_of_random_networks(tmp_path: Path) -> None:
    """Random and adversarial inputs; where the proof holds, 24 bits suffice."""
    steps = proven = 0
    for seed in range(80):
        network = random_network(seed)
        inputs = networks.random_inputs(network, 4, seed=seed)
        flat = inputs.reshape(*inputs.shape[: inputs.ndim - len(network.input.shape)], -1)
        samples = (flat if network.input.kind == "graded" else flat.swapaxes(0, 1)).tolist()
        bounds = potential_bounds(network)
        reached = potentials(network, samples + adversarial_inputs(network), tmp_path)
        for name, (low, high) in bounds.items():
            assert (low <= reached[name]).all(), f"seed {seed}, {name}"
            assert (reached[name] <= high).all(), f"seed {seed}, {name}"
            steps += reached[name].size
        proven += all((low >= 1 - 2**23).all() and (high <= 2**23 - 1).all() for low, high in bounds.values())
    assert steps > 10_000
    assert 20 < proven < 80, "the networks are all harmless, or all too wild: the test has lost its meaning"


@pytest.mark.parametrize("law", [("subtract", 4096), ("zero", 4096), ("subtract", 1500), ("zero", 3000)])
@pytest.mark.parametrize("decay", [0, 1000])
@pytest.mark.parametrize("seed", range(6))
def test_bounds_against_every_input_there_is(seed: int, decay: int, law: tuple[Reset, int], tmp_path: Path) -> None:
    """Two event inputs, four steps: all 256 inputs. Never outside; and without feedback the low end is attained."""
    rng = np.random.default_rng(seed)
    neuron = IntegerNeuron(40, 40, 0, decay, 1.0, *law)
    network = network_of(
        {"p": neuron},
        [(INPUT, "p", rng.integers(-60, 61, (3, 2)).tolist(), 0, 0), (ALWAYS_ON, "p", [[7], [-3], [20]], 0, 0)],
        time_steps=4,
        spec=InputSpec((2,), "event", 1),
    )
    frames = list(itertools.product([0, 1], repeat=2))
    samples = [list(map(list, sample)) for sample in itertools.product(frames, repeat=4)]
    reached = potentials(network, samples, tmp_path)["p"]
    low, high = potential_bounds(network)["p"]
    assert (reached >= low).all()
    assert (reached <= high).all()
    negative = low < -128 * 40  # more than one reset can explain: currents took it there
    if law[1] < 4096:  # a potential that is larger hides the current in `reached`, and the reverse
        negative &= np.abs(low) == np.maximum(-low, high)
    assert np.array_equal(reached.min(axis=(0, 1))[negative], low[negative])


def test_negative_currents_add_up_without_leak() -> None:
    """-2 weight units a code of 1 at most: -256 a step, 5 steps; upwards nothing. The initial 0 counts."""
    spec = InputSpec((1,), "graded", 1)
    network = network_of({"p": IntegerNeuron(9, 9, 0, 0, 1.0)}, [(INPUT, "p", [[-2]], 0, 0)], time_steps=5, spec=spec)
    assert bounds_of(network) == ([-1280], [0])


def test_leak_settles_the_lower_bound() -> None:
    """Half is kept: -256, -384, -448, -480, -496."""
    spec = InputSpec((1,), "graded", 1)
    neuron = IntegerNeuron(9, 9, 0, 2048, 1.0)
    network = network_of({"p": neuron}, [(INPUT, "p", [[-2]], 0, 0)], time_steps=5, spec=spec)
    assert bounds_of(network) == ([-496], [0])


def test_reset_to_zero_forgets_what_was_above_the_threshold() -> None:
    """+4 a step against V = 3: u = 512 and a spike in every step; by subtraction it would gain 128 each time."""
    neuron = IntegerNeuron(3, 3, 0, 0, 1.0, "zero")
    assert bounds_of(network_of({"p": neuron}, [(ALWAYS_ON, "p", [[4]], 0, 0)], time_steps=6)) == ([0], [512])


def test_a_decaying_current_adds_up() -> None:
    """-2 a code of 1 at most, half is kept: i = -256, -384, -448, ...; and their sum without leak of the potential."""
    spec = InputSpec((1,), "graded", 1)
    neuron = IntegerNeuron(9, 9, 0, 0, 1.0, "zero", 2048)
    network = network_of({"p": neuron}, [(INPUT, "p", [[-2]], 0, 0)], time_steps=4, spec=spec)
    assert bounds_of(network) == ([-256 - 384 - 448 - 480], [0])


def test_a_current_that_decays_has_24_bits_too() -> None:
    """The potential forgets at once, the current not at all: 127 * 255 * 128 a step, of either sign."""
    neuron = IntegerNeuron(65536, 1, 0, 4095, 1.0, "zero", 1)
    network = network_of({"p": neuron}, [(INPUT, "p", [[127]], 0, 0)], time_steps=3)
    with pytest.raises(PotentialBoundError, match=r'potential or current of population "p": found 1 of 1 neurons'):
        prove(network)
    prove(replace(network, time_steps=2))


def test_constant_current_is_known_exactly_and_resets_are_counted() -> None:
    """+4 a step against V = rho = 3: u = 512, 640, 768, ...: fires in every step and gains 128 each time."""
    network = network_of({"p": IntegerNeuron(3, 3, 0, 0, 1.0)}, [(ALWAYS_ON, "p", [[4]], 0, 0)], time_steps=6)
    assert bounds_of(network) == ([0], [512 + 5 * 128])


def test_reset_can_take_a_potential_below_zero() -> None:
    """V = 2, rho = 10: just above 192 the neuron fires; the next potential can be 193 - 1280."""
    spec = InputSpec((1,), "graded", 3)
    network = network_of({"p": IntegerNeuron(2, 10, 0, 0, 1.0)}, [(INPUT, "p", [[1]], 0, 0)], time_steps=2, spec=spec)
    assert bounds_of(network) == ([193 - 1280], [192 + 3 * 128])


def test_floor_of_a_negative_exponent_is_in_the_bound(tmp_path: Path) -> None:
    """-1 times 2 >> 2 is -0.5, rounded down: -1 unit of 64 a step. Attained."""
    spec = InputSpec((1,), "graded", 1)
    network = network_of({"p": IntegerNeuron(9, 9, 0, 0, 1.0)}, [(INPUT, "p", [[-1]], -2, 0)], time_steps=3, spec=spec)
    assert bounds_of(network) == ([-192], [0])
    assert potentials(network, [[1]], tmp_path)["p"].min() == -192


@pytest.mark.parametrize(("delay", "lowest"), [(1, 3), (2, 2), (4, 0), (9, 0)])
def test_feedback_counts_from_its_delay_on(delay: int, lowest: int) -> None:
    """A neuron that fires in each of 4 steps inhibits another, ``delay`` steps later."""
    neurons = {"q": IntegerNeuron(9, 9, 0, 0, 1.0), "p": IntegerNeuron(1, 1, 0, 0, 1.0)}
    connections = [("p", "q", [[-5]], 0, delay), (ALWAYS_ON, "p", [[1]], 0, 0)]
    assert bounds_of(network_of(neurons, connections, time_steps=4), "q") == ([-640 * lowest], [0])


def test_neurons_that_cannot_fire_send_nothing_and_those_that_must_always_send() -> None:
    """Of three sources the first never fires, the second must, the third may; the second target has a current of 20."""
    neuron = IntegerNeuron(1, 1, 0, 0, 1.0)
    connections = [
        (ALWAYS_ON, "s", [[-1], [1], [0]], 0, 0),
        (INPUT, "s", [[0], [0], [1]], 0, 0),
        ("s", "p", [[100, 10, 1], [-100, -10, -1]], 0, 0),
        (ALWAYS_ON, "p", [[0], [20]], 0, 0),
    ]
    network = network_of(
        {"s": neuron, "p": IntegerNeuron(900, 1, 0, 0, 1.0)},
        connections,
        time_steps=2,
        spec=InputSpec((1,), "event", 1),
    )
    assert bounds_of(network) == ([0, 0], [22 * 128, 20 * 128])
    assert bounds_of(network, "s")[0] == [-256, 0, 65 - 128]


def test_bounds_have_the_shape_of_their_population() -> None:
    network = network_of({"p": IntegerNeuron(3, 3, 0, 0, 1.0)}, [(ALWAYS_ON, "p", [[1]] * 6, 0, 0)], time_steps=2)
    shaped = replace(network, populations=(replace(network.populations[0], shape=(2, 3)),))
    assert [b.shape for b in potential_bounds(shaped)["p"]] == [(2, 3), (2, 3)]


def strongly_inhibited(time_steps: int) -> HardwareNetwork:
    neuron = IntegerNeuron(300, 150, 1, 0, 1.0)
    return network_of({"p": neuron}, [(INPUT, "p", [[3], [-127], [-1]], 0, 0)], time_steps=time_steps)


def test_prove_is_exact_at_the_limit() -> None:
    """-127 * 255 * 128 = -4,145,280 a step: two fit into 24 bits, three do not."""
    prove(strongly_inhibited(2))
    with pytest.raises(PotentialBoundError) as caught:
        prove(strongly_inhibited(3))
    message = str(caught.value)
    assert 'network "n", T = 3: no proof that the state stays in range' in message
    assert 'potential of population "p": found 1 of 3 neurons could leave it' in message
    assert "the worst is neuron 1 with -12435840 .. 0" in message
    assert "allowed: -8388607 .. 8388607 (24 bits)" in message
    assert "use fewer time steps, or a smaller scale" in message


def test_prove_names_sums_beyond_32_bits() -> None:
    spec = InputSpec((1,), "graded", 2**24)
    neuron = IntegerNeuron(3, 3, 0, 0, 1.0)
    network = network_of({"p": neuron}, [(INPUT, "p", [[1], [-127]], -8, 0)], time_steps=1, spec=spec)
    with pytest.raises(
        PotentialBoundError,
        match=r'connection "input-p", doubled weights: found a sum that could reach 4261412864 at neuron 1',
    ):
        prove(network)
    wider = replace(network, input=InputSpec((1,), "graded", 2**31))
    with pytest.raises(PotentialBoundError, match=r"input: found maximum 2147483648; allowed: at most 2147483647"):
        prove(wider)


def test_sums_of_one_step_are_checked_after_alignment() -> None:
    """Two connections of 2**30 units of state each: one alone fits 32 bits, both do not."""
    spec = InputSpec((1,), "graded", 2**17)
    connection = (INPUT, "p", [[64]], 0, 0)
    one = network_of({"p": IntegerNeuron(3, 3, 0, 0, 1.0)}, [connection], time_steps=1, spec=spec)
    two = network_of({"p": IntegerNeuron(3, 3, 0, 0, 1.0)}, [connection] * 2, time_steps=1, spec=spec)
    assert accumulator_violations(one) == []
    (violation,) = accumulator_violations(two)
    assert str(violation) == (
        'population "p", input of one step in units of state: found a sum that could reach 2147483648 at neuron 0; '
        "allowed: at most 2147483647"
    )


def test_reset_counts_in_the_sum_of_one_step() -> None:
    """128 (2**24 - 1) units of state and a reset of 128 are 2**31 downwards; upwards there is no reset."""
    spec = InputSpec((1,), "graded", 2**24 - 1)
    neuron = IntegerNeuron(1, 1, 0, 0, 1.0)
    up, down = (network_of({"p": neuron}, [(INPUT, "p", [[w]], 0, 0)], time_steps=1, spec=spec) for w in (1, -1))
    assert accumulator_violations(up) == []
    assert "could reach 2147483648" in str(accumulator_violations(down)[0])


def test_float_networks_have_no_bound() -> None:
    population = Population("p", (1,), FloatNeuron(1.0, 1.0, 1.0))
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("f", InputSpec((1,), "graded", 1), (population,), (), readout, 3)
    for function in (potential_bounds, prove, accumulator_violations):
        with pytest.raises(NetworkError, match=r'network "f" holds floats: .*quantize it first'):
            function(network)


def drawn(seed: int) -> HardwareNetwork:
    return random_networks.random_network(np.random.default_rng(seed), f"seed {seed}", lava=bool(seed % 2))


def test_bounds_are_those_of_the_unrolled_network() -> None:
    convolutions = partly = 0
    for seed in range(60):
        network = drawn(seed)
        dense = networks.unrolled(network)
        found, expected = potential_bounds(network), potential_bounds(dense)
        for name, pair in expected.items():
            assert np.array_equal(found[name], pair), f"seed {seed}, {name}"
            alone = bounds_alone(network, name)
            assert np.array_equal(alone, bounds_alone(dense, name)), f"seed {seed}, {name} alone"
            assert (alone[0] <= pair[0]).all()
            assert (alone[1] >= pair[1]).all()
            partly += not np.array_equal(alone, pair)
        assert accumulator_violations(network) == accumulator_violations(dense)
        convolutions += sum(not isinstance(c.geometry, Dense) for c in network.connections)
    assert convolutions > 100
    assert partly > 10, "what is known of the others' spikes never matters: products of partial sets were not tried"


@pytest.mark.parametrize("seed", range(0, 32, 2))
def test_no_input_leaves_the_bounds(seed: int, tmp_path: Path) -> None:
    """The reference's potentials under random inputs, the empty one and the fullest one."""
    rng = np.random.default_rng(1000 + seed)
    network = drawn(seed)
    bounds = potential_bounds(network)
    save_network(network, tmp_path / "network.h5")
    read = reference.read(tmp_path / "network.h5")
    event = network.input.kind == "event"
    inputs = random_networks.random_inputs(rng, network)
    inputs = inputs.swapaxes(0, 1) if event else inputs
    extremes = np.stack([np.zeros_like(inputs[0]), np.full_like(inputs[0], network.input.maximum)])
    for sample in np.concatenate([inputs, extremes]):
        _, potentials = reference.simulate(read, sample.reshape(*sample.shape[:event], -1).tolist())
        for p in network.populations:
            low, high = (b.ravel() for b in bounds[p.name])
            reached = np.asarray(potentials[p.name]).reshape(-1, p.size)
            assert (low <= reached).all()
            assert (reached <= high).all()


def test_sums_beyond_float32_are_exact() -> None:
    """139,999 of 140,000 sources fire: 35,559,746, which float32 holds to multiples of 4."""
    sources = 140_000
    constant = np.ones((sources, 1), np.int32)
    constant[7] = -1
    neuron = IntegerNeuron(1, 1, 0, 0, 1.0)
    populations = (Population("s", (sources, 1, 1), neuron), Population("p", (1, 1, 1), neuron))
    connections = (
        Connection("on", ALWAYS_ON, "s", constant, weight_bits=8),
        Connection("c", "s", "p", np.full((1, sources, 1, 1), 127, np.int32), 0, 0, 8, Convolution()),
    )
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("wide", InputSpec((1,), "event", 1), populations, connections, readout, 1)
    assert potential_bounds(network)["p"][1].ravel().tolist() == [64 * 2 * 127 * (sources - 1)]
    assert bounds_alone(network, "p")[1].ravel().tolist() == [64 * 2 * 127 * sources]


@pytest.mark.parametrize(
    ("reach", "expected"), [(2**24 - 1, np.float32), (2**24, np.float64), (2**53 - 1, np.float64), (2**53, np.int64)]
)
def test_type_of_products(reach: int, expected: type) -> None:
    assert exact_dtype(reach) is expected


def test_equal_sets_are_added_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One neuron may fire from the start and one never: over 50 steps, one product for each sign and set."""
    neuron = IntegerNeuron(3, 3, 0, 0, 1.0)
    populations = (Population("s", (2, 1, 1), neuron), Population("p", (1, 1, 1), neuron))
    connections = (
        Connection("in", INPUT, "s", np.array([[4], [-4]], np.int32), 0, 0, 8),
        Connection("c", "s", "p", np.array([5, -6], np.int32).reshape(1, 2, 1, 1), 0, 0, 8, Convolution()),
    )
    readout = Readout("p", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork("n", InputSpec((1,), "event", 1), populations, connections, readout, 50)
    computed: list[int] = []
    original = module._Sums._computed

    def spy(self: Any, senders: Array) -> Array:
        computed.append(int(senders.sum()))
        return original(self, senders)

    monkeypatch.setattr(module._Sums, "_computed", spy)
    low, high = potential_bounds(network)["p"]
    # Just above the threshold 320, less a reset of 384; after that 640 a step, and a reset each time.
    assert (low.item(), high.item()) == (321 - 384, 320 + 640 + 48 * (640 - 384))
    assert sorted(computed) == [0] * 4 + [1] * 4
