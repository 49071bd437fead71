"""The processes on the host without threads: they do what their models in `host_processes` do."""

from __future__ import annotations

from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from fsnn_lava.backends.lava.models.fast_process import SingleThreadModel
from fsnn_lava.backends.lava.models.host_processes import HostInput, HostInputFixed, HostRecorder, HostRecorderFixed


@implements(proc=HostInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FastHostInput(SingleThreadModel, HostInputFixed):
    """Sends 32-bit integers."""


@implements(proc=HostRecorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FastHostRecorder(SingleThreadModel, HostRecorderFixed):
    """Receives 32-bit integers, or bytes."""
