"""How a command ends: with a status, a message where it refuses, and the command to run next.

The subcommands of ``fsnn`` and the scripts of ``benchmarks/`` use it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from fsnn_lava.cli import INTERRUPTED, REFUSED
from fsnn_lava.errors import FsnnError

SCRIPTS = {
    "train": "train/train.py",
    "evaluate": "train/evaluate.py",
    "train-on-lava": "train/on_lava.py",
    "export": "deploy/export.py",
    "run": "deploy/run.py",
    "verify": "deploy/verify.py",
    "anytime": "deploy/anytime.py",
}
"""The script of a checkout that is the same as a subcommand."""


def command_line(command: str) -> str:
    """How a user who started this program as they did starts a subcommand: as ``fsnn``, as a module, or as a script."""
    started = "/".join(Path(sys.argv[0]).parts[-2:])
    if command in SCRIPTS and started in SCRIPTS.values():
        return f"python {SCRIPTS[command]}"
    return f"{'python -m fsnn_lava' if started == 'fsnn_lava/__main__.py' else 'fsnn'} {command}"


def show_next(console: Console, command: str, options: str = "", *, data_dir: Path | None) -> None:
    """Say on one line which subcommand to run next, on the same datasets."""
    parts = [command_line(command), options, "" if data_dir is None else f"--data-dir {data_dir}"]
    console.print(f"next: {escape(' '.join(part for part in parts if part))}", soft_wrap=True)


def run_script(main: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> NoReturn:
    """End the program with main's exit status.

    An error of this package becomes one message on stderr and `REFUSED`; Ctrl-C becomes `INTERRUPTED`.

    Parameters
    ----------
    argv : what main is given; None: the command line's arguments.
    """
    console = Console(stderr=True)
    try:
        status = main(list(sys.argv[1:] if argv is None else argv))
    except FsnnError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}", soft_wrap=True, highlight=False)
        status = REFUSED
    except KeyboardInterrupt:
        console.print("interrupted")
        status = INTERRUPTED
    except BrokenPipeError:  # as by `fsnn configs | head`; what is left in the buffer must not be written at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = REFUSED
    sys.exit(status)
