"""How long a network takes on Lava: a step, an image, and the start."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fsnn_lava.backends import IntegerSimulator, LavaRunner
from fsnn_lava.hardware import Array, HardwareNetwork

SILENCE_S = 600.0
"""Longest time in which Lava may finish no step."""


@dataclass(frozen=True)
class LavaTime:
    """One run on Lava.

    Parameters
    ----------
    samples, time_steps : of the run.
    sample_steps : steps that a sample takes: T, and the shifts of the populations' windows.
    step_s : seconds of a step: the time between the first and the last finished sample over the steps in between.
    start_s : seconds before the first step: the graph is built, processes are started, code is compiled.
    spikes_per_step : of all populations.
    identical : whether all spike counts are the simulator's.
    """

    samples: int
    time_steps: int
    sample_steps: int
    step_s: float
    start_s: float
    spikes_per_step: float
    identical: bool


def time_lava(network: HardwareNetwork, inputs: Array, *, stock_models: bool) -> LavaTime:
    """Time a run on Lava's bit-accurate models, with Lava's own models of its processes or with ours.

    Parameters
    ----------
    inputs : two samples or more: the start is told from the steps by the moments at which samples are finished.
    """
    stamps: list[tuple[float, int]] = []
    runner = LavaRunner(stock_models=stock_models, timeout_s=SILENCE_S)
    began = time.perf_counter()
    result = runner.run(network, inputs, progress=lambda done, _: stamps.append((time.perf_counter(), done)))
    sample_steps = max(p.start for p in network.populations) + network.time_steps
    (first_at, first), (last_at, last) = stamps[0], stamps[-1]
    step_s = (last_at - first_at) / ((last - first) * sample_steps)
    expected = IntegerSimulator().run(network, inputs).spike_counts
    spikes = sum(int(counts.sum(dtype=np.int64)) for counts in result.spike_counts.values())
    return LavaTime(
        samples=last,
        time_steps=network.time_steps,
        sample_steps=sample_steps,
        step_s=step_s,
        start_s=first_at - began - first * sample_steps * step_s,
        spikes_per_step=spikes / (last * sample_steps),
        identical=all(np.array_equal(counts, expected[name]) for name, counts in result.spike_counts.items()),
    )
