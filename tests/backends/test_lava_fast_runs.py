"""Whole runs of Lava: fast models and stock models give the same spikes and the same readout."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fsnn_lava.backends.lava.runner import LavaRunner
from fsnn_lava.hardware.integrating_readout import quantize_readout
from fsnn_lava.hardware.network import IntegerNeuron
from random_networks import Case, random_case

pytestmark = pytest.mark.lava

SEEDS = range(6)


def with_integrators(case: Case) -> Case:
    """The same network, which can be read out on Lava."""
    readout = case.network.readout
    neuron = case.network.population(readout.source).neuron
    assert isinstance(neuron, IntegerNeuron)
    integrators = quantize_readout(readout, decay=neuron.decay, time_steps=case.network.time_steps, weight_bits=8)
    readout = dataclasses.replace(readout, integrators=integrators)
    return case._replace(network=dataclasses.replace(case.network, readout=readout))


def test_fast_models_and_stock_models_give_the_same_spikes() -> None:
    """Networks with all kinds of connections side by side, two samples each."""
    cases = [random_case(seed) for seed in SEEDS]
    networks, inputs = [case.network for case in cases], [case.inputs for case in cases]
    fast = LavaRunner().run_side_by_side(networks, inputs)
    stock = LavaRunner(stock_models=True).run_side_by_side(networks, inputs)
    fired = 0
    for seed, ours, lavas in zip(SEEDS, fast, stock, strict=True):
        for name, spikes in lavas.spikes.items():
            assert np.array_equal(ours.spikes[name], spikes), f"random_case({seed}), population {name}"
            fired += int(spikes.sum())
    assert fired > 1000


def test_the_readout_on_lava_is_the_same_with_fast_models() -> None:
    case = with_integrators(random_case(0))
    fast, stock = (LavaRunner(stock_models=stock, readout="lava").run(*case[:2]) for stock in (False, True))
    assert np.array_equal(fast.logits, stock.logits)
    assert len(np.unique(fast.logits)) > 1
