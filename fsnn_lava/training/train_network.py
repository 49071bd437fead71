"""One call to train a network on a dataset, without a run folder to look after."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.datasets import Dataset
from fsnn_lava.training.checkpoint import TrainedNetwork, load_checkpoint
from fsnn_lava.training.loop import fit
from fsnn_lava.training.session import BEST, Observer


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
    if config is None:
        default = NetworkConfig()
        steps = dataset.frames or default.time_steps
        config = TrainConfig(name=dataset.name, network=dataclasses.replace(default, time_steps=steps))
    changed = config.network
    if network is not None:
        changed = network if isinstance(network, NetworkConfig) else dataclasses.replace(changed, notation=network)
    training = _changed(config.training, method=method, epochs=epochs)
    config = dataclasses.replace(config, dataset=dataset.name, network=changed, training=training)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return _trained(config, dataset, folder, observer)
    with tempfile.TemporaryDirectory(prefix="fsnn-") as temporary:
        return _trained(config, dataset, Path(temporary), observer)


def _changed(training: TrainingConfig, *, method: str | None, epochs: int | None) -> TrainingConfig:
    if method is not None:
        training = dataclasses.replace(training, method=method)
    if epochs is not None:
        training = dataclasses.replace(training, epochs=epochs)
    return training


def _trained(config: TrainConfig, dataset: Dataset, folder: Path, observer: Observer | None) -> TrainedNetwork:
    if not fit(config, dataset, folder, observer=observer).finished:
        raise KeyboardInterrupt
    return load_checkpoint(folder / BEST)
