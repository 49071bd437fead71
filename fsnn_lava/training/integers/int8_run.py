"""All steps of a batch by products in 8 bits: spikes are 0 or 1, mantissas have 8 bits, so that every product is exact.

oneDNN multiplies so in int8 with sums in int32, which on processors with AMX or VNNI is many times as fast as in
float32; without them it is a few times faster. What it costs does not depend on the spikes. A sum leaves as float32,
exact below 2**24, which any network with proven potentials is far below. Codes of graded inputs have more than 7 bits,
which saturate without VNNI: their current is the simulator's own, computed once a sample.

A few samples go through all steps and populations together, so that their potentials stay in the cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.backends import BatchResult, Plan, SpikeConnection, make_plan, overflow, returned_share
from fsnn_lava.hardware import (
    INPUT,
    STATE_LIMIT,
    Array,
    Convolution,
    Dense,
    HardwareNetwork,
    Shape,
    TransposedConvolution,
    rate_weights,
)
from fsnn_lava.kernels.neuron_step import batch_step
from fsnn_lava.kernels.spike_sums import flat_order
from fsnn_lava.network.event_maps import inner, outer

TOGETHER = 2**19
"""Neurons whose samples go through all steps together: 4 bytes of potential each, and as much of current."""

_AS_FLOAT: Any = (torch.float32, "none", [], "")
"""What leaves a product of oneDNN: its sums, and nothing is done to them."""

Product = Callable[[Tensor], Tensor]
"""(b, N_source) spikes, uint8, to (b, N_target) sums, float32; channels lie innermost on both sides."""


class Int8Runner:
    """Runs batches of an integer network whose weights change from batch to batch, as `BatchRunner` does.

    Parameters
    ----------
    network : its state is proven, with all weights that it is given; every connection's mantissas fit int8.
    loop_delay : steps after which the last population's spikes come back.
    """

    def __init__(self, network: HardwareNetwork, *, loop_delay: int) -> None:
        self._network, self._loop_delay = network, loop_delay
        self._plans: dict[int, Plan] = {}

    def run(
        self,
        inputs: Array,
        weights: Mapping[str, Array],
        constants: Mapping[str, Array],
        *,
        largest: Mapping[str, int],
        time_steps: int,
        threads: int,
        record: Sequence[str] = (),
    ) -> BatchResult:
        """Run a batch of inputs that fit the network; see `BatchRunner.run`, which gives the same.

        Raises
        ------
        StateOverflowError : if a potential leaves 24 bits; then the proof was wrong.
        """
        assert all(most < 2**24 for most in largest.values()), "sums leave float32"
        if time_steps not in self._plans:
            self._plans[time_steps] = make_plan(dataclasses.replace(self._network, time_steps=time_steps), proven=True)
        plan = self._plans[time_steps].with_weights(weights, constants)
        products = {s.name: _product(s) for p in plan.populations for s in p.synapses}
        events = plan.network.input.kind == "event"
        samples = inputs.shape[1] if events else len(inputs)
        size = max(1, TOGETHER // sum(p.population.size for p in plan.populations))
        found = []
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, samples, size):
                part = slice(first, first + size)
                some = _Batch(plan, inputs[:, part] if events else inputs[part], first=first, record=record)
                found.append(some.run(products, pool, threads, self._loop_delay))
        return _joined(found, record)


def fault() -> str:
    """Say why products in 8 bits cannot be had, or are not exact, on this machine and with this torch; "": they are."""
    return _fault()


@cache
def _fault() -> str:
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
            found = _sums(geometry, weight, flat_source, target)(inner(spikes.view(len(spikes), *flat_source)))
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


# ---- a few samples through all steps ------------------------------------------------------------------------


class _Batch:
    """Samples on their way through the steps.

    Parameters
    ----------
    first : number of the first sample.
    record : populations whose spikes are kept.
    """

    def __init__(self, plan: Plan, inputs: Array, *, first: int, record: Sequence[str]) -> None:
        self._plan, self._first, self._record = plan, first, record
        source = plan.network.input
        self._frames = inner(torch.from_numpy(inputs), batch_axes=2) if source.kind == "event" else None
        samples = inputs.shape[1] if source.kind == "event" else len(inputs)
        held = plan.held()
        self._spikes: dict[str, Array] = {}
        self._potential: dict[str, Array] = {}
        self._drive: dict[str, Array] = {}
        self._counts: dict[str, Array] = {}
        self._rates: dict[str, Array] = {}
        self._graded: dict[str, list[tuple[int, Array]]] = {}
        for p in plan.populations:
            name, size, shape = p.population.name, p.population.size, p.population.shape
            steps = plan.steps if name in record else held.get(name, 1)
            self._spikes[name] = np.zeros((steps, samples, size), np.uint8)
            self._potential[name] = np.zeros((samples, size), np.int32)
            constant = inner(torch.from_numpy(p.constant).view(1, *shape)).numpy()
            self._drive[name] = np.repeat(constant.astype(np.int32), samples, 0)
            self._counts[name] = np.zeros((samples, size), np.int32)
            self._rates[name] = np.zeros((samples if p.leaky else 0, size))
            codes = inputs.reshape(samples, source.size) if p.graded else inputs
            self._graded[name] = [
                (g.delay, inner(torch.from_numpy(g.current(codes)).view(samples, *shape)).numpy()) for g in p.graded
            ]
        self._nothing = {name: np.zeros_like(drive, np.float32) for name, drive in self._drive.items()}

    def run(
        self, products: Mapping[str, Product], pool: ThreadPoolExecutor, threads: int, loop_delay: int
    ) -> BatchResult:
        """All steps of them."""
        plan, last = self._plan, self._plan.populations[-1]
        shares = {p.population.name: rate_weights(plan.steps, p.leak) for p in plan.populations}
        early = np.zeros(self._counts[last.population.name].shape)
        for step in range(plan.steps):
            for p in plan.populations:
                name = p.population.name
                for delay, current in self._graded[name]:
                    if step == delay:
                        self._drive[name] += current.astype(np.int32)
                arriving = self._nothing[name]
                for s in p.synapses:
                    if step >= s.delay:
                        sums = products[s.name](self._sent(s.source, step - s.delay)).numpy()
                        sums = sums * np.float32(1 << s.shift) if s.shift else sums
                        arriving = sums if arriving is self._nothing[name] else arriving + sums
                share = float(shares[name][step]) if p.leaky else 0.0
                self._advance(name, arriving, step, share, pool, threads)
            if step + 1 == plan.steps - loop_delay:
                early[:] = self._rates[last.population.name] if last.leaky else self._counts[last.population.name]
        shapes = {p.population.name: p.population.shape for p in plan.populations}
        returned = early * returned_share(plan.steps, loop_delay, last.leak)
        return BatchResult(
            {name: _in_c_order(counts, shapes[name]) for name, counts in self._counts.items()},
            {name: _in_c_order(rates, shapes[name]) for name, rates in self._rates.items() if len(rates)},
            {name: _in_c_order(self._spikes[name], shapes[name]) for name in self._record},
            _in_c_order(returned, last.population.shape),
        )

    def _sent(self, source: str, step: int) -> Tensor:
        """(b, N) spikes of that step."""
        if source == INPUT:
            assert self._frames is not None
            return self._frames[step]
        ring = self._spikes[source]
        return torch.from_numpy(ring[step % len(ring)])

    def _advance(
        self, name: str, arriving: Array, step: int, share: float, pool: ThreadPoolExecutor, threads: int
    ) -> None:
        """Advance one population by a step, its samples shared by the threads."""
        plan = next(p for p in self._plan.populations if p.population.name == name)
        neuron, ring = plan.neuron.astype(np.int32), self._spikes[name]
        spikes, potential = ring[step % len(ring)], self._potential[name]
        arrays = potential, self._drive[name], arriving, spikes, self._counts[name]

        def some(begin: int) -> int:
            part = slice(begin, begin + size)
            peak: int = batch_step(*(array[part] for array in arrays), self._rates[name][part], share, neuron)
            return peak

        size = -(-len(potential) // threads)
        begins = range(0, len(potential), size)
        peak = max(map(some, begins) if threads == 1 else pool.map(some, begins))
        if peak > STATE_LIMIT:
            row, n = (int(place) for place in np.argwhere(np.abs(potential.astype(np.int64)) > STATE_LIMIT)[0])
            where = {"sample": self._first + row, "step": step, "neuron": int(flat_order(plan.population.shape)[n])}
            raise overflow(self._plan, plan.population, potential=int(potential[row, n]), **where)


def _in_c_order(numbers: Array, shape: Shape) -> Array:
    """(..., *shape) view of (..., N), in which channels lie innermost."""
    return np.asarray(outer(torch.from_numpy(numbers), shape))


def _joined(found: Sequence[BatchResult], record: Sequence[str]) -> BatchResult:
    """The results of several parts of a batch as one."""
    if len(found) == 1:
        return found[0]
    first = found[0]
    return BatchResult(
        {name: np.concatenate([f.counts[name] for f in found]) for name in first.counts},
        {name: np.concatenate([f.rates[name] for f in found]) for name in first.rates},
        {name: np.concatenate([f.spikes[name] for f in found], axis=1) for name in record},
        np.concatenate([f.returned for f in found if f.returned is not None]),
    )


# ---- products -----------------------------------------------------------------------------------------------


def _product(synapses: SpikeConnection) -> Product:
    """The sums of one connection's spikes."""
    m = synapses.map
    weight = torch.from_numpy(np.ascontiguousarray(m.weight, np.int8))
    if isinstance(m.geometry, Dense):  # both ends with their channels innermost
        weight = weight[flat_order(m.target)[:, None], flat_order(m.source)]
    return _sums(m.geometry, weight, m.source, m.target)


def _sums(geometry: object, weight: Tensor, source: Shape, target: Shape) -> Product:
    """The sums of a linear map's weights, int8."""
    if isinstance(geometry, Convolution):
        convolve = _convolution(weight, source, stride=geometry.stride, padding=geometry.padding)
        return lambda spikes: inner(convolve(outer(spikes, source)))
    if isinstance(geometry, TransposedConvolution):
        return _transposed(geometry, weight, source, target)
    ops: Any = torch.ops.onednn  # type: ignore[attr-defined]
    packed = ops.qlinear_prepack(weight.contiguous(), None)
    scale, zero = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)

    def product(spikes: Tensor) -> Tensor:
        sums: Tensor = ops.qlinear_pointwise(spikes, 1.0, 0, packed, scale, zero, None, 1.0, 0, *_AS_FLOAT)
        return sums

    return product


def _convolution(weight: Tensor, source: Shape, *, stride: int, padding: int) -> Product:
    """(b, C, H, W) uint8 to (b, C', H', W') float32, channels innermost in memory."""
    ops: Any = torch.ops.onednn  # type: ignore[attr-defined]
    one = [1, 1]
    scale, zero = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    steps, around = [stride] * 2, [padding] * 2
    packed = ops.qconv_prepack(weight.contiguous(), scale, 1.0, 0, steps, around, one, 1, [1, *source])

    def product(spikes: Tensor) -> Tensor:
        form = None, steps, around, one, 1, 1.0, 0, *_AS_FLOAT
        sums: Tensor = ops.qconv2d_pointwise(spikes, 1.0, 0, packed, scale, zero, *form)
        return sums

    return product


def _transposed(geometry: TransposedConvolution, weight: Tensor, source: Shape, target: Shape) -> Product:
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
            convolve = _convolution(taps, wide, stride=1, padding=0)
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
        return inner(sums)

    return product
