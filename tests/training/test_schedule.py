"""What a training uses in each iteration: learning rates, batches, random numbers, and what does not fit together."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.datasets import Augmentation, load_dataset
from fsnn_lava.errors import ConfigError
from fsnn_lava.training.schedule import (
    augmentation_of,
    batches_of_epoch,
    check_schedule,
    check_shares,
    free_on_resume,
    iteration_seed,
    learning_rate,
    time_steps_of,
)


def test_learning_rate_falls_at_every_milestone() -> None:
    """The published schedule: 0.05, a tenth of it from epochs 30, 60 and 90 on (counted from 0)."""
    epochs = (0, 29, 30, 59, 60, 89, 90, 99)
    rates = [learning_rate(TrainingConfig(), samples=60_000, epoch=e, iteration=e * 469) for e in epochs]
    assert rates == pytest.approx([0.05, 0.05, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5], rel=1e-12)


def test_learning_rate_rises_over_the_warmup() -> None:
    training = TrainingConfig(warmup_iterations=400)
    rates = [learning_rate(training, samples=50_000, epoch=i // 391, iteration=i) for i in (0, 199, 398, 399, 400)]
    assert rates == pytest.approx([0.05 / 400, 0.025, 0.05 * 399 / 400, 0.05, 0.05], rel=1e-12)


def _course(training: TrainingConfig, samples: int) -> list[float]:
    """Learning rates of a whole run."""
    batches = len(batches_of_epoch(training, samples, epoch=0))
    return [
        learning_rate(training, samples=samples, epoch=i // batches, iteration=i)
        for i in range(training.epochs * batches)
    ]


def test_one_cycle_rises_and_falls_along_cosines() -> None:
    """By hand, of 40 iterations: from 1 / 25 of the peak up to iteration 11 (0.3 * 40 - 1), then down to 4e-6 of it."""
    training = TrainingConfig(schedule="one_cycle", learning_rate=0.2, epochs=4, batch_size=10)
    rates = np.array(_course(training, 100))
    step = np.arange(40)
    low, end = 0.2 / 25, 0.2 / 25 / 1e4
    rising = low + (0.2 - low) * (1 - np.cos(np.pi * step / 11)) / 2
    falling = end + (0.2 - end) * (1 + np.cos(np.pi * (step - 11) / 28)) / 2
    np.testing.assert_allclose(rates, np.where(step <= 11, rising, falling), rtol=1e-9)


def test_cosine_falls_to_zero_after_the_warmup() -> None:
    """By hand, of 40 iterations, of which 5 rise linearly: 1/5, 2/5 ... of the peak, then half a cosine over 35."""
    training = TrainingConfig(schedule="cosine", learning_rate=0.2, epochs=4, batch_size=10, warmup_iterations=5)
    step = np.arange(40)
    expected = np.where(step < 5, 0.2 * (step + 1) / 5, 0.1 * (1 + np.cos(np.pi * (step - 5) / 35)))
    np.testing.assert_allclose(_course(training, 100), expected, rtol=1e-9)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_every_warmup_that_is_allowed_gives_a_course(schedule: str, epochs: int) -> None:
    """Rates are positive throughout, and the largest is the peak."""
    allowed = 0
    for warmup in range(10 * epochs):
        training = TrainingConfig(
            schedule=schedule,
            learning_rate=0.2,
            epochs=epochs,
            batch_size=10,
            warmup_iterations=warmup,  # type: ignore[arg-type]
        )
        try:
            check_schedule(training, 100)
        except ConfigError:
            continue
        rates = _course(training, 100)
        assert all(0 < rate <= 0.2 * (1 + 1e-12) for rate in rates)
        assert max(rates) == pytest.approx(0.2, rel=1e-9)
        allowed += 1
    assert allowed == 10 * epochs - 1 - (schedule == "one_cycle")


@pytest.mark.parametrize("samples", [99, 100, 101, 102])
def test_a_course_has_a_rate_for_every_iteration(samples: int) -> None:
    """A left-over sample joins the batch before it, and the last rate is the lowest."""
    training = TrainingConfig(schedule="cosine", epochs=3, batch_size=20)
    rates = _course(training, samples)
    assert len(rates) == 3 * {99: 5, 100: 5, 101: 5, 102: 6}[samples]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.02 * rates[0]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"epochs": 4, "batch_size": 50}, "for 8 iterations"),
        (
            {"epochs": 4, "batch_size": 10, "warmup_iterations": 39},
            r'found 39; the training has 40 iterations; allowed with "one_cycle": 0, or 2 \.\. 38',
        ),
        ({"epochs": 4, "batch_size": 10, "warmup_iterations": 1}, "found 1; the training has 40 iterations"),
    ],
)
def test_a_course_without_iterations_to_fall_is_refused(changed: dict[str, int], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        check_schedule(TrainingConfig(schedule="one_cycle", **changed), 100)  # type: ignore[arg-type]
    check_schedule(TrainingConfig(**changed), 100)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shift", "published", "expected"),
    [
        (-1, None, None),
        (-1, Augmentation(4, True), Augmentation(4, True)),
        (0, None, None),
        (0, Augmentation(4, True), Augmentation(0, True)),
        (0, Augmentation(4, False), None),
        (2, None, Augmentation(2, False)),
        (2, Augmentation(4, True), Augmentation(2, True)),
    ],
)
def test_images_are_moved_as_configured_or_as_published(
    shift: int, published: Augmentation | None, expected: Augmentation | None
) -> None:
    dataset = replace(load_dataset("digits"), augmentation=published)
    assert augmentation_of(TrainingConfig(random_shift=shift), dataset) == expected


def test_epochs_may_change_on_resume_where_the_rate_does_not_follow_them() -> None:
    names = ("epochs", "threads")
    assert free_on_resume(TrainingConfig(), names) == names
    assert free_on_resume(TrainingConfig(schedule="cosine"), names) == ("threads",)


@pytest.mark.parametrize(("count", "sizes"), [(65, [32, 33]), (33, [33]), (66, [32, 32, 2]), (31, [31])])
def test_batches_hold_every_sample_once_in_an_order_of_the_epoch(count: int, sizes: list[int]) -> None:
    epochs = [batches_of_epoch(TrainingConfig(batch_size=32, seed=3), count, epoch=epoch) for epoch in (0, 1, 0)]
    assert [[len(batch) for batch in batches] for batches in epochs] == [sizes] * 3
    first, second, again = (torch.cat(batches) for batches in epochs)
    assert np.array_equal(np.sort(first), np.arange(count))
    assert np.array_equal(np.sort(second), np.arange(count))
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_seeds_of_iterations_are_unrelated() -> None:
    """torch's generator of the CPU takes 32 bits of a seed: those of neighbours differ in about half of them."""
    training = TrainingConfig(seed=7)
    seeds = [iteration_seed(training, iteration=i, purpose="masks") for i in range(2000)]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 2**32
    differing = [bin(a ^ b).count("1") for a, b in itertools.pairwise(seeds)]
    assert 15 < np.mean(differing) < 17
    others = [
        iteration_seed(training, iteration=0, purpose="augmentation"),
        iteration_seed(TrainingConfig(seed=8), iteration=0, purpose="masks"),
    ]
    assert seeds[0] not in others


@pytest.mark.parametrize(
    ("network", "sync", "processes", "least"),
    [({}, False, 3, 6), ({}, True, 6, 6), ({"batch_norm": False}, False, 6, 6)],
)
def test_batches_too_small_for_so_many_processes_are_refused(
    network: dict[str, bool], sync: bool, processes: int, least: int
) -> None:
    """69 samples in batches of 32 leave one of 5."""
    config = TrainConfig(network=NetworkConfig(**network), training=TrainingConfig(batch_size=32, sync_batch_norm=sync))
    message = rf"training\.batch_size: found 32, which leaves a batch of 5 of 69 samples to {processes} processes; allo"
    with pytest.raises(ConfigError, match=rf"{message}wed: batches of at least {least}; choose another size"):
        check_shares(config, 69, processes=processes)
    check_shares(config, 70, processes=processes)
    check_shares(config, 69, processes=1)
    check_shares(replace(config, training=replace(config.training, batch_size=23)), 69, processes=processes)


def test_steps_of_a_schedule_by_epoch_come_in_order() -> None:
    training = TrainingConfig(epochs=7, time_steps_schedule=(5, 10, 30))
    config = TrainConfig(network=NetworkConfig(time_steps=30), training=training)
    found = [time_steps_of(config, epoch=epoch, iteration=9 * epoch) for epoch in range(7)]
    assert found == [5, 5, 5, 10, 10, 30, 30]
    more = replace(config, training=replace(training, epochs=3))
    assert [time_steps_of(more, epoch=epoch, iteration=0) for epoch in range(3)] == [5, 10, 30]


def test_a_schedule_of_more_steps_than_epochs_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"training\.time_steps_schedule: found \(3, 5, 7\); allowed: at most one T for"
    ):
        TrainConfig(training=TrainingConfig(epochs=2, milestones=(), time_steps_schedule=(3, 5, 7)))
    drawn = TrainingConfig(epochs=2, milestones=(), time_steps_schedule=(3, 5, 7), time_steps_by="batch")
    assert TrainConfig(training=drawn).most_steps == 30
