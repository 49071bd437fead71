"""A training whose epochs are executed by Lava; order, learning rates, checkpoints and tests are those of `training`.

A run is a function of its configuration and dataset. One that was interrupted goes on bit for bit: `LAST` holds
weights and momenta in float64 beside those that every other program reads.
"""

import bisect
import itertools
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fsnn_lava.backends import TrainingJob, TrainingOutcome, require_lava, train_on_lava
from fsnn_lava.config import TrainConfig
from fsnn_lava.datasets import Dataset
from fsnn_lava.errors import CheckpointError, ConfigError, ConvergenceError, IncompleteRunError
from fsnn_lava.training.checkpoint import TrainedNetwork, new_model
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.metrics import CORRECT, SAMPLES
from fsnn_lava.training.on_lava_check import Agreement, compare_with_spide
from fsnn_lava.training.on_lava_network import momenta_of, parameters_of, plastic_network, require_on_chip, training_job
from fsnn_lava.training.schedule import (
    batches_of_epoch,
    check_dataset,
    check_schedule,
    chosen_samples,
    free_on_resume,
    learning_rate,
)
from fsnn_lava.training.session import LAST, LAVA_STATE, FitResult, Observer, Session

FREE_ON_RESUME = ("epochs", "threads")
"""Settings under [training] that may change when a run is resumed."""
_DEVICE = "simulated on-chip training: Lava's processes on a CPU, float64"


def fit_on_lava(
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    timeout_s: float = 120.0,
) -> FitResult:
    """Train to the configured number of epochs on Lava, writing `LAST` and `BEST` into the folder.

    Parameters
    ----------
    folder : existing folder of this run.
    resume : go on from `LAST`, which this function wrote; without it the folder must not hold one.
    observer : told of the course; done and total are samples.
    timeout_s : longest time in which Lava may finish no step.

    Raises
    ------
    UnsupportedError : what Lava processes cannot say, every violation at once.
    MissingDependencyError : if Lava is not installed.
    IncompleteRunError : Lava failed; `LAST` holds all whole updates.
    ConvergenceError : a weight is not finite; `LAST` holds the last good state.
    CheckpointError, ConfigError, DatasetError, SpecError, OutputError : as `fsnn_lava.training.loop.fit`.
    """
    trainer = _Trainer(config, dataset, folder, observer, timeout_s)
    require_lava()  # before anything is written
    trainer.begin(resume=resume)
    if not resume:
        trainer.save(LAST)
    return trainer.result(finished=trainer.run())


def check_on_lava(config: TrainConfig, dataset: Dataset, *, samples: int, timeout_s: float = 120.0) -> Agreement:
    """Compare Lava's first updates with torch and `gradients.spide`: every spike, the gradients and the weights.

    Parameters
    ----------
    samples : whose spikes are compared, from the first of the first epoch, 1 .. all; the updates are those of all
        batches that these samples belong to.
    timeout_s : longest time in which Lava may finish no step.

    Raises
    ------
    ConfigError : more samples than there are, or none.
    UnsupportedError, MissingDependencyError, IncompleteRunError, ConvergenceError : as `fit_on_lava`.
    """
    dataset = chosen_samples(config, dataset)
    check_dataset(config, dataset)
    require_on_chip(config, dataset)
    if not 1 <= samples <= len(dataset.train):
        raise ConfigError(f"samples to check: found {samples}; allowed: 1 .. {len(dataset.train)}, one epoch")
    batches = batches_of_epoch(config.training, len(dataset.train), epoch=0)
    ends = list(itertools.accumulate(len(batch) for batch in batches))
    batches = batches[: bisect.bisect_left(ends, samples) + 1]
    model = new_model(config, dataset.input_shape, len(dataset.classes))
    kept = DeviceSamples(dataset.train, dataset.coding, device="cpu")
    job = training_job(plastic_network(model), config, kept, batches, epoch=0, first_iteration=0, recorded=samples)
    return compare_with_spide(model, job, train_on_lava(job, timeout_s=timeout_s))


class _Trainer(Session):
    """One run on Lava: the network's arrays and the progress change together, one run of Lava at a time."""

    def __init__(
        self, config: TrainConfig, dataset: Dataset, folder: Path, observer: Observer | None, timeout_s: float
    ) -> None:
        dataset = chosen_samples(config, dataset)
        check_dataset(config, dataset)
        require_on_chip(config, dataset)
        check_schedule(config.training, len(dataset.train) - config.validation_samples)
        free = free_on_resume(config.training, FREE_ON_RESUME)
        super().__init__(config, dataset, folder=folder, free_on_resume=free, device=_DEVICE)
        self.observer, self.timeout_s = observer, timeout_s
        self.network = plastic_network(self.model)
        self.samples = DeviceSamples(self.dataset.train, dataset.coding, device="cpu")

    def run(self) -> bool:
        """Train, and return whether all epochs were completed."""
        while self.progress.epoch < self.config.training.epochs:
            started = time.monotonic()
            steps = 0
            batches = batches_of_epoch(self.config.training, len(self.samples), epoch=self.progress.epoch)
            if self.progress.iteration < len(batches):  # else it was interrupted before the epoch's test
                done = self.progress.iteration
                which = {"epoch": self.progress.epoch, "first_iteration": self.progress.epoch * len(batches) + done}
                job = training_job(self.network, self.config, self.samples, batches[done:], **which)
                steps = job.steps
                if not self._learn(job):
                    return False
            last = (self.progress.epoch + 1) * len(batches) - 1
            self._end_epoch(time.monotonic() - started, steps=steps, iteration=last)
        return True

    def _learn(self, job: TrainingJob) -> bool:
        """Run a job; return whether Lava showed all samples. If not, whole updates are kept."""
        before = int(self.progress.sums.get(SAMPLES, 0))

        def report(done: int, total: int, loss: float) -> None:
            if self.observer is not None:
                self.observer.iteration(epoch=self.progress.epoch, done=before + done, total=before + total, loss=loss)

        try:
            self._take(train_on_lava(job, progress=report, timeout_s=self.timeout_s), job)
        except IncompleteRunError as error:
            self._keep(error, job)
            if isinstance(error.__cause__, KeyboardInterrupt):
                return False
            raise
        except ConvergenceError as error:
            if isinstance(error.__cause__, IncompleteRunError):
                self._keep(error.__cause__, job)
            raise
        self.save(LAST)
        return True

    def _keep(self, error: IncompleteRunError, job: TrainingJob) -> None:
        assert isinstance(error.result, TrainingOutcome)
        self._take(error.result, job)
        self.save(LAST)

    def _take(self, outcome: TrainingOutcome, job: TrainingJob) -> None:
        """Take the weights after the last whole update, and the figures of the samples until then."""
        self.network = outcome.network
        self.model.load_state_dict(parameters_of(self.network))
        count = len(outcome.losses)
        figures = {
            SAMPLES: float(count),
            "loss": float(outcome.losses.sum()),
            CORRECT: float((outcome.predictions == job.labels[:count]).sum()),
        }
        means = {"firing_rate": outcome.mean_spikes, "backward_firing_rate": outcome.mean_spikes_back}
        for kind, mean in means.items():
            sums = zip(self.model.population_names, mean.sum(0), strict=True)
            figures |= {f"{kind}/{name}": float(total) for name, total in sums}
        iteration = self.progress.iteration + outcome.updates
        if count:
            self.progress.add(figures)
        self.progress.iteration = iteration

    def _end_epoch(self, seconds: float, *, steps: int, iteration: int) -> None:
        """Test, and begin the next epoch; `iteration` is the number of the last one over the whole training."""
        training, samples = self.config.training, len(self.samples)
        rate = learning_rate(training, samples=samples, epoch=self.progress.epoch, iteration=iteration)
        speed = steps / seconds
        figures = {"train/seconds": seconds, "train/steps_per_second": speed, "train/learning_rate": rate}
        metrics = self.end_epoch(figures)
        if self.observer is not None:
            self.observer.epoch(epoch=self.progress.epoch, metrics=metrics)

    def _state(self) -> dict[str, Tensor]:
        momenta = momenta_of(self.network)
        state = {f"momentum.{k}": v.float() for k, v in momenta.items()}
        state |= {f"{LAVA_STATE}{k}": v for k, v in parameters_of(self.network).items()}
        return state | {f"{LAVA_STATE}momentum.{k}": v for k, v in momenta.items()}

    def _check_origin(self, path: Path, trained: TrainedNetwork, state: Mapping[str, Tensor]) -> None:
        if not {f"{LAVA_STATE}{name}" for name, _ in self.model.named_parameters()} <= set(state):
            raise CheckpointError(
                f"checkpoint {path}: written by another program than fsnn train-on-lava, without weights in float64; "
                f"go on with it: fsnn train --resume {self.folder}"
            )

    def _restore_state(self, trained: TrainedNetwork, state: Mapping[str, Tensor]) -> None:
        exact = {name.removeprefix(LAVA_STATE): t for name, t in state.items() if name.startswith(LAVA_STATE)}
        momenta = {n.removeprefix("momentum."): t for n, t in exact.items() if n.startswith("momentum.")}
        model = trained.model().double()
        model.load_state_dict({n: t for n, t in exact.items() if not n.startswith("momentum.")})
        self.network = plastic_network(model, momenta)
        self.model.load_state_dict(model.state_dict())
