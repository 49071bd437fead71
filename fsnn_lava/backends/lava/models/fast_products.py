"""The current that a message of spikes causes behind a matrix or a convolution, from the spikes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csc_matrix

from fsnn_lava.hardware import Array, LinearMap
from fsnn_lava.kernels.compile import compiled
from fsnn_lava.kernels.spike_sums import ScatterMap, gather, nonzero, one_run, scatter, scatter_map

_BRIDGE = 8
"""So many missing weights are kept as zeros, where that joins two runs of neighbouring targets."""


class Product:
    """The current (N_target,) int32 of the newest message.

    Parameters
    ----------
    weights : of the connection.
    worst : no sum of some of the weights into one target exceeds this magnitude.
    graded : whether a message's numbers multiply the weights; else every one that is not zero is a spike.
    size : number of sources.
    kind : type of the messages' numbers.
    """

    def __init__(self, weights: ScatterMap, *, worst: int, graded: bool, size: int, kind: np.dtype[Any]) -> None:
        self.current = np.zeros(weights.rows * weights.run, np.int32)
        self._weights = weights
        self._graded = graded
        self._newest: Array = np.zeros(size, kind)  # of which the current, zeros, is right
        self._spiking = np.zeros(size + 1, np.int32)
        self._plane = np.zeros(size if graded else 0, np.uint32)
        self._sums = np.zeros(weights.size, np.int16 if worst < 2**15 else np.int32)

    def update(self, message: Array) -> bool:
        """Compute `current` anew if the message differs from the newest one; tell whether it did."""
        if not replace(self._newest, message):
            return False
        self.current[:] = 0
        if not self._graded:
            self._add(message, 0)
            return True
        codes = message.astype(np.int32).view(np.uint32)  # negative numbers: modulo 2**32, as all sums are
        present = int(np.bitwise_or.reduce(codes))
        for bit in (b for b in range(32) if present >> b & 1):
            np.bitwise_and(codes, np.uint32(1 << bit), out=self._plane)
            self._add(self._plane, bit)
        return True

    def _add(self, spikes: Array, shift: int) -> None:
        """Add the weights of these spikes, times 2**shift."""
        count = nonzero(spikes, self._spiking)
        if count:
            self._sums[:] = 0
            scatter(self._spiking, count, self._weights, self._sums)
            gather(self._sums, self._weights, shift, self.current)


@compiled
def replace(old: Array, new: Array) -> bool:
    """Overwrite the old numbers by the new ones from their first difference on; tell whether there was one."""
    # Comparison and copy read each number once, and a message that did not change is never written.
    for i in range(len(old)):
        if old[i] != new[i]:
            for j in range(i, len(old)):
                old[j] = new[j]
            return True
    return False


def matrix_product(matrix: Any, *, graded: bool, kind: np.dtype[Any]) -> Product:
    """The product with a matrix (N_target, N_source) of integers, sparse or dense."""
    columns = csc_matrix(matrix)
    columns.sum_duplicates()
    sums = [np.bincount(columns.indices, np.maximum(sign * columns.data.astype(float), 0)) for sign in (-1, 1)]
    worst = int(np.max(sums, initial=0))  # spikes may choose the weights of one sign
    return Product(column_map(columns), worst=worst, graded=graded, size=columns.shape[1], kind=kind)


def convolution_product(convolution: LinearMap, *, graded: bool, kind: np.dtype[Any]) -> Product:
    """The product with a convolution of integers, whose ends are flat in the order (W, H, C)."""
    weight = convolution.weight
    worst = int(max(np.maximum(sign * weight.astype(float), 0).sum(axis=(1, 2, 3)).max() for sign in (-1, 1)))
    weights = scatter_map(convolution, dtype=_narrowest(weight), order="whc")
    size = int(np.prod(convolution.source))
    return Product(weights, worst=worst, graded=graded, size=size, kind=kind)


def column_map(columns: csc_matrix) -> ScatterMap:
    """The matrix in the form that `scatter` takes: each source is the only one at a position of a class of its own.

    The columns of an unrolled convolution are made of long runs of neighbouring targets, which are added at once.
    """
    targets, sources = columns.shape
    starts = np.zeros(sources + 1, np.int64)
    nothing = np.zeros((0, 3), np.int64), np.zeros(0, _narrowest(columns.data))
    runs, numbers = _find_runs(columns.indptr, columns.indices, columns.data, starts, *nothing)
    segments, weights = np.zeros((runs, 3), np.int64), np.zeros(numbers, nothing[1].dtype)
    _find_runs(columns.indptr, columns.indices, columns.data, starts, segments, weights)
    corners, classes = np.zeros(sources, np.int64), np.arange(sources)
    return ScatterMap(weights, segments, starts, corners, classes, 1, 0, *one_run(targets))


@compiled
def _find_runs(
    indptr: Array, indices: Array, data: Array, starts: Array, segments: Array, weights: Array
) -> tuple[int, int]:
    """Count the runs of neighbouring targets and the weights in them; write them if the arrays are not empty."""
    # Column by column: a target close behind the last one extends its run, any other begins a new one. The same loop
    # counts and writes, so that the arrays are allocated at their final length.
    runs, numbers = 0, 0
    for source in range(len(indptr) - 1):
        starts[source] = runs
        after = 0  # the last run's end
        for k in range(indptr[source], indptr[source + 1]):
            target = indices[k]
            if k == indptr[source] or target - after > _BRIDGE:
                if len(segments):
                    segments[runs, 0], segments[runs, 2] = numbers, target
                runs += 1
            else:
                numbers += target - after
            if len(segments):
                weights[numbers] = data[k]
                segments[runs - 1, 1] = numbers + 1 - segments[runs - 1, 0]
            numbers += 1
            after = target + 1
    starts[len(indptr) - 1] = runs
    return runs, numbers


def _narrowest(weights: Array) -> type[np.signedinteger[Any]]:
    """int16 if it holds all these integers, else int32."""
    fits = weights.size == 0 or (weights.min() >= -(2**15) and weights.max() < 2**15)
    return np.int16 if fits else np.int32
