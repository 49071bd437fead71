"""Warnings of the number of steps: another one than was trained, and spikes that never arrive."""

import dataclasses

import pytest

import trained
from fsnn_lava.conversion.lowering import lower
from fsnn_lava.verification.time_steps import time_step_warnings


@pytest.mark.parametrize(("steps", "beginnings"), [(20, []), (4, ["runs for T = 4, was trained for T = 20: "])])
def test_another_number_of_steps_is_told_of(steps: int, beginnings: list[str]) -> None:
    network = dataclasses.replace(lower(trained.random_network("12-10-8 (F12)")), time_steps=steps)
    found = time_step_warnings(network)
    assert [line[: len(start)] for line, start in zip(found, beginnings, strict=True)] == beginnings


def test_feedback_that_never_arrives_is_told_of() -> None:
    network = lower(trained.random_network("12-10-8 (F12)", time_steps=3))
    assert time_step_warnings(network) == [
        "feedback: its spikes arrive 3 steps late, and a window has 3: none ever arrives"
    ]
    assert time_step_warnings(lower(trained.random_network("12-10-8 (F12)", time_steps=3), timing="sequential")) == []
    assert time_step_warnings(dataclasses.replace(network, provenance={}, time_steps=4)) == []
