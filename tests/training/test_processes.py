"""Several processes: shares that make up the whole, and sums that are those of the whole batch."""

import signal
from pathlib import Path

import pytest
import torch

from fsnn_lava.cli import train
from fsnn_lava.errors import ConfigError
from fsnn_lava.network.devices import shared_generator
from fsnn_lava.training import LAST
from fsnn_lava.training.checkpoint import load_training
from fsnn_lava.training.processes import ALONE, Ranks, average, joined, ranks_of_environment
from process_group import ROOT, finish, shown_by, torchrun, wait_for_epochs


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 7, 128])
def test_shares_follow_one_another_and_differ_by_one_at_most(count: int, size: int) -> None:
    shares = [Ranks(rank, size).share(count) for rank in range(size)]
    assert [i for share in shares for i in range(share.start, share.stop)] == list(range(count))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_process_alone_has_everything_and_talks_to_nobody() -> None:
    values = torch.tensor([1.0, 2.0])
    with joined(ALONE, torch.device("cpu")):
        assert not torch.distributed.is_initialized()
        assert ALONE.sums(values) is values
        assert ALONE.same_text("a") == "a"
        average([values], ALONE)
    assert values.tolist() == [1.0, 2.0]
    assert ALONE.first


def test_torchrun_says_who_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ranks_of_environment() == ALONE
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ranks_of_environment() == Ranks(5, 8, 1)
    assert not ranks_of_environment().first


@pytest.mark.parametrize(("name", "value"), [("RANK", None), ("LOCAL_RANK", "one"), ("WORLD_SIZE", "-2")])
def test_incomplete_environment_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None) -> None:
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(variable, "1")
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"environment: found .*torchrun sets all three .* or unset WORLD_SIZE"):
        ranks_of_environment()


def test_shared_generator_repeats() -> None:
    draws = [
        torch.rand(4, generator=shared_generator(torch.device("cpu"), seed=seed, rows=slice(0, 2), total=4))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    "names",
    [
        ("batch_norm", "masks", "solver", "sums"),
        pytest.param(("training", "spide", "interruption"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_two_processes_compute_what_one_does(names: tuple[str, ...], tmp_path: Path) -> None:
    """Batch norm, dropout masks, the solver's stopping; whole trainings of both kinds, Ctrl-C: see two_processes.py."""
    script = Path(__file__).parents[1] / "support" / "two_processes.py"
    (tmp_path / "runs").mkdir()
    shown = finish(torchrun(tmp_path / "logs", script, str(tmp_path / "runs"), *names))
    assert f"checked {' '.join(names)}" in shown


@pytest.mark.slow
def test_two_processes_write_once_and_stop_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C reaches torchrun, which passes it on; one process then goes on where two were."""
    options = ["--network.notation", "30 (F30)", "--network.time-steps", "5", "--training.sync-batch-norm"]
    options += ["--training.epochs", "2000", "--training.threads", "1"]
    runs = tmp_path / "runs"
    with torchrun(tmp_path / "logs", ROOT / "train" / "train.py", *options, "--runs", str(runs)) as process:
        wait_for_epochs(process, 3)
        process.send_signal(signal.SIGINT)
        shown = shown_by(process)
    assert "interrupted after" in shown
    assert shown.count(f"next: python train/train.py --resume {runs / 'digits'}") == 1
    assert sorted(p.name for p in runs.iterdir()) == ["digits"]
    trained, progress, _ = load_training(runs / "digits" / LAST)
    assert progress["epoch"] >= 3
    assert trained.metrics["processes"] == 2
    more = str(progress["epoch"] + 2)
    threads = torch.get_num_threads()
    assert train.main(["--resume", str(runs / "digits"), "--training.epochs", more]) == 0
    torch.set_num_threads(threads)
    assert "processes (2 -> 1): what follows differs by rounding" in capsys.readouterr().out
    _, progress, _ = load_training(runs / "digits" / LAST)
    assert progress["epoch"] == int(more)
    assert progress["history"][-1]["train/loss"] < progress["history"][0]["train/loss"]
