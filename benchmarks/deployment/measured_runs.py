"""The networks whose deployment is measured: exported runs, and how much of each is run where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deployment.lava_speed import time_lava
from benchmarks.deployment.whole_sets import time_set
from fsnn_lava.conversion import load_deployed, samples_to_test
from fsnn_lava.datasets import Samples, time_first
from fsnn_lava.errors import counted
from fsnn_lava.hardware import HardwareNetwork

Say = Callable[[str], None]
"""Told what is being measured."""


@dataclass(frozen=True)
class Case:
    """Sizes at which a network is measured, and what is wanted of it.

    Parameters
    ----------
    stock_samples, stock_steps : samples and T of the run on Lava's own models, whose time depends on neither spikes
        nor T; stock_steps 0: the network's own.
    our_samples : of the run on our models, with the network's own T.
    images : of the test set, in the simulator.
    models : times that a step on our models should be faster than on Lava's own; None: not said.
    simulator : times that the simulator should run more images per second than Lava on its own models.
    seconds : that the simulator may take for these images; None: not said.
    """

    stock_samples: int
    stock_steps: int
    our_samples: int
    images: int
    models: int | None
    simulator: int
    seconds: int | None


CASES: Mapping[str, Case] = {
    "fashion": Case(100, 0, 1000, 10_000, None, 100, None),
    "mnist": Case(6, 0, 200, 10_000, 30, 1000, 60),
    "alexnet": Case(4, 2, 40, 1_000, 100, 1000, 90),
}
TITLES = {"96C3s-256C3-384C3s-384C3-256C3 (F96C3u)": "AlexNet-F"}
"""Names of networks, by their notation."""


@dataclass(frozen=True, eq=False)
class Subject:
    """An exported run with its test samples."""

    case: Case
    run: str
    network: HardwareNetwork
    test: Samples

    @property
    def facts(self) -> dict[str, Any]:
        """Describe it, as it is kept beside its figures."""
        config = self.network.provenance["config"]
        notation = config["network"]["notation"]
        return {
            "title": TITLES.get(notation, notation),
            "run": self.run,
            "dataset": config["dataset"],
            "time_steps": self.network.time_steps,
        }


def read_subject(key: str, folder: Path, *, data_dir: Path | None, images: int | None, quick: bool) -> Subject:
    """Load the exported run in that folder; `images`: so many of the test set at most.

    Raises
    ------
    ConfigError, NetworkError, DatasetError : if it was not exported, or it or its dataset cannot be read.
    """
    case = CASES[key]
    if quick:
        case = dataclasses.replace(case, stock_samples=2, our_samples=3, images=20)
    network = load_deployed(folder).integer
    test = samples_to_test(network, data_dir=data_dir, count=min(case.images, images or case.images))
    return Subject(case, folder.name, network, test)


def measure_lava(subjects: Mapping[str, Subject], say: Say) -> dict[str, Any]:
    """Times on Lava with its own process models and with ours, by network."""
    found = {}
    for key, subject in subjects.items():
        case, network = subject.case, subject.network
        title = subject.facts["title"]
        shorter = dataclasses.replace(network, time_steps=case.stock_steps or network.time_steps)
        say(f"{title} on Lava's own models, {counted(case.stock_samples, 'image')}")
        stock = time_lava(shorter, _inputs(subject, shorter, case.stock_samples), stock_models=True)
        say(f"{title} on our models, {counted(case.our_samples, 'image')}")
        ours = time_lava(network, _inputs(subject, network, case.our_samples), stock_models=False)
        found[key] = subject.facts | {"stock": asdict(stock), "ours": asdict(ours)}
    return found


def _inputs(subject: Subject, network: HardwareNetwork, count: int) -> Any:
    """Take the first samples, in as many frames as the network has steps."""
    codes = time_first(subject.test.select(np.arange(count)).codes)
    return codes[: network.time_steps] if network.input.kind == "event" else codes


def measure_sets(subjects: Mapping[str, Subject], say: Say) -> dict[str, Any]:
    """Times of whole test sets in the simulator, by network."""
    found = {}
    for key, subject in subjects.items():
        say(f"{subject.facts['title']} in the simulator, {counted(len(subject.test), 'image')}")
        metrics = subject.network.provenance["metrics"]
        pytorch = {"accuracy": metrics["best_test_accuracy"], "samples": metrics.get("test_samples")}
        found[key] = subject.facts | asdict(time_set(subject.network, subject.test)) | {"pytorch": pytorch}
    return found
