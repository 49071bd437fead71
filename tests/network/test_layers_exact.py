"""Every layer against its definition, written out in loops, and every connection against its adjoint, in float64."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.network.layers import BoundSynapse, Synapse, apply_layer, apply_transpose

Shape = tuple[int, ...]

POOL = LayerSpec("pool", 0, 2, 2)
CONNECTIONS = [
    pytest.param(LayerSpec("linear", 7), None, (5,), id="linear"),
    pytest.param(LayerSpec("linear", 7), None, (2, 3, 4), id="linear of an image"),
    pytest.param(LayerSpec("conv", 4, 1), None, (3, 5, 5), id="1x1"),
    pytest.param(LayerSpec("conv", 4, 3), None, (3, 5, 6), id="3x3"),
    pytest.param(LayerSpec("conv", 4, 3, 2), None, (3, 6, 7), id="3x3, stride 2, even and odd side"),
    pytest.param(LayerSpec("conv", 2, 5, 2), None, (2, 8, 8), id="5x5, stride 2"),
    pytest.param(LayerSpec("conv", 4, 3, 2, transposed=True), None, (3, 4, 5), id="3x3 transposed"),
    pytest.param(LayerSpec("conv", 3, 5, 2, transposed=True), None, (2, 3, 3), id="5x5 transposed"),
    pytest.param(LayerSpec("conv", 3, 1, 2, transposed=True), None, (2, 3, 3), id="1x1 transposed"),
    pytest.param(LayerSpec("conv", 3, 3), POOL, (2, 4, 6), id="3x3, pooled"),
    pytest.param(LayerSpec("conv", 3, 5, 2), POOL, (2, 8, 8), id="5x5, stride 2, pooled"),
    pytest.param(LayerSpec("conv", 2, 3, 2, transposed=True), POOL, (3, 2, 3), id="3x3 transposed, pooled"),
]
each_connection = pytest.mark.parametrize(("layer", "pool", "input_shape"), CONNECTIONS)


def connection(layer: LayerSpec, pool: LayerSpec | None, input_shape: Shape, *, batch_norm: bool) -> Synapse:
    """A synapse in training mode, for its masks; running statistics, gains of both signs and shifts are random."""
    shape = layer.output_shape(input_shape)
    generator = torch.Generator().manual_seed(0)
    made = Synapse(
        layer,
        pool,
        input_shape=input_shape,
        shape=pool.output_shape(shape) if pool else shape,
        generator=generator,
        bias=True,
        batch_norm=batch_norm,
        dropout=0.3,
    ).double()
    norm = made.batch_norm
    with torch.no_grad():
        made.bias.normal_(generator=generator)
        if norm is not None:
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.3, 3.0, generator=generator)
            norm.weight.normal_(generator=generator)
            norm.bias.normal_(generator=generator)
    return made


def bind(made: Synapse, batch: int) -> BoundSynapse:
    return made.bind(batch, generator=torch.Generator().manual_seed(1))


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(layer: LayerSpec, weight: Tensor, input_shape: Shape) -> Tensor:
    """(outputs, inputs) from the definition of the layer, entry by entry.

    A convolution adds w[o, c, a, b] x[c, s i + a - p, s j + b - p] to the output at (o, i, j), p = (K - 1) / 2; a
    transposed one adds w[c, o, a, b] x[c, i, j] to the output at (o, 2 i + a - p, 2 j + b - p).
    """
    if layer.kind == "linear":
        return weight.flatten(1)
    shape = layer.output_shape(input_shape)
    full = torch.zeros(*shape, *input_shape, dtype=weight.dtype)
    near, far = (input_shape, shape) if layer.transposed else (shape, input_shape)
    kernel, pad = range(layer.kernel), (layer.kernel - 1) // 2
    for i, j, a, b in itertools.product(range(near[1]), range(near[2]), kernel, kernel):
        row, column = layer.stride * i + a - pad, layer.stride * j + b - pad
        if not (0 <= row < far[1] and 0 <= column < far[2]):
            continue
        if layer.transposed:
            full[:, row, column, :, i, j] += weight[:, :, a, b].t()
        else:
            full[:, i, j, :, row, column] += weight[:, :, a, b]
    return full.view(math.prod(shape), math.prod(input_shape))


@each_connection
def test_layer_is_its_definition(layer: LayerSpec, pool: LayerSpec | None, input_shape: Shape) -> None:
    del pool
    weight = connection(layer, None, input_shape, batch_norm=False).weight.detach()
    expected = matrix(layer, weight, input_shape)
    x, y = random(3, *input_shape, seed=2), random(3, *layer.output_shape(input_shape), seed=3)
    # Sums of at most a hundred float64 products of size one.
    assert_close(apply_layer(layer, weight, None, x).flatten(1), x.flatten(1) @ expected.t(), rtol=0, atol=1e-13)
    assert_close(apply_transpose(layer, weight, y, input_shape).flatten(1), y.flatten(1) @ expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("share", [0.05, 1.0], ids=["sparse", "dense"])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["", "batch norm"])
@each_connection
def test_adjoint_is_that_of_the_current(
    layer: LayerSpec, pool: LayerSpec | None, input_shape: Shape, batch_norm: bool, share: float
) -> None:
    """For every sample, with its mask: <current(x) - current(0), y> = <x, adjoint(slope)(y / slope)>, by entry."""
    made = connection(layer, pool, input_shape, batch_norm=batch_norm)
    bound = bind(made, 4)
    assert 0 < float((bound.mask == 0).double().mean()) < 1
    y = random(4, *made.shape, seed=5) * (
        torch.rand(4, *made.shape, generator=torch.Generator().manual_seed(6)) < share
    )
    y[0].flatten()[0] = 1.0  # something is left of the sparsest
    found = bound.adjoint(2 * (y != 0).double())(y / 2)  # the zeros of the slope make it sparse
    assert found.shape == (4, *input_shape)
    assert not found.requires_grad
    still, zero = bound.detached(), torch.zeros(4, *input_shape, dtype=torch.float64)
    nothing = still.current(zero)
    expected = torch.empty(4, math.prod(input_shape), dtype=torch.float64)
    for i in range(expected.shape[1]):
        x = zero.clone()
        x.view(4, -1)[:, i] = 1.0
        expected[:, i] = ((still.current(x) - nothing) * y).flatten(1).sum(1)
    # Differences of numbers of size ten, in float64.
    assert_close(found.flatten(1), expected, rtol=0, atol=1e-12)


@each_connection
def test_frozen_running_statistics_give_the_current(
    layer: LayerSpec, pool: LayerSpec | None, input_shape: Shape
) -> None:
    """The same values and gradients as batch norm itself, also after the running statistics moved on."""
    made = connection(layer, pool, input_shape, batch_norm=True)
    bound, x = bind(made, 4), random(4, *input_shape, seed=2)
    weighting = random(4, *made.shape, seed=3)
    parameters = list(made.parameters())
    expected = bound.current(x)
    gradients = torch.autograd.grad((expected * weighting).sum(), parameters)
    frozen = bound.frozen_current(x, bound.frozen_normalisation())
    bound.current(x + 1, "batch")
    # Scale and shift instead of difference and quotient: a few roundings of numbers of size ten.
    assert_close(frozen, expected, rtol=0, atol=1e-13)
    assert_close(torch.autograd.grad((frozen * weighting).sum(), parameters), gradients, rtol=1e-12, atol=1e-12)
