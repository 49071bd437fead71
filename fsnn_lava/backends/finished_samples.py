"""Finished samples, added up batch by batch to the result of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fsnn_lava.backends.registry import Sink
from fsnn_lava.hardware import (
    Array,
    HardwareNetwork,
    RatesOfCounts,
    RunResult,
    integrated_logits,
    rates_from_spikes,
    read_out,
)

READOUT_SAMPLES = 256
"""Samples whose rates are read out together; always the same, so that batches leave the logits as they are."""


class FinishedSamples:
    """Rates and counts of all populations, and the spikes of those asked for, in memory or handed to a sink.

    Parameters
    ----------
    backend : its name.
    samples : how many there will be.
    record : populations whose spikes are kept, or handed over.
    sink : takes the spikes of each batch instead of keeping them.
    keep : populations whose rates and counts are in the result, beside the readout's source; None: all.
    """

    def __init__(
        self,
        backend: str,
        network: HardwareNetwork,
        *,
        samples: int,
        record: Sequence[str],
        sink: Sink | None = None,
        keep: Sequence[str] | None = None,
    ) -> None:
        self.backend = backend
        self.network = network
        self.samples = samples
        self.finished = 0
        self._record, self._sink = tuple(record), sink
        kept = [p for p in network.populations if keep is None or p.name in (*keep, network.readout.source)]
        count = count_dtype(network.time_steps)
        self._counts = {p.name: np.zeros((samples, *p.shape), count) for p in kept}
        self._rates = {p.name: np.zeros((samples, *p.shape)) for p in kept if p.neuron.leak != 1}
        shapes = {name: (network.time_steps, samples, *network.population(name).shape) for name in record}
        self._spikes = {name: np.zeros(shape, np.uint8) for name, shape in shapes.items() if sink is None}
        self._potentials: list[Array] = []
        self._peaks: dict[str, int] = {}

    def add(self, spikes: Mapping[str, Array], potentials: Array | None) -> None:
        """Take the next sample: population -> (T, *N) uint8; its integrators' potentials, if the backend read out."""
        self._potentials[self.finished :] = [] if potentials is None else [potentials]
        alone = {name: fired[:, None] for name, fired in spikes.items()}
        rates = {
            name: rates_from_spikes(alone[name], self.network.population(name).neuron.leak) for name in self._rates
        }
        self.add_batch({name: fired.sum(axis=0) for name, fired in alone.items()}, rates, alone)

    def add_batch(
        self,
        counts: Mapping[str, Array],
        rates: Mapping[str, Array],
        spikes: Mapping[str, Array],
        *,
        peaks: Mapping[str, int] | None = None,
    ) -> None:
        """Take the next b samples: (b, *N) counts, and rates of leaky populations; (T, b, *N) uint8 of the recorded.

        Parameters
        ----------
        peaks : largest |potential| of each population, where it is known.
        """
        batch = slice(self.finished, self.finished + len(next(iter(counts.values()))))
        for into, numbers in ((self._counts, counts), (self._rates, rates)):
            for name in into:
                into[name][batch] = numbers[name]
        for name, kept in self._spikes.items():
            kept[:, batch] = spikes[name]
        for name, peak in (peaks or {}).items():
            self._peaks[name] = max(peak, self._peaks.get(name, 0))
        if self._sink is not None and self._record:
            self._sink(batch.start, {name: spikes[name] for name in self._record})
        self.finished = batch.stop  # last: who is interrupted before has not finished them

    def result(self) -> RunResult:
        """The result of the samples that are finished."""
        network, n = self.network, self.finished
        rates = self._rates_of(slice(n))
        if self._potentials:
            logits = integrated_logits(network, np.stack(self._potentials[:n]))
        else:
            ends = [slice(b, min(b + READOUT_SAMPLES, n)) for b in range(0, max(n, 1), READOUT_SAMPLES)]
            logits = np.concatenate([read_out(network.readout, self._rates_of(part)) for part in ends])
        return RunResult(
            backend=self.backend,
            network=network.name,
            arithmetic=network.arithmetic,
            time_steps=network.time_steps,
            firing_rates=rates,
            spike_counts={name: counts[:n] for name, counts in self._counts.items()},
            logits=logits,
            spikes={name: values[:, :n] for name, values in self._spikes.items()},
            peaks=self._peaks,
        )

    def _rates_of(self, part: slice) -> RatesOfCounts:
        counts, weighted = ({n: numbers[part] for n, numbers in of.items()} for of in (self._counts, self._rates))
        return RatesOfCounts(counts, self.network.time_steps, weighted=weighted)


def count_dtype(time_steps: int) -> type[np.signedinteger[Any]]:
    """The smallest signed type that counts T spikes, 16 bits at least."""
    return np.int16 if time_steps < 2**15 else np.int32
