"""One connection: its layer against its definition, its adjoint, norm restriction, dropout, batch norm and pools.

Layers are written out in loops, in float64.
"""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from feedback_networks import seeded
from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.network import apply_layer, apply_transpose, operator_norm
from fsnn_lava.network.initial_weights import initial_weight
from fsnn_lava.network.layers import BoundSynapse, FrobeniusRestriction, NormRestriction, SpectralNorm, Synapse

Shape = tuple[int, ...]

POOL = LayerSpec("pool", 0, 2, 2)
LAYERS = [
    pytest.param(LayerSpec("linear", 7), (5,), (7,), id="linear"),
    pytest.param(LayerSpec("linear", 7), (2, 3, 4), (7,), id="linear of an image"),
    pytest.param(LayerSpec("conv", 4, 1), (3, 5, 5), (4, 5, 5), id="1x1"),
    pytest.param(LayerSpec("conv", 4, 3), (3, 5, 6), (4, 5, 6), id="3x3"),
    pytest.param(LayerSpec("conv", 4, 3, 2), (3, 6, 7), (4, 3, 4), id="3x3, stride 2, even and odd side"),
    pytest.param(LayerSpec("conv", 2, 5, 2), (2, 8, 8), (2, 4, 4), id="5x5, stride 2"),
    pytest.param(LayerSpec("conv", 4, 3, 2, transposed=True), (3, 4, 5), (4, 8, 10), id="3x3 transposed"),
    pytest.param(LayerSpec("conv", 3, 5, 2, transposed=True), (2, 3, 3), (3, 6, 6), id="5x5 transposed"),
    pytest.param(LayerSpec("conv", 3, 1, 2, transposed=True), (2, 3, 3), (3, 6, 6), id="1x1 transposed"),
]
CONNECTIONS = [
    *(pytest.param(layer.values[0], None, layer.values[1], id=layer.id) for layer in LAYERS),
    pytest.param(LayerSpec("conv", 3, 3), POOL, (2, 4, 6), id="3x3, pooled"),
    pytest.param(LayerSpec("conv", 3, 5, 2), POOL, (2, 8, 8), id="5x5, stride 2, pooled"),
    pytest.param(LayerSpec("conv", 2, 3, 2, transposed=True), POOL, (3, 2, 3), id="3x3 transposed, pooled"),
]
RESTRICTED = [
    pytest.param(LayerSpec("linear", 6), (6,), (6,), id="linear"),
    pytest.param(LayerSpec("conv", 3, 5), (3, 6, 6), (3, 6, 6), id="conv"),
    pytest.param(LayerSpec("conv", 2, 3, 2, transposed=True), (3, 3, 3), (2, 6, 6), id="transposed"),
]
each_layer = pytest.mark.parametrize(("layer", "input_shape", "shape"), LAYERS)
each_restricted = pytest.mark.parametrize(("layer", "input_shape", "shape"), RESTRICTED)
each_norm = pytest.mark.parametrize("norm", ["reshaped", "operator"])
each_connection = pytest.mark.parametrize(("layer", "pool", "input_shape"), CONNECTIONS)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def synapse_of(
    layer: LayerSpec, source: Shape, *, pool: LayerSpec | None = None, batch_norm: bool = False, dropout: float = 0.0
) -> Synapse:
    """With weights of seed 0; the connection into a pool that is a population has no bias."""
    shape = layer.output_shape(source)
    return Synapse(
        layer,
        pool,
        input_shape=source,
        shape=pool.output_shape(shape) if pool else shape,
        source=-1,
        target=0,
        generator=seeded(),
        bias=layer.kind != "pool",
        batch_norm=batch_norm,
        dropout=dropout,
    )


def connection(layer: LayerSpec, pool: LayerSpec | None, input_shape: Shape, *, batch_norm: bool) -> Synapse:
    """A synapse in training mode, for its masks; running statistics, gains of both signs and shifts are random."""
    generator = seeded(8)
    made = synapse_of(layer, input_shape, pool=pool, batch_norm=batch_norm, dropout=0.3).double()
    norm = made.batch_norm
    with torch.no_grad():
        made.bias.normal_(generator=generator)
        if norm is not None:
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.3, 3.0, generator=generator)
            norm.weight.normal_(generator=generator)
            norm.bias.normal_(generator=generator)
    return made


def bind(made: Synapse, batch: int) -> BoundSynapse:
    return made.bind(batch, generator=seeded(1))


def matrix(layer: LayerSpec, weight: Tensor, input_shape: Shape) -> Tensor:
    """(outputs, inputs) from the definition of the layer, entry by entry.

    A convolution adds w[o, c, a, b] x[c, s i + a - p, s j + b - p] to the output at (o, i, j), p = (K - 1) / 2; a
    transposed one adds w[c, o, a, b] x[c, i, j] to the output at (o, 2 i + a - p, 2 j + b - p).
    """
    if layer.kind == "linear":
        return weight.flatten(1)
    shape = layer.output_shape(input_shape)
    full = torch.zeros(*shape, *input_shape, dtype=weight.dtype)
    near, far = (input_shape, shape) if layer.transposed else (shape, input_shape)
    kernel, pad = range(layer.kernel), (layer.kernel - 1) // 2
    for i, j, a, b in itertools.product(range(near[1]), range(near[2]), kernel, kernel):
        row, column = layer.stride * i + a - pad, layer.stride * j + b - pad
        if not (0 <= row < far[1] and 0 <= column < far[2]):
            continue
        if layer.transposed:
            full[:, row, column, :, i, j] += weight[:, :, a, b].t()
        else:
            full[:, i, j, :, row, column] += weight[:, :, a, b]
    return full.view(math.prod(shape), math.prod(input_shape))


@each_layer
def test_shape_is_the_one_of_the_notation(layer: LayerSpec, input_shape: Shape, shape: Shape) -> None:
    weight = initial_weight(layer, input_shape, generator=seeded())
    assert layer.output_shape(input_shape) == shape
    assert apply_layer(layer, weight, torch.zeros(layer.features), torch.rand(2, *input_shape)).shape == (2, *shape)


@each_layer
def test_layer_and_its_transpose_are_their_definition(layer: LayerSpec, input_shape: Shape, shape: Shape) -> None:
    weight = initial_weight(layer, input_shape, generator=seeded()).double()
    expected = matrix(layer, weight, input_shape)
    x, y = random(3, *input_shape, seed=2), random(3, *shape, seed=3)
    back = apply_transpose(layer, weight, y, input_shape)
    assert back.shape == x.shape
    assert not back.requires_grad
    # Sums of at most a hundred float64 products of size one.
    assert_close(apply_layer(layer, weight, None, x).flatten(1), x.flatten(1) @ expected.t(), rtol=0, atol=1e-13)
    assert_close(back.flatten(1), y.flatten(1) @ expected, rtol=0, atol=1e-13)


@each_layer
def test_backward_pass_in_bfloat16_is_that_of_rounded_numbers(
    layer: LayerSpec, input_shape: Shape, shape: Shape
) -> None:
    """Exact where all numbers are small and whole; of any numbers off by their rounding, but for linear layers."""
    made = synapse_of(layer, input_shape)
    for whole in (True, False):
        x, weight, gradient = (
            random(*form, seed=seed).float()
            for seed, form in enumerate(((3, *input_shape), made.weight.shape, (3, *shape)))
        )
        if whole:
            x, weight, gradient = (value.round().clamp(-1, 1) for value in (x, weight, gradient))
        made.weight.data.copy_(weight)
        made.zero_grad()
        found = []
        for kind in (None, torch.bfloat16):
            given = x.clone().requires_grad_()
            bound = dataclasses.replace(made.bind(3, generator=None), backward=kind)
            response = bound.linear(given)
            made.zero_grad()
            response.backward(gradient)
            found.append((response.detach(), given.grad, made.weight.grad, made.bias.grad))
        (response, *exact), (same, *rounded) = found
        assert torch.equal(response, same)
        assert_close(exact[2], rounded[2])
        for a, b in zip(exact[:2], rounded[:2], strict=True):
            assert torch.equal(a, b) == (whole or layer.kind == "linear")
            assert float((a - b).norm()) < 0.01 * float(a.norm())


@pytest.mark.parametrize("share", [0.05, 1.0], ids=["sparse", "dense"])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["", "batch norm"])
@each_connection
def test_adjoint_is_that_of_the_current(
    layer: LayerSpec, pool: LayerSpec | None, input_shape: Shape, batch_norm: bool, share: float
) -> None:
    """For every sample, with its mask: <current(x) - current(0), y> = <x, adjoint(slope)(y / slope)>, by entry."""
    made = connection(layer, pool, input_shape, batch_norm=batch_norm)
    bound = bind(made, 4)
    assert 0 < float((bound.mask == 0).double().mean()) < 1
    y = random(4, *made.shape, seed=5) * (torch.rand(4, *made.shape, generator=seeded(6)) < share)
    y[0].flatten()[0] = 1.0  # something is left of the sparsest
    found = bound.adjoint(2 * (y != 0).double())(y / 2)  # the zeros of the slope make it sparse
    assert found.shape == (4, *input_shape)
    assert not found.requires_grad
    still, zero = bound.detached(), torch.zeros(4, *input_shape, dtype=torch.float64)
    nothing = still.current(zero)
    expected = torch.empty(4, math.prod(input_shape), dtype=torch.float64)
    for i in range(expected.shape[1]):
        x = zero.clone()
        x.view(4, -1)[:, i] = 1.0
        expected[:, i] = ((still.current(x) - nothing) * y).flatten(1).sum(1)
    # Differences of numbers of size ten, in float64.
    assert_close(found.flatten(1), expected, rtol=0, atol=1e-12)


@each_connection
def test_frozen_statistics_give_the_current(layer: LayerSpec, pool: LayerSpec | None, input_shape: Shape) -> None:
    """The same values and gradients as batch norm itself, also after the running statistics moved on."""
    made = connection(layer, pool, input_shape, batch_norm=True)
    bound, x = bind(made, 4), random(4, *input_shape, seed=2)
    weighting = random(4, *made.shape, seed=3)
    parameters = list(made.parameters())
    expected = bound.current(x)
    gradients = torch.autograd.grad((expected * weighting).sum(), parameters)
    frozen = bound.frozen_current(x, bound.frozen_normalisation())
    bound.current(x + 1, "batch")
    # Scale and shift instead of difference and quotient: a few roundings of numbers of size ten.
    assert_close(frozen, expected, rtol=0, atol=1e-13)
    assert_close(torch.autograd.grad((frozen * weighting).sum(), parameters), gradients, rtol=1e-12, atol=1e-12)


def restriction(
    layer: LayerSpec, input_shape: Shape, shape: Shape, *, norm: SpectralNorm, bound: float
) -> tuple[NormRestriction, Tensor]:
    weight = initial_weight(layer, input_shape, generator=seeded())
    made = NormRestriction(layer, input_shape, shape, weight=weight, bound=bound, norm=norm, generator=seeded(3))
    return made.double(), weight.double()


def norm_of(layer: LayerSpec, weight: Tensor, input_shape: Shape, norm: SpectralNorm) -> float:
    found = weight.flatten(1) if norm == "reshaped" else matrix(layer, weight, input_shape)
    return float(torch.linalg.matrix_norm(found, ord=2))


@each_norm
@each_restricted
def test_norm_stays_below_the_bound(layer: LayerSpec, input_shape: Shape, shape: Shape, norm: SpectralNorm) -> None:
    restrict, weight = restriction(layer, input_shape, shape, norm=norm, bound=0.7)
    with torch.no_grad():
        restrict.gain.fill_(5.0)
        for _ in range(2000):
            effective = restrict(3 * weight)
    # 2000 power iterations leave less than this of the gap between the two largest singular values.
    assert norm_of(layer, effective, input_shape, norm) == pytest.approx(0.7, rel=1e-6)


@each_norm
@each_restricted
def test_norm_is_near_bound_at_start(layer: LayerSpec, input_shape: Shape, shape: Shape, norm: SpectralNorm) -> None:
    """The ten power iterations at construction are what a training starts from."""
    restrict, weight = restriction(layer, input_shape, shape, norm=norm, bound=0.7)
    with torch.no_grad():
        restrict.gain.fill_(5.0)
        assert norm_of(layer, restrict(weight), input_shape, norm) < 0.7 * 1.1


@each_norm
@each_restricted
def test_gain_below_bound_is_the_norm(layer: LayerSpec, input_shape: Shape, shape: Shape, norm: SpectralNorm) -> None:
    restrict, weight = restriction(layer, input_shape, shape, norm=norm, bound=0.7)
    with torch.no_grad():
        for _ in range(2000):
            restrict(weight)
        restrict.gain.fill_(-0.3)
        effective = restrict(weight)
    assert norm_of(layer, effective, input_shape, norm) == pytest.approx(0.3, rel=1e-6)
    assert_close(effective / effective.norm(), -weight / weight.norm())


@each_norm
@each_restricted
def test_weight_below_bound_is_kept(layer: LayerSpec, input_shape: Shape, shape: Shape, norm: SpectralNorm) -> None:
    """The gain starts as the weight's own norm."""
    restrict, weight = restriction(layer, input_shape, shape, norm=norm, bound=100.0)
    restrict.eval()
    assert_close(restrict(weight), weight, rtol=1e-6, atol=0)  # the gain was found in float32


@each_restricted
def test_operator_norm_is_that_of_the_dense_matrix(layer: LayerSpec, input_shape: Shape, shape: Shape) -> None:
    weight = initial_weight(layer, input_shape, generator=seeded()).double().requires_grad_()
    found = operator_norm(layer, weight, input_shape)
    # 100 power iterations: a hundredth is left even if the two largest singular values are close.
    assert found == pytest.approx(norm_of(layer, weight.detach(), input_shape, "operator"), rel=0.01)


def test_operator_norm_of_a_convolution_is_larger_than_the_reshaped_one() -> None:
    layer, shape = LayerSpec("conv", 4, 5), (4, 10, 10)
    weight = initial_weight(layer, shape, generator=seeded()).double()
    ratio = norm_of(layer, weight, shape, "operator") / norm_of(layer, weight, shape, "reshaped")
    assert 1.2 < ratio < 3, "what docstring and config say about the published choice"


@each_norm
def test_power_iteration_advances_in_training_only(norm: SpectralNorm) -> None:
    layer, shape = LayerSpec("conv", 3, 3), (3, 6, 6)
    restrict, weight = restriction(layer, shape, shape, norm=norm, bound=0.7)
    other = torch.randn(weight.shape, generator=seeded(9), dtype=torch.float64)
    before = {k: v.clone() for k, v in restrict.state_dict().items()}
    restrict.eval()(other)
    assert all(torch.equal(v, before[k]) for k, v in restrict.state_dict().items())
    restrict.train()(other)
    assert not torch.equal(restrict.left, before["left"])
    assert not torch.equal(restrict.right, before["right"])
    assert {"left", "right", "gain"} == set(before), "what a checkpoint must carry"


@each_norm
def test_gradient_reaches_gain_and_weight(norm: SpectralNorm) -> None:
    layer, shape = LayerSpec("conv", 3, 3), (3, 6, 6)
    restrict, weight = restriction(layer, shape, shape, norm=norm, bound=2.0)
    restrict.eval()
    with torch.no_grad():
        restrict.gain.fill_(0.9)
    weight.requires_grad_()
    weighting = random(*weight.shape, seed=4)
    effective = restrict(weight)
    (effective * weighting).sum().backward()
    assert_close(restrict.gain.grad, (effective.detach() * weighting).sum() / 0.9)
    # sigma is differentiated too: the effective weight does not change when the weight is scaled.
    assert_close((weight.grad * weight.detach()).sum(), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-10)
    assert float(weight.grad.norm()) > 0.1


def test_gain_beyond_the_bound_has_no_gradient() -> None:
    layer, shape = LayerSpec("linear", 4), (4,)
    restrict, weight = restriction(layer, shape, shape, norm="reshaped", bound=0.5)
    with torch.no_grad():
        restrict.gain.fill_(0.8)
    restrict(weight).sum().backward()
    assert float(restrict.gain.grad) == 0.0


def test_graph_of_one_call_outlives_the_next() -> None:
    """The power iteration replaces its vectors instead of writing into those that a graph holds."""
    layer, shape = LayerSpec("linear", 4), (4,)
    restrict, weight = restriction(layer, shape, shape, norm="reshaped", bound=0.5)
    weight.requires_grad_()
    first = restrict(weight).square().sum()
    restrict(weight)
    first.backward()
    assert weight.grad is not None


def test_frobenius_norm_stays_below_the_bound() -> None:
    restrict = FrobeniusRestriction(2.0)
    weight = random(3, 4, 5, 5)
    assert float(weight.norm()) > 10
    effective = restrict(weight)
    assert float(effective.norm()) == pytest.approx(2.0, rel=1e-12)
    assert_close(effective, weight * (2.0 / weight.square().sum().sqrt()))
    assert torch.equal(restrict(0.01 * weight), 0.01 * weight), "a weight below the bound is left alone"
    assert torch.equal(restrict(0.0 * weight), 0.0 * weight)


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_factor_of_the_frobenius_norm_is_a_constant_of_the_backward_pass(size: float) -> None:
    restrict, weighting = FrobeniusRestriction(2.0), random(6, 7, seed=4)
    weight = (size * random(6, 7)).requires_grad_()
    (restrict(weight) * weighting).sum().backward()
    assert_close(weight.grad, weighting * min(1.0, 2.0 / float(weight.detach().norm())))


def test_frobenius_norm_learns_and_keeps_nothing() -> None:
    restrict, weight = FrobeniusRestriction(2.0), random(6, 7)
    assert restrict.state_dict() == {}
    assert list(restrict.parameters()) == []
    assert torch.equal(restrict.train()(weight), restrict.eval()(weight))


def synapse(*, dropout: float = 0.0, batch_norm: bool = False, pool: LayerSpec | None = None) -> Synapse:
    layer = LayerSpec("conv", 3, 3)
    return synapse_of(layer, (2, 6, 6), pool=pool, batch_norm=batch_norm, dropout=dropout).double()


def test_dropout_mask_is_drawn_once_per_sample_and_scaled() -> None:
    made = synapse(dropout=0.25)
    bound = made.bind(8, generator=seeded(5))
    assert bound.mask.shape == (8, 3, 6, 6)
    assert set(bound.mask.unique().tolist()) == {0.0, 1 / 0.75}
    # 864 draws: the standard error of the share is 0.015.
    assert float((bound.mask == 0).double().mean()) == pytest.approx(0.25, abs=0.06)
    assert len({tuple(m.flatten().tolist()) for m in bound.mask}) == 8, "every sample has a mask of its own"
    still = made.eval().bind(8, generator=seeded(5))
    assert still.mask is None
    for seed in (6, 7):
        x = random(8, 2, 6, 6, seed=seed)
        assert_close(bound.current(x), still.current(x) * bound.mask)


def test_order_is_batch_norm_then_pooling_then_dropout() -> None:
    made = synapse(dropout=0.5, batch_norm=True, pool=POOL)
    with torch.no_grad():
        made.batch_norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        made.batch_norm.bias.copy_(torch.tensor([-1.0, 0.0, 3.0]))
        made.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = random(4, 2, 6, 6)
    bound = made.bind(4, generator=seeded(5))
    response = torch.nn.functional.conv2d(x, made.weight, made.bias, padding=1)
    mean, variance = response.mean((0, 2, 3)), response.var((0, 2, 3), unbiased=False)
    wide = (slice(None), None, None)
    normalised = (response - mean[wide]) / (variance[wide] + 1e-5).sqrt()
    normalised = normalised * made.batch_norm.weight[wide] + made.batch_norm.bias[wide]
    pooled = normalised.view(4, 3, 3, 2, 3, 2).mean((3, 5))
    assert_close(bound.current(x, "batch"), pooled * bound.mask)


def test_running_statistics_are_updated_by_batch_statistics_only() -> None:
    made = synapse(batch_norm=True)
    norm = made.batch_norm
    x = random(4, 2, 6, 6)
    bound = made.bind(4, generator=None)
    bound.current(x)
    bound.frozen_normalisation(bound.linear(x))
    assert torch.equal(norm.running_mean, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(norm.running_var, torch.ones(3, dtype=torch.float64))
    bound.current(x, "batch")
    response = bound.linear(x)
    assert_close(norm.running_mean, 0.1 * response.mean((0, 2, 3)))
    assert_close(norm.running_var, 0.9 + 0.1 * response.var((0, 2, 3)))


@pytest.mark.parametrize("training", [True, False])
def test_frozen_normalisation_is_the_batch_norm_of_that_response(training: bool) -> None:
    made = synapse(batch_norm=True).train(training)
    with torch.no_grad():
        made.batch_norm.running_mean.fill_(0.3)
        made.batch_norm.weight.fill_(0.7)
        made.batch_norm.bias.fill_(0.1)
    bound = made.bind(4, generator=None)
    response = bound.linear(random(4, 2, 6, 6))
    frozen = bound.frozen_normalisation(response)
    expected = bound.current(random(4, 2, 6, 6), "batch" if training else "running")
    assert_close(response * frozen[0] + frozen[1], expected)


def test_detached_synapse_gives_no_gradient_to_the_parameters() -> None:
    bound = synapse(batch_norm=True).bind(2, generator=None)
    x = random(2, 2, 6, 6)
    assert bound.current(x).requires_grad
    assert not bound.detached().current(x).requires_grad
    assert torch.equal(bound.detached().current(x), bound.current(x))


def pool_synapse(window: int = 2) -> Synapse:
    return synapse_of(LayerSpec("pool", 0, window, window), (3, 2 * window, 4 * window))


@pytest.mark.parametrize("window", [2, 3])
def test_pool_averages_each_channel(window: int) -> None:
    made = pool_synapse(window)
    bound, x = made.bind(4, generator=seeded()), random(4, *made.input_shape).float()
    expected = x.view(4, 3, 2, window, 4, window).mean((3, 5))
    assert_close(bound.current(x), expected)  # sums of at most nine float32
    connection = bound.event_connection()
    assert_close(connection.map.product(x, made.shape), expected)
    assert torch.equal(connection.scale, torch.ones(3))
    assert torch.equal(connection.shift, torch.zeros(3))
    assert bound.mask is None


@pytest.mark.parametrize("share", [0.02, 1.0], ids=["sparse", "dense"])
@pytest.mark.parametrize("window", [2, 3])
def test_adjoint_of_a_pool(window: int, share: float) -> None:
    made = pool_synapse(window)
    generator = seeded(2)
    slope = (torch.rand(8, *made.shape, generator=generator) < share).float()
    x = torch.randn(8, *made.input_shape, generator=generator).requires_grad_()
    y = torch.randn(8, *made.shape, generator=generator)
    (expected,) = torch.autograd.grad(made.bind(8, generator=None).current(x), x, y * slope)
    assert_close(made.bind(8, generator=None).adjoint(slope)(y), expected)


def test_pool_learns_and_keeps_nothing() -> None:
    """Its weight moves between devices and types with the network, but is in no checkpoint."""
    made = pool_synapse()
    assert list(made.parameters()) == []
    assert made.state_dict() == {}
    assert not made.bind(2, generator=None).current(torch.rand(2, *made.input_shape)).requires_grad
    assert made.double().weight.dtype == torch.float64


def test_pool_draws_no_random_number() -> None:
    """So that the weights of the layers after it depend on the seed alone, however pools are read."""
    generator = seeded()
    before = generator.get_state()
    settings = {"generator": generator, "bias": False, "batch_norm": False, "dropout": 0.0, "source": 0, "target": 1}
    Synapse(POOL, None, input_shape=(3, 4, 4), shape=(3, 2, 2), **settings)
    assert torch.equal(generator.get_state(), before)
