"""What Lava and Loihi 2 cannot say of a network: every reason at once. Needs no Lava."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fsnn_lava.backends.lava.chip_limits import (
    hardware_violations,
    lava_delay,
    require_hardware,
    require_stock_models,
)
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import ALWAYS_ON, DENSE, INPUT, Array, FloatNeuron, Geometry, IntegerNeuron, with_timing
from fsnn_lava.hardware.geometry import Convolution, TransposedConvolution
from fsnn_lava.hardware.network import Connection, HardwareNetwork, InputSpec, Population, Readout


def ones(rows: int, columns: int, value: int = 1) -> Array:
    return np.full((rows, columns), value, dtype=np.int32)


def network(*, maximum: int = 255, reset_exponent: int = 0, value: int = 1) -> HardwareNetwork:
    """Two populations with feedback, in the hardware's timing."""
    neuron = IntegerNeuron(100, 100, reset_exponent, 0, 1.0)
    connections = (
        Connection("in", INPUT, "a", ones(3, 4, value), 0, 0, 8),
        Connection("on", ALWAYS_ON, "b", ones(2, 1), 0, 0, 8),
        Connection("forward", "a", "b", ones(2, 3), 0, 0, 8),
        Connection("feedback", "b", "a", ones(3, 2), 1, 0, 8),
    )
    populations = (Population("a", (3,), neuron), Population("b", (2,), neuron))
    readout = Readout("b", np.ones((2, 2)), np.zeros(2))
    spec = InputSpec((4,), "graded", maximum)
    return with_timing(HardwareNetwork("net", spec, populations, connections, readout, 5), "hardware")


def test_hardware_timing_is_fine() -> None:
    assert hardware_violations(network()) == []
    require_hardware(network(), backend="lava-fixed")
    assert [lava_delay(network(), c) for c in network().connections] == [1, 2, 1, 1]


def test_sequential_timing_is_refused_with_every_reason_and_the_way_out() -> None:
    sequential = with_timing(network(), "sequential")
    with pytest.raises(UnsupportedError) as caught:
        require_hardware(sequential, backend="lava-fixed")
    message = str(caught.value)
    assert '"lava-fixed" cannot say network "net", 3 violation(s)' in message
    assert 'connection "in" (input -> a): found delay 0; allowed: 1 .. 64 steps' in message
    assert (
        'connection "on" (always_on -> b): found a target that starts at step 0; allowed: a start of 1 .. 6' in message
    )
    assert 'connection "forward" (a -> b): found delay 0' in message
    assert 'with_timing(network, "hardware")' in message


@pytest.mark.parametrize(
    ("changed", "count"),
    [({"reset": "zero"}, 0), ({"reset": "zero", "current_decay": 9}, 0), ({"current_decay": 9}, 1)],
)
def test_what_a_spike_subtracts_may_not_decay(changed: dict[str, Any], count: int) -> None:
    base = network()
    neuron = replace(base.populations[0].neuron, **changed)
    found = hardware_violations(
        replace(base, populations=(replace(base.populations[0], neuron=neuron), *base.populations[1:]))
    )
    expected = (
        'population "a": found a current that decays, current_leak 0.997803, and reset by subtraction; allowed: one of '
        "the two: what a spike subtracts reaches Lava's neuron over a synapse, and would decay as well"
    )
    assert [str(v) for v in found] == [expected] * count


def test_no_reset_synapse_no_limits_of_it() -> None:
    base = network(reset_exponent=7)
    zero = tuple(replace(p, neuron=replace(p.neuron, reset="zero")) for p in base.populations)
    assert hardware_violations(replace(base, populations=zero)) == []


def test_longest_delay() -> None:
    base = network()
    for delay, count in ((64, 0), (65, 1)):
        late = replace(base.connections[3], delay=delay)
        changed = replace(base, connections=(*base.connections[:3], late))
        assert len(hardware_violations(changed)) == count


def test_messages_resets_and_sums_have_limits() -> None:
    assert "codes up to 256" in str(hardware_violations(network(maximum=256))[0])
    found = hardware_violations(network(reset_exponent=7))
    assert [str(v) for v in found] == [
        f'population "{name}": found reset exponent 7; allowed: 0 .. 6' for name in ("a", "b")
    ]
    large = "\n".join(map(str, hardware_violations(network(maximum=2**22, value=127))))
    assert 'connection "in" (input -> a): found a sum that can reach 4261412864; allowed: at most 2147483647' in large
    assert 'population "a": found an input that can reach' in large


def convolved(weight: Array, geometry: Geometry, *, kind: str, exponent: int = 0) -> HardwareNetwork:
    """An image of 1 x 4 x 4 through one kernel."""
    spec = InputSpec((1, 4, 4), "event", 1) if kind == "event" else InputSpec((1, 4, 4), "graded", 255)
    side = (4 + 2 * geometry.padding - weight.shape[2]) // geometry.stride + 1 if geometry.padding else 2
    population = Population("a", (1, side, side), IntegerNeuron(100, 100, 0, 0, 1.0), 1)
    kernel = Connection("k", INPUT, "a", weight, 1, exponent, 8, geometry)
    readout = Readout("a", np.ones((1, side * side)), np.zeros(1))
    return HardwareNetwork("kernels", spec, (population,), (kernel,), readout, 5)


def test_convolutions_have_no_positive_exponent_unless_they_carry_codes() -> None:
    kernel = np.ones((1, 1, 3, 3), np.int32)
    assert hardware_violations(convolved(kernel, Convolution(), kind="graded", exponent=-2)) == []
    assert hardware_violations(convolved(kernel, Convolution(), kind="event")) == []
    found = hardware_violations(convolved(kernel, Convolution(), kind="event", exponent=2))
    assert [str(v) for v in found] == [
        'connection "k" (input -> a): found weight exponent 2; allowed: at most 0 of a Conv; several that add up are '
        "larger weights"
    ]
    assert hardware_violations(convolved(kernel, Convolution(), kind="event", exponent=-8)) == []
    transposed = convolved(kernel, TransposedConvolution(1, 1), kind="event", exponent=2)
    assert hardware_violations(transposed) == []


def test_lavas_own_models_take_convolutions_with_exponents_that_can_be_unrolled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nine weights at each of the 2 x 2 places that the kernel has on the image."""
    scaled, plain = (
        convolved(np.ones((1, 1, 3, 3), np.int32), Convolution(), kind="event", exponent=exponent)
        for exponent in (-1, 0)
    )
    require_stock_models(scaled, backend="lava-fixed")
    monkeypatch.setattr("fsnn_lava.backends.lava.chip_limits.UNROLLED_LIMIT", 35)
    require_stock_models(plain, backend="lava-fixed")
    with pytest.raises(
        UnsupportedError, match=r'own model of Conv ignores .*"k" \(input -> a\) 2\*\*-1; .* 36 synapses'
    ):
        require_stock_models(scaled, backend="lava-fixed")


def test_kernels_that_lavas_conv_cannot_count() -> None:
    wide = convolved(np.ones((1, 1, 128, 128), np.int32), Convolution(1, 62), kind="event")
    assert "found kernel 128, stride 1, padding 62; allowed: at most 127 each" in str(hardware_violations(wide)[0])


def test_sums_of_convolutions_stay_in_24_bits() -> None:
    """4 x 4 events times 2 * 127 per channel: 1032 channels fit, 1033 wrap in Lava's Conv, in Dense they would not."""
    for channels, count in ((2064, 0), (2066, 1)):
        spec = InputSpec((channels, 4, 4), "event", 1)
        population = Population("a", (1, 1, 1), IntegerNeuron(100, 100, 0, 0, 1.0), 1)
        weight = np.full((1, channels, 4, 4), -127, np.int32)
        kernel = Connection("k", INPUT, "a", weight, 1, 0, 8, Convolution())
        readout = Readout("a", np.ones((1, 1)), np.zeros(1))
        net = HardwareNetwork("deep", spec, (population,), (kernel,), readout, 5)
        found = hardware_violations(net)
        assert len(found) == count
        dense = replace(kernel, weight=weight.reshape(1, -1), geometry=DENSE)
        assert hardware_violations(replace(net, connections=(dense,))) == []
    assert str(found[0]) == 'connection "k" (input -> a): found a sum that can reach 8396224; allowed: at most 8388607'


def test_float_networks_only_have_delays_to_obey() -> None:
    neuron = FloatNeuron(1.0, 1.0, 1.0)
    connections = (Connection("in", INPUT, "a", np.ones((1, 1)), 1),)
    readout = Readout("a", np.ones((1, 1)), np.zeros(1))
    spec = InputSpec((1,), "graded", 4095)
    fine = HardwareNetwork("float", spec, (Population("a", (1,), neuron, 1),), connections, readout, 5)
    assert hardware_violations(fine) == []
    assert len(hardware_violations(with_timing(fine, "sequential"))) == 1
