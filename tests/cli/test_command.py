"""The command fsnn: finding the subcommand, help, Ctrl-C from the first moment, and the scripts that do the same."""

import importlib
import io
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from fsnn_lava import cli
from fsnn_lava.cli import configs, script
from fsnn_lava.cli.script import SCRIPTS, command_line, run_script, show_next
from fsnn_lava.config import published_configs, read_config
from fsnn_lava.errors import ConfigError, IncompleteRunError, counted
from script_loader import ROOT

FSNN = ["-m", "fsnn_lava"]


def started(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def modules_after(program: str) -> set[str]:
    done = started("-c", f"import sys\n{program}\nprint('MODULES', *sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("MODULES", 1)[1].split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments: list[str]) -> None:
    done = started(*FSNN, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {name} " in done.stdout and text in done.stdout for name, text in cli.COMMANDS.items())


def test_help_imports_nothing_that_takes_time() -> None:
    program = "from fsnn_lava.cli import main\nsys.argv = ['fsnn', '--help']\ntry: main()\nexcept SystemExit: pass"
    assert modules_after(program) & {"torch", "numpy", "tyro", "rich", "numba", "fsnn_lava.cli.script"} == set()


@pytest.mark.parametrize("command", ["run", "anytime", "configs", "zoo"])
def test_help_of_commands_that_train_nothing_imports_no_torch(command: str) -> None:
    program = f"from fsnn_lava.cli import main\nsys.argv = ['fsnn', '{command}', '--help']\n"
    assert "torch" not in modules_after(f"{program}try: main()\nexcept SystemExit: pass")


def test_messages_count_one_thing_as_one() -> None:
    assert [counted(n, "whole epoch") for n in (0, 1, 2)] == ["0 whole epochs", "1 whole epoch", "2 whole epochs"]


def test_unknown_command_is_refused_with_a_hint() -> None:
    done = started(*FSNN, "exprt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('fsnn: no command "exprt" (did you mean "export"?); there are: train, evaluate, ')


def test_version_is_the_packages() -> None:
    assert started(*FSNN, "--version").stdout == f"fsnn {importlib.import_module('fsnn_lava').__version__}\n"


def test_a_refusal_is_a_message_and_a_mistyped_option_has_a_hint(tmp_path: Path) -> None:
    done = started(*FSNN, "run", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ConfigError: runs: no run holds network-integer.h5")
    done = started(*FSNN, "run", "--sampels", "3", folder=tmp_path)
    assert done.returncode == 2
    assert "python -m fsnn_lava run --help" in done.stderr


def test_every_command_says_what_it_does() -> None:
    for name in cli.COMMANDS:
        module = importlib.import_module(f"fsnn_lava.cli.{name.replace('-', '_')}")
        assert module.__doc__
        assert callable(module.main)


def test_what_reads_the_output_may_stop() -> None:
    """As `fsnn configs | head -1` does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *FSNN, "configs"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 2


def test_every_command_that_does_more_than_list_has_a_script() -> None:
    assert set(SCRIPTS) == set(cli.COMMANDS) - {"configs", "zoo"}


@pytest.mark.parametrize("command", sorted(SCRIPTS))
def test_script_is_the_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(cli, "run_command", called.append)
    runpy.run_path(str(ROOT / SCRIPTS[command]), run_name="__main__")
    assert called == [command]
    runpy.run_path(str(ROOT / SCRIPTS[command]), run_name="imported by a process that torch starts")
    assert called == [command]


def test_mutants_without_their_extra_say_what_to_install() -> None:
    program = "import runpy, sys\nsys.modules['cosmic_ray'] = None\n"
    done = started("-c", f"{program}runpy.run_path('tests/mutants.py', run_name='__main__')")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.endswith('install it with: pip install -e ".[mutation]"\n')


INTERRUPT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
import runpy
sys.argv = [{started!r}, "--runs", "none"]
runpy.run_path({started!r}, run_name="__main__")
"""


@pytest.mark.parametrize("name", ["fsnn_lava.cli.script", "torch"])
def test_ctrl_c_while_modules_are_imported_is_no_traceback(name: str, tmp_path: Path) -> None:
    program = INTERRUPT.format(name=name, started=str(ROOT / "train/evaluate.py"))
    done = started("-c", program, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("script", [*FSNN[1:], "deploy/run.py"])
def test_ctrl_c_at_any_moment_of_the_first_seconds(script: str, tmp_path: Path) -> None:
    """It ends with status 130 and without a traceback, once Python itself has started."""
    arguments = [*FSNN, "train"] if script == FSNN[1] else [str(ROOT / script)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-v", *arguments, "--runs", "none"]  # -v tells of each import on stderr
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "import 'rich.console'" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest


def test_configs_are_listed_with_what_they_reproduce(capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[::2]]
    assert names == list(published_configs())
    for name, line, notation in zip(names, lines[::2], lines[1::2], strict=True):
        config = read_config(name)
        assert config.dataset in line
        assert config.published in line
        assert notation.strip() == config.network.title
    assert "published: 99.49 (Table 1, IDE-IF, mean of 5)" in lines[2 * names.index("mnist_conv_if")]


def test_a_config_is_printed_as_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main(["mnist_conv_if"]) == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert read_config(tmp_path / "mine.toml") == read_config("mnist_conv_if")


def test_an_unknown_config_is_refused() -> None:
    with pytest.raises(ConfigError, match='config "mnist": no such name; allowed: cifar10_alexnet'):
        configs.main(["mnist"])


def ending(main: object, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_script(main)
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


@pytest.mark.parametrize("status", [0, 1, 130])
def test_status_is_that_of_main_which_is_given_the_arguments(
    status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["script", "--samples", "3"])
    given: list[str] = []

    def main(argv: list[str]) -> int:
        given.extend(argv)
        return status

    assert ending(main, capsys) == (status, "", "")
    assert given == ["--samples", "3"]


def test_refusal_is_one_message_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> int:
        raise ConfigError("key [training]: found 1")

    assert ending(main, capsys) == (2, "", "ConfigError: key [training]: found 1\n")


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> int:
        raise KeyboardInterrupt

    assert ending(main, capsys) == (130, "", "interrupted\n")


def test_other_errors_are_ours_and_show_themselves() -> None:
    def main(_: list[str]) -> int:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        run_script(main)


def test_next_command_stays_on_the_same_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    show_next(Console(), "run", "--run runs/[a]", data_dir=None)
    show_next(Console(), "run", data_dir=Path("some/where"))
    assert capsys.readouterr().out == "next: fsnn run --run runs/[a]\nnext: fsnn run --data-dir some/where\n"


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("/usr/bin/fsnn", "fsnn verify"),
        ("/home/a/fsnn_lava/__main__.py", "python -m fsnn_lava verify"),
        ("deploy/run.py", "python deploy/verify.py"),
        ("/home/a/checkout/train/on_lava.py", "python deploy/verify.py"),
        ("deploy/fsnn", "fsnn verify"),
        ("run.py", "fsnn verify"),
    ],
)
def test_next_command_is_started_as_this_one_was(started: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [started])
    monkeypatch.setattr(script.shutil, "which", lambda name: f"/bin/{name}")
    assert command_line("verify") == shown


def test_next_command_of_an_environment_that_is_not_active_has_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    monkeypatch.setattr("sys.argv", [os.path.abspath(".venv/bin/fsnn")])
    assert command_line("verify") == ".venv/bin/fsnn verify"


def test_a_terminal_shows_that_a_command_loads() -> None:
    """Before torch is there, which takes seconds; and the word is gone afterwards."""
    inner, outer = os.openpty()
    with subprocess.Popen([sys.executable, *FSNN, "evaluate", "--runs", "nowhere"], stderr=outer, cwd=ROOT) as process:
        assert process.wait() == 2
    shown = os.read(inner, 4096).decode()
    os.close(inner)
    os.close(outer)
    assert shown.startswith("loading\r\x1b[2K")
    assert "no run holds" in shown


def test_a_command_at_work_says_so_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line every `SILENCE` seconds with what comes next and the time; nothing before, nothing after."""
    monkeypatch.setattr(script, "SILENCE", 0.05)
    output = io.StringIO()
    console = Console(file=output)
    with script.working(console, "reading [1]") as progress:
        time.sleep(0.2)
        progress("counting")
        time.sleep(0.2)
    said = output.getvalue()
    assert "reading [1] (0 s)\n" in said
    assert said.endswith("counting (0 s)\n")
    time.sleep(0.2)
    assert output.getvalue() == said
    with script.working(console, "quick"):
        pass
    assert output.getvalue() == said


def test_a_command_at_work_shows_it_on_a_terminal() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=80)
    with script.working(console, "reading [1]") as progress:
        time.sleep(0.2)
        progress("counting")
        time.sleep(0.2)
    assert "reading [1]" in output.getvalue()
    assert "counting" in output.getvalue()


def test_working_ends_where_the_work_fails() -> None:
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match="no"), script.working(Console(file=io.StringIO()), "reading"):
        raise ConfigError("no")
    assert set(threading.enumerate()) <= before, "fewer are possible: what an earlier test started may end meanwhile"


@pytest.mark.parametrize(("cause", "status"), [(KeyboardInterrupt(), 130), (OSError("broken"), 2), (None, 2)])
def test_a_run_that_ctrl_c_ended_has_the_status_of_ctrl_c(
    cause: BaseException | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(argv: list[str]) -> int:
        raise IncompleteRunError("3 of 10 samples are finished", samples=3) from cause

    with pytest.raises(SystemExit) as caught:
        run_script(ended, [])
    assert caught.value.code == status
    assert "3 of 10 samples are finished" in capsys.readouterr().err


def test_zoo_lists_networks_shows_cards_and_gives_one_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fsnn_lava.cli import run, zoo

    monkeypatch.setattr(zoo, "console", Console(width=200))
    assert zoo.main([]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"digits +│ 200 \(F200\)", shown)
    assert "run --zoo NAME --backend simulator" in shown
    assert zoo.main(["digits"]) == 0
    card = capsys.readouterr().out
    assert "--training.arithmetic integer" in card
    right = re.search(r"accuracy in integers ([0-9.]+%) \(", card)
    assert right is not None
    with pytest.raises(ConfigError, match='zoo: found no network "other"; allowed: '):
        zoo.main(["other"])
    assert run.main(["--zoo", "digits", "--runs", str(tmp_path), "--backend", "simulator"]) == 0
    assert f"accuracy {right[1]} on test samples: all 360" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"found --run .* and --zoo digits; allowed: one of them"):
        run.main(["--zoo", "digits", "--run", str(tmp_path / "zoo-digits"), "--backend", "simulator"])
