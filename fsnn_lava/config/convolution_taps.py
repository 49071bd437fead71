"""Convolutions of any form, oblong, dilated or grouped, as square kernels in which the other weights are zero.

Hardware, simulators and kernels know one square kernel, one stride and one padding for both axes. A kernel of kh x kw
taps, dilated by d, covers d (k - 1) + 1 positions of an axis; it lies in a square one of side K with padding P where
2 P - K is what twice its own padding less its extent is, which must be the same for both axes. A grouped convolution is
one of all channels in which each output's weights of other groups are zero. Zeros cost memory and, densely, products;
spikes of neurons whose weights are zero cost additions too.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsnn_lava.config.layer_kinds import Shape
from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.errors import SpecError


@dataclass(frozen=True)
class Taps:
    """Where the weights that are learned lie in the kernel of a layer.

    Parameters
    ----------
    kernel : (rows, columns) of taps.
    dilation : (rows, columns) from one tap to the next.
    groups : of channels, each of which hears its own inputs alone.
    offset : (row, column) of the first tap.
    """

    kernel: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset: tuple[int, int]

    def weight_shape(self, layer: LayerSpec, input_shape: Shape) -> Shape:
        """Shape (C_out, C_in / groups, rows, columns) of the weights that are learned."""
        return (layer.features, input_shape[0] // self.groups, *self.kernel)


def taps_of(
    layer: LayerSpec,
    *,
    kernel: tuple[int, ...] = (),
    stride: int = 0,
    padding: tuple[int, ...] = (),
    dilation: tuple[int, ...] = (),
    groups: int = 1,
) -> tuple[LayerSpec, Taps | None]:
    """The square convolution that a layer of the notation is with these settings, and its taps, unless all are.

    Parameters
    ----------
    layer : names the channels, and what is not given.
    kernel, padding, dilation : of both axes, or (rows, columns). Without padding an odd kernel keeps the sides (of
        stride 1).
    stride : of both axes; 0: the layer's.
    groups : must divide the channels at both ends.

    Raises
    ------
    SpecError : if it cannot lie in a square kernel, or the layer is no convolution.
    """
    if not (kernel or stride or padding or dilation or groups != 1):
        return layer, None
    if layer.kind != "conv" or layer.transposed:
        raise SpecError(
            f"{layer}: found kernel, stride, padding, dilation or groups; allowed: of a convolution alone, e.g. 64C3"
        )
    sizes, steps = _both(kernel, "kernel", layer.kernel), _both(dilation, "dilation", 1)
    if min(*sizes, *steps, stride or 1, groups, *(pad + 1 for pad in padding)) < 1:
        raise SpecError(
            f"{layer}: found a size below 1, or a padding below 0; allowed: kernel, stride, dilation and groups from "
            "1, padding from 0"
        )
    extents = [step * (size - 1) + 1 for size, step in zip(sizes, steps, strict=True)]
    covers = f"{extents[0]} x {extents[1]}"
    if not padding and any(extent % 2 == 0 for extent in extents):
        raise SpecError(
            f"{layer}: found a kernel that covers {covers}, no padding; allowed: even ones with their padding"
        )
    pads = _both(padding, "padding", 0) if padding else tuple((extent - 1) // 2 for extent in extents)
    missing = [extent - 2 * pad for extent, pad in zip(extents, pads, strict=True)]
    if missing[0] != missing[1]:
        raise SpecError(
            f"{layer}: found a kernel that covers {covers}, padding {list(pads)}, which takes {missing[0] - 1} rows "
            f"and {missing[1] - 1} columns off; allowed: as many of both, since hardware's kernels are square: give "
            "each axis half of its own extent as padding"
        )
    border = max(pads)
    side = missing[0] + 2 * border
    square = LayerSpec("conv", layer.features, side, stride or layer.stride, border=border)
    taps = Taps(sizes, steps, groups, (border - pads[0], border - pads[1]))
    return square, None if taps == Taps((side, side), (1, 1), 1, (0, 0)) else taps


def _both(given: tuple[int, ...], name: str, default: int) -> tuple[int, int]:
    if len(given) > 2:
        raise SpecError(f"{name}: found {list(given)}; allowed: one number, or rows and columns")
    first, last = (given[0], given[-1]) if given else (default, default)
    return first, last
