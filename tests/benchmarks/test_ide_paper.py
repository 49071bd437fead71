"""The tables of the paper and the scripts behind them: figures of trainings, full and partial, and measurements."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro

from benchmarks.ide import paper as paper, paper_convergence as convergence, paper_memory as memory
from benchmarks.ide.published import FIRING_RATES, LAYERS, SAMPLES, Row, published_rows
from benchmarks.ide.tables import accuracy_table, convergence_table, growth, memory_table, rates_table
from benchmarks.ide.trainings import TRAININGS, RunResult, extent, read_run, save_result, stored_results
from benchmarks.shared import iteration
from benchmarks.shared.results import BENCHMARKS_README, README, RESULTS, commit, stored
from benchmarks.shared.text_table import TextTable, with_blocks
from fsnn_lava.backends import FloatSimulator
from fsnn_lava.config import TrainConfig, read_config
from fsnn_lava.conversion import from_zoo, zoo_card
from fsnn_lava.datasets import Dataset, InputCoding, Samples, load_dataset
from fsnn_lava.errors import CheckpointError, ConfigError, MissingDependencyError
from fsnn_lava.quantization import dequantized
from fsnn_lava.training import BEST, LAST, fit
from fsnn_lava.training.checkpoint import TrainedNetwork, load_checkpoint, save_checkpoint
from fsnn_lava.training.device_samples import DeviceSamples
from fsnn_lava.training.evaluation import convergence_curve
from script_loader import ROOT, SCRIPTS, script_of

ROWS: list[Row] = published_rows()
CONFIGS = {row.config.name: row.config for row in published_rows()}
ALEXNET = "cifar10_alexnet_lif_t30"


def result(config: str = "mnist_conv_if", **changes: object) -> RunResult:
    """A run of a published row, in full unless changed."""
    train, test = SAMPLES[CONFIGS[config].dataset]
    full: dict[str, object] = {"run": config, "seed": 0, "device": "NVIDIA H200", "accuracy": 0.9941, "best_epoch": 88}
    full |= {"epochs": 100, "train_samples": train, "test_samples": test, "note": "", "changed": ()}
    full |= {"mean_spikes": {"population1": 0.05, "total": 0.05}, "seconds_per_epoch": 9.5, "commit": "0123456"}
    return RunResult(config=config, **(full | changes))


def a_run(
    parent: Path,
    config: TrainConfig,
    *,
    name: str = "",
    accuracies: tuple[float, ...] = (0.5, 0.75, 0.7),
    metrics: dict[str, object] | None = None,
    input_shape: tuple[int, ...] = (3, 32, 32),
) -> Path:
    """A folder with the last checkpoint of a training that had these test accuracies; population l fires 0.1 l."""
    folder = parent / (name or config.name)
    folder.mkdir(parents=True)
    rates = {f"test/firing_rate/population{n}": 0.1 * n for n in range(1, 6)}
    history = [{"test/accuracy": a, "train/seconds": 2 + a} | {k: r * a for k, r in rates.items()} for a in accuracies]
    best = max(accuracies, default=-1.0)
    progress = {
        "epoch": len(history),
        "iteration": 3,
        "best_accuracy": best,
        "best_epoch": accuracies.index(best) + 1 if history else 0,
        "sums": {},
        "history": history,
    }
    kept = {"device": "a machine", "train_samples": 3200, "test_samples": 1000, "note": "lossy JPEG copies"}
    coding = InputCoding("graded", maximum=255, scale=1 / 255, mean=(0.5,), std=(0.3,))
    trained = TrainedNetwork(
        config, input_shape, tuple("0123456789"), coding, {"readout.weight": torch.zeros(2)}, metrics or kept
    )
    save_checkpoint(trained, folder / LAST, progress=progress)
    return folder


def test_rows_are_those_of_the_configs_in_the_order_of_the_tables() -> None:
    places = [row.table for row in ROWS]
    assert list(dict.fromkeys(places)) == ["Table 1", "Table 2", "Table 3", "Appendix G", "Table 4", "SPIDE"]
    assert [places.count(table) for table in dict.fromkeys(places)] == [4, 2, 7, 4, 2, 7]
    figures = {row.config.name: row.figure for row in ROWS}
    assert figures["mnist_conv_lif"] == 99.53
    assert figures["cifar10_alexnet_bptt_lif_t30"] == 87.18
    assert figures["cifar10_alexnet_bptt_lif_t100"] is None
    assert "digits" not in figures
    assert set(FIRING_RATES) < set(figures)


def test_a_config_that_names_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text('published = "99.49, they say"\n')
    with pytest.raises(ConfigError, match=r'odd.toml: published: found "99.49, they say"; expected a figure and'):
        published_rows(tmp_path.glob("*.toml"))


def test_a_run_is_read_at_its_best_epoch(tmp_path: Path) -> None:
    config = CONFIGS[ALEXNET]
    training = dataclasses.replace(config.training, batch_size=32, epochs=7, seed=4, threads=1, surrogate_width=9.0)
    changed = dataclasses.replace(config, training=training, train_samples=3200, test_samples=1000)
    found = read_run(a_run(tmp_path, changed, name="second"), CONFIGS)
    assert (found.run, found.config, found.seed, found.device) == ("second", ALEXNET, 4, "a machine")
    assert (found.accuracy, found.best_epoch, found.epochs) == (0.75, 2, 3)
    assert found.changed == ("training.batch_size (128 -> 32)",)
    assert found.seconds_per_epoch == 2.7
    assert found.mean_spikes["population3"] == pytest.approx(0.3 * 0.75)
    # AlexNet-F has 96 x 16 x 16, 256 x 16 x 16, 384 x 8 x 8 twice and 256 x 8 x 8 neurons.
    neurons = (24_576, 65_536, 24_576, 24_576, 16_384)
    total = sum(n * 0.1 * (i + 1) * 0.75 for i, n in enumerate(neurons)) / 155_648
    assert found.mean_spikes["total"] == pytest.approx(total, abs=1e-6)  # kept with six digits
    assert extent(found, config) == (
        "in part: 3 of 100 epochs; 3,200 of 50,000 training samples; 1,000 of 10,000 test samples; "
        "lossy JPEG copies; training.batch_size (128 -> 32)"
    )


@pytest.mark.parametrize(
    ("name", "used"),
    [
        (ALEXNET, "adjoint_tolerance"),
        ("cifar10_spide_alexnet", "loss_scale"),
        ("cifar10_alexnet_bptt_lif_t30", "surrogate_width"),
    ],
)
def test_settings_that_the_method_does_not_use_are_no_change(tmp_path: Path, name: str, used: str) -> None:
    config = CONFIGS[name]
    training = dataclasses.replace(config.training, adjoint_tolerance=0.5, loss_scale=7.0, surrogate_width=9.0)
    found = read_run(a_run(tmp_path, dataclasses.replace(config, training=training)), CONFIGS)
    change = f"training.{used} ({getattr(config.training, used)} -> {getattr(training, used)})"
    assert found.changed == (change,)


def test_runs_without_a_row_or_an_epoch_give_nothing(tmp_path: Path) -> None:
    ours = dataclasses.replace(CONFIGS[ALEXNET], name="mine")
    assert read_run(a_run(tmp_path, ours), CONFIGS) is None
    assert read_run(a_run(tmp_path, CONFIGS[ALEXNET], accuracies=()), CONFIGS) is None


def test_early_runs_used_all_samples_of_datasets_that_have_no_parts(tmp_path: Path) -> None:
    early = {"epoch": 3}
    fashion = CONFIGS["fashion_mnist_fc_if"]
    found = read_run(a_run(tmp_path, fashion, metrics=early, input_shape=(1, 28, 28)), CONFIGS)
    assert (found.train_samples, found.test_samples) == (60_000, 10_000)
    with pytest.raises(CheckpointError, match="does not say how many samples were used; train again"):
        read_run(a_run(tmp_path, CONFIGS[ALEXNET], metrics=early), CONFIGS)


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    kept = [result(run="a", changed=("training.momentum (0.9 -> 0.8)",)), result("nmnist_conv_lif", run="b")]
    for one in kept:
        save_result(one, tmp_path / "new")
    assert stored_results(tmp_path / "new") == kept
    assert stored(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        ("mnist_conv_if", {}, "full"),
        ("mnist_conv_if", {"epochs": 20}, "in part: 20 of 100 epochs"),
        ("mnist_conv_if", {"epochs": 120}, "full"),
        ("nmnist_conv_if", {"train_samples": 1000, "note": "1,000 + 60,000 samples"}, "in part: 1,000 of 60,000 tra.*"),
        ("nmnist_conv_if", {"note": "synthetic recordings"}, "in part: synthetic recordings"),
        (ALEXNET, {"note": "lossy JPEG copies"}, "in part: lossy JPEG copies"),
        (ALEXNET, {"changed": ("network.dropout (0.2 -> 0.0)",)}, r"in part: network.dropout \(0.2 -> 0.0\)"),
    ],
)
def test_extent_says_what_is_missing(config: str, changes: dict[str, object], expected: str) -> None:
    assert re.fullmatch(expected, extent(result(config, **changes), CONFIGS[config]))


def test_the_commit_says_whether_code_was_changed(tmp_path: Path) -> None:
    assert commit(tmp_path) == "unknown"
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "result.json").write_text("1")
    alone = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    for command in (("init",), ("add", "."), (*alone, "commit", "-m", "one")):
        subprocess.run(("git", *command), cwd=tmp_path, check=True, capture_output=True)
    head = commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{7,}", head)
    (tmp_path / "result.json").write_text("2")
    assert commit(tmp_path) == head
    (tmp_path / "code.py").write_text("2")
    assert commit(tmp_path) == f"{head}-dirty"


def lines(table: TextTable, word: str) -> list[tuple[str, ...]]:
    return [row for row in table.rows if any(word == cell.strip("`") for cell in row)]


def test_accuracy_has_a_line_for_every_config_and_extent() -> None:
    runs = [
        result(accuracy=0.9941),
        result(accuracy=0.9945, run="mnist_conv_if-2", seed=1, device=""),
        result(epochs=2, run="mnist_conv_if-3", seed=2, accuracy=0.98, best_epoch=2),
        result(accuracy=0.5, run="mnist_conv_if-4"),  # of a seed that is there already
    ]
    table = accuracy_table(ROWS, runs, {"cifar100_alexnet_if_t100": "no CIFAR-100 at hand"})
    full, part = lines(table, "mnist_conv_if")
    # The standard deviation of two values 0.04 apart is 0.04 / sqrt(2).
    assert full[2:] == ("99.49", "99.43 ± 0.03, 2 runs", "0, 1", "NVIDIA H200, CPU", "full")
    assert part[2:] == ("99.49", "98.00 (2)", "2", "NVIDIA H200", "in part: 2 of 100 epochs")
    assert lines(table, "cifar100_alexnet_if_t100")[0][3:] == ("-", "-", "-", "not run: no CIFAR-100 at hand")
    assert lines(table, "mnist_conv_lif") == [("Table 1", "`mnist_conv_lif`", "99.53", "-", "-", "-", "not run")]
    assert {row[1].strip("`") for row in table.rows} == set(CONFIGS)


def test_memory_stands_beside_the_published() -> None:
    cells = {"10": {"memory_mib": 200.0, "seconds": 1.0}, "30": {"memory_mib": 1000.0, "seconds": 3.25}}
    flat = {"10": {"memory_mib": 250.0, "seconds": 0.5}}
    measured = {"device": "a machine", "precision": "float32", "batch_size": 32, "load": 0.5, "cores": 2}
    measured |= {"images": "random", "weights": "", "methods": {"ide": flat, "bptt": cells}, "commit": "0123456"}
    assert growth(cells) == pytest.approx(40.0)
    bptt = result("cifar10_alexnet_bptt_lif_t30", accuracy=0.8712)
    table = memory_table([measured], ROWS, [bptt, result(ALEXNET, accuracy=0.3, epochs=1)])
    assert [row[:2] for row in table.rows] == [(m, t) for m in ("IDE", "BPTT") for t in ("10", "30", "100")]
    assert table.rows[0][2:] == ("-", "250 MiB", "0.50 s", "-")
    assert table.rows[1][2:] == ("2.8 GB", "-", "-", "91.74 / 30.00 (in part)")
    assert table.rows[4][2:] == ("11 GB", "1000 MiB", "3.25 s", "87.18 / 87.12")
    assert table.rows[5][2:] == ("out of memory, about 36 GB", "-", "-", "- / not run")
    assert "each further step takes BPTT 40.0 MiB. Measured on random images, with untrained weights, in" in table.notes


def test_rates_are_of_the_run_that_saw_most_samples() -> None:
    rates = {f"population{n}": 0.01 * n for n in range(1, 6)} | {"total": 0.021}
    few = result(ALEXNET, run="few", train_samples=100, mean_spikes=dict.fromkeys(rates, 0.9))
    table = rates_table(ROWS, [few, result(ALEXNET, epochs=60, mean_spikes=rates)])
    assert table.header[:-1][::2] == ("", *["ours"] * 3)
    assert table.header[1::2] == ("IDE-IF, published", "IDE-LIF, published", "BPTT-LIF, published", "ours, of the zoo")
    assert table.rows[0][:-1] == ("population1", "0.0172", "-", "0.0166", "0.0100", "0.0190", "-")
    assert table.rows[-1][:-1] == ("total", "0.0070", "-", "0.0066", "0.0210", "0.0102", "-")
    firing = zoo_card("cifar10_alexnet").firing
    assert [row[-1] for row in table.rows[:-1]] == [f"{rate:.4f}" for rate in firing.values()]
    neurons = (96 * 256, 256 * 256, 384 * 64, 384 * 64, 256 * 64)
    total = sum(n * rate for n, rate in zip(neurons, firing.values(), strict=True)) / sum(neurons)
    assert table.rows[-1][-1] == f"{total:.4f}"
    assert "IDE-LIF: in part: 60 of 100 epochs. BPTT-LIF: not run." in table.notes


def test_convergence_ends_where_the_curve_does() -> None:
    curve = {"neurons": "IF", "size": 400, "extent": "full", "samples": 5}
    curve |= {"mean": [4.0 / t for t in range(1, 31)], "one": [2.0 / t for t in range(1, 31)]}
    (row,) = convergence_table({"mnist_conv_if": curve}).rows
    assert row == ("`mnist_conv_if`", "IF", "400", "4 / 2", "0.4 / 0.2", "0.133 / 0.0667", "-", "full")


def test_blocks_are_replaced_and_nothing_else() -> None:
    document = "a\n<!-- one: how -->\n<!-- end -->\nb\n<!-- two: how -->\nold\nold\n<!-- end -->\nc\n"
    changed = with_blocks(document, {"one": r"new \1", "two": "x"})
    assert changed == document.replace("how -->\n<!-- end", "how -->\nnew \\1\n<!-- end", 1).replace("old\nold", "x")
    assert with_blocks(changed, {"one": r"new \1", "two": "x"}) == changed
    with pytest.raises(ConfigError, match='found 0 blocks "three" in the document; expected one, from a line <!--'):
        with_blocks(document, {"three": ""})


def test_runs_are_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path / "runs", CONFIGS[ALEXNET])
    a_run(tmp_path / "more", dataclasses.replace(CONFIGS[ALEXNET], name="mine"))
    options = ["--runs", str(tmp_path / "runs"), str(tmp_path / "more"), "--results", str(tmp_path / "kept")]
    assert paper.main([*options, "--data-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "mine: left out" in shown.replace("\n", " ")
    assert "75.00 (2)" in shown
    assert "not run: no CIFAR-100 at hand" in shown
    assert [found.run for found in stored_results(tmp_path / "kept" / TRAININGS)] == [ALEXNET]
    reasons = stored(tmp_path / "kept" / "not_run.json")
    assert reasons["mnist_conv_if"] == "no MNIST at hand"
    assert ALEXNET not in reasons
    assert paper.main(["--results", str(tmp_path / "kept")]) == 0
    assert "75.00 (2)" in capsys.readouterr().out


def test_what_saw_more_samples_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(tmp_path / "runs", CONFIGS[ALEXNET])
    rates = {name: 0.1 for name in (*LAYERS, "total")}
    more = result(ALEXNET, run=ALEXNET, mean_spikes=rates)
    options = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "kept"), "--data-dir", str(tmp_path)]
    for replace, epochs in (([], 100), (["--replace"], 3)):
        save_result(more, tmp_path / "kept" / TRAININGS)
        assert paper.main([*options, *replace]) == 0
        (found,) = stored_results(tmp_path / "kept" / TRAININGS)
        assert found.epochs == epochs
        assert ("--replace takes it" in capsys.readouterr().out) is not bool(replace)


def test_folders_without_runs_or_with_two_of_a_name_are_refused(tmp_path: Path) -> None:
    keep = ["--results", str(tmp_path / "kept"), "--runs", str(tmp_path / "a")]
    with pytest.raises(ConfigError, match=r"a: no run is in it; train first: python train/train.py --runs"):
        paper.main(keep)
    a_run(tmp_path / "a", CONFIGS[ALEXNET])
    a_run(tmp_path / "b", CONFIGS[ALEXNET])
    with pytest.raises(ConfigError, match="two runs of one name; rename one of the folders"):
        paper.main([*keep, str(tmp_path / "b")])


@pytest.mark.parametrize("path", paper.DOCUMENTS, ids=lambda path: path.parent.name)
def test_documents_show_the_tables_of_the_kept_results(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == paper.with_tables(text, path, paper.all_tables(ROWS, RESULTS)), (
        "python -m benchmarks.ide.paper --readme"
    )


def test_another_result_would_be_noticed() -> None:
    tables = paper.all_tables(ROWS, RESULTS)
    text = README.read_text(encoding="utf-8")
    tables["accuracy"] = accuracy_table(ROWS, [result(accuracy=0.5)], {})
    assert text != paper.with_tables(text, README, tables)


def test_kept_results_are_of_configs_that_exist_and_say_where_they_come_from() -> None:
    kept = stored_results(RESULTS / TRAININGS)
    assert kept
    for one in kept:
        assert one.config in CONFIGS
        assert "synthetic" not in one.note, "made-up recordings are no result"
        assert re.fullmatch("[0-9a-f]{7,}", one.commit), f"{one.run}: of a tree with changes that are not committed"
    reasons = json.loads((RESULTS / "not_run.json").read_text(encoding="utf-8"))
    assert set(reasons) | {one.config for one in kept} == set(CONFIGS)


TEXT = BENCHMARKS_README.read_text(encoding="utf-8")
COMMANDS = sorted({line.split("#")[0].strip() for line in TEXT.splitlines() if line.startswith("    python ")} - {""})


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("python -m pytest")])
def test_every_command_for_the_benchmarks_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module, options = script_of(command)
    parse = getattr(module, "parse_arguments", None)
    found = parse(options) if parse else tyro.cli(module.Arguments, args=options)
    assert isinstance(found, module.Arguments)


def test_every_script_is_described() -> None:
    for script in SCRIPTS:
        assert f"| `{script}` |" in TEXT
    for named in re.findall(r"\]\((results/[^)]+)\)", TEXT):
        assert (BENCHMARKS_README.parent / named).is_file()


TINY = 'dataset = "cifar10"\n[network]\nnotation = "4C3s-4C3 (F4C3)"\nleak = 0.9\n'


def tiny(name: str) -> TrainConfig:
    """A published row with a few neurons, one epoch and small batches."""
    config = CONFIGS[name]
    steps = 30 if config.dataset == "nmnist" else 6
    network = dataclasses.replace(config.network, notation="12 (F12)", time_steps=steps)
    training = dataclasses.replace(config.training, epochs=1, batch_size=16, threads=1)
    return dataclasses.replace(config, network=network, training=training)


def few_digits() -> Dataset:
    digits = load_dataset("digits")
    return dataclasses.replace(digits, train=digits.train.select(np.arange(64)), test=digits.test.select(np.arange(23)))


def few_recordings() -> Dataset:
    codes = (np.random.default_rng(0).random((32, 30, 2, 4, 4)) < 0.3).astype(np.uint8)
    samples = Samples(codes, np.arange(32) % 10)
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    return Dataset("nmnist", samples, samples, (2, 4, 4), tuple("0123456789"), coding)


def trained(folder: Path, name: str, dataset: Dataset) -> Path:
    run = folder / name
    run.mkdir(parents=True)
    fit(tiny(name), dataset, run)
    return run


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of a process")
@pytest.mark.slow
def test_memory_and_time_are_kept(tmp_path: Path) -> None:
    """In a process of its own: those that it starts must find the script."""
    (tmp_path / "tiny.toml").write_text(TINY)
    command = [sys.executable, "-m", "benchmarks.ide.paper_memory", "--config", str(tmp_path / "tiny.toml")]
    command += ["--batch-size", "2", "--time-steps", "2", "--methods", "bptt", "--synthetic"]
    command += ["--results", str(tmp_path / "kept")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "BPTT  T =   2" in done.stdout
    kept = json.loads((tmp_path / "kept" / "memory_cpu.json").read_text())
    assert kept["images"] == "random"
    assert (kept["batch_size"], kept["weights"], kept["precision"]) == (2, "", "float32")
    assert set(kept["methods"]["bptt"]["2"]) == {"memory_mib", "seconds"}


def test_missing_images_are_replaced_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = memory.Arguments(data_dir=tmp_path, batch_size=3)
    dataset, images = memory.few_images(CONFIGS["cifar10_alexnet_lif_t30"], arguments)
    assert images == "random"
    assert dataset.train.stored.shape == (3, 3, 32, 32)
    assert "Random images are used instead" in capsys.readouterr().out


def test_an_iteration_begins_from_the_weights_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first loss is that of trained weights, and every iteration ends with an update."""
    dataset = few_digits()
    run = trained(tmp_path, "fashion_mnist_fc_lif", dataset)
    config = tiny("fashion_mnist_fc_lif")
    losses: dict[str, list[float]] = {}
    whole = iteration.functional.cross_entropy

    def noting(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = whole(logits, labels)
        losses[case].append(loss.item())
        return loss

    monkeypatch.setattr(iteration.functional, "cross_entropy", noting)
    updates: list[torch.optim.Optimizer] = []
    monkeypatch.setattr(torch.optim.SGD, "step", updates.append)
    for case, folder in (("new", None), ("trained", run)):
        losses[case] = []
        with memory.weighted_iteration(config, dataset, memory.Arguments(run=folder)) as iterate:
            for _ in range(2):
                iterate()
    assert losses["trained"][0] < losses["new"][0]
    assert len(updates) == 4


def test_the_configuration_takes_gradient_and_steps() -> None:
    config = read_config(memory.Arguments().config)
    found = memory.configured(config, memory.Arguments(batch_size=8), method="bptt", time_steps=7)
    assert (found.training.method, found.training.batch_size, found.network.time_steps) == ("bptt", 8, 7)
    assert found.network.notation == config.network.notation


def test_curves_are_kept_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    datasets = {"fashion_mnist": few_digits(), "nmnist": few_recordings()}
    names = {"fashion_mnist_fc_if": "fashion_mnist", "nmnist_conv_lif": "nmnist"}
    runs = [trained(tmp_path, name, datasets[dataset]) for name, dataset in names.items()]
    monkeypatch.setattr(convergence, "load_dataset", lambda name, _: datasets[name])
    kept = ["--results", str(tmp_path / "kept")]
    options = ["--samples", "12", "--time-steps", "40", "--seed", "3"]
    assert convergence.main([*kept, *options, "--runs", *map(str, runs)]) == 0
    curves = json.loads((tmp_path / "kept" / "convergence.json").read_text())
    assert list(curves) == list(names)
    fashion, nmnist = curves.values()
    assert (len(fashion["mean"]), len(nmnist["mean"])) == (40, 30), "recordings end with their last frame"
    assert (fashion["samples"], fashion["size"], fashion["neurons"], nmnist["neurons"]) == (12, 12, "IF", "LIF 0.95")
    assert fashion["extent"].startswith("in part: 1 of 100 epochs")

    # The mean in batches of ten is that of all twelve together, and the single one is the first of them.
    digits = datasets["fashion_mnist"]
    chosen = np.random.default_rng(3).choice(len(digits.test), 12, replace=False)
    samples = DeviceSamples(digits.test.select(chosen), digits.coding, device="cpu")
    model = load_checkpoint(runs[0] / BEST).model()
    x, _ = samples.batch(torch.arange(12))
    together = convergence_curve(model, x, time_steps=40)
    assert fashion["mean"] == pytest.approx(together.tolist(), rel=1e-3)  # kept with four digits
    assert fashion["one"] == pytest.approx(convergence_curve(model, x[:1], time_steps=40).tolist(), rel=1e-3)

    picture = tmp_path / "kept" / "convergence.svg"
    first = picture.read_bytes()
    assert len(first) < 60_000
    assert all(name.encode() in first for name in names)
    assert convergence.main(kept) == 0
    assert picture.read_bytes() == first, "drawn from what is kept, the same each time"


def test_a_network_of_the_zoo_has_a_curve_too(tmp_path: Path) -> None:
    """Its first sample computed by hand: one population that feeds itself."""
    pytest.importorskip("matplotlib")
    kept = ["--results", str(tmp_path)]
    assert convergence.main([*kept, "--samples", "12", "--time-steps", "40", "--seed", "3", "--zoo", "digits"]) == 0
    curve = json.loads((tmp_path / "convergence.json").read_text())["zoo: digits"]
    assert (curve["samples"], curve["size"], curve["neurons"], curve["trained_steps"]) == (12, 200, "IF", 5)
    assert len(curve["mean"]) == len(curve["one"]) == 40

    network = dataclasses.replace(dequantized(from_zoo("digits")), time_steps=40)
    digits = load_dataset("digits")
    code = digits.test.codes[np.random.default_rng(3).choice(len(digits.test), 12, replace=False)[:1]]
    spikes = FloatSimulator().run(network, code, record=["population1"]).spikes["population1"][:, 0]
    weights = {c.name: c.weight for c in network.connections}
    constant = weights["input_to_population1"] @ code.ravel() + weights["population1_current"][:, 0]
    for t in (1, 7, 40):
        rate = spikes[:t].mean(axis=0)
        mapped = np.clip((constant + weights["feedback"] @ rate) / network.populations[0].neuron.reset_amount, 0, 1)
        assert curve["one"][t - 1] == pytest.approx(np.linalg.norm(mapped - rate), rel=1e-3)
    assert curve["mean"][39] < curve["mean"][0] / 5


def test_the_kept_picture_is_of_the_kept_curves() -> None:
    kept = json.loads((RESULTS / "convergence.json").read_text())
    picture = (RESULTS / "convergence.svg").read_text()
    assert convergence.description(kept) in picture, "python -m benchmarks.ide.paper_convergence"
    assert len(picture) < 60_000


def test_nothing_to_draw_and_runs_of_no_row_are_refused(tmp_path: Path) -> None:
    kept = ["--results", str(tmp_path)]
    with pytest.raises(ConfigError, match=r"no curves are kept yet; name trained networks with --runs"):
        convergence.main(kept)
    run = trained(tmp_path, "fashion_mnist_fc_if", few_digits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convergence, "published_rows", lambda: [])
        with pytest.raises(ConfigError, match="fashion_mnist_fc_if: is of no published row, or no epoch is done"):
            convergence.main([*kept, "--runs", str(run)])


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r'install it with: pip install "fsnn-lava\[plots\]"'):
        convergence.draw({}, tmp_path / "picture.svg")
