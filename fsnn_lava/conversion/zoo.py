"""The zoo: trained integer networks that come with the package, each with a card that says how it was made.

An entry is the integer network that `fsnn export` left in a run folder, where it is small the export's record, and
`card.json`. It is used as a run is: `take_from_zoo` puts it beside the user's own runs, with the float network that the
integers stand for. `benchmarks/deployment/zoo.py` makes entries and measures what their cards say.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fsnn_lava.conversion.export_folder import NETWORK_FILES
from fsnn_lava.errors import ConfigError, NetworkError
from fsnn_lava.files import not_writable, write_whole
from fsnn_lava.hardware import HardwareNetwork, load_network, save_network

ZOO = Path(__file__).parent / "zoo_networks"
"""Folder of the entries, one for each name."""
CARD = "card.json"


@dataclass(frozen=True)
class ZooCard:
    """What an entry is.

    Parameters
    ----------
    name, description : of the entry; in one sentence.
    dataset, notation, method : on what it was trained, in the paper's notation, and how its gradient was found.
    time_steps, weight_bits, weights : T; bits of a mantissa; how many weights.
    right, samples : test samples that the integers get right in the simulator, and of how many.
    published : accuracy in % that a paper gives for this network, in floats, and with what; "" for none.
    float_accuracy : share that the float network got right before it was trained on in integers.
    firing : population -> spikes per neuron and step on the test samples.
    operations : synaptic operations of a sample.
    commands : with which it was trained and exported.
    seed : of the training.
    measured : machine, commit and time of the measurement.
    files : name of each file in the entry -> its sha256.
    """

    name: str
    description: str
    dataset: str
    notation: str
    method: str
    time_steps: int
    weight_bits: int
    weights: int
    right: int
    samples: int
    published: str
    float_accuracy: float
    firing: Mapping[str, float]
    operations: float
    commands: tuple[str, ...]
    seed: int
    measured: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def accuracy(self) -> float:
        """Share of the test samples that the integers get right."""
        return self.right / self.samples


def zoo_cards(zoo: Path = ZOO) -> dict[str, ZooCard]:
    """Read the cards of all entries, by name.

    Raises
    ------
    NetworkError : if a card cannot be understood.
    """
    return {path.parent.name: _card(path) for path in sorted(zoo.glob(f"*/{CARD}"))}


def zoo_card(name: str, zoo: Path = ZOO) -> ZooCard:
    """Read the card of an entry.

    Raises
    ------
    ConfigError : if there is no such entry.
    NetworkError : if a card cannot be understood.
    """
    known = zoo_cards(zoo)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        raise ConfigError(f'zoo: found no network "{name}"{hint}; allowed: {", ".join(known) or "none is there"}')
    return known[name]


def write_card(card: ZooCard, folder: Path) -> None:
    """Write the card of an entry.

    Raises
    ------
    OutputError : if it cannot be written.
    """
    write_whole(folder / CARD, (json.dumps(dataclasses.asdict(card), indent=2) + "\n").encode())


def take_from_zoo(name: str, runs: Path, *, zoo: Path = ZOO) -> Path:
    """Put an entry beside the runs, as the folder ``zoo-NAME``, unless it is there, and return that.

    Raises
    ------
    ConfigError : if there is no such entry, or the folder holds something else.
    NetworkError : if a file of the entry is missing or damaged.
    OutputError : if a file cannot be written.
    """
    content = _files(name, zoo)
    folder = runs / f"zoo-{name}"
    for file, wanted in content.items():
        there = folder / file
        if there.exists() and there.read_bytes() != wanted:
            raise ConfigError(f"{there}: is not that of the zoo; move {folder} away, or choose other --runs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(folder, error) from error
    for file, wanted in content.items():
        if not (folder / file).exists():
            write_whole(folder / file, wanted)
    if not (folder / NETWORK_FILES["float"]).exists():
        from fsnn_lava.quantization import dequantized  # imports torch, which --help does not need

        save_network(dequantized(load_network(folder / NETWORK_FILES["integer"])), folder / NETWORK_FILES["float"])
    return folder


def from_zoo(name: str, *, zoo: Path = ZOO) -> HardwareNetwork:
    """Load the integer network of an entry.

    >>> from_zoo("digits").time_steps
    5

    Raises
    ------
    ConfigError : if there is no such entry.
    NetworkError : if a file of the entry is missing or damaged.
    """
    _files(name, zoo)
    return load_network(zoo / name / NETWORK_FILES["integer"])


def _files(name: str, zoo: Path) -> dict[str, bytes]:
    """The files of an entry, which are those that its card is about."""
    content = {}
    for file, sha256 in zoo_card(name, zoo).files.items():
        path = zoo / name / file
        content[file] = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content[file]).hexdigest() != sha256:
            raise NetworkError(f"{path}: is not the file that the card is about; install fsnn-lava again")
    return content


def _card(path: Path) -> ZooCard:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return ZooCard(**{**values, "commands": tuple(values["commands"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise NetworkError(f"{path}: cannot be understood: {error}; install fsnn-lava again") from error
