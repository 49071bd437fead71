"""Weights of two and three bits, and ternary ones: exported, proven, run on Lava, counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fsnn_lava as fsnn
import trained
from fsnn_lava.backends import IntegerSimulator, get_backend
from fsnn_lava.config import DeployConfig
from fsnn_lava.conversion import lower, read_nir
from fsnn_lava.conversion.nir_write import write_nir
from fsnn_lava.hardware import ALWAYS_ON, accuracy, load_network, prove, save_network
from fsnn_lava.verification.size_and_energy import network_size


@pytest.mark.lava
@pytest.mark.parametrize(
    ("notation", "bits", "symmetric"),
    [("40 (F40)", 2, True), ("40 (F40)", 2, False), ("40 (F40)", 3, True), ("8C3s-8C3 (F8C3)", 3, False)],
)
def test_few_bits_run_on_lava_as_in_the_simulator(notation: str, bits: Any, symmetric: bool, tmp_path: Path) -> None:
    data, net = trained.digits(), trained.trained_network(notation)
    config = DeployConfig(weight_bits=bits, symmetric=symmetric)
    integer, report = fsnn.quantize(lower(net), data.train, config=config)
    prove(integer)
    weights = [c for c in integer.connections if c.source != ALWAYS_ON]
    assert {c.weight_bits for c in weights} == {bits}
    if symmetric and bits == 2:
        assert all(set(np.unique(c.weight)) <= {-1, 0, 1} for c in weights)
    assert all(c.used_bits <= bits for n, c in report.connections.items() if c.parts == 1 and "current" not in n)

    codes = data.test.codes
    run = IntegerSimulator().run(integer, codes)
    assert accuracy(run, data.test.labels) > net.metrics["best_test_accuracy"] - 0.05

    names = [p.name for p in integer.populations]
    some = codes[:4]
    simulated, on_lava = (get_backend(name).run(integer, some, record=names) for name in ("simulator", "lava-fixed"))
    for name in names:
        assert simulated.spikes[name].any()
        assert np.array_equal(simulated.spikes[name], on_lava.spikes[name])

    eight = fsnn.quantize(lower(net), data.train)[0]
    assert network_size(integer).total.weight_bytes < network_size(eight).total.weight_bytes

    save_network(integer, tmp_path / "network.h5")
    again = load_network(tmp_path / "network.h5")
    assert all(np.array_equal(a.weight, b.weight) for a, b in zip(again.connections, integer.connections, strict=True))
    write_nir(integer, tmp_path / "network.nir")
    again = read_nir(tmp_path / "network.nir")
    assert all(np.array_equal(a.weight, b.weight) for a, b in zip(again.connections, integer.connections, strict=True))
