"""The paper's tables with its figures and ours, from stored results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.ide.published import FIRING_RATES, LAYERS, MEMORY, Row
from benchmarks.ide.trainings import RunResult, extent
from benchmarks.shared.text_table import TextTable
from fsnn_lava.conversion import from_zoo, zoo_card

NOT_RUN = "not run"
ZOO_ALEXNET = "cifar10_alexnet"
"""The zoo's network whose firing rates stand beside the paper's."""
METHODS = {"ide": "IDE", "bptt": "BPTT"}
"""Methods of the IDE paper, whose memory it compares."""


def method_of(row: Row) -> str:
    """IDE-IF, IDE-LIF, BPTT-LIF: the gradient and the neurons."""
    neurons = "IF" if row.config.network.leak == 1 else "LIF"
    return f"{METHODS[row.config.training.method]}-{neurons}"


def accuracy_table(rows: Sequence[Row], results: Sequence[RunResult], missing: Mapping[str, str]) -> TextTable:
    """Tables 1 to 3, Appendix G and the accuracies of Table 4: a line for every config and extent of its runs.

    Parameters
    ----------
    missing : config -> why there is no run of it.
    """
    lines = []
    for row in rows:
        name = row.config.name
        published = "-" if row.figure is None else f"{row.figure:.2f}"
        begin = (row.table, f"`{name}`", published)
        groups: dict[str, list[RunResult]] = {}
        for result in results:
            group = groups.setdefault(extent(result, row.config), []) if result.config == name else None
            if group is not None and result.seed not in {other.seed for other in group}:  # a copy is no further run
                group.append(result)
        for what, group in groups.items():
            seeds = ", ".join(str(result.seed) for result in group)
            devices = ", ".join(dict.fromkeys(result.device or "CPU" for result in group))
            lines.append((*begin, _accuracy(group), seeds, devices, what))
        if not groups:
            reason = missing.get(name, "")
            lines.append((*begin, "-", "-", "-", f"{NOT_RUN}: {reason}" if reason else NOT_RUN))
    header = ("paper", "config", "published", "ours (epoch)", "seed", "device", "how much of it")
    caption = "Accuracy, Tables 1 to 4: test accuracy in %, published as mean of 5 runs, ours the best epoch's"
    return TextTable(caption, header, tuple(lines))


def _accuracy(group: Sequence[RunResult]) -> str:
    percents = [100 * result.accuracy for result in group]
    if len(group) == 1:
        return f"{percents[0]:.2f} ({group[0].best_epoch})"
    return f"{statistics.mean(percents):.2f} ± {statistics.stdev(percents):.2f}, {len(group)} runs"


def memory_table(measured: Sequence[Mapping[str, Any]], rows: Sequence[Row], results: Sequence[RunResult]) -> TextTable:
    """Table 4, ours for every device that was measured.

    Parameters
    ----------
    measured : what `paper_memory.py` stored, one for each device.
    """
    lines = []
    for method, title in METHODS.items():
        for steps in sorted({int(t) for found in measured for t in found["methods"][method]} | set(MEMORY[method])):
            ours = [_measured(found["methods"][method].get(str(steps))) for found in measured]
            accuracy = _accuracy_at(method, steps, rows, results)
            lines.append(
                (title, str(steps), MEMORY[method].get(steps, "-"), *(c for pair in ours for c in pair), accuracy)
            )
    devices = [f"{found['device']}, batch {found['batch_size']}" for found in measured]
    columns = (f"{what}: {device}" for device in devices for what in ("peak increment", "iteration"))
    header = ("gradient", "T", "published, GPU", *columns, "accuracy, published / ours")
    notes = " ".join(_growth(found) for found in measured)
    return TextTable("Table 4: memory of one training iteration, AlexNet-F, LIF, CIFAR-10", header, tuple(lines), notes)


def _measured(cell: Mapping[str, float] | None) -> tuple[str, str]:
    return ("-", "-") if cell is None else (f"{cell['memory_mib']:.0f} MiB", f"{cell['seconds']:.2f} s")


def _growth(found: Mapping[str, Any]) -> str:
    several = {method: cells for method, cells in found["methods"].items() if len(cells) > 1}
    each = [f"{METHODS[method]} {round(growth(cells), 1) + 0.0} MiB" for method, cells in several.items()]
    weights = f"weights of `{found['weights']}`" if found["weights"] else "untrained weights"
    beside = f"beside other work (load average {found['load']} on {found['cores']} cores)"
    return (
        f"{found['device']}: each further step takes {', '.join(each)}. Measured on {found['images']} images, with "
        f"{weights}, in {found['precision']}, {beside}."
    )


def growth(cells: Mapping[str, Mapping[str, float]]) -> float:
    """MiB that each further time step takes: slope of the line nearest to the measured peaks."""
    line = statistics.linear_regression([int(t) for t in cells], [cell["memory_mib"] for cell in cells.values()])
    return line.slope


def _accuracy_at(method: str, steps: int, rows: Sequence[Row], results: Sequence[RunResult]) -> str:
    leaks = [r for r in rows if r.config.training.method == method and r.config.network.leak < 1]
    row = next(
        (r for r in leaks if r.config.network.time_steps == steps and r.config.name.startswith("cifar10_alexnet")), None
    )
    if row is None:
        return "-"
    best = fullest(results, row.config.name)
    published = "-" if row.figure is None else f"{row.figure:.2f}"
    if best is None:
        return f"{published} / {NOT_RUN}"
    mark = "" if extent(best, row.config) == "full" else " (in part)"
    return f"{published} / {100 * best.accuracy:.2f}{mark}"


def fullest(results: Sequence[RunResult], config: str) -> RunResult | None:
    """Pick the run of a config that saw most samples; None if there is none."""
    runs = [result for result in results if result.config == config]
    return max(runs, key=lambda r: r.seen, default=None)


def rates_table(rows: Sequence[Row], results: Sequence[RunResult]) -> TextTable:
    """Table 5: spikes per neuron and step, published and ours side by side."""
    titles = {row.config.name: method_of(row) for row in rows if row.config.name in FIRING_RATES}
    configs = {row.config.name: row.config for row in rows}
    found = {name: fullest(results, name) for name in FIRING_RATES}
    lines = []
    for place, layer in enumerate((*LAYERS, "total")):
        line = [layer]
        for name, published in FIRING_RATES.items():
            result = found[name]
            line += [f"{published[place]:.4f}", "-" if result is None else f"{result.mean_spikes[layer]:.4f}"]
        lines.append(tuple(line))
    card, zoo_rates = zoo_card(ZOO_ALEXNET), _rates_of_zoo(ZOO_ALEXNET)
    lines = [(*line, f"{zoo_rates[line[0]]:.4f}") for line in lines]
    header = [
        "",
        *(word for name in FIRING_RATES for word in (f"{titles[name]}, published", "ours")),
        "ours, of the zoo",
    ]
    done = [
        f"{titles[name]}: {NOT_RUN if result is None else extent(result, configs[name])}."
        for name, result in found.items()
    ]
    done.append(f"Of the zoo: {card.description}, in integers, all test samples.")
    notes = "The counting in the authors' released script may make their rates five times too low."
    caption = "Table 5: firing rates of AlexNet-F, T = 30, CIFAR-10, over the test samples: spikes per neuron and step"
    return TextTable(caption, tuple(header), tuple(lines), " ".join([*done, notes]))


def _rates_of_zoo(name: str) -> dict[str, float]:
    """Spikes per neuron and step of a network of the zoo, of each population and of all neurons together."""
    rates = zoo_card(name).firing
    neurons = {p.name: p.size for p in from_zoo(name).populations}
    total = sum(rates[n] * size for n, size in neurons.items()) / sum(neurons.values())
    return {**rates, "total": total}


def convergence_table(curves: Mapping[str, Any]) -> TextTable:
    """Figure 1 at some steps: ||f(a[t]) - a[t]|| of a random sample and on average."""
    steps = (1, 10, 30, 100)
    lines = []
    for name, curve in curves.items():
        at = [t for t in steps if t <= len(curve["mean"])]
        cells = [f"{curve['mean'][t - 1]:.3g} / {curve['one'][t - 1]:.3g}" if t in at else "-" for t in steps]
        lines.append((f"`{name}`", curve["neurons"], str(curve["size"]), *cells, curve["extent"]))
    header = ("config", "neurons", "in the last population", *(f"t = {t}" for t in steps), "training")
    count = ", ".join(sorted({str(curve["samples"]) for curve in curves.values()}))
    caption = f"Figure 1: distance from the equilibrium, mean of {count} test samples / one of them"
    return TextTable(caption, header, tuple(lines))
