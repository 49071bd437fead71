"""What the two checks say of arrays, of networks without a record, and of rates made by hand."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import trained
from fsnn_lava.backends import FloatSimulator, IntegerSimulator
from fsnn_lava.config import DeployConfig
from fsnn_lava.conversion.lowering import lower
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.verification.rates import ALPHA, RateCheck, RateDifferences, as_deployed, check_rates, row_effects
from fsnn_lava.verification.structure import (
    OTHER_NUMBERS,
    ArraySummary,
    against_float,
    against_network,
    likeness,
    timing_deviations,
)

WEIGHT = np.random.default_rng(0).integers(-100, 101, (12, 30))
NAMES = ["feedback", "input_to_population1", "population1_current"]


def changed(**rows: Any) -> Array:
    weight = WEIGHT.copy()
    for row, values in rows.items():
        weight[int(row[3:])] = values
    return weight


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (WEIGHT, ""),
        (-WEIGHT, "all signs turned"),
        (changed(row7=-WEIGHT[7]), "signs of row 7 turned"),
        (changed(row0=-WEIGHT[0], row9=-WEIGHT[9]), "signs of row 0, 9 turned"),
        (np.rint(1.1 * WEIGHT), "about 1.1 times as large"),
        (0.5 * WEIGHT, "about 0.5 times as large"),
        (WEIGHT[:, ::-1], OTHER_NUMBERS),
        (np.zeros_like(WEIGHT), "all zero"),
        (changed(row3=WEIGHT[4], row4=WEIGHT[3]), ""),
    ],
)
def test_what_a_difference_looks_like(found: Array, words: str) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, WEIGHT.shape)
    assert likeness(WEIGHT, found) == words
    assert likeness(WEIGHT + noise, found) == words, "of floats that it was rounded from"


def test_a_vector_is_one_row() -> None:
    """One constant current of another sign is no row of weights that was turned."""
    current = WEIGHT[0][:, None]
    found = current.copy()
    found[4] *= -1
    assert likeness(current, found) == ""
    assert likeness(current, -current) == "all signs turned"


def test_summaries_tell_shape_type_and_content_apart() -> None:
    whole = ArraySummary.of(WEIGHT)
    assert whole.digest == ArraySummary.of(WEIGHT.astype(np.int32)).digest, "the same integers"
    others = [WEIGHT.astype(np.float64), WEIGHT.reshape(30, 12), WEIGHT[::-1], changed(row1=WEIGHT[1] + 1)]
    assert len({whole.digest, *(ArraySummary.of(other).digest for other in others)}) == 5
    assert np.array_equal(whole.rows, WEIGHT.sum(axis=1))
    kernels = ArraySummary.of(WEIGHT.reshape(12, 5, 3, 2))
    assert np.array_equal(kernels.columns, WEIGHT.sum(axis=0))


def pair(**config: Any) -> tuple[HardwareNetwork, HardwareNetwork]:
    floating = lower(trained.trained_network("40 (F40)"))
    return floating, quantize(floating, trained.digits().train, config=DeployConfig(**config))[0]


def with_connection(network: HardwareNetwork, name: str, **changes: Any) -> HardwareNetwork:
    connections = [dataclasses.replace(c, **changes) if c.name == name else c for c in network.connections]
    return dataclasses.replace(network, connections=tuple(connections))


def test_sums_in_another_order_are_the_same_network() -> None:
    floating, _ = pair()
    weight = {c.name: c.weight for c in floating.connections}["feedback"]
    near = with_connection(floating, "feedback", weight=weight * (1 + 1e-15))
    assert against_network(floating, near, exactly=False) == []
    assert [d.place for d in against_network(floating, near, exactly=True)] == ["feedback"]
    other = with_connection(floating, "feedback", weight=weight * (1 + 1e-9))
    (found,) = against_network(floating, other, exactly=False)
    assert (found.network, found.element, found.place, found.index is None) == ("float", "weights", "feedback", False)


def test_a_network_that_states_no_errors_is_held_within_steps() -> None:
    floating, integer = pair(weight_bits=4)
    assert against_float(floating, integer, quantization=integer.provenance["quantization"]) == []
    assert against_float(floating, integer, quantization=None) == []
    (feedback,) = (c for c in integer.connections if c.name == "feedback")
    wrong = with_connection(integer, "feedback", weight=-feedback.weight)
    (found,) = against_float(floating, wrong, quantization=None)
    assert (found.place, found.remark) == ("feedback", "all signs turned")


def test_a_float_network_of_other_delays_is_not_in_hardware_timing() -> None:
    floating, _ = pair()
    assert timing_deviations(floating) == []
    (found,) = timing_deviations(with_connection(floating, "feedback", delay=4))
    assert str(found) == "float network, delay of feedback: expected 1, found 4"


# ---- rates -----------------------------------------------------------------------------------------------------

STEPS, NEURONS = 20, 50


def differences(samples: int, *, seed: int, shift: float = 0.0, neuron: float = 0.0) -> Array:
    """Rates a spike apart in one sample of ten, every neuron by `shift` spikes more, neuron 7 by `neuron`."""
    rng = np.random.default_rng(seed)
    apart = rng.choice([-1.0, 0.0, 1.0], (samples, NEURONS), p=[0.05, 0.9, 0.05]) + shift
    apart[:, 7] += neuron
    return np.asarray(apart / STEPS)


def checked(found: Array, *, recorded: Array | None, row: float = 0.0) -> RateCheck:
    effects = {"threshold": np.zeros(NEURONS, np.float32), "feedback": np.full(NEURONS, row / STEPS, np.float32)}
    none = {name: 0 * effect for name, effect in effects.items()}
    return check_rates(
        {"p": 0.5 + found},
        {"p": np.full(found.shape, 0.5)},
        time_steps=STEPS,
        expected=None if recorded is None else {"p": RateDifferences.of(recorded)},
        rounding={"p": 0.1 / STEPS},
        rows={"p": effects},
        expected_rows=None if recorded is None else {"p": none},
        basis="a record",
    )


def test_chance_raises_no_alarm() -> None:
    recorded = differences(256, seed=0)
    for seed in range(200):
        check = checked(differences(5 + seed, seed=1 + seed), recorded=recorded)
        assert check.agrees, seed
        assert check.cause == ""
    assert ALPHA <= 1e-6


def test_one_neuron_that_departs_is_named() -> None:
    check = checked(differences(100, seed=1, neuron=-1.0), recorded=differences(256, seed=0), row=-1.0)
    (p,) = check.populations
    assert not check.agrees
    assert p.departing == 1
    assert p.neuron is not None
    assert p.neuron.neuron == 7
    assert abs(p.neuron.expected) < 0.1
    assert p.neuron.found == pytest.approx(-1.0, abs=0.2)
    assert check.cause.startswith("feedback of p")


def test_all_neurons_a_little_off_are_noticed_where_none_is() -> None:
    check = checked(differences(100, seed=1, shift=0.1), recorded=differences(256, seed=0))
    (p,) = check.populations
    assert not p.agrees
    assert p.departing == 0
    assert p.shift[1] == pytest.approx(0.1, abs=0.02)
    assert check.cause.startswith("neither weights nor constants")


def test_without_a_record_the_limit_is_stated() -> None:
    """Twice the rounding error of 0.1 spikes a window, and a quarter of a spike."""
    (p,) = checked(differences(100, seed=1, shift=0.3), recorded=None).populations
    assert (p.agrees, p.neuron, p.shift[2]) == (True, None, pytest.approx(0.45))
    assert not checked(differences(100, seed=1, shift=0.5), recorded=None).agrees


def test_rounding_predicts_what_it_does() -> None:
    """To first order: of all neurons together, the rows' sum and the measured mean difference go together."""
    floating, integer = pair(weight_bits=4, rounding="nearest", threshold="half")
    codes = trained.digits().train.codes[:200]
    deployed = as_deployed(floating, integer)
    assert deployed.populations[0].neuron.v_threshold == 1.0
    exact = FloatSimulator().run(deployed, codes).firing_rates
    found = IntegerSimulator().run(integer, codes).firing_rates["population1"] - exact["population1"]
    rows = row_effects(deployed, integer, codes, exact)["population1"]
    assert set(rows) == {*NAMES, "threshold", "reset", "leak", "delay"}
    assert not rows["delay"].any()
    assert not rows["leak"].any()
    predicted = np.sum(list(rows.values()), axis=0)
    assert np.corrcoef(predicted, found.mean(axis=0))[0, 1] > 0.8
