"""The Lava runner: hand-computed spikes, fast and stock models, refusals; runs that fail, hang or are interrupted."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from fsnn_lava.backends import get_backend
from fsnn_lava.backends.finished_samples import FinishedSamples
from fsnn_lava.backends.lava.runner import LavaRunner
from fsnn_lava.backends.simulator import FloatSimulator
from fsnn_lava.errors import ConfigError, IncompleteRunError, InputError, MissingDependencyError, UnsupportedError
from fsnn_lava.hardware import Readout, RunResult, with_timing
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Arithmetic, Connection, HardwareNetwork, InputSpec, Population
from fsnn_lava.hardware.neurons import FloatNeuron, IntegerNeuron, Neuron
from random_networks import random_case
from side_by_side import run_side_by_side

pytestmark = pytest.mark.lava

ONE_INPUT = np.zeros((1, 1), dtype=np.int32)
GRADED = InputSpec((1,), "graded", 255)
EVENT = InputSpec((1,), "event", 1)


def weights(*values: float, integer: bool = True) -> Array:
    return np.array(values, dtype=np.int32 if integer else np.float64).reshape(-1, 1)


def one_neuron(neuron: Neuron, connections: tuple[Connection, ...], *, spec: InputSpec = GRADED) -> HardwareNetwork:
    """A single neuron whose window is global steps 2 .. 6."""
    readout = Readout("a", np.ones((1, 1)), np.zeros(1))
    return HardwareNetwork("one neuron", spec, (Population("a", (1,), neuron, 2),), connections, readout, 5)


def constant(value: float) -> Connection:
    integer = isinstance(value, int)
    return Connection("on", ALWAYS_ON, "a", weights(value, integer=integer), 0, 0, 8 if integer else 0)


# 60 per step, threshold and reset 100:    60, 120 s, 80, 140 s, 100 s (the threshold itself fires)
# 120 per step, half is kept, then -100:  120 s, 80, 160 s, 100 s, 70
# 60 per step, half is kept, to zero:      60, 90, 105 s, 60, 90
# the same of 40, 60, 70, 75, 77.5:        40, 80, 110 s, 75, 115 s
BY_HAND = {
    "IF": (IntegerNeuron(100, 100, 0, 0, 1.0), 60, [0, 1, 0, 1, 1]),
    "LIF": (IntegerNeuron(100, 100, 0, 2048, 1.0), 120, [1, 0, 1, 1, 0]),
    "IF, reset with an exponent": (IntegerNeuron(100, 25, 2, 0, 1.0), 60, [0, 1, 0, 1, 1]),
    "float IF": (FloatNeuron(100.0, 100.0, 1.0), 60.0, [0, 1, 0, 1, 1]),
    "float LIF": (FloatNeuron(100.0, 200.0, 0.5), 120.0, [1, 0, 1, 1, 0]),
    "reset to zero": (IntegerNeuron(100, 100, 0, 2048, 1.0, "zero"), 60, [0, 0, 1, 0, 0]),
    "float, reset to zero": (FloatNeuron(100.0, 200.0, 0.5, "zero"), 60.0, [0, 0, 1, 0, 0]),
    "current": (IntegerNeuron(100, 100, 0, 2048, 1.0, "zero", 2048), 40, [0, 0, 1, 0, 1]),
    "float current": (FloatNeuron(100.0, 200.0, 0.5, "zero", 0.5), 40.0, [0, 0, 1, 0, 1]),
}
ARITHMETIC: dict[Arithmetic, list[str]] = {
    "integer": ["IF", "LIF", "IF, reset with an exponent", "reset to zero", "current"],
    "float": ["float IF", "float LIF", "float, reset to zero", "float current"],
}


def echo() -> tuple[HardwareNetwork, Array]:
    """A spike that comes back two steps later."""
    back = Connection("echo", "a", "a", weights(100), 2, 0, 8)
    pulse = Connection("in", INPUT, "a", weights(100), 3, 0, 8)
    frames = np.zeros((5, 2, 1), dtype=np.int64)
    frames[0, 0] = 1
    return one_neuron(IntegerNeuron(100, 100, 0, 0, 1.0), (pulse, back), spec=EVENT), frames


def drain() -> tuple[HardwareNetwork, Array]:
    """A weight with a negative exponent, against a constant current of 1."""
    connections = (Connection("in", INPUT, "a", weights(-1), 2, -2, 8), constant(1))
    return one_neuron(IntegerNeuron(2, 2, 0, 0, 1.0), connections), np.array([[0], [3]])


def opposites() -> tuple[HardwareNetwork, Array]:
    """128 - 128 + 1 per step; the second is the most negative weight."""
    connections = (
        Connection("plus", ALWAYS_ON, "a", weights(64), 0, 1, 8),
        Connection("minus", ALWAYS_ON, "a", weights(-128), 0, 0, 8),
        constant(1),
    )
    return one_neuron(IntegerNeuron(2, 2, 0, 0, 1.0), connections), ONE_INPUT


@pytest.fixture(scope="module")
def by_hand() -> dict[str, RunResult]:
    """What all of them give: one run of Lava for the integers, one for the floats."""
    found: dict[str, RunResult] = {}
    for arithmetic, own in ARITHMETIC.items():
        jobs = {name: (one_neuron(BY_HAND[name][0], (constant(BY_HAND[name][1]),)), ONE_INPUT) for name in own}
        if arithmetic == "integer":
            jobs |= {"echo": echo(), "drain": drain(), "opposites": opposites()}
        networks, inputs = zip(*jobs.values(), strict=True)
        found |= dict(zip(jobs, run_side_by_side(LavaRunner(arithmetic), networks, inputs), strict=True))
    return found


@pytest.mark.parametrize("name", BY_HAND)
def test_one_neuron_by_hand(name: str, by_hand: dict[str, RunResult]) -> None:
    neuron, _, expected = BY_HAND[name]
    result = by_hand[name]
    assert result.spikes["a"].dtype == np.uint8
    assert result.spikes["a"].ravel().tolist() == expected
    assert result.spike_counts["a"].tolist() == [[sum(expected)]]
    powers = np.array([neuron.leak ** (4 - t) for t in range(5)])
    assert result.firing_rates["a"].item() == pytest.approx((powers * expected).sum() / powers.sum(), abs=1e-15)
    assert result.logits.item() == result.firing_rates["a"].item()


def test_delays_count_global_steps(by_hand: dict[str, RunResult]) -> None:
    """A frame at step 0 arrives at 3, one step into the window; its spike returns two steps later, then again."""
    assert by_hand["echo"].spikes["a"][:, :, 0].T.tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]


def test_negative_exponent_rounds_the_sum_down(by_hand: dict[str, RunResult]) -> None:
    """-3 codes times 1/4: floor(2 * -3 / 4) * 64 = -128 units of state: one weight unit, not three quarters."""
    assert by_hand["drain"].spikes["a"][:, :, 0].T.tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]


def test_the_most_negative_weight_is_not_clipped(by_hand: dict[str, RunResult]) -> None:
    """128 - 128 + 1 per step, threshold and reset 2. Left to guess, Lava would make -255 of the doubled -128."""
    assert by_hand["opposites"].spikes["a"].ravel().tolist() == [0, 1, 0, 1, 0]


def test_samples_are_independent() -> None:
    """A batch in one network gives what every sample gives alone in a fresh one."""
    network, inputs, spikes = next(c for c in map(random_case, range(20)) if len(c.network.populations) == 3)
    axis = int(network.input.kind == "event")
    assert any((s[:, 0] != s[:, 1]).any() for s in spikes.values())
    inputs = np.concatenate([inputs, np.flip(inputs, axis)], axis)
    names = [p.name for p in network.populations]
    together = LavaRunner().run(network, inputs, record=names)
    each = run_side_by_side(LavaRunner(), [network, network], [inputs.take([b], axis) for b in range(2)])
    for b, alone in enumerate(each):
        for name in names:
            assert np.array_equal(together.spikes[name][:, b], alone.spikes[name][:, 0])
            assert np.array_equal(together.spikes[name][:, b], together.spikes[name][:, 3 - b])


def test_float_agrees_with_the_float_simulator() -> None:
    """Drawn weights are in general position: no potential comes within rounding of the threshold, so rates are equal.

    The tolerance is that of summing T weighted spikes in another order.
    """
    rng = np.random.default_rng(5)
    leaks, sizes = [1.0, 0.95], [12, 9]
    populations = tuple(
        Population(f"p{i}", (n,), FloatNeuron(1.0, 2.0, leak), i)
        for i, (n, leak) in enumerate(zip(sizes, leaks, strict=True))
    )
    connections = (
        Connection("in", INPUT, "p0", rng.normal(0, 0.004, (12, 10))),
        Connection("on", ALWAYS_ON, "p0", rng.normal(0.2, 0.2, (12, 1))),
        Connection("forward", "p0", "p1", rng.normal(0.2, 0.5, (9, 12)), 1),
        Connection("feedback", "p1", "p0", rng.normal(0, 0.5, (12, 9)), 1),
    )
    readout = Readout("p1", rng.normal(size=(3, 9)), rng.normal(size=3))
    spec = InputSpec((10,), "graded", 255)
    network = with_timing(HardwareNetwork("float", spec, populations, connections, readout, 20), "hardware")
    inputs = rng.integers(0, 256, (5, 10))
    lava = LavaRunner("float").run(network, inputs)
    simulated = FloatSimulator().run(network, inputs)
    for name in lava.firing_rates:
        assert 0.05 < lava.firing_rates[name].mean() < 0.95
        np.testing.assert_allclose(lava.firing_rates[name], simulated.firing_rates[name], atol=1e-12)
    np.testing.assert_allclose(lava.logits, simulated.logits, atol=1e-12)


def test_refuses_what_it_cannot_run() -> None:
    network = one_neuron(IntegerNeuron(100, 100, 0, 0, 1.0), (constant(60),))
    with pytest.raises(UnsupportedError, match=r'"lava-float" runs float networks.* use the lowered \(float\)'):
        get_backend("lava-float").run(network, ONE_INPUT)
    with pytest.raises(UnsupportedError, match=r"cannot say.*\n.*starts at step 0.*\n.*with_timing"):
        LavaRunner().run(with_timing(network, "sequential"), ONE_INPUT)
    with pytest.raises(InputError, match=r"input codes from 256 to 256; allowed: 0 .. 255"):
        LavaRunner().run(network, ONE_INPUT + 256)
    with pytest.raises(ConfigError, match=r'timeout_s 0; allowed: "host", "lava"; more than 0'):
        LavaRunner(timeout_s=0)


def test_loihi2_says_what_is_missing_and_how_to_get_it() -> None:
    with pytest.raises(MissingDependencyError, match=r"lava-loihi is not installed.*INRC.*from Intel"):
        get_backend("loihi2")


TIME_STEPS = 5
SAMPLES = 200_000
"""Minutes of work: however late an interference comes, the run is still going on."""


def slow_run() -> tuple[HardwareNetwork, Array]:
    """Something that is busy for a while: sample b adds b % 100 per step to one neuron of threshold 100."""
    neuron = IntegerNeuron(100, 100, 0, 0, 1.0)
    connections = (
        Connection("in", INPUT, "a", np.ones((1, 1), np.int32), 2, 0, 8),
        Connection("on", ALWAYS_ON, "a", np.ones((1, 1), np.int32), 0, 0, 8),
    )
    readout = Readout("a", np.ones((1, 1)), np.zeros(1))
    network = HardwareNetwork(
        "slow", InputSpec((1,), "graded", 255), (Population("a", (1,), neuron, 2),), connections, readout, TIME_STEPS
    )
    return network, (np.arange(SAMPLES, dtype=np.int32) % 100)[:, None]


def expected_counts(samples: int) -> Array:
    """Spikes of the first samples: integrate b % 100 + 1 five times, subtract 100 after each spike."""
    current, v = np.arange(samples) % 100 + 1, np.zeros(samples, int)
    counts = np.zeros(samples, int)
    for _ in range(TIME_STEPS):
        v += current
        counts += v >= 100
        v -= 100 * (v >= 100)
    return counts[:, None]


class Children:
    """Processes that were started since, not those that another test left (torch's compiler keeps some)."""

    def __init__(self) -> None:
        self._before = set(psutil.Process().children(recursive=True))

    def now(self) -> list[psutil.Process]:
        return [p for p in psutil.Process().children(recursive=True) if p not in self._before]


class Interference:
    """Does something when the first samples are done; afterwards, all of Lava's processes must be gone."""

    def __init__(self, number: signal.Signals | None, *, worker: bool = False) -> None:
        self.number = number
        self.worker = worker
        self.children = Children()
        self.processes: list[psutil.Process] = []

    def __call__(self, done: int, total: int) -> None:
        if done < 3 or self.processes:
            return
        assert total == SAMPLES
        self.processes = self.children.now()
        if self.number is None:
            raise KeyboardInterrupt
        os.kill(self.processes[0 if self.worker else -1].pid, self.number)

    def assert_all_gone(self) -> None:
        assert len(self.processes) > 5
        assert_gone(self.processes)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def assert_kept(error: IncompleteRunError) -> None:
    """The finished samples' results are there, and right."""
    assert 3 <= error.samples < SAMPLES
    assert np.array_equal(error.result.spike_counts["a"], expected_counts(error.samples))
    assert np.array_equal(error.result.logits, error.result.spike_counts["a"] / TIME_STEPS)
    assert error.result.spikes["a"].shape == (TIME_STEPS, error.samples, 1)
    assert np.array_equal(error.result.spikes["a"].sum(axis=0), error.result.spike_counts["a"])


def test_timeout_instead_of_a_hang() -> None:
    stopper = Interference(signal.SIGSTOP)
    message = (
        r"of 200000 samples ended in sample \d+ at global step \d, after \d+ of 1400000 steps; \d+ finished samples"
    )
    with pytest.raises(IncompleteRunError, match=message) as caught:
        LavaRunner(timeout_s=12).run(*slow_run(), record=["a"], progress=stopper)
    stopper.assert_all_gone()
    assert_kept(caught.value)


def test_timeout_before_the_first_step() -> None:
    with pytest.raises(IncompleteRunError, match=r"sample 0 at global step 0, after 0 of.*within 0.01 s") as caught:
        LavaRunner(timeout_s=0.01).run(*slow_run())
    assert (caught.value.samples, caught.value.result) == (0, None)


@pytest.mark.parametrize("stock", [False, True])
def test_a_lava_process_that_dies(stock: bool) -> None:
    killer = Interference(signal.SIGKILL)
    with pytest.raises(IncompleteRunError, match=r"ended by itself after step \d+, exit code -9") as caught:
        LavaRunner(stock_models=stock).run(*slow_run(), record=["a"], progress=killer)
    killer.assert_all_gone()
    assert_kept(caught.value)


def test_a_worker_that_dies() -> None:
    killer = Interference(signal.SIGKILL, worker=True)
    with pytest.raises(IncompleteRunError, match="worker ended before it had answered") as caught:
        LavaRunner().run(*slow_run(), record=["a"], progress=killer)
    killer.assert_all_gone()
    assert_kept(caught.value)


def test_interrupt_keeps_what_is_finished() -> None:
    interrupt = Interference(None)
    with pytest.raises(IncompleteRunError, match=r"\d+ finished samples.*the run was interrupted") as caught:
        LavaRunner().run(*slow_run(), record=["a"], progress=interrupt)
    interrupt.assert_all_gone()
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    assert caught.value.samples == 3
    assert_kept(caught.value)


def test_interrupt_in_the_sink_does_not_count_its_sample() -> None:
    handed: list[int] = []

    def sink(first: int, spikes: Mapping[str, Array]) -> None:
        if first == 4:
            raise KeyboardInterrupt
        handed.append(first)

    with pytest.raises(IncompleteRunError, match="4 finished samples") as caught:
        LavaRunner().run(*slow_run(), record=["a"], sink=sink)
    assert handed == [0, 1, 2, 3]
    assert caught.value.result.spikes == {}
    assert np.array_equal(caught.value.result.spike_counts["a"], expected_counts(4))


def test_an_error_of_the_caller_is_his_own() -> None:
    children, processes = Children(), list[psutil.Process]()

    def sink(first: int, spikes: Mapping[str, Array]) -> None:
        processes.extend(children.now())
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        LavaRunner().run(*slow_run(), record=["a"], sink=sink)
    assert len(processes) > 5
    assert_gone(processes)


def test_side_by_side_keeps_one_result_per_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while the third sample of the second network is added."""
    network, inputs = slow_run()
    calls: list[int] = []
    add = FinishedSamples.add

    def interrupted(self: FinishedSamples, spikes: Mapping[str, Array], potentials: Array | None) -> None:
        calls.append(self.finished)
        if len(calls) == 6:
            raise KeyboardInterrupt
        add(self, spikes, potentials)

    monkeypatch.setattr(FinishedSamples, "add", interrupted)
    with pytest.raises(IncompleteRunError, match="3 finished samples") as caught:
        run_side_by_side(LavaRunner(), [network, network], [inputs, inputs[98:]])
    first, second = caught.value.result
    assert np.array_equal(first.spike_counts["a"], expected_counts(3))
    assert np.array_equal(second.spike_counts["a"], expected_counts(100)[98:])


def test_an_ordinary_run_leaves_nothing_behind() -> None:
    network, inputs = slow_run()
    children, seen = Children(), list[psutil.Process]()
    progress = lambda done, total: seen.extend(children.now())  # noqa: E731
    LavaRunner().run(network, inputs[:20], progress=progress)
    assert seen
    assert_gone(seen)


@pytest.mark.slow
def test_runs_in_one_process_do_not_grow_its_memory() -> None:
    """Not by more than two percent after the first, and not by a single file descriptor."""
    network, inputs = slow_run()
    resident, descriptors = [], []
    gc.collect()
    for _ in range(5):
        LavaRunner(stock_models=True).run(network, inputs[:50], record=["a"])
        resident.append(psutil.Process().memory_info().rss)
        descriptors.append(psutil.Process().num_fds())
    assert max(resident[1:]) <= 1.02 * resident[0]
    # Fewer is possible: what an earlier test left to the garbage collector is closed at some time.
    assert max(descriptors) == descriptors[0]


SCRIPT = """
import numpy as np
from fsnn_lava.backends import get_backend
from fsnn_lava.errors import IncompleteRunError
from fsnn_lava.hardware import *

network = HardwareNetwork(
    "n",
    InputSpec((1,), "graded", 255),
    (Population("a", (1,), IntegerNeuron(100, 100, 0, 0, 1.0), 1),),
    (Connection("on", "always_on", "a", np.array([[60]], dtype=np.int32), 0, 0, 8),),
    Readout("a", np.ones((1, 1)), np.zeros(1)),
    5,
)
tell = lambda done, total: print(done, flush=True)
run = lambda samples, **how: get_backend("lava-fixed").run(network, np.zeros((samples, 1), dtype=int), **how)
"""


def run_script(folder: Path, text: str) -> subprocess.Popen[bytes]:
    (folder / "script.py").write_text(SCRIPT + text)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "script.py"], cwd=folder, env=environment, stdout=pipe, stderr=pipe)


def test_a_script_without_main_guard_prints_and_writes_nothing(tmp_path: Path) -> None:
    ran = run_script(tmp_path, "assert run(2).spike_counts['a'].tolist() == [[3], [3]]\n")
    assert ran.communicate(timeout=120) == (b"", b"")
    assert ran.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_keeps_what_is_finished_and_leaves_nothing_behind(tmp_path: Path, times: int) -> None:
    """Once, and impatiently: the later ones reach it while it ends Lava, or after."""
    ran = run_script(
        tmp_path,
        "import signal\n"
        "try:\n"
        "    run(200_000, progress=tell)\n"
        "except IncompleteRunError as error:\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    assert error.result.spike_counts['a'].tolist() == [[3]] * error.samples\n"
        "    print('kept', flush=True)\n",
    )
    with ran:
        assert ran.stdout.readline()
        lava = psutil.Process(ran.pid).children(recursive=True)
        for _ in range(times):
            ran.send_signal(signal.SIGINT)
        output, errors = ran.communicate(timeout=120)
    assert len(lava) > 5
    assert_gone(lava)
    if times == 1:
        assert output.endswith(b"kept\n"), errors.decode()


def test_a_killed_script_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tempfile.mkdtemp(prefix="t-")  # a socket's path must be short
    monkeypatch.setenv("TMPDIR", temporary)
    ran = run_script(tmp_path, "run(200_000, progress=tell)\n")
    with ran:
        assert ran.stdout.readline()
        lava = psutil.Process(ran.pid).children(recursive=True)
        ran.kill()
    assert len(lava) > 5
    assert_gone(lava)
    os.rmdir(temporary)  # refuses if anything is left
