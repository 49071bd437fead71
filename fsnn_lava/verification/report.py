"""The verification report as JSON and as Markdown: runs compared, and the deviation by cause."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsnn_lava.verification.agreement import SpikeAgreement
from fsnn_lava.verification.compare_runs import SETTLING, Budget, Pair
from fsnn_lava.verification.markdown_table import markdown_table


@dataclass(frozen=True)
class Report:
    """Report of what was compared and what came out.

    Parameters
    ----------
    network : name, notation and other facts of the network, JSON-compatible.
    samples, time_steps : how many test samples ran, for how many steps each.
    accuracy : backend -> share of samples classified rightly.
    pairs : comparison of every two backends.
    lowering : the trained network against its lowered form in the same timing, spike by spike; None if there is only
        the lowered one.
    budget : the deviation by cause.
    """

    network: Mapping[str, Any]
    samples: int
    time_steps: int
    accuracy: Mapping[str, float]
    pairs: Sequence[Pair]
    lowering: SpikeAgreement | None
    budget: Budget

    @property
    def agrees(self) -> bool:
        """Whether every pair keeps its relation, and rounding explains all that lowering changed."""
        return self._lowered_rightly and all(pair.agrees for pair in self.pairs)

    @property
    def _lowered_rightly(self) -> bool:
        return self.lowering is None or self.lowering.agrees

    def as_json(self) -> dict[str, Any]:
        """Return nested dictionaries for JSON; `pairs` and `budget` hold the fields of `Pair` and `Budget`."""
        return {
            "network": dict(self.network),
            "samples": self.samples,
            "time_steps": self.time_steps,
            "agrees": self.agrees,
            "accuracy": dict(self.accuracy),
            "pairs": [dataclasses.asdict(pair) for pair in self.pairs],
            "lowering": self.lowering and {**dataclasses.asdict(self.lowering), "agrees": self.lowering.agrees},
            "budget": dataclasses.asdict(self.budget),
        }

    def as_markdown(self) -> str:
        """Write the report for people."""
        verdict = "Every pair keeps its relation."
        if not self.agrees:
            what = "A pair breaks its relation" if self._lowered_rightly else "Lowering changed spikes without a tie"
            verdict = f"**{what}.**"
        facts = [f"- {name}: {value}" for name, value in self.network.items()]
        requirements = {pair.relation: pair.requirement for pair in self.pairs}
        parts = [
            "# Verification report",
            f"{verdict} {self.samples} test samples, {self.time_steps} time steps each.",
            "\n".join(facts),
            "## Accuracy",
            markdown_table(("backend", "accuracy"), [(name, f"{value:.2%}") for name, value in self.accuracy.items()]),
            "## Runs compared pairwise",
            markdown_table(
                ("pair", "relation", "agrees", "mean rate difference", "max", "first divergence"),
                [_pair_row(pair) for pair in self.pairs],
            ),
            "Rates in spikes per step. "
            + " ".join(f"*{relation}*: {text}." for relation, text in requirements.items()),
            *([] if self.lowering is None else ["## Lowering, spike by spike", lowering_text(self.lowering)]),
            "## Distance from the trained equilibrium",
            settling_text(self.budget),
            "## Error budget",
            "Absolute difference of the firing rates in spikes per step, mean / maximum over samples and neurons. "
            "The causes overlap and partly cancel, so the rows do not add up to the total.",
            _budget_table(self.budget),
            *([] if self.budget.equilibrium_converged else ["**The iteration did not converge to an equilibrium.**"]),
            markdown_table(
                ("stage", "accuracy"), [(stage, f"{value:.2%}") for stage, value in self.budget.accuracy.items()]
            ),
        ]
        return "\n\n".join(parts) + "\n"


def settling_text(budget: Budget) -> str:
    """Write how far the integer network's rates are, after T steps, from the equilibrium that was trained."""
    distances = next(cause for cause in budget.causes if cause.name == SETTLING).populations
    rows = [(name, _rate(budget.mean_rates[name]), _rate(d.mean), _rate(d.maximum)) for name, d in distances.items()]
    table = markdown_table(("population", "mean rate", "mean distance", "max"), rows)
    return (
        f"{table}\n\nThe integer network's rates after T steps against the rates at which the trained network settles, "
        "in spikes per step. No relation is asked of them: the distance shrinks as T grows (IF: as 1/T), down to what "
        "rounding leaves, and for LIF to a floor. A distance near the mean rate says that T is too short to speak of "
        "an equilibrium."
    )


def lowering_text(lowering: SpikeAgreement) -> str:
    """Write what lowering did to the trained network's spikes, with every sample that took another course."""
    same = lowering.samples - len(lowering.ties) - len(lowering.unexplained)
    text = (
        f"PyTorch (float64) and the lowered network, both in the papers' timing: every spike is the same in {same} of "
        f"{lowering.samples} samples."
    )
    listed = [("tie", d) for d in lowering.ties] + [("**not explained**", d) for d in lowering.unexplained]
    if not listed:
        return text
    rows = [(kind, str(d.sample), d.population, str(d.step), str(d.neuron), f"{d.distance:.3g}") for kind, d in listed]
    return (
        f"{text} The others part at these spikes. A tie is a potential within {lowering.tolerance:g} of the threshold, "
        "as a share of it: sums in another order may fall on either side.\n\n"
        + markdown_table(("", "sample", "population", "step", "neuron", "distance from the threshold"), rows)
    )


def _pair_row(pair: Pair) -> tuple[str, ...]:
    return (
        f"{pair.a} / {pair.b}",
        pair.relation,
        "yes" if pair.agrees else "**no**",
        _rate(pair.mean_rate_difference),
        _rate(pair.max_rate_difference),
        "none" if pair.first_divergence is None else str(pair.first_divergence),
    )


def _rate(difference: float) -> str:
    """Write a difference of rates with three digits; what only the order of additions makes is zero."""
    return f"{difference:.3g}" if difference > 1e-12 else "0"


def _budget_table(budget: Budget) -> str:
    populations = list(budget.causes[0].populations)
    rows = [
        (
            cause.name,
            cause.compares,
            *(f"{_rate(cause.populations[p].mean)} / {_rate(cause.populations[p].maximum)}" for p in populations),
        )
        for cause in budget.causes
    ]
    return markdown_table(("cause", "compares", *populations), rows)
