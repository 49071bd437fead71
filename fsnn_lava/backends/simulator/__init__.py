"""The bit-accurate simulator (integers) and its float reference: batched, exact, without Lava.

Both run a `HardwareNetwork` in each population's own window; `docs/network-format.md` states what they compute.
"""

from fsnn_lava.backends.simulator.floating import FloatSimulator
from fsnn_lava.backends.simulator.integer import IntegerSimulator

__all__ = ["FloatSimulator", "IntegerSimulator"]
