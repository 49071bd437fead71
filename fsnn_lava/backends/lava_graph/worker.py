"""The program of the Python process in which Lava runs: ``python -m fsnn_lava.backends.lava_graph.worker FD``.

It receives a `GraphJob` over the connection with that file descriptor and answers with messages

    ("step", finished steps)      while it runs
    ("done", spikes)              (network's index, population) -> (steps, N) uint8
    ("failed", error or text)     an error of this package, or the traceback of any other

Lava's processes are children of this one. Whoever started it ends the whole process group, whatever happened.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from lava.magma.core.run_conditions import RunSteps

from fsnn_lava.backends.lava_graph.build import Graph, build_graph
from fsnn_lava.backends.lava_graph.job import GraphJob
from fsnn_lava.errors import BackendError, FsnnError

_POLL_SECONDS = 0.02


def main(descriptor: int) -> None:
    """Run one job, report, and leave without waiting for anybody."""
    os.dup2(2, 1)  # Lava prints; nothing of it may reach the user's output
    logging.disable(logging.CRITICAL)
    connection: Connection[Any, Any] = Connection(descriptor)
    status = 0
    try:
        connection.send(("done", run_job(connection.recv(), connection)))
    except FsnnError as error:
        connection.send(("failed", error))
        status = 1
    except Exception:
        connection.send(("failed", traceback.format_exc()))
        status = 1
    finally:
        sys.stderr.flush()
        os._exit(status)  # after a failure, Lava's children would be waited for


def run_job(job: GraphJob, connection: Connection[Any, Any]) -> dict[tuple[int, str], Any]:
    """The spikes of all populations, row by row as the steps went."""
    graph = build_graph(job)
    if job.device == "loihi2":
        from lava.utils import loihi  # only here: it looks for the hardware

        loihi.use_slurm_host(loihi_gen=loihi.ChipGeneration.N3B3)
    graph.root.run(RunSteps(num_steps=job.steps, blocking=False), run_cfg=graph.run_config(job))
    _watch(graph, job, connection)
    graph.root.wait()
    graph.root.stop()
    return graph.memory


def _watch(graph: Graph, job: GraphJob, connection: Connection[Any, Any]) -> None:
    """Report the clock until the last step; raise when one of Lava's processes has died."""
    reported = 0
    while reported < job.steps:
        if connection.poll(_POLL_SECONDS):
            connection.recv()  # nobody sends: this is the end of whoever waits for the result
        finished = int(graph.clock[0])
        if finished > reported:
            connection.send(("step", finished))
            reported = finished
        if finished < job.steps:
            _raise_if_dead(graph, finished)
    time.sleep(0)


def _raise_if_dead(graph: Graph, finished: int) -> None:
    for actor in graph.root.runtime._messaging_infrastructure.actors:
        found = actor.exception
        if found is not None:
            error, trace = found
            if isinstance(error, FsnnError):
                raise error
            raise BackendError(f"a Lava process failed after step {finished}:\n{trace}")
        if not actor.is_alive():
            raise BackendError(f"a Lava process ended by itself after step {finished}, exit code {actor.exitcode}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
