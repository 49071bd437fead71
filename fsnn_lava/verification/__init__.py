"""What a run proves: same network, rates and spikes, causes of a deviation, size, energy, early exit; the reports."""

from fsnn_lava.verification.agreement import spike_agreement as spike_agreement
from fsnn_lava.verification.compare_runs import (
    compare as compare,
    compare_all as compare_all,
)
from fsnn_lava.verification.early_exit import (
    AnytimeReadout as AnytimeReadout,
    Reference as Reference,
    check_exits as check_exits,
    early_exits as early_exits,
)
from fsnn_lava.verification.early_exit_report import (
    AnytimeReport as AnytimeReport,
    require_matplotlib as require_matplotlib,
)
from fsnn_lava.verification.error_budget import error_budget as error_budget
from fsnn_lava.verification.export_record import (
    RATE_SAMPLES as RATE_SAMPLES,
    RECORD as RECORD,
    ExportRecord as ExportRecord,
    load_record as load_record,
    record_export as record_export,
    save_record as save_record,
)
from fsnn_lava.verification.export_report import ExportReport as ExportReport, report_export as report_export
from fsnn_lava.verification.report import Report as Report
from fsnn_lava.verification.size_and_energy import (
    LOIHI_1 as LOIHI_1,
    EnergyModel as EnergyModel,
    network_size as network_size,
    run_activity as run_activity,
)
from fsnn_lava.verification.verify_network import TORCH as TORCH, check_backends as check_backends, verify as verify
