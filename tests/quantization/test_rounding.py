"""Mantissas: shared by connections, made up for by one another, and what sources are known to send."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, Geometry, Shape, TransposedConvolution
from fsnn_lava.hardware.linear_maps import LinearMap
from fsnn_lava.hardware.network import Connection
from fsnn_lava.quantization import input_correlations, rounding
from fsnn_lava.quantization.input_correlations import from_rows, groups_of, patterns_of, weight_rows
from fsnn_lava.quantization.rounding import MOST_PARTS, round_weights

# geometry, weight, source, target
SHAPES: dict[str, tuple[Geometry, Shape, Shape, Shape]] = {
    "dense": (DENSE, (6, 20), (20,), (6,)),
    "dense on images": (DENSE, (8, 18), (2, 3, 3), (2, 2, 2)),
    "convolution": (Convolution(1, 1), (5, 4, 3, 3), (4, 6, 5), (5, 6, 5)),
    "strided": (Convolution(2, 2), (5, 3, 6, 6), (3, 9, 8), (5, 4, 4)),
    "transposed": (TransposedConvolution(2, 1, 1), (6, 4, 3, 3), (6, 4, 3), (4, 8, 6)),
    "transposed, wide stride": (TransposedConvolution(3, 0, 2), (6, 4, 2, 2), (6, 2, 2), (4, 7, 7)),
    "transposed, stride 1": (TransposedConvolution(1, 1, 0), (6, 4, 3, 3), (6, 4, 4), (4, 4, 4)),
}


def made(kind: str, *, seed: int = 0, samples: int = 40, size: float = 2.0) -> tuple[LinearMap, Array]:
    """Weights of a few units, and rates of the source that rise and fall together, some of them 0."""
    geometry, shape, source, target = SHAPES[kind]
    rng = np.random.default_rng(seed)
    sources = int(np.prod(source))
    mixed = rng.normal(1, 1, (samples, 1)) + rng.normal(size=(samples, sources))
    return LinearMap(geometry, rng.normal(0, size, shape), source, target), np.clip(mixed / 4, 0, 1)


def connection_of(weights: LinearMap) -> Connection:
    return Connection("c", "s", "p", weights.weight, geometry=weights.geometry)


# ---- what sources send ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", SHAPES)
def test_rows_come_back(kind: str) -> None:
    weights, _ = made(kind)
    rows = weight_rows(weights.geometry, weights.weight)
    assert np.array_equal(from_rows(weights.geometry, rows, shape=weights.weight.shape), weights.weight)


@pytest.mark.parametrize("kind", SHAPES)
def test_rows_times_patterns_are_the_currents(kind: str) -> None:
    """Every current is a row's places times one pattern: compared channel by channel, in sorted order."""
    weights, rates = made(kind)
    rows = weight_rows(weights.geometry, weights.weight)
    found = [patterns @ rows[:, places].T for places, patterns in patterns_of(weights, rates)]
    currents = np.concatenate(found)  # (positions and samples, channels)
    expected = weights.product(rates).reshape(len(rates), rows.shape[0], -1).swapaxes(1, 2).reshape(-1, rows.shape[0])
    silent = len(expected) - len(currents)  # a transposed convolution may have targets that nothing reaches
    assert silent == (len(rates) * 24 if kind == "transposed, wide stride" else 0)
    padded = np.vstack([currents, np.zeros((silent, rows.shape[0]))])
    np.testing.assert_allclose(np.sort(padded, axis=0), np.sort(expected, axis=0), atol=1e-5)  # float32


def test_long_rows_have_groups_of_their_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, rates = made("convolution")
    monkeypatch.setattr(input_correlations, "GROUP", 18)
    groups = groups_of(weights, rates)
    assert [sorted(g.places) for g in groups] == [list(range(18)), list(range(18, 36))]


def test_patterns_are_a_few_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, rates = made("convolution")
    ((_, every),) = patterns_of(weights, rates)
    monkeypatch.setattr(input_correlations, "PATTERNS", 100)
    ((_, some),) = patterns_of(weights, rates)
    assert (len(every), len(some)) == (40 * 30, 100)
    assert np.array_equal(some, every[np.linspace(0, 1199, 100).round().astype(int)])


@pytest.mark.parametrize("kind", SHAPES)
def test_factors_are_those_of_the_mean_outer_product(kind: str) -> None:
    """L D L' gives back the mean outer product of the patterns, with a little more on its diagonal."""
    weights, rates = made(kind)
    for group, (places, patterns) in zip(groups_of(weights, rates), patterns_of(weights, rates), strict=True):
        moment = patterns.astype(float).T @ patterns / len(patterns)
        moment += input_correlations.DAMPING * moment.diagonal().mean() * np.eye(len(moment))
        order = np.argsort(places)[np.searchsorted(np.sort(places), group.places)]
        moment = moment[np.ix_(order, order)]
        strengths = np.diag(np.linalg.inv(group.factor.astype(float)) @ moment @ np.linalg.inv(group.factor.T))
        np.testing.assert_allclose(group.factor * strengths @ group.factor.T, moment, atol=1e-4)  # float32
        assert (np.diff(moment.diagonal()) >= 0).all(), "the strongest is rounded first, that is: last in order"


# ---- making up for errors ------------------------------------------------------------------------------
def current_error(weights: LinearMap, mantissa: Array, rates: Array) -> float:
    return float(np.square(weights.with_weight(mantissa - weights.weight).product(rates)).mean())


@pytest.mark.parametrize("kind", SHAPES)
def test_compensated_currents_are_nearer(kind: str) -> None:
    """On the rates that were looked at, and on others of the same kind."""
    gains: dict[str, list[float]] = {"seen": [], "new": []}
    for seed in range(6):
        weights, rates = made(kind, seed=seed, samples=400)
        seen, new = rates[:200], rates[200:]
        nearest, _ = rounding.rounded(connection_of(weights), weights.weight, limits=(-128, 127))
        better, _ = rounding.rounded(
            connection_of(weights), weights.weight, limits=(-128, 127), groups=groups_of(weights, seen)
        )
        assert np.array_equal(nearest, np.rint(weights.weight))
        assert np.array_equal(better, np.rint(better))
        for name, part in (("seen", seen), ("new", new)):
            gains[name].append(current_error(weights, better, part) / current_error(weights, nearest, part))
    assert np.mean(gains["seen"]) < 0.7
    assert np.mean(gains["new"]) < 0.8


def test_each_weight_makes_up_for_those_before_it() -> None:
    """Three sources that are always equal: what counts is the sum of a row, and it is kept to half a unit."""
    rates = np.repeat(np.random.default_rng(0).random((50, 1)), 3, axis=1)
    rows = np.array([[0.4, 0.4, 0.4], [1.3, -0.7, 2.3], [0.5, 0.5, 0.4]])
    weights = LinearMap(DENSE, rows, (3,), (3,))
    found, _ = rounding.rounded(connection_of(weights), rows, limits=(-8, 7), groups=groups_of(weights, rates))
    assert found.sum(axis=1).tolist() == [1, 3, 1]
    assert np.rint(rows).sum(axis=1).tolist() == [0, 2, 0]
    assert (np.abs(found - rows) <= 1).all()


def test_absent_synapses_stay_absent() -> None:
    """A weight of zero makes up for nothing, as those of a pool between two channels; the others share its part."""
    rates = np.random.default_rng(0).random((50, 1)) * [1, 1, 3]  # the last source counts for three
    rows = np.array([[0.0, 0.0, 0.4], [0.0, 0.4, 0.4]])
    weights = LinearMap(DENSE, rows, (3,), (2,))
    found, _ = rounding.rounded(connection_of(weights), rows, limits=(-8, 7), groups=groups_of(weights, rates))
    assert found.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_greedy_choice_by_brute_force() -> None:
    """Five weights: each in its turn is the whole number with which (e L)_j is smallest, the later ones given."""
    rng = np.random.default_rng(1)
    rates = np.clip(rng.normal(0.2, 0.4, (30, 2)) @ rng.normal(size=(2, 5)) + rng.normal(0, 0.1, (30, 5)), 0, 1)
    rows = rng.normal(0, 2, (20, 5))
    weights = LinearMap(DENSE, rows, (5,), (20,))
    (group,) = groups_of(weights, rates)
    found, _ = rounding.rounded(connection_of(weights), rows, limits=(-3, 3), groups=[group])
    error = (found - rows)[:, group.places]
    exact, factor = rows[:, group.places], group.factor.astype(float)
    for j, row in itertools.product(range(5), range(20)):
        later = error[row, j + 1 :] @ factor[j + 1 :, j]
        costs = [abs(q - exact[row, j] + later) for q in range(-3, 4)]
        assert abs(error[row, j] + later) == pytest.approx(min(costs), abs=1e-5)  # float32


def test_more_weights_than_a_block() -> None:
    """Between blocks errors are handed on in one product; the outcome is that of one block."""
    rng = np.random.default_rng(2)
    rates = np.clip(rng.normal(size=(300, 3)) @ rng.normal(size=(3, 150)) / 3, 0, 1)
    rows = rng.normal(0, 3, (4, 150))
    weights = LinearMap(DENSE, rows, (150,), (4,))
    (group,) = groups_of(weights, rates)
    blocks = rounding._compensated(rows[:, group.places], group.factor, (-128, 127))
    errors = np.zeros((4, 150))
    exact, factor = rows[:, group.places], group.factor.astype(float)
    for j in reversed(range(150)):
        errors[:, j] = np.rint(exact[:, j] - errors[:, j + 1 :] @ factor[j + 1 :, j]) - exact[:, j]
    assert np.mean(blocks == np.rint(exact + errors)) > 0.97  # a tie in float32 may fall the other way, and its heirs


@pytest.mark.parametrize("count", [1, rounding._BLOCK + 1])
def test_every_weight_is_held_to_the_limits(count: int) -> None:
    """The one that a block holds alone, too."""
    found = rounding._compensated(np.full((2, count), 900.0), np.eye(count), (-128, 127))
    assert np.array_equal(found, np.full((2, count), 127))


def test_silent_sources_are_rounded_to_the_nearest() -> None:
    weights, rates = made("dense")
    rates[:, ::2] = 0
    found, _ = rounding.rounded(
        connection_of(weights), weights.weight, limits=(-128, 127), groups=groups_of(weights, rates)
    )
    assert np.array_equal(found[:, ::2], np.rint(weights.weight[:, ::2]))
    everything, _ = rounding.rounded(
        connection_of(weights), weights.weight, limits=(-128, 127), groups=groups_of(weights, 0 * rates)
    )
    assert np.array_equal(everything, np.rint(weights.weight))


# ---- exponents and parts -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("largest", "parts", "clipped"), [(127.4, 1, 0), (127.6, 2, 0), (255, 3, 0), (508, 4, 0), (509, 4, 1)]
)
def test_convolutions_from_spikes_are_shared_by_connections(largest: float, parts: int, clipped: int) -> None:
    """At exponent 0 always; the parts add up to the rounded weights."""
    weight = np.linspace(-largest + 3, largest, 54).reshape(3, 2, 3, 3)
    c = Connection("c", "s", "p", weight, geometry=Convolution(1, 1))
    found, cut = round_weights(c, 1.0, bits=8, graded=False)
    assert [f.name for f in found] == ["c", "c_part2", "c_part3", "c_part4"][:parts]
    assert cut == clipped
    assert {(f.weight_exponent, f.weight_bits, f.weight.dtype) for f in found} == {(0, 8, np.dtype(np.int32))}
    assert all(f.weight.min() >= -128 and f.weight.max() <= 127 for f in found)
    assert np.array_equal(sum(f.weight for f in found), np.clip(np.rint(weight), None, 127 * MOST_PARTS))


@pytest.mark.parametrize(("geometry", "graded", "exponent"), [
    (DENSE, False, 3), (TransposedConvolution(2, 1, 1), False, 3), (Convolution(1, 1), True, 3)
])  # fmt: skip
def test_others_have_an_exponent(geometry: Any, graded: bool, exponent: int) -> None:
    weight = np.linspace(-900, 900, 54).reshape((6, 9) if geometry == DENSE else (3, 2, 3, 3))
    c = Connection("c", "s", "p", weight, geometry=geometry)
    (found,), clipped = round_weights(c, 1.0, bits=8, graded=graded)
    assert (found.weight_exponent, clipped, found.name) == (exponent, 0, "c")
    small = dataclasses.replace(c, weight=weight / 1e4)
    (fine,), _ = round_weights(small, 1.0, bits=8, graded=graded)
    assert fine.weight_exponent == (-8 if graded else 0)
