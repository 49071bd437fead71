"""Stock LIF and LIFReset in one pass over the neurons: bit by bit what Lava's fixed_pt models compute."""

from __future__ import annotations

import operator

import numpy as np
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.proc.lif.models import PyLifModelBitAcc, PyLifResetModelBitAcc

from fsnn_lava.backends.lava.models.fast_process import SingleThreadModel, receive
from fsnn_lava.hardware import Array
from fsnn_lava.kernels.compile import compiled

_HALF = 2**23
"""Currents wrap, and voltages stop, at this magnitude."""


@compiled
def lif_step(u: Array, v: Array, arriving: Array, bias: Array, du: int, dv: int, vth: int, spikes: Array) -> None:
    """Advance all neurons by a step, in place, as Lava's PyLifModelBitAcc does.

    u <- wrap(toward_zero(u (4096 - du) / 4096) + 64 arriving), which wraps once at 2**23;
    v <- toward_zero(v (4096 - dv) / 4096) + u + bias, limited to less than 2**23; spike where v > vth: v <- 0.

    Parameters
    ----------
    u, v, arriving, bias : (N,) int32.
    du, dv : decays of 4096.
    vth : in units of state.
    spikes : (N,) uint8, written.
    """
    keep_u, keep_v = 4096 - du, 4096 - dv
    # One pass over memory instead of a NumPy array per operation. The current: its decay rounds towards zero, and it
    # wraps once at 24 bits, both as Lava's model does.
    for i in range(len(u)):
        share = np.int64(u[i]) * keep_u
        rounded = np.int32(np.sign(share) * (abs(share) >> 12))
        current = np.int32(rounded + np.int32(np.int64(arriving[i]) << 6))
        if current > _HALF:
            current -= 2 * _HALF
        elif current <= -_HALF:
            current += 2 * _HALF
        u[i] = current
        # The voltage: the same decay, then saturation, threshold and reset while the numbers are in registers.
        share = np.int64(v[i]) * keep_v
        rounded = np.int32(np.sign(share) * (abs(share) >> 12))
        voltage = int(np.int32(rounded + np.int64(u[i]) + bias[i]))
        voltage = min(max(voltage, 1 - _HALF), _HALF - 1)
        spike = voltage > vth
        v[i] = 0 if spike else voltage
        spikes[i] = spike


class _FastLif(SingleThreadModel):
    """The part that both neurons share; spikes travel as single bytes."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.uint8)
    u: Array
    v: Array
    _ready = False

    def run_spk(self) -> None:
        """Receive, integrate, fire."""
        if not self._ready:
            self._prepare()
        receive(self.a_in, self._total)
        if self.starts_anew():
            self.u[...] = 0
            self.v[...] = 0
        du, dv = operator.index(self.du) + self.ds_offset, operator.index(self.dv) + self.dm_offset
        lif_step(self._u, self._v, self._total, self._bias, du, dv, self.effective_vth, self._spikes)
        self.s_out.send(self._spikes.reshape(self.u.shape))

    def starts_anew(self) -> bool:
        """Tell whether the state is zeroed before this step."""
        return False

    def on_var_update(self) -> None:
        """Read the bias anew: Lava 0.10.0 looks at it in every step, at the threshold in the first alone."""
        self.scale_bias()
        self._bias = np.ascontiguousarray(self.effective_bias, dtype=np.int32).reshape(-1)

    def _prepare(self) -> None:
        self._ready = True
        self._total = np.zeros(self.u.size, np.int32)
        self._spikes = np.zeros(self.u.size, np.uint8)
        self._u, self._v = self.u.reshape(-1), self.v.reshape(-1)
        self.scale_threshold()
        self.on_var_update()


class FastLif(_FastLif, PyLifModelBitAcc):
    """LIF, fixed_pt."""


class FastLifReset(_FastLif, PyLifResetModelBitAcc):
    """LIFReset, fixed_pt."""

    def starts_anew(self) -> bool:
        """At Lava's steps reset_offset, reset_offset + reset_interval, and so on."""
        return bool(self.time_step % self.reset_interval == self.reset_offset)
