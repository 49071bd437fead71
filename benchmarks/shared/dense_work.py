"""How much dense arithmetic an iteration holds, and how fast this machine does dense arithmetic."""

from __future__ import annotations

import time
from math import prod

import torch
from torch.nn import functional

from fsnn_lava.config import LayerSpec, Shape, TrainConfig, parse_spec

MATRIX = 1024
"""Rows and columns of the matrices whose product is timed."""


def products_of(layer: LayerSpec, input_shape: Shape) -> int:
    """Floating-point operations (a multiplication and an addition are two) of a layer for one sample."""
    if layer.kind == "linear":
        return 2 * layer.features * prod(input_shape)
    places = input_shape[1:] if layer.transposed else layer.output_shape(input_shape)[1:]
    return 2 * prod(places) * layer.kernel**2 * input_shape[0] * layer.features


def dense_products(config: TrainConfig, input_shape: Shape, classes: int, steps: float) -> float:
    """Floating-point operations of the dense products of one IDE iteration with constant input.

    Parameters
    ----------
    steps : products with the transposed Jacobian.
    """
    spec, time_steps = parse_spec(config.network.notation), config.network.time_steps
    populations = spec.populations(input_shape, pooling=config.network.pooling)
    first = products_of(populations[0].layer, populations[0].input_shape)
    later = sum(products_of(p.layer, p.input_shape) for p in populations[1:])
    feedback = products_of(spec.feedback, populations[-1].shape) if spec.feedback else 0
    readout = 2 * classes * prod(populations[-1].shape)
    run = time_steps * later + (time_steps - 1) * feedback
    # The input's response and its weights' gradient; f with batch statistics, and once more for J with running ones;
    # J^T `steps` times; gradients of all weights in the loop, and of what the later layers are given.
    around = (2 if later else 1) + steps + 1
    total = 2 * first + run + around * (later + feedback) + later + 3 * readout
    return config.training.batch_size * total


def now(device: str) -> float:
    """Seconds on a clock, once the device has done all it was asked to."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def machine_rate(config: TrainConfig, input_shape: Shape) -> float:
    """Float32 operations per second of the faster of a product of matrices and the network's largest convolution."""
    device = config.training.device
    matrix = torch.rand(MATRIX, MATRIX, device=device)
    began = now(device)
    torch.mm(matrix, matrix)
    best = 2 * MATRIX**3 / (now(device) - began)
    populations = parse_spec(config.network.notation).populations(input_shape, pooling=config.network.pooling)
    layers = [(p.layer, p.input_shape) for p in populations[1:]]
    feedback = parse_spec(config.network.notation).feedback
    layers += [] if feedback is None else [(feedback, populations[-1].shape)]
    convolutions = [(layer, shape) for layer, shape in layers if layer.kind == "conv" and not layer.transposed]
    if not convolutions:
        return best
    layer, shape = max(convolutions, key=lambda each: products_of(*each))
    x = torch.rand(config.training.batch_size, *shape, device=device)
    weight = torch.rand(layer.features, shape[0], layer.kernel, layer.kernel, device=device)
    functional.conv2d(x, weight, stride=layer.stride, padding=layer.padding)
    began = now(device)
    functional.conv2d(x, weight, stride=layer.stride, padding=layer.padding)
    return max(best, len(x) * products_of(layer, shape) / (now(device) - began))
