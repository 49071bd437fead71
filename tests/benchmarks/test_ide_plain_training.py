"""The plain restatement that the library is timed against computes the same as the library."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.ide import plain_training as plain
from benchmarks.shared import dense_work as work
from feedback_networks import constants
from fsnn_lava.config import NetworkConfig, TrainConfig, TrainingConfig
from fsnn_lava.config.notation import parse_spec
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network.feedback_network import BoundNetwork, Drive, FeedbackSNN, Simulation
from fsnn_lava.network.fixed_point import solve
from fsnn_lava.training.gradients.ide import AdjointSettings, with_implicit_gradient

NETWORKS = [("8C5s (F8C5)", (1, 12, 12)), ("4C3s-6C3s-5C3 (F4C3u)", (3, 8, 8)), ("20 (F20)", (1, 6, 6))]
T = 8


@pytest.fixture
def in_float64() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the plain run makes its potentials in the default type
    yield
    torch.set_default_dtype(default)


Gradient = Callable[[BoundNetwork, Drive, Tensor], Tensor]


def _gradients(
    notation: str, shape: tuple[int, ...], run: Callable[..., Simulation], implicit: Gradient
) -> list[Tensor]:
    """Of a loss of the rates of a network and samples that are always the same."""
    neuron = FloatNeuron(1.0, 1.0, 0.95)
    model = FeedbackSNN(
        NetworkConfig(notation, **constants(neuron), dropout=0.2, spectral_norm_bound=0.5), shape
    ).double()
    for synapse in model.feedforward:
        synapse.batch_norm.bias.data.fill_(0.5)  # so that every population fires
    bound = model.bind(6, generator=torch.Generator().manual_seed(0))
    drive = bound.drive(torch.randn(6, *shape, generator=torch.Generator().manual_seed(1)), time_steps=T)
    rates = run(bound, drive, time_steps=T).firing_rates
    assert float(rates[-1].mean()) > 0.01
    implicit(bound, drive, rates).square().sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("notation", "shape"), NETWORKS)
def test_run_and_gradient_are_the_library_s(notation: str, shape: tuple[int, ...]) -> None:
    settings = AdjointSettings("fixed_point", 1e-12, 200)

    def plain_gradient(bound: BoundNetwork, drive: Drive, rates: Sequence[Tensor]) -> Tensor:
        return plain.plain_gradient(bound, drive, rates[-1], solver=plain.plain_broyden)

    found = _gradients(notation, shape, plain.plain_run, plain_gradient)
    expected = _gradients(
        notation, shape, BoundNetwork.simulate, partial(with_implicit_gradient, settings=settings, found=[])
    )
    assert len(found) == len(expected) > 3
    size = max(float(gradient.norm()) for gradient in expected)
    for plainly, ours in zip(found, expected, strict=True):
        # Broyden stops at a relative residual of 1e-6 of the adjoint system; one spike more would be far above it.
        assert_close(plainly, ours, rtol=0, atol=1e-5 * size)


def test_broyden_solves_linear_systems() -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix *= 0.7 / torch.linalg.matrix_norm(matrix, ord=2)
    constant = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    found = plain.plain_broyden(lambda x: x @ matrix + constant, constant)
    assert found.converged
    assert found.steps <= plain.PAIRS + 1
    expected = constant @ torch.linalg.inv(torch.eye(12, dtype=torch.float64) - matrix)
    assert_close(found.value, expected, rtol=0, atol=1e-5)  # the residual of 1e-6, grown by 1/(1 - 0.7)
    by_library = solve(lambda x: x @ matrix + constant, constant, method="broyden", tolerance=1e-6, max_steps=50)
    assert by_library.converged


def test_work_is_counted_by_hand() -> None:
    layer = parse_spec("3C3s").layers[0]
    assert work.products_of(layer, (2, 8, 8)) == 2 * 16 * 9 * 2 * 3
    network = NetworkConfig(notation="400 (F400)", time_steps=5)
    config = TrainConfig(network=network, training=TrainingConfig(batch_size=128))
    feedforward, feedback, readout = 2 * 784 * 400, 2 * 400 * 400, 2 * 10 * 400
    # The input twice; four steps with feedback, f once, J^T seven times, the gradient of the feedback weights.
    expected = 128 * (2 * feedforward + (4 + 1 + 7 + 1) * feedback + 3 * readout)
    assert work.dense_products(config, (1, 28, 28), 10, 7) == expected
