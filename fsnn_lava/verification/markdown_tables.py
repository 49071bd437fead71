"""Tables as Markdown, for every report."""

from collections.abc import Mapping, Sequence

from fsnn_lava.network import Settling


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; every row has as many cells as the header."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_SETTLING = (
    "network",
    "gain",
    "largest gain",
    "does not settle",
    "rates",
    "silent",
    "saturated",
    "never fire",
    "relative distance",
)
_SETTLING_NOTES = (
    "*Gain*: the factor by which a small disturbance of the rates grows once around the loop, mean over the samples "
    "and *largest gain*; a sample *does not settle* where it is 1 or more, or where no equilibrium was found. *Silent* "
    "and *saturated*: share of neurons and samples at rate 0 and at rate 1, *never fire*: share of the neurons that "
    "fire for no sample, by the *rates* after T steps (at T) or at the equilibrium (at rest). *Relative distance*: of "
    "the last population's rates after T steps from the equilibrium, as a share of their mean."
)


def settling_markdown(settling: Mapping[str, Settling]) -> str:
    """Write whether each network, by name, comes to rest."""
    rows = [
        (
            name,
            f"{s.mean_gain:.2f}",
            f"{s.largest_gain:.2f}{s.of_samples}",
            f"{s.unsettled} of {s.samples}",
            "at T" if s.ran else "at rest",
            f"{s.silent:.0%}",
            f"{s.saturated:.0%}",
            f"{s.never_fires:.0%}",
            "" if s.distance is None else f"{s.distance:.1%}",
        )
        for name, s in settling.items()
    ]
    warnings = [f"- **{name} network: {warning}**" for name, s in settling.items() for warning in s.warnings()]
    return "\n\n".join([markdown_table(_SETTLING, rows), _SETTLING_NOTES, *(["\n".join(warnings)] if warnings else [])])
