"""Netx files: lava-dl loads and runs them with the same spikes; what cannot be written is refused, all at once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fsnn_lava.backends.lava.worker_process import run_isolated
from fsnn_lava.conversion import write_netx
from fsnn_lava.conversion.netx_write import SYNAPSE_LIMIT, netx_frames, netx_layout, netx_spikes, netx_violations
from fsnn_lava.errors import InputError, OutputError, UnsupportedError
from fsnn_lava.hardware.geometry import Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron
from random_networks import reference_spikes


def drawn(rng: np.random.Generator, rows: int, columns: int, low: int = -30, high: int = 40) -> Array:
    return rng.integers(low, high, (rows, columns)).astype(np.int32)


def connection(
    source: str, target: str, weight: Any, *, delay: int = 1, exponent: int = 0, **geometry: Any
) -> Connection:
    delay = 0 if source == ALWAYS_ON else delay
    weight = np.asarray(weight, np.int32)
    return Connection(f"{source} to {target}", source, target, weight, delay, exponent, 8, **geometry)


def network(
    populations: tuple[Population, ...], connections: tuple[Connection, ...], *, spec: InputSpec, time_steps: int = 25
) -> HardwareNetwork:
    size = populations[0].size
    readout = Readout(populations[0].name, np.ones((2, size)), np.zeros(2))
    return HardwareNetwork("net", spec, populations, connections, readout, time_steps)


def chain(seed: int, *, decay: int, kind: Any = "event", feedback: bool = True, shift: int = 0) -> HardwareNetwork:
    """Three populations with constant currents of several sizes, thresholds of their own, and feedback across."""
    rng = np.random.default_rng(seed)
    starts = {"a": 1, "b": 2, "c": 3}
    neurons = {"a": (100, 100), "b": (40, 70), "c": (900, 127)}
    populations = tuple(
        Population(n, (5 + i,), IntegerNeuron(*neurons[n], 0, decay, 1.0), starts[n]) for i, n in enumerate(starts)
    )
    graded = kind == "graded"
    connections = [
        connection(INPUT, "a", drawn(rng, 5, 4, -2, 3) if graded else drawn(rng, 5, 4)),
        connection("a", "b", drawn(rng, 6, 5)),
        connection("b", "c", drawn(rng, 7, 6), exponent=1),
        connection(ALWAYS_ON, "a", drawn(rng, 5, 1, -8, 20)),
        connection(ALWAYS_ON, "b", drawn(rng, 6, 1, -5, 3), exponent=1),
        connection(ALWAYS_ON, "c", drawn(rng, 7, 1, -80, 127), exponent=2),
        connection(ALWAYS_ON, "c", drawn(rng, 7, 1, -20, 60)),
    ]
    if feedback:
        connections += [
            connection("c", "a", drawn(rng, 5, 7)),
            connection("c", "b", drawn(rng, 6, 7)),
            connection("b", "b", drawn(rng, 6, 6, -20, 20)),
        ]
    spec = InputSpec((4,), kind, 12 if graded else 1)
    return shifted(network(populations, tuple(connections), spec=spec), shift)


def shifted(net: HardwareNetwork, shift: int) -> HardwareNetwork:
    """Thresholds, resets and weights 2**shift times as large: larger than one synapse can hold."""

    def larger(neuron: Any) -> IntegerNeuron:
        threshold, exponent = neuron.v_threshold << shift, neuron.reset_exponent + shift
        return replace(neuron, v_threshold=threshold, reset_exponent=exponent)

    populations = tuple(replace(p, neuron=larger(p.neuron)) for p in net.populations)
    connections = tuple(replace(c, weight_exponent=c.weight_exponent + shift) for c in net.connections)
    return replace(net, populations=populations, connections=connections)


def images(seed: int, *, shift: int = 0) -> HardwareNetwork:
    """A convolution from the input, another one, a transposed convolution back: all unrolled."""
    rng = np.random.default_rng(seed)
    neuron = IntegerNeuron(50, 50, 0, 0, 1.0)
    populations = (Population("a", (2, 4, 4), neuron, 1), Population("b", (3, 2, 2), neuron, 2))
    kernels = [rng.integers(-30, 40, shape).astype(np.int32) for shape in ((2, 1, 3, 3), (3, 2, 3, 3), (3, 2, 3, 3))]
    connections = (
        connection(INPUT, "a", kernels[0], geometry=Convolution(1, 1)),
        connection("a", "b", kernels[1], geometry=Convolution(2, 1)),
        connection("b", "a", kernels[2], geometry=TransposedConvolution(2, 1, 1)),
    )
    spec = InputSpec((1, 4, 4), "event", 1)
    return shifted(network(populations, connections, spec=spec, time_steps=12), shift)


def alone(*, reset: int, low: int, high: int, decay: int = 0) -> HardwareNetwork:
    """One population without feedback, whose recurrent weights are its resets alone."""
    rng = np.random.default_rng(3)
    weight = drawn(rng, 6, 9, low, high)
    neuron = IntegerNeuron(max(1, reset // 2), reset, 0, decay, 1.0)
    return network(
        (Population("a", (6,), neuron, 1),), (connection(INPUT, "a", weight),), spec=InputSpec((9,), "event", 1)
    )


CASES = {
    "IF chain with feedback": chain(0, decay=0),
    "LIF chain with feedback": chain(1, decay=205),
    "slow leak, graded input": chain(2, decay=1, kind="graded"),
    "no feedback": chain(4, decay=819, feedback=False),
    "convolutions": images(5),
    "resets of a power of two": alone(reset=64, low=-5, high=31),
    "largest weights": alone(reset=127, low=-127, high=128),
    "weights without a sign": alone(reset=19, low=0, high=4),
    "several copies": chain(6, decay=40, shift=2),
    "copies of all geometries": images(7, shift=3),
    "no more than its leak leaves": alone(reset=3, low=-1, high=4, decay=4095),
}


def inputs_for(net: HardwareNetwork, *, samples: int = 2) -> Array:
    rng = np.random.default_rng(7)
    leading = (net.time_steps, samples) if net.input.kind == "event" else (samples,)
    return rng.integers(0, net.input.maximum + 1, (*leading, *net.input.shape)).astype(np.uint8)


def run_with_lava_dl(paths: list[Path], networks: list[HardwareNetwork], inputs: list[Array]) -> list[Array]:
    jobs = []
    for path, net, codes in zip(paths, networks, inputs, strict=True):
        bits = 8 if net.input.kind == "graded" else 0
        jobs.append((str(path), netx_frames(net, codes), bits))
    answers: list[Any] = []

    def on_message(message: Any) -> bool:
        answers.append(message)
        return True

    run_isolated("netx_program", jobs, on_message=on_message, silence_s=300.0)
    kind, content = answers[0]
    assert kind == "done", content
    return list(content)


@pytest.mark.lava
def test_lava_dl_gives_the_same_spikes(tmp_path: Path) -> None:
    """Every step and population, against the plain-Python reference; the first network with two samples."""
    networks = list(CASES.values())
    inputs = [inputs_for(net, samples=2 if i == 0 else 1) for i, net in enumerate(networks)]
    paths = [write_netx(net, tmp_path / f"{i}.net") for i, net in enumerate(networks)]
    sent = run_with_lava_dl(paths, networks, inputs)
    for (name, net), codes, output in zip(CASES.items(), inputs, sent, strict=True):
        spikes = netx_spikes(net, output)
        expected = reference_spikes(net, codes)
        for p in net.populations:
            assert np.array_equal(spikes[p.name], expected[p.name]), f"{name}, population {p.name}"
        shares = [float(spikes[p.name].mean()) for p in net.populations]
        assert any(0.02 < share < 0.98 for share in shares), f"{name}: {shares}"
        assert not output[..., -1].any(), f"{name}: the last neuron is silent"


def test_the_block_holds_the_network(tmp_path: Path) -> None:
    path = write_netx(chain(0, decay=205), tmp_path / "n.net")
    layout = netx_layout(chain(0, decay=205))
    assert layout.first == {"a": 0, "b": 5, "c": 11}
    with h5py.File(path, "r") as file:
        assert json.loads(file.attrs["fsnn_lava"])["first"] == layout.first
        block = file["layer/1"]
        assert block["type"][()] == b"dense_rec"
        assert block["weight"].shape == (layout.neurons, layout.elements)
        recurrent = block["weight_rec"][()]
        assert recurrent.shape == (layout.neurons, layout.neurons)
        assert np.array_equal(np.diag(recurrent)[:5], [-200] * 5)
        assert {name: int(block["neuron"][name][()]) for name in ("iDecay", "vDecay", "vThMant")} == {
            "iDecay": 205,
            "vDecay": 4096,
            "vThMant": 1799,
        }
        assert np.array_equal(block["bias"][:11], [1600] * 5 + [1720] * 6)  # 2 V - 1 = 199 and 79


def test_large_weights_are_shared_by_copies(tmp_path: Path) -> None:
    net = chain(6, decay=40, shift=2)
    layout = netx_layout(net)
    assert layout.copies == {"input": 2, "a": 4, "b": 3, "c": 4}
    assert (layout.inputs, layout.first) == (8, {"a": 0, "b": 20, "c": 38})
    with h5py.File(write_netx(net, tmp_path / "n.net"), "r") as file:
        weight, recurrent = file["layer/1/weight"][()], file["layer/1/weight_rec"][()]
    assert np.array_equal(weight[:5, :4] + weight[:5, 4:8], 8 * net.connections[0].weight)
    assert np.array_equal(weight[5:10], weight[:5])  # copies receive the same
    assert recurrent[:20, :20].reshape(4, 5, 4, 5).sum(axis=2)[3].tolist() == (-800 * np.eye(5)).tolist()
    assert np.abs(recurrent).max() == 254
    frames = netx_frames(net, inputs_for(net))
    assert np.array_equal(frames[..., :4], frames[..., 4:8])


def test_large_constant_currents_are_shared_by_several_elements() -> None:
    net = chain(0, decay=0)
    fine, coarse = (
        c.weight[:, 0].astype(int) for c in reversed(net.connections) if (c.source, c.target) == (ALWAYS_ON, "c")
    )
    layout = netx_layout(net)
    assert layout.always_on == 1
    assert layout.relays == (1, int(np.ceil(np.abs(4 * coarse + fine).max() / 127)))
    assert layout.relays[1] >= 3
    assert layout.always_on_from == 0


def test_constant_currents_begin_with_the_first_window_that_has_one() -> None:
    net = chain(0, decay=0)
    late = replace(net, connections=tuple(c for c in net.connections if (c.source, c.target) != (ALWAYS_ON, "a")))
    assert netx_layout(late).always_on_from == 1
    frames = netx_frames(late, inputs_for(late))
    assert frames[:, 0, 4].tolist() == [0] + [1] * 27
    assert not frames[25:, :, :4].any()


def test_inputs_that_do_not_fit_are_refused() -> None:
    net = chain(0, decay=0)
    with pytest.raises(InputError, match="24 event frames per sample; the network runs 25 steps"):
        netx_frames(net, inputs_for(net)[1:])


def test_everything_that_cannot_be_said_is_named_at_once(tmp_path: Path) -> None:
    neurons = IntegerNeuron(100, 75, 1, 0, 1.0), IntegerNeuron(6000, 100, 0, 40, 1.0, "zero", 2048)
    populations = (Population("a", (3,), neurons[0], 0), Population("b", (2,), neurons[1], 2))
    connections = (
        connection(INPUT, "a", np.full((3, 4), 9), exponent=-3),
        connection("a", "b", np.full((2, 3), 100), delay=2, exponent=1),
        connection("b", "a", np.full((3, 2), 100)),
    )
    net = network(populations, connections, spec=InputSpec((4,), "graded", 255))
    path = tmp_path / "n.net"
    with pytest.raises(UnsupportedError) as caught:
        write_netx(net, path)
    assert not list(tmp_path.iterdir())
    message = str(caught.value)
    assert 'netx cannot say network "net", 7 violation(s); nothing was written' in message
    for expected in (
        'population "a": found start 0; allowed: at least 1',
        'population "b": found decay 40; allowed: 0, that of "a": one leak for the block',
        'population "b": found reset to zero; allowed: reset by subtraction: in a block whose neurons integrate in v',
        'population "b": found current_decay 2048; allowed: 4096, no memory: the block integrates in its current',
        'connection "a to b" (a -> b): found delay 2; allowed: 1 step',
        'connection "input to a" (input -> a): found weight exponent -3; allowed: 0 and more',
        "populations: found thresholds from 100 to 6000; allowed: a difference of at most 4095 weight units",
    ):
        assert expected in message


def test_floats_are_refused(tmp_path: Path) -> None:
    populations = (Population("a", (2,), FloatNeuron(1.0, 1.0, 1.0), 1),)
    net = network(populations, (Connection("in", INPUT, "a", np.ones((2, 3)), 1),), spec=InputSpec((3,), "event", 1))
    with pytest.raises(UnsupportedError, match="arithmetic: found float; allowed: integer: quantize the network first"):
        write_netx(net, tmp_path / "n.net")


def test_blocks_that_lava_dl_could_not_hold_are_refused() -> None:
    neuron = IntegerNeuron(1, 1, 0, 0, 1.0)
    kernel = np.ones((64, 1, 5, 5))
    convolution = connection(INPUT, "a", kernel, geometry=Convolution(2, 2))
    spec = InputSpec((1, 28, 28), "event", 1)
    net = network((Population("a", (64, 14, 14), neuron, 1),), (convolution,), spec=spec)
    found = [str(v) for v in netx_violations(net)]
    assert found == [
        f"network: found 784 inputs, 12545 neurons: 167212305 weights in one block; allowed: at most {SYNAPSE_LIMIT}"
    ]


def test_copies_that_large_weights_need_count(tmp_path: Path) -> None:
    neuron = IntegerNeuron(1, 127, 0, 0, 1.0)
    weight = np.full((1000, 4), 127)
    spec = InputSpec((4,), "event", 1)
    net = network((Population("a", (1000,), neuron, 1),), (connection(INPUT, "a", weight),), spec=spec)
    assert not netx_violations(net)
    assert [str(v) for v in netx_violations(shifted(net, 3))] == [
        'network: found 32 inputs, 8001 neurons (with 8 copies of "input", 8 copies of "a" for weights above 127 units)'
        ": 64272033 weights in one block; allowed: at most 16777216"
    ]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interruption_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    path = tmp_path / "n.net"
    path.write_bytes(b"before")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_netx(chain(0, decay=0), path)
    assert [p.name for p in tmp_path.iterdir()] == ["n.net"]
    assert path.read_bytes() == b"before"
