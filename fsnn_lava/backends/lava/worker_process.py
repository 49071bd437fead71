"""A Python module in a process group of its own, which is always ended, and the run that it is started for.

Lava starts an operating system process per Lava process, cannot be interrupted, and leaves its processes behind when
something fails. Here all of them live in one session: whatever happens to the run, the session is ended.
The new interpreter imports neither the caller's main module nor torch, so no ``__main__`` guard is needed and
notebooks work.

`runner` runs networks this way, `learning.runner` trains them; `worker_protocol` is the other end.
"""

import contextlib
import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, final

from fsnn_lava.backends.lava.shared_arrays import SharedArrays
from fsnn_lava.errors import BackendError, FsnnError, IncompleteRunError

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0
_SHOWN_CHARACTERS = 2000


class SilenceError(BackendError):
    """A process that sent nothing for too long."""


def run_isolated(
    module: str, job: object, *, on_message: Callable[[Any], bool], silence_s: float, inherited: Sequence[int] = ()
) -> None:
    """Start ``python -m module FD``, send it the job, and hand over its messages until ``on_message`` says True.

    Parameters
    ----------
    module : a module whose program reads the job from the connection with file descriptor FD.
    job : anything that can be pickled.
    silence_s : longest time between two messages, in seconds.
    inherited : file descriptors that it has as well, under the same numbers.

    Raises
    ------
    SilenceError : if that time passed.
    BackendError : if the process ended before its last message.
    KeyboardInterrupt : after Ctrl-C, when the process has been ended and its folder removed.
    """
    with _held_interrupts() as interrupted:
        here, there = multiprocessing.connection.Pipe()
        with here, _temporary_folder() as folder, tempfile.TemporaryFile() as output:
            process = _start(module, there, output, inherited, temporary=folder)
            try:
                here.send(job)
                _listen(here, process, on_message=on_message, silence_s=silence_s, interrupted=interrupted)
            except (EOFError, BrokenPipeError, ConnectionResetError) as error:
                raise BackendError(f"{module} ended before it had answered{_tail(output)}") from error
            finally:
                _end_group(here, process)
    if interrupted.is_set():
        raise KeyboardInterrupt


class WorkerRun(ABC):
    """One run, from its first step to its last.

    Parameters
    ----------
    job : what the program `worker` is sent, with the descriptor of the memory.
    memory : through which data comes and goes; closed at the end of the run.

    Attributes
    ----------
    steps : that all of Lava's processes have finished.
    """

    def __init__(self, job: object, memory: SharedArrays[Any]) -> None:
        self.steps = 0
        self._job, self._memory = job, memory
        self._failure: FsnnError | str | None = None

    @abstractmethod
    def advance(self) -> None:
        """Take what is new in the memory, now that ``steps`` are finished."""

    @abstractmethod
    def incomplete(self, reason: str) -> IncompleteRunError:
        """The error that says how far the run had come, with the results of what was finished."""

    @final
    def run(self, *, timeout_s: float) -> None:
        """Run all steps of the job.

        Parameters
        ----------
        timeout_s : longest time in which Lava may finish no step, in seconds.

        Raises
        ------
        FsnnError : from a process of ours; its cause is an `IncompleteRunError` with what was finished.
        IncompleteRunError : if Lava failed, stood still for so long, or was interrupted.
        """
        descriptor = self._memory.descriptor
        try:
            run_isolated(
                "fsnn_lava.backends.lava.worker",
                (self._job, descriptor),
                on_message=self.on_message,
                silence_s=timeout_s,
                inherited=(descriptor,),
            )
        except SilenceError as error:
            reason = f"Lava finished no step within {timeout_s:g} s; larger networks may need a longer timeout_s"
            raise self.incomplete(reason) from error
        except KeyboardInterrupt as error:
            raise self.incomplete("the run was interrupted") from error
        except BackendError as error:
            raise self.incomplete(str(error)) from error
        finally:
            self._memory.close()
        self.require_success()

    @final
    def on_message(self, message: tuple[str, Any]) -> bool:
        """Follow a message of the worker (`worker_protocol` lists them); True with its last one."""
        kind, content = message
        if kind == "step":
            self.steps = content
            self.advance()
            return False
        self._failure = content
        return True

    @final
    def require_success(self) -> None:
        """Raise what the worker said, unless it said that all is done."""
        if isinstance(self._failure, BackendError | str):
            raise self.incomplete(str(self._failure))
        if self._failure is not None:
            raise self._failure from self.incomplete(str(self._failure))


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    """A temporary folder for all processes of the session, removed after they are gone.

    Each run of Lava 0.10.0 has a `multiprocessing.SharedMemoryManager`, whose socket lies in a folder ``pymp-*`` that
    only an orderly exit would remove. The name is short: a socket's path has at most 107 characters.
    """
    folder = tempfile.mkdtemp(prefix="l-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    module: str, connection: Any, output: IO[bytes], inherited: Sequence[int], *, temporary: str
) -> subprocess.Popen[bytes]:
    """The process; its end of the connection is closed here, so that its death is noticed."""
    paths = [path or os.getcwd() for path in sys.path]
    own = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TMPDIR": temporary}
    with connection:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(connection.fileno())],
            pass_fds=[connection.fileno(), *inherited],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | own,
            start_new_session=True,
        )


def _listen(
    here: Any,
    process: subprocess.Popen[bytes],
    *,
    on_message: Callable[[Any], bool],
    silence_s: float,
    interrupted: threading.Event,
) -> None:
    deadline = time.monotonic() + silence_s
    while True:
        if interrupted.is_set():
            raise KeyboardInterrupt
        if here.poll(min(_POLL_SECONDS, silence_s)):
            if on_message(here.recv()):
                return
            deadline = time.monotonic() + silence_s
        elif process.poll() is not None and not here.poll(0):
            raise EOFError
        elif time.monotonic() > deadline:
            raise SilenceError(f"no message for {silence_s:g} s")


@contextlib.contextmanager
def _held_interrupts() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets, and raise nothing meanwhile, so that the ending is never torn.

    Python would also drop a `KeyboardInterrupt` that comes while it runs a destructor. Only the main thread hears.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, lambda _number, _frame: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def _end_group(here: Any, process: subprocess.Popen[bytes]) -> None:
    """End every process of the session: politely, so that shared memory is given back, then by force.

    All of them have inherited the other end of the connection: it is closed when the last one is gone.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            os.killpg(process.pid, signal.SIGCONT)  # one that was stopped could not obey
        if _closed(here, time.monotonic() + _GRACE_SECONDS):
            break
    process.wait()


def _closed(here: Any, deadline: float) -> bool:
    """Tell whether the other end is closed before the deadline; what is still in the connection is dropped."""
    while here.poll(max(0.0, deadline - time.monotonic())):
        try:
            if not os.read(here.fileno(), 2**16):
                return True
        except ConnectionResetError:
            return True
    return False


def _tail(output: IO[bytes]) -> str:
    output.seek(0)
    text = output.read().decode(errors="replace").strip()
    return f"; the end of what it printed:\n{text[-_SHOWN_CHARACTERS:]}" if text else ""
