"""What a benchmark says of memory is what an iteration holds at most, not what the allocator keeps."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from common.memory import in_own_process, peak_increment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of a process")
BLOCK, SMALL = 2**20, 2**12
BLOCKS = 24


def peak_of_growing_blocks() -> float:
    """MiB of an iteration that keeps blocks, beside a growing one too large for the hole that the one before left.

    Before it, as much was held and given back below a small block that stays, and a higher peak was reached.
    """
    np.ones(4 * BLOCKS * BLOCK, np.uint8)
    np.ones(31 * BLOCK, np.uint8)  # from then on glibc keeps blocks up to that size when they are freed
    earlier = [np.ones(BLOCK, np.uint8) for _ in range(2 * BLOCKS)]
    stays = [np.ones(SMALL, np.uint8)]
    earlier.clear()

    def iterate() -> None:
        kept = []
        for number in range(1, BLOCKS + 1):
            growing = np.ones(number * BLOCK, np.uint8)
            kept.append(np.ones(BLOCK, np.uint8))
            del growing

    found = peak_increment(iterate)
    assert stays
    return found


def test_peak_is_of_what_is_held_at_once_and_not_of_what_was_freed() -> None:
    # All of the kept blocks and the largest of the others. Pages and Python itself take some hundred KiB.
    assert in_own_process(peak_of_growing_blocks) == pytest.approx(2 * BLOCKS * BLOCK / 2**20, abs=1)
