"""What --help says of a command's options: every docstring in one piece, one default at most."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsnn_lava import cli
from fsnn_lava.cli.options import read_options


def help_of(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What --help prints where the terminal is so wide that no line needs a break."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"fsnn_lava.cli.{command.replace('-', '_')}").main(["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def options_of(text: str) -> dict[str, list[str]]:
    """Option -> the lines that say what it does; groups of options have a title each, further to the left."""
    options: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        if re.match(r" {2}--?[a-z]", line):
            name, *rest = re.split(r"\s{2,}", line.strip(), maxsplit=1)
            options[name] = rest
        elif re.match(r" \S", line):
            name = None
        elif name and line.strip():
            options[name].append(line.strip())
    return options


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_is_explained_in_one_piece_with_one_default_at_most(command, monkeypatch, capsys):
    text = help_of(command, monkeypatch, capsys)
    assert "None" not in text
    options = options_of(text)
    assert len(options) >= (1 if command in ("configs", "zoo") else 6)
    for name, lines in options.items():
        assert len(lines) == 1, f"{name} is explained in pieces: {lines}"
        assert lines[0].count("default:") <= 1, f"{name} has two defaults: {lines}"


def test_texts_of_nested_and_inherited_settings_are_shown_whole(monkeypatch, capsys):
    text = help_of("train", monkeypatch, capsys)
    assert "of all weights as one vector (SPIDE as published; at least as large as that of the matrix). (def" in text
    assert "Where run folders are. (default: runs)" in text
    assert "[{None}|STR]" not in help_of("configs", monkeypatch, capsys)


@dataclass(frozen=True)
class _Few:
    folder: Path | None = None
    """Where to look;
    default: here."""
    counts: tuple[int, ...] = (1, 2)
    """How many."""


def test_what_is_read_is_as_before():
    def read(*argv: str, **default: _Few) -> _Few:
        return read_options(_Few, argv, command="run", description="A.\n\nB.", **default)

    assert read() == _Few()
    assert read("--folder", "None", "--counts", "3") == _Few(None, (3,))
    assert read("--counts", "3", default=_Few(Path("there"))) == _Few(Path("there"), (3,))
    with pytest.raises(SystemExit):
        read("--folders", "x")
