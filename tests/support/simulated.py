"""What tests of the simulators share: names, the same network in floats, whether two runs are equal."""

from dataclasses import replace

import numpy as np

from fsnn_lava.hardware.network import Connection, HardwareNetwork
from fsnn_lava.hardware.neurons import STATE_PER_WEIGHT, FloatNeuron, Neuron
from fsnn_lava.hardware.run_io import RunResult


def names(network: HardwareNetwork) -> list[str]:
    return [p.name for p in network.populations]


def same_run(a: RunResult, b: RunResult) -> bool:
    pairs = [(a.firing_rates, b.firing_rates), (a.spike_counts, b.spike_counts), (a.spikes, b.spikes)]
    return all(
        x.keys() == y.keys() and all(np.array_equal(x[n], y[n]) for n in x) for x, y in pairs
    ) and np.array_equal(a.logits, b.logits)


def float_twin(network: HardwareNetwork) -> HardwareNetwork:
    """The same IF network in floats whose values are units of state, all of them integers that float64 holds."""

    def neuron(n: Neuron) -> FloatNeuron:
        return FloatNeuron(64.0 * (2 * n.v_threshold - 1) + 1, float(STATE_PER_WEIGHT * n.reset_synapse), 1.0, n.reset)

    def connection(c: Connection) -> Connection:
        weight = STATE_PER_WEIGHT * c.weight * 2.0**c.weight_exponent
        return replace(c, weight=weight, weight_exponent=0, weight_bits=0)

    return replace(
        network,
        populations=tuple(replace(p, neuron=neuron(p.neuron)) for p in network.populations),
        connections=tuple(map(connection, network.connections)),
        readout=replace(network.readout, integrators=None),
    )
