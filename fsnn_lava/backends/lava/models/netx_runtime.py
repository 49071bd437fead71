"""Loads netx files with lava-dl, and gives its recurrent blocks the ProcessModel that lava-dl 0.6.0 lacks."""

from pathlib import Path

from lava.magma.core.decorator import implements
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


def netx_network(path: str | Path, *, input_message_bits: int = 0) -> tuple[AbstractProcess, Loihi2SimCfg]:
    """The file's process, with ports ``inp`` and ``out``, and a configuration in which it runs on bit-accurate models.

    Parameters
    ----------
    input_message_bits : 0 for events; the width of the codes for graded input.
    """
    # Imported here because lava-dl imports torch, which nothing else in this folder loads.
    from lava.lib.dl.netx.blocks.models import AbstractPyBlockModel
    from lava.lib.dl.netx.blocks.process import RecurrentDense
    from lava.lib.dl.netx.hdf5 import Network

    @implements(proc=RecurrentDense, protocol=LoihiProtocol)
    class PyRecurrentDenseModel(AbstractPyBlockModel):
        """What lava-dl's models of its other blocks are: the processes inside run as they are."""

    network = Network(net_config=str(path), input_message_bits=input_message_bits)
    models = {layer: PyRecurrentDenseModel for layer in network.layers if isinstance(layer, RecurrentDense)}
    return network, Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
