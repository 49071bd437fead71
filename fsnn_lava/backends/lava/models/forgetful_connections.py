"""The stock models of the stock connections, which in addition forget the spikes in flight between samples.

The arithmetic is Lava's own: each class calls the stock model's step. Lava 0.10.0 offers a periodic reset for neurons
(`LIFReset`) and none for connections; through `Var.set` it would cost a message per element and sample.
"""

from __future__ import annotations

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.process import AbstractProcess
from lava.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava.proc.conv.process import Conv
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.proc.dense.process import Dense
from lava.proc.sparse.models import (
    PyDelaySparseModelBitAcc,
    PyDelaySparseModelFloat,
    PySparseModelBitAcc,
    PySparseModelFloat,
)
from lava.proc.sparse.process import DelaySparse, Sparse

from fsnn_lava.hardware import Arithmetic


class _Forgetful(PyLoihiProcessModel):
    """Empties the buffer of what is to be delivered before the first step of every sample."""

    def run_spk(self) -> None:
        if (self.time_step - 1) % self.proc_params["sample_steps"] == 0:
            buffer = "a_buf" if hasattr(self, "a_buf") else "a_buff"  # Conv's name for it, and the others'
            setattr(self, buffer, np.zeros_like(getattr(self, buffer)))
        super().run_spk()


def _forgetful(stock: type[PyLoihiProcessModel]) -> type[PyLoihiProcessModel]:
    """The stock model that forgets."""
    return type(f"Forgetful{stock.__name__}", (_Forgetful, stock), {})


CONNECTION_MODELS: dict[tuple[type[AbstractProcess], Arithmetic], type[PyLoihiProcessModel]] = {
    (Conv, "integer"): _forgetful(PyConvModelFixed),
    (Conv, "float"): _forgetful(PyConvModelFloat),
    (Dense, "integer"): _forgetful(PyDenseModelBitAcc),
    (Dense, "float"): _forgetful(PyDenseModelFloat),
    (DelaySparse, "integer"): _forgetful(PyDelaySparseModelBitAcc),
    (DelaySparse, "float"): _forgetful(PyDelaySparseModelFloat),
    (Sparse, "integer"): _forgetful(PySparseModelBitAcc),
    (Sparse, "float"): _forgetful(PySparseModelFloat),
}
