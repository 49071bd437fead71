"""The invariants of a hardware network, each by its message, and what its two timings mean."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import reference_simulator as reference
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.errors import NetworkError
from fsnn_lava.hardware import with_timing
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.network_file import save_network
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron, Neuron
from fsnn_lava.hardware.overflow_proof import potential_bounds
from networks import small_float_network, worked_example

INTEGER = IntegerNeuron(300, 150, 1, 205, 0.5)
FLOAT = FloatNeuron(1.0, 2.0, 0.95)
EVENTS = InputSpec((4,), "event", 1)


def chain(neuron: Neuron = INTEGER) -> HardwareNetwork:
    """Input -> a -> b -> c, feedback c -> a, b to itself, a skip a -> c, a constant current for b. Sequential."""
    integer = isinstance(neuron, IntegerNeuron)

    def connection(source: str, target: str, weight: Array, delay: int = 0) -> Connection:
        dtype = np.int32 if integer else np.float64
        return Connection(f"{source}-{target}", source, target, weight.astype(dtype), delay, 0, 8 if integer else 0)

    return HardwareNetwork(
        "chain",
        InputSpec((2, 2), "graded", 255),
        (Population("a", (3,), neuron), Population("b", (5,), neuron), Population("c", (2,), neuron)),
        (
            connection(INPUT, "a", np.ones((3, 4))),
            connection("a", "b", np.ones((5, 3))),
            connection("b", "c", np.ones((2, 5))),
            connection("c", "a", np.ones((3, 2)), 1),
            connection("b", "b", np.ones((5, 5)), 1),
            connection("a", "c", np.ones((2, 3))),
            connection(ALWAYS_ON, "b", np.ones((5, 1))),
        ),
        Readout("c", np.ones((10, 2)), np.zeros(10)),
        30,
    )


def with_population(base: Neuron = INTEGER, /, **changes: Any) -> dict[str, Any]:
    a, *others = chain(base).populations
    return {"populations": (replace(a, **changes), *others)}


def with_neuron(neuron: Neuron = INTEGER, /, **changes: Any) -> dict[str, Any]:
    return with_population(neuron, neuron=replace(neuron, **changes))


def with_connection(index: int = 1, *, neuron: Neuron = INTEGER, **changes: Any) -> dict[str, Any]:
    connections = list(chain(neuron).connections)
    connections[index] = replace(connections[index], **changes)
    return {"connections": tuple(connections)}


def with_readout(**changes: Any) -> dict[str, Any]:
    return {"readout": replace(chain().readout, **changes)}


# Each: what to change in the chain of integer neurons, and the violation that follows.
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no steps": ({"time_steps": 0}, r"time_steps: found 0; allowed: at least 1"),
    "dark input": (
        {"input": InputSpec((2, 2), "graded", 0)},
        r"input: found maximum 0; allowed: 1 for events, at least 1 for graded",
    ),
    "graded events": ({"input": InputSpec((2, 2), "event", 2)}, r"input: found maximum 2; allowed: 1 for events"),
    "nothing": ({"populations": (), "connections": ()}, r"populations: found none; allowed: at least one"),
    "same name": (
        with_population(name="b"),
        r"populations: found names \['b', 'b', 'c'\]; allowed: unique names other",
    ),
    "reserved name": (
        with_population(name=INPUT),
        r"found names \['input', 'b', 'c'\]; .* other than \"input\", \"always_on\"",
    ),
    "mixture": (
        with_population(neuron=FLOAT),
        r"populations: found floats and integers mixed; allowed: one arithmetic",
    ),
    "no neuron": (with_population(shape=(0, 3)), r'population "a": found shape \(0, 3\); allowed: sides of at least 1'),
    "negative sides": (with_population(shape=(-1, -5)), r"found shape \(-1, -5\); allowed: sides of at least 1"),
    "empty input": ({"input": InputSpec((-2, -2), "graded", 1)}, r"input: found shape \(-2, -2\); allowed: sides of"),
    "strange input": ({"input": InputSpec((2, 2), "sound", 1)}, r'input: found kind "sound"; allowed: "graded" or'),
    "early start": (with_population(start=-1), r'population "a": found start -1; allowed: a step >= 0'),
    "no threshold": (with_neuron(v_threshold=0), r'population "a": found v_threshold 0; allowed: 1 .. 65536'),
    "high threshold": (with_neuron(v_threshold=65537), r"found v_threshold 65537; allowed: 1 .. 65536"),
    "no reset": (with_neuron(reset_mantissa=0), r"found reset_mantissa 0; allowed: 1 .. 255"),
    "large reset": (with_neuron(reset_mantissa=256), r"found reset_mantissa 256; allowed: 1 .. 255"),
    "reset exponent": (with_neuron(reset_exponent=8), r"found reset_exponent 8; allowed: 0 .. 7"),
    "decay": (with_neuron(decay=4096), r"found decay 4096; allowed: 0 .. 4095"),
    "negative decay": (with_neuron(decay=-1), r"found decay -1; allowed: 0 .. 4095"),
    "scale": (with_neuron(scale=float("nan")), r"found scale nan; allowed: a finite number > 0"),
    "no source": (
        with_connection(source="z"),
        r'connection "a-b" \(z -> b\): found an end that does not exist; '
        r"allowed: sources \['a', 'always_on', 'b', 'c', 'input'\], targets \['a', 'b', 'c'\]",
    ),
    "into the input": (
        with_connection(target=INPUT),
        r'connection "a-b" \(a -> input\): found an end that does not exist',
    ),
    "shape": (
        with_connection(weight=np.ones((3, 5), np.int32)),
        r'connection "a-b" \(a -> b\): found weight of shape \(3, 5\); allowed: \(target, source\) = \(5, 3\)',
    ),
    "negative delay": (with_connection(delay=-1), r"found delay -1; allowed: at least 0; 0 from \"always_on\""),
    "late constant": (with_connection(6, delay=1), r"\(always_on -> b\): found delay 1; allowed: at least 0; 0 from"),
    "odd period": (
        with_connection(6, period=3),
        r"\(always_on -> b\): found period 3; allowed: 1, or up to 128 a power",
    ),
    "long period": (with_connection(6, period=256), r"found period 256; allowed: 1, or up to 128 a power of two from"),
    "no period": (with_connection(6, period=0), r"found period 0; allowed: 1, or up to 128 a power of two"),
    "periodic spikes": (with_connection(period=2), r'connection "a-b" \(a -> b\): found period 2; allowed: 1, or'),
    "before its window": (
        with_population(start=3) | with_connection(0, delay=1),
        r"\(input -> a\): found arrival 2 steps before the target's window; allowed: delay \+ start within it",
    ),
    "float weights": (
        with_connection(weight=np.ones((5, 3))),
        r"found weights of type float64; allowed: int32 mantissas",
    ),
    "no bits": (with_connection(weight_bits=1), r"found 1 weight bit; allowed: 2 .. 8"),
    "nine bits": (with_connection(weight_bits=9), r"found 9 weight bits; allowed: 2 .. 8"),
    "mantissas": (
        with_connection(weight_bits=4, weight=np.full((5, 3), 8, np.int32)),
        r"found 15 mantissas out of range; allowed: -8 .. 7",
    ),
    "low mantissa": (
        with_connection(weight=np.array([[-128, -129, 0]] * 5, np.int32)),
        r"found 5 mantissas out of range; allowed: -128 .. 127",
    ),
    "exponent of spikes": (with_connection(weight_exponent=-9), r"found weight exponent -9; allowed: -8 .. 7"),
    "exponent of constants": (with_connection(6, weight_exponent=-1), r"found weight exponent -1; allowed: 0 .. 7"),
    "exponent of codes": (with_connection(0, weight_exponent=-9), r"found weight exponent -9; allowed: -8 .. 7"),
    "exponent of events": (
        with_connection(0, weight_exponent=-9) | {"input": EVENTS},
        r"found weight exponent -9; allowed: -8 .. 7",
    ),
    "readout of nothing": (with_readout(source="z"), r"readout: found source \"z\"; allowed: one of \['a', 'b', 'c'\]"),
    "readout shape": (
        with_readout(bias=np.zeros(9)),
        r"readout: found weight \(10, 2\), bias \(9,\); allowed: \(classes, 2\) and \(classes,\)",
    ),
    "readout of float32": (
        with_readout(bias=np.zeros(10, np.float32)),
        r"readout: found weight float64, bias float32; allowed: float64",
    ),
    "readout of infinity": (with_readout(bias=np.full(10, np.inf)), r"readout: found values that are not finite"),
    "immediate feedback": (
        with_connection(3, delay=0),
        r'connection "c-a" \(c -> a\): found feedback without any delay; allowed: at least 1 step',
    ),
    "immediate recurrence": (with_connection(4, delay=0), r"\(b -> b\): found feedback without any delay"),
}

BROKEN_FLOAT: dict[str, tuple[dict[str, Any], str]] = {
    "threshold": (
        with_neuron(FLOAT, v_threshold=0.0),
        r'population "a": found v_threshold 0.0; allowed: a finite number',
    ),
    "reset": (with_neuron(FLOAT, reset_amount=float("inf")), r"found reset_amount inf; allowed: a finite number > 0"),
    "leak": (with_neuron(FLOAT, leak=1.5), r"found leak 1.5; allowed: 0 < leak <= 1"),
    "no leak": (with_neuron(FLOAT, leak=0.0), r"found leak 0.0; allowed: 0 < leak <= 1"),
    "float32": (
        with_connection(neuron=FLOAT, weight=np.ones((5, 3), np.float32)),
        r"found float32, exponent 0, 0 bits; allowed: float64 without exponent and bits in a float network",
    ),
    "exponent": (with_connection(neuron=FLOAT, weight_exponent=1), r"found float64, exponent 1, 0 bits"),
    "NaN": (
        with_connection(neuron=FLOAT, weight=np.array([[1.0, np.nan, np.inf]] * 5)),
        r"found weights that are not finite: 10; allowed: finite numbers",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_broken_invariants_of_integer_networks(rule: str) -> None:
    changes, message = BROKEN[rule]
    with pytest.raises(NetworkError, match=r'network "chain" breaks \d+ invariant\(s\):(.|\n)*' + message):
        replace(chain(), **changes)


@pytest.mark.parametrize("rule", BROKEN_FLOAT)
def test_broken_invariants_of_float_networks(rule: str) -> None:
    changes, message = BROKEN_FLOAT[rule]
    with pytest.raises(NetworkError, match=r'network "chain" breaks \d+ invariant\(s\):(.|\n)*' + message):
        replace(chain(FLOAT), **changes)


def test_every_broken_invariant_is_named_at_once() -> None:
    with pytest.raises(NetworkError) as caught:
        replace(
            chain(), time_steps=0, **with_neuron(decay=5000), **with_connection(source="z"), **with_readout(source="y")
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == 'network "chain" breaks 4 invariant(s):'
    named = [line.split(":")[0].strip() for line in lines[1:]]
    assert named == ["time_steps", 'population "a"', 'connection "a-b" (z -> b)', "readout"]


def test_derived_values_of_an_integer_neuron() -> None:
    neuron = IntegerNeuron(300, 75, 2, 1024, 0.5)
    assert neuron.reset_synapse == 300
    assert neuron.leak == 0.75
    assert neuron.reset_amount == 400.0


def test_arithmetic_sizes_and_look_up() -> None:
    assert chain().arithmetic == "integer"
    assert chain(FLOAT).arithmetic == "float"
    assert chain().input.size == 4
    assert chain().population("b").size == 5
    assert [c.name for c in chain().incoming("b")] == ["a-b", "b-b", "always_on-b"]
    with pytest.raises(NetworkError, match=r'network "chain": no population "z"; there are: a, b, c'):
        chain().population("z")


def table(network: HardwareNetwork, *, local: bool) -> dict[str, int]:
    return {c.name: network.local_delay(c) if local else c.delay for c in network.connections}


def test_hardware_timing_of_a_chain_of_three() -> None:
    """Windows start at 1, 2, 3; every step to the next takes 1; seen locally, feedback is three steps late."""
    network = with_timing(chain(), "hardware")
    assert [p.start for p in network.populations] == [1, 2, 3]
    delays = {"input-a": 1, "a-b": 1, "b-c": 1, "c-a": 1, "b-b": 1, "a-c": 2, "always_on-b": 0}
    assert table(network, local=False) == delays
    local = {"input-a": 0, "a-b": 0, "b-c": 0, "c-a": 3, "b-b": 1, "a-c": 0, "always_on-b": 0}
    assert table(network, local=True) == local


def test_sequential_timing_of_a_chain_of_three() -> None:
    """All windows start at 0; feedback takes one step, everything else none. Local and global delays are the same."""
    network = with_timing(with_timing(chain(), "hardware"), "sequential")
    assert [p.start for p in network.populations] == [0, 0, 0]
    delays = {"input-a": 0, "a-b": 0, "b-c": 0, "c-a": 1, "b-b": 1, "a-c": 0, "always_on-b": 0}
    assert table(network, local=False) == delays
    assert table(network, local=True) == delays


def test_timings_of_one_population_are_the_same_locally() -> None:
    """For N = 1 the loop delay is 1 either way."""
    population = Population("a", (3,), INTEGER)
    weight = np.ones((3, 3), np.int32)
    connections = (
        Connection("in", INPUT, "a", np.ones((3, 4), np.int32), 0, 0, 8),
        Connection("fb", "a", "a", weight, 1, 0, 8),
    )
    readout = Readout("a", np.ones((2, 3)), np.zeros(2))
    network = HardwareNetwork("one", InputSpec((4,), "graded", 255), (population,), connections, readout, 5)
    both = [table(with_timing(network, timing), local=True) for timing in ("sequential", "hardware")]
    assert both == [{"in": 0, "fb": 1}] * 2


def test_timing_changes_nothing_but_starts_and_delays() -> None:
    before = chain()
    after = with_timing(before, "hardware")
    for field in ("name", "input", "readout", "time_steps", "provenance"):
        assert getattr(before, field) is getattr(after, field)
    for c, d in zip(before.connections, after.connections, strict=True):
        assert replace(c, delay=d.delay).weight is d.weight
        assert (c.name, c.source, c.target, c.weight_bits) == (d.name, d.source, d.target, d.weight_bits)
    for p, q in zip(before.populations, after.populations, strict=True):
        assert replace(p, start=q.start) == q


def test_longer_delays_are_counted_from_both_windows() -> None:
    """A window that opens at 2, reached from one that opens at 5 over 4 steps: 7 steps late."""
    network = replace(
        chain(),
        populations=tuple(replace(p, start=s) for p, s in zip(chain().populations, (2, 2, 5), strict=True)),
        connections=tuple(replace(c, delay=d) for c, d in zip(chain().connections, (2, 3, 3, 4, 1, 6, 0), strict=True)),
    )
    local = {"input-a": 0, "a-b": 3, "b-c": 0, "c-a": 7, "b-b": 1, "a-c": 3, "always_on-b": 0}
    assert table(network, local=True) == local


def test_law_of_an_integer_neuron_by_hand() -> None:
    """V = 300, rho = 150 << 1, decay 205: theta = 64 * 599; 128 rho; 1000 * 3891 / 4096 = 949.95, towards zero."""
    assert INTEGER.fires_above == 38336
    assert INTEGER.reset_state == 38400
    assert INTEGER.leaked(np.array([1000, -1000, 0, 1])).tolist() == [949, -949, 0, 0]


@pytest.mark.parametrize(("spec", "axis"), [(InputSpec((2,), "graded", 9), 0), (EVENTS, 1)])
def test_samples_are_taken_along_the_batch(spec: InputSpec, axis: int) -> None:
    inputs = np.arange(60).reshape((5, *spec.shape, 6) if axis == 0 else (3, 5, *spec.shape))
    assert spec.batch_axis == axis
    assert spec.samples(inputs) == 5
    np.testing.assert_array_equal(spec.take(inputs, slice(1, 3)), inputs.take([1, 2], axis))
    np.testing.assert_array_equal(spec.take(inputs, np.array([4, 0])), inputs.take([4, 0], axis))
    assert np.shares_memory(spec.take(inputs, slice(1, 3)), inputs)


PAGE = Path(__file__).parents[2] / "docs" / "network-format.md"


def test_worked_example_of_the_page(tmp_path: Path) -> None:
    """Every potential and spike of its last table, the rates and the bound; simulator and reader agree with it."""
    cells = re.findall(
        r"^\| (\d) \| (-?\d+)( \*)? \| (-?\d+)( \*)? \| (-?\d+)( \*)? \|$", PAGE.read_text(), re.MULTILINE
    )
    assert [row[0] for row in cells] == ["0", "1", "2"]
    potentials = np.array([[int(row[k]) for k in (1, 3, 5)] for row in cells])
    spikes = np.array([[bool(row[k]) for k in (2, 4, 6)] for row in cells])

    save_network(worked_example(), tmp_path / "network.h5")
    read_spikes, read_potentials = reference.simulate(reference.read(tmp_path / "network.h5"), [100, 40])
    assert np.array_equal(np.hstack([read_potentials["a"], read_potentials["b"]]), potentials)
    assert np.array_equal(np.hstack([read_spikes["a"], read_spikes["b"]]), spikes)

    result = IntegerSimulator().run(worked_example(), np.array([[100, 40]]), record=["a", "b"])
    assert np.array_equal(np.hstack([result.spikes["a"][:, 0], result.spikes["b"][:, 0]]), spikes)
    assert result.firing_rates["a"][0].round(4).tolist() == [0.6752, 0.4297]
    assert result.firing_rates["b"][0].tolist() == [2 / 3]
    assert [b.tolist() for b in potential_bounds(worked_example())["b"]] == [[-63], [1984]]
    for stated in ("= 0.6752 and", "= 0.4297.", "The rate of b is 2/3.", "-63 .. 1984"):
        assert stated in PAGE.read_text()


def with_pulses() -> HardwareNetwork:
    network = worked_example()
    connections = tuple(replace(c, period=2) if c.source == ALWAYS_ON else c for c in network.connections)
    return replace(network, connections=connections)


def that_resets_to_zero(network: HardwareNetwork) -> HardwareNetwork:
    populations = tuple(replace(p, neuron=replace(p.neuron, reset="zero")) for p in network.populations)
    return replace(network, populations=populations)


@pytest.mark.parametrize(
    "network",
    [
        worked_example(),
        with_pulses(),
        small_float_network(),
        that_resets_to_zero(worked_example()),
        that_resets_to_zero(small_float_network()),
    ],
    ids=["integer", "pulses", "float", "integer, to zero", "float, to zero"],
)
def test_page_names_every_entry(network: HardwareNetwork, tmp_path: Path) -> None:
    save_network(network, tmp_path / "network.h5")
    stated = set(re.findall(r"^\| .*?\| `(\w+)` \| (?:text|int64|float64|dataset)", PAGE.read_text(), re.MULTILINE))
    found: set[str] = set()

    def collect(_: str, item: Any) -> None:
        found.update(item.attrs)
        found.update(key for key in getattr(item, "keys", list)() if isinstance(item[key], h5py.Dataset))

    with h5py.File(tmp_path / "network.h5", "r") as file:
        collect("/", file)
        file.visititems(collect)
    only = {
        "integer": {"reset_amount", "leak", "current_leak"},
        "float": {"reset_mantissa", "reset_exponent", "decay", "scale", "current_decay"},
    }
    pulses, to_zero = any(c.period > 1 for c in network.connections), network.populations[0].neuron.reset == "zero"
    later = set() if pulses or to_zero else {"period"}
    later |= set() if to_zero else {"reset", "current_decay", "current_leak"}
    assert found == stated - only[network.arithmetic] - later


def test_checksum_is_the_one_that_the_page_describes(tmp_path: Path) -> None:
    """Written from the page: label, kind, sizes, data of every entry."""
    save_network(worked_example(), tmp_path / "network.h5")
    entries: dict[bytes, bytes] = {}

    def add(label: str, value: Any) -> None:
        text = isinstance(value, bytes)
        kind = "text" if text else value.dtype.name
        data = value if text else value.astype(value.dtype.newbyteorder("<")).tobytes()
        sizes = str(len(data)) if text else ",".join(str(n) for n in value.shape)
        entries[label.encode()] = hashlib.sha256(f"{label}\0{kind}\0{sizes}\0".encode() + data).digest()

    def visit(name: str, item: Any) -> None:
        for key, value in item.attrs.items():
            if key != "checksum":
                add(f"/{name}@{key}", value)
        if isinstance(item, h5py.Dataset):
            add(f"/{name}", item[()])

    with h5py.File(tmp_path / "network.h5", "r") as file:
        visit("", file)
        file.visititems(visit)
        stated = file.attrs["checksum"].decode()
    assert hashlib.sha256(b"".join(entries[label] for label in sorted(entries))).hexdigest() == stated
