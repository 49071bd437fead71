"""The parts of a hardware network: input, neurons, populations, connections, readout. Arrays and plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fsnn_lava.hardware.geometry import DENSE, Geometry

INPUT = "input"
"""Name under which a connection refers to the network's input."""
ALWAYS_ON = "always_on"
"""Name of the source that sends one spike in every step of its target's window (constant currents)."""

Array = npt.NDArray[Any]
Timing = Literal["sequential", "hardware"]
Arithmetic = Literal["float", "integer"]

STATE_PER_WEIGHT = 128
"""Units of state per weight unit (Lava: even weights, shifted left by 6)."""
DECAY_UNITY = 4096
"""Denominator of the integer leak: leak = (4096 - decay) / 4096."""
STATE_LIMIT = 2**23 - 1
"""Largest magnitude of a membrane potential in units of state (24 bits, signed)."""
THRESHOLD_LIMIT = 2**16
"""Largest integer threshold: Lava is given 2 V - 1, which has 17 bits."""


@dataclass(frozen=True)
class Violation:
    """One broken rule: where, what was found, what is allowed."""

    where: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; allowed: {self.allowed}"


@dataclass(frozen=True)
class InputSpec:
    """What arrives from outside.

    Parameters
    ----------
    shape : shape of one sample, without batch and time.
    kind : ``graded``: one integer code per element, sent in every step; ``event``: 0/1 frames, one per step.
    maximum : largest code (255 for 8-bit pixels, 1 for events). Codes start at 0.
    """

    shape: tuple[int, ...]
    kind: Literal["graded", "event"]
    maximum: int

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class FloatNeuron:
    """IF (leak 1) or LIF neuron with reset by subtraction, docs/network-format.md.

    v[t] = leak (v[t-1] - reset_amount s[t-1]) + I[t];  s[t] = 1 if v[t] >= v_threshold.
    """

    v_threshold: float
    reset_amount: float
    leak: float


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


Neuron = FloatNeuron | IntegerNeuron


@dataclass(frozen=True)
class Population:
    """Neurons that share their parameters. ``start``: first global step of the window."""

    name: str
    shape: tuple[int, ...]
    neuron: Neuron
    start: int = 0

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, eq=False)
class Connection:
    """Synapses from one source to one population.

    Parameters
    ----------
    source : a population's name, `INPUT` or `ALWAYS_ON`. An always-on source opens with its target's window.
    target : a population's name.
    weight : shaped as the geometry says, (N_target, N_source) where it is dense. Float network: float64, per unit of
        spike or input code. Integer network: int32 mantissas. `ALWAYS_ON` has one column.
    delay : steps between sending and arrival; 0 for `ALWAYS_ON`.
    weight_exponent : power of two of the mantissas; negative for graded input alone. Float network: 0.
    weight_bits : width of the signed mantissa. Float network: 0.
    geometry : all pairs of neurons, or kernels shared over positions.
    """

    name: str
    source: str
    target: str
    weight: Array
    delay: int = 0
    weight_exponent: int = 0
    weight_bits: int = 0
    geometry: Geometry = DENSE


@dataclass(frozen=True, eq=False)
class Integrators:
    """The readout's weights as integers, for neurons that integrate and never fire.

    Each class has `parts` integrators, so that each adds up few enough weights for its 24-bit state; integrator
    (class, part) listens to the source neurons of that part, runs of ceil(N / parts) neurons in order. Its potential u
    (units of state) starts from 0 and follows the integer law with the source population's decay, without reset, in
    the source's window. logits = scale * (sum of u over a class's parts) / (128 * sum of leak**k, k < T) + bias.

    Parameters
    ----------
    weight : (classes, N) int32 mantissas.
    weight_exponent : their power of two, 0 .. 7.
    weight_bits : width of the mantissas.
    parts : integrators per class, at least 1.
    scale : logit that one weight unit stands for.
    """

    weight: Array
    weight_exponent: int
    weight_bits: int
    parts: int
    scale: float


@dataclass(frozen=True, eq=False)
class Readout:
    """Non-spiking classifier: logits = weight @ firing_rate + bias; (classes, N), (classes,).

    The host computes it in floats. An integer network may also hold `integrators`, its form on hardware.
    """

    source: str
    weight: Array
    bias: Array
    integrators: Integrators | None = None
