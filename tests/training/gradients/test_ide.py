"""Implicit gradient = autograd through the iterated map = finite differences (float64).

With running statistics everywhere (and dropout masks drawn) the equilibrium map is one function of parameters and
rate. There the implicit gradient, autograd through the iterated map and finite differences must agree for every
parameter.

In training mode the published gradient is not that of one function: f in df/dtheta normalises with the statistics of
the batch, while J = df/da takes the running ones, in which batch norm is linear and samples do not mix. There the
reference builds this very formula: J as a dense matrix, the linear system by elimination, and df/dtheta by autograd and
by finite differences, at the measured rates. (With a single population the two agree, as its batch norm does not see
the rate: the tiny networks below.)

The power iteration's vectors stand still in all of it, so that the effective feedback is one function of its weight.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.nn import functional
from torch.testing import assert_close

from feedback_networks import built, random_network, seeded, synapses
from fsnn_lava.config import TrainingConfig
from fsnn_lava.config.notation import parse_spec
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import BoundNetwork, Currents, Drive, FeedbackSNN
from fsnn_lava.network.fixed_point import FALLBACKS, FixedPoint
from fsnn_lava.network.layers import Synapse
from fsnn_lava.network.neuron import leak_weights
from fsnn_lava.training.gradients import ide
from fsnn_lava.training.gradients.ide import (
    UNCONVERGED,
    AdjointSettings,
    implicit_rates,
    with_implicit_gradient,
    with_window_gradient,
)

CASES = [
    pytest.param("5 (F5)", (1, 2, 3), False, 1.0, id="dense"),
    pytest.param("5 (F5)", (1, 2, 3), True, 0.9, id="dense, batch norm, LIF"),
    pytest.param("2C3s (F2C3)", (1, 4, 4), False, 1.0, id="conv"),
    pytest.param("2C3s (F2C3)", (1, 4, 4), True, 0.9, id="conv, batch norm, LIF"),
    pytest.param("4-3-4 (F4)", (1, 2, 3), False, 1.0, id="three populations"),
    pytest.param("2C3s-3C3-2C3s (F2C3u)", (1, 8, 8), False, 0.9, id="three populations, transposed feedback"),
]


def network(notation: str, shape: tuple[int, ...], batch_norm: bool, leak: float) -> tuple[FeedbackSNN, Tensor, Tensor]:
    """A float64 network whose rates lie inside (0, 1) mostly, its input and a weighting that makes a scalar loss."""
    neuron = FloatNeuron(v_threshold=1.0, reset_amount=1.0, leak=leak)
    spec = parse_spec(notation)
    settings = {"batch_norm": batch_norm, "dropout": 0.3, "spectral_norm_bound": 0.8}
    model = built(notation, shape, neuron, classes=3, seed=1, **settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for synapse in model.feedforward:
            synapse.weight.mul_(0.5)
            synapse.bias.add_(0.4)
            if synapse.batch_norm is not None:
                synapse.batch_norm.weight.fill_(0.2)
                synapse.batch_norm.bias.fill_(0.5)
    x = torch.rand(4, *shape, generator=generator, dtype=torch.float64)
    weighting = torch.randn(4, *spec.populations(shape)[-1].shape, generator=generator, dtype=torch.float64)
    return model, x, weighting


def iterated_loss(model: FeedbackSNN, x: Tensor, weighting: Tensor, steps: int = 200) -> Tensor:
    """Loss at the equilibrium that is reached by iterating the map, differentiable through every iteration."""
    model.train()
    bound = frozen_bind(model, len(x))
    drive = bound.drive(x, time_steps=1)
    a = torch.zeros_like(weighting)
    for _ in range(steps):
        a = bound.equilibrium_map(a, drive.mean)
    return (a * weighting).sum()


def frozen_bind(model: FeedbackSNN, batch: int) -> BoundNetwork:
    """Bind with the same masks in every call; the power iteration stands still, so that the loss is one function."""
    if model.feedback is not None and model.feedback.restriction is not None:
        model.feedback.restriction.eval()
    return model.bind(batch, generator=torch.Generator().manual_seed(7))


def at_rest(around: Sequence[Tensor], last: Tensor) -> list[Tensor]:
    """Rates of all populations, that of the last one as it was found."""
    return [*(rate.detach() for rate in around[:-1]), last]


def gradients(loss: Tensor, model: FeedbackSNN) -> dict[str, Tensor]:
    parameters = {n: p for n, p in model.named_parameters() if not n.startswith("readout")}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: g for n, g in zip(parameters, found, strict=True) if g is not None}


@pytest.mark.parametrize("solver", ["fixed_point", "anderson", "broyden"])
@pytest.mark.parametrize(("notation", "shape", "batch_norm", "leak"), CASES)
def test_implicit_gradient_is_that_of_the_iterated_map(
    notation: str, shape: tuple[int, ...], batch_norm: bool, leak: float, solver: str
) -> None:
    model, x, weighting = network(notation, shape, batch_norm, leak)
    through_loop = gradients(iterated_loss(model, x, weighting), model)

    bound = frozen_bind(model, len(x))
    drive = bound.drive(x, time_steps=1)
    a = bound.equilibrium(drive.mean, start=torch.zeros_like(weighting), tolerance=1e-15, max_steps=400).value
    around = bound.rates_around(bound.split(a), drive.mean)
    assert 0.2 < ((a > 0) & (a < 1)).double().mean() < 1.0 + 1e-9, "the case must have unsaturated rates"
    found: list[FixedPoint] = []
    settings = AdjointSettings(solver, tolerance=1e-13, max_steps=300)
    rates = with_implicit_gradient(bound, drive, at_rest(around, a), settings=settings, found=found)
    implicit = gradients((rates * weighting).sum(), model)

    assert found[0].converged
    assert implicit.keys() == through_loop.keys()
    assert any(g.abs().max() > 1e-3 for g in implicit.values())
    for name, gradient in implicit.items():
        # 200 iterations of a map that contracts by at least 0.9 leave an error of 1e-9.
        assert_close(gradient, through_loop[name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("notation", "shape", "batch_norm", "leak"), CASES)
def test_iterated_map_gradient_is_that_of_finite_differences(
    notation: str, shape: tuple[int, ...], batch_norm: bool, leak: float
) -> None:
    model, x, weighting = network(notation, shape, batch_norm, leak)
    analytic = gradients(iterated_loss(model, x, weighting), model)
    generator = torch.Generator().manual_seed(3)
    step = 1e-6
    for name, gradient in analytic.items():
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        parameter = dict(model.named_parameters())[name]
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
            above = iterated_loss(model, x, weighting)
            parameter.sub_(direction, alpha=2 * step)
            below = iterated_loss(model, x, weighting)
            parameter.add_(direction, alpha=step)
        # Central differences: error step**2 plus rounding 1e-16 / step.
        assert_close((above - below) / (2 * step), (gradient * direction).sum(), rtol=1e-5, atol=1e-7)


def test_default_settings_keep_the_gradient_within_one_percent() -> None:
    model, x, weighting = network("5 (F5)", (1, 2, 3), True, 1.0)
    exact, default = (
        torch.cat([g.flatten() for g in rate_gradients(model, x, weighting, settings).values()])
        for settings in (AdjointSettings("broyden", tolerance=1e-13, max_steps=300), AdjointSettings())
    )
    error = (default - exact).norm() / exact.norm()
    assert 0 < error < 1e-2


def test_default_settings_are_those_of_a_configuration() -> None:
    default, config = AdjointSettings(), TrainingConfig()
    assert default.solver == config.adjoint_solver
    assert (default.tolerance, default.max_steps) == (config.adjoint_tolerance, config.adjoint_max_steps)


def rate_gradients(model: FeedbackSNN, x: Tensor, weighting: Tensor, settings: AdjointSettings) -> dict[str, Tensor]:
    model.train()
    bound = frozen_bind(model, len(x))
    drive = bound.drive(x, time_steps=30)
    measured = bound.detached().simulate(drive, time_steps=30).firing_rates
    rates = with_implicit_gradient(bound, drive, measured, settings=settings, found=[])
    return gradients((rates * weighting).sum(), model)


def test_value_is_the_measured_rate_and_memory_holds_no_time() -> None:
    model, x, _ = network("5 (F5)", (1, 2, 3), True, 1.0)
    generator = torch.Generator().manual_seed(0)
    result = implicit_rates(model, x, time_steps=30, settings=AdjointSettings(), generator=generator)
    assert torch.equal(result.rates, result.simulation.firing_rates[-1])
    assert torch.equal((result.rates * 30).round(), result.rates * 30), "measured rates are multiples of 1/T"
    nodes = graph_size(result.rates)
    longer = implicit_rates(model, x, time_steps=300, settings=AdjointSettings(), generator=generator)
    assert graph_size(longer.rates) == nodes, "the graph must not grow with T"


def graph_size(tensor: Tensor) -> int:
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return len(seen)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_network_without_feedback_needs_no_solve(batch_norm: bool) -> None:
    model, x, _ = network("4-3", (1, 2, 3), batch_norm, 1.0)
    result = implicit_rates(model, x, time_steps=10, settings=AdjointSettings(), generator=torch.Generator())
    result.rates.sum().backward()
    assert result.passes == []
    first = model.feedforward[0]
    assert isinstance(first, Synapse)
    assert first.weight.grad is not None


@pytest.mark.parametrize("solver", FALLBACKS)
def test_sample_whose_loop_does_not_contract_changes_no_other(solver: str) -> None:
    """The first sample's neurons are all between silent and saturated, of each other one two of eight are."""
    model = built("8 (F8)", (8,), FloatNeuron(0.4, 0.4, 1.0), seed=3, batch_norm=False, dropout=0.0)
    generator = torch.Generator().manual_seed(5)
    rates = 0.4 + 0.2 * torch.rand(4, 8, generator=generator, dtype=torch.float64)
    weighting = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    assert model.feedback is not None
    weight = model.feedback.eval().effective_weight().detach()
    drive = 0.4 * rates - rates @ weight.t()  # so that the map has these rates
    drive[1:, :6] += 1.0

    def gradient_of(rows: slice) -> tuple[Tensor, FixedPoint]:
        given = drive[rows].clone().requires_grad_()
        bound = frozen_bind(model.eval(), len(given))
        found: list[FixedPoint] = []
        settings = AdjointSettings(solver, tolerance=1e-12, max_steps=300)
        constant = Drive((given,), (given,), lambda t: (given,))
        implicit = with_implicit_gradient(bound, constant, [rates[rows]], settings=settings, found=found)
        (gradient,) = torch.autograd.grad((implicit * weighting[rows]).sum(), given)
        return gradient, found[0]

    together, found = gradient_of(slice(0, 4))
    without, _ = gradient_of(slice(1, 4))
    assert_close(together[1:], without, rtol=0, atol=1e-9)
    slopes = torch.ones_like(rates) / 0.4
    slopes[1:, :6] = 0.0
    radii = [float(torch.linalg.eigvals(slope[:, None] * weight).abs().max()) for slope in slopes]
    assert radii[0] > 1.2
    assert max(radii[1:]) < 0.95
    for row, slope in enumerate(slopes):
        system = torch.eye(8, dtype=torch.float64) - (slope[:, None] * weight).t()
        exact = slope * torch.linalg.solve(system, weighting[row])
        assert_close(together[row], exact, rtol=1e-9, atol=1e-9)
    assert found.converged
    if solver == "fixed_point":
        assert found.gains[0] > 1 > found.gains[1:].max()


def test_a_solve_that_does_not_converge_says_so() -> None:
    model, x, weighting = network("5 (F5)", (1, 2, 3), False, 1.0)
    settings = AdjointSettings(tolerance=1e-12, max_steps=2)
    result = implicit_rates(model, x, time_steps=30, settings=settings, generator=torch.Generator().manual_seed(0))
    (result.rates * weighting).sum().backward()
    assert not result.passes[0].converged
    assert 0 < result.passes[0].unconverged <= len(x)
    assert result.passes[0].steps == 2 * len(FALLBACKS)


def test_products_in_bfloat16_change_the_gradient_alone_and_little() -> None:
    """Rounded to 8 bits, each factor is off by 2e-3 at most, and by chance; the rates are the same to the last bit."""
    model, x, weighting = network("6C3s-8C3-8C3s (F6C3u)", (1, 8, 8), True, 0.9)
    model, x, weighting = model.float(), x.float(), weighting.float()
    found = {}
    for bfloat16 in (False, True):
        settings = AdjointSettings(tolerance=1e-6, max_steps=100, bfloat16=bfloat16)
        frozen = torch.Generator().manual_seed(7)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        rates = implicit_rates(model.train(), x, time_steps=20, settings=settings, generator=frozen)
        found[bfloat16] = rates.rates.detach(), gradients((rates.rates * weighting).sum(), model)
        model.load_state_dict(state)
    assert torch.equal(found[True][0], found[False][0])
    exact, rounded = found[False][1], found[True][1]
    errors = [float((rounded[n] - exact[n]).norm() / exact[n].norm()) for n in exact if float(exact[n].norm()) > 1e-4]
    assert 1e-5 < max(errors) < 1e-2


def test_linear_products_of_a_cpu_are_not_rounded() -> None:
    """A CPU's sparse products know no bfloat16: the gradient is the same to the last bit."""
    model, x, weighting = network("6-5 (F6)", (1, 2, 3), False, 1.0)
    plain, asked = (
        rate_gradients(model, x, weighting, AdjointSettings(tolerance=1e-6, bfloat16=bfloat16))
        for bfloat16 in (False, True)
    )
    assert all(torch.equal(plain[name], asked[name]) for name in plain)


BATCH, STEPS, MASKS = 4, 12, 7
EXACT = AdjointSettings("fixed_point", tolerance=1e-14, max_steps=400)
LABELS = torch.tensor([0, 1, 2, 1])

NOTATIONS = [
    pytest.param("4C3s-5C3-4C3s (F4C3u)", id="transposed feedback"),
    pytest.param("3C3-P2-4C3-P2-3C3 (F3C3u)", id="pooling"),
]
NEURONS = [pytest.param(FloatNeuron(1.0, 1.0, 1.0), id="IF"), pytest.param(FloatNeuron(1.0, 0.9, 0.9), id="LIF")]


def layered_network(notation: str, neuron: FloatNeuron) -> FeedbackSNN:
    """A network in training mode whose rates lie inside (0, 1) mostly, and whose feedback gain is inside its bound."""
    model = built(notation, (2, 8, 8), neuron, classes=3, seed=1, dropout=0.2, spectral_norm_bound=4.0)
    generator = seeded(2)
    with torch.no_grad():
        for synapse in synapses(model):
            norm = synapse.batch_norm
            norm.running_mean.normal_(0.0, 0.1, generator=generator)
            norm.running_var.uniform_(0.15, 0.5, generator=generator)
            norm.weight.uniform_(0.2, 0.4, generator=generator)
            norm.bias.uniform_(0.3, 0.6, generator=generator)
            synapse.bias.normal_(0.0, 0.2, generator=generator)
        model.feedback.restriction.gain.fill_(3.0)
        model.readout.weight.mul_(5)
    return still(model)


def still(model: FeedbackSNN) -> FeedbackSNN:
    """The network in training mode, but for its power iteration."""
    model.train()
    model.feedback.restriction.eval()
    return model


def given(model: FeedbackSNN, *, events: bool) -> Tensor:
    shape = (STEPS, BATCH, *model.input_shape) if events else (BATCH, *model.input_shape)
    x = torch.rand(shape, generator=seeded(3), dtype=torch.float64)
    return (x < 0.4).double() if events else x


def bind_with_running_statistics(model: FeedbackSNN) -> BoundNetwork:
    """Dropout masks as in training, statistics as in evaluation."""
    bound = still(model).bind(BATCH, generator=seeded(MASKS))
    model.eval()
    return replace(bound, training=False)


def loss_at(model: FeedbackSNN, rates: Tensor) -> Tensor:
    return functional.cross_entropy(model.classify(rates), LABELS)


def gradients_of(loss: Tensor, model: FeedbackSNN) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}


def check_by_differences(value: Callable[[], Tensor], model: FeedbackSNN, found: dict[str, Tensor]) -> None:
    """Derivatives of the value along a random direction of each parameter, by central differences."""
    step, generator = 1e-7, seeded(5)  # so small that no rate of thousands meets 0 or 1 on the way
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
            above = value()
            parameter.sub_(direction, alpha=2 * step)
            below = value()
            parameter.add_(direction, alpha=step)
        difference = (above - below) / (2 * step)
        # Errors: rounding of the loss, 1e-15 / step; those of the third derivative are far below.
        assert float(difference) == pytest.approx(float((found[name] * direction).sum()), rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("events", [False, True], ids=["constant", "events"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("notation", NOTATIONS)
def test_implicit_is_iterated_is_finite_differences(notation: str, neuron: FloatNeuron, events: bool) -> None:
    model = layered_network(notation, neuron)
    x = given(model, events=events)

    def iterated() -> Tensor:
        bound = bind_with_running_statistics(model)
        drive = bound.drive(x, time_steps=STEPS)
        a = torch.zeros(BATCH, *model.population_shapes[-1], dtype=torch.float64)
        for _ in range(60):
            a = bound.equilibrium_map(a, drive.mean)
        return loss_at(model, a)

    through_loop = gradients_of(iterated(), model)

    bound = bind_with_running_statistics(model)
    drive = bound.drive(x, time_steps=STEPS)
    start = torch.zeros(BATCH, *model.population_shapes[-1], dtype=torch.float64)
    settled = bound.equilibrium(drive.mean, start=start, tolerance=1e-15, max_steps=400)
    assert float(((settled.value > 0) & (settled.value < 1)).double().mean()) > 0.5
    around = bound.rates_around(bound.split(settled.value), drive.mean)
    rates = with_implicit_gradient(bound, drive, at_rest(around, settled.value), settings=EXACT, found=[])
    implicit = gradients_of(loss_at(model, rates), model)

    for name, gradient in implicit.items():
        assert float(gradient.abs().max()) > 1e-4, name
        # What 60 iterations of a map that contracts by a half or more leave, and sums of some thousand terms.
        assert_close(gradient, through_loop[name], rtol=1e-9, atol=1e-13)
    check_by_differences(lambda: iterated().detach(), model, through_loop)


@pytest.mark.parametrize("events", [False, True], ids=["constant", "events"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("notation", NOTATIONS)
def test_training_gradient_is_that_of_the_published_formula(notation: str, neuron: FloatNeuron, events: bool) -> None:
    model = layered_network(notation, neuron)
    reference = copy.deepcopy(model)
    x = given(model, events=events)
    result = implicit_rates(model, x, time_steps=STEPS, settings=EXACT, generator=seeded(MASKS))
    found = gradients_of(loss_at(model, result.rates), model)
    assert result.passes[0].converged
    a = result.simulation.firing_rates[-1]
    assert 0.1 < float(a.mean()) < 0.9

    def mapped() -> tuple[BoundNetwork, Currents, Tensor]:
        """Once around the loop with batch statistics, at the measured rates; updates the running ones."""
        bound = reference.bind(BATCH, generator=seeded(MASKS))
        drive = bound.drive(x, time_steps=STEPS)
        return (
            bound,
            tuple(m if m is None else m.detach() for m in drive.mean),
            bound.equilibrium_map(a, drive.mean, statistics="batch"),
        )

    bound, drive_mean, image = mapped()  # the one update that the published procedure makes before J
    matrix = jacobian(lambda rate: bound.equilibrium_map(rate, drive_mean), a).reshape(a.numel(), a.numel())
    at = a.clone().requires_grad_()
    (to_rates,) = torch.autograd.grad(loss_at(reference, at), at)
    unit = torch.eye(a.numel(), dtype=torch.float64)
    g = torch.linalg.solve(unit - matrix.t(), to_rates.flatten()).view_as(a)
    assert float((g - to_rates).norm() / g.norm()) > 0.03, "the feedback must matter"

    expected = gradients_of((image * g).sum() + loss_at(reference, a), reference)
    for name, gradient in found.items():
        idle = name.endswith(".bias") and "batch_norm" not in name and "readout" not in name
        assert (float(gradient.abs().max()) > 1e-4) != idle, f"{name}: batch statistics cancel a bias, nothing else"
        # The solve stops at a relative residual of 1e-14; sums of some thousand terms.
        assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
    check_by_differences(lambda: (mapped()[2] * g).sum().detach() + loss_at(reference, a).detach(), reference, found)


WINDOW = AdjointSettings(of="window", tolerance=0.0)


@pytest.mark.parametrize("loop_delay", [1, 3])
@pytest.mark.parametrize("neuron", [FloatNeuron(1.0, 1.0, 1.0), FloatNeuron(1.0, 1.0, 0.9)], ids=["IF", "LIF"])
def test_gradient_of_a_window_is_that_of_all_its_steps(neuron: FloatNeuron, loop_delay: int) -> None:
    """Where every rate lies between 0 and 1, the rates of each step are linear: autograd through all T steps knows."""
    steps = 8
    model = random_network("5-4-3 (F5)", neuron=neuron)
    model.loop_delays = (loop_delay,) * len(model.loop_delays)
    with torch.no_grad():
        for synapse in synapses(model):
            synapse.weight.mul_(0.8)
        for synapse in synapses(model):
            synapse.bias.fill_(0.4)
        model.feedback.restriction.gain.fill_(0.4)  # inside its bound
    still(model)
    x = torch.rand(BATCH, *model.input_shape, generator=seeded(3), dtype=torch.float64)
    weighting = torch.randn(BATCH, 3, generator=seeded(4), dtype=torch.float64)
    bound = model.bind(BATCH)
    drive = bound.drive(x, time_steps=steps)
    simulation = bound.detached().simulate(drive, time_steps=steps)
    found: list[FixedPoint] = []
    rates = with_window_gradient(bound, drive, simulation, time_steps=steps, settings=WINDOW, found=found)
    ours = gradients((rates * weighting).sum(), model)

    # Spikes replaced by rates of each step, once around the loop `loop_delay` steps later.
    back = simulation.returned[0] * (leak_weights(steps, neuron.leak) / leak_weights(steps - loop_delay, neuron.leak))
    bound = model.bind(BATCH)
    drive, sent, total = bound.drive(x, time_steps=steps), [], torch.zeros(())
    for t in range(steps):
        arriving = torch.zeros_like(drive.mean[0])
        if t >= loop_delay:  # deviations from the mean of the spikes go round; the mean itself is what weights act on
            late = sent[t - loop_delay]
            changes = bound.detached().feedback[0].current(late - late.detach())
            arriving = bound.feedback[0].current(back) + changes
        around = bound.rates_of([arriving], drive.mean)
        assert all(bool(((rate > 0) & (rate < 1)).all()) for rate in around), "the case must be linear"
        sent.append(around[-1])
        total = total + neuron.leak ** (steps - 1 - t) * around[-1] / leak_weights(steps, neuron.leak)
    theirs = gradients((total * weighting).sum(), model)

    assert found[0].steps == -(-steps // loop_delay) - 1
    exact = [n for n in theirs if "bias" in n or n.startswith(("feedforward.0", "feedback"))]
    assert len(exact) == 6
    for name in exact:  # of the others the activations differ from step to step, of which the map knows the mean
        assert float(theirs[name].abs().max()) > 1e-4, name
        assert_close(ours[name], theirs[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("loop_delay", [1, 3])
@pytest.mark.parametrize("events", [False, True], ids=["constant", "events"])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("notation", NOTATIONS)
def test_window_gradient_is_that_of_its_formula(
    notation: str, neuron: FloatNeuron, events: bool, loop_delay: int
) -> None:
    model = layered_network(notation, neuron)
    model.loop_delays = (loop_delay,) * len(model.loop_delays)
    reference = copy.deepcopy(model)
    x = given(model, events=events)
    result = implicit_rates(model, x, time_steps=STEPS, settings=WINDOW, generator=seeded(MASKS))
    found = gradients_of(loss_at(model, result.rates), model)
    a, (m,) = result.simulation.firing_rates[-1], result.simulation.returned
    assert 0.05 < float(m.mean()) < float(a.mean()) < 0.9

    bound = reference.bind(BATCH, generator=seeded(MASKS))
    drive = bound.drive(x, time_steps=STEPS)
    arriving = bound.feedback[0].current(m)
    image = bound.rates_of([arriving.detach()], drive.mean, statistics="batch")[-1]
    current = arriving.detach()
    to_first = jacobian(lambda i: bound.rates_of([i], drive.mean)[-1], current).reshape(a.numel(), current.numel())
    loop = to_first @ jacobian(bound.feedback[0].current, a).reshape(current.numel(), a.numel())
    at = a.clone().requires_grad_()
    (to_rates,) = torch.autograd.grad(loss_at(reference, at), at)
    g, shares = to_rates.flatten(), [leak_weights(n, neuron.leak) for n in range(STEPS, 0, -loop_delay)]
    powers = [torch.linalg.matrix_power(loop.t(), j) @ g for j in range(len(shares))]
    total = sum(share / shares[0] * power for share, power in zip(shares, powers, strict=True))
    late = sum(share / shares[1] * power for share, power in zip(shares[1:], powers, strict=False))
    assert float((total - g).norm() / total.norm()) > 0.02, "the feedback must matter"

    value = (image * total.view_as(a)).sum() + (arriving * (to_first.t() @ late).view_as(arriving)).sum()
    expected = gradients_of(value + loss_at(reference, a), reference)
    for name, gradient in found.items():
        idle = name.endswith(".bias") and "batch_norm" not in name and "readout" not in name
        assert (float(gradient.abs().max()) > 1e-6) != idle, name
        assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_window_shorter_than_a_loop_gives_the_feedback_no_gradient() -> None:
    model = layered_network("4C3s-5C3-4C3s (F4C3u)", FloatNeuron(1.0, 1.0, 1.0))
    model.loop_delays = (STEPS,)
    result = implicit_rates(model, given(model, events=False), time_steps=STEPS, settings=WINDOW)
    found = gradients_of(loss_at(model, result.rates), model)
    assert result.passes[0].steps == 0
    assert not result.simulation.returned[0].any()
    assert all(
        (not gradient.any()) == name.startswith("feedback") for name, gradient in found.items() if "weight" in name
    )


def test_window_ends_where_what_is_left_is_below_the_tolerance() -> None:
    model, x, weighting = network("5 (F5)", (1, 2, 3), False, 1.0)
    found: list[FixedPoint] = []
    sums = []
    for tolerance in (1e-15, 1e-3):
        bound = frozen_bind(model, len(x))
        drive = bound.drive(x, time_steps=200)
        run = bound.detached().simulate(drive, time_steps=200)
        settings = AdjointSettings(of="window", tolerance=tolerance)
        rates = with_window_gradient(bound, drive, run, time_steps=200, settings=settings, found=found)
        sums.append(gradients((rates * weighting).sum(), model)["feedforward.0.weight"])
    exact, short = found
    assert short.steps < exact.steps < 199
    assert short.residual <= 1e-3
    assert_close(sums[1], sums[0], rtol=0, atol=5e-3 * float(sums[0].abs().max()))
    assert 0 < float(exact.gains.max()) < 1


def test_window_gradient_of_what_is_not_finite_is_handed_on() -> None:
    model, x, weighting = network("5 (F5)", (1, 2, 3), False, 1.0)
    result = implicit_rates(model, x, time_steps=STEPS, settings=WINDOW)
    found = gradients((result.rates * weighting * float("nan")).sum(), model)
    assert result.passes == []
    assert found["feedforward.0.weight"].isnan().all()


def test_figures_count_a_residual_that_is_not_finite_as_one() -> None:
    residuals, gains = torch.tensor([0.25, float("inf"), 0.5]), torch.tensor([0.4, float("nan"), 0.2])
    found = FixedPoint(torch.zeros(3, 2), residuals, 7, torch.tensor([True, False, True]), gains)
    figures = ide._figures(found, (), count=3.0, total=3)
    assert figures["adjoint_residual"] == 1.75
    assert figures["adjoint_steps"] == 21
    assert figures["loop_gain"] == pytest.approx(0.6)
    assert figures[UNCONVERGED] == 1
