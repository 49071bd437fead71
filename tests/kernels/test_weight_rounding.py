"""Weights as whole numbers in one pass, against the same in plain NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fsnn_lava.hardware.geometry import Array
from fsnn_lava.kernels.weight_rounding import round_rows


class Case:
    """Arguments of a call, drawn from a seed."""

    def __init__(self, seed: int, dtype: Any, *, rows: int, columns: int, phases: int, limits: tuple[int, int]) -> None:
        rng = np.random.default_rng(seed)
        self.weight = rng.normal(0, 0.7, (rows, columns)).astype(dtype)
        self.factor = rng.uniform(0.5, 2 * limits[1], columns).astype(dtype)
        self.offset = rng.normal(0, 0.4, (rows, columns)).astype(dtype)
        self.shrunk = np.where(rng.random(rows) < 0.5, 1.0, rng.uniform(0.1, 1.0, rows)).astype(dtype)
        self.limits = np.array(limits, dtype)
        inner = np.sort(rng.integers(0, columns + 1, phases - 1))  # phases may be empty
        self.starts = np.array([0, *inner, columns], np.int64)

    def compiled(self, into: Any = np.int32, which: Sequence[int] | None = None) -> tuple[Array, Array, Array, Array]:
        """Mantissas, the weights that they stand for, excess and sums; every place holds something else before."""
        shape = self.weight.shape
        mantissa, value, excess = np.full(shape, 77, into), np.full_like(self.weight, 7), np.full(shape, 5, np.int8)
        sums = np.full((len(self.weight), len(self.starts) - 1, 2), -99, np.int64)
        rows = np.arange(len(self.weight)) if which is None else np.array(which)
        arrays = self.weight, self.factor, self.step, self.offset, self.shrunk, self.limits, self.starts, rows
        round_rows(*arrays, mantissa, value, excess, sums)
        return mantissa, value, excess, sums

    @property
    def step(self) -> Array:
        """What a step of the mantissa is."""
        return np.asarray(1 / self.factor)

    def plain(self) -> tuple[Array, Array, Array, Array]:
        """The same, one product after the other, in the type of the weight."""
        units = (self.weight * self.factor + self.offset) * self.shrunk[:, None]
        assert units.dtype == self.weight.dtype
        whole = np.rint(units)
        low, high = self.limits
        mantissa = np.clip(whole, low, high).astype(np.int64)
        excess = (whole > high).astype(int) - (whole < low).astype(int)
        phases = [mantissa[:, a:b] for a, b in zip(self.starts, self.starts[1:], strict=False)]
        sums = [(np.minimum(p, 0).sum(axis=1), np.maximum(p, 0).sum(axis=1)) for p in phases]
        return mantissa, mantissa.astype(self.weight.dtype) * self.step, excess, np.moveaxis(np.array(sums), -1, 0)


LIMITS = [(-128, 127), (-127, 127), (-2, 1), (-1, 1), (-8, 7), (-512, 508)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    columns=st.integers(1, 70),
    phases=st.sampled_from([1, 4]),
    limits=st.sampled_from(LIMITS),
)
def test_is_what_numpy_does(
    dtype: Any, seed: int, rows: int, columns: int, phases: int, limits: tuple[int, int]
) -> None:
    case = Case(seed, dtype, rows=rows, columns=columns, phases=phases, limits=limits)
    (mantissa, value, excess, sums), (whole, stands_for, outside, totals) = case.compiled(), case.plain()
    # A product and a sum may be one operation in compiled code: where the last bit decides, a neighbour is right too.
    units = (case.weight.astype(np.longdouble) * case.factor + case.offset) * case.shrunk[:, None]
    tie = np.abs(np.abs(units - np.floor(units)) - 0.5) < 1e-6 * limits[1] * (1 if dtype is np.float32 else 1e-9)
    assert tie.sum() <= 2
    if not tie.any():
        assert np.array_equal(mantissa, whole)
        assert np.array_equal(excess, outside)
        assert np.array_equal(sums, totals)
        assert np.array_equal(value, stands_for)
    assert np.array_equal(mantissa[~tie], whole[~tie])


def test_cases_are_of_every_kind() -> None:
    """Numbers beyond both limits, within, in shrunk rows and others, and sums of either sign in all four phases."""
    case = Case(1, np.float32, rows=6, columns=60, phases=4, limits=(-128, 127))
    mantissa, _, excess, sums = case.compiled()
    assert set(np.unique(excess)) == {-1, 0, 1}
    assert 0 < np.count_nonzero(excess) < mantissa.size
    assert {float(s) < 1 for s in case.shrunk} == {True, False}
    assert (sums[..., 0] < 0).all()
    assert (sums[..., 1] > 0).all()


@pytest.mark.parametrize("into", [np.int16, np.int32])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_numbers(dtype: Any, into: Any) -> None:
    """Halves go to the even number; a number at a limit is within it; a shrunk row is rounded after it was shrunk."""
    case = Case(0, dtype, rows=2, columns=6, phases=1, limits=(-2, 1))
    case.weight = np.array([[0.5, 1.5, 1.0, -2.5, -2.6, 0.0], [2.0, 3.0, 4.0, -4.0, -6.0, 0.6]], dtype)
    case.factor = np.array([1, 1, 1, 1, 1, 10], dtype)
    case.offset = np.array([[0, 0, 0, 0, 0, 0.4], [0, 0, 0, 0, 0, -4.0]], dtype)
    case.shrunk = np.array([1.0, 0.5], dtype)
    case.starts = np.array([0, 2, 2, 6], np.int64)
    mantissa, value, excess, sums = case.compiled(into)
    assert mantissa.tolist() == [[0, 1, 1, -2, -2, 0], [1, 1, 1, -2, -2, 1]]
    assert excess.tolist() == [[0, 1, 0, 0, -1, 0], [0, 1, 1, 0, -1, 0]]
    assert sums.tolist() == [[[0, 1], [0, 0], [-4, 1]], [[0, 2], [0, 0], [-4, 2]]]
    assert np.array_equal(value, mantissa * np.array([1, 1, 1, 1, 1, 0.1], dtype))
    assert mantissa.dtype == into


def test_other_rows_stay_as_they_are() -> None:
    case = Case(2, np.float32, rows=5, columns=20, phases=4, limits=(-8, 7))
    some, all_rows = case.compiled(which=[3, 1]), case.compiled()
    for found, wanted, before in zip(some, all_rows, (77, 7, 5, -99), strict=True):
        assert np.array_equal(found[[1, 3]], wanted[[1, 3]])
        assert (found[[0, 2, 4]] == before).all()
