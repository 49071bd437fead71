"""The event-driven engine: each sample by itself through all steps, each spike adding its weights, on all cores."""

import copy
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, final

import numpy as np

from fsnn_lava.backends.finished_samples import count_dtype
from fsnn_lava.backends.simulator.plan import (
    BatchResult,
    BatchWeights,
    Plan,
    PopulationPlan,
    SpikeConnection,
    overflow,
    returned_share,
)
from fsnn_lava.hardware import INPUT, STATE_LIMIT, Array, rate_weights
from fsnn_lava.kernels.simulator_loop import ROW, Outcome, Row, Tables, run_samples
from fsnn_lava.kernels.spike_sums import ScatterMap, flat_order, scatter_map, sum_dtype

PARTS_PER_CORE = 4
"""A batch is cut into so many parts for each core, so that none waits long for the others."""


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@final
class EventEngine:
    """Runs a plan event by event.

    Parameters
    ----------
    threads : at most so many; None: as many as there are cores.
    loop_delay : steps after which the last population's spikes come back; given, what came back is counted too.
    """

    def __init__(self, plan: Plan, *, threads: int | None = None, loop_delay: int | None = None) -> None:
        self._plan, self._threads, self._loop_delay = plan, threads, loop_delay
        self._tables, self._buffers = _tables(plan)
        self._places: list[Array] | None = None
        self._orders = {p.population.name: flat_order(p.population.shape) for p in plan.populations}
        self._shares = np.stack([rate_weights(plan.steps, p.leak) for p in plan.populations])

    def with_weights(self, weights: BatchWeights) -> "EventEngine":
        """The engine of the same integer network with other weights; geometry, delays and exponents stay."""
        plan, tables = self._plan, self._tables
        if self._places is None:
            self._places = [_places(s) for p in plan.populations for s in p.synapses]
        names = [s.name for p in plan.populations for s in p.synapses]
        changed, rows = copy.copy(self), tables.connections.copy()
        rows["wide"] = [weights.largest[name] >= 2**15 for name in names]
        flat = [weights.mantissas[name].ravel().take(places) for name, places in zip(names, self._places, strict=True)]
        changed._tables = tables._replace(
            weights=np.concatenate([tables.weights[:0], *flat], dtype=tables.weights.dtype, casting="unsafe"),
            connections=rows,
            constant=np.concatenate(
                [weights.constants[name][order] for name, order in self._orders.items()],
                dtype=tables.constant.dtype,
                casting="unsafe",
            ),
        )
        changed._buffers = _buffers(plan.integer, rows["size"].tolist(), rows["wide"].tolist())
        changed._plan = plan.with_weights(weights)
        return changed

    def sample_bytes(self, record: Sequence[str]) -> int:
        """Memory that one sample of a batch takes: what goes in, the current of its codes, and what comes out."""
        plan = self._plan
        total = plan.network.input.size * (plan.steps if plan.network.input.kind == "event" else 8)
        for p in plan.populations:
            out = 2 * np.dtype(count_dtype(plan.steps)).itemsize + 16 * p.leaky
            total += p.population.size * (out + 24 * len(p.graded) + 2 * plan.steps * (p.population.name in record))
        return total

    def run(self, inputs: Array, *, first: int, record: Sequence[str]) -> BatchResult:
        """Run the network on a batch.

        Raises
        ------
        StateOverflowError : if a potential leaves its range.
        """
        plan = self._plan
        frames, codes_current = self._inputs(inputs)
        filled = self._room(len(frames), record)
        cores = self._threads or usable_cores()
        size = max(1, -(-len(frames) // (cores * PARTS_PER_CORE)))
        begins = range(0, len(frames), size)
        with ThreadPoolExecutor(min(cores, len(begins))) as pool:
            try:
                runs = [pool.submit(self._run_part, frames, codes_current, filled, slice(b, b + size)) for b in begins]
                found = [run.result() for run in runs]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for begin, (sample, step, p, neuron, potential) in zip(begins, found, strict=True):
            if sample >= 0:
                population = plan.populations[p].population
                place = int(self._orders[population.name][neuron])
                sample += first + begin
                raise overflow(plan, population, sample=sample, step=step, neuron=place, potential=int(potential))
        return self._by_population(filled, record)

    def _inputs(self, inputs: Array) -> tuple[Array, Array]:
        """(b, T, M) uint8 frames, M = 0 without events, and (b, columns) current of the codes."""
        plan = self._plan
        source = plan.network.input
        dtype = self._tables.constant.dtype
        if source.kind == "event":
            frames = _channels_inner(inputs.swapaxes(0, 1), source.shape).astype(np.uint8, copy=False)
            return frames, np.zeros((len(frames), 0), dtype)
        codes = inputs.reshape(len(inputs), source.size)
        currents = [
            _channels_inner(graded.current(codes).reshape(len(codes), *p.population.shape), p.population.shape)
            for p in plan.populations
            for graded in p.graded
        ]
        together = np.concatenate([np.zeros((len(codes), 0), dtype), *currents], axis=1, dtype=dtype, casting="unsafe")
        return np.zeros((len(codes), plan.steps, 0), np.uint8), together

    def _room(self, rows: int, record: Sequence[str]) -> Outcome:
        """Zeros for what a batch of so many samples fills in."""
        plan = self._plan
        rates, rate_column = _columns([p.population.size * p.leaky for p in plan.populations])
        spikes, spike_column = _columns([p.population.size * (p.population.name in record) for p in plan.populations])
        last = plan.populations[-1].population.size
        return Outcome(
            counts=np.zeros((rows, len(self._tables.constant)), count_dtype(plan.steps)),
            rates=np.zeros((rows, rates)),
            rate_column=rate_column,
            shares=self._shares,
            spikes=np.zeros((rows, plan.steps, spikes), np.uint8),
            spike_column=spike_column,
            early=np.zeros((rows, 0 if self._loop_delay is None else last)),
            loop_delay=self._loop_delay or 0,
            peaks=np.zeros((rows, len(plan.populations)), self._tables.neurons.dtype),
        )

    def _run_part(self, frames: Array, codes_current: Array, filled: Outcome, part: slice) -> Any:
        outcome = filled._replace(
            counts=filled.counts[part],
            rates=filled.rates[part],
            spikes=filled.spikes[part],
            early=filled.early[part],
            peaks=filled.peaks[part],
        )
        narrow, wide = (np.empty(size, dtype) for dtype, size in self._buffers)
        return run_samples(self._tables, codes_current[part], frames[part], outcome, narrow, wide, STATE_LIMIT)

    def _by_population(self, filled: Outcome, record: Sequence[str]) -> BatchResult:
        """The same by population, in C order."""
        populations = [p.population for p in self._plan.populations]

        def of(numbers: Array, first: Array) -> dict[str, Array]:
            return {
                p.name: _in_c_order(numbers[..., at : at + p.size], p.shape)
                for p, at in zip(populations, first.tolist(), strict=True)
                if at >= 0
            }

        spikes = of(filled.spikes, filled.spike_column)
        returned = None
        if self._loop_delay is not None:
            factor = returned_share(self._plan.steps, self._loop_delay, self._plan.populations[-1].leak)
            returned = _in_c_order(filled.early * factor, populations[-1].shape)
        return BatchResult(
            of(filled.counts, self._tables.first_neuron[:-1]),
            of(filled.rates, filled.rate_column),
            {name: spikes[name].swapaxes(0, 1) for name in record},
            returned,
            dict(zip((p.name for p in populations), filled.peaks.max(axis=0).tolist(), strict=True))
            if self._plan.integer
            else {},
        )


def _channels_inner(numbers: Array, shape: tuple[int, ...]) -> Array:
    """(..., N), contiguous, with the channels innermost, of (..., *shape)."""
    moved = np.moveaxis(numbers, -3, -1) if len(shape) == 3 else numbers
    return np.ascontiguousarray(moved).reshape(*numbers.shape[: numbers.ndim - len(shape)], -1)


def _in_c_order(numbers: Array, shape: tuple[int, ...]) -> Array:
    """(..., *shape) view of (..., N), in which channels lie innermost."""
    if len(shape) != 3:
        return numbers.reshape(*numbers.shape[:-1], *shape)
    channels, height, width = shape
    return np.moveaxis(numbers.reshape(*numbers.shape[:-1], height, width, channels), -1, -3)


def _columns(sizes: Sequence[int]) -> tuple[int, Array]:
    """Number of columns in all, and the first of each population; -1 where it has none."""
    ends = list(accumulate(sizes))
    first = [end - size if size else -1 for end, size in zip(ends, sizes, strict=True)]
    return ends[-1], np.array(first, np.int64)


def _tables(plan: Plan) -> tuple[Tables, tuple[tuple[Any, int], tuple[Any, int]]]:
    """The plan as flat arrays, and (type, numbers) of the two buffers that its sums need."""
    kept = np.int8 if plan.integer else np.float64
    synapses = [(p, s) for p in plan.populations for s in p.synapses]
    maps = [scatter_map(s.map, dtype=kept) for _, s in synapses]
    wide = [plan.integer and sum_dtype(s.map) is not np.int16 for _, s in synapses]
    order = {INPUT: 0} | {p.population.name: i + 1 for i, p in enumerate(plan.populations)}
    rows = _rows(maps, [(order[s.source], s.delay, s.shift, int(w)) for (_, s), w in zip(synapses, wide, strict=True)])
    ints = np.int64
    tables = Tables(
        weights=np.concatenate([np.zeros(0, kept), *(m.weights for m in maps)]),
        segments=np.concatenate([np.zeros((0, 3), ints), *(m.segments for m in maps)]),
        starts=np.concatenate([np.zeros(0, ints), *(m.starts for m in maps)]),
        corners=np.concatenate([np.zeros(0, ints), *(m.corners for m in maps)]),
        classes=np.concatenate([np.zeros(0, ints), *(m.classes for m in maps)]),
        connections=rows,
        first_connection=np.cumsum([0, *(len(p.synapses) for p in plan.populations)], dtype=ints),
        first_neuron=np.cumsum([0, *(p.population.size for p in plan.populations)], dtype=ints),
        ring=_ring(plan),
        neurons=np.stack([p.neuron for p in plan.populations]).astype(
            np.int32 if plan.narrow else np.int64 if plan.integer else np.float64
        ),
        constant=np.concatenate([p.constant[flat_order(p.population.shape)] for p in plan.populations]).astype(
            np.int32 if plan.integer else np.float64
        ),
        graded=_graded(plan.populations),
        pulses=_pulses(plan.populations),
        pulse_currents=np.concatenate(
            [
                np.zeros(0, np.int32),
                *(q.current[flat_order(p.population.shape)] for p in plan.populations for q in p.pulses),
            ],
            dtype=np.int32 if plan.integer else np.float64,
            casting="unsafe",
        ),
    )
    return tables, _buffers(plan.integer, [m.size for m in maps], wide)


def _buffers(integer: bool, sizes: Sequence[int], wide: Sequence[bool]) -> tuple[tuple[Any, int], tuple[Any, int]]:
    """(type, numbers) of the narrow and of the wide buffer for the sums of connections."""
    needed = [
        max((s for s, w in zip(sizes, wide, strict=True) if bool(w) == this), default=0) for this in (False, True)
    ]
    types = (np.int16, np.int32) if integer else (np.float64, np.float64)
    return (types[0], needed[0]), (types[1], needed[1])


def _places(synapses: SpikeConnection) -> Array:
    """Where in the connection's weights each number of its `ScatterMap` comes from."""
    weight = synapses.map.weight
    numbered = synapses.map.with_weight(np.arange(weight.size).reshape(weight.shape))
    return scatter_map(numbered, dtype=np.int64).weights


def _rows(maps: Sequence[ScatterMap], facts: Sequence[tuple[int, int, int, int]]) -> Array:
    """A `Row` for each connection; `facts`: source, delay, shift, wide."""
    rows, at = [], np.zeros(4, np.int64)
    for m, fact in zip(maps, facts, strict=True):
        end = at + np.array([len(m.weights), len(m.segments), len(m.starts), len(m.corners)])
        places = np.stack([at, end], axis=1).ravel().tolist()
        rows.append(Row._make((*places, *fact, m.channels, m.row, m.rows, m.run, m.first, m.pitch, m.size)))
        at = end
    return np.array(rows, ROW)


def _ring(plan: Plan) -> Array:
    """For the input and each population: where its lists of spikes begin, the places of one, how many are held."""
    held = plan.held()
    sources = [(INPUT, plan.network.input.size)] + [(p.population.name, p.population.size) for p in plan.populations]
    lists = [(size + 1, held.get(name, 1)) for name, size in sources]
    begins = accumulate((places * steps for places, steps in lists), initial=0)
    return np.array([(begin, *two) for begin, two in zip(begins, lists, strict=False)], np.int64)


def _graded(populations: Sequence[PopulationPlan]) -> Array:
    """Target, delay and first column of each current that codes make."""
    targets = [(i, g.delay, p.population.size) for i, p in enumerate(populations) for g in p.graded]
    columns = accumulate((size for *_, size in targets), initial=0)
    rows = [(i, delay, column) for (i, delay, _), column in zip(targets, columns, strict=False)]
    return np.array(rows, np.int64).reshape(-1, 3)


def _pulses(populations: Sequence[PopulationPlan]) -> Array:
    """Target, period and first number of each current that arrives in one step of so many."""
    sent = [(i, q.connection.period, p.population.size) for i, p in enumerate(populations) for q in p.pulses]
    firsts = accumulate((size for *_, size in sent), initial=0)
    rows = [(i, period, first) for (i, period, _), first in zip(sent, firsts, strict=False)]
    return np.array(rows, np.int64).reshape(-1, 3)
