"""Speed of the integer simulator, `400 (F400)` on 10,000 images, and of Lava's bit-accurate models on a few.

The dense products of the network, the codes once and the spikes at every step but the first, are set against the rate
of a float32 matrix product measured in turns with the runs.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.shared.timing import medians
from fsnn_lava.backends import IntegerSimulator, get_backend
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import DeployConfig, NetworkConfig, TrainConfig
from fsnn_lava.conversion import load_deployed, lower, samples_to_test
from fsnn_lava.datasets import InputCoding
from fsnn_lava.hardware import ALWAYS_ON, INPUT, Array, HardwareNetwork
from fsnn_lava.quantization import quantize
from fsnn_lava.training import TrainedNetwork, new_model

console = Console(width=110)
SGEMM = 1024
"""Rows and columns of the matrices whose product gives the machine's rate."""


@dataclass(frozen=True)
class Arguments:
    """Images per second of the integer simulator."""

    run: Path | None = None
    """Folder of an exported run; without it, an untrained network and random images."""
    notation: str = "400 (F400)"
    """The network, if there is no run."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    images: int = 10_000
    """How many images."""
    time_steps: tuple[int, ...] = (5, 30)
    """Steps per image."""
    repeats: int = 3
    """Measured runs of each."""
    lava_samples: int = 0
    """Images to run on Lava as well; 0: none."""
    seed: int = 0
    """Seed of the random network and images."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.deployment.simulator", description=__doc__)
    network, images = subject(arguments)
    matrix = np.random.default_rng(arguments.seed).random((SGEMM, SGEMM), dtype=np.float32)
    networks = {t: dataclasses.replace(network, time_steps=t) for t in arguments.time_steps}
    calls = {f"T = {t}": lambda n=n: IntegerSimulator().run(n, images) for t, n in networks.items()}
    seconds = medians(calls | {"product": lambda: matrix @ matrix}, repeats=arguments.repeats)
    rate = 2 * SGEMM**3 / seconds["product"]
    table = Table("backend", "T", "images", "seconds", "images per second", "of sgemm")
    for t, n in networks.items():
        took = seconds[f"T = {t}"]
        share = floating_operations(n) * len(images) / rate / took
        table.add_row("simulator", str(t), str(len(images)), f"{took:.2f}", f"{len(images) / took:.0f}", f"{share:.0%}")
        if arguments.lava_samples:
            few = images[: arguments.lava_samples]
            backend = get_backend("lava-fixed")
            began = time.perf_counter()
            backend.run(n, few)
            took = time.perf_counter() - began
            table.add_row("lava-fixed", str(t), str(len(few)), f"{took:.1f}", f"{len(few) / took:.1f}", "")
    console.print(f"{network.name}; a float32 product of {SGEMM} x {SGEMM} matrices: {rate / 1e9:.0f} GFLOP/s", table)
    console.print("simulator: median run; lava-fixed: one run, its start of some seconds included")
    return 0


def subject(arguments: Arguments) -> tuple[HardwareNetwork, Array]:
    """Load the integer network and the images."""
    if arguments.run is not None:
        network = load_deployed(arguments.run).integer
        return network, samples_to_test(network, data_dir=arguments.data_dir, count=arguments.images).codes
    config = TrainConfig(name="untrained", network=NetworkConfig(notation=arguments.notation))
    coding = InputCoding("graded", maximum=255, scale=1 / 255, mean=(0.1307,), std=(0.3081,))
    weights = new_model(config, (1, 28, 28), 10).state_dict()
    trained = TrainedNetwork(config, (1, 28, 28), tuple("0123456789"), coding, weights)
    images = np.random.default_rng(arguments.seed).integers(0, 256, (arguments.images, 1, 28, 28), dtype=np.uint8)
    settings = DeployConfig(time_steps=max(arguments.time_steps))
    return quantize(lower(trained), images[:64], config=settings, keep_lost=True)[0], images


def floating_operations(network: HardwareNetwork) -> int:
    """Count the operations of the dense products per image."""
    codes = sum(c.weight.size for c in network.connections if c.source == INPUT)
    spikes = sum(c.weight.size for c in network.connections if c.source not in (INPUT, ALWAYS_ON))
    return 2 * (codes + (network.time_steps - 1) * spikes)


if __name__ == "__main__":
    run_script(main)
