"""Small float64 feedback networks that several test modules run."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fsnn_lava.config import NetworkConfig
from fsnn_lava.config.notation import Pooling
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import FeedbackSNN, Simulation
from fsnn_lava.network.layers import Synapse

IF = FloatNeuron(1.0, 1.0, 1.0)
LIF = FloatNeuron(1.0, 1.0, 0.5)
SPIDE: dict[str, Any] = {"batch_norm": False, "spectral_norm": "frobenius", "spectral_norm_bound": 2.0}
SPIDE |= {"initial_weights": "kaiming_normal"}
"""Settings of the networks that SPIDE trains."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def synapses(model: FeedbackSNN) -> list[Synapse]:
    """Feedforward connections, first to last."""
    return list(model.feedforward)


def constants(neuron: FloatNeuron) -> dict[str, Any]:
    """What `NetworkConfig` has of a neuron: all but the memory of its current, which is not trained."""
    return {name: value for name, value in asdict(neuron).items() if name != "current_leak"}


def built(
    notation: str, shape: tuple[int, ...], neuron: FloatNeuron, *, classes: int = 10, seed: int = 0, **settings: Any
) -> FeedbackSNN:
    """A new float64 network; the settings are those of `NetworkConfig`."""
    config = NetworkConfig(notation, **constants(neuron), **settings)
    return FeedbackSNN(config, shape, classes=classes, seed=seed).double()


def run(model: FeedbackSNN, x: Tensor, *, time_steps: int, loop_delay: int = 1, seed: int = 0) -> Simulation:
    events = x.dim() > 1 + len(model.input_shape)
    bound = model.bind(x.shape[1] if events else len(x), generator=seeded(seed))
    drive = bound.drive(x, time_steps=time_steps)
    return bound.detached().simulate(
        drive, time_steps=time_steps, loop_delays=(loop_delay,) * len(bound.feedback), record=True
    )


def chain(*forward: float, feedback: float, neuron: FloatNeuron) -> FeedbackSNN:
    """One neuron per population, joined by those weights, in evaluation mode."""
    notation = "-".join("1" for _ in forward) + " (F1)"
    model = built(notation, (1,), neuron, classes=2, batch_norm=False, dropout=0.0).eval()
    with torch.no_grad():
        for synapse, weight in zip(synapses(model), forward, strict=True):
            synapse.weight.fill_(weight)
        model.feedback.weight.fill_(1.0)
        # Of a 1x1 weight the power iteration's vectors are the signs.
        model.feedback.restriction.left.fill_(1.0)
        model.feedback.restriction.right.fill_(1.0)
        # Above the gain: at the bound itself the derivative is a convention, which differs between versions of torch.
        model.feedback.restriction.bound = 1 + abs(feedback)
        model.feedback.restriction.gain.fill_(feedback)
    return model


def random_network(
    notation: str,
    *,
    neuron: FloatNeuron = IF,
    batch_norm: bool = False,
    dropout: float = 0.0,
    shape: tuple[int, ...] = (1, 4, 4),
    pooling: Pooling = "merged",
) -> FeedbackSNN:
    """A float64 network in evaluation mode whose rates lie inside (0, 1) mostly."""
    settings = {"batch_norm": batch_norm, "dropout": dropout, "pooling": pooling}
    model = built(notation, shape, neuron, classes=3, seed=1, spectral_norm_bound=0.5, **settings)
    with torch.no_grad():
        for synapse in synapses(model):
            if synapse.bias is None:  # of a pool, whose weights are no parameters
                continue
            synapse.weight.mul_(0.5)
            synapse.bias.add_(0.3)
            if synapse.batch_norm is not None:
                synapse.batch_norm.weight.fill_(0.3)
                synapse.batch_norm.bias.fill_(0.5)
    return model.eval()


def images(model: FeedbackSNN, batch: int = 6, seed: int = 3) -> Tensor:
    return torch.rand(batch, *model.input_shape, generator=seeded(seed), dtype=torch.float64)
