"""A float network as an integer one: scales chosen, weights rounded, the 24-bit state proven.

Firing rates depend on w/r and b/r alone, so the reset r, counted in weight units, is free in every population. A large
one rounds finely; a small one keeps strongly negative currents within 24 bits. `quantize` goes through four steps, and
refuses a network that rounding destroys:

1. `input_correlations`: which rates the sources send together on calibration inputs, at the float equilibrium, or, of
   networks that have none, in a run (`calibration_rates`).
2. `largest_proven`: the largest reset of each population for which `hardware.prove` holds; an upper bound.
3. `best`: below that bound, the reset with the smallest error of the equilibrium rates. `candidates` makes the integer
   network of given resets; `rounding` makes the mantissas of one connection, where each weight gets its 8 bits.
4. `report`: what rounding did, counted and measured.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from fsnn_lava.config import DeployConfig
from fsnn_lava.datasets import Samples, evenly_spaced, time_first
from fsnn_lava.errors import NetworkError, PotentialBoundError, UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    STATE_LIMIT,
    Array,
    HardwareNetwork,
    IntegerNeuron,
    Readout,
    bounds_alone,
    constant_current,
    equilibrium_violations,
    leak_sum,
    linear_map,
    prove,
    quantize_readout,
    summed_weight,
)
from fsnn_lava.quantization.calibration_rates import calibration_rates
from fsnn_lava.quantization.candidates import Effort, Rounder, reset_synapses, weight_units
from fsnn_lava.quantization.report import LOST_SHARE, NEGLIGIBLE_SHARE, QuantizationReport, report_of
from fsnn_lava.quantization.rounding import CURRENT_LIMIT, HIGH_EXPONENT, MOST_PARTS
from fsnn_lava.quantization.scales import ResetSynapse, Scales, parts_of

READOUT_BITS = 4
"""Fewest bits of the readout's weights on hardware, which are rounded to the nearest."""
PRICE_OF_A_PART = 1.5
"""One more connection for the same weights has to lower the error by this factor."""


def quantize(
    network: HardwareNetwork,
    calibration: Samples | Array,
    *,
    config: DeployConfig | None = None,
    bits: Literal[2, 3, 4, 5, 6, 7, 8] | None = None,
    keep_lost: bool = False,
    room: Callable[[HardwareNetwork], Mapping[str, float]] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[HardwareNetwork, QuantizationReport]:
    """Round a float network to the nearest integer one that is proven to stay in 24 bits; report what rounding did.

    One that was trained in integers becomes those integers (`Scales.trained`).

    >>> network, report = quantize(lower(trained), data.train, bits=8)  # doctest: +SKIP

    Nearest means: with the smallest error of the equilibrium rates on the calibration inputs. A network that has none
    (reset to zero, a current that decays) is calibrated by the rates of a run, and nearest means: with the smallest
    error of the mean currents.

    Parameters
    ----------
    network : float network whose connections have names of their own; the proof holds for its own timing.
    calibration : training samples, of which as many as the config says are used, evenly spread, but three quarters at
        most; or inputs as a backend takes them, all of which are.
    config : weight bits, threshold, rounding and time steps.
    bits : weight bits, instead of the config's.
    room : of an integer network, by which factor the scale of each population must be smaller, for a reason of the
        caller's; 1 or less: it may stay. Asked again until all may.
    keep_lost : return the network also where rounding left too little of a connection (`QuantizationReport.lost`).
    progress : called with what is done next.

    Raises
    ------
    NetworkError : if the network is not a float network.
    InputError : if the calibration inputs do not fit the network.
    ConfigError : if it was trained in integers and the config asks for others.
    PotentialBoundError : if no scale can be proven to stay in range; names the population and its bound.
    UnsupportedError : if rounding left too little of a connection, or something cannot be expressed, e.g. a leak that
        rounds to nothing.
    """
    began = time.perf_counter()
    config = config or DeployConfig()
    scales = Scales.trained(network)
    if bits is not None:
        if scales is not None and bits != scales.weight_bits:
            raise scales.refusal(f"weight_bits {bits}")
        config = dataclasses.replace(config, weight_bits=bits)
    if isinstance(calibration, Samples):
        calibration = time_first(calibration.to_fit(config.calibration_samples).codes)
    if network.arithmetic != "float":
        raise NetworkError(f'network "{network.name}": holds integers already; quantize the float network')
    if config.time_steps:
        network = dataclasses.replace(network, time_steps=config.time_steps)
    if scales is not None:
        config = scales.deployment(config, network)
    search = _Search(network, calibration, config, scales=scales, progress=progress)
    resets = search.chosen(room) if scales is None else scales.resets
    integer = search.rounder.network_of(resets)
    if scales is not None:
        _prove_trained(integer)
    progress("measuring what rounding did")
    report = report_of(
        search.rounder,
        resets,
        calibration=calibration,
        compared=search.compared,
        wanted=search.wanted,
        tolerance=search.effort.final_tolerance,
        progress=lambda done, total: progress(f"measuring what rounding did to sample {done} of {total}"),
    )
    if not keep_lost:
        refuse_lost(report, network.time_steps)
    provenance = {**network.provenance, "deployment": dataclasses.asdict(config), "quantization": report.as_dict()}
    integer = dataclasses.replace(
        integer, readout=_integer_readout(integer, max(config.weight_bits, READOUT_BITS)), provenance=provenance
    )
    return integer, dataclasses.replace(report, seconds=time.perf_counter() - began)


def _prove_trained(integer: HardwareNetwork) -> None:
    """Prove integers that were trained, and that no smaller scale can help."""
    try:
        prove(integer)
    except PotentialBoundError as error:
        raise PotentialBoundError(
            f"{error}\nits integers were trained for other time steps: train it with these, too: fsnn train --from RUN "
            f"--training.time-steps-schedule ... {integer.time_steps} --training.time-steps-by batch"
        ) from None


def refuse_lost(report: QuantizationReport, time_steps: int) -> None:
    """Refuse a network of which rounding left too little: the 24-bit state of long windows allows small scales only."""
    if report.lost():
        listed = "\n  ".join(f"{n}: {report.connections[n].current_error:.0%}" for n in report.lost())
        raise UnsupportedError(
            f"nothing was written: integers for T = {time_steps} lose these connections (root mean square error, as a "
            f"share of the current they carry; of a constant one below {NEGLIGIBLE_SHARE:.0%} of the reset amount, of "
            f"that; allowed: {LOST_SHARE:.0%}):\n  {listed}\n"
            "A potential sums up negative currents for the whole window and must fit 24 bits: use fewer --time-steps, "
            "or more --weight-bits"
        )


def _integer_readout(integer: HardwareNetwork, bits: int) -> Readout:
    """The readout with integrators for hardware; of fewer bits if one weight could add up to more than 24."""
    neuron = integer.population(integer.readout.source).neuron
    assert isinstance(neuron, IntegerNeuron)
    most = int((2**16 - 1) / leak_sum(neuron.decay, integer.time_steps))  # the largest mantissa that fits
    bits = max(2, min(bits, (most + 1).bit_length()))
    integrators = quantize_readout(integer.readout, decay=neuron.decay, time_steps=integer.time_steps, weight_bits=bits)
    return dataclasses.replace(integer.readout, integrators=integrators)


class _Search:
    """Search for the reset synapses of one network's populations."""

    def __init__(
        self,
        network: HardwareNetwork,
        calibration: Array,
        config: DeployConfig,
        *,
        scales: Scales | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.network, self._progress = network, progress
        self.effort = Effort.for_network(network)
        self._has_equilibrium = not equilibrium_violations(network)
        what = "equilibrium" if self._has_equilibrium else "rates"
        progress(f"finding the {what} of the calibration samples")
        self.wanted = calibration_rates(
            network,
            calibration,
            tolerance=self.effort.final_tolerance,
            progress=lambda done, total: progress(f"finding the {what} of calibration sample {done} of {total}"),
        )
        progress("measuring the correlations of the inputs")
        rates = self.wanted.firing_rates
        self.rounder = Rounder(network, rates, inputs=calibration, config=config, scales=scales)
        samples = network.input.samples(calibration)
        self.compared = evenly_spaced(samples, min(samples, self.effort.compared))
        self.inputs = network.input.take(calibration, self.compared)
        self.rates = {name: r[self.compared] for name, r in rates.items()}

    def chosen(self, room: Callable[[HardwareNetwork], Mapping[str, float]] | None) -> dict[str, ResetSynapse]:
        """For each population the reset with the smallest error among those that are proven, or a smaller one."""
        resets = self.largest_proven()
        for population in self.network.populations:
            resets[population.name] = self.best(population.name, resets)
        while room is not None:
            factors = room(self.rounder.network_of(resets))
            smaller = {name: _smaller(reset, max(1.0, factors[name])) for name, reset in resets.items()}
            if smaller == resets:
                break
            resets = smaller
        return resets

    def largest_proven(self) -> dict[str, ResetSynapse]:
        """For each population the largest reset that is proven to stay in range, the others given.

        First each by itself, whatever the others send; then as far as the proof of the whole network goes.
        """
        rising = reset_synapses()
        resets = {p.name: rising[0] for p in self.network.populations}
        for name in list(resets):
            self._progress(f"{name}: the largest scale that is proven to fit 24 bits")
            found = _count_of_valid(rising, lambda reset, n=name: self._fits_alone(n, reset, nearest=True))  # type: ignore[misc]
            while found and not self._fits_alone(name, rising[found - 1], nearest=False):
                found -= 1
            resets[name] = rising[max(found - 1, 0)]
        while (failure := self._failure(resets)) is not None:
            if all(reset == rising[0] for reset in resets.values()):
                raise PotentialBoundError(f"even the smallest scale is not proven to stay in range: {failure}")
            resets = {name: rising[rising.index(reset) * 9 // 10] for name, reset in resets.items()}
        for name in resets:
            self._progress(f"{name}: the largest scale with which the whole network is proven")
            resets[name] = self._raised(name, resets)
        return resets

    def _fits_alone(self, name: str, reset: ResetSynapse, *, nearest: bool) -> bool:
        """Whether one population stays in range whatever the others do."""
        resets = {p.name: reset_synapses()[0] for p in self.network.populations} | {name: reset}
        try:
            network = self.rounder.network_of(resets, nearest=nearest)
            lowest, highest = bounds_alone(network, name)
        except NetworkError:
            return False
        clipped = self.rounder.rounded(name, reset, nearest=nearest).clipped
        return max(-lowest.min(), highest.max()) <= STATE_LIMIT and not self._too_large(network, name, clipped)

    def _raised(self, name: str, resets: Mapping[str, ResetSynapse]) -> ResetSynapse:
        """The largest reset of one population with which the whole network is proven, from a proven one upwards.

        The step doubles until a proof fails; the last stretch is then halved.
        """
        larger = [reset for reset in reset_synapses() if weight_units(reset) > weight_units(resets[name])]
        step = 1
        while step <= len(larger) and self._failure({**resets, name: larger[step - 1]}) is None:
            step *= 2
        untried = larger[step // 2 : min(step - 1, len(larger))]
        found = _count_of_valid(untried, lambda reset: self._failure({**resets, name: reset}) is None)
        at = step // 2 + found
        return larger[at - 1] if at else resets[name]

    def _failure(self, resets: Mapping[str, ResetSynapse]) -> NetworkError | None:
        """Why these resets cannot be used (a threshold, weight or potential that is too large); None: they can."""
        try:
            network = self.rounder.network_of(resets)
            prove(network)
        except NetworkError as error:
            return error
        found = [
            connection
            for name, reset in resets.items()
            for connection in self._too_large(network, name, self.rounder.rounded(name, reset).clipped)
        ]
        if not found:
            return None
        bits = self.rounder.config.weight_bits
        return PotentialBoundError(
            f"weights of {', '.join(found)} are too large; allowed: {bits} bits times 2**{HIGH_EXPONENT}, or of a "
            f"convolution from spikes {MOST_PARTS} connections of {bits} bits; constant currents: {CURRENT_LIMIT} units"
        )

    def _too_large(self, network: HardwareNetwork, name: str, clipped: Mapping[str, int]) -> list[str]:
        """Connections into a population that were clipped where nothing larger exists."""
        found = []
        for c in (c for c in self.network.incoming(name) if clipped[c.name]):
            parts = parts_of(network, c)
            if len(parts) == MOST_PARTS or any(part.weight_exponent == HIGH_EXPONENT for part in parts):
                found.append(c.name)
        return found

    def best(self, name: str, resets: Mapping[str, ResetSynapse]) -> ResetSynapse:
        """The reset of one population, at most its proven one, with the smallest error; of equal ones the largest."""
        largest = weight_units(resets[name])
        allowed = [reset for reset in reset_synapses() if largest / 4 <= weight_units(reset) <= largest]
        chosen = np.linspace(0, len(allowed) - 1, self.effort.tried)
        tried = sorted({allowed[int(i)] for i in chosen}, key=weight_units, reverse=True)
        if len(tried) > self.effort.finalists and self._has_equilibrium:
            tried = sorted(tried, key=lambda reset: self._local_error(name, {**resets, name: reset}))
            tried = sorted(tried[: self.effort.finalists], key=weight_units, reverse=True)
        errors = {}
        for number, reset in enumerate(tried, start=1):
            self._progress(f"{name}: comparing scale {number} of {len(tried)}")
            error = self._error({**resets, name: reset}) if self._has_equilibrium else self._current_error(name, reset)
            errors[reset] = error * self._price(name, reset)
        by_error = sorted(tried, key=errors.__getitem__)
        # A smaller reset rounds differently, so that it is not proven because a larger one is; the given one is.
        return next((reset for reset in by_error if self._failure({**resets, name: reset}) is None), resets[name])

    def _price(self, name: str, reset: ResetSynapse) -> float:
        """Factor of the error that rises with the number of connections that weights are shared by."""
        connections = self.rounder.rounded(name, reset).connections
        return float(PRICE_OF_A_PART ** sum(c.source != ALWAYS_ON for c in connections))

    def _error(self, resets: Mapping[str, ResetSynapse]) -> float:
        """Mean |integer - float| of the equilibrium rates, all populations alike."""
        found = calibration_rates(
            self.rounder.network_of(resets),
            self.inputs,
            tolerance=self.effort.tolerance,
            start=self.rates,
            with_settling=False,
        ).firing_rates
        return float(np.mean([np.abs(found[name] - wanted).mean() for name, wanted in self.rates.items()]))

    def _local_error(self, name: str, resets: Mapping[str, ResetSynapse]) -> float:
        """Mean error of one population's rates if its sources had none."""
        network = self.rounder.network_of(resets)
        found = np.clip(self._mean_current(network, name) / network.population(name).neuron.reset_amount, 0.0, 1.0)
        return float(np.abs(found - self.rates[name].reshape(found.shape)).mean())

    def _current_error(self, name: str, reset: ResetSynapse) -> float:
        """Mean error of one population's mean currents, over its threshold: of a network without an equilibrium."""
        resets = {p.name: reset_synapses()[0] for p in self.network.populations} | {name: reset}
        network = self.rounder.network_of(resets)
        found = self._mean_current(network, name) / network.population(name).neuron.spike_cost
        wanted = self._mean_current(self.network, name) / self.network.population(name).neuron.spike_cost
        return float(np.abs(found - wanted).mean())

    def _mean_current(self, network: HardwareNetwork, name: str) -> Array:
        """(B, N) what arrives at one population of the float or an integer network in a step, on average."""
        current = constant_current(network, network.population(name), self.inputs)
        for c in (c for c in self.network.incoming(name) if c.source not in (INPUT, ALWAYS_ON)):
            rates = self.rates[c.source].reshape(len(current), -1)
            weight = c.weight if network is self.network else summed_weight(parts_of(network, c))
            current += linear_map(self.network, c).with_weight(weight).product(rates)
        return current


def _smaller(reset: ResetSynapse, factor: float) -> ResetSynapse:
    """The largest reset that is that much smaller, at least."""
    allowed = [other for other in reset_synapses() if factor * weight_units(other) <= weight_units(reset)]
    return allowed[-1] if allowed else reset_synapses()[0]


def _count_of_valid(rising: Sequence[ResetSynapse], is_valid: Callable[[ResetSynapse], bool]) -> int:
    """How many of the rising resets are valid, by bisection, if those that are come first."""
    low, high = 0, len(rising)  # rising[low - 1] is valid, rising[high] is not
    while low < high:
        middle = (low + high) // 2
        if is_valid(rising[middle]):
            low = middle + 1
        else:
            high = middle
    return low
