"""The caller's end of a Lava run: inputs go into the ring as slots become free, finished samples come out of it."""

from __future__ import annotations

from typing import Any

from fsnn_lava.backends.finished_samples import FinishedSamples
from fsnn_lava.backends.lava.job import GraphJob
from fsnn_lava.backends.lava.sample_ring import SampleRing
from fsnn_lava.backends.registry import Progress
from fsnn_lava.errors import BackendError, FsnnError, IncompleteRunError
from fsnn_lava.hardware import Array


class Stream:
    """One run, from its first inputs to its last spikes.

    Parameters
    ----------
    inputs, finished : one per network of the job; what is finished is added, to earlier runs if there were any.
    progress : told how many samples are finished.
    """

    def __init__(
        self,
        job: GraphJob,
        inputs: tuple[Array, ...],
        finished: tuple[FinishedSamples, ...],
        *,
        progress: Progress | None,
    ) -> None:
        self.job = job
        self.ring = SampleRing(job)
        self.steps = 0
        self._inputs = inputs
        self._finished = finished
        self._progress = progress
        self._taken = 0
        self._before = max(f.finished for f in finished)
        self._failure: FsnnError | str | None = None
        for sample in range(self.ring.slots):
            self._send(sample)

    def on_message(self, message: tuple[str, Any]) -> bool:
        """Take what is finished; True with the last message of the worker."""
        kind, content = message
        if kind == "step":
            self.steps = content
            while self._taken < self.steps // self.job.sample_steps:
                self._take()
            return False
        self._failure = content
        return True

    def require_success(self) -> None:
        """Nothing, if the worker said that all is done.

        Raises
        ------
        StateOverflowError : from a process of ours; it names the neuron and the step, and its cause is an
            `IncompleteRunError` with what was finished.
        IncompleteRunError : if Lava failed.
        """
        if isinstance(self._failure, BackendError | str):
            raise self.incomplete(str(self._failure))
        if self._failure is not None:
            raise self._failure from self.incomplete(str(self._failure))

    def incomplete(self, reason: str) -> IncompleteRunError:
        """The error that says how far the run had come, with the results of the finished samples."""
        sample, step = divmod(self.steps, self.job.sample_steps)
        samples = max(f.finished for f in self._finished)
        results = [f.result() for f in self._finished] if samples else [None]
        message = (
            f"Lava's run of {self._total} samples ended in sample {self._before + sample} at global step {step}, after "
            f"{self.steps} of {self.job.steps} steps; {samples} samples are finished. Its processes were ended. "
            f"Reason: {reason}"
        )
        return IncompleteRunError(message, samples=samples, result=results[0] if len(results) == 1 else results)

    @property
    def _total(self) -> int:
        return max(f.samples for f in self._finished)

    def _take(self) -> None:
        """Add up the next finished sample, and give its slot to a new one."""
        sample = self._taken
        for index, finished in enumerate(self._finished):
            if sample < self.job.samples[index]:
                spikes = self.ring.read_spikes(index, finished.network, sample=sample)
                finished.add(spikes, self.ring.read_potentials(index, sample=sample))
        self._taken = sample + 1
        self._send(sample + self.ring.slots)
        if self._progress is not None:
            self._progress(self._before + self._taken, self._total)

    def _send(self, sample: int) -> None:
        """Put the inputs of a sample into its slot, and let it begin."""
        if sample < self.job.total:
            for index, (network, inputs) in enumerate(zip(self.job.networks, self._inputs, strict=True)):
                self.ring.write_input(index, network, sample=sample, inputs=inputs)
            self.ring.ready[0] = sample + 1
