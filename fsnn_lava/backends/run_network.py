"""One call to run a network on samples, whatever backend is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fsnn_lava.backends.registry import Progress, get_backend
from fsnn_lava.datasets import InputCoding, Samples, codes_of, time_first
from fsnn_lava.errors import InputError
from fsnn_lava.hardware import HardwareNetwork, RunResult


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
        coding = InputCoding(**values | {"mean": tuple(values["mean"]), "std": tuple(values["std"])})
    return time_first(codes_of(given, coding, shape=network.input.shape))
