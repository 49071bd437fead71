"""The memory through which samples stream: their inputs go in and their spikes come out while the run goes on.

A ring of slots, one sample each, which whoever asked for the run shares with all processes on the host. Sample b uses
slot b modulo the number of slots. It may begin when ``ready`` is more than b, so a slot is not used again before it
was read, and memory does not grow with the batch.
"""

from __future__ import annotations

import numpy as np

from fsnn_lava.backends.lava.job import GraphJob
from fsnn_lava.backends.lava.lava_format import from_lava, to_lava
from fsnn_lava.backends.lava.shared_arrays import Kind, SharedArrays, aligned_bytes
from fsnn_lava.hardware import Array, HardwareNetwork

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
