"""Networks trained before the packages were moved still become the same files, to the bit.

The last bits of a matrix product depend on the processor for which OpenBLAS chooses its code. So the networks are
exported in a process of its own, which is told to use the code that every x86-64 processor has. MKL cannot be told: its
root, which torch takes of a batch norm's variance, is rounded in another way on other processors. So three arrays of
float networks are kept whole, in golden/roots.npz, and are allowed to differ in their last bits; all others are not.
Exponents below 0 were of the input alone then.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from script_loader import load_script

GOLDEN = Path(__file__).parents[1] / "golden"
SAME_SUMS = {"OPENBLAS_CORETYPE": "Prescott", "OMP_NUM_THREADS": "1"}
FILES = ("network-float.h5", "network-integer.h5")


def export(name: str, folder: Path) -> None:
    from fsnn_lava.config import DeployConfig
    from fsnn_lava.conversion import calibration_codes, lower
    from fsnn_lava.datasets import load_dataset
    from fsnn_lava.hardware import save_network
    from fsnn_lava.quantization import quantize
    from fsnn_lava.training import load_checkpoint

    trained, config = load_checkpoint(GOLDEN / f"{name}.safetensors"), DeployConfig(exponents="input")
    floating = lower(trained)
    codes = calibration_codes(load_dataset(trained.config.dataset), count=config.calibration_samples)
    integer, _ = quantize(floating, codes, config=config)
    for network, file in zip((floating, integer), FILES, strict=True):
        save_network(network, folder / f"{name}-{file}")


@pytest.mark.skipif(not torch.__version__.startswith("2.3."), reason="the golden sums are those of torch 2.3")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the golden sums are those of x86-64")
def test_exports_hold_the_arrays_they_held_before_the_move(tmp_path: Path) -> None:
    networks = json.loads((GOLDEN / "exports.json").read_text(encoding="utf-8"))["networks"]
    environment = os.environ | SAME_SUMS | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__, str(tmp_path), *networks], env=environment, check=True)
    described = load_script("tests/golden/make_exports.py").described
    roots = np.load(GOLDEN / "roots.npz")
    assert len(roots.files) == 3
    for name in networks:
        for file in FILES:
            found = described(tmp_path / f"{name}-{file}")
            for entry, wanted in networks[name][file].items():
                entry_found = found.pop(entry, None)
                if file == FILES[0] and f"{name}{entry}" in roots.files:
                    with h5py.File(tmp_path / f"{name}-{file}") as network:
                        root = roots[f"{name}{entry}"]
                        assert np.abs(network[entry][()] - root).max() <= 4 * np.spacing(np.abs(root).max())
                    continue
                assert entry_found == wanted, f"{name}, {file}: {entry} is the first entry that differs"
            assert not found, f"{name}, {file}: entries that were not there before"


if __name__ == "__main__":
    for network in sys.argv[2:]:
        export(network, Path(sys.argv[1]))
