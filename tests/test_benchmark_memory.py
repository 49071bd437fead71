"""What a benchmark says of memory is what an iteration holds at most, not what the allocator keeps."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from common.memory import in_own_process, peak_increment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of a process")
SIZE = 32 * 2**20
SMALL = 256 * 2**10


def peak_of(blocks: int, size: int) -> float:
    """MiB, by `peak_increment`, of an iteration that holds that many blocks at once, between others soon freed."""

    def iterate() -> None:
        kept, others = [], []
        for _ in range(blocks):
            kept.append(np.ones(size, np.uint8))
            others.append(np.ones(size, np.uint8))
            others.pop()
        kept.clear()

    return peak_increment(iterate)


@pytest.mark.parametrize(("blocks", "size"), [(4, SIZE), (400, SMALL)])
def test_peak_is_that_of_the_blocks_held_at_once(blocks: int, size: int) -> None:
    found = in_own_process(peak_of, blocks, size)
    # One block more, since the last of the others is made beside the kept ones; pages and Python itself take some KiB.
    assert found == pytest.approx((blocks + 1) * size / 2**20, rel=0.02, abs=0.5)
