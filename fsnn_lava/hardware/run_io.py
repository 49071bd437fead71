"""What one run of a network is given and returns, whichever backend runs it.

Backends call `check_inputs` before they run and return a `RunResult`; `verification` compares these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from fsnn_lava.errors import InputError, counted
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import Arithmetic, HardwareNetwork, Readout


@dataclass(frozen=True, eq=False)
class RunResult:
    """What one backend did with a batch of inputs.

    Parameters
    ----------
    backend : name of the backend.
    network : name of the network that ran.
    arithmetic : ``float`` or ``integer``.
    time_steps : T.
    firing_rates : population -> (B, *N), weighted by the leak (Proposition 2), spikes per step.
    spike_counts : population -> (B, *N) signed integers wide enough for T, spikes in the window.
    logits : (B, classes) float64, the readout of `firing_rates`.
    spikes : population -> (T, B, *N) uint8, each in its own window; only the populations asked for.
    labels : (B,) classes of the samples, if they are known.
    peaks : population -> largest |potential| of all steps and samples, units of state; of integers in the simulator.
    """

    backend: str
    network: str
    arithmetic: Arithmetic
    time_steps: int
    firing_rates: Mapping[str, Array]
    spike_counts: Mapping[str, Array]
    logits: Array
    spikes: Mapping[str, Array] = field(default_factory=dict)
    labels: Array | None = None
    peaks: Mapping[str, int] = field(default_factory=dict)

    @property
    def predictions(self) -> Array:
        """(B,) class with the largest logit."""
        return np.asarray(self.logits.argmax(axis=1))

    @property
    def accuracy(self) -> float:
        """Share of samples whose largest logit is at their label, [0, 1].

        Raises
        ------
        InputError : if the labels are not known, or there is not one per sample.
        """
        if self.labels is None:
            raise InputError(f'run "{self.backend}" was given no labels; give them, or run `Samples`')
        return accuracy(self, self.labels)


@final
class RatesOfCounts(Mapping[str, Array]):
    """Firing rates (B, *N) float64 that are counts over T, divided when they are asked for and not kept.

    Parameters
    ----------
    counts : population -> (B, *N) spikes in the window.
    time_steps : T.
    weighted : rates of the populations, a subset, for which they are something else.
    """

    def __init__(self, counts: Mapping[str, Array], time_steps: int, *, weighted: Mapping[str, Array]) -> None:
        self._counts = counts
        self._time_steps = time_steps
        self._weighted = weighted

    def __getitem__(self, name: str) -> Array:
        if name in self._weighted:
            return self._weighted[name]
        return np.asarray(self._counts[name] / self._time_steps)

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


def rate_weights(time_steps: int, leak: float) -> Array:
    """(T,) share of each step in the firing rate: leak**(T-1-t), normalised to sum 1 (Proposition 2)."""
    powers = float(leak) ** np.arange(time_steps - 1, -1, -1, dtype=np.float64)
    return np.asarray(powers / powers.sum())


def rates_from_spikes(spikes: Array, leak: float) -> Array:
    """(B, *N) leak-weighted firing rate of recorded spikes (T, B, *N); without leak exactly their count over T."""
    steps = len(spikes)
    if leak == 1.0:
        return np.asarray(spikes.sum(axis=0, dtype=np.int64) / steps)
    return np.asarray(np.tensordot(rate_weights(steps, leak), spikes, axes=1))


def read_out(readout: Readout, firing_rates: Mapping[str, Array]) -> Array:
    """(B, classes) logits of the readout's source rates, in float64."""
    rates = firing_rates[readout.source]
    flat = rates.reshape(len(rates), -1).astype(np.float64, copy=False)
    return np.asarray(flat @ readout.weight.T.astype(np.float64) + readout.bias)


def accuracy(result: RunResult, labels: Array) -> float:
    """Share of samples whose largest logit is at their label (B,), [0, 1].

    Raises
    ------
    InputError : if there is not one label per sample.
    """
    if labels.shape != result.predictions.shape:
        raise InputError(
            f'run "{result.backend}" has {counted(len(result.predictions), "sample")}; found labels of shape '
            f"{labels.shape}; give one class per sample"
        )
    return float(np.mean(result.predictions == labels))


def check_inputs(network: HardwareNetwork, inputs: Array, *, record: Sequence[str] = ()) -> int:
    """Check inputs, and the names of populations to record, against a network; return the number of samples B.

    Parameters
    ----------
    inputs : graded input: (B, *shape) integer codes, 0 .. ``network.input.maximum``;
        event input: (T, B, *shape) integers or booleans, 0 or 1.
    record : names of the populations whose spikes are asked for.

    Raises
    ------
    InputError : saying what was found, what the network allows and what to do.
    """
    where = f'network "{network.name}"'
    if not isinstance(inputs, np.ndarray):
        raise InputError(f"{where}: inputs are a {type(inputs).__name__}; expected a NumPy array, see np.asarray")
    _check_shape(where, network, inputs.shape)
    _check_codes(where, network, inputs)
    _check_record(where, network, record)
    return network.input.samples(inputs)


def _check_shape(where: str, network: HardwareNetwork, shape: tuple[int, ...]) -> None:
    event, leading = network.input.kind == "event", network.input.batch_axis + 1
    sizes = ", ".join(map(str, network.input.shape))
    expected = f"(T, B, {sizes}) = ({network.time_steps}, B, {sizes})" if event else f"(B, {sizes})"
    if len(shape) != leading + len(network.input.shape) or shape[leading:] != tuple(network.input.shape):
        raise InputError(f"{where}: {network.input.kind} inputs of shape {shape}; expected {expected}")
    if event and shape[0] != network.time_steps:
        raise InputError(
            f"{where}: {counted(shape[0], 'event frame')} per sample; the network runs "
            f"{counted(network.time_steps, 'step')} and needs as many frames, shape {expected}"
        )
    if shape[leading - 1] < 1:
        raise InputError(f"{where}: no sample in inputs of shape {shape}; expected at least one, shape {expected}")


def _check_codes(where: str, network: HardwareNetwork, inputs: Array) -> None:
    event = network.input.kind == "event"
    if not (np.issubdtype(inputs.dtype, np.integer) or (event and inputs.dtype == np.bool_)):
        allowed = "integers or booleans, 0 or 1" if event else f"integer codes 0 .. {network.input.maximum}"
        raise InputError(f"{where}: inputs of type {inputs.dtype}; expected {allowed}; convert them on purpose")
    lowest, highest = int(inputs.min()), int(inputs.max())
    if lowest < 0 or highest > network.input.maximum:
        raise InputError(f"{where}: input codes from {lowest} to {highest}; allowed: 0 .. {network.input.maximum}")


def _check_record(where: str, network: HardwareNetwork, record: Sequence[str]) -> None:
    if isinstance(record, str):
        raise InputError(f'{where}: record is the string "{record}"; expected a sequence of names: ["{record}"]')
    known = [p.name for p in network.populations]
    unknown = [name for name in record if name not in known]
    if unknown:
        raise InputError(f"{where}: no population {unknown} to record; there are: {', '.join(known)}")
