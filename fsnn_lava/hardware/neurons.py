"""The neuron's law in both arithmetics, as numbers: when it fires, what a spike subtracts, what a step keeps.

Training, simulators, the overflow proof and Lava's processes all take the law's constants from here; the loops that
apply it are `network.neuron` (PyTorch), `kernels.neuron_step` (simulators) and Lava's own LIF.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fsnn_lava.hardware.geometry import Array

STATE_PER_WEIGHT = 128
"""Units of state per weight unit (Lava: even weights, shifted left by 6)."""
STATE_PER_HALF_WEIGHT = 64
"""Units of state per unit of the doubled weights that Lava holds: a shift left by 6."""
DECAY_UNITY = 4096
"""Denominator of the integer leak: leak = (4096 - decay) / 4096."""
STATE_LIMIT = 2**23 - 1
"""Largest magnitude of a membrane potential in units of state (24 bits, signed)."""
THRESHOLD_LIMIT = 2**16
"""Largest integer threshold: Lava is given 2 V - 1, which has 17 bits."""

Reset = Literal["subtract", "zero"]
"""What a spike does to the potential: subtract an amount from it (soft reset), or set it to 0 (hard reset)."""


@dataclass(frozen=True)
class FloatNeuron:
    """IF (leak 1) or LIF neuron, docs/network-format.md; with a current that decays (CUBA) where `current_leak` > 0.

    I[t] = current_leak I[t-1] + what arrives at t;
    v[t] = leak (v[t-1] - reset_amount s[t-1]) + I[t];  s[t] = 1 if v[t] >= v_threshold  (IDE paper, Eq. 2 and 10).

    With reset to zero, v[t] = I[t] after a spike, and leak v[t-1] + I[t] else.

    Parameters
    ----------
    v_threshold : firing threshold V_th, above 0.
    reset_amount : r, what a spike subtracts, in the unit of `v_threshold`; V_th in IDE, 2 V_th in SPIDE. Means nothing
        where a spike sets the potential to 0.
    leak : share of the potential that a step keeps, 0 < leak <= 1.
    reset : what a spike does.
    current_leak : share of the synaptic current that a step keeps, 0 <= current_leak < 1; 0: it has no memory.
    """

    v_threshold: float = 2.0
    reset_amount: float = 2.0
    leak: float = 1.0
    reset: Reset = "subtract"
    current_leak: float = 0.0

    @property
    def has_memory_of_current(self) -> bool:
        """Tell whether what arrives in a step acts on later ones by itself."""
        return self.current_leak > 0

    @property
    def spike_cost(self) -> float:
        """What a spike takes off the potential: r, or, where it resets to zero, at least the threshold."""
        return self.reset_amount if self.reset == "subtract" else self.v_threshold


@dataclass(frozen=True)
class IntegerNeuron:
    """The same neuron in integers, docs/network-format.md.

    Parameters
    ----------
    v_threshold : V, weight units, at least 1.
    reset_mantissa, reset_exponent : reset synapse m * 2**e, weight units; 1 <= m <= 255, e >= 0. It means nothing where
        a spike sets the potential to 0.
    decay : 4096 (1 - leak), 0 .. 4095.
    scale : real value of one weight unit in this population.
    reset : what a spike does.
    current_decay : 4096 (1 - current_leak), 1 .. 4096; 4096: the current has no memory.
    """

    v_threshold: int
    reset_mantissa: int
    reset_exponent: int
    decay: int
    scale: float
    reset: Reset = "subtract"
    current_decay: int = DECAY_UNITY

    @property
    def reset_synapse(self) -> int:
        """Weight units that one spike subtracts after the leak (rho)."""
        return self.reset_mantissa << self.reset_exponent

    @property
    def leak(self) -> float:
        """Share of the potential that is kept per step."""
        return (DECAY_UNITY - self.decay) / DECAY_UNITY

    @property
    def current_leak(self) -> float:
        """Share of the synaptic current that is kept per step."""
        return (DECAY_UNITY - self.current_decay) / DECAY_UNITY

    @property
    def has_memory_of_current(self) -> bool:
        """Tell whether what arrives in a step acts on later ones by itself."""
        return self.current_decay < DECAY_UNITY

    @property
    def reset_amount(self) -> float:
        """Weight units that one spike subtracts before the leak: r = rho / leak."""
        return self.reset_synapse / self.leak

    @property
    def spike_cost(self) -> float:
        """Weight units that a spike takes off: r, or, where it resets to zero, at least the threshold."""
        return self.reset_amount if self.reset == "subtract" else float(self.v_threshold)

    @property
    def fires_above(self) -> int:
        """Largest potential at which the neuron is silent, units of state: half a weight unit below V.

        Lava compares doubled weight units, 64 units of state each, and is given ``vth`` = fires_above / 64 = 2 V - 1.
        """
        return STATE_PER_HALF_WEIGHT * (2 * self.v_threshold - 1)

    @property
    def reset_state(self) -> int:
        """Units of state that one spike subtracts after the leak: 128 rho."""
        return STATE_PER_WEIGHT * self.reset_synapse

    def leaked(self, potential: Array) -> Array:
        """What a step keeps of potentials in units of state: u (4096 - decay) / 4096, rounded towards zero."""
        return _decayed(potential, self.decay)

    def kept_current(self, current: Array) -> Array:
        """What a step keeps of synaptic currents in units of state, rounded likewise."""
        return _decayed(current, self.current_decay)


Neuron = FloatNeuron | IntegerNeuron


def _decayed(state: Array, decay: int) -> Array:
    return np.asarray(np.sign(state) * (np.abs(state) * (DECAY_UNITY - decay) >> 12))


def reasons_against_equilibrium(neuron: Neuron) -> tuple[str, ...]:
    """Say why a population of such neurons has no equilibrium rate clamp(I / r); empty if it has one.

    What a reset to zero throws away depends on when the input arrives, so that the mean current alone decides no rate.
    A current with memory is left out because none of the equilibrium's derivations has one.
    """
    reasons = []
    if neuron.reset == "zero":
        reasons.append("reset to zero")
    if neuron.has_memory_of_current:
        reasons.append(f"a current that decays (current_leak {neuron.current_leak:g})")
    return tuple(reasons)
