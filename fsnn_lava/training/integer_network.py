"""A network that is trained in integers: what runs in every iteration is what an export writes, to the last spike.

The weights that the optimizer changes are *shadows* in floats. In every forward pass they are folded (batch norm with
running statistics, pooling), counted in units of the mantissa, and rounded; the integer law runs for T steps in
hardware timing; and the gradient is found at the rates that this gave, on the map of the dequantized weights, and goes
straight through the rounding to the shadows (Bengio et al. 2013, arXiv 1308.3432). A shadow beyond the mantissa's range
gets no gradient that would take it further out.

What integers a weight can become is decided once, by `Scales`, before the training: reset synapses, exponents, parts.
A network that was rounded with compensation starts from those integers: `start` keeps for each weight by how much its
shadow must be moved to round to them.

No potential may leave 24 bits, whatever the input. With n and p what can arrive at a neuron in a step at least and at
most, theta its threshold and r its reset, a spike leaves at least -r, each step takes n, and a potential above theta
loses r first: so it stays between -(r + sum of n over the steps) and theta + p + T max(0, p - r). A row of weights (a
neuron's, a channel's) for which that is beyond `HEADROOM` of the range is made smaller before it is rounded. Every
state of a training is therefore proven; the exporter's proof, which follows the steps one by one, is never weaker.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fsnn_lava.backends import BatchRunner
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
    summed_weight,
)
from fsnn_lava.kernels.weight_rounding import round_rows
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
    """An `IntegerSNN` during one forward call: a map of dequantized weights, and the integers that run.

    Parameters
    ----------
    runner : runs them.
    names : of the populations.
    weights, constants, largest : as `BatchRunner.run` takes them.
    """

    coding: InputCoding
    runner: BatchRunner
    names: tuple[str, ...]
    weights: Mapping[str, Array]
    constants: Mapping[str, Array]
    largest: Mapping[str, int]

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
        names = self.names
        found = self.runner.run(
            codes_of(inputs, self.coding),
            self.weights,
            self.constants,
            largest=self.largest,
            time_steps=time_steps,
            threads=torch.get_num_threads(),
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


class _Integers(NamedTuple):
    """A connection's whole numbers.

    Parameters
    ----------
    mantissa : shaped as the weight, an integer type.
    weight : on normalised inputs, what the mantissas stand for, in floats.
    current : (N,) constant current into its target, int32; None: it brings none.
    excess : int8, 1 where a shadow is above the mantissa's range, -1 below; None: all are within.
    low, high : (R,) int64 most negative and most positive sum of mantissas that reaches one neuron of each row.
    """

    mantissa: Tensor
    weight: Tensor
    current: Tensor | None
    excess: Tensor | None
    low: Array
    high: Array


_Shadow = tuple[Tensor, Tensor | None]
"""Folded weight, on normalised inputs, and folded bias (C,) of a connection."""


@dataclass(frozen=True, eq=False)
class _Place:
    """A connection of the network, and what its integers are made with, whatever the scales are.

    Parameters
    ----------
    weights, current : connections of the float network: it, and the constant current that comes with it.
    target : number of the population that it ends in.
    synapse : its layer with the pooling in it.
    pool : window of that pooling, 1 without.
    factor : by what a weight on normalised inputs is multiplied to be one on codes; None: not of the input.
    shift : (1, *shape) normalised value of code 0, with its sign turned; None where it is 0 everywhere.
    largest : code that the source sends at most.
    """

    weights: Connection
    current: Connection | None
    target: int
    synapse: FoldedSynapse
    pool: int
    factor: Tensor | None
    shift: Tensor | None
    largest: int

    def folded(self, bound: BoundSynapse) -> _Shadow:
        """Weight and bias of a bound connection with batch norm and pooling in them, with gradients."""
        weight, bias = folded(bound)
        return _pooled(weight, bound.synapse.layer.stride, self.pool), bias

    def rows(self, weight: Tensor) -> Tensor:
        """(R, n) the weight by channels of the target; of a transposed convolution, phase after phase."""
        if not self.synapse.layer.transposed:
            return weight.flatten(1).contiguous()
        stride, rows = self.synapse.layer.stride, weight.swapaxes(0, 1)
        return torch.cat([rows[..., y::stride, x::stride].flatten(1) for y, x in _phases(stride)], 1)

    def from_rows(self, rows: Tensor) -> Tensor:
        """The weight whose `rows` these are."""
        shape = self.weights.weight.shape
        if not self.synapse.layer.transposed:
            return rows.view(shape)
        stride, weight, first = self.synapse.layer.stride, rows.new_empty((shape[1], shape[0], *shape[2:])), 0
        for y, x in _phases(stride):
            part = weight[..., y::stride, x::stride]
            size = part[0].numel()
            part.copy_(rows[:, first : first + size].view(part.shape))
            first += size
        return weight.swapaxes(0, 1).contiguous()

    def starts(self) -> Array:
        """(P + 1,) first column of each phase in `rows`, and the end."""
        shape, stride = self.weights.weight.shape, self.synapse.layer.stride
        if not self.synapse.layer.transposed:
            return np.array([0, math.prod(shape[1:])])
        sides = [(len(range(y, shape[2], stride)), len(range(x, shape[3], stride))) for y, x in _phases(stride)]
        return np.cumsum([0, *(shape[0] * a * b for a, b in sides)])

    def everywhere(self, bias: Tensor | None) -> Tensor | float:
        """(N,) the bias of each neuron's channel."""
        return 0.0 if bias is None else bias.repeat_interleave(math.prod(self.synapse.shape[1:]))


def _phases(stride: int) -> list[tuple[int, int]]:
    """Taps of a transposed convolution that one target meets begin at one of these."""
    return [(y, x) for y in range(stride) for x in range(stride)]


class _Scaled:
    """A place with its scales: shadows become whole numbers here, and these weights again.

    Parameters
    ----------
    neuron : of the target.
    exponent, parts : of the connection.
    limits : smallest and largest mantissa, of all parts together.

    Attributes
    ----------
    starts, factor, step : as `round_rows` takes them.
    """

    def __init__(
        self, place: _Place, neuron: IntegerNeuron, exponent: int, parts: int, limits: tuple[int, int]
    ) -> None:
        self.place, self.neuron, self.exponent, self.parts = place, neuron, exponent, parts
        self.limits, self.starts = np.array(limits, np.float64), place.starts()
        step = neuron.scale * 2.0**exponent
        one = torch.ones((), dtype=torch.float64) if place.factor is None else place.factor
        self._value = step / one
        shape = place.weights.weight.shape
        self.factor, self.step = (place.rows(value.expand(shape))[0].numpy() for value in (one / step, self._value))

    def whole(self, mantissa: Tensor, current: Tensor | None) -> _Integers:
        """Whole numbers that are known, in float64."""
        rows, ends = self.place.rows(mantissa.to(torch.int32)), self.starts.tolist()
        phases = [rows[:, first:end] for first, end in itertools.pairwise(ends)]
        low = torch.stack([phase.clamp_max(0).sum(1) for phase in phases]).amin(0)
        high = torch.stack([phase.clamp_min(0).sum(1) for phase in phases]).amax(0)
        weight = self.weight(mantissa, torch.float64)
        return _Integers(mantissa.to(torch.int32), weight, current, None, low.numpy(), high.numpy())

    def rounding(self, shadow: _Shadow, offset: Tensor, current_offset: Tensor | None) -> _Rounding:
        """Begin to round a shadow without gradients.

        Parameters
        ----------
        offset, current_offset : by which mantissas and constant current are moved first.
        """
        return _Rounding(self, shadow, offset, current_offset)

    def units(self, weight: Tensor) -> Tensor:
        """A weight on normalised inputs in steps of the mantissa."""
        units: Tensor = weight / self._value.to(weight.dtype)
        return units

    def weight(self, mantissa: Tensor, kind: torch.dtype) -> Tensor:
        """The weight on normalised inputs that mantissas stand for."""
        weight: Tensor = mantissa * self._value.to(kind)
        return weight

    def border(self, weight: Tensor) -> Tensor | float:
        """(N,) by what the current on codes is larger than that on normalised inputs."""
        if self.place.shift is None:
            return 0.0
        layer, shift = self.place.synapse.layer, self.place.shift.to(weight.dtype)
        return apply_layer(layer, weight.detach(), None, shift)[0].flatten()

    def bound(self, found: _Integers, kind: torch.dtype, shadow: _Shadow | None = None) -> IntegerSynapse:
        """The connection of whole numbers; with a shadow, gradients go straight through to that."""
        weight, bias = found.weight.to(kind), None
        rest = torch.zeros((), dtype=kind) + self.border(weight)
        if found.current is not None:
            rest = rest + found.current.to(kind) * self.neuron.scale
        if shadow is not None:
            weight = _StraightThrough.apply(shadow[0], weight, found.excess)  # type: ignore[no-untyped-call]
            bias = shadow[1]
            rest = rest - self.place.everywhere(None if bias is None else bias.detach())
        synapse = self.place.synapse
        return IntegerSynapse(synapse, weight, bias, None, None, None, rest.view(synapse.shape) if rest.dim() else rest)

    def parts_of(self, found: _Integers, bits: int) -> list[Connection]:
        """The integer connections that the mantissas are shared by."""
        mantissa = found.mantissa.numpy()
        return shared(self.place.weights, mantissa, exponent=self.exponent, parts=self.parts, bits=bits)

    def connections(self, found: _Integers, bits: int) -> dict[str, list[Connection]]:
        """The integer connections of whole numbers, by the name of the float one that they stand for."""
        weights, current = self.place.weights, self.place.current
        made = {weights.name: self.parts_of(found, bits)}
        if current is not None:
            assert found.current is not None
            made[current.name] = round_current(current, found.current.numpy()[:, None])[0]
        return made


class _Rounding:
    """A shadow while it is rounded: rows of it may have to be made smaller, and are then rounded once more."""

    def __init__(self, scaled: _Scaled, shadow: _Shadow, offset: Tensor, current_offset: Tensor | None) -> None:
        self._scaled, self._current_offset = scaled, current_offset
        weight, self._bias = shadow
        place = scaled.place
        self._rows, self._offset = place.rows(weight), place.rows(offset.to(weight.dtype))
        self._mantissa = torch.empty(self._rows.shape, dtype=torch.int32)
        self._value = torch.empty_like(self._rows)
        self._excess = torch.empty(self._rows.shape, dtype=torch.int8)
        self._sums = np.empty((len(self._rows), len(scaled.starts) - 1, 2), np.int64)

    def integers(self, shrunk: Array, which: Array) -> _Integers:
        """Round some rows, all of them first; return the whole numbers of all.

        Parameters
        ----------
        shrunk : (R,) factor of each row.
        """
        scaled, place, kind = self._scaled, self._scaled.place, self._rows.dtype
        numbers = scaled.factor, scaled.step, shrunk, scaled.limits
        factor, step, smaller, limits = (array.astype(self._rows.numpy().dtype) for array in numbers)
        written = (tensor.numpy() for tensor in (self._mantissa, self._value, self._excess))
        given = self._rows.numpy(), factor, step, self._offset.numpy(), smaller, limits, scaled.starts, which
        round_rows(*given, *written, self._sums)
        weight, current = place.from_rows(self._value), None
        if self._current_offset is not None:
            exact = (place.everywhere(self._bias) - scaled.border(weight)) / scaled.neuron.scale
            each = torch.from_numpy(smaller).repeat_interleave(math.prod(place.synapse.shape[1:]))
            exact = (exact + self._current_offset.to(kind)) * each
            current = exact.round_().clamp_(-CURRENT_LIMIT, CURRENT_LIMIT).to(torch.int32)
        excess = place.from_rows(self._excess) if bool(self._excess.any()) else None
        low, high = self._sums[..., 0].min(axis=1), self._sums[..., 1].max(axis=1)
        return _Integers(place.from_rows(self._mantissa), weight, current, excess, low, high)


class _StraightThrough(torch.autograd.Function):
    """Value: dequantized weights. Backward: to the shadows, but for what would take one further out of the range."""

    @staticmethod
    def forward(ctx: Any, shadow: Tensor, value: Tensor, excess: Tensor | None) -> Tensor:
        ctx.excess = excess
        return value

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
        self._scaled: list[_Scaled] | None = None
        self._runner: BatchRunner | None = None
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
        for place in self._places:
            name = place.weights.name
            self.integers.of(place.weights, "scale").copy_(torch.tensor([scales.exponents[name], scales.parts[name]]))
        self._scaled = self._runner = None
        training = self.training
        super().train(False)
        for place, scaled, (weight, bias) in zip(self._places, self._ready(), self._shadows(), strict=True):
            wanted = np.ldexp(summed_weight(parts_of(integer, place.weights)), -scaled.exponent)
            whole, units = torch.from_numpy(wanted).to(weight.dtype), scaled.units(weight)
            offset = whole + (units - whole).clamp(-RESIDUAL, RESIDUAL) - units
            self.integers.of(place.weights, "offset").copy_(offset)
            if place.current is not None:
                exact = (
                    place.everywhere(bias) - scaled.border(scaled.weight(whole, weight.dtype))
                ) / scaled.neuron.scale
                given = torch.from_numpy(summed_weight(parts_of(integer, place.current))[:, 0])
                self.integers.of(place.current, "offset").copy_(given - exact)
        self.refresh()
        super().train(training)

    @torch.no_grad()
    def refresh(self) -> None:
        """Keep the integers that the shadows round to now."""
        if not self.started:
            return
        training = self.training
        super().train(False)
        numbers = self._proven(self._shadows())
        for place, found in zip(self._places, numbers, strict=True):
            self.integers.of(place.weights, "mantissa").copy_(found.mantissa)
            if place.current is not None:
                assert found.current is not None
                self.integers.of(place.current, "units").copy_(found.current)
        self._kept = self._network(numbers)
        super().train(training)

    def _shadows(self) -> list[_Shadow]:
        """Folded weights and biases, with gradients."""
        synapses = _synapses(super().bind(1))
        return [place.folded(synapse) for place, synapse in zip(self._places, synapses, strict=True)]

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
            shadows = self._shadows()
            numbers = self._proven([(w.detach(), None if b is None else b.detach()) for w, b in shadows])
            synapses = [
                scaled.bound(found, shadow[0].dtype, shadow)
                for scaled, found, shadow in zip(self._ready(), numbers, shadows, strict=True)
            ]
        else:
            numbers = [self._number(scaled) for scaled in self._ready()]
            synapses = [s.bound(n, torch.float64) for s, n in zip(self._ready(), numbers, strict=True)]
        last = None if self.feedback is None else synapses.pop()
        neuron = dataclasses.replace(self.neuron, leak=self._ready()[0].neuron.leak)
        form = neuron, tuple(synapses), last, self.training, self.dense, self.loop_delay
        if self._runner is None:
            self._runner = BatchRunner(self.integer_network(), loop_delay=self.loop_delay)
        weights: dict[str, Array] = {}
        largest: dict[str, int] = {}
        constants = {p.name: np.zeros(p.size, np.int32) for p in self._floating.populations}
        for scaled, found in zip(self._ready(), numbers, strict=True):
            most = max(int(-found.low.min()), int(found.high.max()))
            for part in scaled.parts_of(found, self.weight_bits):
                weights[part.name], largest[part.name] = part.weight, most
            if found.current is not None:
                constants[scaled.place.weights.target] = 2 * found.current.numpy()
        return BoundIntegers(*form, self.coding, self._runner, self.population_names, weights, constants, largest)

    def classify(self, firing_rate: Tensor) -> Tensor:
        """Logits (B, classes) of the last population's firing rate (B, *N), in its type."""
        kind = firing_rate.dtype
        return functional.linear(firing_rate.flatten(1), self.readout.weight.to(kind), self.readout.bias.to(kind))

    # ---- as networks for hardware ----------------------------------------------------------------------------------

    def integer_network(self) -> HardwareNetwork:
        """The integers that are kept, as they run; of a network that has started."""
        if self._kept is None:
            self._kept = self._network([self._number(scaled) for scaled in self._ready()])
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
        neurons = {scaled.place.target: scaled.neuron for scaled in self._ready()}
        populations = tuple(
            dataclasses.replace(p, neuron=neurons[target]) for target, p in enumerate(self._floating.populations)
        )
        made: dict[str, list[Connection]] = {}
        for scaled, found in zip(self._ready(), numbers, strict=True):
            made |= scaled.connections(found, self.weight_bits)
        connections = tuple(part for c in self._floating.connections for part in made[c.name])
        return dataclasses.replace(self._floating, populations=populations, connections=connections)

    # ---- rounding --------------------------------------------------------------------------------------------------

    def shares_of(self, integer: HardwareNetwork) -> dict[str, float]:
        """Population -> largest bound of its potentials as a share of `HEADROOM`; above 1, rows would be made smaller.

        Parameters
        ----------
        integer : what `quantize` made of this network, lowered.
        """
        scaled = self._scaled_by(Scales.of(self._floating, integer, symmetric=self.symmetric))
        numbers = []
        for s in scaled:
            whole = np.ldexp(summed_weight(parts_of(integer, s.place.weights)), -s.exponent)
            current = None
            if s.place.current is not None:
                current = torch.from_numpy(summed_weight(parts_of(integer, s.place.current))[:, 0])
            numbers.append(s.whole(torch.from_numpy(whole), current))
        bounds = self._bounds(numbers, scaled)
        return {p.name: float(b.max()) / HEADROOM for p, b in zip(self._floating.populations, bounds, strict=True)}

    def _scaled_by(self, scales: Scales) -> list[_Scaled]:
        """Every place with these scales, in the order of the places."""
        neurons = [integer_neuron(p, scales.resets[p.name], _AS_TRAINED) for p in self._floating.populations]
        found = []
        for place in self._places:
            exponent, parts = scales.exponents[place.weights.name], scales.parts[place.weights.name]
            limits = mantissa_limits(self.weight_bits, symmetric=self.symmetric, parts=parts)
            found.append(_Scaled(place, neurons[place.target], exponent, parts, limits))
        return found

    def _ready(self) -> list[_Scaled]:
        """Every place with its scales; of a network that has started."""
        if self._scaled is None:
            self._scaled = self._scaled_by(self.scales)
        return self._scaled

    def _number(self, scaled: _Scaled) -> _Integers:
        """The kept integers of a connection."""
        place = scaled.place
        current = None if place.current is None else self.integers.of(place.current, "units")
        return scaled.whole(self.integers.of(place.weights, "mantissa"), current)

    def _proven(self, shadows: Sequence[_Shadow]) -> list[_Integers]:
        """Round shadows, rows that could leave `HEADROOM` of the range being made smaller."""
        begun = []
        for scaled, shadow in zip(self._ready(), shadows, strict=True):
            place = scaled.place
            moved = None if place.current is None else self.integers.of(place.current, "offset")
            begun.append(scaled.rounding(shadow, self.integers.of(place.weights, "offset"), moved))
        shrunk = [np.ones(p.shape[0]) for p in self._floating.populations]
        todo = {target: np.arange(len(rows)) for target, rows in enumerate(shrunk)}
        numbers: dict[int, _Integers] = {}
        for _ in range(_ATTEMPTS):
            for at, place in enumerate(self._places):
                if place.target in todo:
                    numbers[at] = begun[at].integers(shrunk[place.target], todo[place.target])
            bounds = self._bounds(list(numbers.values()), self._ready())
            todo = {t: np.flatnonzero(share > HEADROOM) for t, share in enumerate(bounds) if share.max() > HEADROOM}
            if not todo:
                return list(numbers.values())
            for target, rows in todo.items():
                shrunk[target][rows] *= HEADROOM / bounds[target][rows] * _SHRINKING
        names = ", ".join(self._floating.populations[target].name for target in sorted(todo))
        raise PotentialBoundError(
            f"training in integers: no row of weights into {names} is small enough for a potential of 24 bits within "
            f"T = {self.most_steps}; use fewer time steps"
        )

    def _bounds(self, numbers: Sequence[_Integers], places: Sequence[_Scaled]) -> list[Array]:
        """(R,) bound of each population's potentials by row, as a share of the 24 bits; see the top of this file."""
        steps = self.most_steps
        least, most = ([np.zeros(p.shape[0]) for p in self._floating.populations] for _ in range(2))
        reset, threshold = ([0.0] * len(least) for _ in range(2))
        for scaled, found in zip(places, numbers, strict=True):
            place, target = scaled.place, scaled.place.target
            factor = place.largest * 2.0 ** (1 + scaled.exponent)
            arriving = max(0, steps - self._floating.local_delay(place.weights))
            least[target] += arriving * (factor * found.low - 1)  # a graded current is rounded down
            most[target] += factor * found.high
            if found.current is not None:
                rows = 2 * found.current.numpy().reshape(len(found.low), -1)
                least[target] += steps * np.minimum(rows.min(axis=1), 0)
                most[target] += np.maximum(rows.max(axis=1), 0)
            reset[target], threshold[target] = scaled.neuron.reset_state, scaled.neuron.fires_above
        shares = []
        for low, high, r, theta in zip(least, most, reset, threshold, strict=True):
            low, high = STATE_PER_HALF_WEIGHT * low, STATE_PER_HALF_WEIGHT * high
            highest = theta + high + steps * np.maximum(high - r, 0)
            shares.append(np.maximum(r - low, highest) / STATE_LIMIT)
        return shares


def _forget(model: nn.Module, _incompatible: object) -> None:
    """Drop the kept network: other integers were loaded."""
    assert isinstance(model, IntegerSNN)
    model._kept = model._scaled = model._runner = None


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
