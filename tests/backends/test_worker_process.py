"""Python processes that are always ended, and what their programs say when a process of Lava's ends. Needs no Lava."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from fsnn_lava.backends.lava import worker_process, worker_protocol
from fsnn_lava.backends.lava.worker_process import SilenceError, run_isolated
from fsnn_lava.errors import BackendError, ConvergenceError

PROGRAM = """
import os, sys, tempfile, time
from multiprocessing.connection import Connection
tempfile.mkdtemp()
connection = Connection(int(sys.argv[1]))
job = connection.recv()
child = os.fork()
if child == 0:
    time.sleep(1000)
connection.send(("children", child))
if job == "fail":
    raise ValueError("something is wrong")
if job == "hang":
    time.sleep(1000)
print("noise")
connection.send(("done", job))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A program that leaves a child and a temporary file behind."""
    (tmp_path / "isolated_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield "isolated_program"
    assert not os.listdir(temporary)


class Listener:
    """Keeps the messages, and the process that the program has left running."""

    def __init__(self, *, interrupt: bool = False) -> None:
        self.interrupt = interrupt
        self.messages: list[tuple[str, object]] = []

    def __call__(self, message: tuple[str, object]) -> bool:
        self.messages.append(message)
        if self.interrupt:
            raise KeyboardInterrupt
        return message[0] == "done"

    def child_is_gone(self) -> bool:
        pid = self.messages[0][1]
        try:
            _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=10)
        except psutil.NoSuchProcess:
            return True
        return all(p.status() == psutil.STATUS_ZOMBIE for p in alive)


def test_isolated_hands_over_messages_and_ends_the_rest(module: str, capfd: pytest.CaptureFixture[str]) -> None:
    listener = Listener()
    run_isolated(module, {"any": "job"}, on_message=listener, silence_s=60)
    assert listener.messages[1:] == [("done", {"any": "job"})]
    assert listener.child_is_gone()
    assert capfd.readouterr() == ("", "")


def test_isolated_failure_shows_what_was_printed(module: str) -> None:
    listener = Listener()
    with pytest.raises(BackendError, match=r"(?s)isolated_program ended before.*ValueError: something is wrong"):
        run_isolated(module, "fail", on_message=listener, silence_s=60)
    assert listener.child_is_gone()


def test_isolated_hang_ends_in_time(module: str) -> None:
    listener = Listener()
    with pytest.raises(SilenceError, match="no message for 5 s"):
        run_isolated(module, "hang", on_message=listener, silence_s=5)
    assert listener.child_is_gone()


def test_isolated_interrupt_ends_everything(module: str) -> None:
    listener = Listener(interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        run_isolated(module, "hang", on_message=listener, silence_s=60)
    assert listener.child_is_gone()


def test_isolated_interrupt_is_heard_though_python_dropped_it(module: str) -> None:
    """A `KeyboardInterrupt` that is raised in a destructor is printed and forgotten; the run must end all the same."""
    listener = Listener()

    def dropped(message: tuple[str, object]) -> bool:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        return listener(message)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_isolated(module, "hang", on_message=dropped, silence_s=60)
    assert listener.child_is_gone()
    assert signal.getsignal(signal.SIGINT) == handler


def test_isolated_interrupts_during_the_ending_wait_for_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever presses Ctrl-C again and again still leaves no process and no folder behind."""
    remove = shutil.rmtree

    def press_and_remove(folder: str, **options: bool) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        remove(folder, **options)

    monkeypatch.setattr(worker_process.shutil, "rmtree", press_and_remove)
    listener = Listener()
    with pytest.raises(KeyboardInterrupt):
        run_isolated(module, "job", on_message=listener, silence_s=60)
    assert listener.messages[-1] == ("done", "job")
    assert listener.child_is_gone()


def test_isolated_module_that_does_not_exist() -> None:
    with pytest.raises(BackendError, match="no_such_module ended before it had answered"):
        run_isolated("no_such_module", None, on_message=Listener(), silence_s=60)


def test_the_worker_removes_its_folder_though_two_threads_find_nobody_there(tmp_path: Path) -> None:
    """The first must not be ended by the other's signal before it is done."""
    program = (
        "import multiprocessing.util, shutil, threading, time\n"
        "from fsnn_lava.backends.lava import worker_protocol\n"
        "multiprocessing.util.get_temp_dir()\n"
        "remove = shutil.rmtree\n"
        "def slowly(folder, **options):\n"
        "    time.sleep(0.5)\n"
        "    remove(folder, **options)\n"
        "shutil.rmtree = slowly\n"
        "threading.Thread(target=worker_protocol._end_group).start()\n"
        "time.sleep(0.2)\n"
        "shutil.rmtree = lambda folder, **options: None\n"
        "worker_protocol._end_group()\n"
    )
    folder = tmp_path / "l-1"
    folder.mkdir()
    environment = os.environ | {"TMPDIR": str(folder)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, start_new_session=True, timeout=60)
    assert ran.returncode == -signal.SIGTERM
    assert not folder.exists()


class Actor:
    """A process of Lava's as it looks from outside, one look after the other: alive, exit code, exception."""

    def __init__(self, *looks: tuple[bool, int | None, Exception | None]) -> None:
        self._looks = list(looks)

    def is_alive(self) -> bool:
        if len(self._looks) > 1:
            self._looks.pop(0)
        return self._looks[0][0]

    @property
    def exitcode(self) -> int | None:
        return self._looks[0][1]

    @property
    def exception(self) -> tuple[Exception, str] | None:
        error = self._looks[0][2]
        return error and (error, f"Traceback of {error}")


RUNS, STOPPED = (True, None, None), (False, 0, None)


def watch(*actors: Actor) -> None:
    """Watch a run of one step that never comes."""
    root: Any = SimpleNamespace(runtime=SimpleNamespace(_messaging_infrastructure=SimpleNamespace(actors=actors)))
    worker_protocol.watch(root, np.zeros(1, np.int64), SimpleNamespace(), steps=1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_protocol, "_STANDSTILL_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stopped_first", [True, False])
def test_who_raised_is_told_and_not_who_was_stopped_for_it(stopped_first: bool) -> None:
    """When a process raises, Lava stops all others, which end with exit code 0 even before it says what it raised."""
    diverged = ConvergenceError("weights that are not finite")
    stopped, raised = Actor(RUNS, STOPPED), Actor(RUNS, RUNS, RUNS, (True, None, diverged), (False, 0, diverged))
    with pytest.raises(ConvergenceError, match="not finite"):
        watch(*((stopped, raised) if stopped_first else (raised, stopped)))


@pytest.mark.usefixtures("impatient")
def test_an_error_of_the_package_is_told_before_any_other() -> None:
    other, ours = ValueError("operands"), ConvergenceError("weights that are not finite")
    with pytest.raises(ConvergenceError, match="not finite"):
        watch(Actor(STOPPED), Actor((False, 0, other)), Actor((False, 0, ours)))
    with pytest.raises(BackendError, match=r"failed after step 0:\nTraceback of operands"):
        watch(Actor(STOPPED), Actor((False, 0, other)))


@pytest.mark.usefixtures("impatient")
def test_who_was_killed_is_told_at_once() -> None:
    with pytest.raises(BackendError, match="ended by itself after step 0, exit code -9"):
        watch(Actor(RUNS), Actor(STOPPED), Actor((False, -9, None)))


@pytest.mark.usefixtures("impatient")
def test_an_end_that_nobody_explains_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_protocol, "_CONFESSION_SECONDS", 0.05)
    with pytest.raises(BackendError, match="ended by itself after step 0, exit code 0"):
        watch(Actor(RUNS), Actor(STOPPED))
