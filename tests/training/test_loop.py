"""Training: the same seed gives the same bits, an interruption changes none, and what cannot be done is refused."""

import json
import re
import signal
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional

from fsnn_lava.cli.training_display import TensorBoardLog
from fsnn_lava.config import ConnectionConfig, TrainConfig, read_config
from fsnn_lava.datasets import Dataset, InputCoding, Samples, load_dataset
from fsnn_lava.errors import CheckpointError, ConfigError, ConvergenceError, DatasetError, OutputError, SpecError
from fsnn_lava.training import BEST, LAST, FitResult, fit, train
from fsnn_lava.training.checkpoint import load_checkpoint, load_training, new_model, save_checkpoint
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.evaluation import evaluate
from fsnn_lava.training.loop import KEPT_EVERY
from fsnn_lava.training.metrics import epoch_warnings
from fsnn_lava.training.schedule import chosen_samples, without_validation
from short_training import CONFIG, NETWORK, PER_EPOCH, TRAINING, Told, changed, short_digits


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """150 training and 60 test images."""
    return short_digits()


@pytest.fixture(scope="module")
def whole_run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training of `CONFIG` that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert fit(CONFIG, digits, folder).finished
    return folder


def interrupt_after(iteration: int) -> Told:
    return Told(lambda done: signal.raise_signal(signal.SIGINT) if done == iteration else None)


def crash_after(iteration: int) -> Told:
    def act(done: int) -> None:
        if done == iteration:
            raise RuntimeError("the power went out")

    return Told(act)


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in metrics.items() if not k.startswith("train/seconds")} for metrics in history]


def assert_same_run(folder: Path, other: Path) -> None:
    """Bit for bit: weights, momentum, generator, progress, best weights; only the seconds may differ."""
    (ours, progress, state), (theirs, their_progress, their_state) = (load_training(f / LAST) for f in (folder, other))
    for mine, yours in ((ours.weights, theirs.weights), (state, their_state)):
        assert mine.keys() == yours.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, yours[name]), name
    histories = [without_seconds(told.pop("history")) for told in (progress, their_progress)]
    assert histories[0] == histories[1]
    assert progress == their_progress
    best, their_best = (load_checkpoint(f / BEST) for f in (folder, other))
    assert all(torch.equal(v, their_best.weights[k]) for k, v in best.weights.items())


def test_same_seed_gives_the_same_bits(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # the global generator takes no part
    fit(CONFIG, digits, tmp_path)
    assert_same_run(tmp_path, whole_run)


def test_other_seed_gives_other_weights(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    fit(changed(seed=6), digits, tmp_path)
    ours, theirs = (load_checkpoint(f / LAST).weights for f in (tmp_path, whole_run))
    assert not torch.equal(ours["readout.weight"], theirs["readout.weight"])


@pytest.mark.parametrize("iteration", [1, 3, PER_EPOCH, PER_EPOCH + 1, 2 * PER_EPOCH, 3 * PER_EPOCH - 1, 3 * PER_EPOCH])
def test_interrupted_run_goes_on_bit_for_bit(digits: Dataset, whole_run: Path, tmp_path: Path, iteration: int) -> None:
    first = fit(CONFIG, digits, tmp_path, observer=interrupt_after(iteration))
    assert not first.finished
    assert first.epochs == (iteration - 1) // PER_EPOCH
    told = Told()
    second = fit(CONFIG, digits, tmp_path, resume=True, observer=told)
    assert second.finished
    assert len(told.iterations) == 3 * PER_EPOCH - iteration, "no iteration is done twice"
    assert_same_run(tmp_path, whole_run)


def test_run_interrupted_anywhere_goes_on_bit_for_bit(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    results: list[FitResult] = []
    for iteration in range(1, 3 * PER_EPOCH + 1):
        results.append(fit(CONFIG, digits, tmp_path, resume=iteration > 1, observer=interrupt_after(iteration)))
    results.append(fit(CONFIG, digits, tmp_path, resume=True))
    assert [r.finished for r in results] == [False] * 3 * PER_EPOCH + [True]
    assert_same_run(tmp_path, whole_run)


@pytest.mark.parametrize("minutes", [1e-9, 5.0])
@pytest.mark.parametrize("iteration", [1, 7])
def test_run_that_crashed_goes_on_bit_for_bit(
    digits: Dataset, whole_run: Path, tmp_path: Path, iteration: int, minutes: float
) -> None:
    """From the newest checkpoint: of the iteration before, if they are written that often, or of the epoch before."""
    config = changed(checkpoint_minutes=minutes)
    with pytest.raises(RuntimeError, match="the power went out"):
        fit(config, digits, tmp_path, observer=crash_after(iteration))
    _, progress, _ = load_training(tmp_path / LAST)
    epoch, done = divmod(iteration - 1, PER_EPOCH)
    assert (progress["epoch"], progress["iteration"]) == (epoch, done if minutes < 1 else 0)
    assert fit(config, digits, tmp_path, resume=True).finished
    assert_same_run(tmp_path, whole_run)


SHORT = {"schedule": "cosine", "random_shift": 1, "label_smoothing": 0.1}
"""Settings of a training of few epochs."""


def test_short_recipe_goes_on_bit_for_bit_but_not_for_longer(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    """Its learning rate falls to zero at the end of its epochs."""
    config = changed(**SHORT)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for folder in (whole, parted):
        folder.mkdir()
    history = fit(config, digits, whole).history
    assert history[-1]["train/learning_rate"] < 0.03 * config.training.learning_rate
    fit(config, digits, parted, observer=interrupt_after(PER_EPOCH + 2))
    with pytest.raises(ConfigError, match=r"training\.epochs \(3 -> 4\); only training\.threads"):
        fit(changed(**SHORT, epochs=4), digits, parted, resume=True)
    assert fit(config, digits, parted, resume=True).finished
    assert_same_run(parted, whole)


@pytest.mark.parametrize("name", SHORT)
def test_each_setting_of_the_short_recipe_changes_the_training(
    digits: Dataset, whole_run: Path, tmp_path: Path, name: str
) -> None:
    fit(changed(**{name: SHORT[name]}), digits, tmp_path)
    ours, theirs = (load_checkpoint(f / LAST).weights for f in (tmp_path, whole_run))
    assert not torch.equal(ours["readout.weight"], theirs["readout.weight"])


def test_smoothed_loss_is_linear_in_the_share(digits: Dataset, tmp_path: Path) -> None:
    """Mean over a batch of (1 - s) * -log p of the label + s * mean over the classes of -log p."""
    losses = []
    for share in (0.0, 0.1, 0.3):
        folder = tmp_path / str(share)
        folder.mkdir()
        result = fit(changed(label_smoothing=share, epochs=1, batch_size=150), digits, folder)
        losses.append(result.history[0]["train/loss"])
    assert losses[1] != losses[0]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-3)


def test_longer_run_begins_like_the_shorter_one(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    fit(changed(epochs=1), digits, tmp_path)
    assert fit(CONFIG, digits, tmp_path, resume=True).finished
    assert_same_run(tmp_path, whole_run)


def test_finished_run_is_finished_when_it_is_resumed(digits: Dataset, whole_run: Path) -> None:
    before = (whole_run / LAST).read_bytes()
    told = Told()
    result = fit(CONFIG, digits, whole_run, resume=True, observer=told)
    assert result.finished
    assert told.iterations == []
    assert told.epochs == []
    assert (whole_run / LAST).read_bytes() == before


@pytest.mark.parametrize("config", [changed(momentum=0.0), changed(network={"notation": "12-10", "batch_norm": False})])
def test_run_without_momentum_or_feedback_goes_on_too(digits: Dataset, tmp_path: Path, config: TrainConfig) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    fit(config, digits, whole)
    fit(config, digits, parts, observer=interrupt_after(7))
    fit(config, digits, parts, resume=True)
    assert_same_run(parts, whole)


def test_handler_of_ctrl_c_is_put_back(digits: Dataset, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    fit(CONFIG, digits, tmp_path, observer=interrupt_after(2))
    assert signal.getsignal(signal.SIGINT) is before


def test_second_ctrl_c_stops_at_once(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    def twice(done: int) -> None:
        if done == 7:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, digits, tmp_path, observer=Told(twice))
    fit(CONFIG, digits, tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run)


def test_training_may_run_in_another_thread(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    """Where no signal handler can be installed."""
    thread = threading.Thread(target=lambda: fit(CONFIG, digits, tmp_path))
    thread.start()
    thread.join()
    assert_same_run(tmp_path, whole_run)


def test_part_of_the_data_keeps_the_classes_in_proportion(digits: Dataset, tmp_path: Path) -> None:
    told = Told()
    config = replace(changed(epochs=1), train_samples=64, test_samples=20)
    fit(config, digits, tmp_path, observer=told)
    assert len(told.iterations) == 2
    metrics = load_checkpoint(tmp_path / LAST).metrics
    assert (metrics["train_samples"], metrics["test_samples"], metrics["partial"]) == (64, 20, True)
    part = chosen_samples(config, digits)
    assert np.array_equal(part.train.labels, chosen_samples(config, part).train.labels), "chosen once"
    shares = np.bincount(part.train.labels) - np.bincount(digits.train.labels) * 64 / 150
    assert np.abs(shares).max() < 1
    with pytest.raises(ConfigError, match=r"train_samples: found 151; the dataset holds 150; allowed: 0 \(all\)"):
        fit(replace(CONFIG, train_samples=151), digits, tmp_path)


def test_optimizer_steps_at_schedules_rate(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm-up of 8 iterations reaches into the second epoch of 5; the milestone is the third."""
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noted(self: torch.optim.SGD) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    fit(changed(warmup_iterations=8), digits, tmp_path)
    assert rates == pytest.approx([0.05 * i / 8 for i in range(1, 9)] + [0.05] * 2 + [0.005] * 5, rel=1e-12)


@pytest.mark.parametrize(("count", "sizes"), [(65, [32, 33]), (33, [33]), (66, [32, 32, 2]), (31, [31])])
def test_single_left_over_sample_joins_the_batch_before_it(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int]
) -> None:
    """Batch norm has no statistics of one sample. Every epoch takes every sample once, in another order."""
    taken: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    batch = DeviceSamples.batch

    def noted(self: DeviceSamples, indices: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self) == count:
            taken.append(indices.numpy())
        return batch(self, indices, **options)

    dataset = replace(digits, train=digits.train.select(np.arange(count)))
    monkeypatch.setattr(DeviceSamples, "batch", noted)
    fit(changed(epochs=2), dataset, tmp_path)
    assert [len(which) for which in taken] == sizes * 2
    first, second = np.concatenate(taken[: len(sizes)]), np.concatenate(taken[len(sizes) :])
    assert np.array_equal(np.sort(first), np.arange(count))
    assert np.array_equal(np.sort(second), np.arange(count))
    assert not np.array_equal(first, second)


RATES = {"firing_rate/population1", "firing_rate/population2"}
EACH = {"gradient_norm", "loop_gain", "largest_loop_gain", "adjoint_unconverged"}
SOLVES = {"adjoint_residual", "adjoint_steps", "loop_gain", "spectral_norm", "spectral_norm_operator"}
COUNTS = {"adjoint_unconverged", "adjoint_unconverged_share", "undone_steps"}
TRAIN = {"loss", "accuracy", "gradient_norm", "learning_rate", "seconds", *COUNTS, *SOLVES, *RATES}
METRICS = {f"train/{name}" for name in TRAIN} | {f"test/{name}" for name in {"loss", "accuracy", *RATES}}


def test_observer_is_told_of_every_iteration_and_epoch(digits: Dataset, tmp_path: Path) -> None:
    told = Told()
    result = fit(CONFIG, digits, tmp_path, observer=told)
    assert told.iterations == [(e, i, PER_EPOCH) for e in range(3) for i in range(1, PER_EPOCH + 1)]
    assert [epoch for epoch, _ in told.epochs] == [1, 2, 3]
    assert [dict(metrics) for _, metrics in told.epochs] == result.history
    assert [metrics["train/learning_rate"] for metrics in result.history] == pytest.approx([0.05, 0.05, 0.005])
    for metrics in result.history:
        assert set(metrics) == METRICS
        assert metrics["train/adjoint_residual"] <= TRAINING.adjoint_tolerance
        assert metrics["train/adjoint_unconverged"] == 0
        # Of a matrix both norms are the same.
        assert metrics["train/spectral_norm"] == pytest.approx(metrics["train/spectral_norm_operator"], rel=0.01)
        assert metrics["train/spectral_norm"] < 1.2 * NETWORK.spectral_norm_bound
        assert 0 < metrics["test/firing_rate/population1"] < 1


def test_best_weights_are_those_of_the_best_epoch(digits: Dataset, tmp_path: Path) -> None:
    result = fit(CONFIG, digits, tmp_path)
    accuracies = [metrics["test/accuracy"] for metrics in result.history]
    assert result.best_accuracy == max(accuracies)
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1
    best, last = load_checkpoint(tmp_path / BEST), load_checkpoint(tmp_path / LAST)
    assert best.metrics["epoch"] == result.best_epoch
    for trained, accuracy in ((best, max(accuracies)), (last, accuracies[-1])):
        assert evaluate(trained.model(), digits.test, trained.coding, time_steps=6).accuracy == accuracy
    json.dumps(best.metrics)
    assert result.chosen_on == best.metrics["chosen_on"] == "the test set"


def test_best_epoch_is_chosen_on_held_out_training_samples(digits: Dataset, tmp_path: Path) -> None:
    config = replace(CONFIG, validation_samples=40)
    result = fit(config, digits, tmp_path)
    accuracies = [metrics["validation/accuracy"] for metrics in result.history]
    best, last = load_checkpoint(tmp_path / BEST), load_checkpoint(tmp_path / LAST)
    assert result.best_epoch == best.metrics["epoch"] == accuracies.index(max(accuracies)) + 1
    assert best.metrics["best_validation_accuracy"] == max(accuracies)
    assert result.best_accuracy == result.history[result.best_epoch - 1]["test/accuracy"]
    assert result.chosen_on == best.metrics["chosen_on"] == "40 held-out training samples"
    assert best.metrics["train_samples"] == 110
    assert best.metrics["partial"]
    rest, held_out = without_validation(config, digits)
    shares = np.bincount(digits.train.labels) * 40 / 150
    assert (np.abs(np.bincount(held_out.labels) - shares) < 1).all(), "the classes in proportion"
    pictures = {sample.tobytes() for sample in rest.train.codes}
    assert not pictures & {sample.tobytes() for sample in held_out.codes}
    assert len(rest.train) + len(held_out) == len(digits.train)
    for trained, accuracy in ((best, max(accuracies)), (last, accuracies[-1])):
        assert evaluate(trained.model(), held_out, trained.coding, time_steps=6).accuracy == accuracy


def test_run_with_a_validation_goes_on_bit_for_bit_and_with_that_one_alone(digits: Dataset, tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    config = replace(CONFIG, validation_samples=40)
    assert fit(config, digits, tmp_path / "whole").finished
    assert not fit(config, digits, tmp_path / "cut", observer=interrupt_after(6)).finished
    with pytest.raises(ConfigError, match="cannot resume with other settings: validation_samples"):
        fit(CONFIG, digits, tmp_path / "cut", resume=True)
    assert fit(config, digits, tmp_path / "cut", resume=True).finished
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_solves_that_do_not_converge_are_counted(digits: Dataset, tmp_path: Path) -> None:
    result = fit(changed(epochs=1, adjoint_max_steps=1, adjoint_tolerance=1e-12), digits, tmp_path)
    samples = result.history[0]["train/adjoint_unconverged"]
    assert 100 < samples <= 150
    assert result.history[0]["train/adjoint_unconverged_share"] == samples / 150
    assert result.history[0]["train/adjoint_steps"] == 3, "of each solver one"
    (warning,) = epoch_warnings(result.history[0])
    assert re.match(r"the gradient of \d\d\.\d% of the samples did not converge: the loop does not contract", warning)
    assert result.history[0]["train/adjoint_residual"] > 1e-12


def test_network_without_feedback_reports_no_solve(digits: Dataset, tmp_path: Path) -> None:
    metrics = fit(changed(epochs=1, network={"notation": "12-10"}), digits, tmp_path).history[0]
    assert METRICS - set(metrics) == {f"train/{name}" for name in SOLVES}


def test_training_learns(digits: Dataset, tmp_path: Path) -> None:
    config = changed(epochs=12, milestones=(), network={"notation": "40 (F40)"})
    result = fit(config, digits, tmp_path)
    assert result.history[-1]["train/loss"] < 0.3 * result.history[0]["train/loss"]
    assert result.best_accuracy > 0.7  # of ten classes, from 150 images


def test_tensorboard_holds_every_metric(digits: Dataset, tmp_path: Path) -> None:
    with closing(TensorBoardLog(tmp_path)) as log:
        result = fit(CONFIG, digits, tmp_path, observer=log)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == METRICS | {f"iteration/{n}" for n in EACH | {"loss"}}
    for name in METRICS:
        scalars = events.Scalars(name)
        assert [s.step for s in scalars] == [1, 2, 3]
        # TensorBoard keeps float32.
        assert [s.value for s in scalars] == pytest.approx([m[name] for m in result.history], rel=1e-6)
    assert [s.step for s in events.Scalars("iteration/loss")] == list(range(1, 3 * PER_EPOCH + 1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(learning_rate=0.1), r"training\.learning_rate \(0\.05 -> 0\.1\); only training\.epochs"),
        (changed(seed=6), r"training\.seed \(5 -> 6\)"),
        (changed(network={"leak": 0.9}), r"network\.leak \(1\.0 -> 0\.9\)"),
        (changed(network={"notation": "10 (F10)"}), r"network\.notation \('12-10 \(F12\)' -> '10 \(F10\)'\)"),
        (replace(CONFIG, dataset="mnist"), r"cannot resume with other settings: dataset"),
    ],
)
def test_resume_with_others_is_refused(digits: Dataset, whole_run: Path, config: TrainConfig, message: str) -> None:
    before = (whole_run / LAST).read_bytes()
    with pytest.raises(ConfigError, match=message):
        fit(config, digits, whole_run, resume=True)
    assert (whole_run / LAST).read_bytes() == before


def test_folder_that_holds_a_run_is_refused(digits: Dataset, whole_run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds a training already; resume it \(--resume .*\) or use another"):
        fit(CONFIG, digits, whole_run)


def test_resume_of_nothing_is_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.safetensors: no such file; train first"):
        fit(CONFIG, digits, tmp_path, resume=True)


def test_resume_of_weights_alone_is_refused(digits: Dataset, whole_run: Path, tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes((whole_run / BEST).read_bytes())
    with pytest.raises(CheckpointError, match="the state to resume from is incomplete: 'progress'"):
        fit(CONFIG, digits, tmp_path, resume=True)


def test_folder_that_cannot_be_written_to_is_refused(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"last\.safetensors: cannot be written: Not a directory"):
        fit(CONFIG, digits, tmp_path / "file")


DIVERGED = (
    r"epoch 1, iteration \d+: the loss or its gradient is not finite after 3 updates in a row; .*last\.safetensors "
    r"keeps the last good state \(0 whole epochs and \d+ iterations?\)\. To go on from it would end the same way: "
    r"train anew with a training\.learning_rate below \S+, or with training\.warmup_iterations"
)


@pytest.mark.parametrize("minutes", [1e-9, 5.0])
def test_updates_that_all_end_in_no_finite_loss_end_the_training(
    digits: Dataset, tmp_path: Path, minutes: float
) -> None:
    """What is kept are finite weights, though a checkpoint is written after every iteration."""
    config = changed(learning_rate=1e38, warmup_iterations=0, checkpoint_minutes=minutes, batch_size=20)
    with pytest.raises(ConvergenceError, match=DIVERGED):
        fit(config, digits, tmp_path)
    load_checkpoint(tmp_path / LAST).model()
    assert not (tmp_path / BEST).exists()


def test_learning_rate_that_ends_in_a_huge_loss_is_no_success(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConvergenceError, match=r"the mean loss of the epoch is \S+, where guessing has 2\.303; "):
        fit(changed(learning_rate=1e4, warmup_iterations=0), digits, tmp_path)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
@pytest.mark.parametrize("notation", ["12-10 (F12)", "12-10"], ids=["feedback", "no adjoint to fail"])
def test_update_that_ends_in_no_finite_loss_is_taken_back(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notation: str, poison: str
) -> None:
    """In the twelfth iteration: weights are those of the ninth, which were kept, momenta none; and it goes on."""
    cross_entropy, calls = functional.cross_entropy, []
    step, states = torch.optim.SGD.step, []

    def poisoned(
        logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> torch.Tensor:
        calls.append(reduction)
        loss = cross_entropy(logits, labels, reduction=reduction, label_smoothing=label_smoothing)
        if calls.count("mean") != 2 * PER_EPOCH + 2:
            return loss
        return loss * float("nan") if poison == "loss" else loss + logits.sub(logits.detach()).abs().sqrt().sum()

    def noted(optimizer: torch.optim.SGD) -> None:
        parameters = optimizer.param_groups[0]["params"]
        momenta = [optimizer.state[p].get("momentum_buffer") for p in parameters]
        kept = None if momenta[0] is None else torch.cat([m.flatten() for m in momenta])
        states.append((torch.cat([p.detach().flatten() for p in parameters]), kept))
        step(optimizer)

    monkeypatch.setattr("fsnn_lava.training.loop.functional.cross_entropy", poisoned)
    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    result = fit(changed(network={"notation": notation}), digits, tmp_path)
    assert result.finished
    assert len(states) == 3 * PER_EPOCH - 1
    ninth, next_one = states[KEPT_EVERY], states[2 * PER_EPOCH + 1]
    assert torch.equal(next_one[0], ninth[0])
    assert ninth[1] is not None
    assert ninth[1].any()
    assert next_one[1] is not None
    assert not next_one[1].any()
    assert [metrics["train/undone_steps"] for metrics in result.history] == [0, 0, 1]
    assert epoch_warnings(result.history[2]) == [
        "updates taken back, since they led to a loss that is not finite: 1; lower the learning rate"
    ]


def test_long_gradients_are_cut(digits: Dataset, tmp_path: Path) -> None:
    cut, free = (tmp_path / name for name in ("cut", "free"))
    for folder, most in ((cut, 1e-3), (free, 0.0)):
        folder.mkdir()
        fit(changed(epochs=1, max_gradient_norm=most, weight_decay=0.0, momentum=0.0, milestones=()), digits, folder)
    begun = new_model(changed(), digits.input_shape, 10).readout.weight
    moved = [(load_checkpoint(f / LAST).model().readout.weight - begun).norm().item() for f in (cut, free)]
    # At most learning rate times length in each of the five iterations.
    assert 0 < moved[0] <= PER_EPOCH * 0.05 * 1e-3
    assert moved[1] > 10 * moved[0]


TWO_LOOPS = (
    ConnectionConfig("input", "a", "12"),
    ConnectionConfig("a", "b", "10"),
    ConnectionConfig("b", "a", "12"),
    ConnectionConfig("b", "b", "10"),
)


@pytest.mark.parametrize("network", [{}, {"notation": "", "connections": TWO_LOOPS}], ids=["chain", "two loops"])
def test_loop_that_does_not_contract_is_scaled_back(network: dict[str, Any], digits: Dataset, tmp_path: Path) -> None:
    """A bound far below what training would reach: the gain stays near it, and without a bound it does not."""
    gains = {}
    for bound in (0.05, 0.0):
        (tmp_path / str(bound)).mkdir()
        told = Told()
        fit(changed(network=network, contraction=bound), digits, tmp_path / str(bound), observer=told)
        gains[bound] = [figures["largest_loop_gain"] for figures in told.figures]
    assert max(gains[0.05][1:]) < 0.1
    assert gains[0.0][-1] > 0.2


@pytest.mark.parametrize("minutes", [1e-9, 5.0])
def test_weight_that_is_no_number_reaches_no_checkpoint(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    """The gradient of the epoch's last iteration breaks while its loss is still fine."""
    step, steps = torch.optim.SGD.step, []

    def poisoned(self: torch.optim.SGD) -> None:
        steps.append(1)
        if len(steps) == 2 * PER_EPOCH:
            self.param_groups[0]["params"][0].grad.view(-1)[0] = float("inf")
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", poisoned)
    message = r'epoch 2, iteration \d+: weight "feedforward\.0\.weight" has values that are not finite; .*last\.safe'
    with pytest.raises(ConvergenceError, match=message):
        fit(changed(checkpoint_minutes=minutes), digits, tmp_path)
    trained, progress, _ = load_training(tmp_path / LAST)
    trained.model()
    assert (progress["epoch"], progress["iteration"]) == (1, PER_EPOCH - 1 if minutes < 1 else 0)
    load_checkpoint(tmp_path / BEST).model()


def test_arrays_where_a_dataset_is_expected_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"train: found ndarray; expected a Dataset, which Dataset\.from_arrays"):
        train(np.zeros((4, 3)))


def test_sizes_that_are_mixed_up_are_refused(digits: Dataset, tmp_path: Path) -> None:
    small = Samples(digits.test.codes[:, :, :7], digits.test.labels)
    with pytest.raises(DatasetError, match=r'"digits", test part: samples of shape \(1, 7, 8\); expected \(1, 8, 8\)'):
        fit(CONFIG, replace(digits, test=small), tmp_path)
    with pytest.raises(DatasetError, match=r"training part: samples of shape \(1, 8, 8\); expected \(3, 8, 8\)"):
        fit(CONFIG, replace(digits, input_shape=(3, 8, 8)), tmp_path)
    with pytest.raises(SpecError, match=r'layer 2 of "4C3-P16": pool P16 is given 8x8'):
        fit(changed(network={"notation": "4C3-P16"}), digits, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_samples_that_do_not_fit_their_description_are_refused(digits: Dataset, tmp_path: Path) -> None:
    colours = replace(digits.coding, mean=(0.1, 0.2), std=(1.0, 1.0))
    with pytest.raises(DatasetError, match=r"normalised channels: 2; its samples have 1; expected one mean and std"):
        fit(CONFIG, replace(digits, coding=colours), tmp_path)
    with pytest.raises(DatasetError, match=r"training part: labels 0 \.\. 9; allowed: 0 \.\. 8, one for each class"):
        fit(CONFIG, replace(digits, classes=digits.classes[:9]), tmp_path)
    with pytest.raises(DatasetError, match="test part: no samples; expected at least one"):
        fit(CONFIG, replace(digits, test=digits.test.select(np.arange(0))), tmp_path)


def test_event_frames_must_be_as_many_as_steps(digits: Dataset, tmp_path: Path) -> None:
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0,), std=(1.0,))
    frames = Samples(np.repeat(digits.train.codes[:, None] > 7, 4, axis=1).astype(np.uint8), digits.train.labels)
    events = replace(digits, train=frames, test=frames, coding=coding)
    with pytest.raises(ConfigError, match=r"network\.time_steps: found 6; allowed: 4"):
        fit(CONFIG, events, tmp_path)
    assert fit(changed(epochs=1, network={"time_steps": 4}), events, tmp_path).finished


def test_device_that_is_not_there_is_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.device: found 'cuda:99'; .*this machine has "):
        fit(changed(device="cuda:99"), digits, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weight_that_breaks_in_the_last_iteration_of_an_epoch_is_named(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = torch.optim.SGD.step, []

    def breaking(optimizer: torch.optim.SGD) -> None:
        calls.append(optimizer)
        step(optimizer)
        if len(calls) == PER_EPOCH:
            optimizer.param_groups[0]["params"][0].data.fill_(torch.inf)

    monkeypatch.setattr(torch.optim.SGD, "step", breaking)
    with pytest.raises(ConvergenceError, match=r"weight \"feedforward\.0\.weight\" has values that are not finite"):
        fit(CONFIG, digits, tmp_path)
    assert load_training(tmp_path / LAST)[1]["epoch"] == 0


def test_norm_that_is_not_found_ends_training(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(feedback: object) -> None:
        raise torch.linalg.LinAlgError("non-finite values")

    monkeypatch.setattr("fsnn_lava.training.loop.feedback_norms", failing)
    with pytest.raises(ConvergenceError, match=r"the feedback weight has grown out of all bounds; .*learning_rate"):
        fit(CONFIG, digits, tmp_path)


SPIDE = changed(network={"batch_norm": False, "v_threshold": 1.0, "spectral_norm": "frobenius"}, method="spide")
POPULATIONS = ("population1", "population2")


@pytest.mark.slow
def test_digits_are_learnt_as_well_as_by_implicit_differentiation(tmp_path: Path) -> None:
    whole = read_config("digits_spide")
    dataset = load_dataset("digits")

    def accuracy(method: str) -> float:
        folder = tmp_path / method
        folder.mkdir()
        training = replace(whole.training, method=method, epochs=12)
        return fit(replace(whole, training=training), dataset, folder).best_accuracy

    by_spikes, implicitly = accuracy("spide"), accuracy("ide")
    assert implicitly > 0.96, "the comparison must be with a network that has learnt"
    assert by_spikes >= implicitly - 0.01


def test_interrupted_training_by_spikes_goes_on_bit_for_bit(digits: Dataset, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    fit(SPIDE, digits, whole)
    assert not fit(SPIDE, digits, parts, observer=interrupt_after(PER_EPOCH + 2)).finished
    assert fit(SPIDE, digits, parts, resume=True).finished
    assert_same_run(parts, whole)


def test_both_phases_report_how_much_they_fire(digits: Dataset, tmp_path: Path) -> None:
    for metrics in fit(SPIDE, digits, tmp_path).history:
        for name in POPULATIONS:
            assert 0 < metrics[f"train/firing_rate/{name}"] < 1
            assert 0 < metrics[f"train/backward_firing_rate/{name}"] < 1
            assert 0 <= metrics[f"train/saturated_couples/{name}"] < 0.1


def scaled(loss_scale: float) -> TrainConfig:
    training = replace(SPIDE.training, loss_scale=loss_scale, epochs=1, milestones=())
    return replace(SPIDE, training=training)


def test_a_training_on_lava_is_not_gone_on_with_by_torch(digits: Dataset, tmp_path: Path) -> None:
    fit(SPIDE, digits, tmp_path)
    trained, progress, state = load_training(tmp_path / LAST)
    save_checkpoint(trained, tmp_path / LAST, progress=progress, state=state | {"float64.readout.bias": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"was trained by fsnn train-on-lava.*resume it there: fsnn"):
        fit(SPIDE, digits, tmp_path, resume=True)


def test_silent_and_saturated_couples_are_warned_of(digits: Dataset, tmp_path: Path) -> None:
    for scale, warning in ((1e-6, "no couple fires"), (1e6, "population2's couples saturate"), (100.0, "")):
        folder = tmp_path / str(scale)
        folder.mkdir()
        (metrics,) = fit(scaled(scale), digits, folder).history
        assert scale < 1e6 or metrics["train/saturated_couples/population2"] > 0.5
        said = epoch_warnings(metrics)
        assert bool(said) == bool(warning)
        assert any(warning in one for one in said) or not warning
    assert epoch_warnings({"train/loss": 1.0, "train/firing_rate/population1": 0.0}) == [], "another method's"
