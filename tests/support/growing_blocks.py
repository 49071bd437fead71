"""An iteration whose memory is known, in a file of its own: a fresh process imports what it runs by name."""

import numpy as np

from benchmarks.shared.memory import peak_increment

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
