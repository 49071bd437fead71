"""The papers' notation for networks as a small language, with shapes and counts.

::

    network  = layer { "-" layer } [ "(F" feedback ")" ]
    layer    = <channels>C<kernel>[s|u]  |  P<window>  |  <units>
    feedback = <channels>C<kernel>[u]    |  <units>

``64C5s (F64C5)``: 64 channels, 5x5 kernel, stride 2; feedback from the last population into the first.
There is one feedback at most, and it always runs from the last population to the first.
``s`` halves the sides (stride 2), ``u`` doubles them (transposed convolution), ``P2`` averages 2x2 windows: of
currents, or of spikes where pools are populations of their own.
Blanks are allowed between the parts, not inside one.
A layer may also be of a kind that was registered from outside, see `config/layer_kinds.py`.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from fsnn_lava.config.layer_kinds import FEATURES_LIMIT, KERNEL_LIMIT, Shape, layer_kind, outside_kinds
from fsnn_lava.errors import SpecError

Pooling = Literal["merged", "spiking"]
"""What a pool is: a part of the connection before it, or a population of its own."""

_ONE_FEEDBACK = "the notation can say one feedback, from the last population to the first"
_CONV = re.compile(r"([0-9]+)C([0-9]+)([su]?)")
_POOL = re.compile(r"P([0-9]+)")
_LINEAR = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class LayerSpec:
    """One layer: how a connection maps the shape of its source to the shape of its current.

    Parameters
    ----------
    kind : ``conv``, ``pool`` (average), ``linear`` (flattens what it is given), or another of `LAYER_KINDS`.
    features : output channels of a convolution, units of a linear layer; 0 for a pool.
    kernel : side of the square kernel, odd unless the padding is given; window of a pool; 0 for a linear layer.
    stride : 1 or 2, or any of a convolution whose padding is given; the window for a pool; 1 for a linear layer.
    transposed : transposed convolution of stride 2 with output padding 1, which doubles the sides exactly.
    border : padding of a convolution, if not (kernel - 1) / 2; -1: that.

    Raises
    ------
    SpecError : if a number is out of its range or the fields contradict each other.
    """

    kind: str
    features: int
    kernel: int = 0
    stride: int = 1
    transposed: bool = False
    border: int = -1

    def __post_init__(self) -> None:
        fault = _layer_fault(self)
        if fault:
            raise SpecError(fault)

    def __str__(self) -> str:
        if self.kind == "linear":
            return str(self.features)
        if self.kind == "pool":
            return f"P{self.kernel}"
        if self.is_outside:
            return layer_kind(self).write(self)
        if self.border >= 0:
            return f"{self.features}C{self.kernel} (stride {self.stride}, padding {self.border})"
        return f"{self.features}C{self.kernel}{_mark(self)}"

    @property
    def is_outside(self) -> bool:
        """Whether the layer is of a kind that was registered from outside, with a product of its own."""
        return layer_kind(self).apply is not None

    @property
    def padding(self) -> int:
        """Zeros added on every side: for a convolution (kernel - 1) / 2 unless they are given, 0 otherwise."""
        if self.border >= 0:
            return self.border
        return (self.kernel - 1) // 2 if self.kind == "conv" else 0

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape (C, H, W) or (N,) that the layer makes of an input of that shape.

        Raises
        ------
        SpecError : if a convolution or pool is given no (C, H, W), or a pool a side that its window does not divide.
        """
        shape = layer_kind(self).output_shape(self, input_shape)
        if len(shape) not in (1, 3) or any(side < 1 for side in shape):
            raise SpecError(f"{self.kind} {self} makes {shape} of {input_shape}; allowed: (C, H, W) or (N,), all >= 1.")
        return shape

    def weight_shape(self, input_shape: Shape) -> Shape:
        """Shape of the weight: linear (out, in); convolution (out, in, K, K); transposed convolution (in, out, K, K).

        Raises
        ------
        SpecError : if a kind from outside breaks the rule for its first axis.
        """
        shape = layer_kind(self).weight_shape(self, input_shape)
        if self.is_outside and (len(shape) < 2 or shape[0] != self.output_shape(input_shape)[0]):
            raise SpecError(
                f"{self.kind} {self} has a weight of shape {shape}; allowed: two axes or more, the first one the "
                f"{self.output_shape(input_shape)[0]} channels of the output."
            )
        return shape

    def parameters(self, input_shape: Shape) -> int:
        """Number of weights, plus one bias per output unless it is a transposed convolution (the papers' count)."""
        if self.kind == "pool":
            return 0
        bias = 0 if self.transposed else self.output_shape(input_shape)[0]
        return math.prod(self.weight_shape(input_shape)) + bias


@dataclass(frozen=True)
class PopulationSpec:
    """One population of neurons and the connection that drives it.

    Parameters
    ----------
    name : ``population1``, ``population2``, ... in feedforward order.
    layer : convolution or linear layer from the population before it (or the input); the pool of one that pools.
    pool : average pool merged into that connection, after the layer; or None.
    input_shape : shape (C, H, W) or (N,) of what the layer is given.
    shape : shape of the population itself.
    """

    name: str
    layer: LayerSpec
    pool: LayerSpec | None
    input_shape: Shape
    shape: Shape


@dataclass(frozen=True)
class NetworkSpec:
    """Layers in feedforward order and the feedback from the last population into the first, if there is one.

    Raises
    ------
    SpecError : if the layers cannot follow one another, naming the layer.
    """

    layers: tuple[LayerSpec, ...]
    feedback: LayerSpec | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise SpecError("the network has no layers; expected at least one, e.g. 64C5s or 400.")
        for index in range(len(self.layers)):
            fault = _order_fault(self.layers, index)
            if fault:
                raise SpecError(f'layer {index + 1} of "{self}": {fault}')
        fault = _feedback_fault(self.layers, self.feedback) if self.feedback else None
        if fault:
            raise SpecError(f'feedback of "{self}": {fault}')

    @property
    def is_outside(self) -> bool:
        """Whether a layer, or the feedback, is of a kind that was registered from outside."""
        return any(layer.is_outside for layer in (*self.layers, self.feedback) if layer is not None)

    def __str__(self) -> str:
        chain = "-".join(map(str, self.layers))
        return f"{chain} (F{self.feedback})" if self.feedback else chain

    def populations(self, input_shape: Shape, *, pooling: Pooling = "merged") -> tuple[PopulationSpec, ...]:
        """The populations, first to last, for an input of that shape.

        Parameters
        ----------
        input_shape : (C, H, W) or (N,), without batch and time.
        pooling : whether a pool belongs to the population before it or is one.

        Raises
        ------
        SpecError : if a layer cannot take the shape it is given, or the feedback does not fit the first population.
        """
        if len(input_shape) not in (1, 3) or any(side < 1 for side in input_shape):
            raise SpecError(f"input shape {tuple(input_shape)}; allowed: (channels, height, width) or (N,), all >= 1.")
        populations: list[PopulationSpec] = []
        source = tuple(input_shape)
        for index, layer in enumerate(self.layers):
            if layer.kind == "pool" and pooling == "merged":
                continue
            follower = self.layers[index + 1] if index + 1 < len(self.layers) else None
            pool = follower if pooling == "merged" and follower and follower.kind == "pool" else None
            shape = self._shape_after(index, source)
            if pool:
                shape = self._shape_after(index + 1, shape)
            populations.append(PopulationSpec(f"population{len(populations) + 1}", layer, pool, source, shape))
            source = shape
        self._check_feedback(populations[-1], populations[0])
        return tuple(populations)

    def neurons(self, input_shape: Shape, *, pooling: Pooling = "merged") -> int:
        """Number of neurons as the papers count: input elements and all populations, not the classifier's outputs."""
        populations = self.populations(input_shape, pooling=pooling)
        return math.prod(input_shape) + sum(math.prod(p.shape) for p in populations)

    def parameters(self, input_shape: Shape, classes: int = 10, *, pooling: Pooling = "merged") -> int:
        """Number of parameters as the papers count, which reproduces every size they print.

        Weights of all layers, of the feedback and of the classifier; one bias per output channel or unit of each
        linear layer and convolution, none for transposed ones; batch norm is left out. The feedback is counted
        like any other layer, though the network that is trained here has no bias on it: the count is the papers'.
        A pool has no parameters; how it is read matters to the shapes that a feedback must fit.

        Raises
        ------
        SpecError : as `populations` does.
        """
        populations = self.populations(input_shape, pooling=pooling)
        last = populations[-1].shape
        layers = sum(p.layer.parameters(p.input_shape) for p in populations)
        feedback = self.feedback.parameters(last) if self.feedback else 0
        return layers + feedback + classes * math.prod(last) + classes

    def _shape_after(self, index: int, source: Shape) -> Shape:
        try:
            return self.layers[index].output_shape(source)
        except SpecError as error:
            raise SpecError(f'layer {index + 1} of "{self}": {error}') from None

    def _check_feedback(self, last: PopulationSpec, first: PopulationSpec) -> None:
        if self.feedback is None:
            return
        found = self.feedback.output_shape(last.shape)
        if found != first.shape:
            raise SpecError(
                f'feedback of "{self}": F{self.feedback} makes {found} of {last.name} {last.shape}, '
                f"but its target {first.name} is {first.shape}; both shapes must be equal."
            )


def parse_spec(text: str) -> NetworkSpec:
    """Network that the notation describes; ``str()`` of it gives the canonical notation back.

    Raises
    ------
    SpecError : naming the layer, what was found and what is allowed.
    """
    chain, opening, tail = text.partition("(")
    if ")" in chain:
        raise SpecError(f'"{text}": found ")" at character {chain.index(")") + 1} without a "(" before it.')
    if not chain.strip():
        raise SpecError(f'"{text}": no layers found; expected them joined by "-", e.g. 64C5s-64C5 (F64C3u).')
    layers = tuple(_parse_layer(part, number, text) for number, part in enumerate(chain.split("-"), start=1))
    return NetworkSpec(layers, _parse_feedback(tail, text) if opening else None)


def parse_connection(text: str, where: str, *, even: bool = False) -> tuple[LayerSpec, LayerSpec | None]:
    """The layer that a connection of a graph says, and the pool merged into it: 64C3, 200, P2 or 64C3-P2.

    Parameters
    ----------
    where : names the connection in messages.
    even : whether a convolution's kernel may be even, since its padding is given.

    Raises
    ------
    SpecError : if it says something else.
    """
    parts = [part.strip() for part in text.split("-")]
    try:
        found = [_read(part, even=even) for part in parts]
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None
    layer, pool = (*found, None)[:2]
    merged = len(found) == 1 or (len(found) == 2 and pool is not None and pool.kind == "pool")
    if layer is None or not merged or (pool is not None and layer.kind != "conv"):
        raise SpecError(f'{where}: cannot read "{text}"; {_layer_forms()} A pool may follow a convolution: 64C3-P2.')
    return layer, pool


def _parse_layer(part: str, number: int, text: str) -> LayerSpec:
    where = f'layer {number} of "{text}"'
    try:
        layer = _read(part.strip())
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None
    if layer is None:
        hint = ""
        if "F" in part or (not part.strip() and "(" in text):
            hint = " A feedback stands in parentheses at the end, without a dash: 64C5s (F64C5)."
        raise SpecError(f'{where}: cannot read "{part.strip()}"; {_layer_forms()}{hint}')
    return layer


def _parse_feedback(tail: str, text: str) -> LayerSpec:
    where = f'feedback of "{text}"'
    inner, closing, rest = tail.partition(")")
    if not closing:
        raise SpecError(
            f'{where}: the "(" at character {text.index("(") + 1} is never closed; expected ")" at the end.'
        )
    if rest.strip():
        raise SpecError(f'{where}: found "{rest.strip()}" after it; nothing may follow the feedback; {_ONE_FEEDBACK}.')
    part = inner.strip()
    try:
        layer = _read(part[1:]) if part.startswith("F") else None
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None
    if layer is None:
        raise SpecError(f'{where}: cannot read "{part}"; {_feedback_forms()}')
    return layer


def _read(part: str, *, even: bool = False) -> LayerSpec | None:
    """The layer that the part says, None if it says none."""
    if match := _CONV.fullmatch(part):
        mark, kernel = match[3], _number(match[2])
        border = 0 if even and kernel % 2 == 0 else -1
        return LayerSpec("conv", _number(match[1]), kernel, 2 if mark else 1, mark == "u", border)
    if match := _POOL.fullmatch(part):
        return LayerSpec("pool", 0, _number(match[1]), _number(match[1]))
    if _LINEAR.fullmatch(part):
        return LayerSpec("linear", _number(part))
    read = {name: kind.read(part) for name, kind in outside_kinds().items()}
    meant = {name: numbers for name, numbers in read.items() if numbers is not None}
    if len(meant) > 1:
        raise SpecError(f'"{part}" can be read as {" or ".join(meant)}; each layer kind must have a form of its own.')
    for name, numbers in meant.items():
        said = {place: _number(digits) for place, digits in numbers.items()}
        return LayerSpec(name, said.get("features", 0), said.get("kernel", 0), said.get("stride", 1))
    return None


def _layer_forms() -> str:
    """What a layer can be, for messages."""
    return f"expected <channels>C<kernel>[s|u], P<window>{_outside_forms()} or <units>, e.g. 64C3."


def _feedback_forms() -> str:
    return f"expected <channels>C<kernel>[u]{_outside_forms()} or <units> after the F, e.g. (F64C3); {_ONE_FEEDBACK}."


def _outside_forms() -> str:
    return "".join(f", {kind.form} ({name})" for name, kind in outside_kinds().items())


def _number(digits: str) -> int:
    if len(digits) > 9:
        raise SpecError(f"a number of {len(digits)} digits; allowed: at most {FEATURES_LIMIT}.")
    return int(digits)


def _mark(layer: LayerSpec) -> str:
    return "u" if layer.transposed else "s" if layer.stride == 2 else ""


def _layer_fault(layer: LayerSpec) -> str | None:
    if layer.is_outside:  # or of no kind at all, which is refused
        return layer_kind(layer).fault(layer)
    if layer.kind == "pool":
        if not 2 <= layer.kernel <= KERNEL_LIMIT:
            return f"window {layer.kernel} of pool {layer}; allowed: 2 .. {KERNEL_LIMIT}."
        if layer.features or layer.stride != layer.kernel or layer.transposed:
            return f"{layer!r} contradicts itself; a pool has no features, its stride is its window."
        return None
    if not 1 <= layer.features <= FEATURES_LIMIT:
        what = "channels" if layer.kind == "conv" else "units"
        return f'{layer.features} {what} in "{layer}"; allowed: 1 .. {FEATURES_LIMIT}.'
    if layer.kind == "linear":
        if layer.kernel or layer.stride != 1 or layer.transposed:
            return f"{layer!r} contradicts itself; a linear layer has kernel 0 and stride 1."
        return None
    if layer.border >= 0:
        if layer.transposed or not 1 <= layer.kernel <= KERNEL_LIMIT or not 1 <= layer.stride <= KERNEL_LIMIT:
            return f"{layer!r} contradicts itself; kernel and stride are 1 .. {KERNEL_LIMIT}, transposed is false."
        return None if layer.border < layer.kernel else f"padding {layer.border} of {layer}; allowed: below the kernel."
    if not 1 <= layer.kernel <= KERNEL_LIMIT or layer.kernel % 2 == 0:
        return (
            f'kernel {layer.kernel} in "{layer}"; allowed: odd numbers 1 .. {KERNEL_LIMIT}, '
            "because the padding (kernel - 1) / 2 must be whole; in a graph a connection gives it: "
            f'layer = "{layer.features}C{layer.kernel}", padding = {layer.kernel // 2}.'
        )
    if layer.stride not in (1, 2) or (layer.transposed and layer.stride != 2):
        return f"{layer!r} contradicts itself; the stride is 1 or 2, of a transposed convolution 2."
    return None


def _order_fault(layers: tuple[LayerSpec, ...], index: int) -> str | None:
    layer, before = layers[index], layers[index - 1] if index else None
    if layer.kind == "pool":
        if before is None:
            return f"pool {layer} comes first; a pool must follow a convolution."
        if before.kind != "conv":
            return f"pool {layer} follows {before}; a pool must follow a convolution."
    if layer.kind == "conv" and before and before.kind == "linear":
        return f"convolution {layer} follows the linear layer {before}; after a linear layer only <units> can come."
    return None


def _feedback_fault(layers: tuple[LayerSpec, ...], feedback: LayerSpec) -> str | None:
    if feedback.kind == "pool":
        return f"cannot be the pool {feedback}; {_feedback_forms()}"
    if feedback.kind == "conv" and feedback.stride == 2 and not feedback.transposed:
        return f'F{feedback} would shrink its target; a feedback takes "u" (doubles the sides) or nothing, never "s".'
    if feedback.kind == "conv" and layers[-1].kind == "linear":
        return f"convolution F{feedback} follows the linear layer {layers[-1]}; expected F<units>."
    return None
