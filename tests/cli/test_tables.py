"""Tables on a narrow terminal: long names go on in the next line, and nothing is cut."""

import io
from pathlib import Path

from rich.console import Console

from fsnn_lava.cli.own_inputs import show_answers
from fsnn_lava.cli.script import write_report


def first_column(output: io.StringIO) -> str:
    """Its letters, one line after the other; rich has a bar or two spaces between columns."""
    rows = (line.strip(" \u2502") for line in output.getvalue().splitlines())
    return "".join(row.split("\u2502")[0].split("  ")[0].strip() for row in rows)


def test_names_of_inputs_and_classes_are_whole() -> None:
    name, label = "a_recording_of_someone_with_a_long_name.bin", "right_arm_counter_clockwise"
    answer = {"input": name, "class": label, "probabilities": {label: 1.0}, "decided_in_step": 1, "firing": {"p": 0.1}}
    output = io.StringIO()
    show_answers(Console(file=output, width=60), [answer], time_steps=12, as_json=False)
    assert "\u2026" not in output.getvalue()
    assert name in first_column(output)


def test_names_in_reports_are_whole(tmp_path: Path) -> None:
    name = "population1_current_coarse_of_a_long_name"
    table = f"| connection | first | second |\n| --- | --- | --- |\n| {name} | {'a' * 30} | {'b' * 30} |\n"
    output = io.StringIO()
    write_report(Console(file=output, width=60), tmp_path, "report", markdown=f"# Title\n\n{table}", values={})
    assert "\u2026" not in output.getvalue()
    assert name in first_column(output)
    assert table in (tmp_path / "report.md").read_text()
