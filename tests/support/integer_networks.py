"""Networks that are trained in integers, at the start of their training, and the floats that they were rounded from."""

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import trained
from fsnn_lava.config import TrainConfig, TrainingConfig, WeightBits
from fsnn_lava.config.notation import Pooling
from fsnn_lava.datasets import Dataset, InputCoding, Samples, time_first
from fsnn_lava.hardware import Array, Connection, HardwareNetwork
from fsnn_lava.network.lowering import lower_model
from fsnn_lava.training.checkpoint import TrainedNetwork, new_model, take_weights
from fsnn_lava.training.integers.begin import begin_integers
from fsnn_lava.training.integers.network import IntegerSNN

GRADED = InputCoding("graded", maximum=16, scale=0.0625, mean=(0.4,), std=(0.5,))
"""Digits whose code 0 is no real 0, so that a border of zeros is not one of dark pixels."""
EVENTS = InputCoding("event", maximum=1, scale=1.0, mean=(0.2,), std=(0.6,))
STEPS = 8


def some_digits(coding: InputCoding = GRADED, *, train: int = 16, test: int = 20, steps: int = STEPS) -> Dataset:
    """A few images; as events, each a frame a step, of the pixels above a threshold that rises."""
    whole = replace(trained.digits(), coding=coding)

    def part(samples: Samples, count: int) -> Samples:
        some = samples.select(np.arange(count))
        if coding.kind == "graded":
            return some
        thresholds = np.linspace(2, 14, steps)[:, None, None, None]
        return Samples((some.codes[:, None] > thresholds).astype(np.uint8), some.labels)

    return replace(whole, train=part(whole.train, train), test=part(whole.test, test))


@dataclass(frozen=True)
class Started:
    """A network in integers that has just started.

    Parameters
    ----------
    model : in training mode.
    floats : the same weights, trained in floats in hardware timing.
    floating : these, lowered in float64.
    config : of the training in integers.
    """

    model: IntegerSNN
    floats: TrainedNetwork
    floating: HardwareNetwork
    config: TrainConfig
    data: Dataset

    @property
    def calibration(self) -> Array:
        """Codes on which an export is calibrated."""
        return time_first(self.data.train.spread(256).codes)

    def inputs(self, count: int = 6) -> tuple[Tensor, Array]:
        """Normalised test inputs, of the weights' type, and their codes, as a backend takes them."""
        codes = time_first(self.data.test.codes[:count])
        kind = self.model.readout.weight.dtype
        return torch.from_numpy(self.data.coding.decode(codes, np.float64)).to(kind), codes


def started(
    notation: str,
    *,
    bits: WeightBits = 8,
    symmetric: bool = False,
    leak: float = 1.0,
    batch_norm: bool = True,
    pooling: Pooling = "merged",
    coding: InputCoding = GRADED,
    v_threshold: float = 2.0,
    steps: int = STEPS,
    double: bool = False,
    network: Mapping[str, Any] | None = None,
    **training: Any,
) -> Started:
    """A network whose every parameter and running statistic was drawn at random, and its integers.

    Parameters
    ----------
    double : in float64.
    network : other settings of the network.
    training : settings of the training in integers.
    """
    given = {"leak": leak, "batch_norm": batch_norm, "pooling": pooling, "coding": coding, "v_threshold": v_threshold}
    settings = {**training, "weight_bits": bits, "symmetric": symmetric}
    parts = [tuple(sorted(part.items())) for part in (given, network or {}, settings)]
    case = _started(notation, parts[0], parts[1], parts[2], steps, double)
    return replace(case, model=copy.deepcopy(case.model))


@functools.cache
def _started(
    notation: str,
    given: tuple[tuple[str, Any], ...],
    network: tuple[tuple[str, Any], ...],
    training: tuple[tuple[str, Any], ...],
    steps: int,
    double: bool,
) -> Started:
    floats = trained.random_network(notation, time_steps=steps, timing="hardware", **dict(given))
    coding, shape = floats.coding, floats.input_shape
    floating = replace(floats.config, network=replace(floats.config.network, **dict(network)))
    names = new_model(floating, shape, 10).state_dict()
    floats = replace(floats, config=floating, weights={name: floats.weights[name] for name in names})
    data = some_digits(coding, steps=steps)
    config = replace(floating, training=TrainingConfig(arithmetic="integer", **dict(training)))
    model = new_model(config, shape, 10, coding=coding)
    assert isinstance(model, IntegerSNN)
    take_weights(model, floats, dataset=data)
    if double:
        model.double()
    begin_integers(model, data, origin=floats)
    lowered = lower_model(floats.model().double(), coding, name="floats", time_steps=config.most_steps)
    return Started(model, floats, lowered, config, data)


def assert_same_integers(network: HardwareNetwork, other: HardwareNetwork) -> None:
    """Every mantissa, exponent and width, and every constant of a neuron, whatever the order of the connections."""
    assert network.populations == other.populations
    ours, theirs = by_name(network), by_name(other)
    assert ours.keys() == theirs.keys()
    for name, c in ours.items():
        d = theirs[name]
        kept = "source", "target", "delay", "weight_exponent", "weight_bits", "geometry"
        assert [getattr(c, field) for field in kept] == [getattr(d, field) for field in kept], name
        assert np.array_equal(c.weight, d.weight), name


def by_name(network: HardwareNetwork) -> dict[str, Connection]:
    return {c.name: c for c in network.connections}


def train_a_little(model: IntegerSNN, *, by: float = 0.05, seed: int = 1) -> None:
    """Move every parameter at random, by that share of its size, as an update would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
            parameter.add_(by * parameter.abs().mean() * drawn)
