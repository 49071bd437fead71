"""The torch module of integer networks: same spikes as the reference, exact on any device, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fsnn_lava.errors import InputError, StateOverflowError, UnsupportedError
from fsnn_lava.hardware.geometry import Convolution, TransposedConvolution
from fsnn_lava.hardware.network import (
    ALWAYS_ON,
    INPUT,
    Connection,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Population,
    Readout,
)
from fsnn_lava.hardware.run_io import rates_from_spikes, read_out
from integer_model import IntegerSNN
from networks import small_float_network, worked_example
from random_networks import Case, random_case

EXAMPLE = torch.tensor([[100, 40], [0, 255]])


def wide_network(*, channels: int = 64, code: int = 1) -> HardwareNetwork:
    """Convolution, recurrent and transposed, with many channels: products that a library would take by Winograd."""
    rng = np.random.default_rng(0)
    shape = (channels, 12, 10)

    def weight(kernel: int) -> np.ndarray:
        return rng.integers(-128, 128, (channels, channels, kernel, kernel)).astype(np.int32)

    populations = (
        Population("a", shape, IntegerNeuron(900, 225, 2, 40, 1.0), 1),
        Population("b", (channels, 6, 5), IntegerNeuron(900, 225, 2, 0, 1.0), 2),
    )
    connections = (
        Connection("in", INPUT, "a", weight(3), 1, 0, 8, Convolution(1, 1)),
        Connection("self", "a", "a", weight(5), 1, 0, 8, Convolution(1, 2)),
        Connection("down", "a", "b", weight(4), 1, 0, 8, Convolution(2, 1)),
        Connection("up", "b", "a", weight(3), 1, 1, 8, TransposedConvolution(2, 1, 1)),
    )
    spec = InputSpec(shape, "event", 1) if code == 1 else InputSpec(shape, "graded", code)
    readout = Readout("b", rng.normal(size=(3, channels * 30)), np.zeros(3))
    return HardwareNetwork("wide", spec, populations, connections, readout, 4)


def wide_frames(*, channels: int = 64) -> torch.Tensor:
    return torch.randint(0, 2, (4, 5, channels, 12, 10), generator=torch.Generator().manual_seed(0))


def run(case: Case, model: IntegerSNN | None = None) -> dict[str, np.ndarray]:
    names = [p.name for p in case.network.populations]
    activity = (model or IntegerSNN(case.network))(torch.from_numpy(case.inputs), record=names)
    return {name: spikes.cpu().numpy() for name, spikes in activity.spikes.items()}


@pytest.mark.parametrize("seed", range(500, 530))
def test_rates_counts_and_logits_are_those_of_the_spikes(seed: int) -> None:
    network = (case := random_case(seed)).network
    activity = IntegerSNN(network)(torch.from_numpy(case.inputs))
    assert activity.spikes == {}
    rates = {p.name: rates_from_spikes(case.spikes[p.name], p.neuron.leak) for p in network.populations}
    for p in network.populations:
        assert np.array_equal(activity.spike_counts[p.name].numpy(), case.spikes[p.name].sum(axis=0))
        # Sums of T floats in another order.
        assert np.allclose(activity.firing_rates[p.name].numpy(), rates[p.name], rtol=0, atol=1e-14)
    assert np.allclose(activity.logits.numpy(), read_out(network.readout, rates), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(500, 520))
def test_samples_of_a_batch_do_not_depend_on_each_other(seed: int) -> None:
    case = random_case(seed)
    axis = 1 if case.network.input.kind == "event" else 0
    model = IntegerSNN(case.network)
    for b in range(case.inputs.shape[axis]):
        alone = run(case._replace(inputs=case.inputs.take([b], axis=axis)), model)
        for name, spikes in case.spikes.items():
            assert np.array_equal(alone[name], spikes[:, [b]])


@pytest.mark.parametrize("kind", ["bool", "uint8"])
def test_inputs_of_other_types(kind: str) -> None:
    case = random_case(next(s for s in range(99) if random_case(s).network.input.kind == "event"))
    found = run(case._replace(inputs=case.inputs.astype(kind)))
    assert all(np.array_equal(found[name], spikes) for name, spikes in case.spikes.items())


def test_products_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = wide_network()
    frames = wide_frames()
    whole = IntegerSNN(network)(frames, record=["a", "b"])
    monkeypatch.setattr("integer_model._CHUNK_NUMBERS", 1)
    parts = IntegerSNN(network)(frames, record=["a", "b"])
    for name, spikes in whole.spikes.items():
        assert 0.05 < spikes.double().mean() < 0.95
        assert torch.equal(parts.spikes[name], spikes)


@pytest.mark.parametrize("code", [1, 255, 10**6])
def test_sums_are_exact(code: int) -> None:
    """Every current of a batch against NumPy's integers; float32 would round from 2**24 on."""
    network = wide_network(channels=8, code=code)
    rng = np.random.default_rng(1)
    for synapses in IntegerSNN(network).synapses:
        connection = synapses.connection
        shape = network.shape_of(connection.source)
        largest = code if connection.source == INPUT else 1
        sent = rng.integers(0, largest + 1, (3, int(np.prod(shape))))
        matrix = unrolled(network, connection)
        expected = (2 * sent @ matrix.T) << connection.weight_exponent
        assert np.array_equal(synapses(torch.from_numpy(sent)).numpy(), expected)
        assert synapses.dtype == (torch.float64 if largest == 10**6 else torch.float32)


def unrolled(network: HardwareNetwork, connection: Connection) -> np.ndarray:
    """(N_target, N_source) int64: torch's own convolution of unit vectors, in float64, which holds small integers."""
    source = network.shape_of(connection.source)
    units = torch.eye(int(np.prod(source)), dtype=torch.float64).view(-1, *source)
    weight, geometry = torch.from_numpy(connection.weight).double(), connection.geometry
    if isinstance(geometry, TransposedConvolution):
        sent = torch.nn.functional.conv_transpose2d(
            units, weight, None, geometry.stride, geometry.padding, geometry.output_padding
        )
    else:
        assert isinstance(geometry, Convolution)
        sent = torch.nn.functional.conv2d(units, weight, None, geometry.stride, geometry.padding)
    return np.asarray(sent.flatten(1).round().to(torch.int64).numpy().T)


def test_autocast_changes_no_spike() -> None:
    model = IntegerSNN(wide_network(channels=16))
    frames = wide_frames(channels=16)
    expected = model(frames, record=["a", "b"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(frames, record=["a", "b"])
    assert all(torch.equal(found.spikes[name], spikes) for name, spikes in expected.spikes.items())


def test_weights_are_buffers_that_casting_leaves_alone() -> None:
    network = worked_example()
    model = IntegerSNN(network)
    state = model.state_dict()
    assert [state[f"synapses.{k}.matrix"].dtype for k in range(4)] == [torch.int8] * 4
    assert not list(model.parameters())
    expected = model(EXAMPLE, record=["b"])
    assert expected.spikes["b"][:, 0, 0].tolist() == [1, 0, 1]
    halved = model.half()(EXAMPLE, record=["b"])
    assert torch.equal(halved.spikes["b"], expected.spikes["b"])
    assert torch.equal(halved.logits, expected.logits)  # this readout's weights have few digits


def test_flags_of_torch_are_put_back() -> None:
    matmul = torch.backends.cuda.matmul
    matmul.allow_tf32 = True
    try:
        IntegerSNN(worked_example())(EXAMPLE)
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = False


def test_float_network_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r'network "floats" holds float values; quantize it first'):
        IntegerSNN(small_float_network())


def test_sums_that_no_float_holds_are_refused() -> None:
    network = worked_example()
    network = dataclasses.replace(network, input=InputSpec((2,), "graded", 2**50))
    with pytest.raises(UnsupportedError, match=r'"input to a": sums up to \d+ are not exact in float64'):
        IntegerSNN(network)


def test_inputs_that_do_not_fit_are_refused() -> None:
    model = IntegerSNN(worked_example())
    with pytest.raises(InputError, match=r"input codes from 0 to 300; allowed: 0 .. 255"):
        model(torch.tensor([[0, 300]]))
    with pytest.raises(InputError, match=r"inputs of type float32"):
        model(torch.zeros(1, 2))
    with pytest.raises(InputError, match=r"no population \['c'\] to record"):
        model(EXAMPLE, record=["c"])


@pytest.mark.parametrize(("sign", "code", "step"), [(1, 2, 3), (-1, 1, 7)])
def test_overflow_is_named_where_it_happens(sign: int, code: int, step: int) -> None:
    """2**20 units of state a step for each unit of code: 2**23, one more than the limit, after 8 or 4 steps."""
    weights = np.array([[0], [sign * 64]], np.int32)
    inputs = np.array([[0], [0], [code]])
    neuron = IntegerNeuron(2**16, 1, 0, 0, 1.0)
    connections = (
        Connection("in", INPUT, "a", weights, 1, 7, 8),
        Connection("on", ALWAYS_ON, "a", np.array([[1], [0]], np.int32), 0, 0, 8),
    )
    network = HardwareNetwork(
        "deep",
        InputSpec((1,), "graded", 3),
        (Population("a", (2,), neuron, 1),),
        connections,
        Readout("a", np.ones((1, 2)), np.zeros(1)),
        12,
    )
    with pytest.raises(StateOverflowError, match=rf'population "a", sample 2, step {step}, neuron 1: .* 8388608 units'):
        IntegerSNN(network)(torch.from_numpy(inputs))
    shorter = dataclasses.replace(network, time_steps=step)
    IntegerSNN(shorter)(torch.from_numpy(inputs))


@pytest.mark.gpu
@pytest.mark.parametrize("tf32", [False, True])
def test_same_spikes_on_a_gpu(tf32: bool) -> None:
    """Also where TF32 is allowed and cuDNN may choose any algorithm."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = tf32, True
    try:
        for seed in range(500, 520):
            case = random_case(seed)
            found = run(case, IntegerSNN(case.network).to("cuda"))
            assert all(np.array_equal(found[name], spikes) for name, spikes in case.spikes.items())
        frames = wide_frames()
        model = IntegerSNN(wide_network())
        expected = model(frames, record=["a", "b"]).spikes
        on_gpu = model.to("cuda")(frames, record=["a", "b"])
        assert on_gpu.logits.is_cuda
        assert all(torch.equal(on_gpu.spikes[name].cpu(), spikes) for name, spikes in expected.items())
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = before


def test_arrays_are_refused() -> None:
    case = random_case(0)
    with pytest.raises(InputError, match=r"inputs are a ndarray; expected a tensor, see torch\.as_tensor"):
        IntegerSNN(case.network)(case.inputs)
