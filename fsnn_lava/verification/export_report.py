"""The report of an export: what rounding did, how large the network is, how much it works on calibration samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsnn_lava.backends import IntegerSimulator
from fsnn_lava.errors import ConfigError, counted
from fsnn_lava.hardware import STATE_LIMIT, Array, HardwareNetwork
from fsnn_lava.quantization import CURRENT_BITS, NEGLIGIBLE_SHARE, ConnectionReport, QuantizationReport
from fsnn_lava.verification.markdown_tables import markdown_table, settling_markdown
from fsnn_lava.verification.size_and_energy import (
    LOIHI_1,
    Activity,
    EnergyModel,
    NetworkSize,
    network_size,
    run_activity,
)
from fsnn_lava.verification.structure import fingerprint

WORK_SAMPLES = 32
"""Calibration samples on which spikes and synaptic operations are counted."""


@dataclass(frozen=True)
class ExportReport:
    """Report of what became of a trained network on its way to hardware.

    Parameters
    ----------
    network : its name.
    fingerprint : by which other reports name the same integer network.
    quantization : errors and counts of rounding.
    size : neurons, synapses, weight bytes.
    activity : spikes and synaptic operations on calibration samples.
    energy : what a synaptic operation is taken to cost, and by which source.
    of_time_steps : warnings of the number of steps.
    """

    network: str
    fingerprint: str
    quantization: QuantizationReport
    size: NetworkSize
    activity: Activity
    energy: EnergyModel
    of_time_steps: Sequence[str] = ()

    @property
    def proof(self) -> str:
        """What has been proven of the network's potentials."""
        steps = counted(self.activity.time_steps, "step")
        return f"24-bit state proven: no allowed input makes a potential leave 24 bits within T = {steps}."

    def warnings(self) -> list[str]:
        """Say which weights were cut, and what the number of steps does."""
        return [
            *self.of_time_steps,
            *(
                f"{name}: {counted(c.clipped, 'weight')} cut to the largest integer that {c.weight_bits} bits hold"
                for name, c in self.quantization.connections.items()
                if c.clipped
            ),
        ]

    def notes(self) -> list[str]:
        """Say which weights the state leaves fewer bits than they may have."""
        return [
            f"{name}: its weights use {c.used_bits} of {c.weight_bits} bits; all connections into a population share "
            "one scale, which the 24 bits of state bound"
            for name, c in self.quantization.connections.items()
            if c.parts == 1 and c.used_bits < c.weight_bits - 1
        ]

    def as_json(self) -> dict[str, Any]:
        """Return nested dictionaries for JSON."""
        return {
            "network": self.network,
            "fingerprint": self.fingerprint,
            "quantization": self.quantization.as_dict(),
            "warnings": self.warnings(),
            "notes": self.notes(),
            "size": self.size.as_dict(),
            "activity": self.activity.as_dict(self.energy),
        }

    def as_markdown(self) -> str:
        """Write the report for people."""
        parts = [
            f"# Export of {self.network}",
            f"Fingerprint of the integer network: {self.fingerprint}. Reports on it name it so.",
            "## Rounding",
            quantization_markdown(self.quantization),
            *(f"- **warning: {line}**" for line in self.warnings()),
            *(f"- {line}" for line in self.notes()),
            self.proof,
            "## Size",
            self.size.as_markdown(),
            "## Work",
            self.activity.as_markdown(self.energy),
        ]
        return "\n\n".join(parts) + "\n"


def report_export(
    network: HardwareNetwork, calibration: Array, *, quantization: QuantizationReport, energy: EnergyModel = LOIHI_1
) -> ExportReport:
    """Report on an export; spikes and operations are those of some calibration samples in the simulator.

    Raises
    ------
    ConfigError : if the energy is not the default's but its source is.
    """
    if energy != LOIHI_1 and energy.source == LOIHI_1.source:
        raise ConfigError(
            f"--energy.pj-per-synaptic-operation: found {energy.pj_per_synaptic_operation} pJ without a source; say "
            "where the figure is from with --energy.source"
        )
    some = network.input.take(calibration, slice(WORK_SAMPLES))
    activity = run_activity(network, IntegerSimulator().run(network, some), inputs=some)
    size, of_time_steps = network_size(network), time_step_warnings(network)
    return ExportReport(network.name, fingerprint(network), quantization, size, activity, energy, of_time_steps)


def time_step_warnings(network: HardwareNetwork) -> list[str]:
    """Say if a network runs for another T than it was trained for, or if spikes on their way never arrive within T."""
    steps, found = network.time_steps, []
    config = network.provenance.get("config", {})
    trained = [config.get("network", {}).get("time_steps", steps)]
    if config.get("training", {}).get("time_steps_by") == "batch":  # good for all that lie between
        trained += config["training"].get("time_steps_schedule", [])
    if not min(trained) <= steps <= max(trained):
        range_of = f"{min(trained)}" if len(set(trained)) == 1 else f"{min(trained)} .. {max(trained)}"
        found.append(
            f"runs for T = {steps}, was trained for T = {range_of}: rates after another number of steps are others, "
            "and with them the accuracy"
        )
    late = [c for c in network.connections if network.local_delay(c) >= steps]
    found += [
        f"{c.name}: its spikes arrive {counted(network.local_delay(c), 'step')} late, and a window has {steps}: none "
        "ever arrives"
        for c in late
    ]
    return found


def _exponents(c: ConnectionReport) -> str:
    """Write the exponents of a connection's parts, and how often the pulses come that one of them sends."""
    pulses = c.period > 1
    several = " and below" if c.parts - pulses > 1 else ""
    return f"{c.weight_exponent}{several}" + (f", pulses every {c.period}" if pulses else "")


def quantization_markdown(report: QuantizationReport) -> str:
    """Write the tables of what quantization did, and what their columns mean."""
    connections = [
        (
            name,
            _exponents(c),
            str(c.used_bits),
            f"{c.relative_error:.1%}",
            f"{c.current_error:.1%}",
            str(c.clipped),
        )
        for name, c in report.connections.items()
    ]
    populations = [
        (
            name,
            f"{p.reset_amount:g}" if p.reset_amount else "to zero",
            str(p.v_threshold),
            f"{p.scale:.3g}",
            f"{p.potential_bound / STATE_LIMIT:.0%}",
            f"{p.mean_rate_error:.3g}",
            f"{p.max_rate_error:.3g}",
        )
        for name, p in report.populations.items()
    ]
    bits = min(c.weight_bits for c in report.connections.values())  # constant currents always have CURRENT_BITS
    return "\n\n".join(
        [
            markdown_table(_CONNECTION, connections),
            _CONNECTION_NOTES.format(
                bits=bits,
                current_bits=CURRENT_BITS,
                samples=report.calibration_samples,
                compared=report.compared_samples,
                negligible=NEGLIGIBLE_SHARE,
            ),
            markdown_table(_POPULATION, populations),
            _POPULATION_NOTES.format(limit=STATE_LIMIT, samples=report.calibration_samples),
            *(
                ["Settling, on the same training samples:", settling_markdown(report.settling)]
                if report.settling
                else [_NO_EQUILIBRIUM]
            ),
        ]
    )


_NO_EQUILIBRIUM = (
    "This network has no equilibrium: a spike resets to zero, or a current decays. Rates and currents above are "
    "therefore those of a run of T steps on the training samples, and nothing is said of settling."
)
_CONNECTION = ("connection", "exponent", "bits used", "weight error", "current error", "clipped")
_CONNECTION_NOTES = (
    "Weights may have {bits} bits, constant currents {current_bits}. *Exponent*: a weight is its integer times 2 to "
    'this power, in weight units; "7 and below", where several connections (named _coarse, _part2, ...) stand for '
    "one together: the largest of theirs. *Bits used*: what the largest of the integers takes, with its sign; the "
    "24 bits of the potential may leave them fewer. *Weight error*: root mean square of the rounding errors of the "
    "weights, as a share of the weights. *Current error*: that of the connection's current at the equilibrium, on "
    "{compared} of the samples; of a constant current, as a share of itself, or of {negligible:.0%} of the reset r "
    "where it is less. Rounding is chosen for the current on {samples} training samples, so that errors of weights "
    "cancel there; those of small weights may exceed the weights themselves. *Clipped*: weights cut to the largest "
    "integer that their bits hold."
)
_POPULATION = ("population", "reset r", "threshold V", "scale", "24 bits used", "mean rate error", "largest")
_POPULATION_NOTES = (
    "*Reset r*, *threshold V*: what a spike takes off the potential before the leak, and where a neuron fires, in "
    "weight units. *Scale*: value of one weight unit in the trained network's unit. *24 bits used*: the largest "
    "potential that any allowed input can lead to, as proven, as a share of the {limit:,} that 24 bits hold; 100% "
    "still fits, and the larger r is, the finer the rounding. *Mean rate error*, *largest*: of the firing rates at the "
    "equilibrium, over these neurons and the {samples} samples, in spikes per step."
)
