"""A network of normalised values that takes codes: what is exact, and what is refused. See also test_lower."""

import dataclasses

import numpy as np
import pytest

from fsnn_lava.conversion.fold_normalisation import on_codes
from fsnn_lava.datasets import InputCoding
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware.geometry import Convolution, TransposedConvolution
from fsnn_lava.hardware.linear_maps import linear_map
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.neurons import FloatNeuron

CODING = InputCoding("graded", 255, 1 / 255, mean=(0.5, 0.2), std=(0.2, 1.1))
RNG = np.random.default_rng(0)
NEURON = FloatNeuron(1.0, 1.0, 1.0)


def network() -> HardwareNetwork:
    """The input into two populations by each geometry, one of them with a constant current."""
    return HardwareNetwork(
        "values",
        InputSpec((2, 3, 4), "graded", 1),
        (Population("a", (3, 3, 4), NEURON), Population("b", (1, 6, 8), NEURON)),
        (
            Connection("convolution", INPUT, "a", RNG.normal(size=(3, 2, 3, 3)), geometry=Convolution(1, 1)),
            Connection("on", ALWAYS_ON, "a", RNG.normal(size=(36, 1))),
            Connection("dense", INPUT, "a", RNG.normal(size=(36, 24))),
            Connection("up", INPUT, "b", RNG.normal(size=(2, 1, 3, 3)), geometry=TransposedConvolution(2, 1, 1)),
        ),
        Readout("b", np.ones((2, 48)), np.zeros(2)),
        4,
    )


def currents(of: HardwareNetwork, x: np.ndarray) -> dict[str, np.ndarray]:
    found = {p.name: np.zeros((len(x), p.size)) for p in of.populations}
    for c in of.connections:
        found[c.target] += linear_map(of, c).product(np.ones((len(x), 1)) if c.source == ALWAYS_ON else x)
    return found


def test_codes_bring_the_currents_of_their_values() -> None:
    codes, plain = RNG.integers(0, 256, (5, 2, 3, 4)), network()
    changed = on_codes(plain, CODING)
    assert (changed.input.kind, changed.input.maximum, changed.input.shape) == ("graded", 255, (2, 3, 4))
    values = (codes / 255 - np.array(CODING.mean)[:, None, None]) / np.array(CODING.std)[:, None, None]
    expected, found = currents(plain, values.reshape(5, -1)), currents(changed, codes.reshape(5, -1).astype(float))
    for name in expected:
        # 1e-12: the same sums of float64 numbers of size 10 in another order.
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-12)
    assert [c.name for c in changed.connections] == ["convolution", "on", "dense", "up", "b_current"]


def test_late_inputs_are_refused() -> None:
    plain = network()
    delayed = (dataclasses.replace(c, delay=2 if c.name == "dense" else 0) for c in plain.connections)
    late = dataclasses.replace(plain, connections=tuple(delayed))
    with pytest.raises(UnsupportedError, match=r'"dense" \(input -> a\): found inputs that arrive 2 step\(s\) after'):
        on_codes(late, CODING)
