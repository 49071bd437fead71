"""The job of a worker: plain data that travels between Python processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fsnn_lava.hardware import HardwareNetwork

Device = Literal["cpu", "loihi2"]
ReadoutPlace = Literal["host", "lava"]

RING_BYTES = 2**26
"""Memory for samples on their way in and out."""


@dataclass(frozen=True, eq=False)
class GraphJob:
    """Networks that run side by side in one graph, each with its own samples.

    Parameters
    ----------
    networks : of one arithmetic; they share nothing but the clock.
    samples : one batch size per network; a network with a smaller one idles at the end.
    device : where the graph runs.
    readout : ``lava``: the graph contains the readout's integrators.
    stock_models : whether Lava's own models run the stock processes, or faster ones of ours.
    ring_bytes : size of the memory through which samples stream, unless two samples are larger.
    """

    networks: tuple[HardwareNetwork, ...]
    samples: tuple[int, ...]
    device: Device = "cpu"
    readout: ReadoutPlace = "host"
    stock_models: bool = False
    ring_bytes: int = RING_BYTES

    @property
    def total(self) -> int:
        """The largest batch."""
        return max(self.samples)

    @property
    def sample_steps(self) -> int:
        """Steps that one sample takes: until the last window has closed, and its spikes have reached the readout."""
        last = max(p.start + n.time_steps for n in self.networks for p in n.populations)
        return max(last, *(self.read_step(n) + 1 for n in self.networks)) if self.readout == "lava" else last

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.total * self.sample_steps

    def read_step(self, network: HardwareNetwork) -> int:
        """Global step at which the integrators have received the last spike of their source's window."""
        return network.population(network.readout.source).start + network.time_steps
