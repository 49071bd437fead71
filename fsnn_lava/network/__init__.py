"""The network in PyTorch: neurons, restricted layers, T steps of spikes, and the equilibrium map."""

from fsnn_lava.network.devices import check_precision, device_title, open_device, place, prepared, tf32
from fsnn_lava.network.event_maps import PACKED_BYTES, EventMap, event_map, in_threads, inner, outer
from fsnn_lava.network.feedback_network import BoundNetwork, Drive, FeedbackSNN, Simulation
from fsnn_lava.network.fixed_point import FixedPoint, Map, Sums, solve
from fsnn_lava.network.layers import (
    BoundSynapse,
    FrobeniusRestriction,
    Synapse,
    apply_layer,
    apply_transpose,
    operator_norm,
)
from fsnn_lava.network.memory import TRAINING_COPIES, check_memory, memory_errors_named
from fsnn_lava.network.neuron import fire, integrate, rate_from_count
from fsnn_lava.network.run_dense import DenseSettings, dense_run, flat, shaped, split_tf32
from fsnn_lava.network.shared_random import SharedGenerator, shared_generator

__all__ = [
    "PACKED_BYTES",
    "TRAINING_COPIES",
    "BoundNetwork",
    "BoundSynapse",
    "DenseSettings",
    "Drive",
    "EventMap",
    "FeedbackSNN",
    "FixedPoint",
    "FrobeniusRestriction",
    "Map",
    "SharedGenerator",
    "Simulation",
    "Sums",
    "Synapse",
    "apply_layer",
    "apply_transpose",
    "check_memory",
    "check_precision",
    "dense_run",
    "device_title",
    "event_map",
    "fire",
    "flat",
    "in_threads",
    "inner",
    "integrate",
    "memory_errors_named",
    "open_device",
    "operator_norm",
    "outer",
    "place",
    "prepared",
    "rate_from_count",
    "shaped",
    "shared_generator",
    "solve",
    "split_tf32",
    "tf32",
]
