"""The neurons' law in 32 bits against the one in 64: the same potentials and spikes wherever nothing leaves 32 bits."""

import numpy as np
import pytest

from fsnn_lava.hardware import DECAY_UNITY, STATE_LIMIT, Array
from fsnn_lava.kernels.compile import compiled
from fsnn_lava.kernels.neuron_step import advance, batch_step, batch_steps, float_batch_steps


@compiled
def step(potential: Array, memory: Array, current: Array, neuron: Array, fired: Array) -> float:
    """Advance neurons by a step."""
    return advance(potential, memory, current, neuron, fired)


@pytest.mark.parametrize("decay", [0, 1, 410, 2048, 4095, 4096])
@pytest.mark.parametrize("threshold", [1, 77, 2**16])
@pytest.mark.parametrize(("to_zero", "keeps"), [(0, 0), (1, 0), (0, 3000), (1, 4095)])
def test_narrow_potentials_are_the_wide_ones(decay: int, threshold: int, to_zero: int, keeps: int) -> None:
    """Every size of potential up to 24 bits, at all remainders of the decay's 12 bits, and currents up to 2**24.

    With memory of the current too, and where a spike resets to zero.
    """
    rng = np.random.default_rng(decay + threshold)
    sizes = np.unique(np.concatenate([2 ** np.arange(24) - 1, 2 ** np.arange(23), [4095, 4096, 4097, STATE_LIMIT]]))
    some = np.concatenate([sizes, -sizes, rng.integers(-STATE_LIMIT, STATE_LIMIT + 1, 20000)])
    some = np.concatenate([some, [64 * (2 * threshold - 1) + k for k in (-1, 0, 1)]])
    current = rng.integers(-(2**24), 2**24, len(some)).astype(np.int32)
    current[::2] = rng.integers(-200, 200, len(current[::2]))
    reset = 0 if to_zero else 128 * threshold
    neuron = np.array([DECAY_UNITY - decay, reset, 64 * (2 * threshold - 1), to_zero - 1, keeps])
    held = rng.permutation(some) if keeps else some[:0]
    found = []
    for kind in (np.int32, np.int64):
        potential, memory, fired = some.astype(kind), held.astype(kind), np.empty(len(some), np.uint8)
        peak = step(potential, memory, current, neuron.astype(kind), fired)
        assert potential.dtype == kind and peak == max(abs(potential).max(), abs(memory).max(initial=0))
        found.append((potential, memory, fired))
    for narrow, wide in zip(*found, strict=True):
        assert np.array_equal(narrow, wide)
    arriving = 64 * current.astype(np.int64)
    if keeps:
        arriving = arriving + np.sign(held) * (abs(held) * keeps >> 12)
        assert np.array_equal(memory, arriving)
    kept = np.sign(some) * (abs(some) * (DECAY_UNITY - decay) >> 12)
    above = some > neuron[2]
    after_reset = np.where(above, 0 if to_zero else kept - 128 * threshold, kept)
    assert np.array_equal(potential, after_reset + arriving)
    assert np.array_equal(fired, potential > neuron[2])


@pytest.mark.parametrize("to_zero", [False, True])
@pytest.mark.parametrize("leaky", [False, True])
def test_several_steps_at_a_time_are_those_one_by_one(leaky: bool, to_zero: bool) -> None:
    """Of some samples alone: the others stay as they are."""
    rng = np.random.default_rng(int(leaky))
    steps, samples, neurons = 5, 4, 300
    neuron = np.array([DECAY_UNITY - 41 * leaky, 0 if to_zero else 128 * 50, 64 * 99, to_zero - 1, 0], np.int32)
    arriving = rng.integers(-300, 400, (steps, samples, neurons)).astype(np.float32)
    drive = rng.integers(-9, 20, (samples, neurons)).astype(np.int32)
    shares = rng.random(steps) if leaky else np.zeros(0)
    state = [np.zeros((samples, neurons), np.int32) for _ in range(2)]  # potential and counts
    rates = np.zeros((samples, neurons) if leaky else (0, 0))
    spikes = np.full((steps, samples, neurons), 7, np.uint8)
    peak = batch_steps(1, 3, arriving, spikes, state[0], drive, state[1], rates, shares, neuron)
    one = [np.zeros((samples, neurons), np.int32) for _ in range(2)]
    expected_rates, fired, peaks = np.zeros_like(rates), np.zeros((samples, neurons), np.uint8), []
    some = slice(1, 3)
    for t in range(steps):
        share = float(shares[t]) if leaky else 0.0
        arrays = one[0], drive, arriving[t], fired, one[1], expected_rates
        potential, *rest = (a[some] for a in arrays)
        peaks.append(batch_step(potential, np.zeros((0, neurons), np.int32), *rest, share, neuron))
        assert np.array_equal(spikes[t, some], fired[some])
    assert peak == max(peaks)
    for found, wanted in zip((*state, rates), (*one, expected_rates), strict=True):
        assert np.array_equal(found, wanted)
    assert (spikes[:, [0, 3]] == 7).all()
    assert 0.1 < spikes[:, some].mean() < 0.9


@pytest.mark.parametrize("to_zero", [False, True])
@pytest.mark.parametrize("leak", [1.0, 0.75])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_several_steps_in_floats_are_the_law(leak: float, kind: type, to_zero: bool) -> None:
    """With numbers that no sum rounds; one current that stays may stand for all steps."""
    rng = np.random.default_rng(0)
    steps, samples, neurons = 6, 3, 200
    upper, lower = (rng.integers(-8, 12, (n, samples, neurons)).astype(kind) / 16 for n in (steps, 1))
    neuron, shares = np.array([leak, 0.0 if to_zero else 0.5, 1.0, not to_zero], kind), np.arange(1.0, steps + 1)
    potential, counts = np.zeros((samples, neurons), kind), np.zeros((samples, neurons), np.uint8)
    spikes, rates = np.empty((steps, samples, neurons), np.uint8), np.zeros((samples, neurons))
    float_batch_steps(0, samples, upper, lower, spikes, potential, counts, rates, shares, neuron)
    v, total, weighted = np.zeros((samples, neurons)), 0, 0.0
    for t in range(steps):
        v = leak * np.where(v >= 1, 0.0 if to_zero else v - 0.5, v) + (upper[t] + lower[0])
        total, weighted = total + (v >= 1), weighted + shares[t] * (v >= 1)
        assert np.array_equal(spikes[t], v >= 1)
    assert np.array_equal(potential, v)
    assert np.array_equal(counts, total)
    assert np.array_equal(rates, weighted)
    assert 0.05 < spikes.mean() < 0.9
