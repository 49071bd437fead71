"""By which of several exact ways batches run: the one that took least time, measured again as the firing changes.

Event by event (`BatchRunner`) costs what the spikes cost; by products in 8 bits (`Int8Runner`) it costs what the
machine's multipliers cost, whatever the spikes. Which is faster depends on the network, its firing and the processor.
All give the same spikes, so that what is trained does not depend on the clock; each measurement compares them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fsnn_lava.backends import BatchResult, BatchRunner, BatchWeights
from fsnn_lava.hardware import Array, HardwareNetwork
from fsnn_lava.network import int8_fault
from fsnn_lava.training.integers.int8_run import Int8Runner

EVENT, INT8 = "event", "int8"
AT_LEAST = 100
"""Batches between two measurements."""
CHANGE = 1.3
"""Factor by which the firing changes before there is another."""
OFTEN = 2000
"""Batches after which there is another even so: the machine may have been busy with something else."""


class Way(Protocol):
    """Runs batches; see `BatchRunner`."""

    def run(
        self, inputs: Array, weights: BatchWeights, *, time_steps: int, threads: int, record: Sequence[str] = ()
    ) -> BatchResult:
        """Run a batch."""


@dataclass
class Choice:
    """What was measured for one number of steps and one of samples.

    Parameters
    ----------
    seconds : of a batch, by way.
    firing : spikes per neuron and step then.
    batches : run since.
    """

    seconds: dict[str, float]
    firing: float
    batches: int = 0

    @property
    def fastest(self) -> str:
        """The way that took least time."""
        return min(self.seconds, key=lambda name: self.seconds[name])

    def differs(self, firing: float) -> bool:
        """Whether this firing is another one than it was then."""
        change = max(firing, 1e-9) / max(self.firing, 1e-9)
        return not 1 / CHANGE < change < CHANGE


class MeasuredRunner:
    """Runs batches of an integer network whose weights change from batch to batch, by the way that takes least time.

    Parameters
    ----------
    network, loop_delay : as `BatchRunner` takes them.
    ways : by name; None: all that are exact on this machine.

    Attributes
    ----------
    choices : (T, samples) -> what was measured last.
    """

    def __init__(self, network: HardwareNetwork, *, loop_delay: int, ways: Mapping[str, Way] | None = None) -> None:
        if ways is None:
            ways = {EVENT: BatchRunner(network, loop_delay=loop_delay)}
            if not int8_fault():
                ways = {**ways, INT8: Int8Runner(network, loop_delay=loop_delay)}
        self._ways = ways
        self._samples_axis = 1 if network.input.kind == "event" else 0
        self.choices: dict[tuple[int, int], Choice] = {}

    def run(
        self, inputs: Array, weights: BatchWeights, *, time_steps: int, threads: int, record: Sequence[str] = ()
    ) -> BatchResult:
        """Run a batch; see `BatchRunner.run`."""

        def run(way: str) -> BatchResult:
            return self._ways[way].run(inputs, weights, time_steps=time_steps, threads=threads, record=record)

        key = time_steps, inputs.shape[self._samples_axis]
        choice = self.choices.get(key)
        if choice is None:
            return self._measured(run, key)
        found = run(choice.fastest)
        choice.batches += 1
        if len(self._ways) > 1 and (
            choice.batches >= OFTEN or (choice.batches >= AT_LEAST and choice.differs(_firing(found, time_steps)))
        ):
            self._measured(run, key, found)
        return found

    def _measured(
        self, run: Callable[[str], BatchResult], key: tuple[int, int], found: BatchResult | None = None
    ) -> BatchResult:
        """Run a batch by every way, note the times, and return the result, which must be the one that is found."""
        seconds: dict[str, float] = {}
        for name in self._ways:
            # The first one of a kind makes ready what the second one finds.
            for _ in range(2 if key not in self.choices and len(self._ways) > 1 else 1):
                began = time.perf_counter()
                result = run(name)
                seconds[name] = time.perf_counter() - began
            found = result if found is None else found
            same = (np.array_equal(counts, found.counts[population]) for population, counts in result.counts.items())
            assert all(same), f"{name}: other spikes"
        assert found is not None
        self.choices[key] = Choice(seconds, _firing(found, key[0]))
        return found


def _firing(result: BatchResult, time_steps: int) -> float:
    """Spikes per neuron and step."""
    counts = result.counts.values()
    return float(sum(c.sum() for c in counts)) / sum(c.size for c in counts) / time_steps
