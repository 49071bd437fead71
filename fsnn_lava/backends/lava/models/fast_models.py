"""Which model runs which stock process: Lava's own, made to forget between samples, or a fast one of ours.

Forgetful models are those of stock connections: the arithmetic is Lava's own, each class calls the stock model's step.
Lava 0.10.0 offers a periodic reset for neurons (`LIFReset`) and none for connections; through `Var.set` it would cost a
message per element and sample. Fast models are of integers: floats keep Lava's own, to be compared with.
"""

from itertools import product

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.process import AbstractProcess
from lava.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava.proc.conv.process import Conv
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.proc.dense.process import Dense
from lava.proc.lif.process import LIF, LIFReset
from lava.proc.sparse.models import (
    PyDelaySparseModelBitAcc,
    PyDelaySparseModelFloat,
    PySparseModelBitAcc,
    PySparseModelFloat,
)
from lava.proc.sparse.process import DelaySparse, Sparse

from fsnn_lava.backends.lava.models.fast_connections import FastConv, FastDelaySparse, FastDense, FastSparse
from fsnn_lava.backends.lava.models.fast_lif import FastLif, FastLifReset, lif_step
from fsnn_lava.backends.lava.models.fast_process import SingleThreadModel
from fsnn_lava.backends.lava.models.fast_products import matrix_product
from fsnn_lava.backends.lava.models.host_processes import HostInput, HostInputFixed, HostRecorder, HostRecorderFixed
from fsnn_lava.hardware import Arithmetic, Array


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


class FastHostInput(SingleThreadModel, HostInputFixed):
    """The input's model without threads."""


class FastHostRecorder(SingleThreadModel, HostRecorderFixed):
    """The recorder's model without threads."""


FAST_MODELS: dict[tuple[type[AbstractProcess], Arithmetic], type[PyLoihiProcessModel]] = {
    (Conv, "integer"): FastConv,
    (Dense, "integer"): FastDense,
    (Sparse, "integer"): FastSparse,
    (DelaySparse, "integer"): FastDelaySparse,
    (HostInput, "integer"): FastHostInput,
    (HostRecorder, "integer"): FastHostRecorder,
    (LIF, "integer"): FastLif,
    (LIFReset, "integer"): FastLifReset,
}
"""For Lava's `exception_proc_model_map`. Connections expect ``sample_steps`` among their process parameters."""


def warm_up() -> None:
    """Compile what the models run, for the processes that are forked from this one; later times read a cache."""
    u, v, arriving, bias = np.zeros((4, 2), np.int32)
    lif_step(u, v, arriving, bias, 0, 0, 1, np.zeros(2, np.uint8))
    # Weights and their sums of 16 bits; of 16 and 32; of 32 bits.
    matrices = [np.array(rows, np.int32) for rows in ([[1]], [[2**14, 2**14]], [[2**15]])]
    for matrix, kind, graded in product(matrices, (np.uint8, np.int32), (False, True)):
        message: Array = np.ones(matrix.shape[1], kind)
        matrix_product(matrix, graded=graded, kind=message.dtype).update(message)
