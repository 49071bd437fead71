"""Train a feedback spiking network: seeds, published schedule, metrics, checkpoints, resume.

A run is a function of its configuration and dataset: weights, sample order and dropout masks come from the seed, and
their generators are in every checkpoint, so that a run that was stopped at any moment goes on bit for bit (with the
same number of CPU threads and the same torch).
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.checkpoint import TrainedNetwork, load_training, new_model, save_checkpoint
from fsnn_lava.config import TrainConfig, TrainingConfig, config_to_dict
from fsnn_lava.data import Dataset
from fsnn_lava.errors import CheckpointError, ConfigError, ConvergenceError
from fsnn_lava.evaluation import decoded, evaluate
from fsnn_lava.gradients.ide import AdjointSettings, implicit_rates
from fsnn_lava.layers import Synapse, operator_norm

LAST = "last.safetensors"
"""The newest state of a run; what `fit` resumes from."""
BEST = "best.safetensors"
"""Weights of the epoch with the best test accuracy (the published figures are of this epoch)."""
FREE_ON_RESUME = ("epochs", "threads", "checkpoint_minutes")
"""Settings under [training] that may change when a run is resumed."""


class Observer(Protocol):
    """Told of a training's course."""

    def iteration(self, *, epoch: int, done: int, total: int, loss: float) -> None:
        """After each update: how many of the epoch's iterations are done, and the mean loss so far."""

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """After each epoch's evaluation."""


@dataclass(frozen=True)
class FitResult:
    """How a training ended.

    Parameters
    ----------
    finished : False if it was interrupted; the run can be resumed.
    epochs : epochs completed.
    best_accuracy : best test accuracy of any epoch, [0, 1], and in which epoch (from 1; 0: none yet).
    history : metrics of every epoch.
    """

    finished: bool
    epochs: int
    best_accuracy: float
    best_epoch: int
    history: list[dict[str, float]]


@dataclass
class _Progress:
    """Where a run is. Every field but `sums` is plain JSON, and so are the values of `sums`."""

    epoch: int = 0
    iteration: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    config: TrainConfig, dataset: Dataset, folder: Path, *, resume: bool = False, observer: Observer | None = None
) -> FitResult:
    """Train to the configured number of epochs, writing `LAST` and `BEST` into the folder.

    Parameters
    ----------
    folder : existing folder of this run.
    resume : go on from `LAST`; without it the folder must not hold one.

    Raises
    ------
    CheckpointError : the folder holds a run already (or, to resume, none), or of another configuration.
    ConvergenceError : the loss is not finite.
    OutputError : a checkpoint cannot be written.
    """
    trainer = _Trainer(config, dataset, folder)
    if resume:
        trainer.restore()
    elif (folder / LAST).exists():
        raise CheckpointError(
            f"{folder}: holds a training already; resume it (--resume {folder}) or use another folder"
        )
    else:
        trainer.save(LAST)  # a run can be resumed however early it is killed
    with _stop_on_interrupt() as stop:
        finished = trainer.run(observer, stop)
    progress = trainer.progress
    return FitResult(finished, progress.epoch, max(progress.best_accuracy, 0.0), progress.best_epoch, progress.history)


def learning_rate(training: TrainingConfig, *, epoch: int, iteration: int) -> float:
    """Learning rate of one iteration (counted over the whole run from 0) in an epoch (from 0)."""
    rate = training.learning_rate * training.learning_rate_decay ** sum(m <= epoch for m in training.milestones)
    if iteration < training.warmup_iterations:
        rate *= (iteration + 1) / training.warmup_iterations
    return rate


class _Trainer:
    """One run: model, optimizer, generator and progress change together, one iteration at a time."""

    def __init__(self, config: TrainConfig, dataset: Dataset, folder: Path) -> None:
        training = config.training
        self.config, self.dataset, self.folder = config, dataset, folder
        self.model = new_model(config, dataset.input_shape, len(dataset.classes))
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            foreach=True,  # type: ignore[call-arg]
        )
        self.generator = torch.Generator().manual_seed(training.seed)
        self.adjoint = AdjointSettings(training.adjoint_solver, training.adjoint_tolerance, training.adjoint_max_steps)
        self.progress = _Progress()

    def run(self, observer: Observer | None, stop: threading.Event) -> bool:
        """Whether all epochs were completed."""
        saved = time.monotonic()
        while self.progress.epoch < self.config.training.epochs:
            batches = self._batches()
            started = time.monotonic()
            for indices in batches[self.progress.iteration :]:
                self._iterate(indices, self.progress.epoch * len(batches) + self.progress.iteration)
                if observer is not None:
                    loss = self.progress.sums["loss"] / self.progress.sums["samples"]
                    done = self.progress.iteration
                    observer.iteration(epoch=self.progress.epoch, done=done, total=len(batches), loss=loss)
                late = time.monotonic() - saved > 60 * self.config.training.checkpoint_minutes
                if stop.is_set() or late:
                    self.save(LAST)
                    saved = time.monotonic()
                if stop.is_set():
                    return False
            rate = learning_rate(
                self.config.training,
                epoch=self.progress.epoch,
                iteration=(self.progress.epoch + 1) * len(batches) - 1,
            )
            metrics = self._end_epoch(time.monotonic() - started, rate)
            if observer is not None:
                observer.epoch(epoch=self.progress.epoch, metrics=metrics)
            saved = time.monotonic()
            if stop.is_set():
                return self.progress.epoch >= self.config.training.epochs
        return True

    def _batches(self) -> list[Tensor]:
        """Sample indices of this epoch's batches; a single left-over sample joins the batch before it."""
        training = self.config.training
        order = torch.Generator().manual_seed(training.seed * 1_000_003 + self.progress.epoch)
        batches = list(torch.randperm(len(self.dataset.train), generator=order).split(training.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _iterate(self, indices: Tensor, overall: int) -> None:
        progress = self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.training, epoch=progress.epoch, iteration=overall)
        samples = self.dataset.train.select(indices.numpy())
        x = decoded(samples, self.dataset.coding)
        labels = torch.from_numpy(samples.labels)
        self.model.train()
        implicit = implicit_rates(
            self.model,
            x,
            time_steps=self.config.network.time_steps,
            settings=self.adjoint,
            generator=self.generator,
        )
        logits = self.model.classify(implicit.rates)
        loss = functional.cross_entropy(logits, labels)
        value = loss.item()
        if not -1e30 < value < 1e30:
            raise ConvergenceError(
                f"epoch {progress.epoch + 1}, iteration {progress.iteration + 1}: the loss is {value}; "
                "lower training.learning_rate, or set training.warmup_iterations"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        count = len(labels)
        self._add("samples", count)
        self._add("loss", value * count)
        self._add("correct", float((logits.argmax(1) == labels).sum()))
        for name, mean in zip(self.model.population_names, implicit.simulation.mean_spikes, strict=True):
            self._add(f"firing_rate/{name}", float(mean.mean()) * count)
        for solved in implicit.adjoint:
            self._add("adjoint_residual", solved.residual * count)
            self._add("adjoint_steps", float(solved.steps) * count)
            self._add("adjoint_unconverged", 0.0 if solved.converged else 1.0)
        progress.iteration += 1

    def _add(self, name: str, value: float) -> None:
        self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value

    def _end_epoch(self, seconds: float, last_rate: float) -> dict[str, float]:
        progress = self.progress
        sums = dict(progress.sums)
        samples, correct = sums.pop("samples"), sums.pop("correct")
        unconverged = sums.pop("adjoint_unconverged", 0.0)
        metrics = {f"train/{name}": total / samples for name, total in sums.items()}
        metrics["train/accuracy"] = correct / samples
        metrics["train/adjoint_unconverged"] = unconverged
        metrics["train/learning_rate"] = last_rate
        metrics["train/seconds"] = seconds
        metrics |= _feedback_norms(self.model.feedback)
        test = evaluate(self.model, self.dataset.test, self.dataset.coding, time_steps=self.config.network.time_steps)
        metrics |= {"test/accuracy": test.accuracy, "test/loss": test.loss}
        metrics |= {f"test/firing_rate/{name}": rate for name, rate in test.mean_spikes.items()}
        progress.epoch, progress.iteration, progress.sums = progress.epoch + 1, 0, {}
        progress.history.append(metrics)
        if test.accuracy > progress.best_accuracy:
            progress.best_accuracy, progress.best_epoch = test.accuracy, progress.epoch
            self.save(BEST)
        self.save(LAST)
        return metrics

    def save(self, name: str) -> None:
        """Write `BEST` (weights alone) or `LAST` (with all that is needed to go on)."""
        weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        progress = self.progress
        metrics: dict[str, Any] = {
            "epoch": progress.epoch,
            "best_test_accuracy": progress.best_accuracy,
            "best_epoch": progress.best_epoch,
            "last_epoch": progress.history[-1] if progress.history else {},
        }
        dataset = self.dataset
        trained = TrainedNetwork(self.config, dataset.input_shape, dataset.classes, dataset.coding, weights, metrics)
        if name == BEST:
            save_checkpoint(trained, self.folder / BEST)
            return
        names = [n for n, _ in self.model.named_parameters()]
        buffers = {i: s.get("momentum_buffer") for i, s in self.optimizer.state_dict()["state"].items()}
        momenta = {f"momentum.{names[i]}": buffer for i, buffer in buffers.items() if buffer is not None}
        state = momenta | {"generator": self.generator.get_state()}
        save_checkpoint(trained, self.folder / LAST, progress=dataclasses.asdict(progress), state=state)

    def restore(self) -> None:
        """Take model, optimizer, generator and progress from the folder's last checkpoint."""
        path = self.folder / LAST
        trained, progress, state = load_training(path)
        changed = _changed_settings(trained.config, self.config)
        if changed:
            raise ConfigError(
                f"{path}: cannot resume with other settings: {', '.join(changed)}; "
                f"only training.{', training.'.join(FREE_ON_RESUME)} may change"
            )
        try:
            self.model.load_state_dict(trained.model().state_dict())
            self.generator.set_state(state["generator"])
            self.progress = _Progress(**progress)
            names = [n for n, _ in self.model.named_parameters()]
            packed = self.optimizer.state_dict()
            momenta = {n: state[f"momentum.{n}"] for n in names if f"momentum.{n}" in state}
            packed["state"] = {i: {"momentum_buffer": momenta[n]} for i, n in enumerate(names) if n in momenta}
            self.optimizer.load_state_dict(packed)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {path}: the state to resume from is incomplete: {error}") from None


def _feedback_norms(feedback: Synapse | None) -> dict[str, float]:
    """Norm of the restricted feedback weight as published (the kernel as a matrix), and of the operator itself."""
    if feedback is None:
        return {}
    training = feedback.training
    feedback.eval()
    weight = feedback.effective_weight().detach()
    feedback.train(training)
    return {
        "train/spectral_norm": float(torch.linalg.matrix_norm(weight.flatten(1), ord=2)),
        "train/spectral_norm_operator": operator_norm(feedback.layer, weight, feedback.input_shape),
    }


def _changed_settings(old: TrainConfig, new: TrainConfig) -> list[str]:
    before, after = config_to_dict(old), config_to_dict(new)
    changed = [k for k in before if not isinstance(before[k], dict) and before[k] != after[k]]
    for table in ("network", "training"):
        for key, value in before[table].items():
            if value != after[table][key] and not (table == "training" and key in FREE_ON_RESUME):
                changed.append(f"{table}.{key} ({value!r} -> {after[table][key]!r})")
    return changed


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that an iteration is never torn; the second one raises as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(_signal: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
