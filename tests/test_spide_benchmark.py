"""The benchmark of SPIDE measures what it says, and its document shows what is kept. No time is asserted."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from common import spide_cases, spide_speed
from common.plain_spide import plain_readout
from common.results import RESULTS, stored
from common.spide_cases import Case, firing_history, read_cases
from common.spide_error import converged_adjoint, gradient_errors
from common.spide_tables import TIMES_WANTED, speed_ratio, tables
from common.training_energy import EnergyCosts
from common.training_work import ConnectionWork, TrainingWork

from feedback_networks import chain, seeded, synapses
from fsnn_lava.config import TrainConfig, read_config
from fsnn_lava.data import DATA_VARIABLE, load_dataset
from fsnn_lava.errors import ConfigError, ConvergenceError
from fsnn_lava.gradients.spide import SpideSettings
from fsnn_lava.model import FeedbackSNN
from fsnn_lava.neuron import NeuronParameters
from fsnn_lava.spec import parse_spec
from fsnn_lava.training import fit
from script_loader import ROOT, load_script

spide = load_script("benchmarks/spide.py")
DIGITS = ROOT / "train" / "configs" / "digits_spide.toml"
NEURON = NeuronParameters(1.0, 2.0, 1.0)


# ---- error of the gradient ----------------------------------------------------------------------------------


def test_adjoint_of_two_neurons_in_closed_form() -> None:
    bound = chain(1.0, 1.5, feedback=0.5, neuron=NEURON).bind(1).detached()
    half, one = torch.full((1, 1), 0.5, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    first, last = converged_adjoint(bound, (half, half), one)
    # beta2 = 1 + beta1 W/r, beta1 = beta2 F/r
    assert float(last) == pytest.approx(1 / (1 - 0.25 * 0.75), rel=1e-12)
    assert float(first) == pytest.approx(0.75 * float(last), rel=1e-12)
    first, last = converged_adjoint(bound, (half, one), one)  # the second is saturated
    assert (float(first), float(last)) == (0.0, 1.0)


def test_a_loop_that_does_not_contract_is_refused() -> None:
    bound = chain(1.0, 2.0, feedback=2.0, neuron=NEURON).bind(1).detached()
    half = torch.full((1, 1), 0.5, dtype=torch.float64)
    with pytest.raises(ConvergenceError, match=r"adjoint system: the relative change is .* after 5000 turns"):
        converged_adjoint(bound, (half, half), half)


def _network() -> tuple[FeedbackSNN, torch.Tensor, torch.Tensor]:
    model = FeedbackSNN(
        parse_spec("6C5s-5C3s (F6C3u)"),
        (1, 8, 8),
        neuron=NEURON,
        batch_norm=False,
        dropout=0.2,
        spectral_norm="frobenius",
        spectral_norm_bound=2.0,
        initial_weights="kaiming_normal",
        seed=1,
    ).double()
    for synapse in synapses(model):
        assert synapse.bias is not None
        synapse.bias.data.fill_(0.3)
    return model.train(), torch.randn(8, 1, 8, 8, generator=seeded(1), dtype=torch.float64), torch.arange(8)


def test_error_vanishes_with_steps_and_grows_with_saturation() -> None:
    model, x, labels = _network()
    settings = tuple(SpideSettings(back, scale) for back, scale in ((50, 20.0), (1000, 20.0), (1000, 2000.0)))
    few, many, loud = gradient_errors(model, x, labels, time_steps=20, settings=settings)
    assert (few.time_steps_back, few.loss_scale) == (50, 20.0)
    assert many.error < 0.1 * few.error
    assert many.error < 0.02 < 0.3 < loud.error
    assert many.cosine > 0.9998
    assert many.worst >= many.error
    assert many.worst_parameter in dict(model.named_parameters())
    assert many.saturated == 0 < loud.saturated
    assert few.unresolved > many.unresolved
    assert few.silent > many.silent


def test_saturated_couples_are_those_of_the_exact_adjoint() -> None:
    model = FeedbackSNN(
        parse_spec("1-1 (F1)"),
        (1,),
        classes=2,
        neuron=NEURON,
        batch_norm=False,
        spectral_norm="frobenius",
        spectral_norm_bound=2.0,
    ).double()
    for synapse, weight in zip((*synapses(model), model.feedback), (1.0, 1.5, 0.5), strict=True):
        assert synapse is not None
        synapse.weight.data.fill_(weight)
    x, labels = torch.tensor([[0.75]], dtype=torch.float64), torch.tensor([0])
    bound = model.bind(1).detached()
    rates = bound.simulate(bound.drive(x, time_steps=4), time_steps=4).firing_rates
    _, gradient = plain_readout(model, rates[-1], labels)
    exact = converged_adjoint(bound, rates, gradient)
    scale = 1.01 / float(exact[1].abs())  # the last couple would have to fire more than once a step, the first not
    (found,) = gradient_errors(model, x, labels, time_steps=4, settings=(SpideSettings(100, scale),))
    assert found.saturated == 0.5
    assert found.saturated_part == pytest.approx(1 / (1 + 0.75**2))  # beta1 = 0.75 beta2
    assert found.unresolved == 0


# ---- speed --------------------------------------------------------------------------------------------------


def _case(config: TrainConfig, folder: Path | None = None) -> Case:
    digits = load_dataset("digits")
    few = digits.train.select(torch.arange(96).numpy())
    return Case("digits", config, dataclasses.replace(digits, train=few, test=few), None)


def _tiny(**training: Any) -> TrainConfig:
    config = read_config(DIGITS)
    network = dataclasses.replace(config.network, notation="6C3s-5C3 (F6C3)", time_steps=6)
    return dataclasses.replace(
        config,
        network=network,
        training=dataclasses.replace(config.training, batch_size=16, time_steps_back=8, epochs=2, **training),
    )


def test_variants_take_the_same_network_and_agree() -> None:
    case = _case(_tiny())
    model = case.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    iterations = spide_speed.Iterations(case.config, case.dataset, model)
    x, labels = iterations.batch()
    found = spide_speed.agreement(model.double(), x.double(), labels, case.config)
    assert found["differing_forward"] == found["differing_backward"] == 0
    assert found["gradient_error"] < 1e-12  # float64, the same spikes
    assert all(0 < rate < 1 for rate in found["firing"])
    model.float()
    for iterate in (iterations.ours, iterations.plain):
        seconds = iterate()
        assert tuple(seconds) == spide_speed.PHASES
        assert all(value > 0 for value in seconds.values())
    after = model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)  # an update was made
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-5)  # and is far too small to matter


def test_agreement_would_notice_another_spike(monkeypatch: pytest.MonkeyPatch) -> None:
    case = _case(_tiny())
    model = case.model().double()
    x, labels = spide_speed.Iterations(case.config, case.dataset, model).batch()
    monkeypatch.setattr("common.plain_spide.COUPLE_THRESHOLD", 0.6)
    found = spide_speed.agreement(model, x.double(), labels, case.config)
    assert found["differing_backward"] > 0 == found["differing_forward"]
    assert found["gradient_error"] > 1e-3


def test_limits_are_counted_by_hand() -> None:
    model = chain(1.0, 1.5, feedback=0.5, neuron=NEURON)
    zeros = {f.name: 0 for f in dataclasses.fields(ConnectionWork)} | {"learned": True, "synapses": 1}
    connections = tuple(
        ConnectionWork(**(zeros | {"name": name, "forward": 3, "backward": 2}))  # type: ignore[arg-type]
        for name in ("input", "population1 to population2", "feedback")
    )
    work = TrainingWork(1, 10, 20, 1.0, (1, 1), (0.1, 0.1), (0.1, 0.1), 1, False, connections)
    flops = spide_speed._dense_flops(model, work)
    assert flops == {"input": 2, "forward": 2 + 10 * 2 + 9 * 2, "backward": 3 * 4 + 20 * 2 + 19 * 2, "update": 6}
    numbers = spide_speed._streamed_numbers(work)
    assert numbers == {"forward": 10 * (12 * 2 + 3), "backward": 20 * (19 * 2 + 3)}
    config = dataclasses.replace(_tiny(), training=dataclasses.replace(_tiny().training, batch_size=5))
    found = spide_speed.phase_limits(config, model, work, flops_per_s=1e3)
    add, stream = found["additions_per_s"], found["streamed_numbers_per_s"]
    assert found["plain"]["forward"] == pytest.approx(5 * 40 / 1e3 + 5 * 270 / stream)
    assert found["ours"]["backward"] == pytest.approx(5 * (4 / add + 4 * 2 * 20 / stream))
    assert found["ours"]["update"] == found["plain"]["update"] == pytest.approx(5 * 6 / 1e3)


# ---- cases --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "short"
    folder.mkdir()
    config = _tiny(milestones=())
    fit(config, _case(config).dataset, folder)
    return folder


def test_cases_are_configurations_and_runs(trained: Path) -> None:
    threads = torch.get_num_threads()
    try:
        new, old = read_cases(("digits_spide:32",), (trained,), data_dir=None, seed=3, threads=threads)
    finally:
        torch.set_num_threads(threads)
    assert (new.key, new.state, new.epochs, new.config.training.batch_size) == ("digits_spide:32", None, 0, 32)
    assert new.config.training.seed == 3
    assert (old.key, old.epochs, old.config.training.time_steps_back) == ("run short", 2, 8)
    assert old.state is not None
    assert torch.equal(old.model().readout.weight, old.state["readout.weight"])
    names = old.model().population_names
    history = firing_history(old, names)
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(len(row["firing"]) == len(row["firing_back"]) == 2 for row in history)
    assert firing_history(new, names) == []


def test_history_is_thinned_but_keeps_both_ends() -> None:
    epoch = {"train/firing_rate/population1": 0.1, "train/backward_firing_rate/population1": 0.01}
    epoch |= {"train/loss": 0.2, "test/accuracy": 0.9}
    case = Case("x", _tiny(), _case(_tiny()).dataset, None, 40, tuple(epoch for _ in range(40)))
    epochs = [row["epoch"] for row in firing_history(case, ("population1",))]
    assert len(epochs) == spide_cases.EPOCHS_SHOWN
    assert (epochs[0], epochs[-1]) == (1, 40)


def test_another_method_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ide.toml").write_text('name = "ide"\n')
    with pytest.raises(ConfigError, match=r'config ide: training.method: found "ide"; expected "spide"'):
        read_cases((str(tmp_path / "ide.toml"),), (), data_dir=None, seed=0, threads=1)


# ---- the script ---------------------------------------------------------------------------------------------


def test_script_goes_through_all_its_sections(trained: Path, tmp_path: Path) -> None:
    sizes = ("--repeats", "1", "--threads", "1", "--time-steps", "30", "--time-steps-back", "4", "--memory-batch", "8")
    options = ("--cases", "--runs", trained, "--error-steps", "20", "--error-scales", "100", "--costs.pj-addition", "1")
    environment = {name: value for name, value in os.environ.items() if name != DATA_VARIABLE}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "benchmarks" / "spide.py", *sizes, *options, "--results", tmp_path]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    kept = json.loads((tmp_path / "spide.json").read_text())
    assert list(kept) == ["speed", "memory", "energy", "error"]
    assert all(set(figures) == {"run short"} for figures in kept.values())
    assert kept["speed"]["run short"]["agreement"]["differing_backward"] == 0
    rows = [(r["method"], r["time_steps"], r["time_steps_back"]) for r in kept["memory"]["run short"]["rows"]]
    assert rows == [("spide", 30, 4), ("spide", 30, 100), ("bptt", 30, 0)]
    assert kept["energy"]["run short"]["costs"]["pj_addition"] == 1
    assert len(kept["energy"]["run short"]["history"]) == 2
    for words in ("plain dense restatement", "machine's limits", "Memory of", "Firing rates", "energy", "Error of"):
        assert words in done.stdout


# ---- tables -------------------------------------------------------------------------------------------------


def kept_figures() -> dict[str, Any]:
    """Figures as they are kept, all made up."""
    conditions = {"cpu": "Abacus", "cores": 2, "load": 0.1, "threads": 2, "commit": "0123456", "at": "today"}
    facts = {
        "notation": next(iter(TIMES_WANTED)),
        "dataset": "mnist",
        "leak": 1.0,
        "time_steps": 30,
        "time_steps_back": 100,
    }
    facts |= {"loss_scale": 100.0, "batch_size": 128, "dropout": 0.2, "epochs": 0, "conditions": conditions}
    plain = {"forward": 0.2, "backward": 0.8, "update": 0.1, "total": 1.1}
    ours = {"forward": 0.1, "backward": 0.05, "update": 0.1, "total": 0.25}
    agreement = {"firing": [0.1], "firing_back": [0.001], "differing_forward": 0.0, "differing_backward": 0.001}
    agreement |= {"gradient_error": 2e-7, "worst_parameter": "x"}
    limits = {"plain": plain, "ours": ours, "additions_per_s": 1e11, "streamed_numbers_per_s": 1e10}
    seconds = {"plain": plain, "ours": ours, "iterations": 4, "flops_per_s": 5e11}
    connection = {f.name: 1000.0 for f in dataclasses.fields(ConnectionWork)} | {"name": "input", "learned": True}
    work = {"neurons": [10], "firing": [0.1], "firing_back": [0.001], "time_steps_back": 100, "adjoint_steps": 7}
    work |= {"connections": [connection, connection | {"name": "feedback"}]}
    costs = dataclasses.asdict(EnergyCosts()) | {"source": "a book"}
    energies = {"sparse": 2.0, "dense": 50.0}
    count = {"additions": 5.0, "multiplications": 0.0, "products": 7.0}
    part = {"method": "SPIDE", "name": "spikes", "sparse": count, "dense": count, "sparse_uj": 2.0, "dense_uj": 50.0}
    epoch = {"epoch": 3, "loss": 0.25, "accuracy": 0.9876, "firing": [0.07], "firing_back": [0.0042]}
    error = {"time_steps_back": 250, "loss_scale": 400.0, "error": 0.05, "cosine": 0.999, "worst": 0.1}
    error |= {"worst_parameter": "x", "saturated": 0.002, "saturated_part": 0.3, "unresolved": 0.5, "silent": 0.4}
    rows = [{"method": "spide", "time_steps": 30, "time_steps_back": 100, "mib": 12.34}]
    rows.append({"method": "bptt", "time_steps": 30, "time_steps_back": 0, "mib": 345.6})
    totals = {"SPIDE": energies, "IDE": {"sparse": 5.0, "dense": 20.0}}
    return {
        "speed": {"mnist_spide_conv": facts | {"agreement": agreement, "seconds": seconds, "limits": limits}},
        "memory": {"mnist_spide_conv": facts | {"batch_size": 32, "rows": rows}},
        "energy": {
            "run a": facts
            | {"epochs": 3, "history": [epoch], "costs": costs, "work": work, "parts": [part], "totals": totals}
        },
        "error": {"mnist_spide_conv": facts | {"samples": 128, "errors": [error]}},
    }


def test_tables_show_the_figures() -> None:
    shown = {name: table.markdown() for name, table in tables(kept_figures()).items()}
    assert "| 1.1e+03 / 250 | 4.4 | 3 | 0 / 0.001 | 2e-07 |" in shown["spide-speed"].replace("1,100", "1.1e+03")
    assert speed_ratio(kept_figures()["speed"]["mnist_spide_conv"]) == pytest.approx(4.4)
    assert "| backward | 800 | 800 | 100% | 50 | 50 | 100% |" in shown["spide-limits"]
    assert "| SPIDE | 30 | 100 | 12.3 |" in shown["spide-memory"]
    assert "| BPTT | 30 | - | 345.6 |" in shown["spide-memory"]
    assert "| in epoch 3 | 0.250 | 98.76% | 0.07 | 0.0042 |" in shown["spide-firing"]
    assert "after 3 epochs, measured here | - | - | 0.1 | 0.001 |" in shown["spide-firing"]
    assert "| IDE | 5 | 2.5 | 20 | 10 |" in shown["spide-energy"]
    assert "a book" in shown["spide-energy"]
    assert "| spikes | 5 | 0 | 7 | 2 | 5 | 0 | 7 | 50 |" in shown["spide-energy-parts"].replace(" 7.0 ", " 7 ")
    assert "| 250 | 0.050 / 0.9990 | 50% / 0.002 / 30% |" in shown["spide-error"]
    assert "cosine above 0.99: holds." in shown["spide-error"]
    assert all(
        "Abacus, 2 cores, load average 0.1 before, 2 threads, commit 0123456, today." in t for t in shown.values()
    )


def test_an_error_that_is_too_large_is_said() -> None:
    figures = copy.deepcopy(kept_figures())
    figures["error"]["mnist_spide_conv"]["errors"][0]["error"] = 0.11
    assert (
        "cosine above 0.99: DOES NOT HOLD of `64C5s-64C5s-64C5 (F64C3u)`, mnist untrained."
        in tables(figures)["spide-error"].notes
    )
    figures["error"]["mnist_spide_conv"]["errors"][0]["loss_scale"] = 100.0
    assert "not measured" in tables(figures)["spide-error"].notes


def test_readme_is_written_from_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "README.md"
    monkeypatch.setattr(spide, "DOCUMENT", document)
    with pytest.raises(ConfigError, match=r"spide\.json holds no figures; measure them first"):
        spide.main(["--readme", "--results", str(tmp_path)])
    (tmp_path / "spide.json").write_text(json.dumps(kept_figures()))
    document.write_text("nothing")
    with pytest.raises(ConfigError, match='found 0 blocks "spide-speed"'):
        spide.main(["--readme", "--results", str(tmp_path)])
    document.write_text("".join(f"<!-- {name}: made so -->\n<!-- end -->\n" for name in tables(kept_figures())))
    assert spide.main(["--readme", "--results", str(tmp_path)]) == 0
    assert _blocks(document) == {name: table.markdown() for name, table in tables(kept_figures()).items()}


def _blocks(document: Path) -> dict[str, str]:
    text = document.read_text(encoding="utf-8")
    return dict(re.findall(r"<!-- (spide-[a-z-]+): [^\n]*-->\n(?:(.*?)\n)??<!-- end -->", text, re.DOTALL))


def test_document_shows_what_is_kept() -> None:
    kept = stored(RESULTS / spide.RESULT) or {}
    found = {name: table.markdown() for name, table in tables(kept).items()}
    shown = _blocks(ROOT / "benchmarks" / "README.md")
    assert set(shown) == set(tables(kept_figures()))
    assert shown == {name: found.get(name, "") for name in shown}
