"""What a user writes: settings, the notation of networks, and the published configurations as files."""

from fsnn_lava.config.convolution_taps import Taps as Taps
from fsnn_lava.config.layer_kinds import (
    LAYER_KINDS as LAYER_KINDS,
    LayerKind as LayerKind,
    Shape as Shape,
    layer_kind as layer_kind,
)
from fsnn_lava.config.methods import (
    METHODS as METHODS,
    SOLVERS as SOLVERS,
    SURROGATES as SURROGATES,
    GradientMethod as GradientMethod,
)
from fsnn_lava.config.neurons import NEURONS as NEURONS
from fsnn_lava.config.notation import (
    LayerSpec as LayerSpec,
    NetworkSpec as NetworkSpec,
    Pooling as Pooling,
    PopulationSpec as PopulationSpec,
    parse_connection as parse_connection,
    parse_spec as parse_spec,
)
from fsnn_lava.config.registry import Registry as Registry
from fsnn_lava.config.settings import (
    ConnectionConfig as ConnectionConfig,
    DataConfig as DataConfig,
    DeployConfig as DeployConfig,
    NetworkConfig as NetworkConfig,
    PopulationConfig as PopulationConfig,
    PrecisionName as PrecisionName,
    TrainConfig as TrainConfig,
    TrainingConfig as TrainingConfig,
    WeightBits as WeightBits,
    WeightExponents as WeightExponents,
    changed_settings as changed_settings,
    config_from_dict as config_from_dict,
    config_to_dict as config_to_dict,
    published_configs as published_configs,
    read_config as read_config,
    with_given as with_given,
)
from fsnn_lava.config.topology import (
    ConnectionSpec as ConnectionSpec,
    Topology as Topology,
    topology_of as topology_of,
)
