"""One model of a Lava process in the test's own Python process, with real channels at its ports."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from lava.magma.compiler.builders.py_builder import PyProcessBuilder
from lava.magma.compiler.channels.pypychannel import PyPyChannel
from lava.magma.compiler.utils import PortInitializer, VarInitializer
from lava.magma.core.process.process import AbstractProcess

from fsnn_lava.backends.lava.models.fast_ports import remove_thread
from fsnn_lava.hardware.geometry import Array


def channel(shape: tuple[int, ...], kind: Any, *, size: int = 3, name: str = "port") -> PyPyChannel:
    """A channel in the memory of this process; its ports are not started."""
    memory = SimpleNamespace(create_shared_memory=lambda size: SimpleNamespace(buf=memoryview(bytearray(size))))
    return PyPyChannel(SimpleNamespace(smm=memory), name, name, shape, np.dtype(kind), size)


def threadless(shape: tuple[int, ...], kind: Any, *, name: str) -> PyPyChannel:
    """A channel whose ports are started, without threads."""
    made = channel(shape, kind, name=name)
    for port in (made.src_port, made.dst_port):
        remove_thread(port)
        port.start()
    return made


class Bench:
    """A model, built as Lava builds it from a process.

    Parameters
    ----------
    process : gives variables, shapes and parameters. It must not be connected.
    model : class of the model.
    senders : type of the messages of each sender to the input port.
    """

    def __init__(self, process: AbstractProcess, model: Any, senders: list[Any]) -> None:
        (into,), (out,) = list(process.in_ports), list(process.out_ports)
        builder = PyProcessBuilder(model, 0, process.proc_params)
        builder.set_variables([VarInitializer(v.name, v.shape, v.init, v.id) for v in process.vars])
        ports = [PortInitializer(p.name, p.shape, None, type(p).__name__, 3, {}) for p in (into, out)]
        builder.set_py_ports(ports)
        self.inputs = [threadless(into.shape, kind, name=into.name) for kind in senders]
        self.output = threadless(out.shape, getattr(model, out.name).d_type, name=out.name)
        builder.set_csp_ports([*(made.dst_port for made in self.inputs), self.output.src_port])
        self.model = builder.build()
        self.source, self.target = into.shape, out.shape

    def step(self, messages: list[Array]) -> Array:
        """What the model sends in the next step, in which it is sent these messages."""
        for made, message in zip(self.inputs, messages, strict=True):
            made.src_port.send(message.reshape(self.source))
        self.model.time_step += 1
        self.model.run_spk()
        sent: Array = self.output.dst_port.recv()
        return sent
