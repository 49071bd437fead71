"""Equilibrium rates by plain iteration of every population's map in float64, of the unrolled weights."""

import numpy as np

from fsnn_lava.hardware import ALWAYS_ON, INPUT, Array, HardwareNetwork, constant_current, linear_map, real_weight


def iterated_rates(
    network: HardwareNetwork, inputs: Array, *, tolerance: float = 1e-12, max_steps: int = 5000
) -> tuple[dict[str, Array], Array]:
    """Population -> (B, N) rates, from none, and which samples (B,) came to rest."""
    batch = network.input.samples(inputs)
    rates = {p.name: np.zeros((batch, p.size)) for p in network.populations}
    matrices = {
        c.name: linear_map(network, c).with_weight(real_weight(c)).unrolled()
        for c in network.connections
        if c.source not in (INPUT, ALWAYS_ON)
    }
    constant = {p.name: constant_current(network, p, inputs) for p in network.populations}
    change = np.full(batch, np.inf)
    for _ in range(max_steps):
        change = np.zeros(batch)
        for p in network.populations:
            current = constant[p.name].copy()
            for c in network.incoming(p.name):
                if c.name in matrices:
                    current += (matrices[c.name] @ rates[c.source].T).T
            new = np.clip(current / p.neuron.reset_amount, 0, 1)
            change = np.maximum(change, np.abs(new - rates[p.name]).max(axis=1))
            rates[p.name] = new
        if (change <= tolerance).all():
            break
    return rates, change <= tolerance
