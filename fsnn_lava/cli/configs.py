"""List the configurations that come with fsnn and what each reproduces, or print one of them.

A name of the list is what `fsnn train --config NAME` takes. To change more than options can, keep one as a file of your
own: fsnn configs NAME > mine.toml; fsnn train --config mine.toml
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import tyro

from fsnn_lava.cli.options import read_options
from fsnn_lava.config import published_configs, read_config
from fsnn_lava.errors import ConfigError


@dataclass(frozen=True)
class Arguments:
    """List the configurations that come with fsnn, or print one."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Print this configuration's file instead."""


def main(argv: list[str]) -> int:
    """List or print configurations and return the exit status, 0."""
    arguments = read_options(Arguments, argv, command="configs", description=__doc__)
    known = published_configs()
    if arguments.name is None:
        sys.stdout.writelines(f"{line}\n" for line in listing())
        return 0
    if arguments.name not in known:
        raise ConfigError(f'config "{arguments.name}": no such name; allowed: {", ".join(known)}')
    sys.stdout.write(known[arguments.name].read_text(encoding="utf-8"))
    return 0


def listing() -> Iterator[str]:
    """Two lines for every configuration: name, dataset, method, steps and published figure; the network."""
    known = published_configs()
    width = max(map(len, known))
    for name in known:
        config = read_config(name)
        settings = f"{config.dataset}, {config.training.method}, T = {config.network.time_steps}"
        yield f"{name.ljust(width)}  {settings}; published: {config.published or 'none'}"
        yield f"    {config.network.title}"
