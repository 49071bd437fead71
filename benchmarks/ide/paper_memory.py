"""Table 4 of the IDE paper: memory and time of one training iteration, implicit differentiation against BPTT.

AlexNet-F with LIF neurons. Memory and time of every gradient and T are measured in processes of their own: on a CPU the
peak of the resident memory above what is held before the iteration, on CUDA that of what torch allocates. The figures
are kept in benchmarks/results/memory_cpu.json or memory_cuda.json, from which `paper.py` makes the table.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from benchmarks.ide.published import TITLES
from benchmarks.ide.tables import METHODS, growth
from benchmarks.shared.iteration import iteration
from benchmarks.shared.memory import in_own_process, peak_increment
from benchmarks.shared.results import RESULTS, commit
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import PrecisionName, TrainConfig, read_config
from fsnn_lava.datasets import Dataset, InputCoding, Samples, load_dataset
from fsnn_lava.errors import DatasetError
from fsnn_lava.files import write_json
from fsnn_lava.network import check_precision, device_title
from fsnn_lava.training import BEST, load_checkpoint

console = Console()


@dataclass(frozen=True)
class Arguments:
    """Memory and time of a training iteration by gradient and number of time steps."""

    config: str = "cifar10_alexnet_lif_t30"
    """Network and neurons."""
    run: Path | None = None
    """Folder of a training of that network: its weights are taken; without it they are new ones."""
    methods: tuple[str, ...] = ("ide", "bptt")
    """Which gradients."""
    time_steps: tuple[int, ...] = (10, 30, 100)
    """Which T."""
    batch_size: int = 32
    """Samples of the iteration. The published 128 takes four times the memory."""
    repeats: int = 1
    """Iterations whose median time is taken, after a first one."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    precision: PrecisionName = "float32"
    """As in training."""
    threads: int = 1
    """CPU threads."""
    synthetic: bool = False
    """Random images instead of the dataset's."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    results: Path = RESULTS
    """Where the figures are kept."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.ide.paper_memory", description=__doc__)
    device = torch.device(arguments.device)
    check_precision(arguments.precision, device)
    config = read_config(arguments.config)
    dataset, images = few_images(config, arguments)
    load = round(os.getloadavg()[0], 1)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for method in arguments.methods:
        cells: dict[str, dict[str, float]] = {}
        found[method] = cells
        for steps in arguments.time_steps:
            case = configured(config, arguments, method=method, time_steps=steps)
            with console.status(f"{METHODS[method]}, T = {steps}"):
                memory = in_own_process(memory_of, case, dataset, arguments)
                seconds = in_own_process(seconds_of, case, dataset, arguments)
            cells[str(steps)] = {"memory_mib": round(memory, 1), "seconds": round(seconds, 3)}
            console.print(f"{METHODS[method]:5} T = {steps:3}   {memory:7.1f} MiB   {seconds:7.3f} s")
        if len(cells) > 1:
            console.print(f"{METHODS[method]:5} grows by {growth(cells):.2f} MiB a step")
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = {
        "device": device_title(device),
        "precision": arguments.precision,
        "batch_size": arguments.batch_size,
        "images": images,
        "load": load,
        "cores": os.cpu_count(),
        "weights": "" if arguments.run is None else arguments.run.name,
        "methods": found,
        "commit": commit(),
    }
    write_json(arguments.results / f"memory_{device.type}.json", kept)
    return 0


def configured(config: TrainConfig, arguments: Arguments, *, method: str, time_steps: int) -> TrainConfig:
    """Change the configuration to that gradient and T."""
    training = dataclasses.replace(
        config.training,
        method=method,
        batch_size=arguments.batch_size,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
    )
    return dataclasses.replace(
        config, network=dataclasses.replace(config.network, time_steps=time_steps), training=training
    )


def few_images(config: TrainConfig, arguments: Arguments) -> tuple[Dataset, str]:
    """One batch of the dataset, or random images of CIFAR's shape if that is asked for or it is missing; and which."""
    count = arguments.batch_size
    if not arguments.synthetic:
        try:
            dataset = load_dataset(config.dataset, arguments.data_dir)
        except DatasetError as error:
            console.print(f"{error}\nRandom images are used instead: the firing, and so the time, will differ.")
        else:
            chosen = np.random.default_rng(0).choice(len(dataset.train), count, replace=False)
            batch = dataset.train.select(chosen)
            return dataclasses.replace(dataset, train=batch, test=batch), TITLES[config.dataset]
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    samples = Samples(codes, generator.integers(0, 10, count))
    coding = InputCoding("graded", maximum=255, scale=1 / 255, mean=(0.5,) * 3, std=(0.29,) * 3)
    return Dataset("random", samples, samples, (3, 32, 32), tuple("0123456789"), coding), "random"


def weighted_iteration(
    config: TrainConfig, dataset: Dataset, arguments: Arguments
) -> AbstractContextManager[Callable[[], None]]:
    """An iteration with the best weights of the run, if one is named."""
    weights = None if arguments.run is None else load_checkpoint(arguments.run / BEST).model().state_dict()
    return iteration(config, dataset, weights=weights)


def memory_of(config: TrainConfig, dataset: Dataset, arguments: Arguments) -> float:
    """MiB that an iteration holds at most, in addition to what stays."""
    with weighted_iteration(config, dataset, arguments) as iterate:
        return peak_increment(iterate, device=torch.device(arguments.device).type)


def seconds_of(config: TrainConfig, dataset: Dataset, arguments: Arguments) -> float:
    """Median time of an iteration."""
    times = []
    with weighted_iteration(config, dataset, arguments) as iterate:
        for _ in range(1 + arguments.repeats):
            began = time.perf_counter()
            iterate()
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


if __name__ == "__main__":
    run_script(main)
