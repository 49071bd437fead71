"""The wheel, installed into a new environment: the command fsnn does everything from an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from fsnn_lava import __version__
from fsnn_lava.config import published_configs
from fsnn_lava.files import CACHE_VARIABLE
from script_loader import ROOT

SMALL = ["--network.notation", "24 (F24)", "--network.time-steps", "8", "--training.epochs", "2"]

COMPARED = ["--backends", "simulator", "simulator-float"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel; nothing is fetched for it, since hatchling is one of the `dev` extras."""
    pytest.importorskip("hatchling", reason='needs hatchling: pip install -e ".[dev]"')
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it.

    Its dependencies are those of the environment that runs the tests: a folder named in a .pth file is searched for
    modules, but .pth files in it, such as that of an editable installation of this checkout, are not heeded.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *options, str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def started(environment: Path, *command: str, folder: Path) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables[CACHE_VARIABLE] = str(environment / "cache")
    variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"  # the environment is active
    program = str(environment / "bin" / command[0])
    done = subprocess.run([program, *command[1:]], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_configs_and_types_and_nothing_of_the_checkout(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "fsnn_lava/py.typed" in names
    configs = {Path(name).stem for name in names if name.startswith("fsnn_lava/config/published/")}
    assert configs == set(published_configs())
    assert {name.split("/")[0] for name in names} == {"fsnn_lava", f"fsnn_lava-{__version__}.dist-info"}


@pytest.fixture(scope="module")
def exported(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, empty before, in which a network was trained and exported."""
    folder = tmp_path_factory.mktemp("empty")
    shown = started(environment, "fsnn", "train", "--config", "digits", *SMALL, folder=folder)
    assert shown.splitlines()[-1] == "next: fsnn export --to lava --run runs/digits"
    shown = started(environment, "fsnn", "export", "--calibration-samples", "40", folder=folder)
    assert shown.splitlines()[-1] == "next: fsnn run --backend lava-fixed --run runs/digits"
    return folder


def test_the_command_and_the_module_are_those_of_the_wheel(environment: Path, tmp_path: Path) -> None:
    where = started(environment, "python", "-c", "import fsnn_lava; print(fsnn_lava.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    assert "mnist_conv_if" in started(environment, "fsnn", "configs", folder=tmp_path)
    module = started(environment, "python", "-m", "fsnn_lava", "--help", folder=tmp_path)
    assert module == started(environment, "fsnn", "--help", folder=tmp_path)


@pytest.mark.slow
def test_everything_runs_from_an_empty_folder(environment: Path, exported: Path) -> None:
    shown = started(environment, "fsnn", "run", "--backend", "simulator", folder=exported)
    assert shown.splitlines()[-1] == "next: fsnn verify --run runs/digits"
    started(environment, "fsnn", "verify", *COMPARED, "--samples", "40", folder=exported)
    report = json.loads((exported / "runs" / "digits" / "report.json").read_text())
    assert (report["agrees"], report["samples"]) == (True, 40)
    assert [path.name for path in exported.iterdir()] == ["runs"]
    (installed,) = environment.glob("lib/python*/site-packages/fsnn_lava")
    assert list(installed.rglob("*.nb[ci]")) == [], "compiled kernels are kept in the user's cache folder"
    assert list((environment / "cache").rglob("*.nbc"))


@pytest.mark.slow
@pytest.mark.lava
def test_lava_runs_from_the_wheel(environment: Path, exported: Path) -> None:
    """Its processes start without the checkout too."""
    assert "lava-fixed: 5 samples, T = 8" in started(environment, "fsnn", "run", "--samples", "5", folder=exported)
