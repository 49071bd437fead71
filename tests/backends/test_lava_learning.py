"""Training in Lava: every spike, gradient and weight is what the equations say; nothing whole is ever lost."""

from __future__ import annotations

import dataclasses
import os
import signal

import numpy as np
import psutil
import pytest

import on_chip_reference as reference
from fsnn_lava.backends.lava import runner as lava_runner
from fsnn_lava.backends.lava.learning.job import PlasticNetwork, TrainingJob, TrainingOutcome
from fsnn_lava.backends.lava.learning_runner import train_on_lava
from fsnn_lava.errors import ConvergenceError, IncompleteRunError, MissingDependencyError
from on_chip_jobs import long_job, part, random_job

lava = pytest.mark.lava

# Sums of some tens of float64 numbers of order 1, in another order: errors of a few 1e-16 each.
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def assert_same_networks(found: PlasticNetwork, expected: PlasticNetwork, *, exactly: bool = False) -> None:
    """Weights and momenta are equal, to rounding or bit for bit."""
    assert found.named().keys() == expected.named().keys()
    for name, synapses in expected.named().items():
        for field in dataclasses.fields(synapses):
            here, there = getattr(found.named()[name], field.name), getattr(synapses, field.name)
            assert (here is None) == (there is None), (name, field.name)
            if here is not None and exactly:
                assert np.array_equal(here, there), (name, field.name)
            elif here is not None:
                np.testing.assert_allclose(here, there, **CLOSE, err_msg=f"{name} {field.name}")


# ---- the law -----------------------------------------------------------------------------------------------


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


# ---- runs that end early ---------------------------------------------------------------------------------------


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
    assert isinstance(kept, TrainingOutcome)
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
    assert isinstance(kept, TrainingOutcome)
    assert (caught.value.samples, kept.updates, kept.gradients) == (0, 0, {})
    assert_same_networks(kept.network, long_job().network, exactly=True)


@lava
def test_weights_that_diverge_are_told_and_what_was_before_is_kept() -> None:
    """The first step, of size 1e200, leaves weights that the second one's weight decay multiplies beyond all floats."""
    job = dataclasses.replace(random_job((4,), batches=(1, 1, 1)), learning_rates=(1e200,) * 3, recorded=0)
    message = "weights that are not finite after update 2; what they were before it is kept.*learning_rate"
    with pytest.raises(ConvergenceError, match=message) as caught:
        train_on_lava(job)
    incomplete = caught.value.__cause__
    assert isinstance(incomplete, IncompleteRunError)
    assert isinstance(incomplete.result, TrainingOutcome)
    assert incomplete.result.updates == 1
    assert np.isfinite(incomplete.result.network.readout.weight).all()


def test_without_lava(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lava_runner, "_installed", lambda module: False)
    with pytest.raises(MissingDependencyError, match=r"Lava is not installed.*fsnn-lava\[lava\]"):
        train_on_lava(random_job((4,)))
