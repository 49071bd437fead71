"""Accuracy on hardware by the bits of the weights and by T: rounded after the training, or trained in integers.

For each network and T a training in floats and hardware timing, at that T. Then, for each number of bits, twice: the
network rounded with compensation, and trained in integers from there for a few epochs at a lower learning rate (MNIST's
for twelve, its images moved by up to two pixels, without which it overfits). Beside them the float network trained for
as many epochs more, and of several populations one that was trained in the papers' timing. Every figure is of the whole
test set, of integers in the simulator, after the last epoch: nothing is chosen on the test set. Trainings are resumed
where they were stopped; what is kept already is not measured again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from benchmarks.shared.pictures import drawn_from, new_figure, save_figure
from benchmarks.shared.results import BENCHMARKS_README, README, RESULTS, commit, stored
from benchmarks.shared.text_table import TextTable, with_blocks
from fsnn_lava.backends import FloatSimulator, IntegerSimulator
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.config import DeployConfig, NetworkConfig, PrecisionName, TrainConfig, TrainingConfig, WeightBits
from fsnn_lava.conversion import lower
from fsnn_lava.datasets import Dataset, load_dataset, time_first
from fsnn_lava.files import write_json, write_text
from fsnn_lava.hardware import HardwareNetwork, accuracy
from fsnn_lava.quantization import quantize
from fsnn_lava.training import LAST, TrainedNetwork, fit, load_checkpoint

RESULT, PICTURE = RESULTS / "bits.json", RESULTS / "bits.svg"
LEARNING_RATE = 0.05
console = Console(width=150)


@dataclass(frozen=True)
class Weights:
    """A kind of weights: bits of the mantissas, and whether the most negative one is left out."""

    bits: WeightBits
    symmetric: bool = False

    @property
    def name(self) -> str:
        """As the table has it."""
        return "ternary" if self.symmetric else f"{self.bits}"


ALL = (*(Weights(bits) for bits in (8, 6, 4, 3, 2)), Weights(2, symmetric=True))  # type: ignore[arg-type]
SOME = (Weights(8), Weights(4), Weights(2), Weights(2, symmetric=True))


@dataclass(frozen=True)
class Case:
    """A network on a dataset.

    Parameters
    ----------
    time_steps : T of each row.
    epochs, more : of the training in floats, and of what follows it.
    weights : kinds of weights.
    adjoint : of what the gradient is, `training.adjoint`; that of a short window takes half the time.
    learning_rate, random_shift : of what follows; images are moved, where that is what a network lacks.
    """

    dataset: str
    notation: str
    time_steps: tuple[int, ...]
    epochs: int
    more: int
    weights: tuple[Weights, ...]
    adjoint: Literal["equilibrium", "window"] = "equilibrium"
    learning_rate: float = LEARNING_RATE / 10
    random_shift: int = -1


CASES = {
    "digits": Case("digits", "200 (F200)", (1, 3, 5, 10, 30), 20, 5, ALL),
    "fashion_mnist": Case("fashion_mnist", "400 (F400)", (1, 3, 5, 10, 30), 10, 3, ALL),
    "fashion_mnist_deep": Case("fashion_mnist", "400-400-400 (F400)", (4,), 10, 3, SOME),
    "mnist": Case(
        "mnist", "64C5s (F64C5)", (6,), 8, 12, SOME[1:2], adjoint="window", learning_rate=0.02, random_shift=2
    ),
    "nmnist": Case("nmnist", "64C5s (F64C5)", (30,), 12, 4, SOME[:2]),  # 2 bits are too few for event kernels
}


@dataclass(frozen=True)
class Arguments:
    """Accuracy by bits and T, rounded afterwards and trained in integers."""

    runs: Path = Path("runs/bits")
    """Folder of the trainings, which takes what is there already."""
    cases: tuple[str, ...] = tuple(CASES)
    """Which networks."""
    time_steps: tuple[int, ...] = ()
    """Which T; none: all of the case."""
    epochs: int = 0
    """Epochs of the training in floats, and one more after it; 0: as the case says. Give other --runs and --results."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    results: Path = RESULTS
    """Folder of the kept figures."""
    threads: int = 1
    """CPU threads."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of the trainings: bf16 is far faster on a processor with AMX."""
    readme: bool = False
    """Only draw the picture and put the tables of the kept results into the documents."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.deployment.bits", description=__doc__)
    torch.set_num_threads(arguments.threads)
    file = arguments.results / RESULT.name
    kept: dict[str, Any] = stored(file) or {}
    for name in () if arguments.readme else arguments.cases:
        case = CASES[name]
        dataset = load_dataset(case.dataset, arguments.data_dir)
        if arguments.epochs:
            case = dataclasses.replace(case, epochs=arguments.epochs, more=1)
        for steps in arguments.time_steps or case.time_steps:
            row = f"{name} T = {steps}"
            folder = arguments.runs / f"{name}-{steps}"
            cells = Cells(case, dataset, steps, folder, kept.get(row, {}), precision=arguments.precision)
            for found in cells.measured():
                kept[row] = found
                write_json(file, kept)
    table = bits_table(kept)
    console.print(table.screen())
    if arguments.readme:
        draw(kept, arguments.results)
        write_text(README, with_blocks(README.read_text(encoding="utf-8"), {"bits": table.markdown()}))
        console.print(f"{README.name}: table written, {BENCHMARKS_README.parent.name}/results/{PICTURE.name}: drawn")
    return 0


class Cells:
    """The figures of one network at one T, each measured once.

    Parameters
    ----------
    folder : of its trainings.
    known : figures that are kept already.
    precision : of the trainings.
    """

    def __init__(
        self,
        case: Case,
        dataset: Dataset,
        steps: int,
        folder: Path,
        known: Mapping[str, Any],
        *,
        precision: PrecisionName = "float32",
    ) -> None:
        self.case, self.dataset, self.steps, self.folder = case, dataset, steps, folder
        self.found = {
            "rounded": {},
            "integers": {},
            **{k: dict(v) if isinstance(v, dict) else v for k, v in known.items()},
        }
        threshold = 1.0 if steps <= 10 else 2.0
        network = NetworkConfig(notation=case.notation, time_steps=steps, v_threshold=threshold)
        milestones = tuple(sorted({max(1, round(case.epochs * share)) for share in (0.6, 0.9)} - {case.epochs}))
        training = TrainingConfig(
            epochs=case.epochs,
            milestones=milestones,
            learning_rate=LEARNING_RATE,
            timing="hardware",
            adjoint=case.adjoint,
            precision=precision,
            threads=1,
        )
        self.config = TrainConfig(name=folder.name, dataset=case.dataset, network=network, training=training)
        self.found |= {"notation": case.notation, "dataset": case.dataset, "time_steps": steps}
        self.found |= {"threshold": "r/2" if threshold == 1.0 else "r", "epochs": case.epochs, "more": case.more}

    def measured(self) -> Any:
        """Yield all figures so far after each one that was measured."""
        floating = self.trained("float", self.config)
        tests = {"float": lambda: floating, "float, longer": lambda: self.longer("longer", floating)}
        if "-" in self.case.notation:
            sequential = dataclasses.replace(self.config.training, timing="sequential")
            config = dataclasses.replace(self.config, training=sequential)
            tests["float, papers' timing"] = lambda: self.trained("sequential", config)
        for name, network in tests.items():
            if name not in self.found:
                yield self.with_figure(self.found, name, self.accuracy(lower(network())))
        for weights in self.case.weights:
            if weights.name not in self.found["rounded"]:
                yield self.with_figure(self.found["rounded"], weights.name, self.rounded(floating, weights))
            if weights.name not in self.found["integers"]:
                options = {"arithmetic": "integer", "exponents": "input"}
                options |= {"weight_bits": weights.bits, "symmetric": weights.symmetric}
                trained = self.longer(f"integers-{weights.name}", floating, **options)
                yield self.with_figure(self.found["integers"], weights.name, self.rounded(trained, weights))

    def with_figure(self, figures: dict[str, Any], name: str, value: float) -> dict[str, Any]:
        """Add a figure to those found, all of which are returned."""
        figures[name] = value
        self.found["commit"] = commit()
        kind = next((kind for kind in ("rounded", "integers") if figures is self.found[kind]), "")
        console.print(f"{self.folder.name}: {kind} {name} {value:.2%}", soft_wrap=True)
        return self.found

    def trained(self, name: str, config: TrainConfig, origin: TrainedNetwork | None = None) -> TrainedNetwork:
        """The network after the last epoch."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        begun = (folder / LAST).exists()
        if not fit(config, self.dataset, folder, resume=begun, origin=None if begun else origin).finished:
            raise KeyboardInterrupt
        return load_checkpoint(folder / LAST)

    def longer(self, name: str, origin: TrainedNetwork, **options: Any) -> TrainedNetwork:
        """The network trained for some epochs more, at a lower learning rate."""
        case = self.case
        training = dataclasses.replace(
            self.config.training,
            epochs=case.more,
            milestones=(max(1, case.more * 2 // 3),) if case.more > 1 else (),
            learning_rate=case.learning_rate,
            random_shift=case.random_shift,
            **options,
        )
        return self.trained(name, dataclasses.replace(self.config, training=training), origin)

    def rounded(self, trained: TrainedNetwork, weights: Weights) -> float:
        """Accuracy of the exported network; of one that was trained in these integers, of them."""
        config = DeployConfig(weight_bits=weights.bits, symmetric=weights.symmetric, exponents="input")
        return self.accuracy(quantize(lower(trained), self.dataset.train, config=config, keep_lost=True)[0])

    def accuracy(self, network: HardwareNetwork) -> float:
        """Share of the test set that a network in hardware timing classifies rightly."""
        simulator = IntegerSimulator(keep=()) if network.arithmetic == "integer" else FloatSimulator(keep=())
        return accuracy(simulator.run(network, time_first(self.dataset.test.codes)), self.dataset.test.labels)


def bits_table(kept: Mapping[str, Any]) -> TextTable:
    """Make the table: a row for each network and T, in each cell rounded and trained in integers."""
    names = [weights.name for weights in ALL]
    rows = []
    for row in sorted(kept.values(), key=lambda row: (row["dataset"], row["notation"], row["time_steps"])):
        cells = []
        for name in names:
            pair = [row[kind].get(name) for kind in ("rounded", "integers")]
            cells.append(
                " / ".join("" if value is None else f"{100 * value:.2f}" for value in pair) if any(pair) else ""
            )
        floats = [row.get(kind) for kind in ("float, papers' timing", "float", "float, longer")]
        shown = ["" if value is None else f"{100 * value:.2f}" for value in floats]
        rows.append((row["dataset"], row["notation"], str(row["time_steps"]), row["threshold"], *shown, *cells))
    header = ("dataset", "network", "T", "threshold", "float, papers' timing", "float", "float, longer")
    bits = tuple(name if name == "ternary" else f"{name} bits" for name in names)
    return TextTable("", (*header, *bits), tuple(rows))


def says(kept: Mapping[str, Any]) -> str:
    """Name the figures that the picture was drawn from."""
    return drawn_from(kept, what="accuracies")


def draw(kept: Mapping[str, Any], folder: Path) -> None:
    """Write the picture: accuracy by bits, a line for each T, rounded and trained.

    Raises
    ------
    MissingDependencyError : if matplotlib is absent.
    """
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for row in kept.values():
        panels.setdefault(f"{row['dataset']}, {row['notation']}", []).append(row)
    figure = new_figure("bits", size=(4 * len(panels), 4.6))
    names = [weights.name for weights in reversed(ALL)]
    for place, (title, rows) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for number, row in enumerate(rows):
            for kind, style in (("rounded", "o--"), ("integers", "s-")):
                there = [name for name in names if name in row[kind]]
                if not there:
                    continue
                axes.plot(
                    [names.index(name) for name in there],
                    [100 * row[kind][name] for name in there],
                    style,
                    color=f"C{number}",
                    markersize=4,
                    label=f"T = {row['time_steps']}, {'rounded' if kind == 'rounded' else 'trained in integers'}",
                )
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_xlim(-0.4, len(names) - 0.6)
        axes.set_ylim(top=min(axes.get_ylim()[1], 100))
        axes.set_xlabel("bits of the weights", fontsize=9)
        axes.set_ylabel("test accuracy, %", fontsize=9)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)
    save_figure(figure, folder / PICTURE.name, says=says(kept))


if __name__ == "__main__":
    run_script(main)
