"""What every hardware network keeps: the rules, and each broken one as a `Violation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from fsnn_lava.hardware.parts import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    THRESHOLD_LIMIT,
    Connection,
    FloatNeuron,
    InputSpec,
    IntegerNeuron,
    Integrators,
    Neuron,
    Population,
    Readout,
    Violation,
)


@dataclass(frozen=True, eq=False)
class _Parts:
    """What a network is made of, before it is known to be one."""

    input: InputSpec
    populations: Sequence[Population]
    connections: Sequence[Connection]
    readout: Readout
    time_steps: int

    @property
    def integer(self) -> bool:
        return isinstance(self.populations[0].neuron, IntegerNeuron)

    @property
    def starts(self) -> dict[str, int]:
        return {p.name: p.start for p in self.populations}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every source."""
        return {p.name: p.shape for p in self.populations} | {INPUT: self.input.shape, ALWAYS_ON: (1,)}


def violations(
    input_spec: InputSpec,
    populations: Sequence[Population],
    connections: Sequence[Connection],
    readout: Readout,
    *,
    time_steps: int,
) -> list[Violation]:
    """Every rule that a network made of these parts would break; empty if it keeps them all."""
    parts = _Parts(input_spec, populations, connections, readout, time_steps)
    found = _population_violations(parts)
    if not populations:
        return found
    names = {p.name for p in populations}
    for connection in connections:
        found += _connection_violations(parts, connection, names)
    found += _readout_violations(parts, names)
    if not found:
        found += _cycle_violations(parts)
    return found


def local_delay(connection: Connection, starts: Mapping[str, int]) -> int:
    """Delay counted from both ends' own starts: start_source + delay - start_target."""
    if connection.source == ALWAYS_ON:
        return 0
    return starts.get(connection.source, 0) + connection.delay - starts[connection.target]


def _population_violations(network: _Parts) -> list[Violation]:
    found: list[Violation] = []
    if network.time_steps < 1:
        found.append(Violation("time_steps", str(network.time_steps), "at least 1"))
    source = network.input
    if source.kind not in ("graded", "event"):
        found.append(Violation("input", f'kind "{source.kind}"', '"graded" or "event"'))
    if source.maximum < 1 or (source.kind == "event" and source.maximum != 1):
        found.append(Violation("input", f"maximum {source.maximum}", "1 for events, at least 1 for graded"))
    if not source.shape or min(source.shape) < 1:
        found.append(Violation("input", f"shape {source.shape}", "sides of at least 1"))
    if not network.populations:
        return [*found, Violation("populations", "none", "at least one")]
    names = [p.name for p in network.populations]
    if len(set(names)) < len(names) or {INPUT, ALWAYS_ON} & set(names):
        found.append(Violation("populations", f"names {names}", f'unique names other than "{INPUT}", "{ALWAYS_ON}"'))
    kinds = {type(p.neuron) for p in network.populations}
    if len(kinds) > 1:
        found.append(Violation("populations", "floats and integers mixed", "one arithmetic for all populations"))
    for population in network.populations:
        where = f'population "{population.name}"'
        if not population.shape or min(population.shape) < 1:
            found.append(Violation(where, f"shape {population.shape}", "sides of at least 1"))
        if population.start < 0:
            found.append(Violation(where, f"start {population.start}", "a step >= 0"))
        found += _neuron_violations(where, population.neuron)
    return found


def _neuron_violations(where: str, neuron: Neuron) -> list[Violation]:
    if isinstance(neuron, FloatNeuron):
        rules = [
            ("v_threshold", neuron.v_threshold, 0 < neuron.v_threshold < np.inf, "a finite number > 0"),
            ("reset_amount", neuron.reset_amount, 0 < neuron.reset_amount < np.inf, "a finite number > 0"),
            ("leak", neuron.leak, 0 < neuron.leak <= 1, "0 < leak <= 1"),
        ]
    else:
        rules = [
            ("v_threshold", neuron.v_threshold, 1 <= neuron.v_threshold <= THRESHOLD_LIMIT, "1 .. 65536"),
            ("reset_mantissa", neuron.reset_mantissa, 1 <= neuron.reset_mantissa <= 255, "1 .. 255"),
            ("reset_exponent", neuron.reset_exponent, 0 <= neuron.reset_exponent <= 7, "0 .. 7"),
            ("decay", neuron.decay, 0 <= neuron.decay < DECAY_UNITY, "0 .. 4095"),
            ("scale", neuron.scale, 0 < neuron.scale < np.inf, "a finite number > 0"),
        ]
    return [Violation(where, f"{name} {value}", allowed) for name, value, holds, allowed in rules if not holds]


def _connection_violations(network: _Parts, connection: Connection, names: set[str]) -> list[Violation]:
    where = f'connection "{connection.name}" ({connection.source} -> {connection.target})'
    ends = names | {INPUT, ALWAYS_ON}
    if connection.source not in ends or connection.target not in names:
        return [Violation(where, "an end that does not exist", f"sources {sorted(ends)}, targets {sorted(names)}")]
    shapes = network.shapes
    fault = connection.geometry.weight_shape_fault(
        connection.weight.shape, shapes[connection.source], shapes[connection.target]
    )
    if fault is not None:
        return [Violation(where, *fault)]
    found = _weight_violations(where, network, connection)
    if connection.delay < 0 or (connection.source == ALWAYS_ON and connection.delay):
        found.append(Violation(where, f"delay {connection.delay}", f'at least 0; 0 from "{ALWAYS_ON}"'))
    local = local_delay(connection, network.starts)
    if local < 0:
        found.append(Violation(where, f"arrival {-local} steps before the target's window", "delay + start within it"))
    return found


def _weight_violations(where: str, network: _Parts, connection: Connection) -> list[Violation]:
    weight = connection.weight
    if not network.integer:
        if weight.dtype != np.float64 or connection.weight_exponent or connection.weight_bits:
            found = f"{weight.dtype}, exponent {connection.weight_exponent}, {connection.weight_bits} bits"
            return [Violation(where, found, "float64 without exponent and bits in a float network")]
        bad = int(np.count_nonzero(~np.isfinite(weight)))
        return [Violation(where, f"{bad} weights that are not finite", "finite numbers")] if bad else []
    rules: list[Violation] = []
    if weight.dtype != np.int32:
        return [Violation(where, f"weights of type {weight.dtype}", "int32 mantissas")]
    if not 2 <= connection.weight_bits <= 8:
        return [Violation(where, f"{connection.weight_bits} weight bits", "2 .. 8")]
    half = 1 << (connection.weight_bits - 1)
    outside = int(np.count_nonzero((weight < -half) | (weight >= half)))
    if outside:
        rules.append(Violation(where, f"{outside} mantissas out of range", f"-{half} .. {half - 1}"))
    graded = connection.source == INPUT and network.input.kind == "graded"
    lowest = -8 if graded else 0
    if not lowest <= connection.weight_exponent <= 7:
        rules.append(Violation(where, f"weight exponent {connection.weight_exponent}", f"{lowest} .. 7"))
    return rules


def _readout_violations(network: _Parts, names: set[str]) -> list[Violation]:
    readout = network.readout
    if readout.source not in names:
        return [Violation("readout", f'source "{readout.source}"', f"one of {sorted(names)}")]
    size = prod(network.shapes[readout.source])
    if readout.weight.ndim != 2 or readout.weight.shape[1] != size or readout.bias.shape != readout.weight.shape[:1]:
        shapes = f"weight {readout.weight.shape}, bias {readout.bias.shape}"
        return [Violation("readout", shapes, f"(classes, {size}) and (classes,)")]
    if readout.weight.dtype != np.float64 or readout.bias.dtype != np.float64:
        return [Violation("readout", f"weight {readout.weight.dtype}, bias {readout.bias.dtype}", "float64")]
    if not (np.isfinite(readout.weight).all() and np.isfinite(readout.bias).all()):
        return [Violation("readout", "values that are not finite", "finite numbers")]
    return [] if readout.integrators is None else _integrator_violations(network, readout, readout.integrators)


def _integrator_violations(network: _Parts, readout: Readout, integrators: Integrators) -> list[Violation]:
    weight, size = integrators.weight, readout.weight.shape[1]
    half = 1 << (integrators.weight_bits - 1) if 2 <= integrators.weight_bits <= 8 else 0
    rules = [
        ("arithmetic float", network.integer, "an integer network"),
        (f"{weight.dtype} {weight.shape}", weight.dtype == np.int32 and weight.shape == readout.weight.shape,
         f"int32 {readout.weight.shape}"),
        (f"{integrators.weight_bits} weight bits", half > 0, "2 .. 8"),
        ("mantissas out of range", bool(((weight >= -half) & (weight < half)).all()), f"-{half} .. {half - 1}"),
        (f"weight exponent {integrators.weight_exponent}", 0 <= integrators.weight_exponent <= 7, "0 .. 7"),
        (f"{integrators.parts} parts", 1 <= integrators.parts <= size, f"1 .. {size}"),
        (f"scale {integrators.scale}", 0 < integrators.scale < np.inf, "a finite number > 0"),
    ]  # fmt: skip
    return [Violation("readout's integrators", found, allowed) for found, holds, allowed in rules if not holds]


def _cycle_violations(network: _Parts) -> list[Violation]:
    """Within one local step the populations are updated in order, so only forward connections may be immediate."""
    order = {p.name: i for i, p in enumerate(network.populations)} | {INPUT: -1, ALWAYS_ON: -1}
    return [
        Violation(f'connection "{c.name}" ({c.source} -> {c.target})', "feedback without any delay", "at least 1 step")
        for c in network.connections
        if local_delay(c, network.starts) == 0 and order[c.source] >= order[c.target]
    ]
