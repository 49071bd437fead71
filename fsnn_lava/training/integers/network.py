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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fsnn_lava.backends import BatchWeights
from fsnn_lava.config import DeployConfig, TrainConfig
from fsnn_lava.datasets import InputCoding
from fsnn_lava.errors import PotentialBoundError
from fsnn_lava.hardware import (
    STATE_LIMIT,
    STATE_PER_HALF_WEIGHT,
    Array,
    Connection,
    HardwareNetwork,
    Readout,
    summed_weight,
)
from fsnn_lava.network import BoundNetwork, Drive, FeedbackSNN, Simulation, lower_model
from fsnn_lava.quantization import PROVENANCE, Scales, dequantized, integer_neuron, mantissa_limits, parts_of
from fsnn_lava.training.integers.measured_run import MeasuredRunner
from fsnn_lava.training.integers.rounding import Place, Rounding, Scaled, Shadow, WholeNumbers, places_of

HEADROOM = 0.98
"""Share of the 24-bit range that no proven bound of a training leaves."""
RESIDUAL = 0.49
"""Largest distance of a shadow from its integer at the start, in units of the mantissa."""
_SHRINKING = 0.995
"""Factor by which a row is made smaller than its bound alone asks for, since rounding moves the bound; up to its
eighth power where that was not enough, since shadows beyond the mantissa's range hardly move it."""
_ATTEMPTS = 200
"""How often that is tried: a row that is a hundred times too large needs about as many."""
_AS_TRAINED = DeployConfig()
"""With which neurons become integers: their threshold is that of the training."""


@dataclass(frozen=True, eq=False)
class BoundIntegers(BoundNetwork):
    """An `IntegerSNN` during one forward call: a map of dequantized weights, and the integers that run.

    Parameters
    ----------
    runner : runs them.
    batches : counts (T, samples) of the runs in training.
    names : of the populations.
    weights : of this forward call, as `MeasuredRunner.run` takes them.
    """

    coding: InputCoding
    runner: MeasuredRunner
    batches: Counter[tuple[int, int]]
    names: tuple[str, ...]
    weights: BatchWeights

    def drive(self, x: Tensor, *, time_steps: int, differentiable: bool = False) -> Drive:
        """Input current of the first population by the map; the run itself takes codes.

        Parameters
        ----------
        x : (B, *shape) constant input, or (T, B, *shape) event frames with T = time_steps.
        differentiable : not used: nothing differentiates through single steps.
        """
        first, nothing = self.feedforward[0], (None,) * (len(self.neurons) - 1)  # a chain's
        x = x.to(first.weight.dtype)
        if x.dim() == 1 + len(first.synapse.input_shape):
            mean = first.current(x)
            constant = (mean.detach(), *nothing)
            return Drive((mean, *nothing), (x,), lambda t: constant)
        mean_input = self._weighted_mean(x, self.neurons[0].leak)
        frames = first.detached()
        mean = first.current(mean_input)
        return Drive((mean, *nothing), (mean_input,), lambda t: (frames.current(x[t]), *nothing), x)

    @torch.no_grad()
    def simulate(
        self, drive: Drive, *, time_steps: int, loop_delays: Sequence[int] | None = None, record: bool = False
    ) -> Simulation:
        """T steps of the integers, in hardware timing, on the codes that the input stands for.

        Parameters
        ----------
        loop_delays : the network's own, or None.
        record : keep every spike.
        """
        assert loop_delays is None or tuple(loop_delays) == self.loop_delays, "integers run in hardware timing"
        (mean_input,), inputs = drive.mean_inputs, drive.frames
        inputs = mean_input if inputs is None else inputs
        if self.training:
            self.batches[time_steps, drive.samples] += 1
        names = self.names
        found = self.runner.run(
            codes_of(inputs, self.coding),
            self.weights,
            time_steps=time_steps,
            threads=torch.get_num_threads(),
            record=names if record else (),
        )
        dtype = self.feedforward[0].weight.dtype
        plain = tuple(torch.from_numpy(found.counts[name]).to(dtype) / time_steps for name in names)
        rates = tuple(
            torch.from_numpy(found.rates[name]).to(dtype) if name in found.rates else mean
            for name, mean in zip(names, plain, strict=True)
        )
        spikes = tuple(torch.from_numpy(np.ascontiguousarray(spikes)) for spikes in found.spikes.values())
        assert found.returned is not None
        returned = (torch.from_numpy(found.returned).to(dtype),) if self.feedback else ()
        return Simulation(rates, plain, spikes if record else None, returned)


def codes_of(x: Tensor, coding: InputCoding) -> Array:
    """Codes that normalised inputs (..., C, H, W) stand for, uint8."""
    mean, std = (torch.tensor(value, dtype=x.dtype).view(-1, 1, 1) for value in (coding.mean, coding.std))
    return np.asarray(((x * std + mean) / coding.scale).round_().to(torch.uint8).numpy())


class _Numbers(nn.Module):
    """Buffers of an `IntegerSNN`: scales, mantissas, constant currents, and how far shadows are moved."""

    resets: Tensor

    def __init__(self, floating: HardwareNetwork, places: Sequence[Place]) -> None:
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
    exponents : which weights may have one below 0.
    most_steps : largest T for which every state is proven.

    Raises
    ------
    SpecError, ConfigError : as `FeedbackSNN`.
    """

    def __init__(self, config: TrainConfig, input_shape: tuple[int, ...], *, classes: int, coding: InputCoding) -> None:
        undropped = dataclasses.replace(config.network, dropout=0.0, dropout_on="all")
        super().__init__(undropped, input_shape, classes=classes, seed=config.training.seed, timing="hardware")
        self.coding = coding
        self.weight_bits, self.symmetric = config.training.weight_bits, config.training.symmetric
        self.exponents = config.training.exponents
        self.most_steps = config.most_steps
        self._floating = lower_model(self, coding, name=config.name, time_steps=config.most_steps)
        self._places = places_of(self, self._floating, coding)
        self._kept: HardwareNetwork | None = None
        self._scaled: list[Scaled] | None = None
        self._runner: MeasuredRunner | None = None
        self._batches: Counter[tuple[int, int]] = Counter()
        self.integers = _Numbers(self._floating, self._places)
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    @property
    def started(self) -> bool:
        """Whether the scales have been chosen."""
        return bool((self.integers.resets[:, 0] > 0).all())

    def run_seconds(self) -> Mapping[str, float]:
        """Seconds of a batch by each way that was tried, of the T and size that most batches had since the last call.

        Of those in training; none if there was no batch.
        """
        if self._runner is None or not self._batches:
            return {}
        (most, _), *_ = self._batches.most_common(1)
        self._batches.clear()
        return self._runner.choices[most].seconds

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

    def _shadows(self) -> list[Shadow]:
        """Folded weights and biases, with gradients."""
        synapses = super().bind(1).synapses
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
        leak, forward = self._ready()[0].neuron.leak, len(self.feedforward)
        neurons = tuple(dataclasses.replace(neuron, leak=leak) for neuron in self.neurons)
        connections = tuple(synapses[:forward]), tuple(synapses[forward:])
        form = neurons, *connections, self.training, self.dense, self.loop_delays
        if self._runner is None:
            self._runner = MeasuredRunner(self.integer_network(), loop_delay=max(self.loop_delays, default=1))
        weights: dict[str, Array] = {}
        largest: dict[str, int] = {}
        constants = {p.name: np.zeros(p.size, np.int32) for p in self._floating.populations}
        for scaled, found in zip(self._ready(), numbers, strict=True):
            most = max(int(-found.low.min()), int(found.high.max()))
            for part in scaled.parts_of(found, self.weight_bits):
                weights[part.name], largest[part.name] = part.weight, most
            if found.current is not None:
                constants[scaled.place.weights.target] = 2 * found.current.numpy()
        return BoundIntegers(
            *form,
            self.coding,
            self._runner,
            self._batches,
            self.population_names,
            BatchWeights(weights, constants, largest),
        )

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
        return dataclasses.replace(
            dequantized(self.integer_network()),
            readout=self._readout(),
            provenance={PROVENANCE: self.scales.as_dict()},
        )

    def _readout(self) -> Readout:
        arrays = (p.detach().cpu().double().numpy() for p in (self.readout.weight, self.readout.bias))
        return dataclasses.replace(self._floating.readout, **dict(zip(("weight", "bias"), arrays, strict=True)))

    def _network(self, numbers: Sequence[WholeNumbers]) -> HardwareNetwork:
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

    def _scaled_by(self, scales: Scales) -> list[Scaled]:
        """Every place with these scales, in the order of the places."""
        neurons = [integer_neuron(p, scales.resets[p.name], _AS_TRAINED) for p in self._floating.populations]
        found = []
        for place in self._places:
            exponent, parts = scales.exponents[place.weights.name], scales.parts[place.weights.name]
            limits = mantissa_limits(self.weight_bits, symmetric=self.symmetric, parts=parts)
            found.append(Scaled(place, neurons[place.target], exponent, parts, limits))
        return found

    def _ready(self) -> list[Scaled]:
        """Every place with its scales; of a network that has started."""
        if self._scaled is None:
            self._scaled = self._scaled_by(self.scales)
        return self._scaled

    def _number(self, scaled: Scaled) -> WholeNumbers:
        """The kept integers of a connection."""
        place = scaled.place
        current = None if place.current is None else self.integers.of(place.current, "units")
        return scaled.whole(self.integers.of(place.weights, "mantissa"), current)

    def _proven(self, shadows: Sequence[Shadow]) -> list[WholeNumbers]:
        """Round shadows, rows that could leave `HEADROOM` of the range being made smaller."""
        begun = []
        for scaled, shadow in zip(self._ready(), shadows, strict=True):
            place = scaled.place
            moved = None if place.current is None else self.integers.of(place.current, "offset")
            begun.append(Rounding(scaled, shadow, self.integers.of(place.weights, "offset"), moved))
        shrunk = [np.ones(p.shape[0]) for p in self._floating.populations]
        todo = {target: np.arange(len(rows)) for target, rows in enumerate(shrunk)}
        numbers: dict[int, WholeNumbers] = {}
        for attempt in range(_ATTEMPTS):
            for at, place in enumerate(self._places):
                if place.target in todo:
                    numbers[at] = begun[at].integers(shrunk[place.target], todo[place.target])
            bounds = self._bounds(list(numbers.values()), self._ready())
            todo = {t: np.flatnonzero(share > HEADROOM) for t, share in enumerate(bounds) if share.max() > HEADROOM}
            if not todo:
                return list(numbers.values())
            for target, rows in todo.items():
                shrunk[target][rows] *= HEADROOM / bounds[target][rows] * _SHRINKING ** min(2**attempt, 8)
        names = ", ".join(self._floating.populations[target].name for target in sorted(todo))
        raise PotentialBoundError(
            f"training in integers: no row of weights into {names} is small enough for a potential of 24 bits within "
            f"T = {self.most_steps}; use fewer time steps"
        )

    def _bounds(self, numbers: Sequence[WholeNumbers], places: Sequence[Scaled]) -> list[Array]:
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
