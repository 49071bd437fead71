"""What the simulator's engines cost on a network whose firing rate can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import numpy as np

from benchmarks.shared.timing import medians
from fsnn_lava.backends import EngineName, IntegerSimulator
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Connection,
    Convolution,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Population,
    Readout,
)

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
NEURON = IntegerNeuron(v_threshold=160 << 6, reset_mantissa=160, reset_exponent=6, decay=0, scale=1.0)
CURRENTS = (48, 127)
"""Least and largest mantissa of the driven neurons' currents, to be shifted as the threshold is."""


def driven_network(firing: float, *, time_steps: int) -> HardwareNetwork:
    """A `64C5s (F64C5)` of MNIST's size, in which a share of the neurons is driven by constant currents.

    The weights are too small beside the threshold to make others fire, so the share sets the firing rate.

    Parameters
    ----------
    firing : spikes per neuron and step in the long run; what a window of T steps sees is less, as all start from 0.
    """
    generator = np.random.default_rng(0)
    population = Population("population1", (64, 14, 14), NEURON, 1)
    per_driven = sum(CURRENTS) / 2 / NEURON.reset_mantissa
    driven = generator.random((population.size, 1)) < firing / per_driven
    currents = np.where(driven, generator.integers(*CURRENTS, driven.shape, endpoint=True), 0).astype(np.int32)
    forward, feedback = (generator.integers(-8, 9, (64, c, 5, 5), dtype=np.int32) for c in (1, 64))
    connections = (
        Connection("input_to_population1", INPUT, "population1", forward, 1, -7, 8, Convolution(2, 2)),
        Connection("population1_current", ALWAYS_ON, "population1", currents, 0, NEURON.reset_exponent, 8),
        Connection("feedback", "population1", "population1", feedback, 1, 0, 8, Convolution(1, 2)),
    )
    readout = Readout("population1", generator.normal(size=(10, population.size)), np.zeros(10))
    spec = InputSpec((1, 28, 28), "graded", 255)
    return HardwareNetwork(f"firing {firing}", spec, (population,), connections, readout, time_steps)


def engine_costs(
    points: Sequence[tuple[float, int]], *, images: int, repeats: int, engines: Sequence[EngineName] = ENGINES
) -> list[dict[str, Any]]:
    """For each (firing rate, T): the rate that was measured, and seconds per image with each engine."""
    codes = np.random.default_rng(1).integers(0, 256, (images, 1, 28, 28), dtype=np.uint8)
    found = []
    for firing, time_steps in points:
        network = driven_network(firing, time_steps=time_steps)
        simulators = {engine: IntegerSimulator(engine=engine) for engine in engines}
        counts = simulators["auto"].run(network, codes).spike_counts["population1"]
        seconds = medians({e: partial(s.run, network, codes) for e, s in simulators.items()}, repeats=repeats)
        cost = {engine: took / images for engine, took in seconds.items()}
        rate = float(counts.mean()) / time_steps
        found.append({"firing": rate, "time_steps": time_steps, "seconds_per_image": cost})
    return found
