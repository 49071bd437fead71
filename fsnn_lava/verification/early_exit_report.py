"""The anytime report: accuracy and rate error over the steps, early exit; as JSON, Markdown and a picture."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fsnn_lava.errors import MissingDependencyError, counted
from fsnn_lava.verification.early_exit import EQUILIBRIUM_TOLERANCE, REFERENCES, Anytime, EarlyExit
from fsnn_lava.verification.markdown_tables import markdown_table


@dataclass(frozen=True, eq=False)
class AnytimeReport:
    """Report of what one run says about stopping earlier.

    Parameters
    ----------
    backend : which ran.
    exits : early exit by one rule or several, for several limits each, see `early_exits`.
    """

    backend: str
    anytime: Anytime
    exits: Sequence[EarlyExit]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; lists over steps begin after one step. An infinite limit is None, as JSON has none."""
        anytime = self.anytime
        exits = [asdict(e) | {"limit": None if e.limit == float("inf") else e.limit} for e in self.exits]
        return {
            "network": anytime.network,
            "fingerprint": anytime.fingerprint,
            "backend": self.backend,
            "samples": anytime.samples,
            "time_steps": anytime.time_steps,
            "accuracy": anytime.accuracy.tolist(),
            "rate_error": {
                "mean": anytime.rate_error.tolist(),
                "reference": anytime.reference,
                "reference_converged": anytime.reference_converged,
                "samples": anytime.rate_samples,
            },
            "early_exit": exits,
        }

    def as_markdown(self) -> str:
        """Write two tables for people, and what their columns mean."""
        anytime = self.anytime
        steps = [
            (str(t), f"{accuracy:.2%}", f"{error:.3g}")
            for t, (accuracy, error) in enumerate(zip(anytime.accuracy, anytime.rate_error, strict=True), start=1)
        ]
        exits = [
            (e.rule, f"{e.limit:g}", f"{e.accuracy:.2%}", f"{e.mean_steps:.2f}", f"{e.left_early:.1%}")
            for e in self.exits
        ]
        stable = ", ".join(counted(steps, "step") for steps in sorted({e.stable_steps for e in self.exits}))
        parts = [
            "# Anytime report",
            f"{anytime.network} (fingerprint {anytime.fingerprint}) on {self.backend}: one run of "
            f"{counted(anytime.samples, 'test sample')}, "
            f"{counted(anytime.time_steps, 'time step')} each.",
            "## Stopped after t steps",
            markdown_table(("t", "accuracy", "mean rate error"), steps),
            "*Mean rate error*: mean absolute difference of the rates of the readout's population from "
            f"{REFERENCES[anytime.reference]}, spikes per step, over its neurons and "
            f"{counted(anytime.rate_samples, 'sample')}.",
            *([] if anytime.reference_converged else [f"**{UNCONVERGED}**"]),
            "## Early exit",
            markdown_table(("rule", "limit", "accuracy", "mean steps", "left early"), exits),
            f"A sample leaves when its class has stayed the same for {stable}, none of them before the first "
            "spike of the readout's population, and, *settled*: in these steps its margin (largest logit less the "
            "second) has moved by less than the limit, a share of the margin; *margin*: its margin is above the limit, "
            "in logits. *Mean steps*, *left early*: over all samples. A limit that is chosen by this table is chosen "
            "on the samples that it is measured on.",
        ]
        return "\n\n".join(parts) + "\n"

    def picture(self) -> bytes:
        """Draw the same curves as SVG, the same bytes each time. Logarithmic, so what is zero is not seen.

        Raises
        ------
        MissingDependencyError : if matplotlib is absent.
        """
        require_matplotlib()
        import matplotlib
        from matplotlib.figure import Figure

        anytime = self.anytime
        steps = range(1, anytime.time_steps + 1)
        with matplotlib.rc_context({"svg.hashsalt": "anytime", "svg.fonttype": "none"}):
            figure = Figure(figsize=(9, 4), layout="constrained")
            left, right = figure.subplots(1, 2)
            left.plot(steps, 1 - np.asarray(anytime.accuracy), label="all samples t steps")
            for rule in dict.fromkeys(e.rule for e in self.exits):
                points = [(e.mean_steps, 1 - e.accuracy) for e in self.exits if e.rule == rule]
                left.plot(*zip(*sorted(points), strict=True), "o-", markersize=4, label=f"early exit, {rule}")
            left.set_xlabel("time steps t, or their mean")
            left.set_ylabel("share classified wrongly")
            left.legend()
            right.plot(steps, anytime.rate_error)
            right.set_xlabel("time steps t")
            right.set_ylabel(f"mean rate error against {anytime.reference} rates")
            right.set_xscale("log")
            _name_ticks(right.xaxis, multiples=(1, 2, 5))
            for axes, multiples in ((left, (1, 1.5, 2, 3, 5, 7)), (right, (1, 2, 5))):
                if any(np.any(line.get_ydata() > 0) for line in axes.lines):
                    axes.set_yscale("log")
                    _name_ticks(axes.yaxis, multiples=multiples)
            figure.suptitle(f"{anytime.network}, {self.backend}, {counted(anytime.samples, 'sample')}", fontsize=10)
            file = io.BytesIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()


def _name_ticks(axis: Any, *, multiples: Sequence[float]) -> None:
    """Label a logarithmic axis at these multiples of every power of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=multiples))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


UNCONVERGED = (
    f"For some samples the iteration did not converge to an equilibrium within {EQUILIBRIUM_TOLERANCE:g}: "
    "their rate errors mean little."
)


def require_matplotlib() -> None:
    """Raise if matplotlib is not installed, so that no picture can be drawn.

    Raises
    ------
    MissingDependencyError : if matplotlib is absent; the message names the extra to install.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        message = 'the picture needs matplotlib; install it with: pip install "fsnn-lava[plots]"'
        raise MissingDependencyError(message) from error
