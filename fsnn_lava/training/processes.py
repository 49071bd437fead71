"""Several processes that train one network, started by ``torchrun``: who am I, and what is the sum over all of us.

Each process takes its share of every batch. Random numbers are drawn for the whole batch by each, and it keeps those of
its share, so that the course of a training does not depend on the number of processes.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from fsnn_lava.errors import ConfigError


@dataclass(frozen=True)
class Ranks:
    """The processes of this training.

    Parameters
    ----------
    rank : number of this process, from 0; 0 alone writes.
    size : how many there are.
    local_rank : number of this process among those on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return which of `count` items are this process's: all shares follow one another and differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sums(self, values: Tensor) -> Tensor:
        """Sum over all processes, elementwise; the values themselves where there is one."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def largest(self, value: float, *, device: torch.device) -> float:
        """Return the largest of all processes' values."""
        found = torch.tensor(value, dtype=torch.float64, device=device)
        if self.size > 1:
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return float(found)

    def same_text(self, text: str) -> str:
        """Return the first process's text, in every process."""
        if self.size == 1:
            return text
        told = [text]
        distributed.broadcast_object_list(told)
        return told[0]


ALONE = Ranks()
"""One process."""


def ranks_of_environment() -> Ranks:
    """Find out who this process is, as torchrun says in RANK, WORLD_SIZE and LOCAL_RANK; without torchrun it is alone.

    Raises
    ------
    ConfigError : one of them is missing or no number.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    found = {name: os.environ.get(name) for name in names}
    if found["WORLD_SIZE"] is None:
        return ALONE
    values = [value for value in found.values() if value is not None and value.isdecimal()]
    if len(values) < len(names):
        raise ConfigError(
            f"environment: found {found}; torchrun sets all three to numbers; start several processes with "
            "torchrun --nproc-per-node N train/train.py, or unset WORLD_SIZE"
        )
    rank, size, local_rank = map(int, values)
    return Ranks(rank, size, local_rank)


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Let the processes talk meanwhile: over NCCL on CUDA, over gloo on a CPU; a process alone needs neither."""
    if ranks.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield
    # Not after an error: it would wait for processes that wait for this one.
    _let_go(device)
    distributed.destroy_process_group()


def _let_go(device: torch.device) -> None:
    """Wait until gloo's threads hold no tensor that Python made.

    A thread that frees one needs Python's lock, which `destroy_process_group` keeps while it waits for the thread. So
    the last messages are of tensors that are still held here, and between them the lock is free.
    """
    held = [torch.zeros(1, device=device) for _ in range(8)]
    for tensor in held:
        distributed.all_reduce(tensor)
        time.sleep(0.005)


@torch.no_grad()
def average(tensors: Sequence[Tensor], ranks: Ranks) -> None:
    """Average every tensor over all processes, in place, by one message for all of them."""
    if ranks.size == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    parts = (flat / ranks.size).split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
