"""What reduced precision does to a trained network: to its spikes and rates, and to its gradient.

Trains a convolutional network on a part of MNIST for a few minutes (or takes a run's best weights), then compares, on
one batch: the spiking run with weights rounded to TF32, to bfloat16, split into two TF32 values or into three whole
numbers of 8 bits, and in float32, with the one in float64; and the parameter gradient with products with the Jacobian
and the map's backward pass, or with the map as well, in bfloat16, or to another tolerance of the adjoint solve, with
the exact one. All of it runs on a CPU: rounding is the same on every device.
"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.datasets import load_dataset
from fsnn_lava.errors import counted
from fsnn_lava.network import BoundNetwork, DenseSettings, FeedbackSNN, dense_run, int8_run, split_tf32
from fsnn_lava.training import (
    BEST,
    AdjointSettings,
    DeviceSamples,
    TrainedNetwork,
    fit,
    implicit_rates,
    load_checkpoint,
)

console = Console()


@dataclass(frozen=True)
class Arguments:
    """Measure reduced precision on a trained network."""

    run: Path | None = None
    """Folder of a training; default: a short one is made."""
    notation: str = "32C3s-64C3-64C3s-64C3 (F32C3u)"
    """Network of that short training."""
    train_samples: int = 3000
    """Its samples."""
    epochs: int = 4
    """Its epochs."""
    batch: int = 64
    """Samples of the batch on which precisions are compared."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    threads: int = 1
    """CPU threads."""


def trained_network(arguments: Arguments) -> TrainedNetwork:
    """Load the given run's network, or train a new one."""
    if arguments.run is not None:
        return load_checkpoint(arguments.run / BEST)
    config = TrainConfig(
        name="precision",
        dataset="mnist",
        train_samples=arguments.train_samples,
        test_samples=500,
        network=NetworkConfig(notation=arguments.notation),
        training=TrainingConfig(epochs=arguments.epochs, batch_size=64, milestones=(), threads=arguments.threads),
    )
    with tempfile.TemporaryDirectory() as folder:
        result = fit(config, load_dataset("mnist", arguments.data_dir), Path(folder))
        console.print(f"trained {counted(arguments.epochs, 'epoch')}: test accuracy {result.best_accuracy:.2%}")
        return load_checkpoint(Path(folder) / BEST)


def rounded(bound: BoundNetwork, precision: str) -> BoundNetwork:
    """Give connections from spikes weights of that precision."""

    def weight(w: Tensor) -> Tensor:
        if precision == "bf16":
            return w.bfloat16().float()
        return split_tf32(w)[0] if precision == "tf32" else w

    first, *later = (s.detached() for s in bound.feedforward)
    (back,) = bound.feedback
    return dataclasses.replace(
        bound,
        feedforward=(first, *(dataclasses.replace(s, weight=weight(s.weight)) for s in later)),
        feedback=(dataclasses.replace(back.detached(), weight=weight(back.weight.detach())),),
    )


def spiking(model: FeedbackSNN, x: Tensor, labels: Tensor, time_steps: int) -> Table:
    """Measure how far spikes and rates of the last population are from those of float64."""
    table = Table("spiking run", "spikes that differ", "rate error, last population", "right in the batch")
    exact, truth = spikes_and_rates(model.double(), x.double(), "float64", time_steps)
    model.float()
    for name in ("float32", "split", "int8", "tf32", "bf16"):
        spikes, rates = spikes_and_rates(model, x, name, time_steps)
        # Of all spikes that either run has, how many the other one has not.
        differing = sum(float((a != b).sum()) for a, b in zip(spikes, exact, strict=True))
        fired = sum(float((a | b).sum()) for a, b in zip(spikes, exact, strict=True))
        error = float((rates - truth).norm() / truth.norm())
        right = float((model.classify(rates.float()).argmax(1) == labels).double().mean())
        table.add_row(name, f"{differing / fired:.2e}", f"{error:.2e}", f"{right:.1%}")
    return table


@torch.no_grad()
def spikes_and_rates(model: FeedbackSNN, x: Tensor, name: str, time_steps: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Spikes of every population and rates of the last one, in evaluation mode."""
    bound = model.eval().bind(len(x))
    drive = bound.drive(x, time_steps=time_steps)
    network = rounded(bound, name)
    form: dict[str, Any] = {"input_current": drive.at, "neurons": model.neurons, "time_steps": time_steps}
    form |= {"loop_delays": bound.loop_delays, "record": True}
    if name == "int8":
        counts = int8_run(network.feedforward, network.feedback, constant=True, **form)
    else:
        settings = DenseSettings(split=name == "split")
        counts = dense_run(network.feedforward, network.feedback, settings=settings, **form)
    assert counts.spikes is not None
    return counts.spikes, counts.weighted[-1].double()


def gradients(trained: TrainedNetwork, x: Tensor, labels: Tensor) -> Table:
    """Measure how far the parameter gradient is from that of an exact solve in float32."""
    cases = {
        "float32, tolerance 1e-2": AdjointSettings(tolerance=1e-2),
        "float32, tolerance 3e-3": AdjointSettings(tolerance=3e-3),
        "backward in bf16, tolerance 3e-3": AdjointSettings(tolerance=3e-3, bfloat16=True),
        "backward in bf16, exact solve": AdjointSettings(tolerance=1e-7, max_steps=60, bfloat16=True),
    }
    exact = gradient(trained, x, labels, AdjointSettings(tolerance=1e-7, max_steps=200))
    table = Table("gradient", "relative error", "largest of one parameter")
    gradients = {name: gradient(trained, x, labels, settings) for name, settings in cases.items()}
    with torch.autocast("cpu", torch.bfloat16):  # a tolerance that its solve reaches: no other one can be taken in bf16
        every = gradient(trained, x, labels, AdjointSettings(tolerance=3e-3, bfloat16=True))
    gradients["all but the spiking steps in bf16, tolerance 3e-3"] = every
    for name, found in gradients.items():
        pairs = [(found[k], exact[k]) for k in exact if float(exact[k].norm()) > 1e-6]
        error = torch.stack([(a - b).square().sum() for a, b in pairs]).sum().sqrt()
        size = torch.stack([b.square().sum() for _, b in pairs]).sum().sqrt()
        worst = max(float((a - b).norm() / b.norm()) for a, b in pairs)
        table.add_row(name, f"{float(error / size):.2e}", f"{worst:.2e}")
    return table


def gradient(trained: TrainedNetwork, x: Tensor, labels: Tensor, settings: AdjointSettings) -> dict[str, Tensor]:
    """Gradient of every parameter in a training iteration, always with the same dropout masks."""
    model = trained.model().train()
    implicit = implicit_rates(
        model,
        x,
        time_steps=trained.config.network.time_steps,
        settings=settings,
        generator=torch.Generator().manual_seed(0),
    )
    functional.cross_entropy(model.classify(implicit.rates), labels).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.ide.precision", description=__doc__)
    torch.set_num_threads(arguments.threads)
    trained = trained_network(arguments)
    dataset = load_dataset(trained.config.dataset, arguments.data_dir)
    samples = DeviceSamples(dataset.test, dataset.coding, device="cpu")
    x, labels = samples.batch(torch.arange(arguments.batch))
    network = trained.config.network
    console.print(f"{network.notation} on {dataset.name}, T = {network.time_steps}, batch {len(x)}")
    console.print(spiking(trained.model(), x, labels, network.time_steps))
    console.print(gradients(trained, x, labels))
    return 0


if __name__ == "__main__":
    run_script(main)
