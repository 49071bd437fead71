"""Batches of a dataset, cut, varied and decoded on the device that trains, without a loop over samples."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsnn_lava.datasets import Augmentation, InputCoding, Samples, pack
from fsnn_lava.errors import DatasetError, InputError


class DeviceSamples:
    """Samples kept on a device as uint8 codes, event frames as bits, and turned into network inputs batch by batch.

    The inputs equal `InputCoding.decode` bit for bit, on every device. They lie in memory that torch allocated: the
    last bits of a matrix product depend on how its operands are aligned, and NumPy's alignment changes from call to
    call, so that a run would not repeat bit for bit. On the CPU they are contiguous; on a GPU every image or frame is
    in channels-last order, which convolutions in tensor cores want.

    Parameters
    ----------
    samples : on the CPU their memory is shared, so they must not be changed afterwards.
    coding : what the codes stand for.
    device : where the samples are kept and the batches made.
    augmentation : how `batch` varies images when it is given a generator.

    Raises
    ------
    InputError : if shape or codes do not fit the coding.
    DatasetError : if event frames are to be augmented.
    """

    def __init__(
        self,
        samples: Samples,
        coding: InputCoding,
        *,
        device: torch.device | str,
        augmentation: Augmentation | None = None,
    ) -> None:
        _check(samples, coding, augmentation)
        self.device = torch.device(device)
        self.shape = samples.shape
        self.augmentation = augmentation
        self._is_event = coding.kind == "event"
        stored = samples.codes
        if self._is_event:
            stored = samples.stored if samples.packed_frame else pack(samples.codes, samples.labels).stored
        self._stored = _on_device(stored, self.device)
        self.labels = _on_device(samples.labels, self.device)
        self._table = _on_device(coding.table(), self.device)
        offsets = torch.arange(len(self._table), dtype=torch.int32) * self._table.shape[1]
        self._offsets = offsets[:, None, None].to(self.device)
        bytes_as_bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
        self._bits = _on_device(bytes_as_bits, self.device)
        self._is_plain = bool((self._table.cpu() == torch.tensor([0.0, 1.0])).all()) if self._is_event else False

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Make inputs as the network takes them, (B, C, H, W) or (T, B, C, H, W) float32, and labels (B,) int64.

        Parameters
        ----------
        indices : (B,) int64 positions of the samples.
        generator : of the CPU; with it images are augmented, if there is an augmentation. Places and mirrorings are
            drawn on the CPU, so that every device makes the same batch.
        """
        indices = indices.to(self.device, non_blocking=True)
        stored = self._stored.index_select(0, indices)
        if self._is_event:
            x = self._event_frames(stored)
        else:
            if self.augmentation is not None and generator is not None:
                stored = augmented(stored, self.augmentation, generator=generator)
            positions = stored.to(torch.int32) + self._offsets
            x = self._table.flatten().index_select(0, positions.flatten()).view(stored.shape)
        return channels_last(x) if self.device.type == "cuda" else x, self.labels.index_select(0, indices)

    def ordered(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give batches of all samples in order, never augmented; the last one may be smaller."""
        for indices in torch.arange(len(self)).split(size):
            yield self.batch(indices)

    def _event_frames(self, stored: Tensor) -> Tensor:
        """(T, B, C, H, W) float32 from packed frames (B, T, bytes)."""
        by_time = stored.transpose(0, 1)
        bits = self._bits.index_select(0, by_time.flatten().to(torch.int32)).view(*by_time.shape[:2], -1)
        time_steps, *frame = self.shape
        x = bits[:, :, : int(np.prod(frame))].reshape(time_steps, len(stored), *frame).contiguous()
        if self._is_plain:
            return x
        low, high = self._table[:, :, None, None].unbind(1)
        return torch.where(x.bool(), high, low)


def augmented(codes: Tensor, augmentation: Augmentation, *, generator: torch.Generator) -> Tensor:
    """Vary images (B, C, H, W) uint8: each is padded with black, cropped back at a random place, half of them mirrored.

    Parameters
    ----------
    codes : uint8 (B, C, H, W) on any device.
    generator : of the CPU. A call draws (2, B) places and (B,) mirrorings, whatever the augmentation.
    """
    count, channels, height, width = codes.shape
    pad = augmentation.pad
    places = torch.randint(0, 2 * pad + 1, (2, count), generator=generator)
    mirrored = torch.randint(0, 2 if augmentation.flip else 1, (1, count), generator=generator)
    top, left, mirror = torch.cat([places, mirrored]).to(codes.device, non_blocking=True).unsqueeze(2).unbind(0)
    rows = top + torch.arange(height, device=codes.device)
    columns = torch.arange(width, device=codes.device)
    columns = left + torch.where(mirror.bool(), width - 1 - columns, columns)
    pixels = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).flatten(1)
    padded = functional.pad(codes, (pad, pad, pad, pad)).flatten(2)
    return padded.gather(2, pixels[:, None].expand(-1, channels, -1)).view(codes.shape)


def channels_last(x: Tensor) -> Tensor:
    """Return the same values (..., C, H, W), every image or frame of them in channels-last order."""
    return x.flatten(0, -4).contiguous(memory_format=torch.channels_last).view(x.shape)


def _check(samples: Samples, coding: InputCoding, augmentation: Augmentation | None) -> None:
    expected = f"(T, {len(coding.mean)}, H, W)" if coding.kind == "event" else f"({len(coding.mean)}, H, W)"
    if len(samples.shape) != (4 if coding.kind == "event" else 3) or samples.shape[-3] != len(coding.mean):
        raise InputError(f"samples of shape {samples.shape}; expected {expected} for {coding.kind} input.")
    if augmentation is not None and coding.kind == "event":
        raise DatasetError("augmentation is for images; event frames cannot be augmented.")
    if samples.packed_frame is None and len(samples) and samples.stored.max() > coding.maximum:
        raise InputError(f"found input code {samples.stored.max()}; allowed: 0 .. {coding.maximum}.")


def _on_device(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], device: torch.device) -> Tensor:
    """Copy an array to a device; torch warns of one that cannot be written to."""
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
