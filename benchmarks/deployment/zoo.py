"""Make an entry of the zoo from a run that was trained in integers and exported, and write its card.

The whole test set runs in the integer simulator; what the integers get right must be what the training reported of its
last epoch, to the sample. The README's table of these networks is made from the cards (--readme).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.shared.machine import conditions
from benchmarks.shared.results import README
from benchmarks.shared.text_table import TextTable, with_blocks
from fsnn_lava.backends import IntegerSimulator
from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import run_script
from fsnn_lava.conversion import NETWORK_FILES, ZOO, ZooCard, load_deployed, write_card, zoo_cards
from fsnn_lava.datasets import load_dataset, time_first
from fsnn_lava.errors import ConfigError
from fsnn_lava.files import write_text, write_whole
from fsnn_lava.hardware import ALWAYS_ON, save_network
from fsnn_lava.quantization import dequantized
from fsnn_lava.training import BEST, load_checkpoint
from fsnn_lava.verification import RECORD, run_activity

console = Console(width=120)
MOST_RECORD_BYTES = 2**18
"""Size up to which an export's record goes into the entry; without it, `fsnn verify` derives it from training data."""


@dataclass(frozen=True)
class Arguments:
    """Make an entry of the zoo from an exported run, or the table of all entries."""

    name: str = ""
    """Name of the entry."""
    run: Path | None = None
    """Folder of the run, trained in integers, with its export."""
    floats: Path | None = None
    """Folder of the run in floats that it began with."""
    description: str = ""
    """What it is, in one sentence."""
    published: str = ""
    """Accuracy in % that a paper gives for this network, in floats, and with what, if any."""
    commands: tuple[str, ...] = ()
    """Commands that made it, one after the other."""
    data_dir: Path | None = None
    """Folder of the datasets; default: the environment variable FSNN_DATA."""
    zoo: Path = ZOO
    """Folder of the entries."""
    readme: bool = False
    """Put the table of all entries into the README."""


def main(argv: list[str]) -> int:
    """Run the script and return its exit status, 0."""
    arguments = read_options(Arguments, argv, command="python -m benchmarks.deployment.zoo", description=__doc__)
    if arguments.run is not None and arguments.floats is not None:
        card = made(arguments, arguments.run, arguments.floats)
        size = sum(path.stat().st_size for path in (arguments.zoo / card.name).iterdir())
        console.print(f"{card.name}: {card.accuracy:.2%}, {size / 2**20:.2f} MiB", soft_wrap=True)
    table = zoo_table(zoo_cards(arguments.zoo))
    console.print(table.screen())
    if arguments.readme:
        write_text(README, with_blocks(README.read_text(encoding="utf-8"), {"zoo": table.markdown()}))
    return 0


def made(arguments: Arguments, run: Path, floats: Path) -> ZooCard:
    """Make one entry, and return its card.

    Raises
    ------
    ConfigError : the run was trained in floats, or its integers do not get right what its training reported.
    """
    deployed, trained, before = load_deployed(run), load_checkpoint(run / BEST), load_checkpoint(floats / BEST)
    config, network = trained.config, deployed.integer
    if config.training.arithmetic != "integer":
        raise ConfigError(f"{run}: was trained in floats; allowed: a run with training.arithmetic = integer")
    test = load_dataset(config.dataset, arguments.data_dir).test
    codes = time_first(test.codes)
    result = IntegerSimulator().run(network, codes)
    right = int((result.logits.argmax(1) == test.labels).sum())
    reported = round(float(trained.metrics["best_test_accuracy"]) * len(test))
    if right != reported:
        raise ConfigError(f"{run}: its integers get {right} of {len(test)} right; its training reported {reported}")
    with tempfile.TemporaryDirectory() as scratch:  # what an entry's float network will be made of again
        save_network(dequantized(network), Path(scratch) / "float")
        if (Path(scratch) / "float").read_bytes() != (run / NETWORK_FILES["float"]).read_bytes():
            raise ConfigError(f"{run}: its float network is not the one that its integers stand for; export it again")
    content = {name: (run / name).read_bytes() for name in (NETWORK_FILES["integer"], RECORD) if (run / name).exists()}
    if len(content.get(RECORD, b"")) > MOST_RECORD_BYTES:
        del content[RECORD]
    found = conditions()
    card = ZooCard(
        name=arguments.name,
        description=arguments.description,
        dataset=config.dataset,
        notation=config.network.notation,
        method=config.training.method,
        time_steps=network.time_steps,
        weight_bits=config.training.weight_bits,
        weights=sum(int(np.prod(c.weight.shape)) for c in network.connections if c.source != ALWAYS_ON),
        right=right,
        samples=len(test),
        published=arguments.published,
        float_accuracy=float(before.metrics["best_test_accuracy"]),
        firing={
            name: round(float(counts.mean()) / network.time_steps, 4) for name, counts in result.spike_counts.items()
        },
        operations=run_activity(network, result, inputs=codes).synaptic_operations,
        commands=arguments.commands,
        seed=config.training.seed,
        measured={"cpu": found["cpu"], "commit": f"commit {found['commit']}", "at": found["at"]},
        files={name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
    )
    folder = arguments.zoo / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, data in content.items():
        write_whole(folder / name, data)
    write_card(card, folder)
    return card


def zoo_table(cards: Mapping[str, ZooCard]) -> TextTable:
    """Make the table: a row for each entry."""
    rows = [
        (
            f"`{name}`",
            f"`{card.notation}`",
            card.dataset,
            card.method,
            card.published or "-",
            f"{100 * card.float_accuracy:.2f}",
            f"{100 * card.accuracy:.2f}",
            str(card.weight_bits),
            str(card.time_steps),
            " ".join(f"{rate:.3f}" for rate in card.firing.values()),
            f"{card.operations / 1e6:,.2f}",
        )
        for name, card in cards.items()
    ]
    header = (
        "name",
        "network",
        "dataset",
        "method",
        "published",
        "float",
        "integers",
        "bits",
        "T",
        "firing",
        "operations, millions",
    )
    notes = (
        "Accuracy in % of whole test sets, of the epoch with the best, as published. *float*: the network that the "
        "training in integers began with, in floats. *integers*: what is exported and runs, in the simulator. "
        "*firing*: spikes per neuron and step of each population. *operations*: synaptic operations of a sample. "
        "`fsnn zoo NAME` says how each was made."
    )
    return TextTable("", header, tuple(rows), notes)


if __name__ == "__main__":
    run_script(main)
