"""README says what is: its commands parse, the files it names exist, its tables are the stored results'."""

import importlib
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import tyro

import fsnn_lava
from benchmarks.deployment import on_hardware
from fsnn_lava import cli
from fsnn_lava.cli import run
from fsnn_lava.cli.script import SCRIPTS as SCRIPT_OF
from fsnn_lava.config import read_config, topology_of
from script_loader import ROOT, script_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

README = (ROOT / "README.md").read_text(encoding="utf-8")
STARTS = ("    fsnn ", "    python ", "    torchrun ")
COMMANDS = sorted({line.split("#")[0].strip() for line in README.splitlines() if line.startswith(STARTS)})


def test_readme_shows_every_command():
    shown = {script_of(command)[0].__name__ for command in COMMANDS}
    assert {f"fsnn_lava.cli.{name.replace('-', '_')}" for name in cli.COMMANDS} <= shown


def test_readme_names_every_script():
    assert all(path in README and (ROOT / path).is_file() for path in SCRIPT_OF.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_the_readme_parses(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    module, options = script_of(command)
    for option in {"--resume", "--from"} & set(options):  # both read the run: give them one
        options[options.index(option) + 1] = str(_a_run(module, tmp_path))
    parse = getattr(module, "parse_arguments", None)
    arguments = parse(options) if parse else tyro.cli(module.Arguments, args=options)
    assert isinstance(arguments, module.Arguments)


def _a_run(train: ModuleType, folder: Path) -> Path:
    settings = ["--training.epochs", "1", "--network.notation", "8 (F8)", "--network.time-steps", "2"]
    assert train.main([*settings, "--runs", str(folder), "--name", "short"]) == 0
    return folder / "short"


def test_an_option_that_does_not_exist_would_be_noticed():
    with pytest.raises(SystemExit):
        tyro.cli(run.Arguments, args=["--backend", "abacus"])


def test_make_targets_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_a_change_is_merged_after_the_quick_and_the_slow_tests():
    """Neither half leaves out what the other does."""
    commands = re.findall(r"^make .*", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["make lint", "make test", "make test-slow"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^(.+): .*\n\t@echo .*\n\t@\$\(PYTEST\)(.*)", makefile, re.MULTILINE) == [
        ("test", ' --no-loadscope-reorder -m "not slow"'),
        ("test-slow", " -m slow"),
    ]


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_named_in_documents_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*|\w+\.md)`|\b((?:[\w.-]+/)*\w+\.py)\b", text)
    folders = (ROOT, ROOT / document.rpartition("/")[0], ROOT / "fsnn_lava", ROOT / "tests" / "whole")
    made = ("runs/", "mnist/", "fashion-mnist/", "cifar-", "cifar10-", "nmnist", "cifar10_dvs/")  # by a user
    assert named or document == "docs/glossary.md"
    for name in (quoted or script for quoted, script in named):
        found = [path for folder in folders for path in (*folder.glob(name.rstrip("/")), *folder.glob(f"{name}.*"))]
        assert found or name.startswith(made), name


CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
FLOORS = [floor.split(" | ") for floor in CONTRACTS[0]["layers"] if not floor.startswith("(")]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def _rows(text: str, columns: int) -> list[list[str]]:
    """The cells of all Markdown tables of so many columns, heads and rules left out."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns]


def test_contributing_names_every_package_on_its_floor_in_its_own_words():
    rows = _rows((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), 3)[1:]
    names = [name for floor in FLOORS for name in floor]
    assert [name for _, name, _ in rows] == [f"`{name}`" for name in names]
    assert [int(floor) for floor, _, _ in rows] == [
        len(FLOORS) - 1 - floor for floor, names in enumerate(FLOORS) for _ in names
    ]
    assert {name: words for _, name, words in rows} == {
        f"`{name}`": inspect.getdoc(importlib.import_module(f"fsnn_lava.{name}")).splitlines()[0] for name in names
    }


def test_architecture_shows_the_contracts_floors():
    shown = re.search(r"never one above or beside it:\n\n(.*?)\n\n", ARCHITECTURE, re.DOTALL)
    assert [line.split() for line in shown.group(1).splitlines()] == FLOORS


def test_architecture_names_what_the_packages_offer():
    faces = {r[0].strip("`"): re.findall(r"`(\w+)`", r[1]) for r in _rows(ARCHITECTURE.split("## The faces")[1], 2)}
    del faces["package"]
    assert list(faces) == [name for floor in FLOORS for name in floor]
    for package, names in faces.items():
        face = importlib.import_module(f"fsnn_lava.{package}")
        assert set(names) <= set(dir(face)), package


def test_networks_of_the_page_on_graphs_are_read_and_its_program_trains(tmp_path):
    """Each indented block, as a file; what is read of it has shapes for an image of MNIST's size."""
    page = (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(b) for b in re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)]
    networks = [b for b in blocks if "[[network.connections]]" in b]
    assert len(networks) == 2
    for number, text in enumerate(networks):
        (tmp_path / f"{number}.toml").write_text(text)
        assert topology_of(read_config(tmp_path / f"{number}.toml").network, (1, 28, 28)).feedback
    (program,) = [b for b in blocks if "fsnn.train(" in b]
    names = {}
    exec(program, names)
    assert names["trained"].config.network.connections == names["loop"]


def test_glossary_is_sorted_and_defines_each_word_once():
    _, *sections = re.split("^## ", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [section.splitlines()[0] for section in sections] == ["Quantities", "From the literature", "House words"]
    words = []
    for section, columns in zip(sections, (3, 2, 2), strict=True):
        first = [row[0].replace("`", "").casefold() for row in _rows(section, columns)[1:]]
        assert len(first) >= 9
        assert first == sorted(first)
        words += first
    assert len(words) == len(set(words))


def test_deployment_table_is_the_stored_one():
    kept = json.loads(on_hardware.RESULT.read_text(encoding="utf-8"))
    shown = re.search(r"<!-- deployment: [^\n]*-->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert shown.group(1) == on_hardware.deployment_table(kept).markdown()
    assert set(on_hardware.CONFIGS) <= set(kept) <= {*on_hardware.ZOO, *on_hardware.CONFIGS}
    assert all(row["lava_identical"] and row["stock_identical"] for row in kept.values())
    assert all(kept[name]["lowered_unexplained"] == 0 for name in on_hardware.CONFIGS)


def test_changelog_names_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "Unreleased" in changelog or fsnn_lava.__version__ in changelog
