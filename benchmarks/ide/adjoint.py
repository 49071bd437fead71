"""What solver and tolerance cost, and what they do to the gradient: untrained, after a first epoch, and fully trained.

For every solver and tolerance of the adjoint system g = dL/da + J^T g: products with J^T, milliseconds, and the
relative error of the gradient of all parameters that depend on g (all but the readout's), against the system solved in
float64 to 1e-10 at the same rates and masks. The cheapest that stays under 1e-2 everywhere is named at the end.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import SOLVERS, TrainConfig
from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.network import FeedbackSNN, FixedPoint
from fsnn_lava.training import BEST, AdjointSettings, fit, load_checkpoint, new_model, with_implicit_gradient

console = Console(width=110)
ALLOWED = 1e-2
"""Largest relative error of the gradient; that of a finite T is 5 to 40 %."""
EXACT = AdjointSettings("broyden", 1e-10, 200)


@dataclass(frozen=True)
class Arguments:
    """Cost and error of the adjoint solvers."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs/fashion_mnist_fc_if"), Path("runs/fashion_mnist_fc_lif"))
    """Folders of trainings; each gives its configuration and its best weights."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA. digits needs none."""
    tolerances: tuple[float, ...] = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5)
    """Relative residuals at which the solvers stop."""
    batches: int = 4
    """Batches of training samples per state of a network."""
    threads: int = 1
    """CPU threads."""
    seed: int = 0
    """Seed of the dropout masks."""


Choice = tuple[str, float]


@dataclass
class Measured:
    """Course of one solver with one tolerance: one entry per batch."""

    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.ide.adjoint", description=__doc__)
    torch.set_num_threads(arguments.threads)
    columns: dict[str, dict[Choice, Measured]] = {}
    for run in arguments.runs:
        trained = load_checkpoint(run / BEST)
        dataset = load_dataset(trained.config.dataset, arguments.data_dir)
        for state, model in states(trained.config, dataset, trained.model()):
            console.print(f"{run.name}: {state}")
            columns[f"{run.name}, {state}"] = measure(model, trained.config, dataset, arguments)
    show(columns)
    return 0


def states(config: TrainConfig, dataset: Dataset, trained: FeedbackSNN) -> Iterator[tuple[str, FeedbackSNN]]:
    """Yield the network untrained, after one epoch, and as trained; all in training mode."""
    yield "untrained", new_model(config, dataset.input_shape, len(dataset.classes)).train()
    one = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=1, milestones=()))
    with tempfile.TemporaryDirectory() as folder:
        fit(one, dataset, Path(folder))
        early = load_checkpoint(Path(folder) / BEST).model()
    yield "1 epoch", early.train()
    yield "trained", trained.train()


def measure(model: FeedbackSNN, config: TrainConfig, dataset: Dataset, arguments: Arguments) -> dict[Choice, Measured]:
    """Every solver and tolerance on the same batches, rates and masks."""
    found = {choice: Measured() for choice in itertools.product(SOLVERS, arguments.tolerances)}
    size, steps = config.training.batch_size, config.network.time_steps
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(arguments.seed))
    for number, indices in enumerate(order.split(size)[: arguments.batches]):
        samples = dataset.train.select(indices.numpy())
        x, labels = torch.from_numpy(dataset.coding.decode(samples.codes)), torch.from_numpy(samples.labels)
        mask_seed = arguments.seed + number
        rates = spiking_rates(model, x, steps, mask_seed)
        exact, _, _ = gradient(copy.deepcopy(model).double(), x, labels, rates, EXACT, mask_seed)
        for (solver, tolerance), measured in found.items():
            settings = AdjointSettings(solver, tolerance, 100)
            one, solved, seconds = gradient(copy.deepcopy(model), x, labels, rates, settings, mask_seed)
            measured.steps.append(solved.steps)
            measured.seconds.append(seconds)
            measured.errors.append(float((one.double() - exact).norm() / exact.norm()))
    return found


def spiking_rates(model: FeedbackSNN, x: Tensor, time_steps: int, seed: int) -> tuple[Tensor, ...]:
    """Rates of all populations with the masks of that seed; the model is left as it was."""
    bound = copy.deepcopy(model).bind(len(x), generator=torch.Generator().manual_seed(seed))
    return bound.simulate(bound.drive(x, time_steps=time_steps), time_steps=time_steps).firing_rates


def gradient(
    model: FeedbackSNN, x: Tensor, labels: Tensor, rates: tuple[Tensor, ...], settings: AdjointSettings, seed: int
) -> tuple[Tensor, FixedPoint, float]:
    """Gradient of the parameters before the readout as one vector, what the solver found, and its seconds."""
    dtype = model.readout.weight.dtype
    bound = model.bind(len(x), generator=torch.Generator().manual_seed(seed))
    found: list[FixedPoint] = []
    drive = bound.drive(x.to(dtype), time_steps=1)
    a = with_implicit_gradient(bound, drive, [rate.to(dtype) for rate in rates], settings=settings, found=found)
    loss = functional.cross_entropy(model.classify(a), labels)
    parameters = [p for name, p in model.named_parameters() if not name.startswith("readout")]
    began = time.perf_counter()
    gradients = torch.autograd.grad(loss, parameters)
    seconds = time.perf_counter() - began
    return torch.cat([g.flatten() for g in gradients]), found[-1], seconds


def show(columns: dict[str, dict[Choice, Measured]]) -> None:
    """Print the table, and the cheapest choice that is good enough everywhere."""
    for name, found in columns.items():
        table = Table("solver", "tolerance", "products", "backward, ms", "gradient error, median", "max", title=name)
        for (solver, tolerance), m in found.items():
            milliseconds = f"{1e3 * statistics.median(m.seconds):.1f}"
            errors = (f"{statistics.median(m.errors):.1e}", f"{max(m.errors):.1e}")
            table.add_row(solver, f"{tolerance:g}", f"{statistics.median(m.steps):g}", milliseconds, *errors)
        console.print(table)
    choices = next(iter(columns.values())).keys()
    worst = {c: max(max(found[c].errors) for found in columns.values()) for c in choices}
    cost = {c: sum(statistics.median(found[c].seconds) for found in columns.values()) for c in choices}
    good = [c for c in choices if worst[c] < ALLOWED]
    if not good:
        console.print(f"no choice keeps the gradient's error under {ALLOWED:g} in all states")
        return
    for solver, tolerance in sorted(good, key=cost.__getitem__)[:3]:
        c = (solver, tolerance)
        mean = 1e3 * cost[c] / len(columns)
        console.print(f"{solver}, {tolerance:g}: worst error {worst[c]:.1e}, mean backward {mean:.1f} ms")
    console.print(f"These are the cheapest of those with an error under {ALLOWED:g} in every state and batch.")


if __name__ == "__main__":
    run_script(main)
