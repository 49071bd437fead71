"""Everything that can run a `HardwareNetwork`, behind one interface.

A runner takes a network and inputs and returns a `RunResult`. `get_backend` imports a runner when it is asked for,
so that Lava need not be installed to use the simulator.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from fsnn_lava.errors import UnsupportedError
from fsnn_lava.ir import Arithmetic, Array, HardwareNetwork
from fsnn_lava.result import RunResult

Progress = Callable[[int, int], None]
"""Called with the number of samples that are done and their total."""
Sink = Callable[[int, Mapping[str, Array]], None]
"""Called in order with the index of the first of some finished samples, and their spikes, population -> (T, b, *N)."""

_RUNNERS: dict[str, tuple[str, str]] = {
    "simulator": ("fsnn_lava.simulator", "IntegerSimulator"),
    "simulator-float": ("fsnn_lava.simulator", "FloatSimulator"),
    "lava-fixed": ("fsnn_lava.backends.lava_runner", "LavaFixedRunner"),
    "lava-float": ("fsnn_lava.backends.lava_runner", "LavaFloatRunner"),
    "loihi2": ("fsnn_lava.backends.lava_runner", "Loihi2Runner"),
}

BACKENDS: tuple[str, ...] = tuple(_RUNNERS)
"""Names that `get_backend` knows."""


class Runner(Protocol):
    """What every backend offers.

    Attributes
    ----------
    name : the backend's name, as in `RunResult.backend`.
    arithmetic : the arithmetic of the networks it runs; None: both.
    """

    @property
    def name(self) -> str:
        """The backend's name."""

    @property
    def arithmetic(self) -> Arithmetic | None:
        """``float``, ``integer``, or None for both."""

    def run(
        self,
        network: HardwareNetwork,
        inputs: Array,
        *,
        record: Sequence[str] = (),
        sink: Sink | None = None,
        progress: Progress | None = None,
    ) -> RunResult:
        """The firing rates, counts, logits and recorded spikes of a batch.

        Parameters
        ----------
        inputs : graded: (B, *shape) integer codes; event: (T, B, *shape) 0/1.
        record : names of the populations whose spikes are returned, or handed to the sink.
        sink : takes the recorded spikes as they come, so that no run is too long for the memory; the result then holds
            none.
        progress : told how many samples are done.

        Raises
        ------
        UnsupportedError : if the backend cannot run this network.
        InputError : if the inputs do not fit the network.
        IncompleteRunError : if it is interrupted, or fails on the way; it holds the result of the finished samples.
        """


def get_backend(name: str) -> Runner:
    """The runner of that name, with its default settings.

    Raises
    ------
    UnsupportedError : if there is no such backend.
    MissingDependencyError : if the backend needs a package that is absent; the message names the extra to install.
    """
    if name not in _RUNNERS:
        raise UnsupportedError(f'no backend "{name}"; there are: {", ".join(BACKENDS)}')
    module, runner = _RUNNERS[name]
    made: Runner = getattr(importlib.import_module(module), runner)()
    return made


def require_arithmetic(runner: Runner, network: HardwareNetwork) -> None:
    """Nothing, if the network is of the runner's arithmetic.

    Raises
    ------
    UnsupportedError : saying which network file to use instead.
    """
    if runner.arithmetic is None or network.arithmetic == runner.arithmetic:
        return
    wanted = "quantized (integer)" if runner.arithmetic == "integer" else "lowered (float)"
    raise UnsupportedError(
        f'backend "{runner.name}" runs {runner.arithmetic} networks; network "{network.name}" is '
        f"{network.arithmetic}; use the {wanted} network file of the same export"
    )
