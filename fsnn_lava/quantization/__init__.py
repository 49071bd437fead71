"""A float network as the nearest integer one that is proven to fit the hardware's 24-bit state."""

from fsnn_lava.quantization.candidates import parts_of as parts_of
from fsnn_lava.quantization.quantizer import quantize as quantize
from fsnn_lava.quantization.report import (
    LOST_SHARE as LOST_SHARE,
    NEGLIGIBLE_SHARE as NEGLIGIBLE_SHARE,
    QuantizationReport as QuantizationReport,
)
from fsnn_lava.quantization.rounding import CURRENT_BITS as CURRENT_BITS
