"""Samples to checkpoint: gradients, loop, schedule, metrics, evaluation; and the same loop executed in Lava."""

from fsnn_lava.training.checkpoint import (
    TrainedNetwork as TrainedNetwork,
    load_checkpoint as load_checkpoint,
    load_training as load_training,
    new_model as new_model,
    save_checkpoint as save_checkpoint,
    take_weights as take_weights,
)
from fsnn_lava.training.device_samples import DeviceSamples as DeviceSamples
from fsnn_lava.training.evaluation import (
    Evaluation as Evaluation,
    convergence_curve as convergence_curve,
    evaluate as evaluate,
    settling as settling,
)
from fsnn_lava.training.gradients.ide import (
    AdjointSettings as AdjointSettings,
    implicit_rates as implicit_rates,
    with_implicit_gradient as with_implicit_gradient,
)
from fsnn_lava.training.gradients.measured_rates import (
    BackwardPhase as BackwardPhase,
    Figures as Figures,
    ImplicitRates as ImplicitRates,
    RatesWithGradient as RatesWithGradient,
    rates_with_gradient as rates_with_gradient,
)
from fsnn_lava.training.gradients.spide import (
    SpideSettings as SpideSettings,
    backward_phase as backward_phase,
    spide_rates as spide_rates,
)
from fsnn_lava.training.integers.network import IntegerSNN as IntegerSNN
from fsnn_lava.training.loop import FREE_ON_RESUME as FREE_ON_RESUME, fit as fit, train as train
from fsnn_lava.training.metrics import (
    RUN_SECONDS as RUN_SECONDS,
    Progress as Progress,
    epoch_warnings as epoch_warnings,
)
from fsnn_lava.training.on_lava import check_on_lava as check_on_lava, fit_on_lava as fit_on_lava
from fsnn_lava.training.on_lava_check import TOLERANCE as TOLERANCE, Agreement as Agreement
from fsnn_lava.training.on_lava_network import require_on_chip as require_on_chip
from fsnn_lava.training.processes import Ranks as Ranks, joined as joined, ranks_of_environment as ranks_of_environment
from fsnn_lava.training.schedule import (
    check_dataset as check_dataset,
    check_shares as check_shares,
    chosen_samples as chosen_samples,
    free_on_resume as free_on_resume,
)
from fsnn_lava.training.session import BEST as BEST, LAST as LAST, FitResult as FitResult
