"""Exact products of spikes with whole numbers of 8 bits, by oneDNN in int8 with sums in int32.

On processors with AMX or VNNI that is many times as fast as in float32; without them it is a few times faster. What it
costs does not depend on the spikes. A sum leaves as float32, exact below 2**24.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.hardware import Convolution, Dense, Geometry, Shape, TransposedConvolution
from fsnn_lava.network.event_maps import inner, outer

TOGETHER = 2**22
"""Neurons whose samples go through all steps of a run together: each has a current in each of a few steps."""

LONGEST = 8
"""Most steps that a population of such a run goes through at a time."""

_AS_FLOAT: Any = (torch.float32, "none", [], "")
"""What leaves a product of oneDNN: its sums in their scale, and nothing else is done to them."""

Int8Product = Callable[[Tensor], Tensor]
"""(b, N_source) spikes, uint8, to (b, N_target) sums, float32; channels lie innermost on both sides."""


@cache
def int8_fault() -> str:
    """Say why products in 8 bits cannot be had, or are not exact, on this machine and with this torch; "": they are."""
    generator = torch.Generator().manual_seed(0)
    try:
        for shape, geometry, target in (
            ((1, 300, 1, 1), Dense(), (5,)),
            ((2, 70, 5, 5), Convolution(2, 1), (9, 3, 3)),
            ((2, 40, 4, 4), TransposedConvolution(2, 1, 1), (6, 8, 8)),
        ):
            spikes = (torch.rand(shape, generator=generator) < 0.9).to(torch.uint8)
            source: Shape = tuple(shape[1:])
            taps = (3, 3) if len(target) == 3 else ()
            ends = (source[0], target[0]) if isinstance(geometry, TransposedConvolution) else (target[0], source[0])
            weight = torch.full((*ends, *taps), 127, dtype=torch.int8)
            weight.view(-1)[::3] = -128
            weight[0] = 127  # of many spikes a sum beyond 16 bits
            flat_source = source if taps else (300,)
            found = int8_sums(geometry, weight, flat_source, target)(inner(spikes.view(len(spikes), *flat_source)))
            exact = _float_sums(geometry, weight, spikes.double().view(len(spikes), *flat_source))
            if not torch.equal(found.double(), inner(exact)):
                return f"its sums of {type(geometry).__name__} connections are wrong"
    except (AttributeError, RuntimeError, TypeError, NotImplementedError) as error:
        return f"torch {torch.__version__} has no such products here: {str(error).splitlines()[0]}"
    return ""


def _float_sums(geometry: object, weight: Tensor, x: Tensor) -> Tensor:
    weight = weight.to(x.dtype)
    if isinstance(geometry, Convolution):
        return functional.conv2d(x, weight, None, geometry.stride, geometry.padding)
    if isinstance(geometry, TransposedConvolution):
        padding = geometry.padding, geometry.output_padding
        return functional.conv_transpose2d(x, weight, None, geometry.stride, *padding)
    return x.flatten(1) @ weight.t()


def int8_sums(
    geometry: Geometry,
    weight: Tensor,
    source: Shape,
    target: Shape,
    *,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Int8Product:
    """The sums of a linear map's weights.

    Parameters
    ----------
    weight : int8, as a layer of that geometry has it; of a dense one both ends with their channels innermost.
    scale : (C_target,) float32 by which they are multiplied; None: 1.
    bias : (C_target,) float32 added to them then; None: nothing.
    """
    if scale is None:
        scale = torch.ones(target[0])
    if isinstance(geometry, Convolution):
        convolve = _convolution(weight, source, scale, bias, stride=geometry.stride, padding=geometry.padding)
        return lambda spikes: inner(convolve(outer(spikes, source)))
    if isinstance(geometry, TransposedConvolution):
        return _transposed(geometry, weight, source, target, scale, bias)
    ops: Any = torch.ops.onednn  # type: ignore[attr-defined]
    packed, zero = ops.qlinear_prepack(weight.contiguous(), None), torch.zeros(len(weight), dtype=torch.int64)

    def product(spikes: Tensor) -> Tensor:
        sums: Tensor = ops.qlinear_pointwise(spikes, 1.0, 0, packed, scale, zero, bias, 1.0, 0, *_AS_FLOAT)
        return sums

    return product


def _convolution(
    weight: Tensor, source: Shape, scale: Tensor, bias: Tensor | None, *, stride: int, padding: int
) -> Int8Product:
    """(b, C, H, W) uint8 to (b, C', H', W') float32, channels innermost in memory."""
    ops: Any = torch.ops.onednn  # type: ignore[attr-defined]
    one = [1, 1]
    zero = torch.zeros(len(weight), dtype=torch.int64)
    steps, around = [stride] * 2, [padding] * 2
    packed = ops.qconv_prepack(weight.contiguous(), scale, 1.0, 0, steps, around, one, 1, [1, *source])

    def product(spikes: Tensor) -> Tensor:
        form = bias, steps, around, one, 1, 1.0, 0, *_AS_FLOAT
        sums: Tensor = ops.qconv2d_pointwise(spikes, 1.0, 0, packed, scale, zero, *form)
        return sums

    return product


def _transposed(
    geometry: TransposedConvolution, weight: Tensor, source: Shape, target: Shape, scale: Tensor, bias: Tensor | None
) -> Int8Product:
    """A transposed convolution as one convolution for each remainder of the outputs' places under the stride.

    Output o = stride q + phase - padding gets tap phase + stride j of source q - j: taps of one phase, turned around,
    are the kernel of a convolution with zeros around it, whose place q is that output.
    """
    stride, padding = geometry.stride, geometry.padding
    channels, height, width = target
    parts = []
    for y in range(stride):
        for x in range(stride):
            taps = weight[:, :, y::stride, x::stride].flip(2, 3).transpose(0, 1)
            if not taps.numel():
                continue
            rows, columns = taps.shape[2:]
            wide = (source[0], source[1] + 2 * (rows - 1), source[2] + 2 * (columns - 1))
            convolve = _convolution(taps, wide, scale, None, stride=1, padding=0)
            around = (columns - 1, columns - 1, rows - 1, rows - 1)
            parts.append((convolve, around, (y - padding) % stride, (x - padding) % stride, y - padding, x - padding))

    def product(spikes: Tensor) -> Tensor:
        b, image = len(spikes), outer(spikes, source)
        sums = torch.zeros(b, height, width, channels).permute(0, 3, 1, 2)
        for convolve, around, top, left, y, x in parts:
            padded = functional.pad(image, around).contiguous(memory_format=torch.channels_last)
            found = convolve(padded)[:, :, (top - y) // stride :, (left - x) // stride :]
            into = sums[:, :, top::stride, left::stride]
            h, w = min(found.shape[2], into.shape[2]), min(found.shape[3], into.shape[3])
            into[:, :, :h, :w] = found[:, :, :h, :w]
        return inner(sums if bias is None else sums.add_(bias.view(-1, 1, 1)))

    return product
