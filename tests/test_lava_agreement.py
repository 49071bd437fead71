"""Lava fixed_pt, the integer simulator and a plain-Python oracle give the same spikes on random networks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fsnn_lava.backends.lava_runner import LavaRunner
from fsnn_lava.ir import ALWAYS_ON, INPUT
from fsnn_lava.simulator import IntegerSimulator
from lava_cases import random_case

NETWORKS = 200
SIDE_BY_SIDE = 10


def test_most_random_networks_are_neither_silent_nor_saturated() -> None:
    cases = [random_case(seed) for seed in range(NETWORKS)]
    shares = [np.mean([s[p.name].mean() for s in spikes]) for n, _, spikes in cases for p in n.populations]
    assert np.mean([0.02 < share < 0.98 for share in shares]) > 0.6
    kinds = {(c.source == INPUT, n.input.kind) for n, _, _ in cases for c in n.connections if c.weight_exponent < 0}
    assert kinds == {(True, "graded")}
    assert {c.delay for n, _, _ in cases for c in n.connections if c.source != ALWAYS_ON} >= {1, 2, 3, 4, 5}
    assert {len(n.populations) for n, _, _ in cases} == {1, 2, 3}


@pytest.mark.lava
@pytest.mark.parametrize("first", range(0, NETWORKS, SIDE_BY_SIDE))
def test_same_spikes_on_oracle_simulator_and_lava(first: int) -> None:
    """Every step, every population, two samples in a row; a case is drawn again from its seed alone."""
    cases = [random_case(seed) for seed in range(first, first + SIDE_BY_SIDE)]
    results = LavaRunner().run_side_by_side([c[0] for c in cases], [c[1] for c in cases])
    for seed, (network, inputs, expected), lava in zip(itertools.count(first), cases, results, strict=False):
        simulated = IntegerSimulator().run(network, inputs, record=[p.name for p in network.populations])
        for p in network.populations:
            oracles = np.stack([sample[p.name] for sample in expected], axis=1)
            assert np.array_equal(lava.spikes[p.name], oracles), f"Lava, random_case({seed}), population {p.name}"
            assert np.array_equal(simulated.spikes[p.name], oracles), f"simulator, random_case({seed}), {p.name}"
