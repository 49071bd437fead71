"""Any graph of populations on its way to hardware: lowered, quantized and proven, simulated, on Lava, verified."""

import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fsnn_lava.backends.lava.runner import LavaRunner
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.cli import evaluate, export, run, train, verify
from fsnn_lava.config import ConnectionConfig, NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.conversion.nir_read import read_nir
from fsnn_lava.conversion.nir_write import write_nir
from fsnn_lava.datasets import InputCoding, load_dataset
from fsnn_lava.hardware import Array, HardwareNetwork
from fsnn_lava.hardware.overflow_proof import prove
from fsnn_lava.network import equilibrium_rates
from fsnn_lava.quantization import quantize
from fsnn_lava.training import BEST, fit, load_checkpoint
from fsnn_lava.training.checkpoint import TrainedNetwork
from random_graphs import random_graph, random_graph_network
from side_by_side import run_side_by_side
from simulated import names

GRAPHS = range(300)
STEPS = 8
SAMPLES = 2


@functools.cache
def trained_graph(seed: int) -> tuple[TrainedNetwork, Array]:
    """A network of random weights as if it had been trained, and codes or event frames for it."""
    config, shape = random_graph(seed, image=True)
    config, events = replace(config, time_steps=STEPS), seed % 3 == 0
    channels = shape[0]
    coding = InputCoding("graded", 255, 1 / 255, (0.3,) * channels, (0.4,) * channels)
    coding = InputCoding("event", 1, 1.0, (0.0,) * channels, (1.0,) * channels) if events else coding
    timing = ("sequential", "hardware")[seed % 2]
    settings = TrainConfig(name=f"graph{seed}", network=config, training=TrainingConfig(seed=seed, timing=timing))
    weights = {name: value.float() for name, value in random_graph_network(seed, image=True).state_dict().items()}
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (SAMPLES, *shape)) if not events else rng.random((STEPS, SAMPLES, *shape)) < 0.4
    return TrainedNetwork(settings, shape, ("a", "b", "c"), coding, weights, {}), codes.astype(np.uint8)


def test_lowered_network_fires_as_the_trained_one() -> None:
    """In both timings, every spike of every population."""
    shares = []
    for seed in GRAPHS:
        trained, codes = trained_graph(seed)
        for timing in ("sequential", "hardware"):
            lowered = lower(trained, timing=timing)
            expected = run_torch(trained, lowered, codes, time_steps=STEPS, timing=timing)
            found = FloatSimulator().run(lowered, codes, record=names(lowered))
            for name, spikes in expected.spikes.items():
                assert np.array_equal(spikes, found.spikes[name]), (seed, timing, name)
                shares.append(spikes.mean())
            # Sums of float64 in another order.
            np.testing.assert_allclose(expected.logits, found.logits, rtol=0, atol=1e-10)
    assert np.mean([0.02 < share < 0.98 for share in shares]) > 0.7


def test_equilibrium_is_that_of_the_trained_network() -> None:
    for seed in range(0, 300, 5):
        trained, codes = trained_graph(seed)
        lowered = lower(trained)
        found = equilibrium_rates(lowered, codes, tolerance=1e-11)
        model = trained.model().double()
        x = torch.from_numpy(trained.coding.decode(codes, np.float64))
        bound = model.bind_to(x)
        rates = [torch.from_numpy(found.firing_rates[name]) for name in names(lowered)]
        with torch.no_grad():
            around = bound.rates_around(rates, bound.drive(x, time_steps=STEPS).mean)
        for name, rate in zip(names(lowered), around, strict=True):
            np.testing.assert_allclose(found.firing_rates[name], rate.numpy(), rtol=0, atol=1e-9, err_msg=str(seed))


@functools.cache
def quantized(seed: int) -> tuple[HardwareNetwork, Array]:
    """The network in integers and its inputs; connections that lose much of their weights are kept."""
    trained, codes = trained_graph(seed)
    integer, _ = quantize(lower(trained), codes, keep_lost=True)
    return integer, codes


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.slow) for first in (30, 60, 90))])
def test_integers_are_proven_and_both_engines_agree(first: int) -> None:
    for integer, codes in map(quantized, range(first, first + 30)):
        prove(integer)
        runs = [
            IntegerSimulator(engine=engine).run(integer, codes, record=names(integer)) for engine in ("event", "dense")
        ]
        for name in names(integer):
            assert np.array_equal(runs[0].spikes[name], runs[1].spikes[name]), (integer.name, name)


@pytest.mark.lava
@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.slow) for first in range(10, 300, 10))])
def test_same_spikes_on_lava(first: int) -> None:
    cases = [quantized(seed) for seed in range(first, first + 10)]
    results = run_side_by_side(LavaRunner(), [network for network, _ in cases], [codes for _, codes in cases])
    fired = 0
    for (network, codes), result in zip(cases, results, strict=True):
        expected = IntegerSimulator().run(network, codes, record=names(network))
        for name in names(network):
            assert np.array_equal(expected.spikes[name], result.spikes[name]), (network.name, name)
            fired += int(expected.spikes[name].sum())
    assert fired > 300


def test_nir_keeps_any_graph(tmp_path: Path) -> None:
    for seed in range(0, 300, 12):
        trained, codes = trained_graph(seed)
        lowered = lower(trained)
        write_nir(lowered, tmp_path / f"{seed}.nir")
        again = read_nir(tmp_path / f"{seed}.nir")
        expected = FloatSimulator().run(lowered, codes, record=names(lowered))
        found = FloatSimulator().run(again, codes, record=names(again))
        for name in names(lowered):
            assert np.array_equal(found.spikes[name], expected.spikes[name]), (seed, name)


def test_a_chain_written_as_a_graph_trains_to_the_same_bits(tmp_path: Path) -> None:
    """`200 (F200)`, once in the notation and once as two connections."""
    short = {"epochs": 1, "milestones": (), "threads": 1}
    chain = NetworkConfig("200 (F200)", time_steps=10)
    graph = NetworkConfig("", (ConnectionConfig("input", "a", "200"), ConnectionConfig("a", "a", "200")), time_steps=10)
    data, found = load_dataset("digits"), []
    for name, network in (("chain", chain), ("graph", graph)):
        (tmp_path / name).mkdir()
        fit(TrainConfig(name=name, network=network, training=TrainingConfig(**short)), data, tmp_path / name)
        found.append(load_checkpoint(tmp_path / name / BEST).weights)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.lava
@pytest.mark.slow
def test_two_loops_with_a_skip_from_training_to_lava(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the commands alone: at least 95 % on digits, and the same spikes in torch, in the simulator and on Lava."""
    where = ["--run", str(tmp_path / "digits_loops")]
    assert train.main(["--config", "digits_loops", "--runs", str(tmp_path)]) == 0
    trained = load_checkpoint(tmp_path / "digits_loops" / BEST)
    assert trained.metrics["best_test_accuracy"] >= 0.95
    assert evaluate.main([*where]) == 0
    assert "at the equilibrium the loop's gain is" in capsys.readouterr().out
    assert export.main([*where, "--to", "lava"]) == 0
    assert run.main([*where, "--samples", "360"]) == 0
    assert re.search(r"accuracy 9[5-9]|accuracy 100", capsys.readouterr().out)
    assert verify.main([*where, "--samples", "10", "--backends", "torch", "simulator", "lava-fixed"]) == 0
    out = capsys.readouterr().out
    assert "Verified: all three checks hold." in out
