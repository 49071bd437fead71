"""Ends of Lava's channels (0.10.0) that need no thread of their own.

A Lava channel between two Python processes is a ring of messages in shared memory and two semaphores: the sender raises
one for every message, the receiver the other for every message that it has taken. Lava's ports leave the waiting to
a helper thread at each end, so that every message wakes three threads where one would do, and that is most of a step
of a small network. These ports wait for the semaphore themselves. What they do to memory and semaphores is the same,
so that either end of a channel may be one of Lava's own.
"""

import numpy as np
from lava.magma.compiler.channels.pypychannel import CspRecvPort, CspSendPort

from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import Array


class ThreadlessSendPort(CspSendPort):
    """The sending end. It blocks while the ring is full."""

    _idx: int
    _free: int

    def start(self) -> None:
        """Open the ring."""
        self._array = _ring(self)
        self._free = self._size

    def probe(self) -> bool:
        """Tell whether `send` returns at once."""
        if not self._free and self._ack.acquire(block=False):
            self._free = 1
        return self._free > 0

    def send(self, data: Array) -> None:
        """Copy a message into the ring.

        Raises
        ------
        AssertionError : if its shape is not the channel's.
        """
        assert data.shape == self._shape, f"{self._name}: a message of shape {data.shape}, not {self._shape}"
        if self._free:
            self._free -= 1
        else:
            self._ack.acquire()
        self._array[self._idx][...] = data
        self._idx = (self._idx + 1) % self._size
        self._req.release()


class ThreadlessRecvPort(CspRecvPort):
    """The receiving end."""

    _idx: int
    _waiting: bool

    def start(self) -> None:
        """Open the ring."""
        self._array = _ring(self)
        self._waiting = False

    def probe(self) -> bool:
        """Tell whether `recv` returns at once."""
        self._waiting = self._waiting or self._req.acquire(block=False)
        return self._waiting

    def look(self) -> Array:
        """The next message where it lies: valid until `drop`. Blocks while there is none."""
        if not self._waiting:
            self._req.acquire()
            self._waiting = True
        view: Array = self._array[self._idx]
        return view

    def drop(self) -> None:
        """Hand the place of the message that `look` showed back to the sender."""
        self._waiting = False
        self._idx = (self._idx + 1) % self._size
        self._ack.release()

    def peek(self) -> Array:
        """A copy of the next message, which stays."""
        return self.look().copy()

    def recv(self) -> Array:
        """A copy of the next message, which is dropped."""
        message = self.look().copy()
        self.drop()
        return message


def remove_thread(port: CspSendPort | CspRecvPort) -> None:
    """Turn one of Lava's ports, not yet started, into the same port without a thread.

    The object stays the same one: Lava refers to its ports in several places, virtual ports among them.

    Raises
    ------
    UnsupportedError : for ports of another kind, as between a host and a chip.
    """
    kinds = {CspSendPort: ThreadlessSendPort, CspRecvPort: ThreadlessRecvPort}
    if type(port) in kinds.values():
        return
    if type(port) not in kinds:
        raise UnsupportedError(
            f"{type(port).__name__}: the fast models of Lava's processes speak to Python processes only; "
            "run the graph with Lava's own models (--stock-models)"
        )
    port.__class__ = kinds[type(port)]


def _ring(port: CspSendPort | CspRecvPort) -> list[Array]:
    """The messages' places in shared memory."""
    room = [port._shm.buf[port._nbytes * i : port._nbytes * (i + 1)] for i in range(port._size)]
    return [np.ndarray(port._shape, port._dtype, buffer=buffer) for buffer in room]
