"""Energy of training on one sample by SPIDE, IDE and BPTT: counted operations x published energies.

Every method has two accounts. *Zeros skipped*: what must be done where neither weights nor activity are zero. A spike
at a synapse is an addition (the factors 1/r and 1/(1-p) of a layer are the same for all neurons and belong to its
weights). *Dense*: every weight is multiplied at every step, as a GPU does it.

With n neurons, f leaks (1 for LIF, 0 for IF), T steps forward and T_back steps back, for one sample:

    first phase, all methods
      input current    constant input: its synapses, once, multiplied and added; events: an addition for each
      spikes           SUM over later connections of (spikes x fan-out) additions     dense: T x synapses (feedback T-1)
      neurons          n x T x (neuron_additions additions + f multiplications)
    SPIDE
      second phase     SUM of (couple spikes that are sent back x fan-in) additions   dense: T_back x synapses
      couples          n x T_back x (neuron_additions additions + f multiplications)
      local updates    synapses with a_j and D_i m_i beta_i other than 0              dense: synapses
    IDE
      map              later synapses with a_j other than 0                           dense: synapses
      adjoint solve    steps x loop synapses whose target lets something through      dense: steps x loop synapses
      map backwards    the same once, of the feedforward connections after the first  dense: these synapses
      weight gradients synapses with both ends                                        dense: synapses
    BPTT
      steps backwards  at each step, later synapses whose target's potential is within the surrogate's width
                                                                                      dense: T x synapses (feedback T-1)
      neurons          n x T x bptt_neuron_products
      weight gradients at each step an addition for each of these synapses whose source spikes; of constant input once,
                       multiplied by it                                               dense: T x synapses

**Not counted**: memory, which costs more than arithmetic on every machine (reading 32 bits from DRAM: 640 pJ in the
same source; BPTT alone keeps something for each step), moving spikes and addresses, control, the classifier (the same
for all, and small), drawing of masks and loss, the optimizer (once a batch). It compares arithmetic, not machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.spide.operations import ConnectionWork, TrainingWork

SOURCE = (
    'Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014: 45 nm, 0.9 V, 32-bit '
    "floating point, arithmetic alone"
)
"""Where the default energies are from."""


@dataclass(frozen=True)
class EnergyCosts:
    """Cost of operations, and how many of them a neuron needs."""

    pj_addition: float = 0.9
    """Picojoules of a 32-bit floating-point addition (Horowitz, ISSCC 2014, 45 nm)."""
    pj_multiplication: float = 3.7
    """Picojoules of a 32-bit floating-point multiplication (same source)."""
    neuron_additions: float = 2.0
    """Additions of a neuron or couple in a step: its constant current, and the comparison with its threshold."""
    bptt_neuron_products: float = 2.0
    """Multiplications with addition of a neuron in a step backwards: by the surrogate, and along the potential."""


@dataclass(frozen=True)
class Count:
    """Operations; a product is a multiplication and an addition."""

    additions: float = 0.0
    multiplications: float = 0.0
    products: float = 0.0

    def picojoules(self, costs: EnergyCosts) -> float:
        """Energy of all of them."""
        product = costs.pj_addition + costs.pj_multiplication
        return (
            self.additions * costs.pj_addition
            + self.multiplications * costs.pj_multiplication
            + self.products * product
        )


@dataclass(frozen=True)
class Part:
    """One part of a method: operations where zeros are skipped, and where everything is multiplied."""

    method: str
    name: str
    sparse: Count
    dense: Count


def energy_parts(work: TrainingWork, costs: EnergyCosts) -> list[Part]:
    """All parts of all methods for one sample."""
    first = [*_first_phase(work, costs)]
    methods = {"SPIDE": _spide(work, costs), "IDE": _ide(work), "BPTT": _bptt(work, costs)}
    return [
        Part(method, name, sparse, dense) for method, own in methods.items() for name, sparse, dense in (*first, *own)
    ]


def totals(parts: Sequence[Part], costs: EnergyCosts) -> dict[str, dict[str, float]]:
    """Method -> account -> microjoules of a sample."""
    found: dict[str, dict[str, float]] = {}
    for part in parts:
        account = found.setdefault(part.method, {"sparse": 0.0, "dense": 0.0})
        account["sparse"] += part.sparse.picojoules(costs) * 1e-6
        account["dense"] += part.dense.picojoules(costs) * 1e-6
    return found


def as_kept(parts: Sequence[Part], costs: EnergyCosts) -> list[dict[str, object]]:
    """Return the parts for JSON, with the energy of each in microjoules."""
    return [
        asdict(part)
        | {"sparse_uj": part.sparse.picojoules(costs) * 1e-6, "dense_uj": part.dense.picojoules(costs) * 1e-6}
        for part in parts
    ]


_Row = tuple[str, Count, Count]


def _first_phase(work: TrainingWork, costs: EnergyCosts) -> list[_Row]:
    given, later = work.connections[0], work.connections[1:]
    once = Count(products=given.synapses)
    every_step = Count(products=given.synapses * work.time_steps)
    current = (Count(additions=given.forward), every_step) if work.event_input else (once, once)
    spikes = Count(additions=sum(c.forward for c in later))
    dense = Count(products=sum(_steps(c, work.time_steps) * c.synapses for c in later))
    return [
        ("input current", *current),
        ("spikes forwards", spikes, dense),
        ("neurons forwards", *_neurons(work, work.time_steps, costs)),
    ]


def _spide(work: TrainingWork, costs: EnergyCosts) -> list[_Row]:
    later, steps = work.connections[1:], work.time_steps_back
    spikes = Count(additions=sum(c.backward for c in later))
    dense = Count(products=sum(_steps(c, steps) * c.synapses for c in later))
    updates = Count(products=sum(c.updated for c in _learned(work)))
    return [
        ("spikes backwards", spikes, dense),
        ("couples", *_neurons(work, steps, costs)),
        ("local updates", updates, Count(products=sum(c.synapses for c in _learned(work)))),
    ]


def _ide(work: TrainingWork) -> list[_Row]:
    later, steps = work.connections[1:], work.adjoint_steps
    above = [c for c in later if c.name != "feedback"]
    synapses = sum(c.synapses for c in later)
    return [
        ("map", Count(products=sum(c.mapped for c in later)), Count(products=synapses)),
        (
            "adjoint solve",
            Count(products=steps * sum(c.passing for c in later)),
            Count(products=steps * synapses),
        ),
        (
            "map backwards",
            Count(products=sum(c.passing for c in above)),
            Count(products=sum(c.synapses for c in above)),
        ),
        (
            "weight gradients",
            Count(products=sum(c.updated_ide for c in _learned(work))),
            Count(products=sum(c.synapses for c in _learned(work))),
        ),
    ]


def _bptt(work: TrainingWork, costs: EnergyCosts) -> list[_Row]:
    later, learned, steps = work.connections[1:], _learned(work), work.time_steps
    given = work.connections[0]
    neurons = Count(products=costs.bptt_neuron_products * sum(work.neurons) * steps)
    constant = 0.0 if work.event_input else given.mapped
    added = sum(c.updated_bptt for c in learned if c is not given or work.event_input)
    every_step = sum(_steps(c, steps) * c.synapses for c in learned if c is not given)
    every_step += given.synapses * (steps if work.event_input else 1)
    return [
        (
            "steps backwards",
            Count(products=sum(c.passing_bptt for c in later)),
            Count(products=sum(_steps(c, steps) * c.synapses for c in later)),
        ),
        ("neurons backwards", neurons, neurons),
        ("weight gradients", Count(additions=added, products=constant), Count(products=every_step)),
    ]


def _learned(work: TrainingWork) -> list[ConnectionWork]:
    return [c for c in work.connections if c.learned]


def _steps(connection: ConnectionWork, steps: int) -> int:
    """Products of a run of so many steps: the feedback brings nothing in the first of them."""
    return steps - 1 if connection.name == "feedback" else steps


def _neurons(work: TrainingWork, steps: int, costs: EnergyCosts) -> tuple[Count, Count]:
    each = sum(work.neurons) * steps
    count = Count(costs.neuron_additions * each, each if work.leak < 1 else 0.0)
    return count, count
