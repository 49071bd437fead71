"""The command line and its scripts: options in, library calls, tables and next steps out.

Each subcommand of ``fsnn`` is a file of this package with ``main(argv) -> exit status``; `script` is how all of them
end. The scripts of ``train/`` and ``deploy/`` call `run_command` too.

The subcommand is looked up here and not by tyro, which would import all seven, torch among them, before it prints a
line: `main` finds the name first, then imports that one file, whose options tyro reads. So ``fsnn --help`` answers at
once, and Ctrl-C is heeded from the first moment.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

COMMANDS = {
    "train": "train a network by IDE, SPIDE or BPTT; writes a run folder",
    "evaluate": "accuracy, firing rates and distance from the equilibrium of a trained network",
    "export": "trained network (or NIR graph) to integers, proven to fit; also netx and NIR files",
    "run": "run an exported network on the simulator, Lava or Loihi 2",
    "verify": "compare backends on the same samples, spike by spike; writes a report",
    "anytime": "accuracy over the time steps, and early exit",
    "train-on-lava": "train by SPIDE with every epoch executed in Lava (a simulation, on the CPU)",
    "zoo": "list the trained networks that come with fsnn, or show the card of one",
    "configs": "list the configurations that come with fsnn, or print one",
}
"""Subcommand -> its line of help. The file of ``train-on-lava`` is ``train_on_lava``."""
REFUSED = 2
"""Exit status of a refusal, as of a mistyped option."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main() -> NoReturn:
    """Run the subcommand that the first argument names, and end the program with its exit status."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        run_command(name, rest)
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        sys.exit(0)
    if name == "--version":
        sys.stdout.write(f"fsnn {importlib.import_module('fsnn_lava').__version__}\n")
        sys.exit(0)
    close = importlib.import_module("difflib").get_close_matches(name, COMMANDS, n=1)
    hint = f' (did you mean "{close[0]}"?)' if close else ""
    sys.stderr.write(f'fsnn: no command "{name}"{hint}; there are: {", ".join(COMMANDS)}\n')
    sys.exit(REFUSED)


def run_command(name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a subcommand and end the program with its exit status.

    Parameters
    ----------
    arguments : its options; None: those of the program.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While torch is imported nothing is there to be cleaned up, and a KeyboardInterrupt may be lost in there.
        signal.signal(signal.SIGINT, _leave)
    at_terminal = sys.stderr.isatty()
    if at_terminal:
        sys.stderr.write("loading\r")  # torch takes seconds; what comes next overwrites the word
        sys.stderr.flush()
    script = importlib.import_module("fsnn_lava.cli.script")
    command = importlib.import_module(f"fsnn_lava.cli.{name.replace('-', '_')}")
    if at_terminal:
        sys.stderr.write("\x1b[2K")
        sys.stderr.flush()
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    script.run_script(command.main, sys.argv[1:] if arguments is None else arguments)
    raise AssertionError("a script ends the program")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End the program at once, as after any other Ctrl-C."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "".join(f"  {name.ljust(width)}  {text}\n" for name, text in COMMANDS.items())
    return (
        "usage: fsnn COMMAND [OPTIONS]\n\nTrain feedback spiking networks; deploy them to Lava with proof.\n\n"
        f"{lines}\nfsnn COMMAND --help shows a command's options and their defaults; fsnn --version the version.\n"
    )
