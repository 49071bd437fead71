"""Networks that the machine cannot hold are refused before they are allocated."""

from pathlib import Path

import pytest
import torch

from fsnn_lava.config import NetworkConfig, TrainConfig
from fsnn_lava.errors import ConfigError, ConvergenceError
from fsnn_lava.network.devices import check_memory, machine_memory, memory_errors_named
from fsnn_lava.training import fit, new_model
from short_training import CONFIG, Told, short_digits

HUGE = TrainConfig(network=NetworkConfig(notation="200000 (F200000)"))
MESSAGE = (
    r'network\.notation: found "200000 \(F200000\)" with 40,015,200,010 parameters, which need {} GiB \({} x 4 bytes '
    r"each\); allowed: what fits the [0-9.]+ GiB of this machine; choose smaller layers"
)


@pytest.fixture
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsnn_lava.network.devices.machine_memory", lambda: 2**36)


@pytest.mark.usefixtures("_small_machine")
def test_layer_that_cannot_be_allocated_is_refused_with_its_memory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=MESSAGE.format("149.1", 1)):
        new_model(HUGE, (1, 8, 8), 10)
    with pytest.raises(ConfigError, match=MESSAGE.format("447.2", 3)):
        fit(HUGE, short_digits(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_memory_is_compared_with_that_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert 2**28 < machine_memory() < 2**50
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("fsnn_lava.network.devices._CGROUP_LIMIT", limit)
    for text, expected in (("max\n", machine_memory()), ("4000\n", 4000)):
        limit.write_text(text)
        assert machine_memory() == expected
    parameters = 64 * 12 + 12 + 12 * 10 + 10 + 10 * 12 + 12 + 10 * 10 + 10  # two layers, feedback, classifier
    limit.write_text(f"{4 * parameters}\n")
    check_memory(CONFIG, (1, 8, 8), 10)
    limit.write_text(f"{4 * parameters - 1}\n")
    with pytest.raises(ConfigError, match="with 1,152 parameters"):
        check_memory(CONFIG, (1, 8, 8), 10)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
    ],
)
def test_memory_that_runs_out_is_said_in_words(tmp_path: Path, error: Exception) -> None:
    def act(_: int) -> None:
        raise error

    expected = str(error).splitlines()[0] if str(error) else "found none left"
    with pytest.raises(ConfigError, match=r"memory ran out: .*; choose a smaller training\.batch_size") as raised:
        fit(CONFIG, short_digits(), tmp_path, observer=Told(act))
    assert str(raised.value).startswith(f"memory ran out: {expected};")


def test_other_errors_pass() -> None:
    with pytest.raises(ConvergenceError, match="diverged"), memory_errors_named():
        raise ConvergenceError("diverged")
