"""The benchmark of SPIDE: what it measures, operations and energy by hand, and the plain training beside it."""

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from benchmarks.spide import cases as spide_cases, energy as training_energy, phase_speed as spide_speed
from benchmarks.spide.cases import Case, firing_history, read_cases
from benchmarks.spide.energy import Count, EnergyCosts, Part, as_kept, energy_parts, totals
from benchmarks.spide.gradient_error import converged_adjoint, gradient_errors
from benchmarks.spide.operations import ConnectionWork, Structure, TrainingWork, _name, measure_work
from benchmarks.spide.plain_training import (
    PlainConnection,
    firing_mask,
    plain_backward_phase,
    plain_connections,
    plain_forward_phase,
    plain_readout,
    plain_updates,
)
from feedback_networks import SPIDE, built, chain, constants, seeded, synapses
from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig, published_configs, read_config
from fsnn_lava.config.notation import LayerSpec, parse_spec
from fsnn_lava.datasets import load_dataset
from fsnn_lava.errors import ConfigError, ConvergenceError
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.hardware.geometry import DENSE, Convolution, Geometry, TransposedConvolution
from fsnn_lava.hardware.linear_maps import LinearMap
from fsnn_lava.network.feedback_network import BoundNetwork, FeedbackSNN
from fsnn_lava.network.layers import apply_layer
from fsnn_lava.training import fit
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, spide_rates

DIGITS = published_configs()["digits_spide"]
NEURON = FloatNeuron(1.0, 2.0, 1.0)


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
    model = built("6C5s-5C3s (F6C3u)", (1, 8, 8), NEURON, seed=1, dropout=0.2, **SPIDE)
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
    settings = SPIDE | {"initial_weights": NetworkConfig().initial_weights, "dropout": 0.0}
    model = built("1-1 (F1)", (1,), NEURON, classes=2, **settings)
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


def _case(config: TrainConfig, folder: Path | None = None) -> Case:
    digits = load_dataset("digits")
    few = digits.train.select(torch.arange(96).numpy())
    return Case("digits", config, replace(digits, train=few, test=few), None)


def _tiny(**training: Any) -> TrainConfig:
    config = read_config(DIGITS)
    network = replace(config.network, notation="6C3s-5C3 (F6C3)", time_steps=6)
    return replace(
        config,
        network=network,
        training=replace(config.training, batch_size=16, time_steps_back=8, epochs=2, **training),
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
        assert_close(after[name], value, rtol=1e-3, atol=1e-5)  # and is far too small to matter


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
    zeros = {f.name: 0 for f in fields(ConnectionWork)} | {"learned": True, "synapses": 1}
    connections = tuple(
        ConnectionWork(**(zeros | {"name": name, "forward": 3, "backward": 2}))
        for name in ("input", "population1 to population2", "feedback")
    )
    work = TrainingWork(1, 10, 20, 1.0, (1, 1), (0.1, 0.1), (0.1, 0.1), 1, False, connections)
    flops = spide_speed._dense_flops(model, work)
    assert flops == {"input": 2, "forward": 2 + 10 * 2 + 9 * 2, "backward": 3 * 4 + 20 * 2 + 19 * 2, "update": 6}
    numbers = spide_speed._streamed_numbers(work)
    assert numbers == {"forward": 10 * (12 * 2 + 3), "backward": 20 * (19 * 2 + 3)}
    config = replace(_tiny(), training=replace(_tiny().training, batch_size=5))
    found = spide_speed.phase_limits(config, model, work, flops_per_s=1e3)
    add, stream = found["additions_per_s"], found["streamed_numbers_per_s"]
    assert found["plain"]["forward"] == pytest.approx(5 * 40 / 1e3 + 5 * 270 / stream)
    assert found["ours"]["backward"] == pytest.approx(5 * (4 / add + 4 * 2 * 20 / stream))
    assert found["ours"]["update"] == found["plain"]["update"] == pytest.approx(5 * 6 / 1e3)


def test_dense_products_are_those_inside_the_image() -> None:
    notation = "2C3-P2-3C3 (F2C3u)"
    model = FeedbackSNN(
        NetworkConfig(notation, **constants(NEURON), batch_norm=False, pooling="spiking", dropout=0.0),
        (1, 4, 4),
        seed=1,
    )
    network = replace(_tiny().network, notation=notation, pooling="spiking", time_steps=2)
    config = replace(_tiny(), network=network)
    work = measure_work(model.train(), torch.rand(3, 1, 4, 4), torch.arange(3), config)
    # Along a side of 4 a kernel of 3 meets 10 places inside the image, along one of 2 it meets 4; back up, from 2 to
    # 4 places, 5.
    first, last, feedback = 2 * 10**2 * 1 * 2, 2 * 4**2 * 2 * 3, 2 * 5**2 * 3 * 2
    flops = spide_speed._dense_flops(model, work)
    assert flops["input"] == first
    assert flops["forward"] == first + 2 * last + feedback
    assert flops["update"] == first + last + feedback


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
    config = replace(config, training=replace(config.training, time_steps_back=250))
    again = spide_cases.energy_of(replace(case, config=config), costs=EnergyCosts())
    assert accurate["totals"] == again["totals"]["SPIDE"] == again["accurate"]["totals"]
    assert accurate["totals"]["sparse"] > found["totals"]["SPIDE"]["sparse"]


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


LAYERS: dict[str, tuple[LayerSpec, tuple[int, ...], tuple[int, ...], Geometry]] = {
    "linear": (LayerSpec("linear", 5), (5, 12), (12,), DENSE),
    "conv": (LayerSpec("conv", 3, 5), (3, 2, 5, 5), (2, 6, 6), Convolution(1, 2)),
    "strided": (LayerSpec("conv", 3, 3, 2), (3, 2, 3, 3), (2, 7, 7), Convolution(2, 1)),
    "transposed": (LayerSpec("conv", 3, 3, 2, True), (2, 3, 3, 3), (2, 4, 4), TransposedConvolution(2, 1, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_fan_out_is_that_of_the_linear_map_zeros_left_out(name: str) -> None:
    layer, size, source, geometry = LAYERS[name]
    weight = torch.randn(size, generator=seeded()).mul_(torch.rand(size, generator=seeded(1)) > 0.3)
    target = layer.output_shape(source)
    structure = Structure(PlainConnection(layer, weight, torch.ones(size[0]), None, source))
    expected = LinearMap(geometry, weight.numpy(), source, target)
    assert np.array_equal(structure.fan_out(target).flatten().numpy(), expected.fan_out())
    fan_in = np.diff(expected.unrolled().indptr)
    assert np.array_equal(structure.fan_in().flatten().numpy(), fan_in)


def test_a_pool_s_neurons_have_as_many_synapses_as_its_window_has_places() -> None:
    structure = Structure(
        PlainConnection(LayerSpec("pool", 0, 2, 2), torch.eye(3).view(3, 3, 1, 1), None, None, (3, 4, 4))
    )
    assert torch.equal(structure.fan_out((3, 2, 2)), torch.ones(3, 4, 4, dtype=torch.float64))
    assert torch.equal(structure.fan_in(), torch.full((3, 2, 2), 4.0, dtype=torch.float64))


NETWORK = NetworkConfig("1-1 (F1)", v_threshold=1.0, reset_amount=2.0, time_steps=4, batch_norm=False, dropout=0.0)
CONFIG = TrainConfig(
    network=NETWORK, training=TrainingConfig("spide", time_steps_back=4, loss_scale=4.0, surrogate_width=1.0)
)


def test_names_say_where_connections_lead() -> None:
    assert [_name(n, 3) for n in range(4)] == [
        *("input", "population1 to population2", "population2 to population3", "feedback")
    ]


def test_two_neurons_are_counted_by_hand() -> None:
    model = chain(1.0, 1.5, feedback=0.5, neuron=NEURON).train()
    with torch.no_grad():  # dL/da is the difference of the weights times the wrong class's probability, negative
        model.readout.weight.copy_(torch.tensor([[0.25], [0.0]]))
        model.readout.bias.zero_()
    # Spikes and potentials as in test_spide_plain_training: both spike at t = 1 and 3; v1 0.75 1.5 0.75 1.5;
    # v2 0 1.5 -0.5 1.
    # Backwards: probability of class 1 is 1/(1+exp(0.125)) = 0.4688, so 4 dL/da = -0.4688 a step; q2 spikes at t = 1
    # and 3 (-0.4688, -0.9376, then +0.0624-0.4688 ...), q1 takes 0.75 of it in the same step.
    x = torch.tensor([[0.75]], dtype=torch.float64)
    work = measure_work(model, x, torch.tensor([0]), CONFIG)
    assert (work.samples, work.neurons, work.event_input) == (1, (1, 1), False)
    assert work.firing == (0.5, 0.5)
    forward, feedback = work.connections[1:]
    assert [c.synapses for c in work.connections] == [1, 1, 1]
    assert (forward.events, forward.forward, feedback.events, feedback.forward) == (2, 2, 2, 2)
    assert work.connections[0].events == work.connections[0].forward == 0
    couple_spikes = [round(rate * 4) for rate in work.firing_back]
    assert (forward.messages_back, forward.backward) == (couple_spikes[1], couple_spikes[1])
    assert (feedback.messages_back, feedback.backward) == (couple_spikes[0], couple_spikes[0])
    assert couple_spikes[1] >= 2
    assert work.connections[0].backward == 0
    assert [c.updated for c in work.connections] == [1, 1, 1]
    # |v - 1| < 0.5: v1 at t = 0 and 2, v2 at t = 3. The spike that arrives then: of population 1 at t = 3; the
    # feedback of t = 1 at t = 2, and t = 0 has none to take part.
    assert [c.passing_bptt for c in work.connections] == [2, 1, 1]
    assert [c.updated_bptt for c in work.connections] == [2, 1, 1]
    assert work.adjoint_steps >= 2


def test_neurons_that_pass_nothing_on_are_not_counted() -> None:
    model = chain(1.0, -1.5, feedback=0.5, neuron=NEURON).train()  # the second is silent
    work = measure_work(model, torch.tensor([[0.75]], dtype=torch.float64), torch.tensor([0]), CONFIG)
    into_first, into_second, feedback = work.connections
    assert work.firing[1] == 0
    assert into_second.forward > 0
    assert into_second.messages_back == into_second.backward == into_second.updated == into_second.passing == 0
    assert feedback.mapped == feedback.updated == feedback.updated_ide == 0
    assert into_first.passing == feedback.passing == 1  # the first is neither silent nor saturated


def test_dropped_currents_send_nothing_back() -> None:
    wide = replace(CONFIG.training, surrogate_width=3.0)  # a potential of 0 is within it
    config = replace(CONFIG, training=wide)
    model = chain(1.0, 1.5, feedback=0.5, neuron=NEURON).train()
    for synapse in model.synapses:
        synapse.dropout = 0.999
    with torch.no_grad():
        model.feedforward[0].bias.fill_(0.75)
    work = measure_work(model, torch.tensor([[0.75]], dtype=torch.float64), torch.tensor([0]), config)
    assert all(c.backward == c.updated == c.passing == c.passing_bptt == 0 for c in work.connections)


def test_spikes_count_at_the_synapses_of_their_own_end() -> None:
    model = FeedbackSNN(
        NetworkConfig("3-2 (F3)", **constants(NEURON), batch_norm=False, dropout=0.0), (4,), classes=2, seed=2
    ).double()
    for synapse in synapses(model):
        synapse.bias.data.fill_(0.9)
    x = torch.randn(6, 4, generator=seeded(), dtype=torch.float64)
    settings = replace(CONFIG.training, loss_scale=100.0, time_steps_back=30)
    work = measure_work(model.train(), x, torch.arange(6) % 2, replace(CONFIG, training=settings))
    into_first, into_second, feedback = work.connections
    assert [c.synapses for c in work.connections] == [12, 6, 6]
    assert into_second.events > 0 and feedback.events > 0
    assert into_second.messages_back > 0 and feedback.messages_back > 0
    assert into_second.forward == pytest.approx(2 * into_second.events)
    assert feedback.forward == pytest.approx(3 * feedback.events)
    assert into_second.backward == pytest.approx(3 * into_second.messages_back)
    assert feedback.backward == pytest.approx(2 * feedback.messages_back)
    assert into_first.passing == pytest.approx(4 * feedback.passing / 2)  # of the same neurons, from 4 and 2 sources


def test_event_frames_are_counted_as_events() -> None:
    model = chain(1.0, 1.5, feedback=0.5, neuron=NEURON).train()
    frames = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64).view(4, 1, 1)
    work = measure_work(model, frames, torch.tensor([0]), CONFIG)
    assert work.event_input
    assert (work.connections[0].events, work.connections[0].forward) == (3, 3)


def _connection(name: str, **counts: float) -> ConnectionWork:
    zeros = {f.name: 0 for f in fields(ConnectionWork)}
    return ConnectionWork(**(zeros | {"name": name, "learned": True, "synapses": 100} | counts))


WORK = TrainingWork(
    samples=1,
    time_steps=10,
    time_steps_back=20,
    leak=1.0,
    neurons=(3, 2),
    firing=(0.1, 0.2),
    firing_back=(0.01, 0.02),
    adjoint_steps=4,
    event_input=False,
    connections=(
        _connection("input", updated=7, updated_ide=8, mapped=90, updated_bptt=11),
        _connection(
            "population1 to population2",
            **{"forward": 30, "backward": 5, "updated": 3, "mapped": 40, "passing": 20, "updated_ide": 6},
            passing_bptt=60,
            updated_bptt=12,
        ),
        _connection(
            "feedback",
            **{"forward": 50, "backward": 2, "updated": 1, "mapped": 15, "passing": 25, "updated_ide": 9},
            passing_bptt=70,
            updated_bptt=13,
        ),
    ),
)


def _by_name(work: TrainingWork, costs: EnergyCosts = EnergyCosts()) -> dict[tuple[str, str], Part]:  # noqa: B008
    return {(part.method, part.name): part for part in energy_parts(work, costs)}


def test_every_part_by_hand() -> None:
    found = _by_name(WORK)
    for method in ("SPIDE", "IDE", "BPTT"):
        assert found[method, "input current"] == Part(method, "input current", Count(products=100), Count(products=100))
        assert found[method, "spikes forwards"].sparse == Count(additions=80)
        assert found[method, "spikes forwards"].dense == Count(products=10 * 100 + 9 * 100)
        assert found[method, "neurons forwards"].sparse == Count(additions=2 * 5 * 10)
    sparse = {key: part.sparse for key, part in found.items()}
    assert sparse["SPIDE", "spikes backwards"] == Count(additions=7)
    assert sparse["SPIDE", "couples"] == Count(additions=2 * 5 * 20)
    assert sparse["SPIDE", "local updates"] == Count(products=11)
    assert sparse["IDE", "map"] == Count(products=55)
    assert sparse["IDE", "adjoint solve"] == Count(products=4 * 45)
    assert sparse["IDE", "map backwards"] == Count(products=20)
    assert sparse["IDE", "weight gradients"] == Count(products=23)
    assert sparse["BPTT", "steps backwards"] == Count(products=130)
    assert sparse["BPTT", "neurons backwards"] == Count(products=2 * 5 * 10)
    assert sparse["BPTT", "weight gradients"] == Count(additions=25, products=90)
    dense = {key: part.dense for key, part in found.items()}
    assert dense["SPIDE", "spikes backwards"] == Count(products=20 * 100 + 19 * 100)
    assert dense["SPIDE", "local updates"] == dense["IDE", "weight gradients"] == Count(products=300)
    assert dense["IDE", "map"] == Count(products=200)
    assert dense["IDE", "adjoint solve"] == Count(products=800)
    assert dense["IDE", "map backwards"] == Count(products=100)
    assert dense["BPTT", "steps backwards"] == Count(products=1900)
    assert dense["BPTT", "weight gradients"] == Count(products=100 + 1900)


def test_leaks_events_and_pools_change_what_is_counted() -> None:
    leaky = _by_name(replace(WORK, leak=0.5))
    assert leaky["SPIDE", "couples"].sparse == Count(additions=200, multiplications=100)
    given = replace(WORK.connections[0], forward=17.0)
    events = replace(WORK, event_input=True, connections=(given, *WORK.connections[1:]))
    found = _by_name(events)
    assert found["IDE", "input current"] == Part("IDE", "input current", Count(additions=17), Count(products=1000))
    assert found["BPTT", "weight gradients"].sparse == Count(additions=11 + 25)
    assert found["BPTT", "weight gradients"].dense == Count(products=1000 + 1900)
    pool = replace(WORK.connections[1], learned=False)
    fixed = _by_name(replace(WORK, connections=(WORK.connections[0], pool, WORK.connections[2])))
    assert fixed["SPIDE", "local updates"].sparse == Count(products=8)
    assert fixed["SPIDE", "spikes backwards"].sparse == Count(additions=7)


def test_energies_are_counts_times_costs() -> None:
    costs = EnergyCosts(pj_addition=2.0, pj_multiplication=30.0, neuron_additions=3.0, bptt_neuron_products=5.0)
    assert Count(10, 100, 1000).picojoules(costs) == 10 * 2 + 100 * 30 + 1000 * 32
    parts = energy_parts(WORK, costs)
    found = totals(parts, costs)
    # SPIDE: 100 and 11 products, 80 + 7 additions, 5 neurons x (10 + 20) steps x 3 additions
    assert found["SPIDE"]["sparse"] == pytest.approx(1e-6 * (111 * 32 + 87 * 2 + 450 * 2))
    assert found["BPTT"]["sparse"] == pytest.approx(
        1e-6 * ((100 + 130 + 90 + 5 * 50) * 32 + (80 + 25) * 2 + 5 * 10 * 3 * 2)
    )
    kept = as_kept(parts, costs)
    assert sum(float(str(row["sparse_uj"])) for row in kept if row["method"] == "SPIDE") == pytest.approx(
        found["SPIDE"]["sparse"]
    )
    default = EnergyCosts()
    assert (default.pj_addition, default.pj_multiplication) == (0.9, 3.7)
    assert Count(products=1).picojoules(default) == pytest.approx(4.6)


def test_every_part_is_explained() -> None:
    text = training_energy.__doc__ or ""
    for part in energy_parts(WORK, EnergyCosts()):
        word = part.name.removesuffix(" forwards").removesuffix(" backwards") if part.method == "SPIDE" else part.name
        assert re.search(rf"\b{word.split()[0]}", text), part.name
    assert "Not counted" in text


IF, LIF = FloatNeuron(1.0, 2.0, 1.0), FloatNeuron(1.0, 2.0, 0.5)


def _two_neurons(neuron: FloatNeuron) -> tuple[FeedbackSNN, BoundNetwork]:
    """Weights 1, 0.75 with a dropout mask of 2, and 0.5 back; every number below is exact in binary."""
    model = chain(1.0, 0.75, feedback=0.5, neuron=neuron)
    bound = model.bind(1).detached()
    dropped = replace(bound.feedforward[1], mask=torch.full((1, 1), 2.0, dtype=torch.float64))
    return model, replace(bound, feedforward=(bound.feedforward[0], dropped))


def _one(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _spikes(found: tuple[Tensor, ...] | None) -> list[list[int]]:
    return [population.flatten().tolist() for population in found]


def test_both_phases_and_updates_by_hand() -> None:
    model, bound = _two_neurons(IF)
    drive = bound.drive(_one(0.75), time_steps=4)
    forward = plain_forward_phase(bound, drive, time_steps=4, record=True)
    # v1: 0.75, 1.5 (spike), 1.5-2+0.75+0.5 = 0.75, 1.5 (spike); v2: 0, 1.5 (spike), -0.5, 1 (spike, at the threshold)
    assert _spikes(forward.spikes) == [[0, 1, 0, 1], [0, 1, 0, 1]]
    assert [float(rate) for rate in forward.rates] == [0.5, 0.5]
    # Constant 0.25 into q2; factors 0.75*2/2 down, 0.5/2 back up, a step late. q2: 0.25, 0.5 (spike), -0.25 + 0.25 from
    # q1, 0.25; q1: 0, 0.75 (spike), -0.25, -0.25
    backward = plain_backward_phase(bound, forward.rates, _one(0.0625), time_steps_back=4, loss_scale=4.0, record=True)
    assert _spikes(backward.spikes) == [[0, 1, 0, 0], [0, 1, 0, 0]]
    assert [float(rate) for rate in backward.rates] == [0.25, 0.25]
    plain_updates(model, bound, forward.rates, backward.rates, drive.mean_inputs[0], loss_scale=4.0)
    first, second = synapses(model)
    # (1 / (r scale)) D beta a = 0.125 * D * 0.25 * a
    assert first.weight.grad is not None and first.bias is not None and second.bias is not None
    assert float(first.weight.grad) == 0.125 * 0.25 * 0.75
    assert float(first.bias.grad) == 0.125 * 0.25
    assert float(second.weight.grad) == 0.125 * 2 * 0.25 * 0.5
    assert float(second.bias.grad) == 0.125 * 2 * 0.25
    assert float(model.feedback.weight.grad) == 0.5 * 0.125 * 0.25 * 0.5  # the weight 1 is restricted to 0.5


def test_leak_by_hand() -> None:
    _, bound = _two_neurons(LIF)
    drive = bound.drive(_one(0.75), time_steps=4)
    forward = plain_forward_phase(bound, drive, time_steps=4, record=True)
    # v1: 0.75, 0.375+0.75 (spike), (1.125-2)/2+0.75 + 0.5 from v2 = 0.8125, 0.40625+0.75 (spike)
    # v2: 0, 1.5 (spike), -0.25, -0.125+1.5 (spike)
    assert _spikes(forward.spikes) == [[0, 1, 0, 1], [0, 1, 0, 1]]
    assert [float(rate) for rate in forward.rates] == [(0.25 + 1) / 1.875] * 2
    # q2: 0.375, then 0.1875+0.375 (spike), -0.4375/2+0.375 + 0.25 from q1 = 0.40625, 0.203125+0.375 (spike)
    # q1: 0, 0.75 (spike), -0.125, -0.0625+0.75 (spike)
    backward = plain_backward_phase(bound, forward.rates, _one(0.375), time_steps_back=4, loss_scale=1.0, record=True)
    assert _spikes(backward.spikes) == [[0, 1, 0, 1], [0, 1, 0, 1]]
    assert [float(rate) for rate in backward.rates] == [(0.25 + 1) / 1.875] * 2


def test_thresholds_of_a_couple_include_the_threshold_itself() -> None:
    model = chain(1.0, feedback=0.0, neuron=IF)
    rates = (_one(0.5),)
    for sign in (1.0, -1.0):
        found = plain_backward_phase(
            model.bind(1), rates, _one(0.25 * sign), time_steps_back=6, loss_scale=1.0, record=True
        )
        assert _spikes(found.spikes) == [[0, sign, 0, 0, 0, sign]]


def test_silent_and_saturated_neurons_send_nothing_and_learn_nothing() -> None:
    model, bound = _two_neurons(IF)
    assert firing_mask(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 1, 0]
    for rate in (0.0, 1.0):
        rates = (_one(0.5), _one(rate))
        found = plain_backward_phase(bound, rates, _one(0.5), time_steps_back=5, loss_scale=1.0)
        assert [float(beta) for beta in found.rates] == [0.0, 0.6]  # its own couple spikes, in vain: 3 times of 5
        plain_updates(model, bound, rates, found.rates, _one(0.75), loss_scale=1.0)
        assert all(float(p.grad.abs().sum()) == 0 for p in synapses(model)[1].parameters() if p.grad is not None)


NETWORKS = {
    "convolutions": ("6C5s-5C3s-4C3 (F6C3u)", (1, 12, 12), IF),
    "odd sides": ("4C3s-3C5s", (2, 7, 7), IF),
    "linear": ("20-15 (F20)", (1, 4, 4), IF),
    "one population": ("8C3 (F8C5)", (1, 6, 6), IF),
    "no feedback, pools": ("5C5-P2-6C3-P2-20", (1, 8, 8), IF),
    "leaky": ("6C5s-5C3s (F6C3u)", (1, 8, 8), FloatNeuron(1.0, 2.0, 0.9)),
}
SETTINGS = SpideSettings(25, 40.0)
T = 12


def _plain_pair(name: str) -> tuple[FeedbackSNN, Tensor, Tensor]:
    notation, shape, neuron = NETWORKS[name]
    settings = SPIDE | {"dropout": 0.3, "pooling": "spiking", "spectral_norm_bound": 0.5}
    model = built(notation, shape, neuron, **settings)
    for synapse in synapses(model):
        if synapse.bias is not None:
            synapse.bias.data.fill_(0.3)  # so that every population fires
    x = torch.randn(5, *shape, generator=seeded(1), dtype=torch.float64)
    return model.train(), x, torch.arange(5)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_phases_are_the_library_s_spike_by_spike(name: str) -> None:
    model, x, labels = _plain_pair(name)
    bound = model.bind(5, generator=seeded(2)).detached()
    drive = bound.drive(x, time_steps=T)
    ours = bound.simulate(drive, time_steps=T, record=True)
    plain = plain_forward_phase(bound, drive, time_steps=T, record=True)
    assert ours.spikes is not None and plain.spikes is not None
    for a, b in zip(ours.spikes, plain.spikes, strict=True):
        assert int(b.sum()) > 0
        assert torch.equal(a.to(torch.int8), b)
    _, gradient = plain_readout(model, plain.rates[-1], labels)
    back = backward_phase(bound, ours.firing_rates, gradient, settings=SETTINGS, record=True)
    plainly = plain_backward_phase(bound, plain.rates, gradient, time_steps_back=25, loss_scale=40.0, record=True)
    assert back.spikes is not None and plainly.spikes is not None
    for a, b in zip(back.spikes, plainly.spikes, strict=True):
        assert int((b > 0).sum()) > 0 and int((b < 0).sum()) > 0
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_s_gradient_is_the_library_s(name: str) -> None:
    model, x, labels = _plain_pair(name)
    found = spide_rates(model, x, time_steps=T, settings=SETTINGS, generator=seeded(2))
    loss = functional.cross_entropy(model.classify(found.rates), labels)
    loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    bound = model.bind(5, generator=seeded(2)).detached()
    drive = bound.drive(x, time_steps=T)
    rates = plain_forward_phase(bound, drive, time_steps=T).rates
    plain_loss, gradient = plain_readout(model, rates[-1], labels)
    betas = plain_backward_phase(bound, rates, gradient, time_steps_back=25, loss_scale=40.0).rates
    plain_updates(model, bound, rates, betas, drive.mean_inputs[0], loss_scale=40.0)
    ours = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert float(plain_loss) == pytest.approx(float(loss.detach()), rel=1e-14)
    assert ours.keys() == expected.keys()
    assert sum(float(g.abs().sum()) > 0 for g in ours.values()) == len(ours)
    for parameter, gradient in ours.items():  # the same spikes; sums of float64 in another order
        assert_close(gradient, expected[parameter], rtol=1e-9, atol=1e-14, msg=parameter)


def test_event_frames_drive_every_step() -> None:
    model, _, _ = _plain_pair("convolutions")
    frames = torch.rand(T, 5, 1, 12, 12, generator=seeded(3)).gt(0.7).double()
    bound = model.bind(5, generator=seeded(2)).detached()
    drive = bound.drive(frames, time_steps=T)
    ours = bound.simulate(drive, time_steps=T, record=True)
    plain = plain_forward_phase(bound, drive, time_steps=T, record=True)
    assert ours.spikes is not None and plain.spikes is not None
    assert all(torch.equal(a.to(torch.int8), b) for a, b in zip(ours.spikes, plain.spikes, strict=True))


@pytest.mark.parametrize("part", ["6C3", "6C5s", "6C3u", "7", "P3"])
@pytest.mark.parametrize("side", [6, 9])
def test_backwards_is_the_adjoint_of_forwards(part: str, side: int) -> None:
    layer = LayerSpec("conv", 6, 3, 2, True) if part == "6C3u" else parse_spec(f"4C3-{part}").layers[1]
    shape = (4, side, side)
    kernel = layer.kernel
    sizes = {"linear": (7, 4 * side**2), "pool": (4, 4, 3, 3), "conv": (6, 4, kernel, kernel)}
    weight = torch.randn(sizes[layer.kind] if not layer.transposed else (4, 6, 3, 3), generator=seeded())
    connection = PlainConnection(layer, weight, None, None, shape)
    x = torch.randn(2, *shape, generator=seeded(1))
    y = torch.randn(2, *layer.output_shape(shape), generator=seeded(2))
    forwards, backwards = (connection.forwards(x) * y).sum(), (connection.backwards(y) * x).sum()
    assert_close(forwards, backwards, rtol=1e-4, atol=1e-4)  # float32, a thousand terms


def test_connections_are_laid_out_without_a_change_of_values() -> None:
    model, x, _ = _plain_pair("convolutions")
    bound = model.bind(5, generator=seeded(2)).detached()
    feedforward, feedback = plain_connections(bound)
    for connection, synapse in zip((*feedforward, feedback), bound.synapses, strict=True):
        assert connection.weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(connection.weight, synapse.weight)
    assert torch.equal(
        feedforward[0].forwards(x),
        apply_layer(feedforward[0].layer, bound.feedforward[0].weight, bound.feedforward[0].bias, x),
    )
