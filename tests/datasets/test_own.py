"""A user's own data: arrays in a file, folders of images, functions; read as they are, or refused with the reason."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsnn_lava.config import DataConfig
from fsnn_lava.datasets import Dataset, Samples, load_dataset
from fsnn_lava.errors import ConfigError, DatasetError

Array = np.ndarray[Any, Any]


def some_images(n: int = 40, *, seed: int = 0) -> tuple[Array, Array]:
    """Grey images (n, 6, 5), and a class for each of four."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 6, 5)).astype(np.uint8), np.arange(n) % 4


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def parts(x: Array, y: Array, *, test: int = 12) -> dict[str, Array]:
    return {"x_train": x[test:], "y_train": y[test:], "x_test": x[:test], "y_test": y[:test]}


def write_images(folder: Path, x: Array, y: Array, *, mode: str = "L", ending: str = "png") -> None:
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        place = folder / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(place / f"{number:03d}.{ending}")


def same(a: Samples, b: Samples) -> bool:
    return np.array_equal(a.codes, b.codes) and np.array_equal(a.labels, b.labels)


# ---- arrays ----------------------------------------------------------------------------------------------------------


def test_arrays_in_a_file_are_those_given_to_from_arrays(tmp_path: Path) -> None:
    x, y = some_images()
    path = saved(tmp_path / "mine.npz", **parts(x, y))
    found = load_dataset(str(path))
    expected = Dataset.from_arrays(x[12:, None], y[12:], x[:12, None], y[:12])
    assert same(found.train, expected.train) and same(found.test, expected.test)
    assert (found.coding, found.classes, found.input_shape) == (expected.coding, ("0", "1", "2", "3"), (1, 6, 5))
    assert len(found.sha256) == 64


def test_a_part_is_set_aside_with_a_seed_and_of_every_class(tmp_path: Path) -> None:
    x, y = some_images()
    path = str(saved(tmp_path / "mine.npz", x=x, y=y))
    found = load_dataset(path)
    assert (len(found.train), len(found.test)) == (32, 8)
    assert np.bincount(found.test.labels).tolist() == [2, 2, 2, 2]
    together = np.concatenate([found.train.codes, found.test.codes]).reshape(40, -1)
    assert np.array_equal(np.unique(together, axis=0), np.unique(x.reshape(40, -1), axis=0))
    assert same(load_dataset(path).test, found.test)
    other = load_dataset(path, settings=DataConfig(seed=1, test_share=0.5))
    assert len(other.test) == 20
    assert not same(load_dataset(path, settings=DataConfig(seed=1)).test, found.test)


def test_labels_may_be_names_or_any_whole_numbers(tmp_path: Path) -> None:
    x, y = some_images()
    names = np.array(["ant", "bee", "cow", "dog"])
    of_names = load_dataset(str(saved(tmp_path / "names.npz", **parts(x, names[y]))))
    assert of_names.classes == ("ant", "bee", "cow", "dog")
    of_numbers = load_dataset(str(saved(tmp_path / "numbers.npz", **parts(x, 10 * y + 5))))
    assert of_numbers.classes == ("5", "15", "25", "35")
    for found in (of_names, of_numbers):
        assert np.array_equal(found.train.labels, y[12:])


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_come_last(tmp_path: Path, channels: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 5, channels)).astype(np.uint8)
    found = load_dataset(str(saved(tmp_path / "mine.npz", **parts(x, np.arange(40) % 4))))
    assert found.input_shape == (channels, 6, 5)
    assert np.array_equal(found.test.codes, np.moveaxis(x[:12], 3, 1))


def test_a_dataset_that_was_saved_is_the_same_again(tmp_path: Path) -> None:
    x, y = some_images()
    events = (np.random.default_rng(1).random((40, 3, 2, 4, 4)) < 0.2).astype(np.uint8)
    graded = Dataset.from_arrays(*parts(x[:, None] / 300, y).values(), classes="abcd", mean=0.3, std=0.2)
    for number, dataset in enumerate((graded, Dataset.from_arrays(*parts(events, y).values()))):
        dataset.save(tmp_path / f"{number}.npz")
        found = load_dataset(str(tmp_path / f"{number}.npz"), classes=dataset.classes, coding=dataset.coding)
        assert same(found.train, dataset.train) and same(found.test, dataset.test)
        assert (found.coding, found.classes, found.frames) == (dataset.coding, dataset.classes, dataset.frames)


def test_the_hash_is_of_the_content_however_it_is_compressed(tmp_path: Path) -> None:
    x, y = some_images()
    plain = load_dataset(str(saved(tmp_path / "plain.npz", x=x, y=y)))
    np.savez_compressed(tmp_path / "small.npz", y=y, x=x)
    assert load_dataset(str(tmp_path / "small.npz")).sha256 == plain.sha256
    x[3, 2, 1] += 1
    assert load_dataset(str(saved(tmp_path / "other.npz", x=x, y=y))).sha256 != plain.sha256
    with pytest.raises(DatasetError, match=r"found content with the hash .* was trained on; give the data that was"):
        load_dataset(str(tmp_path / "other.npz"), settings=DataConfig(sha256=plain.sha256))
    assert load_dataset(str(tmp_path / "plain.npz"), settings=DataConfig(sha256=plain.sha256)).sha256 == plain.sha256


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "other names": ({"a": [1], "b": [2]}, r"found the arrays a, b; expected x_train, y_train, x_test, y_test, or x, y"),
    "no labels": ({"x": some_images()[0]}, r"found the arrays x; expected"),
    "too few labels": ({"x": some_images()[0], "y": [0, 1]}, r"expected one y for each x"),
    "float labels": ({"x": some_images()[0], "y": np.ones(40) / 2}, r"labels y_train of type float64 and shape"),
    "nan": (parts(np.full((40, 1, 2, 2), np.nan), np.arange(40) % 4), r"found nan at \[0, 0, 0, 0\]; every value"),
    "mixed sizes": (
        {**parts(*some_images()), "x_test": np.zeros((12, 7, 5), np.uint8)},
        r"training inputs of shape \(28, 1, 6, 5\), test inputs of \(12, 1, 7, 5\); expected samples of one shape",
    ),
    "an empty class": (
        {**parts(*some_images()), "y_test": np.zeros(12, int)},
        r'test part holds 12 samples, none of class 1 \("1"\), 2 \("2"\), 3 \("3"\)',
    ),
    "a single sample": ({"x": some_images(5)[0], "y": [0, 0, 1, 1, 2]}, r"class 2: found 1 sample, of which none"),
    "names and numbers": (
        {**parts(*some_images()), "y_test": np.array(["a", "b"] * 6)},
        r"found names in one of y_train and y_test, and numbers in the other",
    ),
    "objects": ({"x": np.array([None, 3], dtype=object), "y": [0, 1]}, r"arrays of Python objects are not read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_arrays_that_are_no_dataset_are_refused(case: str, tmp_path: Path) -> None:
    arrays, message = BROKEN[case]
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(str(saved(tmp_path / "mine.npz", **arrays)))
    assert "mine.npz" in str(caught.value)


def test_a_damaged_file_and_settings_of_images_are_refused(tmp_path: Path) -> None:
    x, y = some_images()
    path = saved(tmp_path / "mine.npz", x=x, y=y)
    with pytest.raises(
        DatasetError, match=r"data.grey is a setting of folders of images; arrays are taken as they are"
    ):
        load_dataset(str(path), settings=DataConfig(grey=True))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"mine.npz: cannot be read as a file of numpy.savez .* 300 bytes"):
        load_dataset(str(path))


# ---- images ----------------------------------------------------------------------------------------------------------


def test_a_folder_with_both_parts(tmp_path: Path) -> None:
    x, y = some_images()
    write_images(tmp_path / "train", x[12:], y[12:])
    write_images(tmp_path / "test", x[:12], y[:12])
    found = load_dataset(str(tmp_path))
    order = np.argsort(y[:12], kind="stable")
    assert np.array_equal(found.test.codes, x[:12, None][order])
    assert np.array_equal(found.test.labels, y[:12][order])
    assert found.classes == ("class 0", "class 1", "class 2", "class 3")
    values = x[12:] / 255
    assert found.coding.mean == pytest.approx((values.mean(),))
    assert found.coding.std == pytest.approx((values.std(),))


def test_a_folder_without_parts_is_split_by_the_names_of_its_files(tmp_path: Path) -> None:
    """Who adds images leaves those that were there where they are, but for a few at the border of the share."""
    x, y = some_images()
    write_images(tmp_path, x, y)
    (tmp_path / "class 0" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    found = load_dataset(str(tmp_path))
    assert np.bincount(found.test.labels).tolist() == [2, 2, 2, 2]
    again = load_dataset(str(tmp_path))
    assert same(found.test, again.test) and found.sha256 == again.sha256
    more, _ = some_images(4, seed=5)
    for label, image in enumerate(more):
        Image.fromarray(image).save(tmp_path / f"class {label}" / "new.png")
    grown = load_dataset(str(tmp_path))
    before, after = ({image.tobytes() for image in d.test.codes} for d in (found, grown))
    assert len(before & after) >= 6
    assert grown.sha256 != found.sha256


@pytest.mark.parametrize(("mode", "grey", "channels"), [("L", False, 1), ("RGB", False, 3), ("RGB", True, 1)])
def test_images_are_grey_if_all_are_or_if_asked(tmp_path: Path, mode: str, grey: bool, channels: int) -> None:
    x, y = some_images()
    write_images(tmp_path, x, y, mode=mode)
    found = load_dataset(str(tmp_path), settings=DataConfig(grey=grey))
    assert found.input_shape == (channels, 6, 5)
    assert {image[0].tobytes() for image in found.test.codes} <= {image.tobytes() for image in x}


def test_images_are_scaled_and_mirrored_if_asked(tmp_path: Path) -> None:
    x, y = some_images()
    write_images(tmp_path, x, y)
    Image.fromarray(x[0]).resize((9, 9)).save(tmp_path / "class 0" / "000.png")
    with pytest.raises(DatasetError, match=r"004.png: found an image of 6 x 5; .*000.png is 9 x 9; scale all of them"):
        load_dataset(str(tmp_path))
    found = load_dataset(str(tmp_path), settings=DataConfig(height=4, width=3, flip=True))
    assert found.input_shape == (1, 4, 3)
    assert found.augmentation is not None and found.augmentation.flip


def without(folder: Path, name: str) -> None:
    for file in (folder / name).iterdir():
        file.unlink()


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty class": (
        lambda f: without(f, "class 1"),
        r"class 1: found no image; expected .* a folder that is no class, such as one of runs",
    ),
    "one part": (lambda f: (f / "train").mkdir(), r"found train/ alone; expected train/ and test/, or class folders"),
    "damaged": (
        lambda f: (f / "class 2" / "002.png").write_bytes(b"\x89PNG\r\n\x1a\nx"),
        r"002.png: cannot be read as",
    ),
    "cut": (
        lambda f: (f / "class 2" / "002.png").write_bytes((f / "class 2" / "002.png").read_bytes()[:60]),
        r"002.png: .*(damaged|cannot be read)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_folders_that_are_no_dataset_are_refused(case: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    write_images(tmp_path, *some_images())
    change(tmp_path)
    with pytest.raises(DatasetError, match=message):
        load_dataset(str(tmp_path))


def test_an_empty_folder_and_other_classes_in_the_test_part_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: found no folders; expected one for each class"):
        load_dataset(str(tmp_path / "empty"))
    x, y = some_images()
    write_images(tmp_path / "odd" / "train", x, y)
    write_images(tmp_path / "odd" / "test", x, y % 3)
    with pytest.raises(
        DatasetError, match=r"train/ and test/ differ in the classes class 3; expected the same folders"
    ):
        load_dataset(str(tmp_path / "odd"))


# ---- functions and places --------------------------------------------------------------------------------------------

MODULE = """
import numpy as np
from fsnn_lava.datasets import Dataset

def data():
    x, y = np.arange(64, dtype=np.uint8).reshape(16, 1, 2, 2), np.arange(16) % 2
    return Dataset.from_arrays(x[:8], y[:8], x[8:], y[8:])

def nothing():
    return 3

def failing():
    raise OSError("no disk")
"""


def test_a_function_is_called_only_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_module_for_tests.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "own_module_for_tests"
    assert len(load_dataset(f"{name}:data").train) == 8
    refused = {
        f"{name}:nothing": "its function returned int; expected fsnn_lava.Dataset",
        f"{name}:failing": "its function raised OSError: no disk",
        f"{name}:other": f"module {name} has no function other",
        "no_such_module_for_tests:data": "module no_such_module_for_tests cannot be imported",
    }
    for wrong, message in refused.items():
        with pytest.raises(DatasetError, match=message):
            load_dataset(wrong)
    with pytest.raises(
        DatasetError, match="a function that a file names is not run; if you trust it, name it yourself"
    ):
        load_dataset(f"{name}:data", asked=False)


def test_a_path_is_looked_for_among_the_datasets_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = some_images()
    (tmp_path / "data").mkdir()
    saved(tmp_path / "data" / "mine.npz", x=x, y=y)
    assert len(load_dataset("/nowhere/mine.npz", tmp_path / "data").train) == 32
    monkeypatch.setenv("FSNN_DATA", str(tmp_path / "data"))
    assert len(load_dataset("/nowhere/mine.npz").train) == 32
    with pytest.raises(
        DatasetError, match=r"found nothing at /nowhere/other.npz and .*data/other.npz; say where it is"
    ):
        load_dataset("/nowhere/other.npz")


def test_unknown_names_say_what_else_there_may_be_and_named_ones_have_no_settings() -> None:
    with pytest.raises(
        DatasetError, match=r"no dataset \"mnits\".*or a file of arrays \(\*.npz\), a folder of images or of"
    ):
        load_dataset("mnits")
    with pytest.raises(DatasetError, match=r'dataset "digits": found settings under \[data\]; these are of your own'):
        load_dataset("digits", settings=DataConfig(grey=True))


def test_a_dataset_of_another_coding_is_refused(tmp_path: Path) -> None:
    x, y = some_images()
    path = str(saved(tmp_path / "mine.npz", x=x, y=y))
    coding = load_dataset(path).coding
    assert load_dataset(path, coding=coding).coding == coding
    with pytest.raises(DatasetError, match="the network was trained on codes that mean"):
        load_dataset(path, coding=dataclasses.replace(coding, scale=2.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_share": 0.0}, "data.test_share: found 0.0"),
        ({"height": 3}, "data.height and width"),
        ({"seed": -1}, "data.seed"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**changes)
