"""Time of a SPIDE iteration, phase by phase: the library's beside a plain dense one, and both beside the machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Literal, get_args
from unittest.mock import patch

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.shared.dense_work import machine_rate, now
from benchmarks.spide.operations import TrainingWork
from benchmarks.spide.plain_training import plain_backward_phase, plain_forward_phase, plain_readout, plain_updates
from fsnn_lava.config import TrainConfig
from fsnn_lava.datasets import Dataset
from fsnn_lava.hardware import Array
from fsnn_lava.network import FeedbackSNN, place, prepared
from fsnn_lava.training import DeviceSamples, rates_with_gradient
from fsnn_lava.training.gradients import spide

PhaseName = Literal["forward", "backward", "update"]
PHASES: tuple[PhaseName, ...] = get_args(PhaseName)
"""forward: masks, input current, T steps; backward: classifier, loss, T_back steps; update: weights' gradients, SGD."""
TURN = 3
"""Iterations of one variant in a row. The first is not counted: it finds the caches as the variant before left them."""
LEARNING_RATE = 1e-6
"""So small that the network stays what it is; the update takes as long."""
CACHED_NUMBERS = 2**16
"""Float32 weights that stay in a core's second-level cache."""
RUN = 1600
"""Length of the runs of weights by which the machine's additions are timed: 25 taps of 64 channels."""


class Iterations:
    """Training iterations of a configuration, ours or plain, whose phases are timed; always other batches."""

    def __init__(self, config: TrainConfig, dataset: Dataset, model: FeedbackSNN) -> None:
        training = config.training
        self.config, self.model = config, model
        self._device = torch.device(training.device)
        place(model.train(), self._device)
        self._samples = DeviceSamples(dataset.train, dataset.coding, device=self._device)
        self._order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(training.seed))
        self._masks = torch.Generator(self._device).manual_seed(training.seed)
        self._optimizer = torch.optim.SGD(
            model.parameters(),
            lr=LEARNING_RATE,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            foreach=True,  # type: ignore[call-arg]
        )
        self._count = 0

    def batch(self) -> tuple[Tensor, Tensor]:
        """Draw the next samples and labels."""
        size = min(self.config.training.batch_size, len(self._order))
        first = self._count * size % (len(self._order) - size + 1)
        self._count += 1
        return self._samples.batch(self._order[first : first + size])

    def ours(self) -> dict[str, float]:
        """Seconds of each phase of one iteration of the library."""
        x, labels = self.batch()
        backward: list[float] = []
        marks = [self._now()]
        found = rates_with_gradient(
            self.model,
            x,
            training=self.config.training,
            time_steps=self.config.network.time_steps,
            generator=self._masks,
        )
        marks.append(self._now())
        loss = functional.cross_entropy(self.model.classify(found.rates), labels)
        self._optimizer.zero_grad()
        with _timed_updates(backward, self._now):
            loss.backward()
        self._optimizer.step()
        marks.append(self._now())
        update_began, update_ended = backward
        rest = marks[2] - update_ended
        return {
            "forward": marks[1] - marks[0],
            "backward": update_began - marks[1],
            "update": update_ended - update_began + rest,
        }

    def plain(self) -> dict[str, float]:
        """Seconds of each phase of one plain iteration."""
        x, labels = self.batch()
        model, steps, training = self.model, self.config.network.time_steps, self.config.training
        marks = [self._now()]
        bound = model.bind(len(labels), generator=self._masks).detached()
        with torch.no_grad():
            drive = bound.drive(x, time_steps=steps)
        rates = plain_forward_phase(bound, drive, time_steps=steps).rates
        marks.append(self._now())
        _, gradient = plain_readout(model, rates[-1], labels)
        betas = plain_backward_phase(
            bound,
            rates,
            gradient,
            time_steps_back=training.time_steps_back,
            loss_scale=training.loss_scale,
        ).rates
        marks.append(self._now())
        plain_updates(model, bound, rates, betas, drive.mean_inputs[0], loss_scale=training.loss_scale)
        self._optimizer.step()
        marks.append(self._now())
        return {phase: marks[n + 1] - marks[n] for n, phase in enumerate(PHASES)}

    def _now(self) -> float:
        return now(self.config.training.device)


@contextmanager
def _timed_updates(marks: list[float], clock: Callable[[], float]) -> Iterator[None]:
    """Within it, when the library's local updates begin and end is noted."""
    local_updates = spide.local_updates

    def timed(*arguments: Any, **named: Any) -> tuple[Tensor, ...]:
        marks.append(clock())
        found = local_updates(*arguments, **named)
        marks.append(clock())
        return found

    with patch.object(spide, "local_updates", timed):
        yield


def measure_times(config: TrainConfig, dataset: Dataset, model: FeedbackSNN, *, repeats: int) -> dict[str, Any]:
    """Median seconds of every phase and of the whole iteration, ours and plain taken in turns; and machine rates."""
    iterations = Iterations(config, dataset, model)
    times: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    rates = []
    with prepared(torch.device(config.training.device)):
        while len(times["plain"]) < repeats:
            for name, iterate in (("ours", iterations.ours), ("plain", iterations.plain)):
                times[name] += [iterate() for _ in range(TURN)][1:]
            rates.append(machine_rate(config, dataset.input_shape))
    medians = {name: _medians(found) for name, found in times.items()}
    return medians | {"iterations": len(times["ours"]), "flops_per_s": statistics.median(rates)}


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    phases: dict[str, float] = {phase: statistics.median(times[phase] for times in found) for phase in PHASES}
    return phases | {"total": statistics.median(sum(times.values()) for times in found)}


def agreement(model: FeedbackSNN, x: Tensor, labels: Tensor, config: TrainConfig, *, seed: int = 0) -> dict[str, Any]:
    """Measure how far ours and the plain restatement differ on one batch, with the same masks and the model's type.

    Spikes per neuron and step, of either sign, in both phases; shares of spikes that differ, where the second phase of
    both begins from our rates, and so do the updates; and the largest ||g - g'|| / ||g'|| of a parameter, g' being the
    plain one.
    """
    steps, training = config.network.time_steps, config.training
    bound = model.bind(len(labels), generator=torch.Generator(x.device).manual_seed(seed)).detached()
    with torch.no_grad():
        drive = bound.drive(x, time_steps=steps)
    run = bound.simulate(drive, time_steps=steps, record=True)
    plain = plain_forward_phase(bound, drive, time_steps=steps, record=True)
    _, gradient = plain_readout(model, run.firing_rates[-1], labels)
    settings = spide.SpideSettings(training.time_steps_back, training.loss_scale)
    ours_back = spide.backward_phase(bound, run.firing_rates, gradient, settings=settings, record=True)
    plain_back = plain_backward_phase(
        bound,
        run.firing_rates,
        gradient,
        time_steps_back=settings.time_steps_back,
        loss_scale=settings.loss_scale,
        record=True,
    )
    assert run.spikes is not None and plain.spikes is not None
    assert ours_back.spikes is not None and plain_back.spikes is not None
    plain_updates(
        model, bound, run.firing_rates, plain_back.rates, drive.mean_inputs[0], loss_scale=training.loss_scale
    )
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    masks = torch.Generator(x.device).manual_seed(seed)
    found = rates_with_gradient(model, x, training=training, time_steps=steps, generator=masks)
    functional.cross_entropy(model.classify(found.rates), labels).backward()
    errors = {
        name: float((p.grad - expected[name]).norm() / expected[name].norm())
        for name, p in model.named_parameters()
        if p.grad is not None and float(expected[name].norm()) > 0
    }
    return {
        "firing": [_size(spikes) for spikes in run.spikes],
        "firing_back": [_size(spikes) for spikes in ours_back.spikes],
        "differing_forward": _differing(run.spikes, plain.spikes),
        "differing_backward": _differing(ours_back.spikes, plain_back.spikes),
        "gradient_error": max(errors.values()),
    }


def _size(spikes: Tensor) -> float:
    """Mean of |spikes|."""
    return float((spikes != 0).sum()) / spikes.numel()


def _differing(ours: tuple[Tensor, ...], plain: tuple[Tensor, ...]) -> float:
    """Share of the spikes of the plain run that differ."""
    differing = sum(int((a != b).sum()) for a, b in zip(ours, plain, strict=True))
    return differing / max(1, sum(int((b != 0).sum()) for b in plain))


# ---- limits ------------------------------------------------------------------------------------------------


def phase_limits(config: TrainConfig, model: FeedbackSNN, work: TrainingWork, *, flops_per_s: float) -> dict[str, Any]:
    """Seconds that each phase would take at the machine's measured rates, ours and plain.

    Plain: its dense products at `flops_per_s`, and the numbers that its elementwise operations read and write at the
    rate at which they stream. Ours: the additions of spikes that are there, from cached weights, and each neuron's
    potential and current read and written once a step at the same streaming rate; the update is dense in both.
    """
    batch, threads = config.training.batch_size, torch.get_num_threads()
    additions = threads * additions_per_s()
    stream = streamed_per_s(batch * max(work.neurons))
    dense = _dense_flops(model, work)
    numbers = {phase: batch * count for phase, count in _streamed_numbers(work).items()}
    forward = sum(c.forward for c in work.connections[1:])
    backward = sum(c.backward for c in work.connections[1:])
    neurons = sum(work.neurons)
    plain = {phase: batch * dense[phase] / flops_per_s + numbers.get(phase, 0) / stream for phase in PHASES}
    first = batch * dense["input"] / flops_per_s
    ours = {
        "forward": first + batch * (forward / additions + 4 * neurons * work.time_steps / stream),
        "backward": batch * (backward / additions + 4 * neurons * work.time_steps_back / stream),
        "update": batch * dense["update"] / flops_per_s,
    }
    rates = {"additions_per_s": additions, "streamed_numbers_per_s": stream}
    return {"ours": ours, "plain": plain, **rates}


def _dense_flops(model: FeedbackSNN, work: TrainingWork) -> dict[str, float]:
    """Floating-point operations of each plain phase for one sample; of a convolution those inside the image."""
    products = {c.name: 2.0 * c.synapses if c.learned else 0.0 for c in work.connections}  # a pool has no product
    first, feedback = products.pop("input"), products.pop("feedback", 0.0)
    later = products.values()
    forward = work.time_steps * sum(later) + (work.time_steps - 1) * feedback
    backward = work.time_steps_back * sum(later) + (work.time_steps_back - 1) * feedback
    readout = 2.0 * model.readout.weight.numel()
    first_phase = first * (work.time_steps if work.event_input else 1)
    return {
        "input": first_phase,
        "forward": first_phase + forward,
        "backward": 3 * readout + backward,
        "update": first + sum(later) + feedback,
    }


def _streamed_numbers(work: TrainingWork) -> dict[str, float]:
    """Numbers that the plain phases read and write elementwise for one sample, by the operations in `plain_spide`.

    Forwards a step takes 12 of each neuron (reset 3, add the masked response 4, threshold 2, count 3) and of the first
    population 3 more for the input current; backwards 19 (factor 3, add 3, thresholds 4, difference 3, reset 3, count
    3) and of the last population 3 more for the gradient.
    """
    neurons = sum(work.neurons)
    return {
        "forward": work.time_steps * (12 * neurons + 3 * work.neurons[0]),
        "backward": work.time_steps_back * (19 * neurons + 3 * work.neurons[-1]),
    }


def streamed_per_s(size: int) -> float:
    """Numbers per second that an addition in place of two tensors of that size reads and writes, on all threads."""
    x, y = torch.zeros(size), torch.ones(size)
    times = []
    for _ in range(10):
        began = now("cpu")
        x.add_(y)
        times.append(now("cpu") - began)
    return 3 * size / statistics.median(times)


def additions_per_s() -> float:
    """Float32 additions per second of one core: runs of weights from its second-level cache, two at a time."""
    weights = np.ones(CACHED_NUMBERS, np.float32)
    begins = np.random.default_rng(0).integers(0, len(weights) - RUN, 40_000)
    out = np.zeros(RUN, np.float32)
    _add_runs(weights, begins[:2], out)
    times = []
    for _ in range(3):
        began = now("cpu")
        _add_runs(weights, begins, out)
        times.append(now("cpu") - began)
    return float(len(begins) * prod(out.shape) / min(times))


@numba.njit(nogil=True)
def _add_runs(weights: Array, begins: Array, out: Array) -> None:
    length = len(out)
    for i in range(0, len(begins), 2):
        a, b = weights[begins[i] : begins[i] + length], weights[begins[i + 1] : begins[i + 1] + length]
        for j in range(length):
            out[j] += a[j] + b[j]
