"""How large an exported network is and how much it works, measured on calibration samples."""

from __future__ import annotations

from fsnn_lava.backends import IntegerSimulator
from fsnn_lava.errors import ConfigError
from fsnn_lava.hardware import Array, HardwareNetwork
from fsnn_lava.quantization import QuantizationReport
from fsnn_lava.verification.export_report import ExportReport
from fsnn_lava.verification.size_and_energy import LOIHI_1, EnergyModel, network_size, run_activity

WORK_SAMPLES = 32
"""Calibration samples on which spikes and synaptic operations are counted."""


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
    return ExportReport(network.name, quantization, network_size(network), activity, energy)
