"""A folder of class folders of images, as torchvision's ImageFolder takes it.

``train/CLASS/*.png`` and ``test/CLASS/*.png``, or ``CLASS/*.png``, of which a part is set aside by a hash of each
file's name. Images become grey or RGB, all of one size. They are decoded once and kept in the cache.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fsnn_lava.config import DataConfig
from fsnn_lava.datasets.files import cached
from fsnn_lava.datasets.input_coding import Array, InputCoding
from fsnn_lava.datasets.own.class_folders import class_files
from fsnn_lava.datasets.own.places import tests_by_hash
from fsnn_lava.datasets.samples import Augmentation, Dataset, Samples, check_classes
from fsnn_lava.errors import DatasetError, MissingDependencyError

ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Of image files; others are left alone."""
_GREY_MODES = ("1", "L", "LA", "I;16")
_BILINEAR = 2
"""Pillow's number of the filter, which looks at all pixels that one becomes part of."""
_AS_DECODED = 1
"""Changes when the same files give other codes."""


def load_image_folder(path: Path, settings: DataConfig) -> Dataset:
    """Read the images.

    Raises
    ------
    DatasetError : if there are no class folders, a class has no image, an image is damaged or of another size, or the
        two parts have other classes.
    MissingDependencyError : if Pillow is absent.
    """
    found = class_files(path, ENDINGS, what="image")
    tests, labels = found.tests, found.labels
    if tests is None:
        try:
            tests = tests_by_hash(found.names, labels, share=settings.test_share, classes=found.classes)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from None
    codes = _decoded(found.files, settings, found.sha256)
    coding = coding_of_images(codes[~tests])
    train, test = (Samples(codes[which], labels[which]) for which in (~tests, tests))
    augmentation = Augmentation(0, flip=True) if settings.flip else None
    dataset = Dataset(str(path), train, test, codes.shape[1:], found.classes, coding, augmentation, sha256=found.sha256)
    check_classes(dataset)
    return dataset


def _decoded(files: Sequence[Path], settings: DataConfig, digest: str) -> Array:
    """(n, C, H, W) uint8 codes of all images, from the cache if they are there."""
    forms = [image_form(file) for file in files]
    height, width = (settings.height, settings.width) if settings.height else forms[0][:2]
    grey = settings.grey or all(mode in _GREY_MODES for *_, mode in forms)
    if not settings.height:
        for file, form in zip(files, forms, strict=True):
            if form[:2] != (height, width):
                raise DatasetError(
                    f"{file}: found an image of {form[0]} x {form[1]}; {files[0]} is {height} x {width}; scale all of "
                    "them with --data.height N --data.width N"
                )
    shape = (len(files), 1 if grey else 3, height, width)

    def make() -> Array:
        codes = np.empty(shape, np.uint8)
        for place, file in enumerate(files):
            codes[place] = image_pixels(file, grey=grey, size=(width, height))
        return codes

    return cached("images", f"{_AS_DECODED} {digest} {shape} {settings.height}", shape=shape, make=make)


def image_form(file: Path) -> tuple[int, int, str]:
    """Height, width and mode of an image, without decoding it."""
    with _opened(file) as image:
        return image.height, image.width, image.mode


def image_pixels(file: Path, *, grey: bool, size: tuple[int, int]) -> Array:
    """`pixels_of` an image in a file."""
    with _opened(file) as image:
        return pixels_of(image, grey=grey, size=size)


def pixels_of(image: Any, *, grey: bool, size: tuple[int, int]) -> Array:
    """(C, H, W) uint8 of Pillow's image, scaled to (width, height) where it has another size."""
    converted = image.convert("L" if grey else "RGB")
    pixels = np.asarray(converted if converted.size == size else converted.resize(size, _BILINEAR), np.uint8)
    return pixels[None] if grey else np.moveaxis(pixels, 2, 0)


def is_grey(image: Any) -> bool:
    """Tell whether Pillow's image has no colours."""
    return image.mode in _GREY_MODES


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An image file, whatever is wrong with it being said with its name."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("images need Pillow; install it with: pip install pillow") from error
    try:
        with Image.open(file) as image:
            yield image
    except (OSError, SyntaxError) as error:  # Pillow raises both for damaged files
        raise DatasetError(f"{file}: cannot be read as an image ({error}); get it again, or remove it") from error


def coding_of_images(codes: Array) -> InputCoding:
    """Codes over 255, normalised by mean and standard deviation of each channel of the training part."""
    levels = np.arange(256) / 255
    counts = [np.bincount(codes[:, c].ravel(), minlength=256) for c in range(codes.shape[1])]
    mean = [float(levels @ count / count.sum()) for count in counts]
    spread = [
        float(np.sqrt(np.square(levels - m) @ count / count.sum())) for m, count in zip(mean, counts, strict=True)
    ]
    if min(spread) <= 0:
        raise DatasetError("found images that all have the same single colour; expected some that differ")
    return InputCoding("graded", maximum=255, scale=1 / 255, mean=tuple(mean), std=tuple(spread))
