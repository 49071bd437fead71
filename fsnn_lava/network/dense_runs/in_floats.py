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
    feedback: Sequence[BoundSynapse],
    *,
    input_current: Callable[[int], Sequence[Tensor | None]],
    neurons: Sequence[FloatNeuron],
    time_steps: int,
    loop_delays: Sequence[int],
    record: bool = False,
    settings: DenseSettings = DenseSettings(),
) -> SpikeCounts:
    """Spike counts after T steps (Eq. 10), batch norms with running statistics.

    Parameters
    ----------
    feedforward : connections from earlier populations, and from the input, whose current is given.
    feedback : connections from the same or a later population.
    input_current : step t -> (B, *N) current of each population from the input, or None.
    neurons : of each population.
    loop_delays : steps until a spike comes back over each feedback.
    record : keep every spike.
    """
    below = [(s.source, s.target, _Product(s, split=settings.split)) for s in feedforward if s.source >= 0]
    back = [
        (s.source, s.target, delay, _Product(s, split=settings.split))
        for s, delay in zip(feedback, loop_delays, strict=True)
    ]
    advance = _advance(settings.compiled)
    start = input_current(0)
    like = next(current for current in start if current is not None)
    targets = {s.target: (len(like), *s.synapse.shape) for s in (*feedforward, *feedback)}
    shapes = [targets[p] for p in range(len(neurons))]
    v, weighted = ([like.new_zeros(math.prod(shape)) for shape in shapes] for _ in range(2))
    plain = [None if n.leak == 1.0 else torch.zeros_like(count) for n, count in zip(neurons, weighted, strict=True)]
    late = {source: max(d for s, _, d, _ in back if s == source) for source in {s for s, *_ in back}}
    sent: dict[int, deque[Tensor | None]] = {  # the oldest one first
        source: deque([None] * steps, maxlen=steps) for source, steps in late.items()
    }
    returned = [torch.zeros_like(weighted[source]) for source, *_ in back]
    history: list[list[Tensor]] = [[] for _ in neurons]
    for t in range(time_steps):
        currents = start if t == 0 else input_current(t)
        spikes: list[Tensor] = []
        for p, (shape, neuron) in enumerate(zip(shapes, neurons, strict=True)):
            responses = []
            for source, target, delay, product in back:
                if target == p and (came_back := sent[source][-delay]) is not None:
                    responses.append(product(came_back))
            responses += [product(spikes[source]) for source, target, product in below if target == p]
            given = currents[p]
            base, response, mask = _joined(None if given is None else flat(given), responses, like, shape)
            v[p], fired, weighted[p], plain[p] = advance(v[p], weighted[p], plain[p], base, response, mask, neuron)
            spikes.append(shaped(fired, shape))
            if record:
                history[p].append(spikes[-1].to(torch.uint8).contiguous())
        for source, waiting in sent.items():
            waiting.append(spikes[source])
        for number, (source, _, delay, _) in enumerate(back):
            if t + 1 == time_steps - delay:
                returned[number] = weighted[source].clone()
    return SpikeCounts(
        tuple(shaped(count, shape) for count, shape in zip(weighted, shapes, strict=True)),
        tuple(
            shaped(leaky if count is None else count, shape)
            for count, leaky, shape in zip(plain, weighted, shapes, strict=True)
        ),
        tuple(map(torch.stack, history)) if record else None,
        tuple(shaped(count, shapes[source]) for count, (source, *_) in zip(returned, back, strict=True)),
    )


def _joined(
    base: Tensor | None, responses: Sequence[tuple[Tensor, Tensor | None]], like: Tensor, shape: tuple[int, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What arrives at a population, (B * N,), as `step` takes it: all but one response are added to the base."""
    for response, mask in responses[:-1]:
        current = response if mask is None else response * mask
        base = current if base is None else base + current
    if responses:
        return base, *responses[-1]
    return (like.new_zeros(math.prod(shape)) if base is None else base), None, None


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
    base : input current and what other connections bring; None where there is none.
    response, mask : what a connection brings, and its dropout mask, if any.
    """
    current = response if response is None or mask is None else response * mask
    if base is not None:
        current = base if current is None else base + current
    assert current is not None
    amount = v if neuron.reset == "zero" else neuron.reset_amount
    kept = v - amount * (v >= neuron.v_threshold).to(v.dtype)
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
