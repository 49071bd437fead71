"""What the quantizer's report says, computed again from the networks."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

import trained
from fsnn_lava.config import DeployConfig
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware.equilibrium import equilibrium_rates
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import ALWAYS_ON, STATE_LIMIT, Connection, FloatNeuron, HardwareNetwork, IntegerNeuron
from fsnn_lava.hardware.overflow_proof import potential_bounds
from fsnn_lava.quantization.calibrated import refuse_lost
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.quantization.rounding import round_weights
from small import codes_for, network, parts_of

NETWORKS = [("30 (F30)", 1.0), ("30 (F30)", 0.95), ("24-20-16 (F24)", 1.0), ("24-20-16 (F24)", 0.8)]


def in_float_units(integer: HardwareNetwork, name: str) -> Array:
    """The weights that the mantissas of a float connection stand for."""
    parts = parts_of(integer, name)
    neuron = integer.population(parts[0].target).neuron
    assert isinstance(neuron, IntegerNeuron)
    return sum(c.weight * 2.0**c.weight_exponent for c in parts) * neuron.scale


@pytest.mark.parametrize("rounding", ["nearest", "compensated"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("notation", "leak"), NETWORKS)
def test_report_says_what_happened(notation: str, leak: float, bits: Any, rounding: Any) -> None:
    """Every figure computed again from the two networks."""
    floating = trained.on_hardware(trained.random_network(notation, leak=leak))
    codes = trained.some_codes()
    integer, report = quantize(floating, codes, config=DeployConfig(weight_bits=bits, rounding=rounding))
    assert report.calibration_samples == 40
    assert list(report.connections) == [c.name for c in floating.connections]
    for c in floating.connections:
        found, parts = report.connections[c.name], parts_of(integer, c.name)
        error = in_float_units(integer, c.name) - c.weight
        assert found.max_error == pytest.approx(np.abs(error).max())
        assert found.rms_error == pytest.approx(np.sqrt((error**2).mean()))
        assert found.relative_error == pytest.approx(np.linalg.norm(error) / np.linalg.norm(c.weight))
        assert (found.weight_bits, found.weight_exponent) == (parts[0].weight_bits, parts[0].weight_exponent)
        if c.source != ALWAYS_ON:
            scale = report.populations[c.target].scale
            half = 1 << (bits - 1)
            exact = np.rint(c.weight / scale / 2.0**found.weight_exponent)
            if rounding == "nearest":
                assert np.array_equal(parts[0].weight, np.clip(exact, -half, half - 1))
            assert found.clipped == np.sum((exact < -half) | (exact >= half))
    wanted, settled = (equilibrium_rates(n, codes).firing_rates for n in (floating, integer))
    for p in integer.populations:
        line, neuron = report.populations[p.name], p.neuron
        assert isinstance(neuron, IntegerNeuron)
        error = np.abs(settled[p.name] - wanted[p.name])
        # Both iterations stop at changes of 1e-9, a few of which are still to come.
        assert (line.mean_rate_error, line.max_rate_error) == pytest.approx((error.mean(), error.max()), abs=1e-8)
        assert (line.scale, line.reset_amount, line.v_threshold) == (
            neuron.scale,
            neuron.reset_amount,
            neuron.v_threshold,
        )
        assert line.leak_error == pytest.approx(neuron.leak - leak, abs=1e-15)
        assert abs(line.leak_error) <= 0.5 / 4096


def test_clipping_is_counted_and_taken_where_it_pays() -> None:
    """One weight a little above what 127 holds at exponent 0: cutting it costs less than doubling every step."""
    weight = np.append(np.random.default_rng(0).integers(-100, 101, 400) + 0.25, 127.8)[None, :] / 100
    c = Connection("w", "p", "p", weight)
    (integer,), clipped = round_weights(c, 0.01, bits=8, graded=False)
    assert (integer.weight_exponent, clipped, integer.weight.max()) == (0, 1, 127)
    (far,), clipped = round_weights(dataclasses.replace(c, weight=weight * 3), 0.01, bits=8, graded=False)
    assert (far.weight_exponent, clipped) == (2, 0)


def test_provenance_holds_settings_and_report() -> None:
    floating = trained.on_hardware(trained.random_network("24 (F24)"))
    config = DeployConfig(weight_bits=6, threshold="half", time_steps=12)
    integer, report = quantize(floating, trained.some_codes(), config=config)
    provenance = json.loads(json.dumps(integer.provenance, allow_nan=False))
    assert provenance["deployment"] == dataclasses.asdict(config)
    assert provenance["quantization"] == report.as_dict()
    before = json.loads(json.dumps(floating.provenance))
    assert {k: v for k, v in provenance.items() if k in before} == before


def test_time_steps_can_be_chosen() -> None:
    floating = trained.on_hardware(trained.random_network("24 (F24)"))
    longer, _ = quantize(floating, trained.some_codes(), config=DeployConfig(time_steps=200))
    assert longer.time_steps == 200
    assert quantize(floating, trained.some_codes())[0].time_steps == floating.time_steps
    bounds = potential_bounds(longer)["population1"]
    assert max(-bounds[0].min(), bounds[1].max()) <= STATE_LIMIT


def test_report_says_that_an_equilibrium_was_not_found() -> None:
    neuron = FloatNeuron(2.0, 2.0, 1.0)
    net = network([[0.1]], [2.0], neuron=neuron)
    back = Connection("back", "p", "p", np.array([[-6.0]]), delay=1)
    _, report = quantize(dataclasses.replace(net, connections=(*net.connections, back)), codes_for(net))
    assert not report.equilibrium_converged


FRAMES = np.random.default_rng(0).integers(0, 2, (20, 16, 4)).astype(np.uint8)


def strongly_driven(bias: float, *, strongest: float) -> HardwareNetwork:
    """Eight neurons with this constant current each; the inhibition of one bounds the scale of all."""
    weight = np.full((8, 4), 0.05)
    weight[0] = -strongest
    return network(weight, np.full(8, bias), kind="event", time_steps=20)


def test_lost_constant_current_is_refused_however_strong_other_currents_are() -> None:
    """A tenth of the reset amount, rounded to nothing; the inhibition is a thousand times as strong."""
    floating = strongly_driven(0.2, strongest=300.0)
    integer, report = quantize(floating, FRAMES, config=DeployConfig(rounding="nearest"))
    assert not in_float_units(integer, "on").any()
    assert report.lost() == ("on",)
    with pytest.raises(UnsupportedError, match=r"T = 20 lose these connections(.|\n)*allowed: 50%\):\n  on: 100%\n"):
        refuse_lost(report, floating.time_steps)


def test_negligible_constant_current_may_be_lost() -> None:
    """A five-hundredth of the reset amount, rounded to nothing: less than one spike in the window."""
    floating = strongly_driven(0.004, strongest=8.0)
    integer, report = quantize(floating, FRAMES, config=DeployConfig(rounding="nearest"))
    assert not in_float_units(integer, "on").any()
    line = report.connections["on"]
    assert line.relative_error == 1.0
    assert line.current_error == pytest.approx(0.004 / (0.02 * 2.0))
    assert report.lost() == ()
    refuse_lost(report, floating.time_steps)
