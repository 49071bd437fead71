"""What the IDE paper (Xiao et al., NeurIPS 2021) prints, beside which our figures are put.

Networks of the SPIDE paper (Xiao et al., Neural Networks 2023) are rows too; its figures are not at hand.

The accuracies stand in the configs that reproduce them, the measurements of Tables 4 and 5 here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsnn_lava.config import TrainConfig, published_configs, read_config
from fsnn_lava.errors import ConfigError

SAMPLES: Mapping[str, tuple[int, int]] = {
    "mnist": (60_000, 10_000),
    "fashion_mnist": (60_000, 10_000),
    "nmnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "cifar10_dvs": (9_000, 1_000),
}
"""Training and test samples of the published figures."""

TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "nmnist": "N-MNIST"}
TITLES |= {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "cifar10_dvs": "CIFAR10-DVS"}
"""Names of the datasets."""

MEMORY: Mapping[str, Mapping[int, str]] = {
    "ide": {30: "2.8 GB", 100: "2.8 GB"},
    "bptt": {30: "11 GB", 100: "out of memory, about 36 GB"},
}
"""Table 4: GPU memory in training AlexNet-F, LIF, by method and T; bptt is the paper's STBP."""

LAYERS = tuple(f"population{number}" for number in range(1, 6))
FIRING_RATES: Mapping[str, tuple[float, ...]] = {
    "cifar10_alexnet_if_t30": (0.0172, 0.0041, 0.0025, 0.0008, 0.0200, 0.0070),
    "cifar10_alexnet_lif_t30": (0.0166, 0.0039, 0.0024, 0.0008, 0.0177, 0.0066),
    "cifar10_alexnet_bptt_lif_t30": (0.0190, 0.0082, 0.0113, 0.0055, 0.0108, 0.0102),
}
"""Table 5: spikes per neuron and step of `LAYERS`, and of all neurons together."""

_PUBLISHED = re.compile(r"(?P<figure>[0-9.]+|none)[^(]*\((?P<table>Table [0-9]+|Appendix [A-Z]|SPIDE)\b")


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables that is ours to reproduce.

    Parameters
    ----------
    table : where the paper prints it; SPIDE: in the other paper.
    figure : test accuracy in per cent, mean of five runs; None: the paper has none.
    """

    config: TrainConfig
    table: str
    figure: float | None


def published_rows(files: Iterable[Path] | None = None) -> list[Row]:
    """A row for every config that names a published figure, in the order of the tables.

    Raises
    ------
    ConfigError : if a config does not say figure and table, such as "99.49 (Table 1, IDE-IF, mean of 5)".
    """
    rows = []
    for path in published_configs().values() if files is None else files:
        config = read_config(path)
        if not config.published:
            continue
        found = _PUBLISHED.match(config.published)
        if found is None:
            raise ConfigError(
                f'config {path}: published: found "{config.published}"; expected a figure and its place, such as '
                '"99.49 (Table 1, IDE-IF, mean of 5)", or "none (Table 4, STBP)"'
            )
        figure = None if found["figure"] == "none" else float(found["figure"])
        rows.append(Row(config, found["table"], figure))
    datasets = list(SAMPLES)
    order = ("Table 1", "Table 2", "Table 3", "Appendix G", "Table 4", "SPIDE")

    def place(row: Row) -> tuple[int, int, str, int, bool]:
        network = row.config.network
        table, dataset = order.index(row.table), datasets.index(row.config.dataset)
        return table, dataset, network.notation, network.time_steps, network.leak < 1

    return sorted(rows, key=place)
