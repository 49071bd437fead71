"""Networks that have no equilibrium, quantized: by the rates of a run, to a proven network that fires as the floats."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import trained
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.config import DeployConfig
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import HardwareNetwork, prove
from fsnn_lava.network import RateMap, equilibrium_rates
from fsnn_lava.quantization import measured_reach, quantize
from fsnn_lava.quantization.calibration_rates import calibration_rates
from fsnn_lava.quantization.scales import dequantized
from fsnn_lava.verification import record_export
from fsnn_lava.verification.structure import against_float, numbers_of

LAWS = [("zero", 0.0), ("zero", 0.4), ("subtract", 0.4)]


def floating(law: tuple[Any, float], *, notation: str = "24-20-16 (F24)", leak: float = 0.9) -> HardwareNetwork:
    """A random network; its thresholds are larger where the current adds up."""
    network = trained.on_hardware(trained.random_network(notation, leak=leak))
    reset, current_leak = law
    populations = tuple(
        replace(p, neuron=replace(p.neuron, reset=reset, current_leak=current_leak)) for p in network.populations
    )
    return replace(network, populations=populations)


@pytest.mark.parametrize("law", LAWS)
def test_integers_fire_as_the_floats(law: tuple[Any, float]) -> None:
    network, codes = floating(law), trained.some_codes(60)
    integer, report = quantize(network, codes)
    prove(integer)
    for before, after in zip(network.populations, integer.populations, strict=True):
        assert (after.neuron.reset, after.neuron.current_decay) == (law[0], round(4096 * (1 - law[1])))
        assert after.neuron.v_threshold * after.neuron.scale == pytest.approx(before.neuron.v_threshold, rel=0.01)
        if law[0] == "zero":
            assert after.neuron.v_threshold == after.neuron.reset_synapse
            assert report.populations[after.name].reset_amount == 0
    exact, found = FloatSimulator().run(network, codes), IntegerSimulator().run(integer, codes)
    for name, rates in found.firing_rates.items():
        error = np.abs(rates - exact.firing_rates[name])
        assert report.populations[name].mean_rate_error == pytest.approx(error.mean())
        # 8 bits: up to 0.010 of the same network whose spikes subtract and whose currents have no memory
        assert error.mean() < 0.013
        assert 0.02 < rates.mean() < 0.9
    assert report.settling == {}
    assert list(against_float(network, integer, quantization=report.as_dict())) == []


def test_what_was_exported_is_told_from_what_was_not() -> None:
    network = floating(("zero", 0.4))
    integer, report = quantize(network, trained.some_codes(30))
    first = integer.populations[0]
    for changed, element in (({"reset": "subtract"}, "kind of reset"), ({"current_decay": 4096}, "current leak")):
        other = replace(first, neuron=replace(first.neuron, **changed))
        wrong = replace(integer, populations=(other, *integer.populations[1:]))
        found = list(against_float(network, wrong, quantization=report.as_dict()))
        assert [d.element for d in found] == [element]
        assert numbers_of(wrong) != numbers_of(integer)


def test_numbers_of_other_neurons_are_as_before() -> None:
    """So that records of earlier exports still fit."""
    network = trained.on_hardware(trained.random_network("12 (F12)"))
    entries = numbers_of(network)["populations"]["population1"]
    assert sorted(entries) == ["leak", "order", "reset", "shape", "start", "threshold"]


@pytest.mark.parametrize("law", LAWS)
def test_the_equilibrium_refuses_it(law: tuple[Any, float]) -> None:
    network, codes = floating(law), trained.some_codes(3)
    reasons = {
        ("zero", 0.0): "reset to zero",
        ("zero", 0.4): r"reset to zero and a current that decays \(current_leak 0\.4\)",
        ("subtract", 0.4): r"a current that decays \(current_leak 0\.4\)",
    }
    message = rf'has no equilibrium rates:\n  population "population1": found {reasons[law]}; allowed: reset by sub'
    with pytest.raises(UnsupportedError, match=message):
        equilibrium_rates(network, codes)
    with pytest.raises(UnsupportedError, match=message):
        RateMap(network)


def test_calibration_rates_are_those_of_a_run() -> None:
    network, codes = floating(("zero", 0.4)), trained.some_codes(5)
    found = calibration_rates(network, codes, tolerance=1e-9)
    assert found.settling is None
    assert found.settled.all()
    run = FloatSimulator().run(network, codes)
    for name, rates in run.firing_rates.items():
        assert np.array_equal(found.firing_rates[name], rates)


def test_half_a_reset_is_refused_where_there_is_none() -> None:
    message = r'population "population1": found threshold half and reset to zero; allowed: threshold full'
    with pytest.raises(UnsupportedError, match=message):
        quantize(floating(("zero", 0.0)), trained.some_codes(5), config=DeployConfig(threshold="half"))
    quantize(floating(("subtract", 0.4)), trained.some_codes(20), config=DeployConfig(threshold="half"))


def test_a_memory_that_12_bits_cannot_hold_is_refused() -> None:
    message = r'population "population1": found current_leak 0\.9999; allowed: at most 0\.999755859375 \(12 bits\)'
    with pytest.raises(UnsupportedError, match=message):
        quantize(floating(("zero", 0.9999)), trained.some_codes(5))


@pytest.mark.parametrize("law", LAWS)
def test_reach_and_record_are_measured(law: tuple[Any, float]) -> None:
    network, codes = floating(law), trained.some_codes(20)
    integer, _ = quantize(network, codes)
    reach = measured_reach(integer, codes, IntegerSimulator().run(integer, codes).peaks)
    for found in reach.values():
        assert 0 < found.observed <= found.attacked <= found.bound
    record = record_export(network, integer, codes)
    assert record.is_of(network, integer)
    assert ("current leak" in record.rows["population1"]) == (law[1] > 0)


def test_floats_of_the_integers_have_the_same_laws() -> None:
    network = floating(("zero", 0.4))
    back = dequantized(quantize(network, trained.some_codes(20))[0])
    for one, other in zip(network.populations, back.populations, strict=True):
        assert one.neuron.reset == other.neuron.reset
        assert other.neuron.current_leak == pytest.approx(one.neuron.current_leak, abs=1 / 4096)
        assert other.neuron.v_threshold == pytest.approx(one.neuron.v_threshold)
