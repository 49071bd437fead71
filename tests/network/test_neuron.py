"""Neurons against traces worked out by hand; every number is a sum of powers of two, so equality is exact."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.neuron import fire, integrate, rate_from_count, rate_of_current, slope_of_rate


def trace(currents: list[float], neuron: FloatNeuron) -> tuple[list[float], list[float]]:
    """Potential before the threshold test and spike of one neuron at every step."""
    v, spikes = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    potentials, fired = [], []
    for current in currents:
        v = integrate(v, spikes, torch.full((1, 1), current, dtype=torch.float64), neuron=neuron)
        spikes = fire(v, neuron=neuron)
        potentials.append(v.item())
        fired.append(spikes.item())
    return potentials, fired


CASES = [
    pytest.param(
        FloatNeuron(2.0, 2.0, 1.0),
        [0.75] * 6,
        [0.75, 1.5, 2.25, 1.0, 1.75, 2.5],
        [0, 0, 1, 0, 0, 1],
        id="IF keeps what is over the threshold",
    ),
    pytest.param(
        FloatNeuron(2.0, 2.0, 1.0),
        [3.0] * 4,
        [3.0, 4.0, 5.0, 6.0],
        [1, 1, 1, 1],
        id="IF fires in every step, piling up",
    ),
    pytest.param(
        FloatNeuron(2.0, 2.0, 1.0),
        [-1.0, -1.0, -1.0, 4.0, 4.0, 0.0],
        [-1.0, -2.0, -3.0, 1.0, 5.0, 3.0],
        [0, 0, 0, 0, 1, 1],
        id="IF has no lower bound",
    ),
    pytest.param(FloatNeuron(2.0, 2.0, 1.0), [2.0, 1.75], [2.0, 1.75], [1, 0], id="fires at the threshold itself"),
    pytest.param(
        FloatNeuron(1.0, 2.0, 1.0),
        [0.75] * 7,
        [0.75, 1.5, 0.25, 1.0, -0.25, 0.5, 1.25],
        [0, 1, 0, 1, 0, 0, 1],
        id="reset amount twice the threshold",
    ),
    pytest.param(
        FloatNeuron(1.0, 2.0, 0.5), [1.0, 1.0, 1.0], [1.0, 0.5, 1.25], [1, 0, 1], id="LIF, reset twice the threshold"
    ),
    pytest.param(
        FloatNeuron(2.0, 2.0, 0.5),
        [1.5] * 5,
        [1.5, 2.25, 1.625, 2.3125, 1.65625],
        [0, 1, 0, 1, 0],
        id="LIF leaks what the reset leaves, not the newest input",
    ),
    pytest.param(
        FloatNeuron(2.0, 2.0, 0.5),
        [-4.0, 0.0, 0.0, 4.0],
        [-4.0, -2.0, -1.0, 3.5],
        [0, 0, 0, 1],
        id="LIF leaks a negative potential too",
    ),
]


@pytest.mark.parametrize(("neuron", "currents", "potentials", "spikes"), CASES)
def test_trace_is_the_hand_computed_one(
    neuron: FloatNeuron, currents: list[float], potentials: list[float], spikes: list[int]
) -> None:
    assert trace(currents, neuron) == (potentials, spikes)


def test_step_changes_none_of_its_arguments() -> None:
    v, spikes, current = (torch.full((1, 2), value) for value in (3.0, 1.0, 0.5))
    integrate(v, spikes, current, neuron=FloatNeuron(2.0, 2.0, 0.5))
    assert [t.tolist() for t in (v, spikes, current)] == [[[3.0, 3.0]], [[1.0, 1.0]], [[0.5, 0.5]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_have_the_type_of_the_potential(dtype: torch.dtype) -> None:
    assert fire(torch.ones(1, 1, dtype=dtype), neuron=FloatNeuron()).dtype is dtype


def weighted_count(spikes: list[float], leak: float) -> Tensor:
    count = torch.zeros(1, dtype=torch.float64)
    for spike in spikes:
        count = leak * count + spike
    return count


@pytest.mark.parametrize(
    ("spikes", "leak", "rate"),
    [
        ([0, 1, 0, 1], 1.0, 0.5),
        ([0, 1, 0, 1], 0.5, 1.25 / 1.875),  # weights 0.125, 0.25, 0.5, 1
        ([0, 0, 0, 1], 0.5, 1 / 1.875),  # the last spike weighs 1 ...
        ([1, 0, 0, 0], 0.5, 0.125 / 1.875),  # ... the first one leak**(T - 1)
        ([1, 1, 1, 1], 0.5, 1.0),
        ([1], 0.95, 1.0),
    ],
)
def test_rate_weighs_late_spikes_more(spikes: list[float], leak: float, rate: float) -> None:
    found = rate_from_count(weighted_count(spikes, leak), time_steps=len(spikes), leak=leak).item()
    # One rounding in each of a power, a difference and two quotients.
    assert found == pytest.approx(rate, rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reset", [2.0, 1.3, 0.7])
@pytest.mark.parametrize("form", ["rows", "images", "channels last", "turned"])
def test_rate_of_a_current_is_that_of_torch_to_the_last_bit(dtype: torch.dtype, reset: float, form: str) -> None:
    """With its gradient and its slope; at both ends of the range, of infinities and of what is no number too."""
    generator = torch.Generator().manual_seed(0)
    shape = (70, 33) if form == "rows" else (5, 6, 4, 4)
    current = 2 * torch.randn(shape, generator=generator, dtype=dtype)
    flat = current.view(-1)
    flat[::7], flat[1::9], flat[3], flat[4], flat[5] = 0.0, reset, math.nan, math.inf, -math.inf
    current = current.contiguous(memory_format=torch.channels_last) if form == "channels last" else current
    current = current.transpose(0, 1) if form == "turned" else current
    neuron = FloatNeuron(1.0, reset, 1.0)
    ours, torchs = (current.detach().clone().requires_grad_() for _ in range(2))
    found, expected = rate_of_current(ours, neuron=neuron), (torchs / reset).clamp(0, 1)
    assert_equal(found, expected)
    gradient = torch.randn(current.shape, generator=generator, dtype=dtype)
    found.backward(gradient)
    expected.backward(gradient)
    assert_equal(ours.grad, torchs.grad)
    slope = ((expected > 0) & (expected < 1)).to(dtype) / reset
    assert_equal(slope_of_rate(found, neuron=neuron), slope)
    assert 0.05 < float((slope > 0).double().mean()) < 0.5


def assert_equal(found: torch.Tensor | None, expected: torch.Tensor | None) -> None:
    assert found is not None
    assert expected is not None
    assert found.dtype == expected.dtype
    assert np.array_equal(found.detach().numpy(), expected.detach().numpy(), equal_nan=True)
