"""The fast models against Lava's own, step by step: the same messages, and the same state."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

pytest.importorskip("lava.magma", reason="Lava is not installed")
from lava.magma.compiler.channels.pypychannel import PyPyChannel
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.runtime.mgmt_token_enums import MGMT_COMMAND, MGMT_RESPONSE
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.lif.models import PyLifModelBitAcc, PyLifResetModelBitAcc
from lava.proc.lif.process import LIF, LIFReset
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode

from fsnn_lava.backends.lava.models.fast_models import CONNECTION_MODELS, FAST_MODELS
from fsnn_lava.backends.lava.models.fast_ports import ThreadlessRecvPort, ThreadlessSendPort, remove_thread
from fsnn_lava.backends.lava.models.fast_process import SingleThreadModel
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware.geometry import Array
from lava_bench import Bench, channel, threadless

pytestmark = pytest.mark.lava

STOCK = CONNECTION_MODELS | {(LIF, "integer"): PyLifModelBitAcc, (LIFReset, "integer"): PyLifResetModelBitAcc}
EXTREMES = [-(2**31), 1 - 2**31, -(2**25), -(2**17) - 1, -(2**17), -1, 0, 1, 2**17 - 1, 2**17, 2**23, 2**25, 2**31 - 1]
SAMPLE_STEPS = 7


def both(make: Any, senders: list[Any]) -> tuple[Bench, Bench]:
    """The same process twice: with Lava's model, with the fast one."""
    stock, fast = make(), make()
    kind = type(stock), "integer"
    return Bench(stock, STOCK[kind], senders), Bench(fast, FAST_MODELS[kind], senders)


def neuron(rng: np.random.Generator, reset: bool) -> dict[str, Any]:
    """Parameters of a LIF, extreme ones among them."""
    shape = (5, 2, 6) if rng.random() < 0.5 else (67,)
    parameters = {
        "shape": shape,
        "du": int(rng.choice([-1, 0, 40, 819, 4095])),
        "dv": int(rng.choice([0, 1, 300, 4095, 4096])),
        "vth": int(rng.choice([0, 1, 319, 2**17 - 1])),
        "bias_mant": rng.integers(-4096, 4096, shape) * (rng.random() < 0.7),
        "bias_exp": rng.integers(-8, 8, shape),
        "u": rng.integers(-(2**23), 2**23, shape),
        "v": rng.integers(1 - 2**23, 2**23, shape),
    }
    interval = int(rng.integers(1, 6))
    return parameters | ({"reset_interval": interval, "reset_offset": int(rng.integers(0, 9))} if reset else {})


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("process", [LIF, LIFReset])
def test_neurons_are_the_stock_ones(process: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parameters = neuron(rng, process is LIFReset)
    senders = [np.int32] * int(rng.integers(1, 4))
    stock, fast = both(lambda: process(**parameters), senders)
    width = int(rng.choice([100, 2**10, 2**16, 2**24]))
    spikes = 0
    for _ in range(30):
        messages = [rng.integers(-width, width + 1, parameters["shape"]).astype(np.int32) for _ in senders]
        if rng.random() < 0.2:
            messages[0] = rng.choice(EXTREMES, parameters["shape"]).astype(np.int32)
        expected, found = stock.step(messages), fast.step(messages)
        assert np.array_equal(found, expected)
        assert np.array_equal(fast.model.u, stock.model.u)
        assert np.array_equal(fast.model.v, stock.model.v)
        spikes += int(expected.sum())
    assert fast.output.src_port.d_type == np.uint8


def test_the_neurons_of_these_tests_spike_wrap_and_saturate() -> None:
    reached = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        parameters = neuron(rng, False)
        bench = Bench(LIF(**parameters), PyLifModelBitAcc, [np.int32])
        for _ in range(20):
            fired = bench.step([rng.integers(-(2**20), 2**20, parameters["shape"]).astype(np.int32)])
            reached |= {"spike"} if fired.any() else set()
            reached |= {"silence"} if not fired.all() else set()
            reached |= {"floor"} if (bench.model.v == 1 - 2**23).any() else set()
    assert reached == {"spike", "silence", "floor"}


def test_a_bias_that_is_changed_counts_from_the_next_step_on() -> None:
    stock, fast = both(lambda: LIF(shape=(3,), du=-1, dv=4096, vth=10, bias_mant=0), [np.int32])
    for step in range(4):
        for bench in (stock, fast):
            if step == 2:
                bench.model.bias_mant[1] = 2000
                bench.model.on_var_update()
        expected, found = (bench.step([np.zeros(3, np.int32)]) for bench in (stock, fast))
        assert np.array_equal(found, expected)
    assert expected.tolist() == [0, 1, 0]


def connection_parameters(rng: np.random.Generator) -> dict[str, Any]:
    """Exponents, widths and signs of weights."""
    parameters: dict[str, Any] = {"weight_exp": int(rng.integers(-8, 8))}
    if rng.random() < 0.5:
        parameters["num_weight_bits"] = int(rng.integers(5, 9))
    if rng.random() < 0.7:
        parameters["sign_mode"] = [SignMode.MIXED, SignMode.EXCITATORY, SignMode.INHIBITORY][rng.integers(3)]
    return parameters | {"num_message_bits": int(rng.choice([0, 8, 24])), "sample_steps": SAMPLE_STEPS}


def messages(rng: np.random.Generator, size: int, kind: Any, steps: int) -> list[Array]:
    """Many zeros; repeated, silent and extreme messages among them."""
    found: list[Array] = []
    for _ in range(steps):
        if found and rng.random() < 0.3:
            found.append(found[-1])
            continue
        density = rng.choice([0.0, 0.1, 0.5, 1.0])
        values = rng.integers(0, 256, size) if kind == np.uint8 else rng.integers(-300, 300, size)
        if kind == np.int32 and rng.random() < 0.2:
            values = rng.choice(EXTREMES, size)
        found.append(np.where(rng.random(size) < density, values, 0).astype(kind))
    return found


def agree(rng: np.random.Generator, make: Any, size: int, buffer: str) -> None:
    """Both models send the same and hold the same in flight, over several samples."""
    kind = [np.uint8, np.int32][rng.integers(2)]
    stock, fast = both(make, [kind])
    for message in messages(rng, size, kind, 3 * SAMPLE_STEPS + 2):
        assert np.array_equal(fast.step([message]), stock.step([message]))
        held = getattr(stock.model, buffer)
        assert np.array_equal(in_flight(fast.model, buffer), held.astype(np.int32))


def in_flight(model: Any, buffer: str) -> Array:
    """The buffer in Lava's form: targets, and behind them delays."""
    if hasattr(model, "_ring"):
        return np.roll(model._ring, -model._now, axis=0).T
    return np.asarray(getattr(model, buffer))


def some_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Integers, sometimes of one sign, sometimes out of the range that Lava clips to."""
    low, high = [(-256, 255), (0, 300), (-300, 1), (-400, 400), (-3, 4)][rng.integers(5)]
    return rng.integers(low, high, shape).astype(np.int32)


@pytest.mark.parametrize("seed", range(60))
def test_dense_is_the_stock_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 40)), int(rng.integers(1, 30))
    weights, parameters = some_weights(rng, shape), connection_parameters(rng)
    agree(rng, lambda: Dense(weights=weights, **parameters), shape[1], "a_buff")


def some_matrix(rng: np.random.Generator) -> csr_matrix:
    """Sparse weights, with runs of neighbours and gaps of all lengths, empty rows and columns."""
    shape = int(rng.integers(1, 90)), int(rng.integers(1, 30))
    present = rng.random(shape) < rng.choice([0.02, 0.2, 0.9])
    present[0, 0] = True
    places = np.nonzero(present)
    return csr_matrix((some_weights(rng, places[0].shape), places), shape)


@pytest.mark.parametrize("seed", range(60))
def test_sparse_is_the_stock_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, parameters = some_matrix(rng), connection_parameters(rng)
    agree(rng, lambda: Sparse(weights=matrix.copy(), **parameters), matrix.shape[1], "a_buff")


@pytest.mark.filterwarnings("ignore:Changing the sparsity structure")  # of Lava's own matrix of delays
@pytest.mark.parametrize("seed", range(60))
def test_delay_sparse_is_the_stock_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, parameters = some_matrix(rng), connection_parameters(rng)
    delays = matrix.copy().astype(int)
    delays.data = rng.integers(0, 6, delays.nnz) if rng.random() < 0.5 else np.full(delays.nnz, 3)
    delays.eliminate_zeros()
    agree(
        rng, lambda: DelaySparse(weights=matrix.copy(), delays=delays.copy(), **parameters), matrix.shape[1], "a_buff"
    )


@pytest.mark.parametrize("seed", range(60))
def test_conv_is_the_stock_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel, stride = int(rng.integers(1, 6)), int(rng.choice([1, 1, 2, 3, 4]))
    padding = int(rng.integers(0, kernel))
    shape = (*rng.integers(kernel, kernel + 6, 2).tolist(), int(rng.integers(1, 4)))
    largest = int(rng.choice([256, 2**15 + 5, 2**20]))  # 8 bits; more than 16; so that sums leave 24 bits
    weight = rng.integers(-largest, largest, (int(rng.integers(1, 5)), kernel, kernel, shape[2]))
    bits = int(rng.choice([0, 8]))

    def make() -> Conv:
        conv = Conv(weight=weight, input_shape=shape, padding=padding, stride=stride, num_message_bits=bits)
        conv.proc_params["sample_steps"] = SAMPLE_STEPS
        return conv

    kind = [np.uint8, np.int32][rng.integers(2)]
    stock, fast = both(make, [kind])
    limit = (2**31 - 1) // (largest * kernel**2 * shape[2])  # Lava's own sums must fit 32 bits
    for message in messages(rng, int(np.prod(shape)), kind, 3 * SAMPLE_STEPS):
        small = message % (2 * limit + 1) - limit if bits and kind == np.int32 else message % (limit + 1)
        small = small.astype(kind)
        assert np.array_equal(fast.step([small]), stock.step([small]))
        assert np.array_equal(fast.model.a_buf, stock.model.a_buf)


def test_several_senders_of_spikes_are_added() -> None:
    weights = np.arange(-6, 6).reshape(4, 3)
    stock, fast = both(
        lambda: Dense(weights=weights, num_message_bits=8, sample_steps=SAMPLE_STEPS), [np.int32, np.uint8]
    )
    for first, second in ([[1, 0, 5], [2, 0, 0]], [[0, 0, -1], [255, 1, 1]], [[0, 0, 0], [0, 0, 0]]):
        sent = [np.array(first, np.int32), np.array(second, np.uint8)]
        assert np.array_equal(fast.step(sent), stock.step(sent))


def test_changed_weights_count_from_the_next_message_on() -> None:
    stock, fast = both(lambda: Dense(weights=np.full((2, 1), 10), sample_steps=SAMPLE_STEPS), [np.int32])
    for step in range(5):
        for bench in (stock, fast):
            if step == 2:
                bench.model.weights[1, 0] = 101  # as it is: Lava clips and truncates only once
                bench.model.on_var_update()
        expected, found = (bench.step([np.ones(1, np.int32)]) for bench in (stock, fast))
        assert np.array_equal(found, expected)
    assert expected.tolist() == [10, 101]


@pytest.mark.parametrize(
    "changed", [{"dilation": 2}, {"groups": 2}, {"stride": (1, 2)}, {"padding": (1, 0)}, {"padding": 3}, {"kernel": 2}]
)
def test_other_convolutions_are_refused(changed: dict[str, Any]) -> None:
    side = changed.pop("kernel", 3)
    channels = 2 // changed.get("groups", 1)
    conv = Conv(weight=np.ones((2, 3, side, channels), int), input_shape=(8, 8, 2), **changed)
    conv.proc_params["sample_steps"] = SAMPLE_STEPS
    bench = Bench(conv, FAST_MODELS[Conv, "integer"], [np.int32])
    with pytest.raises(UnsupportedError, match=r"FastConv: stride .*allowed: square kernels.*--stock-models"):
        bench.step([np.zeros((8, 8, 2), np.int32)])


def test_a_delay_of_more_than_6_bits_is_refused() -> None:
    weights = csr_matrix(np.ones((1, 1), int))
    bench = Bench(
        DelaySparse(weights=weights, delays=64 * weights, sample_steps=SAMPLE_STEPS),
        FAST_MODELS[DelaySparse, "integer"],
        [np.int32],
    )
    with pytest.raises(ValueError, match=r"DelaySparse: a delay of 64; allowed: 0 .. 63"):
        bench.step([np.zeros(1, np.int32)])


COMPILES_NOTHING = """
import numpy as np
from scipy.sparse import csr_matrix
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.process import Sparse
from fsnn_lava.kernels import spike_sums
from fsnn_lava.backends.lava.models import fast_lif, fast_products
from fsnn_lava.backends.lava.models.fast_models import FAST_MODELS, warm_up
from lava_bench import Bench

kernels = [k for m in (spike_sums, fast_lif, fast_products) for k in vars(m).values() if hasattr(k, "signatures")]
warm_up()
known = [len(k.signatures) for k in kernels]
assert max(known) > 0
for kind in (np.uint8, np.int32):
    conv = Conv(weight=np.full((1, 3, 3, 1), 5), input_shape=(4, 4, 1), padding=1)
    conv.proc_params["sample_steps"] = 9
    sparse = Sparse(weights=csr_matrix(np.full((5, 3), 5)), num_message_bits=8, sample_steps=9)
    dense = Dense(weights=np.full((2, 200), 255), sample_steps=9)
    for process in (conv, sparse, dense, LIFReset(shape=(4,), reset_interval=9)):
        bench = Bench(process, FAST_MODELS[type(process), "integer"], [np.int32 if "LIF" in repr(process) else kind])
        for step in range(3):
            bench.step([np.full(bench.source, step, bench.inputs[0].src_port.d_type)])
assert [len(k.signatures) for k in kernels] == known, [(k, k.signatures) for k in kernels]
"""


def test_the_warm_up_compiles_all_that_the_models_run() -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests' / 'support'}"}
    subprocess.run([sys.executable, "-c", COMPILES_NOTHING], check=True, env=environment)


@pytest.mark.parametrize(("fast_sender", "fast_receiver"), itertools.product([False, True], repeat=2))
def test_messages_arrive_in_order_whoever_sends_and_receives(fast_sender: bool, fast_receiver: bool) -> None:
    made = channel((2, 3), np.int32, size=2)
    for port, fast in ((made.src_port, fast_sender), (made.dst_port, fast_receiver)):
        if fast:
            remove_thread(port)
        port.start()
    for step in range(7):
        for message in range(step % 2 + 1):
            made.src_port.send(np.full((2, 3), 10 * step + message))
        for message in range(step % 2 + 1):
            assert np.array_equal(made.dst_port.recv(), np.full((2, 3), 10 * step + message))
    made.src_port.join()
    made.dst_port.join()


def test_no_thread_is_started() -> None:
    made = threadless((1,), np.int32, name="port")
    assert made.src_port.thread is None
    assert made.dst_port.thread is None


def test_probe_tells_a_full_ring_and_an_empty_one() -> None:
    made = threadless((1,), np.int32, name="port")
    assert not made.dst_port.probe()
    for message in range(3):
        assert made.src_port.probe()
        made.src_port.send(np.array([message]))
    assert not made.src_port.probe()
    assert made.dst_port.probe()
    assert made.dst_port.peek() == made.dst_port.recv() == [0]
    assert made.src_port.probe()
    made.src_port.send(np.array([3]))
    assert not made.src_port.probe()
    assert [int(made.dst_port.recv()[0]) for _ in range(3)] == [1, 2, 3]
    assert not made.dst_port.probe()


def test_a_sender_waits_for_a_place() -> None:
    made = threadless((1,), np.int32, name="port")
    for message in range(3):
        made.src_port.send(np.array([message]))
    received: list[int] = []
    made.src_port._ack = SimpleNamespace(acquire=lambda: received.append(int(made.dst_port.recv()[0])))
    made.src_port.send(np.array([3]))
    assert received == [0]
    assert [int(made.dst_port.recv()[0]) for _ in range(3)] == [1, 2, 3]


def test_a_message_that_is_looked_at_keeps_its_place() -> None:
    made = threadless((1,), np.int32, name="port")
    for message in range(3):
        made.src_port.send(np.array([message]))
    seen = made.dst_port.look()
    assert not made.src_port.probe()
    assert seen == [0]
    made.dst_port.drop()
    assert made.src_port.probe()


def test_a_message_of_another_shape_is_refused() -> None:
    made = threadless((2,), np.int32, name="s_out")
    with pytest.raises(AssertionError, match=r"s_out: a message of shape \(1,\), not \(2,\)"):
        made.src_port.send(np.zeros(1))


def test_ports_of_another_kind_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"SimpleNamespace: .* Python processes only.*--stock-models"):
        remove_thread(SimpleNamespace())


class Counting(SingleThreadModel):
    """Counts its steps, and fails in the third."""

    def run_spk(self) -> None:
        assert self.time_step < 3, "the third step"


@pytest.fixture
def model() -> tuple[Counting, PyPyChannel, PyPyChannel]:
    """A model, and the channels to and from the service that commands it, with Lava's own ports at the service."""
    counting = Counting({})
    to, back = channel((1,), float, size=8, name="to"), channel((1,), float, size=8, name="back")
    counting.service_to_process, counting.process_to_service = to.dst_port, back.src_port
    to.src_port.start()
    back.dst_port.start()
    return counting, to, back


def answers(back: PyPyChannel, count: int) -> list[Any]:
    return [back.dst_port.recv()[0] for _ in range(count)]


def test_the_loop_obeys_until_it_is_stopped(model: tuple[Counting, PyPyChannel, PyPyChannel]) -> None:
    counting, to, back = model
    for command in (PyLoihiProcessModel.Phase.SPK, PyLoihiProcessModel.Phase.SPK, MGMT_COMMAND.STOP):
        to.src_port.send(command)
    counting.start()
    response = PyLoihiProcessModel.Response
    assert answers(back, 3) == [response.STATUS_DONE[0], response.STATUS_DONE[0], response.STATUS_TERMINATED[0]]
    assert counting.time_step == 2
    to.src_port.join()
    back.dst_port.join()


@pytest.mark.parametrize(("commands", "error"), [([1, 1, 1], AssertionError), ([77], KeyError)])
def test_an_error_is_told_and_raised(
    model: tuple[Counting, PyPyChannel, PyPyChannel], commands: list[int], error: type[Exception]
) -> None:
    counting, to, back = model
    for command in commands:
        to.src_port.send(np.array([command], float))
    with pytest.raises(error, match=r"the third step|77"):
        counting.start()
    assert answers(back, len(commands))[-1] == MGMT_RESPONSE.ERROR[0]
    to.src_port.join()
    back.dst_port.join()


def test_references_to_variables_are_refused(model: tuple[Counting, PyPyChannel, PyPyChannel]) -> None:
    counting, to, back = model
    counting.var_ports.append(object())
    with pytest.raises(UnsupportedError, match=r"Counting: another process refers to .*--stock-models"):
        counting.start()
    to.src_port.join()
    back.dst_port.join()


def test_the_kinds_stay_lavas_own() -> None:
    made = threadless((1,), np.int32, name="port")
    assert isinstance(made.src_port, ThreadlessSendPort)
    assert isinstance(made.dst_port, ThreadlessRecvPort)
    remove_thread(made.src_port)
    assert type(made.src_port) is ThreadlessSendPort
