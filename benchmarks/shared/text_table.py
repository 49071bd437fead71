"""Tables, on screen and as Markdown between markers of a document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from fsnn_lava.errors import ConfigError


@dataclass(frozen=True)
class TextTable:
    """A table of words.

    Parameters
    ----------
    caption : what is in it; empty for none.
    notes : what is to be known of it; a line below it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: str = ""

    def markdown(self) -> str:
        """As Markdown, without the caption."""
        lines = [f"| {' | '.join(row)} |" for row in (self.header, ("---",) * len(self.header), *self.rows)]
        return "\n".join([*lines, "", self.notes] if self.notes else lines)

    def screen(self) -> Table:
        """For a console."""
        table = Table(title=self.caption, title_justify="left", caption=self.notes or None, caption_justify="left")
        for word in self.header:
            table.add_column(escape(word), overflow="fold", no_wrap=word == "config")
        for row in self.rows:
            table.add_row(*(escape(word.replace("`", "")) for word in row))
        return table


def with_blocks(document: str, blocks: Mapping[str, str]) -> str:
    """Put new text into the document's named blocks: between a line ``<!-- name: ... -->`` and ``<!-- end -->``.

    Raises
    ------
    ConfigError : if the document lacks a block.
    """
    for name, text in blocks.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)}: [^\n]*-->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)
        document, count = pattern.subn(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", document)  # type: ignore[misc]
        if count != 1:
            raise ConfigError(
                f'found {count} blocks "{name}" in the document; expected one, '
                f"from a line <!-- {name}: how it is made --> to a line <!-- end -->"
            )
    return document
