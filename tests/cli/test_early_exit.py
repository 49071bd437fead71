"""fsnn anytime: its files, what it prints, what it keeps of an interrupted run, and what it refuses."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trained
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.cli import anytime, export
from fsnn_lava.conversion.export_folder import load_deployed, samples_to_test
from fsnn_lava.errors import ConfigError, IncompleteRunError, MissingDependencyError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork
from fsnn_lava.hardware.run_io import RunResult, accuracy

FILES = ("anytime.json", "anytime.md", "anytime.svg")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a network trained on digits for a moment and exported."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    trained.train_into(folder, notation="24-20 (F24)", leak=0.95)
    assert export.main(["--run", str(folder), "--calibration-samples", "20"]) == 0
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "digits"))


class Interrupted:
    """The simulator, stopped after seven samples, or before the first."""

    name = "simulator"
    arithmetic = "integer"

    def __init__(self, done: int) -> None:
        self.done = done

    def run(self, network: HardwareNetwork, inputs: Array, *, record: Sequence[str], sink: Any, **_: Any) -> RunResult:
        result = IntegerSimulator().run(network, inputs, record=record)
        if self.done:
            sink(0, {name: spikes[:, : self.done] for name, spikes in result.spikes.items()})
        raise IncompleteRunError("interrupted by Ctrl-C", samples=self.done)


def test_one_run_writes_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last accuracy is that of the run; without a run folder it is the newest export."""
    pytest.importorskip("matplotlib")
    assert anytime.main(["--runs", str(folder.parent), "--samples", "150", "--rate-samples", "40"]) == 0
    values = json.loads((folder / "anytime.json").read_text())
    network = load_deployed(folder).integer
    samples = samples_to_test(network, data_dir=None, count=150)
    result = IntegerSimulator().run(network, samples.codes)
    assert values["accuracy"][-1] == accuracy(result, samples.labels)
    assert (values["samples"], values["time_steps"], len(values["accuracy"])) == (150, 10, 10)
    assert (values["rate_error"]["samples"], values["rate_error"]["reference"]) == (40, "equilibrium")
    assert values["rate_error"]["mean"][-1] < values["rate_error"]["mean"][0]
    assert {e["rule"] for e in values["early_exit"]} == {"settled", "margin"}
    strictest = values["early_exit"][0]
    assert (strictest["limit"], strictest["mean_steps"], strictest["accuracy"]) == (0, 10, values["accuracy"][-1])
    assert "| settled | 0 |" in (folder / "anytime.md").read_text()
    assert (folder / "anytime.svg").read_text().endswith("</svg>\n")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.endswith(f"report: {folder / 'anytime.md'}, anytime.json and anytime.svg")
    assert "one run of 150 test samples, 10 time steps each" in printed


def test_settings_reach_the_report(folder: Path) -> None:
    options = ["--settled", "0.25", "--margins", "1.5", "0.5", "--stable-steps", "1", "--reference", "final"]
    assert anytime.main(["--run", str(folder), "--samples", "20", "--no-picture", *options]) == 0
    values = json.loads((folder / "anytime.json").read_text())
    assert [(e["rule"], e["limit"]) for e in values["early_exit"]] == [
        ("settled", 0.25),
        ("margin", 1.5),
        ("margin", 0.5),
    ]
    assert {e["stable_steps"] for e in values["early_exit"]} == {1}
    assert values["rate_error"]["mean"][-1] == pytest.approx(0, abs=1e-15)
    assert values["rate_error"]["samples"] == 20, "all, where there are fewer than asked for"
    assert not (folder / "anytime.svg").exists()


def test_lava_runs_a_hundred_samples_by_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def backend(name: str) -> IntegerSimulator:
        names.append(name)
        return IntegerSimulator()

    monkeypatch.setattr(anytime, "get_backend", backend)
    for options, count in ((["--backend", "lava-fixed"], 100), ([], len(trained.digits().test))):
        assert anytime.main(["--run", str(folder), "--no-picture", "--rate-samples", "1", *options]) == 0
        assert json.loads((folder / "anytime.json").read_text())["samples"] == count
    assert names == ["lava-fixed", "simulator"]


def test_an_interrupted_run_keeps_what_was_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anytime, "get_backend", lambda name: Interrupted(0))
    command = ["--run", str(folder), "--samples", "12", "--no-picture"]
    with pytest.raises(IncompleteRunError, match="interrupted by Ctrl-C"):
        anytime.main(command)
    assert not (folder / "anytime.json").exists()
    monkeypatch.setattr(anytime, "get_backend", lambda name: Interrupted(7))
    with pytest.raises(IncompleteRunError, match="interrupted by Ctrl-C"):
        anytime.main(command)
    assert not (folder / "anytime.json").exists()  # a whole report would have stayed
    values = json.loads((folder / "anytime-interrupted.json").read_text())
    network = load_deployed(folder).integer
    samples = samples_to_test(network, data_dir=None, count=12)
    result = IntegerSimulator().run(network, samples.codes[:7])
    assert values["samples"] == 7
    assert values["accuracy"][-1] == np.mean(result.predictions == samples.labels[:7])


def test_mistakes_are_refused_before_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anytime, "get_backend", lambda name: pytest.fail("it ran"))
    for option in ("--settled", "--margins"):
        with pytest.raises(ConfigError, match=r"early exit: found a limit of -1\.0; allowed: 0 or more"):
            anytime.main(["--run", str(folder), option, "-1", "--no-picture"])
    with pytest.raises(ConfigError, match="early exit: stable for 0 steps; allowed: at least 1"):
        anytime.main(["--run", str(folder), "--stable-steps", "0", "--no-picture"])
    with pytest.raises(ConfigError, match="--stable-steps: found 99; allowed: less than T = "):
        anytime.main(["--run", str(folder), "--stable-steps", "99", "--no-picture"])
    with pytest.raises(ConfigError, match=r"--run .*empty: no such folder; in .* there are: .*digits"):
        anytime.main(["--run", str(folder / "empty"), "--runs", str(folder.parent), "--no-picture"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r'install it with: pip install "fsnn-lava\[plots\]"'):
        anytime.main(["--run", str(folder)])
    assert not any((folder / name).exists() for name in FILES)


def test_samples_out_of_range_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples of the rate error: found 0; allowed: 1 \.\. 20"):
        anytime.main(["--run", str(folder), "--samples", "20", "--rate-samples", "0", "--no-picture"])
    with pytest.raises(ConfigError, match=r"--samples: found 0; allowed: 1 \.\. "):
        anytime.main(["--run", str(folder), "--samples", "0", "--no-picture"])
