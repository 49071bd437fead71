"""What Lava learnt, held against `gradients.spide` in float64: spikes of both phases, and the gradients of a batch.

Spikes must be equal at every step. Sums of weights are taken in another order there, so that potentials differ in
their last bits; a spike would move if one came that close (1e-15) to its threshold. Gradients differ by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.backends.lava_training.job import TrainingJob, TrainingOutcome
from fsnn_lava.gradients.spide import SpideSettings, backward_phase, local_updates
from fsnn_lava.ir import Array
from fsnn_lava.model import FeedbackSNN
from fsnn_lava.on_chip import parameters_of


@dataclass(frozen=True, eq=False)
class BatchByTorch:
    """What `gradients.spide` makes of a batch in the hardware's timing.

    Parameters
    ----------
    loss : mean cross-entropy.
    spikes, spikes_back : of each population, (T, B, *N) and (T_back, B, *N).
    gradients : parameter's name -> gradient.
    """

    loss: float
    spikes: tuple[Tensor, ...]
    spikes_back: tuple[Tensor, ...]
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Agreement:
    """How two computations of the same batch compare.

    Parameters
    ----------
    samples : whose spikes were compared, at every step and neuron.
    spikes, spikes_back : how many there were in the two phases.
    different, different_back : neurons and steps at which they are not the same.
    gradient_error : parameter's name -> largest difference, as a share of the largest value.
    """

    samples: int
    spikes: int
    spikes_back: int
    different: int
    different_back: int
    gradient_error: dict[str, float]

    @property
    def is_exact(self) -> bool:
        """Whether no spike differs."""
        return self.different == 0 and self.different_back == 0


def spide_in_hardware_timing(
    model: FeedbackSNN, x: Tensor, labels: Tensor, *, time_steps: int, settings: SpideSettings
) -> BatchByTorch:
    """Both phases of a batch with a loop delay of N steps, and the gradient of every parameter.

    Parameters
    ----------
    model : in the type of x; its parameters' ``grad`` is set as well.
    x : (B, *input_shape) constant input.
    labels : (B,) int64.
    """
    bound, loop_delay = model.bind(len(x)), len(model.population_names)
    with torch.no_grad():
        detached = bound.detached()
        drive = detached.drive(x, time_steps=time_steps)
        run = detached.simulate(drive, time_steps=time_steps, loop_delay=loop_delay, record=True)
    model.zero_grad()
    rates = run.firing_rates[-1].detach().requires_grad_()
    loss = functional.cross_entropy(model.classify(rates), labels)
    loss.backward()
    assert rates.grad is not None
    phase = backward_phase(
        detached, run.firing_rates, rates.grad, settings=settings, loop_delay=loop_delay, record=True
    )
    updates = local_updates(detached, run.firing_rates, phase, mean_input=drive.mean_input, settings=settings)
    synapses = [*bound.feedforward] + ([] if bound.feedback is None else [bound.feedback])
    learned = [tensor for synapse in synapses for tensor in (synapse.weight, synapse.bias) if tensor is not None]
    torch.autograd.backward(learned, updates)
    assert run.spikes is not None and phase.spikes is not None
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return BatchByTorch(float(loss), run.spikes, phase.spikes, gradients)


def compare_with_spide(model: FeedbackSNN, job: TrainingJob, outcome: TrainingOutcome) -> Agreement:
    """How Lava's run of a job of one batch agrees with `gradients.spide`.

    Parameters
    ----------
    model : any network of the job's notation and neurons; it is turned to float64 and given the job's weights.
    """
    assert len(job.batches) == 1 and outcome.updates == 1
    model = model.double()
    model.load_state_dict(parameters_of(job.network))
    settings = SpideSettings(job.learning.time_steps_back, job.learning.loss_scale)
    x = torch.from_numpy(job.inputs).view(len(job.inputs), *model.input_shape)
    expected = spide_in_hardware_timing(
        model, x, torch.from_numpy(job.labels), time_steps=job.learning.time_steps, settings=settings
    )
    return Agreement(
        samples=job.recorded,
        spikes=sum(int(s.sum()) for s in outcome.spikes),
        spikes_back=sum(int(np.abs(s).sum()) for s in outcome.spikes_back),
        different=_different(outcome.spikes, expected.spikes),
        different_back=_different(outcome.spikes_back, expected.spikes_back),
        gradient_error=_gradient_errors(outcome, expected.gradients),
    )


def _different(found: Sequence[Array], expected: Sequence[Tensor]) -> int:
    """At how many neurons and steps they differ; of the expected ones the first samples count."""
    return sum(
        int((here != there[:, : here.shape[1]].flatten(2).numpy()).sum())
        for here, there in zip(found, expected, strict=True)
    )


def _gradient_errors(outcome: TrainingOutcome, expected: dict[str, Tensor]) -> dict[str, float]:
    found = {
        f"{name}.{what}": gradient
        for name, pair in outcome.gradients.items()
        for what, gradient in zip(("weight", "bias"), pair, strict=True)
        if gradient is not None
    }
    assert found.keys() == expected.keys()
    errors = {}
    for name, gradient in found.items():
        reference = expected[name].numpy()
        largest = float(np.abs(reference).max())
        difference = float(np.abs(gradient - reference).max())
        errors[name] = difference / largest if largest else difference
    return errors
