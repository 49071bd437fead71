"""The run that both simulators share: batches within a memory budget, choice of the engine, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np

from fsnn_lava.backends.registry import Progress, Sink
from fsnn_lava.backends.simulator.dense_engine import DenseEngine
from fsnn_lava.backends.simulator.event_engine import EventEngine
from fsnn_lava.backends.simulator.plan import Engine, Outcome, Plan
from fsnn_lava.errors import ConfigError, IncompleteRunError, UnsupportedError
from fsnn_lava.hardware import (
    INPUT,
    Arithmetic,
    Array,
    HardwareNetwork,
    RatesOfCounts,
    RunResult,
    check_inputs,
    read_out,
)

EngineName = Literal["auto", "event", "dense"]
"""event: each spike adds its weights; dense: products with all weights; auto: the cheaper one by the firing rate."""

BATCH_BYTES = 2**28
"""Memory that the samples of one batch may take, unless its size is given."""
MOST_SAMPLES = 512
"""Samples of a batch above which dense products gain no more."""
PROBE_SAMPLES = 32
"""Samples that run event by event before `auto` decides."""
READOUT_SAMPLES = 256
"""Samples whose rates are read out together; always the same, so that batches leave the logits as they are."""
PRODUCT_NS, OPERATION_NS, CONNECTION_NS = 0.025, 0.05, 700.0
"""Nanoseconds: of one product in a dense product; event by event, of one synaptic operation and a connection's step.

Measured on one core with AVX-512. The first two leave dense connections from 400 neurons to 400 even where 0.4 of them
spike; convolutions stay faster event by event up to 0.8 and more.
"""


@dataclass(frozen=True)
class RunSettings:
    """How a simulator runs; its fields are those of `IntegerSimulator` and `FloatSimulator`."""

    batch_size: int | None
    engine: EngineName
    keep: tuple[str, ...] | None


def simulate(
    network: HardwareNetwork,
    inputs: Array,
    *,
    make_plan: Callable[[HardwareNetwork], Plan],
    backend: str,
    arithmetic: Arithmetic,
    settings: RunSettings,
    record: Sequence[str],
    sink: Sink | None,
    progress: Progress | None,
) -> RunResult:
    """What the network does with all inputs, one batch of samples after the other.

    Raises
    ------
    InputError, UnsupportedError, ConfigError : for inputs, a network or settings that cannot be run.
    IncompleteRunError : if it is interrupted from the keyboard; it holds the result of the batches that are finished.
    """
    total = _check_run(network, inputs, backend=backend, arithmetic=arithmetic, settings=settings, record=record)
    engines = _Engines(make_plan(network), settings, total=total)
    results = _Results(engines.plan, backend, total=total, keep=settings.keep, record=() if sink else record)
    size = 0
    try:
        while results.done < total:
            engine, size = engines.next_batch(results.done, record)
            batch = slice(results.done, min(results.done + size, total))
            part = network.input.take(inputs, batch)
            outcome = engine.run(part, first=batch.start, record=record)
            engines.learn(outcome, part)
            if sink is not None and record:
                sink(batch.start, outcome.spikes)
            results.add(outcome, batch)
            if progress is not None:
                progress(results.done, total)
    except KeyboardInterrupt as interrupt:
        raise IncompleteRunError(
            f'backend "{backend}", network "{network.name}": interrupted when {results.done} of {total} samples were '
            f"finished; their results are kept, and the next {size} were under way: run these and the rest again",
            samples=results.done,
            result=results.result() if results.done else None,
        ) from interrupt
    return results.result()


def _check_run(
    network: HardwareNetwork,
    inputs: Array,
    *,
    backend: str,
    arithmetic: Arithmetic,
    settings: RunSettings,
    record: Sequence[str],
) -> int:
    if network.arithmetic != arithmetic:
        raise UnsupportedError(
            f'backend "{backend}" runs {arithmetic} networks; network "{network.name}" holds {network.arithmetic} '
            f"values; {'quantize it first' if arithmetic == 'integer' else 'give it the float network'}"
        )
    if settings.batch_size is not None and settings.batch_size < 1:
        raise ConfigError(f'backend "{backend}": batch_size {settings.batch_size}; expected at least 1')
    if settings.engine not in get_args(EngineName):
        allowed = ", ".join(get_args(EngineName))
        raise ConfigError(f'backend "{backend}": engine "{settings.engine}"; expected one of {allowed}')
    known = [p.name for p in network.populations]
    unknown = [name for name in settings.keep or () if name not in known]
    if unknown:
        raise ConfigError(f'backend "{backend}": keep names {unknown}; the populations are {", ".join(known)}')
    return check_inputs(network, inputs, record=record)


@final
class _Engines:
    """The engine of each batch. `auto` runs a few samples event by event, counts their spikes, and then decides."""

    def __init__(self, plan: Plan, settings: RunSettings, *, total: int) -> None:
        self.plan = plan
        self._batch_size = settings.batch_size
        self._total = total
        self._chosen = settings.engine
        self._made: dict[str, Engine] = {}
        if self._chosen == "auto" and not any(p.synapses for p in plan.populations):
            self._chosen = "dense"

    def next_batch(self, done: int, record: Sequence[str]) -> tuple[Engine, int]:
        """The engine of the next batch, and how many samples that has."""
        name = "event" if self._chosen == "auto" else self._chosen
        if name not in self._made:
            self._made[name] = EventEngine(self.plan) if name == "event" else DenseEngine(self.plan)
        engine = self._made[name]
        size = self._batch_size or max(1, min(MOST_SAMPLES, BATCH_BYTES // engine.sample_bytes(record)))
        return engine, min(size, PROBE_SAMPLES if self._chosen == "auto" else size, self._total - done)

    def learn(self, outcome: Outcome, inputs: Array) -> None:
        """Decides by the first batch, if that is still open."""
        if self._chosen == "auto":
            self._chosen = cheaper_engine(self.plan, outcome, inputs)
            if self._chosen == "dense":
                self._made.clear()  # the event engine's weights are no longer needed


def cheaper_engine(plan: Plan, outcome: Outcome, inputs: Array) -> EngineName:
    """The engine that takes less time for one step of one sample at the firing rates of a batch."""
    firing = {name: float(counts.mean()) / plan.steps for name, counts in outcome.counts.items()}
    firing[INPUT] = float(inputs.mean())
    synapses = [s for p in plan.populations for s in p.synapses]
    dense = sum(PRODUCT_NS * s.products for s in synapses)
    event = sum(CONNECTION_NS + OPERATION_NS * s.products * firing[s.source] for s in synapses)
    return "event" if event < dense else "dense"


@final
class _Results:
    """The finished samples' results."""

    def __init__(
        self, plan: Plan, backend: str, *, total: int, keep: Sequence[str] | None, record: Sequence[str]
    ) -> None:
        self.done = 0
        self._network, self._backend = plan.network, backend
        names = [p.name for p in plan.network.populations]
        kept = [n for n in names if keep is None or n in keep or n == plan.network.readout.source]
        shapes = {p.name: p.shape for p in plan.network.populations}
        leaky = [p.population.name for p in plan.populations if p.leaky]
        self._counts = {n: np.zeros((total, *shapes[n]), plan.count_dtype) for n in kept}
        self._rates = {n: np.zeros((total, *shapes[n])) for n in kept if n in leaky}
        self._spikes = {n: np.zeros((plan.steps, total, *shapes[n]), np.uint8) for n in record}

    def add(self, outcome: Outcome, batch: slice) -> None:
        """Takes the next batch."""
        for into, numbers in ((self._counts, outcome.counts), (self._rates, outcome.rates)):
            for name in into:
                into[name][batch] = numbers[name]
        for name in self._spikes:
            self._spikes[name][:, batch] = outcome.spikes[name]
        self.done = batch.stop

    def result(self) -> RunResult:
        """Of the samples that are done."""
        network, done = self._network, slice(self.done)
        counts = {name: numbers[done] for name, numbers in self._counts.items()}
        weighted = {name: numbers[done] for name, numbers in self._rates.items()}
        parts = [slice(b, b + READOUT_SAMPLES) for b in range(0, self.done, READOUT_SAMPLES)]
        return RunResult(
            backend=self._backend,
            network=network.name,
            arithmetic=network.arithmetic,
            time_steps=network.time_steps,
            firing_rates=RatesOfCounts(counts, network.time_steps, weighted=weighted),
            spike_counts=counts,
            logits=np.concatenate([self._logits(part) for part in parts]),
            spikes={name: numbers[:, done] for name, numbers in self._spikes.items()},
        )

    def _logits(self, part: slice) -> Array:
        network = self._network
        counts, rates = (
            {name: numbers[part.start : min(part.stop, self.done)] for name, numbers in kept.items()}
            for kept in (self._counts, self._rates)
        )
        return read_out(network.readout, RatesOfCounts(counts, network.time_steps, weighted=rates))
