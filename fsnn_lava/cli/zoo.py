"""List the trained networks that come with fsnn, or show the card of one: what it is, and how it was made.

A name of the list is what `fsnn run --zoo NAME`, `fsnn verify --zoo NAME` and `fsnn anytime --zoo NAME` take.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fsnn_lava.cli.options import read_options
from fsnn_lava.cli.script import command_line
from fsnn_lava.conversion import ZooCard, zoo_card, zoo_cards

console = Console()


@dataclass(frozen=True)
class Arguments:
    """List the trained networks that come with fsnn, or show the card of one."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Show this network's card instead."""


def main(argv: list[str]) -> int:
    """List networks, or show one's card, and return the exit status, 0."""
    arguments = read_options(Arguments, argv, command="zoo", description=__doc__)
    if arguments.name is None:
        console.print(listing(zoo_cards()))
        console.print(f"next: {command_line('run')} --zoo NAME --backend simulator", soft_wrap=True)
        return 0
    for line in card_lines(zoo_card(arguments.name)):
        console.print(escape(line), soft_wrap=True, highlight=False)
    return 0


def listing(known: dict[str, ZooCard]) -> Table:
    """Make the table of all networks."""
    table = Table("name", "network", "dataset", "T", "bits", "accuracy")
    for name, card in known.items():
        accuracy = f"{card.accuracy:.2%}"
        table.add_row(name, escape(card.notation), card.dataset, str(card.time_steps), str(card.weight_bits), accuracy)
    return table


def card_lines(card: ZooCard) -> Iterator[str]:
    """Say what one network is and how it was made."""
    yield f"{card.name}: {card.notation}. {card.description}"
    yield (
        f"trained on {card.dataset} by {card.method}, in integers of {card.weight_bits} bits, T = {card.time_steps}, "
        f"{card.weights:,} weights, seed {card.seed}"
    )
    yield (
        f"accuracy in integers {card.accuracy:.2%} ({card.right:,} of {card.samples:,} test samples); before that, in "
        f"floats, {card.float_accuracy:.2%}; published: {card.published or 'none'}"
    )
    firing = ", ".join(f"{name} {rate:.3f}" for name, rate in card.firing.items())
    yield f"spikes per neuron and step: {firing}; synaptic operations a sample: {card.operations:,.0f}"
    yield f"measured on: {', '.join(card.measured.values())}"
    yield "made with:"
    yield from (f"    {command}" for command in card.commands)
    yield "sha256:"
    yield from (f"    {digest}  {file}" for file, digest in card.files.items())
