"""Limits of Lava and Loihi 2: what they cannot express of a network, found before anything is started."""

import numpy as np

from fsnn_lava.backends.lava.lava_format import WEIGHT_FACTOR
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    Connection,
    Convolution,
    HardwareNetwork,
    IntegerNeuron,
    Population,
    Violation,
    linear_map,
)

DELAY_LIMIT = 64
"""Longest delay of a connection: one step of its own and 6 bits on top."""
KERNEL_LIMIT = 127
"""Largest kernel, stride and padding of Lava's Conv: 8 bits, signed."""
MESSAGE_LIMIT = 255
"""Largest graded input code: 8 bits."""
RESET_EXPONENT_LIMIT = 6
"""Largest reset exponent: the reset synapse travels with one more, and weight exponents end at 7."""
UNROLLED_LIMIT = 2**28
"""Most synapses of a network's convolutions that are unrolled for Lava's own models; 220 million took 4.9 GB."""
_INT32 = 2**31 - 1
_CONVOLVED = 2**23 - 1
"""Largest sum in Lava's Conv, where it wraps."""


def hardware_violations(network: HardwareNetwork) -> list[Violation]:
    """List every reason why Lava cannot express the network; empty if it can."""
    found = [v for c in network.connections for v in _connection_violations(network, c)]
    found += [
        Violation(
            f'population "{p.name}"',
            f"a current that decays, current_leak {p.neuron.current_leak:g}, and reset by subtraction",
            "one of the two: what a spike subtracts reaches Lava's neuron over a synapse, and would decay as well",
        )
        for p in network.populations
        if p.neuron.has_memory_of_current and p.neuron.reset == "subtract"
    ]
    if network.arithmetic == "integer":
        if network.input.kind == "graded" and network.input.maximum > MESSAGE_LIMIT:
            found.append(Violation("input", f"codes up to {network.input.maximum}", f"0 .. {MESSAGE_LIMIT} (8 bits)"))
        for population in network.populations:
            found += _population_violations(network, population)
    return found


def require_hardware(network: HardwareNetwork, *, backend: str) -> None:
    """Raise if Lava cannot express the network.

    Raises
    ------
    UnsupportedError : naming every violation at once, and what to do.
    """
    violations = hardware_violations(network)
    if not violations:
        return
    listed = "\n  ".join(map(str, violations))
    raise UnsupportedError(
        f'backend "{backend}" cannot say network "{network.name}", {len(violations)} violation(s):\n  {listed}\n'
        'delays of the papers become the hardware\'s with fsnn_lava.hardware.network.with_timing(network, "hardware")'
    )


def require_stock_models(network: HardwareNetwork, *, backend: str) -> None:
    """Raise if Lava's own models of its processes cannot run the network on a CPU, where others can.

    Raises
    ------
    UnsupportedError : for convolutions whose exponent Lava's model of Conv ignores, and that are too large to be
        unrolled to Sparse.
    """
    scaled = [c for c in network.connections if c.weight_exponent and is_convolution(network, c)]
    synapses = sum(int(linear_map(network, c).fan_out().sum()) for c in scaled)
    if synapses > UNROLLED_LIMIT:
        listed = ", ".join(f"{c.label} 2**{c.weight_exponent}" for c in scaled)
        raise UnsupportedError(
            f'backend "{backend}", network "{network.name}": Lava\'s own model of Conv ignores weight exponents, found '
            f"{listed}; unrolled to Sparse, which has them, these are {synapses:,} synapses; allowed: "
            f"{UNROLLED_LIMIT:,}; run it without --stock-models, whose models have the exponent, or "
            "export it with --exponents input"
        )


def lava_delay(network: HardwareNetwork, connection: Connection) -> int:
    """Steps from sending to arrival on Lava, where the always-on neuron fires from global step 0 on.

    Its constant current must begin with the window of the target, so this is the target's start there.
    """
    return network.population(connection.target).start if connection.source == ALWAYS_ON else connection.delay


def is_convolution(network: HardwareNetwork, connection: Connection) -> bool:
    """Tell whether the connection becomes a Conv: kernels that take binary spikes. Other kernels are unrolled."""
    return isinstance(connection.geometry, Convolution) and not network.is_graded(connection)


def _connection_violations(network: HardwareNetwork, connection: Connection) -> list[Violation]:
    where = connection.label
    delay = lava_delay(network, connection)
    found = []
    if not 1 <= delay <= DELAY_LIMIT and connection.source == ALWAYS_ON:
        found.append(Violation(where, f"a target that starts at step {delay}", f"a start of 1 .. {DELAY_LIMIT}"))
    elif not 1 <= delay <= DELAY_LIMIT:
        found.append(Violation(where, f"delay {delay}", f"1 .. {DELAY_LIMIT} steps"))
    if is_convolution(network, connection):
        assert isinstance(connection.geometry, Convolution)
        if connection.weight_exponent > 0:
            exponent = f"weight exponent {connection.weight_exponent}"
            found.append(Violation(where, exponent, "at most 0 of a Conv; several that add up are larger weights"))
        sizes = (connection.weight.shape[2], connection.geometry.stride, connection.geometry.padding)
        if max(sizes) > KERNEL_LIMIT:
            names = "kernel {}, stride {}, padding {}".format(*sizes)
            found.append(Violation(where, names, f"at most {KERNEL_LIMIT} each"))
    return found


def _population_violations(network: HardwareNetwork, population: Population) -> list[Violation]:
    """Reset synapses and sums that do not fit Lava's registers (32 bits, before they enter the 24-bit state)."""
    where = f'population "{population.name}"'
    found: list[Violation] = []
    neuron = population.neuron
    assert isinstance(neuron, IntegerNeuron)
    subtracts = neuron.reset == "subtract"
    if subtracts and neuron.reset_exponent > RESET_EXPONENT_LIMIT:
        found.append(Violation(where, f"reset exponent {neuron.reset_exponent}", f"0 .. {RESET_EXPONENT_LIMIT}"))
    total = neuron.reset_state if subtracts else 0
    for connection in network.incoming(population.name):
        largest = _largest_sum(network, connection)
        limit = _CONVOLVED if is_convolution(network, connection) else _INT32
        if largest > limit:
            found.append(Violation(connection.label, f"a sum that can reach {largest}", f"at most {limit}"))
        exponent = connection.weight_exponent
        # Of a negative sum, rounding down makes the magnitude larger.
        total += 64 * (largest << exponent if exponent >= 0 else -(-largest >> -exponent))
    if total > _INT32:
        found.append(Violation(where, f"an input that can reach {total} units of state", f"at most {_INT32}"))
    return found


def _largest_sum(network: HardwareNetwork, connection: Connection) -> int:
    """Bound on what reaches a target neuron in one step, in Lava's units."""
    weights = linear_map(network, connection)
    sums = weights.with_weight(np.abs(connection.weight.astype(np.float64))).sums()
    return WEIGHT_FACTOR * int(sums.max()) * (network.input.maximum if network.is_graded(connection) else 1)
