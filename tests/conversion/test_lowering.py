"""A lowered network against the PyTorch model it came from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import fsnn_lava
import networks
import trained
from fsnn_lava.backends.simulator import FloatSimulator
from fsnn_lava.config import config_from_dict
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.datasets import InputCoding
from fsnn_lava.errors import CheckpointError, InputError, UnsupportedError
from fsnn_lava.hardware import on_codes, with_timing
from fsnn_lava.hardware.geometry import Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron
from fsnn_lava.hardware.run_io import RunResult
from fsnn_lava.network.equilibrium import equilibrium_rates
from fsnn_lava.training.checkpoint import TrainedNetwork
from simulated import names

NETWORKS = [
    ("30 (F30)", 1.0, True),
    ("30 (F30)", 0.95, True),
    ("30", 1.0, True),
    ("24 (F24)", 0.9, False),
    ("24-20 (F24)", 0.95, True),
    ("24-20-16 (F24)", 1.0, True),
    ("24-20-16 (F24)", 0.95, True),
]
COLOURS = InputCoding("graded", 255, 1 / 255, mean=(0.5, 0.2, 0.7), std=(0.2, 0.5, 1.1))
GREY = InputCoding("graded", 255, 1 / 255, mean=(0.4,), std=(0.3,))


def assert_same_spikes(a: RunResult, b: RunResult) -> None:
    for name, spikes in a.spikes.items():
        assert np.array_equal(spikes, b.spikes[name]), name
        assert np.array_equal(a.spike_counts[name], b.spike_counts[name])
        # 1e-12: leak-weighted spikes are summed in another order.
        np.testing.assert_allclose(a.firing_rates[name], b.firing_rates[name], rtol=0, atol=1e-12)
        assert 0.05 < spikes.mean() < 0.95, f"{name} is silent or saturated: the test says nothing"
    np.testing.assert_allclose(a.logits, b.logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("notation", ["24 (F24)", "24-20-16 (F24)", "3C3-P2-4C3-P2-12", "3C3-P2 (F3C3u)"])
@pytest.mark.parametrize("leak", [1.0, 0.95])
@pytest.mark.parametrize("timing", ["sequential", "hardware"])
def test_same_spikes_as_torch_with_half_the_threshold_and_pools(notation: str, leak: float, timing: str) -> None:
    network = trained.random_network(notation, leak=leak, batch_norm=False, v_threshold=1.0, pooling="spiking")
    lowered = with_timing(lower(network), timing)
    assert {p.neuron for p in lowered.populations} == {FloatNeuron(1.0, 2.0, leak)}
    expected = run_torch(network, lowered, trained.some_codes(), time_steps=20, timing=timing)
    assert_same_spikes(expected, FloatSimulator().run(lowered, trained.some_codes(), record=names(lowered)))


@pytest.mark.parametrize("window", [2, 4])
def test_spiking_pool_is_a_strided_convolution_without_current(window: int) -> None:
    lowered = lower(trained.random_network(f"3C3-P{window}-5", batch_norm=True, pooling="spiking"), timing="sequential")
    assert [(c.name, c.source, c.target) for c in lowered.connections] == [
        ("input_to_population1", INPUT, "population1"),
        ("population1_current", ALWAYS_ON, "population1"),
        ("population1_to_population2", "population1", "population2"),
        ("population2_to_population3", "population2", "population3"),
        ("population3_current", ALWAYS_ON, "population3"),
    ]
    pool = lowered.connections[2]
    assert pool.geometry == Convolution(stride=window, padding=0)
    assert np.array_equal(pool.weight, np.broadcast_to(np.eye(3)[..., None, None], (3, 3, window, window)) / window**2)


@pytest.mark.parametrize(("notation", "leak", "batch_norm"), NETWORKS)
@pytest.mark.parametrize("timing", ["sequential", "hardware"])
def test_same_spikes_as_torch(notation: str, leak: float, batch_norm: bool, timing: str) -> None:
    """Hardware timing is the sequential one whose feedback is as many steps late as there are populations."""
    network = trained.random_network(notation, leak=leak, batch_norm=batch_norm)
    lowered = with_timing(lower(network), timing)
    codes = trained.some_codes()
    expected = run_torch(network, lowered, codes, time_steps=20, timing=timing)
    assert_same_spikes(expected, FloatSimulator().run(lowered, codes, record=names(lowered)))


def test_same_spikes_as_torch_after_training() -> None:
    network = trained.trained_network()
    lowered = lower(network, timing="sequential")
    codes = trained.some_codes(360)
    expected = run_torch(network, lowered, codes, time_steps=10)
    assert_same_spikes(expected, FloatSimulator().run(lowered, codes, record=names(lowered)))


def test_timing_of_three_populations_matters() -> None:
    """Else the comparison of both timings would say nothing."""
    network = trained.random_network("24-20-16 (F24)")
    lowered = lower(network, timing="sequential")
    runs = [
        run_torch(network, lowered, trained.some_codes(), time_steps=20, timing=timing)
        for timing in ("sequential", "hardware")
    ]
    assert not np.array_equal(runs[0].spikes["population1"], runs[1].spikes["population1"])


@pytest.mark.parametrize(("notation", "leak", "batch_norm"), NETWORKS)
def test_same_equilibrium_as_torch(notation: str, leak: float, batch_norm: bool) -> None:
    network = trained.random_network(notation, leak=leak, batch_norm=batch_norm)
    lowered = lower(network, timing="sequential")
    codes = trained.some_codes()
    found = equilibrium_rates(lowered, codes, tolerance=1e-12)
    assert found.converged
    model = network.model().double()
    bound = model.bind(len(codes))
    with torch.no_grad():
        drive = bound.drive(torch.from_numpy(network.coding.decode(codes, np.float64)), time_steps=20).mean
        last = torch.from_numpy(found.firing_rates[names(lowered)[-1]])
        rates = bound.rates_around({len(names(lowered)) - 1: last}, drive)
    for name, rate in zip(names(lowered), rates, strict=True):
        # 1e-10: float64 sums in another order, and equilibria to 1e-12.
        np.testing.assert_allclose(found.firing_rates[name], rate.numpy(), rtol=0, atol=1e-10)


def test_coding_of_each_channel_is_folded() -> None:
    """Weights and constant current on codes give the model's current of the normalised values."""
    network = trained.random_network("16 (F16)", input_shape=(3, 4, 5), coding=COLOURS)
    lowered = lower(network, timing="sequential")
    codes = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 5)).astype(np.uint8)
    by_source = {c.source: c.weight for c in lowered.connections}
    current = codes.reshape(12, -1) @ by_source[INPUT].T + by_source[ALWAYS_ON][:, 0]
    mean, std = (np.array(v)[:, None, None] for v in (COLOURS.mean, COLOURS.std))
    values = torch.from_numpy((codes / 255 - mean) / std)
    bound = network.model().double().bind(12)
    with torch.no_grad():
        expected = bound.drive(values, time_steps=1).mean[0].numpy()
    np.testing.assert_allclose(current, expected, rtol=1e-12, atol=1e-12)  # float64 sums in another order


def test_event_frames_are_normalised_too() -> None:
    coding = InputCoding("event", 1, 1.0, mean=(0.1, 0.3), std=(0.5, 0.8))
    network = trained.random_network("16 (F16)", input_shape=(2, 3, 3), coding=coding, time_steps=15)
    lowered = lower(network, timing="sequential")
    assert (lowered.input.kind, lowered.input.maximum, lowered.input.shape) == ("event", 1, (2, 3, 3))
    frames = (np.random.default_rng(0).random((15, 8, 2, 3, 3)) < 0.3).astype(np.uint8)
    expected = run_torch(network, lowered, frames, time_steps=15)
    assert_same_spikes(expected, FloatSimulator().run(lowered, frames, record=names(lowered)))


def test_feedback_is_the_restricted_weight() -> None:
    """The bound is 1 although the learned gain is 1.7: the largest singular value of the lowered feedback is 1."""
    lowered = lower(trained.random_network("30 (F30)"), timing="sequential")
    (feedback,) = (c.weight for c in lowered.connections if c.name == "feedback")
    # 2 %: sigma is known from ten power iterations, not exactly.
    assert np.linalg.svd(feedback, compute_uv=False)[0] == pytest.approx(1.0, rel=0.02)


def test_structure_of_the_chain() -> None:
    lowered = lower(trained.random_network("24-20-16 (F24)", leak=0.9), timing="sequential")
    assert [(c.name, c.source, c.target, c.delay) for c in lowered.connections] == [
        ("input_to_population1", INPUT, "population1", 0),
        ("population1_current", ALWAYS_ON, "population1", 0),
        ("population1_to_population2", "population1", "population2", 0),
        ("population2_current", ALWAYS_ON, "population2", 0),
        ("population2_to_population3", "population2", "population3", 0),
        ("population3_current", ALWAYS_ON, "population3", 0),
        ("feedback", "population3", "population1", 1),
    ]
    assert {p.neuron for p in lowered.populations} == {FloatNeuron(2.0, 2.0, 0.9)}
    assert lowered.arithmetic == "float"
    assert (lowered.readout.source, lowered.readout.weight.shape) == ("population3", (10, 16))


def test_lowering_changes_nothing_in_the_trained_network() -> None:
    network = trained.random_network("24 (F24)")
    before = {name: tensor.clone() for name, tensor in network.weights.items()}
    first, second = lower(network), lower(network)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.weights.items())
    for a, b in zip(first.connections, second.connections, strict=True):
        assert np.array_equal(a.weight, b.weight)


def test_provenance_is_complete_and_json() -> None:
    network = trained.random_network("24 (F24)")
    provenance = json.loads(json.dumps(lower(network).provenance, allow_nan=False))
    assert provenance["package"] == fsnn_lava.__version__
    assert config_from_dict(provenance["config"]) == network.config
    assert provenance["config"]["training"]["seed"] == 7
    assert provenance["metrics"] == {"test/accuracy": 0.25, "epoch": 3}
    assert provenance["classes"] == list("0123456789")
    coding = provenance["input_coding"]
    assert InputCoding(**{**coding, "mean": tuple(coding["mean"]), "std": tuple(coding["std"])}) == network.coding


def test_refuses_weights_that_do_not_fit() -> None:
    network = trained.random_network("24 (F24)")
    fewer = {n: t for n, t in network.weights.items() if n != "readout.bias"}
    with pytest.raises(CheckpointError, match=r"weights do not fit the network .*readout\.bias"):
        lower(replace(network, weights=fewer))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((2, 1, 8, 7), np.uint8), r"graded inputs of shape \(2, 1, 8, 7\); expected \(B, 1, 8, 8\)"),
        (np.full((2, 1, 8, 8), 17, np.uint8), r"input codes from 17 to 17; allowed: 0 \.\. 16"),
        (np.zeros((2, 1, 8, 8)), "inputs of type float64; expected integer codes"),
    ],
)
def test_torch_run_refuses_codes_that_do_not_fit(codes: Array, message: str) -> None:
    network: TrainedNetwork = trained.random_network("24 (F24)")
    with pytest.raises(InputError, match=message):
        run_torch(network, lower(network, timing="sequential"), codes, time_steps=5)


EVENTS = InputCoding("event", 1, 1.0, mean=(0.1, 0.3), std=(0.5, 0.8))
CONVOLUTIONS = [
    ("6C5s (F6C5)", (3, 9, 8), COLOURS, 1.0, True),
    ("6C5s (F6C5)", (2, 9, 7), EVENTS, 0.95, True),
    ("4C3-6C3-P2 (F4C3u)", (3, 8, 6), COLOURS, 0.95, True),
    ("4C3s-8C3-6C3s-5C3 (F4C3u)", (3, 12, 12), COLOURS, 1.0, True),
    ("4C5s-P2-12", (3, 16, 16), COLOURS, 0.9, False),
    ("5C3-P3-4C1-10", (2, 9, 9), EVENTS, 1.0, False),
    ("3C3s-4C3u-3C3s (F3C3)", (1, 8, 8), GREY, 1.0, False),
    ("3C3s-4C3u-3C3s (F3C3)", (1, 8, 8), GREY, 1.0, True),
]


def codes_for(coding: InputCoding, shape: tuple[int, ...], *, samples: int, time_steps: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    if coding.kind == "event":
        return (rng.random((time_steps, samples, *shape)) < 0.3).astype(np.uint8)
    return rng.integers(0, 256, (samples, *shape)).astype(np.uint8)


@pytest.mark.parametrize(("notation", "shape", "coding", "leak", "batch_norm"), CONVOLUTIONS)
@pytest.mark.parametrize("timing", ["sequential", "hardware"])
def test_convolutions_spike_as_torch(
    notation: str, shape: tuple[int, ...], coding: InputCoding, leak: float, batch_norm: bool, timing: str
) -> None:
    network = trained.random_network(notation, leak=leak, batch_norm=batch_norm, input_shape=shape, coding=coding)
    lowered = with_timing(lower(network), timing)
    codes = codes_for(coding, shape, samples=12, time_steps=20)
    expected = run_torch(network, lowered, codes, time_steps=20, timing=timing)
    found = FloatSimulator().run(lowered, codes, record=[p.name for p in lowered.populations])
    for name, spikes in expected.spikes.items():
        assert np.array_equal(spikes, found.spikes[name]), name
        assert 0.02 < spikes.mean() < 0.98, f"{name} is silent or saturated: the test says nothing"
    np.testing.assert_allclose(expected.logits, found.logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("timing", ["sequential", "hardware"])
def test_network_has_the_name_of_its_training(timing: str) -> None:
    assert lower(trained.random_network("24-20-16 (F24)"), timing=timing).name == "random"


def test_geometries_of_the_lowered_network() -> None:
    network = trained.random_network("4C3s-8C3-P2-6C3 (F4C3u)", input_shape=(3, 12, 12), coding=COLOURS)
    lowered = lower(network, timing="sequential")
    found = {c.name: (c.geometry, c.weight.shape) for c in lowered.connections if c.source != ALWAYS_ON}
    assert found == {
        "input_to_population1": (Convolution(2, 1), (4, 3, 3, 3)),
        "population1_to_population2": (Convolution(2, 1), (8, 4, 4, 4)),  # 3x3, then the mean of 2x2
        "population2_to_population3": (Convolution(1, 1), (6, 8, 3, 3)),
        "feedback": (TransposedConvolution(2, 1, 1), (6, 4, 3, 3)),
    }


def test_the_constant_current_differs_at_the_border() -> None:
    """What is padded with zeros is the normalised image: black pixels are not zero, the padding is."""
    lowered = lower(trained.random_network("4C3 (F4C3)", input_shape=(3, 6, 5), coding=COLOURS), timing="sequential")
    by_source = {c.source: c.weight for c in lowered.connections}
    current = by_source[ALWAYS_ON].reshape(4, 6, 5)
    inner = current[:, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, np.broadcast_to(inner[:, :1, :1], inner.shape), atol=1e-12)  # order of sums
    assert np.abs(current[:, 0, 1] - current[:, 1, 1]).min() > 1e-3


def test_first_current_is_that_of_the_normalised_image() -> None:
    network = trained.random_network("4C5s-P2", input_shape=(3, 8, 12), coding=COLOURS)
    lowered = lower(network, timing="sequential")
    connections = {c.source: c for c in lowered.connections}
    codes = codes_for(COLOURS, (3, 8, 12), samples=6, time_steps=1)
    product = linear_map(lowered, connections[INPUT]).product(codes.reshape(6, -1).astype(np.float64))
    current = product + connections[ALWAYS_ON].weight[:, 0]
    mean, std = (np.array(value)[:, None, None] for value in (COLOURS.mean, COLOURS.std))
    bound = network.model().double().bind(6)
    with torch.no_grad():
        expected = bound.drive(torch.from_numpy((codes / 255 - mean) / std), time_steps=1).mean[0].numpy()
    np.testing.assert_allclose(current, expected.reshape(6, -1), rtol=1e-12, atol=1e-12)  # float64, another order


def test_unrolled_connections_make_the_same_network() -> None:
    """A convolution is nothing but a matrix with many equal entries."""
    network = lower(
        trained.random_network("4C3s-6C3 (F4C3)", input_shape=(3, 8, 8), coding=COLOURS), timing="sequential"
    )
    dense = networks.unrolled(network)
    codes = codes_for(COLOURS, (3, 8, 8), samples=9, time_steps=20)
    names = [p.name for p in network.populations]
    runs = [FloatSimulator().run(n, codes, record=names) for n in (network, dense)]
    for name in names:
        assert np.array_equal(runs[0].spikes[name], runs[1].spikes[name])


CODING = InputCoding("graded", 255, 1 / 255, mean=(0.5, 0.2), std=(0.2, 1.1))
RNG = np.random.default_rng(0)
NEURON = FloatNeuron(1.0, 1.0, 1.0)


def network() -> HardwareNetwork:
    """The input into two populations by each geometry, one of them with a constant current."""
    return HardwareNetwork(
        "values",
        InputSpec((2, 3, 4), "graded", 1),
        (Population("a", (3, 3, 4), NEURON), Population("b", (1, 6, 8), NEURON)),
        (
            Connection("convolution", INPUT, "a", RNG.normal(size=(3, 2, 3, 3)), geometry=Convolution(1, 1)),
            Connection("on", ALWAYS_ON, "a", RNG.normal(size=(36, 1))),
            Connection("dense", INPUT, "a", RNG.normal(size=(36, 24))),
            Connection("up", INPUT, "b", RNG.normal(size=(2, 1, 3, 3)), geometry=TransposedConvolution(2, 1, 1)),
        ),
        Readout("b", np.ones((2, 48)), np.zeros(2)),
        4,
    )


def currents(of: HardwareNetwork, x: np.ndarray) -> dict[str, np.ndarray]:
    found = {p.name: np.zeros((len(x), p.size)) for p in of.populations}
    for c in of.connections:
        found[c.target] += linear_map(of, c).product(np.ones((len(x), 1)) if c.source == ALWAYS_ON else x)
    return found


def test_codes_bring_the_currents_of_their_values() -> None:
    codes, plain = RNG.integers(0, 256, (5, 2, 3, 4)), network()
    changed = on_codes(plain, CODING)
    assert (changed.input.kind, changed.input.maximum, changed.input.shape) == ("graded", 255, (2, 3, 4))
    values = (codes / 255 - np.array(CODING.mean)[:, None, None]) / np.array(CODING.std)[:, None, None]
    expected, found = currents(plain, values.reshape(5, -1)), currents(changed, codes.reshape(5, -1).astype(float))
    for name in expected:
        # 1e-12: the same sums of float64 numbers of size 10 in another order.
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-12)
    assert [c.name for c in changed.connections] == ["convolution", "on", "dense", "up", "b_current"]


def test_late_inputs_are_refused() -> None:
    plain = network()
    delayed = (replace(c, delay=2 if c.name == "dense" else 0) for c in plain.connections)
    late = replace(plain, connections=tuple(delayed))
    with pytest.raises(UnsupportedError, match=r'"dense" \(input -> a\): found inputs that arrive 2 step\(s\) after'):
        on_codes(late, CODING)
