"""Neuron models by name: which constants of the neuron's law a network's settings stand for.

Every model is an instance of one law, the leaky neuron of `fsnn_lava.hardware.FloatNeuron`, so that whatever is
registered here can be trained, exported, proven and run on every backend: by every method if a spike subtracts, by bptt
if it resets to zero. Currents that decay are for networks from elsewhere and cannot be trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fsnn_lava.config.registry import Registry

if TYPE_CHECKING:
    from fsnn_lava.config.settings import NetworkConfig

NEURONS: Registry[Callable[[NetworkConfig], Any]] = Registry("neuron", group="fsnn_lava.neurons")
"""Values of `NetworkConfig.neuron`: functions that make a `fsnn_lava.hardware.FloatNeuron` of the settings."""

NEURONS.register("lif", "fsnn_lava.network.neuron:lif", help="its constants are those of the settings")
