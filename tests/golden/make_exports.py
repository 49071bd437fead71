"""Train three small networks, export them, and describe every array of their network files in exports.json.

The description is what later versions must reproduce to the bit, see tests/whole/test_golden_exports.py. So this script
is run once, from the root of the checkout whose behaviour is to be kept, with nothing of it changed:

    cd CHECKOUT; PYTHONPATH=. OPENBLAS_CORETYPE=Prescott OMP_NUM_THREADS=1 python .../tests/golden/make_exports.py

exports.json names the commit it ran on. roots.npz holds three arrays of the same commit, lowered on another processor.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HERE = Path(__file__).parent
FILES = ("network-float.h5", "network-integer.h5")
NETWORKS = {
    "digits": ["digits.toml", "--network.notation", "100 (F100)", "--training.epochs", "4"],
    "digits_spide": ["digits_spide.toml", "--network.notation", "80 (F80)", "--training.epochs", "3"],
    "digits_convolutional": [
        *("digits.toml", "--network.notation", "8C5s-16C3-P2 (F8C3u)", "--training.epochs", "4"),
        *("--network.leak", "0.9", "--network.v-threshold", "1.0", "--network.reset-amount", "1.0"),
    ],
}
"""Name -> its config and what differs from it."""


def described(path: Path) -> dict[str, Any]:
    """Each dataset of a network file as type, shape and hash of its bytes, each attribute as its value.

    The provenance, which is a text, and the checksum over all of it are left out.
    """
    found: dict[str, Any] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for attribute, value in item.attrs.items():
            if attribute != "checksum":
                plain = np.asarray(value).tolist()
                found[f"{name}@{attribute}"] = plain.decode() if isinstance(plain, bytes) else plain
        if isinstance(item, h5py.Dataset) and name != "/provenance":
            values = np.ascontiguousarray(item[()])
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            found[name] = {"dtype": values.dtype.str, "shape": list(values.shape), "sha256": digest}

    with h5py.File(path, "r") as file:
        visit("/", file)
        file.visititems(lambda name, item: visit(f"/{name}", item))
    return found


def main() -> None:
    """Write the checkpoints and exports.json beside this file."""
    if subprocess.check_output(["git", "status", "--porcelain"], text=True):
        raise SystemExit("the checkout has changes of its own; the files must come from a commit")
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    networks = {}
    with tempfile.TemporaryDirectory() as runs:
        for name, (config, *changes) in NETWORKS.items():
            options = ["--config", f"train/configs/{config}", "--name", name, "--runs", runs, *changes]
            subprocess.run([sys.executable, "train/train.py", *options], check=True)
            (run,) = Path(runs).iterdir()
            subprocess.run([sys.executable, "deploy/export.py", "--run", str(run)], check=True)
            shutil.copy(run / "best.safetensors", HERE / f"{name}.safetensors")
            networks[name] = {file: described(run / file) for file in FILES}
            shutil.rmtree(run)
    content = {"commit": commit, "networks": networks}
    (HERE / "exports.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
