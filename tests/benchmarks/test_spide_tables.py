"""The tables of SPIDE's training show what is kept, of older files too, and the document shows the tables."""

import copy
import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from benchmarks.shared.results import BENCHMARKS_README, RESULTS, stored
from benchmarks.spide import training as spide
from benchmarks.spide.energy import EnergyCosts
from benchmarks.spide.operations import ConnectionWork
from benchmarks.spide.tables import TIMES_WANTED, speed_ratio, tables
from fsnn_lava.errors import ConfigError


def kept_figures() -> dict[str, Any]:
    """Figures as they are kept, all made up."""
    conditions = {"cpu": "Abacus", "cores": 2, "load": 0.1, "threads": 2, "commit": "0123456", "at": "today"}
    facts = {"notation": next(iter(TIMES_WANTED)), "dataset": "mnist"}
    facts |= {"leak": 1.0, "time_steps": 30, "time_steps_back": 100}
    facts |= {"loss_scale": 100.0, "batch_size": 128, "dropout": 0.2, "epochs": 0, "conditions": conditions}
    plain = {"forward": 0.2, "backward": 0.8, "update": 0.1, "total": 1.1}
    ours = {"forward": 0.1, "backward": 0.05, "update": 0.1, "total": 0.25}
    agreement = {"firing": [0.1], "firing_back": [0.001], "differing_forward": 0.0, "differing_backward": 0.001}
    agreement |= {"gradient_error": 2e-7}
    limits = {"plain": plain, "ours": ours, "additions_per_s": 1e11, "streamed_numbers_per_s": 1e10}
    seconds = {"plain": plain, "ours": ours, "iterations": 4, "flops_per_s": 5e11}
    connection = {f.name: 1000.0 for f in fields(ConnectionWork)} | {"name": "input", "learned": True}
    work = {"neurons": [10], "firing": [0.1], "firing_back": [0.001], "time_steps_back": 100, "adjoint_steps": 7}
    work |= {"connections": [connection, connection | {"name": "feedback"}]}
    costs = asdict(EnergyCosts()) | {"source": "a book"}
    energies = {"sparse": 2.0, "dense": 50.0}
    count = {"additions": 5.0, "multiplications": 0.0, "products": 7.0}
    part = {"method": "SPIDE", "name": "spikes", "sparse": count, "dense": count, "sparse_uj": 2.0, "dense_uj": 50.0}
    epoch = {"epoch": 3, "loss": 0.25, "accuracy": 0.9876, "firing": [0.07], "firing_back": [0.0042]}
    epoch |= {"seconds_so_far": 1234.0}
    error = {"time_steps_back": 250, "loss_scale": 400.0, "error": 0.05, "cosine": 0.999}
    error |= {"saturated": 0.002, "saturated_part": 0.3, "unresolved": 0.5}
    rows = [{"method": "spide", "time_steps": 30, "time_steps_back": 100, "mib": 12.34}]
    rows.append({"method": "bptt", "time_steps": 30, "time_steps_back": 0, "mib": 345.6})
    totals = {"SPIDE": energies, "IDE": {"sparse": 5.0, "dense": 20.0}}
    accurate = {"time_steps_back": 250, "loss_scale": 400.0, "totals": {"sparse": 3.0, "dense": 80.0}}
    counted = {"work": work, "parts": [part], "totals": totals, "accurate": accurate, "costs": costs}
    return {
        "speed": {"mnist_spide_conv": facts | {"agreement": agreement, "seconds": seconds, "limits": limits}},
        "memory": {"mnist_spide_conv": facts | {"batch_size": 32, "rows": rows}},
        "energy": {
            "run a": facts
            | {"epochs": 3, "history": [epoch], "trained_threads": 1, "adjoint_tolerance": 0.003}
            | counted
        },
        "error": {"mnist_spide_conv": facts | {"samples": 128, "errors": [error]}},
    }


def test_tables_show_the_figures() -> None:
    figures = kept_figures()
    figures["error"]["run a"] = figures["error"]["mnist_spide_conv"]
    shown = {name: table.markdown() for name, table in tables(figures).items()}
    assert "| 1.1e+03 / 250 | 4.4 | 3 | 0 / 0.001 | 2e-07 |" in shown["spide-speed"].replace("1,100", "1.1e+03")
    assert speed_ratio(kept_figures()["speed"]["mnist_spide_conv"]) == pytest.approx(4.4)
    assert "| backward | 800 | 800 | 100% | 50 | 50 | 100% |" in shown["spide-limits"]
    assert "| SPIDE | 30 | 100 | 12.3 |" in shown["spide-memory"]
    assert "| BPTT | 30 | - | 345.6 |" in shown["spide-memory"]
    assert "| in epoch 3 | 0.250 | 98.76% | 1,234 | 0.07 | 0.0042 |" in shown["spide-firing"]
    assert "CPU threads of `64C5s-64C5s-64C5 (F64C3u)`, mnist after 3 epochs: 1. " in shown["spide-firing"]
    assert "after 3 epochs, measured here | - | - | - | 0.1 | 0.001 |" in shown["spide-firing"]
    assert "| SPIDE, T_back 100, scale 100 | 2 | 1 | 50 | 25 | not measured |" in shown["spide-energy"]
    assert "|  |  | SPIDE, T_back 250, scale 400 | 3 | 1.5 | 80 | 40 | 0.050 |" in shown["spide-energy"]
    assert "| IDE | 5 | 2.5 | 20 | 10 | solved to 0.003 |" in shown["spide-energy"]
    assert "SPIDE at T_back 100, scale 100, for one sample" in shown["spide-energy-parts"]
    assert "a book" in shown["spide-energy"]
    assert "| spikes | 5 | 0 | 7 | 2 | 5 | 0 | 7 | 50 |" in shown["spide-energy-parts"].replace(" 7.0 ", " 7 ")
    assert "| 250 | 0.050 / 0.9990 | 50% / 0.002 / 30% |" in shown["spide-error"]
    assert "cosine above 0.99: holds." in shown["spide-error"]
    assert all(
        "Abacus, 2 cores, load average 0.1 before, 2 threads, commit 0123456, today." in t for t in shown.values()
    )


def test_figures_of_an_older_file_are_still_shown() -> None:
    figures = copy.deepcopy(kept_figures())
    energy = figures["energy"]["run a"]
    for name in ("accurate", "adjoint_tolerance", "trained_threads"):
        del energy[name]
    del energy["history"][0]["seconds_so_far"]
    figures["error"]["mnist_spide_conv"]["errors"][0] |= {"worst": 0.1, "worst_parameter": "x", "silent": 0.4}
    shown = tables(figures)
    assert "| 98.76% | - | 0.07 |" in shown["spide-firing"].markdown()
    assert "Seconds so far" not in shown["spide-firing"].notes
    assert [row[2] for row in shown["spide-energy"].rows] == ["SPIDE, T_back 100, scale 100", "IDE"]
    assert [row[-1] for row in shown["spide-energy"].rows] == ["not measured", "-"]
    assert shown["spide-energy"] == tables({"energy": figures["energy"]})["spide-energy"]


def test_settings_of_an_accurate_gradient_are_shown_once() -> None:
    figures = kept_figures()
    figures["energy"]["run a"] |= {"time_steps_back": 250, "loss_scale": 400.0}
    assert [row[2] for row in tables(figures)["spide-energy"].rows] == ["SPIDE, T_back 250, scale 400", "IDE"]


def test_an_error_that_is_too_large_is_said() -> None:
    figures = copy.deepcopy(kept_figures())
    figures["error"]["mnist_spide_conv"]["errors"][0]["error"] = 0.11
    assert (
        "cosine above 0.99: DOES NOT HOLD of `64C5s-64C5s-64C5 (F64C3u)`, mnist untrained."
        in tables(figures)["spide-error"].notes
    )
    figures["error"]["mnist_spide_conv"]["errors"][0]["loss_scale"] = 100.0
    assert "not measured" in tables(figures)["spide-error"].notes


def test_readme_is_written_from_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "README.md"
    monkeypatch.setattr(spide, "DOCUMENT", document)
    with pytest.raises(ConfigError, match=r"spide\.json holds no figures; measure them first"):
        spide.main(["--readme", "--results", str(tmp_path)])
    (tmp_path / "spide.json").write_text(json.dumps(kept_figures()))
    document.write_text("nothing")
    with pytest.raises(ConfigError, match='found 0 blocks "spide-speed"'):
        spide.main(["--readme", "--results", str(tmp_path)])
    document.write_text("".join(f"<!-- {name}: made so -->\n<!-- end -->\n" for name in tables(kept_figures())))
    assert spide.main(["--readme", "--results", str(tmp_path)]) == 0
    assert _blocks(document) == {name: table.markdown() for name, table in tables(kept_figures()).items()}


def _blocks(document: Path) -> dict[str, str]:
    text = document.read_text(encoding="utf-8")
    return dict(re.findall(r"<!-- (spide-[a-z-]+): [^\n]*-->\n(?:(.*?)\n)??<!-- end -->", text, re.DOTALL))


def test_document_shows_what_is_kept() -> None:
    kept = stored(RESULTS / spide.RESULT) or {}
    found = {name: table.markdown() for name, table in tables(kept).items()}
    shown = _blocks(BENCHMARKS_README)
    assert set(shown) == set(tables(kept_figures()))
    assert shown == {name: found.get(name, "") for name in shown}
