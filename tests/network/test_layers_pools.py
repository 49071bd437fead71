"""The connection into a pool that is a population: an average of each channel that learns nothing."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from feedback_networks import seeded
from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.network.layers import Synapse


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def pool_synapse(window: int = 2) -> Synapse:
    layer, shape = LayerSpec("pool", 0, window, window), (3, 2 * window, 4 * window)
    return Synapse(
        layer,
        None,
        input_shape=shape,
        shape=layer.output_shape(shape),
        generator=seeded(),
        bias=False,
        batch_norm=False,
        dropout=0.0,
    )


@pytest.mark.parametrize("window", [2, 3])
def test_pool_averages_each_channel(window: int) -> None:
    made = pool_synapse(window)
    bound, x = made.bind(4, generator=seeded()), random(4, *made.input_shape).float()
    expected = x.view(4, 3, 2, window, 4, window).mean((3, 5))
    assert_close(bound.current(x), expected)  # sums of at most nine float32
    connection = bound.event_connection(0, 1)
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
    generator, layer = seeded(), LayerSpec("pool", 0, 2, 2)
    before = generator.get_state()
    Synapse(
        layer,
        None,
        input_shape=(3, 4, 4),
        shape=(3, 2, 2),
        generator=generator,
        bias=False,
        batch_norm=False,
        dropout=0.0,
    )
    assert torch.equal(generator.get_state(), before)
