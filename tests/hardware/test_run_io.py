"""Firing rates, logits, predictions and accuracy of a run."""

from __future__ import annotations

import numpy as np
import pytest

from fsnn_lava.errors import InputError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import Readout
from fsnn_lava.hardware.run_io import RunResult, accuracy, rate_weights, rates_from_spikes, read_out


def run_with(logits: Array) -> RunResult:
    return RunResult("x", "net", "float", 1, {}, {}, logits)


def test_rate_weights_by_hand() -> None:
    """leak 1/2, T = 3: 1/4, 1/2, 1 over their sum 7/4."""
    np.testing.assert_allclose(rate_weights(3, 0.5), [1 / 7, 2 / 7, 4 / 7], rtol=1e-15)
    assert rate_weights(4, 1.0).tolist() == [0.25] * 4
    assert rate_weights(1, 0.3).tolist() == [1.0]


def test_rates_weigh_the_last_spike_most() -> None:
    spikes = np.array([[1, 0], [1, 0], [0, 1]], np.uint8)[:, None, :]
    np.testing.assert_allclose(rates_from_spikes(spikes, 0.5), [[3 / 7, 4 / 7]], rtol=1e-15)


def test_rates_without_leak_are_counts_exactly() -> None:
    """More than 255 spikes in bytes, and a quotient that a sum of weights would miss by its last bit."""
    spikes = np.ones((1000, 2, 3, 4), np.uint8)
    spikes[::10, 0] = 0
    rates = rates_from_spikes(spikes, 1.0)
    assert rates.shape == (2, 3, 4)
    assert (rates[0] == 0.9).all()
    assert (rates[1] == 1.0).all()
    assert rates_from_spikes(np.ones((49, 1), np.uint8), 1.0)[0] == 1.0


def test_constant_firing_has_rate_one_with_leak() -> None:
    # 1e-12: 300 weights that sum to 1 up to rounding.
    np.testing.assert_allclose(rates_from_spikes(np.ones((300, 2), np.uint8), 0.95), 1.0, rtol=1e-12)


def test_read_out_by_hand() -> None:
    readout = Readout("p", np.array([[1.0, 2.0, 0.0, -1.0]]), np.array([0.5]))
    rates = {"p": np.array([[[0.1, 0.2], [0.3, 0.4]]]), "q": np.ones((1, 4))}
    np.testing.assert_allclose(read_out(readout, rates), [[0.6]], rtol=1e-14)


def test_accuracy_counts_right_predictions() -> None:
    run = run_with(np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]))
    assert run.predictions.tolist() == [1, 0, 1]
    assert accuracy(run, np.array([1, 0, 0])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("labels", [np.zeros(2, np.int64), np.zeros((3, 1), np.int64)])
def test_refuses_labels_that_do_not_fit(labels: Array) -> None:
    with pytest.raises(InputError, match='run "x" has 3 samples; found labels of shape'):
        accuracy(run_with(np.zeros((3, 2))), labels)
