"""The simulator's cost against the firing rate and against T, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.deployment.engine_cost import ENGINES
from benchmarks.shared.pictures import drawn_from, new_figure, save_figure

PICTURES = {"rates": "deployment_firing_rate.svg", "steps": "deployment_time_steps.svg"}
"""Name of the picture of each section of the kept figures."""
STYLES = {"auto": "o-", "event": "s--", "dense": "^:"}
"""Marker and line of each engine."""
YTICKS = [multiple * 10.0**power for power in range(-3, 4) for multiple in (1, 2, 5)]
"""Where the logarithmic axis of the cost may have labels, in milliseconds."""


def says(kept: Mapping[str, Any], section: str) -> str:
    """Name the figures that the picture of a section was drawn from."""
    return drawn_from(kept[section]["rows"], what="costs")


def draw_costs(kept: Mapping[str, Any], section: str, folder: Path) -> Path:
    """Write the picture, and return its path.

    Raises
    ------
    MissingDependencyError : if matplotlib is absent.
    """
    rows = kept[section]["rows"]
    by_rate = section == "rates"
    places = [100 * row["firing"] if by_rate else row["time_steps"] for row in rows]
    figure = new_figure(section, size=(6, 4))
    axes = figure.add_subplot()
    for engine in ENGINES:
        costs = [1e3 * row["seconds_per_image"][engine] for row in rows]
        axes.loglog(places, costs, STYLES[engine], label=engine, markersize=5)
    axes.set_xticks(places, [f"{place:.2g}" if by_rate else str(place) for place in places], minor=False)
    axes.minorticks_off()
    axes.set_yticks([value for value in YTICKS if axes.get_ylim()[0] <= value <= axes.get_ylim()[1]])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("spikes per neuron and step, %" if by_rate else "time steps T")
    axes.set_ylabel("milliseconds per image")
    fixed = f"T = {rows[0]['time_steps']}" if by_rate else f"about {rows[-1]['firing']:.0%} firing"
    axes.set_title(f"64C5s (F64C5) in the simulator, {fixed}", fontsize=10)
    axes.legend(title="engine", fontsize=8)
    path = folder / PICTURES[section]
    save_figure(figure, path, says=says(kept, section))
    return path
