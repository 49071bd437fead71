"""Arrays in memory that several processes map: how a worker and Lava's processes exchange more than a few numbers.

Lava moves the contents of a `Var` one element per message. Here whoever asks for a run makes the memory, and the
worker, whose children inherit it, maps it by its file descriptor. `sample_ring` and `learning.memory` lay it out.
"""

import mmap
import os
from collections.abc import Mapping
from math import prod
from typing import Generic, TypeVar

import numpy as np

from fsnn_lava.hardware import Array

Kind = tuple[tuple[int, ...], np.dtype[np.generic]]
"""Shape and type of an array."""
Key = TypeVar("Key")

_ALIGNMENT = 64


class SharedArrays(Generic[Key]):
    """Arrays one behind the other, zero at first.

    Parameters
    ----------
    layout : key -> shape and type, in the order in which they lie in memory.
    descriptor : file descriptor of the memory; None makes a new one.
    """

    def __init__(self, layout: Mapping[Key, Kind], descriptor: int | None) -> None:
        size = sum(aligned_bytes(kind) for kind in layout.values())
        if descriptor is None:
            descriptor = os.memfd_create("fsnn-lava")
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        memory = mmap.mmap(descriptor, size)
        self.arrays: dict[Key, Array] = {}
        offset = 0
        for key, (shape, dtype) in layout.items():
            self.arrays[key] = np.frombuffer(memory, dtype, prod(shape), offset).reshape(shape)
            offset += aligned_bytes((shape, dtype))

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the arrays."""
        os.close(self.descriptor)


def aligned_bytes(kind: Kind) -> int:
    """Bytes that an array takes, filled up to a cache line."""
    shape, dtype = kind
    return -(-prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
