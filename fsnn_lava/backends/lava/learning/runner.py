"""Training by SPIDE on Lava's CPU simulator: both phases, and the changes of the weights, are Lava processes.

Lava runs in a Python process of its own (`worker_process`), so this module imports nothing of it.
"""

import dataclasses
from typing import final

from fsnn_lava.backends.lava.learning.job import (
    FEEDBACK,
    READOUT,
    PlasticNetwork,
    Synapses,
    TrainingJob,
    TrainingOutcome,
    TrainingProgress,
)
from fsnn_lava.backends.lava.learning.memory import TrainingMemory
from fsnn_lava.backends.lava.runner import require_lava
from fsnn_lava.backends.lava.worker_process import WorkerRun
from fsnn_lava.errors import IncompleteRunError, counted


def train_on_lava(
    job: TrainingJob, *, progress: TrainingProgress | None = None, timeout_s: float = 120.0
) -> TrainingOutcome:
    """Train the network on all samples of a job, in one run of Lava.

    Parameters
    ----------
    progress : told how many samples are done.
    timeout_s : longest time in which Lava may finish no step, in seconds (starting up counts as well).

    Raises
    ------
    MissingDependencyError : if Lava is not installed.
    ConvergenceError : if a weight is no longer finite; its cause is an `IncompleteRunError` as below.
    IncompleteRunError : Lava failed, finished no step within the timeout, or was interrupted (its cause then is a
        `KeyboardInterrupt`); holds the `TrainingOutcome` of all whole updates, and how many samples they took.
    """
    require_lava()
    run = _TrainingRun(job, progress)
    run.run(timeout_s=timeout_s)
    return run.outcome()


@final
class _TrainingRun(WorkerRun):
    """The caller's end of a training."""

    def __init__(self, job: TrainingJob, progress: TrainingProgress | None) -> None:
        self._training, self._progress = job, progress
        self.memory = TrainingMemory(job)
        self._told = 0
        super().__init__(job, self.memory)

    def advance(self) -> None:
        """Tell how many samples are done."""
        done = self.steps // self._training.clock.sample_steps
        if self._progress is not None and done > self._told:
            self._progress(done, len(self._training.labels), float(self.memory.losses[:done].mean()))
        self._told = done

    def incomplete(self, reason: str) -> IncompleteRunError:
        """The error that says how far the run had come, with what was learnt in whole updates."""
        job, outcome = self._training, self.outcome()
        sample, step = divmod(self.steps, job.clock.sample_steps)
        message = (
            f"Training on {counted(len(job.labels), 'sample')} ended in sample {sample} at step {step}, after "
            f"{self.steps} of {job.steps} steps; {outcome.updates} of {len(job.batches)} updates are whole. Its "
            f"processes were ended. Reason: {reason}"
        )
        return IncompleteRunError(message, samples=len(outcome.losses), result=outcome)

    def outcome(self) -> TrainingOutcome:
        """Read the memory, as far as all connections have finished the same updates."""
        job, memory = self._training, self.memory
        updates = min(int(record.updates[0]) for record in memory.synapses.values())
        named = job.network.named()
        gradients = {}
        if updates:
            found = {name: memory.synapses[name].at(updates, before) for name, before in named.items()}
            named = {name: synapses for name, (synapses, _) in found.items()}
            gradients = {name: gradient for name, (_, gradient) in found.items()}
        samples = sum(job.batches[:updates])
        recorded = min(job.recorded, samples)
        return TrainingOutcome(
            network=_with_synapses(job.network, named),
            gradients=gradients,
            updates=updates,
            losses=memory.losses[:samples].copy(),
            predictions=memory.predictions[:samples].copy(),
            mean_spikes=memory.mean_spikes[:samples].copy(),
            mean_spikes_back=memory.mean_spikes_back[:samples].copy(),
            spikes=tuple(spikes[:, :recorded].copy() for spikes in memory.spikes),
            spikes_back=tuple(spikes[:, :recorded].copy() for spikes in memory.spikes_back),
        )


def _with_synapses(network: PlasticNetwork, named: dict[str, Synapses]) -> PlasticNetwork:
    """The network with other weights under the same names."""
    return dataclasses.replace(
        network,
        feedforward=tuple(named[f"feedforward.{index}"] for index in range(len(network.sizes))),
        feedback=named.get(FEEDBACK),
        readout=named[READOUT],
    )
