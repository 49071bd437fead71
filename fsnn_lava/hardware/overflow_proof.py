"""Proof that no membrane potential leaves 24 bits, whatever input arrives.

The proof follows the integer law step by step and keeps, for every neuron, an interval that its potential u
cannot leave (units of state; law and units: ``docs/network-format.md``). Let k = 4096 - decay and
theta = 64 (2 V - 1).

*Claim.* For every input that the network's `InputSpec` allows, low[t] <= u[t] <= high[t] at every step.

*Proof*, by induction over the steps and, within a step, over the populations in order. Before step 0, u = 0.

1. **Current.** Each thing that arrives lies in a known range: a code in 0 .. maximum, an event in 0 .. 1, an
   always-on spike is 1 in the steps in which it is sent and else 0, and the spike that neuron j sent at step k lies
   in must[j, k] .. may[j, k], where may = (high[k] > theta), must = (low[k] > theta) are known because step k came
   earlier. Before a connection's local delay nothing arrives. A weighted sum is largest with the upper end of each
   range under positive weights and the lower end under negative ones (smallest: the reverse), and shifting preserves
   order, rounding included.
2. **Leak.** D(u) = sign(u) (abs(u) k >> 12) never decreases as u grows: abs(u) k >> 12 never decreases as abs(u)
   grows, and D is odd.
3. **Reset.** It is subtracted exactly where u > theta. So u -> D(u) - 128 rho [u > theta] never decreases on
   u <= theta, nor on u > theta, and over low .. high it is smallest and largest at an end of one of the pieces.
   Reset to zero likewise: there the second piece is the one number 0.
4. **A current that decays.** It is an integer i with a law as in 2, i -> D'(i) + 64 (what arrives), and starts from 0:
   applying D' to both ends of its interval and adding the extremes of 1 encloses the next i. What arrives in a step may
   thus count up to 1 / (1 - current_leak) times. Where the current has no memory, D' is 0.

Adding the extremes of 4 to those of 3 encloses the next potential. ∎

The claim holds as well if 1 is given less than is known: `bounds_alone` takes must = none and may = all for every
source. Sets of spikes mostly stay as they are from one step to the next; what they add up to is then used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fsnn_lava.errors import NetworkError, PotentialBoundError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.linear_maps import LinearMap, exact_dtype, linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, Population, Violation
from fsnn_lava.hardware.neurons import STATE_LIMIT, STATE_PER_HALF_WEIGHT, IntegerNeuron

INT32_LIMIT = 2**31 - 1
"""Largest value that Lava's 32-bit sums hold."""


def potential_bounds(network: HardwareNetwork) -> dict[str, tuple[Array, Array]]:
    """Bound the potential of each neuron over the window: population -> lowest, highest, units of state, (*N) int64.

    No input that the network allows takes a potential out of these bounds; the module's docstring has the proof. A
    current that decays is state as well, of 24 bits, and of it and the potential the wider bounds are taken.

    Raises
    ------
    NetworkError : for a float network, whose potential is not an integer state.
    """
    _require_integer(network)
    tracks = {p.name: _Track.fresh(p) for p in network.populations}
    feeds = {p.name: _feeds(network, p.name) for p in network.populations}
    for step in range(network.time_steps):
        for population in network.populations:
            current = _current_bounds(feeds[population.name], tracks, size=population.size, step=step)
            tracks[population.name].advance(*current)
    return {p.name: tracks[p.name].reached(p) for p in network.populations}


def bounds_alone(network: HardwareNetwork, name: str) -> tuple[Array, Array]:
    """Bounds of one population, (*N) int64 each, if nothing is known of when the others fire: they may at every step.

    Valid like those of `potential_bounds`, never narrower, and much cheaper: nothing else is followed.

    Raises
    ------
    NetworkError : for a float network, or one without that population.
    """
    _require_integer(network)
    population = network.population(name)
    track, feeds = _Track.fresh(population), _feeds(network, name)
    for step in range(network.time_steps):
        track.advance(*_current_bounds(feeds, {}, size=population.size, step=step))
    return track.reached(population)


def prove(network: HardwareNetwork) -> None:
    """Raise unless no potential and no 32-bit sum can leave its range under any allowed input.

    Raises
    ------
    PotentialBoundError : naming each population that could, its worst neuron, the bound and the limit.
    NetworkError : for a float network.
    """
    violations = accumulator_violations(network)
    if not violations:
        bounds = potential_bounds(network)
        violations = [v for p in network.populations if (v := _potential_violation(p, *bounds[p.name]))]
    if violations:
        listed = "\n  ".join(map(str, violations))
        raise PotentialBoundError(
            f'network "{network.name}", T = {network.time_steps}: no proof that the state stays in range:\n  {listed}\n'
            "use fewer time steps, or a smaller scale (threshold, reset and weights) for these populations"
        )


def accumulator_violations(network: HardwareNetwork) -> list[Violation]:
    """Each population whose summed input could exceed the 32 bits in which Lava adds and aligns it.

    Two sums are bounded over all allowed inputs, counting every spike that could arrive: what one connection adds
    up before its exponent is applied, and all that reaches a neuron in one step, reset included, in units of state.

    Raises
    ------
    NetworkError : for a float network.
    """
    _require_integer(network)
    if network.input.maximum > INT32_LIMIT:
        return [Violation("input", f"maximum {network.input.maximum}", f"at most {INT32_LIMIT}: codes have 32 bits")]
    found: list[Violation] = []
    for population in network.populations:
        assert isinstance(population.neuron, IntegerNeuron)
        subtracted = population.neuron.reset_synapse if population.neuron.reset == "subtract" else 0
        low = np.full(population.size, -2 * subtracted)
        high = np.zeros(population.size, np.int64)
        for connection in network.incoming(population.name):
            feed = _Feed(network, connection)
            negative, positive = feed.negative.total, feed.positive.total
            found += _sum_violation(f'connection "{connection.name}", doubled weights', negative, positive)
            low += _shifted(negative, connection.weight_exponent)
            high += _shifted(positive, connection.weight_exponent)
        where = f'population "{population.name}", input of one step in units of state'
        found += _sum_violation(where, STATE_PER_HALF_WEIGHT * low, STATE_PER_HALF_WEIGHT * high)
    return found


def _require_integer(network: HardwareNetwork) -> None:
    if network.arithmetic != "integer":
        raise NetworkError(
            f'network "{network.name}" holds floats: only integer networks have a bounded state; quantize it first'
        )


def _potential_violation(population: Population, lowest: Array, highest: Array) -> Violation | None:
    largest = np.maximum(-lowest.ravel(), highest.ravel())
    worst = int(largest.argmax())
    if largest[worst] <= STATE_LIMIT:
        return None
    outside = int(np.count_nonzero(largest > STATE_LIMIT))
    bounds = f"{int(lowest.ravel()[worst])} .. {int(highest.ravel()[worst])}"
    state = "potential or current" if population.neuron.has_memory_of_current else "potential"
    found = f"{outside} of {population.size} neurons could leave it, the worst is neuron {worst} with {bounds}"
    return Violation(f'{state} of population "{population.name}"', found, f"-{STATE_LIMIT} .. {STATE_LIMIT} (24 bits)")


def _sum_violation(where: str, low: Array, high: Array) -> list[Violation]:
    largest = np.maximum(-low, high)
    worst = int(largest.argmax())
    if largest[worst] <= INT32_LIMIT:
        return []
    return [
        Violation(where, f"a sum that could reach {int(largest[worst])} at neuron {worst}", f"at most {INT32_LIMIT}")
    ]


def _shifted(value: Array, exponent: int) -> Array:
    return np.asarray(value << exponent if exponent >= 0 else value >> -exponent)


@dataclass(eq=False)
class _Track:
    """Interval of one population's potential, step after step, and the spikes that it allows."""

    neuron: IntegerNeuron
    low: Array
    high: Array
    current_low: Array
    current_high: Array
    lowest: Array
    highest: Array
    must: list[Array] = field(default_factory=list)
    may: list[Array] = field(default_factory=list)

    @classmethod
    def fresh(cls, population: Population) -> _Track:
        assert isinstance(population.neuron, IntegerNeuron)
        zero = np.zeros(population.size, np.int64)
        return cls(population.neuron, zero, zero, zero, zero, zero, zero)

    def advance(self, arriving_low: Array, arriving_high: Array) -> None:
        """Steps 2 to 4 of the proof; what arrives in units of 64 states."""
        leaked, threshold = self.neuron.leaked, self.neuron.fires_above
        silent, fires = self.low <= threshold, self.high > threshold
        low_silent = leaked(self.low)
        high_silent = leaked(np.minimum(self.high, threshold))
        low_fired, high_fired = self._after_spikes(np.maximum(self.low, threshold + 1), self.high)
        low = np.where(silent & fires, np.minimum(low_silent, low_fired), np.where(silent, low_silent, low_fired))
        high = np.where(silent & fires, np.maximum(high_silent, high_fired), np.where(silent, high_silent, high_fired))
        current_low, current_high = STATE_PER_HALF_WEIGHT * arriving_low, STATE_PER_HALF_WEIGHT * arriving_high
        if self.neuron.has_memory_of_current:
            current_low = current_low + self.neuron.kept_current(self.current_low)
            current_high = current_high + self.neuron.kept_current(self.current_high)
            self.current_low, self.current_high = current_low, current_high
            self.lowest, self.highest = np.minimum(self.lowest, current_low), np.maximum(self.highest, current_high)
        self.low, self.high = low + current_low, high + current_high
        self.lowest, self.highest = np.minimum(self.lowest, self.low), np.maximum(self.highest, self.high)
        self.must.append(_kept_if_equal(self.must, self.low > threshold))
        self.may.append(_kept_if_equal(self.may, self.high > threshold))

    def _after_spikes(self, low: Array, high: Array) -> tuple[Array, Array]:
        """What reset and leak leave of potentials from low to high that are above the threshold."""
        if self.neuron.reset == "zero":
            return np.zeros_like(low), np.zeros_like(high)
        return self.neuron.leaked(low) - self.neuron.reset_state, self.neuron.leaked(high) - self.neuron.reset_state

    def reached(self, population: Population) -> tuple[Array, Array]:
        """Lowest and highest state of all steps so far."""
        return self.lowest.reshape(population.shape), self.highest.reshape(population.shape)


def _kept_if_equal(sets: list[Array], new: Array) -> Array:
    """The last of the sets, itself, if the new one is equal, so that what it adds up to is known already."""
    return sets[-1] if sets and np.array_equal(sets[-1], new) else new


class _Feed:
    """One connection: its doubled weights split by sign, and what its source is known to send at least and at most."""

    def __init__(self, network: HardwareNetwork, connection: Connection) -> None:
        doubled = linear_map(network, connection)
        doubled = doubled.with_weight(2 * connection.weight)
        largest = network.input.maximum if connection.source == INPUT else 1
        self.source = connection.source
        self.delay = network.local_delay(connection)
        self.exponent = connection.weight_exponent
        self.sends_in = connection.sends_in
        self.negative = _Sums(doubled.with_weight(np.minimum(doubled.weight, 0)), largest)
        self.positive = _Sums(doubled.with_weight(np.maximum(doubled.weight, 0)), largest)
        size = int(np.prod(doubled.source))
        self.all, self.none = np.ones(size, bool), np.zeros(size, bool)

    def bounds(self, tracks: Mapping[str, _Track], step: int) -> tuple[Array, Array]:
        """Step 1 of the proof: least and greatest current of this connection in that step."""
        least, most = self.none, self.all
        if self.source == ALWAYS_ON:
            least = most = self.all if self.sends_in(step) else self.none
        if self.source in tracks:
            track = tracks[self.source]
            least, most = track.must[step - self.delay], track.may[step - self.delay]
        low = self.negative.over(most) + self.positive.over(least)
        high = self.negative.over(least) + self.positive.over(most)
        return _shifted(low, self.exponent), _shifted(high, self.exponent)


class _Sums:
    """What weights of one sign add up to, exactly, when each source of a set sends the largest thing that it can."""

    def __init__(self, weights: LinearMap, largest: int) -> None:
        self.largest, self.total = largest, largest * weights.sums().astype(np.int64)
        # Of one sign, so that no partial sum exceeds the whole one.
        most = int(np.abs(self.total // largest).max(initial=0))
        self.weights = weights.with_weight(weights.weight.astype(exact_dtype(most)))
        self.known: list[tuple[Array, Array]] = []

    def over(self, senders: Array) -> Array:
        """(N_target,) int64 sums over the senders (N_source,) bool."""
        for before, sums in self.known:
            if before is senders:
                return sums
        sums = self._computed(senders)
        self.known = [*self.known[-1:], (senders, sums)]
        return sums

    def _computed(self, senders: Array) -> Array:
        if senders.all():
            return self.total
        if not senders.any():
            return np.zeros_like(self.total)
        product = self.weights.product(senders[None].astype(self.weights.weight.dtype))
        return np.asarray(self.largest * product[0].astype(np.int64))


def _feeds(network: HardwareNetwork, name: str) -> tuple[_Feed, ...]:
    return tuple(_Feed(network, c) for c in network.incoming(name))


def _current_bounds(
    feeds: tuple[_Feed, ...], tracks: Mapping[str, _Track], *, size: int, step: int
) -> tuple[Array, Array]:
    low, high = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for feed in feeds:
        if step >= feed.delay:
            feed_low, feed_high = feed.bounds(tracks, step)
            low, high = low + feed_low, high + feed_high
    return low, high
