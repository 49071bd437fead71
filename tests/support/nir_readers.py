"""Other tools that read NIR, in an environment of their own: made once, kept in the user's cache, run as a program.

They are installed without what they depend on, beside the torch, NumPy and nir of the environment that runs the tests.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from filelock import FileLock

PACKAGES = ("norse==1.1.0", "sinabs==3.1.3", "snntorch==1.0.0", "nirtorch==2.6", "pbr==7.1.3")
"""pbr is what Sinabs asks for its version. Sinabs's own limit, nir<=1.0.4, is not kept."""
_UNREACHABLE = ("connection", "max retries", "timed out", "name resolution", "no matching distribution")


def readers_python() -> Path:
    """Python of the environment with the tools; the test is skipped where the package index cannot be reached."""
    base = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    key = hashlib.sha256(repr((PACKAGES, sys.version, base)).encode()).hexdigest()[:12]
    folder = Path(platformdirs.user_cache_dir("fsnn-lava-tests", appauthor=False)) / f"nir-readers-{key}"
    python, done = folder / "bin" / "python", folder / "installed"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            path = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
            Path(path, "beside.pth").write_text("\n".join(dict.fromkeys(base)) + "\n")
            options = ["--no-deps", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
            asked = subprocess.run(
                [python, "-m", "pip", "install", *options, *PACKAGES], capture_output=True, text=True, timeout=280
            )
            if asked.returncode:
                said = asked.stderr.strip() or asked.stdout.strip()
                if any(word in said.lower() for word in _UNREACHABLE):
                    pytest.skip(f"the package index does not give {', '.join(PACKAGES)}: {said.splitlines()[-1]}")
                raise AssertionError(said)
            done.touch()
    return python


def run_program(program: str | Path, folder: Path, *arguments: str) -> None:
    """Run a program of the environment in a folder; it must not fail."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [readers_python(), program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=280)
    assert done.returncode == 0, done.stderr


def run_in_readers(jobs: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Answers of `run_nir_readers` to jobs with ``tool``, ``variant``, ``graph``, ``inputs`` and ``steps``."""
    listed = []
    for i, job in enumerate(jobs):
        given = folder / f"inputs-{i}.npz"
        np.savez(given, inputs=job["inputs"], steps=job["steps"])
        paths = {"graph": str(job["graph"]), "inputs": str(given), "out": str(folder / f"out-{i}.npz")}
        listed.append({"tool": job["tool"], "variant": job["variant"], **paths})
    (folder / "jobs.json").write_text(json.dumps(listed))
    run_program(Path(__file__).with_name("run_nir_readers.py"), folder, "jobs.json")
    answers = []
    for entry in listed:
        with np.load(entry["out"]) as answer:
            answers.append(dict(answer))
    return answers
