"""An exported network held against what it was made from, entry by entry; the first entry that differs is named.

Three references, the sharpest first. *Derived anew*: the checkpoint lowered and rounded once more; every integer must
be the same. *Recorded*: what the export wrote down beside its files (`export_record`): every number of both networks,
and every array by its hash and the sums of its rows and columns. *Rounded*: the float network itself; each integer is
within the error that the export measured in its connection, and a connection's errors have the recorded root mean
square to nine digits. A report says which of them were at hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsnn_lava.hardware import (
    ALWAYS_ON,
    DECAY_UNITY,
    Array,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    IntegerNeuron,
    Integrators,
    quantize_readout,
    summed_weight,
    with_timing,
)
from fsnn_lava.quantization import parts_of

LAST_BITS = 1e-12
"""Share of its largest entry by which a lowered array may differ: sums of thousands, in another processor's order."""
STATED_STEPS = 8
"""Steps of the mantissa by which a weight may differ from its float where no error was recorded: rounding that makes up
for other weights goes beyond half a step."""
SAME = 1e-9
"""Share by which an error may differ that is measured a second time."""


@dataclass(frozen=True)
class Deviation:
    """Something in a network that is not as exported.

    Parameters
    ----------
    network : ``float`` or ``integer``: the file.
    element : what it is, such as threshold, delay or weights.
    place : the population, connection or other part.
    index : of the first array entry that differs; None: not an array, or not known which.
    expected, found : the values; of weights that of the entry.
    remark : what the difference as a whole looks like; empty: nothing known.
    """

    network: str
    element: str
    place: str
    index: tuple[int, ...] | None
    expected: str
    found: str
    remark: str = ""

    def __str__(self) -> str:
        at = "" if self.index is None else f"[{', '.join(map(str, self.index))}]"
        remark = f" ({self.remark})" if self.remark else ""
        return (
            f"{self.network} network, {self.element} of {self.place}{at}: expected {self.expected}, "
            f"found {self.found}{remark}"
        )


@dataclass(frozen=True)
class Structure:
    """Whether both networks are those that were exported.

    Parameters
    ----------
    basis : what they were held against, in words.
    entries : numbers that were compared.
    deviations : in the order float network, integer network; populations, connections, readout.
    cause : the first of them in a line, or what they are as a whole; empty if there is none.
    """

    basis: tuple[str, ...]
    entries: int
    deviations: tuple[Deviation, ...]
    cause: str

    @property
    def agrees(self) -> bool:
        """Whether nothing deviates."""
        return not self.deviations


_OF_WEIGHTS = ("weights", "exponent", "parts")


def cause_of(deviations: Sequence[Deviation], integer: HardwareNetwork) -> str:
    """What is wrong with the networks, in a line; empty if nothing is."""
    if not deviations:
        return ""
    wrong = {d.place for d in deviations if d.network == "integer" and d.element in _OF_WEIGHTS}
    if len(wrong) > 1 and wrong >= {c.name for c in integer.connections if c.source != ALWAYS_ON}:
        return f"all integers are those of another export; the first that differs: {deviations[0]}"
    return str(deviations[0])


OTHER_NUMBERS = "most entries differ"
"""Remark on weights that have nothing in common with the expected ones."""


# ---- a network described ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ArraySummary:
    """An array known by its hash, and by the sums of its rows and columns, which tell where it was changed."""

    digest: str
    rows: Array  # (len,) sums of all that has the same first index
    columns: Array  # (the rest,) sums over the first index

    @classmethod
    def of(cls, array: Array) -> ArraySummary:
        """Summary of an array of one or more axes."""
        flat = array.reshape(len(array), -1)
        dtype = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float64
        content = np.ascontiguousarray(array, "<i4" if dtype is np.int64 else "<f8").tobytes()
        digest = hashlib.sha256(f"{array.shape}".encode() + content).hexdigest()
        return cls(digest, flat.sum(axis=1, dtype=dtype), flat.sum(axis=0, dtype=dtype))


def numbers_of(network: HardwareNetwork) -> dict[str, dict[str, dict[str, Any]]]:
    """Everything about a network but its arrays: part -> place -> element -> value, JSON-compatible."""
    readout, source = network.readout, network.input
    integrators = readout.integrators
    populations = {}
    for order, p in enumerate(network.populations):
        populations[p.name] = {"order": order, "shape": list(p.shape), "start": p.start, **neuron_numbers(p.neuron)}
    connections = {
        c.name: {
            "source": c.source,
            "target": c.target,
            "delay": c.delay,
            "exponent": c.weight_exponent,
            "weight bits": c.weight_bits,
            "geometry": str(c.geometry),
            "weights' shape": list(c.weight.shape),
            **({} if c.period == 1 else {"period": c.period}),
        }
        for c in network.connections
    }
    held = {} if integrators is None else _numbers_of_integrators(integrators)
    return {
        "network": {"network": {"arithmetic": network.arithmetic, "time steps": network.time_steps}},
        "input": {"input": {"shape": list(source.shape), "kind": source.kind, "maximum": source.maximum}},
        "populations": populations,
        "connections": connections,
        "readout": {"readout": {"source": readout.source, "shape": list(readout.weight.shape)}, "integrators": held},
    }


def _numbers_of_integrators(integrators: Integrators) -> dict[str, float]:
    return {
        "scale": integrators.scale,
        "parts": integrators.parts,
        "exponent": integrators.weight_exponent,
        "weight bits": integrators.weight_bits,
    }


def neuron_numbers(neuron: FloatNeuron | IntegerNeuron) -> dict[str, Any]:
    """A neuron's constants by the names that a report gives them; what is as in most networks is not among them."""
    found: dict[str, Any] = {"threshold": neuron.v_threshold}
    if isinstance(neuron, FloatNeuron):
        found |= {"reset": neuron.reset_amount, "leak": neuron.leak}
    else:
        found |= {"reset": neuron.reset_synapse, "leak": neuron.leak, "scale": neuron.scale}
    if neuron.reset != "subtract":
        found["kind of reset"] = neuron.reset
    if neuron.has_memory_of_current:
        found["current leak"] = neuron.current_leak
    return found


def arrays_of(network: HardwareNetwork) -> dict[str, Array]:
    """Every array of a network by the place that it has: weights of connections, and the readout's."""
    readout = network.readout
    found = {c.name: c.weight for c in network.connections}
    found |= {"readout weight": readout.weight, "readout bias": readout.bias}
    if readout.integrators is not None:
        found["readout integrators"] = readout.integrators.weight
    return found


def fingerprint(network: HardwareNetwork) -> str:
    """Twelve hexadecimal digits by which reports name the network that they are about: of every number of it."""
    digests = {place: ArraySummary.of(array).digest for place, array in arrays_of(network).items()}
    text = json.dumps([numbers_of(network), digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# ---- the check -------------------------------------------------------------------------------------------------


def against_network(expected: HardwareNetwork, found: HardwareNetwork, *, exactly: bool) -> list[Deviation]:
    """Hold a network against the same one made anew.

    Parameters
    ----------
    exactly : whether arrays must be equal; else they may differ in their last bits, as sums of another processor do.
    """
    deviations = against_numbers(numbers_of(expected), found)
    wanted = arrays_of(expected)
    for place, array in arrays_of(found).items():
        reference = wanted.get(place)
        if reference is None or reference.shape != array.shape:
            continue  # named already: an extra connection, another shape
        slack = 0.0 if exactly else LAST_BITS * float(np.abs(reference).max(initial=0.0))
        differs = np.abs(array - reference.astype(array.dtype)) > slack
        if differs.any():
            index = tuple(int(i) for i in np.argwhere(differs)[0])
            remark = likeness(reference, array)
            deviations.append(_of_array(found, place, index, _value(reference[index]), _value(array[index]), remark))
    return deviations


def against_numbers(expected: Mapping[str, Mapping[str, Mapping[str, Any]]], found: HardwareNetwork) -> list[Deviation]:
    """Hold everything but the arrays of a network against what `numbers_of` said of it."""
    kind, deviations = found.arithmetic, []
    for part, places in numbers_of(found).items():
        wanted = expected[part]
        for place in wanted:
            if place not in places:
                what = "connection" if part == "connections" else "population"
                deviations.append(Deviation(kind, "missing", place, None, f"a {what}", "none"))
        for place, elements in places.items():
            if place not in wanted:
                deviations.append(Deviation(kind, "extra", place, None, "none", f"one, {elements}"))
                continue
            for element in dict.fromkeys((*wanted[place], *elements)):
                value, other = wanted[place].get(element), elements.get(element)
                if value != other:
                    deviations.append(Deviation(kind, element, place, None, _value(value), _value(other)))
    return deviations


def against_summaries(
    expected: Mapping[str, ArraySummary], found: HardwareNetwork, *, like: Mapping[str, Array]
) -> list[Deviation]:
    """Hold the arrays of a network against their recorded summaries, and tell from the sums where they differ.

    Parameters
    ----------
    like : place -> about the expected array, for a word on what the difference looks like.
    """
    deviations = []
    for place, array in arrays_of(found).items():
        wanted, here = expected.get(place), ArraySummary.of(array)
        if wanted is None or wanted.digest == here.digest or len(wanted.rows) != len(here.rows):
            continue
        remark = _order(wanted, here) or (likeness(like[place], array) if place in like else "")
        changed = _one_change(wanted, here)
        if changed is None:
            hashes = f"the hash {wanted.digest[:12]}", here.digest[:12]
            deviations.append(_of_array(found, place, None, *hashes, remark))
        else:
            row, column, change = changed
            index = tuple(int(i) for i in np.unravel_index(row * len(here.columns) + column, array.shape))
            deviations.append(
                _of_array(found, place, index, _value(array[index] - change), _value(array[index]), remark)
            )
    return deviations


def _one_change(wanted: ArraySummary, here: ArraySummary) -> tuple[int, int, Any] | None:
    """Row, column and change of the first entry that differs, if one row or one column alone was changed.

    Its entries' changes are then those of the sums across it.
    """
    rows = np.flatnonzero(~np.isclose(here.rows, wanted.rows, rtol=1e-12, atol=0))
    columns = np.flatnonzero(~np.isclose(here.columns, wanted.columns, rtol=1e-12, atol=0))
    if len(rows) == 1 and columns.size:
        return int(rows[0]), int(columns[0]), (here.columns - wanted.columns)[columns[0]]
    if len(columns) == 1 and rows.size:
        return int(rows[0]), int(columns[0]), (here.rows - wanted.rows)[rows[0]]
    return None


def against_float(
    floating: HardwareNetwork, integer: HardwareNetwork, *, quantization: Mapping[str, Any] | None
) -> list[Deviation]:
    """Hold the integers against the floats that they were rounded from.

    Parameters
    ----------
    quantization : the export's `QuantizationReport` as a dictionary: the errors that it measured, by connection; None:
        weights may be off by `STATED_STEPS` steps of the mantissa, and constant currents are not held at all.
    """
    return list(_rounding_deviations(floating, integer, quantization))


def _rounding_deviations(
    floating: HardwareNetwork, integer: HardwareNetwork, quantization: Mapping[str, Any] | None
) -> Iterator[Deviation]:
    deployment = integer.provenance.get("deployment", {})
    for wanted in dict.fromkeys((floating.time_steps, deployment.get("time_steps") or floating.time_steps)):
        if integer.time_steps != wanted:
            yield _deviation("time steps", "network", wanted, integer.time_steps)
    if integer.input != floating.input:
        for name in ("shape", "kind", "maximum"):
            pair = getattr(floating.input, name), getattr(integer.input, name)
            if pair[0] != pair[1]:
                yield _deviation(name, "input", *pair)
    names = [[p.name for p in network.populations] for network in (floating, integer)]
    if names[0] != names[1]:
        yield _deviation("order", "populations", names[0], names[1])
        return
    for before, after in zip(floating.populations, integer.populations, strict=True):
        recorded = None if quantization is None else quantization["populations"].get(before.name)
        yield from _neuron_deviations(before, after, recorded, half=deployment.get("threshold") == "half")
    accounted = set()
    for connection in floating.connections:
        recorded = None if quantization is None else quantization["connections"].get(connection.name)
        units = None if quantization is None else quantization["populations"].get(connection.target, {}).get("scale")
        parts = [c for c in integer.connections if c.name in {p.name for p in parts_of(integer, connection)}]
        accounted |= {c.name for c in parts}
        yield from _connection_deviations(integer, connection, parts, recorded, units)
    for c in integer.connections:
        if c.name not in accounted:
            yield _deviation("extra", c.name, "none", f"a connection {c.source} -> {c.target}")
    yield from _readout_deviations(floating, integer)


def _neuron_deviations(
    before: Any, after: Any, recorded: Mapping[str, Any] | None, *, half: bool
) -> Iterator[Deviation]:
    neuron, exact = after.neuron, before.neuron
    if (before.shape, before.start) != (after.shape, after.start):
        yield _deviation("start", after.name, f"{before.shape}, {before.start}", f"{after.shape}, {after.start}")
    decay = round(DECAY_UNITY * (1 - exact.leak))
    if neuron.decay != decay:
        yield _deviation("leak", after.name, (DECAY_UNITY - decay) / DECAY_UNITY, neuron.leak)
    current_decay = round(DECAY_UNITY * (1 - exact.current_leak))
    if neuron.current_decay != current_decay:
        yield _deviation("current leak", after.name, (DECAY_UNITY - current_decay) / DECAY_UNITY, neuron.current_leak)
    synapse = None if recorded is None else round(recorded["reset_amount"] * (DECAY_UNITY - decay) / DECAY_UNITY)
    scale = neuron.scale if recorded is None else recorded["scale"]
    if neuron.reset != exact.reset:
        yield _deviation("kind of reset", after.name, exact.reset, neuron.reset)
    elif neuron.reset == "zero":
        pass  # the reset amount means nothing
    elif synapse is not None and neuron.reset_synapse != synapse:
        yield _deviation("reset", after.name, synapse, neuron.reset_synapse)
    elif neuron.decay == decay and abs(scale * neuron.reset_amount / exact.reset_amount - 1) > SAME:
        yield _deviation("reset", after.name, exact.reset_amount / scale, neuron.reset_amount)
    if neuron.scale != scale:
        yield _deviation("scale", after.name, scale, neuron.scale)
    wanted = exact.reset_amount / 2 if half else exact.v_threshold
    threshold = max(1, round(wanted / scale))
    if neuron.v_threshold != threshold:
        yield _deviation("threshold", after.name, threshold, neuron.v_threshold)


def _connection_deviations(
    integer: HardwareNetwork,
    wanted: Connection,
    parts: list[Connection],
    recorded: Mapping[str, Any] | None,
    scale: float | None,
) -> Iterator[Deviation]:
    if not parts:
        yield _deviation("missing", wanted.name, f"a connection {wanted.source} -> {wanted.target}", "none")
        return
    if recorded is not None and len(parts) != recorded["parts"]:
        yield _deviation("parts", wanted.name, recorded["parts"], len(parts))
        return
    for part in parts:
        for name, element in (("source", "source"), ("target", "target"), ("delay", "delay"), ("geometry", "geometry")):
            pair = getattr(wanted, name), getattr(part, name)
            if pair[0] != pair[1]:
                yield _deviation(element, part.name, *pair)
    if any(part.weight.shape != wanted.weight.shape for part in parts):
        yield _deviation("weights' shape", wanted.name, wanted.weight.shape, parts[0].weight.shape)
        return
    if recorded is not None:
        for name, element in (("weight_bits", "weight bits"), ("weight_exponent", "exponent")):
            found = getattr(parts[0], name)
            if found != recorded[name]:
                yield _deviation(element, parts[0].name, recorded[name], found)
                return  # its weights are off by a power of two, and named by that
        pulsed = max(parts, key=lambda part: part.period)
        if pulsed.period != recorded.get("period", 1):
            yield _deviation("period", pulsed.name, recorded.get("period", 1), pulsed.period)
            return  # likewise
    if scale is None:
        neuron = integer.population(wanted.target).neuron
        assert isinstance(neuron, IntegerNeuron)
        scale = neuron.scale
    yield from _weight_deviation(wanted, parts, recorded, scale)


def _weight_deviation(
    wanted: Connection, parts: list[Connection], recorded: Mapping[str, Any] | None, scale: float
) -> Iterator[Deviation]:
    units = summed_weight(parts)
    error = units * scale - wanted.weight
    size = np.abs(error)
    index = tuple(int(i) for i in np.unravel_index(int(size.argmax()), size.shape))
    remark = likeness(wanted.weight / scale, units)
    largest, rms = float(size.max()), float(np.sqrt(np.square(error).mean()))
    if recorded is None:
        step = STATED_STEPS * 2.0 ** min(part.weight_exponent for part in parts)
        if wanted.source != ALWAYS_ON and largest > step * scale:
            yield _of_weight(wanted, index, f"{wanted.weight[index] / scale:.6g} +- {step:g}", units[index], remark)
        return
    if largest > recorded["max_error"] * (1 + SAME) + 1e-300:
        expected = f"{wanted.weight[index] / scale:.6g} +- {recorded['max_error'] / scale:.3g}"
        yield _of_weight(wanted, index, expected, units[index], remark)
    elif abs(rms - recorded["rms_error"]) > SAME * max(rms, recorded["rms_error"]):
        expected = f"errors of {recorded['rms_error'] / scale:.9g} units in the root mean square"
        yield Deviation("integer", "weights", wanted.name, None, expected, f"{rms / scale:.9g}", remark)


def _readout_deviations(floating: HardwareNetwork, integer: HardwareNetwork) -> Iterator[Deviation]:
    before, after = floating.readout, integer.readout
    if before.source != after.source:
        yield _deviation("source", "readout", before.source, after.source)
        return
    for name in ("weight", "bias"):
        pair = getattr(before, name), getattr(after, name)
        if pair[0].shape != pair[1].shape:
            yield _deviation("shape", "readout", pair[0].shape, pair[1].shape)
            return
        if not np.array_equal(*pair):
            index = tuple(int(i) for i in np.argwhere(pair[0] != pair[1])[0])
            expected, found = _value(pair[0][index]), _value(pair[1][index])
            yield Deviation("integer", "readout", name, index, expected, found, likeness(*pair))
    integrators, neuron = after.integrators, integer.population(after.source).neuron
    if integrators is not None and isinstance(neuron, IntegerNeuron):
        wanted = quantize_readout(
            before, decay=neuron.decay, time_steps=integer.time_steps, weight_bits=integrators.weight_bits
        )
        if not np.array_equal(wanted.weight, integrators.weight):
            index = tuple(int(i) for i in np.argwhere(wanted.weight != integrators.weight)[0])
            pair = wanted.weight[index], integrators.weight[index]
            yield Deviation("integer", "readout", "integrators", index, *map(_value, pair))
        for name, element in (("scale", "scale"), ("parts", "parts"), ("weight_exponent", "exponent")):
            if getattr(wanted, name) != getattr(integrators, name):
                yield _deviation(element, "integrators", getattr(wanted, name), getattr(integrators, name))


def timing_deviations(floating: HardwareNetwork) -> list[Deviation]:
    """Hold the float network's delays and windows against hardware timing, which an export always has."""
    timed = with_timing(floating, "hardware")
    found = [
        Deviation("float", "delay", c.name, None, str(right.delay), str(c.delay))
        for c, right in zip(floating.connections, timed.connections, strict=True)
        if c.delay != right.delay
    ]
    return found + [
        Deviation("float", "start", p.name, None, str(right.start), str(p.start))
        for p, right in zip(floating.populations, timed.populations, strict=True)
        if p.start != right.start
    ]


def merged(deviations: Iterable[Deviation]) -> tuple[Deviation, ...]:
    """The first deviation of every element of every place, one that knows its index before one that does not.

    Those of the float network come first: the integers were made from it.
    """
    first: dict[tuple[str, str, str], Deviation] = {}
    for d in deviations:
        key = d.network, d.element, d.place
        if key not in first or (first[key].index is None and d.index is not None):
            first[key] = d
    return tuple(sorted(first.values(), key=lambda d: d.network != "float"))


# ---- what a difference looks like ------------------------------------------------------------------------------


def likeness(expected: Array, found: Array) -> str:
    """Say in a few words how an array relates to the expected one, which may be a float that it was rounded from."""
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (expected, found))
    if a.shape[1] == 1:  # a vector is one row
        a, b = a.T, b.T
    if a.any() and not b.any():
        return "all zero"
    norms = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    agreement = np.divide((a * b).sum(axis=1), norms, out=np.ones(len(a)), where=norms > 0)
    if (agreement < -0.5).all():
        return "all signs turned"
    turned = np.flatnonzero(agreement < -0.5)
    if turned.size and turned.size <= max(1, len(a) // 4) and (np.delete(agreement, turned) > 0.5).all():
        return f"signs of row {', '.join(map(str, turned[:4]))} turned"
    whole = float((a * b).sum() / max(np.square(a).sum(), 1e-300))
    left = float(np.sqrt(np.square(b - whole * a).mean() / max(np.square(b).mean(), 1e-300)))
    if a.size > 2 and abs(whole - 1) > 0.04 and left < min(0.3, 2 * abs(whole - 1)):
        return f"about {whole:.3g} times as large"
    return OTHER_NUMBERS if left > 0.87 else ""  # a correlation of less than a half


def _order(expected: ArraySummary, found: ArraySummary) -> str:
    """Whether rows or columns hold the same sums in another order."""
    for name, a, b in (("rows", expected.rows, found.rows), ("columns", expected.columns, found.columns)):
        if len(a) == len(b) > 1 and not np.array_equal(a, b) and np.array_equal(np.sort(a), np.sort(b)):
            return f"the same {name} in another order"
    return ""


def _deviation(element: str, place: str, expected: Any, found: Any) -> Deviation:
    return Deviation("integer", element, place, None, _value(expected), _value(found))


def _of_weight(wanted: Connection, index: tuple[int, ...], expected: str, found: float, remark: str) -> Deviation:
    return Deviation("integer", "weights", wanted.name, index, expected, _value(found), remark)


def _of_array(
    network: HardwareNetwork, place: str, index: tuple[int, ...] | None, expected: str, found: str, remark: str
) -> Deviation:
    """A deviation of a connection's weights, or of one of the readout's arrays."""
    if place.startswith("readout "):
        return Deviation(network.arithmetic, "readout", place.split(" ", 1)[1], index, expected, found, remark)
    return Deviation(network.arithmetic, "weights", place, index, expected, found, remark)


def _value(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{float(value):.12g}"
    return str(value)
