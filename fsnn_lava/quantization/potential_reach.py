"""How far potentials go: what the proof admits, what the worst inputs that are found reach, and what is observed.

The proof holds for every input; between it and what occurs lie bits that the weights could have used. An attack says
how many of them a sharper proof could give back: from a few inputs it climbs the gradient of the mean current into the
neurons with the largest bounds, on the map of the rates, and the simulator runs what it found. It is a lower bound of
what can occur, as the proof is an upper one. Of populations that have no such map (reset to zero, a current that
decays), it takes that of the same ones with reset by subtraction and without memory, to climb on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsnn_lava.backends import IntegerSimulator
from fsnn_lava.errors import StateOverflowError
from fsnn_lava.hardware import (
    DECAY_UNITY,
    INPUT,
    STATE_LIMIT,
    Array,
    HardwareNetwork,
    IntegerNeuron,
    Population,
    constant_current,
    equilibrium_violations,
    mean_input,
    potential_bounds,
)
from fsnn_lava.network import RateMap

NEURONS, STARTS, STEPS = 4, 2, 12
"""Neurons of each population that are attacked, inputs from which each attack begins, steps that it takes."""
FIRST_STEP, SHRINKING = 0.5, 0.8
"""Share of the codes' range by which the first step moves each of them, and by what every next one is smaller."""
SLOPE_BEYOND = 0.1
"""Slope of a clamped rate for the attack, which would otherwise see none behind silent neurons."""


@dataclass(frozen=True)
class PotentialReach:
    """Largest magnitudes of a population's potentials, units of state.

    Parameters
    ----------
    bound : that the proof admits, whatever the input.
    attacked : of the inputs that the attack found, or of the observed ones; `STATE_LIMIT` + 1 if one left the range.
    observed : on the inputs at hand.
    """

    bound: int
    attacked: int
    observed: int


def measured_reach(network: HardwareNetwork, inputs: Array, observed: Mapping[str, int]) -> dict[str, PotentialReach]:
    """Measure each population of an integer network; the same network and inputs give the same.

    Parameters
    ----------
    inputs : (B, *shape) codes or (T, B, *shape) events; attacks begin at the first ones.
    observed : largest |potential| of each population on them, as the simulator tells (`RunResult.peaks`).
    """
    bounds = potential_bounds(network)
    attack = _Attack(network, mean_input(network, inputs, leak=1.0)[:STARTS])
    peaks = dict(observed)
    for p in network.populations:
        try:
            found = IntegerSimulator(keep=()).run(network, attack.inputs(p, *bounds[p.name])).peaks
        except StateOverflowError:  # of a network that is not proven
            found = {p.name: STATE_LIMIT + 1}
        peaks = {name: max(peak, found.get(name, 0)) for name, peak in peaks.items()}
    reach = {}
    for name, (low, high) in bounds.items():
        bound = int(max(-low.min(), high.max()))
        reach[name] = PotentialReach(bound, peaks[name], observed[name])
    return reach


class _Attack:
    """Looks for inputs that drive neurons of one population far.

    Parameters
    ----------
    starts : (S, M) codes, or mean events.
    """

    def __init__(self, network: HardwareNetwork, starts: Array) -> None:
        network = _with_equilibrium(network)
        self._network, self._map = network, RateMap(network, with_input=True)
        self._starts = torch.from_numpy(starts).float().view(-1, *network.input.shape)
        silent = np.zeros((1, *network.input.shape), np.int64)
        silent = silent if network.input.kind == "graded" else np.repeat(silent[None], network.time_steps, axis=0)
        self._constant = {
            p.name: torch.from_numpy(constant_current(network, p, silent) / p.neuron.reset_amount)
            .float()
            .view(1, *p.shape)
            for p in network.populations
        }

    def inputs(self, population: Population, low: Array, high: Array) -> Array:
        """Inputs of the network that drive those neurons far whose bounds are the largest, each one for itself."""
        reach = np.maximum(-low, high).reshape(population.shape[0], -1)
        channels = np.argsort(-reach.max(axis=1), kind="stable")[:NEURONS]
        neurons = channels * reach.shape[1] + reach[channels].argmax(axis=1)
        signs = np.where(-low.ravel()[neurons] > high.ravel()[neurons], -1.0, 1.0)
        codes = self._starts.repeat_interleave(len(neurons), 0)
        at = torch.from_numpy(neurons).repeat(len(self._starts))
        sign = torch.from_numpy(signs).float().repeat(len(self._starts))
        maximum = float(self._network.input.maximum) if self._network.input.kind == "graded" else 1.0
        step = FIRST_STEP * maximum
        for _ in range(STEPS):
            codes.requires_grad_()
            current = self._current(population, codes)[torch.arange(len(codes)), at]
            if not current.requires_grad:  # the input does not get here
                break
            (gradient,) = torch.autograd.grad((sign * current).sum(), codes)
            codes = (codes.detach() + step * gradient.sign()).clamp_(0.0, maximum)
            step *= SHRINKING
        found = codes.detach().round_().to(torch.int64).numpy()
        if self._network.input.kind == "event":
            return np.repeat(found[None], self._network.time_steps, axis=0)
        return np.asarray(found)

    def _current(self, population: Population, codes: Tensor) -> Tensor:
        """(B, N) mean current over the reset amount, once around the loop if there is one."""
        values = {INPUT: codes}
        values |= {name: codes.new_zeros((len(codes), *self._constant[name].shape[1:])) for name in self._map.carried}
        for sweep in range(2 if self._map.carried else 1):
            for name, constant in self._constant.items():
                arriving = self._map.current(name, values)
                current = constant.expand(len(codes), *constant.shape[1:]) if arriving is None else arriving + constant
                if name == population.name and (sweep or not self._map.carried):
                    return current.flatten(1)
                values[name] = _passing(current)
        raise AssertionError(f'"{population.name}" is no population of the network')


def _with_equilibrium(network: HardwareNetwork) -> HardwareNetwork:
    """The network to climb on: itself, or one whose spikes subtract what they take at least."""
    if not equilibrium_violations(network):
        return network
    populations = []
    for p in network.populations:
        assert isinstance(p.neuron, IntegerNeuron)
        neuron = dataclasses.replace(p.neuron, reset="subtract", current_decay=DECAY_UNITY)
        if p.neuron.reset == "zero":
            exponent = max(0, p.neuron.v_threshold.bit_length() - 8)
            mantissa = p.neuron.v_threshold >> exponent
            neuron = dataclasses.replace(neuron, reset_mantissa=mantissa, reset_exponent=min(exponent, 7))
        populations.append(dataclasses.replace(p, neuron=neuron))
    return dataclasses.replace(network, populations=tuple(populations))


def _passing(current: Tensor) -> Tensor:
    """The rate of a current over the reset amount, with some slope where it is clamped."""
    rate = current.clamp(0.0, 1.0)
    return rate + SLOPE_BEYOND * (current - rate - (current - rate).detach())
