"""The bit-accurate simulator (integers) and its float reference: batched, exact, without Lava.

Both run a `HardwareNetwork` in each population's own window; `docs/network-format.md` states what they compute.
"""

from fsnn_lava.backends.simulator.run import FloatSimulator, IntegerSimulator

__all__ = ["FloatSimulator", "IntegerSimulator"]
