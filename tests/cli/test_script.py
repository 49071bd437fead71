"""How scripts end."""

from pathlib import Path

import pytest
from rich.console import Console

from fsnn_lava.cli.script import command_line, run_script, show_next
from fsnn_lava.errors import ConfigError


def ending(main: object, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_script(main)  # type: ignore[arg-type]
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
    assert command_line("verify") == shown
