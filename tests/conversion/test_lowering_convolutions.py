"""Lowered convolutions against the PyTorch model: every geometry, pooling, batch norm, padding, both timings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import trained
from fsnn_lava.backends.simulator import FloatSimulator
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.datasets import InputCoding
from fsnn_lava.hardware.geometry import DENSE, Convolution, TransposedConvolution
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, HardwareNetwork, with_timing

COLOURS = InputCoding("graded", 255, 1 / 255, mean=(0.5, 0.2, 0.7), std=(0.2, 0.5, 1.1))
EVENTS = InputCoding("event", 1, 1.0, mean=(0.1, 0.3), std=(0.5, 0.8))
NETWORKS = [
    ("6C5s (F6C5)", (3, 9, 8), COLOURS, 1.0, True),
    ("6C5s (F6C5)", (2, 9, 7), EVENTS, 0.95, True),
    ("4C3-6C3-P2 (F4C3u)", (3, 8, 6), COLOURS, 0.95, True),
    ("4C3s-8C3-6C3s-5C3 (F4C3u)", (3, 12, 12), COLOURS, 1.0, True),
    ("4C5s-P2-12", (3, 16, 16), COLOURS, 0.9, False),
    ("5C3-P3-4C1-10", (2, 9, 9), EVENTS, 1.0, False),
]


def codes_for(coding: InputCoding, shape: tuple[int, ...], *, samples: int, time_steps: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    if coding.kind == "event":
        return (rng.random((time_steps, samples, *shape)) < 0.3).astype(np.uint8)
    return rng.integers(0, 256, (samples, *shape)).astype(np.uint8)


@pytest.mark.parametrize(("notation", "shape", "coding", "leak", "batch_norm"), NETWORKS)
@pytest.mark.parametrize("timing", ["sequential", "hardware"])
def test_same_spikes_as_torch(
    notation: str, shape: tuple[int, ...], coding: InputCoding, leak: float, batch_norm: bool, timing: str
) -> None:
    network = trained.random_network(notation, leak=leak, batch_norm=batch_norm, input_shape=shape, coding=coding)
    lowered = with_timing(lower(network), timing)  # type: ignore[arg-type]
    codes = codes_for(coding, shape, samples=12, time_steps=20)
    expected = run_torch(
        network, lowered, codes, time_steps=20, loop_delay=len(lowered.populations) if timing == "hardware" else 1
    )
    found = FloatSimulator().run(lowered, codes, record=[p.name for p in lowered.populations])
    for name, spikes in expected.spikes.items():
        assert np.array_equal(spikes, found.spikes[name]), name
        assert 0.02 < spikes.mean() < 0.98, f"{name} is silent or saturated: the test says nothing"
    np.testing.assert_allclose(expected.logits, found.logits, rtol=0, atol=1e-10)


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
        expected = bound.drive(torch.from_numpy((codes / 255 - mean) / std), time_steps=1).mean.numpy()
    np.testing.assert_allclose(current, expected.reshape(6, -1), rtol=1e-12, atol=1e-12)  # float64, another order


def test_unrolled_connections_make_the_same_network() -> None:
    """A convolution is nothing but a matrix with many equal entries."""
    network = lower(
        trained.random_network("4C3s-6C3 (F4C3)", input_shape=(3, 8, 8), coding=COLOURS), timing="sequential"
    )
    dense = unrolled(network)
    codes = codes_for(COLOURS, (3, 8, 8), samples=9, time_steps=20)
    names = [p.name for p in network.populations]
    runs = [FloatSimulator().run(n, codes, record=names) for n in (network, dense)]
    for name in names:
        assert np.array_equal(runs[0].spikes[name], runs[1].spikes[name])


def unrolled(network: HardwareNetwork) -> HardwareNetwork:
    """The same network with every connection dense."""
    return dataclasses.replace(
        network,
        connections=tuple(
            dataclasses.replace(c, weight=linear_map(network, c).unrolled().toarray(), geometry=DENSE)
            for c in network.connections
        ),
    )
