"""Everything that can run a `HardwareNetwork`, behind one interface.

A runner takes a network and inputs and returns a `RunResult`. `get_backend` imports a runner when it is asked for,
so that Lava need not be installed to use the simulator.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fsnn_lava.errors import ConfigError, UnsupportedError
from fsnn_lava.hardware import Arithmetic, Array, HardwareNetwork, RunResult

Progress = Callable[[int, int], None]
"""Called with the number of samples that are done and their total."""
Sink = Callable[[int, Mapping[str, Array]], None]
"""Called in order with the index of the first of some finished samples, and their spikes, population -> (T, b, *N)."""

_RUNNERS: dict[str, tuple[str, str]] = {
    "simulator": ("fsnn_lava.backends.simulator", "IntegerSimulator"),
    "simulator-float": ("fsnn_lava.backends.simulator", "FloatSimulator"),
    "lava-fixed": ("fsnn_lava.backends.lava.runner", "LavaFixedRunner"),
    "lava-float": ("fsnn_lava.backends.lava.runner", "LavaFloatRunner"),
    "loihi2": ("fsnn_lava.backends.lava.runner", "Loihi2Runner"),
}

BACKENDS: tuple[str, ...] = tuple(_RUNNERS)
"""Names that `get_backend` knows."""


@dataclass(frozen=True)
class BackendSettings:
    """How a backend runs; what a backend has no use for must stay as it is.

    Parameters
    ----------
    engine : simulator: ``event``: each spike adds its weights; ``dense``: products with all weights; ``auto``: by the
        firing rate of the first samples. All give the same spikes.
    stock_models : lava-fixed: Lava's own models of its processes instead of our faster ones; the same spikes.
    readout : lava-fixed: ``host``: logits from firing rates; ``lava``: from integrators in Lava.
    """

    engine: Literal["auto", "event", "dense"] = "auto"
    stock_models: bool = False
    readout: Literal["host", "lava"] = "host"


_SETTINGS: dict[str, tuple[str, ...]] = {"simulator": ("engine",), "lava-fixed": ("stock_models", "readout")}
"""Settings that each backend knows."""


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


def get_backend(name: str, settings: BackendSettings | None = None) -> Runner:
    """The runner of that name.

    Raises
    ------
    UnsupportedError : if there is no such backend.
    ConfigError : if a setting was changed that the backend does not know.
    MissingDependencyError : if the backend needs a package that is absent; the message names the extra to install.
    """
    if name not in _RUNNERS:
        raise UnsupportedError(f'no backend "{name}"; there are: {", ".join(BACKENDS)}')
    default = BackendSettings()
    values = dataclasses.asdict(settings or default)
    changed = {key: value for key, value in values.items() if value != getattr(default, key)}
    foreign = sorted(set(changed) - set(_SETTINGS.get(name, ())))
    if foreign:
        known = {key: [b for b, keys in _SETTINGS.items() if key in keys] for key in foreign}
        listed = "; ".join(f"{key} is a setting of {', '.join(owners)}" for key, owners in known.items())
        raise ConfigError(f'backend "{name}": found {", ".join(foreign)}; {listed}')
    module, runner = _RUNNERS[name]
    made: Runner = getattr(importlib.import_module(module), runner)(**changed)
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
