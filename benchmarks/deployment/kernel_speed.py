"""Synaptic operations per second of the event-driven kernels on one core, and how many the machine could do at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np

from benchmarks.shared.timing import medians
from fsnn_lava.hardware import DENSE, Array, Convolution, LinearMap
from fsnn_lava.kernels.spike_sums import ScatterMap, flat_order, gather, nonzero, scatter, scatter_map, sum_dtype

FIRING = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Spikes per neuron and step."""
PATTERNS = 16
"""Steps with spikes at different places."""
OPERATIONS = 2 * 10**8
"""Synaptic operations, or additions, that are timed together."""
RUN = 1024
"""Length of the runs of weights by which the machine's limit is measured."""
CACHED, UNCACHED = 2**14, 2**28
"""Bytes of weights that stay in the nearest cache, and that no cache holds."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function; nothing is kept, since kept code would not notice changes of the kernels inside it."""
    njit: Any = numba.njit(nogil=True)
    machine_code: Callable[..., Any] = njit(function)
    return machine_code


def maps() -> dict[str, LinearMap]:
    """Make the connections that are measured, with 8-bit weights that are not zero."""
    generator = np.random.default_rng(0)

    def weights(*shape: int) -> Array:
        return np.asarray(generator.integers(1, 9, shape) * generator.choice([-1, 1], shape), np.int32)

    halved, kept, wide = Convolution(2, 1), Convolution(1, 1), Convolution(1, 2)
    return {
        "3x3, 256 to 384 channels, stride 2, 16x16": LinearMap(
            halved, weights(384, 256, 3, 3), (256, 16, 16), (384, 8, 8)
        ),
        "3x3, 384 to 384 channels, 8x8": LinearMap(kept, weights(384, 384, 3, 3), (384, 8, 8), (384, 8, 8)),
        "5x5, 64 to 64 channels, 14x14": LinearMap(wide, weights(64, 64, 5, 5), (64, 14, 14), (64, 14, 14)),
        "dense, 400 to 400": LinearMap(DENSE, weights(400, 400), (400,), (400,)),
    }


@dataclass(frozen=True)
class KernelRate:
    """Operations that one core does per second.

    Parameters
    ----------
    firing : spikes per neuron and step.
    operations : synaptic operations per step: a spike at a synapse.
    scatter_per_s : of them, where the places of the spikes are known and the sums stay where they are.
    step_per_s : of them, with all that a step of a connection takes: find the spikes, clear the sums, scatter, and add
        the sums to the current of the target.
    """

    firing: float
    operations: int
    scatter_per_s: float
    step_per_s: float


def kernel_rates(linear_map: LinearMap, *, repeats: int, operations: int, firing: Sequence[float]) -> list[KernelRate]:
    """Measure the rate of one connection at each firing rate; `operations` are timed together."""
    m = scatter_map(linear_map, dtype=np.int8)
    out = np.zeros(m.size, sum_dtype(linear_map))
    current = np.zeros(int(np.prod(linear_map.target)), np.int32)
    fan_out = linear_map.fan_out()[flat_order(linear_map.source)]
    generator = np.random.default_rng(1)
    found = []
    for rate in firing:
        spikes = _patterns(len(fan_out), rate, generator)
        places = np.nonzero(spikes)[1].astype(np.int32)
        ends = spikes.sum(axis=1, dtype=np.int64).cumsum()
        each = int(spikes.astype(np.int64).sum(axis=0) @ fan_out)
        times = max(1, operations // each)
        seconds = medians(
            {
                "scatter": partial(_scatters, places, ends, m, out, times),
                "step": partial(_steps, spikes, m, out, current, times),
            },
            repeats=repeats,
        )
        rates = {name: times * each / took for name, took in seconds.items()}
        found.append(KernelRate(rate, each // PATTERNS, rates["scatter"], rates["step"]))
    return found


def _patterns(neurons: int, rate: float, generator: np.random.Generator) -> Array:
    """(PATTERNS, neurons) uint8 with that share of ones in each, rounded, one at least."""
    spikes = np.zeros((PATTERNS, neurons), np.uint8)
    spikes[:, : max(1, round(rate * neurons))] = 1
    return generator.permuted(spikes, axis=1)


@compiled
def _scatters(spiking: Array, ends: Array, m: ScatterMap, out: Array, times: int) -> None:
    for _ in range(times):
        begin = 0
        for end in ends:
            scatter(spiking[begin:end], end - begin, m, out)
            begin = end


@compiled
def _steps(spikes: Array, m: ScatterMap, out: Array, current: Array, times: int) -> None:
    spiking = np.empty(spikes.shape[1] + 1, np.int32)
    for _ in range(times):
        for pattern in spikes:
            count = nonzero(pattern, spiking)
            out[:] = 0
            scatter(spiking, count, m, out)
            gather(out, m, 1, current)


def addition_limit(size: int, *, repeats: int, additions: int) -> float:
    """Additions per second of int8 weights to int16 sums, four runs of weights at a time, over `size` bytes of them.

    It is what the kernels do, without looking for spikes, and in long runs. These are drawn at random as spikes are;
    where no cache holds them, they follow each other in memory, which is fastest.
    """
    weights = np.ones(max(1, size // RUN) * RUN, np.int8)
    runs, count = len(weights) // RUN, 4 * max(1, additions // RUN // 4)
    drawn = np.arange(count) % runs if size >= UNCACHED else np.random.default_rng(0).integers(0, runs, count)
    begins, out = drawn * RUN, np.zeros(RUN, np.int16)
    return count * RUN / medians({"additions": partial(_add_runs, weights, begins, out)}, repeats=repeats)["additions"]


@compiled
def _add_runs(weights: Array, begins: Array, out: Array) -> None:
    length = len(out)
    for i in range(0, len(begins), 4):
        a, b = weights[begins[i] : begins[i] + length], weights[begins[i + 1] : begins[i + 1] + length]
        c, d = weights[begins[i + 2] : begins[i + 2] + length], weights[begins[i + 3] : begins[i + 3] + length]
        for j in range(length):
            out[j] += a[j] + b[j] + c[j] + d[j]


def measure_kernels(*, repeats: int, quick: bool) -> Mapping[str, Any]:
    """All figures of the kernels, as they are kept."""
    operations = OPERATIONS // 100 if quick else OPERATIONS
    connections = {}
    for name, linear_map in maps().items():
        size = linear_map.weight.size
        rates = kernel_rates(linear_map, repeats=repeats, operations=operations, firing=FIRING)
        connections[name] = {
            "weight_bytes": size,
            "limit_per_s": addition_limit(size, repeats=repeats, additions=operations),
            "rates": [vars(rate) for rate in rates],
        }
    limits = {str(size): addition_limit(size, repeats=repeats, additions=operations) for size in (CACHED, UNCACHED)}
    return {"connections": connections, "additions_per_s": limits}
