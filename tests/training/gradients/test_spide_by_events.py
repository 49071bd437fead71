"""The compiled loop of the backward phase against the plain one, spike by spike, for every kind of connection."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fsnn_lava.config.notation import LayerSpec
from fsnn_lava.training.gradients import spide_by_events as module
from fsnn_lava.training.gradients.spide_by_events import CoupleCounts, CoupleLink, couple_run
from ternary_networks import Chain, assert_consistent, flat, random_chain

T = 40
SEEDS = range(80)


def run(chain: Chain, *, time_steps: int = T, record: bool = True) -> CoupleCounts:
    return couple_run(
        chain.links,
        chain.shapes,
        drive=chain.drive,
        leak=chain.leak,
        time_steps=time_steps,
        loop_delay=chain.loop_delay,
        record=record,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_spikes_equal_those_of_the_plain_loop(seed: int) -> None:
    """Float64 of random weights: no potential meets its threshold so closely that the order of a sum decides."""
    chain = random_chain(seed)
    found = run(chain)
    assert found.spikes is not None
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
        for where, links in (("back", chain.links[:1]), ("up", chain.links[1:]))
        for link in links
        if link is not None
    }
    images = {("conv", 1, False), ("conv", 2, True), ("linear", 1, False)}
    upwards = images | {("conv", 2, False), ("pool", 2, False), ("pool", 3, False)}
    assert layers == {("back", *kind) for kind in images} | {("up", *kind) for kind in upwards}
    loops = [chain for chain in chains if chain.links[0] is not None]
    assert {(len(c.shapes), c.loop_delay) for c in loops} == {(n, d) for n in range(1, 5) for d in range(1, n + 1)}
    assert {(c.leak, c.network.reset_amount) for c in chains} == {(k, r) for k in (0.6, 0.9, 1.0) for r in (1.0, 2.0)}
    assert any(chain.links[0] is None and len(chain.shapes) > 1 for chain in chains)
    fired = [set(np.unique(spikes)) for chain in chains for spikes in chain.reference_spikes(T)]
    assert np.mean([values == {-1, 0, 1} for values in fired]) > 0.9


@pytest.mark.parametrize("seed", range(10))
def test_float32_counts_are_those_of_its_spikes(seed: int) -> None:
    chain = random_chain(seed)
    links = tuple(
        None if link is None else CoupleLink(link.layer, link.weight.float(), link.input_shape, link.factor.float())
        for link in chain.links
    )
    found = couple_run(
        links,
        chain.shapes,
        drive=chain.drive.float(),
        leak=chain.leak,
        time_steps=T,
        loop_delay=chain.loop_delay,
        record=True,
    )
    assert all(weighted.dtype == torch.float32 for weighted in found.weighted)
    # Forty additions of numbers below one, to 24 bits.
    assert_consistent(found, leak=chain.leak, time_steps=T, tolerance=1e-5)
    assert found.spikes is not None
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
    assert short is not None
    assert long is not None
    for spikes, more in zip(short, long, strict=True):
        assert torch.equal(spikes, more[:7])


# ---- by hand -----------------------------------------------------------------------------------------------------
def spikes_of_one(drive: list[float], *, leak: float = 1.0, steps: int = 6) -> list[list[int]]:
    """Spikes of couples that nothing joins, a row for each."""
    given = torch.tensor([drive], dtype=torch.float64)
    found = couple_run([None], [(len(drive),)], drive=given, leak=leak, time_steps=steps, record=True).spikes
    assert found is not None
    return [[int(s) for s in row] for row in found[0][:, 0].T]


def test_a_couple_fires_at_half_of_either_sign_and_keeps_the_rest() -> None:
    quarter, above, silent, every = spikes_of_one([0.25, -0.375, 0.0, 1.5])
    assert quarter == [0, 1, 0, 0, 0, 1]  # q: 0.25, 0.5 -> -0.5, -0.25, 0, 0.25, 0.5
    assert above == [0, -1, 0, -1, 0, 0]  # q: -0.375, -0.75 -> 0.25, -0.125, -0.5 -> 0.5, 0.125, -0.25
    assert silent == [0] * 6
    assert every == [1] * 6, "one spike a step at most"


def test_minus_a_half_that_is_left_fires_back() -> None:
    """q = -1/2 after a spike, and nothing arrives: the couple's other half fires, and the sum is what arrived."""
    link = CoupleLink(
        LayerSpec("linear", 1), torch.ones(1, 1, dtype=torch.float64), (1,), torch.ones(1, 1, dtype=torch.float64)
    )
    # The last population fires once in four steps; half of it arrives below, at the first.
    half = CoupleLink(link.layer, link.weight / 2, (1,), link.factor)
    found = couple_run(
        [None, half],
        [(1,), (1,)],
        drive=torch.full((1, 1), 0.25, dtype=torch.float64),
        leak=1.0,
        time_steps=6,
        record=True,
    ).spikes
    assert found is not None
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
    link = CoupleLink(LayerSpec("linear", 1), -one, (1,), one)
    found = couple_run([link], [(1,)], drive=one, leak=1.0, time_steps=8, loop_delay=loop_delay, record=True).spikes
    assert found is not None
    expected = [1 if t % (2 * loop_delay) < loop_delay else 0 for t in range(8)]
    assert found[0].flatten().tolist() == expected


def test_masked_spikes_are_counted_but_not_sent() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    link = CoupleLink(LayerSpec("linear", 1), one, (1,), torch.zeros(1, 1, dtype=torch.float64))
    found = couple_run([None, link], [(1,), (1,)], drive=one, leak=1.0, time_steps=5, record=True)
    assert [int(f) for f in found.fired] == [0, 5]
    assert_close(found.weighted[1], 5 * one)
