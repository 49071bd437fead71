"""Operations of training and their energy: counted by hand on networks of a few neurons, whose every spike is known."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from benchmarks.spide import energy as training_energy
from benchmarks.spide.energy import Count, EnergyCosts, Part, as_kept, energy_parts, totals
from benchmarks.spide.operations import ConnectionWork, Structure, TrainingWork, _name, measure_work
from benchmarks.spide.plain_training import PlainConnection
from feedback_networks import chain, seeded, synapses
from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.hardware.geometry import DENSE, Convolution, Geometry, TransposedConvolution
from fsnn_lava.hardware.linear_maps import LinearMap
from fsnn_lava.network.feedback_network import FeedbackSNN

NEURON = FloatNeuron(1.0, 2.0, 1.0)

# ---- synapses -----------------------------------------------------------------------------------------------

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


# ---- counts -------------------------------------------------------------------------------------------------

NETWORK = NetworkConfig("1-1 (F1)", v_threshold=1.0, reset_amount=2.0, time_steps=4, batch_norm=False, dropout=0.0)
CONFIG = TrainConfig(
    network=NETWORK,
    training=TrainingConfig("spide", time_steps_back=4, loss_scale=4.0, surrogate_width=1.0),
)


def test_names_say_where_connections_lead() -> None:
    assert [_name(n, 3) for n in range(4)] == [
        *("input", "population1 to population2", "population2 to population3", "feedback"),
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
    wide = dataclasses.replace(CONFIG.training, surrogate_width=3.0)  # a potential of 0 is within it
    config = dataclasses.replace(CONFIG, training=wide)
    model = chain(1.0, 1.5, feedback=0.5, neuron=NEURON).train()
    for synapse in (*model.feedforward, model.feedback):
        synapse.dropout = 0.999
    with torch.no_grad():
        model.feedforward[0].bias.fill_(0.75)
    work = measure_work(model, torch.tensor([[0.75]], dtype=torch.float64), torch.tensor([0]), config)
    assert all(c.backward == c.updated == c.passing == c.passing_bptt == 0 for c in work.connections)


def test_spikes_count_at_the_synapses_of_their_own_end() -> None:
    model = FeedbackSNN(
        NetworkConfig("3-2 (F3)", **dataclasses.asdict(NEURON), batch_norm=False, dropout=0.0), (4,), classes=2, seed=2
    ).double()
    for synapse in synapses(model):
        synapse.bias.data.fill_(0.9)
    x = torch.randn(6, 4, generator=seeded(), dtype=torch.float64)
    settings = dataclasses.replace(CONFIG.training, loss_scale=100.0, time_steps_back=30)
    work = measure_work(model.train(), x, torch.arange(6) % 2, dataclasses.replace(CONFIG, training=settings))
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


# ---- energy -------------------------------------------------------------------------------------------------
def _connection(name: str, **counts: float) -> ConnectionWork:
    zeros = {f.name: 0 for f in dataclasses.fields(ConnectionWork)}
    return ConnectionWork(**(zeros | {"name": name, "learned": True, "synapses": 100} | counts))  # type: ignore[arg-type]


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
    leaky = _by_name(dataclasses.replace(WORK, leak=0.5))
    assert leaky["SPIDE", "couples"].sparse == Count(additions=200, multiplications=100)
    given = dataclasses.replace(WORK.connections[0], forward=17.0)
    events = dataclasses.replace(WORK, event_input=True, connections=(given, *WORK.connections[1:]))
    found = _by_name(events)
    assert found["IDE", "input current"] == Part("IDE", "input current", Count(additions=17), Count(products=1000))
    assert found["BPTT", "weight gradients"].sparse == Count(additions=11 + 25)
    assert found["BPTT", "weight gradients"].dense == Count(products=1000 + 1900)
    pool = dataclasses.replace(WORK.connections[1], learned=False)
    fixed = _by_name(dataclasses.replace(WORK, connections=(WORK.connections[0], pool, WORK.connections[2])))
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
