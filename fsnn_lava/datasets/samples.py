"""What a dataset is: integer codes, labels, and what real value a code stands for.

Codes are what hardware receives; `InputCoding` turns them into the normalised values that training sees, so that
both sides start from the same integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fsnn_lava.errors import ConfigError, DatasetError, InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class InputCoding:
    """What an input code stands for: real value = (code * scale - mean[c]) / std[c], c the channel.

    Parameters
    ----------
    kind : ``graded``: one code per element, the same in every step; ``event``: 0/1 frames, one per step.
    maximum : largest code, 1 .. 255; 1 for events. Codes start at 0.
    scale : value of one code before the normalisation.
    mean, std : of each channel, in the unit of ``code * scale``; std > 0.

    Raises
    ------
    DatasetError : if a field is out of its range or mean and std differ in length.
    """

    kind: Literal["graded", "event"]
    maximum: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.maximum <= (1 if self.kind == "event" else 255):
            raise DatasetError(f"input coding: maximum {self.maximum}; allowed: 1 for events, 1 .. 255 for graded.")
        if not self.mean or len(self.mean) != len(self.std):
            raise DatasetError(
                f"input coding: {len(self.mean)} means, {len(self.std)} stds; needs one of each a channel."
            )
        if not (0 < self.scale < np.inf and all(0 < s < np.inf for s in self.std) and np.isfinite(self.mean).all()):
            raise DatasetError(f"input coding: {self}; scale and std must be finite and > 0, mean finite.")

    def table(self, dtype: type[np.floating[Any]] = np.float32) -> Array:
        """Real value of every code, (C, maximum + 1), computed in float64 and rounded to the type."""
        levels = np.arange(self.maximum + 1) * self.scale
        table: Array = (levels - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]
        return table.astype(dtype)

    def decode(self, codes: Array, dtype: type[np.floating[Any]] = np.float32) -> Array:
        """Real values of that type, computed in float64 and rounded; same shape as the codes.

        Parameters
        ----------
        codes : uint8 (B, C, H, W), or (T, B, C, H, W) for one frame per step.
        dtype : float32, as in training, or float64.

        Raises
        ------
        InputError : if dtype, shape or a code does not fit this coding.
        """
        channels = len(self.mean)
        if codes.dtype != np.uint8 or codes.ndim not in (4, 5) or codes.shape[-3] != channels:
            raise InputError(
                f"codes of dtype {codes.dtype} and shape {codes.shape}; "
                f"expected uint8 (B, {channels}, H, W) or (T, B, {channels}, H, W)."
            )
        if codes.size and codes.max() > self.maximum:
            raise InputError(f"found input code {codes.max()}; allowed: 0 .. {self.maximum}.")
        values = np.empty(codes.shape, dtype)
        for c, row in enumerate(self.table(dtype)):
            values[..., c, :, :] = row[codes[..., c, :, :]]
        return values


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and their classes.

    Parameters
    ----------
    stored : the codes as they are kept: uint8 (n, *shape) or, of packed samples, uint8 (n, T, bytes of a frame).
    labels : int64 (n,), classes from 0.
    packed_frame : shape (C, H, W) of frames whose 0/1 codes are kept eight to a byte, the first in the highest bit;
        None if the codes are kept as they are. See `pack`.

    Raises
    ------
    DatasetError : if the dtypes, lengths or the number of bytes do not fit.
    """

    stored: Array
    labels: Array
    packed_frame: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.stored.dtype != np.uint8 or self.labels.dtype != np.int64:
            raise DatasetError(f"samples: dtypes {self.stored.dtype}, {self.labels.dtype}; expected uint8, int64.")
        if self.labels.ndim != 1 or len(self.stored) != len(self.labels):
            raise DatasetError(f"samples: {len(self.stored)} inputs, labels {self.labels.shape}; expected one each.")
        if self.packed_frame is None:
            return
        if self.stored.ndim != 3 or self.stored.shape[2] != packed_bytes(self.packed_frame):
            raise DatasetError(
                f"samples: packed inputs of shape {self.stored.shape}; frames of {self.packed_frame} need "
                f"(n, T, {packed_bytes(self.packed_frame)})."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample's codes: (C, H, W), or (T, C, H, W) for event frames."""
        return self.stored.shape[1:] if self.packed_frame is None else (self.stored.shape[1], *self.packed_frame)

    @property
    def codes(self) -> Array:
        """All codes, uint8 (n, *shape). Packed ones are unpacked at each call, so `select` first."""
        if self.packed_frame is None:
            return self.stored
        count = math.prod(self.packed_frame)
        return np.unpackbits(self.stored, axis=2, count=count).reshape(len(self), *self.shape)

    def select(self, which: Array) -> Samples:
        """Copies of the samples at those indices, or where that mask holds; packed ones stay packed."""
        return Samples(self.stored[which], self.labels[which], self.packed_frame)


def pack(codes: Array, labels: Array) -> Samples:
    """Samples that keep 0/1 event frames (n, T, C, H, W) as bits, in an eighth of the memory.

    Raises
    ------
    DatasetError : if the shape or a code does not fit.
    """
    if codes.ndim != 5 or (codes.size and codes.max() > 1):
        raise DatasetError(
            f"samples: codes of shape {codes.shape} with maximum {codes.max(initial=0)} cannot be packed; "
            "expected (n, T, C, H, W) of 0 and 1."
        )
    return Samples(np.packbits(codes.reshape(*codes.shape[:2], -1), axis=2), labels, codes.shape[2:])


def packed_bytes(frame: tuple[int, ...]) -> int:
    """Bytes that one packed frame of that shape takes."""
    return -(-math.prod(frame) // 8)


def time_first(codes: Array) -> Array:
    """Codes as a network takes them: event frames (n, T, C, H, W) as (T, n, C, H, W), graded ones as they are."""
    return codes.swapaxes(0, 1) if codes.ndim == 5 else codes


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied: padded with black, cropped back at a random place, mirrored or not.

    Black is code 0, so the padding comes before the normalisation, as published for CIFAR.

    Parameters
    ----------
    pad : pixels added on every side.
    flip : mirror every second image from left to right, chosen at random.
    """

    pad: int
    flip: bool

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise DatasetError(f"augmentation: pad {self.pad}; allowed: at least 0.")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset with its published split and normalisation.

    Parameters
    ----------
    input_shape : shape of one image or of one event frame, (C, H, W).
    classes : name of each class, in the order of the labels.
    coding : what the codes stand for. Event codes are (n, T, C, H, W), graded ones (n, C, H, W).
    augmentation : the published one for training, if any.
    note : how the samples differ from those of the published figures, to be quoted with results; empty if not at all.
    """

    name: str
    train: Samples
    test: Samples
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    coding: InputCoding
    augmentation: Augmentation | None = None
    note: str = ""

    @property
    def frames(self) -> int | None:
        """Number of event frames of a sample, one for each time step; None for images, which fit any number."""
        return self.train.shape[0] if self.coding.kind == "event" else None


def check_time_steps(dataset: Dataset, time_steps: int) -> None:
    """Nothing, if a network of so many time steps can be run on the dataset.

    Raises
    ------
    ConfigError : if the dataset's samples are another number of event frames.
    """
    if dataset.frames not in (None, time_steps):
        raise ConfigError(
            f"network.time_steps: found {time_steps}; allowed: {dataset.frames}, since each sample of "
            f'"{dataset.name}" is {dataset.frames} event frames, one for each step'
        )


def check_classes(dataset: Dataset) -> None:
    """Nothing, if every class occurs in the training part and in the test part.

    Raises
    ------
    DatasetError : naming the classes that do not.
    """
    for part, samples in (("training", dataset.train), ("test", dataset.test)):
        counts = np.bincount(samples.labels, minlength=len(dataset.classes))
        missing = [f'{label} ("{dataset.classes[label]}")' for label in np.flatnonzero(counts == 0)]
        if missing:
            raise DatasetError(
                f"{dataset.name}: the {part} part holds {len(samples)} samples, none of class {', '.join(missing)}; "
                "every class must occur in both parts. Get the data again, or add such samples."
            )


def hold_out(samples: Samples, *, count: int, seed: int) -> tuple[Samples, Samples]:
    """The samples split in two: the rest, and ``count`` held out for validation with the classes in proportion.

    The same arguments give the same split on every machine. Both parts keep the order of the samples.

    Raises
    ------
    DatasetError : if ``count`` is not in 1 .. n - 1.
    """
    if not 1 <= count < len(samples):
        raise DatasetError(f"cannot hold out {count} of {len(samples)} samples; allowed: 1 .. {len(samples) - 1}.")
    held = _stratified_mask(samples.labels, count, seed)
    return samples.select(~held), samples.select(held)


def _stratified_mask(labels: Array, count: int, seed: int) -> Array:
    """(n,) bool with ``count`` true: floor of each class's share, what is left to the largest remainders."""
    classes, sizes = np.unique(labels, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(labels))
    quota[np.argsort(-remainder, kind="stable")[: count - quota.sum()]] += 1
    # The raw stream of a bit generator never changes between NumPy versions; Generator.permutation may.
    keys = np.random.PCG64(seed).random_raw(len(labels))
    mask = np.zeros(len(labels), bool)
    for label, size in zip(classes, quota, strict=True):
        members = np.flatnonzero(labels == label)
        mask[members[np.argsort(keys[members], kind="stable")[:size]]] = True
    return mask
