"""What one training sample makes a network do, counted exactly: by SPIDE, by IDE and by BPTT.

A *synapse* is a weight that is not zero between two neurons. Counts go connection by connection, "input" being that
into the first population; each is a mean over the samples of one batch, with the dropout masks of one iteration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.spide.plain_training import (
    PlainConnection,
    firing_mask,
    plain_connections,
    plain_forward_phase,
    plain_readout,
)
from fsnn_lava.config import TrainConfig
from fsnn_lava.network import BoundNetwork, BoundSynapse, Drive, FeedbackSNN
from fsnn_lava.training import AdjointSettings, SpideSettings, backward_phase, implicit_rates

CHUNK = 16
"""Samples whose spikes of the second phase are held at a time."""


@dataclass(frozen=True)
class ConnectionWork:
    """Counts of one connection for one sample.

    Parameters
    ----------
    name : "input", "population1 to population2", ..., "feedback".
    synapses : weights that are not zero between two neurons.
    learned : whether it has weights to train; a pool has none.
    events : messages of its source in the first phase: spikes, or input events. 0 for constant input.
    forward : events at synapses.
    messages_back : spikes of the target's couples that are sent back: of neurons neither silent, saturated nor dropped.
    backward : these at synapses. Nothing is sent back to the input.
    updated : synapses both of whose ends take part in the local update, a_j and D_i m_i beta_i not being 0.
    mapped : synapses whose source has a rate (or mean input) other than 0.
    passing : synapses whose target is neither silent, saturated nor dropped, as products with J^T need them.
    updated_ide : synapses with both.
    passing_bptt : synapses whose target's potential is within the surrogate's width, summed over the T steps.
    updated_bptt : of these, those whose source spikes in the same step; for constant input: with an input other than 0.
    """

    name: str
    synapses: int
    learned: bool
    events: float
    forward: float
    messages_back: float
    backward: float
    updated: float
    mapped: float
    passing: float
    updated_ide: float
    passing_bptt: float
    updated_bptt: float


@dataclass(frozen=True)
class TrainingWork:
    """Counts of a whole network for one sample, as `measure_work` returns them.

    `benchmarks.spide.energy` turns them into energies.

    Parameters
    ----------
    neurons : of each population.
    firing, firing_back : |spikes| per neuron and step of each population in the two phases.
    adjoint_steps : products with J^T that IDE's solve needed for the same batch.
    event_input : whether the input is events, which are sent at every step; else it is constant.
    """

    samples: int
    time_steps: int
    time_steps_back: int
    leak: float
    neurons: tuple[int, ...]
    firing: tuple[float, ...]
    firing_back: tuple[float, ...]
    adjoint_steps: int
    event_input: bool
    connections: tuple[ConnectionWork, ...]


class Structure:
    """Synapses of a connection, and sums over them."""

    def __init__(self, connection: PlainConnection) -> None:
        window = connection.layer.kernel if connection.layer.kind == "pool" else 1
        self._scale = float(window**2)  # averages become sums
        present = (connection.weight != 0).double()
        self._ones = dataclasses.replace(connection, weight=present, bias=None, mask=None)

    def to_targets(self, x: Tensor) -> Tensor:
        """(B, *N) sum of x (B, *input_shape) over the synapses that end in each target neuron."""
        return self._ones.forwards(x.double()) * self._scale

    def to_sources(self, y: Tensor) -> Tensor:
        """(B, *input_shape) sum of y (B, *N) over the synapses that leave each source neuron."""
        return self._ones.backwards(y.double()) * self._scale

    def fan_out(self, shape: Sequence[int]) -> Tensor:
        """(*input_shape) synapses that leave each source neuron.

        Parameters
        ----------
        shape : of the target, without the batch.
        """
        return self.to_sources(torch.ones(1, *shape))[0]

    def fan_in(self) -> Tensor:
        """(*N) synapses that end in each target neuron."""
        return self.to_targets(torch.ones(1, *self._ones.input_shape))[0]


def measure_work(model: FeedbackSNN, x: Tensor, labels: Tensor, config: TrainConfig, *, seed: int = 0) -> TrainingWork:
    """Count the operations of one batch.

    Parameters
    ----------
    model : in training mode, on the CPU.
    x : (B, *input_shape) constant input, or (T, B, *input_shape) event frames.
    seed : of the dropout masks.
    """
    steps, steps_back = config.network.time_steps, config.training.time_steps_back
    bound = model.bind(len(labels), generator=torch.Generator().manual_seed(seed)).detached()
    drive = bound.drive(x, time_steps=steps)
    run = bound.simulate(drive, time_steps=steps)
    _, gradient = plain_readout(model, run.firing_rates[-1], labels)
    settings = SpideSettings(steps_back, config.training.loss_scale)
    couple_spikes, betas = _second_phase(bound, run.firing_rates, gradient, settings)
    spikes = [(mean * steps).round() for mean in run.mean_spikes]
    surrogate = _Surrogate(bound, drive, config)
    plain_forward_phase(bound, drive, time_steps=steps, observe=surrogate.step)
    events = torch.zeros_like(drive.mean_inputs[0]) if drive.frames is None else (drive.frames != 0).sum(0)
    sources = [(events, drive.mean_inputs[0]), *zip(spikes, run.firing_rates, strict=True)]
    feedforward, feedback = plain_connections(bound)
    found = []
    for number, connection in enumerate(feedforward + ([] if feedback is None else [feedback])):
        into = number % len(feedforward)
        ends = _Ends(*sources[number], run.firing_rates[into], couple_spikes[into], betas[into])
        found.append(_connection_work(_name(number, len(feedforward)), connection, ends, surrogate.counts(number)))
    return TrainingWork(
        samples=len(labels),
        time_steps=steps,
        time_steps_back=steps_back,
        leak=config.network.leak,
        neurons=tuple(rate[0].numel() for rate in run.firing_rates),
        firing=tuple(float(mean.mean()) for mean in run.mean_spikes),
        firing_back=tuple(float(count.double().mean()) / steps_back for count in couple_spikes),
        adjoint_steps=_adjoint_steps(model, x, labels, config, seed=seed),
        event_input=drive.frames is not None,
        connections=tuple(found),
    )


@dataclass(frozen=True, eq=False)
class _Ends:
    """A connection's ends: events and rate of its source; rate, |couple spikes| and beta of its target."""

    events: Tensor
    source: Tensor
    target: Tensor
    couple_spikes: Tensor
    beta: Tensor


def _connection_work(
    name: str, connection: PlainConnection, ends: _Ends, surrogate: tuple[float, float]
) -> ConnectionWork:
    structure, batch = Structure(connection), len(ends.source)
    fan_out, fan_in = structure.fan_out(ends.target.shape[1:]), structure.fan_in()
    kept = torch.ones_like(ends.target) if connection.mask is None else (connection.mask != 0).to(ends.target.dtype)
    passing = (firing_mask(ends.target) * kept).double()
    sent = ends.couple_spikes * passing
    joined = structure.to_targets(ends.source != 0)
    is_input, learned = name == "input", connection.layer.kind != "pool"

    def mean(total: Tensor) -> float:
        return float(total.sum()) / batch

    return ConnectionWork(
        name=name,
        synapses=int(fan_out.sum()),
        learned=learned,
        events=mean(ends.events),
        forward=mean(ends.events * fan_out),
        messages_back=0.0 if is_input else mean(sent),
        backward=0.0 if is_input else mean(sent * fan_in),
        updated=mean(joined * passing * (ends.beta != 0)),
        mapped=mean((ends.source != 0) * fan_out),
        passing=mean(passing * fan_in),
        updated_ide=mean(joined * passing),
        passing_bptt=surrogate[0] / batch,
        updated_bptt=surrogate[1] / batch,
    )


def _name(number: int, populations: int) -> str:
    if number == 0:
        return "input"
    return "feedback" if number == populations else f"population{number} to population{number + 1}"


def _second_phase(
    bound: BoundNetwork, rates: tuple[Tensor, ...], gradient: Tensor, settings: SpideSettings
) -> tuple[list[Tensor], list[Tensor]]:
    """Count every couple's spikes, and return its rate, both (B, *N); a few samples at a time."""
    parts = []
    for begin in range(0, len(gradient), CHUNK):
        rows = slice(begin, begin + CHUNK)
        some = tuple(rate[rows] for rate in rates)
        phase = backward_phase(_rows(bound, rows), some, gradient[rows], settings=settings, record=True)
        assert phase.spikes is not None
        parts.append(([(spikes != 0).sum(0) for spikes in phase.spikes], phase.rates))
    counts, betas = zip(*parts, strict=True)
    return [torch.cat(c) for c in zip(*counts, strict=True)], [torch.cat(b) for b in zip(*betas, strict=True)]


def _rows(bound: BoundNetwork, rows: slice) -> BoundNetwork:
    """Take the network for some samples of its batch."""

    def of(synapse: BoundSynapse) -> BoundSynapse:
        return synapse if synapse.mask is None else dataclasses.replace(synapse, mask=synapse.mask[rows])

    forward, back = (tuple(map(of, synapses)) for synapses in (bound.feedforward, bound.feedback))
    return dataclasses.replace(bound, feedforward=forward, feedback=back)


class _Surrogate:
    """Sums over the steps of what the rectangular surrogate lets through."""

    def __init__(self, bound: BoundNetwork, drive: Drive, config: TrainConfig) -> None:
        feedforward, feedback = plain_connections(bound)
        self._connections = feedforward + ([] if feedback is None else [feedback])
        self._structures = [Structure(connection) for connection in self._connections]
        self._fan_in = [structure.fan_in() for structure in self._structures]
        self._drive, self._populations = drive, len(feedforward)
        self._threshold, self._half = config.network.v_threshold, config.training.surrogate_width / 2
        self._sums = [[0.0, 0.0] for _ in self._connections]
        self._before: list[Tensor] = []
        self._steps = 0

    def step(self, v: list[Tensor], spikes: list[Tensor]) -> None:
        """Adds one step of the first phase: (B, *N) potentials before the reset, and spikes."""
        for number, connection in enumerate(self._connections):
            if number == self._populations and not self._before:
                continue  # nothing comes back before the first spike
            into = number % self._populations
            open_ = ((v[into] - self._threshold).abs() < self._half).double()
            if connection.mask is not None:
                open_ = open_ * (connection.mask != 0)
            self._sums[number][0] += float((open_ * self._fan_in[number]).sum())
            source = self._source(number, spikes)
            self._sums[number][1] += float((self._structures[number].to_targets(source != 0) * open_).sum())
        self._before = [spikes[-1].clone()]
        self._steps += 1

    def counts(self, number: int) -> tuple[float, float]:
        """Passing synapses and updated ones of a connection, all samples together."""
        return self._sums[number][0], self._sums[number][1]

    def _source(self, number: int, spikes: list[Tensor]) -> Tensor:
        if number == 0:
            return self._drive.mean_inputs[0] if self._drive.frames is None else self._drive.frames[self._steps]
        return self._before[0] if number == self._populations else spikes[number - 1]


def _adjoint_steps(model: FeedbackSNN, x: Tensor, labels: Tensor, config: TrainConfig, *, seed: int) -> int:
    """Products with J^T of IDE's solve for the same network, samples and masks."""
    training = config.training
    settings = AdjointSettings(training.adjoint_solver, training.adjoint_tolerance, training.adjoint_max_steps)
    masks = torch.Generator().manual_seed(seed)
    model.zero_grad()
    implicit = implicit_rates(model, x, time_steps=config.network.time_steps, settings=settings, generator=masks)
    functional.cross_entropy(model.classify(implicit.rates), labels).backward()
    model.zero_grad()
    return implicit.passes[0].steps if implicit.passes else 0
