"""Training by spikes alone (SPIDE): the adjoint system is solved by a second phase of spikes, and updates are local.

Xiao, Meng, Zhang, Wang, Lin, "SPIDE: a purely spike-based method for training feedback spiking neural networks",
Neural Networks 161 (2023). After T steps of the network, which give the rates a^l, one ternary couple stands behind
every neuron. Couples run the network backwards for T_back steps, last population first:

    q^N += (1/r) W^T (D_W m^1 p^1 of the step before) + loss_scale dL/da^N
    q^l += (1/r) (F^{l+1})^T (D_{l+1} m^{l+1} p^{l+1})                                        l < N
    p^l = +1 where q^l >= 1/2, -1 where q^l <= -1/2, else 0;      q^l <- leak (q^l - p^l)

with masks m^l = 1 where 0 < a^l < 1 (others let nothing through) and the dropout masks D of the first phase. The
couples' rates beta settle where the adjoint system has its solution g (for one population g = dL/da + J^T g):
beta^l = loss_scale g^l. In any other graph spikes run backwards in the same way, over the transpose of each connection:
within the step to earlier populations, over a feedback its loop delay later. Each
connection from j to i updates itself by (1/r) D_i m_i beta_i a_j / loss_scale: by what is at its two ends.

Neither phase builds a graph, and neither keeps anything of its steps but counts. Resolution of a rate is 1/T_back,
and |beta| <= 1: too small a `loss_scale` drowns the gradient in rounding, too large a one cuts it off.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from fsnn_lava.config import TrainingConfig
from fsnn_lava.errors import ConfigError, ConvergenceError, InputError
from fsnn_lava.network import BoundNetwork, BoundSynapse, FeedbackSNN, Sums, rate_from_count
from fsnn_lava.training.gradients.measured_rates import BackwardPhase, ImplicitRates
from fsnn_lava.training.gradients.spide_by_events import CoupleLink, couple_run
from fsnn_lava.training.gradients.spide_dense import dense_couples

SATURATED = 0.95
"""Rate of a ternary couple from which on its gradient is taken to be cut off: it would have to fire more than once a
step, but for the first steps, in which nothing has reached it yet."""


@dataclass(frozen=True)
class SpideSettings:
    """How the second phase runs.

    Parameters
    ----------
    time_steps_back : T_back, at least 1.
    loss_scale : factor of the loss in the second phase, above 0; divided out of the gradient again.
    processes : how many share a batch, their gradients being averaged afterwards. So each is given a gradient that is
        this many times that of the mean over the whole batch; its couples are given the latter.

    Raises
    ------
    ConfigError : if a setting is out of its range.
    """

    time_steps_back: int = 100
    loss_scale: float = 100.0
    processes: int = 1

    def __post_init__(self) -> None:
        if type(self.time_steps_back) is not int or self.time_steps_back < 1:
            raise ConfigError(f"time_steps_back: found {self.time_steps_back!r}; allowed: at least 1, a whole number")
        if type(self.loss_scale) not in (int, float) or not 0 < self.loss_scale < float("inf"):
            raise ConfigError(f"loss_scale: found {self.loss_scale!r}; allowed: a finite number > 0")
        if type(self.processes) is not int or self.processes < 1:
            raise ConfigError(f"processes: found {self.processes!r}; allowed: at least 1, a whole number")


def spide(
    model: FeedbackSNN,
    x: Tensor,
    *,
    training: TrainingConfig,
    time_steps: int,
    generator: torch.Generator | None,
    sums: Sums | None,
    processes: int,
) -> ImplicitRates:
    """Measure rates whose gradient a second phase of spikes finds, as a configuration says; registered as "spide"."""
    settings = SpideSettings(training.time_steps_back, training.loss_scale, processes)
    return spide_rates(model, x, time_steps=time_steps, settings=settings, generator=generator)


def spide_rates(
    model: FeedbackSNN,
    x: Tensor,
    *,
    time_steps: int,
    settings: SpideSettings,
    generator: torch.Generator | None = None,
) -> ImplicitRates:
    """Firing rates of the last population after T steps, whose backward pass is the second phase of spikes.

    Parameters
    ----------
    model, x, generator : as of `rates_with_gradient`.

    Raises
    ------
    ConfigError : the model has batch norm, average pooling that is not a population, or a kind from outside.
    """
    bound = model.bind_to(x, generator=generator)
    _check(bound)
    with torch.no_grad():
        detached = bound.detached()
        drive = detached.drive(x, time_steps=time_steps)
        simulation = detached.simulate(drive, time_steps=time_steps)
    phases: list[BackwardPhase] = []

    def updates(gradient: Tensor) -> tuple[Tensor, ...]:
        phase = backward_phase(detached, simulation.firing_rates, gradient, settings=settings)
        phases.append(phase)
        return local_updates(detached, simulation.firing_rates, phase, mean_inputs=drive.mean_inputs, settings=settings)

    rates: Tensor = _LocalUpdates.apply(  # type: ignore[no-untyped-call]
        simulation.firing_rates[-1], updates, *_learned(bound)
    )
    return ImplicitRates(rates, simulation, phases, _figures)


def _figures(found: BackwardPhase, names: tuple[str, ...], *, count: float, total: int) -> dict[str, Tensor | float]:
    """How much each population's couples fire, and which share of them saturates."""
    figures: dict[str, Tensor | float] = {}
    for name, mean in zip(names, found.mean_spikes, strict=True):
        figures[f"backward_firing_rate/{name}"] = mean.mean() * count
    for name, rate in zip(names, found.rates, strict=True):
        figures[f"saturated_couples/{name}"] = (rate.abs() >= SATURATED).double().mean() * count
    return figures


@torch.no_grad()
def backward_phase(
    bound: BoundNetwork,
    firing_rates: tuple[Tensor, ...],
    gradient: Tensor,
    *,
    settings: SpideSettings,
    loop_delays: Sequence[int] | None = None,
    record: bool = False,
) -> BackwardPhase:
    """What the couples did in the second phase; on a CPU single spikes are followed, elsewhere products are dense.

    Parameters
    ----------
    firing_rates : (B, *N) measured rates of all populations.
    gradient : (B, *N) dL/da^N of the loss, the mean over the batch.
    loop_delays : steps until spikes arrive that run back over each feedback, at least 1; None: as in the first phase.
    record : keep every spike.

    Raises
    ------
    ConfigError : the network has batch norm or a merged pool, or the loop delay is below 1.
    InputError : rates or gradient are not of the network's shapes and of one batch.
    ConvergenceError : the gradient is not finite.
    """
    delays = bound.loop_delays if loop_delays is None else tuple(loop_delays)
    _check(bound)
    _check_phase(bound, firing_rates, gradient, delays)
    between = [synapse for synapse in bound.feedforward if synapse.source >= 0]
    # Spikes run from a connection's target back to its source.
    links = [
        CoupleLink(
            synapse.target,
            synapse.source,
            synapse.synapse.layer,
            synapse.weight,
            synapse.synapse.input_shape,
            _masked(synapse, firing_rates[synapse.target]) / bound.neurons[synapse.target].reset_amount,
            delay,
        )
        for synapse, delay in zip((*between, *bound.feedback), (*[0] * len(between), *delays), strict=True)
    ]
    leaks = [neuron.leak for neuron in bound.neurons]
    run = couple_run if gradient.device.type == "cpu" else partial(dense_couples, settings=bound.dense)
    counts = run(
        links,
        bound.shapes,
        drive=gradient * (settings.loss_scale / settings.processes),
        leaks=leaks,
        time_steps=settings.time_steps_back,
        record=record,
    )
    steps = settings.time_steps_back
    rates = tuple(
        rate_from_count(count, time_steps=steps, leak=leak) for count, leak in zip(counts.weighted, leaks, strict=True)
    )
    return BackwardPhase(rates, tuple(n / (steps * len(gradient)) for n in counts.fired), counts.spikes)


@torch.no_grad()
def local_updates(
    bound: BoundNetwork,
    firing_rates: tuple[Tensor, ...],
    phase: BackwardPhase,
    *,
    mean_inputs: Sequence[Tensor],
    settings: SpideSettings,
) -> tuple[Tensor, ...]:
    """Gradient of every weight and bias, in the order in which a network's synapses have them: feedforward, feedback.

    Parameters
    ----------
    firing_rates : (B, *N) measured rates of all populations.
    mean_inputs : (B, *shape) leak-weighted mean of the input, of each connection from it.
    """
    updates: list[Tensor] = []
    entries = iter(mean_inputs)
    for synapse in bound.synapses:
        source = firing_rates[synapse.source] if synapse.source >= 0 else next(entries)
        factor = settings.processes / (bound.neurons[synapse.target].reset_amount * settings.loss_scale)
        arriving = _masked(synapse, firing_rates[synapse.target]) * phase.rates[synapse.target] * factor
        updates += _update(synapse, source, arriving)
    return tuple(updates)


def _check(bound: BoundNetwork) -> None:
    """Refuse a network through which spikes cannot run backwards."""
    for synapse in bound.synapses:
        layer, pool = synapse.synapse.layer, synapse.synapse.pool
        if layer.is_outside:
            raise ConfigError(
                f"SPIDE: {layer} is of the kind {layer.kind}, from outside; allowed: "
                "convolutions, pools and linear layers, through which it knows how to follow spikes backwards"
            )
        if synapse.synapse.batch_norm is not None:
            raise ConfigError(
                f"SPIDE: the connection into population {synapse.target + 1} has batch norm, which has no spiking "
                "form; allowed: network.batch_norm = false"
            )
        if pool is not None:
            raise ConfigError(
                f"SPIDE: the pool {pool} is merged into the connection into population {synapse.target + 1}; "
                'allowed: pools that are populations, network.pooling = "spiking"'
            )


def _check_phase(
    bound: BoundNetwork, firing_rates: tuple[Tensor, ...], gradient: Tensor, loop_delays: Sequence[int]
) -> None:
    """Raise if the compiled loop cannot trust what it is given."""
    found = [tuple(tensor.shape) for tensor in (*firing_rates, gradient)]
    expected = [(len(gradient), *shape) for shape in (*bound.shapes, bound.shapes[-1])]
    if found != expected or not len(gradient):
        raise InputError(
            f"SPIDE: rates and gradient of shapes {found}; expected {expected}: of each population, then the gradient "
            "of the last one, of one batch of at least one sample"
        )
    if min(loop_delays, default=1) < 1:
        raise ConfigError(f"SPIDE: loop delays {list(loop_delays)}; allowed: at least 1 each")
    if not torch.isfinite(gradient).all():
        raise ConvergenceError("SPIDE: the gradient of the loss is not finite, so no couple's rate can follow it")


def _learned(bound: BoundNetwork) -> list[Tensor]:
    """The weights (restricted, with gradients) and biases that are trained, in the order of `local_updates`."""
    return [
        tensor
        for synapse in bound.synapses
        if synapse.synapse.layer.kind != "pool"
        for tensor in (synapse.weight, synapse.bias)
        if tensor is not None
    ]


def _masked(synapse: BoundSynapse, rate: Tensor) -> Tensor:
    """(B, *N) dropout mask of the connection into a population, 0 where that is silent or saturated."""
    passing = ((rate > 0) & (rate < 1)).to(rate.dtype)
    return passing if synapse.mask is None else passing * synapse.mask


def _update(synapse: BoundSynapse, source: Tensor, arriving: Tensor) -> list[Tensor]:
    """Gradients of a connection's weight and bias: what is at its source times what arrives at its target."""
    layer = synapse.synapse.layer
    if layer.kind == "pool":
        return []
    shape, padding = synapse.weight.shape, layer.padding
    if layer.kind == "linear":
        weight = arriving.flatten(1).t() @ source.flatten(1)
    elif layer.transposed:  # the adjoint of a convolution: both ends change places
        weight = conv2d_weight(arriving, shape, source, layer.stride, padding)
    else:
        weight = conv2d_weight(source, shape, arriving, layer.stride, padding)
    if synapse.bias is None:
        return [weight]
    return [weight, arriving.sum([axis for axis in range(arriving.dim()) if axis != 1])]


class _LocalUpdates(torch.autograd.Function):
    """Value: the measured rates. Backward, to every weight and bias: its local update."""

    @staticmethod
    def forward(
        ctx: Any, measured: Tensor, updates: Callable[[Tensor], tuple[Tensor, ...]], *learned: Tensor
    ) -> Tensor:
        ctx.updates = updates
        return measured.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.updates(gradient)
