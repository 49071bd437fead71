"""What a dataset is: integer codes and labels, in a training and a test part, and what must fit together.

`input_coding` says what real value a code stands for, `catalog` which datasets there are.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fsnn_lava.datasets.input_coding import LEVELS, Array, InputCoding, code_arrays, plain_array
from fsnn_lava.errors import ConfigError, DatasetError, InputError, counted
from fsnn_lava.files import write_whole


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and their classes.

    Parameters
    ----------
    stored : the codes as they are kept: uint8 (n, *shape) or, of packed samples, uint8 (n, T, bytes of a frame).
    labels : int64 (n,), classes from 0.
    packed_frame : shape (C, H, W) of frames whose 0/1 codes are kept eight to a byte, the first in the highest bit;
        None if the codes are kept as they are. See `pack`.
    chosen : how they were chosen from a larger set, for reports: "100 of 360, evenly spread"; empty if nobody says.

    Raises
    ------
    DatasetError : if the dtypes, lengths or the number of bytes do not fit.
    """

    stored: Array
    labels: Array
    packed_frame: tuple[int, ...] | None = None
    chosen: str = ""

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

    def __getitem__(self, which: slice | int | npt.ArrayLike) -> Samples:
        """Return the samples of a slice, at those indices, or where that mask holds; of one index a set of one sample.

        Raises
        ------
        IndexError : if there is no such sample.
        """
        if isinstance(which, slice):
            return self.select(np.arange(len(self))[which])
        if np.ndim(which) == 0:
            return self.select(np.arange(len(self))[operator.index(which)].reshape(1))  # type: ignore[arg-type]
        return self.select(np.asarray(which) if np.size(which) else np.zeros(0, np.int64))

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
        """Copy the samples at those indices, or where that mask holds; packed ones stay packed."""
        return Samples(self.stored[which], self.labels[which], self.packed_frame)

    def spread(self, count: int) -> Samples:
        """Take so many samples, evenly spread over all: files may list one class after another."""
        count = min(count, len(self))
        chosen = f"all {count}" if count == len(self) else f"{count} of {len(self)}, evenly spread"
        return dataclasses.replace(self.select(evenly_spaced(len(self), count)), chosen=chosen)

    def to_fit(self, count: int) -> Samples:
        """Take so many samples, evenly spread, but three quarters at most: others are left for `to_measure`."""
        return self.spread(max(1, min(count, 3 * len(self) // 4)))

    def to_measure(self, count: int, *, fitted: int) -> Samples:
        """Take so many samples, evenly spread over those that `to_fit(fitted)` leaves; of a single sample that one."""
        left = np.setdiff1d(np.arange(len(self)), evenly_spaced(len(self), len(self.to_fit(fitted))))
        return (self.select(left) if len(left) else self).spread(count)


def evenly_spaced(total: int, count: int) -> Array:
    """(count,) rising indices below `total`, the first and the last among them: samples that stand for all."""
    return np.asarray(np.linspace(0, total - 1, count).round().astype(np.int64))


def codes_of(inputs: Samples | Array, coding: InputCoding | None, *, shape: tuple[int, ...]) -> Array:
    """Return codes, sample first: those of samples, an array of codes as it is, floats as their nearest codes.

    Parameters
    ----------
    inputs : samples, or (n, *shape), (n, T, *shape) for events, or (n, N) for a shape of N values.
    coding : what codes stand for; needed for floats, which are normalised as training's are.
    shape : of one input, without time.

    Raises
    ------
    InputError : if a value has no code, or the array is neither of integers nor of floats.
    """
    if isinstance(inputs, Samples):
        return inputs.codes
    if inputs.ndim == 2:
        inputs = inputs.reshape(len(inputs), *shape) if inputs.shape[1] == math.prod(shape) else inputs
    if inputs.dtype.kind == "f" and coding is not None:
        return coding.encode(inputs)
    if inputs.dtype.kind not in "biu" or (inputs.size and not 0 <= inputs.min() <= inputs.max() <= LEVELS - 1):
        raise InputError(f"inputs of dtype {inputs.dtype}; allowed: codes 0 .. {LEVELS - 1}, or floats as trained on")
    return inputs.astype(np.uint8)


def pack(codes: Array, labels: Array) -> Samples:
    """Make samples that keep 0/1 event frames (n, T, C, H, W) as bits, in an eighth of the memory.

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
    """Count the bytes that one packed frame of that shape takes."""
    return -(-math.prod(frame) // 8)


def time_first(codes: Array) -> Array:
    """Order codes as a network takes them: event frames (n, T, C, H, W) as (T, n, C, H, W), graded ones as they are."""
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
    sha256 : hash of the content of a user's own data; empty of others.
    """

    name: str
    train: Samples
    test: Samples
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    coding: InputCoding
    augmentation: Augmentation | None = None
    note: str = ""
    sha256: str = ""

    @classmethod
    def from_arrays(
        cls,
        x_train: npt.ArrayLike,
        y_train: npt.ArrayLike,
        x_test: npt.ArrayLike,
        y_test: npt.ArrayLike,
        *,
        name: str = "mine",
        classes: Sequence[str] | None = None,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
    ) -> Dataset:
        """Make a dataset of your own arrays or torch tensors.

        >>> data = Dataset.from_arrays(x_train, y_train, x_test, y_test)  # doctest: +SKIP

        Inputs become codes of 8 bits, as hardware takes them: whole numbers 0 .. 255 as they are, others in 255 equal
        steps over the range of both parts. The note says by how much values are rounded at most.

        Parameters
        ----------
        x_train, x_test : numbers (n, C, H, W), or features (n, N), or event frames (n, T, C, H, W) of 0 and 1, one for
            each time step of the network.
        y_train, y_test : whole numbers (n,), classes from 0; every class occurs in both parts.
        name : to be used as `TrainConfig.dataset`.
        classes : name of each class; None: "0", "1", ...
        mean, std : what training normalises by, in the unit of the inputs: one number, or one a channel (a feature is a
            channel). None: those of the training part; events are not normalised.

        Raises
        ------
        DatasetError : if shapes, lengths or values do not fit, a value is not finite, or a class has no sample.
        """
        inputs, labels = [], []
        for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
            inputs.append(plain_array(x, f"{name}: x_{part}"))
            labels.append(_labels(plain_array(y, f"{name}: y_{part}"), f"{name}: y_{part}", classes))
            if inputs[-1].ndim and len(inputs[-1]) != len(labels[-1]):
                raise DatasetError(f"{name}: {len(inputs[-1])} inputs x_{part}, {len(labels[-1])} labels y_{part}")
        try:
            train_codes, test_codes, coding, note = code_arrays(*inputs, mean=mean, std=std)
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}") from None
        if classes is None:
            classes = [str(label) for label in range(1 + max(int(y.max(initial=0)) for y in labels))]
        dataset = from_codes(name, [train_codes, test_codes], labels, classes=tuple(classes), coding=coding, note=note)
        check_classes(dataset)
        return dataset

    def save(self, path: str | Path) -> None:
        """Write codes, labels, classes and coding into a file (.npz) that every command takes as --dataset.

        Raises
        ------
        OutputError : if the file cannot be written; an older one stays as it was.
        """
        coding = json.dumps(dataclasses.asdict(self.coding))
        arrays = {"x_train": self.train.codes, "y_train": self.train.labels, "x_test": self.test.codes}
        content = io.BytesIO()
        np.savez_compressed(
            content, **arrays, y_test=self.test.labels, classes=np.array(self.classes), coding=np.array(coding)
        )
        write_whole(Path(path), content.getvalue())

    @property
    def frames(self) -> int | None:
        """Number of event frames of a sample, one for each time step; None for images, which fit any number."""
        return self.train.shape[0] if self.coding.kind == "event" else None


def from_codes(
    name: str,
    codes: Sequence[Array],
    labels: Sequence[Array],
    *,
    classes: tuple[str, ...],
    coding: InputCoding,
    augmentation: Augmentation | None = None,
    note: str = "",
    sha256: str = "",
) -> Dataset:
    """Make a dataset of codes, uint8, and labels, int64, of both parts.

    Raises
    ------
    DatasetError : if they do not fit each other.
    """
    of = pack if coding.kind == "event" else Samples
    train, test = (of(x, y) for x, y in zip(codes, labels, strict=True))
    return Dataset(name, train, test, train.shape[-3:], classes, coding, augmentation, note=note, sha256=sha256)


def _labels(labels: Array, what: str, classes: Sequence[str] | None) -> Array:
    """Check labels, and return them as int64 (n,), classes from 0."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DatasetError(
            f"{what}: labels of type {labels.dtype} and shape {labels.shape}; expected whole numbers (n,)"
        )
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    limit = len(labels) if classes is None else len(classes)  # each class occurs, so there are no more than samples
    if low < 0 or high >= limit > 0:
        whose = f"of {limit} samples with every class among them" if classes is None else "one for each class"
        raise DatasetError(f"{what}: labels {low} .. {high}; allowed: 0 .. {limit - 1}, {whose}")
    return labels.astype(np.int64)


def check_time_steps(dataset: Dataset, time_steps: int) -> None:
    """Require that a network of so many time steps can be run on the dataset.

    Raises
    ------
    ConfigError : if the dataset's samples are another number of event frames.
    """
    if dataset.frames not in (None, time_steps):
        raise ConfigError(
            f"network.time_steps: found {time_steps}; allowed: {dataset.frames}, since each sample of "
            f'"{dataset.name}" is {counted(dataset.frames, "event frame")}, one for each step'
        )


def check_classes(dataset: Dataset) -> None:
    """Require that every class occurs in the training part and in the test part.

    Raises
    ------
    DatasetError : naming the classes that do not.
    """
    for part, samples in (("training", dataset.train), ("test", dataset.test)):
        counts = np.bincount(samples.labels, minlength=len(dataset.classes))
        missing = [f'{label} ("{dataset.classes[label]}")' for label in np.flatnonzero(counts == 0)]
        if missing:
            raise DatasetError(
                f"{dataset.name}: the {part} part holds {counted(len(samples), 'sample')}, none of class "
                f"{', '.join(missing)}; every class must occur in both parts. Get the data again, or add such samples."
            )


def hold_out(samples: Samples, *, count: int, seed: int) -> tuple[Samples, Samples]:
    """Split samples in two: the rest, and ``count`` held out for validation with the classes in proportion.

    The same arguments give the same split on every machine. Both parts keep the order of the samples.

    Raises
    ------
    DatasetError : if ``count`` is not in 1 .. n - 1.
    """
    if not 1 <= count < len(samples):
        raise DatasetError(
            f"cannot hold out {count} of {counted(len(samples), 'sample')}; allowed: 1 .. {len(samples) - 1}."
        )
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
