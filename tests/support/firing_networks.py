"""Networks in which every population fires, for the two spiking runs, and the plain loop that both must equal."""

import torch
from torch import Tensor

from feedback_networks import built
from fsnn_lava.config.notation import Pooling
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.dense_runs.in_int8 import BASE, split_int8
from fsnn_lava.network.feedback_network import BoundNetwork, Drive
from fsnn_lava.network.layers import BoundSynapse, folded
from fsnn_lava.network.neuron import fire, integrate

NETWORKS = [
    ("12 (F12)", (1, 6, 6)),
    ("9", (1, 4, 4)),
    ("8C5s (F8C5)", (1, 12, 12)),
    ("4C3s-6C3s-5C3 (F4C3u)", (3, 8, 8)),
    ("5C5-P2-7C3-P2-20", (2, 8, 8)),
]
SPIKING_POOLS = [("5C5-P2-7C3-P2-20", (2, 8, 8)), ("4C3s-6C3-P2 (F4C3u)", (2, 8, 8)), ("5C3-P3-8", (2, 6, 6))]
"""Networks whose pools are populations."""
T = 9


def bound_network(
    notation: str,
    shape: tuple[int, ...],
    leak: float,
    *,
    training: bool = True,
    batch_norm: bool = True,
    pooling: Pooling = "merged",
    reset_amount: float = 0.8,
    dtype: torch.dtype = torch.float64,
) -> BoundNetwork:
    """Its statistics and biases drawn so that every population fires."""
    torch.manual_seed(0)
    neuron = FloatNeuron(1.0, reset_amount, leak)
    model = built(notation, shape, neuron, batch_norm=batch_norm, dropout=0.2, pooling=pooling).float()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.1, 0.6)
    for name, parameter in model.named_parameters():
        if "batch_norm" in name or "bias" in name:
            parameter.data.uniform_(0.2, 0.8)
    return model.to(dtype).train(training).bind(5, generator=torch.Generator().manual_seed(1)).detached()


def plain_spikes(bound: BoundNetwork, drive: Drive, *, time_steps: int, loop_delay: int) -> list[Tensor]:
    """Spikes (T, B, *N) of every population, from the two equations of a neuron and `BoundSynapse.current`."""
    history: list[list[Tensor]] = [[] for _ in bound.feedforward]
    potentials: list[Tensor | None] = [None] * len(history)
    for t in range(time_steps):
        for layer, synapse in enumerate(bound.feedforward):
            current = drive.at(t)[0] if layer == 0 else synapse.current(history[layer - 1][t])
            if layer == 0 and bound.feedback and t >= loop_delay:
                current = current + bound.feedback[0].current(history[-1][t - loop_delay])
            v = potentials[layer]
            last = history[layer][-1] if t else torch.zeros_like(current)
            v = integrate(torch.zeros_like(current) if v is None else v, last, current, neuron=bound.neurons[0])
            potentials[layer] = v
            history[layer].append(fire(v, neuron=bound.neurons[0]))
    return [torch.stack(spikes).to(torch.uint8) for spikes in history]


def whole_numbers(synapse: BoundSynapse) -> tuple[Tensor, Tensor | None]:
    """Folded weight and bias in float64, the weight being what its two parts stand for."""
    weight, bias = folded(synapse)
    outputs = 1 if synapse.synapse.layer.transposed else 0
    parts, unit = split_int8(weight, outputs=outputs)
    rows = sum(BASE**place * part.double() for place, part in enumerate(parts)).transpose(0, outputs)
    wide = unit.double().view(-1, *[1] * (weight.dim() - 1))
    return (rows * wide).transpose(0, outputs), None if bias is None else bias.double()
