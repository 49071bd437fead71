"""Pictures that are the same each time they are drawn from the same figures, and say which figures these are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fsnn_lava.verification import require_matplotlib


def drawn_from(drawn: Any, *, what: str) -> str:
    """Name the figures that a picture was drawn from, given what is kept of them in JSON."""
    return f"drawn from {what} {hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()}"


def new_figure(salt: str, *, size: tuple[float, float]) -> Any:
    """An empty matplotlib figure of that size in inches; `salt` makes the names inside its file the same each time.

    Raises
    ------
    MissingDependencyError : if matplotlib is absent.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": salt, "svg.fonttype": "none"}

    return Figure(figsize=size, layout="constrained")


def save_figure(figure: Any, path: Path, *, says: str) -> None:
    """Write the picture, with what it says of itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Description": says})
