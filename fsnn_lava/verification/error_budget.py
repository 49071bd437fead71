"""The way from the trained network's rates to the integer network's, step by step, so that the steps add up.

    trained -> float network -> hardware timing (-> half threshold) -> integers

The float network runs first in the timing in which it was trained; if that is the hardware's, the second step is none.
Of a network that was trained in integers, these and the exported ones are all there is: any difference is the export's.

Each step's rates are measured on the same samples after T steps, so each neuron's total difference is the sum of the
steps'. Two figures of a step keep that sum: its mean with sign, and its *share*, the mean of its part in the direction
of the total, sign(total) * step, whose sum is the mean absolute total. Rounding is that after T steps.

What theory says of the rates, 1/T and the equilibrium, stands beside it as a statement and is no verdict. Where
populations have no equilibrium (reset to zero, a current that decays) it is left out, and the budget says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fsnn_lava.backends import FloatSimulator, IntegerSimulator
from fsnn_lava.hardware import (
    Arithmetic,
    Array,
    HardwareNetwork,
    RunResult,
    Timing,
    accuracy,
    equilibrium_violations,
    read_out,
    with_timing,
)
from fsnn_lava.network import EquilibriumRates, Settling, equilibrium_rates
from fsnn_lava.verification.compare_runs import Difference, difference
from fsnn_lava.verification.rates import as_deployed

SETTLING = "settling"
"""Name of the distance of the hardware's rates from the equilibrium that was trained."""


@dataclass(frozen=True)
class Contribution:
    """What one step does to the rates of one population, spikes per step, over samples and neurons.

    Parameters
    ----------
    signed : mean of after - before; the steps' add up to the total's.
    share : mean of sign(total) * (after - before); the steps' add up to the total's mean.
    mean, maximum : of the absolute difference.
    """

    signed: float
    share: float
    mean: float
    maximum: float


@dataclass(frozen=True)
class Cause:
    """One step of the way: its name, what is compared, and what it contributes in each population."""

    name: str
    compares: str
    populations: Mapping[str, Contribution]


@dataclass(frozen=True)
class Distance:
    """One distance from an equilibrium: its name, what is compared, and its size in each population."""

    name: str
    compares: str
    populations: Mapping[str, Difference]


@dataclass(frozen=True)
class Budget:
    """Deviation of the integer network from the trained one.

    Parameters
    ----------
    causes : lowering, timing, threshold (where it is halved), rounding, and the total, which is their sum.
    distances : rounding at the equilibrium, finite time (float and integer) and settling: the theory.
    mean_rates : population -> mean firing rate of the integer run, spikes per step.
    accuracy : stage -> share of samples classified rightly.
    unsettled_samples : for how many one of the networks does not settle; their distances mean nothing.
    equilibrium_converged : whether there are none.
    settling : of the float network after T steps in the timing of its training, "float", and of the integers,
        "integer".
    timing : of the trained network.
    no_equilibrium : why there are no distances and no settling: each population without an equilibrium, and the reason.
    """

    causes: tuple[Cause, ...]
    distances: tuple[Distance, ...]
    mean_rates: Mapping[str, float]
    accuracy: Mapping[str, float]
    unsettled_samples: int
    equilibrium_converged: bool
    settling: Mapping[str, Settling]
    timing: Timing = "sequential"
    no_equilibrium: tuple[str, ...] = ()


def error_budget(
    floating: HardwareNetwork,
    integer: HardwareNetwork,
    inputs: Array,
    labels: Array,
    *,
    timing: Timing = "sequential",
    arithmetic: Arithmetic = "float",
    trained: RunResult | None = None,
    lowered: RunResult | None = None,
    deployed: RunResult | None = None,
    rounded: RunResult | None = None,
) -> Budget:
    """Measure what lowering, timing and rounding each do to the firing rates, and the distance from the equilibrium.

    Parameters
    ----------
    floating, integer : the exported networks, in hardware timing, of the same number of steps.
    inputs, labels : samples as backends take them, and their classes (B,).
    timing, arithmetic : in which the network was trained.
    trained : the trained network's own run of these inputs, in that timing; without it the lowered network stands for
        it.
    lowered, deployed, rounded : the runs of these inputs of the float network in that timing, of the float network
        `as_deployed` and of the integers, where there are such already.

    Raises
    ------
    InputError : if the inputs do not fit the networks, or the labels not the inputs.
    """
    as_trained = lowered or FloatSimulator().run(with_timing(floating, timing), inputs)
    with_threshold = as_deployed(floating, integer)
    halved = deployed or FloatSimulator().run(with_threshold, inputs)
    hardware = halved if with_threshold is floating else FloatSimulator().run(floating, inputs)
    rounded = rounded or IntegerSimulator().run(integer, inputs)
    # Both: integers that are not those of the float network may be of another kind.
    without = tuple(map(str, equilibrium_violations(floating) or equilibrium_violations(integer)))
    before = "hardware timing" if timing == "hardware" else "sequential"
    if arithmetic == "integer":
        start = rounded if trained is None else trained
        steps = [
            ("lowering", "trained integers -> exported integers", start, rounded),
            ("timing", "none: trained in hardware timing", rounded, rounded),
            ("rounding", "none: trained in integers", rounded, rounded),
        ]
    else:
        start = as_trained if trained is None else trained
        steps = [
            ("lowering", f"trained -> float, {before}", start, as_trained),
            ("timing", f"float, {before} -> float, hardware timing", as_trained, hardware),
            ("threshold", "float, hardware timing -> float, half threshold", hardware, halved),
            ("rounding", "float -> integer, after T steps", halved, rounded),
        ]
        if with_threshold is floating:
            del steps[2]
    direction = {n: np.sign(r - start.firing_rates[n]) for n, r in rounded.firing_rates.items()}
    stages = {
        "trained": start,
        f"float, {before}": as_trained,
        "float, hardware timing": hardware,
        **({} if with_threshold is floating else {"float, half threshold": halved}),
        "integer": rounded,
    }
    theory = _Theory() if without else _theory(floating, integer, inputs, as_trained, hardware, rounded)
    return Budget(
        tuple(_cause(*step, direction) for step in (*steps, ("total", "trained -> integer", start, rounded))),
        theory.distances,
        {name: float(rate.mean()) for name, rate in rounded.firing_rates.items()},
        {name: accuracy(run, labels) for name, run in {**stages, **theory.stages}.items()},
        theory.unsettled,
        not theory.unsettled,
        theory.settling,
        timing,
        without,
    )


@dataclass(frozen=True)
class _Theory:
    """What the equilibrium adds to a budget."""

    distances: tuple[Distance, ...] = ()
    stages: Mapping[str, RunResult] = dataclasses.field(default_factory=dict)
    unsettled: int = 0
    settling: Mapping[str, Settling] = dataclasses.field(default_factory=dict)


def _theory(
    floating: HardwareNetwork,
    integer: HardwareNetwork,
    inputs: Array,
    as_trained: RunResult,
    hardware: RunResult,
    rounded: RunResult,
) -> _Theory:
    """Compare the runs of the float network, in both timings, and of the integers with where they settle."""
    settled, found = _at_equilibrium(floating, inputs, as_trained)
    settled_integer, found_integer = _at_equilibrium(integer, inputs, rounded)
    return _Theory(
        (
            _distance(
                "rounding at the equilibrium", "float - integer, both at the equilibrium", settled, settled_integer
            ),
            _distance("finite time, float", "float, hardware timing - its equilibrium", hardware, settled),
            _distance("finite time, integer", "integer - its equilibrium", rounded, settled_integer),
            _distance(SETTLING, "integer - the trained network's equilibrium", rounded, settled),
        ),
        {"float, equilibrium": settled, "integer, equilibrium": settled_integer},
        int((~(found.settled & found_integer.settled)).sum()),
        {
            "float": found.settling(as_trained.firing_rates),
            "integer": found_integer.settling(rounded.firing_rates),
        },
    )


def _at_equilibrium(network: HardwareNetwork, inputs: Array, run: RunResult) -> tuple[RunResult, EquilibriumRates]:
    """Return the run as if it had settled, and the equilibrium."""
    found = equilibrium_rates(network, inputs, tolerance=1e-7)
    logits = read_out(network.readout, found.firing_rates)
    return dataclasses.replace(run, firing_rates=found.firing_rates, logits=logits, spikes={}), found


def _distance(name: str, compares: str, a: RunResult, b: RunResult) -> Distance:
    return Distance(name, compares, {n: difference(rate, b.firing_rates[n]) for n, rate in a.firing_rates.items()})


def _cause(name: str, compares: str, before: RunResult, after: RunResult, direction: Mapping[str, Array]) -> Cause:
    contributions = {}
    for population, rate in after.firing_rates.items():
        change = rate - before.firing_rates[population]
        absolute = np.abs(change)
        contributions[population] = Contribution(
            float(change.mean()),
            float((direction[population] * change).mean()),
            float(absolute.mean()),
            float(absolute.max()),
        )
    return Cause(name, compares, contributions)
