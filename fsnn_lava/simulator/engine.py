"""The time loop that both simulators share: batches of samples, steps, populations in order, delays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsnn_lava.errors import ConfigError, UnsupportedError
from fsnn_lava.inputs import check_inputs
from fsnn_lava.ir import INPUT, Arithmetic, Array, HardwareNetwork, Population
from fsnn_lava.result import RunResult, rate_weights, read_out

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in total)."""
DEFAULT_BATCH_SIZE = 512


@dataclass(frozen=True, eq=False)
class Synapses:
    """A connection that carries spikes; ``weight`` (N_target, N_source), ``delay`` local."""

    source: str
    delay: int
    weight: Array


@dataclass(frozen=True, eq=False)
class GradedInput:
    """A connection that carries codes: ``current(codes)``, (B, N_target), arrives in every step from ``delay`` on."""

    delay: int
    current: Callable[[Array], Array]


@dataclass(eq=False)
class State:
    """One population while one batch runs.

    Parameters
    ----------
    potential, drive : (B, N) membrane potential; current from always-on and graded sources.
    arriving : (B, N) current from spikes.
    ring : (depth, B, N) spikes of the last steps; step t is at t modulo depth.
    counts, rates : (B, N) spikes so far; their weighted mean so far, empty where the rate is counts / T.
    """

    potential: Array
    drive: Array
    arriving: Array
    ring: Array
    counts: Array
    rates: Array

    def spikes(self, step: int) -> Array:
        """(B, N) spikes of that step, 0 or 1."""
        return np.asarray(self.ring[step % len(self.ring)])


@dataclass(frozen=True, eq=False)
class PopulationPlan:
    """One population with all that reaches it, as the arrays that the loop works on.

    Parameters
    ----------
    leak : share of the potential kept per step; weighs the firing rate.
    constant : (N,) current from always-on sources, in the type of the potential.
    advance : one step of a batch's neurons: (state, step, share of the step in the rate, first sample of the batch).
        Raises if a potential leaves its range.
    """

    population: Population
    leak: float
    constant: Array
    graded: tuple[GradedInput, ...]
    synapses: tuple[Synapses, ...]
    advance: Callable[[State, int, float, int], None]


@dataclass(frozen=True, eq=False)
class Plan:
    """A network made ready to run; ``spike_dtype``: the float type in which spikes are kept and summed."""

    populations: tuple[PopulationPlan, ...]
    spike_dtype: type[np.floating[Any]]


def simulate(
    network: HardwareNetwork,
    inputs: Array,
    *,
    make_plan: Callable[[HardwareNetwork], Plan],
    backend: str,
    arithmetic: Arithmetic,
    batch_size: int,
    record: Sequence[str],
    progress: Progress | None,
) -> RunResult:
    """What the network does with all inputs, one batch of samples after the other.

    Raises
    ------
    InputError, UnsupportedError, ConfigError : for inputs, a network or a batch size that cannot be run.
    """
    total = _check_run(network, inputs, backend=backend, arithmetic=arithmetic, batch_size=batch_size, record=record)
    plan = make_plan(network)
    steps = network.time_steps
    flat = inputs.reshape(*inputs.shape[: inputs.ndim - len(network.input.shape)], network.input.size)
    counts = {p.population.name: np.zeros((total, p.population.size), np.int32) for p in plan.populations}
    rates = {p.population.name: np.zeros((_rate_rows(p, total), p.population.size)) for p in plan.populations}
    spikes = {name: np.zeros((steps, total, network.population(name).size), np.uint8) for name in record}
    for first in range(0, total, batch_size):
        batch = slice(first, min(first + batch_size, total))
        states = _fresh_states(plan, batch, steps=steps, counts=counts, rates=rates)
        codes = flat[:, batch] if network.input.kind == "event" else flat[batch]
        _run_batch(plan, states, codes=codes, steps=steps, first=first, record={n: spikes[n][:, batch] for n in record})
        if progress is not None:
            progress(batch.stop, total)
    for p in plan.populations:
        if p.leak == 1:
            rates[p.population.name] = counts[p.population.name] / steps
    shapes = {p.name: p.shape for p in network.populations}
    firing_rates = {name: rate.reshape(total, *shapes[name]) for name, rate in rates.items()}
    return RunResult(
        backend=backend,
        network=network.name,
        arithmetic=arithmetic,
        time_steps=steps,
        firing_rates=firing_rates,
        spike_counts={name: count.reshape(total, *shapes[name]) for name, count in counts.items()},
        logits=read_out(network.readout, firing_rates),
        spikes={name: s.reshape(steps, total, *shapes[name]) for name, s in spikes.items()},
    )


def _check_run(
    network: HardwareNetwork,
    inputs: Array,
    *,
    backend: str,
    arithmetic: Arithmetic,
    batch_size: int,
    record: Sequence[str],
) -> int:
    if network.arithmetic != arithmetic:
        raise UnsupportedError(
            f'backend "{backend}" runs {arithmetic} networks; network "{network.name}" holds {network.arithmetic} '
            f"values; {'quantize it first' if arithmetic == 'integer' else 'give it the float network'}"
        )
    if batch_size < 1:
        raise ConfigError(f'backend "{backend}": batch_size {batch_size}; expected at least 1')
    return check_inputs(network, inputs, record=record)


def _rate_rows(plan: PopulationPlan, total: int) -> int:
    return 0 if plan.leak == 1 else total


def _fresh_states(
    plan: Plan, batch: slice, *, steps: int, counts: Mapping[str, Array], rates: Mapping[str, Array]
) -> dict[str, State]:
    rows = batch.stop - batch.start
    longest: dict[str, int] = {}
    for synapses in (s for p in plan.populations for s in p.synapses if s.delay < steps):
        longest[synapses.source] = max(synapses.delay, longest.get(synapses.source, 0))
    states = {}
    for p in plan.populations:
        name, size = p.population.name, p.population.size
        states[name] = State(
            potential=np.zeros((rows, size), p.constant.dtype),
            drive=np.tile(p.constant, (rows, 1)),
            arriving=np.zeros((rows, size), plan.spike_dtype),
            ring=np.zeros((1 + longest.get(name, 0), rows, size), plan.spike_dtype),
            counts=counts[name][batch],
            rates=rates[name][batch],
        )
    return states


def _run_batch(
    plan: Plan,
    states: Mapping[str, State],
    *,
    codes: Array,
    steps: int,
    first: int,
    record: Mapping[str, Array],
) -> None:
    shares = {
        p.population.name: np.zeros(steps) if p.leak == 1 else rate_weights(steps, p.leak) for p in plan.populations
    }
    for step in range(steps):
        for p in plan.populations:
            name = p.population.name
            _collect(p, states, codes, step=step)
            p.advance(states[name], step, float(shares[name][step]), first)
            if name in record:
                record[name][step] = states[name].spikes(step)


def _collect(plan: PopulationPlan, states: Mapping[str, State], codes: Array, *, step: int) -> None:
    """Bring ``drive`` and ``arriving`` of one population up to date."""
    state = states[plan.population.name]
    for graded in plan.graded:
        if step == graded.delay:
            state.drive += graded.current(codes)
    first = True
    for synapses in plan.synapses:
        if step < synapses.delay:
            continue
        sent = step - synapses.delay
        dtype = state.arriving.dtype
        spikes = codes[sent].astype(dtype) if synapses.source == INPUT else states[synapses.source].spikes(sent)
        if first:
            np.matmul(spikes, synapses.weight.T, out=state.arriving)
            first = False
        else:
            state.arriving += spikes @ synapses.weight.T
