"""The base of all fast models: a Lava process of one thread, which waits for the message that it needs and no other.

The models of a process are chosen by the run configuration (`exception_proc_model_map`); Lava then runs the same
graph of the same processes. A step of a small network is spent on waking processes, so threads are what costs.
`runs` declares any model on the CPU, fast or not.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.magma.runtime.mgmt_token_enums import MGMT_COMMAND, MGMT_RESPONSE

from fsnn_lava.backends.lava.models.fast_ports import remove_thread
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import Arithmetic, Array

_Model = TypeVar("_Model", bound=type[PyLoihiProcessModel])


def runs(process: type[AbstractProcess], arithmetic: Arithmetic) -> Callable[[_Model], _Model]:
    """Declare that a class is the model of a process on the CPU, for networks of that arithmetic."""

    def declared(model: _Model) -> _Model:
        tagged = tag("fixed_pt" if arithmetic == "integer" else "floating_pt")(model)
        done: _Model = implements(proc=process, protocol=LoihiProtocol)(requires(CPU)(tagged))
        return done

    return declared


class SingleThreadModel(PyLoihiProcessModel):
    """A model without threads, and without references to its variables from other processes (Lava's RefPorts)."""

    def start(self) -> None:
        """Open the ports and obey Lava until it says stop.

        Raises
        ------
        UnsupportedError : if another process refers to a variable of this one.
        """
        if self.var_ports:
            raise UnsupportedError(
                f"{type(self).__name__}: another process refers to one of its variables, which this model does not "
                "serve; run the graph with Lava's own models (--stock-models)"
            )
        channels = [p for port in self.py_ports for p in port.csp_ports]
        for channel in (self.service_to_process, self.process_to_service, *channels):
            remove_thread(channel)
        super().start()

    def run(self) -> None:
        """Obey one command after the other; an error is told to Lava and raised."""
        command = None
        while command != MGMT_COMMAND.STOP[0]:
            command = self.service_to_process.recv()[0]
            try:
                self._cmd_handlers[command]()
            except Exception:
                self.process_to_service.send(MGMT_RESPONSE.ERROR)
                self.join()
                raise


def total_buffer(port: PyInPort) -> Array:
    """(N,) zeros in which `receive` adds up a port's messages: of the type of its only sender, else of 32 bits."""
    kinds = {channel.d_type for channel in port.csp_ports}
    single = len(port.csp_ports) == 1
    return np.zeros(int(np.prod(port._shape)), kinds.pop() if single else np.int32)


def receive(port: PyInPort, total: Array) -> None:
    """Write the sum of what arrives at a port into ``total`` (N,), as Lava's `recv` returns it in a new array."""
    if not port.csp_ports:
        total[:] = 0
    for index, channel in enumerate(port.csp_ports):
        message = port._transformer.transform(channel.look(), channel).reshape(-1)
        if index == 0:
            total[:] = message
        else:
            np.add(total, message, out=total)
        channel.drop()
