"""Backends by name: what they are given, and what is refused."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from fsnn_lava.backends import BACKENDS, BackendSettings, get_backend, require_arithmetic
from fsnn_lava.backends.lava.runner import LavaFixedRunner
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.errors import ConfigError, MissingDependencyError, UnsupportedError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    INPUT,
    Array,
    Connection,
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
