"""The readout in integers: parts, bounds, the law by hand, and logits close to the host's."""

from dataclasses import replace

import numpy as np
import pytest

from fsnn_lava.errors import NetworkError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.integrating_readout import integrate, integrated_logits, leak_sum, part_of, quantize_readout
from fsnn_lava.hardware.network import HardwareNetwork, InputSpec, Integrators, Population, Readout
from fsnn_lava.hardware.neurons import IntegerNeuron
from fsnn_lava.hardware.run_io import rates_from_spikes, read_out


def network(
    readout: Readout, *, decay: int, time_steps: int, shape: tuple[int, ...], integrators: Integrators | None
) -> HardwareNetwork:
    """One population of that shape, and nothing that drives it."""
    population = Population("a", shape, IntegerNeuron(9, 9, 0, decay, 1.0))
    readout = replace(readout, integrators=integrators)
    return HardwareNetwork("readout", InputSpec((1,), "event", 1), (population,), (), readout, time_steps)


def random_readout(seed: int, *, classes: int = 3, size: int = 20) -> Readout:
    rng = np.random.default_rng(seed)
    return Readout("a", rng.normal(size=(classes, size)), rng.normal(size=classes))


def test_law_by_hand() -> None:
    """Half is kept, weights (3, -2) times two: 3, then 1.5 - 2, then rounded toward zero, in units of 256."""
    integrators = Integrators(np.array([[3, -2]], np.int32), 1, 8, 1, 1.0)
    net = network(Readout("a", np.zeros((1, 2)), np.zeros(1)), decay=2048, time_steps=3, shape=(2,),
                  integrators=integrators)  # fmt: skip
    spikes = np.array([[1, 0], [0, 1], [0, 0]], np.uint8)[:, None]
    assert [integrate(_steps(net, n), spikes[:n]).item() for n in (1, 2, 3)] == [768, -128, -64]
    odd = Integrators(np.array([[-1, 0]], np.int32), 0, 8, 1, 1.0)
    net = network(net.readout, decay=4095, time_steps=2, shape=(2,), integrators=odd)
    assert integrate(net, np.array([[1, 0], [0, 0]], np.uint8)[:, None]).item() == 0  # -128 / 4096 rounds toward zero


def _steps(net: HardwareNetwork, n: int) -> HardwareNetwork:
    return replace(net, time_steps=n)


def test_parts_are_runs_of_source_neurons() -> None:
    assert part_of(7, 3).tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert part_of(10, 6).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]  # the sixth is empty
    weight = np.arange(1, 15, dtype=np.int32).reshape(2, 7)
    net = network(Readout("a", np.zeros((2, 7)), np.zeros(2)), decay=0, time_steps=1, shape=(7,),
                  integrators=Integrators(weight, 0, 8, 3, 1.0))  # fmt: skip
    u = integrate(net, np.ones((1, 2, 7), np.uint8))
    assert u.tolist() == [[128 * s for s in (6, 15, 7, 27, 36, 14)]] * 2


@pytest.mark.parametrize("seed", range(10))
def test_any_number_of_parts_gives_the_same_sums_without_leak(seed: int) -> None:
    rng = np.random.default_rng(seed)
    readout, shape = random_readout(seed, size=24), (2, 3, 4)
    spikes = rng.integers(0, 2, (5, 4, *shape)).astype(np.uint8)
    whole = quantize_readout(readout, decay=0, time_steps=5, weight_bits=8)
    expected = 128 * np.einsum("tbn,cn->bc", spikes.reshape(5, 4, -1).astype(int), whole.weight)
    for parts in (1, 2, 5, 7, 24):
        net = network(readout, decay=0, time_steps=5, shape=shape, integrators=replace(whole, parts=parts))
        u = integrate(net, spikes)
        assert u.dtype == np.int64
        assert np.array_equal(u.reshape(4, 3, parts).sum(axis=2), expected)


@pytest.mark.parametrize("decay", [0, 205, 819])
def test_logits_come_close_to_the_hosts(decay: int) -> None:
    """Tolerance: half a weight unit per source neuron, and half a unit of state lost per step and part."""
    rng = np.random.default_rng(decay)
    readout = random_readout(1, size=40)
    integrators = quantize_readout(readout, decay=decay, time_steps=20, weight_bits=8)
    net = network(readout, decay=decay, time_steps=20, shape=(40,), integrators=integrators)
    spikes = (rng.random((20, 6, 40)) < 0.3).astype(np.uint8)
    rates = {"a": rates_from_spikes(spikes, net.populations[0].neuron.leak)}
    tolerance = integrators.scale * (0.5 * 40 + integrators.parts * 20 / 128)
    found = integrated_logits(net, integrate(net, spikes))
    np.testing.assert_allclose(found, read_out(readout, rates), rtol=0, atol=tolerance)
    assert np.abs(found - read_out(readout, rates)).max() > 0


@pytest.mark.parametrize(("decay", "time_steps", "bits"), [(0, 30, 8), (40, 100, 8), (819, 30, 6), (0, 1, 2)])
def test_no_potential_leaves_24_bits_and_fewer_parts_are_not_proven(decay: int, time_steps: int, bits: int) -> None:
    """The worst spikes: every neuron with a weight of one sign fires in every step."""
    readout = random_readout(3, classes=2, size=600)
    integrators = quantize_readout(readout, decay=decay, time_steps=time_steps, weight_bits=bits)
    half = 1 << (bits - 1)
    assert np.abs(integrators.weight).max() == half - 1
    net = network(readout, decay=decay, time_steps=time_steps, shape=(600,), integrators=integrators)
    for sign in (1, -1):
        worst = np.stack([(sign * row > 0) for row in integrators.weight]).astype(np.uint8)
        u = integrate(net, np.broadcast_to(worst, (time_steps, 2, 600)))
        assert np.abs(u).max() < 2**23
    if integrators.parts > 1:
        parts = part_of(600, integrators.parts - 1)
        sums = [[np.clip(s * row[parts == k], 0, None).sum() for k in range(parts[-1] + 1)]
                for row in integrators.weight for s in (1, -1)]  # fmt: skip
        assert max(max(s) for s in sums) * leak_sum(decay, time_steps) >= 2**16


def test_parts_bound_both_signs() -> None:
    readout = random_readout(4, classes=2, size=600)
    for sign in (1, -1):
        one_sided = Readout("a", sign * np.abs(readout.weight), readout.bias)
        assert quantize_readout(one_sided, decay=0, time_steps=30, weight_bits=8).parts == 8


def test_leak_sum_is_what_the_rates_are_divided_by() -> None:
    assert leak_sum(0, 30) == 30.0
    assert leak_sum(2048, 3) == 1.75


def test_a_readout_of_zeros() -> None:
    zeros = Readout("a", np.zeros((2, 5)), np.ones(2))
    integrators = quantize_readout(zeros, decay=0, time_steps=30, weight_bits=8)
    assert (integrators.parts, integrators.scale, int(np.abs(integrators.weight).max())) == (1, 1.0, 0)


def test_refusals() -> None:
    readout = random_readout(0)
    with pytest.raises(NetworkError, match=r'readout of "a": 1000 spikes times a weight of 127 .* fewer time steps'):
        quantize_readout(readout, decay=0, time_steps=1000, weight_bits=8)
    net = network(readout, decay=0, time_steps=2, shape=(20,), integrators=None)
    spikes: Array = np.zeros((2, 1, 20), np.uint8)
    for call in (integrate, integrated_logits):
        with pytest.raises(NetworkError, match=r'"readout" has no integrators.*quantize the network again'):
            call(net, spikes)
