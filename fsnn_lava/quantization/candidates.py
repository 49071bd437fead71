"""Candidates of the quantizer: a float network in integers, once each population's reset synapse m * 2**e is chosen.

The reset synapse decides all else: the real value of a weight unit, the threshold, and how finely weights are rounded.
`Rounder` makes the integer network of given reset synapses, `Effort` says how many of them are compared; `quantizer`
searches among them and `report` says what the chosen ones cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fsnn_lava.config import DeployConfig
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    LOWEST_EXPONENT,
    Array,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    IntegerNeuron,
    Population,
    linear_map,
    mean_floor,
    mean_input,
    summed_weight,
)
from fsnn_lava.quantization.input_correlations import Group, groups_of
from fsnn_lava.quantization.rounding import round_current, round_weights, shared
from fsnn_lava.quantization.scales import ResetSynapse, Scales, part_names

SEVERAL = 4.0
"""Spikes that must arrive at a neuron in a step, on average, for their sum to be rounded down: what it then loses has a
known mean (`mean_floor`), while nothing is lost where nothing arrives."""
LONGEST_PERIOD = 16
"""Steps between the pulses of a constant current, at most: it then has sixteenths of a weight unit."""
_SMALL = 5_000_000
"""Products of one sample up to which candidates are compared by rates that are exact to 1e-5, not to 1e-4."""
_PRODUCTS_PER_CANDIDATE = 5e8
"""Products in one iteration over all compared samples."""
_PRODUCTS_PER_POPULATION = 3e9
"""The same for all candidates of a population that are compared around the loop."""


def weight_units(reset: ResetSynapse) -> int:
    """What a reset synapse subtracts, m * 2**e weight units."""
    return reset[0] << reset[1]


def reset_synapses() -> list[ResetSynapse]:
    """Every reset synapse (m, e) worth trying, rising; Lava is given e + 1, which must not exceed 7."""
    return [(m, 0) for m in range(1, 256)] + [(m, e) for e in range(1, 7) for m in range(128, 256)]


def pulse_period(time_steps: int) -> int:
    """Steps from one pulse of a constant current to the next: `LONGEST_PERIOD`, or less in a shorter window."""
    return min(LONGEST_PERIOD, 1 << (time_steps.bit_length() - 1))


def integer_neuron(population: Population, reset: ResetSynapse, config: DeployConfig) -> IntegerNeuron:
    """The population's neuron with that reset synapse; its scale follows from the reset amount.

    Where a spike resets to zero there is none, and what would be the reset synapse is the threshold.
    """
    neuron = population.neuron
    assert isinstance(neuron, FloatNeuron)
    decay = round(DECAY_UNITY * (1 - neuron.leak))
    current_decay = round(DECAY_UNITY * (1 - neuron.current_leak))
    trial = IntegerNeuron(1, reset[0], reset[1], decay, 1.0, neuron.reset, current_decay)
    if neuron.reset == "zero":
        threshold = weight_units(reset)
        return dataclasses.replace(trial, v_threshold=threshold, scale=neuron.v_threshold / threshold)
    scale = neuron.reset_amount / trial.reset_amount
    wanted = neuron.v_threshold if config.threshold == "full" else neuron.reset_amount / 2
    return dataclasses.replace(trial, v_threshold=max(1, round(wanted / scale)), scale=scale)


@dataclass(frozen=True, eq=False)
class Rounded:
    """One population in integers.

    Parameters
    ----------
    neuron : with the chosen reset synapse.
    connections : all that end in the population.
    clipped : float connection -> number of weights that were clipped.
    exact_current : float connection from `ALWAYS_ON` -> (N, 1) constant current before rounding, weight units: the
        trained one, and what makes up for the mean of what rounding the other connections costs.
    """

    neuron: IntegerNeuron
    connections: tuple[Connection, ...]
    clipped: Mapping[str, int]
    exact_current: Mapping[str, Array]


class Rounder:
    """Rounding of one float network's populations, with regard to what its sources send on calibration inputs.

    Parameters
    ----------
    network : float network.
    rates : population -> (B, *N) its rates on the calibration inputs.
    inputs : the calibration inputs, as a backend takes them.
    config : weight bits, threshold and rounding.
    scales : those in which the network was trained, whose integers are all that it rounds to; None: none.

    Raises
    ------
    UnsupportedError : naming each connection and leak that integers cannot express.
    """

    def __init__(
        self,
        network: HardwareNetwork,
        rates: Mapping[str, Array],
        *,
        inputs: Array,
        config: DeployConfig,
        scales: Scales | None = None,
    ) -> None:
        _refuse_unsupported(network, config)
        self.network, self.config, self._scales = network, config, scales
        self.means: dict[str, Array] = {}
        self.groups: dict[str, tuple[Group, ...]] = {}
        self._finest: dict[str, int] = {}
        self._period = pulse_period(network.time_steps) if config.currents == "pulsed" else 1
        for c in network.connections:
            if c.source == ALWAYS_ON:
                continue
            leak = network.population(c.target).neuron.leak
            sent = mean_input(network, inputs, leak) if c.source == INPUT else rates[c.source]
            sent = sent.reshape(len(sent), -1)
            mean = sent.mean(axis=0, dtype=np.float64)[None]
            present = linear_map(network, c).with_weight((c.weight != 0).astype(np.float64))
            fine = config.exponents == "all" and present.product(mean).mean() >= SEVERAL
            self._finest[c.name] = LOWEST_EXPONENT if fine or network.is_graded(c) else 0
            if config.rounding == "nearest":
                continue
            self.means[c.name] = mean
            self.groups[c.name] = groups_of(linear_map(network, c), sent)
        self._last: dict[tuple[str, bool], tuple[ResetSynapse, Rounded]] = {}

    def network_of(self, resets: Mapping[str, ResetSynapse], *, nearest: bool = False) -> HardwareNetwork:
        """The integer network with these reset synapses; ``nearest``: without compensation, which is quicker.

        Raises
        ------
        NetworkError : if a number is beyond what the integer network may hold.
        """
        done = {name: self.rounded(name, reset, nearest=nearest) for name, reset in resets.items()}
        populations = tuple(dataclasses.replace(p, neuron=done[p.name].neuron) for p in self.network.populations)
        connections = tuple(c for p in populations for c in done[p.name].connections)
        return dataclasses.replace(self.network, populations=populations, connections=connections)

    def rounded(self, name: str, reset: ResetSynapse, *, nearest: bool = False) -> Rounded:
        """One population with that reset synapse; the last one of each is remembered."""
        before = self._last.get((name, nearest))
        if before is None or before[0] != reset:
            self._last[name, nearest] = before = (reset, self._rounded(name, reset, nearest=nearest))
        return before[1]

    def _rounded(self, name: str, reset: ResetSynapse, *, nearest: bool) -> Rounded:
        population = self.network.population(name)
        neuron = integer_neuron(population, reset, self.config)
        incoming = self.network.incoming(name)
        if self._scales is not None:
            return self._as_trained(neuron, incoming, self._scales)
        connections: list[Connection] = []
        clipped: dict[str, int] = {}
        exact: dict[str, Array] = {}
        shift: Array | float = 0.0  # mean current that rounding costs, weight units
        finer = False  # whether spikes' weights are finer than a weight unit
        for c in (c for c in incoming if c.source != ALWAYS_ON):
            groups = () if nearest else self.groups.get(c.name, ())
            parts, clipped[c.name] = round_weights(
                c,
                neuron.scale,
                bits=self.config.weight_bits,
                symmetric=self.config.symmetric,
                graded=self.network.is_graded(c),
                finest=self._finest[c.name],
                groups=groups,
            )
            connections += parts
            shift = shift + mean_floor(parts[0].weight_exponent)
            finer = finer or (parts[0].weight_exponent < 0 and not self.network.is_graded(c))
            if not nearest:
                lacking = c.weight / neuron.scale - summed_weight(parts)
                shift = shift + self._mean_current(c, lacking)
        for c in (c for c in incoming if c.source == ALWAYS_ON):
            exact[c.name] = c.weight / neuron.scale + shift
            parts, clipped[c.name] = round_current(c, exact[c.name], period=self._period if finer else 1)
            connections += parts
            shift = 0.0
        return Rounded(neuron, tuple(connections), clipped, exact)

    def _as_trained(self, neuron: IntegerNeuron, incoming: Sequence[Connection], scales: Scales) -> Rounded:
        """The integers that the connections into a population were trained with: nothing is chosen or made up for."""
        connections: list[Connection] = []
        exact: dict[str, Array] = {}
        for c in incoming:
            units = c.weight / neuron.scale
            if c.source == ALWAYS_ON:
                exact[c.name] = units
                connections += round_current(c, units)[0]
                continue
            exponent, parts = scales.exponents[c.name], scales.parts[c.name]
            mantissa = np.rint(np.ldexp(units, -exponent))
            connections += shared(c, mantissa, exponent=exponent, parts=parts, bits=scales.weight_bits)
        return Rounded(neuron, tuple(connections), {c.name: 0 for c in incoming}, exact)

    def _mean_current(self, connection: Connection, weight: Array) -> Array | float:
        """(N, 1) mean current through these weights; 0 if means are of no interest (nearest rounding)."""
        if connection.name not in self.means:
            return 0.0
        return linear_map(self.network, connection).with_weight(weight).product(self.means[connection.name]).T


def _refuse_unsupported(network: HardwareNetwork, config: DeployConfig) -> None:
    """Raise if a connection's name is not its own, a leak does not fit 12 bits, or half a reset is asked of none."""
    names = [c.name for c in network.connections]
    made = {name for c in network.connections for name in part_names(c)[1:]}
    found = [
        f'connection "{name}": found a name that another connection has or is given; allowed: a name of its own'
        for name in sorted({name for name in names if names.count(name) > 1 or name in made})
    ]
    found += [
        f'population "{p.name}": found leak {p.neuron.leak}; allowed: at least {1 / DECAY_UNITY} (12 bits)'
        for p in network.populations
        if round(DECAY_UNITY * (1 - p.neuron.leak)) >= DECAY_UNITY
    ]
    found += [
        f'population "{p.name}": found current_leak {p.neuron.current_leak}; allowed: at most '
        f"{1 - 1 / DECAY_UNITY} (12 bits)"
        for p in network.populations
        if round(DECAY_UNITY * (1 - p.neuron.current_leak)) < 1
    ]
    found += [
        f'population "{p.name}": found threshold half and reset to zero; allowed: threshold full, since half of the '
        "reset amount means nothing there"
        for p in network.populations
        if p.neuron.reset == "zero" and config.threshold == "half"
    ]
    if found:
        raise UnsupportedError(f'network "{network.name}" cannot be quantized:\n  ' + "\n  ".join(found))


@dataclass(frozen=True)
class Effort:
    """How thoroughly reset synapses are searched: all of a small network's, some of a large one's.

    The counts depend on the network's size alone, so that the same network gives the same integers anywhere.

    Parameters
    ----------
    compared : calibration samples on which candidates are compared.
    tried : reset synapses per population.
    finalists : of these, how many are compared by the equilibrium around the loop; the others by their own errors.
    tolerance, final_tolerance : of the equilibria by which candidates are compared, and of those of the report.
    """

    compared: int
    tried: int
    finalists: int
    tolerance: float
    final_tolerance: float

    @classmethod
    def for_network(cls, network: HardwareNetwork) -> Effort:
        """The effort that suits the number of products of one pass."""
        products = sum(linear_map(network, c).products for c in network.connections)
        compared = int(np.clip(_PRODUCTS_PER_CANDIDATE / products, 8, 256))
        finalists = int(np.clip(_PRODUCTS_PER_POPULATION / (products * compared), 2, 24))
        small = products <= _SMALL
        tried = 24 if products <= 10 * _SMALL else 6
        return cls(compared, tried, finalists, *((1e-5, 1e-9) if small else (1e-4, 1e-4)))
