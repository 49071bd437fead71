"""A feedback spiking network: run it for T steps, or evaluate the map whose fixed point its rates approach.

Populations 1 .. N form a chain; the input enters the first and the last feeds back to the first:

    I^1[t] = F^1 x[t] + b^1 + W s^N[t - loop_delay]        I^l[t] = F^l s^{l-1}[t] + b^l

The *loop delay* is the only difference between the papers' timing (1) and the hardware's (N). Methods that need
weights are on `BoundNetwork`, which fixes restricted weights and dropout masks for one forward call.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fsnn_lava.config import NetworkConfig, PopulationSpec, parse_spec
from fsnn_lava.errors import ConfigError, counted
from fsnn_lava.hardware import FloatNeuron, Timing
from fsnn_lava.network.dense_runs.in_floats import DenseSettings, dense_run
from fsnn_lava.network.dense_runs.in_int8 import int8_run
from fsnn_lava.network.dense_runs.int8_products import int8_fault
from fsnn_lava.network.fixed_point import FixedPoint, solve
from fsnn_lava.network.layers import BoundSynapse, Statistics, Synapse, TransposedProduct
from fsnn_lava.network.neuron import (
    SpikeCounts,
    firing_rates,
    neuron_of,
    rate_from_count,
    rate_of_current,
    slope_of_rate,
)
from fsnn_lava.network.run_by_events import event_run

DropoutOn = Literal["all", "last"]
"""Which connections drop currents: all, or the one into the last population alone."""


@dataclass(frozen=True, eq=False)
class Drive:
    """Input current of the first population.

    Parameters
    ----------
    mean : (B, *N) current of the leak-weighted mean input, with gradients if the network is bound with them.
    mean_input : (B, *shape) that mean input; the input itself if it is constant.
    at : current (B, *N) at step t, without gradients unless they were asked for.
    frames : (T, B, *shape) event frames; None if the input is constant.
    normalisation : of the response to each frame, see `BoundSynapse.frozen_normalisation`.
    """

    mean: Tensor
    mean_input: Tensor
    at: Callable[[int], Tensor]
    frames: Tensor | None = None
    normalisation: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Simulation:
    """What T steps of spiking gave; tuples have one entry per population.

    Parameters
    ----------
    firing_rates : (B, *N) leak-weighted firing rates a[T], spikes per step.
    mean_spikes : (B, *N) plain mean of the spikes, the statistic of sparsity and energy.
    spikes : (T, B, *N) uint8, or None if they were not recorded.
    returned : (B, *N) leak-weighted mean over the T steps of those spikes of the last population that came back within
        them: the last `loop_delay` steps' are missing.
    """

    firing_rates: tuple[Tensor, ...]
    mean_spikes: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...] | None
    returned: Tensor


class FeedbackSNN(nn.Module):
    """Feedback spiking network in the paper's notation, for N >= 1 populations (Eq. 10).

    Parameters
    ----------
    config : notation and neurons, and how layers are normalised, dropped, restricted and begun; ``time_steps`` is not
        used. Without feedback in the notation it is a plain spiking network.
    input_shape : (C, H, W) or (N,) of one sample.
    classes : outputs of the readout.
    seed : of the initial weights.
    timing : in which it runs: ``sequential``, as in the papers, or ``hardware``, where every connection takes a step.

    Attributes
    ----------
    loop_delay : steps until a spike of the last population reaches the first: 1 in sequential timing, N in hardware
        timing; may be set at any time.
    dense : how the spiking run computes where it is dense, i.e. not on a CPU; may be set at any time.

    Raises
    ------
    SpecError : if the shapes do not fit.
    ConfigError : if `dropout_on` names a connection that drops nothing, or the neuron model makes no neuron.
    """

    def __init__(
        self,
        config: NetworkConfig,
        input_shape: tuple[int, ...],
        *,
        classes: int = 10,
        seed: int = 0,
        timing: Timing = "sequential",
    ) -> None:
        super().__init__()
        self.dense = DenseSettings()
        generator = torch.Generator().manual_seed(seed)
        self.spec = parse_spec(config.notation)
        self.neuron = neuron_of(config)
        populations = self.spec.populations(input_shape, pooling=config.pooling)
        self.input_shape, self.classes = tuple(input_shape), classes
        self.population_names = tuple(p.name for p in populations)
        self.loop_delay = len(populations) if timing == "hardware" else 1
        self.population_shapes = tuple(p.shape for p in populations)
        synapse = functools.partial(
            Synapse,
            generator=generator,
            initial_weights=config.initial_weights,
            initial_transposed_scale=config.initial_transposed_scale,
        )
        dropping = {p.name: config.dropout for p in _dropped_into(populations, config.dropout_on, config.dropout)}
        self.feedforward = nn.ModuleList(
            _connection_into(p, synapse, batch_norm=config.batch_norm, dropout=dropping.get(p.name, 0.0))
            for p in populations
        )
        self.feedback = None
        if self.spec.feedback is not None:
            self.feedback = synapse(
                self.spec.feedback,
                None,
                input_shape=populations[-1].shape,
                shape=populations[0].shape,
                bias=False,
                batch_norm=False,
                dropout=config.dropout if config.dropout_on == "all" else 0.0,
                norm_bound=config.spectral_norm_bound,
                norm=config.spectral_norm,
            )
        self.readout = _readout(int(torch.Size(populations[-1].shape).numel()), classes, generator)

    def bind(self, batch: int, *, generator: torch.Generator | None = None) -> BoundNetwork:
        """The network with restricted weights and dropout masks fixed for one forward call.

        Parameters
        ----------
        batch : number of samples.
        generator : source of the dropout masks, which exist in training mode alone.
        """
        feedforward = []
        for synapse in self.feedforward:
            assert isinstance(synapse, Synapse)
            feedforward.append(synapse.bind(batch, generator=generator))
        feedback = None if self.feedback is None else self.feedback.bind(batch, generator=generator)
        return BoundNetwork(self.neuron, tuple(feedforward), feedback, self.training, self.dense, self.loop_delay)

    def bind_to(self, x: Tensor, *, generator: torch.Generator | None = None) -> BoundNetwork:
        """`bind` for the batch of an input: (B, *input_shape), or (T, B, *input_shape) event frames."""
        return self.bind(x.shape[x.dim() - 1 - len(self.input_shape)], generator=generator)

    def classify(self, firing_rate: Tensor) -> Tensor:
        """Logits (B, classes), o = W^o a^N + b^o, of the last population's firing rate (B, *N)."""
        logits: Tensor = self.readout(firing_rate.flatten(1))
        return logits

    @torch.no_grad()
    def forward(self, x: Tensor, time_steps: int) -> Tensor:
        """Logits (B, classes) after `time_steps` of spiking in the network's timing, without gradients.

        Parameters
        ----------
        x : (B, *input_shape) constant input, or (T, B, *input_shape) event frames.
        """
        bound = self.bind_to(x)
        run = bound.simulate(bound.drive(x, time_steps=time_steps), time_steps=time_steps)
        return self.classify(run.firing_rates[-1])


@dataclass(frozen=True, eq=False)
class BoundNetwork:
    """A `FeedbackSNN` during one forward call."""

    neuron: FloatNeuron
    feedforward: tuple[BoundSynapse, ...]
    feedback: BoundSynapse | None
    training: bool
    dense: DenseSettings
    loop_delay: int

    def detached(self) -> BoundNetwork:
        """The same without gradients to the parameters."""
        return dataclasses.replace(
            self,
            feedforward=tuple(s.detached() for s in self.feedforward),
            feedback=None if self.feedback is None else self.feedback.detached(),
        )

    def with_backward_in(self, kind: torch.dtype) -> BoundNetwork:
        """The same, with the products of the convolutions' backward passes in this type on a CPU."""
        return dataclasses.replace(
            self,
            feedforward=tuple(dataclasses.replace(s, backward=kind) for s in self.feedforward),
            feedback=None if self.feedback is None else dataclasses.replace(self.feedback, backward=kind),
        )

    def of_rows(self, rows: Tensor) -> BoundNetwork:
        """The same for some samples of the batch, (b,) their numbers: it keeps their dropout masks."""

        def kept(synapse: BoundSynapse) -> BoundSynapse:
            return synapse if synapse.mask is None else dataclasses.replace(synapse, mask=synapse.mask[rows])

        feedback = None if self.feedback is None else kept(self.feedback)
        return dataclasses.replace(self, feedforward=tuple(map(kept, self.feedforward)), feedback=feedback)

    def drive(self, x: Tensor, *, time_steps: int, differentiable: bool = False) -> Drive:
        """Input current F^1 x + b^1, normalised with the statistics of the response to the mean input.

        In training mode this updates the first batch norm's running statistics, once.

        Parameters
        ----------
        x : (B, *shape) constant input, or (T, B, *shape) event frames with T = time_steps.
        differentiable : whether the current of every step has gradients, not its mean alone.
        """
        first = self.feedforward[0]
        statistics: Statistics = "batch" if self.training else "running"
        if x.dim() == 1 + len(first.synapse.input_shape):
            mean = first.current(x, statistics)
            constant = mean if differentiable else mean.detach()
            return Drive(mean, x, lambda t: constant)
        if len(x) != time_steps:
            raise ValueError(f"event input has {counted(len(x), 'frame')}; expected one per time step, {time_steps}")
        mean_input = self._weighted_mean(x)
        frames = first if differentiable else first.detached()
        normalisation = frames.frozen_normalisation(frames.linear(mean_input))
        mean = first.current(mean_input, statistics)
        return Drive(mean, mean_input, lambda t: frames.frozen_current(x[t], normalisation), x, normalisation)

    def _weighted_mean(self, x: Tensor) -> Tensor:
        weighted = torch.zeros_like(x[0])
        for frame in x:
            weighted = frame + self.neuron.leak * weighted
        return rate_from_count(weighted, time_steps=len(x), leak=self.neuron.leak)

    @torch.no_grad()
    def simulate(
        self, drive: Drive, *, time_steps: int, loop_delay: int | None = None, record: bool = False
    ) -> Simulation:
        """T steps of the spiking network (Eq. 10), batch norms after the first with running statistics.

        On a CPU spikes are followed one by one (`event_run`), or, of convolutions whose weights are split, by
        products in int8 (`int8_run`); elsewhere, and with a layer of a kind from outside, products are dense
        (`dense_run`).

        Parameters
        ----------
        loop_delay : steps until a spike of the last population reaches the first: 1 in the papers' sequential
            timing, N (the number of populations) on hardware; None: the network's own.
        record : keep every spike.
        """
        loop_delay = self.loop_delay if loop_delay is None else loop_delay
        synapses = self.feedforward if self.feedback is None else (*self.feedforward, self.feedback)
        on_cpu = drive.mean.device.type == "cpu" and not any(s.synapse.layer.is_outside for s in synapses)
        convolves = any(s.synapse.layer.kind != "linear" for s in synapses)
        if on_cpu and convolves and self.dense.split and drive.mean.dtype == torch.float32 and not int8_fault():
            counts = int8_run(
                self.feedforward,
                self.feedback,
                input_current=drive.at,
                constant=drive.frames is None,
                neuron=self.neuron,
                time_steps=time_steps,
                loop_delay=loop_delay,
                record=record,
            )
        elif on_cpu:
            counts = self._event_run(drive, time_steps=time_steps, loop_delay=loop_delay, record=record)
        else:
            counts = dense_run(
                self.feedforward,
                self.feedback,
                input_current=drive.at,
                neuron=self.neuron,
                time_steps=time_steps,
                loop_delay=loop_delay,
                record=record,
                settings=self.dense,
            )
        rates = firing_rates(counts, time_steps=time_steps, leak=self.neuron.leak)
        returned = rate_from_count(counts.returned, time_steps=time_steps, leak=self.neuron.leak)
        plain = rates if self.neuron.leak == 1.0 else tuple(count / time_steps for count in counts.plain)
        return Simulation(rates, plain, counts.spikes, returned)

    def _event_run(self, drive: Drive, *, time_steps: int, loop_delay: int, record: bool) -> SpikeCounts:
        later = list(enumerate(self.feedforward))[1:]
        connections = [synapse.event_connection(layer - 1, layer) for layer, synapse in later]
        if self.feedback is not None:
            connections.append(self.feedback.event_connection(len(later), 0))
        if drive.frames is not None:
            first = self.feedforward[0]
            connections.append(first.event_connection(-1, 0, normalisation=drive.normalisation))
        return event_run(
            connections,
            [synapse.synapse.shape for synapse in self.feedforward],
            neuron=self.neuron,
            drive=drive.mean.detach() if drive.frames is None else None,
            events=drive.frames,
            batch=len(drive.mean),
            dtype=drive.mean.dtype,
            time_steps=time_steps,
            loop_delay=loop_delay,
            record=record,
        )

    def equilibrium_map(self, a: Tensor, drive_mean: Tensor, *, statistics: Statistics = "running") -> Tensor:
        """f(a, x), (B, *N): the last population's rate once around the loop (Theorem 3).

        Parameters
        ----------
        a : (B, *N) rate of the last population.
        drive_mean : (B, *N) `Drive.mean`.
        statistics : of the batch norms after the first; ``batch`` also updates their running statistics.
        """
        return self.rates_around(a, drive_mean, statistics=statistics)[-1]

    def rates_around(self, a: Tensor, drive_mean: Tensor, *, statistics: Statistics = "running") -> tuple[Tensor, ...]:
        """Rate of every population, (B, *N) each, if the last one feeds back the rate a.

        a^1 = clamp((W a + F^1 x + b^1) / r), a^l = clamp((F^l a^{l-1} + b^l) / r), clamp to [0, 1].
        """
        current = drive_mean if self.feedback is None else self.feedback.current(a) + drive_mean
        return self.rates_of(current, statistics=statistics)

    def rates_of(self, current: Tensor, *, statistics: Statistics = "running") -> tuple[Tensor, ...]:
        """Rate of every population, (B, *N) each, at the mean current (B, *N) of the first."""
        rates = [rate_of_current(current, neuron=self.neuron)]
        for synapse in self.feedforward[1:]:
            current = synapse.current(rates[-1], statistics)
            rates.append(rate_of_current(current, neuron=self.neuron))
        return tuple(rates)

    @torch.no_grad()
    def transposed_jacobian(self, rates: tuple[Tensor, ...]) -> TransposedJacobian:
        """The map g -> J^T g, (B, *N) to (B, *N), with J = df/da and running statistics; without graph.

        Parameters
        ----------
        rates : what `rates_around` gave where J is taken; a rate of 0 or 1 lets nothing through.
        """
        assert self.feedback is not None
        loop = zip((self.feedback, *self.feedforward[1:]), rates, strict=True)
        # Each factor of f in turn, last population first: its slope 1/r or 0, then its connection.
        products = [synapse.adjoint(slope_of_rate(rate, neuron=self.neuron)) for synapse, rate in loop]
        return TransposedJacobian(tuple(products[::-1]))

    @torch.no_grad()
    def equilibrium(self, drive_mean: Tensor, *, start: Tensor, tolerance: float, max_steps: int) -> FixedPoint:
        """The equilibrium a* = f(a*, x) of the last population from a start (B, *N), by iteration.

        Of samples with which this does not converge, by Anderson acceleration and Broyden's method (`solve`).
        """
        return solve(
            lambda a: self.equilibrium_map(a, drive_mean),
            start,
            method="fixed_point",
            tolerance=tolerance,
            max_steps=max_steps,
            of_rows=lambda rows: lambda a: self.of_rows(rows).equilibrium_map(a, drive_mean[rows]),
        )


@dataclass(frozen=True, eq=False)
class TransposedJacobian:
    """The map g -> J^T g, (B, *N) to (B, *N), of a loop: the products of its connections, the last one's first."""

    products: tuple[TransposedProduct, ...]

    def __call__(self, g: Tensor) -> Tensor:
        """Return J^T g."""
        return self.back(self.to_first(g))

    def to_first(self, g: Tensor) -> Tensor:
        """Return the first population's part (B, *N1) of J^T g, before the feedback's product."""
        for product in self.products[:-1]:
            g = product(g)
        return g

    def back(self, g: Tensor) -> Tensor:
        """Return the feedback's product (B, *N) with what `to_first` gave."""
        return self.products[-1](g)

    def of_rows(self, rows: Tensor) -> TransposedJacobian:
        """The same for some samples of the batch, (b,) their numbers."""
        return TransposedJacobian(tuple(product.of_rows(rows) for product in self.products))


def _connection_into(
    population: PopulationSpec, synapse: Callable[..., Synapse], *, batch_norm: bool, dropout: float
) -> Synapse:
    """The feedforward connection; one into a pool averages and does nothing else."""
    learns = population.layer.kind != "pool"
    return synapse(
        population.layer,
        population.pool,
        input_shape=population.input_shape,
        shape=population.shape,
        bias=learns,
        batch_norm=batch_norm and learns,
        dropout=dropout if learns else 0.0,
    )


def _dropped_into(
    populations: tuple[PopulationSpec, ...], dropout_on: DropoutOn, dropout: float
) -> tuple[PopulationSpec, ...]:
    """The populations into which currents are dropped."""
    if dropout_on == "all":
        return populations
    if dropout and populations[-1].layer.kind == "pool":
        raise ConfigError(
            f'dropout_on "last" with dropout {dropout}: the last population is the pool {populations[-1].layer}, into '
            'which nothing is dropped; allowed: "all", or a notation that ends in another layer'
        )
    return populations[-1:]


def _readout(features: int, classes: int, generator: torch.Generator) -> nn.Linear:
    """The classifier, weights and biases uniform in +-1/sqrt(features)."""
    readout = nn.utils.skip_init(nn.Linear, features, classes)
    assert isinstance(readout, nn.Linear)
    for parameter in (readout.weight, readout.bias):
        parameter.data = (torch.rand(parameter.shape, generator=generator) * 2 - 1) * features**-0.5
    return readout
