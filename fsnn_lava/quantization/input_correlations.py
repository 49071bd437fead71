"""Which rates a connection's source neurons send together on calibration inputs: the Hessian of GPTQ, factored.

The current of a target neuron is a row of weights times a *pattern*: the rates of the sources that the row meets. With
errors e of the row's weights, the current is off by e times the pattern, on average over all patterns by e M e' in the
square, M their mean outer product (GPTQ's Hessian X X', up to a factor). With M = L D L', L unit lower triangular, this
is sum over j of D_j (e L)_j**2: so weights that are rounded one after the other, the last one first, can each make up
for what the later ones did. `rounding` does so; GPTQ reaches the same weights from the factor of the inverse of M.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from fsnn_lava.datasets import evenly_spaced
from fsnn_lava.hardware import (
    Array,
    Convolution,
    Dense,
    Geometry,
    LinearMap,
    Shape,
    TransposedConvolution,
)

DAMPING = 0.03
"""Share of the mean square rate that is added to the diagonal of M: without it, a source that was silent on the
calibration inputs would take any error (GPTQ's ``percdamp``)."""
PATTERNS = 8192
"""Most patterns of which M is the mean, evenly spread over samples and positions."""
GROUP = 4608
"""Most weights of one row that make up for each other's errors."""


@dataclass(frozen=True, eq=False)
class Group:
    """Weights of a row that make up for each other's rounding.

    Parameters
    ----------
    places : (n,) where in the row they are; the last is rounded first.
    factor : (n, n) unit lower triangular L, float32.
    """

    places: Array
    factor: Array


def weight_rows(geometry: Geometry, weight: Array) -> Array:
    """(C_target, row) weights that make up each channel's (dense: each neuron's) current."""
    if isinstance(geometry, TransposedConvolution):
        weight = weight.swapaxes(0, 1)
    return np.asarray(weight.reshape(len(weight), -1))


def from_rows(geometry: Geometry, rows: Array, *, shape: Shape) -> Array:
    """Weights of that shape whose `weight_rows` these are."""
    if isinstance(geometry, TransposedConvolution):
        return np.asarray(rows.reshape(shape[1], shape[0], *shape[2:]).swapaxes(0, 1))
    return np.asarray(rows.reshape(shape))


def groups_of(weights: LinearMap, rates: Array) -> tuple[Group, ...]:
    """The groups of a connection's weights, each with the factor of the patterns that it meets.

    Parameters
    ----------
    rates : (B, N_source) of the connection's source.
    """
    return tuple(_group(places, patterns) for places, patterns in patterns_of(weights, rates))


def patterns_of(weights: LinearMap, rates: Array) -> Iterator[tuple[Array, Array]]:
    """For each group of a row's weights: its places in the row (n,), and patterns (P, n) float32 that it meets.

    A row has one group, or several where it is long, or where targets meet different parts of it (a transposed
    convolution with a stride).
    """
    geometry, kernel, source, target = weights.geometry, weights.weight.shape[-1], weights.source, weights.target
    if isinstance(geometry, Dense):  # a convolution of one position
        geometry, kernel, source, target = Convolution(), 1, (prod(source), 1, 1), (prod(target), 1, 1)
    # One row and column of zeros more, at the end, for the taps that fall outside the source.
    planes = np.zeros((len(rates), source[0], source[1] + 1, source[2] + 1), np.float32)
    planes[:, :, :-1, :-1] = rates.reshape(len(rates), *source)
    for rows in _phases(geometry, kernel, source[1], target[1]):
        for columns in _phases(geometry, kernel, source[2], target[2]):
            taps = kernel * rows.taps[:, None] + columns.taps
            for channels in np.array_split(np.arange(source[0]), -(-source[0] * taps.size // GROUP)):
                places = (channels[:, None] * kernel**2 + taps.ravel()).ravel()
                yield places, _patterns(planes, channels, rows, columns)


@dataclass(frozen=True, eq=False)
class _Phase:
    """Along one axis: the taps that meet a source, and for each position the source that each of them meets."""

    taps: Array
    sources: Array


def _phases(geometry: Geometry, kernel: int, sources: int, targets: int) -> list[_Phase]:
    """All targets see the same taps in a convolution; in a transposed one, targets that are a stride apart do."""
    assert not isinstance(geometry, Dense)
    stride, padding = geometry.stride, geometry.padding
    if isinstance(geometry, Convolution):
        taps = np.arange(kernel)
        found = [_Phase(taps, stride * np.arange(targets)[:, None] + taps - padding)]
    else:
        found = []
        for first in range(min(stride, targets)):
            taps = np.array([i for i in range(kernel) if (first + padding - i) % stride == 0], np.int64)
            places = np.arange(first, targets, stride)[:, None]
            found.append(_Phase(taps, (places + padding - taps) // stride))
    inside = [np.where((p.sources >= 0) & (p.sources < sources), p.sources, sources) for p in found]
    return [_Phase(p.taps, s) for p, s in zip(found, inside, strict=True) if p.taps.size]


def _patterns(planes: Array, channels: Array, rows: _Phase, columns: _Phase) -> Array:
    """(P, n) rates met by the taps of some channels."""
    total = (len(planes), len(rows.sources), len(columns.sources))
    count = min(PATTERNS, prod(total))
    sample, y, x = np.unravel_index(evenly_spaced(prod(total), count), total)
    met = planes[
        sample[:, None, None, None],
        channels[None, :, None, None],
        rows.sources[y][:, None, :, None],
        columns.sources[x][:, None, None, :],
    ]
    return np.asarray(met.reshape(count, -1))


def _group(places: Array, patterns: Array) -> Group:
    moment = patterns.T @ patterns / np.float32(len(patterns))
    level = float(moment.diagonal().mean())
    moment[np.diag_indices(len(moment))] += np.float32(DAMPING * level if level > 0 else 1.0)
    # The strongest source comes last and is rounded first, so that most weights make up for it (GPTQ's act_order).
    order = np.argsort(moment.diagonal(), kind="stable")
    root = np.linalg.cholesky(moment[np.ix_(order, order)])
    return Group(places[order], (root / root.diagonal()).astype(np.float32))
