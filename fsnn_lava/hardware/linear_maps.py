"""A connection's weights as the linear map that they are: products with batches, the matrix itself, its synapses.

Dense products of whole batches, by matrix multiplication; zeros are multiplied like anything else. Integers may be
given as floats: every sum is then exact as long as it stays below 2**24 (float32) or 2**53 (float64).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from fsnn_lava.hardware.geometry import Array, Convolution, Dense, Geometry, Shape, TransposedConvolution
from fsnn_lava.hardware.network import Connection, HardwareNetwork

_CHUNK_NUMBERS = 2**24
"""Numbers that are unfolded at a time."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Map from the neurons of a source, flat in C order, to those of a target.

    Parameters
    ----------
    geometry : how the weights are laid out.
    weight : of any number type, shaped as the geometry says.
    source, target : shapes of both ends.
    """

    geometry: Geometry
    weight: Array
    source: Shape
    target: Shape

    def product(self, x: Array) -> Array:
        """(B, N_target) of x (B, N_source), in the type of x, float32 or float64."""
        weight = self.weight.astype(x.dtype, copy=False)
        if isinstance(self.geometry, Dense):
            return np.asarray(x @ weight.T)
        product = np.empty((len(x), prod(self.target)), x.dtype)
        rows = max(1, _CHUNK_NUMBERS // self._unfolded_numbers)
        for first in range(0, len(x), rows):
            part = x[first : first + rows].reshape(-1, *self.source)
            product[first : first + rows] = self._convolved(part, weight).reshape(len(part), -1)
        return product

    def with_weight(self, weight: Array) -> LinearMap:
        """The same map with other weights of the same shape."""
        return LinearMap(self.geometry, weight, self.source, self.target)

    def sums(self) -> Array:
        """(N_target,) float64 sum of the weights that reach each target neuron."""
        if isinstance(self.geometry, Dense):
            return np.asarray(self.weight.sum(axis=1, dtype=np.float64))
        axis = 1 if isinstance(self.geometry, Convolution) else 0
        total = self.weight.sum(axis=axis, keepdims=True, dtype=np.float64)
        plane = (1, *self.source[1:])
        return np.asarray(LinearMap(self.geometry, total, plane, self.target).product(np.ones((1, prod(plane))))[0])

    def fan_out(self) -> Array:
        """(N_source,) int64 number of synapses, weights that are not zero, that leave each source neuron."""
        present = self.with_weight((self.weight != 0).astype(np.float64))
        return np.asarray(present.adjoint(np.ones((1, prod(self.target))))[0].astype(np.int64))

    def adjoint(self, y: Array) -> Array:
        """(B, N_source) product of the transposed map with y (B, N_target)."""
        return self._transposed().product(y)

    def unrolled(self) -> csr_matrix:
        """The matrix (N_target, N_source) with every weight in its place, without the zeros."""
        if isinstance(self.geometry, Dense):
            return csr_matrix(self.weight)
        if isinstance(self.geometry, TransposedConvolution):
            return self._transposed().unrolled().T.tocsr()
        stride, padding = self.geometry.stride, self.geometry.padding
        channels, source_channels, kernel, _ = self.weight.shape
        out, into = np.indices((channels, *self.target[1:])), np.arange(prod(self.target)).reshape(self.target)
        rows, columns, values = [], [], []
        for d, i, j in np.ndindex(source_channels, kernel, kernel):
            y, x = stride * out[1] + i - padding, stride * out[2] + j - padding
            inside = (y >= 0) & (y < self.source[1]) & (x >= 0) & (x < self.source[2])
            inside &= (self.weight[:, d, i, j] != 0)[:, None, None]
            rows.append(into[inside])
            columns.append(((d * self.source[1] + y) * self.source[2] + x)[inside])
            values.append(self.weight[out[0][inside], d, i, j])
        places = (np.concatenate(rows), np.concatenate(columns))
        return csr_matrix((np.concatenate(values), places), shape=(prod(self.target), prod(self.source)))

    @property
    def products(self) -> int:
        """Number of products of a dense pass of one sample, zeros and taps beyond the border included."""
        if isinstance(self.geometry, Dense):
            return self.weight.size
        end = self.source if isinstance(self.geometry, TransposedConvolution) else self.target
        return self.weight.size * prod(end[1:])

    @property
    def _unfolded_numbers(self) -> int:
        side = self.weight.shape[-1]
        if isinstance(self.geometry, Convolution):
            return self.source[0] * side**2 * prod(self.target[1:])
        return self.target[0] * side**2 * prod(self.source[1:])

    def _transposed(self) -> LinearMap:
        """The map whose matrix is the transpose of this one's."""
        geometry, weight = self.geometry, self.weight
        if isinstance(geometry, Dense):
            return LinearMap(geometry, weight.T, self.target, self.source)
        if isinstance(geometry, TransposedConvolution):
            return LinearMap(Convolution(geometry.stride, geometry.padding), weight, self.target, self.source)
        reached = geometry.stride * (self.target[1] - 1) + weight.shape[2] - 2 * geometry.padding
        wider = TransposedConvolution(geometry.stride, geometry.padding, self.source[1] - reached)
        return LinearMap(wider, weight, self.target, self.source)

    def _convolved(self, x: Array, weight: Array) -> Array:
        """(b, C, H, W) of x (b, C', H', W'), unfolded into one matrix product."""
        if isinstance(self.geometry, Convolution):
            return _correlated(x, weight, self.target, stride=self.geometry.stride, padding=self.geometry.padding)
        assert isinstance(self.geometry, TransposedConvolution)
        return _spread(x, weight, self.target, stride=self.geometry.stride, padding=self.geometry.padding)


def exact_dtype(largest: int) -> type[Any]:
    """The fastest type in which sums up to that magnitude are exact: float32, float64, or int64, without BLAS."""
    return np.float32 if largest < 2**24 else np.float64 if largest < 2**53 else np.int64


def linear_map(network: HardwareNetwork, connection: Connection) -> LinearMap:
    """The map of one of the network's connections; its weights are the connection's own (mantissas if integer)."""
    source, target = network.shape_of(connection.source), network.shape_of(connection.target)
    return LinearMap(connection.geometry, connection.weight, source, target)


def _correlated(x: Array, weight: Array, target: Shape, *, stride: int, padding: int) -> Array:
    kernel = weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows: Array = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))  # type: ignore[call-overload]
    windows = windows[:, :, ::stride, ::stride][:, :, : target[1], : target[2]]
    columns = windows.transpose(1, 4, 5, 0, 2, 3).reshape(weight[0].size, -1)
    product = weight.reshape(len(weight), -1) @ columns
    return np.asarray(product.reshape(len(weight), len(x), *target[1:]).swapaxes(0, 1))


def _spread(x: Array, weight: Array, target: Shape, *, stride: int, padding: int) -> Array:
    channels, kernel = weight.shape[1], weight.shape[2]
    batch, _, height, width = x.shape
    sides = [max(stride * (n - 1) + kernel, m + padding) for n, m in zip((height, width), target[1:], strict=True)]
    room = np.zeros((channels, batch, *sides), x.dtype)
    rows = weight.reshape(len(weight), -1).T @ x.swapaxes(0, 1).reshape(len(weight), -1)
    taps = rows.reshape(channels, kernel, kernel, batch, height, width)
    for i, j in np.ndindex(kernel, kernel):
        room[:, :, i : i + stride * height : stride, j : j + stride * width : stride] += taps[:, i, j]
    kept = room[:, :, padding : padding + target[1], padding : padding + target[2]]
    return np.asarray(kept.swapaxes(0, 1))
