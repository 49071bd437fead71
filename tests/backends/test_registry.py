"""Backends by name, what Lava cannot say, and Python processes that are always ended. Needs no Lava."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from fsnn_lava.backends import BACKENDS, BackendSettings, get_backend, require_arithmetic
from fsnn_lava.backends.lava.chip_limits import hardware_violations, lava_delay, require_hardware
from fsnn_lava.backends.lava.runner import LavaFixedRunner
from fsnn_lava.backends.lava.worker_process import SilenceError, run_isolated
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.errors import BackendError, ConfigError, MissingDependencyError, UnsupportedError
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution, Geometry, TransposedConvolution
from fsnn_lava.hardware.network import (
    ALWAYS_ON,
    INPUT,
    Connection,
    FloatNeuron,
    HardwareNetwork,
    InputSpec,
    IntegerNeuron,
    Population,
    Readout,
    with_timing,
)


def ones(rows: int, columns: int, value: int = 1) -> Array:
    return np.full((rows, columns), value, dtype=np.int32)


def network(*, maximum: int = 255, reset_exponent: int = 0, value: int = 1) -> HardwareNetwork:
    """Two populations with feedback, in the hardware's timing."""
    neuron = IntegerNeuron(100, 100, reset_exponent, 0, 1.0)
    connections = (
        Connection("in", INPUT, "a", ones(3, 4, value), 0, 0, 8),
        Connection("on", ALWAYS_ON, "b", ones(2, 1), 0, 0, 8),
        Connection("forward", "a", "b", ones(2, 3), 0, 0, 8),
        Connection("feedback", "b", "a", ones(3, 2), 1, 0, 8),
    )
    populations = (Population("a", (3,), neuron), Population("b", (2,), neuron))
    readout = Readout("b", np.ones((2, 2)), np.zeros(2))
    spec = InputSpec((4,), "graded", maximum)
    return with_timing(HardwareNetwork("net", spec, populations, connections, readout, 5), "hardware")


# ---- by name -------------------------------------------------------------------------------------------


def test_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match='no backend "spinnaker"; there are: simulator, simulator-float, lava'):
        get_backend("spinnaker")
    assert BACKENDS == ("simulator", "simulator-float", "lava-fixed", "lava-float", "loihi2")


@pytest.mark.parametrize("name", ["simulator", "simulator-float"])
def test_simulators_come_by_name(name: str) -> None:
    assert get_backend(name).name == name


@pytest.mark.parametrize("name", ["lava-fixed", "lava-float", "loihi2"])
def test_missing_lava_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r'Python 3\.10: pip install "fsnn-lava\[lava\]"'):
        get_backend(name)


def test_settings_reach_the_backend() -> None:
    simulator = get_backend("simulator", BackendSettings(engine="dense"))
    assert isinstance(simulator, IntegerSimulator)
    assert simulator.engine == "dense"
    assert get_backend("simulator", BackendSettings()) == IntegerSimulator()


@pytest.mark.lava
def test_settings_reach_lava() -> None:
    runner = get_backend("lava-fixed", BackendSettings(stock_models=True, readout="lava"))
    assert isinstance(runner, LavaFixedRunner)
    assert (runner.stock_models, runner.readout, runner.name) == (True, "lava", "lava-fixed-stock")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "simulator",
            BackendSettings(stock_models=True),
            "found stock_models; stock_models is a setting of lava-fixed",
        ),
        ("lava-fixed", BackendSettings(engine="event"), '"lava-fixed": found engine; engine is a setting of simulator'),
        ("loihi2", BackendSettings(readout="lava"), '"loihi2": found readout; readout is a setting of lava-fixed'),
    ],
)
def test_settings_of_another_backend_are_refused(name: str, settings: BackendSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_backend(name, settings)


def test_wrong_arithmetic_says_which_file_to_use() -> None:
    with pytest.raises(UnsupportedError, match=r'"simulator-float" runs float networks; network "net" is integer; use'):
        require_arithmetic(get_backend("simulator-float"), network())
    require_arithmetic(get_backend("simulator"), network())


# ---- what Lava cannot say ------------------------------------------------------------------------------


def test_hardware_timing_is_fine() -> None:
    assert hardware_violations(network()) == []
    require_hardware(network(), backend="lava-fixed")
    assert [lava_delay(network(), c) for c in network().connections] == [1, 2, 1, 1]


def test_sequential_timing_is_refused_with_every_reason_and_the_way_out() -> None:
    sequential = with_timing(network(), "sequential")
    with pytest.raises(UnsupportedError) as caught:
        require_hardware(sequential, backend="lava-fixed")
    message = str(caught.value)
    assert '"lava-fixed" cannot say network "net", 3 violation(s)' in message
    assert 'connection "in" (input -> a): found delay 0; allowed: 1 .. 64 steps' in message
    assert (
        'connection "on" (always_on -> b): found a target that starts at step 0; allowed: a start of 1 .. 6' in message
    )
    assert 'connection "forward" (a -> b): found delay 0' in message
    assert 'with_timing(network, "hardware")' in message


def test_longest_delay() -> None:
    base = network()
    for delay, count in ((64, 0), (65, 1)):
        late = dataclasses.replace(base.connections[3], delay=delay)
        changed = dataclasses.replace(base, connections=(*base.connections[:3], late))
        assert len(hardware_violations(changed)) == count


def test_messages_resets_and_sums_have_limits() -> None:
    assert "codes up to 256" in str(hardware_violations(network(maximum=256))[0])
    found = hardware_violations(network(reset_exponent=7))
    assert [str(v) for v in found] == [
        f'population "{name}": found reset exponent 7; allowed: 0 .. 6' for name in ("a", "b")
    ]
    large = "\n".join(map(str, hardware_violations(network(maximum=2**22, value=127))))
    assert 'connection "in" (input -> a): found a sum that can reach 4261412864; allowed: at most 2147483647' in large
    assert 'population "a": found an input that can reach' in large


def convolved(weight: Array, geometry: Geometry, *, kind: str, exponent: int = 0) -> HardwareNetwork:
    """An image of 1 x 4 x 4 through one kernel."""
    spec = InputSpec((1, 4, 4), "event", 1) if kind == "event" else InputSpec((1, 4, 4), "graded", 255)
    side = (4 + 2 * geometry.padding - weight.shape[2]) // geometry.stride + 1 if geometry.padding else 2
    population = Population("a", (1, side, side), IntegerNeuron(100, 100, 0, 0, 1.0), 1)
    kernel = Connection("k", INPUT, "a", weight, 1, exponent, 8, geometry)
    readout = Readout("a", np.ones((1, side * side)), np.zeros(1))
    return HardwareNetwork("kernels", spec, (population,), (kernel,), readout, 5)


def test_convolutions_have_no_exponent_unless_they_carry_codes() -> None:
    kernel = np.ones((1, 1, 3, 3), np.int32)
    assert hardware_violations(convolved(kernel, Convolution(), kind="graded", exponent=-2)) == []
    assert hardware_violations(convolved(kernel, Convolution(), kind="event")) == []
    found = hardware_violations(convolved(kernel, Convolution(), kind="event", exponent=2))
    assert [str(v) for v in found] == [
        "connection \"k\" (input -> a): found weight exponent 2; allowed: 0: Lava's Conv has none; scale the target's "
        "threshold instead"
    ]
    transposed = convolved(kernel, TransposedConvolution(1, 1), kind="event", exponent=2)
    assert hardware_violations(transposed) == []


def test_kernels_that_lavas_conv_cannot_count() -> None:
    wide = convolved(np.ones((1, 1, 128, 128), np.int32), Convolution(1, 127), kind="event")
    assert "found kernel 128, stride 1, padding 127; allowed: at most 127 each" in str(hardware_violations(wide)[0])


def test_sums_of_convolutions_stay_in_24_bits() -> None:
    """4 x 4 events times 2 * 127 per channel: 1032 channels fit, 1033 wrap in Lava's Conv, in Dense they would not."""
    for channels, count in ((2064, 0), (2066, 1)):
        spec = InputSpec((channels, 4, 4), "event", 1)
        population = Population("a", (1, 1, 1), IntegerNeuron(100, 100, 0, 0, 1.0), 1)
        weight = np.full((1, channels, 4, 4), -127, np.int32)
        kernel = Connection("k", INPUT, "a", weight, 1, 0, 8, Convolution())
        readout = Readout("a", np.ones((1, 1)), np.zeros(1))
        net = HardwareNetwork("deep", spec, (population,), (kernel,), readout, 5)
        found = hardware_violations(net)
        assert len(found) == count
        dense = dataclasses.replace(kernel, weight=weight.reshape(1, -1), geometry=DENSE)
        assert hardware_violations(dataclasses.replace(net, connections=(dense,))) == []
    assert str(found[0]) == (
        'connection "k" (input -> a): found a sum that can reach 8396224; allowed: at most 8388607'
    )


def test_float_networks_only_have_delays_to_obey() -> None:
    neuron = FloatNeuron(1.0, 1.0, 1.0)
    connections = (Connection("in", INPUT, "a", np.ones((1, 1)), 1),)
    readout = Readout("a", np.ones((1, 1)), np.zeros(1))
    spec = InputSpec((1,), "graded", 4095)
    fine = HardwareNetwork("float", spec, (Population("a", (1,), neuron, 1),), connections, readout, 5)
    assert hardware_violations(fine) == []
    assert len(hardware_violations(with_timing(fine, "sequential"))) == 1


# ---- processes -----------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
job = connection.recv()
child = os.fork()
if child == 0:
    time.sleep(1000)
connection.send(("children", child))
if job == "fail":
    raise ValueError("something is wrong")
if job == "hang":
    time.sleep(1000)
print("noise")
connection.send(("done", job))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "isolated_program.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "isolated_program"


class Listener:
    """Keeps the messages, and the process that the program has left running."""

    def __init__(self, *, interrupt: bool = False) -> None:
        self.interrupt = interrupt
        self.messages: list[tuple[str, object]] = []

    def __call__(self, message: tuple[str, object]) -> bool:
        self.messages.append(message)
        if self.interrupt:
            raise KeyboardInterrupt
        return message[0] == "done"

    def child_is_gone(self) -> bool:
        pid = self.messages[0][1]
        assert isinstance(pid, int)
        try:
            _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=10)
        except psutil.NoSuchProcess:
            return True
        return all(p.status() == psutil.STATUS_ZOMBIE for p in alive)


def test_isolated_hands_over_messages_and_ends_the_rest(module: str, capfd: pytest.CaptureFixture[str]) -> None:
    listener = Listener()
    run_isolated(module, {"any": "job"}, on_message=listener, silence_s=60)
    assert listener.messages[1:] == [("done", {"any": "job"})]
    assert listener.child_is_gone()
    assert capfd.readouterr() == ("", "")


def test_isolated_failure_shows_what_was_printed(module: str) -> None:
    listener = Listener()
    with pytest.raises(BackendError, match=r"(?s)isolated_program ended before.*ValueError: something is wrong"):
        run_isolated(module, "fail", on_message=listener, silence_s=60)
    assert listener.child_is_gone()


def test_isolated_hang_ends_in_time(module: str) -> None:
    listener = Listener()
    with pytest.raises(SilenceError, match="no message for 5 s"):
        run_isolated(module, "hang", on_message=listener, silence_s=5)
    assert listener.child_is_gone()


def test_isolated_interrupt_ends_everything(module: str) -> None:
    listener = Listener(interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        run_isolated(module, "hang", on_message=listener, silence_s=60)
    assert listener.child_is_gone()


def test_isolated_interrupt_is_heard_though_python_dropped_it(module: str) -> None:
    """A `KeyboardInterrupt` that is raised in a destructor is printed and forgotten; the run must end all the same."""
    listener = Listener()

    def dropped(message: tuple[str, object]) -> bool:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        return listener(message)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_isolated(module, "hang", on_message=dropped, silence_s=60)
    assert listener.child_is_gone()
    assert signal.getsignal(signal.SIGINT) == handler


def test_isolated_module_that_does_not_exist() -> None:
    with pytest.raises(BackendError, match="no_such_module ended before it had answered"):
        run_isolated("no_such_module", None, on_message=Listener(), silence_s=60)
