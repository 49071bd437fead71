"""Both loops of the backward phase, the event-driven one and the dense one, against the plain one, spike by spike."""

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.network.dense_runs.in_floats import DenseSettings, split_tf32
from fsnn_lava.network.devices import prepared
from fsnn_lava.training.gradients import spide_by_events as module, spide_dense as couple_dense
from fsnn_lava.training.gradients.spide_by_events import CoupleCounts, CoupleLink, couple_run
from fsnn_lava.training.gradients.spide_dense import couple_step, dense_couples
from ternary_networks import Chain, assert_consistent, flat, random_chain

T = 40
SEEDS = range(80)


def settings_of(chain: Chain) -> dict[str, Any]:
    return {"drive": chain.drive, "leaks": [chain.leak] * len(chain.shapes)}


def run(chain: Chain, *, time_steps: int = T, record: bool = True) -> CoupleCounts:
    return couple_run(chain.links, chain.shapes, **settings_of(chain), time_steps=time_steps, record=record)


@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_equal_those_of_the_plain_loop(seed: int) -> None:
    """Float64 of random weights: no potential meets its threshold so closely that the order of a sum decides."""
    chain = random_chain(seed)
    found = run(chain)
    for spikes, expected in zip(found.spikes, chain.reference_spikes(T), strict=True):
        assert np.array_equal(flat(spikes, leading=2), expected), chain.name
    # Forty additions of numbers below one.
    assert_consistent(found, leak=chain.leak, time_steps=T, tolerance=1e-13)


def test_the_random_chains_are_of_every_kind() -> None:
    """And couples of nearly every population fire, of both signs: or nothing would have been compared."""
    chains = [random_chain(seed) for seed in SEEDS]
    layers = {
        (where, link.layer.kind, link.layer.stride, link.layer.transposed)
        for chain in chains
        for link in chain.links
        for where in (["back"] if link.delay else ["up"])
    }
    images = {("conv", 1, False), ("conv", 2, True), ("linear", 1, False)}
    upwards = images | {("conv", 2, False), ("pool", 2, False), ("pool", 3, False)}
    assert layers == {("back", *kind) for kind in images} | {("up", *kind) for kind in upwards}
    loops = [chain for chain in chains if any(link.delay for link in chain.links)]
    assert {(len(c.shapes), c.loop_delay) for c in loops} == {(n, d) for n in range(1, 5) for d in range(1, n + 1)}
    assert {(c.leak, c.network.reset_amount) for c in chains} == {(k, r) for k in (0.6, 0.9, 1.0) for r in (1.0, 2.0)}
    assert any(chain not in loops and len(chain.shapes) > 1 for chain in chains)
    fired = [set(np.unique(spikes)) for chain in chains for spikes in chain.reference_spikes(T)]
    assert np.mean([values == {-1, 0, 1} for values in fired]) > 0.9


@pytest.mark.parametrize("seed", range(10))
def test_float32_counts_are_those_of_its_spikes(seed: int) -> None:
    chain = random_chain(seed)
    found = run(converted(chain, torch.float32))
    assert all(weighted.dtype == torch.float32 for weighted in found.weighted)
    # Forty additions of numbers below one, to 24 bits.
    assert_consistent(found, leak=chain.leak, time_steps=T, tolerance=1e-5)
    for spikes, expected in zip(found.spikes, chain.reference_spikes(T), strict=True):
        # A potential within a float32 sum's error of its threshold moves a spike; two in a hundred are very many.
        assert (flat(spikes, leading=2) != expected).mean() < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_neither_threads_nor_parts_nor_records_change_the_counts(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chain = random_chain(seed, batch=7)
    whole = run(chain)
    monkeypatch.setattr(module, "PACKED_BYTES", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    parts = run(chain, record=False)
    assert parts.spikes is None
    for layer in range(len(chain.shapes)):
        assert torch.equal(whole.weighted[layer], parts.weighted[layer])
        assert torch.equal(whole.fired[layer], parts.fired[layer])


def test_longer_run_begins_as_a_shorter_one() -> None:
    chain = random_chain(3)
    short, long = run(chain, time_steps=7).spikes, run(chain, time_steps=T).spikes
    for spikes, more in zip(short, long, strict=True):
        assert torch.equal(spikes, more[:7])


def spikes_of_one(drive: list[float], *, leak: float = 1.0, steps: int = 6) -> list[list[int]]:
    """Spikes of couples that nothing joins, a row for each."""
    given = torch.tensor([drive], dtype=torch.float64)
    found = couple_run([], [(len(drive),)], drive=given, leaks=[leak], time_steps=steps, record=True).spikes
    return [[int(s) for s in row] for row in found[0][:, 0].T]


def test_a_couple_fires_at_half_of_either_sign_and_keeps_the_rest() -> None:
    quarter, above, silent, every = spikes_of_one([0.25, -0.375, 0.0, 1.5])
    assert quarter == [0, 1, 0, 0, 0, 1]  # q: 0.25, 0.5 -> -0.5, -0.25, 0, 0.25, 0.5
    assert above == [0, -1, 0, -1, 0, 0]  # q: -0.375, -0.75 -> 0.25, -0.125, -0.5 -> 0.5, 0.125, -0.25
    assert silent == [0] * 6
    assert every == [1] * 6, "one spike a step at most"


def one_to_one(weight: float, *, source: int, target: int, delay: int = 0, factor: float = 1.0) -> CoupleLink:
    """A link between populations of one neuron."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return CoupleLink(source, target, LayerSpec("linear", 1), weight * one, (1,), factor * one, delay)


def test_minus_a_half_that_is_left_fires_back() -> None:
    """q = -1/2 after a spike, and nothing arrives: the couple's other half fires, and the sum is what arrived."""
    # The last population fires once in four steps; half of it arrives below, at the first.
    half = one_to_one(0.5, source=1, target=0)
    drive = torch.full((1, 1), 0.25, dtype=torch.float64)
    found = couple_run([half], [(1,), (1,)], drive=drive, leaks=[1.0, 1.0], time_steps=6, record=True).spikes
    assert found[1].flatten().tolist() == [0, 1, 0, 0, 0, 1]
    assert found[0].flatten().tolist() == [0, 1, -1, 1, -1, 1]


def test_leak_comes_after_the_reset_and_spares_what_arrives() -> None:
    # q: 0.4; 0.2 + 0.4 = 0.6 -> -0.4; -0.2 + 0.4 = 0.2; 0.1 + 0.4 = 0.5 -> -0.5; 0.15; 0.475 (leak 1/2)
    assert spikes_of_one([0.4], leak=0.5) == [[0, 1, 0, 1, 0, 0]]
    assert spikes_of_one([0.3], leak=0.25, steps=50) == [[0] * 50], "0.3 / (1 - 0.25) stays below a half"


@pytest.mark.parametrize("loop_delay", [1, 2, 3])
def test_feedback_arrives_after_the_loop_delay(loop_delay: int) -> None:
    """One couple that drives itself: it fires at first in every step, but for what its own spikes take away."""
    one = torch.ones(1, 1, dtype=torch.float64)
    link = one_to_one(-1.0, source=0, target=0, delay=loop_delay)
    found = couple_run([link], [(1,)], drive=one, leaks=[1.0], time_steps=8, record=True).spikes
    expected = [1 if t % (2 * loop_delay) < loop_delay else 0 for t in range(8)]
    assert found[0].flatten().tolist() == expected


def test_masked_spikes_are_counted_but_not_sent() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    link = one_to_one(1.0, source=1, target=0, factor=0.0)
    found = couple_run([link], [(1,), (1,)], drive=one, leaks=[1.0, 1.0], time_steps=5, record=True)
    assert [int(f) for f in found.fired] == [0, 5]
    assert_close(found.weighted[1], 5 * one)


DENSE_SEEDS = range(60)


def dense_run(chain: Chain, *, settings: DenseSettings = DenseSettings(), time_steps: int = T) -> CoupleCounts:  # noqa: B008
    steps = {"time_steps": time_steps, "record": True}
    return dense_couples(chain.links, chain.shapes, **settings_of(chain), **steps, settings=settings)


def assert_same_spikes(chain: Chain, settings: DenseSettings) -> None:
    """Float64 of random weights: no potential meets its threshold so closely that the order of a sum decides."""
    found = dense_run(chain, settings=settings)
    for spikes, expected in zip(found.spikes, chain.reference_spikes(T), strict=True):
        assert np.array_equal(flat(spikes, leading=2), expected), chain.name
    # Forty additions of numbers below one.
    assert_consistent(found, leak=chain.leak, time_steps=T, tolerance=1e-13)


def converted(chain: Chain, dtype: torch.dtype, device: str = "cpu") -> Chain:
    links = tuple(
        replace(link, weight=link.weight.to(device, dtype), factor=link.factor.to(device, dtype))
        for link in chain.links
    )
    return replace(chain, links=links, drive=chain.drive.to(device, dtype))


@pytest.mark.parametrize("seed", DENSE_SEEDS)
def test_dense_spikes_equal_those_of_the_plain_loop(seed: int) -> None:
    assert_same_spikes(random_chain(seed), DenseSettings())


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_the_event_driven_run(seed: int) -> None:
    chain = random_chain(seed)
    found = dense_run(chain)
    expected = run(chain)
    for layer in range(len(chain.shapes)):
        assert torch.equal(found.spikes[layer], expected.spikes[layer])
        assert torch.equal(found.fired[layer], expected.fired[layer])
        assert_close(found.weighted[layer], expected.weighted[layer], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize("leak", [1.0, 0.9])
def test_fused_steps_give_the_same_spikes(leak: float) -> None:
    """Of chains of every length, from no more programs than torch keeps of one function."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters["stats"]
    before = counters["unique_graphs"]
    chains = [chain for chain in map(random_chain, DENSE_SEEDS) if chain.leak == leak]
    assert len(chains) > 10
    for chain in chains:
        assert_same_spikes(chain, DenseSettings(compiled=True))
    config = torch._dynamo.config
    most = config.recompile_limit if hasattr(config, "recompile_limit") else 8
    assert 1 <= counters["unique_graphs"] - before <= most


def test_step_is_that_of_the_equations() -> None:
    q = torch.tensor([0.1, 0.0, -0.4, 0.5, -2.0, 0.2], dtype=torch.float64)
    weighted, fired = torch.full_like(q, 2.0), torch.full_like(q, 3.0)
    base = torch.tensor([0.4, 0.0, -0.05, 0.25, 0.0, 0.0], dtype=torch.float64)
    response = torch.tensor([0.0, 0.0, -0.05, 0.5, 0.0, -0.65], dtype=torch.float64)
    spikes = couple_step(q, weighted, fired, base, response, 0.5)
    assert spikes.tolist() == [1, 0, -1, 1, -1, 0]
    assert_close(q, torch.tensor([-0.25, 0, 0.25, 0.125, -0.5, -0.225], dtype=torch.float64))
    assert weighted.tolist() == [2, 1, 0, 2, 0, 1]
    assert fired.tolist() == [4, 3, 4, 4, 4, 3]


def test_memory_does_not_grow_with_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tensors are alive in the fourth step of the last population as in its hundredth."""
    chain = next(c for c in map(random_chain, DENSE_SEEDS) if len(c.shapes) > 2 and c.loop_delay == 2)
    alive: list[int] = []
    calls = 0

    def counted(*arguments: Tensor | float | None) -> Tensor:
        nonlocal calls
        assert not torch.is_grad_enabled()
        if calls in (3 * len(chain.shapes), 99 * len(chain.shapes)):
            alive.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
        calls += 1
        return couple_step(*arguments)

    monkeypatch.setattr(couple_dense, "_couple_step", lambda compiled: counted)
    dense_couples(chain.links, chain.shapes, drive=chain.drive, leaks=[1.0] * len(chain.shapes), time_steps=100)
    assert len(alive) == 2
    assert alive[0] == alive[1]


def test_split_weights_give_the_spikes_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many differ from float64's as with float32, and far fewer than with weights of one TF32 value."""
    chains = [random_chain(seed, batch=30) for seed in range(20)]
    truth = [chain.reference_spikes(T) for chain in chains]

    def wrong(settings: DenseSettings) -> int:
        differ = 0
        for chain, expected in zip(chains, truth, strict=True):
            found = dense_run(converted(chain, torch.float32), settings=settings).spikes
            differ += sum(int((flat(a, leading=2) != b).sum()) for a, b in zip(found, expected, strict=True))
        return differ

    unsplit, split = wrong(DenseSettings()), wrong(DenseSettings(split=True))
    monkeypatch.setattr("fsnn_lava.training.gradients.spide_dense.split_tf32", lambda weight: split_tf32(weight)[:1])
    rounded = wrong(DenseSettings(split=True))
    assert split <= 2 * unsplit + 10
    assert rounded > 20 * (split + 1)


def test_what_split_weights_multiply_has_no_other_values_than_0_and_1() -> None:
    links = [c for seed in DENSE_SEEDS for c in converted(random_chain(seed), torch.float32).links if c is not None]
    link = max(links, key=lambda link: link.factor.numel())
    gate, weights = couple_dense._split_gate(link)
    assert set(gate.tolist()) == {0.0, 1.0}
    spikes = torch.sign(torch.randn(link.factor.shape))
    # Three roundings to 24 bits: of the factor, of its product with the weight, and of the sum of the two parts.
    given = spikes * link.factor
    expected = couple_dense.apply_transpose(link.layer, link.weight, given, link.input_shape)
    gated = couple_dense.shaped(gate, tuple(given.shape)) * spikes
    found = sum(couple_dense.apply_transpose(link.layer, weight, gated, link.input_shape) for weight in weights)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # torch.compile's own
def test_spikes_on_a_gpu_are_those_of_the_plain_loop(seed: int, compiled: bool) -> None:
    """Also with split weights in float32, but for a few: a sum in another order can decide at the threshold."""
    chain = random_chain(seed)
    with prepared(torch.device("cuda")):
        found = dense_run(converted(chain, torch.float64, "cuda"), settings=DenseSettings(compiled=compiled)).spikes
        split = dense_run(
            converted(chain, torch.float32, "cuda"), settings=DenseSettings(compiled=compiled, split=True)
        ).spikes
    for spikes, single, expected in zip(found, split, chain.reference_spikes(T), strict=True):
        assert np.array_equal(flat(spikes.cpu(), leading=2), expected)
        assert (flat(single.cpu(), leading=2) != expected).mean() < 0.02
