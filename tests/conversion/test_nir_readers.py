"""Plain NIR files in Norse, Sinabs, snnTorch and nirtorch: spikes of every step, as each tool's law says, and ours."""

import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fsnn_lava
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.conversion.lowering import lower
from fsnn_lava.conversion.nir_plain import PlainForm, Reader, write_plain_nir
from fsnn_lava.hardware import Array, HardwareNetwork, with_timing
from fsnn_lava.quantization import quantize
from networks import branching_network, looping_network
from nir_reader_laws import Law, norse, sent, sinabs, snntorch, subtracting
from nir_readers import run_in_readers, run_program
from script_loader import ROOT
from trained import digits, random_network, some_codes, trained_network

nir = pytest.importorskip("nir", reason="the package nir is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.nir_readers]

SAMPLES, STEPS = 12, 15
NEAREST = 2e-6
"""Share of the threshold: float32 sums of some dozens of numbers are nearer than that to those of float64."""
FORMS: dict[str, tuple[Reader, Reader]] = {
    "norse": ("nir", "nir"),
    "sinabs": ("nir", "sinabs"),
    "snntorch": ("snntorch", "nir"),
    "nirtorch": ("nir", "nir"),
}
"""Tool -> the form in which it takes IF, and that in which it takes LIF."""
EXACT = ("forward", "zoo", "kernels", "loops", "integer loops", "branches")
"""Whose numbers float32 adds without rounding: multiples of 2**-8 below 2**16."""
ROUNDED = ("trained", "border", "leaky", "leaky itself", "leaky kernels")


class Run(NamedTuple):
    """What a tool was given, and what it sent or said."""

    graph: Any
    inputs: Array
    answer: dict[str, Any]


Runs = dict[tuple[str, str, str], Run]
"""Of tool, case and variant."""


def integers(network: HardwareNetwork) -> HardwareNetwork:
    return quantize(network, digits().train.codes[:40])[0]


@pytest.fixture(scope="module")
def cases() -> dict[str, HardwareNetwork]:
    """Feedforward and feedback, dense and convolutions, IF and LIF, one population and more."""
    return {
        "forward": integers(lower(random_network("40-30"))),
        "zoo": fsnn_lava.from_zoo("digits"),
        "kernels": integers(lower(random_network("8C3-6C3s (F8C3u)"))),
        "loops": looping_network(),
        "integer loops": looping_network(integer=True),
        "branches": branching_network(),
        "trained": lower(trained_network("40 (F40)")),
        "border": lower(random_network("4C3s (F4C3)")),
        "leaky": lower(random_network("30-20 (F30)", leak=0.9)),
        "leaky itself": lower(random_network("30 (F30)", leak=0.95)),
        "leaky kernels": lower(random_network("4C3s (F4C3)", leak=0.9)),
    }


@pytest.fixture(scope="module")
def runs(cases: dict[str, HardwareNetwork], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every tool on every case, and what else tests ask for."""
    folder = tmp_path_factory.mktemp("plain")
    wanted: list[tuple[str, str, str]] = [(tool, case, "") for tool in FORMS for case in (*EXACT, *ROUNDED)]
    wanted += [("sinabs", case, "one spike a step") for case in ("trained", "border", "loops", "integer loops")]
    wanted += [
        ("nirtorch", "zoo", "its own Affine"),
        ("snntorch", "zoo", "form nir"),
        ("sinabs", "leaky kernels", "form nir"),
    ]
    jobs = []
    for tool, case, variant in wanted:
        reader = "nir" if variant == "form nir" else FORMS[tool][leaks(cases[case])]
        graph = folder / f"{case}-{reader}.nir"
        if not graph.exists():
            write_plain_nir(cases[case], graph, form=PlainForm(reader))
        inputs = inputs_of(cases[case])
        jobs.append({"tool": tool, "variant": variant, "graph": graph, "inputs": inputs, "steps": STEPS})
    answers = run_in_readers(jobs, folder)
    return {
        key: Run(nir.read(job["graph"]), job["inputs"], answer)
        for key, job, answer in zip(wanted, jobs, answers, strict=True)
    }


def leaks(network: HardwareNetwork) -> bool:
    return network.populations[0].neuron.leak < 1


def inputs_of(network: HardwareNetwork) -> Array:
    if network.input.shape == (1, 8, 8):
        return some_codes(SAMPLES)
    drawn: Array = np.random.default_rng(1).integers(0, network.input.maximum + 1, (SAMPLES, *network.input.shape))
    return drawn


def law_of(tool: str, step: float) -> Law:
    laws: dict[str, Law] = {
        "norse": partial(norse, step=step),
        "sinabs": sinabs,
        "snntorch": snntorch,
        "nirtorch": partial(subtracting, step=step),
    }
    return laws[tool]


@pytest.mark.parametrize("case", [*EXACT, *ROUNDED])
@pytest.mark.parametrize("tool", FORMS)
def test_every_spike_is_that_of_the_tools_law(
    runs: Runs, cases: dict[str, HardwareNetwork], tool: str, case: str
) -> None:
    run = runs[tool, case, ""]
    assert "error" not in run.answer, run.answer["error"]
    law = law_of(tool, 1e-4 if leaks(cases[case]) else 1.0)
    expected, nearest = sent(run.graph, run.inputs, law, steps=STEPS)
    assert nearest > NEAREST or case in EXACT
    assert run.answer.keys() == expected.keys()
    for name, spikes in expected.items():
        if name != "output":
            assert np.array_equal(run.answer[name], spikes), name
            assert spikes.mean() > 0.02
    # sums of a few dozen float32
    np.testing.assert_allclose(run.answer["output"], expected["output"], rtol=1e-5, atol=1e-4)


def assert_ours(run: Run, network: HardwareNetwork) -> None:
    """The tool's spikes are those of our simulator, where feedback takes one step."""
    assert "error" not in run.answer, run.answer["error"]
    simulator = IntegerSimulator() if network.arithmetic == "integer" else FloatSimulator()
    sequential = with_timing(network, "sequential")
    codes = run.inputs.astype(np.uint8)
    names = [p.name for p in network.populations]
    ours = simulator.run(HardwareNetwork(**{**vars(sequential), "time_steps": STEPS}), codes, record=names)
    nodes = [n for n in run.answer if n != "output"]
    for name in names:
        (node,) = (n for n in nodes if n == name or n.endswith(f"_{name}"))
        assert np.array_equal(run.answer[node], ours.spikes[name].reshape(STEPS, SAMPLES, -1))


@pytest.mark.parametrize("case", ["loops", "integer loops", "branches", *ROUNDED])
def test_neurons_that_subtract_fire_as_ours(runs: Runs, cases: dict[str, HardwareNetwork], case: str) -> None:
    """In nirtorch, whose neurons are the test's own; integers without rounding are exact."""
    assert_ours(runs["nirtorch", case, ""], cases[case])


@pytest.mark.parametrize("case", ["loops", "integer loops", "trained", "border"])
def test_sinabs_with_one_spike_a_step_fires_as_ours(runs: Runs, cases: dict[str, HardwareNetwork], case: str) -> None:
    assert_ours(runs["sinabs", case, "one spike a step"], cases[case])


@pytest.mark.parametrize("tool", ["norse", "snntorch"])
def test_what_a_reset_to_zero_costs_is_bounded(runs: Runs, tool: str) -> None:
    """Of a constant current that ours fire on n of T times, the others fire n / (1 + n / T) times or more, at most n.

    It takes 1 / a steps to the threshold, rounded up where the rest is lost: at most 1 / a + 1.
    """
    ours, theirs = (runs[name, "forward", ""].answer["population1"].sum(axis=0) for name in ("nirtorch", tool))
    assert (theirs <= ours).all()
    assert (theirs >= np.floor(ours / (1 + ours / STEPS))).all()
    assert (theirs < ours).any()


def test_sinabs_rates_go_beyond_one_and_else_are_ours(runs: Runs) -> None:
    """A constant current brings as many spikes as thresholds; ours are no more than one a step."""
    ours, theirs = (runs[name, "forward", ""].answer["population1"].sum(axis=0) for name in ("nirtorch", "sinabs"))
    assert np.array_equal(np.minimum(theirs, STEPS), ours)
    assert theirs.max() > STEPS


@pytest.mark.parametrize("tool", FORMS)
def test_classes_of_a_trained_network_are_ours(runs: Runs, cases: dict[str, HardwareNetwork], tool: str) -> None:
    run = runs[tool, "zoo", ""]
    ours = IntegerSimulator().run(cases["zoo"], run.inputs).logits.argmax(axis=1)
    assert np.array_equal(run.answer["output"][:5].mean(axis=0).argmax(axis=1), ours)


def test_what_the_tools_cannot_do_is_as_documented(runs: Runs) -> None:
    """docs/nir.md names these; a release of theirs that can do them is a reason to change the page."""
    assert "must be Tensor, not tuple" in str(runs["snntorch", "zoo", "form nir"].answer["error"])
    assert "truth value of an array" in str(runs["sinabs", "leaky kernels", "form nir"].answer["error"])
    with_bias, without = (runs["nirtorch", "zoo", variant].answer["population1"] for variant in ("", "its own Affine"))
    assert not np.array_equal(with_bias, without)


def test_programs_of_the_page_run(cases: dict[str, HardwareNetwork], tmp_path: Path) -> None:
    """They end with logits; those of Sinabs and nirtorch are then of our law, and so ours but for rounding."""
    network, inputs = cases["loops"], inputs_of(cases["loops"])
    for reader in ("nir", "snntorch"):
        write_plain_nir(network, tmp_path / f"network-{reader}.nir", form=PlainForm(reader))
    np.save(tmp_path / "codes.npy", inputs.astype(np.float32))
    ours = FloatSimulator().run(network, inputs.astype(np.uint8)).logits
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "nir.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(programs) == 4
    for program in programs:
        before = f"import numpy, torch\nT, codes = {network.time_steps}, torch.from_numpy(numpy.load('codes.npy'))\n"
        (tmp_path / "program.py").write_text(before + program + "numpy.save('logits.npy', logits.numpy())\n")
        run_program("program.py", tmp_path)
        logits = np.load(tmp_path / "logits.npy")
        assert logits.shape == ours.shape
        if "Subtracting" in program or "SingleSpike" in program:
            np.testing.assert_allclose(logits, ours, rtol=1e-4, atol=1e-5)  # sums of a few hundred float32
