"""Everything that can run a `HardwareNetwork`, behind one interface.

A runner takes a network and inputs and returns a `RunResult`. `BACKENDS` imports a runner when it is asked for, so that
Lava need not be installed to use the simulator. `run` is one call for samples of any kind, whatever backend is named.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fsnn_lava.config import Registry
from fsnn_lava.datasets import InputCoding, Samples, codes_of, time_first
from fsnn_lava.errors import ConfigError, InputError, UnsupportedError
from fsnn_lava.hardware import Arithmetic, Array, HardwareNetwork, RunResult

Progress = Callable[[int, int], None]
"""Called with the number of samples that are done and their total."""
Sink = Callable[[int, Mapping[str, Array]], None]
"""Called in order with the index of the first of some finished samples, and their spikes, population -> (T, b, *N)."""


class Runner(Protocol):
    """The interface of every backend."""

    @property
    def name(self) -> str:
        """The backend's name, as in `RunResult.backend`."""

    @property
    def arithmetic(self) -> Arithmetic | None:
        """The arithmetic of the networks it runs; None: both."""

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


BACKENDS: Registry[Callable[..., Runner]] = Registry("backend", group="fsnn_lava.backends", error=UnsupportedError)
"""Backends by name: what makes a `Runner` from the backend's own settings, which are its keyword arguments.

The one place where a backend is added, by `Registry.register` or by an entry point of the group.
"""

for _name, _runner, _help in (
    ("simulator", "simulator:IntegerSimulator", "integers, bit-accurate, fast"),
    ("simulator-float", "simulator:FloatSimulator", "the network before quantization"),
    ("lava-fixed", "lava.runner:LavaFixedRunner", "the integers of the simulator on Lava's CPU simulator"),
    ("lava-float", "lava.runner:LavaFloatRunner", "the network before quantization on Lava's CPU simulator"),
    ("loihi2", "lava.runner:Loihi2Runner", "on the chip, which needs Intel's lava-loihi"),
):
    BACKENDS.register(_name, f"fsnn_lava.backends.{_runner}", help=_help)


def get_backend(name: str, settings: Mapping[str, object] | None = None) -> Runner:
    """Make the runner of that name.

    >>> get_backend("simulator", {"engine": "event"}).name
    'simulator'

    Parameters
    ----------
    name : of `BACKENDS`.
    settings : those of the backend that differ from its defaults; see the class that it is registered with.

    Raises
    ------
    UnsupportedError : if there is no such backend.
    ConfigError : for a setting that the backend does not know.
    MissingDependencyError : if the backend needs a package that is absent; the message names the extra to install.
    """
    make, given = BACKENDS.get(name), dict(settings or {})
    foreign = sorted(set(given) - _settings_of(name))
    if foreign:
        known = {key: ", ".join(b for b in BACKENDS if key in _settings_of(b)) or "no backend" for key in foreign}
        listed = "; ".join(f"{key} is a setting of {owners}" for key, owners in known.items())
        raise ConfigError(f'backend "{name}": found {", ".join(foreign)}; {listed}')
    return make(**given)


def _settings_of(name: str) -> set[str]:
    """Names of the settings that a backend knows."""
    return set(inspect.signature(BACKENDS.get(name)).parameters)


def require_arithmetic(runner: Runner, network: HardwareNetwork) -> None:
    """Raise if the network is of another arithmetic than the runner's.

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


def run(
    network: HardwareNetwork,
    samples: Samples | npt.ArrayLike,
    *,
    backend: str = "simulator",
    labels: npt.ArrayLike | None = None,
    record: bool | Sequence[str] = False,
    settings: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run a network on samples.

    >>> result = run(network, data.test[:100], backend="lava-fixed")  # doctest: +SKIP

    Parameters
    ----------
    samples : samples, or an array (n, *shape) of codes or of floats: the values that training sees, that is normalised.
    labels : classes (n,) of an array, so that the result knows its accuracy.
    record : populations whose spikes the result keeps; True: all.
    settings : of the backend, as in `get_backend`.
    progress : told how many samples are done.

    Raises
    ------
    UnsupportedError : if there is no such backend, or it cannot run this network.
    InputError : if the inputs do not fit the network.
    MissingDependencyError : if the backend needs a package that is absent.
    IncompleteRunError : if the run is interrupted; it holds the result of the finished samples.
    """
    runner = get_backend(backend, settings)
    names = [p.name for p in network.populations] if record is True else list(record or ())
    result = runner.run(network, inputs_of(network, samples), record=names, progress=progress)
    classes = samples.labels if isinstance(samples, Samples) else labels
    return result if classes is None else dataclasses.replace(result, labels=np.asarray(classes))


def inputs_of(network: HardwareNetwork, samples: Samples | npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return inputs as a backend takes them: codes (n, *shape), or event frames (T, n, *shape).

    Raises
    ------
    InputError : if floats are given and the network does not say what its codes stand for, or a value has no code.
    """
    given = samples if isinstance(samples, Samples) else np.asarray(samples)
    coding = None
    if not isinstance(given, Samples) and given.dtype.kind == "f":
        if "input_coding" not in network.provenance:
            raise InputError(f'network "{network.name}": does not say what its input codes stand for; give codes')
        values = dict(network.provenance["input_coding"])
        coding = InputCoding.from_dict(values)
    return time_first(codes_of(given, coding, shape=network.input.shape))
