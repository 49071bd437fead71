"""Scripts run in the test's own process: a fresh one would load torch anew each time."""

import importlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ide import training_speed
from benchmarks.spide import cases
from fsnn_lava.datasets.files import DATA_VARIABLE

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a script without a data folder; returns what it printed. It must succeed without a word on stderr."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    threads = torch.get_num_threads()

    def run(script: str, *options: str | Path) -> str:
        assert importlib.import_module(f"benchmarks.{script}").main(list(map(str, options))) == 0
        printed, errors = capsys.readouterr()
        assert errors == ""
        return printed

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def memory_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process of its own would measure runs here, once, after the same way through pickle; it takes 1 MiB."""

    def here(function: Callable[..., Any], *arguments: object) -> Any:
        function, arguments = pickle.loads(pickle.dumps((function, arguments)))
        return function(*arguments)

    def once(iterate: Callable[[], None], *, device: str = "cpu") -> float:
        assert device == "cpu"
        iterate()
        return 1.0

    for module in (training_speed, cases):
        monkeypatch.setattr(module, "in_own_process", here)
        monkeypatch.setattr(module, "peak_increment", once)
