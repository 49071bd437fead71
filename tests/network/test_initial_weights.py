"""Initial weights: their norms and variances, their signs, what a seed gives, and the kernel of a pool."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from feedback_networks import seeded
from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.network.initial_weights import initial_weight, pool_weight

Shape = tuple[int, ...]

LINEAR, CONV = LayerSpec("linear", 50), LayerSpec("conv", 40, 3)
TRANSPOSED = LayerSpec("conv", 40, 3, 2, transposed=True)
# Layer, shape of its input and of its weight, torch's fan_in.
LAYERS = [
    pytest.param(LINEAR, (400,), (50, 400), 400, id="linear"),
    pytest.param(LINEAR, (16, 5, 5), (50, 400), 400, id="linear of an image"),
    pytest.param(CONV, (30, 6, 6), (40, 30, 3, 3), 270, id="conv"),
    pytest.param(TRANSPOSED, (30, 6, 6), (30, 40, 3, 3), 360, id="transposed"),
]
each_layer = pytest.mark.parametrize(("layer", "input_shape", "weight_shape", "fan_in"), LAYERS)


def filters(layer: LayerSpec, weight: Tensor) -> Tensor:
    """(outputs, weights of each)."""
    return (weight.transpose(0, 1) if layer.transposed else weight).flatten(1)


@each_layer
def test_filters_have_unit_norm(layer: LayerSpec, input_shape: Shape, weight_shape: Shape, fan_in: int) -> None:
    weight = initial_weight(layer, input_shape, generator=seeded())
    assert weight.shape == weight_shape
    assert_close(filters(layer, weight).norm(dim=1), torch.ones(layer.features), rtol=1e-6, atol=0)  # float32


def test_filters_are_spread_evenly_over_both_signs() -> None:
    weight = initial_weight(LINEAR, (400,), generator=seeded())
    scaled = weight / weight.abs().amax(1, keepdim=True)  # uniform in [-1, 1] again, nearly
    # 20,000 draws: the standard error of a mean is 0.004, of a mean square 0.002.
    assert abs(float(scaled.mean())) < 0.02
    assert abs(float(scaled.square().mean()) - 1 / 3) < 0.02
    assert torch.equal(weight, initial_weight(LINEAR, (400,), generator=seeded()))
    assert not torch.equal(weight, initial_weight(LINEAR, (400,), generator=seeded(1)))


@each_layer
def test_kaiming_normal_is_torchs(layer: LayerSpec, input_shape: Shape, weight_shape: Shape, fan_in: int) -> None:
    """Of variance 2 / fan_in, as `torch.nn.init.kaiming_normal_` counts it, and of normal shape."""
    weight = initial_weight(layer, input_shape, generator=seeded(), distribution="kaiming_normal")
    assert weight.shape == weight_shape
    expected = torch.nn.init.kaiming_normal_(torch.empty(weight_shape))
    # At least 10,800 draws each: the standard error of a standard deviation is below 0.7 %, of the share 0.45 %.
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)
    assert float(weight.std()) == pytest.approx(float(expected.std()), rel=0.05)
    assert abs(float(weight.mean())) < 0.05 * float(weight.std())
    assert float((weight.abs() < weight.std()).double().mean()) == pytest.approx(0.683, abs=0.02)


@pytest.mark.parametrize("distribution", ["unit_filters", "kaiming_normal"])
@each_layer
def test_scale_is_of_transposed_convolutions_alone(
    layer: LayerSpec, input_shape: Shape, weight_shape: Shape, fan_in: int, distribution: str
) -> None:
    whole, scaled = (
        initial_weight(layer, input_shape, generator=seeded(), distribution=distribution, transposed_scale=scale)
        for scale in (1.0, 0.25)
    )
    assert torch.equal(scaled, whole * (0.25 if layer.transposed else 1.0))


@pytest.mark.parametrize("window", [2, 3])
def test_pool_weight_is_the_convolution_of_a_pool(window: int) -> None:
    x = torch.randn(2, 5, 6 * window, 4 * window, generator=seeded(), dtype=torch.float64)
    weight = pool_weight(LayerSpec("pool", 0, window, window), 5)
    assert weight.shape == (5, 5, window, window)
    # The weight is float32: 1/9 has an error of a part in 2**24.
    found = functional.conv2d(x, weight.double(), stride=window)
    assert_close(found, functional.avg_pool2d(x, window), rtol=1e-6, atol=1e-6)
