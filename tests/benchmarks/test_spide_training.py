"""The benchmark of SPIDE measures what it says, and its document shows what is kept. No time is asserted."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.spide import cases as spide_cases, phase_speed as spide_speed
from benchmarks.spide.cases import Case, firing_history, read_cases
from benchmarks.spide.energy import EnergyCosts
from benchmarks.spide.gradient_error import converged_adjoint, gradient_errors
from benchmarks.spide.operations import ConnectionWork, TrainingWork, measure_work
from benchmarks.spide.plain_training import plain_readout
from feedback_networks import chain, seeded, synapses
from fsnn_lava.config import NetworkConfig, TrainConfig, published_configs, read_config
from fsnn_lava.datasets import load_dataset
from fsnn_lava.errors import ConfigError, ConvergenceError
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import FeedbackSNN
from fsnn_lava.training import fit
from fsnn_lava.training.gradients.spide import SpideSettings

DIGITS = published_configs()["digits_spide"]
NEURON = FloatNeuron(1.0, 2.0, 1.0)


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
        NetworkConfig(
            "6C5s-5C3s (F6C3u)",
            **dataclasses.asdict(NEURON),
            batch_norm=False,
            dropout=0.2,
            spectral_norm="frobenius",
            spectral_norm_bound=2.0,
            initial_weights="kaiming_normal",
        ),
        (1, 8, 8),
        seed=1,
    ).double()
    for synapse in synapses(model):
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
    assert many.saturated == 0 < loud.saturated
    assert few.unresolved > many.unresolved


def test_saturated_couples_are_those_of_the_exact_adjoint() -> None:
    model = FeedbackSNN(
        NetworkConfig(
            "1-1 (F1)",
            **dataclasses.asdict(NEURON),
            batch_norm=False,
            spectral_norm="frobenius",
            spectral_norm_bound=2.0,
            dropout=0.0,
        ),
        (1,),
        classes=2,
    ).double()
    for synapse, weight in zip((*synapses(model), model.feedback), (1.0, 1.5, 0.5), strict=True):
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
    monkeypatch.setattr("benchmarks.spide.plain_training.COUPLE_THRESHOLD", 0.6)
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


def test_dense_products_are_those_inside_the_image() -> None:
    notation = "2C3-P2-3C3 (F2C3u)"
    model = FeedbackSNN(
        NetworkConfig(notation, **dataclasses.asdict(NEURON), batch_norm=False, pooling="spiking", dropout=0.0),
        (1, 4, 4),
        seed=1,
    )
    network = dataclasses.replace(_tiny().network, notation=notation, pooling="spiking", time_steps=2)
    config = dataclasses.replace(_tiny(), network=network)
    work = measure_work(model.train(), torch.rand(3, 1, 4, 4), torch.arange(3), config)
    # Along a side of 4 a kernel of 3 meets 10 places inside the image, along one of 2 it meets 4; back up, from 2 to
    # 4 places, 5.
    first, last, feedback = 2 * 10**2 * 1 * 2, 2 * 4**2 * 2 * 3, 2 * 5**2 * 3 * 2
    flops = spide_speed._dense_flops(model, work)
    assert flops["input"] == first
    assert flops["forward"] == first + 2 * last + feedback
    assert flops["update"] == first + last + feedback


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
    assert torch.equal(old.model().readout.weight, old.state["readout.weight"])
    names = old.model().population_names
    history = firing_history(old, names)
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(len(row["firing"]) == len(row["firing_back"]) == 2 for row in history)
    seconds = [epoch["train/seconds"] for epoch in old.history]
    assert [row["seconds_so_far"] for row in history] == pytest.approx([seconds[0], sum(seconds)])
    assert old.trained_threads == _tiny().training.threads == 1
    assert firing_history(new, names) == []


def test_history_is_thinned_but_keeps_both_ends() -> None:
    epoch = {"train/firing_rate/population1": 0.1, "train/backward_firing_rate/population1": 0.01}
    epoch |= {"train/loss": 0.2, "test/accuracy": 0.9, "train/seconds": 2.0}
    case = Case("x", _tiny(), _case(_tiny()).dataset, None, 40, tuple(epoch for _ in range(40)))
    epochs = [row["epoch"] for row in firing_history(case, ("population1",))]
    assert len(epochs) == spide_cases.EPOCHS_SHOWN
    assert (epochs[0], epochs[-1]) == (1, 40)
    assert [row["seconds_so_far"] for row in firing_history(case, ("population1",))] == [2.0 * n for n in epochs]


def test_another_method_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ide.toml").write_text('name = "ide"\n')
    with pytest.raises(ConfigError, match=r'config ide: training.method: found "ide"; expected "spide"'):
        read_cases((str(tmp_path / "ide.toml"),), (), data_dir=None, seed=0, threads=1)


def test_a_restriction_that_the_plain_updates_do_not_know_is_refused(tmp_path: Path) -> None:
    text = DIGITS.read_text().replace('"frobenius"', '"operator"')
    (tmp_path / "own.toml").write_text(text)
    words = r'config \S+: network.spectral_norm: found "operator"; expected "frobenius" with feedback, as the plain'
    with pytest.raises(ConfigError, match=words):
        read_cases((str(tmp_path / "own.toml"),), (), data_dir=None, seed=0, threads=1)
    (tmp_path / "own.toml").write_text(text.replace(" (F200)", ""))
    (found,) = read_cases((str(tmp_path / "own.toml"),), (), data_dir=None, seed=0, threads=1)  # nothing to restrict
    assert found.config.network.spectral_norm == "operator"


def test_energy_is_counted_at_accurate_settings_too() -> None:
    case = _case(_tiny())
    found = spide_cases.energy_of(case, costs=EnergyCosts())
    accurate = found["accurate"]
    assert (accurate["time_steps_back"], accurate["loss_scale"]) == (250, 400.0)
    config = _tiny(loss_scale=400.0)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, time_steps_back=250))
    again = spide_cases.energy_of(dataclasses.replace(case, config=config), costs=EnergyCosts())
    assert accurate["totals"] == again["totals"]["SPIDE"] == again["accurate"]["totals"]
    assert accurate["totals"]["sparse"] > found["totals"]["SPIDE"]["sparse"]


# ---- the script ---------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("memory_is_not_measured")
def test_script_goes_through_all_its_sections(run: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    sizes = ("--repeats", "1", "--threads", "1", "--time-steps", "30", "--time-steps-back", "4", "--memory-batch", "8")
    options = ("--cases", "--runs", trained, "--error-steps", "20", "--error-scales", "100", "--costs.pj-addition", "1")
    text = run("spide.training", *sizes, *options, "--results", tmp_path)
    kept = json.loads((tmp_path / "spide.json").read_text())
    assert list(kept) == ["speed", "memory", "energy", "error"]
    assert all(set(figures) == {"run short"} for figures in kept.values())
    assert kept["speed"]["run short"]["agreement"]["differing_backward"] == 0
    rows = [(r["method"], r["time_steps"], r["time_steps_back"]) for r in kept["memory"]["run short"]["rows"]]
    assert rows == [("spide", 30, 4), ("spide", 30, 100), ("bptt", 30, 0)]
    assert kept["energy"]["run short"]["costs"]["pj_addition"] == 1
    assert len(kept["energy"]["run short"]["history"]) == 2
    for words in ("plain dense restatement", "machine's limits", "Memory of", "Firing rates", "energy", "Error of"):
        assert words in text
