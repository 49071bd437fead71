"""The four commands: their files, what they print, their exit statuses, and what they refuse."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import trained
from fsnn_lava.backends import get_backend
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.cli import anytime, evaluate, export, run, verify
from fsnn_lava.conversion.export_folder import NETWORK_FILES, load_deployed
from fsnn_lava.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    MissingDependencyError,
    NetworkError,
    OutputError,
    UnsupportedError,
)
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork
from fsnn_lava.hardware.network_file import load_network, save_network
from fsnn_lava.hardware.run_io import RunResult
from fsnn_lava.training.checkpoint import load_checkpoint, save_checkpoint
from fsnn_lava.verification import verify_network
from script_loader import said_by, status_of


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with digits and deep, trained for a moment and exported; digits last."""
    runs = tmp_path_factory.mktemp("runs")
    for name, notation, leak in (("deep", "24-20 (F24)", 0.95), ("digits", "40 (F40)", 1.0)):
        (runs / name).mkdir()
        trained.train_into(runs / name, notation=notation, leak=leak)
        assert export.main(["--run", str(runs / name), "--calibration-samples", "50"]) == 0
    return runs


@pytest.fixture
def digits(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported run that a test may change."""
    return Path(shutil.copytree(exported / "digits", tmp_path / "digits"))


COMMANDS = {"export": export, "run": run, "verify": verify}


@pytest.mark.parametrize("command", [evaluate, export, pytest.param(run, marks=pytest.mark.lava), verify])
def test_classes_that_are_not_those_of_the_dataset_are_refused(digits: Path, command: ModuleType) -> None:
    network = load_checkpoint(digits / "best.safetensors")
    assert network.classes == tuple("0123456789")
    other = replace(network, classes=tuple("abcdefghij"))
    save_checkpoint(other, digits / "best.safetensors")
    for name in NETWORK_FILES.values():
        exported = load_network(digits / name)
        provenance = {**exported.provenance, "classes": list(other.classes)}
        save_network(replace(exported, provenance=provenance), digits / name)
    before = (digits / "network-integer.h5").read_bytes()
    with pytest.raises(DatasetError, match=r'"digits": the network was trained on the classes 10 \(a, .*\); .* 10 \(0'):
        command.main(["--run", str(digits)])
    assert (digits / "network-integer.h5").read_bytes() == before


class Tampered:
    """The integer simulator under Lava's name, with one spike inverted."""

    name = "lava-fixed"
    arithmetic = "integer"

    def run(self, network: HardwareNetwork, inputs: Array, *, record: Sequence[str] = (), **_: Any) -> RunResult:
        result = IntegerSimulator().run(network, inputs, record=record)
        result.spikes["population1"][3, 5, 7] ^= 1
        return replace(result, backend=self.name)


def words(text: str) -> str:
    """Printed text without the line breaks of an 80-column screen."""
    return " ".join(text.split())


PLAIN = {"population", "connection", "neurons", "check", "question", "holds", "backend", "accuracy", "pair", "agrees"}
"""Columns that need no explanation."""


def unexplained(report: str) -> set[str]:
    """Columns of a report's tables that the text of the same section does not explain."""
    found = set()
    for section in report.split("\n## "):
        tables = [block for block in section.split("\n\n") if block.startswith("| ")]
        text = " ".join(block for block in section.split("\n\n") if not block.startswith("| ")).casefold()
        for table in tables:
            columns = {c.strip() for c in re.split("[|/,]", table.splitlines()[0]) if c.strip()} - PLAIN
            found |= {c for c in columns if c.casefold().removesuffix("s") not in text and c != "population1"}
    return found


def test_reports_explain_the_columns_of_their_tables(digits: Path) -> None:
    backends = ["torch", "simulator", "simulator-float"]
    assert verify.main(["--run", str(digits), "--samples", "20", "--backends", *backends]) == 0
    assert unexplained((digits / "export.md").read_text()) == set()
    assert unexplained((digits / "report.md").read_text()) == set()


def test_export_writes_both_networks(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--to", "lava", "--weight-bits", "6", "--threshold", "half", "--time-steps", "17"]
    assert export.main(["--run", str(digits), *options, "--calibration-samples", "30"]) == 0
    deployed = load_deployed(digits)
    assert deployed.floating.time_steps == deployed.integer.time_steps == 17
    assert deployed.integer.populations[0].start == deployed.floating.populations[0].start == 1
    expected = {"weight_bits": 6, "symmetric": False, "threshold": "half", "time_steps": 17, "calibration_samples": 30}
    usual = {"rounding": "compensated", "exponents": "all", "currents": "pulsed"}
    assert deployed.integer.provenance["deployment"] == expected | usual
    printed = words(capsys.readouterr().out)
    assert f"wrote {digits / 'network-float.h5'} wrote {digits / 'network-integer.h5'}" in printed
    for name in ("input_to_population1", "population1_current", "feedback"):
        assert name in printed
    proven = "24-bit state proven: no allowed input makes a potential leave 24 bits within T = 17 steps."
    assert proven in printed
    assert proven in (digits / "export.md").read_text()
    assert "Weights may have 6 bits, constant currents 8." in (digits / "export.md").read_text()
    assert printed.endswith(f"next: fsnn run --backend lava-fixed --run {digits}")


def test_a_weaker_verification_keeps_the_stronger_one(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--run", str(digits), "--backends", "simulator", "simulator-float"]
    noticed = []
    for samples in (40, 1, 2):
        assert verify.main([*options, "--samples", str(samples)]) == 0
        shown = words(capsys.readouterr().out)
        assert ("report.md rests on more samples, 40: kept as report-40-samples.md" in shown) == (samples == 1)
        text = f"Verified: all three checks hold. Test samples: {samples} of 360, evenly spread; 10 time steps each."
        assert text in shown
        assert ("warning: rates of population1: with 1 sample a neuron is noticed only" in shown) == (samples == 1)
        (population,) = json.loads((digits / "report.json").read_text())["rates"]["populations"]
        noticed.append(population["noticed"])
    assert 0 < noticed[0] < noticed[2] < noticed[1], "the fewer samples, the less is noticed"
    assert json.loads((digits / "report.json").read_text())["samples"] == 2
    assert "40 of 360" in (digits / "report-40-samples.md").read_text()
    another = json.loads((digits / "report.json").read_text())
    another["network"]["fingerprint"] = "0123456789ab"
    (digits / "report.json").write_text(json.dumps(another))
    assert verify.main([*options, "--samples", "9"]) == 0
    kept = "report.json is on another network, 0123456789ab: kept as report-of-0123456789ab.json"
    assert kept in words(capsys.readouterr().out)
    assert json.loads((digits / "report-of-0123456789ab.json").read_text()) == another
    assert export.main(["--run", str(digits), "--calibration-samples", "50", "--weight-bits", "6"]) == 0
    assert {path.name for path in digits.glob("report-40*")} == {
        "report-40-samples-of-earlier-export.json",
        "report-40-samples-of-earlier-export.md",
    }


def test_an_interrupted_export_says_that_it_wrote_nothing(
    digits: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in digits.iterdir() if path.is_file()}
    monkeypatch.setattr(export, "quantize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export.main(["--run", str(digits)])
    assert "nothing was written; an earlier export is as it was" in words(capsys.readouterr().out)
    assert {path.name: path.read_bytes() for path in digits.iterdir() if path.is_file()} == before


def test_export_sets_aside_what_is_of_another_export(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reports on networks that are no longer there must not pass for reports on those that are."""
    few = ["--run", str(digits), "--calibration-samples", "50"]
    assert export.main([*few, "--to", "nir"]) == 0
    assert verify.main(["--run", str(digits), "--samples", "20", "--backends", "simulator", "simulator-float"]) == 0
    kept = {p.name: p.read_bytes() for p in digits.iterdir() if p.is_file()}
    assert export.main(few) == 0
    assert {p.name: p.read_bytes() for p in digits.iterdir() if p.is_file()} == kept
    assert "earlier export" not in capsys.readouterr().out

    assert export.main([*few, "--weight-bits", "6"]) == 0
    shown = words(capsys.readouterr().out)
    for name in ("report.md", "report.json", "network-float.nir", "network-integer.nir"):
        stem, ending = name.split(".")
        aside = f"{stem}-of-earlier-export.{ending}"
        assert f"{name} is of an earlier export: renamed to {aside}" in shown
        assert not (digits / name).exists()
        assert (digits / aside).read_bytes() == kept[name]
    of_earlier = json.loads((digits / "report-of-earlier-export.json").read_text())["network"]["fingerprint"]
    assert of_earlier == json.loads(kept["export.json"])["fingerprint"]
    assert of_earlier != json.loads((digits / "export.json").read_text())["fingerprint"]
    assert f"- fingerprint: {of_earlier}" in kept["report.md"].decode()

    (digits / "report.md").write_text("of networks that an interrupted export wrote over")
    (digits / "export-record.npz").unlink()
    assert export.main([*few, "--weight-bits", "6"]) == 0
    assert not (digits / "report.md").exists()


def test_export_takes_the_newest_training(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says which that is, and which newer ones have no whole epoch yet."""
    runs = Path(shutil.copytree(exported, tmp_path / "runs"))
    for path in runs.glob("*/network-*.h5"):
        path.unlink()
    os.utime(runs / "digits" / "best.safetensors", (1e9, 1e9))
    (runs / "begun").mkdir()
    (runs / "begun" / "config.json").write_text("{}")
    assert export.main(["--runs", str(runs), "--calibration-samples", "20"]) == 0
    taken = f"run: {runs / 'deep'}, the newest with best.safetensors; newer, but without it: {runs / 'begun'}"
    assert taken in words(capsys.readouterr().out)
    assert sorted(p.parent.name for p in runs.glob("*/network-*.h5")) == ["deep", "deep"]


def test_export_refuses(tmp_path: Path, digits: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run holds best\.safetensors; train and export first"):
        export.main(["--runs", str(tmp_path / "empty")])
    (tmp_path / "begun").mkdir()
    with pytest.raises(ConfigError, match=r"--run .*empty: no such folder; in .* there are: .*begun"):
        export.main(["--run", str(tmp_path / "empty"), "--runs", str(tmp_path)])
    with pytest.raises(CheckpointError, match=r"no such file; train first: fsnn train"):
        export.main(["--run", str(tmp_path / "begun")])
    shutil.copy(digits / "best.safetensors", tmp_path / "begun" / "last.safetensors")
    with pytest.raises(CheckpointError, match=r"no epoch is whole yet; go on: fsnn train --resume .*begun"):
        export.main(["--run", str(tmp_path / "begun")])
    path = digits / NETWORK_FILES["float"]
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match=r"network-float\.h5: cannot be written: "):
        export.main(["--run", str(digits), "--calibration-samples", "20"])
    (digits / "best.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        export.main(["--run", str(digits)])


@pytest.mark.parametrize("backend", ["simulator", "simulator-float"])
def test_run_on_all_test_samples(backend: str, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--backend", backend, "--run", str(exported / "digits")]) == 0
    printed = words(capsys.readouterr().out)
    network = load_network(exported / "digits" / NETWORK_FILES["integer" if backend == "simulator" else "float"])
    test = trained.digits().test
    result = get_backend(backend).run(network, test.codes)
    assert f"{backend}: 360 samples, T = 10" in printed
    assert f"accuracy {np.mean(result.predictions == test.labels):.2%} on test samples: all 360" in printed
    assert f"{result.spike_counts['population1'].mean() / 10:.4f}" in printed
    assert printed.endswith(f"next: fsnn verify --run {exported / 'digits'}")


@pytest.mark.parametrize("command", [evaluate, run, anytime], ids=["evaluate", "run", "anytime"])
def test_a_command_at_work_says_how_far_it_is(
    command: ModuleType, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `working`, which shows it at a terminal and in a pipe."""
    said = said_by(monkeypatch, command)
    options = {evaluate: [], run: ["--backend", "simulator"], anytime: ["--no-picture"]}
    assert command.main(["--run", str(digits), *options[command]]) == 0
    last = "looking for the equilibrium of 100 samples" if command is evaluate else "simulator: 360 of 360 samples"
    assert said[0] == ("reading digits" if command is evaluate else "simulator")
    assert said[-1] == last


def test_run_takes_the_newest_export(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--backend", "simulator", "--runs", str(exported), "--samples", "3"]) == 0
    assert f"--run {exported / 'digits'}" in capsys.readouterr().out


def test_run_refuses(exported: Path, tmp_path: Path) -> None:
    folder = str(exported / "digits")
    with pytest.raises(ConfigError, match=r"--samples: found 361; allowed: 1 \.\. 360"):
        run.main(["--backend", "simulator", "--run", folder, "--samples", "361"])
    with pytest.raises(ConfigError, match=r"holds no network-float\.h5 and no network-integer\.h5; export first"):
        run.main(["--backend", "simulator", "--run", str(tmp_path)])
    with pytest.raises(ConfigError, match=r"no run holds network-integer\.h5; train and export first"):
        run.main(["--backend", "simulator", "--runs", str(tmp_path)])


@pytest.mark.parametrize("script", ["run", "verify"])
def test_unknown_backends_are_refused(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    option = ["--backend", "cpu"] if script == "run" else ["--backends", "torch", "cpu"]
    with pytest.raises(SystemExit) as caught:
        COMMANDS[script].main(option)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert "cpu" in captured.out + captured.err
    assert "lava-fixed" in captured.out + captured.err


def test_absent_packages_are_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsnn_lava.backends.lava import runner as lava_runner

    folder = str(exported / "digits")
    monkeypatch.setattr(lava_runner, "_installed", lambda module: module == "lava.magma")
    with pytest.raises(MissingDependencyError, match=r"lava-loihi is not installed.*Neuromorphic Research Community"):
        run.main(["--backend", "loihi2", "--run", folder])
    monkeypatch.setattr(lava_runner, "_installed", lambda module: False)
    for backend in ("loihi2", "lava-fixed", "lava-float"):
        with pytest.raises(MissingDependencyError, match=r'Lava is not installed.*pip install "fsnn-lava\[lava\]"'):
            run.main(["--backend", backend, "--run", folder])


def test_verify_reports_agreement(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--backends", "torch", "simulator", "simulator-float", "--samples", "50"]
    assert verify.main(["--run", str(digits), *options]) == 0
    report = json.loads((digits / "report.json").read_text())
    assert {"accuracy", "pairs", "budget", "network", "samples", "time_steps"} <= set(report)
    assert [(p["a"], p["b"], p["relation"], p["agrees"]) for p in report["pairs"]] == [
        ("torch", "simulator", "statistical", True),
        ("torch", "simulator-float", "close", True),
        ("simulator", "simulator-float", "statistical", True),
    ]
    assert (report["samples"], report["time_steps"], report["agrees"]) == (50, 10, True)
    assert report["pairs"][1]["first_divergence"] is None  # one population: both timings are the same
    assert list(report["accuracy"]) == ["torch", "simulator", "simulator-float"]
    assert all(0.5 < value <= 1 for value in report["accuracy"].values())
    said = {"name": "digits", "notation": "40 (F40)", "dataset": "digits", "neurons": "IF", "seed": "1", "epoch": "3"}
    said["trained in"] = "the papers' timing"
    exported = json.loads((digits / "export.json").read_text())
    assert re.fullmatch("[0-9a-f]{12}", exported["fingerprint"])
    assert report["network"] == said | {
        "fingerprint": exported["fingerprint"],
        "weights": "8 bits at most, of constant currents 8",
        "threshold": "as trained",
    }
    causes = {c["name"]: c["populations"]["population1"] for c in report["budget"]["causes"]}
    assert causes["lowering"] == causes["timing"] == {"signed": 0.0, "share": 0.0, "mean": 0.0, "maximum": 0.0}
    assert 0 < causes["total"]["mean"] == causes["rounding"]["mean"] <= 1 / 10
    assert report["checks"] == {"structure": True, "rates": True, "spikes": True}
    assert report["structure"]["basis"] == [
        "float network: the checkpoint lowered anew; only the last bits of a sum may differ.",
        "both networks: what the export recorded beside them (export-record.npz), every number and every hash.",
        "integers: the float weights, within the rounding errors that the export measured, connection by connection.",
    ]
    assert "Verified: all three checks hold." in (digits / "report.md").read_text()
    report, following = f"report: {digits / 'report.md'} and report.json", f"next: fsnn anytime --run {digits}"
    assert words(capsys.readouterr().out).endswith(f"{report} {following}")


def test_verify_of_several_populations_compares_other_timing_by_rates(exported: Path) -> None:
    folder = exported / "deep"
    assert verify.main(["--run", str(folder), "--backends", "torch", "simulator-float", "--samples", "50"]) == 0
    report = json.loads((folder / "report.json").read_text())
    (pair,) = report["pairs"]
    assert (pair["relation"], set(pair["populations"])) == ("statistical", {"population1", "population2"})
    assert report["network"]["neurons"] == "LIF, leak 0.95"
    timing = next(c for c in report["budget"]["causes"] if c["name"] == "timing")
    assert timing["populations"]["population1"]["maximum"] > 0


def test_verify_names_the_first_divergence(
    digits: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_network, "get_backend", lambda n, _: Tampered() if n == "lava-fixed" else get_backend(n))
    assert verify.main(["--run", str(digits), "--samples", "20"]) == 1
    printed = words(capsys.readouterr().out)
    assert (
        "simulator and lava-fixed do not agree; required (exact): the same spikes in every population, sample and step"
        '; first divergence: population "population1", step 3, neuron 7 (sample 5)'
    ) in printed
    report = json.loads((digits / "report.json").read_text())
    assert not report["agrees"]
    pair = report["pairs"][-1]
    assert (pair["a"], pair["b"], pair["relation"], pair["agrees"]) == ("simulator", "lava-fixed", "exact", False)
    assert pair["first_divergence"] == {"population": "population1", "step": 3, "sample": 5, "neuron": 7}
    assert report["checks"] == {"structure": True, "rates": True, "spikes": False}
    assert "**Not verified: spikes.**" in (digits / "report.md").read_text()


def test_verify_finds_an_altered_network(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound file of another network: all input weights are zero. It is derived anew to say what they were."""
    path = digits / NETWORK_FILES["integer"]
    network = load_network(path)
    connections = list(network.connections)
    weight = np.zeros_like(connections[0].weight)
    connections[0] = replace(connections[0], weight=weight)
    save_network(replace(network, connections=tuple(connections)), path)
    assert verify.main(["--run", str(digits), "--backends", "torch", "simulator", "--samples", "50"]) == 1
    printed = words(capsys.readouterr().out)
    first = np.argwhere(network.connections[0].weight)[0]
    where = f"{connections[0].name}[{', '.join(map(str, first))}]"
    expected = network.connections[0].weight[tuple(first)]
    assert f"structure: integer network, weights of {where}: expected {expected}, found 0" in printed
    assert "rates: " in printed
    report = json.loads((digits / "report.json").read_text())
    assert (report["agrees"], report["structure"]["agrees"], report["rates"]["agrees"]) == (False, False, False)


def test_verify_without_a_record_derives_the_integers_anew(digits: Path) -> None:
    """As of an export by an earlier version."""
    (digits / "export-record.npz").unlink()
    options = ["--run", str(digits), "--backends", "torch", "simulator", "--samples", "30"]
    assert verify.main(options) == 0
    report = json.loads((digits / "report.json").read_text())
    assert "integers: derived anew from the float network" in report["structure"]["basis"][1]
    assert report["rates"]["basis"] == "what the integers, derived anew, do on training samples"
    path = digits / NETWORK_FILES["integer"]
    network = load_network(path)
    network.connections[0].weight[0, 1] += 1
    save_network(network, path)
    assert verify.main(options) == 1


def test_verify_refuses_a_damaged_record(digits: Path) -> None:
    path = digits / "export-record.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(NetworkError, match=r"export-record\.npz: cannot be read as an export's record, it is damaged"):
        verify.main(["--run", str(digits), "--backends", "torch", "simulator", "--samples", "2"])


def test_verify_refuses_an_export_that_is_older_than_its_training(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after export, --resume and further epochs."""
    path = digits / "best.safetensors"
    network = load_checkpoint(path)
    save_checkpoint(replace(network, metrics={"epoch": 99}), path)
    assert run.main(["--run", str(digits), "--backend", "simulator", "--samples", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"warning: was trained further after its export; to export again: fsnn export --to lava --run {digits}" in said
    )
    with pytest.raises(ConfigError, match=r"digits: was trained further after its export; export again: fsnn export"):
        verify.main(["--run", str(digits), "--backends", "simulator", "simulator-float", "--samples", "2"])


def test_verify_refuses(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--backends: found torch; at least two different ones"):
        verify.main(["--run", str(digits), "--backends", "torch"])
    with pytest.raises(ConfigError, match="--backends: found simulator simulator; at least two different ones"):
        verify.main(["--run", str(digits), "--backends", "simulator", "simulator"])
    backends = ["--backends", "torch", "simulator"]
    with pytest.raises(ConfigError, match=r"--samples: found 0; allowed: 1 \.\. 360"):
        verify.main(["--run", str(digits), *backends, "--samples", "0"])
    with pytest.raises(ConfigError, match="holds no network-float"):
        verify.main(["--run", str(tmp_path), *backends])
    (digits / "report.json").unlink(missing_ok=True)
    (digits / "report.json").mkdir()
    with pytest.raises(OutputError, match=r"report\.json: cannot be written"):
        verify.main(["--run", str(digits), *backends, "--samples", "2"])


@pytest.mark.lava
@pytest.mark.parametrize("name", ["digits", "deep"])
def test_lava_fires_spike_by_spike_as_the_simulator(name: str, exported: Path) -> None:
    network = load_deployed(exported / name).integer
    codes = trained.some_codes(20)
    names = [p.name for p in network.populations]
    expected, found = (get_backend(b).run(network, codes, record=names) for b in ("simulator", "lava-fixed"))
    for population in names:
        assert np.array_equal(expected.spikes[population], found.spikes[population])
        assert 0.02 < expected.spikes[population].mean() < 0.98


@pytest.mark.lava
def test_commands_on_lava(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--run", str(digits), "--samples", "5"]) == 0
    assert "lava-fixed: 5 samples, T = 10" in capsys.readouterr().out
    assert verify.main(["--run", str(digits), "--samples", "20"]) == 0
    report = json.loads((digits / "report.json").read_text())
    assert [(p["a"], p["b"], p["relation"]) for p in report["pairs"]] == [
        ("torch", "simulator", "statistical"),
        ("torch", "lava-fixed", "statistical"),
        ("simulator", "lava-fixed", "exact"),
    ]


@pytest.mark.usefixtures("_threads")
def test_four_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each without naming a folder: the newest run is found. What one prints as next is the next one's script.

    The wheel's test gives the same commands to processes of their own.
    """
    monkeypatch.chdir(tmp_path)
    network = ["--network.notation", "24 (F24)", "--network.time-steps", "8"]
    steps = [
        ["train/train.py", *network, "--training.epochs", "2", "--training.batch-size", "64"],
        ["deploy/export.py", "--to", "lava"],
        ["deploy/run.py", "--backend", "simulator"],
        ["deploy/verify.py", "--backends", "torch", "simulator", "--samples", "40"],
    ]
    following = ["export.py --to lava", "run.py --backend lava-fixed", "verify.py", "anytime.py"]
    for arguments, after in zip(steps, following, strict=True):
        assert status_of(*arguments) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"next: python deploy/{after} --run runs/digits"
    found = {path.name for path in (tmp_path / "runs" / "digits").iterdir()}
    assert found >= {"best.safetensors", "last.safetensors", "config.json", "report.json", "report.md"}
    assert found >= set(NETWORK_FILES.values())
    report = json.loads((tmp_path / "runs" / "digits" / "report.json").read_text())
    assert (report["agrees"], report["samples"], report["time_steps"]) == (True, 40, 8)


@pytest.mark.parametrize("script", ["export", "run", "verify"])
def test_help_shows_options_and_defaults(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        COMMANDS[script].main(["--help"])
    assert caught.value.code == 0
    printed = words(capsys.readouterr().out)
    assert all(option in printed for option in ("--run", "--runs", "--data-dir"))


@pytest.mark.parametrize("script", ["deploy/export.py", "deploy/run.py", "deploy/verify.py"])
def test_refusal_is_one_message_and_status_2(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Square brackets are shown, not taken for markup."""
    (tmp_path / "[x]").mkdir()
    monkeypatch.chdir(tmp_path)
    assert status_of(script, "--run", "[x]") == 2
    assert capsys.readouterr().err.startswith(("CheckpointError: checkpoint [x]", "ConfigError: [x]: holds no"))


def test_export_refuses_a_network_that_rounding_destroys(digits: Path) -> None:
    """Long windows allow so coarse a scale only that the feedback rounds to nothing."""
    before = {path.name: path.read_bytes() for path in digits.iterdir() if path.is_file()}
    with pytest.raises(UnsupportedError, match=r"T = 3000 lose these connections(.|\n)*feedback: "):
        export.main(["--run", str(digits), "--time-steps", "3000", "--exponents", "input"])
    assert {path.name: path.read_bytes() for path in digits.iterdir() if path.is_file()} == before
