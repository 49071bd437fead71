"""An integer network as a torch module: the integer law of `docs/network-format.md` in batches, on a CPU or a GPU.

Its spikes are those of the simulator and of Lava, to the last one:

- Weighted sums are matrix products in floating point, in a type in which each partial sum is an integer that it
  holds exactly: float32 below 2**24, else float64 below 2**53. TF32 and autocast are switched off around them.
- Convolutions are unfolded into such products, because convolution libraries also choose algorithms that compute in
  fractions (Winograd, FFT) and round.
- Everything behind the sums, shifts, leak, reset and threshold, is computed on int64.

Mantissas are kept as int8, so casting the module (`half`, `float`) rounds the readout alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fsnn_lava.errors import InputError, StateOverflowError, UnsupportedError
from fsnn_lava.hardware.geometry import Array, Convolution, Dense, TransposedConvolution
from fsnn_lava.hardware.network import (
    ALWAYS_ON,
    DECAY_UNITY,
    INPUT,
    STATE_LIMIT,
    STATE_PER_WEIGHT,
    Connection,
    HardwareNetwork,
    IntegerNeuron,
    Population,
)
from fsnn_lava.hardware.run_io import check_inputs, rate_weights
from fsnn_lava.network.devices import tf32

_CHUNK_NUMBERS = 2**26
"""Numbers of a batch that are unfolded at a time (256 MiB of float32)."""
_STATE_PER_HALF_WEIGHT = STATE_PER_WEIGHT // 2
"""Units of state per unit of current: the doubled weights that hardware is given, shifted left by 6."""


@dataclass(frozen=True, eq=False)
class IntegerActivity:
    """What a network did with a batch; every tensor is on the network's device.

    Parameters
    ----------
    firing_rates : population -> (B, *N) float64, weighted by the leak (Proposition 2), spikes per step.
    spike_counts : population -> (B, *N) int32, spikes in the window.
    logits : (B, classes) float64, the readout of `firing_rates`.
    spikes : population -> (T, B, *N) uint8, each in its own window; only the populations asked for.
    """

    firing_rates: Mapping[str, Tensor]
    spike_counts: Mapping[str, Tensor]
    logits: Tensor
    spikes: Mapping[str, Tensor]


class IntegerSNN(nn.Module):
    """Runs an integer network by the integer law.

    Parameters
    ----------
    network : of any topology, geometries and delays.

    Raises
    ------
    UnsupportedError : for a float network, or one whose sums no floating-point type holds exactly.
    """

    readout_weight: Tensor
    readout_bias: Tensor

    def __init__(self, network: HardwareNetwork) -> None:
        super().__init__()
        if network.arithmetic != "integer":
            raise UnsupportedError(
                f'IntegerSNN runs integer networks; network "{network.name}" holds {network.arithmetic} values; '
                "quantize it first"
            )
        self.network = network
        self.synapses = nn.ModuleList(_Synapses(network, c) for c in network.connections)
        self.register_buffer("readout_weight", torch.from_numpy(network.readout.weight.copy()))
        self.register_buffer("readout_bias", torch.from_numpy(network.readout.bias.copy()))

    @torch.no_grad()
    def forward(self, inputs: Tensor, *, record: Sequence[str] = ()) -> IntegerActivity:
        """Rates, counts, logits and recorded spikes of one batch, without gradients.

        Parameters
        ----------
        inputs : integers on any device: graded (B, *shape) codes, event (T, B, *shape) 0/1.
        record : names of the populations whose spikes are kept.

        Raises
        ------
        InputError : if the inputs do not fit the network.
        StateOverflowError : naming population, sample, step and neuron, if a potential leaves 24 bits.
        """
        if not isinstance(inputs, Tensor):
            raise InputError(
                f'network "{self.network.name}": inputs are a {type(inputs).__name__}; expected a tensor, see '
                "torch.as_tensor"
            )
        batch = check_inputs(self.network, inputs.detach().cpu().numpy(), record=record)
        device = self.readout_weight.device
        codes = inputs.to(device).reshape(*inputs.shape[: inputs.dim() - len(self.network.input.shape)], -1)
        with tf32(False), torch.autocast(device.type, enabled=False):
            run = _Run(self, codes, batch=batch, record=record)
            for step in range(self.network.time_steps):
                run.advance(step)
            run.raise_overflow()
            return self._activity(run, batch)

    def _activity(self, run: _Run, batch: int) -> IntegerActivity:
        steps, populations = self.network.time_steps, self.network.populations
        rates = run.rates | {p.name: run.counts[p.name].double() / steps for p in populations if p.neuron.leak == 1}
        logits = rates[self.network.readout.source] @ self.readout_weight.double().T + self.readout_bias
        return IntegerActivity(
            {p.name: rates[p.name].view(batch, *p.shape) for p in populations},
            {p.name: run.counts[p.name].view(batch, *p.shape) for p in populations},
            logits,
            {n: torch.stack(s).view(steps, batch, *self.network.shape_of(n)) for n, s in run.recorded.items()},
        )


class _Synapses(nn.Module):
    """One connection: a batch of what its source sends -> current in units of 64 states."""

    matrix: Tensor

    def __init__(self, network: HardwareNetwork, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.delay = network.local_delay(connection)
        self.source_shape = network.shape_of(connection.source)
        self.target_shape = network.shape_of(connection.target)
        kernels = _correlation_kernels(connection)
        maximum = network.input.maximum if connection.source == INPUT else 1
        self.dtype = _exact_dtype(connection, kernels, maximum)
        self.register_buffer("matrix", torch.from_numpy(kernels.reshape(len(kernels), -1).astype(np.int8)))

    def forward(self, sent: Tensor) -> Tensor:
        """(B, N_target) int64 current of sent (B, N_source): twice the weighted sum, shifted; down-shifts floor."""
        doubled = 2 * self._summed(sent).to(torch.int64)
        exponent = self.connection.weight_exponent
        return doubled << exponent if exponent >= 0 else doubled >> -exponent

    def _summed(self, sent: Tensor) -> Tensor:
        weights = self.matrix.to(self.dtype).T
        if isinstance(self.connection.geometry, Dense):
            return sent.to(self.dtype) @ weights
        rows = max(1, _CHUNK_NUMBERS // (prod(self.target_shape[1:]) * len(weights)))
        images = sent.view(-1, *self.source_shape).split(rows)
        return torch.cat([self._correlated(part.to(self.dtype), weights) for part in images])

    def _correlated(self, images: Tensor, weights: Tensor) -> Tensor:
        """(b, N_target) of images (b, C, H, W) and weights (C K K, C_target)."""
        geometry, kernel = self.connection.geometry, self.connection.weight.shape[-1]
        if isinstance(geometry, TransposedConvolution):
            images, stride = _spread(images, geometry, kernel), 1
        else:
            assert isinstance(geometry, Convolution)
            images, stride = functional.pad(images, [geometry.padding] * 4), geometry.stride
        windows = images.unfold(2, kernel, stride).unfold(3, kernel, stride)  # (b, C, H', W', K, K)
        products = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, len(weights)) @ weights
        return products.view(len(images), prod(self.target_shape[1:]), -1).transpose(1, 2).flatten(1)


class _Run:
    """One batch on its way through the steps; every array lies flat, (B, N).

    Attributes
    ----------
    potentials : population -> int64, units of state.
    sent : source -> step -> what it sent, as long as a connection still waits for it.
    constant : connection that brings the same in every step -> its current.
    peaks : largest |potential| of each population and step, and its place in (B, N), on the device.
    """

    def __init__(self, model: IntegerSNN, codes: Tensor, *, batch: int, record: Sequence[str]) -> None:
        self.network = model.network
        self.recorded: dict[str, list[Tensor]] = {name: [] for name in record}
        sizes = {p.name: (batch, p.size) for p in self.network.populations}
        device = codes.device
        self.potentials = {n: torch.zeros(size, dtype=torch.int64, device=device) for n, size in sizes.items()}
        self.counts = {n: torch.zeros(size, dtype=torch.int32, device=device) for n, size in sizes.items()}
        self.rates = {n: torch.zeros(size, dtype=torch.float64, device=device) for n, size in sizes.items()}
        self.peaks: list[tuple[Tensor, Tensor]] = []
        self.incoming: dict[str, list[_Synapses]] = {n: [] for n in sizes}
        self.constant: dict[_Synapses, Tensor] = {}
        for synapses in model.synapses:
            assert isinstance(synapses, _Synapses)
            self.incoming[synapses.connection.target].append(synapses)
            if synapses.connection.source == ALWAYS_ON:
                self.constant[synapses] = synapses(torch.ones(1, 1, device=device))
            elif synapses.connection.source == INPUT and self.network.input.kind == "graded":
                self.constant[synapses] = synapses(codes)
        self.sent = {n: dict[int, Tensor]() for n in sizes}
        if self.network.input.kind == "event":
            self.sent[INPUT] = dict(enumerate(codes))
        delays = [(s.connection.source, s.delay) for incoming in self.incoming.values() for s in incoming]
        self.longest = {n: max((d for source, d in delays if source == n), default=0) for n in sizes}

    def advance(self, step: int) -> None:
        """One step of every population, in their order."""
        for population in self.network.populations:
            current = self.potentials[population.name].new_zeros(())
            for synapses in self.incoming[population.name]:
                if synapses in self.constant and step >= synapses.delay:
                    current = current + self.constant[synapses]
                elif step >= synapses.delay:
                    current = current + synapses(self.sent[synapses.connection.source][step - synapses.delay])
            self._fire(population, current, step)

    def _fire(self, population: Population, current: Tensor, step: int) -> None:
        """Leak, reset, input, threshold: the four lines of the integer law."""
        name, neuron = population.name, population.neuron
        assert isinstance(neuron, IntegerNeuron)
        before, threshold = self.potentials[name], _STATE_PER_HALF_WEIGHT * (2 * neuron.v_threshold - 1)
        potential = before
        if neuron.decay:
            potential = torch.div(before * (DECAY_UNITY - neuron.decay), DECAY_UNITY, rounding_mode="trunc")
        potential = potential - STATE_PER_WEIGHT * neuron.reset_synapse * (before > threshold)
        potential = potential + _STATE_PER_HALF_WEIGHT * current
        spikes = (potential > threshold).to(torch.uint8)

        self.potentials[name] = potential
        self.peaks.append(torch.max(potential.abs().view(-1), dim=0))
        self.counts[name] += spikes
        if neuron.leak != 1:
            self.rates[name] += float(rate_weights(self.network.time_steps, neuron.leak)[step]) * spikes.double()
        self.sent[name][step] = spikes
        self.sent[name].pop(step - self.longest[name] - 1, None)
        if name in self.recorded:
            self.recorded[name].append(spikes)

    def raise_overflow(self) -> None:
        """Nothing, or the first step in which a potential left 24 bits; asked once, because a GPU stops for it."""
        peaks = torch.stack([peak for peak, _ in self.peaks]).tolist()
        for k, (peak, (_, place)) in enumerate(zip(peaks, self.peaks, strict=True)):
            if peak <= STATE_LIMIT:
                continue
            step, order = divmod(k, len(self.network.populations))
            population = self.network.populations[order]
            sample, neuron = divmod(int(place), population.size)
            raise StateOverflowError(
                f'network "{self.network.name}", population "{population.name}", sample {sample}, step {step}, '
                f"neuron {neuron}: potential of magnitude {peak} units of state; allowed: -{STATE_LIMIT} .. "
                f"{STATE_LIMIT} (24 bits); use fewer time steps or a smaller scale for this population"
            )


def _correlation_kernels(connection: Connection) -> Array:
    """The weights as those of a correlation, (C_target, C_source, K, K), or (N_target, N_source)."""
    if isinstance(connection.geometry, TransposedConvolution):
        return connection.weight.swapaxes(0, 1)[:, :, ::-1, ::-1]
    return connection.weight


def _spread(images: Tensor, geometry: TransposedConvolution, kernel: int) -> Tensor:
    """Images with zeros between and around their pixels: a transposed convolution is a correlation with stride 1."""
    stride, (batch, channels, height, width) = geometry.stride, images.shape
    before = kernel - 1 - geometry.padding
    after = before + geometry.output_padding
    sides = [stride * (n - 1) + 1 + before + after for n in (height, width)]
    spread = images.new_zeros(batch, channels, *sides)
    spread[:, :, before : sides[0] - after : stride, before : sides[1] - after : stride] = images
    return spread


def _exact_dtype(connection: Connection, kernels: Array, maximum: int) -> torch.dtype:
    largest = int(np.abs(kernels.astype(np.int64)).reshape(len(kernels), -1).sum(axis=1).max()) * maximum
    if largest < 2**24:
        return torch.float32
    if largest < 2**53:
        return torch.float64
    raise UnsupportedError(
        f'connection "{connection.name}": sums up to {largest} are not exact in float64; allowed: below 2**53; '
        "use smaller input codes"
    )
