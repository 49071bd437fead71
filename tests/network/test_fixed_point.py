"""One zoo of maps runs through every solver; a dense solve or a long iteration says what is right.

Solvers are tried each by itself (`alone`); what `solve` hands from one to the next comes last.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fsnn_lava.config import SOLVERS
from fsnn_lava.errors import ConvergenceError
from fsnn_lava.network.fixed_point import FixedPoint, OfRows, Solver, fixed_point_iteration, solve, spectral_radii

SOLVER_NAMES = tuple(SOLVERS)
SIZE, BATCH = 12, 3
every_solver = pytest.mark.parametrize("method", SOLVER_NAMES)


def alone(
    f: Any, start: Tensor, *, method: str, tolerance: float, max_steps: int, least_norm: float = 0.0
) -> FixedPoint:
    """What one solver does without the others."""
    solver: Solver = SOLVERS.get(method)
    return solver(f, start, tolerance=tolerance, max_steps=max_steps, least_norm=least_norm)


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


def residuals_at(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    image = f(x)
    return (image - x).norm(dim=1) / image.norm(dim=1)


ZOO = [
    pytest.param(lambda: linear_map(0.5), id="linear"),
    pytest.param(lambda: linear_map(0.95, symmetric=True), id="linear, slow"),
    pytest.param(nonlinear_map, id="nonlinear"),
    pytest.param(clamped_map, id="clamped"),
]


@every_solver
@pytest.mark.parametrize("make", ZOO)
def test_solvers_find_fixed_point(make: Callable[[], tuple[Callable[[Tensor], Tensor], Tensor]], method: str) -> None:
    f, exact = make()
    found = alone(f, torch.zeros(BATCH, SIZE, dtype=torch.float64), method=method, tolerance=1e-12, max_steps=1000)
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
    found = alone(f, start, method=method, tolerance=1e-8, max_steps=max_steps)
    true = residuals_at(f, found.value)
    further = found.done & (method == "fixed_point")  # one step further than the iterate of the residual
    assert (true[further] <= found.residuals[further]).all()
    assert_close(found.residuals[~further], true[~further], rtol=1e-12, atol=0)
    assert torch.equal(found.done, found.residuals <= 1e-8)


@every_solver
@pytest.mark.parametrize("max_steps", [1, 2, 3, 5, 500])
def test_steps_are_the_evaluations_of_the_map(method: str, max_steps: int) -> None:
    f = Counted(linear_map(0.9)[0])
    found = alone(f, constants(), method=method, tolerance=1e-10, max_steps=max_steps)
    assert found.steps == f.calls <= max_steps
    assert found.converged == (found.residual <= 1e-10) == (max_steps == 500)


@every_solver
def test_no_step_is_taken_beyond_the_tolerance(method: str) -> None:
    f, _ = linear_map(0.9)
    start = constants()
    loose = alone(f, start, method=method, tolerance=1e-2, max_steps=500)
    tight = alone(f, start, method=method, tolerance=1e-8, max_steps=500)
    assert loose.converged
    assert 1e-8 < loose.residual <= 1e-2
    assert loose.steps < tight.steps
    short = alone(f, start, method=method, tolerance=1e-2, max_steps=loose.steps - 1)
    assert not short.converged


@every_solver
def test_best_iterate_comes_back_if_none_converged(method: str) -> None:
    """The plain iteration spirals outwards from 0.5: 0.25 (image 0.625, relative residual 0.6), 0.625, 0.0625, ..."""
    start = torch.full((1, 1), 0.5, dtype=torch.float64)
    found = alone(lambda x: -1.5 * x + 1, start, method=method, tolerance=1e-12, max_steps=6)
    if method == "fixed_point":
        assert (found.value.item(), found.residual, found.steps, found.converged) == (0.25, 0.6, 5, False)
    else:  # the accelerated ones need no contraction
        assert found.converged
        assert found.value.item() == pytest.approx(0.4, rel=1e-10)


@every_solver
@pytest.mark.parametrize(("offset", "solution"), [(1.0, 2.0), (0.0, 0.0)])
def test_start_that_is_the_solution_costs_one_evaluation(method: str, offset: float, solution: float) -> None:
    start = torch.full((2, 3), solution)
    found = alone(lambda x: 0.5 * x + offset, start, method=method, tolerance=1e-6, max_steps=50)
    assert (found.steps, found.residual, found.converged) == (1, 0.0, True)
    assert torch.equal(found.value, start)


@every_solver
def test_sample_that_is_solved_already_disturbs_no_other(method: str) -> None:
    """In float32, where updates from rounding noise would show."""
    _, exact = linear_map(0.9)
    a, b = matrix(0.9).float(), constants().float()
    start = torch.zeros(BATCH, SIZE)
    start[0] = exact[0].float()
    found = alone(lambda x: x @ a.t() + b, start, method=method, tolerance=1e-6, max_steps=200)
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

    found = alone(with_a_constant, start, method=method, tolerance=1e-12, max_steps=1000)
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
    alone(noted, start, method="broyden", tolerance=1e-14, max_steps=9)
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
    found = alone(lambda x: 0.5 * x.roll(1, dims=3) + 1, start, method=method, tolerance=1e-9, max_steps=100)
    assert_close(found.value, torch.full_like(start, 2.0), rtol=0, atol=1e-8)  # residual 1e-9, contraction 0.5


@every_solver
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_sample_that_is_not_finite_keeps_its_last_finite_iterate(method: str, poison: float) -> None:
    """It ends without a result, and the others as if it were not there."""
    f, exact = linear_map(0.5)

    def poisoned(x: Tensor) -> Tensor:
        image = f(x)
        if bool(x[0].any()):
            image[0, 0] = poison
        return image

    start = torch.zeros(BATCH, SIZE, dtype=torch.float64)
    found = alone(poisoned, start, method=method, tolerance=1e-12, max_steps=200)
    assert found.done.tolist() == [False, True, True]
    assert found.value.isfinite().all()
    assert_close(found.value[1:], exact[1:], rtol=0, atol=1e-10)
    without = alone(f, start, method=method, tolerance=1e-12, max_steps=200)
    assert torch.equal(found.value[1:], without.value[1:])


def test_plain_iteration_gives_up_what_grows() -> None:
    f = Counted(lambda x: 100 * x + 1)
    found = alone(f, torch.ones(1, 2), method="fixed_point", tolerance=1e-6, max_steps=100)
    assert (f.calls, found.steps, found.unconverged) == (4, 4, 1)
    assert found.gains.item() == pytest.approx(100, rel=1e-6)


def test_accelerated_solvers_need_fewer_products_on_a_slow_map() -> None:
    """Why they are there: 0.99 contracts slowly; Broyden is exact on a linear map after 2 * SIZE products."""
    f, _ = linear_map(0.99, symmetric=True)
    steps = {m: alone(f, constants(), method=m, tolerance=1e-9, max_steps=5000).steps for m in SOLVER_NAMES}
    assert steps["broyden"] <= 2 * SIZE + 2 < steps["fixed_point"]
    assert steps["anderson"] < steps["fixed_point"]


@every_solver
def test_small_samples_are_done_at_the_least_norm(method: str) -> None:
    """One of a millionth of the others' size needs no digits of its own."""
    a = matrix(0.9)
    b = constants() * torch.tensor([1.0, 1.0, 1e-6], dtype=torch.float64)[:, None]
    f = Counted(lambda x: x @ a.t() + b)
    own = alone(f, b, method=method, tolerance=1e-3, max_steps=500)
    calls = f.calls
    loose = alone(f, b, method=method, tolerance=1e-3, max_steps=500, least_norm=1.0)
    assert own.done.all()
    assert loose.done.all()
    assert loose.residuals[2] < 1e-5
    assert f.calls - calls <= calls
    assert (f(loose.value) - loose.value)[2].norm() <= 1e-3
    assert (f(own.value) - own.value)[2].norm() <= 1e-8


# ---- one solver after the other


def rotations(*radii: float) -> Callable[[Tensor], Tensor]:
    """Linear maps of one spectral radius per sample, the same normal matrix but for it, and constants."""
    quarter = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    for i in range(0, SIZE, 2):
        angle = torch.tensor(0.5 + 0.4 * i, dtype=torch.float64)
        quarter[i : i + 2, i : i + 2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    scale = torch.tensor(radii, dtype=torch.float64)[:, None]
    return lambda x: scale[-len(x) :] * (x @ quarter.t()) + 1


def test_what_plain_iteration_cannot_do_is_handed_on_and_changes_no_other_sample() -> None:
    """One sample of radius 1.9 among contracting ones, as when the loop of a deep network stops contracting."""
    start = torch.zeros(4, SIZE, dtype=torch.float64)
    mixed, calm = rotations(0.3, 1.9, 0.6, 0.8), rotations(0.3, 0.6, 0.8)
    rows: list[list[int]] = []
    scale = torch.tensor([0.3, 1.9, 0.6, 0.8], dtype=torch.float64)

    def of_rows(which: Tensor) -> Callable[[Tensor], Tensor]:
        rows.append(which.tolist())
        return rotations(*scale[which].tolist())

    options = {"method": "fixed_point", "tolerance": 1e-10, "max_steps": 200}
    found = solve(mixed, start, **options, of_rows=of_rows)  # type: ignore[arg-type]
    assert rows[:3] == [[2, 3], [3], [1]], "half of them go on alone once the others are done or given up"
    assert all(which == [1] for which in rows[2:])
    assert found.converged
    assert found.steps > alone(mixed, start, **options).steps  # type: ignore[arg-type]
    assert_close(mixed(found.value), found.value, rtol=0, atol=1e-8)
    assert found.gains[1].item() == pytest.approx(1.9, rel=1e-9)
    others = solve(calm, start[:3], **options)  # type: ignore[arg-type]
    assert_close(found.value[[0, 2, 3]], others.value, rtol=0, atol=1e-14)


@pytest.mark.parametrize("batch", [1, 2, 5, 128])
def test_samples_that_go_on_alone_take_the_same_course(batch: int) -> None:
    """Half of the samples after another: values, residuals, gains and evaluations are those of the whole batch."""
    radii = torch.linspace(0.05, 0.9, batch, dtype=torch.float64)[torch.randperm(batch)]
    asked: list[int] = []

    def turning(which: Tensor) -> Callable[[Tensor], Tensor]:
        """Maps of these radii whose sums are the same in any batch."""
        return lambda x: radii[which, None] * x.roll(1, 1) + torch.arange(SIZE) / SIZE

    def of_rows(which: Tensor) -> Callable[[Tensor], Tensor]:
        asked.append(len(which))
        return turning(which)

    def found(max_steps: int, **alone: OfRows) -> FixedPoint:
        start = torch.ones(batch, SIZE, dtype=torch.float64)
        return fixed_point_iteration(turning(torch.arange(batch)), start, tolerance=1e-9, max_steps=max_steps, **alone)

    for most in (500, 9, 4):
        asked.clear()
        together, alone = found(most), found(most, of_rows=of_rows)
        assert alone.steps == together.steps
        for name in ("value", "residuals", "gains", "done"):
            assert torch.equal(getattr(alone, name), getattr(together, name)), name
        assert all(2 * b <= a for a, b in itertools.pairwise([batch, *asked]))
        assert most < 500 or bool(asked) == (batch > 1)


def test_what_no_solver_can_do_is_counted_and_keeps_its_best_iterate() -> None:
    """x = x + 1 has no solution."""
    start = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    wanted = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    found = solve(
        lambda x: torch.where(wanted[-len(x) :] > 0, x + 1, 0.5 * x) if len(x) == 2 else x + 1,
        start,
        method="fixed_point",
        tolerance=1e-9,
        max_steps=40,
    )
    assert (found.unconverged, found.converged, found.done.tolist()) == (1, False, [False, True])
    assert found.value.isfinite().all()
    assert found.residual == found.residuals[0] < 1


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_start_that_is_not_finite_is_refused(poison: float) -> None:
    start = torch.tensor([[0.0], [poison]])
    with pytest.raises(ConvergenceError, match=r"the start of a solve is not finite.* lower the learning rate"):
        solve(lambda x: 0.5 * x, start, method="fixed_point", tolerance=1e-6, max_steps=50)


def matrices(*spectra: tuple[float, ...]) -> Tensor:
    """(B, n, n) with these eigenvalues, their eigenvectors at any angles to each other."""
    generator = torch.Generator().manual_seed(3)
    n = len(spectra[0])
    vectors = torch.eye(n).double() + 0.3 * torch.rand(len(spectra), n, n, generator=generator).double()
    return vectors @ torch.diag_embed(torch.tensor(spectra).double()) @ torch.linalg.inv(vectors)


def test_spectral_radii_are_the_largest_magnitudes_of_eigenvalues() -> None:
    """Sample by sample, of any sign and size; also where the first products shrink or grow otherwise than the last."""
    maps = matrices((0.9, 0.1, 0.05, 0.0), (-1.7, 0.3, 0.2, 0.1), (1e-3, 1e-4, 0.0, 0.0), (30.0, 1.0, 0.5, 0.1))
    maps[0, 0] += 5 * torch.tensor([0.0, 0.0, 0.0, 1.0])  # what a first product makes of a start is not its radius
    expected = torch.linalg.eigvals(maps).abs().amax(1)
    found = spectral_radii(lambda v: (maps @ v[..., None])[..., 0], torch.ones(4, 4).double())
    assert found.dtype == torch.float64
    assert_close(found, expected, rtol=1e-3, atol=0)


def test_spectral_radii_take_images_and_maps_that_let_nothing_through() -> None:
    found = spectral_radii(lambda v: v * torch.tensor([0.5, 0.0]).view(2, 1, 1, 1), torch.ones(2, 3, 2, 2))
    assert found[0] == pytest.approx(0.5, rel=1e-6)
    assert found[1] < 1e-20
