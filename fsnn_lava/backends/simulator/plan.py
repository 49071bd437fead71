"""A network made ready to run, in integers or in floats: what the engines get, and what they give back."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from fsnn_lava.errors import StateOverflowError, UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    STATE_LIMIT,
    STATE_PER_HALF_WEIGHT,
    Array,
    Connection,
    Convolution,
    Dense,
    HardwareNetwork,
    LinearMap,
    Population,
    accumulator_violations,
    exact_dtype,
    linear_map,
    rate_weights,
)
from fsnn_lava.kernels.neuron_step import neuron_numbers


@dataclass(frozen=True, eq=False)
class SpikeConnection:
    """A connection that carries spikes.

    Parameters
    ----------
    name : of the network's connection.
    delay : local, less than the number of steps.
    map : its weights; mantissas, if they are integers.
    shift : power of two that its sums are multiplied with, to be in the unit of the current; then rounded down.
    """

    name: str
    source: str
    delay: int
    map: LinearMap
    shift: int

    @property
    def products(self) -> int:
        """Multiplications of a dense product with one spike vector, without those by the zeros around the source."""
        geometry, weight = self.map.geometry, self.map.weight
        if isinstance(geometry, Dense):
            return int(weight.size)
        shape = self.map.target if isinstance(geometry, Convolution) else self.map.source
        return int(weight.size * prod(shape[1:]))


@dataclass(frozen=True, eq=False)
class GradedInput:
    """A connection that carries codes: ``current(codes)``, (B, N_target), arrives in every step from ``delay`` on.

    Parameters
    ----------
    name, map, shift : as in a `SpikeConnection`.
    maximum : largest code.
    """

    name: str
    delay: int
    map: LinearMap
    shift: int
    maximum: int

    @functools.cached_property
    def current(self) -> Callable[[Array], Array]:
        """Current of codes (B, M); an integer sum is exact, and then shifted."""
        integer = np.issubdtype(self.map.weight.dtype, np.integer)
        dtype = float_dtype(int(_row_sums(self.map).max()) * self.maximum) if integer else np.float64
        weights = self.map.with_weight(self.map.weight.astype(dtype))

        def current(codes: Array) -> Array:
            sums = weights.product(codes.astype(dtype))
            return _shifted(sums.astype(np.int64), self.shift) if integer else sums

        return current


@dataclass(frozen=True, eq=False)
class Pulse:
    """A current (N,) that always-on sources of a period bring in one step of so many.

    Parameters
    ----------
    connection : tells in which steps.
    current : int64 in units of 64 states.
    """

    connection: Connection
    current: Array


@dataclass(frozen=True, eq=False)
class PopulationPlan:
    """One population with all that reaches it.

    Parameters
    ----------
    leak : share of the potential kept per step; weighs the firing rate.
    neuron : (NEURON_NUMBERS,) int64 or float64, as `kernels.neuron_step` takes it.
    constant : (N,) current from always-on sources, int64 in units of 64 states, or float64.
    pulses : what those bring that send in some steps only.
    """

    population: Population
    leak: float
    neuron: Array
    constant: Array
    graded: tuple[GradedInput, ...]
    synapses: tuple[SpikeConnection, ...]
    pulses: tuple[Pulse, ...] = ()

    @property
    def leaky(self) -> bool:
        """True if the firing rate is more than counts / T."""
        return self.leak != 1

    @property
    def remembers(self) -> bool:
        """True if the synaptic current has memory."""
        return self.population.neuron.has_memory_of_current


class BatchWeights(NamedTuple):
    """What changes of an integer network from batch to batch while it is trained.

    Parameters
    ----------
    mantissas : connection -> its weight, of all connections that carry spikes or codes.
    constants : population -> (N,) current from always-on sources, units of 64 states.
    largest : connection that carries spikes -> bound on the magnitude of every sum of some of its mantissas.
    """

    mantissas: Mapping[str, Array]
    constants: Mapping[str, Array]
    largest: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Plan:
    """A network made ready to run.

    Parameters
    ----------
    populations : in the network's order.
    sum_dtype : the float type in which a dense product's sums are exact (integers), or simply float64.
    narrow : no step of a neuron whose potential is within 24 bits leaves 32 of them.
    """

    network: HardwareNetwork
    populations: tuple[PopulationPlan, ...]
    sum_dtype: type[np.floating[Any]]
    narrow: bool

    @property
    def integer(self) -> bool:
        """True if weights are mantissas, to be added up as integers."""
        return self.network.arithmetic == "integer"

    @property
    def steps(self) -> int:
        """T."""
        return self.network.time_steps

    def with_weights(self, weights: BatchWeights) -> "Plan":
        """The plan of the same network with other weights; geometry, delays and exponents stay, and so do proofs."""
        mantissas = weights.mantissas

        def changed(p: PopulationPlan) -> PopulationPlan:
            return dataclasses.replace(
                p,
                constant=weights.constants[p.population.name],
                graded=tuple(dataclasses.replace(g, map=g.map.with_weight(mantissas[g.name])) for g in p.graded),
                synapses=tuple(dataclasses.replace(s, map=s.map.with_weight(mantissas[s.name])) for s in p.synapses),
            )

        return dataclasses.replace(self, populations=tuple(map(changed, self.populations)))

    def held(self) -> dict[str, int]:
        """Steps for which each source's spikes are needed, the present one included."""
        sent = [s for p in self.populations for s in p.synapses]
        return {s.source: 1 + max(o.delay for o in sent if o.source == s.source) for s in sent}


def make_plan(network: HardwareNetwork, *, proven: bool = False) -> Plan:
    """Make a network ready to run.

    Parameters
    ----------
    proven : the network's 24-bit state is known to be proven, so that its 32-bit sums hold as well.

    Raises
    ------
    UnsupportedError : for an integer network whose sums could exceed the 32 bits that Lava adds them in.
    """
    violations = accumulator_violations(network) if network.arithmetic == "integer" and not proven else ()
    if violations:
        listed = "\n  ".join(map(str, violations))
        raise UnsupportedError(f'network "{network.name}" could exceed Lava\'s 32-bit sums:\n  {listed}')
    populations = tuple(_population_plan(network, p) for p in network.populations)
    if network.arithmetic == "float":
        return Plan(network, populations, np.float64, narrow=False)
    arriving = [_largest_arriving(p) for p in populations]
    summed = [int(_row_sums(s.map).max()) for p in populations for s in p.synapses]
    # What is proven reaches no potential beyond 24 bits, and so has no current beyond them either.
    narrow = proven or max(map(_largest_step, populations, arriving)) < 2**31
    return Plan(network, populations, float_dtype(max(*arriving, *summed, 0)), narrow)


def float_dtype(largest: int) -> type[np.floating[Any]]:
    """The float type that holds every integer up to ``largest``; raise if none does."""
    dtype = exact_dtype(largest)
    if dtype is np.int64:
        raise UnsupportedError(
            f"sums up to {largest} are not exact in float64; allowed: below 2**53; use smaller weights"
        )
    return dtype


def _largest_arriving(plan: PopulationPlan) -> int:
    """Bound on the magnitude of every partial sum of spike-driven current, in units of 64 states."""
    sums = np.zeros(plan.population.size)
    for s in plan.synapses:
        sums += np.ceil(_row_sums(s.map) * 2.0**s.shift)
    return int(sums.max())


def _largest_step(plan: PopulationPlan, arriving: int) -> int:
    """Bound on the magnitude of whatever a step of a neuron comes by, in units of state, from a potential in range."""
    current = arriving + int(np.abs(plan.constant).max())
    current += sum(int(np.abs(pulse.current).max()) for pulse in plan.pulses)
    for graded in plan.graded:
        current += int(_row_sums(graded.map).max() * graded.maximum * 2.0**graded.shift) + 1
    _, reset, threshold, _, keeps = map(abs, plan.neuron.tolist())
    kept = STATE_LIMIT if keeps else 0
    return int(STATE_LIMIT + kept + max(reset, threshold) + STATE_PER_HALF_WEIGHT * current)


def _row_sums(weights: LinearMap) -> Array:
    """(N_target,) sums of the magnitudes of the weights."""
    return weights.with_weight(np.abs(weights.weight)).sums()


def _population_plan(network: HardwareNetwork, population: Population) -> PopulationPlan:
    neuron = population.neuron
    constants = neuron_numbers(neuron)
    constant = np.zeros(population.size, constants.dtype)
    graded: list[GradedInput] = []
    synapses: list[SpikeConnection] = []
    pulses: list[Pulse] = []
    for connection in network.incoming(population.name):
        # Integer current is counted in units of 64 states, those of the doubled weights that Lava holds.
        shift = connection.weight_exponent + 1 if network.arithmetic == "integer" else 0
        delay = network.local_delay(connection)
        if connection.source == ALWAYS_ON:
            current = _shifted(connection.weight[:, 0].astype(constant.dtype), shift)
            if connection.period == 1:
                constant += current
            else:
                pulses.append(Pulse(connection, current))
        elif delay >= network.time_steps:
            continue
        elif network.is_graded(connection):
            weights = linear_map(network, connection)
            graded.append(GradedInput(connection.name, delay, weights, shift, network.input.maximum))
        else:
            weights = linear_map(network, connection)
            synapses.append(SpikeConnection(connection.name, connection.source, delay, weights, shift))
    return PopulationPlan(population, neuron.leak, constants, constant, tuple(graded), tuple(synapses), tuple(pulses))


def _shifted(numbers: Array, shift: int) -> Array:
    """Integers times 2**shift, rounded down; floats, whose shift is 0, as they are."""
    if shift == 0:
        return numbers
    return np.asarray(numbers << shift if shift > 0 else numbers >> -shift)


@dataclass(frozen=True, eq=False)
class BatchResult:
    """Counts, rates and spikes of one batch of b samples.

    Parameters
    ----------
    counts : population -> (b, *N) integer spikes in the window.
    rates : population -> (b, *N) float64 weighted firing rates, of leaky populations alone.
    spikes : population -> (T, b, *N) uint8, of those to be recorded.
    returned : (b, *N) float64 weighted rate of the last population over the spikes that came back; None: not counted.
    peaks : population -> largest |potential|, or |current| where that has memory, in units of state; of integers in
        the simulator.
    """

    counts: Mapping[str, Array]
    rates: Mapping[str, Array]
    spikes: Mapping[str, Array]
    returned: Array | None = None
    peaks: Mapping[str, int] = field(default_factory=dict)


def returned_share(steps: int, loop_delay: int, leak: float) -> float:
    """By what the rates before the last `loop_delay` steps, or counts of IF neurons, are to be multiplied.

    The product is the weighted rate over the spikes that came back, each in the step in which it did.
    """
    shares = rate_weights(steps, leak)
    if leak == 1:
        return float(shares[0])
    return float(shares[loop_delay] / shares[0]) if loop_delay < steps else 0.0


def overflow(plan: Plan, population: Population, *, sample: int, step: int, neuron: int, potential: int) -> Exception:
    """The error for a potential, or a current with memory, beyond 24 bits."""
    state = "potential or current" if population.neuron.has_memory_of_current else "potential"
    return StateOverflowError(
        f'network "{plan.network.name}", population "{population.name}", sample {sample}, step {step}, neuron '
        f"{neuron}: {state} {potential} units of state; allowed: -{STATE_LIMIT} .. {STATE_LIMIT} (24 bits); use "
        "fewer time steps or a smaller scale for this population"
    )


class Engine(Protocol):
    """One way to run a plan."""

    def sample_bytes(self, record: Sequence[str]) -> int:
        """Memory that one sample of a batch takes, roughly."""

    def run(self, inputs: Array, *, first: int, record: Sequence[str]) -> BatchResult:
        """Run the network on a batch, shaped as the run's inputs; `first`: number of its first sample."""
