"""What a user writes: settings, the notation of networks, and the published configurations as files."""

from fsnn_lava.config.notation import LayerSpec, NetworkSpec, Pooling, PopulationSpec, Shape, parse_spec
from fsnn_lava.config.registry import Registry
from fsnn_lava.config.settings import (
    DeployConfig,
    MethodName,
    NetworkConfig,
    PrecisionName,
    SolverName,
    SurrogateName,
    TrainConfig,
    TrainingConfig,
    changed_settings,
    config_from_dict,
    config_to_dict,
    published_configs,
    read_config,
)

__all__ = [
    "DeployConfig",
    "LayerSpec",
    "MethodName",
    "NetworkConfig",
    "NetworkSpec",
    "Pooling",
    "PopulationSpec",
    "PrecisionName",
    "Registry",
    "Shape",
    "SolverName",
    "SurrogateName",
    "TrainConfig",
    "TrainingConfig",
    "changed_settings",
    "config_from_dict",
    "config_to_dict",
    "parse_spec",
    "published_configs",
    "read_config",
]
