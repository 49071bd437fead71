"""Shadows as whole numbers: where each connection's integers come from, and how these become weights again.

A `Place` is a connection of the network with all that does not depend on scales; `Scaled` adds these; `Rounding` makes
the whole numbers of one shadow; `StraightThrough` takes the gradient back to it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.config import LayerSpec
from fsnn_lava.datasets import InputCoding
from fsnn_lava.hardware import ALWAYS_ON, INPUT, Array, Connection, HardwareNetwork, IntegerNeuron
from fsnn_lava.kernels.weight_rounding import round_rows
from fsnn_lava.network import BoundSynapse, FeedbackSNN, FoldedSynapse, Synapse, apply_layer, folded
from fsnn_lava.quantization import CURRENT_LIMIT, round_current, shared


@dataclass(frozen=True, eq=False)
class IntegerSynapse(BoundSynapse):
    """A connection of dequantized weights during one forward call.

    Parameters
    ----------
    rest : (*N) constant current beside the bias: what rounding leaves of it.
    """

    rest: Tensor

    def linear(self, x: Tensor) -> Tensor:
        """Response of the linear map (B, *N), constant current included."""
        return super().linear(x) + self.rest


class WholeNumbers(NamedTuple):
    """A connection's whole numbers.

    Parameters
    ----------
    mantissa : shaped as the weight, an integer type.
    weight : on normalised inputs, what the mantissas stand for, in floats.
    current : (N,) constant current into its target, int32; None: it brings none.
    excess : int8, 1 where a shadow is above the mantissa's range, -1 below; None: all are within.
    low, high : (R,) int64 most negative and most positive sum of mantissas that reaches one neuron of each row.
    """

    mantissa: Tensor
    weight: Tensor
    current: Tensor | None
    excess: Tensor | None
    low: Array
    high: Array


Shadow = tuple[Tensor, Tensor | None]
"""Folded weight, on normalised inputs, and folded bias (C,) of a connection."""


@dataclass(frozen=True, eq=False)
class Place:
    """A connection of the network, and what its integers are made with, whatever the scales are.

    Parameters
    ----------
    weights, current : connections of the float network: it, and the constant current that comes with it.
    target : number of the population that it ends in.
    synapse : its layer with the pooling in it.
    pool : window of that pooling, 1 without.
    factor : by what a weight on normalised inputs is multiplied to be one on codes; None: not of the input.
    shift : (1, *shape) normalised value of code 0, with its sign turned; None where it is 0 everywhere.
    largest : code that the source sends at most.
    """

    weights: Connection
    current: Connection | None
    target: int
    synapse: FoldedSynapse
    pool: int
    factor: Tensor | None
    shift: Tensor | None
    largest: int

    def folded(self, bound: BoundSynapse) -> Shadow:
        """Weight and bias of a bound connection with batch norm and pooling in them, with gradients."""
        weight, bias = folded(bound)
        return _pooled(weight, bound.synapse.layer.stride, self.pool), bias

    def rows(self, weight: Tensor) -> Tensor:
        """(R, n) the weight by channels of the target; of a transposed convolution, phase after phase."""
        if not self.synapse.layer.transposed:
            return weight.flatten(1).contiguous()
        stride, rows = self.synapse.layer.stride, weight.swapaxes(0, 1)
        return torch.cat([rows[..., y::stride, x::stride].flatten(1) for y, x in _phases(stride)], 1)

    def from_rows(self, rows: Tensor) -> Tensor:
        """The weight whose `rows` these are."""
        shape = self.weights.weight.shape
        if not self.synapse.layer.transposed:
            return rows.view(shape)
        stride, weight, first = self.synapse.layer.stride, rows.new_empty((shape[1], shape[0], *shape[2:])), 0
        for y, x in _phases(stride):
            part = weight[..., y::stride, x::stride]
            size = part[0].numel()
            part.copy_(rows[:, first : first + size].view(part.shape))
            first += size
        return weight.swapaxes(0, 1).contiguous()

    def starts(self) -> Array:
        """(P + 1,) first column of each phase in `rows`, and the end."""
        shape, stride = self.weights.weight.shape, self.synapse.layer.stride
        if not self.synapse.layer.transposed:
            return np.array([0, math.prod(shape[1:])])
        sides = [(len(range(y, shape[2], stride)), len(range(x, shape[3], stride))) for y, x in _phases(stride)]
        return np.cumsum([0, *(shape[0] * a * b for a, b in sides)])

    def everywhere(self, bias: Tensor | None) -> Tensor | float:
        """(N,) the bias of each neuron's channel."""
        return 0.0 if bias is None else bias.repeat_interleave(math.prod(self.synapse.shape[1:]))


def _phases(stride: int) -> list[tuple[int, int]]:
    """Taps of a transposed convolution that one target meets begin at one of these."""
    return [(y, x) for y in range(stride) for x in range(stride)]


class Scaled:
    """A place with its scales: shadows become whole numbers here, and these weights again.

    Parameters
    ----------
    neuron : of the target.
    exponent, parts : of the connection.
    limits : smallest and largest mantissa, of all parts together.

    Attributes
    ----------
    starts, factor, step : as `round_rows` takes them.
    """

    def __init__(self, place: Place, neuron: IntegerNeuron, exponent: int, parts: int, limits: tuple[int, int]) -> None:
        self.place, self.neuron, self.exponent, self.parts = place, neuron, exponent, parts
        self.limits, self.starts = np.array(limits, np.float64), place.starts()
        step = neuron.scale * 2.0**exponent
        one = torch.ones((), dtype=torch.float64) if place.factor is None else place.factor
        self._value = step / one
        shape = place.weights.weight.shape
        self.factor, self.step = (place.rows(value.expand(shape))[0].numpy() for value in (one / step, self._value))

    def whole(self, mantissa: Tensor, current: Tensor | None) -> WholeNumbers:
        """Whole numbers that are known, in float64."""
        rows, ends = self.place.rows(mantissa.to(torch.int32)), self.starts.tolist()
        phases = [rows[:, first:end] for first, end in itertools.pairwise(ends)]
        low = torch.stack([phase.clamp_max(0).sum(1) for phase in phases]).amin(0)
        high = torch.stack([phase.clamp_min(0).sum(1) for phase in phases]).amax(0)
        weight = self.weight(mantissa, torch.float64)
        return WholeNumbers(mantissa.to(torch.int32), weight, current, None, low.numpy(), high.numpy())

    def units(self, weight: Tensor) -> Tensor:
        """A weight on normalised inputs in steps of the mantissa."""
        units: Tensor = weight / self._value.to(weight.dtype)
        return units

    def weight(self, mantissa: Tensor, kind: torch.dtype) -> Tensor:
        """The weight on normalised inputs that mantissas stand for."""
        weight: Tensor = mantissa * self._value.to(kind)
        return weight

    def border(self, weight: Tensor) -> Tensor | float:
        """(N,) by what the current on codes is larger than that on normalised inputs."""
        if self.place.shift is None:
            return 0.0
        layer, shift = self.place.synapse.layer, self.place.shift.to(weight.dtype)
        return apply_layer(layer, weight.detach(), None, shift)[0].flatten()

    def bound(self, found: WholeNumbers, kind: torch.dtype, shadow: Shadow | None = None) -> IntegerSynapse:
        """The connection of whole numbers; with a shadow, gradients go straight through to that."""
        weight, bias = found.weight.to(kind), None
        rest = torch.zeros((), dtype=kind) + self.border(weight)
        if found.current is not None:
            rest = rest + found.current.to(kind) * self.neuron.scale
        if shadow is not None:
            weight = StraightThrough.apply(shadow[0], weight, found.excess)  # type: ignore[no-untyped-call]
            bias = shadow[1]
            rest = rest - self.place.everywhere(None if bias is None else bias.detach())
        synapse = self.place.synapse
        return IntegerSynapse(synapse, weight, bias, None, None, None, rest.view(synapse.shape) if rest.dim() else rest)

    def parts_of(self, found: WholeNumbers, bits: int) -> list[Connection]:
        """The integer connections that the mantissas are shared by."""
        mantissa = found.mantissa.numpy()
        return shared(self.place.weights, mantissa, exponent=self.exponent, parts=self.parts, bits=bits)

    def connections(self, found: WholeNumbers, bits: int) -> dict[str, list[Connection]]:
        """The integer connections of whole numbers, by the name of the float one that they stand for."""
        weights, current = self.place.weights, self.place.current
        made = {weights.name: self.parts_of(found, bits)}
        if current is not None:
            assert found.current is not None
            made[current.name] = round_current(current, found.current.numpy()[:, None])[0]
        return made


class Rounding:
    """A shadow while it is rounded: rows of it may have to be made smaller, and are then rounded once more.

    Parameters
    ----------
    shadow : without gradients.
    offset, current_offset : by which mantissas and constant current are moved first; None: it brings no current.
    """

    def __init__(self, scaled: Scaled, shadow: Shadow, offset: Tensor, current_offset: Tensor | None) -> None:
        self._scaled, self._current_offset = scaled, current_offset
        weight, self._bias = shadow
        place = scaled.place
        self._rows, self._offset = place.rows(weight), place.rows(offset.to(weight.dtype))
        self._mantissa = torch.empty(self._rows.shape, dtype=torch.int32)
        self._value = torch.empty_like(self._rows)
        self._excess = torch.empty(self._rows.shape, dtype=torch.int8)
        self._sums = np.empty((len(self._rows), len(scaled.starts) - 1, 2), np.int64)

    def integers(self, shrunk: Array, which: Array) -> WholeNumbers:
        """Round some rows, all of them first; return the whole numbers of all.

        Parameters
        ----------
        shrunk : (R,) factor of each row.
        which : int64, the rows.
        """
        scaled, place, kind = self._scaled, self._scaled.place, self._rows.dtype
        numbers = scaled.factor, scaled.step, shrunk, scaled.limits
        factor, step, smaller, limits = (array.astype(self._rows.numpy().dtype) for array in numbers)
        written = (tensor.numpy() for tensor in (self._mantissa, self._value, self._excess))
        given = self._rows.numpy(), factor, step, self._offset.numpy(), smaller, limits, scaled.starts, which
        round_rows(*given, *written, self._sums)
        weight, current = place.from_rows(self._value), None
        if self._current_offset is not None:
            exact = (place.everywhere(self._bias) - scaled.border(weight)) / scaled.neuron.scale
            each = torch.from_numpy(smaller).repeat_interleave(math.prod(place.synapse.shape[1:]))
            exact = (exact + self._current_offset.to(kind)) * each
            current = exact.round_().clamp_(-CURRENT_LIMIT, CURRENT_LIMIT).to(torch.int32)
        excess = place.from_rows(self._excess) if bool(self._excess.any()) else None
        low, high = self._sums[..., 0].min(axis=1), self._sums[..., 1].max(axis=1)
        return WholeNumbers(place.from_rows(self._mantissa), weight, current, excess, low, high)


class StraightThrough(torch.autograd.Function):
    """Value: dequantized weights. Backward: to the shadows, but for what would take one further out of the range."""

    @staticmethod
    def forward(ctx: Any, shadow: Tensor, value: Tensor, excess: Tensor | None) -> Tensor:
        """Return the dequantized weights."""
        ctx.excess = excess
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Hand the gradient to the shadows."""
        if ctx.excess is not None:  # a step goes against the gradient
            gradient = gradient.masked_fill(ctx.excess * gradient < 0, 0.0)
        return gradient, None, None


def places_of(model: FeedbackSNN, floating: HardwareNetwork, coding: InputCoding) -> tuple[Place, ...]:
    """A place of each connection, feedforward ones first."""
    constants = {c.target: c for c in floating.connections if c.source == ALWAYS_ON}
    learned = [c for c in floating.connections if c.source != ALWAYS_ON]
    order = {p.name: i for i, p in enumerate(floating.populations)}
    found = []
    for number, (weights, synapse) in enumerate(zip(learned, model.synapses, strict=True)):
        factor, shift = _of_codes(synapse, coding) if weights.source == INPUT else (None, None)
        current = constants.get(weights.target) if number < len(order) else None
        found.append(
            Place(
                weights,
                current,
                order[weights.target],
                FoldedSynapse(_with_pool(synapse), synapse.input_shape, synapse.shape, synapse.source, synapse.target),
                1 if synapse.pool is None else synapse.pool.kernel,
                factor,
                shift,
                coding.maximum if weights.source == INPUT else 1,
            )
        )
    return tuple(found)


def _with_pool(synapse: Synapse) -> LayerSpec:
    """The layer with its pooling in the kernel."""
    layer, pool = synapse.layer, synapse.pool
    if pool is None:
        return layer
    kernel = layer.kernel + layer.stride * (pool.kernel - 1)
    return LayerSpec("conv", layer.features, kernel, layer.stride * pool.kernel, border=layer.padding)


def _pooled(weight: Tensor, stride: int, window: int) -> Tensor:
    """The kernel of a convolution followed by average pooling, see `fsnn_lava.hardware.pooled`; with gradients."""
    if window == 1:
        return weight
    room = stride * (window - 1)
    shifts = range(0, room + 1, stride)
    shifted = [functional.pad(weight, (x, room - x, y, room - y)) for y in shifts for x in shifts]
    return torch.stack(shifted).mean(0)


def _of_codes(synapse: Synapse, coding: InputCoding) -> tuple[Tensor, Tensor | None]:
    """Factor of a weight on codes, shaped as the weight, and (1, *shape) mean over std of the input; None: all 0."""
    channels, *sides = synapse.input_shape
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (coding.mean, coding.std))
    image = (mean / std).view(-1, *[1] * len(sides)).expand(channels, *sides)[None]
    factor = coding.scale / std
    if synapse.layer.kind == "linear":
        factor = factor.repeat_interleave(math.prod(sides))
    else:
        factor = factor.view(-1, 1, 1, 1) if synapse.layer.transposed else factor.view(-1, 1, 1)
    return factor, image.contiguous() if bool(image.any()) else None
