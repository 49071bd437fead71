"""Train a feedback spiking network: published schedule, metrics, checkpoints, resume; on one device or several.

A run is a function of its configuration and dataset: initial weights, sample order, augmentation and dropout masks
come from the seed and the iteration's number. On a CPU a run that was stopped at any moment goes on bit for bit (with
the same number of threads and processes and the same torch); elsewhere the last bits differ. One exception: an update
that is taken back (`KEPT_EVERY`) goes back to weights that were kept since the run was begun or resumed.
"""

import dataclasses
import math
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from fsnn_lava.config import NetworkConfig, TrainConfig, with_given
from fsnn_lava.datasets import Dataset
from fsnn_lava.errors import CheckpointError, ConvergenceError, DatasetError, counted
from fsnn_lava.network import (
    DenseSettings,
    FeedbackSNN,
    SharedGenerator,
    Synapse,
    check_precision,
    device_title,
    memory_errors_named,
    open_device,
    place,
    prepared,
    shared_generator,
    tf32,
)
from fsnn_lava.training.checkpoint import TrainedNetwork, load_checkpoint, load_momenta, momenta, take_weights
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.gradients.ide import UNCONVERGED, largest_gain
from fsnn_lava.training.gradients.measured_rates import ImplicitRates, rates_with_gradient
from fsnn_lava.training.integers.begin import STATISTICS_BATCHES, begin_integers, measure_statistics
from fsnn_lava.training.integers.network import IntegerSNN
from fsnn_lava.training.metrics import RUN_SECONDS, SAMPLES, UNDONE, feedback_norms, iteration_figures, packed
from fsnn_lava.training.processes import ALONE, Ranks, average
from fsnn_lava.training.schedule import (
    augmentation_of,
    batches_of_epoch,
    check_dataset,
    check_schedule,
    check_shares,
    chosen_samples,
    free_on_resume,
    iteration_seed,
    learning_rate,
    time_steps_of,
)
from fsnn_lava.training.session import BEST, LAST, LAVA_STATE, FitResult, Observer, Session

FREE_ON_RESUME = ("epochs", "threads", "checkpoint_minutes", "device", "precision", "compile")
"""Settings under [training] that may change when a run is resumed; but for the first and third they change the last
bits of what follows."""
EACH_ITERATION = ("gradient_norm", "loop_gain", UNCONVERGED)
"""Figures of which an observer is told in every iteration."""
KEPT_EVERY = 8
"""Updates after which weights whose loss is finite are kept, to go back to."""
MOST_UNDONE = 3
"""Times in a row that an update had to be taken back with which a training ends."""
MOST_LOSS = 10.0
"""Mean loss of an epoch, in units of that of guessing, above which a training has diverged."""


def fit(
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    ranks: Ranks = ALONE,
    origin: TrainedNetwork | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> FitResult:
    """Train to the configured number of epochs, writing `LAST` and `BEST` into the folder.

    Parameters
    ----------
    folder : existing folder of this run.
    resume : go on from `LAST`; without it the folder must not hold one.
    observer : told of the course; of several processes, give one to the first.
    ranks : the processes that share this training, inside `processes.joined`; the first alone writes.
    origin : network whose weights the training begins with; None: new ones. A run that is resumed does not need it.
    progress : told what is done before the first iteration, where that takes long.

    Raises
    ------
    CheckpointError : the origin is another network, or the folder holds a run already (or, to resume, none), or one of
        another configuration.
    ConfigError : the device, the batches or the settings of a resumed run do not fit, or the memory.
    DatasetError : the samples do not fit their description.
    SpecError : the notation does not fit the samples.
    ConvergenceError : the loss or a weight is not finite; `LAST` is still the last good state.
    OutputError : a checkpoint cannot be written.
    """
    dataset = chosen_samples(config, dataset)
    check_dataset(config, dataset)
    check_schedule(config.training, len(dataset.train) - config.validation_samples)
    check_shares(config, len(dataset.train), processes=ranks.size)
    device = open_device(config.training.device, local_rank=ranks.local_rank, processes=ranks.size)
    check_precision(config.training.precision, device)
    with prepared(device), memory_errors_named():
        trainer = _Trainer(config, dataset, folder, device, ranks)
        trainer.begin(resume=resume)
        with _stop_on_interrupt(ranks) as stop:
            ranks.sums(torch.zeros(1, device=device))  # nobody writes before all have read and checked
            if not resume:
                trainer.start(origin, progress)
                trainer.save(LAST)  # a run can be resumed however early it is killed
            return trainer.result(finished=trainer.run(observer, stop))


def train(
    dataset: Dataset,
    config: TrainConfig | None = None,
    *,
    network: str | NetworkConfig | None = None,
    method: str | None = None,
    epochs: int | None = None,
    folder: Path | None = None,
    observer: Observer | None = None,
) -> TrainedNetwork:
    """Train a network, and return it as it was after its best epoch.

    >>> trained = train(data, network="200 (F200)", epochs=20)  # doctest: +SKIP

    Parameters
    ----------
    config : all settings; None: the defaults, and as many steps as the dataset has event frames.
    network, method, epochs : these of the settings, instead of the config's: a notation keeps the config's neurons.
    folder : where the run's checkpoints are kept, to be made if it is not there; None: nowhere.
    observer : told of the course.

    Raises
    ------
    KeyboardInterrupt : if it was interrupted; a run in a folder can be resumed.
    FsnnError : as `fit`.
    """
    if not isinstance(dataset, Dataset):
        raise DatasetError(
            f"train: found {type(dataset).__name__}; expected a Dataset, which Dataset.from_arrays makes of arrays"
        )
    if config is None:
        default = NetworkConfig()
        steps = dataset.frames or default.time_steps
        config = TrainConfig(name=dataset.name, network=dataclasses.replace(default, time_steps=steps))
    changed = config.network
    if network is not None:
        changed = network if isinstance(network, NetworkConfig) else dataclasses.replace(changed, notation=network)
    own = {"dataset": dataset.name, "network": changed}
    config = with_given(config, own=own, training={"method": method, "epochs": epochs})
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return _trained(config, dataset, folder, observer)
    with tempfile.TemporaryDirectory(prefix="fsnn-") as temporary:
        return _trained(config, dataset, Path(temporary), observer)


def _trained(config: TrainConfig, dataset: Dataset, folder: Path, observer: Observer | None) -> TrainedNetwork:
    if not fit(config, dataset, folder, observer=observer).finished:
        raise KeyboardInterrupt
    return load_checkpoint(folder / BEST)


class _Loss(nn.Module):
    """Loss of a batch, or of this process's part of it; a module, so that its gradients can be averaged."""

    def __init__(self, model: FeedbackSNN, config: TrainConfig, ranks: Ranks) -> None:
        super().__init__()
        self.model, self._config, self._ranks = model, config, ranks

    def forward(
        self, x: Tensor, labels: Tensor, generator: SharedGenerator, time_steps: int
    ) -> tuple[Tensor, Tensor, Tensor, ImplicitRates]:
        """Return what to differentiate, the mean loss of these samples, their logits, and the rates.

        The first is the loss, weighted so that its mean over the processes is the mean over the whole batch.
        """
        implicit = rates_with_gradient(
            self.model,
            x,
            training=self._config.training,
            time_steps=time_steps,
            generator=generator,
            sums=None if self._ranks.size == 1 else self._ranks.sums,
            processes=self._ranks.size,
        )
        logits = self.model.classify(implicit.rates)
        loss = functional.cross_entropy(logits, labels, label_smoothing=self._config.training.label_smoothing)
        weighted = loss if self._ranks.size == 1 else loss * (len(labels) * self._ranks.size / generator.total)
        return weighted, loss, logits, implicit


class _Trainer(Session):
    """One run by torch: model, optimizer and progress change together, one iteration at a time."""

    def __init__(self, config: TrainConfig, dataset: Dataset, folder: Path, device: torch.device, ranks: Ranks) -> None:
        training = config.training
        title = device_title(device)
        free = free_on_resume(training, FREE_ON_RESUME)
        super().__init__(config, dataset, folder=folder, free_on_resume=free, device=title, ranks=ranks)
        self.device = device
        self.model.dense = DenseSettings(compiled=training.compile, split=training.precision != "float32")
        place(self.model, device)
        for module in self.model.modules():
            if isinstance(module, Synapse):
                module.over_processes = training.sync_batch_norm and ranks.size > 1
        # Listed once: going through all modules would take a part of each iteration that shows in a small network.
        self._parameters = list(self.model.parameters())
        self._running = [buffer for name, buffer in self.model.named_buffers() if "running_" in name]
        self.optimizer = torch.optim.SGD(
            self._parameters,
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            foreach=True,  # type: ignore[call-arg]
        )
        self.samples = DeviceSamples(
            self.dataset.train, dataset.coding, device=device, augmentation=augmentation_of(training, dataset)
        )
        self.loss: nn.Module = _Loss(self.model, config, ranks)
        self._sound = _Snapshot(self.model, self.optimizer)
        self._figures: dict[str, float] = {}
        self._undone, self._updated = 0, False
        if ranks.size > 1:
            # Running statistics are kept alike by `average` or by being those of the whole batch.
            self.loss = DistributedDataParallel(self.loss, broadcast_buffers=False)

    def start(self, origin: TrainedNetwork | None, progress: Callable[[str], None]) -> None:
        """Give a new run its weights, and one in integers its scales."""
        if origin is not None:
            take_weights(self.model, origin, dataset=self.dataset)
        if isinstance(self.model, IntegerSNN):
            if origin is None and self.config.network.batch_norm:
                progress("measuring the statistics of the batch norms")
                batches = batches_of_epoch(self.config.training, len(self.samples), epoch=0)[:STATISTICS_BATCHES]
                some = [self.samples.batch(indices)[0] for indices in batches]
                measure_statistics(self.model, some, time_steps=self.config.network.time_steps)
            begin_integers(self.model, self.dataset, origin=origin, progress=progress)

    def run(self, observer: Observer | None, stop: threading.Event) -> bool:
        """Train, and return whether all epochs were completed."""
        saved = time.monotonic()
        while self.progress.epoch < self.config.training.epochs:
            batches = batches_of_epoch(self.config.training, len(self.samples), epoch=self.progress.epoch)
            started = time.monotonic()
            for indices in batches[self.progress.iteration :]:
                overall = self.progress.epoch * len(batches) + self.progress.iteration
                stopping = self._iterate(indices, overall, stop)
                if observer is not None:
                    done, loss = self.progress.iteration, self.progress.mean_loss
                    observer.iteration(
                        epoch=self.progress.epoch, done=done, total=len(batches), loss=loss, figures=self._figures
                    )
                stopping = stopping or (self.ranks.size == 1 and stop.is_set())
                if stopping or time.monotonic() - saved > 60 * self.config.training.checkpoint_minutes:
                    self.save(LAST)
                    saved = time.monotonic()
                if stopping:
                    return False
            last_rate = self._learning_rate((self.progress.epoch + 1) * len(batches) - 1)
            metrics = self._end_epoch(time.monotonic() - started, last_rate)
            if observer is not None:
                observer.epoch(epoch=self.progress.epoch, metrics=metrics)
            saved = time.monotonic()
            if self.ranks.sums(torch.tensor([float(stop.is_set())], device=self.device)).item():
                return self.progress.epoch >= self.config.training.epochs
        return True

    def _learning_rate(self, overall: int) -> float:
        epoch = self.progress.epoch
        return learning_rate(self.config.training, samples=len(self.samples), epoch=epoch, iteration=overall)

    def _batch(self, indices: Tensor, overall: int) -> tuple[Tensor, Tensor, SharedGenerator]:
        """Return inputs and labels of this process's share of a batch, and the generator of its dropout masks."""
        training, total = self.config.training, len(indices)
        rows = self.ranks.share(total)
        seed = iteration_seed(training, iteration=overall, purpose="masks")
        generator = shared_generator(self.device, seed=seed, rows=rows, total=total)
        if self.samples.augmentation is None:
            return *self.samples.batch(indices[rows]), generator
        varied = torch.Generator().manual_seed(iteration_seed(training, iteration=overall, purpose="augmentation"))
        x, labels = self.samples.batch(indices, generator=varied)
        return x[rows], labels[rows], generator

    def _iterate(self, indices: Tensor, overall: int, stop: threading.Event) -> bool:
        """Make one update; return whether any process was asked to stop."""
        training = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(overall)
        x, labels, generator = self._batch(indices, overall)
        if not self.model.training:
            self.model.train()
        steps = time_steps_of(self.config, epoch=self.progress.epoch, iteration=overall)
        weighted, loss, logits, implicit = self.loss(x, labels, generator, steps)
        self.optimizer.zero_grad()
        if bool(self.ranks.sums((~loss.detach().isfinite()).float())):
            return self._undo(stop)
        try:
            with tf32(training.precision != "float32"):
                weighted.backward()
        except ConvergenceError:  # of a gradient that is not finite
            return self._undo(stop)
        figures = iteration_figures(
            self.model.population_names, implicit, loss=loss, logits=logits, labels=labels, total=len(indices)
        )
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        length = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        if not math.isfinite(length):
            return self._undo(stop)
        if length > training.max_gradient_norm > 0:
            torch._foreach_mul_(gradients, training.max_gradient_norm / length)
        if overall % KEPT_EVERY == 0 or not self._sound.taken:
            self._sound.take()
        figures |= {"gradient_norm": length * len(labels), "stopping": float(stop.is_set())}
        values = self.ranks.sums(packed(figures, self.device)).tolist()
        summed = dict(zip(figures, values, strict=True))
        stopped = summed.pop("stopping")
        self.optimizer.step()
        gain = self.ranks.largest(largest_gain(implicit), device=self.device)
        if gain > training.contraction > 0:  # each way around a loop leads over one feedback: all of them alike
            for feedback in self.model.feedbacks:
                feedback.scale_back(training.contraction / gain)
        if not self.config.training.sync_batch_norm:
            average(self._running, self.ranks)
        self._undone = 0 if self._updated else self._undone  # the update before has led to a finite gradient
        self._updated = True
        self.progress.add(summed)
        means = {name: summed[name] / summed[SAMPLES] for name in EACH_ITERATION if name in summed}
        self._figures = means | ({"largest_loop_gain": gain} if gain else {})
        return bool(stopped)

    def _undo(self, stop: threading.Event) -> bool:
        """Go back to where loss and gradient were finite, at most `KEPT_EVERY` updates before; drop the momenta.

        This iteration makes no update then: the next batch goes on from there.
        """
        self._undone += 1
        if not self._sound.taken or self._undone == MOST_UNDONE:
            raise self.diverged(
                f"the loss or its gradient is not finite after {counted(self._undone, 'update')} in a row"
            )
        self._sound.restore()
        self._updated = False
        self.progress.add({UNDONE: 1.0})
        self._figures = {UNDONE: 1.0}
        return bool(self.ranks.sums(torch.tensor([float(stop.is_set())], device=self.device)).item())

    def _end_epoch(self, seconds: float, last_rate: float) -> dict[str, float]:
        self.check_weights()
        loss, guessing = self.progress.mean_loss, math.log(len(self.dataset.classes))
        if not loss < MOST_LOSS * guessing:
            raise self.diverged(f"the mean loss of the epoch is {loss:.4g}, where guessing has {guessing:.4g}")
        try:
            norms = feedback_norms(self.model.feedbacks)
        except torch.linalg.LinAlgError:
            raise self.diverged("the feedback weight has grown out of all bounds") from None
        runs = self.model.run_seconds() if isinstance(self.model, IntegerSNN) else {}
        ways = {f"{RUN_SECONDS}{way}": value for way, value in runs.items()}
        return self.end_epoch({"train/learning_rate": last_rate, "train/seconds": seconds} | ways | norms)

    def _state(self) -> dict[str, Tensor]:
        return momenta(self.model, self.optimizer)

    def _check_origin(self, path: Path, trained: TrainedNetwork, state: Mapping[str, Tensor]) -> None:
        if any(name.startswith(LAVA_STATE) for name in state):
            raise CheckpointError(
                f"{path}: was trained by fsnn train-on-lava, whose float64 weights a training by torch would lose; "
                f"resume it there: fsnn train-on-lava --resume {self.folder}"
            )

    def _restore_state(self, trained: TrainedNetwork, state: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(trained.model().state_dict())
        load_momenta(self.model, self.optimizer, state)


class _Snapshot:
    """Weights and running statistics to go back to; `restore` sets the momenta to zero."""

    def __init__(self, model: FeedbackSNN, optimizer: torch.optim.SGD) -> None:
        self._tensors, self._optimizer = [*(p.detach() for p in model.parameters()), *model.buffers()], optimizer
        self._kept: list[Tensor] = []

    @property
    def taken(self) -> bool:
        """Whether there is something to go back to."""
        return bool(self._kept)

    @torch.no_grad()
    def take(self) -> None:
        """Keep what is there now."""
        if not self._kept:
            self._kept = [tensor.clone() for tensor in self._tensors]
            return
        torch._foreach_copy_(self._kept, self._tensors)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back."""
        torch._foreach_copy_(self._tensors, self._kept)
        for state in self._optimizer.state.values():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"].zero_()


@contextmanager
def _stop_on_interrupt(ranks: Ranks) -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets, so that an iteration is never torn; the second one raises as usual.

    Of several processes each may hear of one Ctrl-C twice, from the terminal and from torchrun: there only torchrun,
    which waits for half a minute, ends a process that does not stop.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(_signal: int, _frame: object) -> None:
        stop.set()
        if ranks.size == 1:
            signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
