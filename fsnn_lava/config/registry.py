"""Things that are chosen by name: datasets, gradient methods, solvers, layer kinds, neurons, backends.

Each kind has one `Registry`. Config choices, help texts and error messages look there, so something new is added in one
place, also from outside the package: by `Registry.register`, or by an entry point of the registry's group.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from fsnn_lava.errors import ConfigError, FsnnError

if TYPE_CHECKING:
    from tyro.constructors import PrimitiveConstructorSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What a name stands for: the thing itself or ``module:name``, loaded on first use; and one line of help."""

    what: Any
    help: str


def loaded(what: Any) -> Any:
    """Return the thing itself; one given as ``package.module:name`` is imported."""
    if not isinstance(what, str):
        return what
    module, _, attribute = what.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(Generic[T]):
    """Names of one kind of thing, in the order in which they were registered.

    Parameters
    ----------
    kind : what an entry is, for messages: "dataset".
    group : entry points of other distributions that add entries, e.g. ``fsnn_lava.datasets``.
    error : raised for a name that is not registered.
    """

    def __init__(self, kind: str, *, group: str, error: type[FsnnError] = ConfigError) -> None:
        self._kind = kind
        self._group = group
        self._error = error
        self._entries: dict[str, Entry] = {}
        self._searched = False

    def register(self, name: str, what: T | str, *, help: str) -> None:
        """Add an entry.

        Parameters
        ----------
        what : the thing, or ``package.module:name`` of it, which is imported when it is asked for.
        help : one line that says what it is.

        Raises
        ------
        ConfigError : if the name is taken.
        """
        if name in self._entries:
            raise ConfigError(f'{self._kind} "{name}": the name is taken; register it under another one')
        self._entries[name] = Entry(what, help)

    def remove(self, name: str) -> None:
        """Take an entry out, so that its name is free again."""
        del self._all()[name]

    def get(self, name: str) -> T:
        """Return what a name stands for.

        Raises
        ------
        FsnnError : of the registry's own kind, if the name is not registered; it lists those that are.
        """
        self.require(name)
        return cast(T, loaded(self._all()[name].what))

    def require(self, name: str) -> None:
        """Raise if the name is not registered, as `get` does, but import nothing."""
        entries = self._all()
        if name not in entries:
            close = difflib.get_close_matches(name, entries, n=1)
            hint = f' (did you mean "{close[0]}"?)' if close else ""
            raise self._error(f'no {self._kind} "{name}"{hint}; there are: {", ".join(entries)}')

    def help(self) -> str:
        """Every name with its line of help."""
        return "; ".join(f"{name}: {entry.help}" for name, entry in self._all().items())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def _all(self) -> dict[str, Entry]:
        """All entries; those of installed distributions are looked for once, when somebody asks."""
        if not self._searched:
            self._searched = True
            for point in importlib.metadata.entry_points(group=self._group):
                if point.name not in self._entries:
                    self._entries[point.name] = Entry(point.value, f"from {point.dist.name if point.dist else '?'}")
        return self._entries


def one_of(registry: Registry[Any]) -> PrimitiveConstructorSpec[str]:
    """Say to the command line and to `config_from_dict` that a setting is one of the names registered so far."""
    from tyro.constructors import PrimitiveConstructorSpec  # takes longer to import than all of config

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(registry) + "}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
        choices=tuple(registry),
    )
