"""Backpropagation through time with a surrogate gradient: the baseline that implicit differentiation is compared with.

Spatio-temporal backpropagation (STBP) after Wu et al., "Spatio-temporal backpropagation for training high-performance
spiking neural networks" (2018), of the same network: the T steps of `BoundNetwork.simulate`, all of them in the graph,
so that memory grows linearly with T.

It differs from `gradients.ide` in nothing but the gradient:

- Potentials are v[t] = leak (v[t-1] - r s[t-1]) + I[t]; spikes come back over each feedback its loop delay later. The
  two runs may add in another order or fuse a multiplication: a potential within that rounding of the threshold can fire
  in one of them alone.
- Restricted weights and dropout masks are made once a call, and the generator is used in the same order.
- A batch norm behind the input takes the statistics of the response to the mean input, and gradients flow through
  them. In all T steps the others take the running statistics as they were before the call; these are constants.
- In training one evaluation of the equilibrium map at the measured rates, without gradients, updates these. Neurons
  that reset to zero have no such map: there the measured rates themselves do.

Gradients flow from a spike to the populations that it reaches, from a potential to the next one (times leak), and
through the reset, from a spike to its own neuron's next potential (times -leak r). Where a spike resets to zero, r is
the potential itself, which then passes nothing on. Some later methods cut the path through the reset; STBP keeps it,
and so does this.
"""

from __future__ import annotations

import functools
from collections import deque

import torch
from torch import Tensor

from fsnn_lava.config import TrainingConfig
from fsnn_lava.hardware import FloatNeuron, reasons_against_equilibrium
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
    neurons = [_Neurons(neuron, surrogate, width) for neuron in bound.neurons]
    returned = _run(bound, drive, neurons, time_steps=time_steps)
    rates = [n.firing_rate(time_steps) for n in neurons]
    if bound.training:
        with torch.no_grad():
            _update_statistics(bound, drive, rates)
    simulation = Simulation(
        tuple(rate.detach() for rate in rates), tuple(n.count.detach() / time_steps for n in neurons), None, returned
    )
    return ImplicitRates(rates[-1], simulation)


def _update_statistics(bound: BoundNetwork, drive: Drive, rates: list[Tensor]) -> None:
    """Let the batch norms behind populations see the rates: at the equilibrium map's, or, without one, the measured."""
    if not any(reasons_against_equilibrium(neuron) for neuron in bound.neurons):
        bound.rates_around(rates, drive.mean, statistics="batch")
        return
    for synapse in bound.feedforward:
        if synapse.source >= 0:
            synapse.current(rates[synapse.source], "batch")


def _run(bound: BoundNetwork, drive: Drive, neurons: list[_Neurons], *, time_steps: int) -> tuple[Tensor, ...]:
    """Advance all neurons by T steps; return the mean (B, *N) of the spikes that came back over each feedback."""
    normalisations = [synapse.frozen_normalisation() for synapse in bound.feedforward]
    sent: deque[list[Tensor]] = deque(
        maxlen=max(bound.loop_delays, default=1)
    )  # of all populations, the last step's last
    returned: list[Tensor | None] = [None] * len(bound.feedback)
    for t in range(time_steps):
        given = drive.at(t)
        for p, population in enumerate(neurons):
            arriving = [current for current in (given[p],) if current is not None]
            for synapse, delay in zip(bound.feedback, bound.loop_delays, strict=True):
                if synapse.target == p and t >= delay:
                    arriving.append(synapse.current(sent[-delay][synapse.source]))
            for synapse, normalisation in zip(bound.feedforward, normalisations, strict=True):
                if synapse.target == p and synapse.source >= 0:
                    arriving.append(synapse.frozen_current(neurons[synapse.source].spikes, normalisation))
            if arriving:
                population.advance(functools.reduce(torch.add, arriving))
            else:  # nothing has come back yet to a population that hears feedback alone
                population.advance(neurons[0].count.new_zeros((drive.samples, *bound.shapes[p])))
        sent.append([population.spikes for population in neurons])
        for number, (synapse, delay) in enumerate(zip(bound.feedback, bound.loop_delays, strict=True)):
            if t + 1 == time_steps - delay:
                returned[number] = neurons[synapse.source].firing_rate(time_steps).detach()
    none = (torch.zeros_like(neurons[synapse.source].count) for synapse in bound.feedback)
    return tuple(zero if mean is None else mean for mean, zero in zip(returned, none, strict=True))


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
