"""The way from the trained network's rates to the integers', whose steps add up, and how far the equilibrium is."""

import dataclasses
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import trained
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.config import DeployConfig
from fsnn_lava.conversion.lowering import lower, run_torch
from fsnn_lava.errors import InputError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork, with_timing
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.verification.compare_runs import difference
from fsnn_lava.verification.error_budget import Budget, error_budget
from fsnn_lava.verification.report import closing
from small import codes_for, network


def means(budget: Budget) -> dict[str, float]:
    """Cause -> largest mean difference of any population."""
    return {c.name: max(d.mean for d in c.populations.values()) for c in budget.causes}


def distances(budget: Budget) -> dict[str, float]:
    """Distance from an equilibrium -> its largest mean of any population."""
    return {d.name: max(p.mean for p in d.populations.values()) for d in budget.distances}


def labels(codes: Array) -> Array:
    return trained.digits().test.labels[: len(codes)]


def twins() -> tuple[HardwareNetwork, HardwareNetwork]:
    """A float network whose weights are whole numbers, and the same in integers: nothing is left to round."""
    rng = np.random.default_rng(0)
    floating = network(rng.integers(0, 6, (9, 4)), rng.integers(0, 20, 9), neuron=FloatNeuron(240.0, 240.0, 1.0))
    integer = dataclasses.replace(
        floating,
        populations=(dataclasses.replace(floating.populations[0], neuron=IntegerNeuron(240, 240, 0, 0, 1.0)),),
        connections=tuple(
            dataclasses.replace(c, weight=c.weight.astype(np.int32), weight_bits=8) for c in floating.connections
        ),
    )
    return floating, integer


def test_rounding_alone() -> None:
    """Whole weights: no cause at all. One weight 0.4 higher: rounding, and nothing else."""
    floating, integer = twins()
    codes = codes_for(floating)
    found = means(error_budget(floating, integer, codes, np.zeros(20, np.int64)))
    assert set(found) == {"lowering", "timing", "rounding", "total"}
    assert not any(found.values())
    away = distances(error_budget(floating, integer, codes, np.zeros(20, np.int64)))
    assert away["finite time, float"] == away["finite time, integer"] > 0.0
    weight = floating.connections[0].weight.copy()
    weight[2, 1] += 0.4
    first = dataclasses.replace(floating.connections[0], weight=weight)
    floating = dataclasses.replace(floating, connections=(first, *floating.connections[1:]))
    again = error_budget(floating, integer, codes, np.zeros(20, np.int64))
    assert means(again)["lowering"] == means(again)["timing"] == 0.0
    (rounding,) = (d.populations["p"] for d in again.distances if d.name == "rounding at the equilibrium")
    assert rounding.maximum == pytest.approx(0.4 * codes[:, 1].max() / 240)
    assert rounding.mean == pytest.approx(0.4 * codes[:, 1].mean() / 240 / 9)


def test_each_cause_alone() -> None:
    """One population has no timing, and the lowered network stands for the trained one: two causes are exactly 0."""
    floating = trained.on_hardware(trained.random_network("24 (F24)"))
    integer, report = quantize(floating, trained.some_codes())
    budget = error_budget(floating, integer, trained.some_codes(), labels(trained.some_codes()))
    found = means(budget)
    assert found["lowering"] == found["timing"] == 0.0
    assert found["rounding"] == found["total"] > 0
    away, expected = distances(budget), report.populations["population1"].mean_rate_error
    # Equilibria are found to 1e-7 there, to 1e-9 here.
    assert away["rounding at the equilibrium"] == pytest.approx(expected, abs=1e-6)
    assert 0 < away["finite time, float"] < 1 / floating.time_steps
    assert 0 < away["finite time, integer"] < 1 / floating.time_steps
    assert budget.equilibrium_converged


def test_timing_shows_with_three_populations() -> None:
    net = trained.random_network("24-20-16 (F24)")
    floating = trained.on_hardware(net)
    integer, _ = quantize(floating, trained.some_codes())
    codes = trained.some_codes()
    budget = error_budget(floating, integer, codes, labels(codes))
    assert 0 < means(budget)["timing"] < 2 / floating.time_steps
    sequential, hardware = (
        FloatSimulator().run(with_timing(floating, t), codes).firing_rates  # type: ignore[arg-type]
        for t in ("sequential", "hardware")
    )
    (timing,) = (c for c in budget.causes if c.name == "timing")
    for name, rates in sequential.items():
        found, absolute = timing.populations[name], difference(rates, hardware[name])
        assert (found.mean, found.maximum) == (absolute.mean, absolute.maximum)
        assert found.signed == (hardware[name] - rates).mean()


def test_what_was_trained_in_hardware_timing_has_none_to_lose() -> None:
    floating = trained.on_hardware(trained.random_network("24-20-16 (F24)", timing="hardware"))
    integer, _ = quantize(floating, trained.some_codes())
    codes = trained.some_codes()
    budget = error_budget(floating, integer, codes, labels(codes), timing="hardware")
    assert means(budget)["timing"] == 0
    assert means(budget)["rounding"] == means(budget)["total"] > 0
    assert next(iter(budget.accuracy.items()))[1] == budget.accuracy["float, hardware timing"]
    assert "float, sequential" not in budget.accuracy


def test_lowering_shows_what_the_trained_run_had_otherwise() -> None:
    net = trained.random_network("24 (F24)", leak=0.9)
    floating = trained.on_hardware(net)
    integer, _ = quantize(floating, trained.some_codes())
    codes = trained.some_codes()
    right = run_torch(net, floating, codes, time_steps=20)
    found = means(error_budget(floating, integer, codes, labels(codes), trained=right))
    assert found["lowering"] < 1e-12  # leak-weighted spikes are summed in another order
    wrong = dataclasses.replace(right, firing_rates={n: r + 0.25 for n, r in right.firing_rates.items()})
    found = means(error_budget(floating, integer, codes, labels(codes), trained=wrong))
    assert found["lowering"] == pytest.approx(0.25)


@pytest.mark.parametrize("threshold", ["full", "half"])
@pytest.mark.parametrize("notation", ["24 (F24)", "24-20-16 (F24)"])
def test_steps_add_up_to_the_total(notation: str, threshold: Any) -> None:
    """With sign, and in the direction of the total; what is printed does so to the last digit."""
    net = trained.random_network(notation)
    floating = trained.on_hardware(net)
    integer, _ = quantize(floating, trained.some_codes(), config=DeployConfig(threshold=threshold))
    codes = trained.some_codes()
    right = run_torch(net, floating, codes, time_steps=20)
    budget = error_budget(floating, integer, codes, labels(codes), trained=right)
    *parts, total = budget.causes
    names = ["lowering", "timing", *(["threshold"] if threshold == "half" else []), "rounding"]
    assert [cause.name for cause in parts] == names
    last = IntegerSimulator().run(integer, codes).firing_rates
    for population, whole in total.populations.items():
        steps = [cause.populations[population] for cause in parts]
        # Sums of some thousand numbers below 1, in another order.
        assert sum(step.signed for step in steps) == pytest.approx(whole.signed, abs=1e-14)
        assert sum(step.share for step in steps) == pytest.approx(whole.mean, abs=1e-14)
        assert whole.share == whole.mean == difference(right.firing_rates[population], last[population]).mean > 0
        for name in ("share", "signed"):
            printed = [Decimal(text) for text in closing([getattr(step, name) for step in (*steps, whole)])]
            assert sum(printed[:-1]) == printed[-1]


@pytest.mark.parametrize(
    ("figures", "printed"),
    [
        ((0.004, 0.004, 0.004, 0.012), ["0.00", "0.00", "0.01", "0.01"]),
        ((-0.004, -0.004, -0.008), ["-0.01", "0.00", "-0.01"]),
        ((0.0, 0.0, 0.0), ["0.00", "0.00", "0.00"]),
        ((0.25, -0.125, 0.125), ["0.25", "-0.13", "0.12"]),
    ],
)
def test_printed_figures_add_up(figures: tuple[float, ...], printed: list[str]) -> None:
    found = closing(figures, digits=2)
    assert sum(map(Decimal, found[:-1])) == Decimal(found[-1])
    assert sorted(found) == sorted(printed)


def test_accuracy_of_every_stage() -> None:
    net = trained.trained_network()
    floating = trained.on_hardware(net)
    codes = trained.some_codes(200)
    integer, _ = quantize(floating, codes)
    budget = error_budget(floating, integer, codes, labels(codes))
    assert list(budget.accuracy) == [
        "trained",
        "float, sequential",
        "float, hardware timing",
        "integer",
        "float, equilibrium",
        "integer, equilibrium",
    ]
    run = IntegerSimulator().run(integer, codes)
    assert budget.accuracy["integer"] == np.mean(run.predictions == labels(codes))
    assert all(0.5 < value <= 1 for value in budget.accuracy.values())


def test_budget_says_that_nothing_converged() -> None:
    floating = lower(trained.random_network("24 (F24)"), timing="sequential")
    connections = tuple(
        dataclasses.replace(c, weight=-np.eye(24) * 6) if c.name == "feedback" else c for c in floating.connections
    )
    floating = dataclasses.replace(floating, connections=connections)
    codes = trained.some_codes(3)
    integer, report = quantize(floating, codes)
    assert report.unsettled_samples > 0
    budget = error_budget(floating, integer, codes, labels(codes))
    assert not budget.equilibrium_converged
    assert 0 < budget.unsettled_samples <= 3
    harmless, _ = quantize(lower(trained.random_network("24 (F24)"), timing="sequential"), codes)
    assert not error_budget(floating, harmless, codes, labels(codes)).equilibrium_converged, "one did, one did not"


def test_budget_refuses_labels_that_do_not_fit() -> None:
    floating = lower(trained.random_network("24 (F24)"), timing="sequential")
    codes = trained.some_codes(3)
    integer, _ = quantize(floating, codes)
    with pytest.raises(InputError, match=r"has 3 samples; found labels of shape \(2,\); give one class per sample"):
        error_budget(floating, integer, codes, np.zeros(2, np.int64))
