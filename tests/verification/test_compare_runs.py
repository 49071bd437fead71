"""Relations between runs, the first divergence, and where the deviation comes from."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import trained
from fsnn_lava.backends.simulator import FloatSimulator
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.errors import InputError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork, with_timing
from fsnn_lava.hardware.neurons import FloatNeuron
from fsnn_lava.hardware.run_io import RunResult, rates_from_spikes
from fsnn_lava.verification.agreement import TIE_TOLERANCE, spike_agreement
from fsnn_lava.verification.compare_runs import (
    CLOSE_TOLERANCE,
    Divergence,
    compare,
    compare_all,
)

SHAPES = {"a": (2, 3), "b": (4,)}
STEPS, BATCH = 8, 5


def result(backend: str, arithmetic: Any, spikes: dict[str, Array]) -> RunResult:
    """A run of IF populations that fired so."""
    rates = {name: rates_from_spikes(s, 1.0) for name, s in spikes.items()}
    counts = {name: s.sum(axis=0, dtype=np.int32) for name, s in spikes.items()}
    return RunResult(backend, "net", arithmetic, STEPS, rates, counts, np.zeros((BATCH, 2)), spikes)


def random_spikes(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 2, (STEPS, BATCH, *shape)).astype(np.uint8) for name, shape in SHAPES.items()}


def flipped(spikes: dict[str, Array], *where: tuple[str, int, int, int]) -> dict[str, Array]:
    """The spikes with some inverted: population, step, sample, neuron (counted over its shape)."""
    changed = {name: s.copy() for name, s in spikes.items()}
    for name, step, sample, neuron in where:
        changed[name].reshape(STEPS, BATCH, -1)[step, sample, neuron] ^= 1
    return changed


def test_integer_runs_must_be_exact() -> None:
    spikes = random_spikes()
    pair = compare(result("x", "integer", spikes), result("y", "integer", random_spikes()))
    assert (pair.a, pair.b, pair.relation, pair.agrees) == ("x", "y", "exact", True)
    assert (pair.mean_rate_difference, pair.max_rate_difference, pair.first_divergence) == (0.0, 0.0, None)
    assert "same spikes in every population" in pair.requirement
    pair = compare(result("x", "integer", spikes), result("y", "integer", flipped(spikes, ("b", 7, 4, 3))))
    assert (pair.relation, pair.agrees) == ("exact", False)
    assert pair.first_divergence == Divergence("b", 7, 4, 3)
    assert pair.max_rate_difference == 1 / STEPS
    assert pair.mean_rate_difference == pytest.approx(1 / STEPS / (BATCH * 4))
    assert pair.populations["a"].maximum == 0.0


def test_exact_asks_for_spikes_not_for_rates() -> None:
    """A spike one step earlier leaves every rate as it was."""
    spikes = {"a": np.zeros((STEPS, BATCH, 2), np.uint8)}
    early, late = flipped(spikes, ("a", 2, 1, 0)), flipped(spikes, ("a", 3, 1, 0))
    pair = compare(result("x", "integer", early), result("y", "integer", late))
    assert (pair.agrees, pair.max_rate_difference) == (False, 0.0)
    assert pair.first_divergence == Divergence("a", 2, 1, 0)


@pytest.mark.parametrize(("change", "agrees"), [(0.0, True), (0.9, True), (1.1, False)])
def test_float_runs_must_be_close(change: float, agrees: bool) -> None:
    x = result("x", "float", random_spikes())
    rates = {"a": x.firing_rates["a"], "b": x.firing_rates["b"] + change * CLOSE_TOLERANCE}
    pair = compare(x, dataclasses.replace(x, backend="y", firing_rates=rates))
    assert (pair.relation, pair.agrees) == ("close", agrees)
    assert pair.mean_rate_difference == pytest.approx(change * CLOSE_TOLERANCE)
    assert "0.0001" in pair.requirement


@pytest.mark.parametrize(("change", "agrees"), [(0.0, True), (0.9, True), (1.1, False)])
def test_float_and_integer_must_agree_to_one_spike_on_average(change: float, agrees: bool) -> None:
    x, y = result("x", "float", random_spikes()), result("y", "integer", random_spikes())
    rates = {"a": y.firing_rates["a"] - change / STEPS, "b": y.firing_rates["b"]}
    pair = compare(x, dataclasses.replace(y, firing_rates=rates))
    assert (pair.relation, pair.agrees) == ("statistical", agrees)
    assert "1/T = 0.125" in pair.requirement


def test_silent_network_does_not_agree_however_low_the_rates() -> None:
    """Below a rate of 1/T, silence would be within 1/T."""
    spikes = {name: np.zeros_like(s) for name, s in random_spikes().items()}
    silent = result("y", "integer", spikes)
    for s in spikes.values():
        s[0].reshape(BATCH, -1)[:, 0] = 1
    pair = compare(result("x", "float", spikes), silent)
    assert pair.mean_rate_difference < 1 / STEPS
    assert not pair.agrees
    assert "below 50% of the mean rate" in pair.requirement
    assert compare(silent, dataclasses.replace(silent, backend="z", arithmetic="float")).agrees, "both silent"


def test_runs_that_decide_differently_do_not_agree() -> None:
    x = result("x", "float", random_spikes())
    logits = np.tile([0.0, 1.0], (BATCH, 1))
    pair = compare(x, dataclasses.replace(x, backend="y", arithmetic="integer", logits=logits))
    assert (pair.mean_rate_difference, pair.agrees) == (0.0, False)
    assert "the same class for at least 90% of the samples" in pair.requirement


def test_worst_population_decides() -> None:
    """In the mean over all neurons the difference would be below 1/T."""
    x, y = result("x", "float", random_spikes()), result("y", "integer", random_spikes())
    rates = {"a": y.firing_rates["a"], "b": y.firing_rates["b"] + 1.5 / STEPS}
    pair = compare(x, dataclasses.replace(y, firing_rates=rates))
    assert not pair.agrees
    assert pair.populations["a"].mean == 0.0
    assert pair.mean_rate_difference == pair.populations["b"].mean == pytest.approx(1.5 / STEPS)


def test_runs_of_different_timing_can_only_agree_in_their_rates() -> None:
    """Spikes of another timing differ, and are not even asked for."""
    x, y = (result(name, "integer", random_spikes(seed)) for seed, name in enumerate("xy"))
    y = dataclasses.replace(y, firing_rates=x.firing_rates, spikes={})
    assert compare(x, y, same_timing=False).relation == "statistical"
    assert compare(x, y, same_timing=False).agrees
    torch, floating = (dataclasses.replace(r, arithmetic="float") for r in (x, y))
    assert compare(torch, floating).relation == "close"
    pair, *_ = compare_all([torch, floating], sequential=["x"])
    assert pair.relation == "statistical"
    assert compare_all([torch, floating], sequential=["x", "y"])[0].relation == "close"


def test_all_pairs_in_order() -> None:
    runs = [result("x", "integer", random_spikes()), result("y", "float", random_spikes())]
    runs.append(result("z", "integer", flipped(random_spikes(), ("a", 0, 0, 0))))
    pairs = compare_all(runs)
    assert [(p.a, p.b, p.relation, p.agrees) for p in pairs] == [
        ("x", "y", "statistical", True),
        ("x", "z", "exact", False),
        ("y", "z", "statistical", True),
    ]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([("a", 5, 1, 2), ("b", 3, 4, 0)], Divergence("b", 3, 4, 0)),  # the earliest step, whatever the population
        ([("b", 5, 0, 0), ("a", 5, 4, 5)], Divergence("a", 5, 4, 5)),  # at the same step the first population
        ([("a", 2, 3, 1), ("a", 2, 1, 4)], Divergence("a", 2, 1, 4)),  # then the first sample
        ([("a", 2, 3, 5), ("a", 2, 3, 1)], Divergence("a", 2, 3, 1)),  # then the first neuron
        ([("a", 0, 0, 0)], Divergence("a", 0, 0, 0)),
    ],
)
def test_first_divergence(where: list[tuple[str, int, int, int]], expected: Divergence) -> None:
    spikes = random_spikes()
    pair = compare(result("x", "integer", spikes), result("y", "integer", flipped(spikes, *where)))
    assert pair.first_divergence == expected


def test_divergence_in_words() -> None:
    assert str(Divergence("b", 3, 4, 0)) == 'population "b", step 3, neuron 0 (sample 4)'


def test_populations_that_one_run_did_not_record_are_left_out() -> None:
    spikes = random_spikes()
    x, y = result("x", "float", spikes), result("y", "float", flipped(spikes, ("a", 0, 0, 0), ("b", 4, 2, 1)))
    y = dataclasses.replace(y, spikes={"b": y.spikes["b"]})
    assert compare(x, y).first_divergence == Divergence("b", 4, 2, 1)


def test_refuses_runs_of_other_populations_batches_or_steps() -> None:
    x = result("x", "float", random_spikes())
    fewer = result("y", "float", {name: s[:, :3] for name, s in random_spikes().items()})
    other = result("y", "float", {"a": random_spikes()["a"]})
    for y in (fewer, other, dataclasses.replace(x, backend="y", time_steps=9)):
        with pytest.raises(InputError, match=r'"x" and "y" cannot be compared: .*run the same network on the same'):
            compare(x, y)


def test_refuses_integer_runs_without_spikes() -> None:
    x, y = (result(name, "integer", random_spikes()) for name in "xy")
    y = dataclasses.replace(y, spikes={"a": y.spikes["a"]})
    with pytest.raises(InputError, match='run "y" holds no spikes of b; two integer runs are compared spike by spike'):
        compare(x, y)


def run(network: HardwareNetwork, inputs: Array) -> RunResult:
    return FloatSimulator().run(network, inputs, record=[p.name for p in network.populations])


def with_threshold(network: HardwareNetwork, index: int, v_threshold: float) -> HardwareNetwork:
    """The network with another threshold in one population, and the same reset."""
    populations = list(network.populations)
    neuron = populations[index].neuron
    assert isinstance(neuron, FloatNeuron)
    populations[index] = dataclasses.replace(
        populations[index], neuron=dataclasses.replace(neuron, v_threshold=v_threshold)
    )
    return dataclasses.replace(network, populations=tuple(populations))


@pytest.fixture
def lowered() -> HardwareNetwork:
    return with_timing(
        lower(trained.random_network("12C3-8C3s (F12C3u)", leak=0.95, input_shape=(1, 8, 8))), "hardware"
    )


def test_equal_runs_agree_without_ties(lowered: HardwareNetwork) -> None:
    codes = trained.some_codes(10)
    found = spike_agreement(lowered, codes, run(lowered, codes), run(lowered, codes))
    assert (found.samples, found.ties, found.unexplained, found.agrees) == (10, (), (), True)


@pytest.mark.parametrize("leak", [1.0, 0.95])
@pytest.mark.parametrize("notation", ["30 (F30)", "24-20-16 (F24)"])
def test_the_distance_is_that_of_the_potential(notation: str, leak: float) -> None:
    """With a threshold raised past one potential, that spike is gone; the distance found is how far it was raised."""
    network = lower(trained.random_network(notation, leak=leak))
    codes, last = trained.some_codes(8), len(network.populations) - 1
    threshold = network.populations[last].neuron.v_threshold
    before = run(network, codes)
    raised = run(with_threshold(network, last, threshold * 1.01), codes)
    found = spike_agreement(network, codes, before, raised)
    assert not found.agrees
    assert {d.population for d in found.unexplained} == {network.populations[last].name}
    distances = [d.distance for d in (*found.ties, *found.unexplained)]
    assert len(distances) >= 5  # a few samples may have no potential between both
    # Every first difference is a potential between both thresholds: else the potential was computed wrongly.
    assert 0 < max(distances) <= 0.01 + 1e-12


def test_a_tie_is_listed_and_agrees() -> None:
    """A threshold raised by less than rounding bridges, on a potential that is exactly at it."""
    network = lower(trained.random_network("30 (F30)"), timing="sequential")
    connections = tuple(
        dataclasses.replace(c, weight=np.zeros_like(c.weight) + (1.0 if c.source == "always_on" else 0.0))
        for c in network.connections
    )
    network = dataclasses.replace(network, connections=connections)  # every potential is 1, 2, 1, 2, ...; V_th = 2
    codes = trained.some_codes(3)
    raised = run(with_threshold(network, 0, 2.0 * (1 + 1e-12)), codes)
    found = spike_agreement(network, codes, run(network, codes), raised)
    assert found.agrees
    assert [(d.sample, d.step, d.neuron, d.distance) for d in found.ties] == [(b, 1, 0, 0.0) for b in range(3)]


def test_another_network_is_not_explained(lowered: HardwareNetwork) -> None:
    codes = trained.some_codes(6)
    connections = list(lowered.connections)
    connections[2] = dataclasses.replace(connections[2], weight=connections[2].weight * 1.2)
    other = run(dataclasses.replace(lowered, connections=tuple(connections)), codes)
    found = spike_agreement(lowered, codes, run(lowered, codes), other)
    assert not found.agrees
    assert all(d.distance > TIE_TOLERANCE for d in found.unexplained)


def test_torch_and_the_lowered_network_agree() -> None:
    network = trained.random_network("8C3-8C3 (F8C3)", input_shape=(1, 8, 8))
    floating = with_timing(lower(network), "sequential")
    codes = trained.some_codes(20)
    found = spike_agreement(floating, codes, run(floating, codes), run_torch(network, floating, codes, time_steps=20))
    assert found.agrees
    assert found.samples == 20


def test_inputs_of_another_network_are_refused(lowered: HardwareNetwork) -> None:
    codes = trained.some_codes(4)
    with pytest.raises(InputError, match=r"graded inputs of shape \(4, 8, 8\)"):
        spike_agreement(lowered, codes[:, 0], run(lowered, codes), run(lowered, codes))
