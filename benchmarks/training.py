"""Time and memory of one training iteration, `400 (F400)` on Fashion-MNIST, against a straightforward Broyden solve.

Three variants of the same iteration take turns within one training: the configured adjoint solver, this library's
Broyden at 1e-6, and the published procedure written plainly (`plain_gradient`). The iteration is the library's own but
for the solution of g = dL/da + J^T g. Then the peak memory of an iteration for several T.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fsnn_lava.checkpoint import load_checkpoint, load_training, save_checkpoint
from fsnn_lava.command import run_script
from fsnn_lava.config import SolverName, TrainConfig, read_config
from fsnn_lava.data import Dataset, InputCoding, Samples, load_dataset
from fsnn_lava.errors import DatasetError
from fsnn_lava.gradients import ide
from fsnn_lava.gradients.ide import with_implicit_gradient
from fsnn_lava.model import BoundNetwork, Drive, Simulation
from fsnn_lava.neuron import fire, integrate, rate_from_count
from fsnn_lava.solver import FixedPoint, Map, solve
from fsnn_lava.spec import parse_spec
from fsnn_lava.training import LAST, fit

console = Console(width=110)
SGEMM = 1024
"""Rows and columns of the matrices whose product gives the machine's rate."""
TURN = 5
"""Iterations of one variant in a row. The first is not counted: it finds the caches as the variant before left them."""
_SIMULATE = BoundNetwork.simulate


@dataclass(frozen=True)
class Arguments:
    """Time and memory of a training iteration."""

    config: Path = Path(__file__).parents[1] / "train" / "configs" / "fashion_mnist_fc_if.toml"
    """Network, batch size and time steps; fully connected with one population."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    synthetic: bool = False
    """Random images instead of the dataset's."""
    run: Path | None = None
    """Folder of a training: its network, weights and momenta are taken, instead of --config and new weights."""
    train_first: int = 200
    """Iterations of training before the measurement."""
    repeats: int = 40
    """Measured iterations of every variant, at least."""
    memory_steps: tuple[int, ...] = (5, 30, 100)
    """Time steps at which memory is measured; none: leave it out."""
    threads: int = 1
    """CPU threads."""
    seed: int = 0
    """Seed of weights, batches, masks and random images."""


@dataclass
class Variant:
    """One way to solve the adjoint system, and what was measured of it.

    Parameters
    ----------
    settings : of the adjoint solve; None: as configured, or plain.
    plain : the published procedure takes the place of the library's.
    times : seconds before, in and after the solve, of each iteration.
    steps : products with J^T of each iteration.
    """

    name: str
    settings: ide.AdjointSettings | None = None
    plain: bool = False
    times: list[tuple[float, float, float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Exit status 0."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    torch.set_num_threads(arguments.threads)
    config = read_config(arguments.config) if arguments.run is None else load_checkpoint(arguments.run / LAST).config
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=arguments.seed))
    dataset = images(config, arguments)
    show(config, dataset, measure(config, dataset, arguments))
    if arguments.memory_steps:
        show_memory(config, dataset, arguments)
    return 0


def images(config: TrainConfig, arguments: Arguments) -> Dataset:
    """The dataset; random images of its shape if that is asked for or there is no data folder."""
    if not arguments.synthetic:
        try:
            return load_dataset(config.dataset, arguments.data_dir)
        except DatasetError as error:
            console.print(f"{error}\nRandom images are used instead: the firing, and so the solve, will differ.")
    generator = np.random.default_rng(arguments.seed)
    count = 8 * config.training.batch_size
    codes = generator.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
    samples = Samples(codes, generator.integers(0, 10, count))
    coding = InputCoding("graded", maximum=255, scale=1 / 255, mean=(0.5,), std=(0.29,))
    return Dataset("synthetic", samples, samples, (1, 28, 28), tuple("0123456789"), coding)


# ---- the published procedure, plainly --------------------------------------------------------------------


@torch.no_grad()
def plain_run(bound: BoundNetwork, drive: Drive, *, time_steps: int) -> Simulation:
    """T steps of one population with dense products, one tensor operation after the other (Eq. 2)."""
    assert bound.feedback is not None
    neuron = bound.neuron
    v = spikes = weighted = total = torch.zeros_like(drive.mean)
    for t in range(time_steps):
        current = drive.at(t) + bound.feedback.current(spikes) if t else drive.at(t)
        v = integrate(v, spikes, current, neuron=neuron)
        spikes = fire(v, neuron=neuron)
        weighted = neuron.leak * weighted + spikes
        total = total + spikes
    rate = rate_from_count(weighted, time_steps=time_steps, leak=neuron.leak)
    return Simulation((rate,), (total / time_steps,), None)


def plain_gradient(
    bound: BoundNetwork, drive: Drive, rates: Tensor, *, solver: Callable[[Map, Tensor], FixedPoint]
) -> Tensor:
    """The rates; f is evaluated once at them, and a hook on its value replaces dL/da by the adjoint solution."""
    mapped = bound.equilibrium_map(rates, drive.mean, statistics="batch" if bound.training else "running")

    def replaced(gradient: Tensor) -> Tensor:
        with torch.enable_grad():
            a = rates.detach().requires_grad_()
            image = bound.detached().equilibrium_map(a, drive.mean.detach())
        return solver(lambda g: torch.autograd.grad(image, a, g, retain_graph=True)[0] + gradient, gradient).value

    mapped.register_hook(replaced)
    return rates + (mapped - mapped.detach())


def plain_broyden(f: Map, start: Tensor, *, max_pairs: int = 30) -> FixedPoint:
    """Fixed point of f by Broyden's method per sample, to the residual of 1e-6 that the library's solvers stop at.

    Every rank-one pair is kept, in two buffers (B, D, pairs) made in advance, whose whole filled part each step reads;
    the best iterate is kept as well. Starts from zero, as is usual for equilibrium models.
    """
    batch, size = start.flatten(1).shape
    lefts, rights = start.new_zeros(batch, size, max_pairs), start.new_zeros(batch, max_pairs, size)

    def inverse_times(y: Tensor, count: int) -> Tensor:
        weights = torch.einsum("bke,be->bk", rights[:, :count], y)
        return torch.einsum("bdk,bk->bd", lefts[:, :, :count], weights) - y

    def times_inverse(y: Tensor, count: int) -> Tensor:
        weights = torch.einsum("bd,bdk->bk", y, lefts[:, :, :count])
        return torch.einsum("bk,bke->be", weights, rights[:, :count]) - y

    def residual_of(g: Tensor, x: Tensor) -> float:
        return float(g.norm() / (g + x).norm())

    x = torch.zeros_like(start).flatten(1)
    g = f(x.view_as(start)).flatten(1) - x
    best, lowest, step, count = x, residual_of(g, x), g, 0
    while count < max_pairs and lowest > 1e-6:
        x = x + step
        new = f(x.view_as(start)).flatten(1) - x
        change, g = new - g, new
        if (residual := residual_of(g, x)) < lowest:
            best, lowest = x, residual
        right = times_inverse(step, count)
        left = (step - inverse_times(change, count)) / torch.einsum("bd,bd->b", right, change)[:, None]
        rights[:, count], lefts[:, :, count] = torch.nan_to_num(right), torch.nan_to_num(left)
        count += 1
        step = -inverse_times(g, count)
    return FixedPoint(best.view_as(start), lowest, count + 1, lowest <= 1e-6)


# ---- measuring -------------------------------------------------------------------------------------------


def variants_of(config: TrainConfig) -> list[Variant]:
    """The configured solver first, the published procedure last."""
    training = config.training

    return [
        Variant(f"{training.adjoint_solver}, {training.adjoint_tolerance:g}"),
        Variant("broyden, 1e-6", ide.AdjointSettings("broyden", 1e-6, 50)),
        Variant("plain Broyden, 1e-6", plain=True),
    ]


class Stopwatch:
    """Watches one training whose iterations take the variants in turns; also times matrix products."""

    def __init__(self, variants: list[Variant], *, skip: int) -> None:
        self.variants, self.skip = variants, skip
        self.products: list[float] = []
        self.count = 0
        self.matrix = torch.rand(SGEMM, SGEMM)
        self.began = time.perf_counter()
        self.solving = (0.0, 0.0)
        self.steps = 0

    @property
    def variant(self) -> Variant:
        """Whose turn it is."""
        return self.variants[self.count // TURN % len(self.variants)]

    def gradient(
        self,
        bound: BoundNetwork,
        drive: Drive,
        rates: Tensor,
        *,
        settings: ide.AdjointSettings,
        found: list[FixedPoint],
    ) -> Tensor:
        """Stands in for the library's `with_implicit_gradient`: the variant's own."""
        if self.variant.plain:
            return plain_gradient(bound, drive, rates, solver=lambda f, start: self.timed(plain_broyden, f, start))
        return with_implicit_gradient(bound, drive, rates, settings=self.variant.settings or settings, found=found)

    def run(self, bound: BoundNetwork, drive: Drive, *, time_steps: int) -> Simulation:
        """Stands in for the library's spiking run: the variant's own."""
        return (plain_run if self.variant.plain else _SIMULATE)(bound, drive, time_steps=time_steps)

    def solve(self, f: Map, start: Tensor, *, method: SolverName, tolerance: float, max_steps: int) -> FixedPoint:
        """Stands in for the library's `solve`, which it times."""
        return self.timed(partial(solve, method=method, tolerance=tolerance, max_steps=max_steps), f, start)

    def timed(self, solver: Callable[[Map, Tensor], FixedPoint], f: Map, start: Tensor) -> FixedPoint:
        """What the solver finds; when it began and ended is kept."""
        began = time.perf_counter()
        fixed_point = solver(f, start)
        self.solving, self.steps = (began, time.perf_counter()), fixed_point.steps
        return fixed_point

    def iteration(self, *, epoch: int, done: int, total: int, loss: float) -> None:
        """Ends one iteration's time; the next one's begins after a matrix product."""
        ended = time.perf_counter()
        if self.count >= self.skip and self.count % TURN:
            solve_began, solve_ended = self.solving
            parts = (solve_began - self.began, solve_ended - solve_began, ended - solve_ended)
            self.variant.times.append(parts)
            self.variant.steps.append(self.steps)
        self.count += 1
        if self.count % TURN == 0:
            before = time.perf_counter()
            torch.mm(self.matrix, self.matrix)
            self.products.append(time.perf_counter() - before)
        self.began = time.perf_counter()

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Leaves the evaluation out of the next iteration's time."""
        self.began = time.perf_counter()


def measure(config: TrainConfig, dataset: Dataset, arguments: Arguments) -> Stopwatch:
    """One training, in which the variants take turns after the first iterations."""
    variants = variants_of(config)
    around = TURN * len(variants)
    skip = around * math.ceil(arguments.train_first / around)
    watch = Stopwatch(variants, skip=skip)
    iterations = skip + around * math.ceil(arguments.repeats / (TURN - 1))
    config, dataset = cut(config, dataset, iterations)
    stand_ins = patch.multiple(ide, solve=watch.solve, with_implicit_gradient=watch.gradient)

    def run(bound: BoundNetwork, drive: Drive, *, time_steps: int) -> Simulation:
        return watch.run(bound, drive, time_steps=time_steps)

    with tempfile.TemporaryDirectory() as folder, stand_ins, patch.object(BoundNetwork, "simulate", run):
        if arguments.run is not None:
            trained, _, state = load_training(arguments.run / LAST)
            save_checkpoint(dataclasses.replace(trained, config=config), Path(folder) / LAST, state=state)
        fit(config, dataset, Path(folder), resume=arguments.run is not None, observer=watch)
    return watch


def cut(config: TrainConfig, dataset: Dataset, iterations: int) -> tuple[TrainConfig, Dataset]:
    """A training of about so many iterations, tested on a single batch, without learning-rate steps."""
    batch = config.training.batch_size
    epochs = math.ceil(iterations / (len(dataset.train) // batch))
    train = math.ceil(iterations / epochs) * batch
    training = dataclasses.replace(config.training, epochs=epochs, milestones=(), threads=0)
    small = dataclasses.replace(
        dataset,
        train=dataset.train.select(np.arange(train)),
        test=dataset.test.select(np.arange(min(batch, len(dataset.test)))),
    )
    return dataclasses.replace(config, training=training), small


def floating_operations(config: TrainConfig, inputs: int, steps: float) -> float:
    """Of the dense products of one iteration: a network of one fully connected population with feedback."""
    (population,) = parse_spec(config.network.notation).populations((inputs,))
    neurons, batch = int(np.prod(population.shape)), config.training.batch_size
    feedforward = 2 * batch * inputs * neurons
    feedback = 2 * batch * neurons * neurons
    # Input current and its weights' gradient; T - 1 spiking steps, f once, J^T `steps` times, the feedback's gradient.
    return 2 * feedforward + (config.network.time_steps - 1 + 1 + steps + 1) * feedback


def show(config: TrainConfig, dataset: Dataset, watch: Stopwatch) -> None:
    """The table of times."""
    rate = 2 * SGEMM**3 / statistics.median(watch.products)
    network = config.network
    neurons = "IF" if network.leak == 1 else f"LIF, leak {network.leak}"
    conditions = f"{dataset.name}, T = {network.time_steps}, batch {config.training.batch_size}"
    table = Table("adjoint solver", "products", "forward", "solve", "rest", "total", "ratio", "dense limit", "of sgemm")
    totals = [statistics.median(sum(t) for t in variant.times) for variant in watch.variants]
    for variant, total in zip(watch.variants, totals, strict=True):
        parts = [statistics.median(part) for part in zip(*variant.times, strict=True)]
        steps = statistics.median(variant.steps)
        limit = floating_operations(config, int(np.prod(dataset.input_shape)), steps) / rate
        milliseconds = [f"{1e3 * value:.1f}" for value in (*parts, total)]
        ratio = f"{totals[-1] / total:.2f}"
        table.add_row(variant.name, f"{steps:g}", *milliseconds, ratio, f"{1e3 * limit:.1f}", f"{limit / total:.0%}")
    console.print(f"{network.notation}, {neurons}, {conditions}", table)
    console.print(
        f"Milliseconds, medians of {len(watch.variants[0].times)}; forward: batch, spiking run, f once, loss; "
        "rest: gradients of the weights, optimizer, metrics; ratio: plain Broyden's total over this one. "
        f"dense limit: the iteration's dense products alone at {rate / 1e9:.0f} GFLOP/s, measured on {SGEMM} x {SGEMM}."
    )


# ---- memory ----------------------------------------------------------------------------------------------


def peak_memory(config: TrainConfig, dataset: Dataset) -> float:
    """MiB by which the peak of two later iterations exceeds what this process holds after a first one."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        fit(*cut(config, dataset, 1), Path(first))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
        before = memory_of_process("VmRSS")
        fit(*cut(config, dataset, 2), Path(second))
    return memory_of_process("VmHWM") - before


def memory_of_process(field: str) -> float:
    """MiB, from Linux's account of this process; VmRSS: held now, VmHWM: the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def show_memory(config: TrainConfig, dataset: Dataset, arguments: Arguments) -> None:
    """The table of peaks, each measured in a process of its own."""
    table = Table("T", "peak increment, MiB", "a graph through time would hold, MiB")
    (population,) = parse_spec(config.network.notation).populations(dataset.input_shape)
    step = 4 * config.training.batch_size * int(np.prod(population.shape)) / 2**20
    _, small = cut(config, dataset, 2)
    for time_steps in arguments.memory_steps:
        network = dataclasses.replace(config.network, time_steps=time_steps)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(peak_memory, (dataclasses.replace(config, network=network), small))
        table.add_row(str(time_steps), f"{peak:.1f}", f"{2 * time_steps * step:.1f}")
    console.print(table)
    console.print("last column: potentials and spikes of every step in float32, the least that autograd would keep")


if __name__ == "__main__":
    run_script(main)
