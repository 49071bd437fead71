"""A float network as an integer one: scales chosen, weights rounded, the 24-bit state proven.

Firing rates depend on w/r and b/r alone, so the size of the reset, in weight units, is free in every population.
A large one rounds finely; a small one keeps strongly negative currents within 24 bits. The quantizer bounds it from
above by proof and takes, below that bound, the value with the smallest error of the equilibrium rates on calibration
inputs. Everything that rounding did is counted in the report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fsnn_lava.bounds import prove
from fsnn_lava.config import DeployConfig
from fsnn_lava.equilibrium import equilibrium_rates, real_weight
from fsnn_lava.errors import NetworkError, PotentialBoundError, UnsupportedError
from fsnn_lava.ir import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    IntegerNeuron,
    Population,
)

Array = npt.NDArray[Any]

LOST_SHARE = 0.5
"""A connection whose rounding error is above this share of its weights (rms) is not the trained one any more."""
CURRENT_BITS = 8
"""Mantissa of each of the (at most two) connections that carry a population's constant current."""
_HIGH_EXPONENT = 7
"""Largest exponent, and that of the coarse one of two constant-current connections."""
_FINEST_INPUT_EXPONENT = -8


@dataclass(frozen=True)
class ConnectionReport:
    """What rounding did to one connection of the float network.

    Parameters
    ----------
    weight_bits, weight_exponent : mantissa width and power of two (of the coarse one, where two carry a current).
    max_error, rms_error : of a weight, in the float network's unit.
    relative_error : rms error over rms weight.
    clipped : weights that the mantissa could not hold and that were cut to its end.
    """

    weight_bits: int
    weight_exponent: int
    max_error: float
    rms_error: float
    relative_error: float
    clipped: int


@dataclass(frozen=True)
class PopulationReport:
    """What was chosen for one population.

    Parameters
    ----------
    scale : real value of one weight unit.
    reset_amount, v_threshold : in weight units.
    leak_error : difference of the integer leak from the wanted one.
    mean_rate_error, max_rate_error : |integer - float| of the equilibrium rates on the calibration inputs.
    """

    scale: float
    reset_amount: float
    v_threshold: int
    leak_error: float
    mean_rate_error: float
    max_rate_error: float


@dataclass(frozen=True)
class QuantizationReport:
    """All counts and errors of one quantization, by name.

    Parameters
    ----------
    calibration_samples : inputs on which the error of the rates was measured.
    equilibrium_converged : whether both networks' equilibria were found there; if not, the errors mean little.
    """

    calibration_samples: int
    equilibrium_converged: bool
    connections: Mapping[str, ConnectionReport]
    populations: Mapping[str, PopulationReport]

    def lost(self) -> tuple[str, ...]:
        """Names of the connections of which rounding left less than half (`LOST_SHARE`)."""
        return tuple(name for name, c in self.connections.items() if c.relative_error > LOST_SHARE)

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionaries for JSON."""
        return dataclasses.asdict(self)


def quantize(
    network: HardwareNetwork, calibration: Array, *, config: DeployConfig | None = None
) -> tuple[HardwareNetwork, QuantizationReport]:
    """The integer network whose equilibrium rates are nearest, proven to stay in 24 bits, and its report.

    Parameters
    ----------
    network : float network whose connections have names of their own; the proof holds for its own timing.
    calibration : inputs as a backend takes them, on which the error of the rates is measured.
    config : weight bits, threshold and time steps.

    Raises
    ------
    NetworkError : if the network is not a float network.
    InputError : if the calibration inputs do not fit the network.
    PotentialBoundError : if no scale can be proven to stay in range.
    UnsupportedError : if something cannot be expressed, e.g. a leak that rounds to nothing.
    """
    config = config or DeployConfig()
    if network.arithmetic != "float":
        raise NetworkError(f'network "{network.name}": holds integers already; quantize the float network')
    if config.time_steps:
        network = dataclasses.replace(network, time_steps=config.time_steps)
    search = _Search(network, calibration, config)
    resets = search.largest_proven()
    for population in network.populations:
        resets[population.name] = search.best(population.name, resets)
    integer, clipped = search.quantized(resets)
    report = _report(network, integer, calibration, clipped)
    provenance = {**network.provenance, "deployment": dataclasses.asdict(config), "quantization": report.as_dict()}
    return dataclasses.replace(integer, provenance=provenance), report


class _Search:
    """Candidates of one network: the reset synapse m * 2**e of every population decides everything else."""

    def __init__(self, network: HardwareNetwork, calibration: Array, config: DeployConfig) -> None:
        _refuse_unsupported(network)
        self.network, self.calibration, self.config = network, calibration, config
        self.wanted = equilibrium_rates(network, calibration, tolerance=1e-6).firing_rates

    def quantized(self, resets: Mapping[str, tuple[int, int]]) -> tuple[HardwareNetwork, dict[str, int]]:
        """The integer network of these sizes, and how many weights were clipped per float connection."""
        populations = tuple(
            dataclasses.replace(p, neuron=_integer_neuron(p, resets[p.name], self.config))
            for p in self.network.populations
        )
        connections: list[Connection] = []
        clipped: dict[str, int] = {}
        for population in populations:
            assert isinstance(population.neuron, IntegerNeuron)
            scale = population.neuron.scale
            shift = 0.0  # what rounding down a graded input's current costs on average, weight units
            incoming = self.network.incoming(population.name)
            for c in (c for c in incoming if c.source != ALWAYS_ON):
                graded = c.source == INPUT and self.network.input.kind == "graded"
                rounded, clipped[c.name] = _round_weights(c, scale, bits=self.config.weight_bits, graded=graded)
                connections.append(rounded)
                shift += _mean_floor(rounded.weight_exponent)
            for c in (c for c in incoming if c.source == ALWAYS_ON):
                pair, clipped[c.name] = _round_current(c, scale, shift=shift)
                connections += pair
                shift = 0.0
        network = dataclasses.replace(self.network, populations=populations, connections=tuple(connections))
        return network, clipped

    def largest_proven(self) -> dict[str, tuple[int, int]]:
        """The largest common size that is proven to stay in range, then raised in each population as far as it goes."""
        sizes = _reset_sizes()
        common, failure = self._bisect(lambda size: {p.name: size for p in self.network.populations}, sizes)
        if common is None:
            raise PotentialBoundError(f"even the smallest scale is not proven to stay in range: {failure}")
        resets = {p.name: common for p in self.network.populations}
        for name in resets if len(resets) > 1 else ():
            larger = [size for size in sizes if _value(size) > _value(common)]
            raised, _ = self._bisect(lambda size, name=name: {**resets, name: size}, larger)  # type: ignore[misc]
            resets[name] = raised or common
        return resets

    def _bisect(
        self, resets: Callable[[tuple[int, int]], dict[str, tuple[int, int]]], sizes: Sequence[tuple[int, int]]
    ) -> tuple[tuple[int, int] | None, NetworkError | None]:
        """The largest of the rising sizes that can be used (None: none can), and why the next one cannot."""
        low, high = 0, len(sizes)  # sizes[low - 1] can be used, sizes[high] cannot
        failure: NetworkError | None = None
        while low < high:
            middle = (low + high) // 2
            error = self._failure(resets(sizes[middle]))
            if error is None:
                low = middle + 1
            else:
                failure, high = error, middle
        return (sizes[low - 1] if low else None), failure

    def _failure(self, resets: Mapping[str, tuple[int, int]]) -> NetworkError | None:
        """Why these sizes cannot be used (a threshold, weight or potential that is too large); None: they can."""
        try:
            network, clipped = self.quantized(resets)
            prove(network)
        except NetworkError as error:
            return error
        too_large = [
            c.name
            for c in self.network.connections
            if clipped[c.name] and any(part.weight_exponent == _HIGH_EXPONENT for part in _parts(network, c))
        ]
        return PotentialBoundError(f"weights of {', '.join(too_large)} exceed 8 bits at 2**7") if too_large else None

    def best(self, name: str, resets: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
        """The size for one population, at most its proven one, with the smallest error; ties take the largest."""
        largest = _value(resets[name])
        allowed = [size for size in _reset_sizes() if largest / 4 <= _value(size) <= largest]
        tried = sorted({allowed[int(i)] for i in np.linspace(0, len(allowed) - 1, 24)}, key=_value, reverse=True)
        by_error = sorted(tried, key=lambda size: self._error({**resets, name: size}))
        # A smaller size rounds differently, so that it is not proven because a larger one is; the given one is.
        return next((size for size in by_error if self._failure({**resets, name: size}) is None), resets[name])

    def _error(self, resets: Mapping[str, tuple[int, int]]) -> float:
        found = equilibrium_rates(self.quantized(resets)[0], self.calibration, tolerance=1e-6).firing_rates
        return float(np.mean([np.abs(found[name] - wanted).mean() for name, wanted in self.wanted.items()]))


def _value(size: tuple[int, int]) -> int:
    return size[0] << size[1]


def _reset_sizes() -> list[tuple[int, int]]:
    """Every reset synapse (m, e) worth trying, rising; Lava is given e + 1, which must not exceed 7."""
    sizes = [(m, 0) for m in range(1, 256)]
    sizes += [(m, e) for e in range(1, 7) for m in range(128, 256)]
    return sizes


def _integer_neuron(population: Population, reset: tuple[int, int], config: DeployConfig) -> IntegerNeuron:
    neuron = population.neuron
    assert isinstance(neuron, FloatNeuron)
    decay = round(DECAY_UNITY * (1 - neuron.leak))
    trial = IntegerNeuron(1, reset[0], reset[1], decay, 1.0)
    scale = neuron.reset_amount / trial.reset_amount
    wanted = neuron.v_threshold if config.threshold == "full" else neuron.reset_amount / 2
    return dataclasses.replace(trial, v_threshold=max(1, round(wanted / scale)), scale=scale)


def _refuse_unsupported(network: HardwareNetwork) -> None:
    names = [c.name for c in network.connections]
    made = {f"{c.name}_coarse" for c in network.connections if c.source == ALWAYS_ON}
    lost = [
        f'connection "{name}": found a name that another connection has or is given; allowed: a name of its own'
        for name in sorted({name for name in names if names.count(name) > 1 or name in made})
    ]
    lost += [
        f'population "{p.name}": found leak {p.neuron.leak}; allowed: at least {1 / DECAY_UNITY} (12 bits)'
        for p in network.populations
        if round(DECAY_UNITY * (1 - p.neuron.leak)) >= DECAY_UNITY
    ]
    if lost:
        raise UnsupportedError(f'network "{network.name}" cannot be quantized:\n  ' + "\n  ".join(lost))


def _round_weights(connection: Connection, scale: float, *, bits: int, graded: bool) -> tuple[Connection, int]:
    """Mantissas of a connection and how many were clipped; the exponent with the smallest squared error."""
    weight = connection.weight / scale
    top = (1 << (bits - 1)) - 1
    largest = float(np.abs(weight).max(initial=0.0))
    fitting = int(np.ceil(np.log2(largest / top))) if largest > 0 else 0
    lowest = _FINEST_INPUT_EXPONENT if graded else 0
    exponents = [min(max(e, lowest), _HIGH_EXPONENT) for e in (fitting, fitting - 1)]

    def rounded(exponent: int) -> tuple[Array, int]:
        exact = np.rint(np.ldexp(weight, -exponent))
        return np.clip(exact, -top - 1, top), int(np.count_nonzero((exact > top) | (exact < -top - 1)))

    def error(exponent: int) -> float:
        return float(np.square(np.ldexp(rounded(exponent)[0], exponent) - weight).sum())

    exponent = min(exponents, key=error)
    mantissa, clipped = rounded(exponent)
    integer = dataclasses.replace(
        connection, weight=mantissa.astype(np.int32), weight_exponent=exponent, weight_bits=bits
    )
    return integer, clipped


def _mean_floor(exponent: int) -> float:
    """Mean of what rounding down takes from a current, weight units: twice the sum loses half a step of 2**-e."""
    return (1 - 2.0 ** (exponent + 1)) / 4 if exponent < -1 else 0.0


def _round_current(connection: Connection, scale: float, *, shift: float) -> tuple[list[Connection], int]:
    """A constant current as one connection of 8 bits, or as two whose exponents differ; and the clipped ones."""
    exact = np.rint(connection.weight / scale + shift).astype(np.int64)
    half = 1 << (CURRENT_BITS - 1)
    fine = Connection(connection.name, ALWAYS_ON, connection.target, exact.astype(np.int32), weight_bits=CURRENT_BITS)
    if exact.min(initial=0) >= -half and exact.max(initial=0) < half:
        return [fine], 0
    step = 1 << _HIGH_EXPONENT
    held = np.clip(exact // step, -half, half - 1)
    high = dataclasses.replace(
        fine, name=f"{connection.name}_coarse", weight=held.astype(np.int32), weight_exponent=_HIGH_EXPONENT
    )
    low = np.clip(exact - held * step, -half, half - 1)
    clipped = int(np.count_nonzero(held * step + low != exact))
    return [high, dataclasses.replace(fine, weight=low.astype(np.int32))], clipped


def _report(
    network: HardwareNetwork, integer: HardwareNetwork, calibration: Array, clipped: Mapping[str, int]
) -> QuantizationReport:
    wanted, found = equilibrium_rates(network, calibration), equilibrium_rates(integer, calibration)
    populations = {}
    for before, after in zip(network.populations, integer.populations, strict=True):
        neuron = after.neuron
        assert isinstance(neuron, IntegerNeuron)
        error = np.abs(found.firing_rates[after.name] - wanted.firing_rates[after.name])
        populations[after.name] = PopulationReport(
            scale=neuron.scale,
            reset_amount=neuron.reset_amount,
            v_threshold=neuron.v_threshold,
            leak_error=neuron.leak - before.neuron.leak,
            mean_rate_error=float(error.mean()),
            max_rate_error=float(error.max()),
        )
    connections = {
        c.name: _connection_report(c, _parts(integer, c), populations[c.target].scale, clipped[c.name])
        for c in network.connections
    }
    samples = len(next(iter(wanted.firing_rates.values())))
    return QuantizationReport(samples, wanted.converged and found.converged, connections, populations)


def _parts(integer: HardwareNetwork, connection: Connection) -> list[Connection]:
    names = (connection.name, f"{connection.name}_coarse")
    return [c for c in integer.incoming(connection.target) if c.name in names]


def _connection_report(wanted: Connection, parts: Sequence[Connection], scale: float, clipped: int) -> ConnectionReport:
    error = np.sum([real_weight(c) for c in parts], axis=0) * scale - wanted.weight
    size = float(np.sqrt(np.square(wanted.weight).mean()))
    rms = float(np.sqrt(np.square(error).mean()))
    return ConnectionReport(
        weight_bits=parts[0].weight_bits,
        weight_exponent=parts[0].weight_exponent,
        max_error=float(np.abs(error).max()),
        rms_error=rms,
        relative_error=rms / size if size else 0.0,
        clipped=clipped,
    )
