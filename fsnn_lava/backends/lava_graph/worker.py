"""The program of the Python process in which Lava runs: ``python -m fsnn_lava.backends.lava_graph.worker FD``.

It receives a `GraphJob` and the descriptor of its `SampleRing` over the connection with file descriptor FD; inputs and
spikes travel through the ring. It answers with messages

    ("step", finished steps)      while it runs
    ("done", None)                after the last one
    ("failed", error or text)     an error of this package, or the traceback of any other

Lava's processes are children of this one. Whoever started it ends the whole process group, whatever happened; if it
dies itself, the connection closes and the group ends itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from lava.magma.core.run_conditions import RunSteps
from lava.utils import loihi

from fsnn_lava.backends.lava_graph.build import Graph, build_graph
from fsnn_lava.backends.lava_graph.job import GraphJob
from fsnn_lava.backends.lava_graph.ring import SampleRing
from fsnn_lava.errors import BackendError, FsnnError

_POLL_SECONDS = 0.005
_STANDSTILL_SECONDS = 0.2


def main(descriptor: int) -> None:
    """Run one job, report, and leave without waiting for anybody."""
    os.dup2(2, 1)  # Lava prints; nothing of it may reach the user's output
    logging.disable(logging.CRITICAL)
    connection: Connection[Any, Any] = Connection(descriptor)
    status = 0
    try:
        job, ring = connection.recv()
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        run_job(job, SampleRing(job, ring), connection)
        connection.send(("done", None))
    except FsnnError as error:
        connection.send(("failed", error))
        status = 1
    except Exception:
        connection.send(("failed", traceback.format_exc()))
        status = 1
    finally:
        sys.stderr.flush()
        os._exit(status)  # after a failure, Lava's children would be waited for


def _end_with(connection: Connection[Any, Any]) -> None:
    """Wait for the other end to close (it sends nothing more), then end the whole group, this process included."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os.killpg(0, signal.SIGTERM)


def run_job(job: GraphJob, ring: SampleRing, connection: Connection[Any, Any]) -> None:
    """Run all steps; their spikes are in the ring as they come."""
    graph = build_graph(job, ring)
    if job.device == "loihi2":
        loihi.use_slurm_host(loihi_gen=loihi.ChipGeneration.N3B3)
    graph.root.run(RunSteps(num_steps=job.steps, blocking=False), run_cfg=graph.run_config(job))
    _watch(graph, job, ring, connection)
    graph.root.wait()
    graph.root.stop()


def _watch(graph: Graph, job: GraphJob, ring: SampleRing, connection: Connection[Any, Any]) -> None:
    """Report the clock until the last step; when it stands still, see whether one of Lava's processes has died."""
    reported = 0
    looked = time.monotonic()
    while reported < job.steps:
        time.sleep(_POLL_SECONDS)
        finished = int(ring.clocks.min())
        if finished > reported:
            connection.send(("step", finished))
            reported = finished
            looked = time.monotonic()
        elif time.monotonic() - looked > _STANDSTILL_SECONDS:
            _raise_if_dead(graph, finished)
            looked = time.monotonic()


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
