"""Figures of a network that is not being trained: accuracy, firing rates, distance from the equilibrium."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.datasets import InputCoding, Samples, codes_of
from fsnn_lava.errors import ConfigError
from fsnn_lava.network import FeedbackSNN, Settling, rate_from_count, spectral_radii
from fsnn_lava.training.checkpoint import TrainedNetwork
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.processes import ALONE, Ranks


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

    def metrics(self) -> dict[str, float]:
        """Return what a training keeps of its test, by the names ``test/...``."""
        rates = {f"test/firing_rate/{name}": rate for name, rate in self.mean_spikes.items()}
        return {"test/accuracy": self.accuracy, "test/loss": self.loss} | rates


@torch.no_grad()
def evaluate(
    network: TrainedNetwork | FeedbackSNN,
    samples: Samples | npt.ArrayLike,
    coding: InputCoding | None = None,
    *,
    labels: npt.ArrayLike | None = None,
    time_steps: int | None = None,
    batch_size: int = 500,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Measure accuracy, loss and firing of a network; a model is put into evaluation mode meanwhile.

    >>> evaluate(trained, data.test).accuracy  # doctest: +SKIP

    Parameters
    ----------
    network : a trained network, or a model, which runs on the device that it is on and needs the next two.
    samples : samples, or an array (n, *shape) of codes, or of floats that are normalised as training's are.
    coding : what codes stand for; None: as trained.
    labels : classes (n,) of an array.
    time_steps : T; None: as trained.
    ranks : processes that share the samples; each returns the figures of all samples.
    """
    if isinstance(network, TrainedNetwork):
        model, coding = network.model(), coding or network.coding
        time_steps = time_steps or network.config.network.time_steps
    else:
        model = network
    if coding is None or time_steps is None:
        raise ConfigError("evaluation of a model: found no coding or no time steps; give both")
    if not isinstance(samples, Samples):
        if labels is None:
            raise ConfigError("evaluation of an array: found no labels; give labels=(n,) classes")
        codes = codes_of(np.asarray(samples), coding, shape=model.input_shape)
        samples = Samples(codes, np.asarray(labels, np.int64))
    device = next(model.parameters()).device
    own = ranks.share(len(samples))
    part = DeviceSamples(samples.select(np.arange(own.start, own.stop)), coding, device=device)
    names, training = model.population_names, model.training
    model.eval()
    # Loss, right ones, then the sums over samples of each population's mean spikes and mean rate.
    sums = torch.zeros(2 + 2 * len(names), dtype=torch.float64, device=device)
    for x, labels in part.ordered(batch_size) if len(part) else ():
        bound = model.bind(len(labels))
        run = bound.simulate(bound.drive(x, time_steps=time_steps), time_steps=time_steps)
        logits = model.classify(run.firing_rates[-1])
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        firing = [rate.mean(dtype=torch.float64) * len(labels) for rate in (*run.mean_spikes, *run.firing_rates)]
        sums += torch.stack([loss.double(), (logits.argmax(1) == labels).sum().double(), *firing])
    model.train(training)
    loss_mean, accuracy, *means = (ranks.sums(sums) / len(samples)).tolist()
    spikes, rates = means[: len(names)], means[len(names) :]
    return Evaluation(accuracy, loss_mean, dict(zip(names, spikes, strict=True)), dict(zip(names, rates, strict=True)))


@torch.no_grad()
def settling(model: FeedbackSNN, x: Tensor, *, time_steps: int) -> Settling:
    """Measure whether the network settles on these inputs; in evaluation mode, the model's mode is left as it was.

    Parameters
    ----------
    x : (B, *input_shape) constant input, or (T, B, *input_shape) event frames.
    """
    training = model.training
    bound = model.eval().bind_to(x)
    drive = bound.drive(x, time_steps=time_steps)
    run = bound.simulate(drive, time_steps=time_steps)
    model.train(training)
    last = run.firing_rates[-1]
    if not bound.feedback:
        rates, gains, done = bound.rates_of((), drive.mean), torch.zeros(len(last)), torch.ones(len(last)).bool()
    else:
        state = bound.join(run.firing_rates)
        found = bound.equilibrium(drive.mean, start=state, tolerance=1e-5, max_steps=100)
        rates, done = bound.rates_around(bound.split(found.value), drive.mean), found.done
        gains = spectral_radii(bound.transposed_jacobian(rates), state)
    equilibrium, after = (
        {name: r.cpu().numpy() for name, r in zip(model.population_names, some, strict=True)}
        for some in (rates, run.firing_rates)
    )
    return Settling.of(equilibrium, gains=gains.numpy(), settled=(done & (gains < 1)).numpy(), run=after)


@torch.no_grad()
def convergence_curve(model: FeedbackSNN, x: Tensor, *, time_steps: int) -> Tensor:
    """Measure ||f(a[t]) - a[t]|| of the state for t = 1 .. T, (T,), mean over the batch (Section 5.4, Figure 1).

    In evaluation mode; the model's mode is left as it was.

    Parameters
    ----------
    x : (B, *input_shape) constant input, or (T, B, *input_shape) event frames, whose weighted mean is the map's input.
    """
    training = model.training
    bound = model.eval().bind_to(x)
    drive = bound.drive(x, time_steps=time_steps)
    run = bound.simulate(drive, time_steps=time_steps, record=True)
    model.train(training)
    assert run.spikes is not None
    counts = {p: torch.zeros_like(run.firing_rates[p]) for p in bound.state}
    distances = []
    for t in range(1, time_steps + 1):
        for p in bound.state:
            counts[p] = bound.neurons[p].leak * counts[p] + run.spikes[p][t - 1]
        rates = {p: rate_from_count(n, time_steps=t, leak=bound.neurons[p].leak) for p, n in counts.items()}
        a = bound.join(rates)
        distances.append((bound.equilibrium_map(a, drive.mean) - a).flatten(1).norm(dim=1).mean())
    return torch.stack(distances)
