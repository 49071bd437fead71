"""How thoroughly scales are searched: everything for small networks, what matters for large ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from fsnn_lava.hardware import Connection, Dense, FloatType, HardwareNetwork, TransposedConvolution

_SMALL = 5_000_000
"""Products of one sample up to which a network is iterated in float64."""
_PRODUCTS_PER_CANDIDATE = 5e8
"""Products in one iteration over all compared samples."""
_PRODUCTS_PER_POPULATION = 3e9
"""The same for all candidates of a population that are compared around the loop."""


@dataclass(frozen=True)
class Effort:
    """Counts that depend on the network's size alone, so that the same network gives the same integers anywhere.

    Parameters
    ----------
    compared : calibration samples on which candidates are compared.
    tried : sizes per population.
    finalists : of these, how many are compared by the equilibrium around the loop; the others by their own errors.
    dtype, tolerance, final_tolerance : of the equilibria; the last for the report.
    """

    compared: int
    tried: int
    finalists: int
    dtype: FloatType
    tolerance: float
    final_tolerance: float

    @classmethod
    def for_network(cls, network: HardwareNetwork) -> Effort:
        """The effort that suits the number of products of one pass."""
        products = sum(_products(network, c) for c in network.connections)
        compared = int(np.clip(_PRODUCTS_PER_CANDIDATE / products, 8, 256))
        finalists = int(np.clip(_PRODUCTS_PER_POPULATION / (products * compared), 3, 24))
        small = products <= _SMALL
        tried = 24 if products <= 10 * _SMALL else 8
        exact = (np.float64, 1e-6, 1e-9) if small else (np.float32, 1e-5, 1e-5)
        return cls(compared, tried, finalists, *exact)


def _products(network: HardwareNetwork, connection: Connection) -> int:
    weights = connection.weight.size
    if isinstance(connection.geometry, Dense):
        return weights
    end = connection.source if isinstance(connection.geometry, TransposedConvolution) else connection.target
    return weights * prod(network.shape_of(end)[1:])
