"""The house of CONTRIBUTING.md, enforced: who may import whom, where optional packages are, how long code may be.

The rules look at sources, so each is also shown to fail on sources made up for it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from house import BACKEND_FILES, FLOORS, HOMES, LOADS_BY_NAME

ROOT = Path(__file__).parent.parent
PACKAGE = "fsnn_lava"
SCRIPTS = ("train", "deploy", "benchmarks")

FILE_LINES = 400
FUNCTION_LINES = 50

Sources = Mapping[str, str]
Rule = Callable[[Sources], list[str]]


@dataclass(frozen=True)
class Place:
    wing: str
    floor: int
    position: int
    entry: str


def _matches(name: str, entry: str) -> bool:
    return name == entry or (entry.endswith(".*") and f"{name}.".startswith(entry[:-1]))


def _place(name: str) -> Place | None:
    for wing, floor, row in FLOORS:
        for position, entry in enumerate(row):
            if _matches(name, entry):
                return Place(wing, floor, position, entry)
    return None


def _package_sources() -> dict[str, str]:
    """Source of every file below the package, by dotted name; the package itself is ``__init__``."""
    sources = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path.read_text("utf-8")
    return sources


def _script_sources() -> dict[str, str]:
    paths = [path for folder in SCRIPTS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths}


# ---- imports, wherever they stand --------------------------------------------------------------------------


def _imports(source: str) -> Iterator[str]:
    """Dotted targets of all imports, those inside functions too; "." starts a relative one, "?" is a computed name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _loads(node.func):
            named = bool(node.args) and isinstance(node.args[0], ast.Constant)
            yield str(node.args[0].value) if named else "?"  # type: ignore[attr-defined]


def _loads(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _inner_imports(name: str, sources: Sources) -> Iterator[str]:
    """Names of the package's own files that a file imports."""
    for target in _imports(sources[name]):
        if target != PACKAGE and not target.startswith(f"{PACKAGE}."):
            continue
        inner = target.removeprefix(PACKAGE).removeprefix(".")
        while inner not in sources and inner:
            inner = inner.rpartition(".")[0]  # the tail is something defined in the file
        if inner:
            yield inner


# ---- the rules: each gives the list of its violations --------------------------------------------------------


def unplaced(sources: Sources) -> list[str]:
    """Files that no floor names."""
    return [f"{name}: not in the table of floors" for name in sources if name != "__init__" and _place(name) is None]


def climbing(sources: Sources) -> list[str]:
    """Rules 1 and 2: imports that climb a floor, go right on their own, or cross to the other wing."""
    found = []
    for name in sources:
        here = _place(name)
        for target in _inner_imports(name, sources):
            there = _place(target)
            if name == "__init__":
                found.append(f"{name} imports {target}: the package's __init__ imports nothing")
            elif here and there and not _may_import(here, there):
                found.append(f"{name} ({here.wing} {here.floor}) imports {target} ({there.wing} {there.floor})")
    return found


def _may_import(here: Place, there: Place) -> bool:
    if here.entry == there.entry:
        return here.entry.endswith(".*")
    if here.wing not in (there.wing, "bridge") and there.wing != "contracts":
        return False
    return (there.floor, there.position) < (here.floor, here.position)


def rings(sources: Sources) -> list[str]:
    """Rule 1: files that import themselves by way of others."""
    graph = {name: set(_inner_imports(name, sources)) - {name} for name in sources}
    reached = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    return [f"{name}: imports itself by way of {sorted(graph[name])}" for name in graph if name in reached[name]]


def hidden(sources: Sources) -> list[str]:
    """Rules 1 and 5: relative imports, and names that only a run can tell."""
    found = []
    for name, source in sources.items():
        targets = list(_imports(source))
        found += [f"{name}: relative import {t}" for t in targets if t.startswith(".")]
        found += [f"{name}: imports a computed name" for t in targets if t == "?" and name != LOADS_BY_NAME]
    return found


def prying_backends(sources: Sources) -> list[str]:
    """Rule 3: backends that see a config, a checkpoint or another backend."""
    owners = {name: owner for name in sources if (owner := _backend(name))}
    found = [
        f"{name}: belongs to no backend" for name in sources if name.startswith("backends.") and name not in owners
    ]
    for name, owner in owners.items():
        for target in _inner_imports(name, sources):
            if target in ("config", "checkpoint", "samples", "data", "spec") or owners.get(target, owner) != owner:
                found.append(f"{name}: backend {owner} imports {target}")
    return found


def _backend(name: str) -> str | None:
    return next((o for o, entries in BACKEND_FILES.items() if any(_matches(name, entry) for entry in entries)), None)


def homeless(sources: Sources) -> list[str]:
    """Rules 2 and 4: packages imported outside their home."""
    found = []
    for name, source in sources.items():
        place = _place(name)
        for target in _imports(source):
            homes = HOMES.get(target.partition(".")[0])
            if homes is None or (place and place.wing in homes) or any(_matches(name, home) for home in homes):
                continue
            found.append(f"{name}: imports {target}; allowed in {', '.join(homes) or 'no file'}")
    return found


def imported_scripts(sources: Sources) -> list[str]:
    """The roof: scripts that somebody imports."""
    stems = {Path(name).stem for name in sources if name.endswith(".py")} | set(SCRIPTS)
    return [
        f"{name}: imports the script {target}"
        for name, source in sources.items()
        for target in _imports(source)
        if target.lstrip(".").partition(".")[0] in stems
    ]


def too_long(sources: Sources) -> list[str]:
    """Files of 400 lines or more; functions of 50 or more without their docstring."""
    found = []
    for name, source in sources.items():
        lines = len(source.splitlines())
        if lines >= FILE_LINES:
            found.append(f"{name}: {lines} lines; split it by responsibility below {FILE_LINES}")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _length(node) >= FUNCTION_LINES:
                found.append(f"{name}: {node.name} has {_length(node)} lines; allowed: below {FUNCTION_LINES}")
    return found


def _length(function: Any) -> int:
    first = function.body[0]
    doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return int(function.end_lineno - function.lineno + 1 - doc)


# ---- the house as it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [unplaced, climbing, rings, hidden, prying_backends, homeless, too_long])
def test_package_keeps(rule: Rule) -> None:
    assert rule(_package_sources()) == []


def test_scripts_are_thin_and_imported_by_nobody() -> None:
    scripts = _script_sources()
    assert too_long(scripts) == []
    assert imported_scripts({**_package_sources(), **scripts}) == []
    assert hidden(scripts) == []


def _loaded_packages(modules: list[str]) -> set[str]:
    """Top-level packages that a fresh interpreter holds after importing the modules."""
    program = (
        "import sys; " + "".join(f"import {m}; " for m in modules) + "print(*{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _dotted(name: str) -> str:
    return f"{PACKAGE}.{name}"


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded_packages([PACKAGE]) & {"torch", "lava", "nir", "numpy", "sklearn", "numba"} == set()


def test_numpy_wing_loads_neither_torch_nor_lava() -> None:
    outside = ("backends.lava_graph.*", "backends.lava_training.*", "backends.to_nir")
    names = [n for n in _package_sources() if (p := _place(n)) and p.wing in ("contracts", "numpy")]
    names = [n for n in names if not any(_matches(n, entry) for entry in outside)]
    assert {"ir", "quantize", "simulator", "backends"} <= set(names)
    assert _loaded_packages([_dotted(n) for n in names]) & {"torch", "lava", "nir", "sklearn", "tonic", "PIL"} == set()


def test_torch_wing_loads_no_lava() -> None:
    names = [n for n in _package_sources() if (p := _place(n)) and p.wing in ("contracts", "torch")]
    assert {"model", "training"} <= set(names)
    loaded = _loaded_packages([_dotted(n) for n in names])
    assert "torch" in loaded
    assert loaded & {"lava", "nir"} == set()


@pytest.mark.lava
def test_lava_graph_loads_no_torch() -> None:
    names = [n for n in _package_sources() if any(_matches(n, home) for home in HOMES["lava"])]
    assert names
    loaded = _loaded_packages([_dotted(n) for n in names])
    assert "lava" in loaded
    assert "torch" not in loaded


# ---- every rule can fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "sources", "violation"),
    [
        (unplaced, {"attic": ""}, "attic: not in the table of floors"),
        (climbing, {"spec": "import fsnn_lava.model", "model": ""}, "spec (contracts 1) imports model (torch 3)"),
        (climbing, {"model": "from fsnn_lava.training import fit", "training": ""}, "model (torch 3) imports training"),
        (climbing, {"model": "from fsnn_lava import training", "training": ""}, "model (torch 3) imports training"),
        (climbing, {"model": "def f():\n    import fsnn_lava.training", "training": ""}, "model (torch 3) imports"),
        (climbing, {"spec": "from fsnn_lava.config import read", "config": ""}, "spec (contracts 1) imports config"),
        (
            climbing,
            {"quantize": "from fsnn_lava.model import M", "model": ""},
            "quantize (numpy 2) imports model (torch",
        ),
        (climbing, {"training": "from fsnn_lava.bounds import b", "bounds": ""}, "training (torch 5) imports bounds"),
        (
            climbing,
            {"verify": "from fsnn_lava.lower import x", "lower": ""},
            "verify (numpy 4) imports lower (bridge 6)",
        ),
        (climbing, {"__init__": "import fsnn_lava.errors", "errors": ""}, "__init__ imports errors: the package's"),
        (
            rings,
            {"simulator.a": "from fsnn_lava.simulator.b import x", "simulator.b": "import fsnn_lava.simulator.a"},
            "simulator.a: imports itself by way of ['simulator.b']",
        ),
        (
            rings,
            {"ir": "def f():\n    from fsnn_lava.result import x", "result": "from fsnn_lava.ir import y"},
            "ir: imports itself by way of ['result']",
        ),
        (
            hidden,
            {"backends.lava_graph.build": "from .host import x"},
            "backends.lava_graph.build: relative import .host",
        ),
        (hidden, {"model": "import importlib\nimportlib.import_module(name)"}, "model: imports a computed name"),
        (hidden, {"model": "__import__('a' + 'b')"}, "model: imports a computed name"),
        (prying_backends, {"simulator": "import fsnn_lava.config", "config": ""}, "backend simulator imports config"),
        (
            prying_backends,
            {"backends.lava_runner": "from fsnn_lava.simulator import S", "simulator": ""},
            "backends.lava_runner: backend lava imports simulator",
        ),
        (prying_backends, {"backends.to_moon": ""}, "backends.to_moon: belongs to no backend"),
        (homeless, {"quantize": "import torch.nn"}, "quantize: imports torch.nn; allowed in torch, bridge"),
        (homeless, {"data": "from safetensors.torch import save_file"}, "data: imports safetensors.torch.save_file"),
        (
            homeless,
            {"backends.lava_runner": "def f():\n    import lava.magma"},
            "backends.lava_runner: imports lava.magma",
        ),
        (
            homeless,
            {"simulator": "import importlib as i\ni.import_module('lava.proc')"},
            "simulator: imports lava.proc",
        ),
        (homeless, {"lower": "import lava"}, "lower: imports lava; allowed in backends.lava_graph.*"),
        (homeless, {"backends.to_netx": "import nir"}, "backends.to_netx: imports nir; allowed in backends.to_nir"),
        (
            imported_scripts,
            {"model": "", "train/train.py": "", "deploy/run.py": "import train"},
            "imports the script train",
        ),
        (imported_scripts, {"model": "from deploy.export import main"}, "model: imports the script deploy.export.main"),
        (
            imported_scripts,
            {"deploy/run.py": "from export import x", "deploy/export.py": ""},
            "imports the script export.x",
        ),
        (too_long, {"model": "\n" * 400}, "model: 400 lines; split it"),
        (too_long, {"model": "def f():\n" + "    x = 1\n" * 49}, "model: f has 50 lines; allowed: below 50"),
    ],
)
def test_rule_can_fail(rule: Rule, sources: dict[str, str], violation: str) -> None:
    assert any(violation in found for found in rule(sources)), rule(sources)


def test_rules_let_the_allowed_pass() -> None:
    sources = {
        "errors": "",
        "ir": "import numpy\nfrom fsnn_lava.errors import NetworkError",
        "result": "from fsnn_lava.ir import Array",
        "model": "import torch\nfrom fsnn_lava.errors import FsnnError",
        "bounds": "from fsnn_lava.ir import Array",
        "quantize": "from fsnn_lava.bounds import prove",
        "simulator": "from fsnn_lava.simulator.integer import S",
        "simulator.integer": "from fsnn_lava.result import RunResult\nfrom fsnn_lava.bounds import b",
        "backends": "import importlib\nfrom fsnn_lava.ir import Array\nimportlib.import_module(name)",
        "lower": "import torch\nimport fsnn_lava\nfrom fsnn_lava.model import M\nfrom fsnn_lava.quantize import q",
        "training": 'def f():\n    """' + "doc\n" * 60 + '"""\n' + "    x = 1\n" * 48,
    }
    for rule in (unplaced, climbing, rings, hidden, prying_backends, homeless, too_long, imported_scripts):
        assert rule(sources) == [], rule.__name__
