"""Event-driven sums of spikes against dense products, exactly, for every geometry and layout."""

from typing import Any

import numpy as np
import pytest

from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, Geometry, TransposedConvolution
from fsnn_lava.hardware.linear_maps import LinearMap
from fsnn_lava.kernels.spike_sums import NEAR_BYTES, Order, flat_order, gather, nonzero, scatter, scatter_map, sum_dtype

SIDES = [(5, 7), (8, 6), (4, 4)]
CONVOLUTIONS: list[tuple[int, Geometry]] = [
    (kernel, Convolution(stride, padding))
    for kernel, stride, padding in [
        (1, 1, 0), (2, 1, 1), (3, 1, 1), (3, 1, 0), (4, 1, 3), (4, 2, 1), (3, 2, 1), (2, 2, 0), (1, 2, 0), (2, 3, 1),
        (4, 4, 0), (4, 3, 2),
    ]
]  # fmt: skip
TRANSPOSED: list[tuple[int, Geometry]] = [
    (kernel, TransposedConvolution(stride, padding, output_padding))
    for kernel, stride, padding, output_padding in [
        (3, 2, 1, 1), (3, 1, 1, 0), (5, 2, 2, 1), (2, 2, 0, 0), (1, 2, 0, 1), (4, 3, 0, 2), (2, 3, 1, 0), (3, 1, 0, 0),
    ]
]  # fmt: skip


def convolution_map(kernel: int, geometry: Geometry, sides: tuple[int, int], seed: int) -> LinearMap:
    """A map with random mantissas from 3 to 5 channels."""
    rng = np.random.default_rng(seed)
    if isinstance(geometry, TransposedConvolution):
        into = [geometry.stride * (n - 1) + kernel - 2 * geometry.padding + geometry.output_padding for n in sides]
        weight = rng.integers(-128, 128, (3, 5, kernel, kernel))
    else:
        into = [(n + 2 * geometry.padding - kernel) // geometry.stride + 1 for n in sides]
        weight = rng.integers(-128, 128, (5, 3, kernel, kernel))
    return LinearMap(geometry, weight, (3, *sides), (5, *into))


def response(linear_map: LinearMap, spikes: Array, *, order: Order = "hwc", dtype: Any = np.int8, into: Any) -> Array:
    """(N_target,) int32 in C order of spikes (N_source,) in C order, by way of that layout."""
    m = scatter_map(linear_map, dtype=dtype, order=order)
    spiking = np.empty(len(spikes) + 1, np.int32)
    count = nonzero(spikes[flat_order(linear_map.source, order)], spiking)
    out = np.zeros(m.size, into)
    scatter(spiking, count, m, out)
    current = np.zeros(int(np.prod(linear_map.target)), np.int32)
    gather(out, m, 0, current)
    places = flat_order(linear_map.target, order)
    in_order = np.empty_like(current)
    in_order[places] = current
    return in_order


@pytest.mark.parametrize("order", ["hwc", "whc"])
@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize(("kernel", "geometry"), CONVOLUTIONS + TRANSPOSED, ids=str)
def test_scattered_spikes_are_the_unrolled_product(
    kernel: int, geometry: Geometry, sides: tuple[int, int], order: Order
) -> None:
    linear_map = convolution_map(kernel, geometry, sides, seed=kernel)
    matrix, rng = linear_map.unrolled(), np.random.default_rng(1)
    for share in (0.0, 0.05, 0.4, 1.0):
        spikes = (rng.random(matrix.shape[1]) < share).astype(np.uint8)
        found = response(linear_map, spikes, order=order, into=sum_dtype(linear_map))
        assert np.array_equal(found, matrix @ spikes.astype(np.int64))


@pytest.mark.parametrize("order", ["hwc", "whc"])
@pytest.mark.parametrize(
    ("source", "target"), [((7,), (5,)), ((2, 3, 4), (6,)), ((4,), (3, 2, 2)), ((2, 2, 3), (2, 3, 2))]
)
def test_dense_connections_join_every_layout(source: tuple[int, ...], target: tuple[int, ...], order: Order) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (int(np.prod(target)), int(np.prod(source))))
    spikes = (rng.random(weight.shape[1]) < 0.5).astype(np.uint8)
    found = response(LinearMap(DENSE, weight, source, target), spikes, order=order, into=np.int32)
    assert np.array_equal(found, weight @ spikes)


@pytest.mark.parametrize("into", [np.int16, np.int32, np.float64])
def test_runs_of_every_length_are_added_to_their_last_number(into: Any) -> None:
    """Blocks of 64 outputs or fewer, and what is left of a run, whose neighbours stay as they are."""
    rng = np.random.default_rng(0)
    kept = np.float64 if into is np.float64 else np.int8
    for length in (*range(1, 70), 127, 128, 129, 200):
        matrix = rng.integers(-99, 100, (length, 9))
        m = scatter_map(LinearMap(DENSE, matrix, (9,), (length,)), dtype=kept)
        out = np.full(length + 20, 7, into)
        scatter(np.array([1, 4, 5, 8], np.int32), 4, m, out[10:-10])
        assert np.array_equal(out[10:-10], 7 + matrix[:, [1, 4, 5, 8]].sum(1))
        assert (out[:10] == 7).all() and (out[-10:] == 7).all()


@pytest.mark.parametrize("spikes", [0, 1, 3, 4, 6, 150, 600])
def test_weights_beyond_the_cache_are_added_alike(spikes: int) -> None:
    rng = np.random.default_rng(spikes)
    matrix = rng.integers(-40, 41, (601, 600))
    m = scatter_map(LinearMap(DENSE, matrix, (600,), (601,)), dtype=np.int8)
    assert m.weights.nbytes > NEAR_BYTES
    spiking, out = np.sort(rng.permutation(600)[:spikes]).astype(np.int32), np.zeros(m.size, np.int16)
    scatter(spiking, len(spiking), m, out)
    assert np.array_equal(out, matrix[:, spiking].sum(1))


def test_spikes_in_any_order_add_up_to_the_same() -> None:
    linear_map = convolution_map(3, Convolution(1, 1), (5, 7), seed=0)
    m, rng = scatter_map(linear_map, dtype=np.int8), np.random.default_rng(0)
    spiking = np.flatnonzero(rng.random(3 * 35) < 0.4).astype(np.int32)
    sums = []
    for places in (spiking, rng.permutation(spiking)):
        out = np.zeros(m.size, np.int32)
        scatter(places, len(places), m, out)
        sums.append(out)
    assert np.array_equal(sums[0], sums[1])


def test_only_counted_spikes_are_added_to_what_is_there() -> None:
    linear_map = LinearMap(DENSE, np.array([[1, 2, 4]]), (3,), (1,))
    out = np.full(1, 100, np.int16)
    scatter(np.array([2, 0, 1], np.int32), 2, scatter_map(linear_map, dtype=np.int8), out)
    assert out.tolist() == [105]


def test_gather_shifts_and_adds() -> None:
    m = scatter_map(LinearMap(DENSE, np.array([[1], [2]]), (1,), (2,)), dtype=np.int8)
    current = np.array([10, 20], np.int32)
    gather(np.array([-30000, 7], np.int16), m, 3, current)
    assert current.tolist() == [10 - 240000, 20 + 56]


@pytest.mark.parametrize("kind", [np.int16, np.int32])
def test_gather_rounds_down_what_it_divides(kind: type[np.integer[Any]]) -> None:
    m = scatter_map(LinearMap(DENSE, np.ones((6, 1), int), (1,), (6,)), dtype=np.int8)
    current = np.full(6, 10, np.int32)
    gather(np.array([-9, -8, -1, 0, 7, 9], kind), m, -3, current)
    assert (current - 10).tolist() == [-2, -1, -1, 0, 0, 1]


@pytest.mark.parametrize(("weights", "expected"), [
    ([[127] * 258 + [1]], np.int16), ([[127] * 258 + [2]], np.int32), ([[-128] * 256], np.int32),
    ([[127, -127] * 258], np.int16), ([[127, -127] * 259], np.int32),
])  # fmt: skip
def test_sums_are_as_narrow_as_their_proof_allows(weights: list[list[int]], expected: type) -> None:
    """258 times 127, and 1, are 32767; positive and negative weights count apart, since spikes may choose either."""
    weight = np.array(weights)
    assert sum_dtype(LinearMap(DENSE, weight, (weight.shape[1],), (1,))) is expected


def test_sums_of_a_convolution_count_the_inputs_at_one_output() -> None:
    def widened(value: int) -> type:
        return sum_dtype(LinearMap(Convolution(1, 1), np.full((1, 29, 3, 3), value), (29, 3, 3), (1, 3, 3)))

    assert 29 * 9 * 125 < 2**15 <= 29 * 9 * 126
    assert widened(125) is np.int16
    assert widened(126) is np.int32


def test_float_weights_are_added_in_float64() -> None:
    rng = np.random.default_rng(0)
    linear_map = LinearMap(Convolution(2, 1), rng.standard_normal((4, 3, 3, 3)), (3, 6, 6), (4, 3, 3))
    spikes = (rng.random(108) < 0.3).astype(np.uint8)
    m = scatter_map(linear_map, dtype=np.float64)
    spiking, out = np.empty(109, np.int32), np.zeros(m.size)
    scatter(spiking, nonzero(spikes[flat_order((3, 6, 6))], spiking), m, out)
    inner = out[: m.size].reshape(-1, m.pitch)[m.first // m.pitch :][: m.rows, m.first % m.pitch :][:, : m.run]
    expected = linear_map.product(spikes[None].astype(np.float64))[0][flat_order((4, 3, 3))]
    np.testing.assert_allclose(inner.ravel(), expected, rtol=0, atol=1e-13)  # 27 numbers of size 1 in another order


def test_weights_that_the_type_does_not_hold_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match=r"int8.* does not hold"):
        scatter_map(LinearMap(DENSE, np.array([[128]]), (1,), (1,)), dtype=np.int8)
