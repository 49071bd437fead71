"""Finished samples, added up one by one to the result of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fsnn_lava.backends.registry import Sink
from fsnn_lava.hardware import Array, HardwareNetwork, RunResult, integrated_logits, rates_from_spikes, read_out


class FinishedSamples:
    """Rates and counts of all populations, and the spikes of those asked for, in memory or handed to a sink.

    Parameters
    ----------
    backend : its name.
    samples : how many there will be.
    record : populations whose spikes are kept, or handed over.
    sink : takes the spikes of each sample instead of keeping them.
    """

    def __init__(
        self, backend: str, network: HardwareNetwork, *, samples: int, record: Sequence[str], sink: Sink | None = None
    ) -> None:
        self.backend = backend
        self.network = network
        self.samples = samples
        self.finished = 0
        self._record = tuple(record)
        self._sink = sink
        shapes = {p.name: p.shape for p in network.populations}
        self._rates = {name: np.zeros((samples, *shape)) for name, shape in shapes.items()}
        self._counts = {name: np.zeros((samples, *shape), np.int32) for name, shape in shapes.items()}
        kept = () if sink is not None else self._record
        steps = network.time_steps
        self._spikes = {name: np.zeros((steps, samples, *shapes[name]), np.uint8) for name in kept}
        self._potentials: list[Array] = []

    def add(self, spikes: Mapping[str, Array], potentials: Array | None) -> None:
        """Take the next sample: population -> (T, *N) uint8; its integrators' potentials, if the backend read out."""
        b = self.finished
        for p in self.network.populations:
            self._rates[p.name][b] = rates_from_spikes(spikes[p.name][:, None], p.neuron.leak)[0]
            self._counts[p.name][b] = spikes[p.name].sum(axis=0, dtype=np.int32)
        for name, kept in self._spikes.items():
            kept[:, b] = spikes[name]
        self._potentials[b : b + 1] = [] if potentials is None else [potentials]
        if self._sink is not None and self._record:
            self._sink(b, {name: spikes[name][:, None] for name in self._record})
        self.finished = b + 1  # last: who is interrupted before has not finished it

    def result(self) -> RunResult:
        """The result of the samples that are finished."""
        network, n = self.network, self.finished
        rates = {name: values[:n] for name, values in self._rates.items()}
        if self._potentials:
            logits = integrated_logits(network, np.stack(self._potentials[:n]))
        else:
            logits = read_out(network.readout, rates)
        return RunResult(
            backend=self.backend,
            network=network.name,
            arithmetic=network.arithmetic,
            time_steps=network.time_steps,
            firing_rates=rates,
            spike_counts={name: values[:n] for name, values in self._counts.items()},
            logits=logits,
            spikes={name: values[:, :n] for name, values in self._spikes.items()},
        )
