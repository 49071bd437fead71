"""What Lava learnt, compared with `gradients.spide` in float64: spikes of both phases, gradients, and weights.

Spikes must be equal at every step. Sums of weights are taken in another order there, so that potentials differ in
their last bits; a spike would move if one came that close (1e-15) to its threshold. Gradients and weights may differ
by rounding alone, within `TOLERANCE`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.backends import TrainingJob, TrainingOutcome
from fsnn_lava.errors import counted
from fsnn_lava.hardware import Array
from fsnn_lava.network import FeedbackSNN
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, local_updates
from fsnn_lava.training.on_lava_network import parameters_of

TOLERANCE = 1e-9
"""Largest difference of gradients and weights, as a share of their array's largest value, that rounding can explain.

A float64 sum of n numbers rounds by at most n * 1e-16 of their size: 1e-12 for the thousands of samples and targets
behind a value, and some tens of updates add up such errors. What is a thousand times larger still is below one
rounding to float32 (6e-8), so that a computation in float32 or by another law does not pass.
"""


@dataclass(frozen=True, eq=False)
class BatchByTorch:
    """What `gradients.spide` makes of a batch in the hardware's timing."""

    loss: float  # mean cross-entropy
    spikes: tuple[Tensor, ...]  # (T, B, *N) of each population
    spikes_back: tuple[Tensor, ...]  # (T_back, B, *N) of each population
    gradients: dict[str, Tensor]  # by the parameter's name


@dataclass(frozen=True)
class Agreement:
    """How two computations of the same batches compare.

    Parameters
    ----------
    updates : how many batches there were.
    samples : whose spikes were compared, at every step and neuron.
    spikes, spikes_back : how many there were in the two phases.
    different, different_back : neurons and steps at which they are not the same.
    gradient_error : parameter's name -> largest difference in the last batch, as a share of the largest value.
    weight_error : the same of the values after the last update.
    """

    updates: int
    samples: int
    spikes: int
    spikes_back: int
    different: int
    different_back: int
    gradient_error: dict[str, float]
    weight_error: dict[str, float]

    @property
    def disagreements(self) -> tuple[str, ...]:
        """What differs by more than it may, in words: any spike, and arrays beyond `TOLERANCE`; empty if nothing."""
        found = [
            counted(count, f"{phase} spike")
            for count, phase in ((self.different, "forward"), (self.different_back, "backward"))
            if count
        ]
        for what, errors in (("gradient", self.gradient_error), ("value", self.weight_error)):
            beyond = {name: error for name, error in errors.items() if not error <= TOLERANCE}  # nan is beyond
            found += [f"the {what} of {name} by {error:.1e}" for name, error in beyond.items()]
        return tuple(found)


def spide_in_hardware_timing(
    model: FeedbackSNN, x: Tensor, labels: Tensor, *, time_steps: int, settings: SpideSettings
) -> BatchByTorch:
    """Run both phases of a batch with a loop delay of N steps, and the gradient of every parameter.

    Parameters
    ----------
    model : in the type of x; its parameters' ``grad`` is set as well.
    x : (B, *input_shape) constant input.
    labels : (B,) int64.
    """
    bound, delays = model.bind(len(x)), model.topology.loop_delays("hardware")
    with torch.no_grad():
        detached = bound.detached()
        drive = detached.drive(x, time_steps=time_steps)
        run = detached.simulate(drive, time_steps=time_steps, loop_delays=delays, record=True)
    model.zero_grad()
    rates = run.firing_rates[-1].detach().requires_grad_()
    loss = functional.cross_entropy(model.classify(rates), labels)
    loss.backward()
    assert rates.grad is not None
    phase = backward_phase(detached, run.firing_rates, rates.grad, settings=settings, loop_delays=delays, record=True)
    updates = local_updates(detached, run.firing_rates, phase, mean_inputs=drive.mean_inputs, settings=settings)
    learned = [tensor for synapse in bound.synapses for tensor in (synapse.weight, synapse.bias) if tensor is not None]
    torch.autograd.backward(learned, updates)
    assert run.spikes is not None and phase.spikes is not None
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return BatchByTorch(float(loss), run.spikes, phase.spikes, gradients)


def compare_with_spide(model: FeedbackSNN, job: TrainingJob, outcome: TrainingOutcome) -> Agreement:
    """Compare Lava's run of a job with momentum SGD in torch on the gradients of `gradients.spide`.

    Parameters
    ----------
    model : any network of the job's notation and neurons; it is turned to float64 and given the job's weights.
    job : from its beginning on, without momenta.
    """
    assert outcome.updates == len(job.batches)
    model = model.double()
    model.load_state_dict(parameters_of(job.network))
    learning = job.learning
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1.0, momentum=learning.momentum, weight_decay=learning.weight_decay
    )
    settings = SpideSettings(learning.time_steps_back, learning.loss_scale)
    x = torch.from_numpy(job.inputs).view(len(job.inputs), *model.input_shape)
    first, different, different_back = 0, 0, 0
    gradients: dict[str, Tensor] = {}
    for size, rate in zip(job.batches, job.learning_rates, strict=True):
        batch = slice(first, first + size)
        labels = torch.from_numpy(job.labels[batch])
        expected = spide_in_hardware_timing(model, x[batch], labels, time_steps=learning.time_steps, settings=settings)
        different += _different(outcome.spikes, expected.spikes, first=first)
        different_back += _different(outcome.spikes_back, expected.spikes_back, first=first)
        gradients = expected.gradients
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        first += size
    return Agreement(
        updates=outcome.updates,
        samples=job.recorded,
        spikes=sum(int(s.sum()) for s in outcome.spikes),
        spikes_back=sum(int(np.abs(s).sum()) for s in outcome.spikes_back),
        different=different,
        different_back=different_back,
        gradient_error=_errors(gradients_of(outcome), gradients),
        weight_error=_errors(parameters_of(outcome.network), dict(model.named_parameters())),
    )


def gradients_of(outcome: TrainingOutcome) -> dict[str, Tensor]:
    """Parameter's name -> gradient of the last update's batch, float64."""
    return {
        f"{name}.{what}": torch.from_numpy(gradient)
        for name, pair in outcome.gradients.items()
        for what, gradient in zip(("weight", "bias"), pair, strict=True)
        if gradient is not None
    }


def _different(found: Sequence[Array], expected: Sequence[Tensor], *, first: int) -> int:
    """Count where neurons and steps differ; the expected samples begin with the found ones' number `first`."""
    count = 0
    for here, there in zip(found, expected, strict=True):
        recorded = here[:, first : first + there.shape[1]]
        count += int((recorded != there[:, : recorded.shape[1]].flatten(2).numpy()).sum())
    return count


def _errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference of each tensor, as a share of the largest expected value."""
    assert found.keys() == expected.keys()
    errors = {}
    for name, reference in expected.items():
        largest = float(reference.detach().abs().max())
        difference = float((found[name] - reference.detach()).abs().max())
        errors[name] = difference / largest if largest else difference
    return errors
