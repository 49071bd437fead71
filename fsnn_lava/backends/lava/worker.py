"""The program of the Python process in which Lava runs: ``python -m fsnn_lava.backends.lava.worker FD``.

It receives a `GraphJob` and the descriptor of its `SampleRing`; inputs and spikes travel through the ring. What it
answers stands in `worker_protocol`.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import Any

from lava.magma.core.run_conditions import RunSteps
from lava.utils import loihi

from fsnn_lava.backends.lava.build_graph import build_graph
from fsnn_lava.backends.lava.job import GraphJob
from fsnn_lava.backends.lava.sample_ring import SampleRing
from fsnn_lava.backends.lava.worker_protocol import answer, watch


def run_job(task: tuple[GraphJob, int], connection: Connection[Any, Any]) -> None:
    """Run all steps; their spikes are in the ring as they come."""
    job, descriptor = task
    ring = SampleRing(job, descriptor)
    graph = build_graph(job, ring)
    if job.device == "loihi2":
        loihi.use_slurm_host(loihi_gen=loihi.ChipGeneration.N3B3)
    graph.root.run(RunSteps(num_steps=job.steps, blocking=False), run_cfg=graph.run_config(job))
    watch(graph.root, ring.clocks, connection, steps=job.steps)
    graph.root.wait()
    graph.root.stop()


if __name__ == "__main__":
    answer(int(sys.argv[1]), run_job)
