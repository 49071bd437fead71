"""The report of an export: what rounding did, how large the network is, how much it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fsnn_lava.counts import Activity, EnergyModel, NetworkSize
from fsnn_lava.markdown import markdown_table
from fsnn_lava.quantize import QuantizationReport


@dataclass(frozen=True)
class ExportReport:
    """What became of a trained network.

    Parameters
    ----------
    network : its name.
    quantization : errors and counts of rounding.
    size : neurons, synapses, weight bytes.
    activity : spikes and synaptic operations on calibration samples.
    energy : what a synaptic operation is taken to cost, and by which source.
    """

    network: str
    quantization: QuantizationReport
    size: NetworkSize
    activity: Activity
    energy: EnergyModel

    def as_json(self) -> dict[str, Any]:
        """Nested dictionaries."""
        return {
            "network": self.network,
            "quantization": self.quantization.as_dict(),
            "size": self.size.as_dict(),
            "activity": self.activity.as_dict(self.energy),
        }

    def as_markdown(self) -> str:
        """The report for people."""
        parts = [
            f"# Export of {self.network}",
            "## Rounding",
            quantization_markdown(self.quantization),
            "## Size",
            self.size.as_markdown(),
            "## Work",
            self.activity.as_markdown(self.energy),
        ]
        return "\n\n".join(parts) + "\n"


def quantization_markdown(report: QuantizationReport) -> str:
    """Tables of what quantization did, and what their columns mean."""
    connections = [
        (
            name,
            str(c.weight_bits),
            str(c.weight_exponent),
            f"{c.relative_error:.2%}",
            f"{c.max_error:.3g}",
            str(c.clipped),
        )
        for name, c in report.connections.items()
    ]
    populations = [
        (
            name,
            f"{p.reset_amount:.1f}",
            str(p.v_threshold),
            f"{p.scale:.3g}",
            f"{p.mean_rate_error:.3g}",
            f"{p.max_rate_error:.3g}",
        )
        for name, p in report.populations.items()
    ]
    converged = "" if report.equilibrium_converged else "**The iteration did not converge: rate errors mean little.** "
    return "\n\n".join(
        [
            markdown_table(("connection", "bits", "exponent", "rms error", "max error", "clipped"), connections),
            markdown_table(("population", "reset r", "threshold V", "scale", "rate error, mean", "max"), populations),
            f"{converged}Rms error: share of the connection's rms weight; max error: in the trained network's unit. "
            f"Rate error: at the equilibrium, on {report.calibration_samples} training samples, spikes per step.",
        ]
    )
