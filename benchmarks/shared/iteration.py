"""One training iteration, always on the same batch, as its memory and time are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.config import TrainConfig
from fsnn_lava.datasets import Dataset
from fsnn_lava.network import open_device, place, prepared, tf32
from fsnn_lava.training import DeviceSamples, new_model, rates_with_gradient


@contextmanager
def iteration(
    config: TrainConfig, dataset: Dataset, *, weights: Mapping[str, Tensor] | None = None
) -> Iterator[Callable[[], None]]:
    """A function that runs the iteration of a configuration; within it the device is as in training.

    Parameters
    ----------
    dataset : the first batch of its training part is used.
    weights : state of the model to begin from; None: new ones.
    """
    training = config.training
    if training.threads:
        torch.set_num_threads(training.threads)
    device = open_device(training.device)
    model = new_model(config, dataset.input_shape, len(dataset.classes))
    if weights is not None:
        model.load_state_dict(weights)
    place(model.train(), device)
    samples = DeviceSamples(dataset.train, dataset.coding, device=device)
    indices = torch.arange(min(training.batch_size, len(dataset.train)))
    masks = torch.Generator(device).manual_seed(0)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=training.momentum, weight_decay=training.weight_decay
    )

    def iterate() -> None:
        x, labels = samples.batch(indices)
        steps = config.network.time_steps
        found = rates_with_gradient(model, x, training=training, time_steps=steps, generator=masks)
        loss = functional.cross_entropy(model.classify(found.rates), labels)
        optimizer.zero_grad()
        with tf32(training.precision != "float32"):
            loss.backward()
        optimizer.step()

    with prepared(device):
        yield iterate
