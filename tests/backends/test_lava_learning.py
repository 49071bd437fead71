"""Training in Lava: what a job is, and that every spike, gradient and weight is what the equations say."""

import math
import os
import signal
from dataclasses import fields, replace
from typing import Any

import numpy as np
import psutil
import pytest

import on_chip_reference as reference
from fsnn_lava.backends.lava import runner as lava_runner, worker_process
from fsnn_lava.backends.lava.learning import runner
from fsnn_lava.backends.lava.learning.clock import Clock
from fsnn_lava.backends.lava.learning.job import Learning, PlasticNetwork, Synapses, TrainingJob, TrainingOutcome
from fsnn_lava.backends.lava.learning.memory import TrainingMemory
from fsnn_lava.backends.lava.learning.plasticity import Trace, restriction
from fsnn_lava.backends.lava.learning.runner import train_on_lava
from fsnn_lava.errors import (
    ConfigError,
    ConvergenceError,
    IncompleteRunError,
    InputError,
    MissingDependencyError,
    NetworkError,
)
from on_chip_jobs import LEARNING, long_job, part, random_job

lava = pytest.mark.lava

# Sums of some tens of float64 numbers of order 1, in another order: errors of a few 1e-16 each.
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def assert_same_networks(found: PlasticNetwork, expected: PlasticNetwork, *, exactly: bool = False) -> None:
    """Weights and momenta are equal, to rounding or bit for bit."""
    assert found.named().keys() == expected.named().keys()
    for name, synapses in expected.named().items():
        for field in fields(synapses):
            here, there = getattr(found.named()[name], field.name), getattr(synapses, field.name)
            assert (here is None) == (there is None), (name, field.name)
            if here is not None and exactly:
                assert np.array_equal(here, there), (name, field.name)
            elif here is not None:
                np.testing.assert_allclose(here, there, **CLOSE, err_msg=f"{name} {field.name}")


@lava
@pytest.mark.parametrize(
    ("sizes", "leak", "feedback", "norm_bound"),
    [
        ((12,), 1.0, True, 2.0),
        ((12,), 0.9, False, 2.0),
        ((12, 10), 0.9, True, 100.0),
        ((12, 10), 1.0, False, 2.0),
        ((12, 10, 8), 1.0, True, 2.0),
        ((12, 10, 8), 0.95, True, 2.0),
    ],
    ids=str,
)
def test_spikes_and_updates_are_those_of_the_equations(
    sizes: tuple[int, ...], leak: float, feedback: bool, norm_bound: float
) -> None:
    job = random_job(sizes, leak=leak, feedback=feedback, norm_bound=norm_bound)
    expected = reference.train(job)
    found = train_on_lava(job)
    for b, sample in enumerate(expected.phases):
        for p in range(len(sizes)):
            assert np.array_equal(found.spikes[p][:, b], sample.forward[p]), (b, p)
            assert np.array_equal(found.spikes_back[p][:, b], sample.backward[p]), (b, p)
    assert found.updates == 3
    np.testing.assert_allclose(found.losses, [sample.loss for sample in expected.phases], **CLOSE)
    for name, gradient in expected.gradients[-1].items():
        for here, there in zip(found.gradients[name], gradient, strict=True):
            assert (here is None) == (there is None)
            if there is not None:
                np.testing.assert_allclose(here, there, **CLOSE, err_msg=name)
    assert_same_networks(found.network, expected.networks[-1])
    assert_kinds_of_neurons(found, job)


def assert_kinds_of_neurons(found: TrainingOutcome, job: TrainingJob) -> None:
    """What was compared is worth comparing: silent, saturated and other neurons, spikes of both signs; and counted."""
    for p, spikes in enumerate(found.spikes):
        counts = spikes[:, 0].sum(0)
        assert counts[0] == 0
        assert counts[1] == job.learning.time_steps
        assert ((counts > 0) & (counts < job.learning.time_steps)).sum() >= 2
        assert set(np.unique(found.spikes_back[p])) == {-1, 0, 1}
        np.testing.assert_allclose(found.mean_spikes[:, p], spikes.mean((0, 2)), **CLOSE)
        np.testing.assert_allclose(found.mean_spikes_back[:, p], np.abs(found.spikes_back[p]).mean((0, 2)), **CLOSE)


@lava
def test_pure_online_learning_updates_after_every_sample() -> None:
    job = random_job((6,), batches=(1, 1, 1, 1))
    found, expected = train_on_lava(job), reference.train(job)
    assert found.updates == 4
    assert_same_networks(found.network, expected.networks[-1])


@lava
def test_a_second_run_goes_on_bit_for_bit() -> None:
    """Momenta included: two runs of Lava are one."""
    job = random_job((8, 6), batches=(2, 1, 2))
    whole = train_on_lava(job)
    first = train_on_lava(part(job, slice(0, 1)))
    rest = train_on_lava(part(job, slice(1, None), network=first.network))
    assert_same_networks(rest.network, whole.network, exactly=True)
    assert np.array_equal(np.concatenate([first.losses, rest.losses]), whole.losses)
    assert np.array_equal(np.concatenate([first.predictions, rest.predictions]), whole.predictions)


class Interference:
    """Does something once ten samples are done; afterwards all of Lava's processes must be gone."""

    def __init__(self, number: signal.Signals | None) -> None:
        self.number = number
        self._before = set(psutil.Process().children(recursive=True))
        self.processes: list[psutil.Process] = []

    def __call__(self, done: int, total: int, loss: float) -> None:
        assert total == 200_000
        assert 0 < loss < 100
        if done < 10 or self.processes:
            return
        self.processes = [p for p in psutil.Process().children(recursive=True) if p not in self._before]
        if self.number is None:
            raise KeyboardInterrupt
        os.kill(self.processes[-1].pid, self.number)

    def assert_all_gone(self) -> None:
        assert len(self.processes) > 5
        _, alive = psutil.wait_procs(self.processes, timeout=10)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def assert_kept(error: IncompleteRunError, job: TrainingJob) -> None:
    """What a run of the whole updates alone would have given, bit for bit."""
    kept = error.result
    assert 0 < kept.updates < len(job.batches)
    assert len(kept.losses) == len(kept.predictions) == len(kept.mean_spikes) == error.samples == 2 * kept.updates
    again = train_on_lava(part(job, slice(0, kept.updates)))
    assert_same_networks(kept.network, again.network, exactly=True)
    assert np.array_equal(kept.losses, again.losses)
    assert np.array_equal(kept.mean_spikes_back, again.mean_spikes_back)


@lava
def test_an_interrupted_run_keeps_all_whole_updates() -> None:
    job, interference = long_job(), Interference(None)
    message = r"200000 samples ended in sample \d+ at step \d+, after \d+ of 7600000 steps; \d+ of 100000 updates"
    with pytest.raises(IncompleteRunError, match=message) as caught:
        train_on_lava(job, progress=interference)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    interference.assert_all_gone()
    assert_kept(caught.value, job)


@lava
def test_a_lava_process_that_dies() -> None:
    job, interference = long_job(), Interference(signal.SIGKILL)
    with pytest.raises(IncompleteRunError, match=r"ended by itself after step \d+, exit code -9") as caught:
        train_on_lava(job, progress=interference)
    interference.assert_all_gone()
    assert_kept(caught.value, job)


@lava
def test_timeout_before_the_first_step() -> None:
    with pytest.raises(IncompleteRunError, match=r"0 of 100000 updates are whole.*no step within 0\.01 s") as caught:
        train_on_lava(long_job(), timeout_s=0.01)
    kept = caught.value.result
    assert (caught.value.samples, kept.updates, kept.gradients) == (0, 0, {})
    assert_same_networks(kept.network, long_job().network, exactly=True)


@lava
def test_weights_that_diverge_are_told_and_what_was_before_is_kept() -> None:
    """The first step, of size 1e200, leaves weights that the second one's weight decay multiplies beyond all floats."""
    job = replace(random_job((4,), batches=(1, 1, 1)), learning_rates=(1e200,) * 3, recorded=0)
    message = "weights that are not finite after update 2; what they were before it is kept.*learning_rate"
    with pytest.raises(ConvergenceError, match=message) as caught:
        train_on_lava(job)
    incomplete = caught.value.__cause__
    assert incomplete.result.updates == 1
    assert np.isfinite(incomplete.result.network.readout.weight).all()


def test_without_lava(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lava_runner, "_installed", lambda module: False)
    with pytest.raises(MissingDependencyError, match=r"Lava is not installed.*fsnn-lava\[lava\]"):
        train_on_lava(random_job((4,)))


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
        replace(JOB.network, **changes)


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
        replace(JOB, **changes)


def test_windows_follow_each_other_at_one_step_a_connection() -> None:
    """Three populations, 4 steps forward and 5 back."""
    clock = Clock(3, 4, 5)
    steps = range(clock.sample_steps)
    forward = [[g for g in steps if clock.in_forward_window(p, g)] for p in range(4)]
    assert forward == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert clock.turn == 7
    backward = [[g for g in steps if clock.in_backward_window(p, g)] for p in (3, 2, 1)]
    assert backward == [[7, 8, 9, 10, 11], [8, 9, 10, 11, 12], [9, 10, 11, 12, 13]]
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

    monkeypatch.setattr(worker_process, "run_isolated", ended)
    monkeypatch.setattr(runner, "require_lava", lambda: None)
    with pytest.raises(IncompleteRunError, match=r"1 of 3 updates are whole.*interrupted") as caught:
        runner.train_on_lava(JOB)
    kept = caught.value.result
    assert (kept.updates, caught.value.samples, len(kept.losses)) == (1, 3, 3)
    assert all((synapses.weight == 1).all() for synapses in kept.network.named().values())
    assert all((weight == 1).all() for weight, _ in kept.gradients.values())
