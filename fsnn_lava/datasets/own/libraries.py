"""Datasets that other libraries read: ``torchvision:NAME`` of images, ``tonic:NAME`` of events.

They look in the folder of the datasets as they always do, and fetch what is missing only where that is asked for. A
library's training part trains and its test part tests; where it knows no parts, a share of each class is set aside.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsnn_lava.config import DataConfig
from fsnn_lava.datasets.event_files import EVENT, frames_of, slices_of
from fsnn_lava.datasets.files import data_root
from fsnn_lava.datasets.input_coding import Array, InputCoding
from fsnn_lava.datasets.own.arrays import digest_of
from fsnn_lava.datasets.own.image_folder import coding_of_images, is_grey, pixels_of
from fsnn_lava.datasets.own.places import tests_by_seed
from fsnn_lava.datasets.samples import Augmentation, Dataset, check_classes, from_codes
from fsnn_lava.errors import DatasetError, MissingDependencyError

_LIBRARY = re.compile(r"(torchvision|tonic):[A-Za-z]\w*")
_PARTS: Mapping[str, tuple[Any, Any]] = {"train": (True, False), "split": ("train", "test")}
"""Argument by which a library's class takes one part, and its value for either."""


def is_library(name: str) -> bool:
    """Tell whether this names a dataset of a library."""
    return _LIBRARY.fullmatch(name) is not None


def load_from_library(name: str, data_dir: Path | None, settings: DataConfig, *, download: bool) -> Dataset:
    """Read a library's dataset.

    Raises
    ------
    DatasetError : if it has none of that name, it is not there, or its samples are no images or events.
    MissingDependencyError : if the library is absent.
    """
    library, wanted = name.split(":")
    how = f"Give --download, and {library} fetches it."
    root = data_root(name, data_dir, holds=wanted, how_to_get=how)
    kind = _class_of(library, wanted)
    argument = next((a for a in _PARTS if a in inspect.signature(kind).parameters), None)
    chosen = [{}] if argument is None else [{argument: value} for value in _PARTS[argument]]
    make = {"torchvision": _images, "tonic": _events}[library]
    parts = [make(name, kind, root, which, settings, download) for which in chosen]
    codes, targets = [part[0] for part in parts], [part[1] for part in parts]
    known, numbers = np.unique(np.concatenate(targets), return_inverse=True)
    labels = np.split(numbers.astype(np.int64), np.cumsum([len(t) for t in targets])[:-1])
    if argument is None:
        names = _names(parts[0][2], known)
        tests = tests_by_seed(labels[0], share=settings.test_share, seed=settings.seed, classes=names)
        codes, labels = [codes[0][~tests], codes[0][tests]], [labels[0][~tests], labels[0][tests]]
    sha256 = digest_of({"codes": np.concatenate(codes), "labels": np.concatenate(labels)})
    channels = codes[0].shape[-3]
    coding = InputCoding("event", maximum=1, scale=1.0, mean=(0.0,) * channels, std=(1.0,) * channels)
    augmentation = None
    if library == "torchvision":
        coding, augmentation = coding_of_images(codes[0]), Augmentation(0, flip=True) if settings.flip else None
    dataset = from_codes(
        name, codes, labels, classes=_names(parts[0][2], known), coding=coding, augmentation=augmentation, sha256=sha256
    )
    check_classes(dataset)
    return dataset


def _class_of(library: str, wanted: str) -> Any:
    try:
        offered = importlib.import_module(f"{library}.datasets")
    except ImportError as error:
        extra = "torchvision" if library == "torchvision" else '"fsnn-lava[events]"'
        raise MissingDependencyError(
            f"{library}:{wanted} is read by {library}; install it with: pip install {extra}"
        ) from error
    kind = getattr(offered, wanted, None)
    if not inspect.isclass(kind):
        there = ", ".join(sorted(n for n in dir(offered) if inspect.isclass(getattr(offered, n)) and n[0].isupper()))
        raise DatasetError(f"{library} {offered.__name__}: found no dataset {wanted}; there are: {there}")
    folder = {"torchvision": "root", "tonic": "save_to"}[library]
    if folder not in inspect.signature(kind).parameters:
        raise DatasetError(f"{library}:{wanted}: reads no files; expected a dataset that takes a folder, {folder}")
    return kind


def _names(given: Any, known: Array) -> tuple[str, ...]:
    """The library's names of the classes, by number where only some occur; else what stood for each."""
    names = [value.decode() if isinstance(value, bytes) else str(value) for value in (() if given is None else given)]
    if len(names) == len(known):
        return tuple(names)
    if known.dtype.kind in "iu" and known.min() >= 0 and known.max() < len(names):
        return tuple(names[value] for value in known.tolist())
    return tuple(str(value) for value in known.tolist())


_Part = tuple[Array, Array, Any]
"""Codes and targets of one part, and what the library says of the classes."""


def _items(name: str, samples: Any) -> Iterable[tuple[Any, Any]]:
    for number in range(len(samples)):
        item = samples[number]
        if not isinstance(item, tuple) or len(item) != 2 or np.ndim(item[1]):
            raise DatasetError(f"{name}: sample {number} is no pair of an input and one class; it cannot be trained on")
        yield item


def _images(name: str, kind: Any, root: Path, which: Mapping[str, Any], settings: DataConfig, download: bool) -> _Part:
    fetch = {"download": download} if "download" in inspect.signature(kind).parameters else {}
    try:
        samples = kind(str(root), **which, **fetch)
    except (RuntimeError, OSError, TypeError) as error:
        raise DatasetError(f"{name}: {error}; looked in {root}; give --download, and torchvision fetches it") from error
    codes: list[Array] = []
    targets = []
    for number, (image, target) in enumerate(_items(name, samples)):
        if not hasattr(image, "convert"):
            raise DatasetError(f"{name}: sample {number} is {type(image).__name__}; expected an image")
        grey = settings.grey or (len(codes[0]) == 1 if codes else is_grey(image))
        codes.append(
            pixels_of(image, grey=grey, size=(settings.width, settings.height) if settings.height else image.size)
        )
        if codes[-1].shape != codes[0].shape:
            raise DatasetError(
                f"{name}: sample {number} is an image of {codes[-1].shape[1:]}, the first one of {codes[0].shape[1:]}; "
                "scale all of them with --data.height N --data.width N"
            )
        targets.append(target)
    return np.stack(codes), np.array(targets), getattr(samples, "classes", None)


def _events(name: str, kind: Any, root: Path, which: Mapping[str, Any], settings: DataConfig, download: bool) -> _Part:
    if settings.window_ms:
        raise DatasetError(
            f"{name}: found data.window_ms {settings.window_ms:g}; it is a setting of your own recordings"
        )
    if kind.sensor_size is None:
        raise DatasetError(f"{name}: its recordings have no common sensor size; convert them to a folder of recordings")
    width, height, polarities = kind.sensor_size
    size = (settings.height, settings.width) if settings.height else (height, width)

    # tonic fetches what it takes for missing without being asked, and a part of a dataset too: its class is taken with
    # another `download`, and what is there is read.
    taken = kind if download else type(kind.__name__, (kind,), {"download": lambda self: None})
    try:
        samples = taken(str(root), **which)
        there = len(samples)
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{name}: {error}; looked in {root}; give --download, and tonic fetches it") from error
    if not there:
        where = samples.location_on_system
        raise DatasetError(f"{name}: found nothing at {where}; give --download, and tonic fetches it")
    codes, targets = [], []
    for number, (events, target) in enumerate(_items(name, samples)):
        plain = np.zeros(len(events), EVENT)
        for field in ("t", "x", "y"):
            plain[field] = events[field] if field in events.dtype.names else 0
        plain["on"] = events["p"] > 0 if polarities == 2 else False
        try:
            slices = slices_of(plain["t"], frames=settings.frames, by=settings.frames_by)
            frames = frames_of(plain, slices, frames=settings.frames, sensor=(height, width), size=size)
        except DatasetError as error:
            raise DatasetError(f"{name}, sample {number}: {error}") from None
        codes.append(frames[:, :polarities])
        targets.append(target)
    return np.stack(codes).astype(np.uint8), np.array(targets), getattr(samples, "classes", None)
