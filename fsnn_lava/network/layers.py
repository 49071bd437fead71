"""Synapses of a feedback spiking network: linear map, batch norm, average pooling, dropout, norm restriction.

A `Synapse` holds parameters. `Synapse.bind` draws what is fixed for one forward call (the restricted weight and
one dropout mask) and returns a `BoundSynapse`, whose methods are pure but for the running statistics.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from fsnn_lava.config import LayerSpec, Taps, layer_kind
from fsnn_lava.errors import SpecError, UnsupportedError
from fsnn_lava.network.batch_norm import batch_norm, batch_statistics
from fsnn_lava.network.devices import SharedGenerator
from fsnn_lava.network.event_maps import EventMap, event_map, is_sparse
from fsnn_lava.network.initial_weights import InitialWeights, initial_weight, pool_weight
from fsnn_lava.network.run_by_events import EventConnection

Statistics = Literal["running", "batch"]
"""Whose mean and variance a batch norm uses; ``batch`` also updates the running ones."""

SpectralNorm = Literal["reshaped", "operator"]

Norm = Literal["reshaped", "operator", "frobenius"]

MATRIX_LIMIT = 2**22
"""Most numbers of a matrix that a layer of a kind from outside is unrolled to."""


def apply_layer(layer: LayerSpec, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Current (B, *N) that a layer makes of x (B, *shape); linear layers flatten x, pools are convolutions."""
    if layer.kind == "linear":
        return functional.linear(x.flatten(1), weight, bias)
    if layer.transposed:
        return functional.conv_transpose2d(x, weight, bias, layer.stride, layer.padding, output_padding=1)
    if layer.is_outside:
        response = _outside_product(layer, weight, x)
        return response if bias is None else response + bias.view(-1, *[1] * (response.dim() - 2))
    return functional.conv2d(x, weight, bias, layer.stride, layer.padding)


def apply_transpose(layer: LayerSpec, weight: Tensor, y: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """Adjoint of `apply_layer` without bias and without gradients: y (B, *N) -> (B, *input_shape)."""
    if layer.kind == "linear":
        return (y @ weight).view(len(y), *input_shape)
    if layer.transposed:
        return functional.conv2d(y, weight, None, layer.stride, layer.padding)
    if layer.is_outside:  # a linear map's adjoint is its vector-Jacobian product, anywhere
        with torch.enable_grad():
            x = y.new_zeros((len(y), *input_shape)).requires_grad_()
            response = _outside_product(layer, weight.detach(), x)
        return torch.autograd.grad(response, x, y)[0]
    image: Tensor = conv2d_input((len(y), *input_shape), weight, y, layer.stride, layer.padding)
    return image


class _RoundedBackward(torch.autograd.Function):
    """`apply_layer` of a convolution, whose backward pass takes its products in another type."""

    @staticmethod
    def forward(
        ctx: Any, layer: LayerSpec, weight: Tensor, bias: Tensor | None, x: Tensor, kind: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(weight.to(kind), x.to(kind))
        ctx.layer, ctx.kinds = layer, (weight.dtype, x.dtype)
        return apply_layer(layer, weight, bias, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None, Tensor | None, None]:
        weight, x = ctx.saved_tensors
        layer, (of_weight, of_x) = ctx.layer, ctx.kinds
        _, weight_wanted, bias_wanted, x_wanted, _ = ctx.needs_input_grad
        form = [layer.stride] * 2, [layer.padding] * 2, [1, 1], layer.transposed, [int(layer.transposed)] * 2, 1
        wanted = [x_wanted, weight_wanted, False]
        back: Any = torch.ops.aten.convolution_backward  # type: ignore[attr-defined]
        to_x, to_weight, _ = back(gradient.to(x.dtype), x, weight, None, *form, wanted)
        return (
            None,
            to_weight.to(of_weight) if weight_wanted else None,
            gradient.sum((0, 2, 3)) if bias_wanted else None,
            to_x.to(of_x) if x_wanted else None,
            None,
        )


@torch.no_grad()
def layer_matrix(layer: LayerSpec, weight: Tensor, input_shape: tuple[int, ...]) -> Tensor:
    """The matrix (N, M) of a layer without bias, both ends flat in C order, made of what it does to unit vectors.

    Raises
    ------
    UnsupportedError : with more than `MATRIX_LIMIT` numbers.
    """
    sources, targets = math.prod(input_shape), math.prod(layer.output_shape(input_shape))
    if sources * targets > MATRIX_LIMIT:
        raise UnsupportedError(
            f"{layer.kind} {layer} from {input_shape}: found a matrix of {targets} x {sources} numbers, as which alone "
            f"hardware can have a layer of this kind; allowed: at most {MATRIX_LIMIT}"
        )
    units = torch.eye(sources, dtype=weight.dtype, device=weight.device).view(sources, *input_shape)
    return apply_layer(layer, weight, None, units).flatten(1).t()


def tap_places(layer: LayerSpec, taps: Taps, input_shape: tuple[int, ...]) -> Tensor:
    """Where each of the weights (C_out, C_in / groups, kh, kw) lies in the layer's flat one, in their order, int64."""
    whole = layer.weight_shape(input_shape)
    at = torch.arange(math.prod(whole)).view(whole)
    (top, left), (rows, columns), (down, across) = taps.offset, taps.kernel, taps.dilation
    at = at[:, :, top : top + down * (rows - 1) + 1 : down, left : left + across * (columns - 1) + 1 : across]
    groups = zip(at.chunk(taps.groups, 0), range(taps.groups), strict=True)
    return torch.cat([outputs.chunk(taps.groups, 1)[group].flatten() for outputs, group in groups])


@torch.no_grad()
def operator_norm(layer: LayerSpec, weight: Tensor, input_shape: tuple[int, ...]) -> float:
    """Largest singular value of the map itself, approached from below by 100 power iterations."""
    x = torch.randn((1, *input_shape), generator=torch.Generator().manual_seed(0)).to(weight)
    for _ in range(100):
        x = _unit(apply_transpose(layer, weight, apply_layer(layer, weight, None, x), input_shape))
    return float(apply_layer(layer, weight, None, x).norm())


class NormRestriction(nn.Module):
    """Scales a weight w to clamp(gain, -bound, bound) * w / sigma(w), gain being learned.

    sigma comes from one power iteration per training call on persistent vectors; evaluation changes nothing.
    ``reshaped``: the largest singular value of the kernel as a matrix whose rows are its first axis, the published
    choice; for a convolution it is smaller than the operator's norm. ``operator``: the norm of the map itself.
    """

    left: Tensor
    right: Tensor

    def __init__(
        self,
        layer: LayerSpec,
        input_shape: tuple[int, ...],
        shape: tuple[int, ...],
        *,
        weight: Tensor,
        bound: float,
        norm: SpectralNorm,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.layer, self.input_shape, self.bound, self.norm = layer, input_shape, bound, norm
        matrix = weight.flatten(1)
        left, right = (matrix.shape[:1], matrix.shape[1:]) if norm == "reshaped" else ((1, *shape), (1, *input_shape))
        self.register_buffer("left", _unit(torch.randn(left, generator=generator)))
        self.register_buffer("right", _unit(torch.randn(right, generator=generator)))
        for _ in range(10):
            self._iterate(weight)
        self.gain = nn.Parameter(self._sigma(weight).detach().clone())

    def forward(self, weight: Tensor) -> Tensor:
        """The restricted weight, differentiable in weight and gain."""
        if self.training:
            self._iterate(weight.detach())
        return self.gain.clamp(-self.bound, self.bound) * (weight / self._sigma(weight))

    @torch.no_grad()
    def _iterate(self, weight: Tensor) -> None:
        # New tensors, not in place: an earlier forward call's graph may still hold the old ones.
        self.right = _unit(self._adjoint(weight, self.left))
        self.left = _unit(self._map(weight, self.right))

    def _sigma(self, weight: Tensor) -> Tensor:
        return (self.left * self._map(weight, self.right)).sum()

    def _map(self, weight: Tensor, x: Tensor) -> Tensor:
        if self.norm == "reshaped":
            return weight.flatten(1) @ x
        return apply_layer(self.layer, weight, None, x)

    def _adjoint(self, weight: Tensor, y: Tensor) -> Tensor:
        if self.norm == "reshaped":
            return weight.flatten(1).t() @ y
        return apply_transpose(self.layer, weight, y, self.input_shape)


class FrobeniusRestriction(nn.Module):
    """Scales a weight w to w * min(1, bound / ||w||), the norm taken over all weights as one vector (SPIDE).

    The factor counts as a constant in the backward pass; nothing is learned, and nothing kept between calls.
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, weight: Tensor) -> Tensor:
        """The restricted weight, whose gradient to weight is the factor."""
        restricted: Tensor = weight * (self.bound / weight.detach().norm()).clamp_max(1.0)
        return restricted


class Synapse(nn.Module):
    """Connection into one population: linear or convolution (+ bias) -> batch norm -> average pooling -> dropout.

    Or the average pooling into a population of its own: a convolution with a fixed weight, and nothing else.

    Parameters
    ----------
    layer, pool : notation of the map, and of the pooling merged into it.
    taps : where the weights lie in the layer's kernel; None: everywhere.
    input_shape, shape : (C, H, W) or (N,) before and after, without the batch.
    source, target : populations that it joins, counted from 0; source -1 is the input.
    bias, batch_norm : whether the map has them; the feedback has neither.
    dropout : share of currents set to zero, the rest scaled by 1/(1-p).
    norm_bound, norm : restriction of the weight's norm; None for feedforward connections.
    initial_weights, initial_transposed_scale : as `initial_weight` takes them.

    Attributes
    ----------
    weight : parameter, of a convolution with taps these alone; of a pool a buffer that no checkpoint holds.
    """

    weight: Tensor
    places: Tensor | None

    def __init__(
        self,
        layer: LayerSpec,
        pool: LayerSpec | None,
        *,
        input_shape: tuple[int, ...],
        shape: tuple[int, ...],
        taps: Taps | None = None,
        source: int,
        target: int,
        generator: torch.Generator,
        bias: bool,
        batch_norm: bool,
        dropout: float,
        norm_bound: float | None = None,
        norm: Norm = "reshaped",
        initial_weights: InitialWeights = "unit_filters",
        initial_transposed_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.layer, self.pool, self.source, self.target = layer, pool, source, target
        self.input_shape, self.shape, self.dropout = input_shape, shape, dropout
        if layer.kind == "pool":
            assert not bias and not batch_norm and dropout == 0 and norm_bound is None
            self.register_buffer("weight", pool_weight(layer, input_shape[0]), persistent=False)
        else:
            self.weight = nn.Parameter(
                initial_weight(
                    layer,
                    input_shape,
                    generator=generator,
                    distribution=initial_weights,
                    transposed_scale=initial_transposed_scale,
                    taps=taps,
                )
            )
        places = None if taps is None else tap_places(layer, taps, input_shape)
        self.register_buffer("places", places, persistent=False)
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
        self.batch_norm = kind(shape[0]) if batch_norm else None
        self.over_processes = False  # whether batch statistics are taken over all processes of a training
        self.restriction = self._new_restriction(norm_bound, norm, generator)

    def _new_restriction(
        self, bound: float | None, norm: Norm, generator: torch.Generator
    ) -> NormRestriction | FrobeniusRestriction | None:
        if bound is None:
            return None
        if norm == "frobenius":
            return FrobeniusRestriction(bound)
        weight = self._whole_weight().detach()
        return NormRestriction(
            self.layer, self.input_shape, self.shape, weight=weight, bound=bound, norm=norm, generator=generator
        )

    def effective_weight(self) -> Tensor:
        """The weight after norm restriction; in training mode this advances the power iteration."""
        weight = self._whole_weight()
        restricted: Tensor = weight if self.restriction is None else self.restriction(weight)
        return restricted

    def _whole_weight(self) -> Tensor:
        """The weight of the whole kernel, zero beside the taps."""
        if self.places is None:
            return self.weight
        shape = self.layer.weight_shape(self.input_shape)
        whole = self.weight.new_zeros(math.prod(shape)).index_copy(0, self.places, self.weight.flatten())
        return whole.view(shape)

    @torch.no_grad()
    def scale_back(self, factor: float) -> None:
        """Make the weight, as it is after norm restriction, this much smaller (0 < factor < 1)."""
        if isinstance(self.restriction, NormRestriction):
            gain, bound = self.restriction.gain, self.restriction.bound
            gain.copy_(gain.clamp(-bound, bound) * factor)
        else:
            # Both are one number times the weight.
            self.weight.mul_(factor * self.effective_weight().norm() / self._whole_weight().norm().clamp_min(1e-30))

    def bind(self, batch: int, *, generator: torch.Generator | None) -> BoundSynapse:
        """This synapse with weight and dropout mask fixed for one forward call of a batch.

        A `SharedGenerator` draws the mask of the batch that several processes share, and this one's rows are kept.
        """
        mask = None
        if self.training and self.dropout > 0:
            kept = 1 - self.dropout
            form = torch.channels_last if len(self.shape) == 3 else torch.contiguous_format
            drawn, rows = batch, slice(None)
            if isinstance(generator, SharedGenerator):
                drawn, rows = generator.total, generator.rows
            mask = torch.empty(
                (drawn, *self.shape), dtype=self.weight.dtype, device=self.weight.device, memory_format=form
            )
            mask = mask.bernoulli_(kept, generator=generator).div_(kept)[rows]
        norm = self.batch_norm
        gain, shift = (None, None) if norm is None else (norm.weight, norm.bias)
        return BoundSynapse(self, self.effective_weight(), self.bias, mask, gain, shift)


@dataclass(frozen=True)
class FoldedSynapse:
    """A connection without parameters of its own: all that it does is in a bound weight and bias."""

    layer: LayerSpec
    input_shape: tuple[int, ...]
    shape: tuple[int, ...]
    source: int
    target: int
    pool: None = None
    batch_norm: None = None
    training: bool = False
    over_processes: bool = False


@dataclass(frozen=True, eq=False)
class BoundSynapse:
    """A synapse during one forward call: its weight is restricted and its dropout mask drawn.

    Parameters
    ----------
    weight, bias : as `apply_layer` takes them.
    mask : (B, *N), 0 or 1/(1-p); None without dropout.
    norm_gain, norm_shift : (C,) learned scale and shift of the batch norm; None without one.
    backward : type of the products of a convolution's backward pass on a CPU; None: that of the weight.
    """

    synapse: Synapse | FoldedSynapse
    weight: Tensor
    bias: Tensor | None
    mask: Tensor | None
    norm_gain: Tensor | None
    norm_shift: Tensor | None
    backward: torch.dtype | None = field(default=None, kw_only=True)

    @property
    def source(self) -> int:
        """Population that it is from, counted from 0; -1: the input."""
        return self.synapse.source

    @property
    def target(self) -> int:
        """Population that it leads to."""
        return self.synapse.target

    def detached(self) -> BoundSynapse:
        """The same without gradients to the parameters."""
        bias, gain, shift = (
            None if parameter is None else parameter.detach()
            for parameter in (self.bias, self.norm_gain, self.norm_shift)
        )
        return dataclasses.replace(self, weight=self.weight.detach(), bias=bias, norm_gain=gain, norm_shift=shift)

    def current(self, x: Tensor, statistics: Statistics = "running") -> Tensor:
        """Current (B, *N) for spikes, rates or real inputs x (B, *shape)."""
        return self._normalised(self.linear(x), statistics)

    def _normalised(self, response: Tensor, statistics: Statistics) -> Tensor:
        norm = self.synapse.batch_norm
        if norm is None:
            return self.finish(response)
        assert norm.running_mean is not None and norm.running_var is not None
        assert self.norm_gain is not None and self.norm_shift is not None
        running, affine = (norm.running_mean, norm.running_var), (self.norm_gain, self.norm_shift)
        if statistics == "running":
            return self.finish(functional.batch_norm(response, *running, *affine, eps=norm.eps))
        return self.finish(
            batch_norm(
                response,
                running,
                affine,
                momentum=norm.momentum or 0.0,
                eps=norm.eps,
                over_processes=self.synapse.over_processes,
            )
        )

    def event_connection(
        self, *, delay: int = 0, normalisation: tuple[Tensor, Tensor] | None = None
    ) -> EventConnection:
        """What `event_run` needs of this connection: its map, and batch norm and bias as scale and shift.

        Parameters
        ----------
        delay : steps until a spike arrives.
        normalisation : from `frozen_normalisation`; None: the running statistics as they are now.
        """
        synapse = self.synapse
        scale = torch.ones(synapse.shape[0], dtype=self.weight.dtype)
        shift = torch.zeros_like(scale)
        normalisation = normalisation or self.frozen_normalisation()
        if normalisation is not None:
            scale, shift = (value.detach().flatten() for value in normalisation)
        if self.bias is not None:
            shift = shift + scale * self.bias.detach()
        return EventConnection(
            self.source,
            self.target,
            delay,
            event_map(synapse.layer, self.weight, synapse.input_shape),
            scale,
            shift,
            pool=1 if synapse.pool is None else synapse.pool.kernel,
            mask=self.mask,
        )

    def linear(self, x: Tensor) -> Tensor:
        """Response of the linear map (B, *) before batch norm."""
        layer = self.synapse.layer
        if self.backward is not None and x.device.type == "cpu" and layer.kind != "linear" and not layer.is_outside:
            response: Tensor = _RoundedBackward.apply(  # type: ignore[no-untyped-call]
                layer, self.weight, self.bias, x, self.backward
            )
            return response
        return apply_layer(self.synapse.layer, self.weight, self.bias, x)

    def finish(self, response: Tensor) -> Tensor:
        """Pooling and dropout of a normalised response."""
        if self.synapse.pool is not None:
            response = functional.avg_pool2d(response, self.synapse.pool.kernel)
        return response if self.mask is None else response * self.mask

    def adjoint(self, slope: Tensor) -> TransposedProduct:
        """The map y -> A^T (slope y), (B, *N) to (B, *input_shape), A being `current` without bias; without gradients.

        Batch norm takes its running statistics. Products are taken in the type of the weight, and returned in that of
        the slope; on a CPU a slope of few nonzero values, which silent neurons have, makes them event-driven.
        """
        layer, source = self.synapse.layer, self.synapse.input_shape
        factor = slope if self.mask is None else slope * self.mask
        norm = self.synapse.batch_norm
        if norm is not None:
            assert norm.running_var is not None
            scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            factor = factor * scale.view((1, -1) + (1,) * (slope.dim() - 2))
        weight = self.weight.detach()
        ready = None
        if slope.device.type == "cpu" and is_sparse(factor, layer):
            ready = event_map(layer, weight.to(slope.dtype), source, adjoint=True)
        return TransposedProduct(layer, self.synapse.pool, source, weight, factor, ready)

    def frozen_normalisation(self, response: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Scale and shift of the batch norm with statistics that stay, to apply to any response; with gradients.

        The statistics are those of the given response if it is given and the network is in training mode, otherwise
        the running ones as they are now: an update that follows does not reach them, nor the gradient through them
        (`functional.batch_norm` would use the updated ones in its backward pass, without a word). None without batch
        norm. Event inputs need it: every frame is normalised with the statistics of the response to the mean input.
        """
        norm = self.synapse.batch_norm
        if norm is None:
            return None
        assert self.norm_gain is not None and self.norm_shift is not None
        if response is not None and self.synapse.training:
            mean, variance, _ = batch_statistics(response, over_processes=self.synapse.over_processes)
        else:
            assert norm.running_mean is not None and norm.running_var is not None
            mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        scale = self.norm_gain / (variance + norm.eps).sqrt()
        shift = self.norm_shift - mean * scale
        wide = (1, -1) if len(self.synapse.shape) == 1 else (1, -1, 1, 1)
        return scale.view(wide), shift.view(wide)

    def frozen_current(self, x: Tensor, normalisation: tuple[Tensor, Tensor] | None) -> Tensor:
        """As `current`, (B, *N), with a batch norm from `frozen_normalisation`."""
        response = self.linear(x)
        if normalisation is not None:
            response = response * normalisation[0] + normalisation[1]
        return self.finish(response)


def folded(bound: BoundSynapse) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a connection with its batch norm, of running statistics, in them; with gradients."""
    weight, bias = bound.weight, bound.bias
    normalisation = bound.frozen_normalisation()
    if normalisation is None:
        return weight, bias
    scale, shift = (value.flatten() for value in normalisation)
    outputs = 1 if bound.synapse.layer.transposed else 0
    wide = [1] * weight.dim()
    wide[outputs] = -1
    return weight * scale.view(wide), shift if bias is None else shift + scale * bias


@dataclass(frozen=True, eq=False)
class TransposedProduct:
    """The map y -> A^T (factor y), (B, *N) to (B, *shape), of a synapse's connection A; without gradients.

    Parameters
    ----------
    shape : of the connection's input.
    weight : in the type in which products are taken.
    factor : (B, *N), by what each neuron's value is multiplied first.
    events : the weights as an event-driven product takes them; None: a dense one.
    """

    layer: LayerSpec
    pool: LayerSpec | None
    shape: tuple[int, ...]
    weight: Tensor
    factor: Tensor
    events: EventMap | None

    def __call__(self, y: Tensor) -> Tensor:
        """Return the product, in the factor's type."""
        y = y * self.factor
        if self.pool is not None:
            y = y.repeat_interleave(self.pool.kernel, -1).repeat_interleave(self.pool.kernel, -2) / self.pool.kernel**2
        if self.events is not None:
            return self.events.product(y, self.shape)
        transposed = apply_transpose(self.layer, self.weight, y.to(self.weight.dtype), self.shape)
        return transposed.to(self.factor.dtype)

    def of_rows(self, rows: Tensor) -> TransposedProduct:
        """The same for some samples of the batch, (b,) their numbers."""
        return dataclasses.replace(self, factor=self.factor[rows])


def _outside_product(layer: LayerSpec, weight: Tensor, x: Tensor) -> Tensor:
    """What a layer of a kind from outside makes of x, by the kind's own function."""
    apply, expected = layer_kind(layer).apply, layer.output_shape(tuple(x.shape[1:]))
    assert apply is not None
    response: Tensor = apply(weight, x, layer)
    if response.shape != (len(x), *expected):
        raise SpecError(
            f"{layer.kind} {layer}: its product has the shape {tuple(response.shape)}; "
            f"expected {(len(x), *expected)}, as its output shape says"
        )
    return response


def _unit(x: Tensor) -> Tensor:
    length: Tensor = x.norm()
    return x / length.clamp_min(1e-12)
