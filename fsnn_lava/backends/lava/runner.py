"""Networks on Lava's CPU models and on Loihi 2.

Lava runs in a Python process of its own (`worker_process`), so this module imports nothing of it.

Lava's fixed_pt potentials wrap silently at 24 bits, and nothing in a result can tell. A network is safe by the proof
that the quantizer attaches to it; the integer simulator raises instead of wrapping.
"""

import importlib.util
from collections.abc import Sequence
from typing import Final, final

from fsnn_lava.backends.finished_samples import FinishedSamples
from fsnn_lava.backends.lava.chip_limits import require_hardware, require_stock_models
from fsnn_lava.backends.lava.sample_ring import RING_BYTES, Device, GraphJob, ReadoutPlace, SampleRing
from fsnn_lava.backends.lava.worker_process import WorkerRun
from fsnn_lava.backends.registry import Progress, Sink, require_arithmetic
from fsnn_lava.errors import ConfigError, IncompleteRunError, MissingDependencyError, UnsupportedError, counted
from fsnn_lava.hardware import Arithmetic, Array, HardwareNetwork, RunResult, check_inputs


class LavaRunner:
    """Runs networks on Lava.

    Parameters
    ----------
    arithmetic : ``integer``: fixed_pt models, bit by bit as on the chip; ``float``: floating_pt models.
    stock_models : whether Lava's own models run the stock processes; else, where there are any, faster ones of ours.
    readout : ``lava``: the logits come from integrators in the graph; ``host``: from the firing rates.
    timeout_s : longest time in which Lava may finish no step, in seconds (starting up counts as well).

    Raises
    ------
    ConfigError : settings that are not among these.
    MissingDependencyError : if Lava is not installed.
    """

    def __init__(
        self,
        arithmetic: Arithmetic = "integer",
        *,
        stock_models: bool = False,
        readout: ReadoutPlace = "host",
        timeout_s: float = 120.0,
    ) -> None:
        if readout not in ("host", "lava") or not timeout_s > 0:
            raise ConfigError(
                f'LavaRunner: readout "{readout}", timeout_s {timeout_s}; allowed: "host", "lava"; more than 0'
            )
        require_lava()
        self.arithmetic: Final[Arithmetic] = arithmetic
        self.stock_models: Final = stock_models
        self.readout: Final[ReadoutPlace] = readout
        self.timeout_s: Final = timeout_s

    @property
    def name(self) -> str:
        """``lava-fixed`` or ``lava-float``; then ``-stock`` with Lava's own models."""
        name = "lava-fixed" if self.arithmetic == "integer" else "lava-float"
        return name + ("-stock" if self.stock_models else "")

    @property
    def _device(self) -> Device:
        return "cpu"

    def run(
        self,
        network: HardwareNetwork,
        inputs: Array,
        *,
        record: Sequence[str] = (),
        sink: Sink | None = None,
        progress: Progress | None = None,
    ) -> RunResult:
        """Run a batch of inputs in one run of Lava, however long; see `fsnn_lava.backends.Runner.run`.

        Raises
        ------
        IncompleteRunError : also if Lava finished no step within the timeout.
        """
        total = self._check(network, inputs, record)
        finished = FinishedSamples(self.name, network, samples=total, record=record, sink=sink)
        at_a_time = total if self._device == "cpu" else 1
        for first in range(0, total, at_a_time):
            some = slice(first, first + at_a_time)
            part = network.input.take(inputs, some)
            self._stream((part,), (finished,), progress=progress)
        return finished.result()

    def _check(self, network: HardwareNetwork, inputs: Array, record: Sequence[str]) -> int:
        require_arithmetic(self, network)
        require_hardware(network, backend=self.name)
        if self.stock_models:
            require_stock_models(network, backend=self.name)
        if self.readout == "lava" and network.readout.integrators is None:
            raise UnsupportedError(
                f'backend "{self.name}" cannot read out network "{network.name}" on Lava: it has no integrators; '
                'quantize it again, or use readout="host"'
            )
        return check_inputs(network, inputs, record=record)

    def _stream(
        self, inputs: tuple[Array, ...], finished: tuple[FinishedSamples, ...], *, progress: Progress | None
    ) -> None:
        """Run the networks on their inputs, and add their samples up as they are finished."""
        job = GraphJob(
            tuple(f.network for f in finished),
            tuple(f.network.input.samples(x) for f, x in zip(finished, inputs, strict=True)),
            device=self._device,
            readout=self.readout,
            stock_models=self.stock_models,
            ring_bytes=RING_BYTES,
        )
        Stream(job, inputs, finished, progress=progress).run(timeout_s=self.timeout_s)


@final
class Stream(WorkerRun):
    """One run: inputs go into the ring as slots become free, finished samples come out of it.

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
        super().__init__(job, self.ring)
        self._inputs = inputs
        self._finished = finished
        self._progress = progress
        self._taken = 0
        self._before = max(f.finished for f in finished)
        for sample in range(self.ring.slots):
            self._send(sample)

    def advance(self) -> None:
        """Take the samples that are finished."""
        while self._taken < self.steps // self.job.sample_steps:
            self._take()

    def incomplete(self, reason: str) -> IncompleteRunError:
        """The error that says how far the run had come, with the results of the finished samples."""
        sample, step = divmod(self.steps, self.job.sample_steps)
        samples = max(f.finished for f in self._finished)
        results = [f.result() for f in self._finished] if samples else [None]
        message = (
            f"Lava's run of {counted(self._total, 'sample')} ended in sample {self._before + sample} at global "
            f"step {step}, after {self.steps} of {self.job.steps} steps; {counted(samples, 'finished sample')}. Its "
            f"processes were ended. Reason: {reason}"
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


class LavaFixedRunner(LavaRunner):
    """Integer networks on fixed_pt models: backend ``lava-fixed``; parameters as `LavaRunner`'s."""

    def __init__(self, *, stock_models: bool = False, readout: ReadoutPlace = "host") -> None:
        super().__init__("integer", stock_models=stock_models, readout=readout)


class LavaFloatRunner(LavaRunner):
    """Float networks on stock floating_pt models: backend ``lava-float``."""

    def __init__(self) -> None:
        super().__init__("float")


class Loihi2Runner(LavaRunner):
    """Integer networks on Loihi 2: the same graph, one sample per Lava run (every run starts from zero).

    Raises
    ------
    MissingDependencyError : if Intel's extension of Lava for the chip is not installed.
    """

    def __init__(self) -> None:
        super().__init__("integer")
        if not _installed("lava.utils.loihi2_profiler"):
            raise MissingDependencyError(
                'backend "loihi2": the package lava-loihi is not installed. It is not public: members of the Intel '
                "Neuromorphic Research Community (INRC) get it from Intel together with access to the chips; install "
                'it beside fsnn-lava[lava]. Without it, backend "lava-fixed" runs the same graph bit-accurately.'
            )

    @property
    def name(self) -> str:
        """``loihi2``."""
        return "loihi2"

    @property
    def _device(self) -> Device:
        return "loihi2"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def require_lava() -> None:
    """Raise if Lava is not installed.

    Raises
    ------
    MissingDependencyError : if it is not.
    """
    if not _installed("lava.magma"):
        raise MissingDependencyError(
            'Lava is not installed; it needs Python 3.10: pip install "fsnn-lava[lava]" in such an environment'
        )
