"""Faults planted in an exported network: sound files of a network that is not the exported one, and what is wrong.

Each fault is one that an export, a file's writer or a hand could make. The copies keep every rule of a network and are
written with valid checksums; their provenance stays that of the honest export.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fsnn_lava.conversion.export_folder import NETWORK_FILES
from fsnn_lava.hardware.geometry import Array, TransposedConvolution
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, Integrators
from fsnn_lava.hardware.network_file import save_network
from fsnn_lava.hardware.neurons import DECAY_UNITY, IntegerNeuron


@dataclass(frozen=True, eq=False)
class Fault:
    """A pair of networks with one fault.

    Parameters
    ----------
    name : what was done.
    element : what of the network is wrong, as a verification is to name it.
    place : the population, connection or other part that is wrong.
    file : the first of the two networks that is wrong.
    """

    name: str
    element: str
    place: str
    floating: HardwareNetwork
    integer: HardwareNetwork
    file: Literal["float", "integer"] = "integer"

    def write(self, folder: Path) -> None:
        """Put both networks into an export's folder, in place of the honest ones."""
        for network in (self.floating, self.integer):
            save_network(network, folder / NETWORK_FILES[network.arithmetic])


def planted_faults(floating: HardwareNetwork, integer: HardwareNetwork, *, another: HardwareNetwork) -> Iterator[Fault]:
    """Yield copies of an exported pair with one fault each; what does not apply to the network is left out.

    Parameters
    ----------
    another : the integers of another training of the same notation.
    """
    first, last = integer.populations[0].name, integer.populations[-1].name
    into = next(c for c in integer.connections if c.source == INPUT)
    back = next(c for c in integer.connections if c.name == "feedback")
    on = min((c for c in integer.connections if c.source == ALWAYS_ON), key=lambda c: c.weight_exponent)
    after = next((c for c in integer.connections if c.source == first and c.target not in (first, last)), None)

    def wrong(name: str, element: str, place: str, found: HardwareNetwork) -> Fault:
        return Fault(name, element, place, floating, found)

    def weights(name: str, connection: Connection, change: Callable[[Array], Array]) -> Fault:
        return wrong(name, "weights", connection.name, _with_weight(integer, connection, change))

    yield wrong("threshold x 1.5", "threshold", first, _with_threshold(integer, first, 1.5))
    yield wrong("threshold x 2", "threshold", last, _with_threshold(integer, last, 2.0))
    yield wrong("reset x 0.9", "reset", first, _with_reset(integer, first, 0.9))
    yield wrong("leak off by 1 %", "leak", first, _with_leak(integer, first, 0.99))
    yield wrong("spikes that reset to zero", "kind of reset", first, _with_law(integer, first, reset="zero"))
    yield wrong("a current that decays", "current leak", last, _with_law(integer, last, current_decay=3000))
    yield wrong("scale of a population x 1.25", "scale", first, _with_scale(integer, first, 1.25))
    yield weights("input weights x 1.1", into, lambda w: np.rint(w * 1.1))
    yield weights("signs of one neuron's row turned", into, _one_row_turned)
    yield weights("two neurons' rows exchanged", into, _two_rows_exchanged)
    yield weights("a bias + 20", on, lambda w: _entry_changed(w, +20, on))
    yield weights("a bias - 20", on, lambda w: _entry_changed(w, -20, on))
    yield weights("one weight + 1", back, lambda w: _entry_changed(w, +1, back))
    yield weights("feedback channels rolled", back, lambda w: np.roll(w, 1, _source_axis(back)))
    yield weights("feedback's sign turned", back, lambda w: -w)
    without = tuple(c for c in integer.connections if c.name != back.name)
    yield wrong("feedback removed", "missing", back.name, dataclasses.replace(integer, connections=without))
    late = dataclasses.replace(back, delay=back.delay + 10)
    yield wrong("feedback 10 steps later", "delay", back.name, _with_connection(integer, late))
    # A graded input's exponent may be negative; one more doubles it. Spikes' weights may have exponents up to 7.
    doubled = dataclasses.replace(into, weight_exponent=into.weight_exponent + 1)
    yield wrong("a weight exponent + 1", "exponent", into.name, _with_connection(integer, doubled))
    pulse = next((c for c in integer.connections if c.period > 1), None)
    if pulse is not None:
        rarer = dataclasses.replace(pulse, period=2 * pulse.period)
        yield wrong("a pulse half as often", "period", pulse.name, _with_connection(integer, rarer))
    foreign = dataclasses.replace(another, provenance=integer.provenance, name=integer.name)
    yield wrong("the integers of another training", "all integers", "network", foreign)
    yield wrong("readout's classes exchanged", "readout", "weight", _with_classes_exchanged(integer))
    if integer.readout.integrators is not None:
        larger = dataclasses.replace(integer.readout.integrators, scale=1.1 * integer.readout.integrators.scale)
        readout = dataclasses.replace(integer.readout, integrators=larger)
        yield wrong("integrators' scale x 1.1", "scale", "integrators", dataclasses.replace(integer, readout=readout))
    longer = (dataclasses.replace(n, time_steps=n.time_steps + 5) for n in (floating, integer))
    yield Fault("longer windows", "time steps", "network", *longer, "float")
    louder = dataclasses.replace(integer.input, maximum=2 * integer.input.maximum + 1)
    if integer.input.kind == "graded":
        yield wrong("larger input codes", "maximum", "input", dataclasses.replace(integer, input=louder))
    if after is not None and integer.shape_of(last) == integer.shape_of(first):
        moved = dataclasses.replace(after, source=last, delay=1)
        yield wrong("a connection from another source", "source", after.name, _with_connection(integer, moved))
    # ---- in the float file ----
    later = next(c for c in floating.connections if c.name == back.name)
    later = dataclasses.replace(later, delay=later.delay + 3)
    changed = _with_connection(floating, later)
    yield Fault("float file: feedback 3 steps later", "delay", back.name, changed, integer, "float")
    neuron = floating.populations[0].neuron
    raised = dataclasses.replace(neuron, v_threshold=1.5 * neuron.v_threshold)  # type: ignore[type-var, arg-type]
    populations = (dataclasses.replace(floating.populations[0], neuron=raised), *floating.populations[1:])
    changed = dataclasses.replace(floating, populations=populations)
    yield Fault("float file: threshold x 1.5", "threshold", first, changed, integer, "float")


def _with_connection(network: HardwareNetwork, changed: Connection) -> HardwareNetwork:
    connections = tuple(changed if c.name == changed.name else c for c in network.connections)
    return dataclasses.replace(network, connections=connections)


def _with_weight(network: HardwareNetwork, connection: Connection, change: Callable[[Array], Array]) -> HardwareNetwork:
    """Mantissas changed, and kept within their bits."""
    half = 1 << (connection.weight_bits - 1)
    weight = np.clip(change(connection.weight.copy()), -half, half - 1).astype(np.int32)
    assert not np.array_equal(weight, connection.weight), connection.name
    return _with_connection(network, dataclasses.replace(connection, weight=weight))


def _with_neuron(
    network: HardwareNetwork, name: str, change: Callable[[IntegerNeuron], IntegerNeuron]
) -> HardwareNetwork:
    populations = []
    for population in network.populations:
        if population.name == name:
            assert isinstance(population.neuron, IntegerNeuron)
            population = dataclasses.replace(population, neuron=change(population.neuron))
        populations.append(population)
    return dataclasses.replace(network, populations=tuple(populations))


def _with_threshold(network: HardwareNetwork, name: str, factor: float) -> HardwareNetwork:
    return _with_neuron(network, name, lambda n: dataclasses.replace(n, v_threshold=round(n.v_threshold * factor)))


def _with_reset(network: HardwareNetwork, name: str, factor: float) -> HardwareNetwork:
    def change(neuron: IntegerNeuron) -> IntegerNeuron:
        return dataclasses.replace(neuron, reset_mantissa=int(neuron.reset_mantissa * factor))

    return _with_neuron(network, name, change)


def _with_leak(network: HardwareNetwork, name: str, factor: float) -> HardwareNetwork:
    def change(neuron: IntegerNeuron) -> IntegerNeuron:
        return dataclasses.replace(neuron, decay=round(DECAY_UNITY * (1 - neuron.leak * factor)))

    return _with_neuron(network, name, change)


def _with_law(network: HardwareNetwork, name: str, **changed: Any) -> HardwareNetwork:
    return _with_neuron(network, name, lambda n: dataclasses.replace(n, **changed))


def _with_scale(network: HardwareNetwork, name: str, factor: float) -> HardwareNetwork:
    return _with_neuron(network, name, lambda n: dataclasses.replace(n, scale=n.scale * factor))


def _with_classes_exchanged(network: HardwareNetwork) -> HardwareNetwork:
    readout, integrators = network.readout, network.readout.integrators
    order = np.arange(len(readout.bias))
    order[:2] = 1, 0
    if integrators is not None:
        integrators = dataclasses.replace(integrators, weight=integrators.weight[order])
    assert isinstance(integrators, Integrators | None)
    changed = dataclasses.replace(
        readout, weight=readout.weight[order], bias=readout.bias[order], integrators=integrators
    )
    return dataclasses.replace(network, readout=changed)


def _one_row_turned(weight: Array) -> Array:
    """The row (of a convolution: the kernel) with the largest weights."""
    row = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).argmax())
    weight[row] *= -1
    return weight


def _two_rows_exchanged(weight: Array) -> Array:
    weight[[0, 1]] = weight[[1, 0]]
    return weight


def _entry_changed(weight: Array, by: int, connection: Connection) -> Array:
    """One entry, in the middle, that has room for the change and is a synapse."""
    half = 1 << (connection.weight_bits - 1)
    flat = weight.reshape(-1)
    possible = np.flatnonzero((flat + by >= -half) & (flat + by < half) & (flat != 0))
    flat[possible[len(possible) // 2]] += by
    return weight


def _source_axis(connection: Connection) -> int:
    return 0 if isinstance(connection.geometry, TransposedConvolution) else 1
