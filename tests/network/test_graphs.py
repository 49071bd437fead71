"""Any graph of populations: its spikes are those of the equations, its map and gradients those of its equilibrium."""

import copy
import functools
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from firing_networks import whole_numbers
from fsnn_lava.config import ConnectionConfig, NetworkConfig, PopulationConfig
from fsnn_lava.network.dense_runs.in_floats import dense_run
from fsnn_lava.network.dense_runs.in_int8 import int8_run
from fsnn_lava.network.dense_runs.int8_products import int8_fault
from fsnn_lava.network.feedback_network import BoundNetwork, Drive, FeedbackSNN
from fsnn_lava.network.neuron import leak_weights
from fsnn_lava.training.gradients import spide
from fsnn_lava.training.gradients.bptt import bptt_rates
from fsnn_lava.training.gradients.ide import AdjointSettings, implicit_rates, with_implicit_gradient
from fsnn_lava.training.gradients.spide import SpideSettings, backward_phase, local_updates
from fsnn_lava.training.gradients.spide_dense import dense_couples
from random_graphs import inputs_of, random_graph, random_graph_network

GRAPHS = range(300)
STEPS = 7
BATCH = 2
EXACT = AdjointSettings(tolerance=1e-13, max_steps=500)
TIMINGS = ("sequential", "hardware")


def bound_case(seed: int, **form: object) -> tuple[FeedbackSNN, BoundNetwork, Tensor]:
    """A network in one of both timings, bound with dropout masks in every second case, and its input."""
    model = random_graph_network(seed, training=bool(seed % 2), **form)
    model.loop_delays = model.topology.loop_delays(TIMINGS[seed // 2 % 2])
    x = inputs_of(model, batch=BATCH, steps=STEPS if seed % 3 == 0 else None)
    return model, model.bind_to(x, generator=torch.Generator().manual_seed(seed)).detached(), x


def plain_spikes(bound: BoundNetwork, drive: Drive) -> list[Tensor]:
    """(T, B, *N) of every population, from the equations of a neuron and what each connection makes of spikes."""
    spikes: list[list[Tensor]] = [[] for _ in bound.neurons]
    potentials = [torch.zeros(BATCH, *shape, dtype=torch.float64) for shape in bound.shapes]
    for t in range(STEPS):
        for p, neuron in enumerate(bound.neurons):
            current = torch.zeros_like(potentials[p])
            given = drive.at(t)[p]
            current = current if given is None else current + given
            for synapse, delay in zip(bound.feedback, bound.loop_delays, strict=True):
                if synapse.target == p and t >= delay:
                    current = current + synapse.current(spikes[synapse.source][t - delay])
            for synapse in bound.feedforward:
                if synapse.target == p and synapse.source >= 0:
                    current = current + synapse.current(spikes[synapse.source][t])
            before = spikes[p][-1] if t else torch.zeros_like(current)
            kept = potentials[p] - neuron.reset_amount * before
            if neuron.reset == "zero":
                kept = potentials[p] * (1 - before)
            potentials[p] = neuron.leak * kept + current
            spikes[p].append((potentials[p] >= neuron.v_threshold).double())
    return [torch.stack(each) for each in spikes]


def test_the_random_graphs_are_of_every_kind() -> None:
    graphs = [random_graph(seed)[0] for seed in GRAPHS]
    models = [random_graph_network(seed) for seed in GRAPHS]
    topologies = [model.topology for model in models]
    assert {len(t.names) for t in topologies} == {1, 2, 3, 4, 5}
    assert {len(t.feedback) for t in topologies} >= set(range(6))
    assert any(c.source == c.target for t in topologies for c in t.feedback)
    assert any(c.target - c.source > 1 for t in topologies for c in t.forward if c.source >= 0)
    assert any(sum(c.target == 2 for c in t.forward) > 2 for t in topologies if len(t.names) > 2)
    assert any(sum(c.source < 0 for c in t.forward) > 1 for t in topologies)
    assert any(t.names[c.target] != t.names[-1] and c.source < 0 for t in topologies for c in t.forward)
    assert {len(bound.state) for bound in (model.bind(1) for model in models)} >= {1, 2, 3}
    forward, back = (
        {(c.layer.kind, c.layer.stride, c.layer.transposed) for t in topologies for c in connections(t)}
        for connections in (attrgetter("forward"), attrgetter("feedback"))
    )
    assert forward == back | {("pool", 2, False), ("conv", 3, False)}
    assert back == {("linear", 1, False), ("conv", 1, False), ("conv", 2, False), ("conv", 2, True)}
    taps = [(c.taps, c.layer.kernel % 2) for t in topologies for c in t.connections if c.layer.border >= 0]
    assert {part is None or part.groups > 1 for part, _ in taps} == {False, True}
    assert any(part is not None and part.kernel[0] != part.kernel[1] for part, _ in taps)
    assert any(part is not None and max(part.dilation) > 1 for part, _ in taps)
    assert {odd for _, odd in taps} == {0, 1}
    assert {len({neuron.leak for neuron in model.neurons}) for model in models} >= {1, 2}
    assert {graph.batch_norm for graph in graphs} == {False, True}
    runs = [model.eval()(inputs_of(model, batch=BATCH, steps=None), STEPS) for model in models]
    assert all(bool(torch.isfinite(logits).all()) for logits in runs)


def test_spikes_are_those_of_the_equations() -> None:
    """At every step and population, in both timings, with dropout masks and events; on events and densely."""
    shares = []
    for seed in GRAPHS:
        _, bound, x = bound_case(seed)
        drive = bound.drive(x, time_steps=STEPS)
        found = bound.simulate(drive, time_steps=STEPS, record=True)
        form = {"neurons": bound.neurons, "loop_delays": bound.loop_delays, "time_steps": STEPS, "record": True}
        dense = dense_run(bound.feedforward, bound.feedback, input_current=drive.at, **form)
        expected = plain_spikes(bound, drive)
        for p, plain in enumerate(expected):
            leak = bound.neurons[p].leak
            assert np.array_equal(found.spikes[p].double().numpy(), plain.numpy()), seed
            assert np.array_equal(dense.spikes[p].double().numpy(), plain.numpy()), seed
            weights = torch.tensor([leak ** (STEPS - 1 - t) for t in range(STEPS)], dtype=torch.float64)
            # Sums of seven terms in another order.
            assert_close(found.firing_rates[p], torch.tensordot(weights, plain, 1) / weights.sum())
            assert torch.equal(found.mean_spikes[p], plain.sum(0) / STEPS)
            shares.append(float(plain.mean()))
        for synapse, delay, ours, other in zip(
            bound.feedback, bound.loop_delays, found.returned, dense.returned, strict=True
        ):
            leak, kept = bound.neurons[synapse.source].leak, max(0, STEPS - delay)
            weights = torch.tensor([leak ** (kept - 1 - t) for t in range(kept)], dtype=torch.float64)
            arrived = torch.tensordot(weights, expected[synapse.source][:kept], 1) / leak_weights(STEPS, leak)
            assert_close(ours, arrived)
            assert_close(other / leak_weights(STEPS, leak), arrived)
    assert np.mean([0.02 < share < 0.98 for share in shares]) > 0.75
    assert 0.1 < np.mean(shares) < 0.7


@pytest.mark.skipif(bool(int8_fault()), reason=f"no products in 8 bits: {int8_fault()}")
def test_spikes_in_int8_are_those_of_the_dense_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights that are whole numbers of 24 bits; potentials in float32 against float64."""
    monkeypatch.setattr("fsnn_lava.network.dense_runs.in_floats.folded", whole_numbers)
    differing = compared = 0
    for seed in range(100):
        _, bound, x = bound_case(seed, image=True, dtype=torch.float32)
        drive = bound.drive(x, time_steps=STEPS)
        form = {"neurons": bound.neurons, "loop_delays": bound.loop_delays, "time_steps": STEPS, "record": True}
        found = int8_run(
            bound.feedforward, bound.feedback, input_current=drive.at, constant=drive.frames is None, **form
        )
        exact = dense_run(
            bound.feedforward,
            bound.feedback,
            input_current=lambda t, drive=drive: [m if m is None else m.double() for m in drive.at(t)],
            **form,
        )
        differing += sum(int((a != b).sum()) for a, b in zip(found.spikes, exact.spikes, strict=True))
        compared += sum(spikes.numel() for spikes in exact.spikes)
    assert compared > 50_000
    assert differing == 0  # no potential meets its threshold so closely that float32 decides


def settled(seed: int) -> tuple[FeedbackSNN, Tensor, Tensor]:
    """A network in evaluation mode, its input, and its state at rest."""
    model = random_graph_network(seed)
    x = inputs_of(model, batch=BATCH, steps=STEPS if seed % 3 == 0 else None)
    bound = model.bind_to(x)
    drive = bound.drive(x, time_steps=STEPS)
    start = bound.join([torch.zeros(BATCH, *shape, dtype=torch.float64) for shape in bound.shapes])
    return model, x, bound.equilibrium(drive.mean, start=start, tolerance=1e-15, max_steps=2000).value


def loss_at_rest(model: FeedbackSNN, x: Tensor, start: Tensor, weighting: Tensor) -> float:
    """Weighted rates of the last population at the equilibrium, which is found again from where it was."""
    with torch.no_grad():
        bound = model.bind_to(x)
        drive = bound.drive(x, time_steps=STEPS)
        found = bound.equilibrium(drive.mean, start=start, tolerance=1e-15, max_steps=2000)
        return float((bound.rates_around(bound.split(found.value), drive.mean)[-1] * weighting).sum())


def test_implicit_gradient_is_that_of_finite_differences() -> None:
    """Of the equilibrium, in one direction of all parameters; a kink of the clamp within the step shows as more."""
    step, errors, sizes = 1e-6, [], []
    for seed in GRAPHS:
        model, x, state = settled(seed)
        bound = model.bind_to(x)
        drive = bound.drive(x, time_steps=STEPS)
        with torch.no_grad():
            at_rest = bound.rates_around(bound.split(state), drive.mean)
        generator = torch.Generator().manual_seed(seed)
        weighting = torch.randn(at_rest[-1].shape, generator=generator, dtype=torch.float64)
        rates = with_implicit_gradient(bound, drive, at_rest, settings=EXACT, found=[])
        parameters = [p for name, p in model.named_parameters() if not name.startswith("readout")]
        if not rates.requires_grad:  # of pools alone
            continue
        gradients = torch.autograd.grad((rates * weighting).sum(), parameters, allow_unused=True)
        directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
        values = []
        for sign in (1, -2, 1):
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.add_(direction, alpha=sign * step)
            values.append(loss_at_rest(model, x, state, weighting))
        errors.append(abs((values[0] - values[1]) / (2 * step) - expected) / max(1.0, abs(expected)))
        sizes.append(abs(expected))
    assert np.mean([size > 1e-3 for size in sizes]) > 0.9
    assert max(errors) < 1e-5


def test_rates_settle_at_the_equilibrium() -> None:
    """In either timing: neither delays nor thresholds move it, and IF rates come to it as one over T."""
    distances: dict[int, list[float]] = {100: [], 1000: []}
    for seed in range(100):
        model, x, state = settled(seed)
        if x.dim() > 1 + len(model.input_shape) or any(neuron.leak < 1 for neuron in model.neurons):
            continue
        bound = model.bind_to(x)
        drive = bound.drive(x, time_steps=STEPS)
        with torch.no_grad():
            at_rest = bound.rates_around(bound.split(state), drive.mean)
        for timing in TIMINGS:
            for steps, found in distances.items():
                run = bound.simulate(drive, time_steps=steps, loop_delays=model.topology.loop_delays(timing))
                pairs = zip(run.firing_rates, at_rest, strict=True)
                found.append(max(float((a - b).abs().max()) for a, b in pairs))
    assert len(distances[100]) > 20
    assert np.median(distances[1000]) < 0.2 * np.median(distances[100])
    assert np.max(distances[1000]) < 0.05


def test_bptt_runs_the_same_network() -> None:
    for seed in range(60):
        model, _, x = bound_case(seed, image=True)
        # Of a copy: each call moves the power iteration that restricts the feedbacks.
        expected = copy.deepcopy(model).bind_to(x, generator=torch.Generator().manual_seed(seed)).detached()
        run = expected.simulate(expected.drive(x, time_steps=STEPS), time_steps=STEPS)
        found = bptt_rates(model, x, time_steps=STEPS, generator=torch.Generator().manual_seed(seed))
        for ours, theirs in zip(found.simulation.mean_spikes, run.mean_spikes, strict=True):
            assert torch.equal(ours, theirs)
        for ours, theirs in zip(found.simulation.returned, run.returned, strict=True):
            assert_close(ours, theirs)
        found.rates.square().sum().backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_a_population_may_reset_to_zero_beside_others_that_subtract() -> None:
    """On events, densely and in the graph of BPTT."""
    config, shape = random_graph(33)
    own = (PopulationConfig("b", 0.6, 0.0, 0.9, reset="zero"),)
    model = FeedbackSNN(replace(config, populations=own), shape, classes=3, seed=0).double().eval()
    with torch.no_grad():
        for synapse in model.feedforward:
            if synapse.bias is not None:
                synapse.bias.add_(0.3)
    assert [neuron.reset for neuron in model.neurons].count("zero") == 1 < len(model.neurons)
    x = inputs_of(model, batch=BATCH, steps=None)
    bound = model.bind_to(x).detached()
    drive = bound.drive(x, time_steps=STEPS)
    form = {"neurons": bound.neurons, "loop_delays": bound.loop_delays, "time_steps": STEPS, "record": True}
    found = bound.simulate(drive, time_steps=STEPS, record=True)
    dense = dense_run(bound.feedforward, bound.feedback, input_current=drive.at, **form)
    through = bptt_rates(model, x, time_steps=STEPS)
    subtracting = replace(bound, neurons=tuple(replace(n, reset="subtract") for n in bound.neurons))
    for p, plain in enumerate(plain_spikes(bound, drive)):
        assert np.array_equal(found.spikes[p].double().numpy(), plain.numpy())
        assert np.array_equal(dense.spikes[p].double().numpy(), plain.numpy())
        assert torch.equal(through.simulation.mean_spikes[p], plain.sum(0) / STEPS)
    others = plain_spikes(subtracting, drive)
    assert any(not torch.equal(a.double(), b) for a, b in zip(found.spikes, others, strict=True)), (
        "the reset must matter"
    )


def test_window_gradient_is_that_of_its_steps() -> None:
    """Where rates of each step are taken for spikes, and changes go round over every way that T steps leave time for.

    The restatement is autograd through all steps of that linear network, each step at the map's slopes; a feedback's
    own weights act through the mean of what came back.
    """
    seeds = [seed for seed in range(60) if len(random_graph_network(seed).feedbacks) > 1][:15]
    assert sum(map(assert_window_gradient, seeds)) > 60


def assert_window_gradient(seed: int) -> int:
    """Return how many parameters had a gradient to compare."""
    model = random_graph_network(seed)
    model.loop_delays = model.topology.loop_delays("hardware")
    leak = model.neurons[-1].leak
    x, steps = inputs_of(model, batch=BATCH, steps=None), 6
    result = implicit_rates(model, x, time_steps=steps, settings=AdjointSettings(of="window", tolerance=0.0))
    weighting = torch.randn(result.rates.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    named = {n: p for n, p in model.named_parameters() if not n.startswith("readout")}
    ours = torch.autograd.grad((result.rates * weighting).sum(), list(named.values()), allow_unused=True)

    bound, frozen = model.bind_to(x), model.bind_to(x).detached()
    drive = bound.drive(x, time_steps=steps)
    returned = result.simulation.returned
    constant = [s.current(mean.detach()) for s, mean in zip(frozen.feedback, returned, strict=True)]
    with torch.no_grad():
        at = frozen.rates_of(constant, drive.mean)
    passing = [((rate > 0) & (rate < 1)).double() / n.reset_amount for rate, n in zip(at, bound.neurons, strict=True)]
    history: list[list[Tensor]] = []
    total = torch.zeros((), dtype=torch.float64)
    for t in range(steps):
        sent: list[Tensor] = []
        for p, slope in enumerate(passing):
            change = torch.zeros_like(at[p])
            given = drive.mean[p]
            change = change if given is None else change + given - given.detach()
            for s, own, delay, mean in zip(frozen.feedback, bound.feedback, bound.loop_delays, returned, strict=True):
                if s.target == p and t >= delay:
                    share = leak_weights(steps, leak) / leak_weights(steps - delay, leak)
                    weights = own.current(mean.detach())
                    late = history[t - delay][s.source]
                    change = change + share * (weights - weights.detach()) + s.current(late - at[s.source])
                    change = change - (s.current(torch.zeros_like(late)))
            for s, own in zip(frozen.feedforward, bound.feedforward, strict=True):
                if s.target == p and s.source >= 0:
                    below = sent[s.source]
                    change = change + s.current(below) - s.current(at[s.source])
                    weights = own.current(at[s.source])
                    change = change + weights - weights.detach()
            sent.append(at[p] + slope * change)
        history.append(sent)
        total = total + leak ** (steps - 1 - t) * (sent[-1] * weighting).sum() / leak_weights(steps, leak)
    theirs = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    compared = 0
    for (name, parameter), found, expected in zip(named.items(), ours, theirs, strict=True):
        found, expected = (torch.zeros_like(parameter) if g is None else g for g in (found, expected))
        # Sums of some thousand terms.
        assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
        compared += bool(expected.any())
    return compared


@functools.cache
def spide_case(seed: int) -> tuple[FeedbackSNN, BoundNetwork, Drive, tuple[Tensor, ...], Tensor]:
    """A network without batch norm at rest, and a gradient of its last population's rates."""
    model = random_graph_network(seed, spide=True)
    x = inputs_of(model, batch=BATCH, steps=None)
    bound = model.bind_to(x)
    drive = bound.drive(x, time_steps=STEPS)
    start = bound.join([torch.zeros(BATCH, *shape, dtype=torch.float64) for shape in bound.shapes])
    state = bound.equilibrium(drive.mean, start=start, tolerance=1e-14, max_steps=2000)
    with torch.no_grad():
        rates = bound.rates_around(bound.split(state.value), drive.mean)
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(rates[-1].shape, generator=generator, dtype=torch.float64)
    return model, bound, drive, rates, 0.05 * gradient


WITHOUT_LEAK = [s for s in range(60) if all(n.leak == 1 for n in random_graph_network(s, spide=True).neurons)][:12]


@pytest.mark.parametrize("seed", WITHOUT_LEAK)
def test_spikes_running_back_tend_to_the_implicit_gradient(seed: int) -> None:
    """SPIDE's second phase through any graph: as 1 / T_back, which couples that leak would not."""
    _, bound, drive, rates, gradient = spide_case(seed)
    learned = [t for s in bound.synapses if s.synapse.layer.kind != "pool" for t in (s.weight, s.bias) if t is not None]
    implicit = with_implicit_gradient(bound, drive, rates, settings=EXACT, found=[])
    exact = torch.autograd.grad((implicit * gradient).sum(), learned, allow_unused=True)
    size = torch.cat([g.flatten() for g in exact if g is not None]).norm()
    errors = []
    for steps in (250, 4000):
        settings = SpideSettings(steps, 1.0)
        phase = backward_phase(bound.detached(), rates, gradient, settings=settings)
        found = local_updates(bound.detached(), rates, phase, mean_inputs=drive.mean_inputs, settings=settings)
        differences = [(ours if g is None else ours - g).flatten() for ours, g in zip(found, exact, strict=True)]
        errors.append(float(torch.cat(differences).norm() / size))
    assert errors[1] < 0.05
    assert errors[1] < 0.3 * errors[0]


def test_spikes_running_back_are_the_same_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    fired = 0
    for seed in range(80):
        _, bound, _, rates, gradient = spide_case(seed)
        by_events = backward_phase(bound.detached(), rates, gradient, settings=SpideSettings(60, 1.0), record=True)
        with monkeypatch.context() as patched:
            patched.setattr(spide, "couple_run", dense_couples)
            densely = backward_phase(bound.detached(), rates, gradient, settings=SpideSettings(60, 1.0), record=True)
        for ours, theirs in zip(by_events.spikes, densely.spikes, strict=True):
            assert np.array_equal(ours.numpy(), theirs.numpy()), seed
            fired += int(ours.abs().sum())
    assert fired > 10_000


def test_parameters_are_counted_as_they_are() -> None:
    """The papers count a bias on every feedback that is not transposed, and none on a transposed convolution."""
    compared = 0
    for seed in GRAPHS:
        model = random_graph_network(seed, spide=True)
        counted = sum(p.numel() for n, p in model.named_parameters() if not n.endswith(("batch_norm.weight", "gain")))
        for synapse in model.synapses:
            channels = synapse.shape[0]
            if synapse.bias is not None and synapse.layer.transposed:
                counted -= channels
            if synapse.bias is None and synapse.layer.kind != "pool" and not synapse.layer.transposed:
                counted += channels
        assert model.topology.parameters(3) == counted, seed
        compared += any(synapse.places is not None for synapse in model.synapses)
    assert compared > 50, "some of taps alone"


@pytest.mark.parametrize("norm", ["reshaped", "operator", "frobenius"])
def test_feedbacks_are_scaled_back_in_what_they_do(norm: str) -> None:
    """Whatever restricts them, and where taps alone have weights; zeros beside these stay."""
    connections = (
        ConnectionConfig("input", "a", "4C3"),
        ConnectionConfig("a", "a", "4C3", kernel=(3, 5)),
        ConnectionConfig("a", "a", "4C3", groups=2),
    )
    config = NetworkConfig("", connections, spectral_norm=norm, spectral_norm_bound=0.5)
    model = FeedbackSNN(config, (2, 5, 5), seed=1).double().eval()
    for feedback in model.feedbacks:
        before = feedback.effective_weight().detach().clone()
        feedback.scale_back(0.25)
        after = feedback.effective_weight().detach()
        assert_close(after, 0.25 * before, rtol=1e-12, atol=0)
        assert float((before == 0).double().mean()) in (0.4, 0.5), "rows beside three taps, the other group"
        assert bool((after[before == 0] == 0).all())


@pytest.mark.parametrize(
    ("form", "theirs"),
    [
        ({"kernel": (3, 5)}, {"padding": (1, 2)}),
        ({"kernel": (3, 5), "stride": 2}, {"padding": (1, 2), "stride": 2}),
        ({"kernel": (4, 2), "padding": (2, 1)}, {"padding": (2, 1)}),
        ({"kernel": (2,), "padding": (0,), "stride": 3}, {"stride": 3}),
        ({"dilation": (2,)}, {"padding": 2, "dilation": 2}),
        ({"kernel": (3, 1), "dilation": (1, 2)}, {"padding": (1, 0), "dilation": (1, 2)}),
        ({"groups": 2}, {"padding": 1, "groups": 2}),
        ({"kernel": (1, 3), "dilation": (3, 2), "groups": 4}, {"padding": (0, 2), "dilation": (3, 2), "groups": 4}),
    ],
)
def test_convolutions_of_any_form_are_torch_s_own(form: dict[str, Any], theirs: dict[str, Any]) -> None:
    connections = (ConnectionConfig("input", "a", "8C3", **form),)
    model = FeedbackSNN(NetworkConfig("", connections, batch_norm=False, dropout=0.0), (4, 7, 9), seed=1).double()
    synapse, x = model.synapses[0], inputs_of(model, batch=3, steps=None)
    expected = functional.conv2d(x, synapse.weight, synapse.bias, **theirs)
    assert_close(synapse.bind(3, generator=None).current(x), expected, rtol=1e-12, atol=1e-14)
    assert model.population_shapes == (tuple(expected.shape[1:]),)
