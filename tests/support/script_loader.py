"""The scripts of train/ and deploy/, and those of benchmarks/, as modules: tests call what is in them."""

import importlib
import importlib.util
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from fsnn_lava.cli.script import SCRIPTS as SCRIPT_OF

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    f"{path.parent.name}.{path.stem}"
    for path in (ROOT / "benchmarks").glob("*/*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
"""The benchmarks that can be run, each as `python -m benchmarks.NAME`."""


def load_script(path: str) -> ModuleType:
    """The script of that path below the project's root, executed once as a module of its own."""
    name = f"script_{path.removesuffix('.py').replace('/', '_')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def status_of(script: str, *options: str) -> int:
    """Exit status of a script of the project, run here as a program: a process of its own would load torch anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(ROOT / script), *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / script), run_name="__main__")
    return int(ended.value.code)


def script_of(command: str) -> tuple[ModuleType, list[str]]:
    """The file of `fsnn_lava.cli` or of `benchmarks` that a command line starts, and the options it gives."""
    words = shlex.split(command)
    commands = {path: name for name, path in SCRIPT_OF.items()}
    at = next(i for i, word in enumerate(words) if word in ("fsnn", "-m") or word in commands)
    if words[at] in commands:
        return command_module(commands[words[at]]), words[at + 1 :]
    name = words[at + 1]
    return importlib.import_module(name) if words[at] == "-m" else command_module(name), words[at + 2 :]


def command_module(name: str) -> ModuleType:
    """The file of a subcommand of fsnn."""
    return importlib.import_module(f"fsnn_lava.cli.{name.replace('-', '_')}")


def said_by(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> list[str]:
    """All that commands in these modules say of what they are at, whether or not there is time to show it."""
    said: list[str] = []

    @contextmanager
    def heard(console: Console, task: str) -> Iterator[Callable[[str], None]]:
        said.append(task)
        yield said.append

    for module in modules:
        monkeypatch.setattr(module, "working", heard)
    return said
