"""The table of CONTRIBUTING.md that test_architecture.py enforces: where each file stands, where each package lives."""

from __future__ import annotations

from collections.abc import Mapping

# (wing, floor, files from left to right). A file may import what is on a lower floor of its own wing or of the
# contracts, and what stands left of it on its own floor; "folder.*" may import within the folder.
FLOORS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("contracts", 0, ("errors",)),
    (
        "contracts",
        1,
        (
            *("spec", "geometry", "elements", "invariants", "ir", "linear_map", "reach", "machine_code"),
            *("result", "inputs", "whole_file", "hdf5_entries", "network_file", "config"),
            *("samples", "datasets.*", "data", "coded_input", "runs", "command", "markdown"),
        ),
    ),
    (
        "torch",
        2,
        (
            "devices",
            "distributed",
            "normalisation",
            "batches",
            "event_kernels",
            "event_map",
            "neuron",
            "event_run",
            "couple_kernels",
            "couple_run",
            "initial_weights",
            "layers",
            "dense_run",
            "couple_dense",
            "solver",
        ),
    ),
    ("torch", 3, ("model", "integer_model")),
    ("torch", 4, ("gradients.*", "checkpoint", "evaluation")),
    ("torch", 5, ("tensorboard_log", "schedule", "progress", "training")),
    (
        "numpy",
        2,
        (
            *("spike_kernels", "integrators", "bounds", "equilibrium"),
            *("source_statistics", "rounding", "scales", "channel_scales", "search_effort", "quantization_report"),
            *("quantize", "deployed", "recording", "backends"),
        ),
    ),
    ("numpy", 3, ("simulator.*", "backends.hardware", "backends.isolated", "backends.finished")),
    (
        "numpy",
        3,
        ("backends.to_netx", "backends.to_nir", "backends.nir_nodes", "backends.nir_graphs", "backends.from_nir"),
    ),
    (
        "numpy",
        4,
        (
            *("backends.lava_graph.*", "backends.lava_stream", "backends.lava_runner"),
            *("backends.lava_training.*", "backends.lava_trainer"),
        ),
    ),
    ("numpy", 4, ("ties", "verify", "counts", "anytime")),
    ("numpy", 5, ("report", "anytime_report", "export_report")),
    ("bridge", 6, ("lower", "on_chip", "on_chip_check", "on_chip_training")),
)
# Files of one backend, by its name: no backend imports another one.
BACKEND_FILES: Mapping[str, tuple[str, ...]] = {
    "simulator": ("simulator.*",),
    "lava": (
        *("backends.lava_graph.*", "backends.lava_stream", "backends.lava_runner"),
        *("backends.hardware", "backends.isolated", "backends.finished"),
        *("backends.lava_training.*", "backends.lava_trainer"),
    ),
    "netx": ("backends.to_netx",),
    "nir": ("backends.to_nir", "backends.nir_nodes", "backends.nir_graphs", "backends.from_nir"),
}
# The only homes of packages that need one; "contracts" and the like are wings.
HOMES: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch", "bridge"),
    "torchvision": (),
    "tensorboard": ("torch",),
    "safetensors": ("torch",),
    "lava": ("backends.lava_graph.*", "backends.lava_training.*"),
    "nir": ("backends.to_nir", "backends.nir_nodes", "backends.nir_graphs", "backends.from_nir"),
    "h5py": ("hdf5_entries", "network_file", "recording", "backends.to_netx", "backends.from_nir"),
    "sklearn": ("datasets.digits",),
    "tonic": ("datasets.nmnist", "datasets.aedat4"),
    "aedat": ("datasets.aedat4",),
    "PIL": ("datasets.cifar",),
    "matplotlib": ("anytime_report",),
}
# The one place that may load a module by a name that is not written out.
LOADS_BY_NAME = "backends"
