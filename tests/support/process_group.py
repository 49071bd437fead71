"""Runs a piece of a test in several processes, as `torchrun` starts them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def torchrun(logs: Path, script: Path, *arguments: str) -> subprocess.Popen[str]:
    """The script in two processes on this machine, with one thread each; torchrun's own files go to `logs`."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--log-dir", str(logs)]
    return subprocess.Popen(
        [*command, "--nproc-per-node", "2", str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it shows; it must end well."""
    with process:
        shown = shown_by(process)
    assert process.returncode == 0, shown
    return shown


def shown_by(process: subprocess.Popen[str]) -> str:
    """What it shows until it ends."""
    try:
        return process.communicate(timeout=300)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # torchrun and all its processes: waiting for them would never end
        raise


def wait_for_epochs(process: subprocess.Popen[str], count: int) -> None:
    """Reads what train.py shows until that many epochs are done."""
    shown = []
    for line in process.stdout:
        shown.append(line)
        count -= line.startswith("epoch ") and "  test " in line  # not one that says how far an epoch is
        if count == 0:
            return
    pytest.fail("train.py ended early:\n" + "".join(shown))
