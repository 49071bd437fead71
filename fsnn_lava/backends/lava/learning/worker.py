"""The program of the Python process in which Lava trains: ``python -m fsnn_lava.backends.lava.learning.worker FD``.

It receives a `TrainingJob` and the descriptor of its `TrainingMemory`; what it answers stands in `worker_protocol`.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import Any

from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

from fsnn_lava.backends.lava.learning.graph import TrainingGraph
from fsnn_lava.backends.lava.learning.job import TrainingJob
from fsnn_lava.backends.lava.learning.memory import TrainingMemory
from fsnn_lava.backends.lava.worker_protocol import answer, watch


def train(task: tuple[TrainingJob, int], connection: Connection[Any, Any]) -> None:
    """Show all samples; what is learnt is in the memory as it comes."""
    job, descriptor = task
    memory = TrainingMemory(job, descriptor)
    graph = TrainingGraph(job, memory)
    config = Loihi2SimCfg(select_tag="floating_pt", exception_proc_model_map=graph.models)
    graph.root.run(RunSteps(num_steps=job.steps, blocking=False), run_cfg=config)
    watch(graph.root, memory.clocks, connection, steps=job.steps)
    graph.root.wait()
    graph.root.stop()


if __name__ == "__main__":
    answer(int(sys.argv[1]), train)
