"""The kept figures of deployment as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.deployment.engine_cost import ENGINES
from benchmarks.deployment.kernel_speed import CACHED, FIRING, UNCACHED
from benchmarks.deployment.measured_runs import CASES
from benchmarks.shared.machine import condition_line
from benchmarks.shared.text_table import TextTable

Kept = Mapping[str, Any]
FEW = 10
"""Images of the run on Lava whose start is counted."""
KERNELS_WANTED = 2e9
"""Synaptic operations per second and core at 2 % firing."""


def tables(kept: Kept) -> dict[str, TextTable]:
    """By the name of their block, those whose figures are there."""
    found = {}
    if "lava" in kept:
        found["deployment-models"] = models_table(kept["lava"])
    if "lava" in kept and "sets" in kept and kept["lava"]["networks"].keys() <= kept["sets"]["networks"].keys():
        found["deployment-simulator"] = simulator_table(kept["lava"], kept["sets"])
        found["deployment-speed"] = speed_table(kept["lava"], kept["sets"])
    if "sets" in kept:
        found["deployment-sets"] = sets_table(kept["sets"])
    if "kernels" in kept:
        found["deployment-kernels"] = kernels_table(kept["kernels"])
    for name, moving in (("rates", "firing"), ("steps", "time_steps")):
        if name in kept:
            found[f"deployment-{name}"] = costs_table(kept[name], moving)
    return found


def model_ratio(row: Kept) -> float:
    """Divide a step's time on Lava's own models by that on ours."""
    return float(row["stock"]["step_s"] / row["ours"]["step_s"])


def lava_images_per_second(row: Kept, models: str, *, started: int = 0) -> float:
    """Compute Lava's images per second, start excluded; or of a run of so many images, start included."""
    image_s = row["ours"]["sample_steps"] * row[models]["step_s"]
    return float(started / (row[models]["start_s"] + started * image_s) if started else 1 / image_s)


def simulator_ratio(row: Kept, simulated: Kept) -> float:
    """Divide the simulator's images per second by Lava's on its own models, start excluded."""
    return float(simulated["images"] / simulated["seconds"] / lava_images_per_second(row, "stock"))


def models_table(found: Kept) -> TextTable:
    """Lava's process models beside ours."""
    header = ("network", "Lava's own models, ms a step", "ours, ms a step", "times faster", "wanted", "spikes a step")
    rows = []
    for key, row in found["networks"].items():
        stock, ours = row["stock"], row["ours"]
        times = (_ms(stock["step_s"]), _ms(ours["step_s"]), f"{model_ratio(row):.0f}", _wanted(CASES[key].models))
        same = "" if stock["identical"] and ours["identical"] else ", NOT the simulator's"
        rows.append((_title(row), *times, f"{ours['spikes_per_step']:.0f}{same}"))
    shorter = [r["title"] for r in found["networks"].values() if r["stock"]["time_steps"] != r["time_steps"]]
    fewer = f" {', '.join(shorter)}: fewer steps on Lava's own models, which changes no step's time." if shorter else ""
    notes = (
        "Time between the first finished image and the last over the steps between, in one Lava run of each; all spike "
        f"counts are compared with the simulator's.{fewer} {condition_line(found['conditions'])}"
    )
    return TextTable("A step on Lava: its process models and ours", header, tuple(rows), notes)


def simulator_table(lava: Kept, sets: Kept) -> TextTable:
    """Images per second on Lava and in the simulator."""
    header = (
        *("network", "Lava's own models", f"run of {FEW}, with its start", "our models in Lava"),
        *(f"run of {FEW}, with its start", "simulator", "times Lava's own", "wanted"),
    )
    rows = []
    for key, row in lava["networks"].items():
        simulated = sets["networks"][key]
        speeds = [
            _per_second(lava_images_per_second(row, models, started=started))
            for models in ("stock", "ours")
            for started in (0, FEW)
        ]
        rate = simulated["images"] / simulated["seconds"]
        ratio = f"{simulator_ratio(row, simulated):,.0f}"
        rows.append((_title(row), *speeds, _per_second(rate), ratio, _wanted(CASES[key].simulator)))
    notes = (
        "Images per second. On Lava an image takes T steps and one more for each population, at the time of a step; "
        f"the start builds the graph and starts its processes. {_both_conditions(lava, sets)}"
    )
    return TextTable("Images per second: Lava and the simulator", header, tuple(rows), notes)


def sets_table(found: Kept) -> TextTable:
    """Whole test sets."""
    header = ("network", "test images", "seconds", "wanted", "peak memory", "of it before", "correct", "in PyTorch")
    rows = []
    for key, row in found["networks"].items():
        limit = CASES[key].seconds
        pytorch = f"{row['pytorch']['accuracy']:.2%}"
        if row["pytorch"]["samples"] not in (None, row["images"]):
            pytorch += f" of {row['pytorch']['samples']:,}"
        figures = (f"{row['images']:,} of {row['dataset']}", f"{row['seconds']:.1f}", f"< {limit}" if limit else "-")
        memory = (f"{row['peak_mib']:.0f} MiB", f"{row['before_mib']:.0f} MiB")
        rows.append((_title(row), *figures, *memory, f"{row['accuracy']:.2%}", pytorch))
    notes = (
        "From the images to the logits, in a process of its own, on all cores; machine code is there already. "
        f"Memory before: Python with torch, and the images. {condition_line(found['conditions'])}"
    )
    return TextTable("Whole test sets in the simulator", header, tuple(rows), notes)


def kernels_table(found: Kept) -> TextTable:
    """Synaptic operations per second, beside what the machine could add."""
    shares = [f"{firing:.1%}" for firing in FIRING]
    header = ("connection", *shares, "whole step, 2.0%", "limit", "2.0% of it", "wanted")
    rows = []
    for name, row in found["connections"].items():
        rates = {rate["firing"]: rate for rate in row["rates"]}
        limit, middle = row["limit_per_s"], rates[0.02]
        cells = [_giga(rates[firing]["scatter_per_s"]) for firing in FIRING]
        share = f"{middle['scatter_per_s'] / limit:.0%}"
        rows.append((name, *cells, _giga(middle["step_per_s"]), _giga(limit), share, f"{KERNELS_WANTED / 1e9:.0f}"))
    additions = {int(size): rate for size, rate in found["additions_per_s"].items()}
    notes = (
        "10⁹ synaptic operations per second on one core, by spikes per neuron and step, with 8-bit weights and 16-bit "
        "sums. Whole step: also find the spikes, clear the sums and add them to the current. Limit: the same additions "
        "from as many bytes of weights, in long runs and nothing else. This core adds "
        f"{_giga(additions[CACHED])}·10⁹ weights a second from its nearest cache ({CACHED // 2**10} KiB), and "
        f"{_giga(additions[UNCACHED])}·10⁹ from memory, which is {_giga(additions[UNCACHED])} GB/s. "
        f"{condition_line(found['conditions'])}"
    )
    return TextTable("Event-driven kernels", header, tuple(rows), notes)


def costs_table(found: Kept, moving: str) -> TextTable:
    """Milliseconds per image of each engine, against the firing rate or T."""
    first = "spikes per neuron and step" if moving == "firing" else "T"
    rows = []
    for row in found["rows"]:
        at = f"{row['firing']:.2%}" if moving == "firing" else str(row["time_steps"])
        rows.append((at, *(f"{1e3 * row['seconds_per_image'][engine]:.3g}" for engine in ENGINES)))
    steps, rates = {row["time_steps"] for row in found["rows"]}, [row["firing"] for row in found["rows"]]
    fixed = f"T = {steps.pop()}" if moving == "firing" else f"{min(rates):.1%} to {max(rates):.1%} firing"
    notes = (
        f"Milliseconds per image in the simulator, by engine: `64C5s (F64C5)` driven by constant currents, {fixed}, "
        f"{found['images']} images at a time, on all cores. {condition_line(found['conditions'])}"
    )
    caption = f"Cost against {'the firing rate' if moving == 'firing' else 'T'}"
    return TextTable(caption, (first, *ENGINES), tuple(rows), notes)


def speed_table(lava: Kept, sets: Kept) -> TextTable:
    """Tabulate the ratios in short."""
    header = (
        *("network", "a step on Lava's own models", "on our models", "times faster"),
        *("images a second: Lava's own models", "simulator", "times faster", "test set in the simulator"),
    )
    rows = []
    for key, row in lava["networks"].items():
        simulated = sets["networks"][key]
        step = (f"{_ms(row['stock']['step_s'])} ms", f"{_ms(row['ours']['step_s'])} ms", f"{model_ratio(row):.0f}")
        rates = (lava_images_per_second(row, "stock"), simulated["images"] / simulated["seconds"])
        speed = (*(_per_second(rate) for rate in rates), f"{simulator_ratio(row, simulated):,.0f}")
        rows.append((_title(row), *step, *speed, f"{simulated['images']:,} in {simulated['seconds']:.1f} s"))
    notes = f"Lava's start excluded. {_both_conditions(lava, sets)}"
    return TextTable("Speed of deployment", header, tuple(rows), notes)


def _both_conditions(lava: Kept, sets: Kept) -> str:
    """Write the conditions of the two sections that are compared; one line if they are of one tree."""
    first, second = lava["conditions"], sets["conditions"]
    apart = "" if first["commit"] == second["commit"] else f" The simulator: {condition_line(second)}"
    return condition_line(first) + apart


def _title(row: Kept) -> str:
    return f"{row['title']}, T = {row['time_steps']}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _giga(rate: float) -> str:
    return f"{rate / 1e9:.3g}"


def _wanted(times: int | None) -> str:
    return "-" if times is None else f"{times:,}"
