"""The verification report as JSON and as Markdown."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import networks
import small
import trained
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.errors import ConfigError, InputError
from fsnn_lava.hardware import STATE_LIMIT, IntegerNeuron, RunResult, linear_map
from fsnn_lava.hardware.geometry import Array, Convolution, TransposedConvolution
from fsnn_lava.hardware.network import ALWAYS_ON, INPUT, Connection, HardwareNetwork, InputSpec, Population, Readout
from fsnn_lava.network import Settling
from fsnn_lava.quantization.potential_reach import PotentialReach
from fsnn_lava.quantization.quantizer import quantize
from fsnn_lava.verification.agreement import SpikeAgreement, SpikeDifference
from fsnn_lava.verification.compare_runs import Difference, Divergence, Pair, compare_all
from fsnn_lava.verification.error_budget import SETTLING, Budget, Cause, Contribution, Distance, error_budget
from fsnn_lava.verification.export_report import report_export
from fsnn_lava.verification.rates import NeuronDeparture, PopulationRates, RateCheck
from fsnn_lava.verification.report import Report
from fsnn_lava.verification.size_and_energy import LOIHI_1, EnergyModel, network_size, run_activity
from fsnn_lava.verification.structure import Deviation, Structure
from random_networks import random_network

NOTHING = Difference(0.0, 0.0)
SAME = {"population1": NOTHING, "population2": NOTHING}
EXACT = "the same spikes in every population, sample and step"
PAIR = Pair("simulator", "lava-fixed", "exact", EXACT, True, 0.0, 0.0, None, SAME)
LIMIT, PLACE = "mean rate difference <= 1/T = 0.0333", Divergence("population2", 17, 3, 41)
STATEMENT = Pair("torch", "lava-fixed", "statistical", LIMIT, False, 0.0461, 0.789, PLACE, SAME)
BROKEN = dataclasses.replace(PAIR, agrees=False, mean_rate_difference=0.0123, first_divergence=PLACE)
STEP = Contribution(-0.0021, 0.0102, 0.0123, 0.456)
NO_STEP = Contribution(0.0, 0.0, 0.0, 0.0)
TIMING = Cause("timing", "one -> other", {"population1": STEP, "population2": NO_STEP})
TOTAL = dataclasses.replace(TIMING, name="total")
SETTLED = Distance(SETTLING, "one - equilibrium", {"population1": Difference(0.0321, 0.654), "population2": NOTHING})
FINITE = Distance("finite time, float", "run - equilibrium", {**SAME, "population1": Difference(0.0311, 0.643)})
BUDGET = Budget(
    (TIMING, TOTAL),
    (FINITE, SETTLED),
    {"population1": 0.107, "population2": 0.2},
    {"trained": 0.975, "integer": 0.9625},
    unsettled_samples=0,
    equilibrium_converged=True,
    settling={
        "float": Settling(80, 0, 0.31, 0.42, 0.53, 0.01, 0.12, 0.0321, ran=True, gain_samples=80),
        "integer": Settling(80, 0, 0.33, 0.44, 0.55, 0.02, 0.13, None, ran=False, gain_samples=80),
    },
)
TIE = SpikeDifference(2, "population1", 5, 19, 3e-16)
LOWERING = SpikeAgreement(80, (TIE,), ())
STRUCTURE = Structure(("both networks: what the export recorded.",), 12345, (), "")
NEURON_19 = NeuronDeparture(19, -0.011, 0.012, 0.113, 0.314)
RATES = RateCheck(
    "what the export measured",
    80,
    (PopulationRates("population1", (0.001, 0.002, 0.033), (0.044, 0.055, 0.066), NEURON_19, 0.222, 0, agrees=True),),
    "",
)
REPORT = Report(
    network={"name": "digits", "notation": "24-20 (F24)"},
    samples=80,
    chosen="80 of 360, evenly spread",
    time_steps=30,
    accuracy={"torch": 0.9725, "lava-fixed": 0.9375},
    structure=STRUCTURE,
    rates=RATES,
    pairs=(PAIR, STATEMENT),
    lowering=LOWERING,
    budget=BUDGET,
    potentials={"population1": PotentialReach(2**22, 3 * 2**20, 2**19), "population2": PotentialReach(0, 0, 0)},
)


def numbers(value: Any) -> Iterator[float]:
    """Every number below a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def test_json_has_the_promised_keys() -> None:
    """Other programs read them: a change here is a change of an interface."""
    values = json.loads(json.dumps(REPORT.as_json(), allow_nan=False))
    promised = {"accuracy", "pairs", "lowering", "budget", "network", "samples", "time_steps", "structure", "rates"}
    promised |= {"potentials"}
    assert set(values) == promised | {"agrees", "checks", "chosen", "findings", "warnings"}
    assert values["checks"] == {"structure": True, "rates": True, "spikes": True}
    assert set(values["structure"]) == {"basis", "entries", "deviations", "cause", "agrees"}
    assert set(values["rates"]) == {"basis", "samples", "populations", "cause", "agrees"}
    promised = {"population", "shift", "size", "neuron", "noticed", "departing", "agrees"}
    assert set(values["rates"]["populations"][0]) == promised
    promised = {"a", "b", "relation", "agrees", "mean_rate_difference", "max_rate_difference", "first_divergence"}
    for pair in values["pairs"]:
        assert set(pair) == promised | {"requirement", "populations"}
    assert values["accuracy"] == {"torch": 0.9725, "lava-fixed": 0.9375}
    assert (values["samples"], values["time_steps"], values["agrees"]) == (80, 30, True)
    assert values["network"] == {"name": "digits", "notation": "24-20 (F24)"}
    assert [pair["first_divergence"] for pair in values["pairs"]] == [
        None,
        {"population": "population2", "step": 17, "sample": 3, "neuron": 41},
    ]
    assert values["budget"]["accuracy"] == {"trained": 0.975, "integer": 0.9625}
    assert values["budget"]["distances"][1]["populations"]["population1"] == {"mean": 0.0321, "maximum": 0.654}
    assert values["potentials"]["population1"] == {"bound": 2**22, "attacked": 3 * 2**20, "observed": 2**19}
    cause = values["budget"]["causes"][0]
    assert (cause["name"], cause["compares"]) == ("timing", "one -> other")
    assert cause["populations"]["population1"] == dataclasses.asdict(STEP)


def test_potentials_are_printed_in_bits() -> None:
    text = REPORT.as_markdown()
    assert "| population1 | 22.00 | 21.58 | 19.00 |\n| population2 | 0.00 | 0.00 | 0.00 |" in text
    assert "the chip holds 23.00" in text
    beyond = {"population2": PotentialReach(2**24, STATE_LIMIT + 1, 5)}
    assert dataclasses.replace(REPORT, potentials=beyond).warnings() == [
        "an input was found with which a potential of population2 leaves 24 bits"
    ]
    assert REPORT.warnings() == []
    assert "## Potentials" not in dataclasses.replace(REPORT, potentials={}).as_markdown()


def test_json_of_real_runs_holds_finite_numbers_only() -> None:
    floating = trained.on_hardware(trained.random_network("16-12 (F16)"))
    codes, labels = trained.some_codes(10), trained.digits().test.labels[:10]
    integer, _ = quantize(floating, codes)
    names = [p.name for p in floating.populations]
    runs = [FloatSimulator().run(floating, codes), IntegerSimulator().run(integer, codes, record=names)]
    budget = error_budget(floating, integer, codes, labels)
    report = Report({}, 10, "", 20, {}, STRUCTURE, RATES, compare_all(runs), SpikeAgreement(10, (), ()), budget)
    found = list(numbers(json.loads(json.dumps(report.as_json(), allow_nan=False))))
    assert len(found) > 30
    assert all(map(math.isfinite, found))


def test_markdown_holds_every_figure() -> None:
    text = REPORT.as_markdown()
    figures = [
        "Test samples: 80 of 360, evenly spread; 30 time steps each.",
        "97.25%",
        "93.75%",
        "97.50%",
        "96.25%",
        "0.0461",
        "0.789",
    ]
    figures += [
        "| population1 | 0.107 | 0.0321 | 0.654 |",
        "| timing | one -> other | 0.01020 | -0.00210 | 0.0123 | 0.456 |",
        "0.0311 / 0.643",
        "12,345 entries",
        "| population1 | mean difference |  | +0.001 | +0.002 | 0.033 | yes |",
        "| population1 | mean absolute difference |  | 0.044 | 0.055 | 0.066 | yes |",
        "| population1 | neuron 19 | -0.011 | +0.012 | +0.113 | 0.314 | yes |",
        "| population1 | any neuron |  |  |  | 0.222 |  |",
        "24-20 (F24)",
        "torch / lava-fixed",
        "simulator / lava-fixed",
        "1/T = 0.0333",
    ]
    figures += ["the same spikes in every population"]
    assert [figure for figure in figures if figure not in text] == []


def test_markdown_tables_are_rectangular() -> None:
    """Every row has as many cells as the header above it."""
    blocks = [block for block in REPORT.as_markdown().split("\n\n") if block.startswith("|")]
    assert len(blocks) == 13
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_each_check_fails_by_itself() -> None:
    assert REPORT.agrees, "the statement on 1/T is no verdict"
    assert "Verified: all three checks hold." in REPORT.as_markdown()
    assert "**" not in REPORT.as_markdown()
    assert REPORT.findings() == []
    where = Deviation("integer", "weights", "feedback", (3, 7), "5", "6", "like nothing")
    cases = {
        "structure": {"structure": Structure(("a record.",), 9, (where,), str(where))},
        "spikes": {"pairs": (BROKEN,)},
        "rates": {"rates": departed()},
    }
    for name, change in cases.items():
        report = dataclasses.replace(REPORT, **change)  # type: ignore[arg-type]
        assert not report.agrees
        assert [check for check, holds in report.checks.items() if not holds] == [name]
        (line,) = report.findings()
        assert line.startswith(f"{name}: ")
        text = report.as_markdown()
        assert f"**Not verified: {name}.**" in text
        assert f"- {line}" in text
        assert json.loads(json.dumps(report.as_json()))["findings"] == [line]
    report = dataclasses.replace(REPORT, **cases["structure"])  # type: ignore[arg-type]
    assert "| integer | weights | feedback | [3, 7] | 5 | 6 | like nothing |" in report.as_markdown()
    expected = "integer network, weights of feedback[3, 7]: expected 5, found 6 (like nothing)"
    assert report.findings() == [f"structure: {expected}"]
    (line,) = dataclasses.replace(REPORT, **cases["spikes"]).findings()  # type: ignore[arg-type]
    assert f"simulator and lava-fixed do not agree; required (exact): {EXACT}; first divergence: {PLACE}" in line


def departed(*, one_neuron: bool = True) -> RateCheck:
    found = dataclasses.replace(NEURON_19, found=0.913)
    (population,) = RATES.populations
    wrong = dataclasses.replace(population, neuron=found, departing=int(one_neuron), agrees=False)
    return dataclasses.replace(RATES, populations=(wrong,), cause="threshold of population1")


def test_rates_say_by_what_they_are_limited() -> None:
    assert "a probability of one in a million" in REPORT.as_markdown()
    (population,) = RATES.populations
    stated = dataclasses.replace(RATES, populations=(dataclasses.replace(population, neuron=None),))
    text = dataclasses.replace(REPORT, rates=stated).as_markdown()
    assert "2 times the rounding error at the equilibrium and 0.25 spikes a window" in text
    assert "a million" not in text


def test_too_few_samples_are_said_to_tell_too_little() -> None:
    """One sample's rates differ by many spikes by chance, so that the check holds whatever the neurons do."""
    assert REPORT.warnings() == []
    (population,) = RATES.populations
    weak = dataclasses.replace(RATES, populations=(dataclasses.replace(population, noticed=8.25),))
    report = dataclasses.replace(REPORT, rates=weak, samples=1, chosen="")
    (line,) = report.warnings()
    assert line.startswith(
        "rates of population1: with 1 sample a neuron is noticed only where it departs by 8.25 spikes"
    )
    assert report.agrees
    assert f"- **warning: {line}**" in report.as_markdown()
    assert "1 test sample; 30 time steps each." in report.as_markdown()
    assert report.as_json()["warnings"] == [line]


def test_rates_name_the_neuron_or_the_population() -> None:
    (line,) = dataclasses.replace(REPORT, rates=departed()).findings()
    assert "neuron 19 of population1: expected +0.012 spikes a window" in line
    assert "found +0.913, allowed 0.314 more or less; neurons that depart: 1" in line
    assert line.endswith("cause: threshold of population1")
    (line,) = dataclasses.replace(REPORT, rates=departed(one_neuron=False)).findings()
    assert "population1: mean difference expected +0.001 spikes a window, found +0.002" in line


def test_every_tie_is_listed_and_what_is_none_breaks_the_verdict() -> None:
    text = REPORT.as_markdown()
    assert "every spike is the same in 79 of 80 samples" in text
    assert "| tie | 2 | population1 | 5 | 19 | 3e-16 |" in text
    assert list(REPORT.as_json()["lowering"]["ties"]) == [dataclasses.asdict(TIE)]
    wrong = dataclasses.replace(TIE, distance=0.02)
    broken = dataclasses.replace(REPORT, pairs=(PAIR,), lowering=SpikeAgreement(80, (), (wrong,)))
    assert broken.checks == {"structure": True, "rates": True, "spikes": False}
    assert 'first: sample 2, population "population1", step 5, neuron 19' in broken.findings()[0]
    assert "| **not explained** | 2 | population1 | 5 | 19 | 0.02 |" in broken.as_markdown()
    same = dataclasses.replace(REPORT, lowering=SpikeAgreement(80, (), ()))
    assert "every spike is the same in 80 of 80 samples." in same.as_markdown()
    assert "A tie is" not in same.as_markdown()


def test_markdown_says_that_nothing_converged() -> None:
    restless = Settling(80, 7, 0.9, 1.4, 0.7, 0.3, 0.7, 0.25, ran=True, gain_samples=80)
    settling = {**BUDGET.settling, "integer": restless}
    budget = dataclasses.replace(BUDGET, unsettled_samples=7, equilibrium_converged=False, settling=settling)
    report = dataclasses.replace(REPORT, budget=budget)
    text = report.as_markdown()
    assert "- **integer network: does not settle: 7 of 80 samples, the loop's gain is up to 1.40; distances" in text
    assert "- **integer network: every neuron is silent or saturated, nothing flows around the loop" in text
    assert "- **integer network: 70% of the neurons never fire**" in text
    assert "- **integer network: T is too short to speak of an equilibrium: the rates are 25% of their mean" in text
    assert "network: " not in REPORT.as_markdown()
    assert "| float | 0.31 | 0.42 | 0 of 80 | at T | 53% | 1% | 12% | 3.2% |" in text
    assert "| integer | 0.33 | 0.44 | 0 of 80 | at rest | 55% | 2% | 13% |  |" in REPORT.as_markdown()


NEURON = IntegerNeuron(100, 100, 0, 0, 1.0)


def image_network(kind: Any = "graded") -> HardwareNetwork:
    """2x4x4 -> 3x4x4 (3x3 kernels, one empty) -> 2x2x2 (stride 2), transposed 3x3 back, one constant current."""
    rng = np.random.default_rng(5)

    def kernels(*shape: int) -> Array:
        return rng.choice([-3, 0, 1, 2], shape).astype(np.int32)

    weights = kernels(3, 2, 3, 3)
    weights[1, 0] = 0
    current = np.arange(48, dtype=np.int32)[:, None] % 3
    populations = (Population("a", (3, 4, 4), NEURON, 1), Population("b", (2, 2, 2), NEURON, 2))
    connections = (
        Connection("in", INPUT, "a", weights, 1, 0, 8, Convolution(1, 1)),
        Connection("on", ALWAYS_ON, "a", current, 0, 0, 4),
        Connection("ff", "a", "b", kernels(2, 3, 2, 2), 1, 0, 6, Convolution(2, 0)),
        Connection("fb", "b", "a", kernels(2, 3, 3, 3), 1, 0, 5, TransposedConvolution(2, 1, 1)),
    )
    readout = Readout("b", np.ones((3, 8)), np.zeros(3))
    spec = InputSpec((2, 4, 4), kind, 255 if kind == "graded" else 1)
    return HardwareNetwork("image", spec, populations, connections, readout, 6)


def run_of(network: HardwareNetwork, counts: dict[str, Array], *, samples: int) -> RunResult:
    """A run that is nothing but its spike counts."""
    return RunResult("some", network.name, "integer", network.time_steps, {}, counts, np.zeros((samples, 3)))


def random_run(network: HardwareNetwork, samples: int) -> tuple[RunResult, Array]:
    rng = np.random.default_rng(0)
    counts = {
        p.name: rng.integers(0, network.time_steps + 1, (samples, *p.shape)).astype(np.int32)
        for p in network.populations
    }
    return run_of(network, counts, samples=samples), networks.random_inputs(network, samples, seed=1)


def operations_by_loop(network: HardwareNetwork, connection: Connection, result: RunResult, inputs: Array) -> int:
    """Every message of every sample at every synapse, one at a time."""
    matrix = linear_map(network, connection).unrolled().toarray()
    operations = 0
    for sample in range(len(result.logits)):
        if connection.source == ALWAYS_ON:
            messages = [len(range(connection.period // 2, network.time_steps, connection.period))]
        elif connection.source != INPUT:
            messages = result.spike_counts[connection.source][sample].ravel().tolist()
        elif network.input.kind == "graded":
            messages = [network.time_steps * int(code > 0) for code in inputs[sample].ravel()]
        else:
            messages = inputs[:, sample].reshape(network.time_steps, -1).astype(int).sum(axis=0).tolist()
        for source, count in enumerate(messages):
            for target in range(matrix.shape[0]):
                operations += count if matrix[target, source] != 0 else 0
    return operations


def test_size_by_hand() -> None:
    """A 2x2 convolution of 1x3x3 without padding: four places; one of its four weights is zero."""
    connections = (
        Connection("in", INPUT, "a", np.array([[[[1, 0], [2, -1]]]], np.int32), 1, 0, 6, Convolution(1, 0)),
        Connection("on", ALWAYS_ON, "a", np.array([[1], [0], [0], [5]], np.int32), 0, 0, 8),
        Connection("fb", "a", "a", np.array([[0, 1, 0, 0]] * 4, np.int32), 1, 0, 8),
    )
    readout = Readout("a", np.ones((2, 4)), np.zeros(2))
    a = Population("a", (1, 2, 2), NEURON, 1)
    network = HardwareNetwork("n", InputSpec((1, 3, 3), "graded", 255), (a,), connections, readout, 4)
    (size,) = network_size(network).populations
    assert (size.name, size.neurons) == ("a", 4)
    assert size.synapses == 3 * 4 + 2 + 4
    assert size.weight_bytes == 3 + 2 + 4  # 18 bits are 3 bytes
    assert size.weight_bytes_unshared == 3 * 4 * 6 // 8 + 2 + 4


@pytest.mark.parametrize("kind", ["graded", "event"])
def test_size_is_that_of_the_unrolled_matrices(kind: str) -> None:
    """Borders too: a 3x3 kernel at a corner makes 4 synapses, not 9."""
    network = image_network(kind)
    for size in network_size(network).populations:
        incoming = network.incoming(size.name)
        found = [np.count_nonzero(linear_map(network, c).unrolled().toarray()) for c in incoming]
        assert size.synapses == sum(found)
        bits = sum(n * c.weight_bits for n, c in zip(found, incoming, strict=True))
        assert size.weight_bytes_unshared == (bits + 7) // 8
        assert size.weight_bytes == (sum(np.count_nonzero(c.weight) * c.weight_bits for c in incoming) + 7) // 8
    total = network_size(network).total
    assert total.neurons == 48 + 8
    assert total.synapses == sum(p.synapses for p in network_size(network).populations)
    assert total.weight_bytes < total.weight_bytes_unshared


def test_float_weights_take_eight_bytes() -> None:
    network = small.network(np.array([[1.0, 0.0, 0.5]]))
    (size,) = network_size(network).populations
    assert (size.synapses, size.weight_bytes, size.weight_bytes_unshared) == (2, 16, 16)


def test_activity_by_hand() -> None:
    """Two inputs, two neurons: weights [[1, 0], [2, 3]], recurrent [[0, 1], [0, 0]], T = 5."""
    connections = (
        Connection("in", INPUT, "p", np.array([[1, 0], [2, 3]], np.int32), 1, 0, 8),
        Connection("fb", "p", "p", np.array([[0, 1], [0, 0]], np.int32), 1, 0, 8),
        Connection("on", ALWAYS_ON, "p", np.array([[0], [7]], np.int32), 0, 0, 8),
    )
    readout = Readout("p", np.ones((2, 2)), np.zeros(2))
    p = Population("p", (2,), NEURON, 1)
    network = HardwareNetwork("n", InputSpec((2,), "graded", 9), (p,), connections, readout, 5)
    result = run_of(network, {"p": np.array([[3, 1], [0, 4]], np.int32)}, samples=2)
    activity = run_activity(network, result, inputs=np.array([[9, 0], [1, 2]], np.uint8))
    assert (activity.samples, activity.time_steps, activity.spikes) == (2, 5, {"p": 4.0})
    into, back, on = activity.connections
    assert (into.messages, into.synaptic_operations) == (5 * 3 / 2, 5 * (2 + 2 + 1) / 2)
    assert (back.messages, back.synaptic_operations) == (4.0, 5 / 2)
    assert (on.messages, on.synaptic_operations) == (5.0, 5.0)
    assert activity.synaptic_operations == 12.5 + 2.5 + 5


@pytest.mark.parametrize("kind", ["graded", "event"])
def test_operations_are_those_of_a_loop_over_synapses(kind: str) -> None:
    network = image_network(kind)
    result, inputs = random_run(network, 3)
    activity = run_activity(network, result, inputs=inputs)
    assert [c.name for c in activity.connections] == ["in", "on", "ff", "fb"]
    for found, connection in zip(activity.connections, network.connections, strict=True):
        assert (found.source, found.target) == (connection.source, connection.target)
        assert found.synaptic_operations == operations_by_loop(network, connection, result, inputs) / 3


@pytest.mark.parametrize("seed", range(20))
def test_operations_of_random_graphs(seed: int) -> None:
    network = random_network(seed)
    result, inputs = random_run(network, 2)
    activity = run_activity(network, result, inputs=inputs)
    for found, connection in zip(activity.connections, network.connections, strict=True):
        assert found.synaptic_operations == operations_by_loop(network, connection, result, inputs) / 2


def test_activity_of_real_runs() -> None:
    integer = networks.worked_example()
    codes = np.array([[255, 0], [17, 200], [0, 0]], np.uint8)
    activity = run_activity(integer, IntegerSimulator().run(integer, codes), inputs=codes)
    assert activity.connections[0].messages == 3 * (1 + 2 + 0) / 3
    floating = networks.small_float_network()
    codes = networks.random_inputs(floating, 4, seed=0)
    result = FloatSimulator().run(floating, codes)
    activity = run_activity(floating, result, inputs=codes)
    assert activity.spikes["p0"] == result.spike_counts["p0"].sum() / 4
    assert activity.connections[1].synaptic_operations == 4 * activity.spikes["p0"]


def test_energy_by_hand() -> None:
    assert LOIHI_1.microjoules(1e6) == pytest.approx(23.6)  # one product of floats
    assert EnergyModel(2.0, "mine").microjoules(500_000) == pytest.approx(1.0)


@pytest.mark.parametrize("figure", [0.0, -1.0, float("inf"), float("nan")])
def test_energy_must_be_positive(figure: float) -> None:
    with pytest.raises(ConfigError, match=r"energy per synaptic operation: .* pJ; allowed: above 0"):
        EnergyModel(figure, "mine")


def test_energy_needs_its_source() -> None:
    with pytest.raises(ConfigError, match="energy per synaptic operation: found no source; say where the figure is"):
        EnergyModel(1.0, " ")


def test_json_of_sizes_has_the_promised_keys() -> None:
    network = image_network()
    result, inputs = random_run(network, 3)
    size = json.loads(json.dumps(network_size(network).as_dict(), allow_nan=False))
    row = {"neurons", "synapses", "weight_bytes", "weight_bytes_unshared"}
    assert [set(p) for p in size["populations"]] == [row | {"name"}] * 2
    assert set(size["total"]) == row
    assert size["total"]["neurons"] == 56
    activity = run_activity(network, result, inputs=inputs)
    values = json.loads(json.dumps(activity.as_dict(EnergyModel(2.0, "mine")), allow_nan=False))
    assert set(values) == {"samples", "time_steps", "spikes_per_inference", "connections", "total", "energy"}
    assert values["energy"] == {
        "microjoules_per_inference": pytest.approx(activity.synaptic_operations * 2e-6),
        "pj_per_synaptic_operation": 2.0,
        "source": "mine",
    }
    assert values["total"]["synaptic_operations"] == sum(c["synaptic_operations"] for c in values["connections"])
    assert values["total"]["spikes_per_inference"] == sum(values["spikes_per_inference"].values())
    assert "Davies et al." in activity.as_dict()["energy"]["source"]


def test_markdown_holds_every_figure_and_the_source() -> None:
    network = image_network()
    result, inputs = random_run(network, 3)
    size, activity = network_size(network), run_activity(network, result, inputs=inputs)
    text = activity.as_markdown()
    assert f"µJ, at 23.6 pJ each. Source: {LOIHI_1.source}." in text
    assert "simulations before the chip was made" in text
    assert "IEEE Micro 38(1), 2018" in text
    for connection in activity.connections:
        assert f"| {connection.name} | {connection.messages:,.1f} |" in text
    assert f"| total |  | {activity.synaptic_operations:,.1f} |" in text
    assert "mean of 3 training samples in the simulator, 6 time steps each" in text
    assert f"| a | 48 | {size.populations[0].synapses:,} | {size.populations[0].weight_bytes:,} |" in size.as_markdown()
    for table in (block for t in (text, size.as_markdown()) for block in t.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_refuses_what_is_not_of_one_run() -> None:
    network = image_network()
    result, inputs = random_run(network, 3)
    with pytest.raises(InputError, match=r'run "some" is of network "other", T = 6; found network "image", T = 6'):
        run_activity(network, dataclasses.replace(result, network="other"), inputs=inputs)
    with pytest.raises(InputError, match=r'is of network "image", T = 5; found network "image", T = 6; give the net'):
        run_activity(network, dataclasses.replace(result, time_steps=5), inputs=inputs)
    with pytest.raises(InputError, match=r'population "a": spike counts of shape \(3, 3, 4, 4\); expected .* \(2, 3'):
        run_activity(network, result, inputs=inputs[:2])
    missing = dataclasses.replace(result, spike_counts={"a": result.spike_counts["a"]})
    with pytest.raises(InputError, match=r'population "b": spike counts of shape None; expected .*give the inputs'):
        run_activity(network, missing, inputs=inputs)
    with pytest.raises(InputError, match=r'network "image": graded inputs of shape \(3, 2, 4\)'):
        run_activity(network, result, inputs=inputs[..., 0])


def test_an_export_says_which_weights_it_cut() -> None:
    floating = trained.on_hardware(trained.random_network("16 (F16)"))
    codes = trained.some_codes(10)
    integer, quantization = quantize(floating, codes, bits=4)
    report = report_export(integer, codes, quantization=quantization)
    assert [line.split(":")[0] for line in report.warnings()] == [
        name for name, c in quantization.connections.items() if c.clipped
    ]
    cut = dataclasses.replace(quantization.connections["feedback"], clipped=3, used_bits=4)
    few = dataclasses.replace(cut, clipped=0, used_bits=2)
    quantization = dataclasses.replace(quantization, connections={"feedback": cut, "few": few})
    report = dataclasses.replace(report, quantization=quantization)
    line = "feedback: 3 weights cut to the largest integer that 4 bits hold"
    assert report.warnings() == report.as_json()["warnings"] == [line]
    (note,) = report.notes()
    assert note.startswith("few: its weights use 2 of 4 bits; all connections into a population share one scale")
    assert report.as_json()["notes"] == [note]
    assert f"- {note}" in report.as_markdown()
    assert f"- **warning: {line}**" in report.as_markdown()
