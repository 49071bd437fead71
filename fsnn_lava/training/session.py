"""What every training keeps, whoever executes its iterations: model, progress, checkpoints, the best epoch.

`loop` trains by torch, `on_lava` in Lava's processes; each says what else a run needs to go on from, and how a
checkpoint gives it back.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fsnn_lava.config import TrainConfig, changed_settings
from fsnn_lava.datasets import Dataset
from fsnn_lava.errors import CheckpointError, ConfigError, ConvergenceError, NetworkError, counted
from fsnn_lava.training.checkpoint import TrainedNetwork, load_training, new_model, not_finite, save_checkpoint
from fsnn_lava.training.evaluation import evaluate
from fsnn_lava.training.integers.network import IntegerSNN
from fsnn_lava.training.metrics import Progress, epoch_means, run_metrics
from fsnn_lava.training.processes import ALONE, Ranks
from fsnn_lava.training.schedule import chosen_on, without_validation

LAST = "last.safetensors"
"""The newest state of a run; what a training resumes from."""
BEST = "best.safetensors"
"""Weights of the best epoch: by the test samples, as published, or by those held out for validation."""
LAVA_STATE = "float64."
"""Prefix of what a training on Lava keeps in `LAST` besides: weights and momenta in float64."""


class Observer(Protocol):
    """Told of a training's course."""

    def iteration(
        self, *, epoch: int, done: int, total: int, loss: float, figures: Mapping[str, float] | None = None
    ) -> None:
        """Take note of an update.

        Parameters
        ----------
        done, total : how many of the epoch's iterations are done, and how many it has.
        loss : mean of the epoch so far.
        figures : of this iteration alone, by name: gradient_norm and, with ide, loop_gain, largest_loop_gain and
            adjoint_unconverged; None: not known.
        """

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note of an epoch's evaluation."""


@dataclass(frozen=True)
class FitResult:
    """How a training ended.

    Parameters
    ----------
    finished : False if it was interrupted; the run can be resumed.
    epochs : epochs completed.
    best_accuracy : test accuracy of the best epoch, [0, 1]; best_epoch : which one that is (from 1; 0: none yet).
    history : metrics of every epoch.
    chosen_on : what the best epoch was chosen on: "the test set", or "N held-out training samples".
    """

    finished: bool
    epochs: int
    best_accuracy: float
    best_epoch: int
    history: list[dict[str, float]]
    chosen_on: str = "the test set"


class Session(ABC):
    """A run in its folder: the model and the progress, tested after each epoch, saved and restored.

    Parameters
    ----------
    dataset : the chosen samples; those held out for validation are taken from its training part.
    free_on_resume : settings under [training] that may change when the run is resumed.
    device : where it is trained, in words, for the checkpoint.
    ranks : the processes that share this training; the first alone writes.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        *,
        folder: Path,
        free_on_resume: Sequence[str],
        device: str,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.folder, self.ranks = config, folder, ranks
        self.dataset, self._validation = without_validation(config, dataset)
        self.model = new_model(config, dataset.input_shape, len(dataset.classes), coding=dataset.coding)
        self.progress = Progress()
        self._free_on_resume, self._device_title = free_on_resume, device
        self._saved = "none"

    @abstractmethod
    def _state(self) -> dict[str, Tensor]:
        """Tensors that a run needs besides the model's weights to go on."""

    @abstractmethod
    def _check_origin(self, path: Path, trained: TrainedNetwork, state: Mapping[str, Tensor]) -> None:
        """Raise a CheckpointError for a checkpoint that another program must go on with."""

    @abstractmethod
    def _restore_state(self, trained: TrainedNetwork, state: Mapping[str, Tensor]) -> None:
        """Take weights and state from a checkpoint; a KeyError, TypeError or RuntimeError says that it lacks some."""

    def begin(self, *, resume: bool) -> None:
        """Restore the folder's run, or make sure that a new one overwrites none.

        Raises
        ------
        CheckpointError, ConfigError : as `loop.fit`.
        """
        if resume:
            self._restore()
        elif (self.folder / LAST).exists():
            raise CheckpointError(
                f"{self.folder}: holds a training already; resume it (--resume {self.folder}) or use another folder"
            )

    def result(self, *, finished: bool) -> FitResult:
        """How the training ended."""
        progress, chosen = self.progress, chosen_on(self.config)
        best = max(progress.best_accuracy, 0.0)
        return FitResult(finished, progress.epoch, best, progress.best_epoch, progress.history, chosen)

    def end_epoch(self, figures: dict[str, float]) -> dict[str, float]:
        """Test the network, keep it if it is the best so far, save, and return the epoch's metrics.

        Parameters
        ----------
        figures : of the training, besides the means over the epoch's iterations.
        """
        progress, coding = self.progress, self.dataset.coding
        metrics = epoch_means(progress.sums) | figures
        time_steps = self.config.network.time_steps
        test = evaluate(self.model, self.dataset.test, coding, time_steps=time_steps, ranks=self.ranks)
        metrics |= test.metrics()
        judge = "test/accuracy"
        if self._validation is not None:
            held_out = evaluate(self.model, self._validation, coding, time_steps=time_steps, ranks=self.ranks)
            judge = "validation/accuracy"
            metrics |= {judge: held_out.accuracy, "validation/loss": held_out.loss}
        best = progress.history[progress.best_epoch - 1][judge] if progress.best_epoch else -1.0
        progress.end_epoch(metrics)
        if metrics[judge] > best:
            progress.best_accuracy, progress.best_epoch = test.accuracy, progress.epoch
            self.save(BEST)
        self.save(LAST)
        return metrics

    def check_weights(self) -> None:
        """Raise a ConvergenceError if a weight is not finite."""
        broken = not_finite(self.model.state_dict())
        if broken:
            raise self.diverged(f'weight "{broken}" has values that are not finite')

    def diverged(self, what: str) -> ConvergenceError:
        """Return the error of a training that cannot go on, with the way out."""
        at = f"epoch {self.progress.epoch + 1}, iteration {self.progress.iteration + 1}"
        rate = self.config.training.learning_rate
        return ConvergenceError(
            f"{at}: {what}; {self.folder / LAST} keeps the last good state ({self._saved}). To go on from it would end "
            f"the same way: train anew with a training.learning_rate below {rate:g}, or with training.warmup_iterations"
        )

    def save(self, name: str) -> None:
        """Write `BEST` (weights alone) or `LAST` (with all that is needed to go on); the first process does."""
        self.check_weights()
        if not self.ranks.first:
            return
        if isinstance(self.model, IntegerSNN):
            self.model.refresh()
        weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        dataset, progress = self.dataset, self.progress
        metrics = run_metrics(progress, self.config, dataset, device=self._device_title, processes=self.ranks.size)
        trained = TrainedNetwork(self.config, dataset.input_shape, dataset.classes, dataset.coding, weights, metrics)
        if name == BEST:
            save_checkpoint(trained, self.folder / BEST)
            return
        save_checkpoint(trained, self.folder / LAST, progress=dataclasses.asdict(progress), state=self._state())
        self._note_saved()

    def _restore(self) -> None:
        path = self.folder / LAST
        trained, progress, state = load_training(path)
        changed = changed_settings(trained.config, self.config, free=self._free_on_resume)
        if changed:
            raise ConfigError(
                f"{path}: cannot resume with other settings: {', '.join(changed)}; "
                f"only training.{', training.'.join(self._free_on_resume)} may change"
            )
        self._check_origin(path, trained, state)
        try:
            if not progress:
                raise KeyError("progress")
            self.progress = Progress(**progress)
            self._restore_state(trained, state)
        except (KeyError, TypeError, RuntimeError, NetworkError) as error:
            raise CheckpointError(f"checkpoint {path}: the state to resume from is incomplete: {error}") from None
        self._note_saved()

    def _note_saved(self) -> None:
        self._saved = (
            f"{counted(self.progress.epoch, 'whole epoch')} and {counted(self.progress.iteration, 'iteration')}"
        )
