"""Lava's channels without threads: either end may be Lava's own; and the loop of a model of one thread."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lava.magma", reason="Lava is not installed")
from lava.magma.compiler.channels.pypychannel import PyPyChannel
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.runtime.mgmt_token_enums import MGMT_COMMAND, MGMT_RESPONSE

from fsnn_lava.backends.lava.models.fast_ports import ThreadlessRecvPort, ThreadlessSendPort, remove_thread
from fsnn_lava.backends.lava.models.fast_process import SingleThreadModel
from fsnn_lava.errors import UnsupportedError
from lava_bench import channel, threadless

pytestmark = pytest.mark.lava


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
        remove_thread(SimpleNamespace())  # type: ignore[arg-type]


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
