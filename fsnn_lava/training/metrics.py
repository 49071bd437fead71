"""How far a training is, and its figures: of each iteration, summed over an epoch, and of each epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fsnn_lava.config import TrainConfig
from fsnn_lava.datasets import Dataset
from fsnn_lava.network import Synapse, operator_norm
from fsnn_lava.training.gradients.ide import UNCONVERGED
from fsnn_lava.training.gradients.measured_rates import ImplicitRates
from fsnn_lava.training.schedule import chosen_on

RUN_SECONDS = "train/seconds_of_a_run/"
"""With a way that was tried behind it: what all steps of a batch of integers took; the fastest is the one that runs."""
SAMPLES, CORRECT = "samples", "correct"
"""Figures of an epoch that are counts, as `UNCONVERGED` is; all others are summed with the number of samples as their
weight."""
UNDONE = "undone_steps"
"""Figure of an epoch: how many updates were taken back."""
UNCONVERGED_SHARE = 0.01
"""Share of an epoch's samples without a converged gradient above which it is said."""
SATURATED_SHARE = 0.05
"""Share of a population's couples above which it is said that they saturate; trainings that work have below 1 %."""


@dataclass
class Progress:
    """Where a run is, as plain JSON."""

    epoch: int = 0  # whole epochs done
    iteration: int = 0  # iterations of the next one done
    best_accuracy: float = -1.0  # test accuracy of the best epoch so far; -1: none
    best_epoch: int = 0  # which one that is, from 1
    sums: dict[str, float] = field(default_factory=dict)  # figures of the epoch's iterations so far
    history: list[dict[str, float]] = field(default_factory=list)  # metrics of every epoch

    def add(self, figures: dict[str, float]) -> None:
        """Add an iteration's figures to the epoch's."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.iteration += 1

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Begin the next epoch."""
        self.epoch, self.iteration, self.sums = self.epoch + 1, 0, {}
        self.history.append(metrics)

    @property
    def mean_loss(self) -> float:
        """Mean loss of the epoch so far; NaN before the first update."""
        return self.sums["loss"] / self.sums[SAMPLES] if SAMPLES in self.sums else math.nan


def iteration_figures(
    names: tuple[str, ...], implicit: ImplicitRates, *, loss: Tensor, logits: Tensor, labels: Tensor, total: int
) -> dict[str, Tensor | float]:
    """Sum figures over one batch, or over this process's part of it; a tensor () is on the network's device.

    Parameters
    ----------
    names : of the populations.
    loss : mean over these samples.
    total : samples of the whole batch.
    """
    count = float(len(labels))
    figures: dict[str, Tensor | float] = {
        SAMPLES: count,
        "loss": loss.detach() * count,
        CORRECT: (logits.argmax(1) == labels).sum(),
    }
    for name, mean in zip(names, implicit.simulation.mean_spikes, strict=True):
        figures[f"firing_rate/{name}"] = mean.mean() * count
    for found in implicit.passes:
        figures |= implicit.figures(found, names, count=count, total=total)
    return figures


def packed(figures: Mapping[str, Tensor | float], device: torch.device) -> Tensor:
    """(n,) float64 figures on a device, by one copy of the plain numbers."""
    plain = torch.tensor([0.0 if isinstance(v, Tensor) else v for v in figures.values()], dtype=torch.float64)
    plain = plain.to(device)
    of_tensors = {i: v for i, v in enumerate(figures.values()) if isinstance(v, Tensor)}
    if of_tensors:
        plain[list(of_tensors)] = torch.stack([v.detach().double() for v in of_tensors.values()])
    return plain


def epoch_means(sums: dict[str, float]) -> dict[str, float]:
    """Return means over an epoch's samples, named ``train/...``, from the sums of its iterations."""
    rest = dict(sums)
    samples, correct, unconverged = rest.pop(SAMPLES), rest.pop(CORRECT), rest.pop(UNCONVERGED, 0.0)
    undone = rest.pop(UNDONE, 0.0)
    metrics = {f"train/{name}": total / samples for name, total in rest.items()}
    return metrics | {
        "train/accuracy": correct / samples,
        "train/adjoint_unconverged": unconverged,
        "train/adjoint_unconverged_share": unconverged / samples,
        "train/undone_steps": undone,
    }


def epoch_warnings(metrics: Mapping[str, float]) -> list[str]:
    """Say what is wrong with an epoch in words: adjoint solves, undone steps, SPIDE's second phase of spikes.

    Parameters
    ----------
    metrics : of an epoch, as `epoch_means` names them.
    """
    found = []
    share = metrics.get("train/adjoint_unconverged_share", 0.0)
    if share > UNCONVERGED_SHARE:
        found.append(
            f"the gradient of {share:.1%} of the samples did not converge: the loop does not contract there, so that "
            "they have no stable equilibrium; lower training.contraction or training.learning_rate"
        )
    undone = metrics.get("train/undone_steps", 0.0)
    if undone:
        found.append(
            f"updates taken back, since they led to a loss that is not finite: {undone:.0f}; lower the learning rate"
        )
    firing = {n: v for n, v in metrics.items() if n.startswith("train/backward_firing_rate/")}
    if firing and not any(firing.values()):
        found.append("no couple fires, so that the classifier alone learns: raise training.loss_scale")
    for name, share in metrics.items():
        if name.startswith("train/saturated_couples/") and share > SATURATED_SHARE:
            population = name.rpartition("/")[2]
            found.append(
                f"{share:.0%} of {population}'s couples saturate and cut gradients off: lower training.loss_scale"
            )
    return found


def run_metrics(
    progress: Progress, config: TrainConfig, dataset: Dataset, *, device: str, processes: int
) -> dict[str, Any]:
    """Return what a checkpoint says of the run that it is from, as plain JSON.

    Parameters
    ----------
    device : where it was trained, in words.
    processes : how many trained it together.
    """
    history = progress.history
    validation = history[progress.best_epoch - 1].get("validation/accuracy") if progress.best_epoch else None
    return {
        "epoch": progress.epoch,
        "best_test_accuracy": progress.best_accuracy,
        "best_epoch": progress.best_epoch,
        "chosen_on": chosen_on(config),
        **({} if validation is None else {"best_validation_accuracy": validation}),
        "last_epoch": history[-1] if history else {},
        "seconds_per_epoch": sum(m["train/seconds"] for m in history) / max(len(history), 1),
        "device": device,
        "processes": processes,
        "train_samples": len(dataset.train),
        "test_samples": len(dataset.test),
        "partial": bool(config.train_samples or config.test_samples or config.validation_samples),
        "note": dataset.note,
    }


def feedback_norms(feedbacks: Sequence[Synapse]) -> dict[str, float]:
    """Compute the norm of each feedback's weight as published (the kernel as a matrix), and of the operator itself."""
    norms = {}
    for number, feedback in enumerate(feedbacks, start=1):
        if feedback.restriction is None:  # a pool
            continue
        training = feedback.training
        feedback.eval()
        weight = feedback.effective_weight().detach()
        feedback.train(training)
        ending = "" if number == 1 else f"/feedback{number}"
        norms[f"train/spectral_norm{ending}"] = float(torch.linalg.matrix_norm(weight.flatten(1), ord=2))
        norms[f"train/spectral_norm_operator{ending}"] = operator_norm(feedback.layer, weight, feedback.input_shape)
    return norms
