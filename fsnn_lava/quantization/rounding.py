"""Weights and constant currents of one connection as mantissas of a few bits: here a weight gets its 8 bits.

Weights are rounded by GPTQ [1]_, which is optimal brain surgeon [2]_ for rounding: one weight of a row after the other,
and those that are still to come are changed so that they make up for its error in the current. What the sources send
together, and so which weight can make up for which, is known from `input_correlations`.

Weights come in weight units. Where those of a convolution from spikes exceed the mantissa, several parallel
connections, called parts, add up to one weight: Lava's own Conv has no exponent. Small weights get one below 0, so that
they keep their bits; what their sum then loses by rounding down is made up for on average, see `candidates`, which
calls this file for every reset that is tried.

References
----------
.. [1] Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
   Transformers", 2022, arXiv 2210.17323.
.. [2] Hassibi, Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992 (1993).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fsnn_lava.hardware import ALWAYS_ON, Array, Connection, Convolution
from fsnn_lava.kernels.weight_rounding import round_block
from fsnn_lava.quantization.input_correlations import Group, from_rows, weight_rows

CURRENT_BITS = 8
"""Mantissa width of each of the (at most two) connections of a population's constant current."""
HIGH_EXPONENT = 7
"""Largest exponent, and that of the coarse one of two constant-current connections."""
CURRENT_LIMIT = (1 << (CURRENT_BITS - 1 + HIGH_EXPONENT)) - 1
"""Largest constant current of two connections together, weight units."""
MOST_PARTS = 4
"""Most parallel connections that stand for one convolution."""
_BLOCK = 64
"""Weights of a row that are rounded before the rest of it is adjusted, in one product (GPTQ's lazy batch updates)."""


def round_weights(
    connection: Connection,
    scale: float,
    *,
    bits: int,
    graded: bool,
    finest: int = 0,
    symmetric: bool = False,
    groups: Sequence[Group] = (),
) -> tuple[list[Connection], int]:
    """Round a float connection to the integer ones that stand for it together; count the clipped weights.

    Parameters
    ----------
    scale : real value of one weight unit.
    bits : width of the mantissas.
    graded : whether the source sends graded codes.
    finest : smallest exponent, 0 or less.
    symmetric : leave out the most negative mantissa.
    groups : weights that make up for each other's rounding; those that are in no group are rounded to the nearest.
    """
    weight = connection.weight / scale
    bottom, top = mantissa_limits(bits, symmetric=symmetric)
    largest = float(np.abs(weight).max(initial=0.0))
    parts = min(int(np.ceil(round(largest) / top)), MOST_PARTS)
    if isinstance(connection.geometry, Convolution) and not graded and parts > 1:
        mantissa, clipped = rounded(connection, weight, limits=(parts * bottom, parts * top), groups=groups)
        return shared(connection, mantissa, parts=parts, bits=bits), clipped
    highest = 0 if isinstance(connection.geometry, Convolution) and not graded else HIGH_EXPONENT
    # Small weights of spikes would have exponent 0 otherwise: they gain bits enough without clipping any.
    clip = graded or finest == 0 or largest > top
    exponent = _best_exponent(weight, largest, (bottom, top), allowed=(finest, highest), clip=clip)
    units = np.ldexp(weight, -exponent)
    mantissa, clipped = rounded(connection, units, limits=(bottom, top), groups=groups)
    return shared(connection, mantissa, exponent=exponent, bits=bits), clipped


def mantissa_limits(bits: int, *, symmetric: bool = False, parts: int = 1) -> tuple[int, int]:
    """Smallest and largest whole number that mantissas of so many bits, of all parts together, can be."""
    top = (1 << (bits - 1)) - 1
    return parts * (-top if symmetric else -top - 1), parts * top


def rounded(
    connection: Connection, units: Array, *, limits: tuple[int, int], groups: Sequence[Group] = ()
) -> tuple[Array, int]:
    """Round weights to whole numbers within the limits; return also how many would have been beyond, to the nearest.

    Parameters
    ----------
    units : the weights in units of one step of the mantissa, shaped as the connection's.
    limits : smallest and largest whole number.
    groups : as for `round_weights`; without any, every weight is rounded to the nearest.
    """
    nearest = np.rint(units)
    clipped = int(np.count_nonzero((nearest < limits[0]) | (nearest > limits[1])))
    if not groups:
        return np.clip(nearest, *limits), clipped
    rows = weight_rows(connection.geometry, units)
    whole = np.clip(weight_rows(connection.geometry, nearest), *limits)
    for group in groups:
        whole[:, group.places] = _compensated(rows[:, group.places], group.factor, limits)
    return from_rows(connection.geometry, whole, shape=units.shape), clipped


def _compensated(rows: Array, factor: Array, limits: tuple[int, int]) -> Array:
    """(R, n) whole numbers near rows (R, n) by GPTQ, from the last column to the first.

    The error e_k of each weight moves the exact value of every earlier weight j by -L_kj e_k, L the group's factor.
    A weight of zero is no synapse and stays none.
    """
    exact = np.ascontiguousarray(rows.T, np.float32)
    wanted, errors, ends = exact.copy(), np.zeros_like(exact), np.array(limits, np.float32)
    for end in range(len(exact), 0, -_BLOCK):  # blocks from the last to the first
        start = max(0, end - _BLOCK)
        block = slice(start, end)
        round_block(wanted[block], exact[block], factor[block, block], ends, errors[block])
        # All earlier blocks at once.
        wanted[:start] -= factor[start:end, :start].T @ errors[start:end]
    return np.asarray(np.rint(exact + errors).T)


def _best_exponent(
    weight: Array, largest: float, limits: tuple[int, int], *, allowed: tuple[int, int], clip: bool
) -> int:
    """The first exponent that clips nothing, or the one below if its squared error is smaller and weights may clip."""
    fitting = int(np.ceil(np.log2(largest / limits[1]))) if largest > 0 else 0
    tried = [min(max(e, allowed[0]), allowed[1]) for e in (fitting, fitting - 1)]

    def error(exponent: int) -> float:
        mantissa = np.clip(np.rint(np.ldexp(weight, -exponent)), *limits)
        return float(np.square(np.ldexp(mantissa, exponent) - weight).sum())

    return min(tried, key=error) if clip else tried[0]


def shared(
    connection: Connection, mantissa: Array, *, bits: int, exponent: int = 0, parts: int = 1
) -> list[Connection]:
    """Integer connections of equal shares, up to one unit, that add up to the mantissas times 2**exponent."""
    whole = mantissa.astype(np.int32, copy=False)
    return [
        dataclasses.replace(
            connection,
            name=connection.name if part == 0 else f"{connection.name}_part{part + 1}",
            weight=whole if parts == 1 else (whole + np.int32(part)) // np.int32(parts),
            weight_exponent=exponent,
            weight_bits=bits,
        )
        for part in range(parts)
    ]


def round_current(connection: Connection, units: Array, *, period: int = 1) -> tuple[list[Connection], int]:
    """Round a constant current (N, 1) to connections of 8 bits; count the clipped.

    One, or two whose exponents differ, send in every step. With a period the rest, in parts of a weight unit, is sent
    once in so many steps, by one more connection.
    """
    exact = np.rint(units).astype(np.int64)
    rest = np.rint((units - exact) * period).astype(np.int32)
    whole, clipped = _round_whole(connection, exact)
    if not rest.any():
        return whole, clipped
    pulse = dataclasses.replace(whole[-1], name=f"{connection.name}_pulse", weight=rest, period=period)
    return [*whole, pulse], clipped


def _round_whole(connection: Connection, exact: Array) -> tuple[list[Connection], int]:
    """A constant current of whole weight units."""
    half = 1 << (CURRENT_BITS - 1)
    fine = Connection(connection.name, ALWAYS_ON, connection.target, exact.astype(np.int32), weight_bits=CURRENT_BITS)
    if exact.min(initial=0) >= -half and exact.max(initial=0) < half:
        return [fine], 0
    step = 1 << HIGH_EXPONENT
    high = np.clip(exact // step, -half, half - 1)
    coarse = dataclasses.replace(
        fine, name=f"{connection.name}_coarse", weight=high.astype(np.int32), weight_exponent=HIGH_EXPONENT
    )
    low = np.clip(exact - high * step, -half, half - 1)
    clipped = int(np.count_nonzero(high * step + low != exact))
    return [coarse, dataclasses.replace(fine, weight=low.astype(np.int32))], clipped
