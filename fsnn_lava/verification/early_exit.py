"""Answers of a run that had stopped earlier, after every number of steps, from the spikes of one run.

After t of T steps the readout's logits are weight @ a[t] + bias, a[t] the leak-weighted mean of the first t steps'
spikes (`result.rate_weights` of t steps). The *margin* is the largest logit less the second largest.

Early exit, by sample: it leaves at the first step t at which its class was the same over the last k + 1 steps
(t - k .. t; k is `stable_steps`), none of them before the first spike of the readout's population, so that silence is
not taken for rest, and

- rule ``settled``: over these steps the margin's largest less its smallest value was below limit x the margin at t.
  The change is taken relative to the margin, because a hard sample's small margin moves little: an absolute limit
  would send away the hard samples first;
- rule ``margin``: the margin at t was above the limit, in logits.

A sample that never does uses all T steps: with limit 0 (settled) or infinity (margin) all of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from fsnn_lava.datasets import evenly_spaced
from fsnn_lava.errors import BackendError, ConfigError, InputError, UnsupportedError, counted
from fsnn_lava.hardware import Array, HardwareNetwork, check_inputs, equilibrium_violations, rates_from_spikes
from fsnn_lava.network import equilibrium_rates
from fsnn_lava.verification.structure import fingerprint

Reference = Literal["equilibrium", "final"]
"""What rates are compared with: those at which the network settles on these inputs, or the run's own after T steps."""
ExitRule = Literal["settled", "margin"]
"""When a sample leaves: see the top of this file."""
REFERENCES: Mapping[Reference, str] = {
    "equilibrium": "the rates at which the integer network settles",
    "final": "the same run's rates after all steps",
}

EQUILIBRIUM_TOLERANCE = 1e-5
"""Largest change of a rate at which the iteration stops; far below the errors, which are above 1e-4."""
_BLOCK = 32
"""Samples whose rates are held at a time."""


@dataclass(frozen=True, eq=False)
class Anytime:
    """Answers after every number of steps; row t - 1 is the state after t steps.

    Parameters
    ----------
    network, fingerprint : its name, and what reports call it by.
    labels : (B,) right classes.
    predictions : (T, B) classes with the largest logit.
    margins : (T, B) float64, largest logit less the second largest.
    first_spike : (B,) int64 step, from 0, of the first spike of the readout's population; T if there was none.
    rate_error : (T,) mean over samples and neurons of the readout's population of abs(rate - reference), spikes per
        step.
    rate_samples : how many samples `rate_error` is the mean of.
    reference : what the rates were compared with.
    reference_converged : whether the reference is known to `EQUILIBRIUM_TOLERANCE`.
    """

    network: str
    fingerprint: str
    labels: Array
    predictions: Array
    margins: Array
    first_spike: Array
    rate_error: Array
    rate_samples: int
    reference: Reference
    reference_converged: bool

    @property
    def time_steps(self) -> int:
        """T."""
        return len(self.predictions)

    @property
    def samples(self) -> int:
        """B."""
        return len(self.labels)

    @property
    def accuracy(self) -> Array:
        """(T,) share of samples classified rightly after 1 .. T steps."""
        return np.asarray((self.predictions == self.labels).mean(axis=1))


@dataclass(frozen=True)
class EarlyExit:
    """Cost and saving of leaving early, by a rule at the top of this file."""

    rule: ExitRule
    limit: float
    stable_steps: int
    accuracy: float  # share of samples whose class was right when they left
    mean_steps: float  # number of steps used
    left_early: float  # share of samples that used less than T steps


@final
class AnytimeReadout:
    """Sink for a runner, which takes the readout population's spikes as they come and keeps T numbers a sample.

    Parameters
    ----------
    inputs : what the run is given: graded (B, *shape) codes or event (T, B, *shape) frames.
    labels : (B,) right classes.
    reference : what the rates are compared with, see `Reference`. For event input the equilibrium is that of the
        frames' mean over all T steps.
    rate_samples : the rate error is the mean of that many samples, evenly spread; None: of all. The equilibrium of
        one sample takes longer than its run.

    Raises
    ------
    InputError : if inputs or labels do not fit the network, or it has one class only.
    ConfigError : if the number of samples is out of range.
    UnsupportedError : if the reference is the equilibrium, and the network has none.
    """

    def __init__(
        self,
        network: HardwareNetwork,
        inputs: Array,
        *,
        labels: Array,
        reference: Reference = "equilibrium",
        rate_samples: int | None = None,
    ) -> None:
        total = check_inputs(network, inputs)
        if labels.shape != (total,):
            raise InputError(
                f'network "{network.name}": {counted(total, "sample")}; found labels of shape {labels.shape}; '
                "give one a sample"
            )
        if len(network.readout.bias) < 2:
            raise InputError(f'network "{network.name}": its readout has one class; a margin needs two or more')
        if rate_samples is not None and not 1 <= rate_samples <= total:
            raise ConfigError(f"samples of the rate error: found {rate_samples}; allowed: 1 .. {total}")
        without = equilibrium_violations(network)
        if reference == "equilibrium" and without:
            listed = "\n  ".join(map(str, without))
            raise UnsupportedError(
                f'network "{network.name}" has no equilibrium to compare rates with:\n  {listed}\n'
                "compare them with those after T steps: --reference final"
            )
        self._network, self._inputs, self._labels = network, inputs, labels
        self._reference: Reference = reference
        self._rated = evenly_spaced(total, total if rate_samples is None else rate_samples)
        self._predictions = np.zeros((network.time_steps, total), np.int64)
        self._margins = np.zeros((network.time_steps, total))
        self._first_spike = np.zeros(total, np.int64)
        self._errors = np.zeros(network.time_steps)  # summed over samples
        self._converged = True
        self._taken = 0

    @property
    def record(self) -> tuple[str, ...]:
        """Populations that the runner must record."""
        return (self._network.readout.source,)

    @property
    def samples(self) -> int:
        """Number of samples taken in so far."""
        return self._taken

    def __call__(self, first: int, spikes: Mapping[str, Array]) -> None:
        """Take in the samples from that index on: (T, b, *N) spikes of the readout's population.

        Raises
        ------
        BackendError : if they are not the next ones, or not of this network.
        """
        source = self._network.population(self._network.readout.source)
        found = spikes[source.name].shape if source.name in spikes else ()
        left = len(self._labels) - self._taken
        expected = (self._network.time_steps, *found[1:2], *source.shape)
        if first != self._taken or found != expected or not 1 <= found[1] <= left:
            raise BackendError(
                f'population "{source.name}": was given spikes of shape {found} from sample {first} on; expected '
                f"(T, b, *N) = ({self._network.time_steps}, 1 .. {left}, {', '.join(map(str, source.shape))}) from "
                f"sample {self._taken} on"
            )
        flat = spikes[source.name].reshape(found[0], found[1], -1)
        self._taken += found[1]
        self._take_answers(flat, slice(first, self._taken))
        rated = self._rated[(self._rated >= first) & (self._rated < self._taken)]
        for start in range(0, len(rated), _BLOCK):
            rows = rated[start : start + _BLOCK]
            self._take_rates(flat[:, rows - first], rows)

    def result(self) -> Anytime:
        """Return the answers of the samples taken in.

        Raises
        ------
        BackendError : if there are none.
        """
        if self._taken == 0:
            raise BackendError(f'network "{self._network.name}": no sample was finished, so there is no answer')
        rate_samples = int((self._rated < self._taken).sum())
        return Anytime(
            self._network.name,
            fingerprint(self._network),
            self._labels[: self._taken],
            self._predictions[:, : self._taken],
            self._margins[:, : self._taken],
            self._first_spike[: self._taken],
            self._errors / rate_samples,
            rate_samples,
            self._reference,
            self._converged,
        )

    @property
    def _leak(self) -> float:
        return self._network.population(self._network.readout.source).neuron.leak

    def _take_answers(self, spikes: Array, rows: slice) -> None:
        """Take classes, margins and first spikes from spikes (T, b, N)."""
        weight = self._network.readout.weight.astype(np.float64).T
        projected = (step.astype(np.float64) @ weight for step in spikes)
        for t, mean in enumerate(running_means(projected, self._leak)):
            logits = mean + self._network.readout.bias
            self._predictions[t, rows] = logits.argmax(axis=1)
            second, largest = np.partition(logits, -2, axis=1)[:, -2:].T
            self._margins[t, rows] = largest - second
        fired = spikes.any(axis=2)
        self._first_spike[rows] = np.where(fired.any(axis=0), fired.argmax(axis=0), len(spikes))

    def _take_rates(self, spikes: Array, rows: Array) -> None:
        """Add the differences of the rates of spikes (T, b, N) of those samples from their reference."""
        reference = self._reference_rates(spikes, rows).reshape(spikes.shape[1:])
        for t, rates in enumerate(running_means(spikes, self._leak)):
            self._errors[t] += np.abs(rates - reference).mean(axis=1).sum()

    def _reference_rates(self, spikes: Array, rows: Array) -> Array:
        if self._reference == "final":
            return rates_from_spikes(spikes, self._leak)
        inputs = self._network.input.take(self._inputs, rows)
        settled = equilibrium_rates(self._network, inputs, tolerance=EQUILIBRIUM_TOLERANCE)
        self._converged = self._converged and settled.converged
        return np.asarray(settled.firing_rates[self._network.readout.source])


def running_means(values: Iterable[Array], leak: float) -> Iterator[Array]:
    """Yield after each step the mean so far, weighted as `rate_weights` of so many steps: the newest weighs most."""
    total, weight = np.zeros(()), 0.0
    for value in values:
        total, weight = leak * total + value, leak * weight + 1.0
        yield total / weight


def early_exits(
    anytime: Anytime, rule: ExitRule, *, limits: Sequence[float], stable_steps: int
) -> tuple[EarlyExit, ...]:
    """Measure accuracy and mean steps of a rule at the top of this file, for each limit, in the order given.

    Parameters
    ----------
    limits : 0 or more, infinity too; settled: shares of the margin; margin: logits.
    stable_steps : k, at least 1.

    Raises
    ------
    ConfigError : if k or a limit is out of range.
    """
    check_exits(limits, stable_steps=stable_steps)
    unrest, resting = _unrest(anytime, stable_steps)
    exits = []
    for limit in limits:
        leaves = unrest < limit if rule == "settled" else resting & (anytime.margins > limit)
        leaves[-1] = True
        last = leaves.argmax(axis=0)
        right = anytime.predictions[last, np.arange(anytime.samples)] == anytime.labels
        steps = last + 1
        early = float((steps < anytime.time_steps).mean())
        exits.append(EarlyExit(rule, limit, stable_steps, float(right.mean()), float(steps.mean()), early))
    return tuple(exits)


def check_exits(limits: Sequence[float], *, stable_steps: int) -> None:
    """Raise if `early_exits` would refuse these, before a run rather than after it.

    Raises
    ------
    ConfigError : if k or a limit is out of range.
    """
    if stable_steps < 1:
        raise ConfigError(f"early exit: stable for {stable_steps} steps; allowed: at least 1")
    wrong = [limit for limit in limits if not limit >= 0]
    if wrong:
        raise ConfigError(f"early exit: found a limit of {wrong[0]}; allowed: 0 or more")


def _unrest(anytime: Anytime, stable_steps: int) -> tuple[Array, Array]:
    """(T, B) movement of the margin over the last steps as a share of it, infinite without rest; (T, B) rest.

    A sample rests where its class was the same over the last steps, and these do not begin before its first spike.
    """
    unrest = np.full(anytime.margins.shape, np.inf)
    resting = np.zeros(anytime.margins.shape, bool)
    if stable_steps >= anytime.time_steps:
        return unrest, resting
    classes = np.lib.stride_tricks.sliding_window_view(anytime.predictions, stable_steps + 1, axis=0)
    margins = np.lib.stride_tricks.sliding_window_view(anytime.margins, stable_steps + 1, axis=0)
    begun = np.arange(len(classes))[:, None] >= anytime.first_spike
    resting[stable_steps:] = (classes.min(axis=-1) == classes.max(axis=-1)) & begun
    moved, margin = margins.max(axis=-1) - margins.min(axis=-1), anytime.margins[stable_steps:]
    np.divide(moved, margin, out=unrest[stable_steps:], where=resting[stable_steps:] & (margin > 0))
    return unrest, resting
