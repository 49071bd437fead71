"""The readout as neurons that integrate and never fire: their weights, their potentials, and the logits from them.

The law is the populations' own (docs/network-format.md), without reset and threshold; u in units of state:

    u[t] = sign(u[t-1]) (|u[t-1]| (4096 - decay) >> 12) + 128 W s[t] 2**exponent
"""

import numpy as np

from fsnn_lava.errors import NetworkError, counted
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork, Integrators, Readout
from fsnn_lava.hardware.neurons import DECAY_UNITY, STATE_PER_WEIGHT, IntegerNeuron

POTENTIAL_LIMIT = 2**16
"""Weight units that a sum must stay below, for its potential to fit 24 bits."""


def quantize_readout(readout: Readout, *, decay: int, time_steps: int, weight_bits: int) -> Integrators:
    """Round the readout's weights to integers, in as few parts as are proven to fit 24 bits.

    One scale for all weights: the largest becomes the largest mantissa. Its bias stays with the host. A part adds up
    at most sum of leak**k, k < T, times its positive or its negative weights: the bound that chooses `parts`.

    Parameters
    ----------
    decay : of the source population, 0 .. 4095.

    Raises
    ------
    NetworkError : if even one weight per part would not fit.
    """
    largest = float(np.abs(readout.weight).max())
    scale = largest / ((1 << (weight_bits - 1)) - 1) if largest > 0 else 1.0
    weight = np.rint(readout.weight / scale).astype(np.int32)
    horizon = leak_sum(decay, time_steps)
    parts = next((p for p in range(1, weight.shape[1] + 1) if _worst_sum(weight, p) * horizon < POTENTIAL_LIMIT), None)
    if parts is None:
        raise NetworkError(
            f'readout of "{readout.source}": {counted(time_steps, "spike")} times a weight of '
            f"{int(np.abs(weight).max())} reach {POTENTIAL_LIMIT} weight units, "
            "more than 24 bits hold; use fewer time steps or fewer weight_bits"
        )
    return Integrators(weight, 0, weight_bits, parts, scale)


def leak_sum(decay: int, time_steps: int) -> float:
    """Sum of leak**k, k < T: the potential, in weights, after a spike in every step."""
    return float((((DECAY_UNITY - decay) / DECAY_UNITY) ** np.arange(time_steps, dtype=np.float64)).sum())


def part_of(size: int, parts: int) -> Array:
    """(N,) part to which each source neuron belongs: runs of ceil(N / parts) in order."""
    return np.arange(size) // -(-size // parts)


def integrate(network: HardwareNetwork, spikes: Array) -> Array:
    """Integrate the source's spikes (T, B, *N): potentials u after the window, (B, classes * parts) int64.

    Raises
    ------
    NetworkError : if the network has no integrators.
    """
    integrators, neuron = _integrators(network)
    classes, size = integrators.weight.shape
    parts, length = integrators.parts, -(-size // integrators.parts)
    room = parts * length - size  # the last parts may be shorter, or empty
    weight = np.pad(integrators.weight << integrators.weight_exponent, ((0, 0), (0, room))).astype(np.float64)
    weight = weight.reshape(classes, parts, length).transpose(1, 2, 0)
    fired = np.pad(spikes.reshape(*spikes.shape[:2], size), ((0, 0), (0, 0), (0, room)))
    u = np.zeros((spikes.shape[1], classes * parts), np.int64)
    for now in fired:
        sums = now.reshape(-1, parts, length).swapaxes(0, 1).astype(np.float64) @ weight  # exact: below 2**53
        u = neuron.leaked(u) + STATE_PER_WEIGHT * sums.transpose(1, 2, 0).reshape(u.shape).astype(np.int64)
    return u


def integrated_logits(network: HardwareNetwork, u: Array) -> Array:
    """(B, classes) logits of the integrators' potentials (B, classes * parts).

    Raises
    ------
    NetworkError : if the network has no integrators.
    """
    integrators, neuron = _integrators(network)
    sums = u.reshape(len(u), -1, integrators.parts).sum(axis=2)
    unit = integrators.scale / (STATE_PER_WEIGHT * leak_sum(neuron.decay, network.time_steps))
    return np.asarray(sums * unit + network.readout.bias)


def _integrators(network: HardwareNetwork) -> tuple[Integrators, IntegerNeuron]:
    """The readout's integrators, and the neuron of its source, whose leak they share."""
    integrators = network.readout.integrators
    if integrators is None:
        raise NetworkError(
            f'network "{network.name}" has no integrators: its readout is for the host alone; quantize the network '
            "again, or read out on the host"
        )
    neuron = network.population(network.readout.source).neuron
    assert isinstance(neuron, IntegerNeuron)  # integrators are allowed in integer networks alone
    return integrators, neuron


def _worst_sum(weight: Array, parts: int) -> int:
    """Largest sum of the weights of one sign in one part of one class."""
    starts = np.unique(part_of(weight.shape[1], parts), return_index=True)[1]
    positive = np.add.reduceat(np.maximum(weight, 0), starts, axis=1, dtype=np.int64)
    negative = np.add.reduceat(np.maximum(-weight, 0), starts, axis=1, dtype=np.int64)
    return int(max(positive.max(), negative.max()))
