"""The network in PyTorch: neurons, restricted layers, T steps of spikes, and the equilibrium map."""

from fsnn_lava.network.dense_runs.in_floats import (
    DenseSettings as DenseSettings,
    dense_run as dense_run,
    flat as flat,
    shaped as shaped,
    split_tf32 as split_tf32,
)
from fsnn_lava.network.dense_runs.in_int8 import int8_run as int8_run
from fsnn_lava.network.dense_runs.int8_products import (
    LONGEST as LONGEST,
    TOGETHER as TOGETHER,
    Int8Product as Int8Product,
    int8_fault as int8_fault,
    int8_sums as int8_sums,
)
from fsnn_lava.network.devices import (
    TRAINING_COPIES as TRAINING_COPIES,
    SharedGenerator as SharedGenerator,
    check_memory as check_memory,
    check_precision as check_precision,
    device_title as device_title,
    memory_errors_named as memory_errors_named,
    open_device as open_device,
    place as place,
    prepared as prepared,
    shared_generator as shared_generator,
    tf32 as tf32,
)
from fsnn_lava.network.equilibrium import (
    EquilibriumRates as EquilibriumRates,
    RateMap as RateMap,
    equilibrium_rates as equilibrium_rates,
)
from fsnn_lava.network.event_maps import (
    PACKED_BYTES as PACKED_BYTES,
    EventMap as EventMap,
    by_population as by_population,
    event_map as event_map,
    in_threads as in_threads,
    inner as inner,
    join_maps as join_maps,
    outer as outer,
)
from fsnn_lava.network.feedback_network import (
    BoundNetwork as BoundNetwork,
    Currents as Currents,
    Drive as Drive,
    FeedbackSNN as FeedbackSNN,
    Simulation as Simulation,
)
from fsnn_lava.network.fixed_point import (
    FixedPoint as FixedPoint,
    Map as Map,
    Sums as Sums,
    solve as solve,
    spectral_radii as spectral_radii,
)
from fsnn_lava.network.layers import (
    BoundSynapse as BoundSynapse,
    FoldedSynapse as FoldedSynapse,
    FrobeniusRestriction as FrobeniusRestriction,
    Statistics as Statistics,
    Synapse as Synapse,
    apply_layer as apply_layer,
    apply_transpose as apply_transpose,
    folded as folded,
    layer_matrix as layer_matrix,
    operator_norm as operator_norm,
)
from fsnn_lava.network.lowering import lower_model as lower_model
from fsnn_lava.network.neuron import (
    fire as fire,
    integrate as integrate,
    leak_weights as leak_weights,
    rate_from_count as rate_from_count,
    slope_of_rate as slope_of_rate,
)
from fsnn_lava.network.settling import Settling as Settling
