"""A network that is trained in integers: what runs in every iteration is what an export writes, to the last spike.

The weights that the optimizer changes are *shadows* in floats. In every forward pass they are folded (batch norm with
running statistics, pooling), counted in units of the mantissa, and rounded; the integer law runs for T steps in
hardware timing; and the gradient is found at the rates that this gave, on the map of the dequantized weights, and goes
straight through the rounding to the shadows (Bengio et al. 2013, arXiv 1308.3432). A shadow beyond the mantissa's range
gets no gradient that would take it further out.

What integers a weight can become is decided once, by `Scales`, before the training: reset synapses, exponents, parts.
A network that was rounded with compensation starts from those integers: `start` keeps for each weight by how much its
shadow must be moved to round to them.

No potential may leave 24 bits, whatever the input. So after rounding the bound of each neuron is worked out; a row of
weights (a neuron's, a channel's) whose bound is beyond `HEADROOM` of the range is made smaller before it is rounded.
Every state of a training is therefore proven.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fsnn_lava.backends import run_batch
from fsnn_lava.config import DeployConfig, LayerSpec, TrainConfig
from fsnn_lava.datasets import InputCoding
from fsnn_lava.errors import ConfigError, PotentialBoundError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    STATE_LIMIT,
    STATE_PER_HALF_WEIGHT,
    Array,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    IntegerNeuron,
    Readout,
    bounds_alone,
    summed_weight,
)
from fsnn_lava.network import (
    BoundNetwork,
    BoundSynapse,
    Drive,
    FeedbackSNN,
    FoldedSynapse,
    Simulation,
    Synapse,
    apply_layer,
    folded,
    lower_model,
)
from fsnn_lava.quantization import (
    CURRENT_LIMIT,
    PROVENANCE,
    Scales,
    integer_neuron,
    mantissa_limits,
    parts_of,
    round_current,
    shared,
)

HEADROOM = 0.98
"""Share of the 24-bit range that no proven bound of a training leaves."""
RESIDUAL = 0.49
"""Largest distance of a shadow from its integer at the start, in units of the mantissa."""
_SHRINKING = 0.995
"""Factor by which a row is made smaller than its bound alone asks for, since rounding moves the bound."""
_ATTEMPTS = 40
_AS_TRAINED = DeployConfig()


@dataclass(frozen=True)
class PooledConvolution(LayerSpec):
    """A convolution with the average pooling that follows it in its kernel.

    Parameters
    ----------
    border : zeros on every side.
    """

    border: int = 0

    def __post_init__(self) -> None:
        """Take sides that the notation has no word for."""

    @property
    def is_outside(self) -> bool:
        """False: it is a convolution."""
        return False

    @property
    def padding(self) -> int:
        """Zeros on every side."""
        return self.border

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C, H, W) after it."""
        sides = ((n + 2 * self.border - self.kernel) // self.stride + 1 for n in input_shape[1:])
        return (self.features, *sides)


@dataclass(frozen=True, eq=False)
class IntegerSynapse(BoundSynapse):
    """A connection of dequantized weights during one forward call.

    Parameters
    ----------
    rest : (*N) constant current beside the bias: what rounding leaves of it.
    """

    rest: Tensor

    def linear(self, x: Tensor) -> Tensor:
        """Response of the linear map (B, *N), constant current included."""
        return super().linear(x) + self.rest


@dataclass(frozen=True, eq=False)
class BoundIntegers(BoundNetwork):
    """An `IntegerSNN` during one forward call: a map of dequantized weights, and the integers that run."""

    integers: HardwareNetwork
    coding: InputCoding

    def drive(self, x: Tensor, *, time_steps: int, differentiable: bool = False) -> Drive:
        """Input current of the first population by the map; the run itself takes codes.

        Parameters
        ----------
        x : (B, *shape) constant input, or (T, B, *shape) event frames with T = time_steps.
        differentiable : not used: nothing differentiates through single steps.
        """
        first = self.feedforward[0]
        x = x.to(first.weight.dtype)
        if x.dim() == 1 + len(first.synapse.input_shape):
            mean = first.current(x)
            constant = mean.detach()
            return Drive(mean, x, lambda t: constant)
        mean_input = self._weighted_mean(x)
        frames = first.detached()
        return Drive(first.current(mean_input), mean_input, lambda t: frames.current(x[t]), x)

    @torch.no_grad()
    def simulate(
        self, drive: Drive, *, time_steps: int, loop_delay: int | None = None, record: bool = False
    ) -> Simulation:
        """T steps of the integers, in hardware timing, on the codes that the input stands for.

        Parameters
        ----------
        loop_delay : the network's own, or None.
        record : keep every spike.
        """
        assert loop_delay in (None, self.loop_delay), "integers run in hardware timing"
        inputs = drive.mean_input if drive.frames is None else drive.frames
        network = dataclasses.replace(self.integers, time_steps=time_steps)
        names = [p.name for p in network.populations]
        found = run_batch(
            network,
            codes_of(inputs, self.coding),
            threads=torch.get_num_threads(),
            loop_delay=self.loop_delay,
            record=names if record else (),
        )
        dtype = drive.mean.dtype
        plain = tuple(_contiguous(found.counts[name]).to(dtype) / time_steps for name in names)
        rates = tuple(
            _contiguous(found.rates[name]).to(dtype) if name in found.rates else mean
            for name, mean in zip(names, plain, strict=True)
        )
        spikes = tuple(torch.from_numpy(np.ascontiguousarray(spikes)) for spikes in found.spikes.values())
        assert found.returned is not None
        return Simulation(rates, plain, spikes if record else None, _contiguous(found.returned).to(dtype))


def codes_of(x: Tensor, coding: InputCoding) -> Array:
    """Codes that normalised inputs (..., C, H, W) stand for, uint8."""
    wide = (-1, *[1] * (x.dim() - 1 - (x.dim() - 3)))
    mean, std = (torch.tensor(value, dtype=x.dtype).view(wide) for value in (coding.mean, coding.std))
    return np.asarray(((x * std + mean) / coding.scale).round_().to(torch.uint8).numpy())


class _Unit(NamedTuple):
    """Real values: of a weight unit, and of a step of a connection's mantissa."""

    scale: float
    step: float


class _Integers(NamedTuple):
    """A connection's whole numbers, in floats: mantissas, and the constant current into its target (N,) if it has one.

    ``excess``: 1 where a shadow is above the mantissa's range, -1 below; None: all are within.
    """

    mantissa: Tensor
    current: Tensor | None
    excess: Tensor | None


_Shadow = tuple[Tensor, Tensor | None]
"""Folded weight, on normalised inputs, and folded bias (C,) of a connection."""


@dataclass(frozen=True, eq=False)
class _Place:
    """A connection of the network, and what its integers are made with.

    Parameters
    ----------
    weights, current : connections of the float network: it, and the constant current that comes with it.
    target : number of the population that it ends in.
    synapse : its layer with the pooling in it.
    pool : window of that pooling, 1 without.
    rows : axis of the weight that counts the target's channels.
    factor : by what a weight on normalised inputs is multiplied to be one on codes; None: not of the input.
    shift : (1, *shape) normalised value of code 0, with its sign turned; None where it is 0 everywhere.
    largest : code that the source sends at most.
    """

    weights: Connection
    current: Connection | None
    target: int
    synapse: FoldedSynapse
    pool: int
    rows: int
    factor: Tensor | None
    shift: Tensor | None
    largest: int

    def folded(self, bound: BoundSynapse) -> _Shadow:
        """Weight and bias of a bound connection with batch norm and pooling in them, with gradients."""
        weight, bias = folded(bound)
        return _pooled(weight, bound.synapse.layer.stride, self.pool), bias

    def units(self, weight: Tensor, step: float) -> Tensor:
        """A weight in steps of the mantissa."""
        return weight / step if self.factor is None else weight * (self.factor.to(weight.dtype) / step)

    def weight(self, mantissa: Tensor, step: float) -> Tensor:
        """The weight that mantissas stand for, on normalised inputs."""
        return mantissa * step if self.factor is None else mantissa * (step / self.factor.to(mantissa.dtype))

    def border(self, weight: Tensor) -> Tensor:
        """(N,) or (): by what the current on codes is larger than that on normalised inputs."""
        if self.shift is None:
            return weight.new_zeros(())
        return apply_layer(self.synapse.layer, weight.detach(), None, self.shift.to(weight.dtype))[0].flatten()

    def current_units(self, bias: Tensor | None, border: Tensor, scale: float) -> Tensor:
        """(N,) constant current on codes in weight units, before it is rounded."""
        return (self._everywhere(bias, border) - border) / scale

    def bound(self, found: _Integers, unit: _Unit, shadow: _Shadow | None = None) -> IntegerSynapse:
        """The connection of these integers; with a shadow, gradients go straight through to that."""
        weight, bias = self.weight(found.mantissa, unit.step), None
        border = self.border(weight)
        rest = border.clone() if found.current is None else found.current * unit.scale + border
        if shadow is not None:
            weight = _StraightThrough.apply(shadow[0], weight, found.excess)  # type: ignore[no-untyped-call]
            bias = shadow[1]
            rest = rest - self._everywhere(None if bias is None else bias.detach(), border)
        shape = self.synapse.shape if rest.dim() else ()
        return IntegerSynapse(self.synapse, weight, bias, None, None, None, rest.view(shape))

    def _everywhere(self, bias: Tensor | None, like: Tensor) -> Tensor:
        """(N,) the bias of each neuron's channel."""
        if bias is None:
            return like.new_zeros(())
        return bias.repeat_interleave(math.prod(self.synapse.shape[1:]))


class _StraightThrough(torch.autograd.Function):
    """Value: dequantized weights. Backward: to the shadows, but for what would take one further out of the range."""

    @staticmethod
    def forward(ctx: Any, shadow: Tensor, value: Tensor, excess: Tensor | None) -> Tensor:
        ctx.excess = excess
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if ctx.excess is not None:  # a step goes against the gradient
            gradient = gradient.masked_fill(ctx.excess * gradient < 0, 0.0)
        return gradient, None, None


class _Numbers(nn.Module):
    """Buffers of an `IntegerSNN`: scales, mantissas, constant currents, and how far shadows are moved."""

    resets: Tensor

    def __init__(self, floating: HardwareNetwork, places: Sequence[_Place]) -> None:
        super().__init__()
        self.register_buffer("resets", torch.zeros(len(floating.populations), 2, dtype=torch.int64))
        for place in places:
            shape = place.weights.weight.shape
            self.register_buffer(f"{place.weights.name}_scale", torch.zeros(2, dtype=torch.int64))
            self.register_buffer(f"{place.weights.name}_mantissa", torch.zeros(shape, dtype=torch.int16))
            self.register_buffer(f"{place.weights.name}_offset", torch.zeros(shape))
            if place.current is not None:
                neurons = len(place.current.weight)
                self.register_buffer(f"{place.current.name}_units", torch.zeros(neurons, dtype=torch.int32))
                self.register_buffer(f"{place.current.name}_offset", torch.zeros(neurons))

    def of(self, connection: Connection, what: str) -> Tensor:
        """One of a connection's buffers."""
        buffer: Tensor = getattr(self, f"{connection.name}_{what}")
        return buffer


class IntegerSNN(FeedbackSNN):
    """Feedback spiking network whose spikes are those of its integers; a float one until `start`.

    In training mode a forward pass rounds the shadows anew. `refresh` keeps the integers that they round to now, which
    run in evaluation mode and which a checkpoint holds; turning to evaluation mode does so too. Nothing is dropped:
    what is trained is what runs.

    Parameters
    ----------
    config : settings of the training, which name the weights' bits.
    input_shape, classes, coding : of the dataset.

    Attributes
    ----------
    weight_bits, symmetric : of the mantissas.
    most_steps : largest T for which every state is proven.

    Raises
    ------
    ConfigError : for a layer of a kind from outside, and as `FeedbackSNN`.
    SpecError : as `FeedbackSNN`.
    """

    def __init__(self, config: TrainConfig, input_shape: tuple[int, ...], *, classes: int, coding: InputCoding) -> None:
        undropped = dataclasses.replace(config.network, dropout=0.0, dropout_on="all")
        super().__init__(undropped, input_shape, classes=classes, seed=config.training.seed, timing="hardware")
        self.coding = coding
        self.weight_bits, self.symmetric = config.training.weight_bits, config.training.symmetric
        self.most_steps = config.most_steps
        self._floating = lower_model(self, coding, name=config.name, time_steps=config.most_steps)
        self._places = _places(self, self._floating, coding)
        self._kept: HardwareNetwork | None = None
        self.integers = _Numbers(self._floating, self._places)
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    @property
    def started(self) -> bool:
        """Whether the scales have been chosen."""
        return bool((self.integers.resets[:, 0] > 0).all())

    @property
    def scales(self) -> Scales:
        """The scales; of a network that has started."""
        resets = self.integers.resets.tolist()
        table = {p.weights.name: self.integers.of(p.weights, "scale").tolist() for p in self._places}
        return Scales(
            {p.name: (m, e) for p, (m, e) in zip(self._floating.populations, resets, strict=True)},
            {name: exponent for name, (exponent, _) in table.items()},
            {name: parts for name, (_, parts) in table.items()},
            self.weight_bits,
            self.symmetric,
        )

    @torch.no_grad()
    def start(self, integer: HardwareNetwork) -> None:
        """Take the scales of a network that this one was rounded to, and begin with its integers.

        Parameters
        ----------
        integer : what `quantize` made of this network, lowered.
        """
        scales = Scales.of(self._floating, integer, symmetric=self.symmetric)
        self.integers.resets.copy_(torch.tensor(list(scales.resets.values())))
        training = self.training
        super().train(False)
        bound = super().bind(1)
        for place, synapse in zip(self._places, _synapses(bound), strict=True):
            name, scale = place.weights.name, self._neuron(place).scale
            exponent, parts = scales.exponents[name], scales.parts[name]
            self.integers.of(place.weights, "scale").copy_(torch.tensor([exponent, parts]))
            wanted = torch.from_numpy(np.ldexp(summed_weight(parts_of(integer, place.weights)), -exponent)).float()
            shadow, bias = place.folded(synapse)
            units = place.units(shadow, scale * 2.0**exponent)
            self.integers.of(place.weights, "offset").copy_(
                wanted + (units - wanted).clamp(-RESIDUAL, RESIDUAL) - units
            )
            if place.current is not None:
                border = place.border(place.weight(wanted, scale * 2.0**exponent))
                current = torch.from_numpy(summed_weight(parts_of(integer, place.current))[:, 0]).float()
                self.integers.of(place.current, "offset").copy_(current - place.current_units(bias, border, scale))
        self.refresh()
        super().train(training)

    @torch.no_grad()
    def refresh(self) -> None:
        """Keep the integers that the shadows round to now."""
        if not self.started:
            return
        training = self.training
        super().train(False)
        bound = super().bind(1)
        numbers, self._kept = self._proven(
            [place.folded(s) for place, s in zip(self._places, _synapses(bound), strict=True)]
        )
        for place, found in zip(self._places, numbers, strict=True):
            self.integers.of(place.weights, "mantissa").copy_(found.mantissa)
            if place.current is not None:
                assert found.current is not None
                self.integers.of(place.current, "units").copy_(found.current)
        super().train(training)

    def train(self, mode: bool = True) -> IntegerSNN:
        """Change the mode; integers are refreshed where evaluation begins."""
        if self.training and not mode:
            self.refresh()
        super().train(mode)
        return self

    def bind(self, batch: int, *, generator: torch.Generator | None = None) -> BoundNetwork:
        """The map of the dequantized weights and the integers for one forward call, in training those of the shadows.

        In evaluation mode all of it is in float64, as what reads out an exported network is.
        """
        if not self.started:
            return super().bind(batch, generator=generator)
        if self.training:
            bound = super().bind(batch)
            shadows = [place.folded(s) for place, s in zip(self._places, _synapses(bound), strict=True)]
            numbers, network = self._proven([(w.detach(), None if b is None else b.detach()) for w, b in shadows])
            synapses = [
                place.bound(found, self._unit(place), shadow)
                for place, found, shadow in zip(self._places, numbers, shadows, strict=True)
            ]
        else:
            network = self.integer_network()
            synapses = [place.bound(self._number(place), self._unit(place)) for place in self._places]
        last = None if self.feedback is None else synapses.pop()
        decay = network.populations[0].neuron.leak
        neuron = dataclasses.replace(self.neuron, leak=decay)
        return BoundIntegers(
            neuron, tuple(synapses), last, self.training, self.dense, self.loop_delay, network, self.coding
        )

    def classify(self, firing_rate: Tensor) -> Tensor:
        """Logits (B, classes) of the last population's firing rate (B, *N), in its type."""
        kind = firing_rate.dtype
        return functional.linear(firing_rate.flatten(1), self.readout.weight.to(kind), self.readout.bias.to(kind))

    # ---- as networks for hardware ----------------------------------------------------------------------------------

    def integer_network(self) -> HardwareNetwork:
        """The integers that are kept, as they run; of a network that has started."""
        if self._kept is None:
            self._kept = self._network([self._number(place) for place in self._places])
        return self._kept

    def dequantized(self) -> HardwareNetwork:
        """The same as a float network, in the unit of the threshold, whose provenance says with which scales."""
        integer = self.integer_network()
        populations = []
        for before, after in zip(self._floating.populations, integer.populations, strict=True):
            assert isinstance(before.neuron, FloatNeuron) and isinstance(after.neuron, IntegerNeuron)
            threshold = after.neuron.v_threshold * after.neuron.scale
            neuron = FloatNeuron(threshold, before.neuron.reset_amount, after.neuron.leak)
            populations.append(dataclasses.replace(before, neuron=neuron))
        connections = []
        for c in self._floating.connections:
            target = integer.population(c.target).neuron
            assert isinstance(target, IntegerNeuron)
            connections.append(dataclasses.replace(c, weight=summed_weight(parts_of(integer, c)) * target.scale))
        return dataclasses.replace(
            self._floating,
            populations=tuple(populations),
            connections=tuple(connections),
            readout=self._readout(),
            provenance={PROVENANCE: self.scales.as_dict()},
        )

    def _readout(self) -> Readout:
        arrays = (p.detach().cpu().double().numpy() for p in (self.readout.weight, self.readout.bias))
        return dataclasses.replace(self._floating.readout, **dict(zip(("weight", "bias"), arrays, strict=True)))

    def _network(self, numbers: Sequence[_Integers]) -> HardwareNetwork:
        populations = tuple(
            dataclasses.replace(p, neuron=integer_neuron(p, (m, e), _AS_TRAINED))
            for p, (m, e) in zip(self._floating.populations, self.integers.resets.tolist(), strict=True)
        )
        made: dict[str, list[Connection]] = {}
        for place, found in zip(self._places, numbers, strict=True):
            exponent, parts = self.integers.of(place.weights, "scale").tolist()
            made[place.weights.name] = shared(
                place.weights, found.mantissa.numpy(), exponent=exponent, parts=parts, bits=self.weight_bits
            )
            if place.current is not None:
                assert found.current is not None
                made[place.current.name] = round_current(place.current, found.current.numpy()[:, None])[0]
        connections = tuple(part for c in self._floating.connections for part in made[c.name])
        return dataclasses.replace(self._floating, populations=populations, connections=connections)

    # ---- rounding --------------------------------------------------------------------------------------------------

    def _neuron(self, place: _Place) -> IntegerNeuron:
        mantissa, exponent = self.integers.resets[place.target].tolist()
        return integer_neuron(self._floating.populations[place.target], (mantissa, exponent), _AS_TRAINED)

    def _unit(self, place: _Place) -> _Unit:
        scale = self._neuron(place).scale
        return _Unit(scale, scale * 2.0 ** int(self.integers.of(place.weights, "scale")[0]))

    def _number(self, place: _Place) -> _Integers:
        """The kept integers of a connection, as float64."""
        current = None if place.current is None else self.integers.of(place.current, "units").double()
        return _Integers(self.integers.of(place.weights, "mantissa").double(), current, None)

    def _integers(self, place: _Place, shadow: _Shadow, shrunk: Tensor | None) -> _Integers:
        """A connection's shadow in whole numbers; `shrunk`: factor of each row, (rows,)."""
        unit = self._unit(place)
        units = place.units(shadow[0], unit.step) + self.integers.of(place.weights, "offset").to(shadow[0].dtype)
        if shrunk is not None:
            units = units * shrunk.view(*[1] * place.rows, -1, *[1] * (units.dim() - 1 - place.rows))
        parts = int(self.integers.of(place.weights, "scale")[1])
        low, high = mantissa_limits(self.weight_bits, symmetric=self.symmetric, parts=parts)
        excess = (units > high + 0.5).to(torch.int8) - (units < low - 0.5).to(torch.int8)
        mantissa, current = units.round().clamp(low, high), None
        if place.current is not None:
            border = place.border(place.weight(mantissa, unit.step))
            current = place.current_units(shadow[1], border, unit.scale)
            current = current + self.integers.of(place.current, "offset").to(current.dtype)
            if shrunk is not None:
                current = current * shrunk.repeat_interleave(len(current) // len(shrunk))
            current = current.round().clamp(-CURRENT_LIMIT, CURRENT_LIMIT)
        return _Integers(mantissa, current, excess if bool(excess.any()) else None)

    def _proven(self, shadows: Sequence[_Shadow]) -> tuple[list[_Integers], HardwareNetwork]:
        """Round shadows, rows that could leave `HEADROOM` of the range being made smaller; and their network."""
        shrunk: dict[int, Tensor] = {}
        for _ in range(_ATTEMPTS):
            numbers = [self._integers(p, s, shrunk.get(p.target)) for p, s in zip(self._places, shadows, strict=True)]
            network = self._network(numbers)
            beyond = self._beyond(network, numbers)
            if not beyond:
                return numbers, network
            for target, factor in beyond.items():
                shrunk[target] = factor * shrunk.get(target, 1.0)
        names = ", ".join(network.populations[target].name for target in beyond)
        raise PotentialBoundError(
            f"training in integers: no row of weights into {names} is small enough for a potential of 24 bits within "
            f"T = {network.time_steps}; use fewer time steps"
        )

    def _beyond(self, network: HardwareNetwork, numbers: Sequence[_Integers]) -> dict[int, Tensor]:
        """Population -> factor of each row by which its bound would fit; of those whose bound does not fit."""
        found = {}
        for target, population in enumerate(network.populations):
            into = [(p, n) for p, n in zip(self._places, numbers, strict=True) if p.target == target]
            if self._surely_within(network, target, into):
                continue
            low, high = bounds_alone(network, population.name)
            share = np.maximum(-low, high).reshape(population.shape[0], -1).max(axis=1) / STATE_LIMIT
            if (share > HEADROOM).any():
                factor = np.where(share > HEADROOM, HEADROOM / share * _SHRINKING, 1.0)
                found[target] = torch.from_numpy(factor).to(numbers[0].mantissa.dtype)
        return found

    def _surely_within(self, network: HardwareNetwork, target: int, into: Sequence[tuple[_Place, _Integers]]) -> bool:
        """Whether a bound that is quick to work out fits already, as it mostly does.

        With n and p what arrives in a step at least and at most, in units of state, theta the threshold and r the
        reset: a spike leaves at least -r, and each step takes n; a potential above theta loses r. So it stays between
        -(r + T n) and theta + p + T max(0, p - r).
        """
        neuron = network.populations[target].neuron
        assert isinstance(neuron, IntegerNeuron)
        least, most = 0.0, 0.0
        for place, found in into:
            factor = place.largest * 2.0 ** (1 + int(self.integers.of(place.weights, "scale")[0]))
            rows = found.mantissa.movedim(place.rows, 0).flatten(1)
            least += factor * float(rows.clamp_max(0).sum(1).min()) - 1  # a graded current is rounded down
            most += factor * float(rows.clamp_min(0).sum(1).max())
            if found.current is not None:
                least += 2 * min(float(found.current.min()), 0.0)
                most += 2 * max(float(found.current.max()), 0.0)
        least, most = STATE_PER_HALF_WEIGHT * least, STATE_PER_HALF_WEIGHT * most
        steps, reset = network.time_steps, neuron.reset_state
        highest = neuron.fires_above + most + steps * max(0.0, most - reset)
        return max(reset - steps * least, highest) <= HEADROOM * STATE_LIMIT


def _forget(model: nn.Module, _incompatible: object) -> None:
    """Drop the kept network: other integers were loaded."""
    assert isinstance(model, IntegerSNN)
    model._kept = None


def _synapses(bound: BoundNetwork) -> tuple[BoundSynapse, ...]:
    return bound.feedforward if bound.feedback is None else (*bound.feedforward, bound.feedback)


def _places(model: FeedbackSNN, floating: HardwareNetwork, coding: InputCoding) -> tuple[_Place, ...]:
    """A place of each connection, feedforward ones first."""
    constants = {c.target: c for c in floating.connections if c.source == ALWAYS_ON}
    learned = [c for c in floating.connections if c.source != ALWAYS_ON]
    order = {p.name: i for i, p in enumerate(floating.populations)}
    found = []
    synapses = [*model.feedforward, *([] if model.feedback is None else [model.feedback])]
    for number, (weights, synapse) in enumerate(zip(learned, synapses, strict=True)):
        assert isinstance(synapse, Synapse)
        factor, shift = _of_codes(synapse, coding) if weights.source == INPUT else (None, None)
        current = constants.get(weights.target) if number < len(order) else None
        found.append(
            _Place(
                weights,
                current,
                order[weights.target],
                FoldedSynapse(_with_pool(synapse), synapse.input_shape, synapse.shape),
                1 if synapse.pool is None else synapse.pool.kernel,
                1 if synapse.layer.transposed else 0,
                factor,
                shift,
                coding.maximum if weights.source == INPUT else 1,
            )
        )
    return tuple(found)


def _with_pool(synapse: Synapse) -> LayerSpec:
    """The layer with its pooling in the kernel."""
    layer, pool = synapse.layer, synapse.pool
    if layer.is_outside:
        raise ConfigError(
            f'training.arithmetic: found "integer" and the layer {layer}, of a kind from outside; allowed: '
            "convolutions, pools and linear layers"
        )
    if pool is None:
        return layer
    kernel = layer.kernel + layer.stride * (pool.kernel - 1)
    return PooledConvolution("conv", layer.features, kernel, layer.stride * pool.kernel, border=layer.padding)


def _pooled(weight: Tensor, stride: int, window: int) -> Tensor:
    """The kernel of a convolution followed by average pooling, see `fsnn_lava.hardware.pooled`; with gradients."""
    if window == 1:
        return weight
    room = stride * (window - 1)
    shifts = range(0, room + 1, stride)
    shifted = [functional.pad(weight, (x, room - x, y, room - y)) for y in shifts for x in shifts]
    return torch.stack(shifted).mean(0)


def _of_codes(synapse: Synapse, coding: InputCoding) -> tuple[Tensor, Tensor | None]:
    """Factor of a weight on codes, shaped as the weight, and (1, *shape) mean over std of the input; None: all 0."""
    channels, *sides = synapse.input_shape
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (coding.mean, coding.std))
    image = (mean / std).view(-1, *[1] * len(sides)).expand(channels, *sides)[None]
    factor = coding.scale / std
    if synapse.layer.kind == "linear":
        factor = factor.repeat_interleave(math.prod(sides))
    else:
        factor = factor.view(-1, 1, 1, 1) if synapse.layer.transposed else factor.view(-1, 1, 1)
    return factor, image.contiguous() if bool(image.any()) else None


def _contiguous(array: Array) -> Tensor:
    """A tensor of an array's numbers, in the order of its memory's axes."""
    return torch.from_numpy(array)
