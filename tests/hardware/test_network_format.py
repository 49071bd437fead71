"""The page `docs/network-format.md`: its worked example, its entries and its checksum are those of real files."""

import hashlib
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import reference_simulator as reference
from fsnn_lava.backends.simulator import IntegerSimulator
from fsnn_lava.hardware.network import HardwareNetwork
from fsnn_lava.hardware.network_file import save_network
from fsnn_lava.hardware.overflow_proof import potential_bounds
from networks import small_float_network, worked_example

PAGE = Path(__file__).parents[2] / "docs" / "network-format.md"


def test_worked_example_of_the_page(tmp_path: Path) -> None:
    """Every potential and spike of its last table, the rates and the bound; simulator and reader agree with it."""
    cells = re.findall(
        r"^\| (\d) \| (-?\d+)( \*)? \| (-?\d+)( \*)? \| (-?\d+)( \*)? \|$", PAGE.read_text(), re.MULTILINE
    )
    assert [row[0] for row in cells] == ["0", "1", "2"]
    potentials = np.array([[int(row[k]) for k in (1, 3, 5)] for row in cells])
    spikes = np.array([[bool(row[k]) for k in (2, 4, 6)] for row in cells])

    save_network(worked_example(), tmp_path / "network.h5")
    read_spikes, read_potentials = reference.simulate(reference.read(tmp_path / "network.h5"), [100, 40])
    assert np.array_equal(np.hstack([read_potentials["a"], read_potentials["b"]]), potentials)
    assert np.array_equal(np.hstack([read_spikes["a"], read_spikes["b"]]), spikes)

    result = IntegerSimulator().run(worked_example(), np.array([[100, 40]]), record=["a", "b"])
    assert np.array_equal(np.hstack([result.spikes["a"][:, 0], result.spikes["b"][:, 0]]), spikes)
    assert result.firing_rates["a"][0].round(4).tolist() == [0.6752, 0.4297]
    assert result.firing_rates["b"][0].tolist() == [2 / 3]
    assert [b.tolist() for b in potential_bounds(worked_example())["b"]] == [[-63], [1984]]
    for stated in ("= 0.6752 and", "= 0.4297.", "The rate of b is 2/3.", "-63 .. 1984"):
        assert stated in PAGE.read_text()


@pytest.mark.parametrize("network", [worked_example(), small_float_network()], ids=["integer", "float"])
def test_page_names_every_entry(network: HardwareNetwork, tmp_path: Path) -> None:
    save_network(network, tmp_path / "network.h5")
    stated = set(re.findall(r"^\| .*?\| `(\w+)` \| (?:text|int64|float64|dataset)", PAGE.read_text(), re.MULTILINE))
    found: set[str] = set()

    def collect(_: str, item: Any) -> None:
        found.update(item.attrs)
        found.update(key for key in getattr(item, "keys", list)() if isinstance(item[key], h5py.Dataset))

    with h5py.File(tmp_path / "network.h5", "r") as file:
        collect("/", file)
        file.visititems(collect)
    only = {"integer": {"reset_amount", "leak"}, "float": {"reset_mantissa", "reset_exponent", "decay", "scale"}}
    assert found == stated - only[network.arithmetic]


def test_checksum_is_the_one_that_the_page_describes(tmp_path: Path) -> None:
    """Written from the page: label, kind, sizes, data of every entry."""
    save_network(worked_example(), tmp_path / "network.h5")
    entries: dict[bytes, bytes] = {}

    def add(label: str, value: Any) -> None:
        text = isinstance(value, bytes)
        kind = "text" if text else value.dtype.name
        data = value if text else value.astype(value.dtype.newbyteorder("<")).tobytes()
        sizes = str(len(data)) if text else ",".join(str(n) for n in value.shape)
        entries[label.encode()] = hashlib.sha256(f"{label}\0{kind}\0{sizes}\0".encode() + data).digest()

    def visit(name: str, item: Any) -> None:
        for key, value in item.attrs.items():
            if key != "checksum":
                add(f"/{name}@{key}", value)
        if isinstance(item, h5py.Dataset):
            add(f"/{name}", item[()])

    with h5py.File(tmp_path / "network.h5", "r") as file:
        visit("", file)
        file.visititems(visit)
        stated = file.attrs["checksum"].decode()
    assert hashlib.sha256(b"".join(entries[label] for label in sorted(entries))).hexdigest() == stated
