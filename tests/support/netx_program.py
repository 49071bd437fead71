"""The program of a Python process in which lava-dl loads a netx file and Lava runs it: ``python -m netx_program FD``.

It receives a list of (path, frames (steps, B, elements), message bits) and answers ("done", what each block sent:
(steps, B, neurons)), or ("failed", the traceback).
"""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source

from fsnn_lava.backends import netx_network


def run(path: str, frames: Any, bits: int) -> Any:
    """What one sample after the other makes the block send; each starts from zero, in a Lava run of its own."""
    sent = []
    for sample in range(frames.shape[1]):
        network, config = netx_network(path, input_message_bits=bits)
        source = Source(data=frames[:, sample].T)
        sink = Sink(shape=network.out.shape, buffer=len(frames))
        source.s_out.connect(network.inp)
        network.out.connect(sink.a_in)
        source.run(condition=RunSteps(num_steps=len(frames)), run_cfg=config)
        sent.append(sink.data.get().T.astype(np.uint8))
        source.stop()
    return np.stack(sent, axis=1)


if __name__ == "__main__":
    os.dup2(2, 1)  # Lava prints
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    try:
        connection.send(("done", [run(*job) for job in connection.recv()]))
    except Exception:
        connection.send(("failed", traceback.format_exc()))
    os._exit(0)  # after a failure, Lava's children would be waited for
