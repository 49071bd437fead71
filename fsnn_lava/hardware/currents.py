"""Currents that arrive in every step: what the input and the always-on source send to a population on average.

For an integer network the graded input's current is rounded down exactly as in a run. What spikes send differs from
step to step, so of it the mean loss by rounding down (`mean_floor`) is part of what is constant.
"""

from collections.abc import Sequence

import numpy as np

from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, Population
from fsnn_lava.hardware.run_io import rate_weights


def real_weight(connection: Connection) -> Array:
    """The connection's weights, float64, in the unit of the target's potential (weight units if integer).

    Of a periodic source what arrives in a step on average.
    """
    weight = np.ldexp(connection.weight.astype(np.float64), connection.weight_exponent)
    return np.asarray(weight / connection.period)


def summed_weight(connections: Sequence[Connection]) -> Array:
    """Weights of parallel connections, added up: what they do together. In the unit of `real_weight`."""
    return np.asarray(np.sum([real_weight(c) for c in connections], axis=0))


def mean_floor(exponent: int) -> float:
    """Mean loss of a sum with that weight exponent by rounding down to half a weight unit, weight units.

    Twice the sum has steps of 2**(exponent + 1), and loses any multiple of them below 1 alike, half of 1 less a step on
    average. That holds for graded codes, and for spikes where several arrive in a step.
    """
    return (1 - 2.0 ** (exponent + 1)) / 4 if exponent < -1 else 0.0


def constant_current(network: HardwareNetwork, population: Population, inputs: Array) -> Array:
    """(B, N) float64 current of the input and of the always-on source, in the unit of the potential.

    Graded input of an integer network: what arrives in every step, rounded down as in a run. Event frames: their mean.
    Less the mean loss of sums of spikes by rounding down.
    """
    current = np.zeros((network.input.samples(inputs), population.size))
    for c in network.incoming(population.name):
        if not network.is_graded(c):
            current -= mean_floor(c.weight_exponent)
        if c.source == ALWAYS_ON:
            current += real_weight(c)[:, 0]
        elif c.source == INPUT:
            current += _input_current(network, c, mean_input(network, inputs, population.neuron.leak))
    return current


def mean_input(network: HardwareNetwork, inputs: Array, leak: float) -> Array:
    """(B, M) float64 mean of each element over the window, weighted as firing rates of that leak are."""
    if network.input.kind == "graded":
        return inputs.reshape(len(inputs), -1).astype(np.float64)
    frames = inputs.reshape(*inputs.shape[:2], -1)
    mean = np.zeros(frames.shape[1:])
    for share, frame in zip(rate_weights(network.time_steps, leak), frames, strict=True):
        mean += share * frame
    return mean


def _input_current(network: HardwareNetwork, connection: Connection, mean: Array) -> Array:
    """Current per step; graded input to integers is rounded down to whole half weight units."""
    total = linear_map(network, connection).product(mean)
    if network.arithmetic == "integer" and network.input.kind == "graded":
        return np.asarray(np.floor(np.ldexp(total, connection.weight_exponent + 1)) / 2)
    return np.asarray(np.ldexp(total, connection.weight_exponent))
