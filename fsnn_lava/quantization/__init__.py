"""A float network as the nearest integer one that is proven to fit the hardware's 24-bit state."""

from fsnn_lava.quantization.candidates import integer_neuron as integer_neuron
from fsnn_lava.quantization.potential_reach import PotentialReach as PotentialReach, measured_reach as measured_reach
from fsnn_lava.quantization.quantizer import quantize as quantize
from fsnn_lava.quantization.report import (
    LOST_SHARE as LOST_SHARE,
    NEGLIGIBLE_SHARE as NEGLIGIBLE_SHARE,
    ConnectionReport as ConnectionReport,
    QuantizationReport as QuantizationReport,
)
from fsnn_lava.quantization.rounding import (
    CURRENT_BITS as CURRENT_BITS,
    CURRENT_LIMIT as CURRENT_LIMIT,
    mantissa_limits as mantissa_limits,
    round_current as round_current,
    shared as shared,
)
from fsnn_lava.quantization.scales import (
    PROVENANCE as PROVENANCE,
    Scales as Scales,
    dequantized as dequantized,
    parts_of as parts_of,
)
