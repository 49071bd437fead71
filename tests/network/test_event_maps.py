"""Event-driven products against dense ones."""

from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.network import event_maps
from fsnn_lava.network.event_maps import event_map
from fsnn_lava.network.initial_weights import pool_weight
from fsnn_lava.network.layers import apply_layer

LAYERS = [
    LayerSpec("conv", 6, 3),
    LayerSpec("conv", 5, 5),
    LayerSpec("conv", 6, 1),
    LayerSpec("conv", 6, 1, 2),
    LayerSpec("conv", 6, 3, 2),
    LayerSpec("conv", 6, 7, 2),
    LayerSpec("conv", 6, 1, 2, transposed=True),
    LayerSpec("conv", 6, 3, 2, transposed=True),
    LayerSpec("conv", 6, 5, 2, transposed=True),
    LayerSpec("linear", 12),
]
POOLS = [(LayerSpec("pool", 0, 2, 2), (3, 6, 8)), (LayerSpec("pool", 0, 3, 3), (5, 9, 6))]
SHAPES = [(3, 7, 7), (2, 8, 6), (9, 5, 8)]
CASES = [pytest.param(layer, shape, id=f"{layer}-{shape}") for layer in LAYERS for shape in SHAPES]
CASES += [pytest.param(layer, shape, id=f"{layer}-{shape}") for layer, shape in POOLS]
each_case = pytest.mark.parametrize(("layer", "shape"), CASES)


def _weight(layer: LayerSpec, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if layer.kind == "linear":
        return torch.randn(layer.features, prod(shape), dtype=dtype)
    if layer.kind == "pool":
        return pool_weight(layer, shape[0]).to(dtype)
    ends = (shape[0], layer.features) if layer.transposed else (layer.features, shape[0])
    return torch.randn(*ends, layer.kernel, layer.kernel, dtype=dtype)


def _sparse(batch: int, shape: tuple[int, ...], share: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, *shape, dtype=dtype) * (torch.rand(batch, *shape) < share)


@each_case
def test_product_equals_the_dense_one(layer: LayerSpec, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = _weight(layer, shape, torch.float64)
    for share in (0.05, 0.5, 1.0):
        x = _sparse(3, shape, share)
        # Sums of at most 500 numbers of size 1, in another order.
        assert_close(
            event_map(layer, weight, shape).product(x, layer.output_shape(shape)),
            apply_layer(layer, weight, None, x),
            rtol=0,
            atol=1e-12,
        )


@each_case
def test_adjoint_product_is_the_transpose(layer: LayerSpec, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    weight = _weight(layer, shape, torch.float64)
    x = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    y = _sparse(2, layer.output_shape(shape), 0.4)
    (expected,) = torch.autograd.grad(apply_layer(layer, weight, None, x), x, y)
    assert_close(event_map(layer, weight, shape, adjoint=True).product(y, shape), expected, rtol=0, atol=1e-12)


def test_channels_last_inputs_and_weights_give_the_same() -> None:
    torch.manual_seed(2)
    layer = LayerSpec("conv", 6, 3, 2)
    weight, x = _weight(layer, (4, 8, 8), torch.float32), _sparse(2, (4, 8, 8), 0.5, torch.float32)
    found = event_map(layer, weight, (4, 8, 8)).product(x, (6, 4, 4))
    form = torch.channels_last
    last = event_map(layer, weight.contiguous(memory_format=form), (4, 8, 8)).product(
        x.contiguous(memory_format=form), (6, 4, 4)
    )
    assert torch.equal(last, found)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_blocks_of_channels_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    layer, shape = LayerSpec("conv", 6, 3, 2), (11, 8, 6)
    weight, x = _weight(layer, shape, torch.float64), _sparse(3, shape, 0.6)
    monkeypatch.setattr(event_maps, "BLOCK_NUMBERS", 1)
    ready = event_map(layer, weight, shape)
    assert ready.row.block == 4  # so that eleven channels make three blocks, the last one not full
    expected = apply_layer(layer, weight, None, x)
    assert_close(ready.product(x, expected.shape[1:]), expected, rtol=0, atol=1e-12)


def test_every_tap_belongs_to_one_class_of_positions() -> None:
    for layer in LAYERS[:-1]:
        ready = event_map(layer, _weight(layer, (2, 9, 9), torch.float64), (2, 9, 9))
        lengths = ready.segments[:, 1].sum()
        assert lengths == layer.kernel**2 * layer.features
        assert np.array_equal(ready.starts[[0, -1]], [0, len(ready.segments)])
