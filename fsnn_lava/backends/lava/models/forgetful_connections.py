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

from fsnn_lava.hardware import Arithmetic, Array


class _ForgetsBetweenSamples(PyLoihiProcessModel):
    """Empties the buffer of what is to be delivered before the first step of every sample."""

    a_buff: Array

    def run_spk(self) -> None:
        if (self.time_step - 1) % self.proc_params["sample_steps"] == 0:
            self.forget()
        super().run_spk()

    def forget(self) -> None:
        """Empty the buffer."""
        self.a_buff = np.zeros_like(self.a_buff)


class DenseFixed(_ForgetsBetweenSamples, PyDenseModelBitAcc):
    """Dense, fixed_pt."""


class DenseFloat(_ForgetsBetweenSamples, PyDenseModelFloat):
    """Dense, floating_pt."""


class SparseFixed(_ForgetsBetweenSamples, PySparseModelBitAcc):
    """Sparse, fixed_pt."""


class SparseFloat(_ForgetsBetweenSamples, PySparseModelFloat):
    """Sparse, floating_pt."""


class DelaySparseFixed(_ForgetsBetweenSamples, PyDelaySparseModelBitAcc):
    """DelaySparse, fixed_pt."""


class DelaySparseFloat(_ForgetsBetweenSamples, PyDelaySparseModelFloat):
    """DelaySparse, floating_pt."""


class _ConvForgets(_ForgetsBetweenSamples):
    """Conv calls its buffer by another name."""

    a_buf: Array

    def forget(self) -> None:
        """Empty the buffer."""
        self.a_buf = np.zeros_like(self.a_buf)


class ConvFixed(_ConvForgets, PyConvModelFixed):
    """Conv, fixed_pt."""


class ConvFloat(_ConvForgets, PyConvModelFloat):
    """Conv, floating_pt."""


CONNECTION_MODELS: dict[tuple[type[AbstractProcess], Arithmetic], type[PyLoihiProcessModel]] = {
    (Conv, "integer"): ConvFixed,
    (Conv, "float"): ConvFloat,
    (Dense, "integer"): DenseFixed,
    (Dense, "float"): DenseFloat,
    (DelaySparse, "integer"): DelaySparseFixed,
    (DelaySparse, "float"): DelaySparseFloat,
    (Sparse, "integer"): SparseFixed,
    (Sparse, "float"): SparseFloat,
}
