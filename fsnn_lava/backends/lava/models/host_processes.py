"""Processes on the host: where inputs come from and where spikes go. All of them work on a `SampleRing`."""

import time

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort, RefPort
from lava.magma.core.process.process import AbstractProcess

from fsnn_lava.backends.lava.models.fast_process import runs
from fsnn_lava.hardware import Array

_WAIT_SECONDS = 0.0005


class HostInput(AbstractProcess):
    """Sends the inputs of one network, one frame per step.

    Parameters
    ----------
    frames : (slots, T, n) events, or (slots, 1, n) codes that are sent in every step.
    time_steps : T.
    start : global step of the first frame; a longer connection is a plain one whose source starts later.
    sample_steps : steps that a sample takes.
    """

    def __init__(self, *, frames: Array, time_steps: int, start: int, sample_steps: int) -> None:
        super().__init__(frames=frames, time_steps=time_steps, start=start, sample_steps=sample_steps)
        self.s_out = OutPort(shape=(frames.shape[2],))


class _HostInputModel(PyLoihiProcessModel):
    """Finds the sample and its global step from Lava's clock, which begins with 1; zeros outside the frames."""

    def run_spk(self) -> None:
        frames: Array = self.proc_params["frames"]
        sample, step = divmod(self.time_step - 1, self.proc_params["sample_steps"])
        t = step - self.proc_params["start"]
        out = np.zeros(frames.shape[2], dtype=np.int32)
        if 0 <= t < self.proc_params["time_steps"]:
            out[:] = frames[sample % len(frames), min(t, frames.shape[1] - 1)]
        self.s_out.send(out)


@runs(HostInput, "integer")
class HostInputFixed(_HostInputModel):
    """Sends 32-bit integers."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)


@runs(HostInput, "float")
class HostInputFloat(_HostInputModel):
    """Sends floats."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)


class HostRecorder(AbstractProcess):
    """Writes the spikes of a population and the number of finished steps into shared memory.

    It also holds the run up at the end of a sample until the next one may begin: every step of Lava waits for all
    processes. `joint_out` and `joint_in` join graphs that have nothing else in common, because Lava runs one graph.

    Parameters
    ----------
    spikes : (slots, T, N) uint8, of the window alone.
    start : first global step of the window.
    sample_steps, samples : steps that a sample takes; how many there are.
    clock : (1,) steps that are finished.
    ready : (1,) samples that may begin.
    """

    def __init__(
        self, *, spikes: Array, start: int, sample_steps: int, samples: int, clock: Array, ready: Array
    ) -> None:
        super().__init__(
            spikes=spikes, start=start, sample_steps=sample_steps, samples=samples, clock=clock, ready=ready
        )
        self.a_in = InPort(shape=(spikes.shape[2],))
        self.joint_in = InPort(shape=(1,))
        self.joint_out = OutPort(shape=(1,))


class _HostRecorderModel(PyLoihiProcessModel):
    """One row per step."""

    joint_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    joint_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        self.joint_out.send(np.zeros(1, dtype=np.int32))
        fired = self.a_in.recv()
        self.joint_in.recv()
        parameters = self.proc_params
        spikes: Array = parameters["spikes"]
        sample, step = divmod(self.time_step - 1, parameters["sample_steps"])
        t = step - parameters["start"]
        if 0 <= t < spikes.shape[1]:
            spikes[sample % len(spikes), t] = fired
        parameters["clock"][0] = self.time_step
        if step == parameters["sample_steps"] - 1 and sample + 1 < parameters["samples"]:
            while parameters["ready"][0] <= sample + 1:
                time.sleep(_WAIT_SECONDS)


@runs(HostRecorder, "integer")
class HostRecorderFixed(_HostRecorderModel):
    """Receives 32-bit integers."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)


@runs(HostRecorder, "float")
class HostRecorderFloat(_HostRecorderModel):
    """Receives floats."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)


class HostReader(AbstractProcess):
    """Reads the potentials of a neuron process once per sample, after all spikes of that step were integrated.

    Parameters
    ----------
    potentials : (slots, N) int32, in shared memory.
    step : global step at which they are read.
    sample_steps : steps that a sample takes.
    clock : (1,) steps that are finished.
    """

    def __init__(self, *, potentials: Array, step: int, sample_steps: int, clock: Array) -> None:
        super().__init__(potentials=potentials, step=step, sample_steps=sample_steps, clock=clock)
        self.u = RefPort(shape=(potentials.shape[1],))


@runs(HostReader, "integer")
class HostReaderFixed(PyLoihiProcessModel):
    """Asks for the management phase in the step of reading."""

    u: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def post_guard(self) -> bool:
        """Tell whether this is the step of reading; the clock waits for it."""
        reading = (self.time_step - 1) % self.proc_params["sample_steps"] == self.proc_params["step"]
        if not reading:
            self.proc_params["clock"][0] = self.time_step
        return bool(reading)

    def run_post_mgmt(self) -> None:
        """Read."""
        potentials: Array = self.proc_params["potentials"]
        sample = (self.time_step - 1) // self.proc_params["sample_steps"]
        potentials[sample % len(potentials)] = self.u.read()
        self.proc_params["clock"][0] = self.time_step
