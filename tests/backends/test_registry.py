"""Backends by name: what they are given, and what is refused."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsnn_lava.backends import BACKENDS, get_backend, require_arithmetic
from fsnn_lava.backends.lava.runner import LavaFixedRunner
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.errors import ConfigError, MissingDependencyError, UnsupportedError
from fsnn_lava.hardware import Array
from networks import worked_example


def test_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match='no backend "spinnaker"; there are: simulator, simulator-float, lava'):
        get_backend("spinnaker")
    assert tuple(BACKENDS) == ("simulator", "simulator-float", "lava-fixed", "lava-float", "loihi2")


@pytest.mark.parametrize("name", ["simulator", "simulator-float"])
def test_simulators_come_by_name(name: str) -> None:
    assert get_backend(name).name == name


@pytest.mark.parametrize("name", ["lava-fixed", "lava-float", "loihi2"])
def test_missing_lava_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r'Python 3\.10: pip install "fsnn-lava\[lava\]"'):
        get_backend(name)


def test_settings_reach_the_backend() -> None:
    simulator = get_backend("simulator", {"engine": "dense"})
    assert isinstance(simulator, IntegerSimulator)
    assert simulator.engine == "dense"
    assert get_backend("simulator", {}) == IntegerSimulator()


@pytest.mark.lava
def test_settings_reach_lava() -> None:
    runner = get_backend("lava-fixed", {"stock_models": True, "readout": "lava"})
    assert isinstance(runner, LavaFixedRunner)
    assert (runner.stock_models, runner.readout, runner.name) == (True, "lava", "lava-fixed-stock")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("simulator", {"stock_models": True}, "found stock_models; stock_models is a setting of lava-fixed"),
        ("lava-float", {"typo": 1}, '"lava-float": found typo; typo is a setting of no backend'),
        ("lava-fixed", {"engine": "event"}, '"lava-fixed": found engine; engine is a setting of simulator'),
        ("loihi2", {"readout": "lava"}, '"loihi2": found readout; readout is a setting of lava-fixed'),
    ],
)
def test_settings_of_another_backend_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_backend(name, settings)


def test_wrong_arithmetic_says_which_file_to_use() -> None:
    with pytest.raises(UnsupportedError, match=r'"simulator-float" runs float networks; network "[^"]+" is integer'):
        require_arithmetic(get_backend("simulator-float"), worked_example())
    require_arithmetic(get_backend("simulator"), worked_example())


class Mirrored:
    """A backend as somebody else would write it: the simulator, of the samples and then of their mirror images."""

    name, arithmetic = "mirrored", "integer"

    def __init__(self, *, axis: int = 1) -> None:
        self.axis = axis

    def run(self, network: Any, inputs: Array, *, record: Any = (), sink: Any = None, progress: Any = None) -> Any:
        both = np.concatenate([inputs, np.flip(inputs, self.axis)])
        result = IntegerSimulator().run(network, both, record=record, sink=sink, progress=progress)
        return replace(result, backend=self.name)


@pytest.fixture
def mirrored() -> Iterator[None]:
    BACKENDS.register("mirrored", Mirrored, help="samples and their mirror images")
    yield
    BACKENDS.remove("mirrored")


@pytest.mark.usefixtures("mirrored")
def test_a_backend_from_outside_runs_a_worked_example() -> None:
    inputs = np.array([[100, 40], [0, 255]])
    result = get_backend("mirrored", {"axis": 0}).run(worked_example(), inputs, record=["a"])
    expected = get_backend("simulator").run(worked_example(), inputs[[0, 1, 1, 0]], record=["a"])
    assert result.backend == "mirrored"
    assert np.array_equal(result.spikes["a"], expected.spikes["a"])
    assert result.spikes["a"].any()
    assert "mirrored: samples and their mirror images" in BACKENDS.help()
    with pytest.raises(ConfigError, match='"simulator": found axis; axis is a setting of mirrored'):
        get_backend("simulator", {"axis": 0})


def test_a_backend_comes_from_an_installed_distribution(tmp_path: Path) -> None:
    """A package with an entry point: in a process of its own, since entry points are looked for once."""
    (tmp_path / "their_board.py").write_text(
        "class Board:\n    name, arithmetic = 'board', None\n    def __init__(self, *, port=0): self.port = port\n"
    )
    information = tmp_path / "their_board-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their-board\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[fsnn_lava.backends]\nboard = their_board:Board\n")
    program = (
        "from fsnn_lava.backends import BACKENDS, get_backend\n"
        "print(get_backend('board', {'port': 7}).port, 'board: from their-board' in BACKENDS.help())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert ran.stdout == "7 True\n"
