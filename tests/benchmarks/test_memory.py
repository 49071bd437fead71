"""What a benchmark says of memory is what an iteration holds at most, not what the allocator keeps."""

import sys

import pytest

from benchmarks.shared.memory import in_own_process
from growing_blocks import BLOCK, BLOCKS, peak_of_growing_blocks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of a process")


def test_peak_is_of_what_is_held_at_once_and_not_of_what_was_freed() -> None:
    # All of the kept blocks and the largest of the others. Pages and Python itself take some hundred KiB.
    assert in_own_process(peak_of_growing_blocks) == pytest.approx(2 * BLOCKS * BLOCK / 2**20, abs=1)
