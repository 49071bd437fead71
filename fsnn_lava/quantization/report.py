"""What rounding did to a network, counted and measured: errors per connection and per population.

`quantize` returns a `QuantizationReport`; `verification.export_report` writes it as tables.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Array,
    Connection,
    HardwareNetwork,
    IntegerNeuron,
    linear_map,
    mean_input,
    potential_bounds,
    summed_weight,
)
from fsnn_lava.network import Settling
from fsnn_lava.quantization.calibration_rates import CalibrationRates, calibration_rates
from fsnn_lava.quantization.candidates import Rounder
from fsnn_lava.quantization.scales import ResetSynapse, parts_of

LOST_SHARE = 0.5
"""A connection whose `current_error` is more than this is not the trained one any more."""

NEGLIGIBLE_SHARE = 0.02
"""Share of the reset amount: a constant current below it moves a rate by less than one spike in 50 steps."""


@dataclass(frozen=True)
class ConnectionReport:
    """What rounding did to one connection of the float network.

    Parameters
    ----------
    parts : integer connections that stand for it together.
    weight_bits, weight_exponent : mantissa width and power of two (of the coarse one, where two carry a current).
    used_bits : width that the largest of the mantissas needs, with its sign.
    max_error, rms_error : of a weight, in the float network's unit. A constant current differs on purpose: it makes up
        for the mean of what the other connections' rounding costs.
    relative_error : rms error over rms weight.
    current_error : rms error over rms of the connection's current at the equilibrium, on the compared samples; of a
        constant current: against its exact value (`Rounded.exact_current`), over rms of that, or over
        `NEGLIGIBLE_SHARE` of the reset amount where that is more. So next to nothing may be rounded to nothing.
    clipped : weights beyond the mantissa's range, which were cut to its end.
    period : steps from one pulse of a constant current to the next; 1: it has none.
    """

    parts: int
    weight_bits: int
    weight_exponent: int
    used_bits: int
    max_error: float
    rms_error: float
    relative_error: float
    current_error: float
    clipped: int
    period: int = 1


@dataclass(frozen=True)
class PopulationReport:
    """What was chosen for one population.

    Parameters
    ----------
    scale : real value of one weight unit.
    reset_amount, v_threshold : in weight units; a reset to zero has no amount, 0.
    leak_error : difference of the integer leak from the wanted one.
    potential_bound : largest magnitude of a potential that the proof admits, units of state.
    mean_rate_error, max_rate_error : |integer - float| of the equilibrium rates on the calibration inputs; of networks
        without equilibrium, of those after T steps.
    """

    scale: float
    reset_amount: float
    v_threshold: int
    leak_error: float
    potential_bound: int
    mean_rate_error: float
    max_rate_error: float


@dataclass(frozen=True)
class QuantizationReport:
    """All counts and errors of one quantization, by name.

    Parameters
    ----------
    calibration_samples : inputs on which the error of the rates was measured.
    compared_samples : those of them, evenly spread, on which candidates were compared.
    unsettled_samples : for how many of them one of the networks does not settle; their errors mean nothing.
    settling : of the "float" and of the "integer" network on the calibration samples, at the equilibrium; empty of a
        network that has none.
    seconds : time that it took. Two reports are equal whatever this is.
    """

    calibration_samples: int
    compared_samples: int
    unsettled_samples: int
    settling: Mapping[str, Settling]
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
    resets: Mapping[str, ResetSynapse],
    *,
    calibration: Array,
    compared: Array,
    wanted: CalibrationRates,
    tolerance: float,
    progress: Callable[[int, int], None],
) -> QuantizationReport:
    """Measure what rounding with these reset synapses did to a float network.

    Parameters
    ----------
    compared : which of the calibration inputs candidates were compared on.
    wanted : rates of the float network on all of them.
    tolerance : of the integer network's equilibrium.
    progress : called with the samples done and all samples.
    """
    network, integer = rounder.network, rounder.network_of(resets)
    found = calibration_rates(integer, calibration, tolerance=tolerance, start=wanted.firing_rates, progress=progress)
    inputs = network.input.take(calibration, compared)
    rates = {name: r[compared] for name, r in wanted.firing_rates.items()}
    bounds = potential_bounds(integer)
    populations = {}
    for before, after in zip(network.populations, integer.populations, strict=True):
        neuron, name = after.neuron, after.name
        assert isinstance(neuron, IntegerNeuron)
        error = np.abs(found.firing_rates[name] - wanted.firing_rates[name])
        populations[name] = PopulationReport(
            scale=neuron.scale,
            reset_amount=neuron.reset_amount if neuron.reset == "subtract" else 0.0,
            v_threshold=neuron.v_threshold,
            leak_error=neuron.leak - before.neuron.leak,
            potential_bound=int(max(-bounds[name][0].min(), bounds[name][1].max())),
            mean_rate_error=float(error.mean()),
            max_rate_error=float(error.max()),
        )
    measured = _Measured(rounder, resets, integer, inputs, rates)
    return QuantizationReport(
        calibration_samples=len(error),
        compared_samples=len(compared),
        unsettled_samples=int((~(wanted.settled & found.settled)).sum()),
        settling={n: s for n, s in (("float", wanted.settling), ("integer", found.settling)) if s is not None},
        connections={c.name: measured.connection(c) for c in network.connections},
        populations=populations,
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    """A float network beside its integers, on the compared samples."""

    rounder: Rounder
    resets: Mapping[str, ResetSynapse]
    integer: HardwareNetwork
    inputs: Array
    rates: Mapping[str, Array]

    def connection(self, wanted: Connection) -> ConnectionReport:
        """Errors of one connection of the float network."""
        parts = parts_of(self.integer, wanted)
        done = self.rounder.rounded(wanted.target, self.resets[wanted.target])
        found = summed_weight(parts)
        error = found * done.neuron.scale - wanted.weight
        if wanted.source == ALWAYS_ON:
            exact, negligible = done.exact_current[wanted.name], NEGLIGIBLE_SHARE * done.neuron.spike_cost
            current_error = _share(found - exact, exact, least=negligible)
        else:
            current_error = self._current_error(wanted, error)
        return ConnectionReport(
            parts=len(parts),
            weight_bits=parts[0].weight_bits,
            weight_exponent=parts[0].weight_exponent,
            used_bits=max(_signed_bits(part.weight) for part in parts),
            max_error=float(np.abs(error).max()),
            rms_error=_rms(error),
            relative_error=_share(error, wanted.weight),
            current_error=current_error,
            clipped=done.clipped[wanted.name],
            period=max(part.period for part in parts),
        )

    def _current_error(self, wanted: Connection, error: Array) -> float:
        """Share of the current's root mean square that this error of the weights costs."""
        network = self.rounder.network
        if wanted.source == INPUT:
            sent = mean_input(network, self.inputs, network.population(wanted.target).neuron.leak)
        else:
            sent = self.rates[wanted.source].reshape(len(self.rates[wanted.source]), -1)
        weights = linear_map(network, wanted)
        return _share(weights.with_weight(error).product(sent), weights.product(sent))


def _signed_bits(mantissas: Array) -> int:
    """Bits of the two's complement that holds all of them: 8 for -128 .. 127."""
    return 1 + max(int(mantissas.max(initial=0)), -1 - int(mantissas.min(initial=0))).bit_length()


def _rms(values: Array) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _share(error: Array, whole: Array, *, least: float = 0.0) -> float:
    reference = max(_rms(whole), least)
    return _rms(error) / reference if reference else 0.0
