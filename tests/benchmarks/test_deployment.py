"""The benchmark of deployment measures what it says, and documents show what is kept. No time is asserted."""

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmarks.deployment.lava_speed as lava_speed
from benchmarks.deployment import speed as deployment
from benchmarks.deployment.engine_cost import driven_network, engine_costs
from benchmarks.deployment.kernel_speed import FIRING, PATTERNS, _add_runs, _patterns, _scatters, _steps, kernel_rates
from benchmarks.deployment.pictures import PICTURES, draw_costs, says
from benchmarks.deployment.tables import lava_images_per_second, model_ratio, simulator_ratio, tables
from benchmarks.shared.results import BENCHMARKS_README, README, RESULTS, stored
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.errors import ConfigError
from fsnn_lava.hardware.geometry import DENSE, Array, Convolution
from fsnn_lava.hardware.linear_maps import LinearMap
from fsnn_lava.hardware.network import ALWAYS_ON, HardwareNetwork
from fsnn_lava.hardware.run_io import RunResult
from fsnn_lava.kernels.spike_sums import flat_order, scatter_map

MAPS = {
    "convolution": LinearMap(
        Convolution(2, 1), np.random.default_rng(0).integers(-3, 4, (3, 2, 3, 3)), (2, 6, 6), (3, 3, 3)
    ),
    "dense": LinearMap(DENSE, np.random.default_rng(1).integers(-3, 4, (7, 9)), (9,), (7,)),
}


def kept_figures() -> dict[str, Any]:
    """Figures as they are kept, all made up."""
    stock = {"samples": 3, "time_steps": 2, "sample_steps": 7, "step_s": 2.0, "start_s": 5.0}
    ours = {"samples": 40, "time_steps": 30, "sample_steps": 35, "step_s": 0.01, "start_s": 4.0}
    more = {"spikes_per_step": 1234.5, "identical": True}
    facts = {"title": "AlexNet-F", "run": "alexnet", "dataset": "cifar10", "time_steps": 30}
    conditions = {"cpu": "Abacus", "cores": 2, "load": 0.1, "threads": 2, "commit": "0123456", "at": "today"}
    simulated = {"images": 1000, "seconds": 50.0, "first_s": 1.0, "peak_mib": 600.4, "before_mib": 450.0}
    simulated |= {"accuracy": 0.25, "pytorch": {"accuracy": 0.5, "samples": 2000}}
    rates = [{"firing": f, "operations": 10, "scatter_per_s": 1e12 * f, "step_per_s": 5e11 * f} for f in FIRING]
    cost = {"auto": 0.001, "event": 0.002, "dense": 0.003}
    rows = [{"firing": 0.0123, "time_steps": t, "seconds_per_image": cost} for t in (5, 10)]
    return {
        "lava": {
            "conditions": conditions,
            "networks": {"alexnet": facts | {"stock": stock | more, "ours": ours | more}},
        },
        "sets": {"conditions": conditions, "networks": {"alexnet": facts | simulated}},
        "kernels": {
            "conditions": conditions,
            "connections": {"small": {"weight_bytes": 9, "limit_per_s": 8e10, "rates": rates}},
            "additions_per_s": {"16384": 1.5e11, "268435456": 2e10},
        },
        "rates": {"conditions": conditions, "images": 2, "rows": [r | {"time_steps": 30} for r in rows]},
        "steps": {"conditions": conditions, "images": 2, "rows": rows},
    }


@pytest.mark.parametrize("name", MAPS)
def test_kernels_that_are_timed_add_the_weights_of_all_spikes(name: str) -> None:
    linear_map = MAPS[name]
    spikes = _patterns(int(np.prod(linear_map.source)), 0.3, np.random.default_rng(2))
    m = scatter_map(linear_map, dtype=np.int8)
    out, current = np.zeros(m.size, np.int16), np.zeros(int(np.prod(linear_map.target)), np.int32)
    _steps(spikes, m, out, current, 3)
    in_c_order = np.empty_like(spikes)
    in_c_order[:, flat_order(linear_map.source)] = spikes
    expected = linear_map.product(in_c_order.astype(np.float64)).sum(axis=0)[flat_order(linear_map.target)]
    assert np.array_equal(current, 3 * 2 * expected)

    last = out.copy()
    places, ends = np.nonzero(spikes)[1].astype(np.int32), spikes.sum(axis=1, dtype=np.int64).cumsum()
    total = np.zeros_like(out)
    _scatters(places, ends, m, total, 1)
    _scatters(places[: ends[-2]], ends[:-1], m, last, 1)
    assert np.array_equal(total, last)


@pytest.mark.parametrize("name", MAPS)
def test_synaptic_operations_are_spikes_times_the_synapses_behind_them(name: str) -> None:
    linear_map = MAPS[name]
    matrix = linear_map.unrolled()
    full, some = kernel_rates(linear_map, repeats=1, operations=1, firing=(1.0, 0.3))
    assert full.operations == matrix.nnz
    assert full.scatter_per_s > 0 < full.step_per_s

    generator = np.random.default_rng(1)  # as there
    spikes = [_patterns(matrix.shape[1], firing, generator) for firing in (1.0, 0.3)][1]
    synapses = matrix.getnnz(axis=0)[flat_order(linear_map.source)]
    assert some.operations == int((spikes @ synapses).sum()) // PATTERNS


def test_patterns_hold_the_share_of_spikes_asked_for() -> None:
    spikes = _patterns(1000, 0.02, np.random.default_rng(0))
    assert spikes.shape == (PATTERNS, 1000)
    assert np.array_equal(spikes.sum(axis=1), np.full(PATTERNS, 20))
    assert len(np.unique(spikes, axis=0)) == PATTERNS
    assert _patterns(10, 0.001, np.random.default_rng(0)).sum() == PATTERNS, "one spike at least"


def test_the_limit_adds_every_run_once() -> None:
    weights, out = np.arange(1, 9, dtype=np.int8), np.zeros(2, np.int16)
    _add_runs(weights, np.array([0, 2, 4, 6, 6, 6, 0, 2]), out)
    assert out.tolist() == [1 + 3 + 5 + 7 + 7 + 7 + 1 + 3, 2 + 4 + 6 + 8 + 8 + 8 + 2 + 4]


def test_driven_neurons_alone_fire_at_about_the_rate_asked_for() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28), dtype=np.uint8)
    for firing in (0.005, 0.05, 0.2):
        network = driven_network(firing, time_steps=30)
        counts = IntegerSimulator().run(network, codes).spike_counts["population1"]
        # All start from 0, which costs half a spike of some ten; a few hundred driven neurons are drawn at random.
        assert counts.mean() / 30 == pytest.approx(firing, rel=0.2)
        current = next(c.weight for c in network.connections if c.source == ALWAYS_ON)
        assert np.array_equal(counts.any(axis=0).ravel(), current[:, 0] > 0)


def test_costs_are_of_each_engine_at_each_point() -> None:
    found = engine_costs([(0.01, 2), (0.2, 3)], images=2, repeats=1, engines=("auto", "event"))
    assert [row["time_steps"] for row in found] == [2, 3]
    assert found[0]["firing"] < found[1]["firing"]
    assert all(set(row["seconds_per_image"]) == {"auto", "event"} for row in found)


class Clock:
    """A Lava that starts for 10 s and then takes 2 s a step; it says so on a clock of its own."""

    def __init__(self, network: HardwareNetwork, wrong: int) -> None:
        self.now, self.steps, self.wrong = 100.0, network.populations[-1].start + network.time_steps, wrong

    def __call__(self, *, stock_models: bool, timeout_s: float) -> "Clock":
        assert stock_models
        assert timeout_s > 60
        return self

    def perf_counter(self) -> float:
        return self.now

    def run(self, network: HardwareNetwork, inputs: Array, *, progress: Any) -> RunResult:
        self.now += 10
        for done in range(1, len(inputs) + 1):
            self.now += 2 * self.steps
            progress(done, len(inputs))
        self.now += 50  # its processes end
        result = IntegerSimulator().run(network, inputs)
        result.spike_counts["population1"][0, 0] += self.wrong
        return result


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_step_on_lava_is_told_from_its_start(monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    network = driven_network(0.1, time_steps=4)
    clock = Clock(network, wrong)
    monkeypatch.setattr(lava_speed, "LavaRunner", clock)
    monkeypatch.setattr(lava_speed, "time", clock)
    found = lava_speed.time_lava(network, np.zeros((3, 1, 28, 28), np.uint8), stock_models=True)
    assert (found.samples, found.time_steps, found.sample_steps) == (3, 4, 5)
    assert (found.step_s, found.start_s) == (2.0, 10.0)
    assert found.identical == (not wrong)


def test_ratios_follow_from_the_times() -> None:
    kept = kept_figures()
    row, simulated = kept["lava"]["networks"]["alexnet"], kept["sets"]["networks"]["alexnet"]
    assert model_ratio(row) == 200
    assert lava_images_per_second(row, "stock") == 1 / 70, "35 steps of the whole window, not the 7 of the short one"
    assert lava_images_per_second(row, "ours", started=10) == 10 / (4 + 10 * 0.35)
    assert simulator_ratio(row, simulated) == pytest.approx(20 * 70)


def test_tables_say_what_is_kept() -> None:
    found = {name: table.markdown() for name, table in tables(kept_figures()).items()}
    assert set(found) == {name for names in deployment.DOCUMENTS.values() for name in names}
    assert "| AlexNet-F, T = 30 | 2000 | 10 | 200 | 100 | 1234 |" in found["deployment-models"]
    assert "AlexNet-F: fewer steps on Lava's own models" in found["deployment-models"]
    assert "| AlexNet-F, T = 30 | 0.0143 | 0.0142 | 2.86 | 1.33 | 20 | 1,400 | 1,000 |" in found["deployment-simulator"]
    sets = "| 1,000 of cifar10 | 50.0 | < 90 | 600 MiB | 450 MiB | 25.00% | 50.00% of 2,000 |"
    assert sets in found["deployment-sets"]
    assert "| small | 5 | 10 | 20 | 50 | 100 | 200 | 10 | 80 | 25% | 2 |" in found["deployment-kernels"]
    assert (
        "150·10⁹ weights a second from its nearest cache (16 KiB), and 20·10⁹ from memory"
        in found["deployment-kernels"]
    )
    assert "| 1.23% | 1 | 2 | 3 |" in found["deployment-rates"]
    assert "| 10 | 1 | 2 | 3 |" in found["deployment-steps"]
    assert "1,000 in 50.0 s" in found["deployment-speed"]
    assert all("Abacus, 2 cores, load average 0.1 before, 2 threads" in text for text in found.values())


def test_tables_do_not_hide_spikes_that_differ_and_figures_of_two_trees() -> None:
    kept = copy.deepcopy(kept_figures())
    kept["lava"]["networks"]["alexnet"]["ours"]["identical"] = False
    kept["sets"]["conditions"] = kept["sets"]["conditions"] | {"commit": "7654321"}
    found = tables(kept)
    assert "NOT the simulator's" in found["deployment-models"].markdown()
    assert re.search("commit 0123456.* The simulator: .*commit 7654321", found["deployment-speed"].markdown())
    del kept["sets"]
    assert set(tables(kept)) == set(found) - {"deployment-simulator", "deployment-speed", "deployment-sets"}


def test_pictures_are_the_same_each_time_and_name_their_figures(tmp_path: Path) -> None:
    for section in PICTURES:
        path = draw_costs(kept_figures(), section, tmp_path)
        first = path.read_bytes()
        assert draw_costs(kept_figures(), section, tmp_path).read_bytes() == first
        assert says(kept_figures(), section).encode() in first
        assert all(word in first for word in (b"auto", b"event", b"dense", b"milliseconds per image"))


def test_documents_and_pictures_show_what_is_kept(tmp_path: Path) -> None:
    kept = stored(RESULTS / deployment.RESULT) or {}
    found = tables(kept)
    for path, names in deployment.DOCUMENTS.items():
        text = path.read_text(encoding="utf-8")
        shown = dict(re.findall(r"<!-- (deployment-[a-z]+): [^\n]*-->\n(?:(.*?)\n)??<!-- end -->", text, re.DOTALL))
        assert set(shown) == set(names) & set(shown), f"{path}: another document's tables"
        assert shown == {name: found[name].markdown() if name in found else "" for name in shown}, path
    for section, name in PICTURES.items():
        if section in kept:
            picture = (RESULTS / name).read_text()
            assert says(kept, section) in picture, name
            assert draw_costs(kept, section, tmp_path).read_text().count('id="ytick_') >= 5, (
                "too few to read a cost from"
            )
    assert set(deployment.DOCUMENTS) == {README, BENCHMARKS_README}


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sections lava and sets: no network is named; give --mnist, --alexnet or"):
        deployment.main(["--only", "lava", "sets", "--results", str(tmp_path)])
    with pytest.raises(ConfigError, match=r"deployment\.json holds no figures for deployment-speed; measure them"):
        deployment.main(["--readme", "--results", str(tmp_path)])
    with pytest.raises(ConfigError, match=rf"{tmp_path.name}: holds no network-float.h5 and no network-integer.h5"):
        deployment.main(["--only", "sets", "--mnist", str(tmp_path)])


def test_readme_writes_all_tables_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deployment.json").write_text(json.dumps(kept_figures()))
    documents = {tmp_path / f"{n}.md": names for n, names in enumerate(deployment.DOCUMENTS.values())}
    for path, names in documents.items():
        path.write_text("".join(f"<!-- {name}: made so -->\n<!-- end -->\n" for name in names))
    monkeypatch.setattr(deployment, "DOCUMENTS", documents)
    command = ["--readme", "--results", str(tmp_path)]
    (tmp_path / "1.md").write_text("nothing")
    with pytest.raises(ConfigError, match='found 0 blocks "deployment-models"'):
        deployment.main(command)
    assert "AlexNet-F" not in (tmp_path / "0.md").read_text()
    names = documents[tmp_path / "1.md"]
    (tmp_path / "1.md").write_text("".join(f"<!-- {name}: made so -->\n<!-- end -->\n" for name in names))
    assert deployment.main(command) == 0
    assert all("AlexNet-F" in path.read_text() for path in documents)


def test_a_section_leaves_the_others_figures_and_different_spikes_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = kept_figures()
    (tmp_path / "deployment.json").write_text(json.dumps(kept))
    networks: Mapping[str, Any] = copy.deepcopy(kept["lava"]["networks"])
    networks["alexnet"]["stock"]["identical"] = False
    monkeypatch.setattr(deployment, "read_subjects", lambda arguments: {"alexnet": None})
    monkeypatch.setattr(deployment, "measure_lava", lambda subjects, say: networks)
    assert deployment.main(["--only", "lava", "--results", str(tmp_path)]) == 1
    assert "NOT the simulator's" in capsys.readouterr().out
    found = json.loads((tmp_path / "deployment.json").read_text())
    assert found["lava"]["networks"] == networks
    assert found["lava"]["conditions"] != kept["lava"]["conditions"]
    assert {name: found[name] for name in kept if name != "lava"} == {n: kept[n] for n in kept if n != "lava"}
