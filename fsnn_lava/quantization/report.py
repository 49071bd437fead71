"""What rounding did to a network, counted and measured: errors per connection and per population."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Array,
    Connection,
    EquilibriumRates,
    HardwareNetwork,
    IntegerNeuron,
    equilibrium_rates,
    linear_map,
    mean_input,
    potential_bounds,
    real_weight,
)
from fsnn_lava.quantization.candidates import Rounder, Size, parts_of
from fsnn_lava.quantization.per_channel_estimate import channel_scaled
from fsnn_lava.quantization.search_effort import Effort

LOST_SHARE = 0.5
"""A connection whose `current_error` is more than this is not the trained one any more."""

NEGLIGIBLE_SHARE = 0.02
"""Share of the reset amount: a constant current below it moves a rate by less than one spike in 50 steps."""


@dataclass(frozen=True)
class ConnectionReport:
    """What rounding did to one connection of the float network.

    Parameters
    ----------
    parts : integer connections that carry it together.
    weight_bits, weight_exponent : mantissa width and power of two (of the coarse one, where two carry a current).
    max_error, rms_error : of a weight, in the float network's unit. A constant current is meant to differ: it makes up
        for the mean of what the other connections' rounding costs.
    relative_error : rms error over rms weight.
    current_error : rms error over rms of the current that the connection carries at the equilibrium, on the compared
        samples; of a constant current: against what it is meant to be, over rms of that, or over `NEGLIGIBLE_SHARE` of
        the reset amount where that is more. So what was next to nothing may be rounded to nothing.
    clipped : weights that the mantissa could not hold and that were cut to its end.
    relative_error_per_channel, current_error_per_channel : what they would be with a scale for every channel of the
        target (dense: every neuron) that is as large as the bound and the mantissa allow.
    """

    parts: int
    weight_bits: int
    weight_exponent: int
    max_error: float
    rms_error: float
    relative_error: float
    current_error: float
    clipped: int
    relative_error_per_channel: float
    current_error_per_channel: float


@dataclass(frozen=True)
class PopulationReport:
    """What was chosen for one population.

    Parameters
    ----------
    scale : real value of one weight unit.
    reset_amount, v_threshold : in weight units.
    leak_error : difference of the integer leak from the wanted one.
    potential_bound : largest magnitude of a potential that the proof admits, units of state.
    mean_rate_error, max_rate_error : |integer - float| of the equilibrium rates on the calibration inputs.
    mean_rate_error_per_channel : the mean, on the compared samples, if every channel of every population had a scale
        of its own; an estimate, since no target has it.
    """

    scale: float
    reset_amount: float
    v_threshold: int
    leak_error: float
    potential_bound: int
    mean_rate_error: float
    max_rate_error: float
    mean_rate_error_per_channel: float


@dataclass(frozen=True)
class QuantizationReport:
    """All counts and errors of one quantization, by name.

    Parameters
    ----------
    calibration_samples : inputs on which the error of the rates was measured.
    compared_samples : those of them, evenly spread, on which candidates were compared.
    equilibrium_converged : whether both networks' equilibria were found there; if not, the errors mean little.
    seconds : time that it took. Two reports are equal whatever this is.
    """

    calibration_samples: int
    compared_samples: int
    equilibrium_converged: bool
    connections: Mapping[str, ConnectionReport]
    populations: Mapping[str, PopulationReport]
    seconds: float = dataclasses.field(default=0.0, compare=False)

    def lost(self) -> tuple[str, ...]:
        """Names of the connections whose `current_error` is more than `LOST_SHARE`."""
        return tuple(name for name, c in self.connections.items() if c.current_error > LOST_SHARE)

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionaries for JSON, without the time, so that the same network has the same record."""
        values = dataclasses.asdict(self)
        del values["seconds"]
        return values


def report_of(
    rounder: Rounder,
    resets: Mapping[str, Size],
    *,
    calibration: Array,
    compared: Array,
    wanted: EquilibriumRates,
    effort: Effort,
) -> QuantizationReport:
    """The report of a float network in integers of these sizes.

    Parameters
    ----------
    compared : which of the calibration inputs candidates were compared on.
    wanted : equilibrium of the float network on all of them.
    """
    network, integer = rounder.network, rounder.network_of(resets)
    found = equilibrium_rates(
        integer, calibration, tolerance=effort.final_tolerance, start=wanted.firing_rates, dtype=effort.dtype
    )
    inputs = network.input.take(calibration, compared)
    rates = {name: r[compared] for name, r in wanted.firing_rates.items()}
    bounds = potential_bounds(integer)
    reach = {name: np.maximum(-low, high) for name, (low, high) in bounds.items()}
    channels = channel_scaled(rounder, resets, reach=reach)
    settled = equilibrium_rates(
        channels, inputs, tolerance=effort.tolerance, start=rates, dtype=effort.dtype
    ).firing_rates
    populations = {}
    for before, after in zip(network.populations, integer.populations, strict=True):
        neuron, name = after.neuron, after.name
        assert isinstance(neuron, IntegerNeuron)
        error = np.abs(found.firing_rates[name] - wanted.firing_rates[name])
        populations[name] = PopulationReport(
            scale=neuron.scale,
            reset_amount=neuron.reset_amount,
            v_threshold=neuron.v_threshold,
            leak_error=neuron.leak - before.neuron.leak,
            potential_bound=int(reach[name].max()),
            mean_rate_error=float(error.mean()),
            max_rate_error=float(error.max()),
            mean_rate_error_per_channel=float(np.abs(settled[name] - rates[name]).mean()),
        )
    described = _Described(rounder, resets, integer, channels, inputs, rates)
    return QuantizationReport(
        calibration_samples=len(error),
        compared_samples=len(compared),
        equilibrium_converged=wanted.converged and found.converged,
        connections={c.name: described.connection(c) for c in network.connections},
        populations=populations,
    )


@dataclass(frozen=True, eq=False)
class _Described:
    """A float network, its integers, and the same with a scale for every channel."""

    rounder: Rounder
    resets: Mapping[str, Size]
    integer: HardwareNetwork
    channels: HardwareNetwork
    inputs: Array
    rates: Mapping[str, Array]

    def connection(self, wanted: Connection) -> ConnectionReport:
        """Its report."""
        parts = parts_of(self.integer, wanted)
        done = self.rounder.rounded(wanted.target, self.resets[wanted.target])
        scale = done.neuron.scale
        error = _carried(parts) * scale - wanted.weight
        (other,) = (c for c in self.channels.incoming(wanted.target) if c.name == wanted.name)
        channel_error = other.weight - wanted.weight
        if wanted.source == ALWAYS_ON:
            meant = done.meant[wanted.name]
            least = NEGLIGIBLE_SHARE * done.neuron.reset_amount
            current, channel_current = _share(_carried(parts) - meant, meant, least=least), 0.0
        else:
            current, channel_current = self._current_errors(wanted, error, channel_error)
        return ConnectionReport(
            parts=len(parts),
            weight_bits=parts[0].weight_bits,
            weight_exponent=parts[0].weight_exponent,
            max_error=float(np.abs(error).max()),
            rms_error=_rms(error),
            relative_error=_share(error, wanted.weight),
            current_error=current,
            clipped=done.clipped[wanted.name],
            relative_error_per_channel=_share(channel_error, wanted.weight),
            current_error_per_channel=channel_current,
        )

    def _current_errors(self, wanted: Connection, *errors: Array) -> tuple[float, ...]:
        """Share of the current's root mean square that each of these errors of the weights costs."""
        network = self.rounder.network
        if wanted.source == INPUT:
            sent = mean_input(network, self.inputs, network.population(wanted.target).neuron.leak)
        else:
            sent = self.rates[wanted.source].reshape(len(self.rates[wanted.source]), -1)
        weights = linear_map(network, wanted)
        current = weights.product(sent)
        return tuple(_share(weights.with_weight(error).product(sent), current) for error in errors)


def _carried(parts: Sequence[Connection]) -> Array:
    return np.asarray(np.sum([real_weight(c) for c in parts], axis=0))


def _rms(values: Array) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _share(error: Array, whole: Array, *, least: float = 0.0) -> float:
    size = max(_rms(whole), least)
    return _rms(error) / size if size else 0.0
