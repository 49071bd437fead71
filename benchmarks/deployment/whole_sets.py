"""A whole test set in the integer simulator: how long it takes, how much memory, how many it gets right."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.shared.memory import in_own_process, resident
from fsnn_lava.backends import IntegerSimulator
from fsnn_lava.datasets import Samples, time_first
from fsnn_lava.hardware import HardwareNetwork, accuracy

FIRST_SAMPLES = 40
"""Samples of the run that is not counted: enough that the simulator chooses its engine."""


@dataclass(frozen=True)
class SetTime:
    """One run over a test set.

    Parameters
    ----------
    images : how many.
    seconds : of the whole run, from the network and codes in memory to the logits.
    first_s : seconds of the run before it, of a few images, in which machine code is made or read from its cache.
    peak_mib, before_mib : largest resident memory of the process in the run; what it held before, with the images.
    accuracy : share of right answers.
    """

    images: int
    seconds: float
    first_s: float
    peak_mib: float
    before_mib: float
    accuracy: float


def time_set(network: HardwareNetwork, samples: Samples) -> SetTime:
    """Measure one run in a process of its own."""
    return in_own_process(_time_set, network, samples)


def _time_set(network: HardwareNetwork, samples: Samples) -> SetTime:
    codes = time_first(samples.codes)
    few = network.input.take(codes, slice(FIRST_SAMPLES))
    before = resident()
    began = time.perf_counter()
    IntegerSimulator().run(network, few)
    first = time.perf_counter()
    result = IntegerSimulator().run(network, codes)
    seconds = time.perf_counter() - first
    peak = resident(peak=True)
    return SetTime(len(samples), seconds, first - began, peak, before, accuracy(result, samples.labels))
