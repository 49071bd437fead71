"""Networks on Lava's CPU models and on Loihi 2.

Lava runs in a Python process of its own (`isolated`), so this module imports nothing of it.

Lava's fixed_pt potentials wrap silently at 24 bits, and nothing in a result can tell. A network is safe by the proof
that the quantizer attaches to it; the integer simulator and ``neuron="soft_reset"`` raise instead of wrapping.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from fsnn_lava.backends import Progress, require_arithmetic
from fsnn_lava.backends.hardware import require_hardware
from fsnn_lava.backends.isolated import SilenceError, run_isolated
from fsnn_lava.backends.lava_graph.job import Device, GraphJob, NeuronKind
from fsnn_lava.errors import BackendError, ConfigError, FsnnError, MissingDependencyError
from fsnn_lava.inputs import check_inputs
from fsnn_lava.ir import Arithmetic, Array, HardwareNetwork
from fsnn_lava.result import RunResult, rate_weights, read_out

_WORKER = "fsnn_lava.backends.lava_graph.worker"
_MEMORY_BYTES = 2**28
"""Largest recording of one Lava run; longer batches take several runs."""


class LavaRunner:
    """Runs networks on Lava.

    Parameters
    ----------
    arithmetic : ``integer``: fixed_pt models, bit by bit as on the chip; ``float``: floating_pt models.
    neuron : ``stock``: a graph of stock processes; ``soft_reset``: one process of ours per population.
    timeout_s : longest time in which Lava may finish no step, in seconds (starting up counts as well).

    Raises
    ------
    MissingDependencyError : if Lava is not installed.
    """

    def __init__(
        self,
        arithmetic: Arithmetic = "integer",
        *,
        neuron: NeuronKind = "stock",
        timeout_s: float = 120.0,
    ) -> None:
        if neuron not in ("stock", "soft_reset") or not timeout_s > 0:
            raise ConfigError(
                f'LavaRunner: neuron "{neuron}", timeout_s {timeout_s}; allowed: "stock", "soft_reset"; more than 0'
            )
        _require_lava()
        self.arithmetic: Final[Arithmetic] = arithmetic
        self.neuron: Final[NeuronKind] = neuron
        self.timeout_s: Final = timeout_s

    @property
    def name(self) -> str:
        """``lava-fixed`` or ``lava-float``, and the neuron if it is not the stock one."""
        suffix = "" if self.neuron == "stock" else "-soft-reset"
        return ("lava-fixed" if self.arithmetic == "integer" else "lava-float") + suffix

    @property
    def _device(self) -> Device:
        return "cpu"

    def run(
        self,
        network: HardwareNetwork,
        inputs: Array,
        *,
        record: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> RunResult:
        """What Lava did with a batch of inputs; see `fsnn_lava.backends.Runner.run`.

        Raises
        ------
        UnsupportedError : a network of the other arithmetic, or one that Lava cannot say.
        InputError : inputs that do not fit the network.
        BackendError : Lava failed, or finished no step within the timeout.
        """
        total = self._check(network, inputs, record)
        event = network.input.kind == "event"
        chunk = self._samples_per_run(network)
        parts: list[dict[str, Array]] = []
        for first in range(0, total, chunk):
            part = inputs[:, first : first + chunk] if event else inputs[first : first + chunk]
            report = _shifted(progress, first, total)
            parts.append(self._spikes((network,), (part,), progress=report)[0])
        spikes = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
        return _result(self.name, network, spikes, record)

    def run_side_by_side(self, networks: Sequence[HardwareNetwork], inputs: Sequence[Array]) -> list[RunResult]:
        """One result per network, all spikes recorded; all networks in one Lava run, which costs one start.

        Parameters
        ----------
        inputs : one array per network, as in `run`.

        Raises
        ------
        As `run`.
        """
        for network, codes in zip(networks, inputs, strict=True):
            self._check(network, codes, ())
        spikes = self._spikes(tuple(networks), tuple(inputs), progress=None)
        return [_result(self.name, n, s, tuple(s)) for n, s in zip(networks, spikes, strict=True)]

    def _check(self, network: HardwareNetwork, inputs: Array, record: Sequence[str]) -> int:
        require_arithmetic(self, network)
        require_hardware(network, backend=self.name)
        return check_inputs(network, inputs, record=record)

    def _samples_per_run(self, network: HardwareNetwork) -> int:
        steps = max(p.start for p in network.populations) + network.time_steps
        return max(1, _MEMORY_BYTES // (steps * sum(p.size for p in network.populations)))

    def _spikes(
        self, networks: tuple[HardwareNetwork, ...], inputs: tuple[Array, ...], *, progress: Progress | None
    ) -> list[dict[str, Array]]:
        """Per network: population -> (T, B, *N) uint8, cut to its window."""
        job = GraphJob(networks, inputs, self.neuron, self._device)
        memory = _run_worker(job, timeout_s=self.timeout_s, progress=progress)
        return [_windows(job, index, memory) for index in range(len(networks))]


class LavaFixedRunner(LavaRunner):
    """Integer networks on stock fixed_pt models: backend ``lava-fixed``."""

    def __init__(self) -> None:
        super().__init__("integer")


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

    def _samples_per_run(self, network: HardwareNetwork) -> int:
        return 1


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _require_lava() -> None:
    if not _installed("lava.magma"):
        raise MissingDependencyError(
            'Lava is not installed; it needs Python 3.10: pip install "fsnn-lava[lava]" in such an environment'
        )


def _run_worker(job: GraphJob, *, timeout_s: float, progress: Progress | None) -> dict[tuple[int, str], Array]:
    """What the recorders wrote: (network's index, population) -> (steps, N)."""
    steps = 0
    answer: Any = None

    def on_message(message: tuple[str, Any]) -> bool:
        nonlocal steps, answer
        kind, content = message
        if kind == "step":
            steps = content
            if progress is not None:
                progress(steps // job.sample_steps, job.samples)
            return False
        answer = content
        return True

    try:
        run_isolated(_WORKER, job, on_message=on_message, silence_s=timeout_s)
    except SilenceError as error:
        sample, step = divmod(steps, job.sample_steps)
        raise BackendError(
            f"Lava finished no step within {timeout_s:g} s; it had finished {steps} of {job.steps} (sample {sample}, "
            f"global step {step}). Its processes were ended. Larger networks may need a longer timeout_s"
        ) from error
    if isinstance(answer, FsnnError):
        raise answer
    if isinstance(answer, str):
        raise BackendError(f"Lava failed after {steps} of {job.steps} steps:\n{answer}")
    memory: dict[tuple[int, str], Array] = answer
    return memory


def _windows(job: GraphJob, index: int, memory: dict[tuple[int, str], Array]) -> dict[str, Array]:
    """Population -> (T, B, *N): from the clock of the graph to the windows of the populations."""
    network = job.networks[index]
    samples = job.inputs[index].shape[1 if network.input.kind == "event" else 0]
    spikes: dict[str, Array] = {}
    for population in network.populations:
        rows = memory[index, population.name].reshape(job.samples, job.sample_steps, *population.shape)
        window = rows[:samples, population.start : population.start + network.time_steps]
        spikes[population.name] = np.ascontiguousarray(window.swapaxes(0, 1))
    return spikes


def _result(name: str, network: HardwareNetwork, spikes: dict[str, Array], record: Sequence[str]) -> RunResult:
    rates = {
        p.name: np.tensordot(rate_weights(network.time_steps, p.neuron.leak), spikes[p.name], axes=1)
        for p in network.populations
    }
    return RunResult(
        backend=name,
        network=network.name,
        arithmetic=network.arithmetic,
        time_steps=network.time_steps,
        firing_rates=rates,
        spike_counts={name: s.sum(axis=0, dtype=np.int32) for name, s in spikes.items()},
        logits=read_out(network.readout, rates),
        spikes={name: spikes[name] for name in record},
    )


def _shifted(progress: Progress | None, first: int, total: int) -> Progress | None:
    """Progress within a part, told as progress in the whole."""
    if progress is None:
        return None
    tell = progress
    return lambda done, _: tell(first + done, total)
