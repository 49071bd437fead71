"""Whether a network comes to rest at an equilibrium, in figures and in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fsnn_lava.errors import counted
from fsnn_lava.hardware import Array

MOST_SILENT = 2 / 3
"""Share of neurons that never fire above which it is said."""
MOST_DISTANCE = 0.1
"""Distance from the equilibrium, as a share of the mean rate, above which T is called too short."""


@dataclass(frozen=True)
class Settling:
    """Whether a network comes to rest at an equilibrium, over some samples.

    Parameters
    ----------
    samples : how many.
    unsettled : for how many of them no equilibrium was found, or one that the network leaves, where the gain is 1 or
        more.
    mean_gain, largest_gain : spectral radius of the loop's Jacobian at the equilibrium, by power iteration.
    silent, saturated : share of all neurons and samples at rate 0 and at rate 1, after T steps if there was a run, else
        at the equilibrium.
    never_fires : share of the neurons that fire for none of the samples.
    distance : mean |a - a*| over the mean of a, of the last population after T steps, over the samples that settle;
        None without a run, or if none settles.
    ran : whether there was a run, of whose rates silent, saturated and never_fires are then.
    gain_samples : of how many samples the gain was measured; of a large network not of all.
    """

    samples: int
    unsettled: int
    mean_gain: float
    largest_gain: float
    silent: float
    saturated: float
    never_fires: float
    distance: float | None
    ran: bool
    gain_samples: int

    @classmethod
    def of(
        cls,
        equilibrium: Mapping[str, Array],
        *,
        gains: Array,
        settled: Array,
        run: Mapping[str, Array] | None = None,
    ) -> Settling:
        """Sum up equilibria, and a run of the same inputs.

        Parameters
        ----------
        equilibrium, run : population -> (B, *N) rates, the last population last.
        gains, settled : (B,) as of `EquilibriumRates`.
        """
        batch = len(settled)
        known = gains[~np.isnan(gains)]
        each = np.concatenate([r.reshape(batch, -1) for r in (run or equilibrium).values()], axis=1)
        distance = None
        if run is not None and settled.any():
            last = list(run)[-1]
            a, rest = run[last][settled], equilibrium[last][settled]
            distance = float(np.abs(a - rest).mean() / max(float(a.mean()), 1e-30))
        return cls(
            samples=batch,
            unsettled=int((~settled).sum()),
            mean_gain=float(known.mean()),
            largest_gain=float(known.max()),
            silent=float((each == 0).mean()),
            saturated=float((each == 1).mean()),
            never_fires=float((each == 0).all(axis=0).mean()),
            distance=distance,
            ran=run is not None,
            gain_samples=len(known),
        )

    @property
    def of_samples(self) -> str:
        """Of how many samples the gain was measured, in brackets, if not of all."""
        return "" if self.gain_samples == self.samples else f" ({self.gain_samples} of the samples)"

    def words(self) -> str:
        """Say the figures in one sentence."""
        firing = f"{self.silent:.0%} of the neurons are silent, {self.saturated:.0%} saturated"
        if self.ran:
            firing = f"after T steps {firing}"
        if self.distance is not None:
            firing = f"{firing}, and the rates are {self.distance:.1%} of their mean away from it"
        gain = f"the loop's gain is {self.mean_gain:.2f}, at most {self.largest_gain:.2f}{self.of_samples}"
        return f"at the equilibrium {gain}; {firing}"

    def warnings(self) -> list[str]:
        """Say in plain words what speaks against an equilibrium."""
        found = []
        if self.unsettled:
            found.append(
                f"does not settle: {self.unsettled} of {counted(self.samples, 'sample')}, the loop's gain is up to "
                f"{self.largest_gain:.2f}; distances from an equilibrium mean nothing there"
            )
        if self.silent + self.saturated == 1:
            found.append(
                "every neuron is silent or saturated, nothing flows around the loop: this is not called settled"
            )
        if self.never_fires > MOST_SILENT:
            found.append(f"{self.never_fires:.0%} of the neurons never fire")
        if self.distance is not None and self.distance > MOST_DISTANCE:
            found.append(
                "T is too short to speak of an equilibrium: "
                f"the rates are {self.distance:.0%} of their mean away from it"
            )
        return found
