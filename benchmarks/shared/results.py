"""Where measured figures are kept, which documents show them, and which tree gave them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
README, BENCHMARKS_README = ROOT / "README.md", ROOT / "benchmarks" / "README.md"
"""The documents whose tables are made from kept figures."""
RESULTS = ROOT / "benchmarks" / "results"


def stored(path: Path) -> Any:
    """Read a JSON file; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def commit(tree: Path = ROOT) -> str:
    """Name the tree's commit, with "-dirty" if its code was changed since; "unknown" outside a repository.

    Changed documents and results are no change of the code.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(("git", *arguments), capture_output=True, text=True, cwd=tree, check=False)
        return done.stdout.strip()

    found = git("rev-parse", "--short=7", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "*.toml")
    return (f"{found}-dirty" if changed else found) if re.fullmatch("[0-9a-f]+", found) else "unknown"
