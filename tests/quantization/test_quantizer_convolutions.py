"""Networks with convolutions as integers: what the target demands, what is chosen, what it costs."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np
import pytest

import fsnn_lava.quantization.quantizer as module
import trained
from fsnn_lava.config import DeployConfig
from fsnn_lava.errors import PotentialBoundError
from fsnn_lava.hardware.equilibrium import equilibrium_rates
from fsnn_lava.hardware.geometry import Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.integrating_readout import quantize_readout
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import (
    ALWAYS_ON,
    INPUT,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Population,
    Readout,
)
from fsnn_lava.hardware.overflow_proof import potential_bounds, prove
from fsnn_lava.quantization.candidates import Effort, parts_of
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.quantization.report import QuantizationReport

NOTATIONS = ["5C5s (F5C3)", "4C3s-6C3s-5C3 (F4C3u)"]


def floating(notation: str, *, leak: float = 1.0, time_steps: int = 20) -> HardwareNetwork:
    made = trained.random_network(notation, leak=leak, time_steps=time_steps)
    return trained.on_hardware(made)


@functools.cache
def quantized(
    notation: str, leak: float = 1.0, **settings: Any
) -> tuple[HardwareNetwork, HardwareNetwork, QuantizationReport]:
    network = floating(notation, leak=leak)
    return network, *quantize(network, trained.some_codes(60), config=DeployConfig(**settings))


def event_network(largest: float, *, steps: int = 10, feedback: float = 0.02) -> tuple[HardwareNetwork, Array]:
    """A convolution of events with one large weight, and one of the population's own spikes with small ones."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(0, largest / 30, (4, 2, 3, 3))
    kernels[0, 0, 1, 1] = largest
    connections = (
        Connection("in", INPUT, "p", kernels, 0, geometry=Convolution(1, 1)),
        Connection("back", "p", "p", rng.normal(0, feedback, (4, 4, 3, 3)), 1, geometry=Convolution(1, 1)),
        Connection("on", ALWAYS_ON, "p", rng.normal(0.2, 0.3, (4 * 6 * 6, 1))),
    )
    population = Population("p", (4, 6, 6), FloatNeuron(2.0, 2.0, 1.0))
    readout = Readout("p", rng.normal(size=(3, population.size)), np.zeros(3))
    spec = InputSpec((2, 6, 6), "event", 1)
    frames = (rng.random((steps, 20, 2, 6, 6)) < 0.2).astype(np.uint8)
    return HardwareNetwork("events", spec, (population,), connections, readout, steps), frames


def rate_error(integer: HardwareNetwork, network: HardwareNetwork, codes: Array) -> float:
    found, wanted = (equilibrium_rates(n, codes).firing_rates for n in (integer, network))
    return float(np.mean([np.abs(found[name] - wanted[name]).mean() for name in wanted]))


# ---- what the target demands ---------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize("notation", NOTATIONS)
def test_exponents_and_ranges(notation: str, leak: float, bits: Any) -> None:
    network, integer, report = quantized(notation, leak, weight_bits=bits)
    assert report.equilibrium_converged
    prove(integer)
    kinds = set()
    for c in network.connections:
        parts = parts_of(integer, c)
        assert report.connections[c.name].parts == len(parts)
        for part in parts:
            assert (part.source, part.target, part.delay, part.geometry) == (c.source, c.target, c.delay, c.geometry)
            assert part.weight.shape == c.weight.shape
            kinds.add((type(c.geometry), c.source == INPUT))
            if isinstance(c.geometry, Convolution):
                assert part.weight_exponent == 0 or (c.source == INPUT and part.weight_exponent >= -8)
            else:
                assert part.weight_exponent >= 0
    assert (Convolution, True) in kinds
    assert (TransposedConvolution if "u" in notation else Convolution, False) in kinds
    assert sum(len(parts_of(integer, c)) for c in network.connections) == len(integer.connections)


def test_weights_beyond_the_mantissa_are_shared() -> None:
    """Events of weight 9 beside feedback of 0.02: one connection at exponent 0 would leave no feedback."""
    network, frames = event_network(9.0)
    integer, report = quantize(network, frames)
    prove(integer)
    assert report.connections["in"].parts > 1
    assert report.connections["in"].clipped == 0
    assert report.lost() == ()
    parts = parts_of(integer, network.connections[0])
    carried = sum(part.weight for part in parts) * report.populations["p"].scale
    assert np.abs(carried - network.connections[0].weight).max() == pytest.approx(report.connections["in"].max_error)
    assert report.connections["in"].relative_error < 0.02


def test_a_second_connection_has_to_be_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """For nothing, four are taken; at any price, as few as leave something of the rest. Constants cost nothing."""
    network, frames = event_network(9.0)
    parts = []
    for price in (1.0, 1e9):
        monkeypatch.setattr(module, "PRICE_OF_A_PART", price)
        parts.append(quantize(network, frames)[1].connections["in"].parts)
    assert parts[0] == 4
    assert parts[1] <= 2
    constant = tuple(
        dataclasses.replace(c, weight=c.weight * 1e-3 + 0.5) if c.source == ALWAYS_ON else c
        for c in network.connections
    )
    kept = tuple(dataclasses.replace(c, weight=c.weight * 1e-2) if c.name == "in" else c for c in constant)
    _, report = quantize(dataclasses.replace(network, connections=kept), frames)
    assert report.connections["on"].parts == 2


# ---- what is chosen ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize("notation", NOTATIONS)
def test_making_up_for_errors_pays_on_new_samples(notation: str, leak: float) -> None:
    network, better, _ = quantized(notation, leak, weight_bits=4)
    _, nearest, _ = quantized(notation, leak, weight_bits=4, rounding="nearest")
    codes = trained.digits().test.codes[100:160]
    assert rate_error(better, network, codes) < 0.9 * rate_error(nearest, network, codes)


def test_same_twice() -> None:
    (_, a, first), (_, b, second) = (quantized.__wrapped__("4C3s-6C3s-5C3 (F4C3u)", 0.95) for _ in range(2))
    assert first == second
    assert first.seconds > 0
    assert "seconds" not in first.as_dict()
    assert a.populations == b.populations
    assert a.provenance == b.provenance
    for x, y in zip(a.connections, b.connections, strict=True):
        assert np.array_equal(x.weight, y.weight)
        assert (x.name, x.weight_exponent) == (y.name, y.weight_exponent)
    assert a.readout.integrators is not None
    assert b.readout.integrators is not None
    assert np.array_equal(a.readout.integrators.weight, b.readout.integrators.weight)


def test_large_networks_are_searched_with_less_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the effort of a large network: float32, few finalists, few samples; the outcome is nearly as good."""
    network = floating("4C3s-6C3s-5C3 (F4C3u)")
    codes = trained.some_codes(60)
    _, thorough = quantize(network, codes)
    less = Effort(16, 8, 3, np.float32, 1e-5, 1e-5)
    monkeypatch.setattr(Effort, "for_network", classmethod(lambda _, network: less))
    around_the_loop: list[Any] = []
    error = module._Search._error
    monkeypatch.setattr(module._Search, "_error", lambda self, r: around_the_loop.append(r) or error(self, r))
    integer, quick = quantize(network, codes)
    prove(integer)
    assert len(around_the_loop) == 3 * len(network.populations)
    assert (quick.compared_samples, thorough.compared_samples) == (16, 60)
    errors = [np.mean([p.mean_rate_error for p in r.populations.values()]) for r in (quick, thorough)]
    assert errors[0] < 1.3 * errors[1]


def test_effort_falls_with_size() -> None:
    small, large = Effort.for_network(floating("30 (F30)")), Effort.for_network(floating("64C5-512C3-512C3 (F64C3)"))
    assert (small.tried, small.finalists, small.dtype, small.final_tolerance) == (24, 24, np.float64, 1e-9)
    assert (large.tried, large.finalists, large.compared, large.dtype) == (8, 3, 8, np.float32)


@pytest.mark.parametrize(("steps", "bits"), [(20, 8), (1000, 7)])
def test_readout_has_integrators(steps: int, bits: int) -> None:
    """As `integrators` makes them; where 8 bits could add up to more than 24, of fewer."""
    network = floating("30 (F30)", time_steps=steps)
    integer, _ = quantize(network, trained.some_codes(10))
    found = integer.readout.integrators
    expected = quantize_readout(network.readout, decay=0, time_steps=steps, weight_bits=bits)
    assert found is not None
    assert np.array_equal(found.weight, expected.weight)
    assert (found.weight_bits, found.parts, found.scale) == (bits, expected.parts, expected.scale)
    assert np.array_equal(integer.readout.weight, network.readout.weight)


# ---- what it costs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("notation", NOTATIONS)
def test_current_errors_and_bounds_of_the_report(notation: str) -> None:
    """Computed again with every weight in its place."""
    network, integer, report = quantized(notation)
    codes = trained.some_codes(60)
    rates = {INPUT: codes, **equilibrium_rates(network, codes).firing_rates}
    assert report.compared_samples == 60
    for c in (c for c in network.connections if c.source != ALWAYS_ON):
        sent = rates[c.source].reshape(60, -1)
        matrix = linear_map(network, c).unrolled()
        scale = report.populations[c.target].scale
        carried = sum(linear_map(integer, p).unrolled() * 2.0**p.weight_exponent for p in parts_of(integer, c)) * scale
        current, found = matrix @ sent.T, carried @ sent.T
        share = np.linalg.norm(found - current) / np.linalg.norm(current)
        assert report.connections[c.name].current_error == pytest.approx(share, rel=1e-4)
    bounds = potential_bounds(integer)
    for name, line in report.populations.items():
        assert line.potential_bound == max(-bounds[name][0].min(), bounds[name][1].max())
        assert 0.25 * 2**23 < line.potential_bound < 2**23


@pytest.mark.parametrize("notation", NOTATIONS)
def test_constant_currents_make_up_for_the_mean_cost(notation: str) -> None:
    """With 4 bits the mean current of a neuron, over the samples, is off by the rounding of its constant alone."""
    network, integer, report = quantized(notation, weight_bits=4)
    codes = trained.some_codes(60)
    rates = {INPUT: codes, **equilibrium_rates(network, codes).firing_rates, ALWAYS_ON: np.ones((60, 1))}
    for p in network.populations:
        scale = report.populations[p.name].scale
        lacking = np.zeros(p.size)
        for c in network.incoming(p.name):
            mean = rates[c.source].reshape(60, -1).mean(axis=0, keepdims=True).astype(float)
            lacking += _product(network, c, c.weight / scale, mean)
            for part in parts_of(integer, c):
                lacking -= _product(integer, part, part.weight * 2.0**part.weight_exponent, mean)
        neuron = p.neuron
        assert isinstance(neuron, FloatNeuron)
        # Half a unit of the constant; the input's floor is made up for as well: a quarter.
        assert np.abs(lacking).max() < 0.76
    assert isinstance(integer.populations[0].neuron, IntegerNeuron)


def _product(network: HardwareNetwork, c: Connection, weight: Array, mean: Array) -> Array:
    return linear_map(network, c).with_weight(weight).product(mean)[0]


# ---- what is refused -----------------------------------------------------------------------------------


def test_too_large_for_24_bits() -> None:
    network, frames = event_network(1.0, steps=400)
    heavy = tuple(dataclasses.replace(c, weight=c.weight - 40.0) if c.name == "in" else c for c in network.connections)
    with pytest.raises(PotentialBoundError, match="even the smallest scale is not proven to stay in range") as caught:
        quantize(dataclasses.replace(network, connections=heavy), frames)
    message = str(caught.value)
    assert re.search(
        r'potential of population "p": found 128 of 144 neurons could leave it, the worst is neuron \d+', message
    )
    assert "allowed: -8388607 .. 8388607 (24 bits)" in message


def test_too_large_for_the_mantissas() -> None:
    """One unit of weight is at most r = 2: 508 of them are 1,016."""
    network, frames = event_network(1.0, steps=1)
    heavy = np.zeros((4, 2, 3, 3))
    heavy[0, 0, 0, 0] = 1100.0
    large = (dataclasses.replace(network.connections[0], weight=heavy), *network.connections[1:])
    with pytest.raises(
        PotentialBoundError,
        match=r"weights of in are too large; allowed: 8 bits times 2\*\*7, or of a convolution .*currents: 16383 units",
    ):
        quantize(dataclasses.replace(network, connections=large), frames)
