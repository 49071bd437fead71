"""Datasets as plain arrays: integer codes, labels, and what real value a code stands for.

Codes are what hardware receives; `InputCoding` turns them into the normalised values that training sees, so that
both sides start from the same integers. Files are looked for below one folder, given as ``data_dir`` or by the
environment variable FSNN_DATA; nothing is downloaded.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fsnn_lava.errors import DatasetError, InputError, MissingDependencyError

Array = npt.NDArray[Any]

DATA_VARIABLE = "FSNN_DATA"
"""Environment variable that names the folder of the datasets."""

_DIGITS_SEED = 0
_DIGITS_TEST = 360
_DIGITS_MEAN = 0.3053
_DIGITS_STD = 0.3759
_IMAGES_MAGIC = 2051
_LABELS_MAGIC = 2049


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

    def decode(self, codes: Array) -> Array:
        """Real values as float32, each the nearest one to the exact value; same shape as the codes.

        Parameters
        ----------
        codes : uint8 (B, C, H, W), or (T, B, C, H, W) for one frame per step.

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
        levels = np.arange(self.maximum + 1) * self.scale
        values = np.empty(codes.shape, np.float32)
        for c in range(channels):
            table = ((levels - self.mean[c]) / self.std[c]).astype(np.float32)
            values[..., c, :, :] = table[codes[..., c, :, :]]
        return values


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and their classes.

    Parameters
    ----------
    codes : uint8 (n, *shape).
    labels : int64 (n,), classes from 0.

    Raises
    ------
    DatasetError : if the dtypes or lengths do not fit.
    """

    codes: Array
    labels: Array

    def __post_init__(self) -> None:
        if self.codes.dtype != np.uint8 or self.labels.dtype != np.int64:
            raise DatasetError(f"samples: dtypes {self.codes.dtype}, {self.labels.dtype}; expected uint8, int64.")
        if self.labels.ndim != 1 or len(self.codes) != len(self.labels):
            raise DatasetError(f"samples: {len(self.codes)} inputs, labels {self.labels.shape}; expected one each.")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, which: Array) -> Samples:
        """Copies of the samples at those indices, or where that mask holds."""
        return Samples(self.codes[which], self.labels[which])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset with its published split and normalisation.

    Parameters
    ----------
    input_shape : shape of one sample, (C, H, W).
    classes : name of each class, in the order of the labels.
    coding : what the codes stand for.
    """

    name: str
    train: Samples
    test: Samples
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    coding: InputCoding


def load_dataset(name: str, data_dir: Path | None = None) -> Dataset:
    """The dataset of that name, read from files below ``data_dir`` (digits needs none).

    Parameters
    ----------
    name : a key of `DATASETS`.
    data_dir : folder that holds the datasets; None takes the environment variable FSNN_DATA.

    Raises
    ------
    DatasetError : if the name is unknown, no folder is given, or a file is missing, truncated or not what it should be.
    """
    if name not in DATASETS:
        raise DatasetError(f'no dataset is called "{name}"; there are: {", ".join(DATASETS)}.')
    return DATASETS[name](data_dir)


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


# ---- digits: inside scikit-learn -------------------------------------------------------------------------


def _load_digits(data_dir: Path | None) -> Dataset:
    """1,797 handwritten digits of 8x8 pixels in 17 greys; 1,437 for training, 360 for testing."""
    del data_dir  # the images come with scikit-learn
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError("digits needs scikit-learn; install it with: pip install scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    samples = Samples(images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64))
    train, test = hold_out(samples, count=_DIGITS_TEST, seed=_DIGITS_SEED)
    coding = InputCoding("graded", maximum=16, scale=1 / 16, mean=(_DIGITS_MEAN,), std=(_DIGITS_STD,))
    return Dataset("digits", train, test, (1, 8, 8), tuple("0123456789"), coding)


# ---- MNIST and Fashion-MNIST: idx files, packed or not ---------------------------------------------------


@dataclass(frozen=True)
class _IdxSource:
    """Where a dataset of idx files is looked for below ``data_dir``, and how to get it."""

    name: str
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    download: str


_MNIST = _IdxSource("mnist", ("mnist", "MNIST/raw"), tuple("0123456789"), "torchvision.datasets.MNIST")
_FASHION_MNIST = _IdxSource(
    "fashion_mnist",
    ("fashion-mnist", "FashionMNIST/raw"),
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    "torchvision.datasets.FashionMNIST",
)


def _load_idx(source: _IdxSource, data_dir: Path | None) -> Dataset:
    root = _data_root(source, data_dir)
    train, test = (_read_split(source, root, prefix) for prefix in ("train", "t10k"))
    # Published settings normalise Fashion-MNIST by MNIST's constants too.
    coding = InputCoding("graded", maximum=255, scale=1 / 255, mean=(0.1307,), std=(0.3081,))
    return Dataset(source.name, train, test, (1, 28, 28), source.classes, coding)


def _data_root(source: _IdxSource, data_dir: Path | None) -> Path:
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    if not chosen:
        raise DatasetError(
            f"{source.name}: no data folder is given. Set {DATA_VARIABLE} or pass --data-dir to the folder that holds "
            f"{source.folders[0]}/. {_how_to_get(source, 'DIR')}"
        )
    return Path(chosen).expanduser()


def _read_split(source: _IdxSource, root: Path, prefix: str) -> Samples:
    images_path = _find(source, root, f"{prefix}-images-idx3-ubyte")
    labels_path = _find(source, root, f"{prefix}-labels-idx1-ubyte")
    images = _read_idx(images_path, _IMAGES_MAGIC, (28, 28))
    labels = _read_idx(labels_path, _LABELS_MAGIC, ())
    if len(images) != len(labels):
        raise DatasetError(f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels; must agree.")
    if labels.size and labels.max() >= len(source.classes):
        raise DatasetError(f"{labels_path}: found label {labels.max()}; allowed: 0 .. {len(source.classes) - 1}.")
    return Samples(images[:, None], labels.astype(np.int64))


def _find(source: _IdxSource, root: Path, file_name: str) -> Path:
    """First existing place of the file: every folder, packed before unpacked."""
    places = [root / folder / (file_name + suffix) for folder in source.folders for suffix in (".gz", "")]
    for place in places:
        if place.is_file():
            return place
    looked = "\n  ".join(map(str, places))
    raise DatasetError(f"{source.name}: {file_name} is missing. Looked at:\n  {looked}\n{_how_to_get(source, root)}")


def _how_to_get(source: _IdxSource, root: Path | str) -> str:
    return (
        f'Get it with {source.download}("{root}", download=True), '
        f"or put the four original idx files (.gz or unpacked) into {Path(root) / source.folders[0]}."
    )


def _read_idx(path: Path, magic: int, item_shape: tuple[int, ...]) -> Array:
    """(n, *item_shape) uint8, a writable copy; every byte of the file is accounted for."""
    raw, complete = _unpack(path) if path.suffix == ".gz" else (_bytes(path), True)
    header_bytes = 8 + 4 * len(item_shape)
    if len(raw) < header_bytes:
        raise DatasetError(f"{path} is truncated: expected a header of {header_bytes} bytes, found {len(raw)} bytes.")
    found_magic, count, *found_shape = np.frombuffer(raw, ">u4", 2 + len(item_shape)).tolist()
    if found_magic != magic:
        raise DatasetError(f"{path} is not the idx file that its name says: magic {found_magic}, expected {magic}.")
    if tuple(found_shape) != item_shape:
        raise DatasetError(f"{path}: images of {found_shape[0]}x{found_shape[1]}, expected 28x28.")
    expected = header_bytes + count * math.prod(item_shape)
    if len(raw) != expected or not complete:
        problem = "has bytes after its end" if len(raw) > expected else "is truncated"
        hint = "" if complete else " before the gzip stream breaks off"
        raise DatasetError(f"{path} {problem}: expected {expected} bytes, found {len(raw)} bytes{hint}. Get it again.")
    return np.frombuffer(raw, np.uint8, offset=header_bytes).reshape(count, *item_shape).copy()


def _unpack(path: Path) -> tuple[bytes, bool]:
    """What a gz file holds, as far as it goes, and whether its end was reached."""
    packed, data, complete = _bytes(path), bytearray(), False
    try:
        while packed:
            stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: with gzip's header and checksum
            data += stream.decompress(packed)
            packed, complete = stream.unused_data, stream.eof
    except zlib.error as error:
        raise DatasetError(f"{path} is not a sound gzip file: {error}. Get it again.") from error
    return bytes(data), complete


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}. Check its permissions, or get it again."
        ) from error


def _load_mnist(data_dir: Path | None) -> Dataset:
    return _load_idx(_MNIST, data_dir)


def _load_fashion_mnist(data_dir: Path | None) -> Dataset:
    return _load_idx(_FASHION_MNIST, data_dir)


DATASETS: Mapping[str, Callable[[Path | None], Dataset]] = MappingProxyType(
    {"digits": _load_digits, "mnist": _load_mnist, "fashion_mnist": _load_fashion_mnist}
)
"""Loaders by name. A new dataset adds its own here."""
