"""MNIST and Fashion-MNIST: idx files, packed by gzip or not."""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.files import data_root, read_bytes
from fsnn_lava.datasets.input_coding import Array, InputCoding
from fsnn_lava.datasets.samples import Dataset, Samples
from fsnn_lava.errors import DatasetError, counted
from fsnn_lava.files import known_format

_IMAGES_MAGIC = 2051
_LABELS_MAGIC = 2049


@dataclass(frozen=True)
class _Source:
    """Where a dataset of idx files is looked for below ``data_dir``, and how to get it."""

    name: str
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    download: str

    def how_to_get(self, root: Path | str) -> str:
        return (
            f'Get it with {self.download}("{root}", download=True), '
            f"or put the four original idx files (.gz or unpacked) into {Path(root) / self.folders[0]}."
        )


_MNIST = _Source("mnist", ("mnist", "MNIST/raw"), tuple("0123456789"), "torchvision.datasets.MNIST")
_FASHION_MNIST = _Source(
    "fashion_mnist",
    ("fashion-mnist", "FashionMNIST/raw"),
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    "torchvision.datasets.FashionMNIST",
)


def load_mnist(data_dir: Path | None) -> Dataset:
    """Read MNIST: 60,000 + 10,000 handwritten digits, 28x28 grey."""
    return _load(_MNIST, data_dir)


def load_fashion_mnist(data_dir: Path | None) -> Dataset:
    """Read Fashion-MNIST: 60,000 + 10,000 photographs of clothing, 28x28 grey."""
    return _load(_FASHION_MNIST, data_dir)


def _load(source: _Source, data_dir: Path | None) -> Dataset:
    root = data_root(source.name, data_dir, holds=source.folders[0], how_to_get=source.how_to_get("DIR"))
    train, test = (_read_split(source, root, prefix) for prefix in ("train", "t10k"))
    # Published settings normalise Fashion-MNIST by MNIST's constants too.
    coding = InputCoding("graded", maximum=255, scale=1 / 255, mean=(0.1307,), std=(0.3081,))
    return Dataset(source.name, train, test, (1, 28, 28), source.classes, coding)


def _read_split(source: _Source, root: Path, prefix: str) -> Samples:
    images_path = _find(source, root, f"{prefix}-images-idx3-ubyte")
    labels_path = _find(source, root, f"{prefix}-labels-idx1-ubyte")
    images = _read_idx(images_path, _IMAGES_MAGIC, (28, 28))
    labels = _read_idx(labels_path, _LABELS_MAGIC, ())
    if len(images) != len(labels):
        raise DatasetError(
            f"{images_path} holds {counted(len(images), 'image')}, {labels_path} {counted(len(labels), 'label')}; "
            "must agree."
        )
    if labels.size and labels.max() >= len(source.classes):
        raise DatasetError(f"{labels_path}: found label {labels.max()}; allowed: 0 .. {len(source.classes) - 1}.")
    return Samples(images[:, None], labels.astype(np.int64))


def _find(source: _Source, root: Path, file_name: str) -> Path:
    """Find the first existing place of the file: every folder, packed before unpacked."""
    places = [root / folder / (file_name + suffix) for folder in source.folders for suffix in (".gz", "")]
    for place in places:
        if place.is_file():
            return place
    looked = "\n  ".join(map(str, places))
    raise DatasetError(f"{source.name}: {file_name} is missing. Looked at:\n  {looked}\n{source.how_to_get(root)}")


def _read_idx(path: Path, magic: int, item_shape: tuple[int, ...]) -> Array:
    """Read (n, *item_shape) uint8, a writable copy; every byte of the file is accounted for."""
    raw, complete = _unpack(path) if path.suffix == ".gz" else (read_bytes(path), True)
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
    """Unpack what a gz file holds, as far as it goes, and whether its end was reached."""
    packed, data, complete = read_bytes(path), bytearray(), False
    try:
        while packed:
            stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: with gzip's header and checksum
            data += stream.decompress(packed)
            packed, complete = stream.unused_data, stream.eof
    except zlib.error as error:
        hint = known_format(packed)
        raise DatasetError(f"{path} is not a whole gzip file: {error}.{hint} Get it again.") from error
    return bytes(data), complete
