"""Time, gradient error and memory of one training iteration, against a plain restatement of the published procedure.

The library's own training runs; after its first iterations the variants take turns in it: as configured, with
`training.precision = "bf16"` (slow on a CPU without AVX-512 BF16 or AMX), on a CPU in integers of 8 bits, in these with
bf16, and the plain procedure (`ide/plain_training.py`: dense products, Broyden's method to 1e-6 with 27 rank-one
pairs). Nothing else of the iteration differs; all take the adjoint of the equilibrium, in hardware timing without
dropout, as integers are, but where a training goes on (--run). Every figure is from one run on one machine: compare
within a table. The spiking run costs what the spikes cost, and networks fire most in their first iterations (--train-
first).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from benchmarks.ide.plain_training import plain_broyden, plain_gradient, plain_run
from benchmarks.shared.dense_work import dense_products, machine_rate, now
from benchmarks.shared.iteration import iteration
from benchmarks.shared.memory import in_own_process, peak_increment
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import PrecisionName, TrainConfig, read_config
from fsnn_lava.datasets import Dataset, InputCoding, Samples, load_dataset
from fsnn_lava.errors import DatasetError, counted
from fsnn_lava.network import BoundNetwork, Drive, FeedbackSNN, FixedPoint, Map, Simulation, place, solve
from fsnn_lava.training import (
    LAST,
    DeviceSamples,
    ImplicitRates,
    IntegerSNN,
    Progress,
    fit,
    implicit_rates,
    load_checkpoint,
    load_training,
    new_model,
    rates_with_gradient,
    save_checkpoint,
    with_implicit_gradient,
)
from fsnn_lava.training.gradients import ide

console = Console(width=120)
TURN = 5
"""Iterations of one variant in a row. The first is not counted: it finds the caches as the variant before left them."""
_SIMULATE = BoundNetwork.simulate
IN_INTEGERS = IntegerSNN.bind


@dataclass(frozen=True)
class Arguments:
    """Time, gradient error and memory of a training iteration."""

    cases: tuple[str, ...] = ("fashion_mnist_fc_if", "mnist_conv_if", "cifar10_alexnet_lif_t30:32")
    """Configurations: a name or a path, with another batch size after a colon if wanted."""
    run: Path | None = None
    """Folder of a training: its network, weights and momenta are taken, instead of --cases and new weights; without
    the variant in integers, which would begin with others."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    synthetic: bool = False
    """Random images instead of the dataset's."""
    train_first: int = 60
    """Iterations of training before the measurement."""
    repeats: int = 8
    """Measured iterations of every variant, at least."""
    variants: tuple[Literal["configured", "bf16", "integers", "integers_bf16", "plain"], ...] = (
        "configured",
        "bf16",
        "integers",
        "integers_bf16",
        "plain",
    )
    """Which of them; the last one is what the ratios are to."""
    memory_steps: tuple[int, ...] = (10, 100)
    """Time steps at which memory is measured; none: leave it out."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads; 0: as the configuration says."""
    seed: int = 0
    """Seed of weights, batches, masks and random images."""


@dataclass
class Variant:
    """One way to run an iteration, and what was measured of it.

    Parameters
    ----------
    plain : the published procedure takes the place of the library's.
    bfloat16 : the iteration is that of `training.precision = "bf16"`.
    integers : the network runs in integers (`training.arithmetic = "integer"`).
    times : seconds before, in and after the adjoint solve, of each iteration.
    steps : products with J^T of each iteration.
    """

    name: str
    plain: bool = False
    bfloat16: bool = False
    integers: bool = False
    times: list[tuple[float, float, float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.ide.training_speed", description=__doc__)
    all_threads = torch.get_num_threads()
    for config in configurations(arguments):
        torch.set_num_threads(arguments.threads or config.training.threads or all_threads)
        dataset = images(config, arguments)
        watch, errors = measure(config, dataset, arguments)
        show(config, dataset, watch, errors)
        if arguments.memory_steps:
            show_memory(config, dataset, arguments)
    return 0


def configurations(arguments: Arguments) -> list[TrainConfig]:
    """Case to measure."""
    if arguments.run is not None:
        config = load_checkpoint(arguments.run / LAST).config
        return [_with_training(config, seed=arguments.seed, device=arguments.device)]
    found = []
    for case in arguments.cases:
        name, _, batch = case.partition(":")
        config = read_config(name)
        config = _with_training(config, seed=arguments.seed, device=arguments.device, adjoint="equilibrium")
        found.append(_with_training(config, batch_size=int(batch)) if batch else config)
    return found


def _with_training(config: TrainConfig, **changes: object) -> TrainConfig:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))


def images(config: TrainConfig, arguments: Arguments) -> Dataset:
    """Load the dataset; random images of its shape if that is asked for or there is no data folder."""
    if not arguments.synthetic:
        try:
            return load_dataset(config.dataset, arguments.data_dir)
        except DatasetError as error:
            console.print(f"{error}\nRandom images are used instead: the firing, and so the times, will differ.")
    generator = np.random.default_rng(arguments.seed)
    shape = (3, 32, 32) if config.dataset.startswith("cifar") else (1, 28, 28)
    count = 8 * config.training.batch_size
    codes = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
    samples = Samples(codes, np.arange(count) % 10)
    coding = InputCoding("graded", maximum=255, scale=1 / 255, mean=(0.5,) * shape[0], std=(0.29,) * shape[0])
    return Dataset("synthetic", samples, samples, shape, tuple("0123456789"), coding)


# ---- time ------------------------------------------------------------------------------------------------


class Stopwatch:
    """Watches one training whose iterations take the variants in turns; also times dense products."""

    def __init__(
        self, config: TrainConfig, input_shape: tuple[int, ...], *, skip: int, variants: Sequence[str]
    ) -> None:
        training = config.training
        configured = f"{training.adjoint_solver}, {training.adjoint_tolerance:g}"
        known = {
            "configured": Variant(configured),
            "bf16": Variant(f"{configured}, bf16", bfloat16=True),
            "integers": Variant(f"{configured}, integers", integers=True),
            "integers_bf16": Variant(f"{configured}, integers, bf16", integers=True, bfloat16=True),
            "plain": Variant("plain: dense, Broyden 1e-6", plain=True),
        }
        if training.arithmetic != "integer":
            del known["integers"], known["integers_bf16"]
        self.variants = [known[name] for name in variants if name in known]
        self.config, self.input_shape, self.skip = config, input_shape, skip
        self.rates: list[float] = []
        self.firing: list[float] = []
        self.count, self.steps = 0, 0
        self.began = self.now()
        self.solving = (0.0, 0.0)

    def now(self) -> float:
        """Seconds, once the device has done its work."""
        return now(self.config.training.device)

    @property
    def variant(self) -> Variant:
        """Whose turn it is."""
        return self.variants[self.count // TURN % len(self.variants) if self.count >= self.skip else 0]

    def gradient(
        self,
        bound: BoundNetwork,
        drive: Drive,
        rates: Sequence[Tensor],
        *,
        settings: ide.AdjointSettings,
        found: list[FixedPoint],
    ) -> Tensor:
        """Stands in for the library's `with_implicit_gradient`: the variant's own."""
        if self.variant.plain:
            return plain_gradient(bound, drive, rates[-1], solver=partial(self.timed, plain_broyden))
        return with_implicit_gradient(bound, drive, rates, settings=settings, found=found)

    def implicit_rates(
        self, model: FeedbackSNN, x: Tensor, *, settings: ide.AdjointSettings, **options: Any
    ) -> ImplicitRates:
        """Stands in for the library's `implicit_rates`: in the precision of the variant."""
        settings = dataclasses.replace(settings, bfloat16=self.variant.bfloat16)
        model.dense = dataclasses.replace(model.dense, split=self.variant.bfloat16)
        return implicit_rates(model, x, settings=settings, **options)

    def run(self, bound: BoundNetwork, drive: Drive, *, time_steps: int) -> Simulation:
        """Stands in for the library's spiking run: the variant's own."""
        return (plain_run if self.variant.plain else _SIMULATE)(bound, drive, time_steps=time_steps)

    def solve(self, f: Map, start: Tensor, **options: Any) -> FixedPoint:
        """Stands in for the library's `solve`, which it times."""
        return self.timed(partial(solve, **options), f, start)

    def timed(self, solver: Callable[[Map, Tensor], FixedPoint], f: Map, start: Tensor) -> FixedPoint:
        """Solve, and return what the solver finds; when it began and ended is kept."""
        began = self.now()
        fixed_point = solver(f, start)
        self.solving, self.steps = (began, self.now()), fixed_point.steps
        return fixed_point

    def iteration(
        self, *, epoch: int, done: int, total: int, loss: float, figures: Mapping[str, float] | None = None
    ) -> None:
        """Ends one iteration's time; the next one's begins after a dense product."""
        ended = self.now()
        if self.count >= self.skip and self.count % TURN:
            solve_began, solve_ended = self.solving
            parts = (solve_began - self.began, solve_ended - solve_began, ended - solve_ended)
            self.variant.times.append(parts)
            self.variant.steps.append(self.steps)
        self.count += 1
        if self.count >= self.skip and self.count % TURN == 0:
            self.rates.append(machine_rate(self.config, self.input_shape))
        self.began = self.now()

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Leave the evaluation out of the next iteration's time; note how much the populations fired."""
        begin = "train/firing_rate/"
        self.firing = [rate for name, rate in metrics.items() if name.startswith(begin)]
        self.began = self.now()


def measure(
    config: TrainConfig, dataset: Dataset, arguments: Arguments
) -> tuple[Stopwatch, dict[str, dict[str, float]]]:
    """One training, in which the variants take turns after the first iterations; then the error of its gradients."""
    if config.training.device == "cpu" and arguments.run is None:
        config = _with_training(config, arithmetic="integer")
    watch = Stopwatch(config, dataset.input_shape, skip=0, variants=arguments.variants)
    around = TURN * len(watch.variants)
    skip = watch.skip = around * math.ceil(arguments.train_first / around)
    iterations = skip + TURN * len(watch.variants) * math.ceil(arguments.repeats / (TURN - 1))
    config, dataset = cut(config, dataset, iterations)
    stand_ins = patch.multiple(
        ide, implicit_rates=watch.implicit_rates, solve=watch.solve, with_implicit_gradient=watch.gradient
    )

    def run(bound: BoundNetwork, drive: Drive, *, time_steps: int) -> Simulation:
        return watch.run(bound, drive, time_steps=time_steps)

    def bind(model: IntegerSNN, batch: int, *, generator: torch.Generator | None = None) -> BoundNetwork:
        whose = IN_INTEGERS if watch.variant.integers else FeedbackSNN.bind
        return whose(model, batch, generator=generator)

    with tempfile.TemporaryDirectory() as folder:
        if arguments.run is not None:
            trained, _, state = load_training(arguments.run / LAST)
            begun = dataclasses.asdict(Progress())
            save_checkpoint(
                dataclasses.replace(trained, config=config), Path(folder) / LAST, progress=begun, state=state
            )
        floats = patch.object(BoundNetwork, "simulate", run), patch.object(IntegerSNN, "bind", bind)
        with stand_ins, floats[0], floats[1]:
            fit(config, dataset, Path(folder), resume=arguments.run is not None, observer=watch)
        trained, bfloat16 = load_checkpoint(Path(folder) / LAST), "bf16" in arguments.variants
        return watch, gradient_errors(trained.model(), config, dataset, bfloat16=bfloat16)


def cut(config: TrainConfig, dataset: Dataset, iterations: int) -> tuple[TrainConfig, Dataset]:
    """A training of about so many iterations, tested on a few samples, without learning-rate steps."""
    batch = config.training.batch_size
    epochs = math.ceil(iterations / (len(dataset.train) // batch))
    train = math.ceil(iterations / epochs) * batch
    order = np.random.default_rng(0).permutation(len(dataset.train))  # some datasets are sorted by class
    small = dataclasses.replace(
        dataset, train=dataset.train.select(order[:train]), test=dataset.test.select(np.arange(2))
    )
    whole = dataclasses.replace(config, train_samples=0, test_samples=0)
    changes = {"milestones": (), "threads": 0, "time_steps_schedule": (), "schedule": "step", "warmup_iterations": 0}
    return _with_training(whole, epochs=epochs, **changes), small


# ---- error of the gradient -------------------------------------------------------------------------------


def gradient_errors(
    model: FeedbackSNN, config: TrainConfig, dataset: Dataset, *, bfloat16: bool
) -> dict[str, dict[str, float]]:
    """Precision -> parameter -> ||g - g'|| / ||g'|| of a batch's gradients, g as configured, g' by the plain solve.

    Both take the same rates and masks. The readout has no part in the solve and is left out, and so are parameters
    whose gradient is zero but for rounding: biases that a batch norm takes away again.
    """
    samples = DeviceSamples(dataset.train, dataset.coding, device=config.training.device)
    x, labels = samples.batch(torch.arange(config.training.batch_size))
    place(model.train(), x.device)
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def gradients(implicit_gradient: Callable[..., Tensor], precision: PrecisionName) -> dict[str, Tensor]:
        model.load_state_dict(state)
        model.zero_grad()
        with patch.object(ide, "with_implicit_gradient", implicit_gradient):
            implicit = rates_with_gradient(
                model,
                x,
                training=dataclasses.replace(config.training, precision=precision),
                time_steps=config.network.time_steps,
                generator=torch.Generator(x.device).manual_seed(1),
            )
            functional.cross_entropy(model.classify(implicit.rates), labels).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def plain(bound: BoundNetwork, drive: Drive, rates: Sequence[Tensor], **_: object) -> Tensor:
        return plain_gradient(bound, drive, rates[-1], solver=plain_broyden)

    exact = gradients(plain, "float32")
    largest = max(float(gradient.norm()) for gradient in exact.values())
    names = [n for n, g in exact.items() if not n.startswith("readout") and float(g.norm()) > 1e-4 * largest]
    precisions: tuple[PrecisionName, ...] = ("float32", "bf16") if bfloat16 else ("float32",)
    found = {precision: gradients(with_implicit_gradient, precision) for precision in precisions}
    return {
        precision: {name: float((ours[name] - exact[name]).norm() / exact[name].norm()) for name in names}
        for precision, ours in found.items()
    }


def show(config: TrainConfig, dataset: Dataset, watch: Stopwatch, errors: Mapping[str, Mapping[str, float]]) -> None:
    """Print the table of times."""
    rate = statistics.median(watch.rates)
    network = config.network
    neurons = "IF" if network.leak == 1 else f"LIF, leak {network.leak}"
    threads = torch.get_num_threads()
    cores = counted(threads, "thread")
    where = cores if config.training.device == "cpu" else config.training.device
    conditions = f"{dataset.name}, T = {network.time_steps}, batch {config.training.batch_size}"
    table = Table("adjoint solver", "products", "forward", "solve", "rest", "total", "ratio", "dense limit", "of it")
    totals = [statistics.median(sum(t) for t in variant.times) for variant in watch.variants]
    for variant, total in zip(watch.variants, totals, strict=True):
        parts = [statistics.median(part) for part in zip(*variant.times, strict=True)]
        steps = statistics.median(variant.steps)
        limit = dense_products(config, dataset.input_shape, len(dataset.classes), steps) / rate
        milliseconds = [f"{1e3 * value:.1f}" for value in (*parts, total)]
        ratio = f"{totals[-1] / total:.2f}"
        table.add_row(variant.name, f"{steps:g}", *milliseconds, ratio, f"{1e3 * limit:.1f}", f"{limit / total:.0%}")
    console.print(f"\n{network.notation}, {neurons}, {conditions}, {where}", table)
    console.print(
        f"Milliseconds, medians of {len(watch.variants[0].times)}; forward: batch, spiking run, f once, loss; rest: "
        "gradients of the weights, optimizer, metrics; ratio: the plain total over this one.\n"
        f"dense limit: the iteration's dense products alone at {rate / 1e9:.0f} GFLOP/s, the faster of a matrix "
        "product and this network's largest layer, measured here; over 100 % of it means that zeros were skipped.\n"
        f"Spikes per neuron and step: {', '.join(f'{firing:.3f}' for firing in watch.firing)}."
    )
    for precision, of_parameters in errors.items():
        worst = max(of_parameters, key=lambda name: of_parameters[name])
        console.print(
            f"Error of the gradient against the plain solve, {precision}: {of_parameters[worst]:.1e} at most "
            f"({worst}), {statistics.median(of_parameters.values()):.1e} in the median parameter."
        )


# ---- memory ----------------------------------------------------------------------------------------------


def iteration_memory(config: TrainConfig, dataset: Dataset) -> float:
    """MiB that one iteration takes for a while."""
    with iteration(config, dataset) as iterate:
        return peak_increment(iterate, device=torch.device(config.training.device).type)


def show_memory(config: TrainConfig, dataset: Dataset, arguments: Arguments) -> None:
    """Print the table of peaks, each measured in a process of its own."""
    table = Table("T", "peak increment, MiB", "a graph through time would hold, MiB")
    shapes = new_model(config, dataset.input_shape, len(dataset.classes)).population_shapes
    step = 4 * config.training.batch_size * sum(math.prod(shape) for shape in shapes) / 2**20
    _, small = cut(config, dataset, 2)
    for time_steps in arguments.memory_steps:
        network = dataclasses.replace(config.network, time_steps=time_steps)
        peak = in_own_process(iteration_memory, dataclasses.replace(config, network=network), small)
        table.add_row(str(time_steps), f"{peak:.1f}", f"{2 * time_steps * step:.1f}")
    console.print(table)
    console.print("last column: potentials and spikes of every step in float32, the least that autograd would keep")


if __name__ == "__main__":
    run_script(main)
