"""The worker's half of the protocol: receive a job, watch Lava run it, report, leave.

It receives its task over the connection with the file descriptor that it is given, and answers with messages

    ("step", finished steps)      while it runs
    ("done", None)                after the last one
    ("failed", error or text)     an error of this package, or the traceback of any other

Lava's processes are children of this one. Whoever started it ends the whole process group, whatever happened; if it
dies itself, the connection closes and the group ends itself.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.util
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from fsnn_lava.errors import BackendError, FsnnError
from fsnn_lava.hardware import Array

if TYPE_CHECKING:
    from lava.magma.core.process.process import AbstractProcess

_POLL_SECONDS = 0.005
_STANDSTILL_SECONDS = 0.2
_CONFESSION_SECONDS = 5.0
"""How long the process that raised may take to say so after others have ended."""
_ENDING = threading.Lock()


def answer(descriptor: int, run: Callable[[Any, Connection[Any, Any]], None]) -> None:
    """Run one task, report, and leave without waiting for anybody.

    Parameters
    ----------
    descriptor : of the connection.
    run : takes the task that was received, and the connection.
    """
    os.dup2(2, 1)  # Lava prints; nothing of it may reach the user's output
    logging.disable(logging.CRITICAL)
    multiprocessing.util.get_temp_dir()  # made here, so that processes forked later put their sockets there as well
    connection: Connection[Any, Any] = Connection(descriptor)
    status = 0
    try:
        task = connection.recv()
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        run(task, connection)
        _tell(connection, ("done", None))
    except FsnnError as error:
        _tell(connection, ("failed", error))
        status = 1
    except Exception:
        _tell(connection, ("failed", traceback.format_exc()))
        status = 1
    finally:
        sys.stderr.flush()
        os._exit(status)  # after a failure, Lava's children would be waited for


def _tell(connection: Connection[Any, Any], message: tuple[str, object]) -> None:
    """Send the last message; if nobody listens any more, end the group before this process leaves it."""
    try:
        connection.send(message)
    except OSError:
        _end_group()


def _end_with(connection: Connection[Any, Any]) -> None:
    """Wait for the other end to close (it sends nothing more), then end the whole group."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    _end_group()


def _end_group() -> None:
    """End this process and all of Lava's.

    If the other end was killed, nobody else removes the temporary folder that it made for this process. Both threads
    may come here: the one that is first removes the folder, and its signal ends the other.
    """
    _ENDING.acquire()
    try:
        shutil.rmtree(multiprocessing.util.get_temp_dir(), ignore_errors=True)
        os.rmdir(tempfile.gettempdir())  # only if it is empty
    except OSError:
        pass  # the other end was faster
    finally:
        os.killpg(0, signal.SIGTERM)


def watch(root: AbstractProcess, clocks: Array, connection: Connection[Any, Any], *, steps: int) -> None:
    """Report the clock until the last step; when it stands still, look whether one of Lava's processes has ended.

    Parameters
    ----------
    root : one of the running processes.
    clocks : (n,) steps that each of them has finished, which they write.
    steps : how many there will be.

    Raises
    ------
    FsnnError : what a process of ours raised.
    BackendError : if a process failed otherwise or ended.
    """
    reported = 0
    looked = time.monotonic()
    while reported < steps:
        time.sleep(_POLL_SECONDS)
        finished = int(clocks.min())
        if finished > reported:
            connection.send(("step", finished))
            reported = finished
            looked = time.monotonic()
        elif time.monotonic() - looked > _STANDSTILL_SECONDS:
            _raise_if_ended(root, finished)
            looked = time.monotonic()


def _raise_if_ended(root: AbstractProcess, finished: int) -> None:
    """Raise if one of Lava's processes has ended: what one raised, else how one died, else that one just ended.

    When a process raises, Lava (0.10.0) tells all others to stop, and they end with exit code 0, some of them before
    the one that raised has said so. So whoever ended that way is blamed only if nobody speaks up for a while.
    """
    actors = root.runtime._messaging_infrastructure.actors
    deadline = time.monotonic() + _CONFESSION_SECONDS
    while True:
        ended = [a for a in actors if not a.is_alive()]  # asked first: one that is dead has said what it raised
        errors = [a.exception for a in actors if a.exception is not None]
        for error, _ in errors:
            if isinstance(error, FsnnError):
                raise error
        if errors:
            raise BackendError(f"a Lava process failed after step {finished}:\n{errors[0][1]}")
        code = next((a.exitcode for a in ended if a.exitcode), 0)
        if code or (ended and time.monotonic() > deadline):
            raise BackendError(f"a Lava process ended by itself after step {finished}, exit code {code}")
        if not ended:
            return
        time.sleep(_POLL_SECONDS)
