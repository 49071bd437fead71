"""The batched engine: one dense product per connection and step for all samples of a batch, zeros included."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from fsnn_lava.backends.finished_samples import count_dtype
from fsnn_lava.backends.simulator.plan import BatchResult, Plan, PopulationPlan, SpikeConnection, overflow
from fsnn_lava.hardware import INPUT, STATE_LIMIT, Array, Dense, rate_weights
from fsnn_lava.kernels.neuron_step import batch_step


@dataclass(eq=False)
class _State:
    """One population while one batch runs: (B, N) each."""

    potential: Array
    memory: Array  # synaptic current; empty where it has no memory
    drive: Array  # from always-on and graded sources
    arriving: Array  # from spikes
    ring: Array  # (depth, B, N) spikes of the last steps; step t is at t modulo depth
    counts: Array
    rates: Array  # weighted mean of the spikes so far; empty where the rate is counts / T
    peak: int = 0  # largest |potential| so far, or |current| where that has memory, of integers

    def spikes(self, step: int) -> Array:
        """(B, N) spikes of that step, 0 or 1."""
        return np.asarray(self.ring[step % len(self.ring)])


@final
class DenseEngine:
    """Runs a plan by dense products, whose sums are exact for integers."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._held = plan.held()
        self._synapses = {p.population.name: [self._scaled(s) for s in p.synapses] for p in plan.populations}

    def _scaled(self, synapses: SpikeConnection) -> SpikeConnection:
        """The same with weights in the unit of the current, or in a finer one, from which sums are rounded down."""
        kind, shift = self._plan.sum_dtype, synapses.shift
        weight = synapses.map.weight.astype(kind) * kind(1 << max(shift, 0))
        return dataclasses.replace(synapses, map=synapses.map.with_weight(weight), shift=min(shift, 0))

    def sample_bytes(self, record: Sequence[str]) -> int:
        """Memory that one sample of a batch takes: states, rings, three currents, and what is recorded."""
        width, steps = np.dtype(self._plan.sum_dtype).itemsize, self._plan.steps
        total = self._plan.network.input.size * (steps + width)
        for p in self._plan.populations:
            name, size = p.population.name, p.population.size
            total += size * (
                16
                + 8 * p.remembers
                + width * (3 + self._held.get(name, 1))
                + 8 * p.leaky
                + 4
                + steps * (name in record)
            )
        return total

    def run(self, inputs: Array, *, first: int, record: Sequence[str]) -> BatchResult:
        """Run the network on a batch.

        Raises
        ------
        StateOverflowError : if a potential leaves its range.
        """
        plan, network = self._plan, self._plan.network
        rows = network.input.samples(inputs)
        codes = inputs.reshape(*inputs.shape[: network.input.batch_axis + 1], network.input.size)
        states = {p.population.name: self._fresh_state(p, rows) for p in plan.populations}
        spikes = {n: np.zeros((plan.steps, rows, network.population(n).size), np.uint8) for n in record}
        shares = {p.population.name: rate_weights(plan.steps, p.leak) for p in plan.populations if p.leaky}
        for step in range(plan.steps):
            for p in plan.populations:
                name = p.population.name
                self._collect(p, states, codes, step)
                self._advance(p, states[name], step, float(shares[name][step]) if p.leaky else 0.0, first)
                if name in record:
                    spikes[name][step] = states[name].spikes(step)
        shapes = {p.population.name: p.population.shape for p in plan.populations}
        return BatchResult(
            {name: state.counts.reshape(rows, *shapes[name]) for name, state in states.items()},
            {name: states[name].rates.reshape(rows, *shapes[name]) for name in shares},
            {name: s.reshape(plan.steps, rows, *shapes[name]) for name, s in spikes.items()},
            peaks={name: state.peak for name, state in states.items()} if plan.integer else {},
        )

    def _fresh_state(self, plan: PopulationPlan, rows: int) -> _State:
        size = plan.population.size
        return _State(
            potential=np.zeros((rows, size), plan.constant.dtype),
            memory=np.zeros((rows if plan.remembers else 0, size), plan.constant.dtype),
            drive=np.tile(plan.constant, (rows, 1)),
            arriving=np.zeros((rows, size), self._plan.sum_dtype),
            ring=np.zeros((self._held.get(plan.population.name, 1), rows, size), self._plan.sum_dtype),
            counts=np.zeros((rows, size), count_dtype(self._plan.steps)),
            rates=np.zeros((rows if plan.leaky else 0, size)),
        )

    def _collect(self, plan: PopulationPlan, states: Mapping[str, _State], codes: Array, step: int) -> None:
        """Bring ``drive`` and ``arriving`` of one population up to date."""
        state = states[plan.population.name]
        for graded in plan.graded:
            if step == graded.delay:
                state.drive += graded.current(codes)
        first = True
        for product in self._synapses[plan.population.name]:
            sent = step - product.delay
            if sent < 0:
                continue
            dtype = state.arriving.dtype
            spikes = codes[sent].astype(dtype) if product.source == INPUT else states[product.source].spikes(sent)
            if first and isinstance(product.map.geometry, Dense) and not product.shift:
                np.matmul(spikes, product.map.weight.T, out=state.arriving)
            else:
                sums = product.map.product(spikes)
                if product.shift:  # exact until it is rounded: a whole number times a power of two
                    np.floor(sums * dtype.type(2.0**product.shift), out=sums)
                if first:
                    state.arriving[:] = sums
                else:
                    state.arriving += sums
            first = False

    def _advance(self, plan: PopulationPlan, state: _State, step: int, share: float, first: int) -> None:
        drive = state.drive
        for pulse in plan.pulses:
            if pulse.connection.sends_in(step):
                drive = drive + pulse.current
        peak = batch_step(
            state.potential,
            state.memory,
            drive,
            state.arriving,
            state.spikes(step),
            state.counts,
            state.rates,
            share,
            plan.neuron,
        )
        if self._plan.integer and peak > STATE_LIMIT:
            beyond = state.potential if np.abs(state.potential).max() > STATE_LIMIT else state.memory
            row, n = (int(place) for place in np.argwhere(np.abs(beyond) > STATE_LIMIT)[0])
            potential = int(beyond[row, n])
            raise overflow(self._plan, plan.population, sample=first + row, step=step, neuron=n, potential=potential)
        if self._plan.integer:
            state.peak = max(state.peak, int(peak))
