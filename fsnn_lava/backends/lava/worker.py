"""The program of the Python process in which Lava runs: ``python -m fsnn_lava.backends.lava.worker FD``.

It receives a `GraphJob` to run or a `TrainingJob` to train, and the descriptor of the shared memory through which
inputs, spikes and what is learnt travel. What it answers stands in `worker_protocol`.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import Any

from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.utils import loihi

from fsnn_lava.backends.lava.build_graph import build_graph
from fsnn_lava.backends.lava.learning.graph import TrainingGraph
from fsnn_lava.backends.lava.learning.job import TrainingJob
from fsnn_lava.backends.lava.learning.memory import TrainingMemory
from fsnn_lava.backends.lava.sample_ring import GraphJob, SampleRing
from fsnn_lava.backends.lava.worker_protocol import answer, watch


def run_job(task: tuple[GraphJob | TrainingJob, int], connection: Connection[Any, Any]) -> None:
    """Run all steps; what comes of them is in the memory as it comes."""
    job, descriptor = task
    if isinstance(job, TrainingJob):
        memory = TrainingMemory(job, descriptor)
        training = TrainingGraph(job, memory)
        root, clocks = training.root, memory.clocks
        config = Loihi2SimCfg(select_tag="floating_pt", exception_proc_model_map=training.models)
    else:
        ring = SampleRing(job, descriptor)
        graph = build_graph(job, ring)
        root, clocks, config = graph.root, ring.clocks, graph.run_config(job)
        if job.device == "loihi2":
            loihi.use_slurm_host(loihi_gen=loihi.ChipGeneration.N3B3)
    root.run(RunSteps(num_steps=job.steps, blocking=False), run_cfg=config)
    watch(root, clocks, connection, steps=job.steps)
    root.wait()
    root.stop()


if __name__ == "__main__":
    answer(int(sys.argv[1]), run_job)
