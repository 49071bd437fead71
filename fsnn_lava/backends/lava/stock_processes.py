"""The stock processes of which the graph is made: one function for each part of a network.

Orders, kernels and mantissas are those of `lava_format`.
"""

import numpy as np
from lava.magma.core.process.process import AbstractProcess
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.lif.process import LIF, LIFReset
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix, diags

from fsnn_lava.backends.lava.chip_limits import is_convolution
from fsnn_lava.backends.lava.lava_format import WEIGHT_FACTOR, lava_kernels, lava_order, lava_shape
from fsnn_lava.hardware import (
    STATE_PER_HALF_WEIGHT,
    Arithmetic,
    Array,
    Connection,
    Convolution,
    Dense as AllPairs,
    FloatNeuron,
    HardwareNetwork,
    IntegerNeuron,
    Neuron,
    linear_map,
)

MESSAGE_BITS = 8
"""Width of a graded input spike; 0 says binary spikes."""
SPARSE_SHARE = 0.1
"""A matrix with at most this share of weights that are not zero becomes a Sparse connection."""
_MIXED = {"num_weight_bits": 8, "sign_mode": SignMode.MIXED}
_LARGEST_THRESHOLD = 2**17 - 1


def population(size: int, neuron: Neuron, *, sample_steps: int) -> LIFReset:
    """Neurons of a population. Lava fires above ``vth``, we at the threshold.

    Where a spike subtracts, they integrate in ``u``, from which `inhibition` can take something; where it resets to
    zero, in ``v``, which Lava's own neuron sets to 0, and ``u`` is the synaptic current with its decay.
    """
    current: float
    leak: float
    integrating: float
    vth: float
    if isinstance(neuron, IntegerNeuron):
        vth = neuron.fires_above // STATE_PER_HALF_WEIGHT
        # Lava's model adds 1 to du, nothing to dv.
        current, leak = neuron.current_decay - 1, neuron.decay
        integrating = neuron.decay - 1
    else:
        vth = float(np.nextafter(neuron.v_threshold, -np.inf))
        current, leak = 1 - neuron.current_leak, 1 - neuron.leak
        integrating = leak
    if neuron.reset == "zero":
        return _lif(size, current, leak, vth, sample_steps=sample_steps)
    return _integrating(size, integrating, vth, sample_steps=sample_steps)


def integrators(size: int, *, decay: int, sample_steps: int) -> LIFReset:
    """Integer neurons whose output goes nowhere: they only integrate."""
    return _integrating(size, decay - 1, _LARGEST_THRESHOLD, sample_steps=sample_steps)


def _integrating(size: int, du: float, vth: float, *, sample_steps: int) -> LIFReset:
    """``v`` is memoryless and equals ``u``."""
    return _lif(size, du, 4096 if isinstance(du, int) else 1, vth, sample_steps=sample_steps)


def _lif(size: int, du: float, dv: float, vth: float, *, sample_steps: int) -> LIFReset:
    """``u`` and ``v`` are zero before Lava's steps 1, 1 + sample_steps, 1 + 2 sample_steps, ..."""
    return LIFReset(shape=(size,), du=du, dv=dv, vth=vth, reset_interval=sample_steps, reset_offset=1 % sample_steps)


def inhibition(size: int, neuron: IntegerNeuron | FloatNeuron) -> Sparse:
    """The diagonal connection of a population to itself that subtracts the reset, leak * reset_amount (Eq. 2)."""
    if isinstance(neuron, FloatNeuron):
        return Sparse(weights=diags([-neuron.leak * neuron.reset_amount], shape=(size, size), format="csr"))
    weight = diags([-neuron.reset_mantissa], shape=(size, size), format="csr", dtype=np.int32)
    exponent = neuron.reset_exponent + 1
    return Sparse(weights=weight, weight_exp=exponent, num_weight_bits=8, sign_mode=SignMode.INHIBITORY)


def always_on(arithmetic: Arithmetic) -> LIF:
    """One neuron that fires in every step: memoryless, with a bias above its threshold."""
    if arithmetic == "integer":
        return LIF(shape=(1,), du=4095, dv=4096, vth=1, bias_mant=128)
    return LIF(shape=(1,), du=1, dv=1, vth=0.5, bias_mant=1)


def clock(period: int, *, sample_steps: int) -> tuple[LIFReset, Sparse, Sparse]:
    """A neuron that fires in one step of so many, its reset, and its current from the always-on neuron.

    It adds up 1 in every step, fires at half the period, and loses the period by it: a spike of the always-on neuron's
    step t, t modulo period = period / 2 - 1, reaches it a step later, and those whom it reaches another one later.
    """
    neuron = IntegerNeuron(period // 2, period, 0, 0, 1.0)
    one = csr_matrix(np.array([[WEIGHT_FACTOR]], np.int32))
    return population(1, neuron, sample_steps=sample_steps), inhibition(1, neuron), Sparse(weights=one, **_MIXED)


def relay(size: int, arithmetic: Arithmetic) -> LIF:
    """Memoryless neurons that fire in the step in which a spike arrives over a `delay_line`."""
    if arithmetic == "integer":
        return LIF(shape=(size,), du=4095, dv=4096, vth=1)
    return LIF(shape=(size,), du=1, dv=1, vth=0.5)


def delay_line(size: int, steps: int, arithmetic: Arithmetic) -> Sparse:
    """One-to-one connection over which a spike takes so many steps, at least 1."""
    integer = arithmetic == "integer"
    weight = diags(
        [WEIGHT_FACTOR if integer else 1.0], shape=(size, size), format="csr", dtype=np.int32 if integer else float
    )
    arguments = {"weights": weight, **(_MIXED if integer else {})}
    if steps == 1:
        return Sparse(**arguments)
    return DelaySparse(delays=diags([steps - 1], shape=(size, size), format="csr", dtype=int), **arguments)


def synapses(network: HardwareNetwork, connection: Connection, *, stock_models: bool) -> Conv | Sparse | Dense:
    """The process of a connection, apart from its delay.

    Conv for kernels that binary spikes meet. Other kernels are unrolled to Sparse, and so are those with an exponent
    where Lava's own models run: that of Conv ignores it.
    """
    integer = network.arithmetic == "integer"
    if is_convolution(network, connection) and not (stock_models and connection.weight_exponent):
        assert isinstance(connection.geometry, Convolution)
        return _convolution(network, connection, connection.geometry)
    matrix = _matrix(network, connection)
    arguments: dict[str, object] = {"num_message_bits": MESSAGE_BITS if network.is_graded(connection) else 0}
    if integer:
        arguments |= {"weight_exp": connection.weight_exponent, **_MIXED}
    if isinstance(matrix, np.ndarray):
        return Dense(weights=matrix, **arguments)
    return Sparse(weights=matrix, **arguments)


def readout_synapses(network: HardwareNetwork) -> Sparse:
    """From the readout's source to its integrators (class, part): each part of a row goes to its own integrator."""
    readout = network.readout
    assert readout.integrators is not None
    weight, parts = readout.integrators.weight, readout.integrators.parts
    classes, size = weight.shape
    part = np.arange(size) // -(-size // parts)
    rows = np.arange(classes)[:, None] * parts + part
    columns = np.broadcast_to(np.arange(size), weight.shape)
    matrix = csr_matrix(
        (WEIGHT_FACTOR * weight.ravel(), (rows.ravel(), columns.ravel())), shape=(classes * parts, size)
    )
    matrix = matrix[:, lava_order(network.population(readout.source).shape)]
    return Sparse(weights=matrix, weight_exp=readout.integrators.weight_exponent, num_message_bits=0, **_MIXED)


def _convolution(network: HardwareNetwork, connection: Connection, geometry: Convolution) -> Conv:
    kernel = lava_kernels(connection.weight)
    return Conv(
        weight=np.ascontiguousarray(WEIGHT_FACTOR * kernel if network.arithmetic == "integer" else kernel),
        weight_exp=connection.weight_exponent,
        input_shape=lava_shape(network.shape_of(connection.source)),
        padding=geometry.padding,
        stride=geometry.stride,
        num_weight_bits=8,
        num_message_bits=0,
    )


def _matrix(network: HardwareNetwork, connection: Connection) -> csr_matrix | Array:
    """The unrolled weights in Lava's order of neurons, mantissas times `WEIGHT_FACTOR`; sparse if few are there."""
    rows = lava_order(network.population(connection.target).shape)
    columns = lava_order(network.shape_of(connection.source))
    if isinstance(connection.geometry, AllPairs):
        weight = connection.weight[rows][:, columns]
        dense = np.count_nonzero(weight) > SPARSE_SHARE * weight.size
    else:
        weight, dense = linear_map(network, connection).unrolled()[rows][:, columns], False
    if network.arithmetic == "integer":
        weight = (WEIGHT_FACTOR * weight).astype(np.int16)
    return weight if dense else csr_matrix(weight)


def has_buffer(process: AbstractProcess) -> bool:
    """Tell whether it is a connection, which holds spikes in flight."""
    return isinstance(process, Conv | Dense | Sparse)
