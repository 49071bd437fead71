"""Torch networks trained on Lava: what is refused, and that `gradients.spide` finds the same spikes and gradients."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from feedback_networks import SPIDE
from fsnn_lava.backends.lava.learning.job import TrainingJob, TrainingOutcome
from fsnn_lava.backends.lava.learning.runner import train_on_lava
from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.datasets import Augmentation, Dataset, InputCoding, load_dataset
from fsnn_lava.errors import ConfigError, UnsupportedError
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.training.checkpoint import new_model
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.on_lava import check_on_lava
from fsnn_lava.training.on_lava_check import compare_with_spide
from fsnn_lava.training.on_lava_network import momenta_of, parameters_of, plastic_network, require_on_chip, training_job
from fsnn_lava.training.schedule import batches_of_epoch

lava = pytest.mark.lava

NETWORK = NetworkConfig("30 (F30)", v_threshold=1.0, reset_amount=2.0, time_steps=15, dropout=0.0, **SPIDE)
TRAINING = TrainingConfig(
    method="spide", epochs=2, batch_size=32, milestones=(1,), warmup_iterations=3, time_steps_back=30, loss_scale=50.0
)
CONFIG = TrainConfig(name="test", network=NETWORK, training=TRAINING)


def changed(*, training: dict[str, Any] | None = None, **network: Any) -> TrainConfig:
    return replace(CONFIG, network=replace(NETWORK, **network), training=replace(TRAINING, **(training or {})))


def digits(samples: int) -> Dataset:
    whole = load_dataset("digits")
    return replace(whole, train=whole.train.select(np.arange(samples)))


def network_of(config: TrainConfig) -> FeedbackSNN:
    return new_model(config, (1, 8, 8), 10)


def test_what_lava_processes_can_say_passes() -> None:
    require_on_chip(CONFIG, digits(10))
    require_on_chip(changed(notation="30-20", spectral_norm="reshaped"), digits(10))


def test_every_violation_is_named_at_once() -> None:
    config = changed(
        notation="8C3-P2-8C3 (F8C3)",
        batch_norm=True,
        dropout=0.2,
        spectral_norm="operator",
        training={"method": "ide", "device": "cuda", "label_smoothing": 0.1},
    )
    events = InputCoding("event", maximum=1, scale=1.0, mean=(0.0,), std=(1.0,))
    dataset = replace(digits(10), coding=events, augmentation=Augmentation(2, False))
    with pytest.raises(UnsupportedError) as caught:
        require_on_chip(config, dataset)
    message = str(caught.value)
    assert message.startswith("training on Lava: 9 violation(s):")
    for expected in (
        'training.method "ide"',
        "network.notation with 8C3, P2, 8C3, F8C3; allowed: linear layers alone",
        "network.batch_norm true",
        "network.dropout 0.2; allowed: 0, since masks would have to be drawn on the chip",
        'network.spectral_norm "operator"; allowed: "frobenius"',
        'training.device "cuda"',
        'dataset "digits" of event frames; allowed: constant inputs',
        'dataset "digits" with augmented samples',
        "training.label_smoothing 0.1; allowed: 0",
    ):
        assert expected in message


@pytest.mark.parametrize("samples", [0, 41])
def test_no_more_samples_are_checked_than_there_are(samples: int) -> None:
    with pytest.raises(ConfigError, match=rf"samples to check: found {samples}; allowed: 1 \.\. 40, one epoch"):
        check_on_lava(CONFIG, digits(40), samples=samples)


@pytest.mark.parametrize("notation", ["30 (F30)", "30-20"])
def test_weights_and_momenta_come_back_as_they_were(notation: str) -> None:
    model = network_of(changed(notation=notation))
    momenta = {name: torch.randn_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    network = plastic_network(model, momenta)
    parameters, back = parameters_of(network), momenta_of(network)
    assert parameters.keys() == back.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameters[name], parameter.double())
        assert torch.equal(back[name], momenta[name])
    assert momenta_of(plastic_network(model)) == {}
    assert network.feedback_norm_bound == (2.0 if "F" in notation else np.inf)


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_a_job_holds_the_batches_in_order_with_their_learning_rates(schedule: str) -> None:
    config = changed(training={"schedule": schedule})
    samples = DeviceSamples(digits(100).train, digits(100).coding, device="cpu")
    batches = batches_of_epoch(TRAINING, 100, epoch=1)
    job = training_job(plastic_network(network_of(config)), config, samples, batches, epoch=1, first_iteration=2)
    x, labels = samples.batch(torch.cat(batches))
    assert np.array_equal(job.inputs, x.flatten(1).double().numpy())
    assert np.array_equal(job.labels, labels.numpy())
    assert job.batches == (32, 32, 32, 4)
    # Of 8 iterations, 3 of which rise: a tenth from epoch 1 on, or half a cosine over the 5 that are left.
    expected = {"step": [0.005] * 4, "cosine": [0.05, *(0.025 * (1 + np.cos(np.pi * np.arange(3) / 5)))]}
    assert job.learning_rates == pytest.approx(expected[schedule], rel=1e-9)


@lava
@pytest.mark.parametrize(
    ("notation", "leak", "time_steps"),
    [("30 (F30)", 1.0, 15), ("30", 0.95, 30), ("30-20 (F30)", 0.9, 15), ("30-20-16 (F30)", 1.0, 8)],
)
def test_a_batch_is_that_of_gradients_spide(notation: str, leak: float, time_steps: int) -> None:
    """Every spike of both phases, at every step; gradients to the rounding of sums of some hundred float64 numbers."""
    found = check_on_lava(changed(notation=notation, leak=leak, time_steps=time_steps), digits(32), samples=32)
    assert (found.updates, found.samples, found.different, found.different_back) == (1, 32, 0, 0)
    assert found.spikes > 1000
    assert found.spikes_back > 1000
    assert max(found.gradient_error.values()) < 1e-12
    assert max(found.weight_error.values()) < 1e-12


@pytest.fixture(scope="module")
def outcome() -> tuple[FeedbackSNN, TrainingJob, TrainingOutcome]:
    """A network, its first batch of eight samples, and what Lava made of it."""
    model, dataset = network_of(CONFIG), digits(8)
    samples = DeviceSamples(dataset.train, dataset.coding, device="cpu")
    job = training_job(
        plastic_network(model), CONFIG, samples, [torch.arange(8)], epoch=0, first_iteration=0, recorded=8
    )
    return model, job, train_on_lava(job)


@lava
def test_a_difference_would_be_found(outcome: tuple[FeedbackSNN, TrainingJob, TrainingOutcome]) -> None:
    """One weight of the reference is another one."""
    model, job, trained = outcome
    assert compare_with_spide(model, job, trained).disagreements == ()
    other = job.network.feedforward[0]
    weight = other.weight.copy()
    weight[0, 20] += 0.5
    wrong = replace(job.network, feedforward=(replace(other, weight=weight),))
    found = compare_with_spide(model, replace(job, network=wrong), trained)
    assert found.disagreements
    assert found.different > 0
    assert found.different_back > 0
    assert found.gradient_error["feedforward.0.weight"] > 1e-3
    assert found.weight_error["feedforward.0.weight"] > 1e-3


@lava
def test_wrong_gradients_and_weights_are_told_where_every_spike_is_right(
    outcome: tuple[FeedbackSNN, TrainingJob, TrainingOutcome],
) -> None:
    """Of one entry, by as little as float32 would change it; and what is rounding is let pass."""
    model, job, trained = outcome

    def disagreements(share: float) -> tuple[str, ...]:
        weight, gradient = trained.network.readout.weight.copy(), trained.gradients["feedback"][0]
        gradient = gradient.copy()
        for array in (weight, gradient):
            array[0, 0] += share * np.abs(array).max()
        network = replace(trained.network, readout=replace(trained.network.readout, weight=weight))
        gradients = {**trained.gradients, "feedback": (gradient, None)}
        wrong = replace(trained, network=network, gradients=gradients)
        return compare_with_spide(model, job, wrong).disagreements

    assert disagreements(1e-12) == ()
    assert disagreements(1e-8) == (
        "the gradient of feedback.weight by 1.0e-08",
        "the value of readout.weight by 1.0e-08",
    )


@pytest.mark.slow
@lava
def test_an_epoch_is_that_of_torch() -> None:
    """Weights after an epoch of momentum SGD in torch, in float64, with the gradients of `gradients.spide`.

    Each update's gradients agree to rounding, 1e-15 of their largest value; eight updates of a rate of at most 0.05 add
    such errors to weights of order 0.1.
    """
    config = changed(notation="24-20 (F24)", time_steps=8, training={"time_steps_back": 15})
    found = check_on_lava(config, digits(240), samples=240)
    assert (found.updates, found.samples, found.different, found.different_back) == (8, 240, 0, 0)
    assert max(found.gradient_error.values()) < 1e-12
    assert max(found.weight_error.values()) < 1e-12


@lava
def test_a_check_of_some_samples_takes_their_batches() -> None:
    config = changed(notation="10 (F10)", time_steps=3, training={"time_steps_back": 4})
    found = check_on_lava(config, digits(100), samples=33)
    assert (found.updates, found.samples, found.disagreements) == (2, 33, ())
