"""The neurons' law in 32 bits against the one in 64: the same potentials and spikes wherever nothing leaves 32 bits."""

import numpy as np
import pytest

from fsnn_lava.hardware import DECAY_UNITY, STATE_LIMIT, Array
from fsnn_lava.kernels.compile import compiled
from fsnn_lava.kernels.neuron_step import advance


@compiled
def step(potential: Array, current: Array, neuron: Array, fired: Array) -> float:
    """Advance neurons by a step."""
    return advance(potential, current, neuron, fired)


@pytest.mark.parametrize("decay", [0, 1, 410, 2048, 4095, 4096])
@pytest.mark.parametrize("threshold", [1, 77, 2**16])
def test_narrow_potentials_are_the_wide_ones(decay: int, threshold: int) -> None:
    """Every size of potential up to 24 bits, at all remainders of the decay's 12 bits, and currents up to 2**24."""
    rng = np.random.default_rng(decay + threshold)
    sizes = np.unique(np.concatenate([2 ** np.arange(24) - 1, 2 ** np.arange(23), [4095, 4096, 4097, STATE_LIMIT]]))
    some = np.concatenate([sizes, -sizes, rng.integers(-STATE_LIMIT, STATE_LIMIT + 1, 20000)])
    some = np.concatenate([some, [64 * (2 * threshold - 1) + k for k in (-1, 0, 1)]])
    current = rng.integers(-(2**24), 2**24, len(some)).astype(np.int32)
    current[::2] = rng.integers(-200, 200, len(current[::2]))
    neuron = np.array([DECAY_UNITY - decay, 128 * threshold, 64 * (2 * threshold - 1)])
    found = []
    for kind in (np.int32, np.int64):
        potential, fired = some.astype(kind), np.empty(len(some), np.uint8)
        peak = step(potential, current, neuron.astype(kind), fired)
        assert potential.dtype == kind and peak == abs(potential).max()
        found.append((potential, fired))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
