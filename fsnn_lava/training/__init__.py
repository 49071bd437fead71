"""Samples to checkpoint: gradients, loop, schedule, metrics, evaluation; and the same loop executed in Lava."""

from fsnn_lava.training.checkpoint import TrainedNetwork, load_checkpoint, load_training, new_model, save_checkpoint
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.evaluation import Evaluation, convergence_curve, evaluate
from fsnn_lava.training.gradients.ide import AdjointSettings, implicit_rates, with_implicit_gradient
from fsnn_lava.training.gradients.methods import rates_with_gradient
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, spide_rates
from fsnn_lava.training.loop import FREE_ON_RESUME, fit
from fsnn_lava.training.metrics import Progress, couple_warnings
from fsnn_lava.training.on_lava import check_on_lava, fit_on_lava
from fsnn_lava.training.on_lava_check import TOLERANCE, Agreement
from fsnn_lava.training.on_lava_network import require_on_chip
from fsnn_lava.training.processes import Ranks, joined, ranks_of_environment
from fsnn_lava.training.schedule import check_dataset, check_shares, chosen_samples
from fsnn_lava.training.session import BEST, LAST, FitResult
from fsnn_lava.training.train_network import train

__all__ = [
    "BEST",
    "FREE_ON_RESUME",
    "LAST",
    "TOLERANCE",
    "AdjointSettings",
    "Agreement",
    "DeviceSamples",
    "Evaluation",
    "FitResult",
    "Progress",
    "Ranks",
    "SpideSettings",
    "TrainedNetwork",
    "backward_phase",
    "check_dataset",
    "check_on_lava",
    "check_shares",
    "chosen_samples",
    "convergence_curve",
    "couple_warnings",
    "evaluate",
    "fit",
    "fit_on_lava",
    "implicit_rates",
    "joined",
    "load_checkpoint",
    "load_training",
    "new_model",
    "ranks_of_environment",
    "rates_with_gradient",
    "require_on_chip",
    "save_checkpoint",
    "spide_rates",
    "train",
    "with_implicit_gradient",
]
