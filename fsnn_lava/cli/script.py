"""How a script of train/, deploy/ or benchmarks/ ends: with a status, and with a message where it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from fsnn_lava.errors import FsnnError

REFUSED = 2
"""Exit status of a refusal, as of a mistyped option."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def show_next(console: Console, command: str, *, data_dir: Path | None) -> None:
    """Says on one line what to run next, on the same datasets."""
    option = "" if data_dir is None else f" --data-dir {data_dir}"
    console.print(f"next: {escape(command + option)}", soft_wrap=True)


def run_script(main: Callable[[list[str]], int]) -> NoReturn:
    """Ends the program with main's exit status, given the command line's arguments.

    An error of this package becomes one message on stderr and `REFUSED`; Ctrl-C becomes `INTERRUPTED`.
    """
    console = Console(stderr=True)
    try:
        status = main(sys.argv[1:])
    except FsnnError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}", soft_wrap=True, highlight=False)
        status = REFUSED
    except KeyboardInterrupt:
        console.print("interrupted")
        status = INTERRUPTED
    sys.exit(status)
