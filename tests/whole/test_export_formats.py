"""Export to other formats and from NIR through the script: files, refusals, and what is left behind."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import trained
from fsnn_lava.backends.simulator import FloatSimulator, IntegerSimulator
from fsnn_lava.cli import anytime, export, verify
from fsnn_lava.conversion import export_folder
from fsnn_lava.conversion.export_folder import load_deployed
from fsnn_lava.conversion.lowering import lower
from fsnn_lava.conversion.nir_read import read_nir
from fsnn_lava.conversion.nir_write import write_nir
from fsnn_lava.errors import ConfigError, NetworkError, UnsupportedError
from fsnn_lava.hardware.network import HardwareNetwork, with_timing

FEW = ["--calibration-samples", "30"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    trained.train_into(folder, notation="24-16 (F24)")
    return folder


def test_nir_and_back_is_the_same_float_network(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("nir", reason='needs nir: pip install -e ".[nir]"')
    assert export.main(["--to", "nir", "--run", str(run_folder), *FEW]) == 0
    graph = run_folder / "network-float.nir"
    assert graph.is_file()
    assert (run_folder / "network-integer.nir").is_file()
    runs = tmp_path / "runs"
    assert export.main(["--from-nir", str(graph), "--dataset", "digits", "--runs", str(runs), *FEW]) == 0
    ours, theirs = load_deployed(run_folder), load_deployed(runs / "digits")
    codes = trained.some_codes(20)
    names = [p.name for p in ours.floating.populations]
    a, b = (FloatSimulator().run(d.floating, codes, record=names) for d in (ours, theirs))
    for name in names:
        assert np.array_equal(a.spikes[name], b.spikes[name])
        assert a.spikes[name].any()
    options = ["--run", str(theirs.folder), "--samples", "10", "--backends", "simulator", "simulator-float"]
    assert verify.main(options) == 0
    report = json.loads((theirs.folder / "report.json").read_text())
    assert report["lowering"] is None
    assert report["network"]["dataset"] == "digits"


def test_foreign_graphs_take_the_values_of_a_dataset(tmp_path: Path) -> None:
    """A graph made for normalised digits: an Affine, neurons that subtract their threshold, feedback, a classifier."""
    nir = pytest.importorskip("nir", reason='needs nir: pip install -e ".[nir]"')
    network = trained.random_network("12 (F12)")
    model = network.model().double().eval()
    weight, bias = (getattr(model.feedforward[0], name).detach().numpy() for name in ("weight", "bias"))
    feedback = model.feedback.effective_weight().detach().numpy()
    out, shift = (getattr(model.readout, name).detach().numpy() for name in ("weight", "bias"))
    nodes = {
        "input": nir.Input(input_type={"input": np.array([1, 8, 8])}),
        "flat": nir.Flatten(input_type={"input": np.array([1, 8, 8])}, start_dim=0, end_dim=-1),
        "in": nir.Affine(weight=weight, bias=bias),
        "neurons": nir.IF(r=np.ones(12), v_threshold=np.full(12, 2.0), v_reset=np.zeros(12)),
        "back": nir.Linear(weight=feedback),
        "classes": nir.Affine(weight=out, bias=shift),
        "output": nir.Output(output_type={"output": np.array([10])}),
    }
    edges = [("input", "flat"), ("flat", "in"), ("in", "neurons"), ("neurons", "back"), ("back", "neurons")]
    edges += [("neurons", "classes"), ("classes", "output")]
    nir.write(str(tmp_path / "graph.nir"), nir.NIRGraph(nodes=nodes, edges=edges))
    options = ["--from-nir", str(tmp_path / "graph.nir"), "--dataset", "digits", "--runs", str(tmp_path), *FEW]
    options += ["--nir-reset", "subtract"]
    assert export.main([*options, "--time-steps", "9"]) == 0
    found = load_deployed(tmp_path / "graph").floating
    assert (found.input.kind, found.input.maximum, found.time_steps) == ("graded", 16, 9)
    current = currents(found)
    values = network.coding.decode(trained.some_codes(5)).reshape(5, -1)
    np.testing.assert_allclose(current, values @ weight.T + bias, rtol=0, atol=1e-5)  # the table of values is float32


RESETS = {
    "zero": "reset: a spike sets the potential to 0 (by NIR's definition of the file's v_reset; tools whose neurons",
    "subtract": "reset: a spike subtracts v_threshold - v_reset, before the leak of the next step (assumed, since the",
}


@pytest.mark.parametrize("law", RESETS)
def test_graphs_of_cuba_neurons_are_exported_and_verified(
    law: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events of N-MNIST's form in miniature would need a dataset: digits, whose values excite, do."""
    nir = pytest.importorskip("nir", reason='needs nir: pip install -e ".[nir]"')
    rng = np.random.default_rng(0)

    def cuba(size: int, alpha: float, beta: float) -> Any:
        ones, syn, mem = np.ones(size), 1 / (1 - alpha), 1 / (1 - beta)
        more = {"v_reset": 0 * ones} if law == "zero" else {}
        node = nir.CubaLIF(tau_syn=syn * ones, tau_mem=mem * ones, r=mem * ones, v_leak=0 * ones, v_threshold=ones,
                           w_in=syn * ones, **more)  # fmt: skip
        return node

    nodes = {
        "in": nir.Input(np.array([64])),
        "w": nir.Affine(rng.normal(0, 0.08, (16, 64)), rng.normal(0.2, 0.1, 16)),
        "x": cuba(16, 0.3, 0.9),
        "back": nir.Linear(rng.normal(-0.05, 0.1, (16, 16))),
        "w2": nir.Affine(rng.normal(0.1, 0.3, (10, 16)), rng.normal(0.1, 0.1, 10)),
        "y": cuba(10, 0.0, 0.8),
        "out": nir.Output(np.array([10])),
    }
    edges = [("in", "w"), ("w", "x"), ("x", "back"), ("back", "x"), ("x", "w2"), ("w2", "y"), ("y", "out")]
    path = tmp_path / "graph.nir"
    nir.write(str(path), nir.NIRGraph(nodes=nodes, edges=edges))
    if law == "subtract":
        with h5py.File(path, "r+") as file:
            for name in ("x", "y"):
                del file[f"node/nodes/{name}/v_reset"]
    options = ["--from-nir", str(path), "--dataset", "digits", "--runs", str(tmp_path), *FEW, "--time-steps", "20"]
    assert export.main(options) == 0
    assert RESETS[law] in capsys.readouterr().out.replace("\n", " ")
    deployed = load_deployed(tmp_path / "graph")
    assert [p.neuron.reset for p in deployed.integer.populations] == [law, law]
    assert [p.neuron.current_decay for p in deployed.integer.populations] == [round(4096 * 0.7), 4096]
    assert "This network has no equilibrium" in (deployed.folder / "export.md").read_text()
    backends = ["simulator", "simulator-float"]
    assert verify.main(["--run", str(deployed.folder), "--samples", "20", "--backends", *backends]) == 0
    report = (deployed.folder / "report.md").read_text()
    assert "Nothing: this network has no equilibrium rates, so none are compared with." in report
    reason = "reset to zero and a current that decays" if law == "zero" else "found a current that decays"
    assert reason in report
    assert ", current leak 0.3" in report
    rates = IntegerSimulator().run(deployed.integer, trained.some_codes(20)).firing_rates
    assert all(0.02 < rate.mean() < 0.9 for rate in rates.values())
    with pytest.raises(
        UnsupportedError, match=r'"graph" has no equilibrium to compare rates with:(.|\n)*--reference final'
    ):
        anytime.main(["--run", str(deployed.folder), "--samples", "20", "--backend", "simulator", "--no-picture"])
    final = ["--reference", "final", "--no-picture"]
    assert anytime.main(["--run", str(deployed.folder), "--samples", "20", "--backend", "simulator", *final]) == 0


def test_options_of_a_graph_go_with_one() -> None:
    with pytest.raises(ConfigError, match="--nir-reset: found without --from-nir; allowed: with it"):
        export.main(["--nir-reset", "zero"])


def currents(network: HardwareNetwork) -> np.ndarray:
    """Constant current of the first population for the first five digits."""
    codes = trained.some_codes(5).reshape(5, -1).astype(np.float64)
    parts = {c.source: c.weight for c in network.incoming(network.populations[0].name)}
    current: np.ndarray = codes @ parts["input"].T + parts["always_on"][:, 0]
    return current


def test_netx_says_why_it_cannot_and_leaves_nothing(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "best.safetensors").write_bytes((run_folder / "best.safetensors").read_bytes())
    with pytest.raises(UnsupportedError, match=r"netx cannot say network(.|\n)*input_to_population1(.|\n)*exponent"):
        export.main(["--to", "netx", "--run", str(folder), *FEW])
    assert [path.name for path in folder.iterdir()] == ["best.safetensors"]


def test_an_interrupted_export_leaves_no_partial_file(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the second of the two networks is written: the first is whole, the second is the old one."""
    assert export.main(["--run", str(run_folder), *FEW]) == 0
    before = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()}
    save: Callable[..., None] = export_folder.save_network

    def interrupted(network: HardwareNetwork, path: Path) -> None:
        if network.arithmetic == "integer":
            monkeypatch.setattr("os.replace", _interrupt)
        save(network, path)

    monkeypatch.setattr(export_folder, "save_network", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export.main(["--run", str(run_folder), "--time-steps", "7", *FEW])
    after = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()}
    assert set(before) - set(after) == {"export-record.npz"}, "which is not of the new files"
    assert after["network-integer.h5"] == before["network-integer.h5"]
    assert after["network-float.h5"] != before["network-float.h5"]
    with pytest.raises(NetworkError, match="are not of one export"):
        load_deployed(run_folder)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options",
    [["--from-nir", "graph.nir"], ["--from-nir", "g", "--dataset", "digits", "--run", "r"]],
)
def test_options_that_go_together(options: list[str]) -> None:
    with pytest.raises(ConfigError, match="--from-nir FILE needs --dataset NAME, and goes without --run"):
        export.main(options)


def test_graphs_of_integers_or_with_other_delays_are_refused(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("nir", reason='needs nir: pip install -e ".[nir]"')
    assert export.main(["--to", "nir", "--run", str(run_folder), *FEW]) == 0
    rest = ["--dataset", "digits", "--runs", str(tmp_path)]
    with pytest.raises(UnsupportedError, match="holds integers; export the float graph"):
        export.main(["--from-nir", str(run_folder / "network-integer.nir"), *rest])
    floating = lower(trained.random_network("12 (F12)"))
    late = tuple(replace(c, delay=5) if c.name == "feedback" else c for c in floating.connections)
    write_nir(replace(floating, connections=late), tmp_path / "late.nir")
    with pytest.raises(UnsupportedError, match="has delays of its own; allowed: none but one step on every feedback"):
        export.main(["--from-nir", str(tmp_path / "late.nir"), *rest])


def test_an_energy_needs_its_source(run_folder: Path) -> None:
    cost = ["--energy.pj-per-synaptic-operation", "2"]
    with pytest.raises(ConfigError, match=r"found 2\.0 pJ without a source; say where the figure is from"):
        export.main(["--run", str(run_folder), *FEW, *cost])
    assert export.main(["--run", str(run_folder), *FEW, *cost, "--energy.source", "a table"]) == 0
    energy = json.loads((run_folder / "export.json").read_text())["activity"]["energy"]
    assert (energy["pj_per_synaptic_operation"], energy["source"]) == (2.0, "a table")


def test_plain_nir_says_what_it_leaves_out_and_comes_back(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read back, the float graph has the rates of the network with feedback of one step."""
    pytest.importorskip("nir", reason='needs nir: pip install -e ".[nir]"')
    assert export.main(["--to", "nir", "--nir-neurons", "plain", "--run", str(run_folder), *FEW]) == 0
    shown = capsys.readouterr().out
    assert "the NIR graphs are plain and say less than the networks:\n  reset: here a spike subtracts the" in shown
    assert '  timing: connection "feedback" (population2 -> population1) takes 2 steps here, and one where' in shown
    assert shown.count("  reset: ") == 1
    for arithmetic in ("float", "integer"):
        runs = tmp_path / arithmetic
        graph = run_folder / f"network-{arithmetic}.nir"
        assert export.main(["--from-nir", str(graph), "--dataset", "digits", "--runs", str(runs), *FEW]) == 0
        ours, theirs = load_deployed(run_folder).floating, load_deployed(runs / "digits").floating
        assert theirs.input == ours.input
        codes = trained.some_codes(20)
        a, b = (FloatSimulator().run(with_timing(n, "sequential"), codes) for n in (ours, theirs))
        for name, rates in a.firing_rates.items():
            difference = np.abs(rates - b.firing_rates[name])
            # floats are in float32; of integers the mean over neurons of what rounding weights moves
            assert difference.max() == 0 if arithmetic == "float" else difference.mean() < 0.02
            assert rates.mean() > 0.05


def test_plain_nir_refuses_before_it_writes(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nir", reason='needs nir: pip install -e ".[nir]"')
    before = {path: path.read_bytes() for path in run_folder.iterdir() if path.is_file()}
    monkeypatch.setattr("fsnn_lava.conversion.nir_plain._Plan.is_forward", lambda self, way: False)
    with pytest.raises(UnsupportedError, match=r'plain NIR cannot say network "digits", 2 violation\(s\); nothing was'):
        export.main(["--to", "nir", "--nir-neurons", "plain", "--run", str(run_folder), *FEW])
    assert {path: path.read_bytes() for path in run_folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--nir-neurons", "plain"], "--nir-neurons plain: found without --to nir; allowed: with it"),
        (["--to", "nir", "--nir-reader", "sinabs"], "--nir-reader sinabs: found without --nir-neurons plain; allowed"),
        (
            ["--to", "nir", "--time-step", "0.1"],
            "--time-step: found without --from-nir or --nir-neurons plain; allowed",
        ),
    ],
)
def test_options_of_plain_nir_go_together(options: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        export.main(options)


def test_a_time_step_is_that_of_the_plain_files(run_folder: Path) -> None:
    pytest.importorskip("nir", reason='needs nir: pip install -e ".[nir]"')
    plain = ["--to", "nir", "--nir-neurons", "plain", "--run", str(run_folder), *FEW]
    assert export.main([*plain, "--time-step", "0.5"]) == 0
    assert read_nir(run_folder / "network-float.nir").provenance["from_nir"]["time_step"] == 0.5
    with pytest.raises(ConfigError, match=r"time_step is 0\.5; allowed: 1, which sinabs assumes"):
        export.main([*plain, "--nir-reader", "sinabs", "--time-step", "0.5"])
