"""Weights that a connection has before training."""

import math
from typing import Literal

import torch
from torch import Tensor

from fsnn_lava.config import LayerSpec, Taps

InitialWeights = Literal["unit_filters", "kaiming_normal"]


def initial_weight(
    layer: LayerSpec,
    input_shape: tuple[int, ...],
    *,
    generator: torch.Generator,
    distribution: InitialWeights = "unit_filters",
    transposed_scale: float = 1.0,
    taps: Taps | None = None,
) -> Tensor:
    """Weights of `LayerSpec.weight_shape`, or of the taps alone.

    Parameters
    ----------
    layer : linear layer, convolution, or one of a kind from outside.
    input_shape : (C, H, W) or (N,) of what it is given.
    distribution : ``unit_filters``: uniform in [-1, 1], then every output filter scaled to unit L2 norm (IDE);
        ``kaiming_normal``: normal of variance 2 / fan_in (SPIDE), fan_in being the weights of one index of the first
        axis: the inputs of an output, but for a transposed convolution the outputs of an input.
    transposed_scale : factor of the weights of a transposed convolution.
    taps : which of a convolution's weights there are; None: all.

    References
    ----------
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
    """
    weight_shape = layer.weight_shape(input_shape) if taps is None else taps.weight_shape(layer, input_shape)
    if distribution == "kaiming_normal":
        weight = torch.randn(weight_shape, generator=generator) * math.sqrt(2 / math.prod(weight_shape[1:]))
    else:
        weight = torch.rand(weight_shape, generator=generator) * 2 - 1
        rest = [d for d in range(weight.dim()) if d != (1 if layer.transposed else 0)]
        weight = weight / weight.square().sum(rest, keepdim=True).sqrt()
    return weight * transposed_scale if layer.transposed else weight


def pool_weight(layer: LayerSpec, channels: int) -> Tensor:
    """The kernel (C, C, window, window) of the convolution that a pool is: each channel's own mean."""
    window = layer.kernel
    return (torch.eye(channels) / window**2).view(channels, channels, 1, 1).repeat(1, 1, window, window)
