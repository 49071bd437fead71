"""Networks of SPIDE on their way to hardware: threshold half the reset amount, pools that spike, no batch norm."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import trained
from feedback_networks import SPIDE, constants
from fsnn_lava.backends.lava.runner import LavaRunner
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.cli import export, verify
from fsnn_lava.config import DeployConfig, NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.datasets import InputCoding
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork
from fsnn_lava.hardware.network_file import load_network, save_network
from fsnn_lava.network.equilibrium import equilibrium_rates
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.quantization.report import QuantizationReport
from fsnn_lava.quantization.scales import parts_of
from fsnn_lava.training import BEST, fit
from fsnn_lava.training.checkpoint import TrainedNetwork, load_checkpoint, new_model
from fsnn_lava.verification.compare_runs import compare_all
from fsnn_lava.verification.error_budget import error_budget
from random_networks import reference_spikes
from side_by_side import run_side_by_side
from simulated import names

T = 20
ON_LAVA = ["16-12-10 (F16)", "4C3s-4C3s (F4C3u)", "3C3-P2-4C3-P2-10", "3C3-P2 (F3C3u)"]
NOTATIONS = ["20 (F20)", "16-12 (F16)", *ON_LAVA, "3C3-P4-6"]
NETWORKS = [(notation, leak) for notation in NOTATIONS for leak in (1.0, 0.95)]
every_network = pytest.mark.parametrize(("notation", "leak"), NETWORKS)


def spide_config(notation: str, leak: float) -> NetworkConfig:
    """What SPIDE trains, but for the small initial feedback: here it shall matter."""
    neuron = FloatNeuron(1.0, 2.0, leak)
    return NetworkConfig(notation, **constants(neuron), time_steps=T, pooling="spiking", **SPIDE)


@functools.cache
def spide_network(
    notation: str, leak: float, *, shape: tuple[int, ...] = (1, 8, 8), coding: InputCoding | None = None
) -> TrainedNetwork:
    """Initial weights, and biases drawn so that every population fires; for 8x8 digits unless it is said otherwise."""
    config = TrainConfig(name="spide", network=spide_config(notation, leak), training=TrainingConfig(seed=3))
    generator = torch.Generator().manual_seed(5)
    weights = {
        name: 0.4 * torch.randn(tensor.shape, generator=generator) + 0.3
        if name.startswith("feedforward") and name.endswith("bias")
        else tensor
        for name, tensor in new_model(config, shape, 10).state_dict().items()
    }
    return TrainedNetwork(config, shape, tuple("0123456789"), coding or trained.digits().coding, weights)


@functools.cache
def quantized(notation: str, leak: float) -> tuple[HardwareNetwork, HardwareNetwork, QuantizationReport]:
    """The float and the integer network in hardware timing, and the report."""
    floating = lower(spide_network(notation, leak))
    return floating, *quantize(floating, trained.digits().train.codes[:64])


@functools.cache
def event_network(leak: float) -> tuple[TrainedNetwork, HardwareNetwork, HardwareNetwork, Array]:
    """One as for CIFAR10-DVS, small: trained, float and integer in hardware timing; and frames (T, B, 2, 8, 8)."""
    coding = InputCoding("event", 1, 1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    network = spide_network("6C5s (F6C3)", leak, shape=(2, 8, 8), coding=coding)
    frames = (np.random.default_rng(2).random((T, 40, 2, 8, 8)) < 0.2).astype(np.uint8)
    floating = lower(network)
    return network, floating, quantize(floating, frames)[0], frames


def assert_fires(spikes: Array, name: str) -> None:
    assert 0.02 < spikes.mean() < 0.98, f"{name} is silent or saturated: the test says nothing"


@every_network
def test_float_network_fires_as_the_trained_one(notation: str, leak: float) -> None:
    network = spide_network(notation, leak)
    lowered = lower(network)
    codes = trained.some_codes()
    expected = run_torch(network, lowered, codes, time_steps=T, timing="hardware")
    found = FloatSimulator().run(lowered, codes, record=names(lowered))
    for name, spikes in expected.spikes.items():
        assert np.array_equal(spikes, found.spikes[name]), name
        assert_fires(spikes, name)


@every_network
def test_simulator_fires_as_the_page_says(notation: str, leak: float) -> None:
    """The reference reads the file, which carries threshold and reset of every population."""
    _, integer, _ = quantized(notation, leak)
    codes = trained.some_codes(6)
    expected = reference_spikes(integer, codes)
    found = IntegerSimulator().run(integer, codes, record=names(integer)).spikes
    for name, spikes in expected.items():
        assert np.array_equal(found[name], spikes), name
        assert_fires(spikes, name)


@pytest.mark.lava
@pytest.mark.parametrize("leak", [1.0, pytest.param(0.95, marks=pytest.mark.slow)], ids=["IF", "LIF"])
def test_lava_fires_as_the_simulator(leak: float) -> None:
    """Also where the input is event frames."""
    jobs = [(quantized(notation, leak)[1], trained.some_codes(4)) for notation in ON_LAVA]
    jobs.append((event_network(leak)[2], event_network(leak)[3][:, :4]))
    networks, inputs = zip(*jobs, strict=True)
    found = run_side_by_side(LavaRunner(), networks, inputs)
    for (network, codes), result in zip(jobs, found, strict=True):
        expected = IntegerSimulator().run(network, codes, record=names(network)).spikes
        for name, spikes in expected.items():
            assert np.array_equal(result.spikes[name], spikes), (str(network.provenance["config"]["network"]), name)


@pytest.mark.lava
def test_lavas_own_models_fire_as_the_simulator() -> None:
    networks = [quantized(notation, 0.95)[1] for notation in ("4C3s-4C3s (F4C3u)", "3C3-P2-4C3-P2-10")]
    codes = trained.some_codes(2)
    found = run_side_by_side(LavaRunner(stock_models=True), networks, [codes] * len(networks))
    for network, result in zip(networks, found, strict=True):
        expected = IntegerSimulator().run(network, codes, record=names(network)).spikes
        assert all(np.array_equal(result.spikes[name], spikes) for name, spikes in expected.items())


@pytest.mark.parametrize("leak", [1.0, 0.95])
def test_event_frames_are_taken_too(leak: float) -> None:
    network, floating, integer, frames = event_network(leak)
    some = frames[:, :6]
    expected = run_torch(network, floating, some, time_steps=T).spikes["population1"]
    assert np.array_equal(FloatSimulator().run(floating, some, record=["population1"]).spikes["population1"], expected)
    assert_fires(expected, "population1")
    spikes = reference_spikes(integer, some)["population1"]
    assert np.array_equal(IntegerSimulator().run(integer, some, record=["population1"]).spikes["population1"], spikes)


@pytest.mark.parametrize(("notation", "leak"), [("16-12 (F16)", 0.95), ("3C3-P2-4C3-P2-10", 1.0)])
def test_file_keeps_threshold_and_reset_apart(notation: str, leak: float, tmp_path: Path) -> None:
    floating, integer, _ = quantized(notation, leak)
    for network in (floating, integer):
        save_network(network, tmp_path / "network.h5")
        loaded = load_network(tmp_path / "network.h5")
        assert loaded.populations == network.populations
    assert {(p.neuron.v_threshold, p.neuron.reset_amount) for p in floating.populations} == {(1.0, 2.0)}


@every_network
def test_threshold_is_half_the_reset_as_trained(notation: str, leak: float) -> None:
    """So that the option that halves it changes nothing."""
    floating, integer, _ = quantized(notation, leak)
    for population in integer.populations:
        neuron = population.neuron
        assert neuron.v_threshold == round(neuron.reset_amount / 2)
        assert neuron.reset_amount > 100, "so coarse that rounding the threshold to a whole unit would matter"
    halved, _ = quantize(floating, trained.digits().train.codes[:64], config=DeployConfig(threshold="half"))
    assert halved.populations == integer.populations
    assert all(np.array_equal(a.weight, b.weight) for a, b in zip(halved.connections, integer.connections, strict=True))


@pytest.mark.parametrize("leak", [1.0, 0.95])
@pytest.mark.parametrize(("notation", "pools"), [("3C3-P2-4C3-P2-10", (2, 4)), ("3C3-P4-6", (2,))])
def test_pools_average_exactly(notation: str, pools: tuple[int, ...], leak: float) -> None:
    """A quarter or a sixteenth of the reset can be a whole number, and the search finds one: IF pools lose nothing.

    Of a LIF neuron it can not, so that the weights of a window share what is left; no channel gets into another.
    """
    _, integer, report = quantized(notation, leak)
    for number in pools:
        incoming = integer.incoming(f"population{number}")
        total = sum(c.weight.astype(np.int64) << c.weight_exponent for c in incoming)
        window = int(notation.split("P")[1][0])
        neuron = integer.population(f"population{number}").neuron
        own = np.eye(len(total), dtype=bool)
        assert not total[~own].any()
        exact = neuron.reset_amount / (2 * window**2)
        if leak == 1:
            assert np.array_equal(np.unique(total[own]), [exact])
        assert np.abs(total[own] - exact).max() <= 1
        assert not any(c.source == "always_on" for c in incoming)
        assert report.populations[f"population{number}"].mean_rate_error < 1e-3


@every_network
def test_verification_finds_the_relations_of_any_network(notation: str, leak: float) -> None:
    network = spide_network(notation, leak)
    floating, integer, _ = quantized(notation, leak)
    codes, labels = trained.some_codes(40), trained.digits().test.labels[:40]
    several = len(integer.populations) > 1
    record = names(integer)
    runs = [
        run_torch(network, floating, codes, time_steps=T),
        FloatSimulator().run(floating, codes, record=record),
        IntegerSimulator().run(integer, codes, record=record),
    ]
    pairs = compare_all(runs, sequential=("torch",) if several else ())
    assert [pair.relation for pair in pairs] == ["statistical" if several else "close", "statistical", "statistical"]
    assert pairs[2].agrees, "what rounding does, at the same delays"
    budget = error_budget(floating, integer, codes, labels, trained=runs[0])
    assert budget.equilibrium_converged
    causes = {cause.name: cause.populations for cause in budget.causes}
    # Leak-weighted spikes are summed in another order.
    assert all(difference.maximum < 1e-12 for difference in causes["lowering"].values())
    assert all(difference.mean < 0.01 for difference in causes["rounding"].values())


@pytest.mark.parametrize("size", [0.0, 0.002, 0.1])
def test_next_to_no_constant_current_is_not_lost(size: float) -> None:
    """Without batch norm biases may be nearly nothing: then rounding takes all of it, and nothing from the rates."""
    network = spide_network("16-12 (F16)", 1.0)
    bias = size * torch.randn(12, generator=torch.Generator().manual_seed(1))
    weights = dict(network.weights) | {"feedforward.1.bias": bias}
    floating = lower(replace(network, weights=weights))
    codes = trained.digits().train.codes[:64]
    integer, report = quantize(floating, codes, config=DeployConfig(rounding="nearest"))
    assert report.lost() == ()
    line = report.connections["population2_current"]
    rates = equilibrium_rates(floating, codes).firing_rates
    (forward,) = (c for c in floating.incoming("population2") if c.source == "population1")
    whole = rates["population1"] @ forward.weight.T + bias.numpy()
    carried = sum(c.weight[:, 0] << c.weight_exponent for c in parts_of(integer, floating.connections[-2]))
    amiss = carried * report.populations["population2"].scale - bias.numpy()
    reset_amount = floating.population("population2").neuron.reset_amount
    assert line.current_error == pytest.approx(_rms(amiss) / max(_rms(bias.numpy()), 0.02 * reset_amount), rel=1e-5)
    assert _rms(amiss) / _rms(whole) < 0.01
    assert (line.relative_error > 0.5) == (size == 0.002)
    assert report.populations["population2"].mean_rate_error < 0.01


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_rates_are_rounded_to_the_nearest() -> None:
    """Threshold r/2 instead of r: one population's rates of a constant current are the nearest multiples of 1/T."""
    network = spide_network("20 (F20)", 1.0)
    weights = dict(network.weights) | {"feedback.weight": torch.zeros_like(network.weights["feedback.weight"])}
    floating = lower(replace(network, weights=weights))
    codes = trained.some_codes()
    rates = FloatSimulator().run(floating, codes).firing_rates["population1"]
    by_source = {c.source: c.weight for c in floating.connections}
    current = codes.reshape(len(codes), -1) @ by_source["input"].T + by_source["always_on"][:, 0]
    inside = (current > 0) & (current < 2)
    # v = T I - 2 k lies in [-1, 1) after the last step: so k is T I / 2 rounded to the nearest.
    assert np.array_equal(rates[inside], np.floor(T * current[inside] / 2 + 0.5) / T)
    assert inside.mean() > 0.2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, trained by SPIDE for a moment and exported."""
    folder = tmp_path_factory.mktemp("runs")
    training = TrainingConfig(method="spide", epochs=2, batch_size=64, milestones=(), threads=1)
    for name, notation in (("dense", "40-30 (F40)"), ("pools", "4C3-P2-20")):
        config = TrainConfig(name=name, network=spide_config(notation, 1.0), training=training)
        (folder / name).mkdir()
        fit(config, trained.digits(), folder / name)
        assert export.main(["--run", str(folder / name), "--calibration-samples", "50"]) == 0
    return folder


def verified(folder: Path, *backends: str, samples: int) -> dict[str, object]:
    options = ["--backends", *backends, "--samples", str(samples)]
    assert verify.main(["--run", str(folder), *options]) == 0
    report: dict[str, object] = json.loads((folder / "report.json").read_text())
    return report


@pytest.mark.parametrize("name", ["dense", "pools"])
def test_trained_run_is_exported_and_verified(name: str, runs: Path) -> None:
    assert load_checkpoint(runs / name / BEST).metrics["best_test_accuracy"] > 0.25, "chance is 0.1"
    report = verified(runs / name, "torch", "simulator", "simulator-float", samples=40)
    assert report["agrees"]
    network = report["network"]
    assert network["threshold"] == "as trained, 0.5 of the reset amount"


@pytest.mark.lava
@pytest.mark.parametrize("name", ["dense", "pools"])
def test_trained_run_is_verified_on_lava(name: str, runs: Path) -> None:
    report = verified(runs / name, "simulator", "lava-fixed", samples=10)
    assert [(pair["relation"], pair["agrees"]) for pair in report["pairs"]] == [("exact", True)]
