"""Quantization as an export does it: calibrated on training samples, and refused where rounding destroys a network.

The search for the nearest integers is in `quantizer`; this is what other packages and users call.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from fsnn_lava.config import DeployConfig
from fsnn_lava.datasets import Samples, time_first
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import Array, HardwareNetwork, evenly_spaced
from fsnn_lava.quantization.quantizer import quantize as nearest_integers
from fsnn_lava.quantization.report import LOST_SHARE, NEGLIGIBLE_SHARE, QuantizationReport


def quantize(
    network: HardwareNetwork,
    calibration: Samples | Array,
    *,
    config: DeployConfig | None = None,
    bits: Literal[4, 6, 8] | None = None,
    keep_lost: bool = False,
) -> tuple[HardwareNetwork, QuantizationReport]:
    """Round a float network to the nearest integer one that is proven to stay in 24 bits; report what rounding did.

    >>> network, report = quantize(lower(trained), data.train, bits=8)  # doctest: +SKIP

    Parameters
    ----------
    network : float network whose connections have names of their own; the proof holds for its own timing.
    calibration : training samples, of which as many as the config says are used, evenly spread; or inputs as a backend
        takes them, all of which are. The error of the firing rates is measured on them.
    config : weight bits, threshold, rounding and time steps.
    bits : weight bits, instead of the config's.
    keep_lost : return the network also where rounding left too little of a connection (`QuantizationReport.lost`).

    Raises
    ------
    UnsupportedError : if rounding left too little of a connection, or something cannot be expressed.
    NetworkError, InputError, PotentialBoundError : as the search does for a network or samples that do not fit, or
        where no scale can be proven to stay in range.
    """
    config = config or DeployConfig()
    if bits is not None:
        config = dataclasses.replace(config, weight_bits=bits)
    if isinstance(calibration, Samples):
        count = min(config.calibration_samples, len(calibration))
        calibration = time_first(calibration.select(evenly_spaced(len(calibration), count)).codes)
    integer, report = nearest_integers(network, calibration, config=config)
    if not keep_lost:
        refuse_lost(report, integer.time_steps)
    return integer, report


def refuse_lost(report: QuantizationReport, time_steps: int) -> None:
    """Refuse a network of which rounding left too little: the 24-bit state of long windows allows small scales only."""
    if report.lost():
        listed = "\n  ".join(f"{n}: {report.connections[n].current_error:.0%}" for n in report.lost())
        raise UnsupportedError(
            f"nothing was written: integers for T = {time_steps} lose these connections (root mean square error, as a "
            f"share of the current they carry; of a constant one below {NEGLIGIBLE_SHARE:.0%} of the reset amount, of "
            f"that; allowed: {LOST_SHARE:.0%}):\n  {listed}\n"
            "A potential sums up negative currents for the whole window and must fit 24 bits: use fewer --time-steps, "
            "or more --weight-bits"
        )
