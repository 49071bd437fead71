"""What a run proves: same spikes, same rates, causes of a deviation, size, energy, early exit; and the reports."""

from fsnn_lava.verification.agreement import spike_agreement
from fsnn_lava.verification.compare_runs import compare, compare_all, error_budget
from fsnn_lava.verification.early_exit import AnytimeReadout, Reference, check_exits, early_exits
from fsnn_lava.verification.early_exit_report import AnytimeReport, require_matplotlib
from fsnn_lava.verification.export_report import ExportReport
from fsnn_lava.verification.exported_work import report_export
from fsnn_lava.verification.report import Report
from fsnn_lava.verification.size_and_energy import LOIHI_1, EnergyModel, network_size, run_activity
from fsnn_lava.verification.verify_network import TORCH, check_backends, verify

__all__ = [
    "LOIHI_1",
    "TORCH",
    "AnytimeReadout",
    "AnytimeReport",
    "EnergyModel",
    "ExportReport",
    "Reference",
    "Report",
    "check_backends",
    "check_exits",
    "compare",
    "compare_all",
    "early_exits",
    "error_budget",
    "network_size",
    "report_export",
    "require_matplotlib",
    "run_activity",
    "spike_agreement",
    "verify",
]
