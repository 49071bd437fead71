"""Small trainings for Lava, with every kind of neuron in them: silent, saturated and in between."""

import itertools
from dataclasses import replace

import numpy as np

from fsnn_lava.backends.lava.learning.job import Learning, PlasticNetwork, Synapses, TrainingJob
from fsnn_lava.hardware.neurons import FloatNeuron

INPUTS, CLASSES = 8, 4
LEARNING = Learning(time_steps=12, time_steps_back=25, loss_scale=50.0, momentum=0.9, weight_decay=0.01)


def random_job(
    sizes: tuple[int, ...],
    *,
    leak: float = 1.0,
    feedback: bool = True,
    norm_bound: float = 2.0,
    batches: tuple[int, ...] = (3, 2, 1),
    seed: int = 2,
) -> TrainingJob:
    """Random weights, samples and labels; the first neuron of each population is silent, the second one saturated."""
    rng = np.random.default_rng(seed)
    widths = (INPUTS, *sizes)
    feedforward = []
    for before, size in itertools.pairwise(widths):
        bias = 0.5 + 0.3 * rng.normal(size=size)
        bias[:2] = -20, 20
        feedforward.append(Synapses(rng.normal(size=(size, before)) * np.sqrt(2 / before), bias))
    loop = Synapses(rng.normal(size=(sizes[0], sizes[-1])) * np.sqrt(2 / sizes[-1])) if feedback else None
    readout = Synapses(0.1 * rng.normal(size=(CLASSES, sizes[-1])), rng.normal(size=CLASSES))
    network = PlasticNetwork(
        tuple(feedforward), loop, readout, FloatNeuron(1.0, 2.0, leak), norm_bound if feedback else np.inf
    )
    samples = sum(batches)
    return TrainingJob(
        network,
        LEARNING,
        rng.normal(size=(samples, INPUTS)),
        rng.integers(0, CLASSES, samples),
        batches,
        tuple(0.05 / (update + 1) for update in range(len(batches))),
        recorded=samples,
    )


def part(job: TrainingJob, updates: slice, *, network: PlasticNetwork | None = None) -> TrainingJob:
    """Some of a job's updates, beginning with another network."""
    ends = np.cumsum((0, *job.batches))
    first, last = updates.start or 0, len(job.batches) if updates.stop is None else updates.stop
    samples = slice(ends[first], ends[last])
    return replace(
        job,
        network=network or job.network,
        inputs=job.inputs[samples],
        labels=job.labels[samples],
        batches=job.batches[first:last],
        learning_rates=job.learning_rates[first:last],
        recorded=0,
    )


def long_job() -> TrainingJob:
    """Hours of work of one neuron pair, 200,000 updates; what is learnt can be told from the number of updates."""
    job = random_job((4,), batches=(1,))
    samples = 200_000
    return replace(
        job,
        inputs=np.tile(job.inputs, (samples, 1)),
        labels=np.tile(job.labels, samples),
        batches=(2,) * (samples // 2),
        learning_rates=(1e-3,) * (samples // 2),
        recorded=0,
    )
