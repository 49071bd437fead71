"""CIFAR-10 and CIFAR-100: the original files, pickled or binary, or JPEG copies packed into npz files."""

import io
import os
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsnn_lava.datasets.files import cached, data_root, read_bytes, zip_contents
from fsnn_lava.datasets.input_coding import Array, InputCoding
from fsnn_lava.datasets.safe_pickle import read_pickled_arrays
from fsnn_lava.datasets.samples import Augmentation, Dataset, Samples
from fsnn_lava.errors import DatasetError, MissingDependencyError

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_JPEG_NOTE = "lossy JPEG copies"
_CHUNK = 500
"""Images that one thread decodes at a time."""


@dataclass(frozen=True)
class _Source:
    """The forms of a dataset below ``data_dir``, each in a folder of its own; the first one that is there is taken."""

    name: str
    classes: tuple[str, ...]
    pickled: str
    binary: str
    jpeg: str
    parts: Mapping[str, tuple[str, ...]]  # "train", "test" -> its files in the original forms, without ".bin"
    label: str  # key of the labels in the pickled form
    label_bytes: int  # before each image of the binary form; the last of them is the label
    download: str


_CIFAR10 = _Source(
    name="cifar10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    pickled="cifar-10-batches-py",
    binary="cifar-10-batches-bin",
    jpeg="cifar10-jpeg",
    parts={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    label="labels",
    label_bytes=1,
    download="torchvision.datasets.CIFAR10",
)
_CIFAR100 = _Source(
    name="cifar100",
    classes=tuple(
        """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905 - a hundred quotes are no easier to read
    ),
    pickled="cifar-100-python",
    binary="cifar-100-binary",
    jpeg="cifar100-jpeg",
    parts={"train": ("train",), "test": ("test",)},
    label="fine_labels",
    label_bytes=2,
    download="torchvision.datasets.CIFAR100",
)


def load_cifar10(data_dir: Path | None) -> Dataset:
    """Read CIFAR-10: 50,000 + 10,000 photographs, 32x32 RGB, 10 classes."""
    return _load(_CIFAR10, data_dir)


def load_cifar100(data_dir: Path | None) -> Dataset:
    """Read CIFAR-100: 50,000 + 10,000 photographs, 32x32 RGB, the 100 fine classes."""
    return _load(_CIFAR100, data_dir)


def _load(source: _Source, data_dir: Path | None) -> Dataset:
    how_to_get = f'Get it with {source.download}("{data_dir or "DIR"}", download=True).'
    root = data_root(source.name, data_dir, holds=source.pickled, how_to_get=how_to_get)
    readers = {source.pickled: _read_pickled, source.binary: _read_binary, source.jpeg: _read_jpeg}
    folder = next((folder for folder in readers if (root / folder).is_dir()), None)
    if folder is None:
        looked = "\n  ".join(str(root / folder) for folder in readers)
        raise DatasetError(f"{source.name} is missing. Looked for the folders:\n  {looked}\n{how_to_get}")
    train, test = (readers[folder](source, root / folder, part) for part in ("train", "test"))
    note = _JPEG_NOTE if folder == source.jpeg else ""
    coding = InputCoding("graded", 255, 1 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    return Dataset(
        source.name, train, test, _SHAPE, source.classes, coding, augmentation=Augmentation(pad=4, flip=True), note=note
    )


def _read_pickled(source: _Source, folder: Path, part: str) -> Samples:
    images, labels = [], []
    for name in source.parts[part]:
        path = folder / name
        batch = read_pickled_arrays(path)
        missing = {"data", source.label} - batch.keys()
        if missing:
            raise DatasetError(f'{path}: has no "{min(missing)}"; found: {", ".join(batch)}. Get it again.')
        found, given = batch["data"], batch[source.label]
        if not isinstance(given, list) or not all(type(label) is int for label in given):
            raise DatasetError(f'{path}: "{source.label}" is no list of whole numbers. Get it again.')
        if not isinstance(found, np.ndarray) or found.shape != (len(given), _PIXELS):
            size = getattr(found, "shape", type(found).__name__)
            raise DatasetError(f"{path}: images {size} for {len(given)} labels; expected ({len(given)}, {_PIXELS}).")
        images.append(found)
        labels += given
    return _originals(source, folder, np.concatenate(images), np.array(labels))


def _read_binary(source: _Source, folder: Path, part: str) -> Samples:
    row, rows = source.label_bytes + _PIXELS, []
    for name in source.parts[part]:
        path = folder / f"{name}.bin"
        raw = np.frombuffer(read_bytes(path), np.uint8)
        if raw.size % row:
            raise DatasetError(f"{path} is truncated: {raw.size} bytes are not a multiple of {row}. Get it again.")
        rows.append(raw.reshape(-1, row))
    table = np.concatenate(rows)
    return _originals(source, folder, table[:, source.label_bytes :], table[:, source.label_bytes - 1])


def _originals(source: _Source, folder: Path, images: Array, labels: Array) -> Samples:
    """Samples of the original files, whose classes are all of one size, so that a missing piece is noticed."""
    _check_labels(source, folder, labels)
    sizes = np.bincount(labels, minlength=len(source.classes))
    if sizes.min() != sizes.max():
        most, least = sizes.argmax(), sizes.argmin()
        raise DatasetError(
            f'{folder}: {len(labels)} samples, of class "{source.classes[most]}" {sizes[most]}, of '
            f'"{source.classes[least]}" {sizes[least]}; all classes have the same number in the original files. '
            "A file is truncated or altered; get it again."
        )
    return Samples(np.ascontiguousarray(images).reshape(-1, *_SHAPE), labels.astype(np.int64))


def _check_labels(source: _Source, path: Path, labels: Array) -> None:
    wrong = labels[(labels < 0) | (labels >= len(source.classes))]
    if wrong.size:
        raise DatasetError(f"{path}: found label {wrong[0]}; allowed: 0 .. {len(source.classes) - 1}.")


def _read_jpeg(source: _Source, folder: Path, part: str) -> Samples:
    """Read one npz file: ``bytes`` (all JPEG files), ``offsets`` (n + 1), ``labels``, ``classes``."""
    path = folder / f"{part}.npz"
    contents = zip_contents(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            joined, offsets, labels, classes = (file[key] for key in ("bytes", "offsets", "labels", "classes"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is not a whole file of packed JPEG images: {error}. Get it again.") from error
    _check_jpeg_arrays(source, path, (joined, offsets, labels, classes))
    codes = cached(
        f"{source.name}-{path.stem}",
        "JPEG 1 " + " ".join(f"{entry.filename}:{entry.file_size}:{entry.CRC}" for entry in contents),
        shape=(len(labels), *_SHAPE),
        make=lambda: _decode_all(path, joined.tobytes(), offsets.tolist()),
    )
    return Samples(codes, labels.astype(np.int64))


def _check_jpeg_arrays(source: _Source, path: Path, arrays: tuple[Array, Array, Array, Array]) -> None:
    joined, offsets, labels, classes = arrays
    if joined.dtype != np.uint8 or offsets.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
        found = f"{joined.dtype}, {offsets.dtype}, {labels.dtype}"
        raise DatasetError(f"{path}: bytes, offsets and labels are {found}; expected uint8 and whole numbers.")
    if labels.ndim != 1 or not labels.size or offsets.shape != (len(labels) + 1,):
        raise DatasetError(f"{path}: {offsets.shape} offsets for {labels.shape} labels; needs one more than labels.")
    if offsets[0] != 0 or offsets[-1] != joined.size or (np.diff(offsets) <= 0).any():
        raise DatasetError(f"{path}: the offsets do not rise from 0 to {joined.size}, the number of bytes.")
    if tuple(classes.tolist()) != source.classes:
        raise DatasetError(f"{path}: classes {classes.tolist()}; expected {list(source.classes)}.")
    _check_labels(source, path, labels)


def _decode_all(path: Path, joined: bytes, offsets: list[int]) -> Array:
    """Decode all images, (n, 3, 32, 32) uint8, by a few threads, since Pillow works without Python's lock."""
    count = len(offsets) - 1
    chunks = [range(begin, min(begin + _CHUNK, count)) for begin in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        done = pool.map(lambda chunk: [_decode(path, i, joined[offsets[i] : offsets[i + 1]]) for i in chunk], chunks)
        return np.stack([image for part in done for image in part]).transpose(0, 3, 1, 2)


def _decode(path: Path, index: int, content: bytes) -> Array:
    """Decode one image, (32, 32, 3) uint8."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(f"{path}: JPEG needs Pillow; install it with: pip install pillow") from error
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG",))
        if image.size == (32, 32) and image.mode == "RGB":
            return np.asarray(image)
    except Exception as error:  # a damaged image may raise anything
        raise DatasetError(f"{path}: image {index} is not a whole JPEG file: {error}. Get it again.") from error
    found = f"{image.size[0]}x{image.size[1]} {image.mode}"
    raise DatasetError(f"{path}: image {index} is {found}; expected 32x32 RGB. Images of other sizes were mixed in.")
