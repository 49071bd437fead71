"""Rounding of single connections, and the reset synapses to choose from, by hand and by counting."""

import numpy as np
import pytest

from fsnn_lava.hardware.currents import mean_floor, real_weight
from fsnn_lava.hardware.geometry import Convolution
from fsnn_lava.hardware.network import Connection
from fsnn_lava.quantization.candidates import pulse_period, reset_synapses, weight_units
from fsnn_lava.quantization.rounding import round_current, round_weights


def test_reset_synapses_are_all_that_eight_bits_and_an_exponent_can_say() -> None:
    """Each value once, rising, with the smallest exponent that its mantissa of 8 bits allows."""
    found = reset_synapses()
    values = [weight_units(reset) for reset in found]
    assert values == sorted({m << e for m in range(1, 256) for e in range(7)})
    assert all(e == 0 or m >= 128 for m, e in found)


@pytest.mark.parametrize("exponent", [0, -1, -2, -3, -8])
def test_mean_loss_by_rounding_down_is_that_of_all_sums(exponent: int) -> None:
    """A sum of whole mantissas times 2**exponent, rounded down to whole half units as `hardware.currents` does."""
    sums = np.arange(-(2**10), 2**10)
    lost = np.ldexp(sums, exponent) - np.floor(np.ldexp(sums, exponent + 1)) / 2
    assert mean_floor(exponent) == lost.mean()


@pytest.mark.parametrize("bits", [4, 8])
def test_kernels_that_are_too_large_are_clipped_to_four_connections(bits: int) -> None:
    """Four connections of b bits reach from -4 * 2**(b - 1) to 4 * (2**(b - 1) - 1), and no further."""
    top = 2 ** (bits - 1) - 1
    weight = np.array([-9.0 * top, 9.0 * top, -4.0 * top - 4, -4.0 * top - 5, 4.0 * top, 1.0]).reshape(6, 1, 1, 1)
    kernels = Connection("c", "a", "b", weight, 1, geometry=Convolution())
    parts, clipped = round_weights(kernels, 1.0, bits=bits, graded=False)
    assert len(parts) == 4
    total = sum(part.weight.astype(np.int64) for part in parts)
    assert total.ravel().tolist() == [-4 * top - 4, 4 * top, -4 * top - 4, -4 * top - 4, 4 * top, 1]
    assert clipped == 3
    assert all(-top - 1 <= part.weight.min() and part.weight.max() <= top for part in parts)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symmetric_mantissas_leave_out_the_most_negative(bits: int) -> None:
    top = (1 << (bits - 1)) - 1
    weight = np.array([-top - 1.0, *[1.0] * 6, top])[:, None]  # another exponent would lose the ones
    for symmetric, lowest, cut in ((False, -top - 1, 0), (True, -top, 1)):
        (part,), clipped = round_weights(
            Connection("c", "a", "b", weight), 1.0, bits=bits, graded=False, symmetric=symmetric
        )
        assert (part.weight_exponent, clipped) == (0, cut)
        assert part.weight.ravel().tolist() == [lowest, *[1] * 6, top]


@pytest.mark.parametrize("period", [1, 4, 16])
def test_pulses_round_a_constant_current_to_parts_of_a_unit(period: int) -> None:
    units = np.random.default_rng(3).uniform(-300, 300, (500, 1))
    float_one = Connection("on", "always_on", "b", units)
    parts, clipped = round_current(float_one, units, period=period)
    assert [part.name for part in parts] == ["on_coarse", "on", "on_pulse"][: 3 if period > 1 else 2]
    assert clipped == 0
    assert np.abs(sum(map(real_weight, parts)) - units).max() <= 0.5 / period
    if period > 1:
        assert (parts[-1].period, parts[-1].weight_exponent) == (period, 0)
        assert np.abs(parts[-1].weight).max() <= period / 2


def test_a_current_of_whole_units_needs_no_pulses() -> None:
    parts, _ = round_current(
        Connection("on", "always_on", "b", np.ones((3, 1))), np.array([[1.0], [-2.0], [0.02]]), period=16
    )
    assert [part.name for part in parts] == ["on"]


@pytest.mark.parametrize(("steps", "period"), [(1, 1), (2, 2), (3, 2), (5, 4), (8, 8), (15, 8), (16, 16), (1000, 16)])
def test_a_period_is_no_longer_than_the_window(steps: int, period: int) -> None:
    assert pulse_period(steps) == period
