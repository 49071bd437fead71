"""The network as hardware sees it, in floats or integers: elements, rules, file, currents, proof; NumPy alone."""

from fsnn_lava.hardware.currents import (
    constant_current as constant_current,
    mean_floor as mean_floor,
    mean_input as mean_input,
    real_weight as real_weight,
    summed_weight as summed_weight,
)
from fsnn_lava.hardware.fold_normalisation import on_codes as on_codes
from fsnn_lava.hardware.geometry import (
    DENSE as DENSE,
    Array as Array,
    Convolution as Convolution,
    Dense as Dense,
    Geometry as Geometry,
    Shape as Shape,
    TransposedConvolution as TransposedConvolution,
    pooled as pooled,
)
from fsnn_lava.hardware.integrating_readout import (
    integrated_logits as integrated_logits,
    leak_sum as leak_sum,
    quantize_readout as quantize_readout,
)
from fsnn_lava.hardware.linear_maps import LinearMap as LinearMap, exact_dtype as exact_dtype, linear_map as linear_map
from fsnn_lava.hardware.network import (
    ALWAYS_ON as ALWAYS_ON,
    INPUT as INPUT,
    LOWEST_EXPONENT as LOWEST_EXPONENT,
    PERIODS as PERIODS,
    Arithmetic as Arithmetic,
    Connection as Connection,
    HardwareNetwork as HardwareNetwork,
    InputSpec as InputSpec,
    Integrators as Integrators,
    Population as Population,
    Readout as Readout,
    Timing as Timing,
    Violation as Violation,
    equilibrium_violations as equilibrium_violations,
    with_timing as with_timing,
)
from fsnn_lava.hardware.network_file import (
    load_network as load_network,
    metadata_text as metadata_text,
    save_network as save_network,
)
from fsnn_lava.hardware.neurons import (
    DECAY_UNITY as DECAY_UNITY,
    STATE_LIMIT as STATE_LIMIT,
    STATE_PER_HALF_WEIGHT as STATE_PER_HALF_WEIGHT,
    STATE_PER_WEIGHT as STATE_PER_WEIGHT,
    FloatNeuron as FloatNeuron,
    IntegerNeuron as IntegerNeuron,
    Neuron as Neuron,
    Reset as Reset,
    reasons_against_equilibrium as reasons_against_equilibrium,
)
from fsnn_lava.hardware.overflow_proof import (
    accumulator_violations as accumulator_violations,
    bounds_alone as bounds_alone,
    potential_bounds as potential_bounds,
    prove as prove,
)
from fsnn_lava.hardware.run_io import (
    RatesOfCounts as RatesOfCounts,
    RunResult as RunResult,
    accuracy as accuracy,
    check_inputs as check_inputs,
    rate_weights as rate_weights,
    rates_from_spikes as rates_from_spikes,
    read_out as read_out,
)
