"""What a figure of speed was measured on, and beside what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import torch

from benchmarks.shared.results import commit
from fsnn_lava.network import device_title


def conditions() -> dict[str, Any]:
    """Describe the machine, how busy it is now, the threads of products of matrices, the tree's commit and the time."""
    return {
        "cpu": device_title(torch.device("cpu")),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "at": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def condition_line(found: Mapping[str, Any]) -> str:
    """Write the same in words."""
    return (
        f"{found['cpu']}, {found['cores']} cores, load average {found['load']} before, "
        f"{found['threads']} threads for products of matrices, commit {found['commit']}, {found['at']}."
    )
