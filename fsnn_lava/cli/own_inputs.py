"""What `fsnn run --input` says of a user's own inputs: class, how sure, which step decided, and the firing."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from fsnn_lava.hardware import Array, HardwareNetwork, RunResult, rates_from_spikes, read_out

MOST_LISTED = 3
"""Classes of an input that the table has."""


def answers(
    network: HardwareNetwork, result: RunResult, names: Sequence[str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Describe each input's result, JSON-compatible.

    Parameters
    ----------
    result : with the spikes of the readout's source.
    names : of the inputs.
    classes : names of the classes, in the order of the logits.

    Returns
    -------
    For each input: its name; the class with the largest logit; the probability of every class, softmax of the logits;
    the step, from 1, after which no later step changed that class; spikes per neuron and step of each population.
    """
    logits = result.logits - result.logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    decided = _decided(network, result)
    found = []
    for i, name in enumerate(names):
        firing = {p: float(counts[i].mean()) / result.time_steps for p, counts in result.spike_counts.items()}
        found.append(
            {
                "input": name,
                "class": classes[int(result.predictions[i])],
                "probabilities": dict(zip(classes, probabilities[i].tolist(), strict=True)),
                "decided_in_step": int(decided[i]),
                "firing": firing,
            }
        )
    return found


def _decided(network: HardwareNetwork, result: RunResult) -> Array:
    """(B,) first step from which on the readout says what it says in the end."""
    source = network.readout.source
    spikes, leak = result.spikes[source], network.population(source).neuron.leak
    said = [
        read_out(network.readout, {source: rates_from_spikes(spikes[: t + 1], leak)}).argmax(axis=1)
        for t in range(len(spikes))
    ]
    other = np.array(said) != result.predictions
    return np.asarray(1 + np.where(other, np.arange(1, len(said) + 1)[:, None], 0).max(axis=0))


def show_answers(console: Console, found: Sequence[Mapping[str, Any]], *, time_steps: int, as_json: bool) -> None:
    """Print them: a table, or JSON alone."""
    if as_json:
        print(json.dumps(list(found), indent=2))
        return
    headers = "input", "class", "probabilities", f"decided in step, of {time_steps}", "spikes per neuron and step"
    table = Table(*(Column(header, overflow="fold") for header in headers))
    for one in found:
        likely = sorted(one["probabilities"].items(), key=lambda pair: -pair[1])[:MOST_LISTED]
        shares = ", ".join(f"{name} {share:.1%}" for name, share in likely)
        firing = " ".join(f"{rate:.3f}" for rate in one["firing"].values())
        table.add_row(one["input"], one["class"], shares, str(one["decided_in_step"]), firing)
    console.print(table)
