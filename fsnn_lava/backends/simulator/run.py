"""The simulators: batches within a memory budget, the choice of the engine, results as they come."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

from fsnn_lava.backends.finished_samples import FinishedSamples
from fsnn_lava.backends.registry import Progress, Sink
from fsnn_lava.backends.simulator.dense_engine import DenseEngine
from fsnn_lava.backends.simulator.event_engine import EventEngine
from fsnn_lava.backends.simulator.plan import BatchResult, BatchWeights, Engine, Plan, make_plan
from fsnn_lava.errors import ConfigError, IncompleteRunError, UnsupportedError
from fsnn_lava.hardware import INPUT, Arithmetic, Array, HardwareNetwork, RunResult, check_inputs

EngineName = Literal["auto", "event", "dense"]
"""event: each spike adds its weights; dense: products with all weights; auto: the cheaper one by the firing rate."""

BATCH_BYTES = 2**28
"""Memory that the samples of one batch may take, unless its size is given."""
MOST_SAMPLES = 512
"""Samples of a batch above which dense products gain no more."""
PROBE_SAMPLES = 32
"""Samples that run event by event before `auto` decides."""
PRODUCT_NS, OPERATION_NS, CONNECTION_NS = 0.025, 0.05, 700.0
"""Nanoseconds: of one product in a dense product; event by event, of one synaptic operation and a connection's step.

Measured on one core with AVX-512. The first two leave dense connections from 400 neurons to 400 even where 0.4 of them
spike; convolutions stay faster event by event up to 0.8 and more.
"""


@dataclass(frozen=True)
class _Simulator:
    """A run of either arithmetic; what a subclass adds is which."""

    batch_size: int | None = None
    engine: EngineName = "auto"
    keep: tuple[str, ...] | None = None
    name: ClassVar[str]
    arithmetic: ClassVar[Arithmetic]

    def run(
        self,
        network: HardwareNetwork,
        inputs: Array,
        *,
        record: Sequence[str] = (),
        sink: Sink | None = None,
        progress: Progress | None = None,
    ) -> RunResult:
        """Run inputs batch by batch; see `fsnn_lava.backends.Runner.run`.

        Raises
        ------
        UnsupportedError : also for an integer network whose sums could exceed the 32 bits that Lava adds them in.
        ConfigError : for settings that mean nothing.
        StateOverflowError : naming population, sample, step and neuron, if an integer potential leaves 24 bits.
        """
        total = self._check(network, inputs, record)
        plan = make_plan(network)
        engines = _Engines(plan, self.engine, self.batch_size, total=total)
        done = FinishedSamples(self.name, network, samples=total, record=record, sink=sink, keep=self.keep)
        size = 0
        try:
            while done.finished < total:
                engine, size = engines.next_batch(done.finished, record)
                part = network.input.take(inputs, slice(done.finished, done.finished + size))
                outcome = engine.run(part, first=done.finished, record=record)
                engines.learn(outcome, part)
                done.add_batch(outcome.counts, outcome.rates, outcome.spikes, peaks=outcome.peaks)
                if progress is not None:
                    progress(done.finished, total)
        except KeyboardInterrupt as interrupt:
            raise IncompleteRunError(
                f'backend "{self.name}", network "{network.name}": interrupted when {done.finished} of {total} samples '
                f"were finished; their results are kept, and the next {size} were under way: run these and the rest "
                "again",
                samples=done.finished,
                result=done.result() if done.finished else None,
            ) from interrupt
        return done.result()

    def _check(self, network: HardwareNetwork, inputs: Array, record: Sequence[str]) -> int:
        """Count the samples; raise if network, inputs or settings cannot be run."""
        if network.arithmetic != self.arithmetic:
            raise UnsupportedError(
                f'backend "{self.name}" runs {self.arithmetic} networks; network "{network.name}" holds '
                f"{network.arithmetic} values; "
                f"{'quantize it first' if self.arithmetic == 'integer' else 'give it the float network'}"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f'backend "{self.name}": batch_size {self.batch_size}; expected at least 1')
        if self.engine not in get_args(EngineName):
            allowed = ", ".join(get_args(EngineName))
            raise ConfigError(f'backend "{self.name}": engine "{self.engine}"; expected one of {allowed}')
        known = [p.name for p in network.populations]
        unknown = [name for name in self.keep or () if name not in known]
        if unknown:
            raise ConfigError(f'backend "{self.name}": keep names {unknown}; the populations are {", ".join(known)}')
        return check_inputs(network, inputs, record=record)


class BatchRunner:
    """Runs batches of an integer network whose weights change from batch to batch, for a training, event by event.

    Nothing but weights and constant currents is made anew for a batch; no state is kept.

    Parameters
    ----------
    network : its state is proven, with all weights that it is given.
    loop_delay : steps after which the last population's spikes come back.
    """

    def __init__(self, network: HardwareNetwork, *, loop_delay: int) -> None:
        self._network, self._loop_delay = network, loop_delay
        self._engines: dict[tuple[int, int], EventEngine] = {}

    def run(
        self, inputs: Array, weights: BatchWeights, *, time_steps: int, threads: int, record: Sequence[str] = ()
    ) -> BatchResult:
        """Run a batch of inputs that fit the network.

        Parameters
        ----------
        threads : at most so many.

        Raises
        ------
        StateOverflowError : if a potential leaves 24 bits; then the proof was wrong.
        """
        key = time_steps, threads
        if key not in self._engines:
            network = dataclasses.replace(self._network, time_steps=time_steps)
            plan = make_plan(network, proven=True)
            self._engines[key] = EventEngine(plan, threads=threads, loop_delay=self._loop_delay)
        engine = self._engines[key].with_weights(weights)
        return engine.run(inputs, first=0, record=record)


@final
class IntegerSimulator(_Simulator):
    """Runs integer networks by the integer law of ``docs/network-format.md``: spike for spike as Lava's fixed point.

    Parameters
    ----------
    batch_size : samples that are run together; None: as many as fit `BATCH_BYTES`.
    engine : ``event``: each spike adds its weights, in integers. ``dense``: products with all weights, in a float
        type wide enough that every partial sum is an integer that it holds exactly. ``auto``: the first samples run
        event by event, and their firing rates decide (`cheaper_engine`). All give the same spikes.
    keep : names of the populations whose rates and counts are in the result, beside the readout's source; None: all.
        Per sample and neuron they take 2 bytes, and 8 more of LIF neurons.
    """

    name: ClassVar[str] = "simulator"
    arithmetic: ClassVar[Arithmetic] = "integer"


@final
class FloatSimulator(_Simulator):
    """Runs float networks by the float law of ``docs/network-format.md``, in float64.

    The engines add in different orders, so that potentials may differ in their last digits, and spikes where a
    potential comes that close to the threshold.

    Parameters
    ----------
    batch_size, engine, keep : as in `IntegerSimulator`.
    """

    name: ClassVar[str] = "simulator-float"
    arithmetic: ClassVar[Arithmetic] = "float"


@final
class _Engines:
    """The engine of each batch. `auto` runs a few samples event by event, counts their spikes, and then decides."""

    def __init__(self, plan: Plan, engine: EngineName, batch_size: int | None, *, total: int) -> None:
        self.plan = plan
        self._batch_size = batch_size
        self._total = total
        self._chosen = engine
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

    def learn(self, outcome: BatchResult, inputs: Array) -> None:
        """Decide by the first batch, if that is still open."""
        if self._chosen == "auto":
            self._chosen = cheaper_engine(self.plan, outcome, inputs)
            if self._chosen == "dense":
                self._made.clear()  # the event engine's weights are no longer needed


def cheaper_engine(plan: Plan, outcome: BatchResult, inputs: Array) -> EngineName:
    """The engine that takes less time for one step of one sample at the firing rates of a batch."""
    firing = {name: float(counts.mean()) / plan.steps for name, counts in outcome.counts.items()}
    firing[INPUT] = float(inputs.mean())
    synapses = [s for p in plan.populations for s in p.synapses]
    dense = sum(PRODUCT_NS * s.products for s in synapses)
    event = sum(CONNECTION_NS + OPERATION_NS * s.products * firing[s.source] for s in synapses)
    return "event" if event < dense else "dense"
