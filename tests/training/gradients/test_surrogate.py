"""Surrogate spikes: exact steps forward, the published curves backward."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.neuron import fire
from fsnn_lava.training.gradients.surrogate import surrogate_spikes

NEURON = FloatNeuron(v_threshold=2.0)


def slopes(v: Tensor, surrogate: str, width: float) -> Tensor:
    """Derivative that each spike is given."""
    v = v.detach().requires_grad_()
    spikes = surrogate_spikes(v, neuron=NEURON, surrogate=surrogate, width=width)
    return torch.autograd.grad(spikes.sum(), v)[0]


@pytest.mark.parametrize("surrogate", ["rectangular", "arctan"])
def test_value_is_the_step(surrogate: str) -> None:
    below = math.nextafter(2.0, 0.0)
    v = torch.tensor([-5.0, 0.0, below, 2.0, 2.5], dtype=torch.float64, requires_grad=True)
    found = surrogate_spikes(v, neuron=NEURON, surrogate=surrogate, width=1.0)
    assert found.tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert torch.equal(found.detach(), fire(v.detach(), neuron=NEURON))
    assert found.requires_grad


def test_rectangle_by_hand() -> None:
    """Width 0.5 around the threshold 2: height 2 strictly inside 1.75 .. 2.25, nothing on its edges."""
    v = torch.tensor([1.0, 1.75, 1.875, 2.0, 2.125, 2.25, 9.0], dtype=torch.float64)
    assert slopes(v, "rectangular", 0.5).tolist() == [0.0, 0.0, 2.0, 2.0, 2.0, 0.0, 0.0]


def test_arctan_by_hand() -> None:
    """Width 0.5: height 2 at the threshold; half of it where pi |v - 2| is the width."""
    half = 0.5 / math.pi
    v = torch.tensor([2.0, 2.0 - half, 2.0 + half, 2.0 + 3 * half], dtype=torch.float64)
    # The expected values are those of the formula with a rounded pi.
    assert_close(slopes(v, "arctan", 0.5), torch.tensor([2.0, 1.0, 1.0, 0.2], dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("surrogate", "tail"), [("rectangular", 0.0), ("arctan", 2e-3)])
def test_area_of_a_curve_is_one(surrogate: str, tail: float, width: float) -> None:
    """The step's own derivative has area 1. Beyond z = 200 there are 1 / (100 pi^2), 1e-3, of the arctan's."""
    step = width / 100
    v = 2 + step * (torch.arange(-20_000, 20_000, dtype=torch.float64) + 0.5)
    assert float(slopes(v, surrogate, width).sum() * step) == pytest.approx(1.0, abs=tail + 1e-9)


def test_gradient_above_is_multiplied() -> None:
    v = torch.tensor([1.9, 2.3], dtype=torch.float64, requires_grad=True)
    spikes = surrogate_spikes(v, neuron=NEURON, surrogate="rectangular", width=1.0)
    (spikes * torch.tensor([3.0, -5.0], dtype=torch.float64)).sum().backward()
    assert v.grad is not None
    assert v.grad.tolist() == [3.0, -5.0]
