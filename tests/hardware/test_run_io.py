"""Firing rates, logits, predictions and accuracy of a run."""

import numpy as np
import pytest

from fsnn_lava.errors import InputError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron
from fsnn_lava.hardware.run_io import RunResult, accuracy, check_inputs, rate_weights, rates_from_spikes, read_out


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


def network(spec: InputSpec) -> HardwareNetwork:
    populations = (Population("a", (1,), FloatNeuron(1.0, 1.0, 1.0)),)
    connections = (Connection("in", INPUT, "a", np.ones((1, spec.size))),)
    return HardwareNetwork("net", spec, populations, connections, Readout("a", np.ones((1, 1)), np.zeros(1)), 5)


GRADED = network(InputSpec((2, 3), "graded", 16))
EVENT = network(InputSpec((2, 3), "event", 1))


def codes(*shape: int, value: int = 1) -> Array:
    return np.full(shape, value, dtype=np.int64)


def test_fitting_inputs_return_the_number_of_samples() -> None:
    assert check_inputs(GRADED, codes(4, 2, 3, value=16), record=["a"]) == 4
    assert check_inputs(EVENT, codes(5, 7, 2, 3)) == 7
    assert check_inputs(EVENT, codes(5, 7, 2, 3).astype(bool)) == 7
    assert check_inputs(GRADED, codes(1, 2, 3).astype(np.uint8)) == 1


@pytest.mark.parametrize(
    ("net", "inputs", "message"),
    [
        (GRADED, codes(4, 3, 2), r"graded inputs of shape \(4, 3, 2\); expected \(B, 2, 3\)"),
        (GRADED, codes(2, 3), r"graded inputs of shape \(2, 3\); expected \(B, 2, 3\)"),
        (EVENT, codes(7, 2, 3), r"event inputs of shape \(7, 2, 3\); expected \(T, B, 2, 3\) = \(5, B, 2, 3\)"),
        (EVENT, codes(6, 7, 2, 3), r"6 event frames per sample; the network runs 5 steps"),
        (GRADED, codes(0, 2, 3), r"no sample in inputs of shape \(0, 2, 3\); expected at least one"),
        (EVENT, codes(5, 0, 2, 3), "no sample"),
        (GRADED, codes(4, 2, 3, value=17), r"input codes from 17 to 17; allowed: 0 .. 16"),
        (GRADED, codes(4, 2, 3, value=-1), r"input codes from -1 to -1; allowed: 0 .. 16"),
        (EVENT, codes(5, 7, 2, 3, value=2), r"allowed: 0 .. 1"),
        (GRADED, codes(4, 2, 3) / 2, r"inputs of type float64; expected integer codes 0 .. 16; convert"),
        (GRADED, codes(4, 2, 3).astype(bool), r"inputs of type bool; expected integer codes"),
        (EVENT, codes(5, 7, 2, 3) * 1.0, r"inputs of type float64; expected integers or booleans, 0 or 1"),
    ],
)
def test_inputs_that_do_not_fit(net: HardwareNetwork, inputs: Array, message: str) -> None:
    with pytest.raises(InputError, match=rf'network "net": .*{message}'):
        check_inputs(net, inputs)


def test_lists_and_unknown_populations_are_refused() -> None:
    with pytest.raises(InputError, match="inputs are a list; expected a NumPy array"):
        check_inputs(GRADED, [[1]])
    with pytest.raises(InputError, match=r"no population \['b'\] to record; there are: a"):
        check_inputs(GRADED, codes(1, 2, 3), record=["b"])
    with pytest.raises(InputError, match=r'record is the string "a"; expected a sequence of names: \["a"\]'):
        check_inputs(GRADED, codes(1, 2, 3), record="a")
