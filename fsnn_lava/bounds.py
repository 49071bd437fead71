"""Proof that no membrane potential leaves 24 bits, whatever input arrives.

The proof follows the integer law step by step and carries, for every neuron, an interval that its potential u
cannot leave (units of state; law and units: ``docs/network-format.md``). Let k = 4096 - decay and
theta = 64 (2 V - 1).

*Claim.* For every input that the network's `InputSpec` allows, low[t] <= u[t] <= high[t] at every step.

*Proof*, by induction over the steps and, within a step, over the populations in order. Before step 0, u = 0.

1. **Current.** Each thing that arrives lies in a known range: a code in 0 .. maximum, an event in 0 .. 1, an
   always-on spike is 1, and the spike that neuron j sent at step k lies in must[j, k] .. may[j, k], where
   may = (high[k] > theta), must = (low[k] > theta) are known because step k came earlier. Before a connection's
   local delay nothing arrives. A weighted sum is largest with the upper end of each range under positive weights
   and the lower end under negative ones (smallest: the reverse), and shifting preserves order, rounding included.
2. **Leak.** D(u) = sign(u) (abs(u) k >> 12) never decreases as u grows: abs(u) k >> 12 never decreases as abs(u)
   grows, and D is odd.
3. **Reset.** It is subtracted exactly where u > theta. So u -> D(u) - 128 rho [u > theta] never decreases on
   u <= theta, nor on u > theta, and over low .. high it is smallest and largest at an end of one of the pieces.

Adding the extremes of 1 to those of 3 encloses the next potential. ∎
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fsnn_lava.errors import NetworkError, PotentialBoundError
from fsnn_lava.ir import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    STATE_LIMIT,
    STATE_PER_WEIGHT,
    Array,
    Connection,
    HardwareNetwork,
    IntegerNeuron,
    Population,
    Violation,
)

INT32_LIMIT = 2**31 - 1
"""Largest value that Lava's 32-bit sums hold."""
STATE_PER_HALF_WEIGHT = STATE_PER_WEIGHT // 2
"""Units of state per unit of the doubled weights that Lava holds (a shift left by 6)."""


def potential_bounds(network: HardwareNetwork) -> dict[str, tuple[Array, Array]]:
    """Population -> lowest and highest potential of each neuron over the window, units of state, (*N) int64 each.

    No input that the network allows takes a potential out of these bounds; the module's docstring has the proof.

    Raises
    ------
    NetworkError : for a float network, whose potential is not an integer state.
    """
    _require_integer(network)
    tracks = {p.name: _Track.fresh(p) for p in network.populations}
    feeds = {p.name: tuple(_Feed.of(network, c) for c in network.incoming(p.name)) for p in network.populations}
    for step in range(network.time_steps):
        for population in network.populations:
            current = _current_bounds(feeds[population.name], tracks, size=population.size, step=step)
            tracks[population.name].advance(*current)
    return {
        p.name: (tracks[p.name].lowest.reshape(p.shape), tracks[p.name].highest.reshape(p.shape))
        for p in network.populations
    }


def prove(network: HardwareNetwork) -> None:
    """Nothing, if no potential and no 32-bit sum can leave its range under any allowed input.

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
        low = np.full(population.size, -2 * population.neuron.reset_synapse)
        high = np.zeros(population.size, np.int64)
        for connection in network.incoming(population.name):
            largest = network.input.maximum if connection.source == INPUT else 1
            negative, positive = _doubled_sums(connection, largest)
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
    reach = np.maximum(-lowest.ravel(), highest.ravel())
    worst = int(reach.argmax())
    if reach[worst] <= STATE_LIMIT:
        return None
    outside = int(np.count_nonzero(reach > STATE_LIMIT))
    bounds = f"{int(lowest.ravel()[worst])} .. {int(highest.ravel()[worst])}"
    found = f"{outside} of {population.size} neurons could leave it, the worst is neuron {worst} with {bounds}"
    return Violation(
        f'potential of population "{population.name}"', found, f"-{STATE_LIMIT} .. {STATE_LIMIT} (24 bits)"
    )


def _sum_violation(where: str, low: Array, high: Array) -> list[Violation]:
    reach = np.maximum(-low, high)
    worst = int(reach.argmax())
    if reach[worst] <= INT32_LIMIT:
        return []
    return [Violation(where, f"a sum that could reach {int(reach[worst])} at neuron {worst}", f"at most {INT32_LIMIT}")]


def _doubled_sums(connection: Connection, largest: int) -> tuple[Array, Array]:
    """(N,) sums of the negative and of the positive doubled weights, each times the largest thing it can carry."""
    weight = connection.weight.astype(np.int64)
    return 2 * largest * np.minimum(weight, 0).sum(axis=1), 2 * largest * np.maximum(weight, 0).sum(axis=1)


def _shifted(value: Array, exponent: int) -> Array:
    return np.asarray(value << exponent if exponent >= 0 else value >> -exponent)


@dataclass(eq=False)
class _Track:
    """Interval of one population's potential, step after step, and the spikes that it allows."""

    kept: int
    reset: int
    threshold: int
    low: Array
    high: Array
    lowest: Array
    highest: Array
    must: list[Array] = field(default_factory=list)
    may: list[Array] = field(default_factory=list)

    @classmethod
    def fresh(cls, population: Population) -> _Track:
        neuron = population.neuron
        assert isinstance(neuron, IntegerNeuron)
        zero = np.zeros(population.size, np.int64)
        threshold = STATE_PER_HALF_WEIGHT * (2 * neuron.v_threshold - 1)
        return cls(
            DECAY_UNITY - neuron.decay, STATE_PER_WEIGHT * neuron.reset_synapse, threshold, zero, zero, zero, zero
        )

    def leaked(self, potential: Array) -> Array:
        return np.asarray(np.sign(potential) * (np.abs(potential) * self.kept >> 12))

    def advance(self, current_low: Array, current_high: Array) -> None:
        """Steps 2 and 3 of the proof; currents in units of 64 states."""
        silent, fires = self.low <= self.threshold, self.high > self.threshold
        low_silent = self.leaked(self.low)
        low_fired = self.leaked(np.maximum(self.low, self.threshold + 1)) - self.reset
        high_silent = self.leaked(np.minimum(self.high, self.threshold))
        high_fired = self.leaked(self.high) - self.reset
        low = np.where(silent & fires, np.minimum(low_silent, low_fired), np.where(silent, low_silent, low_fired))
        high = np.where(silent & fires, np.maximum(high_silent, high_fired), np.where(silent, high_silent, high_fired))
        self.low = low + STATE_PER_HALF_WEIGHT * current_low
        self.high = high + STATE_PER_HALF_WEIGHT * current_high
        self.lowest, self.highest = np.minimum(self.lowest, self.low), np.maximum(self.highest, self.high)
        self.must.append((self.low > self.threshold).astype(np.int64))
        self.may.append((self.high > self.threshold).astype(np.int64))


@dataclass(frozen=True, eq=False)
class _Feed:
    """One connection: its doubled weights split by sign, and what its source is known to send at least and at most."""

    source: str
    delay: int
    exponent: int
    negative: Array
    positive: Array
    least: Array
    most: Array

    @classmethod
    def of(cls, network: HardwareNetwork, connection: Connection) -> _Feed:
        weight = 2 * connection.weight.astype(np.int64)
        always = connection.source == ALWAYS_ON
        sources = weight.shape[1]
        return cls(
            connection.source,
            network.local_delay(connection),
            connection.weight_exponent,
            np.minimum(weight, 0),
            np.maximum(weight, 0),
            np.full(sources, 1 if always else 0, np.int64),
            np.full(sources, 1 if always else network.input.maximum, np.int64),
        )

    def bounds(self, tracks: Mapping[str, _Track], step: int) -> tuple[Array, Array]:
        """Step 1 of the proof: least and greatest current of this connection in that step."""
        least, most = self.least, self.most
        if self.source in tracks:
            track = tracks[self.source]
            least, most = track.must[step - self.delay], track.may[step - self.delay]
        low = self.negative @ most + self.positive @ least
        high = self.negative @ least + self.positive @ most
        return _shifted(low, self.exponent), _shifted(high, self.exponent)


def _current_bounds(
    feeds: tuple[_Feed, ...], tracks: Mapping[str, _Track], *, size: int, step: int
) -> tuple[Array, Array]:
    low, high = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for feed in feeds:
        if step >= feed.delay:
            feed_low, feed_high = feed.bounds(tracks, step)
            low, high = low + feed_low, high + feed_high
    return low, high
