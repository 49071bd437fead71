"""Inputs that do not fit are refused with what was found and what is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from fsnn_lava.errors import InputError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import INPUT, Connection, FloatNeuron, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.hardware.run_io import check_inputs


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
        check_inputs(GRADED, [[1]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no population \['b'\] to record; there are: a"):
        check_inputs(GRADED, codes(1, 2, 3), record=["b"])
    with pytest.raises(InputError, match=r'record is the string "a"; expected a sequence of names: \["a"\]'):
        check_inputs(GRADED, codes(1, 2, 3), record="a")
