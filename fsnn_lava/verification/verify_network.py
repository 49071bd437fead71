"""One call to verify an exported network: its structure, its rates, its spikes, and the error budget.

Structure: is this the network that was exported? Rates: does it fire as the export measured, rounding being all that
keeps it from the float network? Spikes: do all backends give the same? Each is a check by itself, and all must hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fsnn_lava import conversion
from fsnn_lava.backends import FloatSimulator, IntegerSimulator, get_backend, inputs_of
from fsnn_lava.config import ConnectionConfig, DeployConfig
from fsnn_lava.datasets import Samples
from fsnn_lava.errors import ConfigError, InputError, NetworkError, StateOverflowError
from fsnn_lava.hardware import (
    ALWAYS_ON,
    Arithmetic,
    Array,
    HardwareNetwork,
    Neuron,
    RunResult,
    Timing,
    accuracy,
    with_timing,
)
from fsnn_lava.quantization import CURRENT_BITS, measured_reach, quantize
from fsnn_lava.verification.agreement import spike_agreement
from fsnn_lava.verification.compare_runs import Pair, compare, compare_all
from fsnn_lava.verification.error_budget import error_budget
from fsnn_lava.verification.export_record import RATE_SAMPLES, RECORD, ExportRecord, record_export
from fsnn_lava.verification.export_report import time_step_warnings
from fsnn_lava.verification.rates import RateCheck, as_deployed, check_rates, row_effects
from fsnn_lava.verification.report import Report
from fsnn_lava.verification.structure import (
    Structure,
    against_float,
    against_network,
    against_numbers,
    against_summaries,
    arrays_of,
    cause_of,
    fingerprint,
    merged,
    timing_deviations,
)

if TYPE_CHECKING:
    from fsnn_lava.training import TrainedNetwork

TORCH = "torch"
"""Name of the trained network itself among the backends, run in float64 or, if it was trained in them, in integers, and
in the timing of its training."""


def verify(
    trained: TrainedNetwork | None,
    network: HardwareNetwork,
    samples: Samples | npt.ArrayLike,
    *,
    backends: Sequence[str] | None = None,
    labels: npt.ArrayLike | None = None,
    floating: HardwareNetwork | None = None,
    record: ExportRecord | None = None,
    calibration: Samples | Array | None = None,
    stock_models: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Hold a network against its export, run it on several backends, and report whether all of it is as it should be.

    >>> report = verify(trained, network, data.test[:100], backends=("torch", "simulator"))  # doctest: +SKIP
    >>> assert report.agrees, report.as_markdown()  # doctest: +SKIP

    Parameters
    ----------
    trained : what the network was made from; None: nothing that is known here, such as a NIR graph.
    network : the integer network, in hardware timing.
    samples : samples, or an array (n, *shape) of codes or of normalised floats, with its `labels` (n,).
    backends : two or more, "torch" for the trained network; None: torch (if there is one), simulator and lava-fixed.
    floating : the float network of the same export; None: the trained one lowered.
    record : what the export wrote down (`load_record`), against which structure and rates are held.
    calibration : the training samples, or the inputs of those of them, that the export was given: the integers are
        then derived anew and, without a record, stand for it. With neither, the tolerances are those that the network
        itself states, and the report says so.
    stock_models : lava-fixed runs with Lava's own process models instead of our faster ones.
    progress : told "structure", then the name of each backend before it runs, then "potentials".

    Raises
    ------
    ConfigError : if fewer than two backends are named, or torch without a trained network.
    InputError : if samples have no labels, or do not fit the network.
    NetworkError : if the network is not the exported one, and cannot even run.
    """
    reference = () if trained is None else (TORCH,)
    compared = tuple(dict.fromkeys(backends or (*reference, "simulator", "lava-fixed")))
    check_backends(compared, trained=trained is not None, stock_models=stock_models)
    if floating is None:
        if trained is None:
            raise ConfigError("found neither a trained nor a float network; allowed: at least one of them")
        floating = dataclasses.replace(conversion.lower(trained), time_steps=network.time_steps)
    if progress is not None:
        progress("structure")
    structure, expected = _check_structure(trained, floating, network, record=record, calibration=calibration)
    try:
        codes = inputs_of(network, samples)
        classes = samples.labels if isinstance(samples, Samples) else labels
        if classes is None:
            raise InputError("an array of inputs without labels; give labels=(n,) classes")
        classes = np.asarray(classes)
        results: dict[str, RunResult] = {}
        for name in dict.fromkeys((*reference, *compared)):
            if progress is not None:
                progress(name)
            if name == TORCH:
                assert trained is not None
                results[name] = conversion.run_torch(trained, floating, codes, time_steps=floating.time_steps)
            else:
                results[name] = _run(name, floating, network, codes, stock=stock_models and name == "lava-fixed")
        timing = timing_of(floating)
        as_trained, deployed = with_timing(floating, timing), as_deployed(floating, network)
        lowered = FloatSimulator().run(as_trained, codes, record=names_of(floating))
        exact = FloatSimulator().run(deployed, codes)
        rounded = results.get("simulator") or IntegerSimulator().run(network, codes, record=names_of(network))
    except (InputError, NetworkError, StateOverflowError) as error:
        if structure.agrees:
            raise
        raise NetworkError(
            f"not the network that was exported: {structure.cause}; so its run failed: {error}"
        ) from error
    if progress is not None:
        progress("potentials")
    by_torch = results.get(TORCH)
    other_timing = timing == "sequential" and len(floating.populations) > 1
    return Report(
        network=network_facts(floating, network),
        samples=len(classes),
        chosen=samples.chosen if isinstance(samples, Samples) else "",
        time_steps=network.time_steps,
        accuracy={results[name].backend: accuracy(results[name], classes) for name in compared},
        structure=structure,
        rates=_check_rates(floating, network, codes, exact=exact, found=rounded, expected=expected),
        pairs=(
            *compare_all([results[name] for name in compared], sequential=(TORCH,) if other_timing else ()),
            *_with_simulators([results[name] for name in compared], floating, codes, rounded),
        ),
        lowering=None
        if by_torch is None or by_torch.arithmetic == "integer"
        else spike_agreement(as_trained, codes, lowered, by_torch),
        budget=error_budget(
            floating,
            network,
            codes,
            classes,
            timing=timing,
            arithmetic=trained_arithmetic(floating),
            trained=by_torch,
            lowered=lowered,
            deployed=exact,
            rounded=rounded,
        ),
        potentials=measured_reach(network, codes, rounded.peaks),
        of_time_steps=time_step_warnings(network),
    )


@dataclass(frozen=True, eq=False)
class _Expected:
    """What an export measured, and by which words that is known."""

    record: ExportRecord | None
    basis: str


def _check_structure(
    trained: TrainedNetwork | None,
    floating: HardwareNetwork,
    network: HardwareNetwork,
    *,
    record: ExportRecord | None,
    calibration: Samples | Array | None,
) -> tuple[Structure, _Expected]:
    """Hold both networks against everything that is at hand; return also what the rates are to be held against."""
    basis, found = [], timing_deviations(floating)
    reference = floating
    if trained is not None:
        reference = _lowered(trained, floating, network)
        basis.append("float network: the checkpoint lowered anew; only the last bits of a sum may differ.")
        found += against_network(reference, floating, exactly=False)
    rates = record
    words = f"what the export measured on training samples ({RECORD})"
    if calibration is not None:
        codes = _calibration_codes(calibration, reference, network)
        derived, _ = quantize(reference, codes, config=_deployment(network), keep_lost=True)
        basis.append("integers: derived anew from the float network and the calibration samples; all must be the same.")
        found += against_network(derived, network, exactly=True)
        if record is None:
            rates = record_export(reference, derived, _measured(calibration, reference, network))
            words = "what the integers, derived anew, do on training samples"
    if record is not None:
        basis.append(f"both networks: what the export recorded beside them ({RECORD}), every number and every hash.")
        found += against_numbers(record.floating.numbers, floating)
        found += against_summaries(record.floating.arrays, floating, like=arrays_of(reference))
        found += against_numbers(record.integer.numbers, network)
        found += against_summaries(record.integer.arrays, network, like=_about(reference, record))
    stated = network.provenance.get("quantization") if rates is None else rates.quantization
    if stated is None:
        basis.append("integers: no rounding errors are recorded anywhere; within a few steps of the float weights.")
    else:
        whose = "that its own file states" if rates is None else "that the export measured"
        basis.append(f"integers: the float weights, within the rounding errors {whose}, connection by connection.")
    if rates is None:
        basis.append(
            f"No record of the export and no calibration samples were at hand ({RECORD}): an integer network that was "
            "written anew with other errors in its provenance would not be noticed here."
        )
        words = "no record of the export: limits stated for any network of its rounding errors at the equilibrium"
    found += against_float(reference, network, quantization=stated)
    entries = sum(a.size for n in (floating, network) for a in arrays_of(n).values())
    deviations = merged(found)
    structure = Structure(tuple(basis), entries, deviations, cause_of(deviations, network))
    return structure, _Expected(rates, words)


def _lowered(trained: TrainedNetwork, floating: HardwareNetwork, network: HardwareNetwork) -> HardwareNetwork:
    """The checkpoint as a float network of as many steps as the export was asked for; a caller may give it others."""
    steps = network.provenance.get("deployment", {}).get("time_steps") or floating.time_steps
    return dataclasses.replace(conversion.lower(trained), time_steps=steps)


def _deployment(network: HardwareNetwork) -> DeployConfig:
    """The settings that the network was exported with, as its provenance has them.

    Raises
    ------
    ConfigError : if it has none that this release knows.
    """
    try:
        return DeployConfig(**{"currents": "whole", **network.provenance["deployment"]})  # older ones do not say
    except (LookupError, TypeError) as error:
        raise ConfigError(
            f'network "{network.name}": its provenance has no settings to derive it anew with ({error}); leave the '
            "calibration samples out"
        ) from None


def _measured(calibration: Samples | Array, reference: HardwareNetwork, network: HardwareNetwork) -> Array:
    """Inputs on which to measure rates: of all training samples some that the export was not calibrated on."""
    if not isinstance(calibration, Samples):
        return calibration
    return inputs_of(reference, calibration.to_measure(RATE_SAMPLES, fitted=_deployment(network).calibration_samples))


def _calibration_codes(calibration: Samples | Array, reference: HardwareNetwork, network: HardwareNetwork) -> Array:
    """Inputs on which the export was calibrated, as a backend takes them."""
    if not isinstance(calibration, Samples):
        return calibration
    return inputs_of(reference, calibration.to_fit(_deployment(network).calibration_samples))


def _about(floating: HardwareNetwork, record: ExportRecord) -> dict[str, Array]:
    """Connection -> about what its mantissas were, for those that stand for a float one alone."""
    numbers = record.integer.numbers
    about = {}
    for c in floating.connections:
        if c.source != ALWAYS_ON and c.name in numbers["connections"] and c.target in numbers["populations"]:
            unit = numbers["populations"][c.target]["scale"] * 2.0 ** numbers["connections"][c.name]["exponent"]
            about[c.name] = c.weight / unit
    return about


def _check_rates(
    floating: HardwareNetwork,
    network: HardwareNetwork,
    codes: Array,
    *,
    exact: RunResult,
    found: RunResult,
    expected: _Expected,
) -> RateCheck:
    """Hold the simulator's integer run against the float network in the same timing, with the same threshold."""
    stated = network.provenance.get("quantization", {}).get("populations", {})
    record = expected.record
    return check_rates(
        found.firing_rates,
        exact.firing_rates,
        time_steps=network.time_steps,
        expected=None if record is None else record.rates,
        rounding={p.name: stated.get(p.name, {}).get("mean_rate_error", 0.0) for p in network.populations},
        rows=row_effects(as_deployed(floating, network), network, codes, exact.firing_rates),
        expected_rows=None if record is None else record.rows,
        basis=expected.basis,
    )


def _with_simulators(
    results: Sequence[RunResult], floating: HardwareNetwork, codes: Array, rounded: RunResult
) -> tuple[Pair, ...]:
    """Pairs of each run on other machinery with the simulator of its arithmetic, where that was not asked for."""
    named = {r.backend for r in results}
    pairs = []
    for result in results:
        simulator = "simulator" if result.arithmetic == "integer" else "simulator-float"
        if result.backend in (TORCH, simulator) or simulator in named:
            continue
        run = rounded if simulator == "simulator" else FloatSimulator().run(floating, codes)
        pairs.append(compare(run, result))
    return tuple(pairs)


def check_backends(compared: Sequence[str], *, trained: bool, stock_models: bool) -> None:
    """Refuse what cannot be compared.

    Raises
    ------
    ConfigError : if fewer than two backends are named, torch without a trained network, or stock models without Lava.
    """
    if len(set(compared)) < 2:
        raise ConfigError(f"--backends: found {' '.join(compared)}; at least two different ones are compared")
    if TORCH in compared and not trained:
        raise ConfigError(f"--backends: found {TORCH} without a trained network; allowed: the others")
    if stock_models and "lava-fixed" not in compared:
        raise ConfigError(f"--stock-models: found backends {' '.join(compared)}; it is a setting of lava-fixed")


def _run(name: str, floating: HardwareNetwork, integer: HardwareNetwork, codes: Array, *, stock: bool) -> RunResult:
    """Run one backend on the network of its arithmetic, every population recorded."""
    backend = get_backend(name, {"stock_models": True} if stock else None)
    network = floating if backend.arithmetic == "float" else integer
    return backend.run(network, codes, record=names_of(network))


def names_of(network: HardwareNetwork) -> list[str]:
    """Names of all populations."""
    return [p.name for p in network.populations]


def timing_of(network: HardwareNetwork) -> Timing:
    """Timing in which the network was trained, as its provenance says; the papers', if that says nothing."""
    training = network.provenance.get("config", {}).get("training", {})
    timing: Timing = "hardware" if trained_arithmetic(network) == "integer" else training.get("timing", "sequential")
    return timing


def trained_arithmetic(network: HardwareNetwork) -> Arithmetic:
    """Arithmetic in which the network was trained, as its provenance says; floats, if that says nothing."""
    arithmetic: Arithmetic = network.provenance.get("config", {}).get("training", {}).get("arithmetic", "float")
    return arithmetic


def network_facts(floating: HardwareNetwork, integer: HardwareNetwork) -> dict[str, str]:
    """List what the report says about the network."""
    provenance = integer.provenance
    config, deployment = provenance["config"], provenance["deployment"]
    timing = "hardware timing" if timing_of(floating) == "hardware" else "the papers' timing"
    if trained_arithmetic(floating) == "integer":
        timing = f"integers, {timing}"
    trained = {
        "notation": config.get("network", {}).get("notation"),
        "connections": ", ".join(str(ConnectionConfig(**c)) for c in config.get("network", {}).get("connections", ())),
        "trained in": timing if "training" in config else None,  # a NIR graph was trained elsewhere
        "seed": config.get("training", {}).get("seed"),
        "epoch": provenance.get("metrics", {}).get("best_epoch"),
    }
    shares = [p.neuron.v_threshold / p.neuron.spike_cost for p in floating.populations]
    as_trained = "as trained"
    if set(shares) != {1}:
        as_trained = (
            f"{as_trained}, {' and '.join(f'{share:g}' for share in dict.fromkeys(shares))} of the reset amount"
        )
    kinds = dict.fromkeys(_kind(p.neuron) for p in floating.populations)
    return {
        "name": integer.name,
        "fingerprint": fingerprint(integer),
        "dataset": config["dataset"],
        **{name: str(value) for name, value in trained.items() if value not in (None, "")},
        "neurons": " and ".join(kinds),
        "weights": f"{deployment['weight_bits']} bits at most, of constant currents {CURRENT_BITS}",
        "threshold": "half the reset amount" if deployment["threshold"] == "half" else as_trained,
    }


def _kind(neuron: Neuron) -> str:
    """Write which neuron it is."""
    kind = "IF" if neuron.leak == 1 else f"LIF, leak {neuron.leak}"
    kind += ", reset to zero" if neuron.reset == "zero" else ""
    return kind + (f", current leak {neuron.current_leak:g}" if neuron.has_memory_of_current else "")
