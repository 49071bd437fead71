"""Rates that a network is quantized by: at its equilibrium, or, where it has none, of a run of its T steps.

A network has no equilibrium where a spike resets to zero, or a current decays; what it sends is then taken from the
simulator, with the firing rate's own weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fsnn_lava.backends import FloatSimulator, IntegerSimulator
from fsnn_lava.hardware import Array, HardwareNetwork, equilibrium_violations
from fsnn_lava.network import Settling, equilibrium_rates


@dataclass(frozen=True, eq=False)
class CalibrationRates:
    """Rates of some inputs.

    Parameters
    ----------
    firing_rates : population -> (B, *N), spikes per step.
    settled : (B,) whether they are at rest; those of a run are what they are.
    settling : how the network settles; None: it has no equilibrium, or that was not asked for.
    """

    firing_rates: Mapping[str, Array]
    settled: Array
    settling: Settling | None


def calibration_rates(
    network: HardwareNetwork,
    inputs: Array,
    *,
    tolerance: float,
    start: Mapping[str, Array] | None = None,
    with_settling: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> CalibrationRates:
    """Find the rates of a float or an integer network.

    Parameters
    ----------
    tolerance, start, progress : of the equilibrium, as of `equilibrium_rates`; a run needs no start and no tolerance.

    Raises
    ------
    InputError : if the inputs do not fit the network.
    StateOverflowError : if an integer network without equilibrium leaves 24 bits.
    """
    if equilibrium_violations(network):
        simulator = FloatSimulator() if network.arithmetic == "float" else IntegerSimulator()
        rates = simulator.run(network, inputs, progress=progress).firing_rates
        return CalibrationRates(dict(rates), np.ones(network.input.samples(inputs), bool), None)
    found = equilibrium_rates(
        network, inputs, tolerance=tolerance, start=start, with_gains=with_settling, progress=progress
    )
    return CalibrationRates(found.firing_rates, found.settled, found.settling() if with_settling else None)
