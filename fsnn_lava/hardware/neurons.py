"""The neuron's law in both arithmetics, as numbers: when it fires, what a spike subtracts, what a step keeps.

Training, simulators, the overflow proof and Lava's processes all take the law's constants from here; the loops that
apply it are `network.neuron` (PyTorch), `kernels.neuron_step` (simulators) and Lava's own LIF.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class FloatNeuron:
    """IF (leak 1) or LIF neuron with reset by subtraction, docs/network-format.md.

    v[t] = leak (v[t-1] - reset_amount s[t-1]) + I[t];  s[t] = 1 if v[t] >= v_threshold  (IDE paper, Eq. 2 and 10).

    Parameters
    ----------
    v_threshold : firing threshold V_th, above 0.
    reset_amount : r, what a spike subtracts, in the unit of `v_threshold`; V_th in IDE, 2 V_th in SPIDE.
    leak : share of the potential that a step keeps, 0 < leak <= 1.
    """

    v_threshold: float = 2.0
    reset_amount: float = 2.0
    leak: float = 1.0


@dataclass(frozen=True)
class IntegerNeuron:
    """The same neuron in integers, docs/network-format.md.

    Parameters
    ----------
    v_threshold : V, weight units, at least 1.
    reset_mantissa, reset_exponent : reset synapse m * 2**e, weight units; 1 <= m <= 255, e >= 0.
    decay : 4096 (1 - leak), 0 .. 4095.
    scale : real value of one weight unit in this population.
    """

    v_threshold: int
    reset_mantissa: int
    reset_exponent: int
    decay: int
    scale: float

    @property
    def reset_synapse(self) -> int:
        """Weight units that one spike subtracts after the leak (rho)."""
        return self.reset_mantissa << self.reset_exponent

    @property
    def leak(self) -> float:
        """Share of the potential that is kept per step."""
        return (DECAY_UNITY - self.decay) / DECAY_UNITY

    @property
    def reset_amount(self) -> float:
        """Weight units that one spike subtracts before the leak: r = rho / leak."""
        return self.reset_synapse / self.leak

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
        return np.asarray(np.sign(potential) * (np.abs(potential) * (DECAY_UNITY - self.decay) >> 12))


Neuron = FloatNeuron | IntegerNeuron
