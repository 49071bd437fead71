"""Figures of finished trainings as small JSON files, and in how far each of them is what the paper did."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from benchmarks.ide.published import SAMPLES
from benchmarks.shared.results import commit
from fsnn_lava.config import METHODS, TrainConfig, changed_settings, parse_spec
from fsnn_lava.errors import CheckpointError
from fsnn_lava.files import write_json
from fsnn_lava.training import LAST, TrainedNetwork, load_training

TRAININGS = "trainings"
"""Folder in it that holds a file for each training."""
NOT_OF_THE_PROCEDURE = ("epochs", "seed", "device", "threads", "compile", "checkpoint_minutes")
"""Settings under [training] that a row states apart or that do not make it another experiment."""


@dataclass(frozen=True)
class RunResult:
    """Figures of one training.

    Parameters
    ----------
    run, config : name of its folder, and of the config that it began from.
    device : what a person calls it; empty if the training did not keep it.
    accuracy : best test accuracy of any epoch, [0, 1].
    best_epoch, epochs : the epoch of that accuracy, counted from 1; epochs done.
    train_samples, test_samples : how many were used.
    note : how these differ from the dataset's own, as its loader says.
    changed : settings other than the config's, "key (config's -> run's)".
    mean_spikes : population -> spikes per neuron and step over the test samples in the best epoch, plain mean; and
        "total", over all neurons.
    seconds_per_epoch : of training, without the evaluation; the median.
    commit : of the tree that read the run.
    """

    run: str
    config: str
    seed: int
    device: str
    accuracy: float
    best_epoch: int
    epochs: int
    train_samples: int
    test_samples: int
    note: str
    changed: tuple[str, ...]
    mean_spikes: dict[str, float]
    seconds_per_epoch: float
    commit: str

    @property
    def seen(self) -> int:
        """Samples that the training went over in all its epochs."""
        return self.epochs * self.train_samples


def read_run(folder: Path, configs: Mapping[str, TrainConfig]) -> RunResult | None:
    """Read what the training in that folder gave so far; None if its config is not one of these or no epoch is done.

    Raises
    ------
    CheckpointError : if the run cannot be read or does not say how many samples it used.
    """
    trained, progress, _ = load_training(folder / LAST)
    name, metrics = trained.config.name, trained.metrics
    history = progress.get("history", [])
    if name not in configs or not history:
        return None
    best = history[progress["best_epoch"] - 1]
    train, test = _samples(trained, folder)
    return RunResult(
        run=folder.name,
        config=name,
        seed=trained.config.training.seed,
        device=str(metrics.get("device", "")),
        accuracy=progress["best_accuracy"],
        best_epoch=progress["best_epoch"],
        epochs=len(history),
        train_samples=train,
        test_samples=test,
        note=str(metrics.get("note", "")),
        changed=_changed(configs[name], trained.config),
        mean_spikes=_mean_spikes(trained, best),
        seconds_per_epoch=round(statistics.median(epoch["train/seconds"] for epoch in history), 2),
        commit=commit(),
    )


def _samples(trained: TrainedNetwork, folder: Path) -> tuple[int, int]:
    """Samples used. Trainings made before these were kept have none of the metrics, and used all there are."""
    if "train_samples" in trained.metrics:
        return trained.metrics["train_samples"], trained.metrics["test_samples"]
    if trained.config.dataset not in ("mnist", "fashion_mnist"):
        raise CheckpointError(f"{folder / LAST}: does not say how many samples were used; train again")
    return SAMPLES[trained.config.dataset]


def _changed(config: TrainConfig, run: TrainConfig) -> tuple[str, ...]:
    unused = [name for method in METHODS if method != config.training.method for name in METHODS.get(method).settings]
    free = (*NOT_OF_THE_PROCEDURE, *unused)
    stated = ("name", "published", "train_samples", "test_samples")
    return tuple(setting for setting in changed_settings(config, run, free=free) if setting not in stated)


def _mean_spikes(trained: TrainedNetwork, epoch: Mapping[str, float]) -> dict[str, float]:
    network = trained.config.network
    populations = parse_spec(network.notation).populations(trained.input_shape, pooling=network.pooling)
    rates = {p.name: epoch[f"test/firing_rate/{p.name}"] for p in populations}
    neurons = {p.name: prod(p.shape) for p in populations}
    total = sum(rates[name] * neurons[name] for name in rates) / sum(neurons.values())
    return {name: round(rate, 6) for name, rate in (rates | {"total": total}).items()}


def extent(result: RunResult, config: TrainConfig) -> str:
    """Say how much of the published experiment a run is: "full", or "in part: 1 of 100 epochs; 3,200 of ..."."""
    train, test = SAMPLES[config.dataset]
    parts = []
    if result.epochs < config.training.epochs:
        parts.append(f"{result.epochs} of {config.training.epochs} epochs")
    if result.train_samples < train:
        parts.append(f"{result.train_samples:,} of {train:,} training samples")
    if result.test_samples < test:
        parts.append(f"{result.test_samples:,} of {test:,} test samples")
    # The loader's own count of samples is the one above.
    parts += [note for note in result.note.split(", ") if note and not note.endswith(" samples")]
    parts += result.changed
    return f"in part: {'; '.join(parts)}" if parts else "full"


def save_result(result: RunResult, folder: Path) -> None:
    """Write a run's figures, folder/run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{result.run}.json", asdict(result))


def stored_results(folder: Path) -> list[RunResult]:
    """Read the figures of all runs kept in a folder, by name."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [RunResult(**values | {"changed": tuple(values["changed"])}) for values in found]
