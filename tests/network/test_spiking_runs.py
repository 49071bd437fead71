"""The T-step loops, event-driven on a CPU, in int8 there, and dense on a GPU, against the plain one, spike by spike.

Here all of them run on the CPU, for every kind of connection.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from firing_networks import NETWORKS, SPIKING_POOLS, T, bound_network, plain_spikes, whole_numbers
from fsnn_lava.config.notation import Pooling
from fsnn_lava.hardware import FloatNeuron
from fsnn_lava.network import run_by_events
from fsnn_lava.network.dense_runs import in_int8
from fsnn_lava.network.dense_runs.in_floats import DenseSettings, dense_run, folded, split_tf32, step
from fsnn_lava.network.dense_runs.in_int8 import BASE, LARGEST, split_int8
from fsnn_lava.network.dense_runs.int8_products import int8_fault
from fsnn_lava.network.feedback_network import BoundNetwork
from fsnn_lava.network.neuron import SpikeCounts, fire, integrate

EAGER = DenseSettings()
needs_int8 = pytest.mark.skipif(bool(int8_fault()), reason=f"no products in 8 bits: {int8_fault()}")


def run(bound: BoundNetwork, x: torch.Tensor, *, loop_delay: int, settings: DenseSettings) -> SpikeCounts:
    return dense_run(
        bound.feedforward,
        bound.feedback,
        input_current=bound.drive(x, time_steps=T).at,
        neurons=bound.neurons,
        time_steps=T,
        loop_delays=(loop_delay,) * len(bound.feedback),
        record=True,
        settings=settings,
    )


def assert_same_spikes(
    bound: BoundNetwork, x: torch.Tensor, *, loop_delay: int = 1, settings: DenseSettings = EAGER
) -> None:
    """Float64 of random weights: no potential meets its threshold so closely that the order of a sum decides."""
    found = run(bound, x, loop_delay=loop_delay, settings=settings)
    expected = bound.simulate(
        bound.drive(x, time_steps=T), time_steps=T, loop_delays=(loop_delay,) * len(bound.feedback), record=True
    )
    total = sum(bound.neurons[0].leak ** t for t in range(T))
    for layer, (spikes, events) in enumerate(zip(found.spikes, expected.spikes, strict=True)):
        assert np.array_equal(spikes.numpy(), events.numpy())
        assert bool(spikes.any())
        assert torch.equal(found.plain[layer] / T, expected.mean_spikes[layer])
        assert_close(found.weighted[layer] / total, expected.firing_rates[layer], rtol=1e-12, atol=0)


def assert_follows_the_plain_loop(bound: BoundNetwork, x: torch.Tensor, *, loop_delay: int) -> None:
    """Of the event-driven run."""
    drive = bound.drive(x, time_steps=T)
    found = bound.simulate(drive, time_steps=T, loop_delays=(loop_delay,) * len(bound.feedback), record=True)
    expected = plain_spikes(bound, drive, time_steps=T, loop_delay=loop_delay)
    weights = torch.tensor([bound.neurons[0].leak ** (T - 1 - t) for t in range(T)], dtype=torch.float64)
    for layer, (spikes, plain) in enumerate(zip(found.spikes, expected, strict=True)):
        assert np.array_equal(spikes.numpy(), plain.numpy())
        assert bool(spikes.any())
        assert torch.equal(found.mean_spikes[layer], plain.double().sum(0) / T)
        weighted = torch.tensordot(weights / weights.sum(), plain.double(), 1)
        # Nine terms of size one, summed in another order.
        assert_close(found.firing_rates[layer], weighted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("events", [True, False], ids=["events", "constant"])
@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize(("notation", "shape"), NETWORKS)
def test_spikes_of_both_runs_equal_those_of_the_plain_loop(
    notation: str, shape: tuple[int, ...], leak: float, events: bool, training: bool
) -> None:
    bound = bound_network(notation, shape, leak, training=training)
    x = (torch.rand(T, 5, *shape) < 0.3).double() if events else torch.randn(5, *shape).double()
    for loop_delay in (1, 3):
        assert_follows_the_plain_loop(bound, x, loop_delay=loop_delay)
        assert_same_spikes(bound, x, loop_delay=loop_delay)


@pytest.mark.parametrize("leak", [1.0, 0.75])
@pytest.mark.parametrize(("notation", "shape"), SPIKING_POOLS)
def test_pools_that_spike_are_convolutions(notation: str, shape: tuple[int, ...], leak: float) -> None:
    """A pool's potentials meet the threshold exactly, and often; with these leaks they are exact in float64."""
    bound, x = (
        bound_network(notation, shape, leak, pooling="spiking", reset_amount=2.0),
        torch.randn(5, *shape).double(),
    )
    for loop_delay in (1, 3):
        assert_follows_the_plain_loop(bound, x, loop_delay=loop_delay)
        assert_same_spikes(bound, x, loop_delay=loop_delay)


def test_network_without_batch_norm_runs_too() -> None:
    bound = bound_network("4C3s-6C3s-5C3 (F4C3u)", (3, 8, 8), 0.9, batch_norm=False)
    assert_same_spikes(bound, torch.randn(5, 3, 8, 8).double())


def test_more_threads_and_smaller_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = bound_network("4C3s-6C3s-5C3 (F4C3u)", (3, 8, 8), 0.9)
    drive = bound.drive(torch.randn(5, 3, 8, 8).double(), time_steps=T)
    whole = bound.simulate(drive, time_steps=T)
    monkeypatch.setattr(run_by_events, "PACKED_BYTES", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    parts = bound.simulate(drive, time_steps=T)
    for layer in range(3):
        assert torch.equal(whole.firing_rates[layer], parts.firing_rates[layer])


def test_without_any_connection_the_current_alone_decides() -> None:
    bound = bound_network("9", (1, 4, 4), 1.0, training=False)
    drive = bound.drive(torch.randn(5, 1, 4, 4).double(), time_steps=T)
    found = bound.simulate(drive, time_steps=T).firing_rates[0]
    # IF with threshold 1 and reset 0.8: after k spikes another needs a potential of 1 + 0.8 k, at most one a step.
    (mean,) = drive.mean
    expected = ((mean * T - 1) / 0.8 + 1).floor().clamp(0, T) / T
    inside = mean < 0.8  # beyond, a neuron may fire in every step but the first few
    assert_close(found[inside], expected[inside])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize(("leak", "modes"), [(1.0, (True, False)), (0.9, (True,))])
def test_fused_steps_give_the_same_spikes(leak: float, modes: tuple[bool, ...]) -> None:
    """Of all networks, in training and evaluation, from no more programs than torch keeps of one function."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters["stats"]
    before = counters["unique_graphs"]
    for notation, shape in NETWORKS:
        for training in modes:
            bound = bound_network(notation, shape, leak, training=training)
            assert_same_spikes(bound, torch.randn(5, *shape).double(), settings=DenseSettings(compiled=True))
    config = torch._dynamo.config
    most = config.recompile_limit if hasattr(config, "recompile_limit") else 6  # older versions need fewer
    assert 1 <= counters["unique_graphs"] - before <= most


@pytest.mark.parametrize("leak", [1.0, 0.9])
def test_step_is_that_of_the_equations(leak: float) -> None:
    """Two chains of steps: `step` tells the last spikes by the potential, `integrate` is given them."""
    neuron = FloatNeuron(1.0, 0.8, leak)
    generator = torch.Generator().manual_seed(0)
    v, spikes, weighted = (torch.zeros(50, dtype=torch.float64) for _ in range(3))
    plain: torch.Tensor | None = torch.zeros(50, dtype=torch.float64)
    potential, count = v, weighted
    mask = (torch.rand(50, generator=generator) < 0.8).double() / 0.8
    for _ in range(12):
        base, response = (torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(2))
        potential = integrate(potential, spikes, base + response * mask, neuron=neuron)
        spikes = fire(potential, neuron=neuron)
        count = leak * count + spikes
        v, fired, weighted, plain = step(v, weighted, plain, base, response, mask, neuron)
        assert torch.equal(fired, spikes)
        assert_close(weighted, count, rtol=1e-14, atol=0)
    assert 0 < float(plain.mean()) < 12


def test_batch_norm_is_folded_into_weight_and_bias() -> None:
    bound = bound_network("4C3s-6C3s-5C3 (F4C3u)", (3, 8, 8), 1.0)
    synapse = bound.feedforward[1]
    x = torch.rand(5, 4, 4, 4, dtype=torch.float64)
    weight, bias = folded(synapse)
    response = functional.conv2d(x, weight, bias, 2, 1)
    assert_close(response * synapse.mask, synapse.current(x))


def is_tf32(x: torch.Tensor) -> bool:
    """No bit beyond the ten behind the leading one."""
    return bool(((x.view(torch.int32) & 0x1FFF) == 0).all())


def test_two_tf32_values_make_a_float32_but_for_its_last_bit() -> None:
    exponents = torch.linspace(-20, 20, 5000)
    weight = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 2**exponents
    high, low = split_tf32(weight)
    assert is_tf32(high)
    assert is_tf32(low)
    error = (high.double() + low.double() - weight.double()).abs() / weight.abs()
    assert float(error.max()) <= 2**-23
    assert float(((high - weight).abs() / weight.abs()).max()) > 2**-12, "one alone is much coarser"
    kernel = weight[:4800].view(10, 20, 4, 6).to(memory_format=torch.channels_last)
    assert torch.equal(split_tf32(kernel)[0].flatten(), high[:4800]), "also where the channels lie last"
    # The greatest values and ties: half a unit of TF32 goes up.
    assert split_tf32(torch.tensor([1 + 2**-11]))[0].item() == 1 + 2**-10


def test_split_weights_give_the_spikes_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64: as many spikes differ as with float32, and far fewer than with weights of one TF32 value."""
    notation, shape = "8C3s-16C3-16C3s (F8C3u)", (3, 16, 16)
    exact, single = (
        bound_network(notation, shape, 0.99, training=False, dtype=dtype) for dtype in (torch.float64, torch.float32)
    )
    x = torch.randn(40, *shape)
    truth = run(exact, x.double(), loop_delay=1, settings=DenseSettings()).spikes

    def wrong(settings: DenseSettings) -> int:
        found = run(single, x, loop_delay=1, settings=settings).spikes
        return sum(int((a != b).sum()) for a, b in zip(truth, found, strict=True))

    unsplit, split = wrong(DenseSettings()), wrong(DenseSettings(split=True))
    monkeypatch.setattr("fsnn_lava.network.dense_runs.in_floats.split_tf32", lambda weight: split_tf32(weight)[:1])
    rounded = wrong(DenseSettings(split=True))
    assert split <= unsplit + 10
    assert rounded > 100 * (split + 1)


# ---- weights of 24 bits, in int8 -------------------------------------------------------------------------------------


CONVOLVING: list[tuple[str, tuple[int, ...], Pooling]] = [
    *((*network, "merged") for network in NETWORKS if "C" in network[0]),
    *((*network, "spiking") for network in SPIKING_POOLS),
    ("4C3s-6C3u-5C3s (F4C3)", (3, 8, 8), "merged"),
]
"""Networks that run in int8, the last one with a transposed convolution that has a bias."""


@needs_int8
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("events", [True, False], ids=["events", "constant"])
@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize(("notation", "shape", "pooling"), CONVOLVING)
def test_spikes_in_int8_are_those_of_the_weights_as_whole_numbers(
    notation: str,
    shape: tuple[int, ...],
    pooling: Pooling,
    leak: float,
    events: bool,
    training: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Potentials in float32 against float64: in these networks none meets its threshold so closely that it decides."""
    form: dict[str, Any] = {"training": training, "pooling": pooling, "dtype": torch.float32}
    reset_amount = 2.0 if pooling == "spiking" else 0.8  # exact: potentials after a pool do meet the threshold
    bound = bound_network(notation, shape, leak, reset_amount=reset_amount, **form)
    x = (torch.rand(T, 5, *shape) < 0.3).float() if events else torch.randn(5, *shape)
    drive = bound.drive(x, time_steps=T)
    split = dataclasses.replace(bound, dense=DenseSettings(split=True))
    monkeypatch.setattr("fsnn_lava.network.dense_runs.in_floats.folded", whole_numbers)
    monkeypatch.setattr(in_int8, "TOGETHER", 2 * sum(math.prod(s.synapse.shape) for s in bound.feedforward))
    for loop_delay in (1, 3):
        found = split.simulate(drive, time_steps=T, loop_delays=(loop_delay,) * len(bound.feedback), record=True)
        expected = dense_run(
            bound.feedforward,
            bound.feedback,
            input_current=lambda t: [m if m is None else m.double() for m in drive.at(t)],
            neurons=bound.neurons,
            time_steps=T,
            loop_delays=(loop_delay,) * len(bound.feedback),
            record=True,
        )
        total = sum(leak**t for t in range(T))
        for layer, spikes in enumerate(expected.spikes):
            assert np.array_equal(found.spikes[layer].numpy(), spikes.numpy())
            assert bool(spikes.any())
            assert_close(found.mean_spikes[layer].double(), expected.plain[layer] / T)
            assert_close(found.firing_rates[layer].double(), expected.weighted[layer] / total)
        for ours, theirs in zip(found.returned, expected.returned, strict=True):
            assert_close(ours.double(), theirs / total)


def test_three_whole_numbers_make_a_weight_of_24_bits() -> None:
    weight = torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(0)) * 2.0 ** torch.arange(7).view(
        -1, 1, 1, 1
    )
    weight[3] = 0
    weight[4, 0, 0, 0] = -1000
    for outputs in (0, 1):
        turned = weight.transpose(0, outputs)
        parts, unit = split_int8(turned, outputs=outputs)
        assert all(part.dtype == torch.int8 and part.shape == turned.shape for part in parts)
        whole = sum(BASE**place * part.int() for place, part in enumerate(parts)).transpose(0, outputs)
        largest = whole.abs().flatten(1).amax(1)[[0, 1, 2, 4, 5, 6]]
        assert bool((largest > LARGEST // 2).all()) and bool((largest <= LARGEST).all())
        assert bool((torch.frexp(unit).mantissa == 0.5).all()), "powers of two"
        wide = unit.view(-1, 1, 1, 1)
        assert float(((whole * wide - weight) / wide).abs().max()) <= 0.5
        assert not whole[3].any()
    upper = BASE**2 * parts[2].float() * unit.view(1, -1, 1, 1)
    assert float((upper - turned).abs().max()) > 1, "one part is much coarser"


@needs_int8
def test_spikes_in_int8_are_those_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64: about as many spikes differ as with float32, and far fewer than without the lowest bits."""
    notation, shape = "8C3s-16C3-16C3s (F8C3u)", (3, 16, 16)
    exact, single = (
        bound_network(notation, shape, 0.99, training=False, dtype=dtype) for dtype in (torch.float64, torch.float32)
    )
    x = torch.randn(40, *shape)
    truth = run(exact, x.double(), loop_delay=1, settings=EAGER).spikes

    def wrong(settings: DenseSettings) -> int:
        bound = dataclasses.replace(single, dense=settings)
        found = bound.simulate(
            bound.drive(x, time_steps=T), time_steps=T, loop_delays=(1,) * len(bound.feedback), record=True
        ).spikes
        return sum(int((a != b).sum()) for a, b in zip(truth, found, strict=True))

    unsplit, split = wrong(EAGER), wrong(DenseSettings(split=True))

    def without_the_lowest(weight: torch.Tensor, *, outputs: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        (lowest, *others), unit = split_int8(weight, outputs=outputs)
        return [torch.zeros_like(lowest), *others], unit

    monkeypatch.setattr(in_int8, "split_int8", without_the_lowest)
    rounded = wrong(DenseSettings(split=True))
    assert split <= unsplit + 10
    assert rounded > 20 * (split + 1)
