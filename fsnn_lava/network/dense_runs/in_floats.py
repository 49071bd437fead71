"""T steps of a spiking network with dense products: the run of a GPU, where every neuron takes part in every step.

Three things make a step cheap, and none changes what is computed beyond the rounding of float32:

- Batch norm with running statistics is folded into weight and bias, once for all steps.
- What follows a product (dropout, input current, leak, reset, threshold, counts) reads and writes every neuron once, in
  one kernel where `torch.compile` fuses it. All of it lies flat in memory, in the order in which convolutions leave it.
- Spikes are 0 or 1, exact in every format. A weight split into two TF32 values is exact to the last bit of float32, so
  that two products on tensor cores replace one in float32, which is several times slower than both.
"""

import functools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.devices import tf32
from fsnn_lava.network.layers import BoundSynapse, apply_layer, folded
from fsnn_lava.network.neuron import SpikeCounts

_Stepped = tuple[Tensor, Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class DenseSettings:
    """How a dense run computes.

    Parameters
    ----------
    compiled : fuse the elementwise part of a step with torch.compile.
    split : take products on tensor cores, each weight as the sum of two TF32 values; on a CPU in int8, as that of three
        whole numbers (`in_int8`).
    """

    compiled: bool = False
    split: bool = False


@torch.no_grad()
def dense_run(
    feedforward: Sequence[BoundSynapse],
    feedback: BoundSynapse | None,
    *,
    input_current: Callable[[int], Tensor],
    neuron: FloatNeuron,
    time_steps: int,
    loop_delay: int = 1,
    record: bool = False,
    settings: DenseSettings = DenseSettings(),
) -> SpikeCounts:
    """Spike counts after T steps (Eq. 10), batch norms with running statistics.

    Parameters
    ----------
    feedforward : connections into each population; the first one's current is given.
    input_current : step t -> (B, *N) current of the first population without its feedback.
    loop_delay : steps until a spike of the last population reaches the first.
    record : keep every spike.
    """
    products = [_Product(synapse, split=settings.split) for synapse in feedforward[1:]]
    returning = None if feedback is None else _Product(feedback, split=settings.split)
    advance = _advance(settings.compiled)
    start = input_current(0)
    shapes = [(len(start), *synapse.synapse.shape) for synapse in feedforward]
    v, weighted = ([start.new_zeros(math.prod(shape)) for shape in shapes] for _ in range(2))
    plain = [None if neuron.leak == 1.0 else torch.zeros_like(count) for count in weighted]
    sent: deque[Tensor] = deque()
    returned = torch.zeros_like(weighted[-1])
    history: list[list[Tensor]] = [[] for _ in feedforward]
    for t in range(time_steps):
        spikes = start
        for layer, shape in enumerate(shapes):
            base, product = None, None
            if layer == 0:
                base = flat(start if t == 0 else input_current(t))
                if returning is not None and t >= loop_delay:
                    product = returning(sent.popleft())
            else:
                product = products[layer - 1](spikes)
            response, mask = (None, None) if product is None else product
            v[layer], fired, weighted[layer], plain[layer] = advance(
                v[layer], weighted[layer], plain[layer], base, response, mask, neuron
            )
            spikes = shaped(fired, shape)
            if record:
                history[layer].append(spikes.to(torch.uint8).contiguous())
        sent.append(spikes)
        if t + 1 == time_steps - loop_delay:
            returned = weighted[-1].clone()
    return SpikeCounts(
        tuple(shaped(count, shape) for count, shape in zip(weighted, shapes, strict=True)),
        tuple(
            shaped(leaky if count is None else count, shape)
            for count, leaky, shape in zip(plain, weighted, shapes, strict=True)
        ),
        tuple(map(torch.stack, history)) if record else None,
        shaped(returned, shapes[-1]),
    )


def step(
    v: Tensor,
    weighted: Tensor,
    plain: Tensor | None,
    base: Tensor | None,
    response: Tensor | None,
    mask: Tensor | None,
    neuron: FloatNeuron,
) -> _Stepped:
    """Potential, spikes, leak-weighted and plain count of one population after its next step; all (B * N,).

    The reset is that of the spikes that the old potential tells: v[t] = leak (v[t-1] - r s[t-1]) + I[t].

    Parameters
    ----------
    v, weighted, plain : potential and counts before; no plain count without leak, where it is the weighted one.
    base : input current; None for all but the first population.
    response, mask : what a connection brings, and its dropout mask, if any.
    """
    current = response if response is None or mask is None else response * mask
    if base is not None:
        current = base if current is None else base + current
    assert current is not None
    kept = v - neuron.reset_amount * (v >= neuron.v_threshold).to(v.dtype)
    v = neuron.leak * kept + current
    spikes = (v >= neuron.v_threshold).to(v.dtype)
    weighted = neuron.leak * weighted + spikes
    return v, spikes, weighted, None if plain is None else plain + spikes


@functools.cache
def _advance(compiled: bool) -> Callable[..., _Stepped]:
    """`step`, fused or not; one program serves all sizes.

    A network needs five programs at most, for what may be absent: input current, response, mask. No two arguments may
    be one tensor, or there are more of them, and torch gives up at eight.
    """
    return torch.compile(step, dynamic=True) if compiled else step


class _Product:
    """What a connection makes of spikes: its product with batch norm folded in, pooled, and its dropout mask, flat."""

    def __init__(self, bound: BoundSynapse, *, split: bool) -> None:
        self._layer, self._pool = bound.synapse.layer, bound.synapse.pool
        weight, bias = folded(bound)
        self._split = split and weight.dtype == torch.float32
        self._bias, self._weights = bias, split_tf32(weight) if self._split else (weight,)
        self._mask = None if bound.mask is None else flat(bound.mask)

    def __call__(self, spikes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Response (B * N,) to spikes (B, *shape), and the mask (B * N,)."""
        with tf32(self._split):
            response = apply_layer(self._layer, self._weights[0], self._bias, spikes)
            for rest in self._weights[1:]:
                response += apply_layer(self._layer, rest, None, spikes)
        if self._pool is not None:
            response = functional.avg_pool2d(response, self._pool.kernel)
        return flat(response), self._mask


def split_tf32(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors of TF32 values whose sum is the float32 weight, but for its last bit."""
    high = _to_tf32(weight)
    return high, _to_tf32(weight - high)


def _to_tf32(x: Tensor) -> Tensor:
    """The nearest values with 10 bits behind the leading one; a float32 has 13 more."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def flat(x: Tensor) -> Tensor:
    """All values (B * N,), of images pixel by pixel with their channels together; without a copy if they lie so."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(-1)


def shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The values that `flat` gave in their shape (B, *N) again, without a copy."""
    if len(shape) != 4:
        return x.view(shape)
    batch, channels, height, width = shape
    return x.view(batch, height, width, channels).permute(0, 3, 1, 2)
