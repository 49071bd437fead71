"""Accuracy by bits and T: what is measured, kept and shown."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.deployment import bits
from benchmarks.shared.results import README, RESULTS, stored
from fsnn_lava.errors import ConfigError

KEPT = {
    "b T = 3": {
        "dataset": "digits",
        "notation": "12-10 (F12)",
        "time_steps": 3,
        "threshold": "r/2",
        "float, papers' timing": 0.9,
        "float": 0.92,
        "float, longer": 0.93,
        "rounded": {"8": 0.91, "2": 0.5},
        "integers": {"8": 0.94},
    },
    "a T = 1": {
        "dataset": "digits",
        "notation": "12 (F12)",
        "time_steps": 1,
        "threshold": "r/2",
        "float": 0.8,
        "rounded": {"ternary": 0.7},
        "integers": {"ternary": 0.75},
    },
}


def test_table_has_a_row_for_each_network_and_steps() -> None:
    table = bits.bits_table(KEPT)
    assert table.header[:4] == ("dataset", "network", "T", "threshold")
    assert table.header[-6:] == ("8 bits", "6 bits", "4 bits", "3 bits", "2 bits", "ternary")
    assert table.rows == (
        ("digits", "12 (F12)", "1", "r/2", "", "80.00", "", "", "", "", "", "", "70.00 / 75.00"),
        ("digits", "12-10 (F12)", "3", "r/2", "90.00", "92.00", "93.00", "91.00 / 94.00", "", "", "", "50.00 / ", ""),
    )


def test_picture_is_the_same_each_time_and_names_its_figures(tmp_path: Path) -> None:
    bits.draw(KEPT, tmp_path)
    first = (tmp_path / "bits.svg").read_bytes()
    bits.draw(KEPT, tmp_path)
    assert (tmp_path / "bits.svg").read_bytes() == first
    assert bits.says(KEPT).encode() in first
    assert b"T = 3, trained in integers" in first


def test_documents_and_picture_show_what_is_kept() -> None:
    kept = stored(RESULTS / bits.RESULT.name)
    shown = re.findall(r"<!-- bits: [^\n]*-->\n(.*?)\n<!-- end -->", README.read_text(encoding="utf-8"), re.DOTALL)
    assert shown == [bits.bits_table(kept).markdown()]
    assert bits.says(kept) in (RESULTS / "bits.svg").read_text(encoding="utf-8")


def test_cells_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = bits.Case("digits", "12-10 (F12)", (3,), 1, 1, (bits.Weights(8), bits.Weights(2, symmetric=True)))
    monkeypatch.setattr(bits, "CASES", {"small": small})
    command = ["--cases", "small", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert bits.main(command) == 0
    assert capsys.readouterr().out.count("small-3: ") == 7
    (row,) = json.loads((tmp_path / "bits.json").read_text()).values()
    figures = [row["float"], row["float, longer"], row["float, papers' timing"], *row["rounded"].values()]
    figures += row["integers"].values()
    assert len(figures) == 7
    assert all(0.1 < figure <= 1 for figure in figures)
    assert row["integers"].keys() == {"8", "ternary"}
    assert bits.main(command) == 0
    assert "small-3: " not in capsys.readouterr().out


def test_a_document_without_the_block_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bits.json").write_text(json.dumps(KEPT))
    document = tmp_path / "README.md"
    document.write_text("nothing")
    monkeypatch.setattr(bits, "README", document)
    with pytest.raises(ConfigError, match='found 0 blocks "bits"'):
        bits.main(["--readme", "--results", str(tmp_path)])
    document.write_text("<!-- bits: made so -->\n<!-- end -->\n")
    assert bits.main(["--readme", "--results", str(tmp_path)]) == 0
    assert "50.00" in document.read_text()
