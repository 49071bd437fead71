"""SPIDE with momentum SGD for fully connected networks, written as plainly as its equations: what Lava must do.

One sample after the other, one step after the other, population after population, in float64. The hardware's timing is
the papers' with a loop delay of N steps in both phases, N being the number of populations.
"""

from dataclasses import dataclass

import numpy as np

from fsnn_lava.backends.lava.learning.job import Learning, PlasticNetwork, Synapses, TrainingJob
from fsnn_lava.hardware.geometry import Array


@dataclass(frozen=True, eq=False)
class Phases:
    """Spikes of one sample, of each population: (T, n) and (K, n); gradients by connection: (weight, bias or None)."""

    forward: list[Array]
    backward: list[Array]
    loss: float
    gradients: dict[str, tuple[Array, Array | None]]


def effective_feedback(network: PlasticNetwork) -> tuple[Array, float] | None:
    """Restricted weight and the factor that restricts it."""
    if network.feedback is None:
        return None
    weight = network.feedback.weight
    factor = min(1.0, network.feedback_norm_bound / float(np.sqrt((weight**2).sum())))
    return factor * weight, factor


def leaky_mean(values: Array, leak: float) -> Array:
    """sum_t leak**(T-1-t) values[t] / sum_t leak**(T-1-t)."""
    weights = leak ** np.arange(len(values) - 1, -1, -1.0)
    mean: Array = np.tensordot(weights, values, 1) / weights.sum()
    return mean


def forward_phase(network: PlasticNetwork, x: Array, *, time_steps: int) -> list[Array]:
    """0/1 spikes of each population, (T, n)."""
    neuron, last = network.neuron, len(network.sizes)
    feedback = effective_feedback(network)
    spikes = [np.zeros((time_steps, n)) for n in network.sizes]
    v = [np.zeros(n) for n in network.sizes]
    for t in range(time_steps):
        for index, synapses in enumerate(network.feedforward):
            below = x if index == 0 else spikes[index - 1][t]
            current = synapses.weight @ below + synapses.bias
            if index == 0 and feedback is not None and t >= last:
                current = current + feedback[0] @ spikes[-1][t - last]
            before = spikes[index][t - 1] if t else 0.0
            v[index] = neuron.leak * (v[index] - neuron.reset_amount * before) + current
            spikes[index][t] = v[index] >= neuron.v_threshold
    return spikes


def backward_phase(network: PlasticNetwork, spikes: list[Array], injected: Array, *, time_steps: int) -> list[Array]:
    """Spikes -1, 0, 1 of each population's couples, (K, n), before the masks."""
    r, leak, last = network.neuron.reset_amount, network.neuron.leak, len(network.sizes)
    feedback = effective_feedback(network)
    masks = [(s.mean(0) > 0) & (s.mean(0) < 1) for s in spikes]
    p = [np.zeros((time_steps, n)) for n in network.sizes]
    q = [np.zeros(n) for n in network.sizes]
    for t in range(time_steps):
        for index in range(last - 1, -1, -1):
            if index == last - 1:
                q[index] = q[index] + injected
                if feedback is not None and t >= last:
                    q[index] = q[index] + feedback[0].T @ (masks[0] * p[0][t - last]) / r
            else:
                above = masks[index + 1] * p[index + 1][t]
                q[index] = q[index] + network.feedforward[index + 1].weight.T @ above / r
            p[index][t] = (q[index] >= 0.5).astype(float) - (q[index] <= -0.5)
            q[index] = leak * (q[index] - p[index][t])
    return p


def both_phases(network: PlasticNetwork, x: Array, label: int, *, learning: Learning, batch: int) -> Phases:
    """What one sample of a batch of so many gives."""
    leak, r = network.neuron.leak, network.neuron.reset_amount
    spikes = forward_phase(network, x, time_steps=learning.time_steps)
    rates = [leaky_mean(s, leak) for s in spikes]
    logits = network.readout.weight @ rates[-1] + network.readout.bias
    shares = np.exp(logits) / np.exp(logits).sum()
    error = (shares - np.eye(len(shares))[label]) / batch
    injected = learning.loss_scale * (network.readout.weight.T @ error)
    p = backward_phase(network, spikes, injected, time_steps=learning.time_steps_back)
    masked = [((s.mean(0) > 0) & (s.mean(0) < 1)) * leaky_mean(c, leak) for s, c in zip(spikes, p, strict=True)]
    errors = [m / (r * learning.loss_scale) for m in masked]
    gradients: dict[str, tuple[Array, Array | None]] = {"readout": (np.outer(error, rates[-1]), error)}
    for index, e in enumerate(errors):
        gradients[f"feedforward.{index}"] = np.outer(e, x if index == 0 else rates[index - 1]), e
    feedback = effective_feedback(network)
    if feedback is not None:
        gradients["feedback"] = feedback[1] * np.outer(errors[0], rates[-1]), None
    return Phases(spikes, p, float(-np.log(shares[label])), gradients)


def updated(before: Synapses, gradient: tuple[Array, Array | None], learning: Learning, rate: float) -> Synapses:
    """One step of SGD with momentum and weight decay."""

    def step(value: Array, momentum: Array | None, g: Array) -> tuple[Array, Array]:
        velocity = learning.momentum * (0 if momentum is None else momentum) + g + learning.weight_decay * value
        return value - rate * velocity, velocity

    weight, weight_momentum = step(before.weight, before.weight_momentum, gradient[0])
    if before.bias is None or gradient[1] is None:
        return Synapses(weight, None, weight_momentum, None)
    bias, bias_momentum = step(before.bias, before.bias_momentum, gradient[1])
    return Synapses(weight, bias, weight_momentum, bias_momentum)


@dataclass(frozen=True, eq=False)
class Course:
    """A whole job: each sample's phases, the gradient of each batch, and the network after its update."""

    phases: list[Phases]
    gradients: list[dict[str, tuple[Array, Array | None]]]
    networks: list[PlasticNetwork]


def train(job: TrainingJob) -> Course:
    """What the job asks for."""
    network, phases, gradients, networks, first = job.network, [], [], [], 0
    for size, rate in zip(job.batches, job.learning_rates, strict=True):
        batch = [
            both_phases(network, job.inputs[b], int(job.labels[b]), learning=job.learning, batch=size)
            for b in range(first, first + size)
        ]
        named = network.named()
        total = {name: _sum([sample.gradients[name] for sample in batch]) for name in named}
        new = {name: updated(synapses, total[name], job.learning, rate) for name, synapses in named.items()}
        network = PlasticNetwork(
            tuple(new[f"feedforward.{i}"] for i in range(len(network.sizes))),
            new.get("feedback"),
            new["readout"],
            network.neuron,
            network.feedback_norm_bound,
        )
        phases += batch
        gradients.append(total)
        networks.append(network)
        first += size
    return Course(phases, gradients, networks)


def _sum(gradients: list[tuple[Array, Array | None]]) -> tuple[Array, Array | None]:
    biases = [bias for _, bias in gradients if bias is not None]
    return np.sum([weight for weight, _ in gradients], 0), np.sum(biases, 0) if biases else None
