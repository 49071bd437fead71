"""The zoo: every entry is what its card says; what is missing, damaged or in the way is refused."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fsnn_lava.backends import IntegerSimulator
from fsnn_lava.config import parse_spec
from fsnn_lava.conversion import ZOO, from_zoo, load_deployed, take_from_zoo, zoo_cards
from fsnn_lava.datasets import load_dataset, time_first
from fsnn_lava.errors import ConfigError, NetworkError
from fsnn_lava.hardware import ALWAYS_ON
from fsnn_lava.hardware.overflow_proof import prove

FOLDERS = {"fashion_mnist": "fashion-mnist", "cifar10": "cifar10-jpeg"}
"""Where the images are that the cards are about."""
MOST_BYTES = 12 * 10**6
"""Of all entries together, in the repository."""


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A zoo with one small entry."""
    shutil.copytree(ZOO / "digits", tmp_path / "zoo" / "digits")
    return tmp_path / "zoo"


def test_there_are_entries_and_they_are_small() -> None:
    assert "digits" in zoo_cards()
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) < MOST_BYTES


@pytest.mark.parametrize("name", sorted(zoo_cards()))
def test_entry_is_what_its_card_says(name: str, tmp_path: Path) -> None:
    card = zoo_cards()[name]
    assert card.name == name
    assert card.commands
    assert {"commit", "cpu", "at"} == set(card.measured)
    folder = take_from_zoo(name, tmp_path)
    assert folder == tmp_path / f"zoo-{name}"
    assert {path.name for path in folder.iterdir()} == {*card.files, "network-float.h5"}
    deployed = load_deployed(folder)
    network, config = deployed.integer, deployed.integer.provenance["config"]
    assert network.time_steps == card.time_steps
    assert (config["dataset"], config["network"]["notation"]) == (card.dataset, card.notation)
    assert parse_spec(card.notation).feedback is not None
    weights = [c for c in network.connections if c.source != ALWAYS_ON]
    assert max(c.weight_bits for c in weights) == card.weight_bits
    assert sum(c.weight.size for c in weights) == card.weights
    assert set(card.firing) == {p.name for p in network.populations}
    prove(network)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "alexnet" in name else ()) for name in sorted(zoo_cards())]
)
def test_entry_gets_as_many_right_as_its_card_says(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whole test sets."""
    card = zoo_cards()[name]
    data_dir = None
    if card.dataset in FOLDERS:
        data_dir = request.getfixturevalue("data_dir")
        if not (data_dir / FOLDERS[card.dataset]).is_dir():
            pytest.skip(f"needs {FOLDERS[card.dataset]} in the folder of the datasets")
    dataset = load_dataset(card.dataset, data_dir)
    if "JPEG" in card.description and "JPEG" not in dataset.note:
        pytest.skip("the card is about the JPEG copies, and the originals are there too")
    test = dataset.test
    network = load_deployed(take_from_zoo(name, tmp_path)).integer
    result = IntegerSimulator().run(network, time_first(test.codes))
    assert int((result.logits.argmax(1) == test.labels).sum()) == card.right
    assert len(test) == card.samples
    for name, counts in result.spike_counts.items():
        assert np.isclose(counts.mean() / card.time_steps, card.firing[name], rtol=0, atol=5e-5)


def test_entry_that_is_there_is_used_again(zoo: Path, tmp_path: Path) -> None:
    folder = take_from_zoo("digits", tmp_path, zoo=zoo)
    (folder / "report.json").write_text("{}")
    before = (folder / "network-integer.h5").stat().st_mtime_ns
    assert take_from_zoo("digits", tmp_path, zoo=zoo) == folder
    assert (folder / "network-integer.h5").stat().st_mtime_ns == before
    assert (folder / "report.json").exists()


def test_name_that_is_none_is_refused_with_the_nearest(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r'zoo: found no network "digit" \(did you mean "digits"\?\); allowed: digits'
    ):
        take_from_zoo("digit", tmp_path, zoo=zoo)
    assert not list(tmp_path.glob("zoo-*"))


def test_damaged_or_missing_file_is_refused_and_nothing_is_left(zoo: Path, tmp_path: Path) -> None:
    path = zoo / "digits" / "network-integer.h5"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(NetworkError, match=r"network-integer\.h5: is not the file that the card is about"):
        take_from_zoo("digits", tmp_path, zoo=zoo)
    path.unlink()
    with pytest.raises(NetworkError, match=r"network-integer\.h5: is not the file that the card is about"):
        take_from_zoo("digits", tmp_path, zoo=zoo)
    assert not list(tmp_path.glob("zoo-*"))


def test_folder_with_another_network_is_left_alone(zoo: Path, tmp_path: Path) -> None:
    other = tmp_path / "zoo-digits" / "network-integer.h5"
    other.parent.mkdir()
    other.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"network-integer\.h5: is not that of the zoo; move .* away"):
        take_from_zoo("digits", tmp_path, zoo=zoo)
    assert [path.name for path in other.parent.iterdir()] == ["network-integer.h5"]
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("change", ["{", '{"name": "digits"}', "[]", '{"commands": 3}'])
def test_card_that_cannot_be_understood_is_refused(zoo: Path, change: str) -> None:
    (zoo / "digits" / "card.json").write_text(change)
    with pytest.raises(NetworkError, match=r"card\.json: cannot be understood"):
        zoo_cards(zoo)


def test_hashes_of_the_card_are_those_of_the_files() -> None:
    for name, card in zoo_cards().items():
        for file, digest in card.files.items():
            assert hashlib.sha256((ZOO / name / file).read_bytes()).hexdigest() == digest
        assert json.loads((ZOO / name / "card.json").read_text())["right"] == card.right


def test_an_entry_is_loaded_as_a_network() -> None:
    network = from_zoo("digits")
    assert network.arithmetic == "integer"
    assert network.provenance["config"]["dataset"] == "digits"
    with pytest.raises(ConfigError, match='did you mean "digits"'):
        from_zoo("digit")


def test_a_damaged_entry_is_not_loaded(zoo: Path) -> None:
    path = zoo / "digits" / "network-integer.h5"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(NetworkError, match="is not the file that the card is about"):
        from_zoo("digits", zoo=zoo)
