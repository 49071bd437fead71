"""A neuron with reset by subtraction as one process: the readable reference for the stock graph."""

from __future__ import annotations

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from fsnn_lava.errors import StateOverflowError
from fsnn_lava.hardware import STATE_LIMIT, Array, FloatNeuron, IntegerNeuron, Neuron


class SoftResetLIF(AbstractProcess):
    """Leaky integrate-and-fire neurons from whose potential a spike subtracts a fixed amount.

    v[t] = leak (v[t-1] - reset_amount s[t-1]) + I[t];  s[t] = 1 if v[t] >= v_threshold (IDE paper, Eq. 2 and 10).
    Integers: as in docs/network-format.md; bit by bit what a stock LIF with self-inhibition computes.

    Parameters
    ----------
    size : number of neurons.
    neuron : their parameters, floats or integers.
    sample_steps : the state returns to zero before every so many steps.
    """

    def __init__(self, *, size: int, neuron: Neuron, sample_steps: int) -> None:
        super().__init__(size=size, neuron=neuron, sample_steps=sample_steps)
        self.a_in = InPort(shape=(size,))
        self.s_out = OutPort(shape=(size,))
        self.v = Var(shape=(size,), init=0)
        self.s = Var(shape=(size,), init=0)


class _SoftResetModel(PyLoihiProcessModel):
    """Receives, integrates, fires."""

    a_in: PyInPort
    s_out: PyOutPort
    v: Array
    s: Array

    def run_spk(self) -> None:
        arriving = self.a_in.recv()
        if (self.time_step - 1) % self.proc_params["sample_steps"] == 0:
            self.v[:] = 0
            self.s[:] = 0
        self.integrate(arriving)
        self.s_out.send(self.s)

    def integrate(self, arriving: Array) -> None:
        """Advance ``v`` and ``s`` by one step."""
        raise NotImplementedError


@implements(proc=SoftResetLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class SoftResetFloat(_SoftResetModel):
    """The equations in float64."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    v: Array = LavaPyType(np.ndarray, float)
    s: Array = LavaPyType(np.ndarray, float)

    def integrate(self, arriving: Array) -> None:
        """Advance by one step."""
        neuron: FloatNeuron = self.proc_params["neuron"]
        self.v[:] = neuron.leak * (self.v - neuron.reset_amount * self.s) + arriving
        self.s[:] = self.v >= neuron.v_threshold


@implements(proc=SoftResetLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class SoftResetFixed(_SoftResetModel):
    """The same in units of state: what arrives is shifted left by 6, the leak rounds toward zero."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    v: Array = LavaPyType(np.ndarray, np.int64)
    s: Array = LavaPyType(np.ndarray, np.int32)

    def integrate(self, arriving: Array) -> None:
        """Advance by one step.

        Raises
        ------
        StateOverflowError : if a potential leaves 24 bits.
        """
        neuron: IntegerNeuron = self.proc_params["neuron"]
        reset = neuron.reset_state * self.s.astype(np.int64)
        self.v[:] = neuron.leaked(self.v) - reset + (arriving.astype(np.int64) << 6)
        largest = int(np.abs(self.v).max())
        if largest > STATE_LIMIT:
            where = f"neuron {int(np.abs(self.v).argmax())} of {self.v.size}, Lava step {self.time_step}"
            raise StateOverflowError(
                f"SoftResetLIF: potential {largest} units of state at {where}; 24 bits hold "
                f"{STATE_LIMIT}; quantize the network with a smaller scale"
            )
        self.s[:] = self.v > neuron.fires_above
