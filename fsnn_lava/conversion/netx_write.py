"""Write an integer network as the HDF5 file that lava-dl's ``lava.lib.dl.netx.hdf5.Network`` loads (lava-dl 0.6.0).

What netx can say. A netx file is a chain of blocks. A ``dense`` or ``conv`` block is a connection and a LIF that
resets to zero, so it has no soft reset. A ``dense_rec`` block also has a connection from all its neurons to
themselves. That is enough for everything: here the whole network is *one* ``dense_rec`` block. Its recurrent weights
hold the forward connections, the feedback, and on the diagonal the reset synapses; every hop takes one step, as
in the hardware's timing. Convolutions and transposed convolutions are unrolled into it.

=====================  ============================================================================================
network                netx file
=====================  ============================================================================================
neuron                 ``CUBA`` with iDecay = decay, vDecay = 4096: `u` integrates, `v` = `u` (docs/network-format.md)
threshold V            one ``vThMant`` for the block; ``bias`` is added to the memoryless `v` alone, so
                       vThMant - bias = 2 V - 1 gives each population its own
weight w · 2^e         2 w · 2^e, in ``weight`` (from the input) or ``weight_rec``
reset synapse          -2 ρ on the diagonal of ``weight_rec``
larger ones            weights end at 127 weight units. A population (or the input) that sends more is there in several
                       copies, which receive the same and fire together; their weights add up
constant current       from input elements after the network's own, which the host keeps at 1. Populations that start
                       later get theirs from relay neurons, one step later each
readout                not in the file; the host computes it from the spikes
=====================  ============================================================================================

One more neuron, the last, never receives anything. Its weight of 254 to itself keeps lava-dl from scaling the
weights, which would let Lava's clipping cut some of them.

What it cannot say is refused, with every reason at once: negative exponents (so most networks with image input),
delays other than one step, populations of different leak, thresholds too far apart, blocks that lava-dl could not
hold in memory. Reset to zero and currents that decay as well, though a block's own neuron does both: it would have to
integrate in `v`, where a bias adds up, and the one threshold of the block would be that of all populations.

How to run it. lava-dl loads ``dense_rec`` blocks, but has no ProcessModel for them; `backends.netx_network` gives one.
`netx_frames` makes what the host must send, `netx_spikes` finds the populations in what the block sends back. Lava's
LIF keeps its state, so each sample takes a run of its own.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import h5py
import numpy as np

from fsnn_lava.errors import UnsupportedError
from fsnn_lava.files import write_whole
from fsnn_lava.hardware import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    STATE_PER_HALF_WEIGHT,
    STATE_PER_WEIGHT,
    Array,
    HardwareNetwork,
    IntegerNeuron,
    Population,
    Violation,
    check_inputs,
    linear_map,
)

SYNAPSE_LIMIT = 2**24
"""Most weights of a block, zeros too: lava-dl holds several copies of all of them, with 8 bytes each."""
_HIGHEST = 127
"""Largest weight, either sign, in weight units: lava-dl cuts even weights to -256 .. 254."""
_BIAS_LOWEST, _BIAS_HIGHEST = -4096, 4095
"""13 bits, in the threshold's unit."""
_RELAY_THRESHOLD = 127
"""2 V - 1 of a relay: half of what drives it."""

_Blocks = dict[tuple[str, str], Array]


@dataclass(frozen=True)
class NetxLayout:
    """Places of inputs, populations and relays in the one block.

    Parameters
    ----------
    copies : source -> how often its elements or neurons are there, one whole copy after the other.
    inputs : elements of the network's own input, all copies; they come first.
    always_on : further input elements, 1 from global step ``always_on_from`` on.
    first : population -> its first neuron in the block.
    relays : relay neurons, one number per step of distance to the first constant current; after the populations.
    neurons : of the block, relays and the last silent one included.
    steps : global steps of one sample.
    """

    copies: Mapping[str, int]
    inputs: int
    always_on: int
    always_on_from: int
    first: Mapping[str, int]
    relays: tuple[int, ...]
    neurons: int
    steps: int

    @property
    def elements(self) -> int:
        """Size of what the host sends."""
        return self.inputs + self.always_on


def write_netx(network: HardwareNetwork, path: str | Path) -> Path:
    """Write a network as a netx file and return its path; after an error the file is as it was before.

    Parameters
    ----------
    network : integers, in the hardware's timing.

    Raises
    ------
    UnsupportedError : naming everything that a netx file cannot say of this network.
    OutputError : if the file cannot be written.
    """
    violations = netx_violations(network)
    if violations:
        listed = "\n  ".join(map(str, violations))
        raise UnsupportedError(
            f'netx cannot say network "{network.name}", {len(violations)} violation(s); nothing was written:\n'
            f"  {listed}"
        )
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        _write(file, network)
    write_whole(Path(path), image.getvalue())
    return Path(path)


def netx_layout(network: HardwareNetwork) -> NetxLayout:
    """Lay out populations, relays and constant currents in one block; see the module's docstring."""
    return _layout(network, _copies(network, _blocks(network)))


def netx_frames(network: HardwareNetwork, inputs: Array) -> Array:
    """Make the frames that the host sends to the block, (steps, B, elements) int32, one a global step.

    Parameters
    ----------
    inputs : as a backend takes them.

    Raises
    ------
    InputError : if the inputs do not fit the network.
    """
    samples = check_inputs(network, inputs)
    layout, steps = netx_layout(network), network.time_steps
    frames = np.zeros((layout.steps, samples, layout.elements), np.int32)
    event = network.input.kind == "event"
    flat = inputs.reshape(*((steps,) if event else ()), samples, network.input.size)
    frames[:steps, :, : layout.inputs] = np.concatenate([flat] * layout.copies[INPUT], axis=-1)
    frames[layout.always_on_from :, :, layout.inputs :] = 1
    return frames


def netx_spikes(network: HardwareNetwork, output: Array) -> dict[str, Array]:
    """Find each population's spikes, (T, B, *N) uint8 in its window, in what the block sent, (steps, B, neurons)."""
    layout = netx_layout(network)

    def window(p: Population) -> Array:
        first = layout.first[p.name]
        part = output[p.start : p.start + network.time_steps, :, first : first + p.size]
        return np.asarray(part.reshape(*part.shape[:2], *p.shape), np.uint8)

    return {p.name: window(p) for p in network.populations}


def netx_violations(network: HardwareNetwork) -> list[Violation]:
    """Reasons why netx cannot express the network; empty if it can."""
    if network.arithmetic != "integer":
        return [Violation("arithmetic", network.arithmetic, "integer: quantize the network first")]
    found = [v for p in network.populations for v in _population_violations(network, p)]
    found += _connection_violations(network)
    thresholds = _thresholds(network, _layout(network, _single(network)))
    if max(thresholds) - min(thresholds) > _BIAS_HIGHEST - _BIAS_LOWEST:
        lowest, highest = (min(thresholds) + 1) // 2, (max(thresholds) + 1) // 2
        allowed = f"a difference of at most {(_BIAS_HIGHEST - _BIAS_LOWEST) // 2} weight units"
        found.append(Violation("populations", f"thresholds from {lowest} to {highest}", allowed))
    return found + _size_violations(network)


def _population_violations(network: HardwareNetwork, population: Population) -> list[Violation]:
    where, found = f'population "{population.name}"', []
    decay, common = _neuron(population).decay, _neuron(network.populations[0]).decay
    if decay != common:
        allowed = f'{common}, that of "{network.populations[0].name}": one leak for the block'
        found.append(Violation(where, f"decay {decay}", allowed))
    if _neuron(population).reset != "subtract":
        allowed = "reset by subtraction: in a block whose neurons integrate in v, all have one threshold"
        found.append(Violation(where, "reset to zero", allowed))
    if _neuron(population).has_memory_of_current:
        memory = f"current_decay {_neuron(population).current_decay}"
        found.append(Violation(where, memory, f"{DECAY_UNITY}, no memory: the block integrates in its current"))
    if population.start < 1:
        found.append(Violation(where, f"start {population.start}", "at least 1: what arrives takes a step"))
    return found


def _connection_violations(network: HardwareNetwork) -> list[Violation]:
    found = []
    for c in network.connections:
        if c.source != ALWAYS_ON and c.delay != 1:
            found.append(Violation(c.label, f"delay {c.delay}", "1 step"))
        if c.weight_exponent < 0:
            allowed = "0 and more: netx has no fractions of weights; those of spikes are avoided by --exponents input"
            found.append(Violation(c.label, f"weight exponent {c.weight_exponent}", allowed))
        if c.period != 1:
            allowed = "1: netx has no clock; avoided by --exponents input or --currents whole"
            found.append(Violation(c.label, f"period {c.period}", allowed))
    return found


def _size_violations(network: HardwareNetwork) -> list[Violation]:
    """A block that is too large, without or, as large weights need them, with copies."""
    layout = _layout(network, _single(network))
    if _synapses(layout) <= SYNAPSE_LIMIT:  # so it can be unrolled
        layout = netx_layout(network)
    if _synapses(layout) <= SYNAPSE_LIMIT:
        return []
    several = [f'{count} copies of "{name}"' for name, count in layout.copies.items() if count > 1]
    with_copies = f" (with {', '.join(several)} for weights above {_HIGHEST} units)" if several else ""
    found = f"{layout.elements} inputs, {layout.neurons} neurons{with_copies}: {_synapses(layout)} weights in one block"
    return [Violation("network", found, f"at most {SYNAPSE_LIMIT}")]


def _synapses(layout: NetxLayout) -> int:
    return layout.neurons * (layout.neurons + layout.elements)


def _neuron(population: Population) -> IntegerNeuron:
    assert isinstance(population.neuron, IntegerNeuron)
    return population.neuron


def _threshold(population: Population) -> int:
    """The threshold in Lava's unit, 2 V - 1."""
    return _neuron(population).fires_above // STATE_PER_HALF_WEIGHT


def _constant_currents(network: HardwareNetwork) -> dict[str, Array]:
    """Population -> (N,) int64, weight units."""
    currents = {p.name: np.zeros(p.size, np.int64) for p in network.populations}
    for c in network.connections:
        if c.source == ALWAYS_ON:
            currents[c.target] += c.weight[:, 0].astype(np.int64) << c.weight_exponent
    return currents


def _blocks(network: HardwareNetwork) -> _Blocks:
    """(source, target) -> (N_target, N_source) int64: all connections between them, and the reset synapses."""
    blocks = {(p.name, p.name): -_neuron(p).reset_synapse * np.eye(p.size, dtype=np.int64) for p in network.populations}
    for c in network.connections:
        if c.source != ALWAYS_ON and c.weight_exponent >= 0:
            weight = linear_map(network, c).unrolled().toarray().astype(np.int64) << c.weight_exponent
            blocks[c.source, c.target] = blocks.get((c.source, c.target), 0) + weight
    return blocks


def _single(network: HardwareNetwork) -> dict[str, int]:
    return {INPUT: 1} | {p.name: 1 for p in network.populations}


def _copies(network: HardwareNetwork, blocks: _Blocks) -> dict[str, int]:
    """Source -> how many copies its largest weight needs."""
    copies = _single(network)
    for (source, _), block in blocks.items():
        copies[source] = max(copies[source], ceil(np.abs(block).max() / _HIGHEST))
    return copies


def _layout(network: HardwareNetwork, copies: Mapping[str, int]) -> NetxLayout:
    currents = _constant_currents(network)
    columns = {p.name: ceil(np.abs(currents[p.name]).max() / _HIGHEST) for p in network.populations}
    constant = [p for p in network.populations if columns[p.name]]
    begin = min((p.start for p in constant), default=1)
    needed = [0] * (max((p.start for p in constant), default=begin) - begin + 1)
    for p in constant:
        needed[p.start - begin] = max(needed[p.start - begin], columns[p.name])
    chain = [max(n, 1) if i + 1 < len(needed) else n for i, n in enumerate(needed)]
    first, total = {}, 0
    for p in network.populations:
        first[p.name], total = total, total + p.size * copies[p.name]
    steps = max(p.start for p in network.populations) + network.time_steps
    neurons, inputs = total + sum(chain[1:]) + 1, network.input.size * copies[INPUT]
    return NetxLayout(dict(copies), inputs, chain[0], begin - 1, first, tuple(chain[1:]), neurons, steps)


def _matrices(network: HardwareNetwork, blocks: _Blocks, layout: NetxLayout) -> tuple[Array, Array]:
    """(neurons, elements) and (neurons, neurons) int64, weight units: from the input, and among the neurons."""
    weight = np.zeros((layout.neurons, layout.elements), np.int64)
    recurrent = np.zeros((layout.neurons, layout.neurons), np.int64)
    rows = {p.name: _rows(layout, p) for p in network.populations}
    for (source, target), block in blocks.items():
        shared = np.tile(_shared(block, layout.copies[source]), (layout.copies[target], 1))
        if source == INPUT:
            weight[rows[target], : layout.inputs] = shared
        else:
            recurrent[rows[target], rows[source]] = shared
    always_on, stages = weight[:, layout.inputs :], _relay_stages(layout)
    for p in network.populations:
        stage = p.start - 1 - layout.always_on_from
        current = _constant_currents(network)[p.name]
        if current.any():
            columns = always_on if stage == 0 else recurrent[:, stages[stage - 1]]
            shared = _shared(current[:, None], columns.shape[1])
            columns[rows[p.name]] = np.tile(shared, (layout.copies[p.name], 1))
    for i, stage_rows in enumerate(stages):
        columns = always_on if i == 0 else recurrent[:, stages[i - 1]]
        columns[stage_rows, 0] = _HIGHEST
        recurrent[stage_rows, stage_rows] = -_relay_reset(network) * np.eye(layout.relays[i], dtype=np.int64)
    recurrent[-1, -1] = _HIGHEST
    return weight, recurrent


def _rows(layout: NetxLayout, population: Population) -> slice:
    first = layout.first[population.name]
    return slice(first, first + population.size * layout.copies[population.name])


def _shared(block: Array, copies: int) -> Array:
    """Share weights (N_target, N_source) among copies, each up to its largest weight: (N_target, copies * N_source)."""
    shares, left = [], block
    for _ in range(copies):
        shares.append(np.clip(left, -_HIGHEST, _HIGHEST))
        left = left - shares[-1]
    assert not left.any()
    return np.concatenate(shares, axis=1)


def _relay_stages(layout: NetxLayout) -> list[slice]:
    """The neurons of each stage of relays."""
    end = layout.neurons - 1
    starts = [end - sum(layout.relays[i:]) for i in range(len(layout.relays))]
    return [slice(start, start + n) for start, n in zip(starts, layout.relays, strict=True)]


def _relay_reset(network: HardwareNetwork) -> int:
    """Weight units that keep a relay, driven in every step, near its first potential, which is above its threshold."""
    driven = np.asarray(_HIGHEST * STATE_PER_WEIGHT)
    return int(_neuron(network.populations[0]).leaked(driven)) // STATE_PER_WEIGHT


def _thresholds(network: HardwareNetwork, layout: NetxLayout) -> list[int]:
    """2 V - 1 of everything that fires."""
    own = [_threshold(p) for p in network.populations]
    return [*own, _RELAY_THRESHOLD] if layout.relays else own


def _write(file: h5py.File, network: HardwareNetwork) -> None:
    blocks = _blocks(network)
    layout = _layout(network, _copies(network, blocks))
    thresholds, (weight, recurrent) = _thresholds(network, layout), _matrices(network, blocks, layout)
    common = min(max(thresholds), min(thresholds) + _BIAS_HIGHEST)
    bias = np.zeros(layout.neurons, np.int32)
    for p in network.populations:
        bias[_rows(layout, p)] = common - _threshold(p)
    for rows in _relay_stages(layout):
        bias[rows] = common - _RELAY_THRESHOLD
    file.attrs["fsnn_lava"] = json.dumps({"network": network.name, "time_steps": network.time_steps} | asdict(layout))
    source, block = file.create_group("layer/0"), file.create_group("layer/1")
    source["type"], source["shape"] = np.bytes_("input"), np.array([layout.elements], np.int32)
    block["type"], block["shape"] = np.bytes_("dense_rec"), np.array([layout.neurons], np.int32)
    for name, values in (("weight", 2 * weight), ("weight_rec", 2 * recurrent)):
        block.create_dataset(name, data=values.astype(np.int16), compression="gzip")
    block["bias"] = bias
    neuron = block.create_group("neuron")
    neuron["type"] = np.bytes_("CUBA")
    parameters = {"iDecay": _neuron(network.populations[0]).decay, "vDecay": DECAY_UNITY, "vThMant": common}
    for name, value in (parameters | {"refDelay": 1, "gradedSpike": 0}).items():
        neuron[name] = np.int32(value)
