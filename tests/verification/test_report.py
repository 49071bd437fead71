"""The verification report as JSON and as Markdown."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import trained
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.verification.agreement import SpikeAgreement, SpikeDifference
from fsnn_lava.verification.compare_runs import (
    SETTLING,
    Budget,
    Cause,
    Difference,
    Divergence,
    Pair,
    compare_all,
    error_budget,
)
from fsnn_lava.verification.report import Report

NOTHING = Difference(0.0, 0.0)
SAME = {"population1": NOTHING, "population2": NOTHING}
EXACT = "the same spikes in every population, sample and step"
PAIR = Pair("simulator", "lava-fixed", "exact", EXACT, True, 0.0, 0.0, None, SAME)
LIMIT, PLACE = "mean rate difference <= 1/T = 0.0333", Divergence("population2", 17, 3, 41)
BROKEN = Pair("torch", "lava-fixed", "statistical", LIMIT, False, 0.0461, 0.789, PLACE, SAME)
CAUSE = Cause("timing", "one - other", {"population1": Difference(0.0123, 0.456), "population2": NOTHING})
SETTLED = Cause(SETTLING, "one - equilibrium", {"population1": Difference(0.0321, 0.654), "population2": NOTHING})
BUDGET = Budget(
    (CAUSE, SETTLED),
    {"population1": 0.107, "population2": 0.2},
    {"trained": 0.975, "integer": 0.9625},
    equilibrium_converged=True,
)
TIE = SpikeDifference(2, "population1", 5, 19, 3e-16)
LOWERING = SpikeAgreement(80, (TIE,), ())
REPORT = Report(
    network={"name": "digits", "notation": "24-20 (F24)"},
    samples=80,
    time_steps=30,
    accuracy={"torch": 0.9725, "lava-fixed": 0.9375},
    pairs=(PAIR, BROKEN),
    lowering=LOWERING,
    budget=BUDGET,
)


def numbers(value: Any) -> Iterator[float]:
    """Every number below a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def test_json_has_the_promised_keys() -> None:
    """Other programs read them: a change here is a change of an interface."""
    values = json.loads(json.dumps(REPORT.as_json(), allow_nan=False))
    promised = {"accuracy", "pairs", "lowering", "budget", "network", "samples", "time_steps"}
    assert set(values) == promised | {"agrees"}
    promised = {"a", "b", "relation", "agrees", "mean_rate_difference", "max_rate_difference", "first_divergence"}
    for pair in values["pairs"]:
        assert set(pair) == promised | {"requirement", "populations"}
    assert values["accuracy"] == {"torch": 0.9725, "lava-fixed": 0.9375}
    assert (values["samples"], values["time_steps"], values["agrees"]) == (80, 30, False)
    assert values["network"] == {"name": "digits", "notation": "24-20 (F24)"}
    assert [pair["first_divergence"] for pair in values["pairs"]] == [
        None,
        {"population": "population2", "step": 17, "sample": 3, "neuron": 41},
    ]
    assert values["budget"]["accuracy"] == {"trained": 0.975, "integer": 0.9625}
    cause, settling = values["budget"]["causes"]
    assert settling["populations"]["population1"] == {"mean": 0.0321, "maximum": 0.654}
    assert (cause["name"], cause["compares"]) == ("timing", "one - other")
    assert cause["populations"]["population1"] == {"mean": 0.0123, "maximum": 0.456}


def test_json_of_real_runs_holds_finite_numbers_only() -> None:
    floating = trained.on_hardware(trained.random_network("16-12 (F16)"))
    codes, labels = trained.some_codes(10), trained.digits().test.labels[:10]
    integer, _ = quantize(floating, codes)
    names = [p.name for p in floating.populations]
    runs = [FloatSimulator().run(floating, codes), IntegerSimulator().run(integer, codes, record=names)]
    budget = error_budget(floating, integer, codes, labels)
    report = Report({}, 10, 20, {}, compare_all(runs), SpikeAgreement(10, (), ()), budget)
    found = list(numbers(json.loads(json.dumps(report.as_json(), allow_nan=False))))
    assert len(found) > 30
    assert all(map(math.isfinite, found))


def test_markdown_holds_every_figure() -> None:
    text = REPORT.as_markdown()
    figures = ["80 test samples", "30 time steps", "97.25%", "93.75%", "97.50%", "96.25%", "0.0461", "0.789"]
    figures += [
        "| population1 | 0.107 | 0.0321 | 0.654 |",
        "0.0123 / 0.456",
        "24-20 (F24)",
        "torch / lava-fixed",
        "simulator / lava-fixed",
        "1/T = 0.0333",
    ]
    figures += ['population "population2", step 17, neuron 41 (sample 3)', "the same spikes in every population"]
    assert [figure for figure in figures if figure not in text] == []


def test_markdown_tables_are_rectangular() -> None:
    """Every row has as many cells as the header above it."""
    blocks = [block for block in REPORT.as_markdown().split("\n\n") if block.startswith("|")]
    assert len(blocks) == 6
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_verdict() -> None:
    assert not REPORT.agrees
    assert "**A pair breaks its relation.**" in REPORT.as_markdown()
    assert "**no**" in REPORT.as_markdown()
    right = dataclasses.replace(REPORT, pairs=(PAIR,), lowering=SpikeAgreement(80, (), ()))
    assert right.agrees
    assert "Every pair keeps its relation." in right.as_markdown()
    assert "**" not in right.as_markdown()


def test_every_tie_is_listed_and_what_is_none_breaks_the_verdict() -> None:
    text = REPORT.as_markdown()
    assert "every spike is the same in 79 of 80 samples" in text
    assert "| tie | 2 | population1 | 5 | 19 | 3e-16 |" in text
    assert list(REPORT.as_json()["lowering"]["ties"]) == [dataclasses.asdict(TIE)]
    wrong = dataclasses.replace(TIE, distance=0.02)
    broken = dataclasses.replace(REPORT, pairs=(PAIR,), lowering=SpikeAgreement(80, (), (wrong,)))
    assert not broken.agrees
    assert "| **not explained** | 2 | population1 | 5 | 19 | 0.02 |" in broken.as_markdown()
    same = dataclasses.replace(REPORT, lowering=SpikeAgreement(80, (), ()))
    assert "every spike is the same in 80 of 80 samples." in same.as_markdown()
    assert "A tie is" not in same.as_markdown()


def test_markdown_says_that_nothing_converged() -> None:
    report = dataclasses.replace(REPORT, budget=dataclasses.replace(BUDGET, equilibrium_converged=False))
    assert "**The iteration did not converge to an equilibrium.**" in report.as_markdown()
    assert "converge" not in REPORT.as_markdown()
