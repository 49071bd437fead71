"""The names that fsnn_lava offers: what they load, and README's example, run exactly as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fsnn_lava as fsnn
import trained as trained_networks
from fsnn_lava.errors import CheckpointError, ConfigError, InputError, NetworkError, OutputError, UnsupportedError
from fsnn_lava.hardware import HardwareNetwork
from fsnn_lava.training import BEST, TrainedNetwork
from script_loader import ROOT

EXAMPLE = re.search(
    r"<!-- example: [^\n]*-->\n```python\n(.*?)```\n<!-- end -->",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.DOTALL,
)
PRINTED = re.search(
    r"<!-- example's output: [^\n]*-->\n```\n(.*?)```\n<!-- end -->",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.DOTALL,
)
VERBS = ("train", "evaluate", "lower", "quantize", "run", "verify", "save", "load")


def started(program: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_names_are_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    shown = started("import sys, fsnn_lava; print(*dir(fsnn_lava)); print(*sys.modules)", tmp_path)
    names, modules = (set(line.split()) for line in shown.splitlines())
    assert names == set(fsnn.__all__) - {"__version__"}
    assert set(VERBS) <= names
    assert 15 <= len(names) <= 18
    assert modules & {"torch", "lava", "numpy", "numba", "rich", "tyro"} == set()


def test_each_name_is_the_one_its_package_offers() -> None:
    for name in dir(fsnn):
        assert getattr(fsnn, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'fsnn_lava' has no attribute 'trian'"):
        fsnn.trian  # noqa: B018


def test_running_needs_no_torch(tmp_path: Path) -> None:
    network, _ = fsnn.quantize(fsnn.lower(trained_networks.trained_network()), trained_networks.digits().train)
    fsnn.save(network, tmp_path / "a.h5")
    program = "import fsnn_lava as f, sys; n = f.load('a.h5'); d = f.load_dataset('digits'); "
    program += "print(f.run(n, d.test[:50]).accuracy); print('torch' in sys.modules)"
    accuracy, loaded = started(program, tmp_path).split()
    assert float(accuracy) > 0.5
    assert loaded == "False"


def test_example_is_short() -> None:
    assert len(EXAMPLE[1].splitlines()) <= 25


@pytest.mark.slow
@pytest.mark.lava
def test_example_runs_as_it_is_printed(tmp_path: Path) -> None:
    shown = started(EXAMPLE[1], tmp_path)
    _check(shown, "lava-fixed", tmp_path)
    found, printed = ([_word(word) for word in text.split()] for text in (shown, PRINTED[1]))
    assert found == [pytest.approx(word, rel=0.1) if isinstance(word, float) else word for word in printed]


def _word(word: str) -> str | float:
    return float(word) if re.fullmatch(r"[0-9.e-]*[0-9][0-9.e-]*", word) else word


def test_example_runs_without_lava(tmp_path: Path) -> None:
    """On the simulator alone, where no Lava is installed."""
    assert EXAMPLE[1].count("lava-fixed") == 1
    hidden = "import sys; sys.modules['lava'] = None\n"
    shown = started(hidden + EXAMPLE[1].replace(', "lava-fixed"', ""), tmp_path)
    _check(shown, "simulator", tmp_path)


def _check(shown: str, last: str, folder: Path) -> None:
    rows = [line.split() for line in shown.splitlines()]
    assert [row[0] for row in rows] == ["trained", "rounding", *dict.fromkeys(["simulator", last]), "largest"]
    assert float(rows[0][1]) > 0.8
    assert all(float(row[1]) > 0.8 for row in rows[2:-1])
    assert float(rows[-1][-1]) == 0
    assert isinstance(fsnn.load(folder / "mine.h5"), HardwareNetwork)


@pytest.fixture(scope="module")
def network() -> HardwareNetwork:
    floating = fsnn.lower(trained_networks.trained_network())
    return fsnn.quantize(floating, trained_networks.digits().train, bits=8)[0]


def test_floats_codes_and_samples_are_the_same_run(network: HardwareNetwork) -> None:
    data = trained_networks.digits()
    some = data.test[:40]
    values = data.coding.decode(some.codes)
    expected = fsnn.run(network, some, record=True)
    for inputs in (some.codes, values, torch.from_numpy(values), values.reshape(40, -1), some.codes.astype(np.int64)):
        found = fsnn.run(network, inputs, labels=some.labels, record=True)
        assert np.array_equal(found.spikes["population1"], expected.spikes["population1"])
        assert found.accuracy == expected.accuracy > 0.5
    assert fsnn.run(network, some).spikes == {}


def test_floats_without_a_code_are_refused(network: HardwareNetwork) -> None:
    values = trained_networks.digits().coding.decode(trained_networks.some_codes(3))
    for wrong in (values + 100, values * np.nan):
        with pytest.raises(InputError, match=r"found values from .*; the codes stand for .*: \(x - mean\) / std"):
            fsnn.run(network, wrong)
    with pytest.raises(InputError, match=r"inputs of dtype int64; allowed: codes 0 \.\. 255, or floats"):
        fsnn.run(network, np.full((3, 1, 8, 8), 256))
    with pytest.raises(InputError, match='"simulator" was given no labels'):
        _ = fsnn.run(network, values).accuracy


def test_evaluation_takes_arrays_and_models() -> None:
    trained, data = trained_networks.trained_network(), trained_networks.digits()
    some = data.test[:60]
    expected = fsnn.evaluate(trained, some)
    assert fsnn.evaluate(trained, data.coding.decode(some.codes), labels=some.labels) == expected
    assert fsnn.evaluate(trained.model(), some, trained.coding, time_steps=10) == expected
    assert fsnn.evaluate(trained, some, time_steps=3) != expected
    with pytest.raises(ConfigError, match="found no labels"):
        fsnn.evaluate(trained, some.codes)
    with pytest.raises(ConfigError, match="found no coding or no time steps"):
        fsnn.evaluate(trained.model(), some)


def test_training_takes_a_config_or_single_settings(tmp_path: Path) -> None:
    data = trained_networks.digits()
    config = fsnn.TrainConfig(
        name="a",
        network=fsnn.NetworkConfig("12 (F12)", time_steps=4, leak=0.9),
        training=fsnn.TrainingConfig(epochs=1, milestones=()),
    )
    first = fsnn.train(data, config, folder=tmp_path / "runs" / "a")
    assert first.config == config
    again = fsnn.load(tmp_path / "runs" / "a" / BEST)
    assert isinstance(again, TrainedNetwork)
    assert all(torch.equal(first.weights[name], weight) for name, weight in again.weights.items())
    changed = fsnn.train(data, config, network="8 (F8)", epochs=2).config
    assert (changed.network.notation, changed.network.leak, changed.training.epochs) == ("8 (F8)", 0.9, 2)
    assert (changed.dataset, changed.network.time_steps) == ("digits", 4)


def test_verification_compares_what_is_named(network: HardwareNetwork) -> None:
    trained, some = trained_networks.trained_network(), trained_networks.digits().test[:30]
    told: list[str] = []
    report = fsnn.verify(trained, network, some, backends=("simulator", "simulator-float"), progress=told.append)
    assert told == ["structure", "torch", "simulator", "simulator-float", "potentials"]
    assert [(pair.a, pair.b) for pair in report.pairs] == [("simulator", "simulator-float")]
    assert report.lowering is not None
    assert report.samples == 30
    alone = fsnn.verify(None, network, some, backends=("simulator", "simulator-float"), floating=fsnn.lower(trained))
    assert alone.lowering is None
    assert alone.pairs == report.pairs
    with pytest.raises(ConfigError, match="found simulator; at least two different ones"):
        fsnn.verify(trained, network, some, backends=("simulator",))
    with pytest.raises(ConfigError, match="found torch without a trained network"):
        fsnn.verify(None, network, some, backends=("torch", "simulator"))
    with pytest.raises(InputError, match="inputs without labels"):
        fsnn.verify(trained, network, some.codes, backends=("torch", "simulator"))


def test_quantization_refuses_what_rounding_destroys() -> None:
    floating = fsnn.lower(trained_networks.trained_network())
    config = fsnn.DeployConfig(time_steps=3000, calibration_samples=30, exponents="input")
    train = trained_networks.digits().train
    with pytest.raises(UnsupportedError, match=r"T = 3000 lose these connections(.|\n)*feedback: "):
        fsnn.quantize(floating, train, config=config)
    network, report = fsnn.quantize(floating, train, config=config, keep_lost=True)
    assert report.lost() == ("feedback",)
    assert network.time_steps == 3000


def test_files_of_both_kinds_are_read_again(network: HardwareNetwork, tmp_path: Path) -> None:
    trained = trained_networks.trained_network()
    fsnn.save(network, tmp_path / "network")
    fsnn.save(trained, str(tmp_path / "trained"))
    assert isinstance(fsnn.load(tmp_path / "network"), HardwareNetwork)
    assert isinstance(fsnn.load(tmp_path / "trained"), TrainedNetwork)
    with pytest.raises(NetworkError, match="cannot save a dict; allowed: TrainedNetwork or HardwareNetwork"):
        fsnn.save({}, tmp_path / "a")
    with pytest.raises(NetworkError, match="there is no such file"):
        fsnn.load(tmp_path / "none.h5")
    with pytest.raises(CheckpointError, match="no such file"):
        fsnn.load(tmp_path / "none")
    with pytest.raises(OutputError, match="cannot be written"):
        fsnn.save(network, tmp_path / "none" / "a.h5")
