"""The house: pyproject.toml's import contracts can fail, imports load nothing they should not, folders stay small."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fsnn_lava"
HEAVY = {"torch", "lava", "nir", "numpy", "sklearn", "numba", "tonic", "PIL", "tensorboard"}

# One import that each contract forbids: file below the package, line appended to it.
FORBIDDEN = {
    "Imports only go down": ("errors.py", "import fsnn_lava.files"),
    "Files do not import each other in rings": ("hardware/geometry.py", "import fsnn_lava.hardware.linear_maps"),
    "Training works without Lava": ("kernels/compile.py", "import torch"),
    "Each outside package is named in one room": ("training/loop.py", "import lava.magma"),
    "Others use config": ("training/metrics.py", "import fsnn_lava.config.settings"),
    "Others use datasets": ("training/metrics.py", "import fsnn_lava.datasets.samples"),
    "Others use files": ("training/metrics.py", "import fsnn_lava.files.run_folder"),
    "Others use hardware": ("training/metrics.py", "import fsnn_lava.hardware.network"),
    "Others use network": ("training/metrics.py", "import fsnn_lava.network.neuron"),
    "Others use quantization": ("cli/script.py", "import fsnn_lava.quantization.rounding"),
    "Others use training": ("cli/script.py", "import fsnn_lava.training.loop"),
    "Others use conversion": ("cli/script.py", "import fsnn_lava.conversion.lowering"),
    "Others use verification": ("cli/script.py", "import fsnn_lava.verification.report"),
    "Others use the backends": ("training/metrics.py", "import fsnn_lava.backends.registry"),
}


def _verdicts(folder: Path) -> dict[str, str]:
    """Contract -> KEPT or BROKEN, for the package in that folder."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    program = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(folder)})
    words = " ".join(done.stdout.split())
    return {name: verdict for name in FORBIDDEN for verdict in re.findall(rf"{name}.*?(KEPT|BROKEN)", words)[:1]}


def test_every_import_contract_can_fail(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "fsnn_lava", ignore=shutil.ignore_patterns("__pycache__"))
    assert _verdicts(tmp_path) == dict.fromkeys(FORBIDDEN, "KEPT")
    for file, line in FORBIDDEN.values():
        with (tmp_path / "fsnn_lava" / file).open("a") as source:
            source.write(f"{line}\n")
    assert _verdicts(tmp_path) == dict.fromkeys(FORBIDDEN, "BROKEN")


def _loaded(*modules: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after importing the modules."""
    program = "import sys; " + "".join(f"import {m}; " for m in modules)
    program += "print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _modules(*folders: str) -> list[str]:
    paths = [path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py"))]
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert dotted
    return dotted


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded("fsnn_lava") & HEAVY == set()


def test_what_lava_needs_loads_no_torch() -> None:
    names = [*_modules("config", "datasets", "files", "hardware", "kernels", "backends/simulator")]
    names += ["fsnn_lava.backends.lava.runner", "fsnn_lava.conversion.export_folder"]
    assert _loaded(*names) & {"torch", "lava", "nir", "sklearn", "tonic", "PIL"} == set()


def test_training_loads_no_lava() -> None:
    loaded = _loaded(*_modules("network", "training"))
    assert "torch" in loaded
    assert loaded & {"lava", "nir"} == set()


@pytest.mark.lava
def test_what_runs_in_lava_loads_no_torch() -> None:
    loaded = _loaded(*_modules("backends/lava"))
    assert "lava" in loaded
    assert "torch" not in loaded


def test_folders_are_small_enough_to_read() -> None:
    def entries(folder: Path) -> int:
        return sum(entry.name != "__pycache__" for entry in folder.iterdir())

    folders = [PACKAGE, *(f for f in PACKAGE.rglob("*") if f.is_dir() and "__pycache__" not in f.parts)]
    limits = {folder: 16 if folder == PACKAGE else 14 for folder in folders}
    assert {str(f.relative_to(ROOT)): entries(f) for f in folders if entries(f) > limits[f]} == {}
