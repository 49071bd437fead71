"""README says what is: its commands parse, the files it names exist, its tables are the stored results'."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import tyro

import fsnn_lava
from benchmarks.deployment import on_hardware
from script_loader import ROOT, load_script, script_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted({line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    python ")} - {""})


def test_readme_shows_the_four_commands_of_the_data_path():
    shown = {shlex.split(command)[1] for command in COMMANDS}
    assert {"train/train.py", "deploy/export.py", "deploy/run.py", "deploy/verify.py"} <= shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_the_readme_parses(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    module, options = script_of(command)
    if "--resume" in options:  # resuming reads the run: give it one
        options[options.index("--resume") + 1] = str(_a_run(module, tmp_path))
    parse = getattr(module, "parse_arguments", None)
    arguments = parse(options) if parse else tyro.cli(module.Arguments, args=options)
    assert isinstance(arguments, module.Arguments)


def _a_run(train: ModuleType, folder: Path) -> Path:
    settings = ["--training.epochs", "1", "--network.notation", "8 (F8)", "--network.time-steps", "2"]
    assert train.main([*settings, "--runs", str(folder), "--name", "short"]) == 0
    return folder / "short"


def test_an_option_that_does_not_exist_would_be_noticed():
    with pytest.raises(SystemExit):
        tyro.cli(load_script("deploy/run.py").Arguments, args=["--backend", "abacus"])


def test_make_targets_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_files_named_in_the_readme_exist():
    named = re.findall(r"\b((?:docs|deploy|train|benchmarks|notebooks)/[\w./-]*)", README)
    assert named
    for name in named:
        assert (ROOT / name.rstrip(".")).exists(), name


def test_deployment_table_is_the_stored_one():
    kept = json.loads(on_hardware.RESULT.read_text(encoding="utf-8"))
    shown = re.search(r"<!-- deployment: [^\n]*-->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1) == on_hardware.deployment_table(kept).markdown()
    assert set(kept) == set(on_hardware.CONFIGS)
    assert all(row["lava_identical"] and row["stock_identical"] for row in kept.values())
    assert all(row["lowered_unexplained"] == 0 for row in kept.values())


def test_changelog_names_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "Unreleased" in changelog or fsnn_lava.__version__ in changelog
