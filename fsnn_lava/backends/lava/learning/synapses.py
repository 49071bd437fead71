"""Connections that learn: between populations, and to the readout, which also turns a label into an error.

A connection takes one step in each direction. It holds its weights once: spikes go forward along them, couples' spikes
back against them. It learns in Lava's learning phase, after the last step of each sample.
"""

import numpy as np
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from fsnn_lava.backends.lava.learning.clock import Clock
from fsnn_lava.backends.lava.learning.job import FEEDBACK, READOUT, Synapses, TrainingJob
from fsnn_lava.backends.lava.learning.memory import SynapseRecord
from fsnn_lava.backends.lava.learning.plasticity import LocalSGD, Trace, restriction
from fsnn_lava.backends.lava.models.fast_process import SingleThreadModel, runs
from fsnn_lava.hardware import Array


class PlasticConnection(AbstractProcess):
    """All pairs of neurons of a source and a target population, forwards and backwards.

    Parameters
    ----------
    name : of its weights in the job's network; `FEEDBACK` acts with its weights times min(1, c / ||w||_F).
    source, target : populations from 1; source 0 is the input, which nothing goes back to (``q_out`` is not connected).
    record, ticks : its own weights after each update, and (1,) steps that are finished, written.
    """

    def __init__(
        self, *, name: str, source: int, target: int, job: TrainingJob, record: SynapseRecord, ticks: Array
    ) -> None:
        super().__init__(name=name, source=source, target=target, job=job, record=record, ticks=ticks)
        synapses = job.network.named()[name]
        targets, sources = synapses.weight.shape
        self.s_in = InPort(shape=(sources,))
        self.a_out = OutPort(shape=(targets,))
        self.p_in = InPort(shape=(targets,))
        self.q_out = OutPort(shape=(sources,))
        _add_variables(self, synapses)


class LearningReadout(AbstractProcess):
    """Not a spiking population: logits of the last one's rates, and at the turn the error's current back into it.

    logits = W a + b;  in every step of the backward phase it sends loss_scale * W^T (softmax(logits) - one hot) / B,
    B being the samples of the batch, so that the batch's mean cross-entropy is what is learnt.

    Parameters
    ----------
    losses, predictions : (S,) of each sample, written.
    record, ticks : as of `PlasticConnection`.
    """

    def __init__(
        self, *, job: TrainingJob, record: SynapseRecord, losses: Array, predictions: Array, ticks: Array
    ) -> None:
        outcome = {"record": record, "losses": losses, "predictions": predictions, "ticks": ticks}
        super().__init__(name=READOUT, source=len(job.network.sizes), job=job, **outcome)
        synapses = job.network.readout
        self.s_in = InPort(shape=synapses.weight.shape[1:])
        self.label_in = InPort(shape=(1,))
        self.e_out = OutPort(shape=synapses.weight.shape[1:])
        _add_variables(self, synapses)


def _add_variables(process: AbstractProcess, synapses: Synapses) -> None:
    """Weights and momenta, which are what a chip would have to hold; zeros stand for a bias that does not exist."""
    zeros = np.zeros(len(synapses.weight))
    momentum, bias_momentum = synapses.weight_momentum, synapses.bias_momentum
    arrays = {
        "weight": synapses.weight,
        "weight_momentum": np.zeros_like(synapses.weight) if momentum is None else momentum,
        "bias": zeros if synapses.bias is None else synapses.bias,
        "bias_momentum": zeros if bias_momentum is None else bias_momentum,
    }
    for name, array in arrays.items():
        setattr(process, name, Var(shape=array.shape, init=array))


class _PlasticModel(SingleThreadModel):
    """Learning, which connections and readout have in common."""

    weight: Array = LavaPyType(np.ndarray, float)
    weight_momentum: Array = LavaPyType(np.ndarray, float)
    bias: Array = LavaPyType(np.ndarray, float)
    bias_momentum: Array = LavaPyType(np.ndarray, float)
    _trace: Trace

    def __init__(self, proc_params: object) -> None:
        super().__init__(proc_params)
        self._job: TrainingJob = self.proc_params["job"]
        self._clock: Clock = self._job.clock
        self._ready = False

    def run_spk(self) -> None:
        """One step of the phase that it is in."""
        if not self._ready:
            self._ready = True
            self._prepare()
        sample, step = self._clock.at(self.time_step)
        if step < self._clock.turn:
            self.forward(sample, step)
        else:
            self.backward(sample, step)
        if not self.lrn_guard():
            self.proc_params["ticks"][0] = self.time_step

    def lrn_guard(self) -> bool:
        """Tell whether to learn now: after the last step of each sample."""
        return self._clock.is_last(self.time_step)

    def run_lrn(self) -> None:
        """Learn from the sample."""
        if self._sgd.learn(self.error(), self._trace.mean()):
            self.load()
        self.proc_params["ticks"][0] = self.time_step

    def _prepare(self) -> None:
        name, job = self.proc_params["name"], self._job
        has_bias = job.network.named()[name].bias is not None
        self._trace = Trace(self.weight.shape[1], steps=job.learning.time_steps, leak=job.network.neuron.leak)
        weight, bias = (self.weight, self.weight_momentum), (self.bias, self.bias_momentum)
        self._sgd = LocalSGD(name, weight, bias if has_bias else None, job=job, record=self.proc_params["record"])
        self.load()

    def listen(self, step: int) -> Array:
        """Receive what the source sends; within its window it enters the trace."""
        if step == 0:
            self._trace.clear()
        message: Array = self.s_in.recv()
        if self._clock.in_forward_window(self.proc_params["source"], step):
            self._trace.add(message)
        return message

    def load(self) -> None:
        """Prepare what depends on the weights, which are new."""

    def forward(self, sample: int, step: int) -> None:
        """A step of the forward phase."""
        raise NotImplementedError

    def backward(self, sample: int, step: int) -> None:
        """A step of the backward phase."""
        raise NotImplementedError

    def error(self) -> Array:
        """(n_out,) derivative of the batch's mean loss with respect to each target's current."""
        raise NotImplementedError


@runs(PlasticConnection, "float")
class PlasticConnectionModel(_PlasticModel):
    """Float64. It computes nothing while the same message arrives as in the step before, as a constant input does."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    p_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int8)
    q_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)

    def load(self) -> None:
        """Restrict the norm, once for all steps until the next update."""
        network, learning = self._job.network, self._job.learning
        restricted = self.proc_params["name"] == FEEDBACK
        factor = restriction(self.weight, network.feedback_norm_bound) if restricted else 1.0
        self._acting = factor * self.weight
        self._backwards = np.ascontiguousarray(self._acting.T) / network.neuron.reset_amount
        self._error_trace = Trace(len(self.weight), steps=learning.time_steps_back, leak=network.neuron.leak)
        self._error_factor = factor / (network.neuron.reset_amount * learning.loss_scale)

    def forward(self, sample: int, step: int) -> None:
        """Send the current that the last step's message makes, and take the next one."""
        if step == 0:
            self._error_trace.clear()
            self._current = self.bias
            self._message: Array = np.zeros(self.weight.shape[1])
        self.a_out.send(self._current)
        message = self.listen(step)
        if not np.array_equal(message, self._message):
            self._message = message
            self._current = self._acting @ message + self.bias

    def backward(self, sample: int, step: int) -> None:
        """The same against the weights."""
        if step == self._clock.turn:
            self._returning = np.zeros(self.weight.shape[1])
        if self.proc_params["source"] > 0:
            self.q_out.send(self._returning)
        p = self.p_in.recv()
        if self._clock.in_backward_window(self.proc_params["target"], step):
            self._error_trace.add(p)
        if self.proc_params["source"] > 0:
            self._returning = self._backwards @ p if p.any() else np.zeros(self.weight.shape[1])

    def error(self) -> Array:
        """Masked rate of the target's couples, without the scale of the loss."""
        error: Array = self._error_factor * self._error_trace.mean()
        return error


@runs(LearningReadout, "float")
class LearningReadoutModel(_PlasticModel):
    """Float64. On hardware this is the host or an embedded processor."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.uint8)
    label_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    e_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)

    def forward(self, sample: int, step: int) -> None:
        """Integrate the last population's spikes."""
        if step == 0:
            self._label = int(self.label_in.recv()[0])
        self.listen(step)

    def backward(self, sample: int, step: int) -> None:
        """Inject the error."""
        if step == self._clock.turn:
            self._classify(sample)
        self.e_out.send(self._injected)

    def _classify(self, sample: int) -> None:
        logits = self.weight @ self._trace.mean() + self.bias
        above = logits - logits.max()
        log_shares = above - np.log(np.exp(above).sum())
        self.proc_params["losses"][sample] = -log_shares[self._label]
        self.proc_params["predictions"][sample] = int(logits.argmax())
        self._error: Array = np.exp(log_shares)
        self._error[self._label] -= 1
        self._error /= self._sgd.batch_size
        self._injected = self._job.learning.loss_scale * (self._error @ self.weight)

    def error(self) -> Array:
        """Derivative with respect to the logits."""
        return self._error
