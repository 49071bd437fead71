"""The memory through which samples stream: their inputs go in and their spikes come out while the run goes on.

A ring of slots, one sample each, which whoever asked for the run shares with all processes on the host. Sample b uses
slot b modulo the number of slots. It may begin when ``ready`` is more than b, so a slot is not used again before it
was read, and memory does not grow with the batch.
"""

from __future__ import annotations

import mmap
import os
from math import prod

import numpy as np

from fsnn_lava.backends.lava.job import GraphJob
from fsnn_lava.backends.lava.neuron_order import from_lava, to_lava
from fsnn_lava.hardware import Array, HardwareNetwork

_ALIGNMENT = 64

_Plan = dict[tuple[str, int, str], tuple[tuple[int, ...], np.dtype[np.generic]]]


class SampleRing:
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
        """Map the memory behind a file descriptor, or make a new one."""
        plan = _plan(job, 1)
        slot_bytes = sum(_bytes(shape, dtype) for (kind, _, _), (shape, dtype) in plan.items() if kind != "control")
        self.slots = max(1, min(job.total, max(2, job.ring_bytes // slot_bytes)))
        plan = _plan(job, self.slots)
        size = sum(_bytes(shape, dtype) for shape, dtype in plan.values())
        if descriptor is None:
            descriptor = os.memfd_create("fsnn-lava-samples")
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        memory = mmap.mmap(descriptor, size)
        self.inputs: dict[int, Array] = {}
        self.spikes: dict[tuple[int, str], Array] = {}
        self.potentials: dict[int, Array] = {}
        offset = 0
        for (kind, index, name), (shape, dtype) in plan.items():
            array = np.frombuffer(memory, dtype, prod(shape), offset).reshape(shape)
            offset += _bytes(shape, dtype)
            if kind == "control":
                self.ready, self.clocks = array[:1], array[1:]
            elif kind == "spikes":
                self.spikes[index, name] = array
            else:
                (self.inputs if kind == "inputs" else self.potentials)[index] = array

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the arrays."""
        os.close(self.descriptor)

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


def _plan(job: GraphJob, slots: int) -> _Plan:
    """(kind, network's index, population) -> shape and type, in the order in which they lie in memory."""
    recorders = sum(len(n.populations) for n in job.networks)
    recorders += len(job.networks) if job.readout == "lava" else 0
    plan: _Plan = {("control", 0, ""): ((1 + recorders,), np.dtype(np.int64))}
    for index, network in enumerate(job.networks):
        frames = network.time_steps if network.input.kind == "event" else 1
        codes = np.min_scalar_type(network.input.maximum)
        plan["inputs", index, ""] = (slots, frames, network.input.size), codes
        for p in network.populations:
            plan["spikes", index, p.name] = (slots, network.time_steps, p.size), np.dtype(np.uint8)
        integrators = network.readout.integrators
        if job.readout == "lava" and integrators is not None:
            plan["potentials", index, ""] = (slots, len(integrators.weight) * integrators.parts), np.dtype(np.int32)
    return plan


def _bytes(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> int:
    return -(-prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
