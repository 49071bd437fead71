"""The kept figures of SPIDE's training as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.shared.text_table import TextTable
from benchmarks.spide.gradient_error import ACCURATE
from benchmarks.spide.phase_speed import PHASES

Kept = Mapping[str, Any]
_PLACE = ("cpu", "cores", "threads", "commit")
TIMES_WANTED = {"64C5s-64C5s-64C5 (F64C3u)": 3}
"""How many times faster than the plain restatement an iteration of which network is to be."""
ERROR_WANTED, COSINE_WANTED, WANTED_AT = 0.1, 0.99, (ACCURATE.time_steps_back, ACCURATE.loss_scale)
"""The gradient's error is to be below, the cosine above, at (T_back, loss scale)."""


def tables(kept: Kept) -> dict[str, TextTable]:
    """By the name of their block, those whose figures are there."""
    found = {}
    if "speed" in kept:
        found["spide-speed"] = speed_table(kept["speed"])
        found["spide-limits"] = limits_table(kept["speed"])
    if "memory" in kept:
        found["spide-memory"] = memory_table(kept["memory"])
    if "energy" in kept:
        found["spide-firing"] = firing_table(kept["energy"])
        found["spide-operations"] = operations_table(kept["energy"])
        found["spide-energy"] = energy_table(kept["energy"], kept.get("error", {}))
        found["spide-energy-parts"] = energy_parts_table(kept["energy"])
    if "error" in kept:
        found["spide-error"] = error_table(kept["error"])
    return found


def speed_ratio(case: Kept) -> float:
    """Divide the plain iteration's time by ours."""
    return float(case["seconds"]["plain"]["total"] / case["seconds"]["ours"]["total"])


def speed_table(found: Kept) -> TextTable:
    """An iteration, ours beside the plain restatement."""
    header = (
        *(
            "network",
            "weights",
            "T / T_back, batch",
            "spikes per neuron and step",
            *(f"{phase}: plain / ours" for phase in PHASES),
        ),
        *("iteration: plain / ours", "times faster", "wanted", "spikes that differ", "largest gradient error"),
    )
    rows = []
    for case in found.values():
        plain, ours = case["seconds"]["plain"], case["seconds"]["ours"]
        times = [f"{_ms(plain[phase])} / {_ms(ours[phase])}" for phase in (*PHASES, "total")]
        same = case["agreement"]
        differing = f"{_share(same['differing_forward'])} / {_share(same['differing_backward'])}"
        sizes = f"{case['time_steps']} / {case['time_steps_back']}, {case['batch_size']}"
        wanted = str(TIMES_WANTED.get(case["notation"], "-"))
        error = f"{same['gradient_error']:.0e}"
        firing = f"{_rates(same['firing'])} / {_rates(same['firing_back'])}"
        rows.append((*_name(case), sizes, firing, *times, f"{speed_ratio(case):.1f}", wanted, differing, error))
    notes = (
        "Milliseconds, medians; both in turns in one run, with the same weights, on other batches. forward: masks, "
        "input current, T steps; backward: classifier, loss, T_back steps; update: weights' gradients, SGD. Spikes per "
        "neuron and step: of each population in the first / second phase. Spikes that differ: likewise, both from the "
        "same batch and masks, the second from the same rates; "
        "error: ||g - g'|| / ||g'|| of the worst parameter, g' being the plain one's. float32. "
        + _conditions(found.values())
    )
    return TextTable("One training iteration: a plain dense restatement, and ours", header, tuple(rows), notes)


def limits_table(found: Kept) -> TextTable:
    """Each phase beside what the machine could do."""
    limit, machine = ("its limit", "of it"), ("dense GFLOP/s", "10⁹ additions/s", "GB/s")
    header = ("network", "weights", "phase", "plain, ms", *limit, "ours, ms", *limit, *machine)
    rows = []
    for case in found.values():
        limits = case["limits"]
        rates = (
            f"{case['seconds']['flops_per_s'] / 1e9:.0f}",
            f"{limits['additions_per_s'] / 1e9:.0f}",
            f"{4 * limits['streamed_numbers_per_s'] / 1e9:.0f}",
        )
        for number, phase in enumerate(PHASES):
            cells = []
            for variant in ("plain", "ours"):
                seconds, limit = case["seconds"][variant][phase], limits[variant][phase]
                cells += [_ms(seconds), _ms(limit), f"{limit / seconds:.0%}"]
            first = number == 0
            rows.append((*(_name(case) if first else ("", "")), phase, *cells, *(rates if first else ("", "", ""))))
    notes = (
        "An estimate, from rates measured in the same run, all threads together; they vary from call to call, so a "
        "phase near its limit may exceed it. Plain: dense products, those inside the image, at the faster of a product "
        "of matrices and the network's largest convolution, and the elementwise operations' numbers at the "
        "rate at which additions of one population's size stream. Ours: an addition for each synaptic operation, from "
        "weights in the second-level cache, and two numbers of each neuron read and written once a step; the update "
        "is dense. " + _conditions(found.values())
    )
    return TextTable("How far each phase is from the machine's limits", header, tuple(rows), notes)


def memory_table(found: Kept) -> TextTable:
    """Peak of an iteration against T and T_back."""
    header = ("network", "weights", "gradient", "T", "T_back", "peak increment, MiB")
    rows = []
    for case in found.values():
        for row in case["rows"]:
            back = str(row["time_steps_back"]) if row["method"] == "spide" else "-"
            method = str(row["method"]).upper()
            rows.append((*_name(case), method, str(row["time_steps"]), back, f"{row['mib']:.1f}"))
    batches = {case["batch_size"] for case in found.values()}
    notes = (
        f"Resident memory above what is held before the iteration, each in a process of its own; batch "
        f"{', '.join(map(str, sorted(batches)))}. {_conditions(found.values())}"
    )
    return TextTable("Memory of a training iteration", header, tuple(rows), notes)


def firing_table(found: Kept) -> TextTable:
    """Accuracy, and firing rates of both phases, over a training."""
    firing = ("first phase, population 1, 2, ...", "second phase, population 1, 2, ...")
    header = ("network", "weights", "training loss", "test accuracy", "seconds so far", *firing)
    rows = []
    for case in found.values():
        notation, weights = _name(case)
        for epoch in case["history"]:
            course = (f"in epoch {epoch['epoch']}", f"{epoch['loss']:.3f}", f"{epoch['accuracy']:.2%}")
            rows.append(
                (
                    notation,
                    *course,
                    _seconds(epoch.get("seconds_so_far")),
                    _rates(epoch["firing"]),
                    _rates(epoch["firing_back"]),
                )
            )
        measured = case["work"]
        rates = (_rates(measured["firing"]), _rates(measured["firing_back"]))
        rows.append((notation, f"{weights}, measured here", "-", "-", "-", *rates))
    notes = (
        "Spikes per neuron and step, of either sign in the second phase. In an epoch: mean over the training's "
        f"samples. {_training_times(found)}Measured here: one batch, with dropout. {_conditions(found.values())}"
    )
    return TextTable("Firing rates of both phases over a training", header, tuple(rows), notes)


def operations_table(found: Kept) -> TextTable:
    """Messages and synaptic operations of both phases, connection by connection."""
    header = (
        *("network", "weights", "connection", "synapses", "spikes forwards", "at synapses"),
        *("spikes backwards", "sent back", "at synapses back", "synapses updated"),
    )
    rows = []
    for case in found.values():
        work = case["work"]
        connections = work["connections"]
        for number, c in enumerate(connections):
            into = number % len(work["neurons"])
            couples = work["firing_back"][into] * work["neurons"][into] * work["time_steps_back"]
            back = [_count(couples), _count(c["messages_back"]), _count(c["backward"])]
            row = [*(_name(case) if number == 0 else ("", "")), c["name"]]
            row += [_count(c["synapses"]), _count(c["events"]), _count(c["forward"])]
            row += ["-"] * 3 if c["name"] == "input" else back
            rows.append((*row, _count(c["updated"]) if c["learned"] else "-"))
        sums = [_count(sum(c[field] for c in connections)) for field in ("synapses", "events", "forward")]
        sums += ["", *(_count(sum(c[field] for c in connections)) for field in ("messages_back", "backward"))]
        rows.append(("", "", "all", *sums, _count(sum(c["updated"] for c in connections if c["learned"]))))
    notes = (
        "For one sample, mean of a batch with dropout. Synapses: weights between two neurons that are not zero, each "
        "place at which a kernel is used. Spikes backwards: of the couples of the connection's target; sent back are "
        "those of neurons that are neither silent, saturated nor dropped. A constant input sends no spikes: its "
        f"current is computed once. {_conditions(found.values())}"
    )
    return TextTable("Synaptic operations of both phases, for one sample", header, tuple(rows), notes)


def energy_table(found: Kept, errors: Kept) -> TextTable:
    """Energy of training on one sample by each method, SPIDE at two settings.

    Parameters
    ----------
    errors : of the gradient, as they are kept; of which those of the settings are shown.
    """
    header = (
        *("network", "weights", "method", "zeros skipped, µJ", "times SPIDE's", "dense, µJ"),
        *("times SPIDE's, zeros skipped", "gradient error"),
    )
    rows = []
    for key, case in found.items():
        spide = case["totals"]["SPIDE"]["sparse"]
        settings = _spide_settings(case)
        methods = [(f"SPIDE, {_at(each)}", each["totals"], _error_at(errors.get(key), each)) for each in settings]
        solved = f"solved to {case['adjoint_tolerance']:g}" if "adjoint_tolerance" in case else "-"
        others = {"IDE": solved, "BPTT": "-"}
        methods += [(m, case["totals"][m], error) for m, error in others.items() if m in case["totals"]]
        for number, (method, energy, error) in enumerate(methods):
            cells = [_uj(energy["sparse"]), f"{energy['sparse'] / spide:.2g}"]
            cells += [_uj(energy["dense"]), f"{energy['dense'] / spide:.3g}"]
            rows.append((*(_name(case) if number == 0 else ("", "")), method, *cells, error))
    notes = (
        "SPIDE's energy and the error of its gradient both depend on T_back and scale, which are named; the error is "
        "that of the table below, of the same weights and samples. Compare methods where it is similar: IDE's solve "
        "stops at the relative residual that is named; BPTT's gradient is another one, of the surrogate. Times: of "
        f"SPIDE with the training's settings, the first row of a network. {_energy_notes(found)}"
    )
    return TextTable("Arithmetic energy of training on one sample", header, tuple(rows), notes)


def energy_parts_table(found: Kept) -> TextTable:
    """Tabulate the same part by part, of the largest network that is there, trained if it is."""
    header = (
        *("method", "part", "additions", "multiplications", "products", "µJ"),
        *("dense: additions", "multiplications", "products", "µJ"),
    )
    case = max(found.values(), key=lambda each: (_synapses(each), each["epochs"]))
    rows, before = [], ""
    for part in case["parts"]:
        counts = [
            cell
            for account in ("sparse", "dense")
            for cell in (
                *(_count(part[account][kind]) for kind in ("additions", "multiplications", "products")),
                _uj(part[f"{account}_uj"]),
            )
        ]
        rows.append((part["method"] if part["method"] != before else "", part["name"], *counts))
        before = part["method"]
    notes = (
        f"{_title(case)}, SPIDE at {_at(case)}, for one sample; a product is a multiplication and an addition. "
        f"Left: zeros skipped; right: everything multiplied. {_energy_notes({'': case})}"
    )
    return TextTable("Operations and arithmetic energy, part by part", header, tuple(rows), notes)


def error_table(found: Kept) -> TextTable:
    """Error of the gradient by T_back and loss scale."""
    scales = sorted({row["loss_scale"] for case in found.values() for row in case["errors"]})
    header = (
        *("network", "weights", "T_back"),
        *(f"scale {scale:g}: error / cosine" for scale in scales),
        *(f"scale {scale:g}: below resolution / saturated / of the norm" for scale in scales),
    )
    rows = []
    for case in found.values():
        cells = {(row["time_steps_back"], row["loss_scale"]): row for row in case["errors"]}
        for number, back in enumerate(sorted({back for back, _ in cells})):
            here = [cells.get((back, scale)) for scale in scales]
            errors = ["-" if row is None else f"{row['error']:.3f} / {row['cosine']:.4f}" for row in here]
            limits = [
                "-"
                if row is None
                else f"{row['unresolved']:.0%} / {_share(row['saturated'])} / {_share(row['saturated_part'])}"
                for row in here
            ]
            rows.append((*(_name(case) if number == 0 else ("", "")), str(back), *errors, *limits))
    notes = (
        "||g - g'|| / ||g'|| and cosine of all synapses' weights and biases as one vector, g' being the implicit "
        "gradient at the measured rates from the adjoint system solved to 1e-12; float64, the same dropout masks, mean "
        f"loss of {', '.join(sorted({str(case['samples']) for case in found.values()}))} samples. Below resolution: "
        "share of couples whose rate is less than one spike in T_back steps (1/T_back); saturated: share whose rate "
        "would have to exceed 1, and what they hold of the squared norm of all rates. "
        f"{_wanted_errors(found)} {_conditions(found.values())}"
    )
    return TextTable("Error of the gradient against the converged implicit one", header, tuple(rows), notes)


# ---- words -------------------------------------------------------------------------------------------------


def _wanted_errors(found: Kept) -> str:
    back, scale = WANTED_AT
    there, missed = 0, []
    for case in found.values():
        for row in case["errors"]:
            if (row["time_steps_back"], row["loss_scale"]) == WANTED_AT:
                there += 1
                if row["error"] >= ERROR_WANTED or row["cosine"] <= COSINE_WANTED:
                    missed.append(_title(case))
    held = "not measured" if not there else f"DOES NOT HOLD of {'; '.join(missed)}" if missed else "holds"
    return f"Wanted at scale {scale:g}, T_back {back}: below {ERROR_WANTED:g}, cosine above {COSINE_WANTED:g}: {held}."


def _spide_settings(case: Kept) -> list[Kept]:
    """List the training's settings and, where they are others, those of an accurate gradient; with SPIDE's totals."""
    own = {key: case[key] for key in ("time_steps_back", "loss_scale")} | {"totals": case["totals"]["SPIDE"]}
    accurate = case.get("accurate")
    return [own] if accurate is None or _at(accurate) == _at(own) else [own, accurate]


def _at(settings: Kept) -> str:
    return f"T_back {settings['time_steps_back']}, scale {settings['loss_scale']:g}"


def _error_at(case: Kept | None, settings: Kept) -> str:
    for row in [] if case is None else case["errors"]:
        if _at(row) == _at(settings):
            return f"{row['error']:.3f}"
    return "not measured"


def _training_times(found: Kept) -> str:
    """On how many threads the trainings ran; nothing if none was timed."""
    timed = [case for case in found.values() if any("seconds_so_far" in epoch for epoch in case["history"])]
    if not timed:
        return ""
    threads = "; ".join(f"{_title(case)}: {case['trained_threads'] or 'as torch chose'}" for case in timed)
    return (
        "Seconds so far: of the training's epochs, tests left out, beside other work on the same cores, so more than "
        f"a machine of its own takes; CPU threads of {threads}. "
    )


def _energy_notes(found: Kept) -> str:
    costs = {tuple(sorted(case["costs"].items())) for case in found.values()}
    words = []
    for each in sorted(costs):
        values = dict(each)
        words.append(
            f"An addition is {values['pj_addition']:g} pJ, a multiplication {values['pj_multiplication']:g} pJ "
            f"({values['source']}); a neuron's step takes {values['neuron_additions']:g} additions, backwards in BPTT "
            f"{values['bptt_neuron_products']:g} products. "
        )
    steps = "; ".join(f"{_title(case)}: {case['work']['adjoint_steps']}" for case in found.values())
    return (
        "".join(words) + f"Products with the transposed Jacobian in IDE's solve, {steps}. Not counted: memory, which "
        "costs more than arithmetic, moving spikes, control, the classifier, masks, the optimizer. "
        + _conditions(found.values())
    )


def _name(case: Kept) -> tuple[str, str]:
    leaky = "" if case["leak"] == 1 else f", LIF {case['leak']:g}"
    trained = "untrained" if not case["epochs"] else f"after {case['epochs']} epoch{'s' if case['epochs'] > 1 else ''}"
    return f"`{case['notation']}`{leaky}, {case['dataset']}", trained


def _synapses(case: Kept) -> float:
    return float(sum(c["synapses"] for c in case["work"]["connections"]))


def _title(case: Kept) -> str:
    notation, trained = _name(case)
    return f"{notation} {trained}"


def _conditions(cases: Iterable[Kept]) -> str:
    """On what and beside what the cases were measured, as `shared.machine.conditions` found it before each."""
    found = [case["conditions"] for case in cases]
    loads = [each["load"] for each in found]
    cpu, cores, threads, commit = (", ".join(dict.fromkeys(str(each[key]) for each in found)) for key in _PLACE)
    between = f"{min(loads)}" if min(loads) == max(loads) else f"{min(loads)} to {max(loads)}"
    return (
        f"{cpu}, {cores} cores, load average {between} before, {threads} threads, commit {commit}, {found[-1]['at']}."
    )


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:.2g}" for rate in rates)


def _share(share: float) -> str:
    return "0" if share == 0 else f"{share:.1g}" if share < 0.01 else f"{share:.0%}"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == 0 else f"{number:.2g}"


def _uj(energy: float) -> str:
    return f"{energy:,.0f}" if energy >= 1000 else f"{energy:.3g}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.2g}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:,.0f}"
