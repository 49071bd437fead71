"""A float network as an integer one: scales chosen, weights rounded, the 24-bit state proven.

Firing rates depend on w/r and b/r alone, so the size of the reset, in weight units, is free in every population.
A large one rounds finely; a small one keeps strongly negative currents within 24 bits. The quantizer bounds it from
above by proof and takes, below that bound, the value with the smallest error of the equilibrium rates on calibration
inputs. Everything that rounding did is counted in the report.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fsnn_lava.config import DeployConfig
from fsnn_lava.errors import NetworkError, PotentialBoundError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    STATE_LIMIT,
    Array,
    Connection,
    HardwareNetwork,
    IntegerNeuron,
    Readout,
    bounds_alone,
    constant_current,
    equilibrium_rates,
    leak_sum,
    linear_map,
    prove,
    quantize_readout,
    real_weight,
)
from fsnn_lava.quantization.candidates import Rounder, Size, parts_of, reset_sizes, value_of
from fsnn_lava.quantization.report import (
    LOST_SHARE,
    NEGLIGIBLE_SHARE,
    ConnectionReport,
    PopulationReport,
    QuantizationReport,
    report_of,
)
from fsnn_lava.quantization.rounding import CURRENT_LIMIT, HIGH_EXPONENT, MOST_PARTS
from fsnn_lava.quantization.search_effort import Effort

__all__ = [
    "LOST_SHARE",
    "NEGLIGIBLE_SHARE",
    "ConnectionReport",
    "PopulationReport",
    "QuantizationReport",
    "quantize",
]


PRICE_OF_A_PART = 1.5
"""One more connection for the same weights has to lower the error by this factor."""


def quantize(
    network: HardwareNetwork, calibration: Array, *, config: DeployConfig | None = None
) -> tuple[HardwareNetwork, QuantizationReport]:
    """The integer network whose equilibrium rates are nearest, proven to stay in 24 bits, and its report.

    Parameters
    ----------
    network : float network whose connections have names of their own; the proof holds for its own timing.
    calibration : inputs as a backend takes them, on which the error of the rates is measured.
    config : weight bits, threshold, rounding and time steps.

    Raises
    ------
    NetworkError : if the network is not a float network.
    InputError : if the calibration inputs do not fit the network.
    PotentialBoundError : if no scale can be proven to stay in range; names the population and its bound.
    UnsupportedError : if something cannot be expressed, e.g. a leak that rounds to nothing.
    """
    began = time.perf_counter()
    config = config or DeployConfig()
    if network.arithmetic != "float":
        raise NetworkError(f'network "{network.name}": holds integers already; quantize the float network')
    if config.time_steps:
        network = dataclasses.replace(network, time_steps=config.time_steps)
    search = _Search(network, calibration, config)
    resets = search.largest_proven()
    for population in network.populations:
        resets[population.name] = search.best(population.name, resets)
    integer = search.rounder.network_of(resets)
    report = report_of(
        search.rounder,
        resets,
        calibration=calibration,
        compared=search.compared,
        wanted=search.wanted,
        effort=search.effort,
    )
    provenance = {**network.provenance, "deployment": dataclasses.asdict(config), "quantization": report.as_dict()}
    integer = dataclasses.replace(integer, readout=_integer_readout(integer, config.weight_bits), provenance=provenance)
    return integer, dataclasses.replace(report, seconds=time.perf_counter() - began)


def _integer_readout(integer: HardwareNetwork, bits: int) -> Readout:
    """The readout with integrators for hardware; of fewer bits if one weight could add up to more than 24."""
    neuron = integer.population(integer.readout.source).neuron
    assert isinstance(neuron, IntegerNeuron)
    most = int((2**16 - 1) / leak_sum(neuron.decay, integer.time_steps))  # the largest mantissa that fits
    bits = max(2, min(bits, (most + 1).bit_length()))
    integrators = quantize_readout(integer.readout, decay=neuron.decay, time_steps=integer.time_steps, weight_bits=bits)
    return dataclasses.replace(integer.readout, integrators=integrators)


class _Search:
    """Candidates of one network: sizes of the reset synapses."""

    def __init__(self, network: HardwareNetwork, calibration: Array, config: DeployConfig) -> None:
        self.network = network
        self.effort = Effort.for_network(network)
        self.wanted = equilibrium_rates(
            network, calibration, tolerance=self.effort.final_tolerance, dtype=self.effort.dtype
        )
        rates = self.wanted.firing_rates
        self.rounder = Rounder(network, rates, inputs=calibration, config=config)
        samples = network.input.samples(calibration)
        count = min(samples, self.effort.compared)
        self.compared: Array = np.linspace(0, samples - 1, count).round().astype(np.int64)
        self.inputs = network.input.take(calibration, self.compared)
        self.rates = {name: r[self.compared] for name, r in rates.items()}

    # ---- what can be proven ------------------------------------------------------------------------------

    def largest_proven(self) -> dict[str, Size]:
        """For each population the largest size that is proven to stay in range, the others given.

        First each by itself, whatever the others send; then as far as the proof of the whole network reaches.
        """
        sizes = reset_sizes()
        resets = {p.name: sizes[0] for p in self.network.populations}
        for name in list(resets):
            found = _largest(sizes, lambda size, n=name: self._fits_alone(n, size, nearest=True))  # type: ignore[misc]
            while found and not self._fits_alone(name, sizes[found - 1], nearest=False):
                found -= 1
            resets[name] = sizes[max(found - 1, 0)]
        while (failure := self._failure(resets)) is not None:
            if all(size == sizes[0] for size in resets.values()):
                raise PotentialBoundError(f"even the smallest scale is not proven to stay in range: {failure}")
            resets = {name: sizes[sizes.index(size) * 9 // 10] for name, size in resets.items()}
        for name in resets:
            resets[name] = self._raised(name, resets)
        return resets

    def _fits_alone(self, name: str, size: Size, *, nearest: bool) -> bool:
        """Whether one population stays in range whatever the others do."""
        sizes = {p.name: reset_sizes()[0] for p in self.network.populations} | {name: size}
        try:
            network = self.rounder.network_of(sizes, nearest=nearest)
            lowest, highest = bounds_alone(network, name)
        except NetworkError:
            return False
        clipped = self.rounder.rounded(name, size, nearest=nearest).clipped
        return max(-lowest.min(), highest.max()) <= STATE_LIMIT and not self._too_large(network, name, clipped)

    def _raised(self, name: str, resets: Mapping[str, Size]) -> Size:
        """The largest size of one population with which the whole network is proven, from a proven one upwards."""
        larger = [size for size in reset_sizes() if value_of(size) > value_of(resets[name])]
        step = 1
        while step <= len(larger) and self._failure({**resets, name: larger[step - 1]}) is None:
            step *= 2
        below = larger[step // 2 : min(step - 1, len(larger))]
        found = _largest(below, lambda size: self._failure({**resets, name: size}) is None)
        at = step // 2 + found
        return larger[at - 1] if at else resets[name]

    def _failure(self, resets: Mapping[str, Size]) -> NetworkError | None:
        """Why these sizes cannot be used (a threshold, weight or potential that is too large); None: they can."""
        try:
            network = self.rounder.network_of(resets)
            prove(network)
        except NetworkError as error:
            return error
        found = [n for name, s in resets.items() for n in self._too_large(network, name, self._clipped(name, s))]
        if not found:
            return None
        bits = self.rounder.config.weight_bits
        return PotentialBoundError(
            f"weights of {', '.join(found)} are too large; allowed: {bits} bits times 2**{HIGH_EXPONENT}, or of a "
            f"convolution from spikes {MOST_PARTS} connections of {bits} bits; constant currents: {CURRENT_LIMIT} units"
        )

    def _clipped(self, name: str, size: Size) -> Mapping[str, int]:
        return self.rounder.rounded(name, size).clipped

    def _too_large(self, network: HardwareNetwork, name: str, clipped: Mapping[str, int]) -> list[str]:
        """Connections into a population that were clipped where nothing larger exists."""
        found = []
        for c in (c for c in self.network.incoming(name) if clipped[c.name]):
            parts = parts_of(network, c)
            if len(parts) == MOST_PARTS or any(part.weight_exponent == HIGH_EXPONENT for part in parts):
                found.append(c.name)
        return found

    # ---- what is best ------------------------------------------------------------------------------------

    def best(self, name: str, resets: Mapping[str, Size]) -> Size:
        """The size for one population, at most its proven one, with the smallest error; ties take the largest."""
        largest = value_of(resets[name])
        allowed = [size for size in reset_sizes() if largest / 4 <= value_of(size) <= largest]
        chosen = np.linspace(0, len(allowed) - 1, self.effort.tried)
        tried = sorted({allowed[int(i)] for i in chosen}, key=value_of, reverse=True)
        if len(tried) > self.effort.finalists:
            tried = sorted(tried, key=lambda size: self._local_error(name, {**resets, name: size}))
            tried = sorted(tried[: self.effort.finalists], key=value_of, reverse=True)
        by_error = sorted(tried, key=lambda size: self._error({**resets, name: size}) * self._price(name, size))
        # A smaller size rounds differently, so that it is not proven because a larger one is; the given one is.
        return next((size for size in by_error if self._failure({**resets, name: size}) is None), resets[name])

    def _price(self, name: str, size: Size) -> float:
        """What the error counts for, by the number of connections that weights are shared by."""
        connections = self.rounder.rounded(name, size).connections
        return float(PRICE_OF_A_PART ** sum(c.source != ALWAYS_ON for c in connections))

    def _error(self, resets: Mapping[str, Size]) -> float:
        """Mean |integer - float| of the equilibrium rates, all populations alike."""
        found = equilibrium_rates(
            self.rounder.network_of(resets),
            self.inputs,
            tolerance=self.effort.tolerance,
            start=self.rates,
            dtype=self.effort.dtype,
        ).firing_rates
        return float(np.mean([np.abs(found[name] - wanted).mean() for name, wanted in self.rates.items()]))

    def _local_error(self, name: str, resets: Mapping[str, Size]) -> float:
        """Mean error of one population's rates if its sources had none."""
        network = self.rounder.network_of(resets)
        population = network.population(name)
        current = constant_current(network, population, self.inputs)
        for c in (c for c in self.network.incoming(name) if c.source not in (INPUT, ALWAYS_ON)):
            rates = self.rates[c.source].reshape(len(current), -1)
            current += linear_map(self.network, c).with_weight(_carried(parts_of(network, c))).product(rates)
        found = np.clip(current / population.neuron.reset_amount, 0.0, 1.0)
        return float(np.abs(found - self.rates[name].reshape(found.shape)).mean())


def _carried(parts: Sequence[Connection]) -> Array:
    return np.asarray(np.sum([real_weight(c) for c in parts], axis=0))


def _largest(rising: Sequence[Size], holds: Callable[[Size], bool]) -> int:
    """How many of the rising sizes hold, if those that do come first."""
    low, high = 0, len(rising)  # rising[low - 1] holds, rising[high] does not
    while low < high:
        middle = (low + high) // 2
        if holds(rising[middle]):
            low = middle + 1
        else:
            high = middle
    return low
