"""Peak memory of a training iteration, measured in a process of its own."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

MIB = 2**20
_MMAP_THRESHOLD = -3
"""glibc's number of that setting."""
_Result = TypeVar("_Result")


def peak_increment(iterate: Callable[[], None], *, device: str = "cpu") -> float:
    """MiB by which the peak of a later iteration exceeds what is held before it.

    Parameters
    ----------
    iterate : one training iteration; a first call, which allocates what stays (momenta, code), is not measured.
    device : cpu: resident memory of this process, from Linux, glibc being told to keep none of what is freed, as the
        holes between kept blocks would hide or double the figure (time is to be measured elsewhere); cuda: memory that
        torch allocated.
    """
    if device != "cpu":
        iterate()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        iterate()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - allocated) / MIB
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_MMAP_THRESHOLD, 2**16)  # every larger block goes back to the system when it is freed, none is kept
    iterate()
    glibc.malloc_trim(0)  # nor is memory that was freed earlier held now
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = resident()
    iterate()
    return resident(peak=True) - before


def in_own_process(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Run a function, defined in a module, in a fresh process: nothing measured before is held there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def resident(*, peak: bool = False) -> float:
    """MiB of memory that this process holds now, or has held at most."""
    field = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
