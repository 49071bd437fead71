"""Processes on the host: where inputs come from and where spikes go. Both work on memory shared with the worker.

Lava moves the contents of a `Var` one element per message; a batch of recorded spikes would take minutes.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from fsnn_lava.ir import Array


def shared_zeros(shape: tuple[int, ...], dtype: type) -> Array:
    """An array in anonymous memory that forked processes share; it vanishes with them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), dtype=dtype, count=int(np.prod(shape))).reshape(shape)


@dataclass(frozen=True, eq=False)
class InputBlock:
    """The inputs of one network over its connections of one delay.

    Parameters
    ----------
    first : index of the block's first element in what the source sends.
    frames : (T, B, n) events, or (1, B, n) codes that are sent in every step.
    time_steps : T.
    shift : global step of the first frame; a longer connection is a plain one whose source starts later.
    """

    first: int
    frames: Array
    time_steps: int
    shift: int

    def write(self, out: Array, *, sample: int, step: int) -> None:
        """Put what is sent at that global step of that sample into its place; zeros outside the frames."""
        size = self.frames.shape[2]
        t = step - self.shift
        inside = 0 <= t < self.time_steps and sample < self.frames.shape[1]
        frame = self.frames[min(t, len(self.frames) - 1), sample] if inside else 0
        out[self.first : self.first + size] = frame


class HostInput(AbstractProcess):
    """Sends the inputs of all samples, one frame per step."""

    def __init__(self, *, blocks: tuple[InputBlock, ...], sample_steps: int) -> None:
        size = sum(block.frames.shape[2] for block in blocks)
        super().__init__(blocks=blocks, sample_steps=sample_steps, size=size)
        self.s_out = OutPort(shape=(size,))


class _HostInputModel(PyLoihiProcessModel):
    """Finds the sample and its global step from Lava's clock, which begins with 1."""

    def run_spk(self) -> None:
        sample, step = divmod(self.time_step - 1, self.proc_params["sample_steps"])
        out = np.zeros(self.proc_params["size"], dtype=np.int32)
        for block in self.proc_params["blocks"]:
            block.write(out, sample=sample, step=step)
        self.s_out.send(out)


@implements(proc=HostInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class HostInputFixed(_HostInputModel):
    """Sends 32-bit integers."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)


@implements(proc=HostInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class HostInputFloat(_HostInputModel):
    """Sends floats."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)


class HostRecorder(AbstractProcess):
    """Writes the spikes of a population into ``memory`` (steps, N) and the number of finished steps into ``clock``."""

    def __init__(self, *, memory: Array, clock: Array) -> None:
        super().__init__(memory=memory, clock=clock)
        self.a_in = InPort(shape=(memory.shape[1],))


class _HostRecorderModel(PyLoihiProcessModel):
    """One row per step."""

    def run_spk(self) -> None:
        self.proc_params["memory"][self.time_step - 1] = self.a_in.recv()
        self.proc_params["clock"][0] = self.time_step


@implements(proc=HostRecorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class HostRecorderFixed(_HostRecorderModel):
    """Receives 32-bit integers."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)


@implements(proc=HostRecorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class HostRecorderFloat(_HostRecorderModel):
    """Receives floats."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
