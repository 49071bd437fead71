"""Firing rates of the integer network against the float one's, in the same timing and with the same threshold.

What remains between the two is rounding. An export measures it neuron by neuron on training samples
(`RateDifferences`, kept by `export_record`); a verification measures it again on test samples and asks whether both can
be the same. The differences of n recorded and S test samples, at most b each and of variance v, have means that differ
by more than

    sqrt(2 v L (1/n + 1/S)) + b L (1/n + 1/S) / 3,   L = log(2 m / ALPHA)

with a probability of ALPHA at most over all m comparisons of a verification (Bernstein's inequality, union bound), so
that an honest export raises no alarm, however many neurons it has. Compared are each neuron's mean difference, and each
population's mean difference and mean absolute difference. `SLACK` is added for test samples that differ from training
samples as such.

Where a neuron departs, `row_effects` says by what: what each connection's rounding, the threshold, the reset, the leak,
delays and the sources' own deviations do to its rate, to first order; the row that differs most from what it was at the
export is the cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Array,
    FloatNeuron,
    HardwareNetwork,
    IntegerNeuron,
    Population,
    linear_map,
    mean_floor,
    rate_weights,
    real_weight,
)
from fsnn_lava.quantization import parts_of

ALPHA = 1e-6
"""Probability of a false alarm in one verification, if test samples are like training samples."""
SLACK = 0.25
"""Share of a neuron's (a population's) usual difference that is allowed on top."""
PRIOR = 16
"""Samples that a population's mean variance counts as in that of each of its neurons: most differ in no sample."""
CLEAR_SPIKES = 1.0
"""Spikes a window by which a neuron may depart unnoticed before too few samples are said to tell too little."""
STATED_SHARE, STATED_SPIKES = 2.0, 0.25
"""Without a record: the mean absolute difference may be so many times the rounding error at the equilibrium, and so
many spikes a window on top."""


@dataclass(frozen=True, eq=False)
class RateDifferences:
    """Integer minus float firing rates of one population over some samples, spikes per step.

    Parameters
    ----------
    samples : how many.
    mean, square : (N,) mean and mean square over samples, of each neuron.
    largest : largest absolute difference.
    shift, size : over samples, (mean, variance, largest distance from the mean) of the population's mean difference
        and of its mean absolute difference.
    """

    samples: int
    mean: Array
    square: Array
    largest: float
    shift: tuple[float, float, float]
    size: tuple[float, float, float]

    @classmethod
    def of(cls, difference: Array) -> RateDifferences:
        """Differences (B, *N) of all samples."""
        flat = difference.reshape(len(difference), -1).astype(np.float64)
        return cls(
            len(flat),
            flat.mean(axis=0),
            np.square(flat).mean(axis=0),
            float(np.abs(flat).max()),
            _spread(flat.mean(axis=1)),
            _spread(np.abs(flat).mean(axis=1)),
        )


@dataclass(frozen=True)
class NeuronDeparture:
    """The neuron whose rate departs most from what is expected; differences in spikes per window."""

    neuron: int
    predicted: float  # integer - float, as the rounding of weights and constants predicts it to first order
    expected: float  # as the export measured it
    found: float
    allowed: float  # largest |found - expected|


@dataclass(frozen=True)
class PopulationRates:
    """One population of one backend held against its expectation; differences in spikes per window (rate times T).

    Parameters
    ----------
    shift, size : mean difference integer - float, and mean absolute difference: (expected, found, allowed departure).
    neuron : the neuron that departs most, as a share of what is allowed; None: no record tells what to expect of it.
    noticed : by how much a neuron's mean difference must depart to be noticed, median over neurons; None: likewise.
    departing : neurons beyond what is allowed.
    agrees : whether all of them are within what is allowed.
    """

    population: str
    shift: tuple[float, float, float]
    size: tuple[float, float, float]
    neuron: NeuronDeparture | None
    noticed: float | None
    departing: int
    agrees: bool


@dataclass(frozen=True)
class RateCheck:
    """Rates of the integer network against those of the float network in the same timing.

    Parameters
    ----------
    basis : what the differences were held against, in words.
    cause : the row of `row_effects` that differs most from what it was at the export; empty if all rates agree.
    """

    basis: str
    samples: int
    populations: tuple[PopulationRates, ...]
    cause: str

    @property
    def agrees(self) -> bool:
        """Whether every population's rates are as expected."""
        return all(p.agrees for p in self.populations)

    @property
    def blind(self) -> tuple[str, ...]:
        """Populations of which a neuron may fire `CLEAR_SPIKES` more or fewer per window without being noticed."""
        return tuple(p.population for p in self.populations if (p.noticed or 0.0) > CLEAR_SPIKES)

    @property
    def first(self) -> PopulationRates | None:
        """The first population, in the network's order, whose rates depart."""
        return next((p for p in self.populations if not p.agrees), None)


def as_deployed(floating: HardwareNetwork, integer: HardwareNetwork) -> HardwareNetwork:
    """The float network with the threshold that the export was asked for, which may be half the reset."""
    if integer.provenance.get("deployment", {}).get("threshold") != "half":
        return floating
    populations = []
    for p in floating.populations:
        assert isinstance(p.neuron, FloatNeuron)
        half = FloatNeuron(p.neuron.reset_amount / 2, p.neuron.reset_amount, p.neuron.leak)
        populations.append(Population(p.name, p.shape, half, p.start))
    return HardwareNetwork(
        floating.name,
        floating.input,
        tuple(populations),
        floating.connections,
        floating.readout,
        floating.time_steps,
        floating.provenance,
    )


def check_rates(
    found: Mapping[str, Array],
    exact: Mapping[str, Array],
    *,
    time_steps: int,
    expected: Mapping[str, RateDifferences] | None,
    rounding: Mapping[str, float],
    rows: Mapping[str, Mapping[str, Array]],
    expected_rows: Mapping[str, Mapping[str, Array]] | None,
    basis: str,
) -> RateCheck:
    """Hold the firing rates of an integer run against the float network's.

    Parameters
    ----------
    found, exact : population -> (B, *N) rates of the integer and of the float network, of the same samples and timing.
    expected : population -> differences that the export measured; None: there is no record.
    rounding : population -> mean error of the equilibrium rates that quantization measured, for want of a record.
    rows, expected_rows : `row_effects` now, and at the export.
    basis : what `expected` is, in words.
    """
    names = list(exact)
    comparisons = sum(exact[name][0].size + 2 for name in names)
    level = float(np.log(2 * comparisons / ALPHA))
    populations = []
    for name in names:
        now = RateDifferences.of(found[name] - exact[name])
        if expected is None or expected_rows is None:
            populations.append(_stated(name, now, rounding[name], time_steps))
        else:
            predicted = np.sum([effect for effect in expected_rows[name].values()], axis=0)
            populations.append(_held(name, now, expected[name], predicted, time_steps=time_steps, level=level))
    cause = "" if all(p.agrees for p in populations) else _cause(rows, expected_rows, time_steps)
    return RateCheck(basis, len(exact[names[0]]), tuple(populations), cause)


def _cause(
    rows: Mapping[str, Mapping[str, Array]], expected: Mapping[str, Mapping[str, Array]] | None, time_steps: int
) -> str:
    """The row that departs most at any neuron."""
    largest, place = 0.0, ""
    for population, effects in rows.items():
        for row, effect in effects.items():
            before = 0.0 if expected is None else expected[population].get(row, 0.0)
            change = np.abs(effect - before) * time_steps
            neuron = int(change.argmax())
            if change[neuron] > largest:
                largest = float(change[neuron])
                moved = float((effect - before)[neuron]) * time_steps
                place = f"{row} of {population}, which moves neuron {neuron} by {moved:+.3g} spikes a window"
    if largest < _CLEAR:
        return "neither weights nor constants: none of them moves a rate otherwise than at the export"
    return place


_CLEAR = 0.02
"""Spikes a window by which a row differs that is worth naming."""


def row_effects(
    floating: HardwareNetwork, integer: HardwareNetwork, inputs: Array, exact: Mapping[str, Array]
) -> dict[str, dict[str, Array]]:
    """Population -> row -> (N,) float32: what it does to the neurons' mean rate, integer - float, to first order.

    Rows are each connection of the float network, ``threshold``, ``reset``, ``leak`` and ``delay``. A neuron that is
    silent or saturated in a sample does not answer to a small change there. One that a spike resets to zero answers as
    if the spike took the threshold off, which is rough: no equilibrium says more.

    Parameters
    ----------
    floating, integer : the float network as deployed, and the integers.
    inputs, exact : samples, and the float network's rates of them.
    """
    return {p.name: _effects(floating, integer, p, inputs, exact) for p in floating.populations}


def _effects(
    floating: HardwareNetwork,
    integer: HardwareNetwork,
    population: Population,
    inputs: Array,
    exact: Mapping[str, Array],
) -> dict[str, Array]:
    law = population.neuron
    whole = integer.population(population.name).neuron
    assert isinstance(law, FloatNeuron)
    assert isinstance(whole, IntegerNeuron)
    rates = exact[population.name].reshape(len(exact[population.name]), -1)
    free = np.mean((rates > 0) & (rates < 1), axis=0)
    unit = free / (law.spike_cost * (1 - law.current_leak))  # what arrives in a step counts so many times
    steps = floating.time_steps
    effects: dict[str, Array] = {}
    late = np.zeros(population.size)
    for c in floating.incoming(population.name):
        mean = _mean_sent(floating, c.source, inputs, exact, law.leak)
        wanted = linear_map(floating, c).product(mean)[0]
        brought, parts = np.zeros(population.size), parts_of(integer, c)
        for part in parts:
            sent = _mean_sent(floating, part.source, inputs, exact, law.leak)
            units = linear_map(integer, part).with_weight(real_weight(part)).product(sent)[0]
            brought += units - mean_floor(part.weight_exponent)
        effects[c.name] = (brought * whole.scale - wanted) * unit
        if parts and c.source not in (ALWAYS_ON, INPUT):
            late -= (integer.local_delay(parts[0]) - floating.local_delay(c)) / steps * wanted * unit
    effects["threshold"] = (law.v_threshold - whole.v_threshold * whole.scale) / steps * unit
    effects["reset"] = rates.mean(axis=0) * (law.spike_cost - whole.spike_cost * whole.scale) * unit
    effects["leak"] = (whole.leak - law.leak) * law.v_threshold / 2 * unit
    if law.has_memory_of_current:
        arriving = rates.mean(axis=0) * law.spike_cost
        effects["current leak"] = (whole.current_leak - law.current_leak) * arriving * unit
    effects["delay"] = late
    return {name: effect.astype(np.float32) for name, effect in effects.items()}


def _mean_sent(network: HardwareNetwork, source: str, inputs: Array, exact: Mapping[str, Array], leak: float) -> Array:
    """(1, N_source) what a source sends in a step, mean over samples."""
    if source == ALWAYS_ON:
        return np.ones((1, 1))
    if source == INPUT and network.input.kind == "event":
        frames = inputs.mean(axis=1, dtype=np.float64).reshape(len(inputs), -1)
        return np.asarray(rate_weights(len(inputs), leak) @ frames)[None]
    sent = inputs if source == INPUT else exact[source]
    return np.asarray(sent.reshape(len(sent), -1).mean(axis=0, dtype=np.float64)[None])


def _held(
    name: str, now: RateDifferences, record: RateDifferences, predicted: Array, *, time_steps: int, level: float
) -> PopulationRates:
    """A population against what the export measured of it."""
    share = 1 / record.samples + 1 / now.samples
    variance = np.maximum(record.square - np.square(record.mean), 0.0)
    variance = (record.samples * variance + PRIOR * variance.mean()) / (record.samples + PRIOR)
    least = max(record.largest, 1 / time_steps)  # a neuron that never differed may once
    allowed = np.sqrt(2 * variance * level * share) + least * level * share / 3 + SLACK * np.sqrt(record.square)
    departure = np.abs(now.mean - record.mean)
    worst = int(np.argmax(departure / allowed))
    figures = []
    for here, before in ((now.shift, record.shift), (now.size, record.size)):
        spread = max(before[2], 1 / time_steps / len(record.mean) ** 0.5)  # a spike may be followed by others
        room = np.sqrt(2 * before[1] * level * share) + spread * level * share / 3 + SLACK * record.size[0]
        figures.append((before[0] * time_steps, here[0] * time_steps, float(room) * time_steps))
    departing = int(np.count_nonzero(departure > allowed))
    neuron = NeuronDeparture(
        worst,
        float(predicted[worst]) * time_steps,
        float(record.mean[worst]) * time_steps,
        float(now.mean[worst]) * time_steps,
        float(allowed[worst]) * time_steps,
    )
    agrees = not departing and all(abs(b - a) <= room for a, b, room in figures)
    noticed = float(np.median(allowed)) * time_steps
    return PopulationRates(name, figures[0], figures[1], neuron, noticed, departing, agrees)


def _stated(name: str, now: RateDifferences, rounding: float, time_steps: int) -> PopulationRates:
    """A population against stated limits, where nothing was recorded."""
    room = STATED_SHARE * rounding * time_steps + STATED_SPIKES
    shift, size = now.shift[0] * time_steps, now.size[0] * time_steps
    agrees = abs(shift) <= room and size <= room
    return PopulationRates(name, (0.0, shift, room), (0.0, size, room), None, None, 0, agrees)


def _spread(values: Array) -> tuple[float, float, float]:
    mean = float(values.mean())
    return mean, float(values.var()), float(np.abs(values - mean).max())


def joined(parts: Sequence[Array]) -> Array:
    """Differences of several chunks of samples as one array (B, N)."""
    return np.concatenate([part.reshape(len(part), -1) for part in parts])
