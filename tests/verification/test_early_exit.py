"""Accuracy, rate error and early exit over the steps of one run."""

import json
import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import networks
import small
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.errors import BackendError, ConfigError, InputError, MissingDependencyError
from fsnn_lava.hardware.geometry import Array
from fsnn_lava.hardware.network import HardwareNetwork, Readout
from fsnn_lava.hardware.neurons import FloatNeuron
from fsnn_lava.hardware.run_io import RunResult, accuracy, rates_from_spikes, read_out
from fsnn_lava.network.equilibrium import equilibrium_rates
from fsnn_lava.verification.early_exit import Anytime, AnytimeReadout, early_exits, running_means
from fsnn_lava.verification.early_exit_report import AnytimeReport
from random_networks import random_network

INFINITY = float("inf")


def two_classes(*, leak: float = 1.0, time_steps: int = 4) -> HardwareNetwork:
    """Two neurons, each the evidence of one class: logits 10 a_0 and 10 a_1 + 1."""
    network = small.network(np.eye(2), neuron=FloatNeuron(2.0, 2.0, leak), time_steps=time_steps)
    return _with_readout(network, Readout("p", 10 * np.eye(2), np.array([0.0, 1.0])))


def _with_readout(network: HardwareNetwork, readout: Readout) -> HardwareNetwork:
    return replace(network, readout=readout)


def fed(network: HardwareNetwork, spikes: Array, labels: Any, **options: Any) -> Anytime:
    """What the sink makes of spikes (T, B, N) given at once, on inputs that are zero."""
    inputs = np.zeros((spikes.shape[1], *network.input.shape), np.uint8)
    sink = AnytimeReadout(network, inputs, labels=np.asarray(labels), **options)
    sink(0, {network.readout.source: spikes.astype(np.uint8)})
    return sink.result()


def ran(network: HardwareNetwork, samples: int, *, chunk: int, **options: Any) -> tuple[Anytime, RunResult, Array]:
    """A run of random inputs, given to the sink in chunks; the run; the labels."""
    inputs = networks.random_inputs(network, samples, seed=3)
    labels = np.random.default_rng(4).integers(0, len(network.readout.bias), samples)
    simulator = IntegerSimulator() if network.arithmetic == "integer" else FloatSimulator()
    sink = AnytimeReadout(network, inputs, labels=labels, **options)
    result = simulator.run(network, inputs, record=sink.record)
    for first in range(0, samples, chunk):
        sink(first, {name: spikes[:, first : first + chunk] for name, spikes in result.spikes.items()})
    return sink.result(), result, labels


def settling(predictions: Any, margins: Any, labels: Any, first_spike: Any = 0) -> Anytime:
    """Made-up answers, (T, B)."""
    predictions = np.array(predictions)
    steps, samples = predictions.shape
    return Anytime(
        network="made up",
        fingerprint="0123456789ab",
        labels=np.array(labels),
        predictions=predictions,
        margins=np.array(margins, np.float64),
        first_spike=np.full(samples, first_spike),
        rate_error=np.zeros(steps),
        rate_samples=samples,
        reference="final",
        reference_converged=True,
    )


def test_answers_by_hand() -> None:
    """a_0 = 1, 1/2, 2/3, 3/4 and a_1 = 0, 1/2, 1/3, 1/4: logits 10, 5, 6.67, 7.5 against 1, 6, 4.33, 3.5."""
    spikes = np.array([[1, 0], [0, 1], [1, 0], [1, 0]])[:, None]
    found = fed(two_classes(), spikes, [0], reference="final")
    assert found.predictions[:, 0].tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(found.margins[:, 0], [9, 1, 7 / 3, 4], rtol=1e-12)  # float64 rounding
    assert found.accuracy.tolist() == [1, 0, 1, 1]
    assert found.first_spike.tolist() == [0]
    # against 3/4 and 1/4: differences 1/4, 1/4, 1/12, 0 for both neurons
    np.testing.assert_allclose(found.rate_error, [1 / 4, 1 / 4, 1 / 12, 0], atol=1e-15)


def test_leaky_answers_by_hand() -> None:
    """Leak 1/2, neuron 0 fires at once and never again: a_0 = 1, 1/3, 1/7, 1/15."""
    spikes = np.array([[1, 0], [0, 0], [0, 0], [0, 0]])[:, None]
    found = fed(two_classes(leak=0.5), spikes, [0], reference="final")
    np.testing.assert_allclose(found.margins[:, 0], [9, 10 / 3 - 1, 10 / 7 - 1, 1 - 10 / 15], rtol=1e-12)
    assert found.predictions[:, 0].tolist() == [0, 0, 0, 1]


def test_silence() -> None:
    found = fed(two_classes(), np.zeros((4, 3, 2)), [0, 1, 1], reference="final")
    assert found.first_spike.tolist() == [4, 4, 4]
    assert (found.predictions == 1).all()
    assert (found.margins == 1.0).all()


@pytest.mark.parametrize("leak", [1.0, 0.9, 0.3])
def test_running_means_are_the_rates_of_as_many_steps(leak: float) -> None:
    spikes = np.random.default_rng(0).integers(0, 2, (25, 4, 3)).astype(np.uint8)
    for t, mean in enumerate(running_means(spikes, leak), start=1):
        # 1e-13: both are sums of 25 products in float64
        np.testing.assert_allclose(mean, rates_from_spikes(spikes[:t], leak), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("seed", range(1, 12))  # 0 leaves the 24-bit range
@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_the_last_step_is_the_run(seed: int, chunk: int) -> None:
    """Accuracy and every class after T steps are those of the run itself, whatever the chunks."""
    found, result, labels = ran(random_network(seed), 40, chunk=chunk, reference="final")
    assert np.array_equal(found.predictions[-1], result.predictions)
    assert found.accuracy[-1] == accuracy(result, labels)
    largest = np.sort(result.logits, axis=1)
    np.testing.assert_allclose(found.margins[-1], largest[:, -1] - largest[:, -2], atol=1e-12)  # order of additions
    assert found.rate_error[-1] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("leak", [1.0, 0.8])
def test_every_step_is_a_run_of_so_many_steps(leak: float) -> None:
    """Spikes do not look ahead, so the first t steps of a run are the run of t steps."""
    rng = np.random.default_rng(1)
    weight, spikes = rng.normal(size=(3, 5)), rng.integers(0, 2, (9, 30, 5)).astype(np.uint8)
    network = small.network(np.eye(5), neuron=FloatNeuron(2.0, 2.0, leak), time_steps=9)
    network = _with_readout(network, Readout("p", weight, rng.normal(size=3)))
    found = fed(network, spikes, np.zeros(30, np.int64), reference="final")
    for t in range(1, 10):
        logits = read_out(network.readout, {"p": rates_from_spikes(spikes[:t], leak)})
        assert np.array_equal(found.predictions[t - 1], logits.argmax(axis=1))


def test_error_against_the_equilibrium() -> None:
    """Against a plain computation at every step, for a population of several axes."""
    network = networks.small_float_network()
    weak = (replace(c, weight=c.weight / 4) for c in network.connections)  # so that it settles
    network = replace(network, connections=tuple(weak))
    found, result, _ = ran(network, 6, chunk=4)
    inputs = networks.random_inputs(network, 6, seed=3)
    settled = equilibrium_rates(network, inputs).firing_rates["p1"]
    for t in range(network.time_steps):
        rates = rates_from_spikes(result.spikes["p1"][: t + 1], network.populations[1].neuron.leak)
        # 1e-5: the tolerance of the equilibrium
        assert found.rate_error[t] == pytest.approx(np.abs(rates - settled).mean(), abs=1e-5)
    assert (found.reference, found.reference_converged, found.rate_samples) == ("equilibrium", True, 6)
    assert found.rate_error[-1] < found.rate_error[0]


def test_error_of_event_input_is_against_the_mean_frame() -> None:
    network = small.network(np.eye(2), time_steps=6, kind="event", neuron=FloatNeuron(1.0, 1.0, 1.0))
    frames = np.zeros((6, 2, 2), np.uint8)
    frames[3:, 0, 0] = 1  # half of the steps: rate 1/2
    sink = AnytimeReadout(network, frames, labels=np.zeros(2, np.int64))
    for first in range(2):
        sink(first, {"p": frames[:, first : first + 1]})  # every event is a spike
    assert sink.result().rate_error == pytest.approx([0.125, 0.125, 0.125, 0.0625, 0.025, 0], abs=1e-5)


@pytest.mark.parametrize("chunk", [3, 33, 70])
def test_error_of_some_samples_only(chunk: int) -> None:
    """Evenly spread; blocks of 32 and chunks of the run do not matter."""
    network = networks.small_float_network()
    part, _, _ = ran(network, 70, chunk=chunk, rate_samples=35, reference="final")
    inputs = networks.random_inputs(network, 70, seed=3)
    chosen = np.linspace(0, 69, 35).round().astype(int)
    whole = inputs[chosen]
    sink = AnytimeReadout(network, whole, labels=np.zeros(35, np.int64), reference="final")
    sink(0, FloatSimulator().run(network, whole, record=["p1"]).spikes)
    np.testing.assert_allclose(part.rate_error, sink.result().rate_error, rtol=1e-12)  # order of additions
    assert (part.rate_samples, part.samples) == (35, 70)
    one, _, _ = ran(network, 70, chunk=chunk, rate_samples=1, reference="final")
    assert one.rate_samples == 1


def test_a_reference_that_did_not_converge_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(network: HardwareNetwork, inputs: Array, **options: Any) -> Any:
        return replace(equilibrium_rates(network, inputs), settled=np.zeros(len(inputs), bool))

    monkeypatch.setattr("fsnn_lava.verification.early_exit.equilibrium_rates", never)
    found, _, _ = ran(networks.small_float_network(), 5, chunk=5)
    assert not found.reference_converged


def steps_of(anytime: Anytime, limit: float, *, rule: Any = "settled", k: int) -> float:
    (found,) = early_exits(anytime, rule, limits=[limit], stable_steps=k)
    return found.mean_steps


def test_settled_by_hand() -> None:
    """k = 2: sample 0 rests at step 5, sample 1 changes class, sample 2 moves by 1 a step and so by less and less."""
    predictions = [[0, 1, 2], [0, 0, 2], [0, 1, 2], [0, 0, 2], [0, 1, 2], [1, 0, 2]]
    margins = [[8, 1, 1], [6, 1, 2], [4, 1, 3], [3.5, 1, 4], [4, 1, 5], [9, 1, 6]]
    anytime = settling(predictions, margins, [0, 0, 1])
    # sample 0: (8 - 4) / 4, (6 - 3.5) / 3.5, (4 - 3.5) / 4; sample 2: 2 / 3, 2 / 4, 2 / 5, 2 / 6
    (found,) = early_exits(anytime, "settled", limits=[0.2], stable_steps=2)
    assert (found.rule, found.limit, found.stable_steps) == ("settled", 0.2, 2)
    assert found.accuracy == 2 / 3, "0 was right when it left, 1 in the end, 2 never"
    assert found.mean_steps == (5 + 6 + 6) / 3
    assert found.left_early == 1 / 3
    assert steps_of(anytime, 0.125, k=2) == 6, "below the limit, not at it"
    assert steps_of(anytime, 0.45, k=2) == (5 + 6 + 5) / 3
    assert steps_of(anytime, 0.8, k=2) == (4 + 6 + 3) / 3
    assert steps_of(anytime, 1.01, k=2) == (3 + 6 + 3) / 3
    assert steps_of(anytime, 0.4, k=1) == (2 + 6 + 3) / 3


def test_margin_by_hand() -> None:
    """k = 2: the class must have rested, however large the margin."""
    predictions = [[0, 1, 2], [0, 0, 2], [0, 0, 2], [0, 0, 2], [0, 0, 2]]
    anytime = settling(predictions, [[9, 9, 1], [9, 9, 1], [4, 9, 2], [5, 9, 3], [9, 9, 4]], [0, 0, 1])
    (found,) = early_exits(anytime, "margin", limits=[4.0], stable_steps=2)
    assert (found.rule, found.limit, found.stable_steps) == ("margin", 4.0, 2)
    assert (found.mean_steps, found.left_early, found.accuracy) == ((4 + 4 + 5) / 3, 2 / 3, 2 / 3)
    assert steps_of(anytime, 0.0, rule="margin", k=2) == (3 + 4 + 3) / 3
    assert steps_of(anytime, INFINITY, rule="margin", k=2) == 5


@pytest.mark.parametrize("rule", ["settled", "margin"])
def test_silence_is_not_taken_for_rest(rule: Any) -> None:
    """The margin of the bias alone is constant: the k steps begin at the first spike."""
    anytime = settling([[1], [1], [1], [1], [1], [1]], [[3]] * 6, [1], first_spike=2)
    assert steps_of(anytime, 1.0, rule=rule, k=2) == 5
    assert steps_of(anytime, 1.0, rule=rule, k=3) == 6
    silent = settling([[1], [1], [1]], [[3]] * 3, [1], first_spike=3)
    assert steps_of(silent, 1.0, rule=rule, k=1) == 3


@pytest.mark.parametrize(("rule", "limit"), [("settled", 0.0), ("margin", INFINITY)])
def test_the_strictest_limit_uses_every_step(rule: Any, limit: float) -> None:
    """A margin is never below 0, also where it is constant, and never above infinity."""
    found, result, labels = ran(random_network(5), 40, chunk=11, reference="final")
    constant = settling([[1]] * 5, [[3]] * 5, [1])
    for anytime in (found, constant):
        (exit_,) = early_exits(anytime, rule, limits=[limit], stable_steps=1)
        assert (exit_.accuracy, exit_.mean_steps) == (anytime.accuracy[-1], anytime.time_steps)
        assert exit_.left_early == 0
    assert early_exits(found, rule, limits=[limit], stable_steps=2)[0].accuracy == accuracy(result, labels)


def test_a_tie_never_rests() -> None:
    """No warning of a division by zero either."""
    tied = settling([[1]] * 5, [[0]] * 5, [1])
    assert steps_of(tied, INFINITY, k=1) == steps_of(tied, 0.0, rule="margin", k=1) == 5


@pytest.mark.parametrize("seed", range(8))
def test_looser_limits_leave_earlier(seed: int) -> None:
    rng = np.random.default_rng(seed)
    anytime = settling(rng.integers(0, 2, (20, 50)).cumsum(0) // 9, rng.random((20, 50)), rng.integers(0, 3, 50))
    for k in (1, 2, 5):
        for rule, limits in (("settled", [0, 0.2, 0.5, 2, INFINITY]), ("margin", [INFINITY, 0.9, 0.5, 0.2, 0])):
            steps = [e.mean_steps for e in early_exits(anytime, rule, limits=limits, stable_steps=k)]
            assert steps == sorted(steps, reverse=True)
            assert steps[-1] < steps[0] == 20


@pytest.mark.parametrize("rule", ["settled", "margin"])
@pytest.mark.parametrize("seed", range(6))
def test_early_exit_is_that_of_a_loop(seed: int, rule: Any) -> None:
    """Step by step and sample by sample, as a device would decide."""
    rng = np.random.default_rng(seed)
    steps, samples, limit, k = 15, 60, 0.6, int(rng.integers(1, 4))
    anytime = settling(rng.integers(0, 2, (steps, samples)).cumsum(0) // 6, rng.random((steps, samples)), [0] * samples)
    right, used = 0, 0
    for b in range(samples):
        left = steps
        for t in range(k, steps):
            classes = [int(c) for c in anytime.predictions[t - k : t + 1, b]]
            margins = [float(m) for m in anytime.margins[t - k : t + 1, b]]
            done = max(margins) - min(margins) < limit * margins[-1] if rule == "settled" else margins[-1] > limit
            if len(set(classes)) == 1 and done:
                left = t + 1
                break
        used += left
        right += int(anytime.predictions[left - 1, b] == 0)
    (found,) = early_exits(anytime, rule, limits=[limit], stable_steps=k)
    assert (found.mean_steps, found.accuracy) == (used / samples, right / samples)
    assert found.left_early > 0


def test_more_stable_steps_than_there_are() -> None:
    anytime = settling([[1]] * 4, [[3]] * 4, [1])
    assert steps_of(anytime, INFINITY, k=3) == steps_of(anytime, INFINITY, k=4) == 4
    assert early_exits(anytime, "margin", limits=[0.0], stable_steps=9)[0].left_early == 0


def test_refuses_settings_out_of_range() -> None:
    anytime = settling([[1]] * 4, [[3]] * 4, [1])
    with pytest.raises(ConfigError, match="early exit: stable for 0 steps; allowed: at least 1"):
        early_exits(anytime, "settled", limits=[1.0], stable_steps=0)
    for limit in (-0.5, float("nan")):
        with pytest.raises(ConfigError, match=rf"early exit: found a limit of {limit}; allowed: 0 or more"):
            early_exits(anytime, "margin", limits=[1.0, limit], stable_steps=1)


def test_refuses_labels_and_samples_that_do_not_fit() -> None:
    network, inputs = two_classes(), np.zeros((3, 2), np.uint8)
    with pytest.raises(InputError, match=r'"small": 3 samples; found labels of shape \(2,\); give one a sample'):
        AnytimeReadout(network, inputs, labels=np.zeros(2, np.int64))
    for count in (0, 4):
        with pytest.raises(ConfigError, match=rf"samples of the rate error: found {count}; allowed: 1 \.\. 3"):
            AnytimeReadout(network, inputs, labels=np.zeros(3, np.int64), rate_samples=count)
    with pytest.raises(InputError, match=r"graded inputs of shape \(3, 5\)"):
        AnytimeReadout(network, np.zeros((3, 5), np.uint8), labels=np.zeros(3, np.int64))
    single = _with_readout(network, Readout("p", np.ones((1, 2)), np.zeros(1)))
    with pytest.raises(InputError, match="its readout has one class; a margin needs two or more"):
        AnytimeReadout(single, inputs, labels=np.zeros(3, np.int64))


def test_refuses_spikes_that_are_not_the_next_ones() -> None:
    network, inputs = two_classes(), np.zeros((3, 2), np.uint8)
    sink = AnytimeReadout(network, inputs, labels=np.zeros(3, np.int64), reference="final")
    with pytest.raises(BackendError, match='network "small": no sample was finished, so there is no answer'):
        sink.result()
    sink(0, {"p": np.zeros((4, 2, 2), np.uint8)})
    for first, shape in ((0, (4, 1, 2)), (2, (4, 2, 2)), (2, (5, 1, 2)), (2, (4, 0, 2)), (2, (4, 1, 3)), (2, (4,))):
        with pytest.raises(BackendError, match=r'population "p": was given spikes of shape .* from sample 2 on'):
            sink(first, {"p": np.zeros(shape, np.uint8)})
    with pytest.raises(BackendError, match=r"was given spikes of shape \(\) from sample 2 on"):
        sink(2, {"q": np.zeros((4, 1, 2), np.uint8)})
    assert sink.samples == 2
    kept = sink.result()  # what was finished
    assert (kept.samples, kept.rate_samples) == (2, 2)
    some = AnytimeReadout(network, inputs, labels=np.zeros(3, np.int64), reference="final", rate_samples=2)
    some(0, {"p": np.zeros((4, 2, 2), np.uint8)})
    assert some.result().rate_samples == 1, "the other one is the last sample"
    assert kept.predictions.shape == kept.margins.shape == (4, 2)
    assert kept.accuracy.tolist() == [0.0] * 4, "silence is class 1, the labels are 0"


def test_what_is_recorded_is_the_population_of_the_readout() -> None:
    network = networks.small_float_network()
    inputs = networks.random_inputs(network, 2, seed=0)
    assert AnytimeReadout(network, inputs, labels=np.zeros(2, np.int64)).record == ("p1",)


ANYTIME = Anytime(
    network="made up",
    fingerprint="0123456789ab",
    labels=np.array([1, 0, 1]),
    predictions=np.array([[0, 0, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]]),
    margins=np.array([[1, 5, 2], [2, 5, 2], [3, 5, 2], [4, 0.5, 2]]),
    first_spike=np.array([0, 0, 1]),
    rate_error=np.array([0.25, 0.125, 0.0625, 0.03125]),
    rate_samples=2,
    reference="equilibrium",
    reference_converged=True,
)
EXITS = early_exits(ANYTIME, "settled", limits=[0, 0.3, float("inf")], stable_steps=1)
EXITS += early_exits(ANYTIME, "margin", limits=[4], stable_steps=1)
REPORT = AnytimeReport("simulator", ANYTIME, EXITS)


def test_json_has_the_promised_keys() -> None:
    values = json.loads(json.dumps(REPORT.as_dict(), allow_nan=False))
    assert set(values) == {
        "network",
        "fingerprint",
        "backend",
        "samples",
        "time_steps",
        "accuracy",
        "rate_error",
        "early_exit",
    }
    assert (values["network"], values["backend"]) == ("made up", "simulator")
    assert values["fingerprint"] == "0123456789ab"
    assert (values["samples"], values["time_steps"]) == (3, 4)
    assert values["accuracy"] == [2 / 3, 1, 1, 2 / 3]
    expected = {"reference": "equilibrium", "reference_converged": True, "samples": 2}
    assert values["rate_error"] == expected | {"mean": [0.25, 0.125, 0.0625, 0.03125]}
    row = {"rule": "settled", "stable_steps": 1, "limit": 0, "accuracy": 2 / 3, "mean_steps": 4, "left_early": 0}
    assert values["early_exit"] == [
        row,
        row | {"limit": 0.3, "accuracy": 1, "mean_steps": (4 + 2 + 3) / 3, "left_early": 2 / 3},
        row | {"limit": None, "accuracy": 1, "mean_steps": (3 + 2 + 3) / 3, "left_early": 1},
        row | {"rule": "margin", "limit": 4, "accuracy": 1, "mean_steps": (4 + 2 + 4) / 3, "left_early": 1 / 3},
    ]


def test_markdown_holds_every_figure() -> None:
    text = REPORT.as_markdown()
    figures = [
        "| 1 | 66.67% | 0.25 |",
        "| 4 | 66.67% | 0.0312 |",
        "made up (fingerprint 0123456789ab) on simulator",
        "3 test samples",
    ]
    figures += ["4 time steps", "| settled | 0 | 66.67% | 4.00 | 0.0% |", "| settled | 0.3 |"]
    figures += [
        "| settled | inf | 100.00% | 2.67 | 100.0% |",
        "| margin | 4 |",
        "the rates at which the integer network settles",
        "2 samples",
        "for 1 step, none",
    ]
    assert [figure for figure in figures if figure not in text] == []
    assert "converge" not in text
    for table in (block for block in text.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_markdown_says_what_the_rates_are_compared_with() -> None:
    final = replace(REPORT, anytime=replace(ANYTIME, reference="final"))
    assert "from the same run's rates after all steps" in final.as_markdown()
    open_ = replace(REPORT, anytime=replace(ANYTIME, reference_converged=False))
    assert "**For some samples the iteration did not converge to an equilibrium within 1e-05" in open_.as_markdown()


def test_the_picture_is_the_same_each_time() -> None:
    pytest.importorskip("matplotlib")
    picture = REPORT.picture()
    assert picture == REPORT.picture()
    assert len(picture) < 60_000
    for words in (
        b"made up, simulator, 3 samples",
        b"exit, settled",
        b"exit, margin",
        b"mean rate error against equilibrium rates",
    ):
        assert words in picture


def test_logarithmic_axes_have_labels_that_can_be_read() -> None:
    pytest.importorskip("matplotlib")
    steps = 30
    anytime = replace(
        ANYTIME,
        rate_error=np.linspace(0.2, 0.01, steps),
        labels=np.ones(10, np.int64),
        predictions=(np.arange(10) >= np.linspace(5, 1, steps)[:, None]).astype(np.int64),
        margins=np.ones((steps, 10)),
    )
    labels = re.findall(r">([^<>]+)</text>", AnytimeReport("simulator", anytime, []).picture().decode())
    assert {"1", "2", "5", "10", "20", "0.01", "0.02", "0.05", "0.1", "0.2", "0.15", "0.3", "0.5"} <= set(labels)


def test_what_is_zero_is_no_trouble() -> None:
    """A logarithmic axis has no place for it: nothing is wrong here, and no rate is off."""
    pytest.importorskip("matplotlib")
    right = replace(ANYTIME, rate_error=np.zeros(4), labels=np.ones(3, np.int64), predictions=np.ones((4, 3), np.int64))
    exits = early_exits(right, "settled", limits=[0, 1], stable_steps=1)
    assert b"<svg" in AnytimeReport("simulator", right, exits).picture()


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r'needs matplotlib; install .*: pip install "fsnn-lava\[plots'):
        REPORT.picture()
