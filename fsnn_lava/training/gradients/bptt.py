"""Backpropagation through time with a surrogate gradient: the baseline that implicit differentiation is compared with.

Spatio-temporal backpropagation (STBP) after Wu et al., "Spatio-temporal backpropagation for training high-performance
spiking neural networks" (2018), of the same network: the T steps of `BoundNetwork.simulate`, all of them in the graph,
so that memory grows linearly with T.

It differs from `gradients.ide` in nothing but the gradient:

- Potentials are v[t] = leak (v[t-1] - r s[t-1]) + I[t]; the last population's spikes reach the first one
  `loop_delay` steps later. The two runs may add in another order or fuse a multiplication: a potential within that
  rounding of the threshold can fire in one of them alone.
- Restricted weights and dropout masks are made once a call, and the generator is used in the same order.
- The first batch norm takes the statistics of the response to the mean input, and gradients flow through them. In all
  T steps the others take the running statistics as they were before the call; these are constants.
- In training one evaluation of the equilibrium map at the measured rates, without gradients, updates these.

Gradients flow from a spike to the populations that it reaches, from a potential to the next one (times leak), and
through the reset, from a spike to its own neuron's next potential (times -leak r). Some later methods cut the last
path; STBP keeps it, and so does this.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from fsnn_lava.config import TrainingConfig
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network import BoundNetwork, Drive, FeedbackSNN, Simulation, Sums, integrate, rate_from_count
from fsnn_lava.training.gradients.measured_rates import ImplicitRates
from fsnn_lava.training.gradients.surrogate import surrogate_spikes


def bptt(
    model: FeedbackSNN,
    x: Tensor,
    *,
    training: TrainingConfig,
    time_steps: int,
    generator: torch.Generator | None,
    sums: Sums | None,
    processes: int,
) -> ImplicitRates:
    """Measure rates with a gradient through all steps, as a configuration says; registered as "bptt"."""
    surrogate, width = training.surrogate, training.surrogate_width
    return bptt_rates(model, x, time_steps=time_steps, surrogate=surrogate, width=width, generator=generator)


def bptt_rates(
    model: FeedbackSNN,
    x: Tensor,
    *,
    time_steps: int,
    surrogate: str = "rectangular",
    width: float = 2.0,
    generator: torch.Generator | None = None,
) -> ImplicitRates:
    """Firing rates of the last population after T steps, with a gradient through all of them; no adjoint is solved.

    Parameters
    ----------
    model, x, generator : as of `rates_with_gradient`.
    surrogate : curve that stands for the derivative of a spike.
    width : of that curve, in the unit of the potential.
    """
    bound = model.bind_to(x, generator=generator)
    drive = bound.drive(x, time_steps=time_steps, differentiable=True)
    neurons = [_Neurons(bound.neuron, surrogate, width) for _ in bound.feedforward]
    returned = _run(bound, drive, neurons, time_steps=time_steps)
    rates = [n.firing_rate(time_steps) for n in neurons]
    if bound.training:
        with torch.no_grad():
            bound.rates_around(rates[-1], drive.mean, statistics="batch")
    simulation = Simulation(
        tuple(rate.detach() for rate in rates), tuple(n.count.detach() / time_steps for n in neurons), None, returned
    )
    return ImplicitRates(rates[-1], simulation)


def _run(bound: BoundNetwork, drive: Drive, neurons: list[_Neurons], *, time_steps: int) -> Tensor:
    """Advance all neurons by T steps; return the mean (B, *N) of the spikes that came back."""
    normalisations = [synapse.frozen_normalisation() for synapse in bound.feedforward]
    sent: deque[Tensor] = deque()
    returned = None
    for t in range(time_steps):
        current = drive.at(t)
        if bound.feedback is not None and t >= bound.loop_delay:
            current = current + bound.feedback.current(sent.popleft())
        neurons[0].advance(current)
        for layer in range(1, len(neurons)):
            current = bound.feedforward[layer].frozen_current(neurons[layer - 1].spikes, normalisations[layer])
            neurons[layer].advance(current)
        sent.append(neurons[-1].spikes)
        if t + 1 == time_steps - bound.loop_delay:
            returned = neurons[-1].firing_rate(time_steps).detach()
    return torch.zeros_like(neurons[-1].count) if returned is None else returned


class _Neurons:
    """Potentials and spike counts of one population during a run, (B, *N) each, with gradients."""

    v: Tensor
    spikes: Tensor  # 0 or 1, of the last step
    weighted_count: Tensor  # sum of leak**(t-k) s[k]
    count: Tensor  # sum of s[k]

    def __init__(self, neuron: FloatNeuron, surrogate: str, width: float) -> None:
        self._neuron, self._surrogate, self._width = neuron, surrogate, width
        self._started = False

    def advance(self, current: Tensor) -> None:
        """One step, given its input current (B, *N)."""
        if not self._started:
            self.v, self.spikes, self.weighted_count, self.count = (torch.zeros_like(current) for _ in range(4))
            self._started = True
        self.v = integrate(self.v, self.spikes, current, neuron=self._neuron)
        self.spikes = surrogate_spikes(self.v, neuron=self._neuron, surrogate=self._surrogate, width=self._width)
        self.weighted_count = self._neuron.leak * self.weighted_count + self.spikes
        self.count = self.count + self.spikes.detach()

    def firing_rate(self, time_steps: int) -> Tensor:
        """Leak-weighted firing rate (B, *N), spikes per step."""
        return rate_from_count(self.weighted_count, time_steps=time_steps, leak=self._neuron.leak)
