"""What the graph is made of: processes against the maps that they stand for, delays, joined parts, the readout."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lava.magma", reason="Lava is not installed")
from lava.magma.compiler.compiler_graphs import find_processes
from lava.magma.core.process.process import AbstractProcess
from lava.proc.conv.process import Conv
from lava.proc.conv.utils import conv
from lava.proc.dense.process import Dense
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.process import DelaySparse, Sparse

from fsnn_lava.backends import finished_samples as finished
from fsnn_lava.backends.lava import stock_processes as processes
from fsnn_lava.backends.lava.build_graph import Graph, build_graph
from fsnn_lava.backends.lava.lava_format import from_lava, lava_shape, to_lava
from fsnn_lava.backends.lava.models.fast_connections import FastConv
from fsnn_lava.backends.lava.models.fast_models import CONNECTION_MODELS
from fsnn_lava.backends.lava.runner import LavaRunner
from fsnn_lava.backends.lava.sample_ring import GraphJob, SampleRing
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, Geometry, TransposedConvolution
from fsnn_lava.hardware.integrating_readout import integrate, quantize_readout
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron
from random_networks import random_case
from side_by_side import run_side_by_side

pytestmark = pytest.mark.lava

NEURON = IntegerNeuron(100, 100, 0, 0, 1.0)
SOURCE = (2, 5, 7)
GEOMETRIES: dict[str, tuple[Geometry, int, tuple[int, ...]]] = {
    "plain": (Convolution(), 3, (3, 3, 5)),
    "padded": (Convolution(1, 2), 5, (3, 5, 7)),
    "pooled": (Convolution(2, 1), 4, (3, 2, 3)),
    "strided": (Convolution(3, 0), 2, (3, 2, 2)),
    "wide": (Convolution(1, 5), 6, (3, 10, 12)),
    "one": (Convolution(2, 0), 1, (3, 3, 4)),
    "up": (TransposedConvolution(2, 1, 1), 3, (3, 10, 14)),
    "up, cropped": (TransposedConvolution(1, 2, 0), 3, (3, 3, 5)),
}


def between(
    geometry: Geometry, weight: Array, target: Any, *, source: str = "a", kind: str = "event", exponent: int = 0
) -> tuple[HardwareNetwork, Connection]:
    """A network with one connection of interest, from the input or from population a, which has the same shape."""
    spec = InputSpec(SOURCE, "graded", 255) if kind == "graded" else InputSpec(SOURCE, "event", 1)
    connection = Connection("c", source, "b", weight, 2, exponent, 8, geometry)
    populations = (Population("a", SOURCE, NEURON, 1), Population("b", target, NEURON, 2))
    size = int(np.prod(target))
    readout = Readout("b", np.ones((1, size)), np.zeros(1))
    return HardwareNetwork("n", spec, populations, (connection,), readout, 4), connection


def random_kernel(geometry: Geometry, side: int, target: tuple[int, ...]) -> Array:
    transposed = isinstance(geometry, TransposedConvolution)
    channels = (SOURCE[0], target[0]) if transposed else (target[0], SOURCE[0])
    return np.random.default_rng(side).integers(-128, 128, (*channels, side, side)).astype(np.int32)


@pytest.mark.parametrize("source", ["a", INPUT])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_kernels_that_binary_spikes_meet(name: str, source: str) -> None:
    """Lava's own convolution of a flipped kernel in (W, H, C), or an unrolled matrix: twice our map."""
    geometry, side, target = GEOMETRIES[name]
    network, connection = between(geometry, random_kernel(geometry, side, target), target, source=source)
    process = processes.synapses(network, connection, stock_models=False)
    spikes = np.random.default_rng(1).integers(0, 2, (1, *SOURCE))
    expected = 2 * linear_map(network, connection).product(spikes.reshape(1, -1).astype(float)).reshape(target)
    sent = to_lava(spikes, SOURCE)[0]
    if isinstance(geometry, Convolution):
        assert type(process) is Conv
        assert process.a_out.shape == lava_shape(target)
        assert process.s_in.shape == lava_shape(SOURCE)
        found = conv(sent.reshape(lava_shape(SOURCE)), process.weight.init, (side, side), process.stride.init,
                     process.padding.init, process.dilation.init, 1).ravel()  # fmt: skip
    else:
        assert type(process) is Sparse
        found = process.weights.init @ sent
    assert np.array_equal(from_lava(found, target), expected)


@pytest.mark.parametrize("name", ["padded", "pooled", "up"])
def test_kernels_that_codes_meet_are_unrolled_with_their_exponent(name: str) -> None:
    geometry, side, target = GEOMETRIES[name]
    weight = random_kernel(geometry, side, target)
    network, connection = between(geometry, weight, target, source=INPUT, kind="graded", exponent=-3)
    process = processes.synapses(network, connection, stock_models=False)
    assert type(process) is Sparse
    assert (process.proc_params["weight_exp"], process.num_message_bits.init) == (-3, 8)
    codes = np.random.default_rng(1).integers(0, 256, (1, *SOURCE))
    expected = 2 * linear_map(network, connection).product(codes.reshape(1, -1).astype(float)).reshape(target)
    found = process.weights.init.astype(np.int64) @ to_lava(codes, SOURCE)[0]
    assert np.array_equal(from_lava(found, target), expected)
    assert process.weights.init.data.dtype == np.int16
    assert process.weights.init.indices.dtype == np.int32


@pytest.mark.parametrize("stock", [False, True])
def test_kernels_with_an_exponent_are_unrolled_for_lavas_own_models(stock: bool) -> None:
    """Which run Sparse with its exponent, and Conv without."""
    geometry, side, target = GEOMETRIES["padded"]
    network, connection = between(geometry, random_kernel(geometry, side, target), target, exponent=-3)
    process = processes.synapses(network, connection, stock_models=stock)
    assert type(process) is (Sparse if stock else Conv)
    exponent = process.proc_params["weight_exp"] if stock else process.weight_exp.init
    assert exponent == -3


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("name", ["padded", "pooled", "up"])
def test_sums_of_kernels_with_an_exponent_are_rounded_down(name: str, stock: bool) -> None:
    """Every spike of the simulator, of a network whose exponents change what it does."""
    geometry, side, target = GEOMETRIES[name]
    network, connection = between(geometry, random_kernel(geometry, side, target), target, source=INPUT, exponent=-5)
    drive = Connection("on", ALWAYS_ON, "b", np.full((int(np.prod(target)), 1), 9, np.int32), 0, 0, 8)
    network = replace(network, time_steps=12, connections=(connection, drive))
    frames = np.random.default_rng(2).integers(0, 2, (12, 3, *SOURCE))
    expected = IntegerSimulator().run(network, frames, record=["b"]).spikes["b"]
    found = LavaRunner(stock_models=stock).run(network, frames, record=["b"]).spikes["b"]
    assert np.array_equal(found, expected)
    coarser = replace(network, connections=(replace(connection, weight_exponent=0), drive))
    assert not np.array_equal(IntegerSimulator().run(coarser, frames, record=["b"]).spikes["b"], expected)
    assert 0.02 < expected.mean() < 0.5


@pytest.mark.parametrize(("share", "kind"), [(1.0, Dense), (0.05, Sparse), (0.0, Sparse)])
def test_matrices_between_images_are_in_lavas_order(share: float, kind: type[AbstractProcess]) -> None:
    target = (2, 3, 2)
    rng = np.random.default_rng(3)
    weight = np.where(rng.random((12, 70)) < share, rng.integers(1, 128, (12, 70)), 0).astype(np.int32)
    network, connection = between(DENSE, weight, target)
    process = processes.synapses(network, connection, stock_models=False)
    assert type(process) is kind
    spikes = rng.integers(0, 2, (1, *SOURCE))
    found = process.weights.init @ to_lava(spikes, SOURCE)[0]
    assert np.array_equal(from_lava(found, target).ravel(), 2 * weight @ spikes.ravel())


def test_the_readout_goes_to_the_integrators_of_its_parts() -> None:
    network, _ = between(DENSE, np.ones((12, 70), np.int32), (2, 3, 2))
    readout = replace(network.readout, weight=np.random.default_rng(0).normal(size=(3, 12)), bias=np.zeros(3))
    integrators = replace(quantize_readout(readout, decay=0, time_steps=4, weight_bits=8), parts=5)
    network = replace(network, readout=replace(readout, integrators=integrators))
    spikes = np.random.default_rng(1).integers(0, 2, (1, 2, 3, 2))
    found = processes.readout_synapses(network).weights.init @ to_lava(spikes, (2, 3, 2))[0]
    assert np.array_equal(64 * found, integrate(network, spikes[None])[0])


def graph_of(job: GraphJob) -> Graph:
    ring = SampleRing(job)
    ring.close()
    return build_graph(job, ring)


def test_models_are_fast_unless_lavas_own_are_asked_for() -> None:
    geometry, side, target = GEOMETRIES["padded"]
    network, _ = between(geometry, random_kernel(geometry, side, target), target)
    readout = replace(
        network.readout, integrators=quantize_readout(network.readout, decay=0, time_steps=4, weight_bits=8)
    )
    network = replace(network, readout=readout)
    for stock, model in ((True, CONNECTION_MODELS[Conv, "integer"]), (False, FastConv)):
        models = graph_of(GraphJob((network,), (1,), stock_models=stock, readout="lava")).models
        assert [m for p, m in models.items() if type(p) is Conv] == [model]
        assert (CONNECTION_MODELS[Sparse, "integer"] in models.values()) == stock
        # who is looked into keeps Lava's model
        assert PyLifResetModelBitAcc in {m for p, m in models.items() if type(p) is LIFReset}


def test_late_spikes_are_shared_and_only_made_where_needed() -> None:
    """Delays of 1, 3, 3 and 2: two delay lines, one of which takes a single step before its relay."""
    weight = np.ones((1, 1), np.int32)
    delays = (1, 3, 3, 2)
    connections = tuple(Connection(f"c{k}", "a", "a", weight, d, 0, 8) for k, d in enumerate(delays))
    network = HardwareNetwork(
        "n", InputSpec((1,), "event", 1), (Population("a", (1,), NEURON, 1),), connections,
        Readout("a", np.ones((1, 1)), np.zeros(1)), 4,
    )  # fmt: skip
    kinds = [type(p) for p in graph_of(GraphJob((network,), (1,))).models]
    assert kinds.count(DelaySparse) == 1
    assert kinds.count(Sparse) == 2  # the short delay line, and the inhibition


def test_parts_that_nothing_connects_are_joined() -> None:
    """Three networks of two populations each, without any connection."""
    network, _ = between(DENSE, np.zeros((4, 70), np.int32), (4,))
    network = replace(network, connections=())
    graph = graph_of(GraphJob((network,) * 3, (1,) * 3))
    assert set(find_processes(graph.root)) == set(graph.models)
    alone = LavaRunner().run(network, np.zeros((4, 2, *SOURCE), int), record=["a", "b"])
    assert not any(s.any() for s in alone.spikes.values())


@pytest.mark.parametrize("stock", [False, True])
def test_a_pulse_through_a_kernel_by_hand(stock: bool) -> None:
    """Step 0, pixel (y, x) = (0, 2) of 2 x 3. Kernel ((1, 2), (3, 4)), padding 1: current[y, x] = w[1 - y, 3 - x]."""
    kernel = np.array([[[[1, 2], [3, 4]]]], np.int32)
    pulse = Connection("in", INPUT, "b", kernel, 1, 0, 8, Convolution(1, 1))
    population = Population("b", (1, 3, 4), IntegerNeuron(3, 3, 0, 0, 1.0), 1)
    readout = Readout("b", np.ones((1, 12)), np.zeros(1))
    echo = Connection("echo", "b", "b", np.array([[[[3]]]], np.int32), 2, 0, 8, Convolution())
    network = HardwareNetwork("pulse", InputSpec((1, 2, 3), "event", 1), (population,), (pulse, echo), readout, 3)
    frames = np.zeros((3, 1, 1, 2, 3), np.int64)
    frames[0, 0, 0, 0, 2] = 1
    spikes = LavaRunner(stock_models=stock).run(network, frames, record=["b"]).spikes["b"][:, 0, 0]
    first = [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert spikes.tolist() == [first, np.zeros((3, 4), int).tolist(), first]


@pytest.mark.parametrize("stock", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_readout_on_lava(monkeypatch: pytest.MonkeyPatch, stock: bool) -> None:
    """Every potential of every integrator, in sources of any place, leak and shape; some in several parts."""
    cases = [random_case(seed) for seed in range(20, 26)]
    networks = []
    for case, parts in zip(cases, itertools.cycle([1, 2, 3]), strict=False):
        readout, source = case.network.readout, case.network.population(case.network.readout.source)
        integrators = quantize_readout(
            readout, decay=source.neuron.decay, time_steps=case.network.time_steps, weight_bits=8
        )
        integrators = replace(integrators, parts=min(source.size, max(parts, integrators.parts)))
        networks.append(replace(case.network, readout=replace(readout, integrators=integrators)))
    seen: list[Array] = []
    logits = finished.integrated_logits
    monkeypatch.setattr(finished, "integrated_logits", lambda n, u: (seen.append(u), logits(n, u))[1])
    runner = LavaRunner(stock_models=stock, readout="lava")
    results = run_side_by_side(runner, networks, [case.inputs for case in cases])
    for network, case, result, u in zip(networks, cases, results, seen, strict=True):
        expected = integrate(network, case.spikes[network.readout.source])
        assert np.array_equal(u, expected)
        assert np.array_equal(result.logits, logits(network, expected))
        assert all(np.array_equal(result.spikes[name], s) for name, s in case.spikes.items())
    assert np.mean([(u != 0).mean() for u in seen]) > 0.3


def test_a_network_without_integrators_cannot_read_out_on_lava() -> None:
    network, inputs, _ = random_case(0)
    network = replace(network, readout=replace(network.readout, integrators=None))
    with pytest.raises(UnsupportedError, match=r'cannot read out network "seed 0" on Lava: it has no integrators'):
        LavaRunner(readout="lava").run(network, inputs)


def test_float_kernels_agree_with_the_float_simulator() -> None:
    """Weights in general position: no potential comes within rounding of the threshold, so all spikes are equal."""
    rng = np.random.default_rng(5)
    shapes = ((2, 7, 6), (3, 4, 3), (4, 4, 3))
    neuron = FloatNeuron(1.0, 1.5, 0.95)
    populations = tuple(Population(f"p{i}", s, neuron, i + 1) for i, s in enumerate(shapes[1:]))
    connections = (
        Connection("in", INPUT, "p0", rng.normal(0, 0.004, (3, 2, 3, 3)), 1, geometry=Convolution(2, 1)),
        Connection("on", ALWAYS_ON, "p0", rng.normal(0.2, 0.2, (36, 1))),
        Connection("forward", "p0", "p1", rng.normal(0.1, 0.3, (4, 3, 3, 3)), 1, geometry=Convolution(1, 1)),
        Connection("feedback", "p1", "p0", rng.normal(0, 0.3, (4, 3, 3, 3)), 2, geometry=TransposedConvolution(1, 1)),
    )
    readout = Readout("p1", rng.normal(size=(3, 48)), rng.normal(size=3))
    network = HardwareNetwork("float", InputSpec(shapes[0], "graded", 255), populations, connections, readout, 12)
    inputs = rng.integers(0, 256, (3, *shapes[0]))
    names = [p.name for p in populations]
    lava = LavaRunner("float").run(network, inputs, record=names)
    simulated = FloatSimulator().run(network, inputs, record=names)
    for name in names:
        assert 0.05 < lava.firing_rates[name].mean() < 0.95
        assert np.array_equal(lava.spikes[name], simulated.spikes[name])


def test_long_streams_are_equal_to_the_simulators() -> None:
    """Sixty samples of events through strided kernels with feedback from kernels, in one run."""
    rng = np.random.default_rng(8)
    weight = [rng.integers(-40, 60, s).astype(np.int32) for s in ((4, 2, 4, 4), (6, 4, 3, 3), (6, 4, 3, 3))]
    neuron = IntegerNeuron(150, 150, 0, 40, 1.0)
    populations = (Population("a", (4, 5, 5), neuron, 1), Population("b", (6, 3, 3), neuron, 2))
    connections = (
        Connection("in", INPUT, "a", weight[0], 1, 0, 8, Convolution(2, 1)),
        Connection("up", "a", "b", weight[1], 1, 0, 8, Convolution(2, 1)),
        Connection("down", "b", "a", weight[2], 1, 0, 8, TransposedConvolution(2, 1)),
    )
    readout = Readout("b", rng.normal(size=(3, 54)), rng.normal(size=3))
    network = HardwareNetwork("stream", InputSpec((2, 10, 10), "event", 1), populations, connections, readout, 10)
    frames = (rng.random((10, 60, 2, 10, 10)) < 0.2).astype(np.uint8)
    lava = LavaRunner().run(network, frames, record=["a", "b"])
    simulated = IntegerSimulator().run(network, frames, record=["a", "b"])
    for name in ("a", "b"):
        assert 0.02 < lava.spikes[name].mean() < 0.9
        assert np.array_equal(lava.spikes[name], simulated.spikes[name])
    np.testing.assert_allclose(lava.logits, simulated.logits, rtol=0, atol=1e-12)  # sums in another order
