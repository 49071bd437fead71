"""Small float64 networks of every layer kind that SPIDE trains, some of their neurons silent and some saturated."""

import torch
from torch import Tensor
from torch.nn import functional

from feedback_networks import built, seeded as seeded
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.network.layers import Norm
from fsnn_lava.training.gradients.measured_rates import ImplicitRates

IF, PLAIN, LIF = FloatNeuron(1.0, 2.0, 1.0), FloatNeuron(1.0, 1.0, 1.0), FloatNeuron(1.0, 2.0, 0.95)
NEURONS = {"IF": IF, "IF that resets by the threshold": PLAIN, "LIF": LIF}
BATCH, STEPS, MASKS = 4, 12, 7
NETWORKS = [
    ("9", (1, 3, 3)),
    ("9 (F9)", (1, 3, 3)),
    ("8-6-7 (F8)", (5,)),
    ("3C3s (F3C5)", (2, 5, 5)),
    ("3C3s-4C3s-3C3 (F3C3u)", (1, 8, 8)),
    ("4C3-P2 (F4C3u)", (2, 4, 4)),
    ("3C5-P2-4C3-P2-9", (1, 8, 8)),
    ("3C3s-2C3u-7", (1, 4, 4)),
    ("3C5s-2C3-4C1-3C3 (F3C1)", (1, 7, 7)),
]


def spide_network(
    notation: str, shape: tuple[int, ...], *, neuron: FloatNeuron = IF, dropout: float = 0.2, norm: Norm = "frobenius"
) -> FeedbackSNN:
    """In training mode, without batch norm, pools being populations."""
    settings = {"batch_norm": False, "dropout": dropout, "pooling": "spiking", "spectral_norm": norm}
    bound = 0.7 * neuron.reset_amount
    model = built(notation, shape, neuron, classes=3, seed=1, spectral_norm_bound=bound, **settings)
    with torch.no_grad():
        for synapse in model.feedforward:
            if synapse.bias is not None:  # a pool has none
                synapse.weight.mul_(0.9 * neuron.reset_amount)
                synapse.bias.uniform_(0, 0.8 * neuron.reset_amount, generator=seeded(2))
        model.readout.weight.mul_(4)
    return model.train()


def given(model: FeedbackSNN, *, events: bool = False, batch: int = BATCH, steps: int = STEPS) -> Tensor:
    """A constant input, or binary frames."""
    if events:
        return (torch.rand(steps, batch, *model.input_shape, generator=seeded(4)) < 0.4).double()
    return torch.rand(batch, *model.input_shape, generator=seeded(3), dtype=torch.float64)


def labels(batch: int = BATCH) -> Tensor:
    return torch.arange(batch) % 3


def loss_of(model: FeedbackSNN, rates: Tensor) -> Tensor:
    """Mean cross-entropy."""
    return functional.cross_entropy(model.classify(rates), labels(len(rates)))


def gradients(loss: Tensor, model: FeedbackSNN) -> dict[str, Tensor]:
    """Of all parameters but the readout's; zero for those that the loss does not reach."""
    parameters = {n: p for n, p in model.named_parameters() if not n.startswith("readout")}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}


def gradient_of(model: FeedbackSNN, result: ImplicitRates) -> dict[str, Tensor]:
    return gradients(loss_of(model, result.rates), model)
