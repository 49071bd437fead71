"""How a connection's weights are laid out, and which neurons they join: all pairs, or kernels shared over positions.

Shapes are (C, H, W), kernels square. A layer whose average pooling follows a convolution is one convolution with a
larger kernel and stride; see `pooled`.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Dense:
    """Every source neuron with every target neuron: weight (N_target, N_source)."""

    def weight_shape_fault(self, weight: Shape, source: Shape, target: Shape) -> tuple[str, str] | None:
        """What was found and what is allowed, if the weights do not fit the shapes of both ends."""
        expected = (prod(target), prod(source))
        return None if weight == expected else (f"weight of shape {weight}", f"(target, source) = {expected}")


@dataclass(frozen=True)
class Convolution:
    """Cross-correlation: weight (C_target, C_source, K, K).

    current[c, y, x] = sum over d, i, j of weight[c, d, i, j] source[d, stride y + i - padding, stride x + j - padding];
    outside the source there are zeros. The target's sides are (H + 2 padding - K) // stride + 1.
    """

    stride: int = 1
    padding: int = 0

    def weight_shape_fault(self, weight: Shape, source: Shape, target: Shape) -> tuple[str, str] | None:
        """What was found and what is allowed, if the weights do not fit the shapes of both ends."""
        fault = _kernel_fault(weight, source, target, padding=self.padding, stride=self.stride)
        if fault is not None:
            return fault
        kernel = weight[2]
        sides = tuple((n + 2 * self.padding - kernel) // self.stride + 1 for n in source[1:])
        return _compared(weight, (target[0], source[0], kernel, kernel), target, (target[0], *sides))


@dataclass(frozen=True)
class TransposedConvolution:
    """The adjoint of a `Convolution`: weight (C_source, C_target, K, K).

    Each source (d, y, x) adds weight[d, c, i, j] to current[c, stride y + i - padding, stride x + j - padding], where
    that exists. The target's sides are stride (H - 1) + K - 2 padding + output_padding.
    """

    stride: int = 1
    padding: int = 0
    output_padding: int = 0

    def weight_shape_fault(self, weight: Shape, source: Shape, target: Shape) -> tuple[str, str] | None:
        """What was found and what is allowed, if the weights do not fit the shapes of both ends."""
        fault = _kernel_fault(weight, source, target, padding=self.padding, stride=self.stride)
        if fault is not None:
            return fault
        if not 0 <= self.output_padding < self.stride:
            return f"output padding {self.output_padding}", f"0 .. {self.stride - 1}, less than the stride"
        kernel = weight[2]
        sides = tuple(self.stride * (n - 1) + kernel - 2 * self.padding + self.output_padding for n in source[1:])
        return _compared(weight, (source[0], target[0], kernel, kernel), target, (target[0], *sides))


Geometry = Dense | Convolution | TransposedConvolution

DENSE = Dense()


def pooled(weight: Array, convolution: Convolution, window: int) -> tuple[Array, Convolution]:
    """The kernel (C_out, C_in, K', K') and geometry of a convolution followed by average pooling.

    The mean of window x window responses is the response to a kernel that is the mean of as many shifted ones:
    K' = K + stride (window - 1), with stride times the window as its stride.
    """
    stride = convolution.stride
    *channels, kernel, _ = weight.shape
    side = kernel + stride * (window - 1)
    mean = np.zeros((*channels, side, side))
    for y in range(0, stride * window, stride):
        for x in range(0, stride * window, stride):
            mean[..., y : y + kernel, x : x + kernel] += weight
    return mean / window**2, Convolution(stride * window, convolution.padding)


def _kernel_fault(weight: Shape, source: Shape, target: Shape, *, padding: int, stride: int) -> tuple[str, str] | None:
    if len(source) != 3 or len(target) != 3:
        return f"a convolution from shape {source} to {target}", "shapes (C, H, W) at both ends"
    if len(weight) != 4 or weight[2] != weight[3] or weight[2] < 1:
        return f"kernels of shape {weight}", "four axes, the last two of one size"
    if stride < 1 or not 0 <= padding < weight[2]:
        return f"stride {stride}, padding {padding}", f"stride at least 1, padding 0 .. {weight[2] - 1}"
    return None


def _compared(weight: Shape, kernels: Shape, target: Shape, reached: Shape) -> tuple[str, str] | None:
    if weight != kernels:
        return f"kernels of shape {weight}", f"{kernels}"
    return None if target == reached else (f"a target of shape {target}", f"{reached}, where these kernels lead")
