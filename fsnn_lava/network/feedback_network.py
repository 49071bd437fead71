"""A feedback spiking network: run it for T steps, or evaluate the map whose fixed point its rates approach.

Populations 1 .. N are joined by any connections. Those from the input or an earlier population are forward, those from
the same or a later one feed back (`config.topology`). In each step, with sums over the connections into population l,

    I^l[t] = sum F x[t] + sum F s^j[t] (j < l) + sum W s^j[t - delay] (j >= l) + b^l

In a chain each population hears the one before it, and the last one feeds back to the first. The *loop delays* are the
only difference between the papers' timing and the hardware's. Methods that need weights are on `BoundNetwork`, which
fixes restricted weights and dropout masks for one forward call.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fsnn_lava.config import ConnectionSpec, NetworkConfig, topology_of
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
    neurons_of,
    rate_from_count,
    rate_of_current,
    slope_of_rate,
)
from fsnn_lava.network.run_by_events import event_run

DropoutOn = Literal["all", "last"]
"""Which connections drop currents: all, or those into the last population alone."""

Currents = tuple[Tensor | None, ...]
"""(B, *N) of each population, or None where nothing arrives."""


@dataclass(frozen=True, eq=False)
class Drive:
    """Input current of each population that the input reaches.

    Parameters
    ----------
    mean : currents (B, *N) of the leak-weighted mean input, with gradients if the network is bound with them.
    mean_inputs : (B, *shape) that mean input, of each connection from the input; the input itself if it is constant.
    at : currents (B, *N) at step t, without gradients unless they were asked for.
    frames : (T, B, *shape) event frames; None if the input is constant.
    normalisations : of the response to each frame, of each connection, see `BoundSynapse.frozen_normalisation`.
    """

    mean: Currents
    mean_inputs: tuple[Tensor, ...]
    at: Callable[[int], Currents]
    frames: Tensor | None = None
    normalisations: tuple[tuple[Tensor, Tensor] | None, ...] = ()

    @property
    def samples(self) -> int:
        """Size of the batch."""
        return len(self.mean_inputs[0])


@dataclass(frozen=True, eq=False)
class Simulation:
    """What T steps of spiking gave; tuples have one entry per population.

    Parameters
    ----------
    firing_rates : (B, *N) leak-weighted firing rates a[T], spikes per step.
    mean_spikes : (B, *N) plain mean of the spikes, the statistic of sparsity and energy.
    spikes : (T, B, *N) uint8, or None if they were not recorded.
    returned : of each feedback, (B, *N) leak-weighted mean over the T steps of those spikes of its source that came
        back within them: the last `loop_delay` steps' are missing.
    """

    firing_rates: tuple[Tensor, ...]
    mean_spikes: tuple[Tensor, ...]
    spikes: tuple[Tensor, ...] | None
    returned: tuple[Tensor, ...]


class FeedbackSNN(nn.Module):
    """Feedback spiking network: the paper's chain of N >= 1 populations (Eq. 10), or any graph.

    Parameters
    ----------
    config : notation or connections, neurons, and how layers are normalised, dropped, restricted and begun;
        ``time_steps`` is not used. Without feedback it is a plain spiking network.
    input_shape : (C, H, W) or (N,) of one sample.
    classes : outputs of the readout.
    seed : of the initial weights.
    timing : in which it runs: ``sequential``, as in the papers, or ``hardware``, where every connection takes a step.

    Attributes
    ----------
    feedforward : connections from the input and from earlier populations, in the order of the topology.
    feedback : the first connection from the same or a later population, or None; `feedbacks` are all of them.
    neurons : of each population.
    loop_delays : steps until a spike comes back over each feedback; may be set at any time.
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
        self.topology = topology_of(config, input_shape)
        self.input_shape, self.classes = tuple(input_shape), classes
        self.population_names, self.population_shapes = self.topology.names, self.topology.shapes
        self.neurons = neurons_of(config, self.population_names)
        self.loop_delays = self.topology.loop_delays(timing)
        synapse = functools.partial(
            _synapse, config=config, dropped=_dropped(self.topology.connections, config), generator=generator
        )
        self.feedforward = nn.ModuleList(map(synapse, self.topology.forward))
        self.register_module("feedback", None)
        for name, spec in zip(self._feedback_names(), self.topology.feedback, strict=True):
            self.register_module(name, synapse(spec))
        self.readout = _readout(math.prod(self.population_shapes[-1]), classes, generator)

    def _feedback_names(self) -> list[str]:
        """Under which names their parameters are kept: the first as that of a chain has always been."""
        count = len(self.topology.feedback)
        return [f"feedback{number}" if number > 1 else "feedback" for number in range(1, count + 1)]

    @property
    def feedbacks(self) -> tuple[Synapse, ...]:
        """Connections from the same or a later population, in the order of the topology."""
        found = (getattr(self, name) for name in self._feedback_names())
        return tuple(synapse for synapse in found if isinstance(synapse, Synapse))

    @property
    def synapses(self) -> tuple[Synapse, ...]:
        """All connections, forward ones first."""
        return (*(synapse for synapse in self.feedforward if isinstance(synapse, Synapse)), *self.feedbacks)

    def bind(self, batch: int, *, generator: torch.Generator | None = None) -> BoundNetwork:
        """The network with restricted weights and dropout masks fixed for one forward call.

        Parameters
        ----------
        batch : number of samples.
        generator : source of the dropout masks, which exist in training mode alone.
        """
        bound = tuple(synapse.bind(batch, generator=generator) for synapse in self.synapses)
        forward = len(self.feedforward)
        return BoundNetwork(self.neurons, bound[:forward], bound[forward:], self.training, self.dense, self.loop_delays)

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
    """A `FeedbackSNN` during one forward call.

    Its *state* is what a solve for the equilibrium finds: the rates of the populations that feed back, and of the last
    one; (B, *N) where that is one population, else (B, D), all of them joined. `join` and `split` change between the
    state and rates by population.
    """

    neurons: tuple[FloatNeuron, ...]
    feedforward: tuple[BoundSynapse, ...]
    feedback: tuple[BoundSynapse, ...]
    training: bool
    dense: DenseSettings
    loop_delays: tuple[int, ...]

    @property
    def synapses(self) -> tuple[BoundSynapse, ...]:
        """All connections, forward ones first."""
        return (*self.feedforward, *self.feedback)

    @functools.cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """(C, H, W) or (N,) of each population."""
        shapes = {s.target: s.synapse.shape for s in self.synapses}
        return tuple(shapes[p] for p in range(len(self.neurons)))

    @functools.cached_property
    def state(self) -> tuple[int, ...]:
        """The populations whose rates are the state, in their order."""
        return tuple(sorted({s.source for s in self.feedback} | {len(self.neurons) - 1}))

    def join(self, rates: Sequence[Tensor] | Mapping[int, Tensor]) -> Tensor:
        """The state, of the values (B, *N) of all populations."""
        if len(self.state) == 1:
            return rates[self.state[0]]
        return torch.cat([rates[p].flatten(1) for p in self.state], 1)

    def split(self, state: Tensor) -> dict[int, Tensor]:
        """The values (B, *N) of the populations whose values a state is."""
        if len(self.state) == 1:
            return {self.state[0]: state}
        parts = state.split([math.prod(self.shapes[p]) for p in self.state], 1)
        return {p: part.view(len(state), *self.shapes[p]) for p, part in zip(self.state, parts, strict=True)}

    def detached(self) -> BoundNetwork:
        """The same without gradients to the parameters."""
        return self._with(lambda synapse: synapse.detached())

    def with_backward_in(self, kind: torch.dtype) -> BoundNetwork:
        """The same, with the products of the convolutions' backward passes in this type on a CPU."""
        return self._with(lambda synapse: dataclasses.replace(synapse, backward=kind))

    def of_rows(self, rows: Tensor) -> BoundNetwork:
        """The same for some samples of the batch, (b,) their numbers: it keeps their dropout masks."""
        return self._with(lambda s: s if s.mask is None else dataclasses.replace(s, mask=s.mask[rows]))

    def _with(self, changed: Callable[[BoundSynapse], BoundSynapse]) -> BoundNetwork:
        forward, back = (tuple(map(changed, synapses)) for synapses in (self.feedforward, self.feedback))
        return dataclasses.replace(self, feedforward=forward, feedback=back)

    def drive(self, x: Tensor, *, time_steps: int, differentiable: bool = False) -> Drive:
        """Input currents F x, normalised with the statistics of the response to the mean input.

        In training mode this updates the running statistics of the batch norms behind the input, once.

        Parameters
        ----------
        x : (B, *shape) constant input, or (T, B, *shape) event frames with T = time_steps.
        differentiable : whether the current of every step has gradients, not its mean alone.
        """
        entries = [synapse for synapse in self.feedforward if synapse.source < 0]
        statistics: Statistics = "batch" if self.training else "running"
        if x.dim() == 1 + len(entries[0].synapse.input_shape):
            mean = self._summed((s.target, s.current(x, statistics)) for s in entries)
            constant = mean if differentiable else tuple(None if m is None else m.detach() for m in mean)
            return Drive(mean, (x,) * len(entries), lambda t: constant)
        if len(x) != time_steps:
            raise ValueError(f"event input has {counted(len(x), 'frame')}; expected one per time step, {time_steps}")
        frames = [s if differentiable else s.detached() for s in entries]
        means = tuple(self._weighted_mean(x, self.neurons[s.target].leak) for s in entries)
        normalisations = tuple(
            s.frozen_normalisation(s.linear(mean_input)) for s, mean_input in zip(frames, means, strict=True)
        )
        mean = self._summed((s.target, s.current(m, statistics)) for s, m in zip(entries, means, strict=True))

        def at(t: int) -> Currents:
            each = zip(frames, normalisations, strict=True)
            return self._summed((s.target, s.frozen_current(x[t], normalisation)) for s, normalisation in each)

        return Drive(mean, means, at, x, normalisations)

    def _summed(self, arriving: Iterable[tuple[int, Tensor]]) -> Currents:
        """Currents of each population that some connections bring."""
        total: list[Tensor | None] = [None] * len(self.neurons)
        for target, current in arriving:
            before = total[target]
            total[target] = current if before is None else before + current
        return tuple(total)

    @staticmethod
    def _weighted_mean(x: Tensor, leak: float) -> Tensor:
        weighted = torch.zeros_like(x[0])
        for frame in x:
            weighted = frame + leak * weighted
        return rate_from_count(weighted, time_steps=len(x), leak=leak)

    @torch.no_grad()
    def simulate(
        self, drive: Drive, *, time_steps: int, loop_delays: Sequence[int] | None = None, record: bool = False
    ) -> Simulation:
        """T steps of the spiking network (Eq. 10), batch norms behind populations with running statistics.

        On a CPU spikes are followed one by one (`event_run`), or, of convolutions whose weights are split, by
        products in int8 (`int8_run`); elsewhere, and with a layer of a kind from outside, products are dense
        (`dense_run`).

        Parameters
        ----------
        loop_delays : steps until a spike comes back over each feedback; None: the network's own.
        record : keep every spike.
        """
        delays = self.loop_delays if loop_delays is None else tuple(loop_delays)
        like = drive.mean_inputs[0]
        on_cpu = like.device.type == "cpu" and not any(s.synapse.layer.is_outside for s in self.synapses)
        convolves = any(s.synapse.layer.kind != "linear" for s in self.synapses)
        dtype = next(current.dtype for current in drive.mean if current is not None)
        form: dict[str, Any] = {"neurons": self.neurons, "time_steps": time_steps, "record": record}
        if on_cpu and not (convolves and self.dense.split and dtype == torch.float32 and not int8_fault()):
            counts = self._event_run(drive, delays, dtype=dtype, **form)
        else:
            form |= {"input_current": drive.at, "loop_delays": delays}
            if on_cpu:
                counts = int8_run(self.feedforward, self.feedback, constant=drive.frames is None, **form)
            else:
                counts = dense_run(self.feedforward, self.feedback, settings=self.dense, **form)
        rates = firing_rates(counts, self.neurons, time_steps=time_steps)
        plain = tuple(
            rate if neuron.leak == 1.0 else count / time_steps
            for rate, count, neuron in zip(rates, counts.plain, self.neurons, strict=True)
        )
        returned = tuple(
            rate_from_count(count, time_steps=time_steps, leak=self.neurons[s.source].leak)
            for count, s in zip(counts.returned, self.feedback, strict=True)
        )
        return Simulation(rates, plain, counts.spikes, returned)

    def _event_run(self, drive: Drive, delays: Sequence[int], *, dtype: torch.dtype, **form: Any) -> SpikeCounts:
        between = [s.event_connection() for s in self.feedforward if s.source >= 0]
        back = [s.event_connection(delay=delay) for s, delay in zip(self.feedback, delays, strict=True)]
        entries = []
        if drive.frames is not None:
            behind = [s for s in self.feedforward if s.source < 0]
            pairs = zip(behind, drive.normalisations, strict=True)
            entries = [s.event_connection(normalisation=normalisation) for s, normalisation in pairs]
        constant: Currents = tuple(None if m is None else m.detach() for m in drive.mean)
        return event_run(
            [*between, *back, *entries],
            self.shapes,
            drive=constant if drive.frames is None else (None,) * len(constant),
            events=drive.frames,
            batch=drive.samples,
            dtype=dtype,
            **form,
        )

    def equilibrium_map(self, state: Tensor, drive_mean: Currents, *, statistics: Statistics = "running") -> Tensor:
        """f(a, x), the state once around the loops (Theorem 3); in a chain, of the last population's rate (B, *N).

        Parameters
        ----------
        drive_mean : `Drive.mean`.
        statistics : of the batch norms behind populations; ``batch`` also updates their running statistics.
        """
        return self.join(self.rates_around(self.split(state), drive_mean, statistics=statistics))

    def rates_around(
        self,
        rates: Sequence[Tensor] | Mapping[int, Tensor],
        drive_mean: Currents,
        *,
        statistics: Statistics = "running",
    ) -> tuple[Tensor, ...]:
        """Rate of every population, (B, *N) each, if those that feed back have these rates.

        In a chain a^1 = clamp((W a + F^1 x + b^1) / r), a^l = clamp((F^l a^{l-1} + b^l) / r), clamp to [0, 1].

        Parameters
        ----------
        rates : of the populations that feed back, by their number.
        """
        back = [synapse.current(rates[synapse.source]) for synapse in self.feedback]
        return self.rates_of(back, drive_mean, statistics=statistics)

    def rates_of(
        self, back: Sequence[Tensor], drive_mean: Currents, *, statistics: Statistics = "running"
    ) -> tuple[Tensor, ...]:
        """Rate of every population, (B, *N) each, if these currents (B, *N) arrive over each feedback."""
        total = list(self._summed((s.target, current) for s, current in zip(self.feedback, back, strict=True)))
        rates: list[Tensor] = []
        for p, neuron in enumerate(self.neurons):
            brought = [
                s.current(rates[s.source], statistics) for s in self.feedforward if s.target == p > s.source >= 0
            ]
            arriving = [current for current in (total[p], drive_mean[p], *brought) if current is not None]
            rates.append(rate_of_current(functools.reduce(torch.add, arriving), neuron=neuron))
        return tuple(rates)

    @torch.no_grad()
    def transposed_jacobian(self, rates: Sequence[Tensor]) -> TransposedJacobian:
        """The map g -> J^T g of states, with J = df/da and running statistics; without graph.

        Parameters
        ----------
        rates : (B, *N) of all populations, where J is taken; a rate of 0 or 1 lets nothing through.
        """
        slopes = [slope_of_rate(rate, neuron=neuron) for rate, neuron in zip(rates, self.neurons, strict=True)]
        lowest = min((s.target for s in self.feedback), default=len(self.neurons))
        # Each population's slope, 1/r or 0, is in the products of the connections into it.
        products = {
            number: s.adjoint(slopes[s.target])
            for number, s in enumerate(self.synapses)
            if s.source >= 0 and (s.target > lowest or s.source >= s.target)
        }
        return TransposedJacobian(self, products)

    @torch.no_grad()
    def equilibrium(self, drive_mean: Currents, *, start: Tensor, tolerance: float, max_steps: int) -> FixedPoint:
        """The equilibrium a* = f(a*, x), by iteration from a state.

        Of samples with which this does not converge, by Anderson acceleration and Broyden's method (`solve`).
        """

        def of_rows(rows: Tensor) -> Callable[[Tensor], Tensor]:
            some, current = self.of_rows(rows), tuple(None if m is None else m[rows] for m in drive_mean)
            return lambda a: some.equilibrium_map(a, current)

        return solve(
            lambda a: self.equilibrium_map(a, drive_mean),
            start,
            method="fixed_point",
            tolerance=tolerance,
            max_steps=max_steps,
            of_rows=of_rows,
        )


@dataclass(frozen=True, eq=False)
class TransposedJacobian:
    """The map g -> J^T g of a network's states, as products with the transposes of its connections.

    Parameters
    ----------
    products : number of a connection among `BoundNetwork.synapses` -> its product, the slope of its target in it.
    """

    network: BoundNetwork
    products: Mapping[int, TransposedProduct]

    def __call__(self, g: Tensor) -> Tensor:
        """Return J^T g."""
        return self.network.join(self.back(self.to_populations(self.network.split(g))))

    def to_populations(self, g: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Return what changes of the populations' rates bring, without feedback: g, and what later populations do.

        Parameters
        ----------
        g : population -> (B, *N) what a change of its rate itself brings; of others nothing.
        """
        found = dict(g)
        for number, s in reversed(list(enumerate(self.network.feedforward))):
            if number in self.products and s.target in found:
                _add(found, s.source, self.products[number](found[s.target]))
        return found

    def back_over(self, feedback: int, arriving: Tensor) -> Tensor:
        """Return the product of one feedback with what its target (B, *N) has of `to_populations`."""
        return self.products[len(self.network.feedforward) + feedback](arriving)

    def back(self, arriving: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Return the sums of all feedbacks' products, of each population in the state."""
        found: dict[int, Tensor] = {}
        for number, s in enumerate(self.network.feedback):
            if s.target in arriving:
                _add(found, s.source, self.back_over(number, arriving[s.target]))
        nothing = [p for p in self.network.state if p not in found]
        if nothing:
            like = next(iter(arriving.values()))
            found |= {p: like.new_zeros((len(like), *self.network.shapes[p])) for p in nothing}
        return found

    def of_rows(self, rows: Tensor) -> TransposedJacobian:
        """The same for some samples of the batch, (b,) their numbers."""
        return TransposedJacobian(self.network, {n: product.of_rows(rows) for n, product in self.products.items()})


def _add(sums: dict[int, Tensor], population: int, more: Tensor) -> None:
    sums[population] = sums[population] + more if population in sums else more


def _synapse(
    spec: ConnectionSpec, *, config: NetworkConfig, dropped: frozenset[str], generator: torch.Generator
) -> Synapse:
    """A connection as the settings have it: a pool averages and does nothing else, a feedback is restricted."""
    learns = spec.layer.kind != "pool"
    return Synapse(
        spec.layer,
        spec.pool,
        input_shape=spec.input_shape,
        shape=spec.shape,
        taps=spec.taps,
        source=spec.source,
        target=spec.target,
        generator=generator,
        bias=learns and not spec.is_feedback,
        batch_norm=learns and not spec.is_feedback and config.batch_norm,
        dropout=config.dropout if spec.name in dropped else 0.0,
        norm_bound=config.spectral_norm_bound if learns and spec.is_feedback else None,
        norm=config.spectral_norm,
        initial_weights=config.initial_weights,
        initial_transposed_scale=config.initial_transposed_scale,
    )


def _dropped(connections: Sequence[ConnectionSpec], config: NetworkConfig) -> frozenset[str]:
    """Names of the connections that drop currents."""
    learning = [c for c in connections if c.layer.kind != "pool"]
    if config.dropout_on == "all":
        return frozenset(c.name for c in learning)
    last = max(c.target for c in connections)
    into = frozenset(c.name for c in learning if c.target == last and not c.is_feedback)
    if config.dropout and not into:
        pool = next(c.layer for c in connections if c.target == last)
        raise ConfigError(
            f'dropout_on "last" with dropout {config.dropout}: the last population is the pool {pool}, into '
            'which nothing is dropped; allowed: "all", or a network that ends in another layer'
        )
    return into


def _readout(features: int, classes: int, generator: torch.Generator) -> nn.Linear:
    """The classifier, weights and biases uniform in +-1/sqrt(features)."""
    readout = nn.utils.skip_init(nn.Linear, features, classes)
    assert isinstance(readout, nn.Linear)
    for parameter in (readout.weight, readout.bias):
        parameter.data = (torch.rand(parameter.shape, generator=generator) * 2 - 1) * features**-0.5
    return readout
