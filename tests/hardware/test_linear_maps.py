"""Products, adjoints, matrices and synapses of every geometry, against PyTorch's convolutions in exact integers."""

from collections.abc import Iterator
from math import prod

import numpy as np
import pytest
import torch
from torch.nn import functional

from fsnn_lava.hardware import linear_maps as module
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, TransposedConvolution, pooled
from fsnn_lava.hardware.linear_maps import LinearMap


def random_maps(count: int) -> Iterator[tuple[LinearMap, Array, Array]]:
    """A map, a batch of inputs and PyTorch's product; integers throughout, so that every sum is exact in float64."""
    rng = np.random.default_rng(0)
    while count:
        out, into = (int(n) for n in rng.integers(1, 5, 2))
        kernel, stride, padding = int(rng.integers(1, 7)), int(rng.integers(1, 5)), 0
        padding = int(rng.integers(0, kernel))
        sides = tuple(int(n) for n in rng.integers(1, 12, 2))
        x = rng.integers(-3, 4, (3, into, *sides)).astype(np.float64)
        if count % 2:
            if min(sides) + 2 * padding < kernel:
                continue
            weight = rng.integers(-2, 3, (out, into, kernel, kernel))
            y = functional.conv2d(torch.tensor(x), torch.tensor(weight).double(), stride=stride, padding=padding)
            geometry: Convolution | TransposedConvolution = Convolution(stride, padding)
        else:
            extra = int(rng.integers(0, stride))
            if min(sides) * stride - stride + kernel - 2 * padding + extra < 1:
                continue
            weight = rng.integers(-2, 3, (into, out, kernel, kernel))
            y = functional.conv_transpose2d(
                torch.tensor(x), torch.tensor(weight).double(), stride=stride, padding=padding, output_padding=extra
            )
            geometry = TransposedConvolution(stride, padding, extra)
        count -= 1
        yield LinearMap(geometry, weight, (into, *sides), tuple(y.shape[1:])), x.reshape(3, -1), y.flatten(1).numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_those_of_torch(dtype: type) -> None:
    for linear, x, y in random_maps(200):
        assert linear.geometry.weight_shape_fault(linear.weight.shape, linear.source, linear.target) is None
        found = linear.product(x.astype(dtype))
        assert found.dtype == dtype
        assert np.array_equal(found, y)


def test_products_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_NUMBERS", 1)
    for linear, x, y in random_maps(20):
        assert np.array_equal(linear.product(x), y)


def test_the_matrix_is_the_map_and_its_transpose_the_adjoint() -> None:
    rng = np.random.default_rng(1)
    for linear, x, y in random_maps(100):
        matrix = linear.unrolled()
        assert matrix.dtype == linear.weight.dtype
        assert np.array_equal((matrix @ x.T).T, y)
        back = rng.integers(-2, 3, (2, prod(linear.target))).astype(np.float64)
        assert np.array_equal(linear.adjoint(back), (matrix.T @ back.T).T)


def test_sums_and_synapses_are_counted_at_the_border_too() -> None:
    for linear, _, _ in random_maps(100):
        matrix = linear.unrolled().toarray()
        assert np.array_equal(linear.sums(), matrix.sum(axis=1))
        assert np.array_equal(linear.fan_out(), (matrix != 0).sum(axis=0))


def test_dense_maps() -> None:
    weight = np.array([[1, 0, -2], [0, 0, 5]], np.int32)
    linear = LinearMap(DENSE, weight, (3,), (1, 2, 1))
    assert np.array_equal(linear.product(np.array([[1.0, 2.0, 3.0]])), [[-5.0, 15.0]])
    assert np.array_equal(linear.adjoint(np.array([[1.0, 2.0]])), [[1.0, 0.0, 8.0]])
    assert np.array_equal(linear.sums(), [-1.0, 5.0])
    assert np.array_equal(linear.fan_out(), [1, 0, 2])
    assert np.array_equal(linear.unrolled().toarray(), weight)
    assert np.array_equal(linear.with_weight(2 * weight).weight, 2 * weight)


@pytest.mark.parametrize(
    ("kernel", "stride", "window", "sides"),
    [(3, 1, 2, (8, 6)), (5, 2, 2, (12, 16)), (1, 1, 3, (6, 9)), (3, 2, 3, (12, 6))],
)
def test_pooling_is_part_of_the_kernel(kernel: int, stride: int, window: int, sides: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    weight, x = rng.normal(size=(3, 2, kernel, kernel)), rng.normal(size=(4, 2, *sides))
    padding = (kernel - 1) // 2
    response = functional.conv2d(torch.tensor(x), torch.tensor(weight), stride=stride, padding=padding)
    expected = functional.avg_pool2d(response, window).numpy()
    wider, geometry = pooled(weight, Convolution(stride, padding), window)
    linear = LinearMap(geometry, wider, (2, *sides), expected.shape[1:])
    assert geometry.weight_shape_fault(wider.shape, linear.source, linear.target) is None
    # 1e-13: the same sums of float64 numbers of size 1 in another order.
    np.testing.assert_allclose(linear.product(x.reshape(4, -1)), expected.reshape(4, -1), rtol=0, atol=1e-13)
