"""Comparison of runs, pair by pair under a stated relation.

Relations
    exact        both runs are integer: every spike of every population, sample and step is the same.
    close        both runs are float, under the same delays: they differ by rounding, which can only flip spikes where
                 potential and threshold tie.
    statistical  one run is float and one integer, or the delays differ. In every population the mean difference of the
                 firing rates is at most 1/T, and less than half of the mean rate (a silent network would be off by all
                 of it); and both put at least 90 % of the samples into the same class. That is what theory lets one
                 expect, many times looser than the error of a sound export: a statement, on which no verdict rests.
                 `structure` and `rates` decide.

`report` shows them as Markdown and JSON; `agreement` explains single spikes of two float runs, `error_budget` takes the
total deviation apart.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fsnn_lava.errors import InputError
from fsnn_lava.hardware import Array, RunResult

Relation = Literal["exact", "close", "statistical"]

CLOSE_TOLERANCE = 1e-4
"""Largest mean rate difference, spikes per step, of two float runs: room for ties, not for another network."""
RATE_SHARE = 0.5
"""The mean rate difference of statistically equal runs is below this share of the larger mean rate."""
SAME_CLASS_SHARE = 0.9
"""Statistically equal runs put at least this share of the samples into the same class."""


@dataclass(frozen=True)
class Difference:
    """|a - b| of the firing rates of one population, spikes per step: mean and maximum over samples and neurons."""

    mean: float
    maximum: float


@dataclass(frozen=True)
class Divergence:
    """First spike that two runs do not share: earliest step, then first population, sample, neuron (in C order)."""

    population: str
    step: int
    sample: int
    neuron: int

    def __str__(self) -> str:
        return f'population "{self.population}", step {self.step}, neuron {self.neuron} (sample {self.sample})'


@dataclass(frozen=True)
class Pair:
    """Comparison of two runs.

    The difference of the rates is always there; the spikes decide only where both runs are integer and their delays are
    the same. `relation` says which of the relations at the top of this file was asked for.
    """

    a: str  # name of one backend
    b: str  # name of the other
    relation: Relation
    requirement: str  # the relation in words and figures
    agrees: bool
    mean_rate_difference: float  # largest over the populations, spikes per step
    max_rate_difference: float  # likewise
    first_divergence: Divergence | None  # None if all recorded spikes are the same
    populations: Mapping[str, Difference]  # of each population's rates


def compare(a: RunResult, b: RunResult, *, same_timing: bool = True) -> Pair:
    """Compare two runs of the same inputs under the relation that their arithmetics and delays allow.

    Parameters
    ----------
    a, b : runs whose spikes were recorded in every population, if both are integer.
    same_timing : whether both ran under the same delays; if not, their rates alone can agree.

    Raises
    ------
    InputError : if they ran other populations, batches or numbers of steps, or spikes needed are not recorded.
    """
    integer = a.arithmetic == b.arithmetic == "integer"
    _check_comparable(a, b, spike_by_spike=integer and same_timing)
    differences = {name: difference(rate, b.firing_rates[name]) for name, rate in a.firing_rates.items()}
    mean = max(d.mean for d in differences.values())
    maximum = max(d.maximum for d in differences.values())
    divergence = first_divergence(a.spikes, b.spikes)
    relation: Relation
    if integer and same_timing:
        relation, agrees = "exact", divergence is None
        requirement = "the same spikes in every population, sample and step"
    elif a.arithmetic == b.arithmetic and same_timing:
        relation, agrees = "close", mean <= CLOSE_TOLERANCE
        requirement = f"mean rate difference <= {CLOSE_TOLERANCE:g} (rounding at ties)"
    else:
        relation, agrees = "statistical", mean <= 1 / a.time_steps and _alike(a, b, differences)
        requirement = (
            f"mean rate difference <= 1/T = {1 / a.time_steps:.4g} and below {RATE_SHARE:.0%} of the mean rate, "
            f"the same class for at least {SAME_CLASS_SHARE:.0%} of the samples"
        )
    return Pair(a.backend, b.backend, relation, requirement, agrees, mean, maximum, divergence, differences)


def _alike(a: RunResult, b: RunResult, differences: Mapping[str, Difference]) -> bool:
    """Whether two runs fire and decide alike, as a silent or scrambled network does not."""
    same_class = float(np.mean(a.predictions == b.predictions)) >= SAME_CLASS_SHARE
    level = {n: max(float(a.firing_rates[n].mean()), float(b.firing_rates[n].mean())) for n in differences}
    return same_class and all(d.mean < RATE_SHARE * level[n] or d.mean == 0 for n, d in differences.items())


def compare_all(results: Sequence[RunResult], *, sequential: Collection[str] = ()) -> tuple[Pair, ...]:
    """Compare every two of the runs, in order.

    Parameters
    ----------
    sequential : backends that ran in the papers' timing, where that differs from the hardware's (more than one
        population).

    Raises
    ------
    InputError : as `compare`.
    """
    return tuple(
        compare(a, b, same_timing=(a.backend in sequential) == (b.backend in sequential))
        for a, b in itertools.combinations(results, 2)
    )


def difference(a: Array, b: Array) -> Difference:
    """Take the mean and the maximum of |a - b|."""
    absolute = np.abs(a - b)
    return Difference(float(absolute.mean()), float(absolute.max()))


def first_divergence(a: Mapping[str, Array], b: Mapping[str, Array], *, sample: int | None = None) -> Divergence | None:
    """Find the first spike that two runs do not share; None if all are the same.

    Parameters
    ----------
    a, b : population -> (T, B, *N) spikes; what one of them lacks is not compared.
    sample : the only one of the B samples to compare; None compares all.
    """
    found: Divergence | None = None
    first, rows = (0, slice(None)) if sample is None else (sample, slice(sample, sample + 1))
    for name in a:
        if name not in b:
            continue
        ours, theirs = a[name][:, rows], b[name][:, rows]
        differs = (ours != theirs).reshape(*ours.shape[:2], -1)
        at = np.flatnonzero(differs.any(axis=(1, 2)))
        if len(at) and (found is None or at[0] < found.step):
            row, neuron = np.argwhere(differs[at[0]])[0]
            found = Divergence(name, int(at[0]), first + int(row), int(neuron))
    return found


def _check_comparable(a: RunResult, b: RunResult, *, spike_by_spike: bool) -> None:
    shapes = [{n: r.shape for n, r in run.firing_rates.items()} for run in (a, b)]
    if shapes[0] != shapes[1] or a.time_steps != b.time_steps:
        raise InputError(
            f'runs "{a.backend}" and "{b.backend}" cannot be compared: rates {shapes[0]}, T = {a.time_steps} against '
            f"{shapes[1]}, T = {b.time_steps}; run the same network on the same inputs"
        )
    if spike_by_spike:
        for run in (a, b):
            missing = sorted(set(run.firing_rates) - set(run.spikes))
            if missing:
                raise InputError(
                    f'run "{run.backend}" holds no spikes of {", ".join(missing)}; '
                    "two integer runs are compared spike by spike: record every population"
                )
