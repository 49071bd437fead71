"""Random numbers that several processes draw alike for a batch that they share."""

from __future__ import annotations

import torch


class SharedGenerator(torch.Generator):
    """A generator whose numbers are drawn for a whole batch, of which this process keeps its rows.

    Attributes
    ----------
    rows : this process's rows of the batch.
    total : samples in the whole batch.
    """

    rows: slice
    total: int


def shared_generator(device: torch.device, *, seed: int, rows: slice, total: int) -> SharedGenerator:
    """A seeded generator on a device, for `rows` of `total` samples."""
    generator = SharedGenerator(device)
    generator.manual_seed(seed)
    generator.rows, generator.total = rows, total
    return generator
