"""What a training on Lava is asked for: its refusals, its clock, and how a connection changes its own weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from fsnn_lava.backends.lava import learning_runner as lava_trainer
from fsnn_lava.backends.lava.learning.clock import Clock
from fsnn_lava.backends.lava.learning.job import Learning, Synapses, TrainingJob, TrainingOutcome
from fsnn_lava.backends.lava.learning.memory import TrainingMemory
from fsnn_lava.backends.lava.learning.plasticity import Trace, restriction
from fsnn_lava.errors import ConfigError, IncompleteRunError, InputError, NetworkError
from on_chip_jobs import LEARNING, random_job

JOB = random_job((6, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedforward": ()}, "without populations; expected at least one"),
        ({"readout": Synapses(np.zeros((4, 6)), np.zeros(4))}, r"readout: weight of shape \(4, 6\).*\(4, 5\), float64"),
        ({"feedback": Synapses(np.zeros((5, 6)))}, r"feedback: weight of shape \(5, 6\).*expected \(6, 5\)"),
        ({"feedback": Synapses(np.zeros((6, 5)), np.zeros(6))}, "feedback: bias found; the feedback alone has none"),
        ({"readout": Synapses(np.zeros((4, 5)))}, "readout: bias missing"),
        ({"readout": Synapses(np.zeros((4, 5), np.float32), np.zeros(4))}, "readout: weight.*float32; expected"),
        ({"readout": Synapses(np.zeros((4, 5)), np.full(4, np.nan))}, "readout: bias with values that are not finite"),
        (
            {"readout": Synapses(np.zeros((4, 5)), np.zeros(4), np.zeros((5, 4)), np.zeros(4))},
            r"readout: weight momentum of shape \(5, 4\)",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        dataclasses.replace(JOB.network, **changes)


def test_learning_names_every_violation_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Learning(time_steps=0, time_steps_back=0, loss_scale=math.inf, momentum=1.0, weight_decay=-1.0)
    message = str(caught.value)
    for name in ("time_steps 0", "time_steps_back 0", "loss_scale inf", "momentum 1.0", "weight_decay -1.0"):
        assert name in message


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"inputs": np.zeros((6, 7))}, InputError, r"inputs of shape \(6, 7\).*\(6, 8\) float64"),
        ({"inputs": np.zeros((6, 8), np.float32)}, InputError, "float32; expected"),
        ({"inputs": np.full((6, 8), np.inf)}, InputError, "all finite"),
        ({"labels": np.full(6, 4)}, InputError, r"labels of shape \(6,\), int64.* 0 .. 3"),
        ({"labels": np.zeros(6)}, InputError, "float64; expected int64"),
        ({"batches": (3, 2)}, ConfigError, r"batches \(3, 2\) with 3 learning rates for 6 samples"),
        ({"batches": (3, 3, 0)}, ConfigError, "sizes of at least 1"),
        ({"learning_rates": (0.1,)}, ConfigError, "with 1 learning rates"),
        ({"recorded": 7}, ConfigError, "recorded: found 7; allowed: 0 .. 6"),
    ],
)
def test_jobs_that_do_not_fit_are_refused(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        dataclasses.replace(JOB, **changes)


def test_windows_follow_each_other_at_one_step_a_connection() -> None:
    """Three populations, 4 steps forward and 5 back."""
    clock = Clock(3, 4, 5)
    steps = range(clock.sample_steps)
    assert [[g for g in steps if clock.in_forward_window(p, g)] for p in range(4)] == [
        [0, 1, 2, 3],
        [1, 2, 3, 4],
        [2, 3, 4, 5],
        [3, 4, 5, 6],
    ]
    assert clock.turn == 7
    assert [[g for g in steps if clock.in_backward_window(p, g)] for p in (3, 2, 1)] == [
        [7, 8, 9, 10, 11],
        [8, 9, 10, 11, 12],
        [9, 10, 11, 12, 13],
    ]
    assert clock.sample_steps == 14
    assert [clock.at(step) for step in (1, 14, 15)] == [(0, 0), (0, 13), (1, 0)]
    assert [step for step in range(1, 30) if clock.is_last(step)] == [14, 28]


@pytest.mark.parametrize("leak", [1.0, 0.8])
def test_trace_is_the_leak_weighted_mean(leak: float) -> None:
    messages = np.random.default_rng(0).normal(size=(7, 3))
    trace = Trace(3, steps=7, leak=leak)
    trace.add(messages[0])
    trace.clear()
    for message in messages:
        trace.add(message)
    weights = leak ** np.arange(6, -1, -1.0)
    # Seven float64 numbers of order 1.
    np.testing.assert_allclose(trace.mean(), weights @ messages / weights.sum(), rtol=1e-13, atol=1e-15)


def test_restriction_only_ever_shrinks() -> None:
    weight = np.array([[3.0, 0.0], [0.0, 4.0]])
    assert restriction(weight, 10.0) == 1.0
    assert restriction(weight, 2.0) == 0.4
    assert restriction(weight, math.inf) == 1.0
    assert restriction(np.zeros((2, 2)), 2.0) == 1.0


def test_memory_is_shared_by_its_descriptor_and_keeps_the_last_two_updates() -> None:
    here = TrainingMemory(JOB)
    there = TrainingMemory(JOB, here.descriptor)
    record, before = there.synapses["feedback"], JOB.network.named()["feedback"]
    for update in (1, 2, 3):
        record.write(tuple(np.full((6, 5), 10.0 * update + k) for k in range(3)), None)
    here.close()
    assert int(here.synapses["feedback"].updates[0]) == 3
    for update in (2, 3):
        synapses, (gradient, bias_gradient) = here.synapses["feedback"].at(update, before)
        assert synapses.weight_momentum is not None
        found = (synapses.weight, synapses.weight_momentum, gradient)
        assert all(np.array_equal(array, np.full((6, 5), 10.0 * update + k)) for k, array in enumerate(found))
        assert (synapses.bias, synapses.bias_momentum, bias_gradient) == (None, None, None)


def test_learning_is_kept_as_given() -> None:
    assert JOB.clock == Clock(2, LEARNING.time_steps, LEARNING.time_steps_back)
    assert JOB.steps == 6 * (2 + 12 + 1 + 25)


def test_what_some_connections_alone_have_learnt_is_no_whole_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends while all have finished one update, and the readout two."""

    def ended(
        module: str, task: tuple[TrainingJob, int], *, on_message: object, silence_s: float, inherited: tuple[int, ...]
    ) -> None:
        job, descriptor = task
        records = TrainingMemory(job, descriptor).synapses
        for name, value in [*((name, 1.0) for name in records), ("readout", 2.0)]:
            synapses = job.network.named()[name]
            weight, bias = np.full_like(synapses.weight, value), synapses.bias
            biases = None if bias is None else (np.full_like(bias, value),) * 3
            records[name].write((weight,) * 3, biases)
        raise KeyboardInterrupt

    monkeypatch.setattr(lava_trainer, "run_isolated", ended)
    monkeypatch.setattr(lava_trainer, "require_lava", lambda: None)
    with pytest.raises(IncompleteRunError, match=r"1 of 3 updates are whole.*interrupted") as caught:
        lava_trainer.train_on_lava(JOB)
    kept = caught.value.result
    assert isinstance(kept, TrainingOutcome)
    assert (kept.updates, caught.value.samples, len(kept.losses)) == (1, 3, 3)
    assert all((synapses.weight == 1).all() for synapses in kept.network.named().values())
    assert all((weight == 1).all() for weight, _ in kept.gradients.values())
