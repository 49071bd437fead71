"""The anytime report as JSON, as Markdown and as a picture."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from fsnn_lava.errors import MissingDependencyError
from fsnn_lava.verification.early_exit import Anytime, early_exits
from fsnn_lava.verification.early_exit_report import AnytimeReport

ANYTIME = Anytime(
    network="made up",
    labels=np.array([1, 0, 1]),
    predictions=np.array([[0, 0, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]]),
    margins=np.array([[1, 5, 2], [2, 5, 2], [3, 5, 2], [4, 0.5, 2]]),
    first_spike=np.array([0, 0, 1]),
    rate_error=np.array([0.25, 0.125, 0.0625, 0.03125]),
    rate_samples=2,
    reference="equilibrium",
    reference_converged=True,
)
EXITS = early_exits(ANYTIME, "settled", limits=[0, 0.3, float("inf")], stable_steps=1)
EXITS += early_exits(ANYTIME, "margin", limits=[4], stable_steps=1)
REPORT = AnytimeReport("simulator", ANYTIME, EXITS)


def test_json_has_the_promised_keys() -> None:
    values = json.loads(json.dumps(REPORT.as_dict(), allow_nan=False))
    assert set(values) == {"network", "backend", "samples", "time_steps", "accuracy", "rate_error", "early_exit"}
    assert (values["network"], values["backend"], values["samples"], values["time_steps"]) == (
        *("made up", "simulator"),
        *(3, 4),
    )
    assert values["accuracy"] == [2 / 3, 1, 1, 2 / 3]
    assert values["rate_error"] == {
        "mean": [0.25, 0.125, 0.0625, 0.03125],
        "reference": "equilibrium",
        "reference_converged": True,
        "samples": 2,
    }
    row = {"rule": "settled", "stable_steps": 1, "limit": 0, "accuracy": 2 / 3, "mean_steps": 4, "left_early": 0}
    assert values["early_exit"] == [
        row,
        row | {"limit": 0.3, "accuracy": 1, "mean_steps": (4 + 2 + 3) / 3, "left_early": 2 / 3},
        row | {"limit": None, "accuracy": 1, "mean_steps": (3 + 2 + 3) / 3, "left_early": 1},
        row | {"rule": "margin", "limit": 4, "accuracy": 1, "mean_steps": (4 + 2 + 4) / 3, "left_early": 1 / 3},
    ]


def test_markdown_holds_every_figure() -> None:
    text = REPORT.as_markdown()
    figures = ["| 1 | 66.67% | 0.25 |", "| 4 | 66.67% | 0.0312 |", "made up on simulator", "3 test samples"]
    figures += ["4 time steps", "| settled | 0 | 66.67% | 4.00 | 0.0% |", "| settled | 0.3 |"]
    figures += [
        "| settled | inf | 100.00% | 2.67 | 100.0% |",
        "| margin | 4 |",
        "the rates at which the network settles",
        "2 samples",
        "for 1 steps",
    ]
    assert [figure for figure in figures if figure not in text] == []
    assert "converge" not in text
    for table in (block for block in text.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_markdown_says_what_the_rates_are_compared_with() -> None:
    final = dataclasses.replace(REPORT, anytime=dataclasses.replace(ANYTIME, reference="final"))
    assert "from the same run's rates after all steps" in final.as_markdown()
    open_ = dataclasses.replace(REPORT, anytime=dataclasses.replace(ANYTIME, reference_converged=False))
    assert "**For some samples the iteration did not converge to an equilibrium within 1e-05" in open_.as_markdown()


def test_the_picture_is_the_same_each_time() -> None:
    pytest.importorskip("matplotlib")
    picture = REPORT.picture()
    assert picture == REPORT.picture()
    assert len(picture) < 60_000
    for words in (
        b"made up, simulator, 3 samples",
        b"exit, settled",
        b"exit, margin",
        b"mean rate error against equilibrium rates",
    ):
        assert words in picture


def test_what_is_zero_is_no_trouble() -> None:
    """A logarithmic axis has no place for it: nothing is wrong here, and no rate is off."""
    pytest.importorskip("matplotlib")
    right = dataclasses.replace(
        ANYTIME, rate_error=np.zeros(4), labels=np.ones(3, np.int64), predictions=np.ones((4, 3), np.int64)
    )
    exits = early_exits(right, "settled", limits=[0, 1], stable_steps=1)
    assert b"<svg" in AnytimeReport("simulator", right, exits).picture()


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r'needs matplotlib; install .*: pip install "fsnn-lava\[plots'):
        REPORT.picture()
