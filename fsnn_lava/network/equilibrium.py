"""Equilibrium rates of a `HardwareNetwork`, float or integer, independent of its delays and thresholds (Theorem 3).

    a^p = clamp((sum over connections of W a^source + constant current) / r^p),  clamp to [0, 1]

Populations that reset to zero, or whose current decays, have no such rates and are refused.

For an integer network the graded input's current is rounded down exactly as in a run, so that what remains between a
run's rates and these is the finite number of steps alone (for LIF: and the rounding of the leak).

Unknown are only the rates that a sweep over the populations, in their order, needs from the sweep before: those that
feedback carries. They are solved for by Anderson acceleration in float32, sample by sample. Where that is not exact
enough the solve is refined: one sweep in float64 says by how much the rates miss, and a solve in float32 finds the
correction. It is small, so that a float32's seven digits of it are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.config import SOLVERS
from fsnn_lava.datasets import evenly_spaced
from fsnn_lava.errors import InputError, UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Array,
    Connection,
    Convolution,
    Dense,
    HardwareNetwork,
    check_inputs,
    constant_current,
    equilibrium_violations,
    linear_map,
    real_weight,
)
from fsnn_lava.network.fixed_point import Solver, spectral_radii
from fsnn_lava.network.settling import Settling

SOLVE_TOLERANCE = 1e-5
"""Relative residual of a solve in float32, whose own rounding is a tenth of it."""
SOLVES = (*[("anderson", 20)] * 5, ("broyden", 20), *[("fixed_point", 1000)] * 3)
"""Methods of the solves and their sweeps at most; each finds a correction to the last, for samples that are not done.

Most samples need two. The first are short, because a solve takes as long for all samples as for the one that needs
most. Plain iteration comes last, for loops of many equally strong directions, where mixing of iterates helps little.
"""
ROUNDING = 1e-6
"""Relative error of a sweep in float32, at most."""
GAIN_PRODUCTS = 6e9
"""Products of one sweep of the samples whose gain is measured, at most: all samples of a small network."""
GAIN_SAMPLES = 16
"""So many samples at least."""
CHUNK_NUMBERS = 2**21
"""Rates that are solved for at a time, so that memory does not grow with the number of samples."""

_Values = dict[str, Tensor]
"""Population -> (B, *N), images in channels_last memory, for which convolutions are fastest."""


@dataclass(frozen=True, eq=False)
class EquilibriumRates:
    """Rates at which a network settles.

    Parameters
    ----------
    firing_rates : population -> (B, *N), spikes per step, float64. Of a sample that does not settle: the rates with the
        smallest residual that were found.
    residuals : (B,) largest change of a rate by one more sweep around the loop, spikes per step.
    gains : (B,) spectral radius of the loop's Jacobian at these rates, by power iteration. Above 1 the network leaves
        them after the smallest disturbance. NaN of the samples of a large network whose gain was not measured. None if
        it was not asked for.
    settled : (B,) whether a sample's residual reached the tolerance and, where known, its gain is below 1.
    steps : sweeps around the loop, of the samples that took the most.
    """

    firing_rates: dict[str, Array]
    residuals: Array
    gains: Array | None
    settled: Array
    steps: int

    @property
    def converged(self) -> bool:
        """Whether all samples have settled."""
        return bool(self.settled.all())

    @property
    def unsettled(self) -> int:
        """How many samples have not."""
        return int((~self.settled).sum())

    def settling(self, run: Mapping[str, Array] | None = None) -> Settling:
        """Sum up how the network settles; ``run``: rates of the same inputs after T steps. The gains must be known."""
        assert self.gains is not None
        return Settling.of(self.firing_rates, gains=self.gains, settled=self.settled, run=run)


def equilibrium_rates(
    network: HardwareNetwork,
    inputs: Array,
    *,
    tolerance: float = 1e-9,
    start: Mapping[str, Array] | None = None,
    with_gains: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> EquilibriumRates:
    """Find the fixed point of the network's rates for each input.

    Parameters
    ----------
    inputs : (B, *shape) graded codes, or (T, B, *shape) event frames, which are averaged with the rate's weights.
    tolerance : residual, spikes per step, at which a sample is done; down to about 1e-13.
    start : population -> (B, *N) rates to start from, those of a similar network; default: no spikes.
    with_gains : whether to measure the loop's gain too, which takes longer than the solve in float32; for evenly spread
        samples, `GAIN_SAMPLES` at least and as many as `GAIN_PRODUCTS` allow.
    progress : called with the samples done and all samples after each chunk of them.

    Raises
    ------
    InputError : if the inputs, or the rates to start from, do not fit the network.
    UnsupportedError : naming each population that has no such rates, and why.
    """
    batch = check_inputs(network, inputs)
    loop = RateMap(network)
    rates = _start(network, start, batch)
    residuals, gains, steps = np.full(batch, np.inf), np.full(batch, np.nan), 0
    most = max(GAIN_SAMPLES, int(GAIN_PRODUCTS // max(1, loop.products)))
    measured = evenly_spaced(batch, min(batch, most) if with_gains else 0)
    numbers = sum(p.size for p in network.populations) + network.input.size
    size = max(1, CHUNK_NUMBERS // numbers)
    for first in range(0, batch, size):
        part = slice(first, first + size)
        values = {name: r[part] for name, r in rates.items()}
        constant = _constant_currents(network, network.input.take(inputs, part))
        found, residuals[part], taken = _solved(loop, constant, values, tolerance=tolerance)
        here = measured[(measured >= first) & (measured < first + size)]
        if len(here):
            gains[here] = loop.gains({name: _images_last(value[here - first]) for name, value in found.items()})
        for name, value in found.items():
            rates[name][part] = value
        steps = max(steps, taken)
        if progress is not None:
            progress(min(first + size, batch), batch)
    settled = residuals <= tolerance
    settled[measured] &= gains[measured] < 1
    shaped = {name: r.numpy() for name, r in rates.items()}
    return EquilibriumRates(shaped, residuals, gains if with_gains else None, settled, steps)


class RateMap:
    """A network's connections between populations, over the targets' reset amounts, as sweeps.

    Parameters
    ----------
    with_input : the input counts as a source too.

    Raises
    ------
    UnsupportedError : naming each population that has no equilibrium rates, and why.
    """

    def __init__(self, network: HardwareNetwork, *, with_input: bool = False) -> None:
        violations = equilibrium_violations(network)
        if violations:
            listed = "\n  ".join(map(str, violations))
            raise UnsupportedError(f'network "{network.name}" has no equilibrium rates:\n  {listed}')
        self.network = network
        self._shapes = {p.name: p.shape for p in network.populations}
        self._incoming: dict[str, list[tuple[Connection, dict[torch.dtype, Tensor]]]] = {n: [] for n in self._shapes}
        self.products = 0
        """Products of one sweep of a sample."""
        order = list(self._shapes)
        back = set()
        for c in network.connections:
            if c.source not in ((ALWAYS_ON,) if with_input else (ALWAYS_ON, INPUT)):
                self.products += linear_map(network, c).products
                weight = torch.from_numpy(real_weight(c) / network.population(c.target).neuron.reset_amount)
                weights = {dtype: _images_last(weight.to(dtype)) for dtype in (torch.float32, torch.float64)}
                self._incoming[c.target].append((c, weights))
                if c.source != INPUT and order.index(c.source) >= order.index(c.target):
                    back.add(c.source)
        self.carried = tuple(name for name in order if name in back)
        """Populations whose rates a sweep needs from the sweep before."""

    def current(self, target: str, values: Mapping[str, Tensor]) -> Tensor | None:
        """(B, *N) what the values of all populations send to one, a new tensor; None where none sends to it."""
        total = None
        for c, weights in self._incoming[target]:
            x = values[c.source]
            product = self._product(c, x, weights[x.dtype])
            total = product if total is None else total.add_(product)
        return total

    def _product(self, c: Connection, x: Tensor, weight: Tensor) -> Tensor:
        g = c.geometry
        if isinstance(g, Dense):
            return _images_last((x.flatten(1) @ weight.T).view(len(x), *self._shapes[c.target]))
        if isinstance(g, Convolution):
            return functional.conv2d(x, weight, stride=g.stride, padding=g.padding)
        return functional.conv_transpose2d(
            x, weight, stride=g.stride, padding=g.padding, output_padding=g.output_padding
        )

    def sweep(self, carried: Mapping[str, Tensor], update: Callable[[str, Tensor | None], Tensor]) -> _Values:
        """New values of all populations in their order, each from the new ones before it and the carried ones behind.

        ``update`` makes a population's values of the current from the other populations.
        """
        values: _Values = {**carried}
        new: _Values = {}
        for name in self._shapes:
            new[name] = values[name] = update(name, self.current(name, values))
        return new

    def rates_of(self, inputs: Array, carried: Mapping[str, Array]) -> dict[str, Array]:
        """Population -> (B, *N) float64 rates by one sweep from the carried ones.

        Parameters
        ----------
        inputs : as a backend takes them.
        carried : population -> (B, *N) its rates, of those in `carried`.
        """
        constant = _constant_currents(self.network, inputs)

        def update(name: str, current: Tensor | None) -> Tensor:
            return (constant[name] if current is None else current.add_(constant[name])).clamp(0.0, 1.0)

        values = {name: _images_last(torch.from_numpy(np.asarray(carried[name], np.float64))) for name in self.carried}
        return {name: rates.numpy() for name, rates in self.sweep(values, update).items()}

    def joined(self, values: Mapping[str, Tensor]) -> Tensor:
        """(B, D) the carried values, one vector per sample, in the order of memory."""
        parts = [values[name] for name in self.carried]
        if not parts:
            return torch.zeros(len(next(iter(values.values()))), 0)
        return torch.cat([(v.permute(0, 2, 3, 1) if v.dim() == 4 else v).flatten(1) for v in parts], dim=1)

    def split(self, joined: Tensor) -> _Values:
        """The carried values of their vectors (B, D), as views."""
        values, first = {}, 0
        for name in self.carried:
            shape = self._shapes[name]
            size = int(np.prod(shape))
            part = joined[:, first : first + size]
            if len(shape) == 3:
                values[name] = part.view(-1, shape[1], shape[2], shape[0]).permute(0, 3, 1, 2)
            else:
                values[name] = part.view(-1, *shape)
            first += size
        return values

    def gains(self, rates: Mapping[str, Tensor]) -> Array:
        """(B,) spectral radius of the Jacobian of a sweep: rates strictly between 0 and 1 pass changes on."""
        if not self.carried:
            return np.zeros(len(next(iter(rates.values()))))
        passes = {name: ((r > 0) & (r < 1)).float() for name, r in rates.items()}

        def times(vector: Tensor) -> Tensor:
            return self.joined(self.sweep(self.split(vector), passed))

        def passed(name: str, current: Tensor | None) -> Tensor:
            return torch.zeros_like(passes[name]) if current is None else current.mul_(passes[name])

        return np.asarray(spectral_radii(times, self.joined(passes)))


class _Correction:
    """The system for what must be added to some rates: x = clamp(offset + W x, low, high), in float32.

    With r the rates, offset is f(r) - r before clamping, low is -r and high is 1 - r. With r = 0 it is the system of
    the rates themselves.

    Parameters
    ----------
    constant : (B, *N) constant currents over the reset amounts, float64.
    rates : (B, *N), float64; None: no spikes.
    """

    def __init__(self, loop: RateMap, constant: _Values, rates: _Values | None) -> None:
        self._loop, self._rates = loop, rates
        self._offset: _Values = {}
        self._low: _Values = {}
        self._high: _Values = {}
        for name, c in constant.items():
            if rates is None:
                self._offset[name] = c.float()
            else:
                current = loop.current(name, rates)
                self._offset[name] = ((c if current is None else current.add_(c)) - rates[name]).float()
                self._low[name], self._high[name] = (-rates[name]).float(), (1 - rates[name]).float()

    def map(self, joined: Tensor) -> Tensor:
        """The carried corrections' vectors (B, D) after one sweep."""
        return self._loop.joined(self.sweep(self._loop.split(joined)))

    def sweep(self, carried: Mapping[str, Tensor]) -> _Values:
        """Corrections of all populations by one sweep."""
        return self._loop.sweep(carried, self._clamped)

    def _clamped(self, name: str, current: Tensor | None) -> Tensor:
        total = self._offset[name].clone() if current is None else current.add_(self._offset[name])
        if self._rates is None:
            return total.clamp_(0.0, 1.0)
        return total.clamp_(self._low[name], self._high[name])

    def added(self, corrections: _Values) -> _Values:
        """The corrected rates (B, *N), float64; where a correction was clamped they are 0 and 1 to the bit."""
        found = {name: x.double() for name, x in corrections.items()}
        if self._rates is not None:
            for name, x in corrections.items():
                found[name].add_(self._rates[name])
                found[name].masked_fill_(x <= self._low[name], 0.0).masked_fill_(x >= self._high[name], 1.0)
        return found


@torch.no_grad()
def _solved(loop: RateMap, constant: _Values, start: _Values, *, tolerance: float) -> tuple[_Values, Array, int]:
    """Rates (B, *N) float64, their residuals (B,), and the number of sweeps."""
    batch = len(next(iter(start.values())))
    found = {name: torch.zeros_like(value) for name, value in constant.items()}
    residuals, steps = np.full(batch, np.inf), 0
    going, carried = np.arange(batch), loop.joined(start).float()
    for number, (method, max_steps) in enumerate(SOLVES):
        correction = _Correction(loop, _rows_of(constant, going), _rows_of(found, going) if number else None)
        solver: Solver = SOLVERS.get(method)
        result = solver(
            correction.map,
            carried,
            tolerance=SOLVE_TOLERANCE,
            max_steps=max_steps,
            least_norm=tolerance / SOLVE_TOLERANCE,
        )
        once = correction.sweep(loop.split(result.value))
        twice = correction.sweep({name: once[name] for name in loop.carried})
        steps += result.steps + 2
        change = _largest({name: twice[name] - x for name, x in once.items()}) + ROUNDING * _largest(once)
        better = change < residuals[going]
        rows = going[better]
        residuals[rows] = change[better]
        for name, value in correction.added(once).items():
            found[name][torch.from_numpy(rows)] = value[torch.from_numpy(better)]
        # What plain iteration does not bring to rest does not settle.
        going = going[(change > tolerance) & (result.done.numpy() | (method != "fixed_point"))]
        if not len(going):
            break
        carried = torch.zeros_like(carried[: len(going)])
    return found, residuals, steps


def _constant_currents(network: HardwareNetwork, inputs: Array) -> _Values:
    """Population -> (B, *N) constant current over the reset amount, float64."""
    found = {}
    for p in network.populations:
        current = constant_current(network, p, inputs) / p.neuron.reset_amount
        found[p.name] = _images_last(torch.from_numpy(current).view(-1, *p.shape))
    return found


def _start(network: HardwareNetwork, start: Mapping[str, Array] | None, batch: int) -> _Values:
    found = {}
    for p in network.populations:
        shape = (batch, *p.shape)
        if start is None:
            found[p.name] = torch.zeros(shape, dtype=torch.float64)
            continue
        given = start[p.name].shape if p.name in start else "none"
        if given != shape:
            raise InputError(
                f'network "{network.name}": rates of population "{p.name}" to start from have shape {given}; '
                f"expected {shape}"
            )
        found[p.name] = torch.from_numpy(np.array(start[p.name], np.float64))
    return found


def _largest(values: _Values) -> Array:
    """(B,) float64 largest magnitude of a sample."""
    each = [v.abs().flatten(1).amax(1).double().numpy() for v in values.values()]
    return np.asarray(np.max(each, axis=0))


def _images_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _rows_of(values: _Values, rows: Tensor | Array) -> _Values:
    return {name: _images_last(v[torch.as_tensor(rows)]) for name, v in values.items()}
