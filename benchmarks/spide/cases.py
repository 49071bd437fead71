"""What the SPIDE benchmark measures of untrained networks of configurations and of trained ones, section by section."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.shared.iteration import iteration
from benchmarks.shared.machine import conditions
from benchmarks.shared.memory import in_own_process, peak_increment
from benchmarks.spide.energy import SOURCE, EnergyCosts, as_kept, energy_parts, totals
from benchmarks.spide.gradient_error import ACCURATE, gradient_errors
from benchmarks.spide.operations import TrainingWork, measure_work
from benchmarks.spide.phase_speed import Iterations, agreement, measure_times, phase_limits
from fsnn_lava.config import TrainConfig, parse_spec, read_config
from fsnn_lava.datasets import Dataset, load_dataset
from fsnn_lava.errors import ConfigError
from fsnn_lava.network import FeedbackSNN
from fsnn_lava.training import LAST, SpideSettings, load_training, new_model

BASE = (30, 100)
"""T and T_back at which the other one is varied when memory is measured."""
EPOCHS_SHOWN = 10
"""Epochs of a training whose figures are kept, at most."""


@dataclass(frozen=True, eq=False)
class Case:
    """A network to measure.

    Parameters
    ----------
    key : under which its figures are kept.
    state : weights of a training; None: new ones.
    epochs : how many that training had.
    history : metrics of each.
    trained_threads : CPU threads of that training; 0: those that torch chose.
    """

    key: str
    config: TrainConfig
    dataset: Dataset
    state: Mapping[str, Tensor] | None
    epochs: int = 0
    history: tuple[Mapping[str, float], ...] = ()
    trained_threads: int = 0

    def model(self) -> FeedbackSNN:
        """Make the network with its weights, in training mode, on the CPU."""
        model = new_model(self.config, self.dataset.input_shape, len(self.dataset.classes))
        if self.state is not None:
            model.load_state_dict(self.state)
        return model.train()

    def facts(self) -> dict[str, Any]:
        """Return what is kept beside all figures of the case."""
        network, training = self.config.network, self.config.training
        return {
            "notation": network.notation,
            "dataset": self.config.dataset,
            "leak": network.leak,
            "time_steps": network.time_steps,
            "time_steps_back": training.time_steps_back,
            "loss_scale": training.loss_scale,
            "batch_size": training.batch_size,
            "dropout": network.dropout,
            "epochs": self.epochs,
            "conditions": conditions(),
        }


def read_cases(
    cases: tuple[str, ...], runs: tuple[Path, ...], *, data_dir: Path | None, seed: int, threads: int
) -> list[Case]:
    """Untrained and trained networks, in this order.

    Parameters
    ----------
    cases : names or paths of configurations, with another batch size after a colon if wanted.
    runs : folders of trainings.
    threads : that torch and the event-driven kernels use from now on.

    Raises
    ------
    ConfigError : a configuration trains by another method, or restricts its feedback by another norm than Frobenius's.
    """
    torch.set_num_threads(threads)
    datasets: dict[str, Dataset] = {}

    def data(config: TrainConfig) -> Dataset:
        if config.dataset not in datasets:
            datasets[config.dataset] = load_dataset(config.dataset, data_dir)
        return datasets[config.dataset]

    found = []
    for case in cases:
        name, _, batch = case.partition(":")
        config = read_config(name)
        changes: dict[str, Any] = {"batch_size": int(batch)} if batch else {}
        config = _with(config, seed=seed, threads=threads, device="cpu", **changes)
        found.append(Case(config.name + (f":{batch}" if batch else ""), _spide(config), data(config), None))
    for run in runs:
        trained, progress, _ = load_training(run / LAST)
        config, history = _spide(_with(trained.config, threads=threads, device="cpu")), progress.get("history", [])
        own = trained.config.training.threads
        found.append(Case(f"run {run.name}", config, data(config), trained.weights, len(history), tuple(history), own))
    return found


def _spide(config: TrainConfig) -> TrainConfig:
    if config.training.method != "spide":
        raise ConfigError(
            f'config {config.name}: training.method: found "{config.training.method}"; expected "spide", '
            "as this benchmark measures its second phase"
        )
    network = config.network
    if network.spectral_norm != "frobenius" and parse_spec(network.notation).feedback is not None:
        raise ConfigError(
            f'config {config.name}: network.spectral_norm: found "{network.spectral_norm}"; expected "frobenius" with '
            "feedback, as the plain restatement knows no gradient through another restriction"
        )
    return config


def _with(config: TrainConfig, **training: Any) -> TrainConfig:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


# ---- sections ----------------------------------------------------------------------------------------------


def speed_of(case: Case, *, repeats: int) -> dict[str, Any]:
    """Seconds of an iteration, ours and plain; how far they agree; and the machine's limits."""
    model = case.model()
    x, labels = Iterations(case.config, case.dataset, model).batch()
    found = {"agreement": agreement(model, x, labels, case.config)}
    times = measure_times(case.config, case.dataset, model, repeats=repeats)
    work = measure_work(model, x, labels, case.config)
    limits = phase_limits(case.config, model, work, flops_per_s=times["flops_per_s"])
    return found | {"seconds": times, "limits": limits}


def memory_of(
    case: Case, *, time_steps: tuple[int, ...], time_steps_back: tuple[int, ...], batch_size: int
) -> dict[str, Any]:
    """MiB that an iteration takes for a while, for each T and each T_back, and by BPTT for each T."""
    base, base_back = BASE
    cells = {("spide", steps, base_back) for steps in time_steps} | {("spide", base, back) for back in time_steps_back}
    ordered: list[tuple[str, int, int]] = [("spide", *cell[1:]) for cell in sorted(cells)]
    ordered += [("bptt", steps, 0) for steps in time_steps]
    rows = []
    for method, steps, back in ordered:
        config = _with(case.config, method=method, time_steps_back=max(back, 1), batch_size=batch_size)
        network = dataclasses.replace(config.network, time_steps=steps)
        config = dataclasses.replace(config, network=network)
        small = dataclasses.replace(case.dataset, train=case.dataset.train.select(np.arange(batch_size)))
        peak = in_own_process(_peak, config, small, case.state)
        rows.append({"method": method, "time_steps": steps, "time_steps_back": back, "mib": round(peak, 1)})
    return {"batch_size": batch_size, "rows": rows}


def _peak(config: TrainConfig, dataset: Dataset, state: Mapping[str, Tensor] | None) -> float:
    with iteration(config, dataset, weights=state) as iterate:
        return peak_increment(iterate)


def energy_of(case: Case, *, costs: EnergyCosts) -> dict[str, Any]:
    """Firing, operations and energy of training on one sample."""
    model = case.model()
    x, labels = Iterations(case.config, case.dataset, model).batch()
    work = measure_work(model, x, labels, case.config)
    at = {"time_steps_back": ACCURATE.time_steps_back, "loss_scale": ACCURATE.loss_scale}
    accurate = measure_work(model, x, labels, _with(case.config, **at))
    return {
        "history": firing_history(case, model.population_names),
        "trained_threads": case.trained_threads,
        "adjoint_tolerance": case.config.training.adjoint_tolerance,
        "costs": {**asdict(costs), "source": SOURCE},
        **energy_figures(work, costs),
        "accurate": at | {"totals": totals(energy_parts(accurate, costs), costs)["SPIDE"]},
    }


def energy_figures(work: TrainingWork, costs: EnergyCosts) -> dict[str, Any]:
    """Counts, parts and totals as they are kept."""
    parts = energy_parts(work, costs)
    return {"work": asdict(work), "parts": as_kept(parts, costs), "totals": totals(parts, costs)}


def firing_history(case: Case, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Loss, accuracy and firing of both phases in some epochs of a training, the last one among them.

    With the seconds that the training had taken by then, tests left out.
    """
    known = [n for n, epoch in enumerate(case.history) if f"train/backward_firing_rate/{names[0]}" in epoch]
    if not known:
        return []
    chosen = sorted({known[round(i * (len(known) - 1) / max(1, EPOCHS_SHOWN - 1))] for i in range(EPOCHS_SHOWN)})
    return [
        {
            "epoch": n + 1,
            "loss": case.history[n]["train/loss"],
            "accuracy": case.history[n]["test/accuracy"],
            "seconds_so_far": sum(epoch["train/seconds"] for epoch in case.history[: n + 1]),
            "firing": [case.history[n][f"train/firing_rate/{name}"] for name in names],
            "firing_back": [case.history[n][f"train/backward_firing_rate/{name}"] for name in names],
        }
        for n in chosen
    ]


def error_of(
    case: Case, *, time_steps_back: tuple[int, ...], loss_scales: tuple[float, ...], say: Callable[[str], object]
) -> dict[str, Any]:
    """Measure the gradient's error at all settings, in float64, on one batch."""
    x, labels = Iterations(case.config, case.dataset, case.model()).batch()
    model = case.model().double()
    settings = tuple(SpideSettings(back, scale) for back in time_steps_back for scale in loss_scales)
    errors = []
    steps = case.config.network.time_steps
    for found in gradient_errors(model, x.double(), labels, time_steps=steps, settings=settings):
        errors.append(asdict(found))
        say(f"{case.key}: T_back {found.time_steps_back}, scale {found.loss_scale:g}: {found.error:.3f}")
    return {"samples": len(labels), "errors": errors}
