"""The compiled kernels against the plain formulas: neurons to the bit, sparse products to their rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fsnn_lava import event_kernels
from fsnn_lava.event_kernels import advance_neurons, sparse_product
from fsnn_lava.neuron import NeuronParameters, NeuronState, fire, integrate


def sparse(share: float, *, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(7, 31, generator=generator, dtype=dtype)
    return values * (torch.rand(7, 31, generator=generator) < share)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.1, event_kernels.DENSE_SHARE + 0.3, 1.0])
def test_sparse_product_is_the_product(share: float, dtype: torch.dtype) -> None:
    x = sparse(share, dtype=dtype)
    rows = torch.randn(31, 13, generator=torch.Generator().manual_seed(1), dtype=dtype)
    # Another order of 31 additions: an error of a few units in the last place of sums of about 5.
    assert_close(sparse_product(x, rows), x @ rows, rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=1e-5)
    assert_close(sparse_product(x, rows[:, ::2]), x @ rows[:, ::2], rtol=1e-5, atol=1e-5)


def test_sums_of_integers_are_exact_and_strided_inputs_are_read_right() -> None:
    x = sparse(0.2, dtype=torch.float32).round()
    rows = torch.arange(31 * 13, dtype=torch.float32).view(13, 31).t()
    assert torch.equal(sparse_product(x, rows), x @ rows)
    assert torch.equal(sparse_product(x.t().contiguous().t(), rows), x @ rows)


def test_few_zeros_take_the_dense_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the event kernel ran")

    monkeypatch.setattr(event_kernels, "_add_rows", fail)
    rows = torch.eye(31)
    assert torch.equal(sparse_product(torch.ones(2, 31), rows), torch.ones(2, 31))
    with pytest.raises(AssertionError, match="the event kernel ran"):
        sparse_product(sparse(0.1, dtype=torch.float32), rows)


def test_gradients_are_not_recorded() -> None:
    weight = torch.randn(31, 13, requires_grad=True)
    for share in (0.1, 1.0):
        assert not sparse_product(sparse(share, dtype=torch.float32), weight).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leak", [1.0, 0.75])
def test_steps_are_those_of_the_pure_functions(leak: float, dtype: torch.dtype) -> None:
    """To the bit: with these currents and a leak of three quarters every product and sum is exact."""
    neuron = NeuronParameters(v_threshold=1.5, reset_amount=2.0, leak=leak)
    generator = torch.Generator().manual_seed(2)
    v = spikes = weighted = total = torch.zeros(3, 4, 5, dtype=dtype)
    state = NeuronState(v, neuron)
    for _ in range(8):
        current = (torch.randn(3, 5, 4, generator=generator) * 2).round().to(dtype).transpose(1, 2)
        v = integrate(v, spikes, current, neuron=neuron)
        spikes = fire(v, neuron=neuron)
        weighted, total = leak * weighted + spikes, total + spikes
        assert torch.equal(state.advance(current), spikes)
    assert 0 < total.sum() < total.numel() * 8
    assert torch.equal(state.weighted_count, weighted)
    assert torch.equal(state.count, total)


def test_potential_at_the_threshold_fires_and_just_below_does_not() -> None:
    zero = torch.zeros(1, 2, dtype=torch.float64)
    below = torch.nextafter(torch.tensor(2.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    current = torch.stack([torch.tensor(2.0, dtype=torch.float64), below])[None]
    fired = advance_neurons(
        zero.clone(), zero, current, weighted_count=zero.clone(), count=zero.clone(), constants=(2.0, 2.0, 0.5)
    )
    assert fired.tolist() == [[1.0, 0.0]]
