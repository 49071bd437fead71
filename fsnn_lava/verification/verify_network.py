"""One call to compare backends on the same samples: the pairs, what lowering changed, and the error budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fsnn_lava import conversion
from fsnn_lava.backends import FloatSimulator, get_backend, inputs_of
from fsnn_lava.datasets import Samples
from fsnn_lava.errors import ConfigError, InputError
from fsnn_lava.hardware import Array, HardwareNetwork, RunResult, accuracy, with_timing
from fsnn_lava.verification.agreement import spike_agreement
from fsnn_lava.verification.compare_runs import compare_all, error_budget
from fsnn_lava.verification.report import Report

if TYPE_CHECKING:
    from fsnn_lava.training import TrainedNetwork

TORCH = "torch"
"""Name of the trained network itself among the backends, run in float64 and the papers' timing."""


def verify(
    trained: TrainedNetwork | None,
    network: HardwareNetwork,
    samples: Samples | npt.ArrayLike,
    *,
    backends: Sequence[str] | None = None,
    labels: npt.ArrayLike | None = None,
    floating: HardwareNetwork | None = None,
    stock_models: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Run the same samples on several backends and report whether their spikes and firing rates agree.

    >>> report = verify(trained, network, data.test[:100], backends=("torch", "simulator"))  # doctest: +SKIP
    >>> assert report.agrees, report.as_markdown()  # doctest: +SKIP

    Parameters
    ----------
    trained : what the network was made from; None: nothing that is known here, such as a NIR graph.
    network : the integer network, in hardware timing.
    samples : samples, or an array (n, *shape) of codes or of normalised floats, with its `labels` (n,).
    backends : two or more, "torch" for the trained network; None: torch (if there is one), simulator and lava-fixed.
    floating : the float network of the same export; None: the trained one lowered.
    stock_models : lava-fixed runs with Lava's own process models instead of our faster ones.
    progress : told the name of each backend before it runs.

    Raises
    ------
    ConfigError : if fewer than two backends are named, or torch without a trained network.
    InputError : if samples have no labels, or do not fit the network.
    """
    reference = () if trained is None else (TORCH,)
    compared = tuple(dict.fromkeys(backends or (*reference, "simulator", "lava-fixed")))
    check_backends(compared, trained=trained is not None, stock_models=stock_models)
    if floating is None:
        if trained is None:
            raise ConfigError("found neither a trained nor a float network; allowed: at least one of them")
        floating = dataclasses.replace(conversion.lower(trained), time_steps=network.time_steps)
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
    sequential = with_timing(floating, "sequential")
    lowered = FloatSimulator().run(sequential, codes, record=[p.name for p in sequential.populations])
    by_torch = results.get(TORCH)
    return Report(
        network=network_facts(floating, network),
        samples=len(classes),
        time_steps=network.time_steps,
        accuracy={results[name].backend: accuracy(results[name], classes) for name in compared},
        pairs=compare_all(
            [results[name] for name in compared], sequential=(TORCH,) if len(floating.populations) > 1 else ()
        ),
        lowering=None if by_torch is None else spike_agreement(sequential, codes, lowered, by_torch),
        budget=error_budget(floating, network, codes, classes, trained=by_torch, lowered=lowered),
    )


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
    return backend.run(network, codes, record=[p.name for p in network.populations])


def network_facts(floating: HardwareNetwork, integer: HardwareNetwork) -> dict[str, str]:
    """List what the report says about the network."""
    provenance = integer.provenance
    config, deployment = provenance["config"], provenance["deployment"]
    neuron = floating.populations[0].neuron
    trained = {
        "notation": config.get("network", {}).get("notation"),
        "seed": config.get("training", {}).get("seed"),
        "epoch": provenance.get("metrics", {}).get("best_epoch"),
    }
    share = neuron.v_threshold / neuron.reset_amount
    as_trained = "as trained" if share == 1 else f"as trained, {share:g} of the reset amount"
    return {
        "name": integer.name,
        "dataset": config["dataset"],
        **{name: str(value) for name, value in trained.items() if value is not None},
        "neurons": "IF" if neuron.leak == 1 else f"LIF, leak {neuron.leak}",
        "weights": f"{deployment['weight_bits']} bits",
        "threshold": "half the reset amount" if deployment["threshold"] == "half" else as_trained,
    }
