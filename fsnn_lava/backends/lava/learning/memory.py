"""The shared memory through which weights, recorded spikes and the clock leave Lava's processes.

Every process writes its own part, which whoever asked for the run maps as well. Weights are written after every
update, alternately into two slots: all connections update in the same step, so when the run is ended at any moment,
the last update that all of them have finished is whole in one of the slots.
"""

from dataclasses import dataclass

import numpy as np

from fsnn_lava.backends.lava.learning.job import Synapses, TrainingJob
from fsnn_lava.backends.lava.shared_arrays import Kind, SharedArrays
from fsnn_lava.hardware import Array

_SLOTS = 2


@dataclass(frozen=True, eq=False)
class SynapseRecord:
    """The memory into which one connection writes its weights.

    Parameters
    ----------
    updates : (1,) int64, how many it has finished.
    weight, weight_momentum, weight_gradient : (2, n_out, n_in), update u in slot u modulo 2.
    bias, bias_momentum, bias_gradient : (2, n_out); (2, 0) without a bias.
    """

    updates: Array
    weight: Array
    weight_momentum: Array
    weight_gradient: Array
    bias: Array
    bias_momentum: Array
    bias_gradient: Array

    def write(self, weight: tuple[Array, Array, Array], bias: tuple[Array, Array, Array] | None) -> None:
        """Keep values, momenta and gradients as those of the next update."""
        update = int(self.updates[0]) + 1
        slot = update % _SLOTS
        places = [self.weight, self.weight_momentum, self.weight_gradient]
        places += [] if bias is None else [self.bias, self.bias_momentum, self.bias_gradient]
        for place, values in zip(places, (*weight, *(bias or ())), strict=True):
            place[slot] = values
        self.updates[0] = update

    def at(self, update: int, before: Synapses) -> tuple[Synapses, tuple[Array, Array | None]]:
        """Copies of the weights after an update (from 1), and the gradient of its batch."""
        slot = update % _SLOTS
        has_bias = before.bias is not None
        synapses = Synapses(
            self.weight[slot].copy(),
            self.bias[slot].copy() if has_bias else None,
            self.weight_momentum[slot].copy(),
            self.bias_momentum[slot].copy() if has_bias else None,
        )
        return synapses, (self.weight_gradient[slot].copy(), self.bias_gradient[slot].copy() if has_bias else None)


class TrainingMemory(SharedArrays[tuple[str, str]]):
    """Arrays in shared memory.

    Attributes
    ----------
    clocks : (processes,) int64 steps that each process has finished.
    synapses : name of each connection -> where it writes its weights.
    losses, predictions : (S,) float64, int64, written by the readout.
    mean_spikes, mean_spikes_back : (S, N) float64, written by the populations.
    spikes, spikes_back : for each population (T, R, n) uint8 and (K, R, n) int8.
    """

    def __init__(self, job: TrainingJob, descriptor: int | None = None) -> None:
        super().__init__(_layout(job), descriptor)
        arrays = self.arrays
        self.clocks = arrays["", "clocks"]
        self.losses, self.predictions = arrays["", "losses"], arrays["", "predictions"]
        self.mean_spikes, self.mean_spikes_back = arrays["", "mean_spikes"], arrays["", "mean_spikes_back"]
        populations = range(len(job.network.sizes))
        self.spikes = tuple(arrays[f"{p}", "spikes"] for p in populations)
        self.spikes_back = tuple(arrays[f"{p}", "spikes_back"] for p in populations)
        fields = SynapseRecord.__dataclass_fields__
        self.synapses = {
            name: SynapseRecord(**{field: arrays[name, field] for field in fields}) for name in job.network.named()
        }


def processes_of(job: TrainingJob) -> int:
    """Count the graph's processes that keep a clock: the source, populations and connections."""
    return 1 + len(job.network.sizes) + len(job.network.named())


def _layout(job: TrainingJob) -> dict[tuple[str, str], Kind]:
    """(owner, what) -> shape and type."""
    real, whole = np.dtype(np.float64), np.dtype(np.int64)
    samples, populations = len(job.labels), len(job.network.sizes)
    layout: dict[tuple[str, str], Kind] = {
        ("", "clocks"): ((processes_of(job),), whole),
        ("", "losses"): ((samples,), real),
        ("", "predictions"): ((samples,), whole),
        ("", "mean_spikes"): ((samples, populations), real),
        ("", "mean_spikes_back"): ((samples, populations), real),
    }
    for index, size in enumerate(job.network.sizes):
        steps, back = job.learning.time_steps, job.learning.time_steps_back
        layout[f"{index}", "spikes"] = (steps, job.recorded, size), np.dtype(np.uint8)
        layout[f"{index}", "spikes_back"] = (back, job.recorded, size), np.dtype(np.int8)
    for name, synapses in job.network.named().items():
        layout[name, "updates"] = (1,), whole
        bias_shape = (0,) if synapses.bias is None else synapses.bias.shape
        for what in ("", "_momentum", "_gradient"):
            layout[name, f"weight{what}"] = (_SLOTS, *synapses.weight.shape), real
            layout[name, f"bias{what}"] = (_SLOTS, *bias_shape), real
    return layout
