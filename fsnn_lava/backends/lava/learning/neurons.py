"""The source of samples, and populations: spiking neurons, behind each of them a ternary couple."""

import numpy as np
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from fsnn_lava.backends.lava.learning.clock import Clock
from fsnn_lava.backends.lava.learning.job import TrainingJob
from fsnn_lava.backends.lava.models.fast_process import SingleThreadModel, receive, runs
from fsnn_lava.hardware import Array, FloatNeuron

V_BACK = 0.5
"""Threshold of a couple: it fires +1 at q >= V_BACK, -1 at q <= -V_BACK; a spike takes 2 V_BACK off |q|."""


class SampleSource(AbstractProcess):
    """Sends each sample's values in every step of the forward phase, and its label at its first step.

    Parameters
    ----------
    ticks : (1,) steps that are finished, written.
    """

    def __init__(self, *, job: TrainingJob, ticks: Array) -> None:
        super().__init__(inputs=job.inputs, labels=job.labels, clock=job.clock, ticks=ticks)
        self.x_out = OutPort(shape=(job.inputs.shape[1],))
        self.label_out = OutPort(shape=(1,))


@runs(SampleSource, "float")
class SampleSourceModel(SingleThreadModel):
    """Stands for the host, or for a sensor."""

    x_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    label_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def run_spk(self) -> None:
        """Send what this step of the sample needs."""
        clock: Clock = self.proc_params["clock"]
        sample, step = clock.at(self.time_step)
        if step == 0:
            self.label_out.send(self.proc_params["labels"][sample : sample + 1])
        if step < clock.turn:
            x: Array = self.proc_params["inputs"][sample]
            self.x_out.send(x if clock.in_forward_window(0, step) else np.zeros_like(x))
        self.proc_params["ticks"][0] = self.time_step


class CouplePopulation(AbstractProcess):
    """Neurons with reset by subtraction; in the backward phase each one's couple, which sends -1, 0 or 1.

    v[t] = leak (v[t-1] - reset_amount s[t-1]) + I[t];  s[t] = 1 if v[t] >= v_threshold.
    mask = 1 where a neuron fired in some steps of its window but not in all, that is 0 < a < 1.
    q <- q + what arrives, the errors' part divided by reset_amount;  p = sign(q) if |q| >= 1/2;  q <- leak (q - p).
    What leaves is p where the mask is 1, and nothing elsewhere (SPIDE paper; time as in `clock`).

    Parameters
    ----------
    index : of the population, from 1.
    activity, activity_back : (S,) spikes per neuron and step of each sample, written.
    spikes, spikes_back : (T, R, size) and (K, R, size), written for the first R samples.
    ticks : (1,) steps that are finished, written.
    """

    def __init__(
        self, *, index: int, job: TrainingJob, activity: tuple[Array, Array], spikes: tuple[Array, Array], ticks: Array
    ) -> None:
        told = {"index": index, "neuron": job.network.neuron, "clock": job.clock}
        super().__init__(**told, activity=activity, spikes=spikes, ticks=ticks)
        shape = (job.network.sizes[index - 1],)
        self.a_in, self.s_out = InPort(shape=shape), OutPort(shape=shape)
        self.q_in, self.p_out = InPort(shape=shape), OutPort(shape=shape)
        for state in ("v", "s", "count", "mask", "q"):
            setattr(self, state, Var(shape=shape, init=0))


@runs(CouplePopulation, "float")
class CouplePopulationModel(SingleThreadModel):
    """Float64; spikes travel as single bytes."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)
    q_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    p_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int8)
    v: Array = LavaPyType(np.ndarray, float)
    s: Array = LavaPyType(np.ndarray, np.uint8)
    count: Array = LavaPyType(np.ndarray, np.int64)
    mask: Array = LavaPyType(np.ndarray, np.int8)
    q: Array = LavaPyType(np.ndarray, float)

    def run_spk(self) -> None:
        """One step of the phase that it is in."""
        clock: Clock = self.proc_params["clock"]
        sample, step = clock.at(self.time_step)
        if step == 0:
            self._begin()
        if step < clock.turn:
            self._forward(clock, sample, step)
        else:
            self._backward(clock, sample, step)
        self.proc_params["ticks"][0] = self.time_step

    def _begin(self) -> None:
        """A new sample: no potential and no count is left of the one before."""
        self._current = np.zeros(self.v.shape)
        self._fired_back = 0
        for state in (self.v, self.s, self.count, self.q):
            state[:] = 0

    def _forward(self, clock: Clock, sample: int, step: int) -> None:
        neuron: FloatNeuron = self.proc_params["neuron"]
        index: int = self.proc_params["index"]
        receive(self.a_in, self._current)
        if clock.in_forward_window(index, step):
            self.v -= neuron.reset_amount * self.s
            self.v *= neuron.leak
            self.v += self._current
            self.s[:] = self.v >= neuron.v_threshold
            self.count += self.s
            recorded: Array = self.proc_params["spikes"][0]
            if sample < recorded.shape[1]:
                recorded[step - index, sample] = self.s
        else:
            self.s[:] = 0
        self.s_out.send(self.s)
        if step == clock.turn - 1:
            self.mask[:] = (self.count > 0) & (self.count < clock.time_steps)
            self.proc_params["activity"][0][sample] = self.count.mean() / clock.time_steps

    def _backward(self, clock: Clock, sample: int, step: int) -> None:
        receive(self.q_in, self._current)
        p = np.zeros(self.q.shape, np.int8)
        index: int = self.proc_params["index"]
        if clock.in_backward_window(index, step):
            self.q += self._current
            p[self.q >= V_BACK] = 1
            p[self.q <= -V_BACK] = -1
            fired = int(np.count_nonzero(p))
            if fired:
                self.q -= p
                self._fired_back += fired
                recorded: Array = self.proc_params["spikes"][1]
                if sample < recorded.shape[1]:
                    recorded[step - clock.backward_start(index), sample] = p
                p *= self.mask
            self.q *= self.proc_params["neuron"].leak
        self.p_out.send(p)
        if clock.is_last(self.time_step):
            couples = self.q.size * clock.time_steps_back
            self.proc_params["activity"][1][sample] = self._fired_back / couples
