"""Figures of a network that is not being trained: accuracy, firing rates, distance from the equilibrium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.data import InputCoding, Samples
from fsnn_lava.model import FeedbackSNN
from fsnn_lava.neuron import rate_from_count


@dataclass(frozen=True)
class Evaluation:
    """Figures over a set of samples.

    Parameters
    ----------
    accuracy : share of samples classified rightly, [0, 1].
    loss : mean cross-entropy.
    mean_spikes : population -> spikes per neuron and step, plain mean.
    firing_rates : population -> mean leak-weighted firing rate, spikes per step; equal to `mean_spikes` for IF.
    """

    accuracy: float
    loss: float
    mean_spikes: dict[str, float]
    firing_rates: dict[str, float]


def decoded(samples: Samples, coding: InputCoding) -> Tensor:
    """Inputs as the network sees them, (B, *shape) float32.

    They lie in memory that torch allocated: the last bits of a matrix product depend on how its operands are aligned,
    and NumPy's alignment changes from call to call, so that a run would not repeat bit for bit.
    """
    return torch.from_numpy(coding.decode(samples.codes)).clone()


def decoded_batches(samples: Samples, coding: InputCoding, *, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs as the network sees them and labels, in order: (B, *shape) float32 and (B,) int64."""
    for begin in range(0, len(samples), size):
        part = samples.select(np.arange(begin, min(begin + size, len(samples))))
        yield decoded(part, coding), torch.from_numpy(part.labels)


@torch.no_grad()
def evaluate(
    model: FeedbackSNN, samples: Samples, coding: InputCoding, *, time_steps: int, batch_size: int = 500
) -> Evaluation:
    """Accuracy, loss and firing of the network in evaluation mode; the model's mode is left as it was."""
    training = model.training
    model.eval()
    correct, loss = 0, 0.0
    names = model.population_names
    spikes, rates = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for x, labels in decoded_batches(samples, coding, size=batch_size):
        bound = model.bind(len(labels))
        run = bound.simulate(bound.drive(x, time_steps=time_steps), time_steps=time_steps)
        logits = model.classify(run.firing_rates[-1])
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        correct += int((logits.argmax(1) == labels).sum())
        share = len(labels) / len(samples)
        for name, mean, rate in zip(names, run.mean_spikes, run.firing_rates, strict=True):
            spikes[name] += float(mean.double().mean()) * share
            rates[name] += float(rate.double().mean()) * share
    model.train(training)
    return Evaluation(correct / len(samples), loss / len(samples), spikes, rates)


@torch.no_grad()
def convergence_curve(model: FeedbackSNN, x: Tensor, *, time_steps: int) -> Tensor:
    """||f(a[t]) - a[t]|| for t = 1 .. T, (T,), mean over the batch (Section 5.4, Figure 1).

    In evaluation mode; the model's mode is left as it was.

    Parameters
    ----------
    x : (B, *input_shape) constant input.
    """
    training = model.training
    bound = model.eval().bind(len(x))
    drive = bound.drive(x, time_steps=time_steps)
    run = bound.simulate(drive, time_steps=time_steps, record=True)
    model.train(training)
    assert run.spikes is not None
    leak = model.neuron.leak
    count = torch.zeros_like(run.firing_rates[-1])
    distances = []
    for t, spikes in enumerate(run.spikes[-1], start=1):
        count = leak * count + spikes
        a = rate_from_count(count, time_steps=t, leak=leak)
        distances.append((bound.equilibrium_map(a, drive.mean) - a).flatten(1).norm(dim=1).mean())
    return torch.stack(distances)
