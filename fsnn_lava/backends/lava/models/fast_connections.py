"""Stock Dense, Sparse, DelaySparse and Conv, event-driven: bit by bit what Lava's fixed_pt models send.

One thing is not theirs: Lava 0.10.0's Conv declares an exponent and its model ignores it; ours does not.

A connection sends what arrived one step ago, then adds the weights of the sources that spike now; it computes nothing
while the same message arrives as in the step before, as always-on neurons and constant inputs send it.
Before the first step of every sample it forgets the spikes in flight, as the forgetful ones of `fast_models` do.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.dense.models import PyDenseModelBitAcc
from lava.proc.sparse.models import PyDelaySparseModelBitAcc, PySparseModelBitAcc
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights
from scipy.sparse import csr_matrix, issparse

from fsnn_lava.backends.lava.lava_format import our_kernels
from fsnn_lava.backends.lava.models.fast_process import SingleThreadModel, receive, total_buffer
from fsnn_lava.backends.lava.models.fast_products import Product, convolution_product, matrix_product
from fsnn_lava.errors import UnsupportedError
from fsnn_lava.hardware import Array, Convolution, LinearMap

_LONGEST_DELAY = 63
_WEIGHT_BITS = 8
_HALF = 2**23
"""Lava's Conv wraps its sums at this magnitude."""


class _FastConnection(SingleThreadModel):
    """A step of any connection; its products, and how they are sent, are left to the subclasses."""

    num_message_bits: Array
    weights: Any
    _message: Array
    _ready = False

    def run_spk(self) -> None:
        """Send what was in flight, then receive."""
        if not self._ready:
            self._ready = True
            self._message = total_buffer(self.s_in)
            self.prepare()
            self.load()
        self.deliver(forget=(self.time_step - 1) % self.proc_params["sample_steps"] == 0)
        receive(self.s_in, self._message)
        self.accumulate(self._message)

    def on_var_update(self) -> None:
        """Weights may have been changed."""
        if self._ready:
            self.load()

    def prepare(self) -> None:
        """Clip and truncate the weights, as Lava's model does in its first step."""
        self.weights = lava_weights(self.weights, self.proc_params)

    def load(self) -> None:
        """Prepare the weights for products."""
        raise NotImplementedError

    def deliver(self, *, forget: bool) -> None:
        """Send what arrives at the target in this step, after emptying what is in flight if asked to."""
        raise NotImplementedError

    def accumulate(self, message: Array) -> None:
        """Put what the message causes into flight."""
        raise NotImplementedError

    def product(self, matrix: object) -> Product:
        """The product of messages with a matrix."""
        return matrix_product(matrix, graded=self.num_message_bits.item() > 0, kind=self._message.dtype)


class _OneStep(_FastConnection):
    """Connections whose messages arrive in the next step."""

    buffer = "a_buff"
    """Lava's name for what is in flight."""
    _product: Product

    def load(self) -> None:
        """Prepare the columns."""
        self._product = self.product(self.weights)

    def deliver(self, *, forget: bool) -> None:
        """Send the newest message's current."""
        if forget:
            setattr(self, self.buffer, np.zeros(self.a_out._shape, np.int32))
        self.a_out.send(getattr(self, self.buffer))

    def accumulate(self, message: Array) -> None:
        """Compute the message's current."""
        if self._product.update(message):
            self.finish(self._product.current)
        setattr(self, self.buffer, self._product.current.reshape(self.a_out._shape))

    def finish(self, current: Array) -> None:
        """Scale the sums of weights as hardware does, in place."""
        scale(current, self.proc_params.get("weight_exp", 0))


class FastDense(_OneStep, PyDenseModelBitAcc):
    """Dense, fixed_pt."""


class FastSparse(_OneStep, PySparseModelBitAcc):
    """Sparse, fixed_pt."""


class FastDelaySparse(_FastConnection, PyDelaySparseModelBitAcc):
    """DelaySparse, fixed_pt. What is in flight lies in a ring instead of Lava's ``a_buff``, which stays zero."""

    def prepare(self) -> None:
        """Clip and truncate the weights; make the ring, of one row per delay.

        Raises
        ------
        ValueError : if a delay has more than 6 bits.
        """
        longest = self.delays.max()
        if longest > _LONGEST_DELAY:
            raise ValueError(f"DelaySparse: a delay of {longest}; allowed: 0 .. {_LONGEST_DELAY}")
        super().prepare()
        self._ring = np.zeros(self.a_buff.shape[::-1], np.int32)
        self._now = 0

    def load(self) -> None:
        """Prepare the columns of each delay."""
        weights = self.weights.tocoo()
        delays = np.asarray(self.delays[weights.row, weights.col]).reshape(-1)
        self._products = {}
        for delay in np.unique(delays):
            kept, places = weights.data[delays == delay], (weights.row[delays == delay], weights.col[delays == delay])
            self._products[int(delay)] = self.product(csr_matrix((kept, places), weights.shape))

    def deliver(self, *, forget: bool) -> None:
        """Send the ring's first row, and make it the last one."""
        if forget:
            self._ring[:] = 0
        self.a_out.send(self._ring[self._now])
        self._ring[self._now] = 0
        self._now = (self._now + 1) % len(self._ring)

    def accumulate(self, message: Array) -> None:
        """Add the message's currents to the rows of their delays."""
        for delay, product in self._products.items():
            if product.update(message):
                scale(product.current, self.proc_params.get("weight_exp", 0))
            row = self._ring[(self._now + delay) % len(self._ring)]
            np.add(row, product.current, out=row)


class FastConv(_OneStep, PyConvModelFixed):
    """Conv, fixed_pt, with one stride and padding for both axes, neither dilated nor grouped.

    With the exponent that the process declares: Lava's own model computes as if it were 0.
    """

    buffer = "a_buf"

    def prepare(self) -> None:
        """Leave the kernels as they are, as Lava's model does."""

    def load(self) -> None:
        """Prepare the kernels.

        Raises
        ------
        UnsupportedError : for other convolutions.
        """
        weight = our_kernels(self.weight)
        source, target = self.s_in._shape[::-1], self.a_out._shape[::-1]
        geometry = Convolution(int(self.stride[0]), int(self.padding[0]))
        fault = geometry.weight_shape_fault(weight.shape, source, target)
        said = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        one_each = all(len(np.unique(said[name])) == 1 for name in ("stride", "padding"))
        if fault or not one_each or any(np.any(said[name] != 1) for name in ("dilation", "groups")):
            found = ", ".join(f"{name} {value.tolist()}" for name, value in said.items())
            raise UnsupportedError(
                f"FastConv: {found}, kernels of shape {self.weight.shape} on {source[::-1]}; allowed: square kernels, "
                "one stride and one padding below the kernel's size, neither dilation nor groups; run the graph with "
                "Lava's own models (--stock-models)"
            )
        graded = bool(self.num_message_bits.item() > 0)
        self._product = convolution_product(
            LinearMap(geometry, weight, source, target), graded=graded, kind=self._message.dtype
        )

    def finish(self, current: Array) -> None:
        """Keep 24 bits, signed, and scale them, which Lava's model leaves out."""
        current += _HALF
        current &= 2 * _HALF - 1
        current -= _HALF
        scale(current, self.weight_exp.item())


def lava_weights(weights: Any, parameters: Mapping[str, Any]) -> Any:
    """Integer weights as Lava's fixed_pt models use them: clipped, and without the bits that the hardware lacks."""
    if issparse(weights):  # zeros that are written out stay
        return csr_matrix((lava_weights(weights.data, parameters), weights.indices, weights.indptr), weights.shape)
    if not weights.size:
        return weights.astype(np.int32)
    mode = parameters.get("sign_mode") or determine_sign_mode(weights)
    clipped = clip_weights(weights, mode, num_bits=_WEIGHT_BITS)
    return np.asarray(truncate_weights(clipped, mode, parameters.get("num_weight_bits", _WEIGHT_BITS)))


def scale(current: Array, exponent: int) -> None:
    """Multiply by 2**exponent in place, rounding down."""
    if exponent > 0:
        np.left_shift(current, exponent, out=current)
    elif exponent < 0:
        np.right_shift(current, -exponent, out=current)
