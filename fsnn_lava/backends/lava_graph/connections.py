"""The stock models of the stock connections, which in addition forget the spikes in flight between samples.

The arithmetic is Lava's own: each class calls the stock model's step. Lava offers a periodic reset for neurons
(`LIFReset`) and none for connections; through `Var.set` it would cost a message per element and sample.
"""

from __future__ import annotations

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.process import AbstractProcess
from lava.proc.dense.models import (
    PyDelayDenseModelBitAcc,
    PyDelayDenseModelFloat,
    PyDenseModelBitAcc,
    PyDenseModelFloat,
)
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.sparse.models import PySparseModelBitAcc, PySparseModelFloat
from lava.proc.sparse.process import Sparse

from fsnn_lava.ir import Arithmetic, Array


class _ForgetsBetweenSamples(PyLoihiProcessModel):
    """Empties the buffer of what is to be delivered before the first step of every sample."""

    a_buff: Array

    def run_spk(self) -> None:
        if (self.time_step - 1) % self.proc_params["sample_steps"] == 0:
            self.a_buff = np.zeros_like(self.a_buff)
        super().run_spk()


class DenseFixed(_ForgetsBetweenSamples, PyDenseModelBitAcc):
    """Dense, fixed_pt."""


class DenseFloat(_ForgetsBetweenSamples, PyDenseModelFloat):
    """Dense, floating_pt."""


class DelayDenseFixed(_ForgetsBetweenSamples, PyDelayDenseModelBitAcc):
    """DelayDense, fixed_pt."""


class DelayDenseFloat(_ForgetsBetweenSamples, PyDelayDenseModelFloat):
    """DelayDense, floating_pt."""


class SparseFixed(_ForgetsBetweenSamples, PySparseModelBitAcc):
    """Sparse, fixed_pt."""


class SparseFloat(_ForgetsBetweenSamples, PySparseModelFloat):
    """Sparse, floating_pt."""


CONNECTION_MODELS: dict[tuple[type[AbstractProcess], Arithmetic], type[PyLoihiProcessModel]] = {
    (Dense, "integer"): DenseFixed,
    (Dense, "float"): DenseFloat,
    (DelayDense, "integer"): DelayDenseFixed,
    (DelayDense, "float"): DelayDenseFloat,
    (Sparse, "integer"): SparseFixed,
    (Sparse, "float"): SparseFloat,
}
