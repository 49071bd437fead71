"""The verification report as JSON and as Markdown: each check by itself, then theory and the deviation by cause."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fsnn_lava.errors import counted
from fsnn_lava.hardware import STATE_LIMIT, Timing
from fsnn_lava.quantization import PotentialReach
from fsnn_lava.verification.agreement import SpikeAgreement
from fsnn_lava.verification.compare_runs import Pair
from fsnn_lava.verification.error_budget import SETTLING, Budget
from fsnn_lava.verification.markdown_tables import markdown_table, settling_markdown
from fsnn_lava.verification.rates import STATED_SHARE, STATED_SPIKES, RateCheck
from fsnn_lava.verification.structure import Structure


@dataclass(frozen=True)
class Report:
    """Report of three checks, structure, rates and spikes, of what theory says, and of the error budget.

    Parameters
    ----------
    network : name, notation and other facts of the network, JSON-compatible.
    samples, time_steps : how many test samples ran, for how many steps each.
    chosen : how these were chosen, as of `Samples`.
    accuracy : backend -> share of samples classified rightly.
    structure : both networks against what they were made from, entry by entry.
    rates : the integer network's firing rates against the float one's, as the export measured them.
    pairs : comparison of every two backends.
    lowering : the trained network against its lowered form in the same timing, spike by spike; None if there is only
        the lowered one.
    budget : the deviation, step by step, and the distance from the equilibrium.
    potentials : of each population, how far its potentials go.
    of_time_steps : warnings of the number of steps.
    """

    network: Mapping[str, Any]
    samples: int
    chosen: str
    time_steps: int
    accuracy: Mapping[str, float]
    structure: Structure
    rates: RateCheck
    pairs: Sequence[Pair]
    lowering: SpikeAgreement | None
    budget: Budget
    potentials: Mapping[str, PotentialReach] = field(default_factory=dict)
    of_time_steps: Sequence[str] = ()

    @property
    def checks(self) -> dict[str, bool]:
        """Each check by name, and whether it holds."""
        return {"structure": self.structure.agrees, "rates": self.rates.agrees, "spikes": self._same_spikes}

    @property
    def agrees(self) -> bool:
        """Whether all three checks hold."""
        return all(self.checks.values())

    @property
    def _same_spikes(self) -> bool:
        """Whether rounding explains all that lowering changed, and every exact and close pair keeps its relation."""
        lowered = self.lowering is None or self.lowering.agrees
        return lowered and all(pair.agrees for pair in self.pairs if pair.relation != "statistical")

    def findings(self) -> list[str]:
        """A line for each check that fails: what was found, and where."""
        found = []
        if not self.structure.agrees:
            found.append(f"structure: {self.structure.cause}")
        if not self.rates.agrees:
            found.append(f"rates: {rates_finding(self.rates)}")
        if self.lowering is not None and not self.lowering.agrees:
            first = self.lowering.unexplained[0]
            found.append(
                f"spikes: lowering changed spikes that rounding does not explain, first: sample {first.sample}, "
                f'population "{first.population}", step {first.step}, neuron {first.neuron}'
            )
        found += [
            f"spikes: {pair.a} and {pair.b} do not agree; required ({pair.relation}): {pair.requirement}; "
            f"first divergence: {pair.first_divergence or 'none recorded'}"
            for pair in self.pairs
            if not pair.agrees and pair.relation != "statistical"
        ]
        return found

    @property
    def verdict(self) -> str:
        """Whether all checks hold, in a sentence."""
        failed = [name for name, holds in self.checks.items() if not holds]
        return f"Not verified: {', '.join(failed)}." if failed else "Verified: all three checks hold."

    @property
    def scope(self) -> str:
        """Which samples ran and for how long, in a sentence."""
        which = f"Test samples: {self.chosen}" if self.chosen else counted(self.samples, "test sample")
        return f"{which}; {counted(self.time_steps, 'time step')} each."

    def warnings(self) -> list[str]:
        """Say what the checks could not have noticed, and what the number of steps does."""
        blind = [
            f"rates of {p.population}: with {counted(self.samples, 'sample')} a neuron is noticed only where it "
            f"departs by {p.noticed:.3g} spikes a window; with more samples, where it departs by less"
            for p in self.rates.populations
            if p.population in self.rates.blind
        ]
        beyond = [
            f"an input was found with which a potential of {name} leaves 24 bits"
            for name, reach in self.potentials.items()
            if reach.attacked > STATE_LIMIT
        ]
        return [*self.of_time_steps, *beyond, *blind]

    def as_json(self) -> dict[str, Any]:
        """Return nested dictionaries for JSON: the fields of the data classes, and each check with its verdict."""
        return {
            "network": dict(self.network),
            "samples": self.samples,
            "chosen": self.chosen,
            "time_steps": self.time_steps,
            "agrees": self.agrees,
            "checks": self.checks,
            "findings": self.findings(),
            "warnings": self.warnings(),
            "accuracy": dict(self.accuracy),
            "structure": {**dataclasses.asdict(self.structure), "agrees": self.structure.agrees},
            "rates": {**dataclasses.asdict(self.rates), "agrees": self.rates.agrees},
            "pairs": [dataclasses.asdict(pair) for pair in self.pairs],
            "lowering": self.lowering and {**dataclasses.asdict(self.lowering), "agrees": self.lowering.agrees},
            "budget": dataclasses.asdict(self.budget),
            "potentials": {name: dataclasses.asdict(reach) for name, reach in self.potentials.items()},
        }

    def as_markdown(self) -> str:
        """Write the report for people."""
        facts = [f"- {name}: {value}" for name, value in self.network.items()]
        spikes = [pair for pair in self.pairs if pair.relation != "statistical"]
        statements = [pair for pair in self.pairs if pair.relation == "statistical"]
        parts = [
            "# Verification report",
            f"{self.verdict if self.agrees else f'**{self.verdict}**'} {self.scope}",
            markdown_table(
                ("check", "question", "holds"),
                [(name, _QUESTIONS[name], "yes" if holds else "**no**") for name, holds in self.checks.items()],
            ),
            *(f"- {line}" for line in self.findings()),
            *(f"- **warning: {line}**" for line in self.warnings()),
            "\n".join(facts),
            "## Accuracy",
            markdown_table(("backend", "accuracy"), [(name, f"{value:.2%}") for name, value in self.accuracy.items()]),
            "## Structure: is this the network that was exported?",
            structure_text(self.structure),
            "## Rates: does it fire as the export measured?",
            rates_text(self.rates, self.time_steps),
            "## Spikes: do all backends give the same?",
            *([pairs_table(spikes)] if spikes else ["No two runs of one arithmetic and timing were compared."]),
            *([] if self.lowering is None else [lowering_text(self.lowering, self.budget.timing)]),
            *(
                ["## Potentials: how near do they come to 24 bits?", potentials_text(self.potentials)]
                if self.potentials
                else []
            ),
            "## What theory says",
            theory_text(self.budget, statements, self.time_steps),
            "## Error budget",
            budget_text(self.budget),
            markdown_table(
                ("stage", "accuracy"), [(stage, f"{value:.2%}") for stage, value in self.budget.accuracy.items()]
            ),
            "*stage*: the networks between the steps above, after T steps"
            f"{'' if self.budget.no_equilibrium else ', and two of them at their equilibrium'}.",
        ]
        return "\n\n".join(parts) + "\n"


_QUESTIONS = {
    "structure": "Is every number of both networks as it was exported?",
    "rates": "Is rounding all that keeps the integer network's rates from the float one's?",
    "spikes": "Do runs that must give the same spikes give them?",
}
MOST_LISTED = 12
"""Deviations of the structure that are listed one by one."""


def structure_text(structure: Structure) -> str:
    """Write what the networks were held against, and everything that deviates."""
    basis = "\n".join(f"- {line}" for line in structure.basis)
    text = (
        f"{structure.entries:,} entries of both networks' arrays (weights, zeros among them, constant currents and the "
        f"readout), and every other number of them, were held against:\n\n{basis}"
    )
    if structure.agrees:
        return f"{text}\n\nNothing deviates."
    rows = [
        (d.network, d.element, d.place, "" if d.index is None else str(list(d.index)), d.expected, d.found, d.remark)
        for d in structure.deviations[:MOST_LISTED]
    ]
    table = markdown_table(("network", "element", "of", "first at", "expected", "found", "it looks like"), rows)
    more = len(structure.deviations) - len(rows)
    return f"{text}\n\nWhat deviates:\n\n{table}" + (f"\n\nand {more} more." if more else "")


def rates_finding(rates: RateCheck) -> str:
    """Write in a line which neuron or population departs first, and the cause."""
    first = rates.first
    assert first is not None
    if first.neuron is not None and first.departing:
        n = first.neuron
        what = (
            f"neuron {n.neuron} of {first.population}: expected {n.expected:+.3f} spikes a window from the float "
            f"network's, found {n.found:+.3f}, allowed {n.allowed:.3f} more or less; "
            f"neurons that depart: {first.departing}"
        )
    else:
        what = (
            f"{first.population}: mean difference expected {first.shift[0]:+.3f} spikes a window, found "
            f"{first.shift[1]:+.3f}; mean absolute difference expected {first.size[0]:.3f}, found {first.size[1]:.3f}"
        )
    return f"{what}; cause: {rates.cause}"


_ALLOWED = (
    "*Mean difference*, *mean absolute difference*: over all neurons and samples, with and without their sign. "
    "*Neuron*: the mean difference of the one that departs most. *Predicted*: by the rounding of weights and "
    "constants, to first order. *Allowed*: how far what is found may be from what is expected; honest samples exceed "
    "it with a probability of one in a million, and there is room for test samples that are unlike training samples. "
    "*Any neuron*: from which departure on one is noticed, median over neurons: the more samples, the smaller."
)
_STATED = (
    "*Mean difference*, *mean absolute difference*: over all neurons and samples, with and without their sign. Nothing "
    f"is known of single neurons; allowed is {STATED_SHARE:g} times the rounding error at the equilibrium and "
    f"{STATED_SPIKES:g} spikes a window."
)


def rates_text(rates: RateCheck, time_steps: int) -> str:
    """Write the rates of every population beside what was expected of them."""
    rows: list[tuple[str, ...]] = []
    for p in rates.populations:
        for name, (expected, found, allowed), signed in (
            ("mean difference", p.shift, "+"),
            ("mean absolute difference", p.size, ""),
        ):
            holds = "yes" if abs(found - expected) <= allowed else "**no**"
            rows.append(
                (p.population, name, "", f"{expected:{signed}.3f}", f"{found:{signed}.3f}", f"{allowed:.3f}", holds)
            )
        if p.neuron is not None:
            n = p.neuron
            holds = "**no**" if p.departing else "yes"
            figures = f"{n.predicted:+.3f}", f"{n.expected:+.3f}", f"{n.found:+.3f}", f"{n.allowed:.3f}"
            rows.append((p.population, f"neuron {n.neuron}", *figures, holds))
            rows.append((p.population, "any neuron", "", "", "", f"{p.noticed:.3f}", ""))
    header = ("population", "of", "predicted", "expected", "found", "allowed", "holds")
    cause = [] if rates.agrees else [f"Cause, by what moves the rates otherwise than at the export: {rates.cause}."]
    return "\n\n".join(
        [
            f"Integer minus float firing rates, times T = {time_steps} (spikes a window), both in hardware timing and "
            f"with the same threshold, on {counted(rates.samples, 'sample')}, held against {rates.basis}.",
            markdown_table(header, rows),
            _ALLOWED if any(p.neuron for p in rates.populations) else _STATED,
            *cause,
        ]
    )


def pairs_table(pairs: Sequence[Pair]) -> str:
    """Write runs that must have the same spikes, pair by pair."""
    requirements = {pair.relation: pair.requirement for pair in pairs}
    table = markdown_table(
        ("pair", "relation", "agrees", "mean rate difference", "max", "first divergence"),
        [_pair_row(pair) for pair in pairs],
    )
    words = " ".join(f"*{relation}*: {text}." for relation, text in requirements.items())
    return (
        f"{table}\n\n*mean rate difference*, *max*: of the firing rates of two runs, in spikes per step, over all "
        "samples and neurons of the population where it is largest. *first divergence*: the earliest step at which "
        f"one run spikes and the other does not, and where. *relation*: what is required; {words}"
    )


def potentials_text(potentials: Mapping[str, PotentialReach]) -> str:
    """Write how far the potentials of each population go, in bits of their magnitude."""
    rows = [
        (name, *(f"{np.log2(max(1, value)):.2f}" for value in (reach.bound, reach.attacked, reach.observed)))
        for name, reach in potentials.items()
    ]
    table = markdown_table(("population", "proven bound", "attack", "observed"), rows)
    return (
        f"Largest magnitude of a potential, as log2 of units of state; the chip holds {np.log2(STATE_LIMIT):.2f}.\n\n"
        f"{table}\n\n"
        "*proven bound*: whatever the input. *attack*: of inputs that an attack by gradient found; no proof can give "
        "back more bits than lie between the two. *observed*: on the samples of this report."
    )


def theory_text(budget: Budget, statements: Sequence[Pair], time_steps: int) -> str:
    """Write how far the integer network's rates are from the equilibrium that was trained; a statement, no verdict."""
    if budget.no_equilibrium:
        reasons = "\n".join(f"- {reason}" for reason in budget.no_equilibrium)
        stated = [statements_text(statements)] if statements else []
        return "\n\n".join(
            [f"Nothing: this network has no equilibrium rates, so none are compared with.\n\n{reasons}", *stated]
        )
    distances = next(d for d in budget.distances if d.name == SETTLING).populations
    rows = [(name, _rate(budget.mean_rates[name]), _rate(d.mean), _rate(d.maximum)) for name, d in distances.items()]
    populations = list(distances)
    others = []
    for d in budget.distances:
        if d.name != SETTLING:
            figures = (f"{_rate(d.populations[p].mean)} / {_rate(d.populations[p].maximum)}" for p in populations)
            others.append((d.name, d.compares, *figures))
    parts = [
        "A statement, on which no verdict rests.",
        markdown_table(("population", "mean rate", "mean distance", "max"), rows),
        "*mean distance*, *max*: of the integer network's rates after T steps from the rates at which the trained "
        f"network settles, in spikes per step. For IF the distance shrinks as 1/T, which is {1 / time_steps:.4g}, "
        "down to what rounding leaves; for LIF to a floor. A distance near the mean rate says that T is too short to "
        "speak of an equilibrium.",
        markdown_table(("difference", "compares", *populations), others),
        "*compares*: which rates less which. Of each population: mean / largest of the absolute differences, in "
        "spikes per step.",
        settling_markdown(budget.settling),
    ]
    if statements:
        parts.append(statements_text(statements))
    return "\n\n".join(parts)


def statements_text(statements: Sequence[Pair]) -> str:
    """Write pairs whose rates are close at most, and within which bound."""
    table = markdown_table(
        ("pair", "within", "mean rate difference", "max"),
        [
            (f"{p.a} / {p.b}", "yes" if p.agrees else "no", _rate(p.mean_rate_difference), _rate(p.max_rate_difference))
            for p in statements
        ],
    )
    return (
        f"{table}\n\n*within*: {statements[0].requirement}. *mean rate difference*, *max*: of the firing rates of both "
        "runs, in spikes per step."
    )


_TIMINGS: Mapping[Timing, str] = {"sequential": "the papers' timing", "hardware": "hardware timing"}


def lowering_text(lowering: SpikeAgreement, timing: Timing) -> str:
    """Write what lowering did to the trained network's spikes, with every sample that took another course."""
    same = lowering.samples - len(lowering.ties) - len(lowering.unexplained)
    text = (
        f"PyTorch (float64) and the lowered network, both in {_TIMINGS[timing]}: every spike is the same in {same} of "
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


def budget_text(budget: Budget) -> str:
    """Write the steps from the trained network to the integers; in each column they add up to the total, as printed."""
    parts = [
        "From the trained network to the integers, step by step after T steps, in spikes per step. *compares*: from "
        "which network to which. *share*: what the step adds to the mean absolute difference, *mean*: to the mean "
        "difference; both add up to the total. *absolute* and *max* are the step's own, and do not."
    ]
    for population in budget.causes[0].populations:
        rows = [cause.populations[population] for cause in budget.causes]
        shares, means = (closing([getattr(r, name) for r in rows]) for name in ("share", "signed"))
        table = [
            (cause.name, cause.compares, share, mean, _rate(row.mean), _rate(row.maximum))
            for cause, row, share, mean in zip(budget.causes, rows, shares, means, strict=True)
        ]
        parts.append(markdown_table((population, "compares", "share", "mean", "absolute", "max"), table))
    return "\n\n".join(parts)


def closing(figures: Sequence[float], digits: int = 5) -> list[str]:
    """Print figures, the last of which is the sum of the others, so that this holds of what is printed too.

    The total is rounded to the nearest; the others down, and those that lose most by it up, as many as it takes
    (Hamilton's method of the largest remainders).
    """
    scaled = np.asarray(figures) * 10**digits
    total, whole = round(float(scaled[-1])), np.floor(scaled[:-1])
    up = np.argsort(whole - scaled[:-1], kind="stable")[: max(0, int(total - whole.sum()))]
    whole[up] += 1
    return [f"{value / 10**digits:.{digits}f}" for value in (*whole, total)]
