"""Kinds of layers by name: how each is written and shaped, and, for one from outside, how torch computes it.

`LAYER_KINDS` is asked by the notation, the network and the lowering, so a new kind is registered there and nowhere
else; CONTRIBUTING says how. The package's own three have fast products besides, in `network` and `kernels`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsnn_lava.config.registry import Registry
from fsnn_lava.errors import SpecError

if TYPE_CHECKING:
    from fsnn_lava.config.notation import LayerSpec

Shape = tuple[int, ...]

FEATURES_LIMIT = 1_000_000
"""Largest number of channels or units of one layer."""
KERNEL_LIMIT = 255
"""Largest kernel, pooling window, or stride of a layer from outside."""

_PLACE = re.compile(r"<(features|kernel|stride)>")
_NUMBERS = {"features": (0, FEATURES_LIMIT), "kernel": (0, KERNEL_LIMIT), "stride": (1, KERNEL_LIMIT)}
"""Numbers that a form may name: what each is where the form does not, and its limit."""
_OWN = re.compile(r"[0-9]+C[0-9]+[su]?|P[0-9]+|[0-9]+")


@dataclass(frozen=True)
class LayerKind:
    """A kind of layers: a linear map of what it is given, whose matrix is linear in its weight too.

    Parameters
    ----------
    form : how the notation writes it, ``<features>``, ``<kernel>`` and ``<stride>`` standing for numbers from 1:
        ``D<kernel>`` reads and writes ``D3``. What the form does not name is 0, the stride 1.
    output_shape : (layer, input shape) -> shape (C, H, W) or (N,) of the current; `SpecError` for what it cannot take.
    weight_shape : (layer, input shape) -> shape of the weight, of two axes or more, the first one the output channels:
        channel c of the current depends on weight[c] alone. The product of the others is the fan-in.
    apply : (weight, x, layer) -> current (B, *N) of x (B, *input shape), torch tensors, with gradients to both and
        without bias; or None for the package's own kinds.

    Raises
    ------
    SpecError : if the form could not be told from another layer's, or from what joins layers.
    """

    form: str
    output_shape: Callable[[LayerSpec, Shape], Shape]
    weight_shape: Callable[[LayerSpec, Shape], Shape]
    apply: Callable[[Any, Any, LayerSpec], Any] | None = None

    def __post_init__(self) -> None:
        example = _PLACE.sub("3", self.form)
        places = _PLACE.findall(self.form)
        unreadable = not re.fullmatch(r"[A-Za-z0-9_]+", example) or len(set(places)) < len(places)
        if self.apply is not None and (unreadable or _OWN.fullmatch(example)):
            raise SpecError(
                f'form "{self.form}" of a layer kind; allowed: letters, digits and each of <features>, <kernel>, '
                "<stride> once at most, in an order that no convolution, pool or linear layer is written in."
            )

    def read(self, text: str) -> dict[str, str] | None:
        """Digits of each number that the form names, by its name; None if the text is not of this form."""
        parts = _PLACE.split(self.form)
        pattern = "".join(f"(?P<{part}>[0-9]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
        found = re.fullmatch(pattern, text)
        return found.groupdict() if found else None

    def write(self, layer: LayerSpec) -> str:
        """The layer in the notation."""
        return _PLACE.sub(lambda place: str(getattr(layer, place[1])), self.form)

    def fault(self, layer: LayerSpec) -> str | None:
        """What is wrong with the numbers of a layer of this kind from outside, None if nothing is."""
        for name, (absent, limit) in _NUMBERS.items():
            number = getattr(layer, name)
            if f"<{name}>" not in self.form:
                if number != absent:
                    return f"{layer!r} contradicts itself; {self.form} says no {name}, which is {absent} then."
            elif not 1 <= number <= limit:
                return f'{name} {number} in "{layer}"; allowed: 1 .. {limit}.'
        return f"{layer!r} contradicts itself; only a convolution can be transposed." if layer.transposed else None


LAYER_KINDS: Registry[LayerKind] = Registry("layer kind", group="fsnn_lava.layer_kinds", error=SpecError)
"""Every kind that the notation knows."""


def layer_kind(layer: LayerSpec) -> LayerKind:
    """The kind of a layer."""
    return LAYER_KINDS.get(layer.kind)


def outside_kinds() -> dict[str, LayerKind]:
    """The kinds that were registered besides the package's own, by name."""
    kinds = {name: LAYER_KINDS.get(name) for name in LAYER_KINDS}
    return {name: kind for name, kind in kinds.items() if kind.apply is not None}


def _convolved(layer: LayerSpec, input_shape: Shape) -> Shape:
    _, height, width = _image(layer, input_shape, "convolution")
    if layer.transposed:
        return (layer.features, 2 * height, 2 * width)
    sides = ((side + 2 * layer.padding - layer.kernel) // layer.stride + 1 for side in (height, width))
    return (layer.features, *sides)


def _kernels(layer: LayerSpec, input_shape: Shape) -> Shape:
    ends = (layer.features, input_shape[0])
    return (*(ends[::-1] if layer.transposed else ends), layer.kernel, layer.kernel)


def _pooled(layer: LayerSpec, input_shape: Shape) -> Shape:
    channels, height, width = _image(layer, input_shape, "pool")
    if height % layer.kernel or width % layer.kernel:
        raise SpecError(f"pool {layer} is given {height}x{width}; its window must divide both sides.")
    return (channels, height // layer.kernel, width // layer.kernel)


def _image(layer: LayerSpec, input_shape: Shape, name: str) -> Shape:
    if len(input_shape) != 3:
        raise SpecError(f"{name} {layer} is given the shape {input_shape}; it needs (channels, height, width).")
    return input_shape


LAYER_KINDS.register(
    "conv", LayerKind("<channels>C<kernel>[s|u]", _convolved, _kernels), help="convolution, s: stride 2, u: transposed"
)
LAYER_KINDS.register(
    "pool",
    LayerKind("P<window>", _pooled, lambda layer, shape: (shape[0], shape[0], layer.kernel, layer.kernel)),
    help="average of a window, without parameters",
)
LAYER_KINDS.register(
    "linear",
    LayerKind("<units>", lambda layer, _: (layer.features,), lambda layer, shape: (layer.features, math.prod(shape))),
    help="every input to every unit",
)
