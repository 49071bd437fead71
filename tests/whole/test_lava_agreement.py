"""The plain reference, the simulator and Lava fixed_pt give the same spikes on random networks.

Every step and every population is compared, of two samples in a row. A case is drawn again from its seed alone.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from fsnn_lava.backends.lava.chip_limits import hardware_violations
from fsnn_lava.backends.lava.runner import LavaRunner
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.integrating_readout import integrate, integrated_logits
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, HardwareNetwork
from fsnn_lava.hardware.neurons import STATE_LIMIT
from random_networks import Case, Overflow, random_case, reference_potentials, reference_spikes
from shrinking import described, smallest
from side_by_side import run_side_by_side
from simulated import names

NETWORKS = 100

Run = Callable[[HardwareNetwork, Array], Mapping[str, Array]]


def by_simulator(engine: str) -> Run:
    simulator = IntegerSimulator(engine=engine)
    return lambda network, inputs: simulator.run(network, inputs, record=names(network)).spikes


RUNS: dict[str, Run] = {"dense engine": by_simulator("dense"), "event engine": by_simulator("event")}


def all_cases() -> list[Case]:
    return [random_case(seed) for seed in range(NETWORKS)]


def cases_on_lava(*, stock: bool) -> list[list[Case]]:
    """What runs side by side: four that cannot be read out on Lava, twice ten that can, and six that cannot."""
    integrated, others = (
        [case for case in all_cases() if (case.network.readout.integrators is not None) is has] for has in (True, False)
    )
    return [others[stock:8:2], integrated[stock:20:2], integrated[21 - stock : 40 : 2], others[8 + stock : 20 : 2]]


def test_most_populations_fire_without_saturating() -> None:
    shares = [s.mean() for case in all_cases() for s in case.spikes.values()]
    assert np.mean([0.02 < share < 0.98 for share in shares]) > 0.75
    assert 0.2 < np.mean(shares) < 0.4


@pytest.mark.parametrize("stock", [False, True], ids=["our models", "Lava's own"])
def test_networks_on_lava_are_of_every_kind(stock: bool) -> None:
    runs = cases_on_lava(stock=stock)
    assert [len(cases) for cases in runs] == [4, 10, 10, 6]
    networks = [case.network for cases in runs for case in cases]
    assert {len(n.populations) for n in networks} == {1, 2, 3, 4, 5}
    pairs = [(n, c) for n in networks for c in n.connections if c.source != ALWAYS_ON]
    kinds = {(type(c.geometry), n.input.kind if c.source == INPUT else "spikes") for n, c in pairs}
    assert len(kinds) == 9
    kernels = {(type(c.geometry), c.geometry.stride, c.weight.shape[-1]) for _, c in pairs if c.geometry != DENSE}
    assert {kind for kind, stride, side in kernels if side % 2 == 0 and side > stride > 1} == {
        Convolution,
        TransposedConvolution,
    }
    assert {side for kind, _, side in kernels if kind is Convolution} >= {1, 2, 3, 4, 5, 6, 7}
    assert {stride for kind, stride, _ in kernels if kind is Convolution} == {1, 2, 3, 4}
    exponents = {c.weight_exponent for _, c in pairs if isinstance(c.geometry, Convolution) and c.source != INPUT}
    assert exponents == {0, -1, -4, -8}
    delays = [(n.local_delay(c), n.time_steps) for n, c in pairs]
    assert {delay for delay, _ in delays} >= {0, 1, 2, 3, 4}
    assert any(delay >= steps for delay, steps in delays)
    neurons = [p.neuron for n in networks for p in n.populations]
    assert {neuron.decay > 0 for neuron in neurons} == {False, True}
    laws = {(neuron.reset, neuron.has_memory_of_current) for neuron in neurons}
    assert laws == {("subtract", False), ("zero", False), ("zero", True)}
    assert {round(neuron.v_threshold / neuron.reset_amount, 1) for neuron in neurons if neuron.leak == 1} >= {0.5, 1}
    doubled = [{(c.source, c.target) for c in n.connections} for n in networks]
    assert any(len(n.connections) > len(ends) for n, ends in zip(networks, doubled, strict=True))
    assert any(c.source == c.target for _, c in pairs)
    assert not any(hardware_violations(n) for n in networks)


@pytest.mark.parametrize("lava", [True, False], ids=["for Lava", "any"])
@pytest.mark.parametrize("name", RUNS)
def test_same_spikes_on_both_engines(name: str, lava: bool) -> None:
    """Networks that Lava can say, and others: delays of 0, windows in any order, convolutions with an exponent."""
    for seed in range(NETWORKS):
        case = random_case(seed, lava=lava)
        if not equal(RUNS[name](case.network, case.inputs), case.spikes):
            least = smallest(case.network, case.inputs, lambda n, x: differs(RUNS[name], n, x))
            pytest.fail(f"{name}, random_case({seed}, lava={lava}); this is the least that fails:\n{described(*least)}")


@pytest.mark.lava
@pytest.mark.parametrize("run", [0, *(pytest.param(run, marks=pytest.mark.slow) for run in (1, 2, 3))])
@pytest.mark.parametrize("stock", [False, True], ids=["our models", "Lava's own"])
def test_same_spikes_and_logits_on_lava(stock: bool, run: int) -> None:
    """Sixty of the networks; the small test of the readout on Lava is in backends/test_lava_graph.py.

    backends/test_lava_fast_models.py holds the two sets of models against each other.
    """
    cases = cases_on_lava(stock=stock)[run]
    readout = "lava" if run in (1, 2) else "host"
    runner = LavaRunner(stock_models=stock, readout=readout)
    results = run_side_by_side(runner, [c.network for c in cases], [c.inputs for c in cases])
    for case, result in zip(cases, results, strict=True):
        assert equal(result.spikes, case.spikes), f"{runner.name}, {case.network.name}"
        if readout == "lava":
            assert np.array_equal(result.logits, integrated_logits(case.network, reference_potentials(case)))


def test_integrators_are_those_of_the_page() -> None:
    cases = [case for case in all_cases() if case.network.readout.integrators is not None]
    for case in cases:
        network = case.network
        found = integrate(network, case.spikes[network.readout.source])
        assert np.array_equal(found, reference_potentials(case)), network.name
        assert np.abs(found).max() < STATE_LIMIT
    assert {case.network.readout.integrators.parts > 1 for case in cases} == {False, True}


def equal(found: Mapping[str, Array], expected: Mapping[str, Array]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[name], s) for name, s in expected.items())


def differs(run: Run, network: HardwareNetwork, inputs: Array) -> bool:
    try:
        return not equal(run(network, inputs), reference_spikes(network, inputs))
    except Overflow:
        return False
