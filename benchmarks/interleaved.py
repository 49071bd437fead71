"""Times of several calls, taken in turns, so that a busy machine is equally busy for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved_medians(
    calls: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 2
) -> dict[str, float]:
    """Median duration of each call in seconds; one call of each, then the next of each, and so on.

    Parameters
    ----------
    repeats : how often each is timed.
    warm_up : rounds before the first that is timed.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warm_up):
        for call in calls.values():
            call()
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}
