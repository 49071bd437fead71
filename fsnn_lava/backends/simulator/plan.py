"""A network made ready to run: what both engines and both arithmetics share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from fsnn_lava.errors import StateOverflowError
from fsnn_lava.hardware import STATE_LIMIT, Array, Convolution, Dense, HardwareNetwork, LinearMap, Population


@dataclass(frozen=True, eq=False)
class Synapses:
    """A connection that carries spikes.

    Parameters
    ----------
    delay : local, less than the number of steps.
    map : its weights; mantissas, if they are integers.
    shift : power of two that its sums are multiplied with, to be in the unit of the current.
    """

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
    """A connection that carries codes: ``current(codes)``, (B, N_target), arrives in every step from ``delay`` on."""

    delay: int
    current: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class PopulationPlan:
    """One population with all that reaches it.

    Parameters
    ----------
    leak : share of the potential kept per step; weighs the firing rate.
    neuron : (3,) int64 or float64, as `kernels.advance` takes it.
    constant : (N,) current from always-on sources, int64 in units of 64 states, or float64.
    """

    population: Population
    leak: float
    neuron: Array
    constant: Array
    graded: tuple[GradedInput, ...]
    synapses: tuple[Synapses, ...]

    @property
    def leaky(self) -> bool:
        """Whether the firing rate is more than counts / T."""
        return self.leak != 1


@dataclass(frozen=True, eq=False)
class Plan:
    """A network made ready to run.

    Parameters
    ----------
    populations : in the network's order.
    sum_dtype : the float type in which a dense product's sums are exact (integers), or simply float64.
    """

    network: HardwareNetwork
    populations: tuple[PopulationPlan, ...]
    sum_dtype: type[np.floating[Any]]

    @property
    def integer(self) -> bool:
        """Whether weights are mantissas, to be added up as integers."""
        return self.network.arithmetic == "integer"

    @property
    def steps(self) -> int:
        """T."""
        return self.network.time_steps

    @property
    def count_dtype(self) -> type[np.signedinteger[Any]]:
        """The smallest signed type that counts T spikes, 16 bits at least."""
        return np.int16 if self.steps < 2**15 else np.int32

    def held(self) -> dict[str, int]:
        """How many steps each source's spikes are needed for, the present one included."""
        sent = [s for p in self.populations for s in p.synapses]
        return {s.source: 1 + max(o.delay for o in sent if o.source == s.source) for s in sent}


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an engine did with one batch of b samples.

    Parameters
    ----------
    counts : population -> (b, *N) integer spikes in the window.
    rates : population -> (b, *N) float64 weighted firing rates, of leaky populations alone.
    spikes : population -> (T, b, *N) uint8, of those to be recorded.
    """

    counts: Mapping[str, Array]
    rates: Mapping[str, Array]
    spikes: Mapping[str, Array]


def overflow(plan: Plan, population: Population, *, sample: int, step: int, neuron: int, potential: int) -> Exception:
    """The error for a potential beyond 24 bits."""
    return StateOverflowError(
        f'network "{plan.network.name}", population "{population.name}", sample {sample}, step {step}, neuron '
        f"{neuron}: potential {potential} units of state; allowed: -{STATE_LIMIT} .. {STATE_LIMIT} (24 bits); use "
        "fewer time steps or a smaller scale for this population"
    )


class Engine(Protocol):
    """One way to run a plan."""

    def sample_bytes(self, record: Sequence[str]) -> int:
        """Memory that one sample of a batch takes, roughly."""

    def run(self, inputs: Array, *, first: int, record: Sequence[str]) -> Outcome:
        """What the network does with a batch, shaped as the run's inputs; `first`: number of its first sample."""
