"""The published procedure of SPIDE in plain dense float32 operations: what the library is timed against.

Xiao et al., "SPIDE: a purely spike-based method for training feedback spiking neural networks", Neural Networks 161
(2023). Both phases go through all samples step by step and multiply zeros like anything else, as well as dense
operations can: without gradients, in place, dropout, firing mask and 1/r in one factor made in advance, channels last
(on a CPU 0.8 times the time of the other order), on all threads. Nothing is kept of the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from fsnn_lava.config import LayerSpec
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network import (
    BoundNetwork,
    BoundSynapse,
    Drive,
    FeedbackSNN,
    apply_layer,
    rate_from_count,
)

COUPLE_THRESHOLD = 0.5
"""V_b of the ternary couples; their spikes are +-1."""


@dataclass(frozen=True, eq=False)
class PlainPhase:
    """Result of one of the two phases; tuples have one entry per population.

    Parameters
    ----------
    rates : (B, *N) leak-weighted firing rates a, or the rates beta of the ternary couples.
    spikes : (T, B, *N) int8, -1, 0 or 1; None if they were not recorded.
    """

    rates: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...] | None


@dataclass(frozen=True, eq=False)
class PlainConnection:
    """A connection's weights, ready for dense products in both directions.

    Parameters
    ----------
    weight, bias : as `apply_layer` takes them; none of them is used of a pool.
    mask : (B, *N) dropout mask; None without dropout.
    input_shape : (C, H, W) or (N,) of the source.
    """

    layer: LayerSpec
    weight: Tensor
    bias: Tensor | None
    mask: Tensor | None
    input_shape: tuple[int, ...]

    def forwards(self, x: Tensor) -> Tensor:
        """Response (B, *N) to x (B, *input_shape), without dropout."""
        if self.layer.kind == "pool":
            return functional.avg_pool2d(x, self.layer.kernel)
        return apply_layer(self.layer, self.weight, self.bias, x)

    def backwards(self, y: Tensor) -> Tensor:
        """Apply the transposed map, (B, *N) to (B, *input_shape), without bias and dropout."""
        layer, padding = self.layer, self.layer.padding
        if layer.kind == "linear":
            return laid_out((y @ self.weight).view(len(y), *self.input_shape))
        if layer.kind == "pool":
            window = layer.kernel
            return y.repeat_interleave(window, -1).repeat_interleave(window, -2).div_(window**2)
        if layer.transposed:
            return functional.conv2d(y, self.weight, None, layer.stride, padding)
        reached = [layer.stride * (side - 1) + layer.kernel - 2 * padding for side in y.shape[2:]]
        missing = [side - found for side, found in zip(self.input_shape[1:], reached, strict=True)]
        return functional.conv_transpose2d(y, self.weight, None, layer.stride, padding, missing)

    def add_to(self, v: Tensor, x: Tensor) -> None:
        """Adds to the potentials v (B, *N) what the connection brings of x."""
        response = self.forwards(x)
        if self.mask is None:
            v.add_(response)
        else:
            v.addcmul_(response, self.mask)

    def gradients(self, delta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias, the sums of delta (B, *N) times x (B, *input_shape)."""
        layer = self.layer
        if layer.kind == "linear":
            return delta.t() @ x.flatten(1), delta.sum(0)
        sides = (x, delta) if not layer.transposed else (delta, x)
        shape, places = tuple(self.weight.shape), (layer.stride, layer.padding)
        return conv2d_weight(sides[0], shape, sides[1], *places), delta.sum((0, 2, 3))


def laid_out(x: Tensor) -> Tensor:
    """Lay out the same values; images and kernels with their channels last."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def plain_connections(bound: BoundNetwork) -> tuple[list[PlainConnection], PlainConnection | None]:
    """Feedforward connections, the first being that from the input, and the feedback."""

    def plain(synapse: BoundSynapse) -> PlainConnection:
        bias = None if synapse.bias is None else synapse.bias.detach()
        mask = None if synapse.mask is None else laid_out(synapse.mask)
        return PlainConnection(
            synapse.synapse.layer, laid_out(synapse.weight.detach()), bias, mask, synapse.synapse.input_shape
        )

    return [plain(s) for s in bound.feedforward], plain(bound.feedback[0]) if bound.feedback else None


@torch.no_grad()
def plain_forward_phase(
    bound: BoundNetwork,
    drive: Drive,
    *,
    time_steps: int,
    record: bool = False,
    observe: Callable[[list[Tensor], list[Tensor]], None] | None = None,
) -> PlainPhase:
    """T steps of all populations, v[t] = leak (v[t-1] - r s[t-1]) + I[t], the last one's spikes a step late.

    Parameters
    ----------
    record : keep every spike.
    observe : is shown potentials before the reset and spikes of all populations, (B, *N) each, after every step.
    """
    feedforward, feedback = plain_connections(bound)
    neuron = bound.neurons[0]
    given = drive.at(0)[0]
    assert given is not None
    zeros = [torch.zeros(len(given), *s.synapse.shape).to(given) for s in bound.feedforward]
    v, spikes, counts = ([laid_out(z.clone()) for z in zeros] for _ in range(3))
    history: list[list[Tensor]] = [[] for _ in v]
    current = laid_out(given.detach())
    for t in range(time_steps):
        for layer, potential in enumerate(v):
            potential.sub_(spikes[layer], alpha=neuron.reset_amount)
            if neuron.leak != 1:
                potential.mul_(neuron.leak)
            if layer == 0:
                potential.add_(current if drive.frames is None else drive.at(t)[0])
                if feedback is not None and t > 0:
                    feedback.add_to(potential, spikes[-1])
            else:
                feedforward[layer].add_to(potential, spikes[layer - 1])
            torch.ge(potential, neuron.v_threshold, out=spikes[layer])
            _count(counts[layer], spikes[layer], neuron)
            if record:
                history[layer].append(spikes[layer].to(torch.int8))
        if observe is not None:
            observe(v, spikes)
    return _phase(counts, history if record else None, time_steps=time_steps, neuron=neuron)


@torch.no_grad()
def plain_backward_phase(
    bound: BoundNetwork,
    rates: Sequence[Tensor],
    gradient: Tensor,
    *,
    time_steps_back: int,
    loss_scale: float,
    record: bool = False,
) -> PlainPhase:
    """T_back steps of the ternary couples, last population first; of these the feedback's source is a step late.

    Parameters
    ----------
    rates : (B, *N) measured firing rates of all populations; a rate of 0 or 1 lets nothing through.
    gradient : (B, *N) dL/da of the last population.
    """
    feedforward, feedback = plain_connections(bound)
    passing = [_factor(bound, rates[layer], feedforward[layer].mask) for layer in range(len(rates))]
    returning = None if feedback is None else _factor(bound, rates[0], feedback.mask)
    constant = laid_out(gradient * loss_scale)
    q, spikes, counts = ([laid_out(torch.zeros_like(rate)) for rate in rates] for _ in range(3))
    negative, sent = ([laid_out(torch.empty_like(rate)) for rate in rates] for _ in range(2))
    history: list[list[Tensor]] = [[] for _ in q]
    for t in range(time_steps_back):
        for layer in reversed(range(len(q))):
            if layer == len(q) - 1:
                q[layer].add_(constant)
                if feedback is not None and returning is not None and t > 0:
                    q[layer].add_(feedback.backwards(torch.mul(spikes[0], returning, out=sent[0])))
            else:
                above = torch.mul(spikes[layer + 1], passing[layer + 1], out=sent[layer + 1])
                q[layer].add_(feedforward[layer + 1].backwards(above))
            torch.ge(q[layer], COUPLE_THRESHOLD, out=spikes[layer])
            torch.le(q[layer], -COUPLE_THRESHOLD, out=negative[layer])
            spikes[layer].sub_(negative[layer])
            q[layer].sub_(spikes[layer])
            if bound.neurons[0].leak != 1:
                q[layer].mul_(bound.neurons[0].leak)
            _count(counts[layer], spikes[layer], bound.neurons[0])
            if record:
                history[layer].append(spikes[layer].to(torch.int8))
    return _phase(counts, history if record else None, time_steps=time_steps_back, neuron=bound.neurons[0])


@torch.no_grad()
def plain_updates(
    model: FeedbackSNN,
    bound: BoundNetwork,
    rates: Sequence[Tensor],
    betas: Sequence[Tensor],
    mean_input: Tensor,
    *,
    loss_scale: float,
) -> None:
    """Gives every synapse's weight and bias its local gradient, (1 / (r loss_scale)) (D m beta) x a of the source.

    The factor that restricts the feedback weight is a constant.
    """
    feedforward, feedback = plain_connections(bound)
    sources = [mean_input, *rates[:-1]]
    for layer, (connection, synapse) in enumerate(zip(feedforward, model.feedforward, strict=True)):
        if connection.layer.kind == "pool":
            continue
        delta = betas[layer] * _factor(bound, rates[layer], connection.mask) / loss_scale
        weight, bias = connection.gradients(delta, laid_out(sources[layer]))
        synapse.weight.grad = weight.contiguous()  # as the weight lies
        if synapse.bias is not None:
            synapse.bias.grad = bias
    if feedback is not None and model.feedback is not None:
        delta = betas[0] * _factor(bound, rates[0], feedback.mask) / loss_scale
        restriction = feedback.weight.norm() / model.feedback.weight.norm()
        model.feedback.weight.grad = feedback.gradients(delta, rates[-1])[0].contiguous() * restriction


@torch.no_grad()
def plain_readout(model: FeedbackSNN, rates: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the batch and dL/da (B, *N); the classifier's parameters receive their gradients."""
    flat = rates.flatten(1)
    logits = model.readout(flat)
    error = (logits.softmax(1) - functional.one_hot(labels, logits.shape[1])) / len(labels)
    model.readout.weight.grad, model.readout.bias.grad = error.t() @ flat, error.sum(0)
    return functional.cross_entropy(logits, labels), (error @ model.readout.weight).view(rates.shape)


def firing_mask(rate: Tensor) -> Tensor:
    """1 where 0 < rate < 1, else 0, in the type of the rate: what the clamp of the equilibrium lets through."""
    return ((rate > 0) & (rate < 1)).to(rate.dtype)


def _factor(bound: BoundNetwork, rate: Tensor, mask: Tensor | None) -> Tensor:
    """D m / r, which multiplies the couples' spikes on their way back and their rates in the update."""
    factor = firing_mask(rate) / bound.neurons[0].reset_amount
    return laid_out(factor if mask is None else factor * mask)


def _count(count: Tensor, spikes: Tensor, neuron: FloatNeuron) -> None:
    if neuron.leak != 1:
        count.mul_(neuron.leak)
    count.add_(spikes)


def _phase(
    counts: Sequence[Tensor], history: list[list[Tensor]] | None, *, time_steps: int, neuron: FloatNeuron
) -> PlainPhase:
    rates = tuple(rate_from_count(count, time_steps=time_steps, leak=neuron.leak) for count in counts)
    return PlainPhase(rates, None if history is None else tuple(map(torch.stack, history)))
