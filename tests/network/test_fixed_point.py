"""One zoo of maps runs through every solver; a dense solve or a long iteration says what is right."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fsnn_lava.config import SOLVERS
from fsnn_lava.errors import ConvergenceError
from fsnn_lava.network.fixed_point import solve

SOLVER_NAMES = tuple(SOLVERS)
SIZE, BATCH = 12, 3
every_solver = pytest.mark.parametrize("method", SOLVER_NAMES)


class Counted:
    """A map that counts how often it is evaluated."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self.f, self.calls = f, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.f(x)


def matrix(radius: float, *, symmetric: bool = False) -> Tensor:
    """Random (SIZE, SIZE) matrix with that largest singular value."""
    a = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = a + a.t() if symmetric else a
    norm: Tensor = torch.linalg.matrix_norm(a, ord=2)
    return a / (norm / radius)


def constants() -> Tensor:
    return torch.randn(BATCH, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def linear_map(radius: float, *, symmetric: bool = False) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Map x A^T + b on each sample, and its fixed point by a dense solve."""
    a, b = matrix(radius, symmetric=symmetric), constants()
    exact: Tensor = torch.linalg.solve(torch.eye(SIZE, dtype=torch.float64) - a, b.t())
    return lambda x: x @ a.t() + b, exact.t()


def nonlinear_map() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Map tanh(x A^T + b), and its fixed point by 2000 iterations (0.9**2000 is below rounding)."""
    a, b = matrix(0.9), constants()
    x = torch.zeros_like(b)
    for _ in range(2000):
        x = torch.tanh(x @ a.t() + b)
    return lambda x: torch.tanh(x @ a.t() + b), x


def clamped_map() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The equilibrium map's shape: clamp(x A^T + b, 0, 1), which has kinks."""
    a, b = matrix(0.8), constants() + 0.5
    x = torch.zeros_like(b)
    for _ in range(2000):
        x = (x @ a.t() + b).clamp(0, 1)
    return lambda x: (x @ a.t() + b).clamp(0, 1), x


def residual_at(f: Callable[[Tensor], Tensor], x: Tensor) -> float:
    image = f(x)
    return float((image - x).norm() / image.norm())


ZOO = [
    pytest.param(lambda: linear_map(0.5), id="linear"),
    pytest.param(lambda: linear_map(0.95, symmetric=True), id="linear, slow"),
    pytest.param(nonlinear_map, id="nonlinear"),
    pytest.param(clamped_map, id="clamped"),
]


@every_solver
@pytest.mark.parametrize("make", ZOO)
def test_every_solver_finds_the_fixed_point(
    make: Callable[[], tuple[Callable[[Tensor], Tensor], Tensor]], method: str
) -> None:
    f, exact = make()
    found = solve(f, torch.zeros(BATCH, SIZE, dtype=torch.float64), method=method, tolerance=1e-12, max_steps=1000)
    assert found.converged
    assert found.residual <= 1e-12
    # The error is at most residual / (1 - 0.95) of the norm, about 3.
    assert_close(found.value, exact, rtol=0, atol=1e-10)


@every_solver
@pytest.mark.parametrize("make", ZOO)
@pytest.mark.parametrize("max_steps", [1, 2, 4, 1000])
def test_residual_is_that_of_the_value(
    make: Callable[[], tuple[Callable[[Tensor], Tensor], Tensor]], method: str, max_steps: int
) -> None:
    f, _ = make()
    start = constants()
    found = solve(f, start, method=method, tolerance=1e-8, max_steps=max_steps)
    true = residual_at(f, found.value)
    if method == "fixed_point" and found.converged:
        assert true <= found.residual, "its value is one step further than the iterate of the residual"
    else:
        assert found.residual == pytest.approx(true, rel=1e-12)


@every_solver
@pytest.mark.parametrize("max_steps", [1, 2, 3, 5, 500])
def test_steps_are_the_evaluations_of_the_map(method: str, max_steps: int) -> None:
    f = Counted(linear_map(0.9)[0])
    found = solve(f, constants(), method=method, tolerance=1e-10, max_steps=max_steps)
    assert found.steps == f.calls <= max_steps
    assert found.converged == (found.residual <= 1e-10) == (max_steps == 500)


@every_solver
def test_no_step_is_taken_beyond_the_tolerance(method: str) -> None:
    f, _ = linear_map(0.9)
    start = constants()
    loose = solve(f, start, method=method, tolerance=1e-2, max_steps=500)
    tight = solve(f, start, method=method, tolerance=1e-8, max_steps=500)
    assert loose.converged
    assert 1e-8 < loose.residual <= 1e-2
    assert loose.steps < tight.steps
    short = solve(f, start, method=method, tolerance=1e-2, max_steps=loose.steps - 1)
    assert not short.converged


@every_solver
def test_best_iterate_comes_back_if_none_converged(method: str) -> None:
    """The plain iteration spirals outwards from 0.5: 0.25 (image 0.625, relative residual 0.6), 0.625, 0.0625, ..."""
    start = torch.full((1, 1), 0.5, dtype=torch.float64)
    found = solve(lambda x: -1.5 * x + 1, start, method=method, tolerance=1e-12, max_steps=6)
    if method == "fixed_point":
        assert (found.value.item(), found.residual, found.steps, found.converged) == (0.25, 0.6, 6, False)
    else:  # the accelerated ones need no contraction
        assert found.converged
        assert found.value.item() == pytest.approx(0.4, rel=1e-10)


@every_solver
@pytest.mark.parametrize(("offset", "solution"), [(1.0, 2.0), (0.0, 0.0)])
def test_start_that_is_the_solution_costs_one_evaluation(method: str, offset: float, solution: float) -> None:
    start = torch.full((2, 3), solution)
    found = solve(lambda x: 0.5 * x + offset, start, method=method, tolerance=1e-6, max_steps=50)
    assert (found.steps, found.residual, found.converged) == (1, 0.0, True)
    assert torch.equal(found.value, start)


@every_solver
def test_sample_that_is_solved_already_disturbs_no_other(method: str) -> None:
    """In float32, where updates from rounding noise would show."""
    _, exact = linear_map(0.9)
    a, b = matrix(0.9).float(), constants().float()
    start = torch.zeros(BATCH, SIZE)
    start[0] = exact[0].float()
    found = solve(lambda x: x @ a.t() + b, start, method=method, tolerance=1e-6, max_steps=200)
    assert found.converged
    # Residual 1e-6 of a norm of about 10, divided by 1 - 0.9.
    assert_close(found.value.double(), exact, rtol=0, atol=1e-4)


@every_solver
def test_sample_that_is_solved_exactly_stays_finite(method: str) -> None:
    """Its steps and changes are zero, and 0 / 0 must not spread."""
    f, exact = linear_map(0.9)
    start = torch.zeros(BATCH + 1, SIZE, dtype=torch.float64)

    def with_a_constant(x: Tensor) -> Tensor:
        return torch.cat([f(x[:-1]), torch.zeros_like(x[-1:])])

    found = solve(with_a_constant, start, method=method, tolerance=1e-12, max_steps=1000)
    assert found.converged
    assert torch.equal(found.value[-1], start[-1])
    assert_close(found.value[:-1], exact, rtol=0, atol=1e-10)  # residual 1e-12 of a norm of about 10, over 1 - 0.9


def test_broyden_takes_the_steps_of_the_dense_formula() -> None:
    """H <- H + (s - H y) (s^T H) / (s^T H y) from H = -1, each sample on its own."""
    f, _ = nonlinear_map()
    visited: list[Tensor] = []

    def noted(x: Tensor) -> Tensor:
        visited.append(x.clone())
        return f(x)

    start = constants()
    solve(noted, start, method="broyden", tolerance=1e-14, max_steps=9)
    inverse = -torch.eye(SIZE, dtype=torch.float64).expand(BATCH, SIZE, SIZE)
    x, g = start, f(start) - start
    for step in range(1, 9):
        s = -(inverse @ g[..., None])[..., 0]
        x = x + s
        new = f(x) - x
        y = new - g
        left, right = s - (inverse @ y[..., None])[..., 0], (s[:, None] @ inverse)[:, 0]
        inverse = inverse + left[..., None] * right[:, None] / (right * y).sum(1)[:, None, None]
        g = new
        assert_close(visited[step], x, rtol=1e-9, atol=1e-9)  # rounding, amplified by a few small denominators


@every_solver
def test_shape_of_the_start_is_kept(method: str) -> None:
    start = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    found = solve(lambda x: 0.5 * x.roll(1, dims=3) + 1, start, method=method, tolerance=1e-9, max_steps=100)
    assert_close(found.value, torch.full_like(start, 2.0), rtol=0, atol=1e-8)  # residual 1e-9, contraction 0.5


@every_solver
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_value_that_is_not_finite_is_refused(method: str, poison: float) -> None:
    def f(x: Tensor) -> Tensor:
        image = 0.5 * x + 1
        if float(x.abs().max()) > 0:
            image[0, 0] = poison
        return image

    with pytest.raises(ConvergenceError, match=r"solver step 2: the iterate is not finite .* lower the learning rate"):
        solve(f, torch.zeros(2, 3), method=method, tolerance=1e-6, max_steps=50)


def test_divergence_is_refused_once_it_overflows() -> None:
    with pytest.raises(ConvergenceError, match=r"solver step \d+: the iterate is not finite"):
        solve(lambda x: 100 * x + 1, torch.ones(1, 2), method="fixed_point", tolerance=1e-6, max_steps=100)


def test_accelerated_solvers_need_fewer_products_on_a_slow_map() -> None:
    """Why they are there: 0.99 contracts slowly; Broyden is exact on a linear map after 2 * SIZE products."""
    f, _ = linear_map(0.99, symmetric=True)
    steps = {m: solve(f, constants(), method=m, tolerance=1e-9, max_steps=5000).steps for m in SOLVER_NAMES}
    assert steps["broyden"] <= 2 * SIZE + 2 < steps["fixed_point"]
    assert steps["anderson"] < steps["fixed_point"]


@every_solver
def test_processes_that_share_a_batch_stop_together(method: str) -> None:
    """`sums` adds up squared norms: the same batch twice has the same residual, a worse one elsewhere goes on."""
    f, _ = linear_map(0.5)
    alone = solve(f, constants(), method=method, tolerance=1e-6, max_steps=100)
    twice = solve(f, constants(), method=method, tolerance=1e-6, max_steps=100, sums=lambda squares: 2 * squares)
    assert twice.steps == alone.steps
    # The root of a doubled square rounds once more.
    assert_close(twice.residual, alone.residual, rtol=1e-12, atol=0)
    far = torch.tensor([0.0, 1.0], dtype=torch.float64)
    other = solve(f, constants(), method=method, tolerance=1e-6, max_steps=100, sums=lambda squares: squares + far)
    assert (other.steps, other.converged) == (100, False)
