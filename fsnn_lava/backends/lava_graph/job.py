"""What a worker is asked to run: plain data that travels between Python processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fsnn_lava.ir import Array, HardwareNetwork

NeuronKind = Literal["stock", "soft_reset"]
Device = Literal["cpu", "loihi2"]


@dataclass(frozen=True, eq=False)
class GraphJob:
    """Networks that run side by side in one graph, each with its own samples.

    Parameters
    ----------
    networks : of one arithmetic; they share nothing but the clock.
    inputs : one array per network, as in `Runner.run`; batch sizes may differ.
    neuron : ``stock``: stock processes only; ``soft_reset``: `SoftResetLIF` instead of a LIF with self-inhibition.
    device : where the graph runs.
    """

    networks: tuple[HardwareNetwork, ...]
    inputs: tuple[Array, ...]
    neuron: NeuronKind = "stock"
    device: Device = "cpu"

    @property
    def samples(self) -> int:
        """The largest batch; a network with a smaller one idles at the end."""
        pairs = zip(self.networks, self.inputs, strict=True)
        return max(x.shape[1 if n.input.kind == "event" else 0] for n, x in pairs)

    @property
    def sample_steps(self) -> int:
        """Steps that one sample takes: until the last window has closed."""
        return max(p.start + n.time_steps for n in self.networks for p in n.populations)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.samples * self.sample_steps
