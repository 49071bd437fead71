"""Random chains of ternary couples, and networks, in the terms of the package and of `spiking_adjoint_reference`."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.testing import assert_close

import spiking_adjoint_reference as reference
from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.network.feedback_network import BoundNetwork
from fsnn_lava.training.gradients.spide_by_events import CoupleCounts, CoupleLink

Shape = tuple[int, ...]


def flat(x: Tensor, *, leading: int = 1) -> reference.Floats:
    """(B, N), or with two leading axes (T, B, N), in the order of the reference."""
    found: reference.Floats = x.detach().double().flatten(leading).numpy()
    return found


def connection(
    layer: LayerSpec, weight: Tensor, bias: Tensor | None, mask: Tensor, input_shape: Shape
) -> reference.Connection:
    """A layer from a source of that shape; the mask (B, *N) is ones without dropout."""
    source, target = tuple(input_shape), tuple(mask.shape[1:])
    if layer.kind == "linear":
        taps = reference.linear_taps(layer.features, math.prod(source))
    elif layer.transposed:
        taps = reference.transposed_taps(source, target, kernel=layer.kernel)
    else:
        padding = 0 if layer.kind == "pool" else (layer.kernel - 1) // 2
        taps = reference.conv_taps(source, target, kernel=layer.kernel, stride=layer.stride, padding=padding)
    channels = np.repeat(np.arange(target[0]), math.prod(target[1:]))
    biases = None if bias is None else bias.detach().double().numpy()
    return reference.Connection(taps, weight.detach().double().flatten().numpy(), channels, biases, flat(mask))


def reference_network(bound: BoundNetwork, batch: int) -> reference.Network:
    """The network of one forward call, with its restricted weights and dropout masks."""

    def of(index: int) -> reference.Connection:
        found = bound.feedback[0] if index < 0 else bound.feedforward[index]
        mask = found.mask if found.mask is not None else torch.ones(batch, *found.synapse.shape)
        return connection(found.synapse.layer, found.weight, found.bias, mask, found.synapse.input_shape)

    neuron = bound.neurons[0]
    return reference.Network(
        tuple(of(index) for index in range(len(bound.feedforward))),
        None if not bound.feedback else of(-1),
        neuron.v_threshold,
        neuron.reset_amount,
        neuron.leak,
    )


@dataclass(frozen=True, eq=False)
class Chain:
    """Couples of a random network, as `couple_run` and the reference take them.

    Parameters
    ----------
    masks : (B, N) of the neurons' rates, for every population.
    """

    name: str
    links: tuple[CoupleLink, ...]
    shapes: tuple[Shape, ...]
    drive: Tensor
    leak: float
    loop_delay: int
    network: reference.Network
    masks: list[reference.Floats]

    def reference_spikes(self, time_steps: int) -> list[reference.Integers]:
        """(T, B, N) of every population."""
        return reference.backward_phase(
            self.network,
            self.masks,
            flat(self.drive),
            time_steps=time_steps,
            loss_scale=1.0,
            loop_delay=self.loop_delay,
        )


def random_chain(seed: int, *, batch: int = 3) -> Chain:
    """One to four populations, flat or images, joined by any layers; with feedback where a layer leads back."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    reset_amount, leak = float(rng.choice([1.0, 2.0])), float(rng.choice([1.0, 1.0, 0.9, 0.6]))
    shapes, layers, feedback = _random_layers(rng)
    masks = [(torch.rand(batch, *shape, generator=generator) < 0.8).double() for shape in shapes]

    def joined(layer: LayerSpec, source: int, target: int) -> tuple[CoupleLink, reference.Connection]:
        shape = shapes[source]
        weight, kept = _weight(layer, shape, reset_amount, generator), float(rng.choice([1.0, 0.8]))
        dropout = (torch.rand(batch, *shapes[target], generator=generator) < kept).double() / kept
        link = CoupleLink(target, source, layer, weight, shape, dropout * masks[target] / reset_amount, 0)
        return link, connection(layer, weight, None, dropout, shape)

    pairs = [joined(layer, i, i + 1) for i, layer in enumerate(layers)]
    back = None if feedback is None else joined(feedback, len(shapes) - 1, 0)
    first = reference.Connection(*(np.zeros((0, 0)),) * 5)  # the input's; nothing runs back through it
    network = reference.Network(
        (first, *(c for _, c in pairs)), None if back is None else back[1], 1.0, reset_amount, leak
    )
    drive = 0.4 * torch.randn(batch, *shapes[-1], generator=generator, dtype=torch.float64)
    name = "-".join([str(shapes[0]), *map(str, layers)]) + f" (F{feedback}) leak {leak}"
    loop_delay = int(rng.integers(1, len(shapes) + 1))
    late = () if back is None else (replace(back[0], delay=loop_delay),)
    links = (*(link for link, _ in pairs), *late)
    return Chain(name, links, tuple(shapes), drive, leak, loop_delay, network, [*map(flat, masks)])


def assert_consistent(counts: CoupleCounts, *, leak: float, time_steps: int, tolerance: float) -> None:
    """The counts are those of the recorded spikes."""
    weights = leak ** torch.arange(time_steps - 1, -1, -1, dtype=torch.float64)
    for weighted, fired, spikes in zip(counts.weighted, counts.fired, counts.spikes, strict=True):
        assert spikes.dtype == torch.int8
        assert spikes.shape == (time_steps, *weighted.shape)
        assert fired.dtype == torch.int64
        assert torch.equal(fired, spikes.abs().sum((0, 1), dtype=torch.int64))
        expected = torch.tensordot(weights, spikes.double(), 1)
        assert_close(weighted.double(), expected, rtol=tolerance, atol=tolerance)


def _random_layers(rng: np.random.Generator) -> tuple[list[Shape], list[LayerSpec], LayerSpec | None]:
    """Shapes of the populations, what leads from one to the next, and in most chains what leads back."""
    wanted, length = rng.random() < 0.7, int(rng.integers(0, 4))
    while True:
        shapes: list[Shape] = [_random_shape(rng)]
        layers: list[LayerSpec] = []
        for _ in range(length):
            layers.append(_random_layer(rng, shapes[-1]))
            shapes.append(layers[-1].output_shape(shapes[-1]))
        feedback = _feedback(rng, shapes[-1], shapes[0])
        if not wanted or feedback is not None:
            return shapes, layers, feedback if wanted else None


def _random_shape(rng: np.random.Generator) -> Shape:
    if rng.random() < 0.25:
        return (int(rng.integers(1, 20)),)
    height, width = ((3, 6), (6, 6), (4, 8), (8, 4), (5, 7), (2, 4), (6, 3))[int(rng.integers(7))]
    return (int(rng.integers(1, 5)), height, width)


def _random_layer(rng: np.random.Generator, source: Shape) -> LayerSpec:
    """Linear, pool, convolution of stride 1 or 2, or transposed, whatever fits."""
    kinds = ["linear"]
    if len(source) == 3:
        kinds += ["conv", "conv", "strided"]
        kinds += ["pool", "pool"] if _windows(source) else []
        kinds += ["transposed"] if max(source[1:]) <= 4 else []
    kind = str(rng.choice(kinds))
    if kind == "linear":
        return LayerSpec("linear", int(rng.integers(1, 20)))
    if kind == "pool":
        window = int(rng.choice(_windows(source)))
        return LayerSpec("pool", 0, window, window)
    kernel = int(rng.choice([1, 3, 5]))
    stride = 1 if kind == "conv" else 2
    return LayerSpec("conv", int(rng.integers(1, 5)), kernel, stride, transposed=kind == "transposed")


def _windows(source: Shape) -> list[int]:
    """Windows of the pools that divide an image."""
    return [window for window in (2, 3) if source[1] % window == 0 and source[2] % window == 0]


def _feedback(rng: np.random.Generator, last: Shape, first: Shape) -> LayerSpec | None:
    """A layer that makes the first shape of the last, if there is one."""
    if len(first) == 1:
        return LayerSpec("linear", first[0])
    if len(last) == 1:
        return None
    kernel = int(rng.choice([1, 3, 5]))
    found = (LayerSpec("conv", first[0], kernel), LayerSpec("conv", first[0], kernel, 2, transposed=True))
    return next((layer for layer in found if layer.output_shape(last) == first), None)


def _weight(layer: LayerSpec, source: Shape, reset_amount: float, generator: torch.Generator) -> Tensor:
    """Such that spikes go on and on, without saturating everything."""
    if layer.kind == "pool":
        window = layer.kernel
        each = torch.eye(source[0], dtype=torch.float64)[:, :, None, None] / window**2
        return each.repeat(1, 1, window, window)
    inputs = source[0] if layer.kind == "conv" else math.prod(source)
    size: Shape = (layer.features, inputs, layer.kernel, layer.kernel)[: 4 if layer.kind == "conv" else 2]
    if layer.transposed:
        size = (inputs, layer.features, *size[2:])
    fan_out = layer.features * max(1, layer.kernel) ** 2
    return torch.randn(size, generator=generator, dtype=torch.float64) * reset_amount * 1.2 / fan_out**0.5
