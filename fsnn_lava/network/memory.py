"""Whether a network fits the machine: estimated before it is allocated, and said in words if memory runs out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fsnn_lava.config import TrainConfig, parse_spec
from fsnn_lava.errors import ConfigError

TRAINING_COPIES = 3
"""What a training holds of each parameter: its value, its gradient and its momentum, in float32."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_memory(config: TrainConfig, input_shape: tuple[int, ...], classes: int, *, copies: int = 1) -> None:
    """Raise if the parameters alone need more memory than the machine has; nothing is allocated.

    Parameters
    ----------
    input_shape : of one sample.
    classes : how many.
    copies : arrays of the size of the parameters that are held at a time.

    Raises
    ------
    ConfigError : with the memory that they need.
    SpecError : the notation does not fit the input.
    """
    network = config.network
    count = parse_spec(network.notation).parameters(input_shape, classes, pooling=network.pooling)
    needed, there = 4 * copies * count, machine_memory()
    if needed > there:
        raise ConfigError(
            f'network.notation: found "{network.notation}" with {count:,} parameters, which need '
            f"{needed / 2**30:,.1f} GiB ({copies} x 4 bytes each); allowed: what fits the {there / 2**30:,.1f} GiB of "
            "this machine; choose smaller layers"
        )


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or the limit of its container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit ("max")
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return memory


@contextlib.contextmanager
def memory_errors_named() -> Iterator[None]:
    """Turn what Python, torch's allocators and CUDA raise when memory runs out into a ConfigError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        raise ConfigError(
            f"memory ran out: {text.splitlines()[0] if text else 'found none left'}; choose a smaller "
            "training.batch_size or smaller layers in network.notation"
        ) from error
