"""The SPIDE gradient in plain NumPy and float64, without package code: both phases, local updates, and their limit.

It is slow and obvious on purpose. Populations are flat, (B, N) with N = C H W in that order, and every connection is
the matrix of its weights, a convolution as well. The neurons and the order of a step are those of Xiao et al., "SPIDE:
a purely spike-based method for training feedback spiking neural networks" (2023), Sections 4.2 to 4.4.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Connection:
    """Current of N neurons from M others: mask (weights x + bias).

    Parameters
    ----------
    taps : (N, M) which of the flat weights joins two neurons, -1 if none does.
    weight : flat; its gradient is the sum over all places where a weight is used.
    channels : (N,) which bias each neuron has.
    bias : (C,), or None.
    mask : (B, N) dropout mask, ones without.
    """

    taps: Integers
    weight: Floats
    channels: Integers
    bias: Floats | None
    mask: Floats

    def matrix(self) -> Floats:
        return np.where(self.taps < 0, 0.0, self.weight[self.taps])

    def current(self, x: Floats) -> Floats:
        response = x @ self.matrix().T
        if self.bias is not None:
            response = response + self.bias[self.channels]
        return self.mask * response


@dataclass(frozen=True, eq=False)
class Network:
    """Connections into population 1 .. N, and from the last population into the first."""

    feedforward: tuple[Connection, ...]
    feedback: Connection | None
    v_threshold: float
    reset_amount: float
    leak: float

    def rate_weights(self, steps: int) -> Floats:
        """Weight of each step in a rate, the last one's the largest."""
        weights = self.leak ** np.arange(steps - 1, -1, -1, dtype=np.float64)
        return weights / weights.sum()


@dataclass(frozen=True, eq=False)
class Update:
    """Gradient of a connection's weight, flat, and of its bias."""

    weight: Floats
    bias: Floats


def linear_taps(features: int, inputs: int) -> Integers:
    """For a weight (out, in)."""
    return np.arange(features * inputs).reshape(features, inputs)


def conv_taps(source: tuple[int, ...], target: tuple[int, ...], *, kernel: int, stride: int, padding: int) -> Integers:
    """For a weight (out, in, K, K): each target position gathers K x K positions of the source."""
    (channels, height, width), (features, rows, columns) = source, target
    taps = np.full((features, rows, columns, channels, height, width), -1)
    for d, y, x, c, a, b in product(*map(range, (features, rows, columns, channels, kernel, kernel))):
        i, j = y * stride + a - padding, x * stride + b - padding
        if 0 <= i < height and 0 <= j < width:
            taps[d, y, x, c, i, j] = ((d * channels + c) * kernel + a) * kernel + b
    return taps.reshape(features * rows * columns, channels * height * width)


def transposed_taps(source: tuple[int, ...], target: tuple[int, ...], *, kernel: int) -> Integers:
    """For a weight (in, out, K, K): each source position spreads to K x K positions of a target of twice the sides."""
    (channels, height, width), (features, rows, columns) = source, target
    taps = np.full((features, rows, columns, channels, height, width), -1)
    for c, y, x, d, a, b in product(*map(range, (channels, height, width, features, kernel, kernel))):
        i, j = 2 * y + a - (kernel - 1) // 2, 2 * x + b - (kernel - 1) // 2
        if 0 <= i < rows and 0 <= j < columns:
            taps[d, i, j, c, y, x] = ((c * features + d) * kernel + a) * kernel + b
    return taps.reshape(features * rows * columns, channels * height * width)


def forward_phase(network: Network, frames: Floats, *, loop_delay: int) -> list[Integers]:
    """Spikes (T, B, N) of every population for frames (T, B, M)."""
    populations = len(network.feedforward)
    spikes: list[list[Floats]] = [[] for _ in range(populations)]
    v = [np.zeros_like(c.mask) for c in network.feedforward]
    for t, frame in enumerate(frames):
        for p, connection in enumerate(network.feedforward):
            current = connection.current(frame if p == 0 else spikes[p - 1][t])
            if p == 0 and network.feedback is not None and t >= loop_delay:
                current = current + network.feedback.current(spikes[-1][t - loop_delay])
            kept = v[p] - network.reset_amount * spikes[p][t - 1] if t else v[p]
            v[p] = network.leak * kept + current
            spikes[p].append((v[p] >= network.v_threshold).astype(np.float64))
    return [np.array(found, np.int64) for found in spikes]


def mean_over_time(network: Network, values: npt.NDArray[np.generic]) -> Floats:
    """(B, N) of (T, B, N), late steps weighing more in a leaky network."""
    mean: Floats = np.tensordot(network.rate_weights(len(values)), np.asarray(values, np.float64), 1)
    return mean


def unsaturated(spikes: Integers) -> Floats:
    """1 for neurons that fired at some steps and not at all of them: for a rate between 0 and 1."""
    count = spikes.sum(0)
    return ((count > 0) & (count < len(spikes))).astype(np.float64)


def backward_phase(
    network: Network, masks: list[Floats], gradient: Floats, *, time_steps: int, loss_scale: float, loop_delay: int
) -> list[Integers]:
    """Ternary spikes (T, B, N) of every population.

    Parameters
    ----------
    masks : (B, N) of `unsaturated`, for every population.
    gradient : (B, N) of the loss by the rates of the last population.
    """
    populations = len(network.feedforward)
    spikes: list[list[Floats]] = [[] for _ in range(populations)]
    q = [np.zeros_like(mask) for mask in masks]
    for t in range(time_steps):
        for p in reversed(range(populations)):
            if p == populations - 1:
                current = loss_scale * gradient
                if network.feedback is not None and t >= loop_delay:
                    current = current + _backwards(network, network.feedback, masks[0] * spikes[0][t - loop_delay])
            else:
                current = _backwards(network, network.feedforward[p + 1], masks[p + 1] * spikes[p + 1][t])
            q[p] = q[p] + current
            fired = np.where(np.abs(q[p]) >= 0.5, np.sign(q[p]), 0.0)
            q[p] = network.leak * (q[p] - fired)
            spikes[p].append(fired)
    return [np.array(found, np.int64) for found in spikes]


def exact_adjoint(network: Network, masks: list[Floats], gradient: Floats) -> list[Floats]:
    """What the couples' rates tend to, for a loss that is not scaled: the solution of all their equations at once."""
    populations = len(masks)
    bounds = np.cumsum([0, *(mask.shape[1] for mask in masks)])
    place = [slice(bounds[p], bounds[p + 1]) for p in range(populations)]
    solutions = []
    for sample in range(len(gradient)):
        system, given = np.eye(bounds[-1]), np.zeros(bounds[-1])
        given[place[-1]] = gradient[sample]
        links = [(p + 1, p, network.feedforward[p + 1]) for p in range(populations - 1)]
        if network.feedback is not None:
            links.append((0, populations - 1, network.feedback))
        for source, target, connection in links:
            slope = connection.mask[sample] * masks[source][sample] / network.reset_amount
            system[place[target], place[source]] -= connection.matrix().T * slope
        solutions.append(np.linalg.solve(system, given))
    return [np.array([solution[part] for solution in solutions]) for part in place]


def local_updates(
    network: Network, masks: list[Floats], adjoint: list[Floats], rates: list[Floats], mean_input: Floats
) -> list[Update]:
    """Gradients of the feedforward connections from first to last, and of the feedback if there is one.

    Parameters
    ----------
    adjoint : (B, N) of every population, for a loss that is not scaled.
    rates : (B, N) of every population.
    mean_input : (B, M) mean of the frames over time.
    """
    connections, sources = list(network.feedforward), [mean_input, *rates[:-1]]
    targets = list(range(len(rates)))
    if network.feedback is not None:
        connections, sources, targets = [*connections, network.feedback], [*sources, rates[-1]], [*targets, 0]
    updates = []
    for connection, source, p in zip(connections, sources, targets, strict=True):
        error = connection.mask * masks[p] * adjoint[p] / network.reset_amount
        used = connection.taps >= 0
        weight = np.bincount(connection.taps[used], (error.T @ source)[used], minlength=connection.weight.size)
        updates.append(Update(weight, np.bincount(connection.channels, error.sum(0))))
    return updates


def _backwards(network: Network, connection: Connection, spikes: Floats) -> Floats:
    current: Floats = (connection.mask * spikes) @ connection.matrix() / network.reset_amount
    return current
