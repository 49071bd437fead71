"""T steps of a spiking network by products in int8: the run of a CPU whose multipliers for 8 bits are fast.

A weight, batch norm folded in, is a whole number of 24 bits in units of its output channel's, and its product the sum
of three in 8 bits: spikes are 0 or 1, so that these are exact (`int8_products`). Weights are thus off by at most 2^-23
of the largest one of their channel, as in float32; two parts would not do, a quarter of the spikes would move
(`benchmarks/ide/precision.py`). Units are powers of two, so that weights of few bits, as of pools, whose potentials
often meet the threshold exactly, stay what they are. Beyond that potentials are rounded, to float32.

A few samples go through all steps together, and through several steps of one population at a time, as many as spikes
need around the loop: so little memory is moved. What a step does beside its products is one compiled pass.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.config import LayerSpec
from fsnn_lava.hardware import Array, Convolution, Dense, FloatNeuron, Geometry, TransposedConvolution
from fsnn_lava.kernels.neuron_step import float_batch_steps, neuron_numbers
from fsnn_lava.network.dense_runs.int8_products import LONGEST, TOGETHER, int8_sums
from fsnn_lava.network.event_maps import inner, outer
from fsnn_lava.network.layers import BoundSynapse, folded
from fsnn_lava.network.neuron import SpikeCounts

BASE = 256
"""Units of each part of a weight in one of the next part."""

LARGEST = 127 * BASE**2
"""Units that a channel's largest weight has at most, and more than half of them."""


@torch.no_grad()
def int8_run(
    feedforward: Sequence[BoundSynapse],
    feedback: Sequence[BoundSynapse],
    *,
    input_current: Callable[[int], Sequence[Tensor | None]],
    constant: bool,
    neurons: Sequence[FloatNeuron],
    time_steps: int,
    loop_delays: Sequence[int],
    record: bool = False,
) -> SpikeCounts:
    """Spike counts after T steps (Eq. 10), batch norms with running statistics.

    Parameters
    ----------
    feedforward : connections from earlier populations, and from the input, whose current is given.
    feedback : connections from the same or a later population.
    input_current : step t -> (B, *N) current of each population from the input, or None.
    constant : whether that is the same in every step.
    neurons : of each population.
    loop_delays : steps until a spike comes back over each feedback.
    record : keep every spike.
    """
    below = [_Response(s, 0) for s in feedforward if s.source >= 0]
    back = [_Response(s, delay) for s, delay in zip(feedback, loop_delays, strict=True)]
    steps = [input_current(t) for t in range(1 if constant else time_steps)]
    targets = {s.target: s.synapse.shape for s in (*feedforward, *feedback)}
    shapes = [targets[p] for p in range(len(neurons))]
    batch = len(next(current for current in steps[0] if current is not None))
    size = max(1, TOGETHER // sum(map(prod, shapes)))
    found = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for begin in range(0, batch, size):
            part = slice(begin, begin + size)
            frames = [
                None if one[0] is None else np.stack([inner(frame[part]).numpy() for frame in one if frame is not None])
                for one in zip(*steps, strict=True)
            ]
            found.append(
                _some_samples(
                    [*back, *below],
                    shapes,
                    part,
                    frames,
                    samples=min(size, batch - begin),
                    neurons=neurons,
                    time_steps=time_steps,
                    record=record,
                    pool=pool,
                )
            )
    columns = list(zip(*found, strict=True))
    weighted, plain, returned = (
        tuple(map(torch.cat, zip(*column, strict=True))) for column in (columns[0], columns[1], columns[3])
    )
    spikes = tuple(torch.cat(parts, 1) for parts in zip(*columns[2], strict=True)) if record else None
    return SpikeCounts(weighted, plain, spikes, returned)


def _some_samples(
    responses: Sequence["_Response"],
    shapes: Sequence[tuple[int, ...]],
    part: slice,
    frames: Sequence[Array | None],
    *,
    samples: int,
    neurons: Sequence[FloatNeuron],
    time_steps: int,
    record: bool,
    pool: ThreadPoolExecutor,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Weighted and plain counts of each population, recorded spikes, and the counts of what came back.

    Parameters
    ----------
    responses : of all connections between populations, those of feedback first.
    part : of the batch.
    frames : (T, b, N) current of each population from the input, or (1, b, N) where it is the same in all steps.
    """
    populations = [
        _Neurons((samples, prod(shape)), neuron, time_steps) for shape, neuron in zip(shapes, neurons, strict=True)
    ]
    none = [np.zeros((1, *population.counts.shape), np.float32) for population in populations]
    back = [response for response in responses if response.delay]
    late: dict[int, list[Tensor]] = {response.source: [] for response in back}  # (b, N) of each step
    history: list[list[Tensor]] = [[] for _ in shapes]
    returned = [torch.zeros(populations[response.source].counts.shape) for response in back]
    for begin, end in _blocks(time_steps, [response.delay for response in back]):
        spikes: list[Tensor] = []
        for p, (population, given) in enumerate(zip(populations, frames, strict=True)):
            arriving: list[Tensor] = []  # upper and lower bits of all connections but those of late spikes not yet sent
            for response in responses:
                if response.target != p or begin < response.delay:
                    continue
                sent = (
                    torch.stack(late[response.source][begin - response.delay : end - response.delay])
                    if response.delay
                    else spikes[response.source]
                )
                parts = response(sent, part)
                arriving = [a.add_(b) for a, b in zip(arriving, parts, strict=True)] if arriving else parts
            if given is not None:
                upper = given if len(given) == 1 else given[begin:end]
                lower = arriving[0].add_(arriving[1]).numpy() if arriving else none[p]
            else:
                upper, lower = (current.numpy() for current in arriving) if arriving else (none[p], none[p])
            leak = neurons[p].leak
            shares = leak ** np.arange(time_steps - 1 - begin, time_steps - 1 - end, -1.0)
            spikes.append(population.advance(upper, lower, end - begin, shares, pool))
            if record:
                history[p].append(outer(spikes[-1], shapes[p]).contiguous())
        for source, kept in late.items():
            kept.extend(spikes[source])
        for number, response in enumerate(back):
            if end == time_steps - response.delay:
                share = neurons[response.source].leak ** response.delay
                returned[number] = populations[response.source].weighted() / share
    return (
        [outer(p.weighted(), shape) for p, shape in zip(populations, shapes, strict=True)],
        [outer(p.plain(), shape) for p, shape in zip(populations, shapes, strict=True)],
        [torch.cat(steps) for steps in history] if record else [],
        [outer(count, shapes[response.source]) for count, response in zip(returned, back, strict=True)],
    )


def _blocks(time_steps: int, loop_delays: Sequence[int]) -> list[tuple[int, int]]:
    """First step and end of steps that can be taken together: what comes back in them is there before.

    Where something first comes back, and where the last of that is sent, another one begins.
    """
    inside = (cut for delay in loop_delays for cut in (delay, time_steps - delay) if 0 < cut < time_steps)
    cuts = sorted({0, time_steps, *inside})
    longest = min((LONGEST, *loop_delays))
    return [
        (begin, min(begin + longest, end))
        for start, end in itertools.pairwise(cuts)
        for begin in range(start, end, longest)
    ]


class _Neurons:
    """One population's neurons in some samples, (b, N) each, channels innermost."""

    def __init__(self, form: tuple[int, int], neuron: FloatNeuron, time_steps: int) -> None:
        self._neuron = neuron_numbers(neuron)[:4].astype(np.float32)
        self._leaky = neuron.leak < 1.0
        self._potential, self.counts = (
            np.zeros(form, np.float32),
            np.zeros(form, np.uint8 if time_steps < 2**8 else np.int32),
        )
        self._rates = np.zeros(form if self._leaky else (0, 0))

    def advance(self, upper: Array, lower: Array, steps: int, shares: Array, pool: ThreadPoolExecutor) -> Tensor:
        """Go through steps in which two currents (steps, b, N) arrive, or (1, b, N) in each; return the spikes."""
        spikes = np.empty((steps, *self.counts.shape), np.uint8)
        shares = shares if self._leaky else np.zeros(0)
        size = -(-len(self.counts) // torch.get_num_threads())

        def some(begin: int) -> None:
            state = self._potential, self.counts, self._rates
            end = min(begin + size, len(self.counts))
            float_batch_steps(begin, end, upper, lower, spikes, *state, shares, self._neuron)

        list(pool.map(some, range(0, len(self.counts), size)))
        return torch.from_numpy(spikes)

    def weighted(self) -> Tensor:
        """(b, N) leak-weighted counts so far, each spike's weight being that at the end of the run."""
        return torch.from_numpy(self._rates.astype(np.float32)) if self._leaky else self.plain()

    def plain(self) -> Tensor:
        """(b, N) counts so far."""
        return torch.from_numpy(self.counts.astype(np.float32))


class _Response:
    """What a connection makes of spikes, as two tensors whose sum it is: by the weights' upper bits, and by the others.

    The bias is in the first one; both are pooled and masked.

    Attributes
    ----------
    source, target, delay : populations, counted from 0, and the steps until a spike arrives.
    """

    def __init__(self, bound: BoundSynapse, delay: int) -> None:
        self.source, self.target, self.delay = bound.source, bound.target, delay
        layer, self._source = bound.synapse.layer, bound.synapse.input_shape
        self._pool, self._mask = bound.synapse.pool, bound.mask
        self._shape = layer.output_shape(self._source)
        geometry = _geometry(layer)
        weight, bias = folded(bound)
        if layer.kind == "linear":
            weight = inner(weight.view(len(weight), *self._source))
        parts, unit = split_int8(weight, outputs=1 if layer.transposed else 0)
        self._products = [
            int8_sums(
                geometry, part, self._source, self._shape, scale=unit * BASE**place, bias=bias if place == 2 else None
            )
            for place, part in enumerate(parts)
        ]

    def __call__(self, spikes: Tensor, part: slice) -> list[Tensor]:
        """(steps, b, N) each, of spikes (steps, b, M), uint8; channels lie innermost.

        Parameters
        ----------
        part : of the batch that these samples are.
        """
        lowest, middle, upper = (product(spikes.flatten(0, 1)) for product in self._products)
        found = [upper, middle.add_(lowest)]
        if self._pool is not None:
            window = self._pool.kernel
            found = [inner(functional.avg_pool2d(outer(x, self._shape), window)) for x in found]
        found = [x.view(*spikes.shape[:2], -1) for x in found]
        return found if self._mask is None else [x * inner(self._mask[part]) for x in found]


def split_int8(weight: Tensor, *, outputs: int) -> tuple[list[Tensor], Tensor]:
    """Three parts of a weight, int8, the lowest first, and the unit (C,) of each channel.

    The weight is unit * (parts[0] + BASE parts[1] + BASE^2 parts[2]), or half a unit beside it.

    Parameters
    ----------
    outputs : axis of the weight's output channels.
    """
    rows = weight.transpose(0, outputs)
    largest = rows.flatten(1).abs().amax(1).clamp_min(1e-30)  # zeros have some unit too
    unit = torch.ldexp(torch.ones_like(largest), torch.frexp(largest / LARGEST).exponent)  # frexp: below 1 of them
    rest = (rows / unit.view(-1, *[1] * (rows.dim() - 1))).round_().to(torch.int32)
    parts = []
    for _ in range(3):
        above = (rest + BASE // 2) >> 8
        parts.append((rest - BASE * above).transpose(0, outputs).to(torch.int8))
        rest = above
    return parts, unit


def _geometry(layer: LayerSpec) -> Geometry:
    if layer.kind == "linear":
        return Dense()
    if layer.transposed:
        return TransposedConvolution(layer.stride, layer.padding, 1)
    return Convolution(layer.stride, layer.padding)
