"""Spikes with a surrogate gradient: exact 0/1 forward, a curve around the threshold instead of the derivative.

With z = (v - v_threshold) / width the derivative of a spike is taken to be curve(z) / width. Every curve has area 1, as
the step's own derivative has.

    rectangular   1 where |z| < 1/2, else 0       Wu et al., "Spatio-temporal backpropagation for training
                                                  high-performance spiking neural networks" (2018), Eq. 24
    arctan        1 / (1 + (pi z)^2)              Fang et al., "Incorporating learnable membrane time constant to
                                                  enhance learning of spiking neural networks" (2021); its alpha
                                                  is 2 / width
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fsnn_lava.config import SURROGATES
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network import fire


def surrogate_spikes(v: Tensor, *, neuron: FloatNeuron, surrogate: str, width: float) -> Tensor:
    """Spikes (B, *N), 1 where v >= v_threshold, else 0, whose gradient is the named curve.

    Parameters
    ----------
    v : (B, *N) potential before the reset.
    width : of the curve, in the unit of v, > 0.
    """
    spikes: Tensor = _Spikes.apply(v, neuron, SURROGATES.get(surrogate), width)  # type: ignore[no-untyped-call]
    return spikes


def rectangular(z: Tensor) -> Tensor:
    """1 where |z| < 1/2, else 0."""
    return torch.lt(z.abs(), 0.5)  # as bool, a byte: one such tensor is kept for each step


def arctan(z: Tensor) -> Tensor:
    """1 / (1 + (pi z)^2)."""
    return torch.reciprocal(1 + (math.pi * z).square())


class _Spikes(torch.autograd.Function):
    """Value: the step. Backward: the curve's value, which alone is kept."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, neuron: FloatNeuron, curve: Callable[[Tensor], Tensor], width: float) -> Tensor:
        ctx.width = width
        ctx.save_for_backward(curve((v - neuron.v_threshold) / width))
        return fire(v, neuron=neuron)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (height,) = ctx.saved_tensors
        return gradient * height / ctx.width, None, None, None
