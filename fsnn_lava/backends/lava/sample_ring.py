"""The job of a worker, and the memory through which its samples stream: inputs go in and spikes come out meanwhile.

A ring of slots, one sample each, which whoever asked for the run shares with all processes on the host. Sample b uses
slot b modulo the number of slots. It may begin when ``ready`` is more than b, so a slot is not used again before it
was read, and memory does not grow with the batch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fsnn_lava.backends.lava.lava_format import from_lava, to_lava
from fsnn_lava.backends.lava.shared_arrays import Kind, SharedArrays, aligned_bytes
from fsnn_lava.hardware import Array, HardwareNetwork

Device = Literal["cpu", "loihi2"]
ReadoutPlace = Literal["host", "lava"]

RING_BYTES = 2**26
"""Memory for samples on their way in and out."""


@dataclass(frozen=True, eq=False)
class GraphJob:
    """What a worker is asked to run: networks side by side in one graph, each with its own samples. Plain data.

    Parameters
    ----------
    networks : of one arithmetic; they share nothing but the clock.
    samples : one batch size per network; a network with a smaller one idles at the end.
    device : where the graph runs.
    readout : ``lava``: the graph contains the readout's integrators.
    stock_models : whether Lava's own models run the stock processes, or faster ones of ours.
    ring_bytes : size of the memory through which samples stream, unless two samples are larger.
    """

    networks: tuple[HardwareNetwork, ...]
    samples: tuple[int, ...]
    device: Device = "cpu"
    readout: ReadoutPlace = "host"
    stock_models: bool = False
    ring_bytes: int = RING_BYTES

    @property
    def total(self) -> int:
        """The largest batch."""
        return max(self.samples)

    @property
    def sample_steps(self) -> int:
        """Steps that one sample takes: until the last window has closed, and its spikes have reached the readout."""
        last = max(p.start + n.time_steps for n in self.networks for p in n.populations)
        return max(last, *(self.read_step(n) + 1 for n in self.networks)) if self.readout == "lava" else last

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.total * self.sample_steps

    def read_step(self, network: HardwareNetwork) -> int:
        """Global step at which the integrators have received the last spike of their source's window."""
        return network.population(network.readout.source).start + network.time_steps


_Key = tuple[str, int, str]
"""What an array is, of which network, of which population."""


class SampleRing(SharedArrays[_Key]):
    """Arrays in shared memory, in Lava's order of neurons.

    Attributes
    ----------
    slots : samples that fit at a time.
    ready : (1,) samples that may begin: their inputs are there, and the slot is free.
    clocks : (recorders,) steps that each of them has finished.
    inputs : network's index -> (slots, T or 1, n) codes or events.
    spikes : (network's index, population) -> (slots, T, N) uint8, each in its own window.
    potentials : network's index -> (slots, integrators) int32; empty if the host reads out.
    """

    def __init__(self, job: GraphJob, descriptor: int | None = None) -> None:
        layout = _layout(job, 1)
        slot_bytes = sum(aligned_bytes(kind) for (what, _, _), kind in layout.items() if what != "control")
        self.slots = max(1, min(job.total, max(2, job.ring_bytes // slot_bytes)))
        super().__init__(_layout(job, self.slots), descriptor)
        control = self.arrays["control", 0, ""]
        self.ready, self.clocks = control[:1], control[1:]
        self.inputs = {index: array for (what, index, _), array in self.arrays.items() if what == "inputs"}
        self.spikes = {(index, name): array for (what, index, name), array in self.arrays.items() if what == "spikes"}
        self.potentials = {index: array for (what, index, _), array in self.arrays.items() if what == "potentials"}

    def write_input(self, index: int, network: HardwareNetwork, *, sample: int, inputs: Array) -> None:
        """Put a sample of the network's inputs into its slot; zeros if there are no more of them."""
        slot = self.inputs[index][sample % self.slots]
        if sample < network.input.samples(inputs):
            frames = network.input.take(inputs, slice(sample, sample + 1))
            slot[:] = to_lava(frames.reshape(-1, *network.input.shape), network.input.shape)
        else:
            slot[:] = 0

    def read_spikes(self, index: int, network: HardwareNetwork, *, sample: int) -> dict[str, Array]:
        """Population -> (T, *N), copied."""
        slot = sample % self.slots
        return {p.name: from_lava(self.spikes[index, p.name][slot].copy(), p.shape) for p in network.populations}

    def read_potentials(self, index: int, *, sample: int) -> Array | None:
        """(integrators,) int64, or None if there are none."""
        return self.potentials[index][sample % self.slots].astype(np.int64) if index in self.potentials else None


def _layout(job: GraphJob, slots: int) -> dict[_Key, Kind]:
    recorders = sum(len(n.populations) for n in job.networks)
    recorders += len(job.networks) if job.readout == "lava" else 0
    layout: dict[_Key, Kind] = {("control", 0, ""): ((1 + recorders,), np.dtype(np.int64))}
    for index, network in enumerate(job.networks):
        frames = network.time_steps if network.input.kind == "event" else 1
        codes = np.min_scalar_type(network.input.maximum)
        layout["inputs", index, ""] = (slots, frames, network.input.size), codes
        for p in network.populations:
            layout["spikes", index, p.name] = (slots, network.time_steps, p.size), np.dtype(np.uint8)
        integrators = network.readout.integrators
        if job.readout == "lava" and integrators is not None:
            layout["potentials", index, ""] = (slots, len(integrators.weight) * integrators.parts), np.dtype(np.int32)
    return layout
