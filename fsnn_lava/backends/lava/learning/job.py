"""The job of a training and its outcome: plain data that travels between Python processes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fsnn_lava.backends.lava.learning.clock import Clock
from fsnn_lava.errors import ConfigError, InputError, NetworkError
from fsnn_lava.hardware import Array, FloatNeuron

FEEDBACK, READOUT = "feedback", "readout"
"""Names of connections; those to the populations are ``feedforward.0`` and so on."""

TrainingProgress = Callable[[int, int, float], None]
"""Called with the number of samples that are done, their total, and the mean loss so far."""


@dataclass(frozen=True, eq=False)
class Synapses:
    """The weights of one connection, and the momenta of its updates.

    Parameters
    ----------
    weight : (n_out, n_in) float64.
    bias : (n_out,) float64, a constant current; None if there is none.
    weight_momentum, bias_momentum : of the same shapes; None: zero, as before the first update.
    """

    weight: Array
    bias: Array | None = None
    weight_momentum: Array | None = None
    bias_momentum: Array | None = None


@dataclass(frozen=True, eq=False)
class PlasticNetwork:
    """A fully connected spiking network of N >= 1 populations, all of whose connections learn.

    Parameters
    ----------
    feedforward : connections into populations 1 .. N, with bias.
    feedback : connection from the last population to the first, without bias; None if there is none.
    readout : from the last population's firing rates to the classes, with bias.
    neuron : threshold, reset amount and leak of all neurons.
    feedback_norm_bound : c; the feedback acts with its weights times min(1, c / their Frobenius norm); inf: as it is.

    Raises
    ------
    NetworkError : shapes that do not fit together, another type than float64, or values that are not finite.
    """

    feedforward: tuple[Synapses, ...]
    feedback: Synapses | None
    readout: Synapses
    neuron: FloatNeuron
    feedback_norm_bound: float

    def __post_init__(self) -> None:
        if not self.feedforward:
            raise NetworkError("network without populations; expected at least one connection in feedforward")
        before = self.feedforward[0].weight.shape[-1]
        shapes = []
        for synapses in self.feedforward:
            shapes.append((len(synapses.weight), before))
            before = len(synapses.weight)
        shapes += [(shapes[0][0], before)] if self.feedback is not None else []
        shapes.append((len(self.readout.weight), before))
        for (name, synapses), shape in zip(self.named().items(), shapes, strict=True):
            _check_synapses(name, synapses, shape, bias=name != FEEDBACK)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of populations 1 .. N."""
        return tuple(len(synapses.weight) for synapses in self.feedforward)

    def named(self) -> dict[str, Synapses]:
        """Every connection by its name."""
        named = {f"feedforward.{index}": synapses for index, synapses in enumerate(self.feedforward)}
        named |= {} if self.feedback is None else {FEEDBACK: self.feedback}
        return named | {READOUT: self.readout}


def _check_synapses(name: str, synapses: Synapses, shape: tuple[int, int], *, bias: bool) -> None:
    if (synapses.bias is not None) != bias:
        raise NetworkError(f"{name}: bias {'missing' if bias else 'found'}; the feedback alone has none")
    expected = {
        "weight": (synapses.weight, shape),
        "bias": (synapses.bias, shape[:1]),
        "weight momentum": (synapses.weight_momentum, shape),
        "bias momentum": (synapses.bias_momentum, shape[:1]),
    }
    for what, (array, of_shape) in expected.items():
        if array is None:
            continue
        if array.shape != of_shape or array.dtype != np.float64:
            raise NetworkError(
                f"{name}: {what} of shape {array.shape}, {array.dtype}; expected {of_shape}, float64, as the "
                "connections before it say"
            )
        if not np.isfinite(array).all():
            raise NetworkError(f"{name}: {what} with values that are not finite; use a network that has not diverged")


@dataclass(frozen=True)
class Learning:
    """Settings of the learning rule: SPIDE, with momentum SGD.

    Parameters
    ----------
    time_steps, time_steps_back : steps T and K of the two phases.
    loss_scale : factor of the loss in the backward phase, divided out of the gradient again.
    momentum, weight_decay : as torch's SGD takes them.

    Raises
    ------
    ConfigError : values out of range.
    """

    time_steps: int
    time_steps_back: int
    loss_scale: float
    momentum: float
    weight_decay: float

    def __post_init__(self) -> None:
        found = []
        for name in ("time_steps", "time_steps_back"):
            found += [] if getattr(self, name) >= 1 else [f"{name} {getattr(self, name)} (allowed: at least 1)"]
        if not 0 < self.loss_scale < np.inf:
            found.append(f"loss_scale {self.loss_scale} (allowed: a finite number > 0)")
        if not 0 <= self.momentum < 1:
            found.append(f"momentum {self.momentum} (allowed: 0 <= momentum < 1)")
        if not 0 <= self.weight_decay < np.inf:
            found.append(f"weight_decay {self.weight_decay} (allowed: a finite number >= 0)")
        if found:
            raise ConfigError(f"learning on Lava: {'; '.join(found)}")


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """Samples to be shown one after the other, in batches after each of which every connection updates itself.

    Parameters
    ----------
    inputs : (S, n_in) float64, constant currents' sources: normalised values.
    labels : (S,) int64, classes from 0.
    batches : samples of each update; they add up to S.
    learning_rates : one for each update.
    recorded : so many samples, from the first, have every spike of both phases recorded.

    Raises
    ------
    InputError : inputs or labels that do not fit the network.
    ConfigError : batches, learning rates or a number of recorded samples that do not fit the samples.
    """

    network: PlasticNetwork
    learning: Learning
    inputs: Array
    labels: Array
    batches: tuple[int, ...]
    learning_rates: tuple[float, ...]
    recorded: int = 0

    def __post_init__(self) -> None:
        size, classes = self.network.feedforward[0].weight.shape[1], len(self.network.readout.weight)
        samples = len(self.labels)
        found, kind = self.inputs.shape, self.inputs.dtype
        if found != (samples, size) or kind != np.float64 or not np.isfinite(self.inputs).all():
            raise InputError(f"inputs of shape {found}, {kind}; expected ({samples}, {size}) float64, all finite")
        if self.labels.dtype != np.int64 or samples == 0 or self.labels.min() < 0 or self.labels.max() >= classes:
            raise InputError(
                f"labels of shape {self.labels.shape}, {self.labels.dtype}; expected int64, at least one, "
                f"0 .. {classes - 1}"
            )
        if sum(self.batches) != samples or min(self.batches) < 1 or len(self.learning_rates) != len(self.batches):
            raise ConfigError(
                f"batches {self.batches} with {len(self.learning_rates)} learning rates for {samples} samples; "
                "expected sizes of at least 1 that add up to the samples, and one rate for each"
            )
        if not 0 <= self.recorded <= samples:
            raise ConfigError(f"recorded: found {self.recorded}; allowed: 0 .. {samples}, the number of samples")

    @property
    def clock(self) -> Clock:
        """The steps of a sample."""
        return Clock(len(self.network.sizes), self.learning.time_steps, self.learning.time_steps_back)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return len(self.labels) * self.clock.sample_steps


@dataclass(frozen=True, eq=False)
class TrainingOutcome:
    """The outcome of whole updates; S counts their samples alone.

    Parameters
    ----------
    network : with the weights and momenta after the last update.
    gradients : name of each connection -> gradient of the last update's batch, (weight, bias); empty before the first.
    updates : how many there were.
    losses, predictions : (S,) cross-entropy of each sample, and the class with the largest logit.
    mean_spikes : (S, N) spikes per neuron and step of the forward phase.
    mean_spikes_back : (S, N) the same of the backward phase, of either sign.
    spikes : of each population, (T, R, n) uint8, R the number of recorded samples.
    spikes_back : of each population, (K, R, n) int8, -1, 0 or 1, before the masks.
    """

    network: PlasticNetwork
    gradients: Mapping[str, tuple[Array, Array | None]]
    updates: int
    losses: Array
    predictions: Array
    mean_spikes: Array
    mean_spikes_back: Array
    spikes: tuple[Array, ...]
    spikes_back: tuple[Array, ...]
