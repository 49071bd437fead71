"""All steps of a batch by products in 8 bits: spikes are 0 or 1, mantissas have 8 bits, so that every product is exact.

Any network with proven potentials is far below the 2**24 up to which sums are exact. Codes of graded inputs have more
than 7 bits, which saturate without VNNI: their current is the simulator's own, computed once a sample.

A few samples go through all steps and populations together, and each population through several steps at a time: so
little memory is moved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from fsnn_lava.backends import (
    BatchResult,
    BatchWeights,
    Plan,
    PopulationPlan,
    SpikeConnection,
    make_plan,
    overflow,
    returned_share,
)
from fsnn_lava.hardware import INPUT, STATE_LIMIT, Array, Dense, HardwareNetwork, rate_weights
from fsnn_lava.kernels.neuron_step import batch_steps
from fsnn_lava.kernels.spike_sums import flat_order
from fsnn_lava.network import LONGEST, TOGETHER, Int8Product, inner, int8_sums, outer


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
        self, inputs: Array, weights: BatchWeights, *, time_steps: int, threads: int, record: Sequence[str] = ()
    ) -> BatchResult:
        """Run a batch of inputs that fit the network; see `BatchRunner.run`, which gives the same.

        Raises
        ------
        StateOverflowError : if a potential leaves 24 bits; then the proof was wrong.
        """
        assert all(most < 2**24 for most in weights.largest.values()), "sums leave float32"
        if time_steps not in self._plans:
            self._plans[time_steps] = make_plan(dataclasses.replace(self._network, time_steps=time_steps), proven=True)
        plan = self._plans[time_steps].with_weights(weights)
        products = {s.name: _product(s) for p in plan.populations for s in p.synapses}
        events = plan.network.input.kind == "event"
        samples = inputs.shape[1] if events else len(inputs)
        size = max(1, TOGETHER // sum(p.population.size for p in plan.populations))
        found = []
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, samples, size):
                part = slice(first, first + size)
                found.append(
                    _all_steps(
                        plan,
                        inputs[:, part] if events else inputs[part],
                        products,
                        first=first,
                        loop_delay=self._loop_delay,
                        record=record,
                        pool=pool,
                        threads=threads,
                    )
                )
        return _joined(found, record)


# ---- a few samples through all steps ------------------------------------------------------------------------


class _Neurons:
    """One population's neurons in some samples, (b, N) each, which go through several steps at a time.

    Parameters
    ----------
    codes : (b, M) of graded inputs, for the populations that they reach.
    held : steps whose spikes are kept.

    Attributes
    ----------
    done : steps that they have gone through.
    """

    def __init__(self, plan: PopulationPlan, codes: Array, *, samples: int, steps: int, held: int) -> None:
        population = plan.population
        self.plan, self.name, self.shape = plan, population.name, population.shape
        self.neuron, self.shares = plan.neuron.astype(np.int32), rate_weights(steps, plan.leak)
        form = samples, population.size
        self.potential, self.counts = np.zeros(form, np.int32), np.zeros(form, np.int32)
        self.rates = np.zeros(form if plan.leaky else (0, 0))
        self.ring = np.zeros((held, *form), np.uint8)
        self.drive = np.repeat(self._inner(plan.constant[None]), samples, 0)
        self.graded = [(g.delay, self._inner(g.current(codes))) for g in plan.graded]
        self.done = 0

    def _inner(self, numbers: Array) -> Array:
        """(b, N) int32 with the channels innermost, of numbers in C order."""
        return np.asarray(inner(torch.from_numpy(numbers).view(len(numbers), *self.shape)), np.int32)

    def spikes(self, begin: int, end: int) -> Array:
        """(steps * b, N) of steps that are kept, one after the other."""
        places = [step % len(self.ring) for step in range(begin, end)]
        whole = places[-1] - places[0] == len(places) - 1
        spikes: Array = self.ring[places[0] : places[-1] + 1] if whole else self.ring[places]
        return spikes.reshape(-1, spikes.shape[-1])

    def advance(self, arriving: Array, pool: ThreadPoolExecutor, threads: int) -> int:
        """Go through steps in which (steps, b, N) arrive, on several threads; return the largest |potential|."""
        begin, end = self.done, self.done + len(arriving)
        spikes = np.empty(arriving.shape, np.uint8)
        shares = self.shares[begin:end] if self.plan.leaky else np.zeros(0)
        size = -(-len(self.potential) // threads)

        def some(first: int) -> int:
            last = min(first + size, len(self.potential))
            state = self.potential, self.drive, self.counts, self.rates
            peak: int = batch_steps(first, last, arriving, spikes, *state, shares, self.neuron)
            return peak

        firsts = range(0, len(self.potential), size)
        peak = max(map(some, firsts) if threads == 1 else pool.map(some, firsts))
        for step, fired in enumerate(spikes, start=begin):
            self.ring[step % len(self.ring)] = fired
        self.done = end
        return peak

    def in_order(self, numbers: Array) -> Array:
        """(..., *shape) view of (..., N)."""
        return np.asarray(outer(torch.from_numpy(numbers), self.shape))


def _all_steps(
    plan: Plan,
    inputs: Array,
    products: Mapping[str, Int8Product],
    *,
    first: int,
    loop_delay: int,
    record: Sequence[str],
    pool: ThreadPoolExecutor,
    threads: int,
    longest: int = LONGEST,
) -> BatchResult:
    """Run some samples through all steps.

    A population goes through as many steps at a time as the spikes that are there allow: as many as once around the
    loop takes. One product makes the currents of all of them, and potentials are read and written once for all.

    Parameters
    ----------
    products : of each connection that carries spikes, by its name.
    first : number of the first sample.
    longest : most steps at a time.
    """
    source = plan.network.input
    events = source.kind == "event"
    samples = inputs.shape[1] if events else len(inputs)
    frames = inner(torch.from_numpy(inputs), batch_axes=2) if events else torch.zeros(0)
    codes = inputs if events else inputs.reshape(samples, source.size)
    held = 2 * longest + max((s.delay for p in plan.populations for s in p.synapses), default=0)
    populations = []
    for planned in plan.populations:
        kept = plan.steps if planned.population.name in record else min(plan.steps, held)
        populations.append(_Neurons(planned, codes, samples=samples, steps=plan.steps, held=kept))
    by_name, last = {p.name: p for p in populations}, populations[-1]
    readers = {
        p.name: [(q, s.delay) for q in populations for s in q.plan.synapses if s.source == p.name] for p in populations
    }
    early, returning = np.zeros(last.counts.shape), plan.steps - loop_delay
    while any(p.done < plan.steps for p in populations):
        for p in populations:
            begin = p.done
            # Where something begins to arrive, or what came back is noted, other steps begin.
            cuts = [s.delay for s in p.plan.synapses] + [delay for delay, _ in p.graded] + [returning] * (p is last)
            there = [by_name[s.source].done + s.delay for s in p.plan.synapses if s.source != INPUT]
            # Nor is a spike written over that is still to be read.
            free = [len(p.ring) + q.done - delay for q, delay in readers[p.name] if q.done < plan.steps]
            end = min(plan.steps, begin + longest, *there, *free, *(cut for cut in cuts if cut > begin))
            if end <= begin:
                continue
            for delay, current in p.graded:
                if begin == delay:
                    p.drive += current
            form, arriving = (end - begin, *p.potential.shape), None
            for s in p.plan.synapses:
                if begin >= s.delay:
                    sent = begin - s.delay, end - s.delay
                    spikes = (
                        frames[slice(*sent)].flatten(0, 1)
                        if s.source == INPUT
                        else torch.from_numpy(by_name[s.source].spikes(*sent))
                    )
                    brought = products[s.name](spikes)  # exact: a whole number times a power of two
                    sums = (brought if s.shift >= 0 else brought.floor_()).numpy().reshape(form)
                    arriving = sums if arriving is None else np.add(arriving, sums, out=arriving)
            if p.advance(np.zeros(form, np.float32) if arriving is None else arriving, pool, threads) > STATE_LIMIT:
                if longest > 1:  # once more, one by one, to say where
                    return _all_steps(
                        plan,
                        inputs,
                        products,
                        first=first,
                        loop_delay=loop_delay,
                        record=record,
                        pool=pool,
                        threads=threads,
                        longest=1,
                    )
                row, n = np.argwhere(np.abs(p.potential.astype(np.int64)) > STATE_LIMIT)[0].tolist()
                potential, neuron = int(p.potential[row, n]), int(flat_order(p.shape)[n])
                where = {"sample": first + row, "step": begin, "neuron": neuron}
                raise overflow(plan, p.plan.population, potential=potential, **where)
            if p is last and end == returning:
                early[:] = last.rates if last.plan.leaky else last.counts
    return BatchResult(
        {p.name: p.in_order(p.counts) for p in populations},
        {p.name: p.in_order(p.rates) for p in populations if p.plan.leaky},
        {name: by_name[name].in_order(by_name[name].ring) for name in record},
        last.in_order(early * returned_share(plan.steps, loop_delay, last.plan.leak)),
    )


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


def _product(synapses: SpikeConnection) -> Int8Product:
    """The current of one connection's spikes, not yet rounded down."""
    m = synapses.map
    weight = torch.from_numpy(np.ascontiguousarray(m.weight, np.int8))
    if isinstance(m.geometry, Dense):  # both ends with their channels innermost
        weight = weight[flat_order(m.target)[:, None], flat_order(m.source)]
    scale = torch.full((m.target[0],), 2.0**synapses.shift)
    return int8_sums(m.geometry, weight, m.source, m.target, scale=scale)
