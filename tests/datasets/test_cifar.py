"""CIFAR-10 and CIFAR-100: both original forms, packed JPEG copies, and files that do not fit."""

import io
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fsnn_lava.datasets import Augmentation, Dataset, cifar, load_dataset
from fsnn_lava.errors import DatasetError
from fsnn_lava.files import CACHE_VARIABLE

Array = npt.NDArray[Any]

TRAIN_10, TEST_10 = [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]
CLASSES_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def _batches(names: list[str], classes: int, *, seed: int) -> dict[str, tuple[Array, list[int]]]:
    """Images (n, 3072) and labels of each file; over all files, two of every class in a mixed order."""
    generator = np.random.default_rng(seed)
    labels = np.array_split(generator.permutation(np.arange(2 * classes) % classes), len(names))
    return {
        name: (generator.integers(0, 256, (len(part), 3072), np.uint8), part.tolist())
        for name, part in zip(names, labels, strict=True)
    }


def _write_pickled(folder: Path, batches: dict[str, tuple[Array, list[int]]], key: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in batches.items():
        (folder / name).write_bytes(pickle.dumps({"data": images, key: labels, "filenames": [b"a.png"]}, protocol=3))


def _write_binary(folder: Path, batches: dict[str, tuple[Array, list[int]]], *, coarse: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in batches.items():
        columns = [np.full((len(labels), 1), 19)] if coarse else []
        table = np.concatenate([*columns, np.array(labels)[:, None], images], axis=1).astype(np.uint8)
        (folder / f"{name}.bin").write_bytes(table.tobytes())


def _expect(dataset: Dataset, name: str, train: dict[str, Any], test: dict[str, Any]) -> None:
    for samples, batches in ((dataset.train, train), (dataset.test, test)):
        images = np.concatenate([images for images, _ in batches.values()])
        assert np.array_equal(samples.codes, images.reshape(-1, 3, 32, 32))
        assert samples.codes.flags.c_contiguous
        assert samples.codes.flags.writeable
        assert samples.labels.tolist() == [label for _, labels in batches.values() for label in labels]
    assert (dataset.name, dataset.note, dataset.input_shape) == (name, "", (3, 32, 32))
    assert dataset.augmentation == Augmentation(pad=4, flip=True)
    assert dataset.coding.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.coding.std == (0.2023, 0.1994, 0.2010)
    assert (dataset.coding.maximum, dataset.coding.scale) == (255, 1 / 255)


@pytest.mark.parametrize("form", ["pickled", "binary"])
def test_cifar10_is_read_in_both_original_forms(tmp_path: Path, form: str) -> None:
    train, test = _batches(TRAIN_10, 10, seed=0), _batches(TEST_10, 10, seed=1)
    if form == "pickled":
        _write_pickled(tmp_path / "cifar-10-batches-py", train | test, "labels")
    else:
        _write_binary(tmp_path / "cifar-10-batches-bin", train | test, coarse=False)
    dataset = load_dataset("cifar10", tmp_path)
    _expect(dataset, "cifar10", train, test)
    assert dataset.classes == CLASSES_10


@pytest.mark.parametrize("form", ["pickled", "binary"])
def test_cifar100_is_read_with_its_fine_classes(tmp_path: Path, form: str) -> None:
    train, test = _batches(["train"], 100, seed=0), _batches(["test"], 100, seed=1)
    if form == "pickled":
        _write_pickled(tmp_path / "cifar-100-python", train | test, "fine_labels")
    else:
        _write_binary(tmp_path / "cifar-100-binary", train | test, coarse=True)
    dataset = load_dataset("cifar100", tmp_path)
    _expect(dataset, "cifar100", train, test)
    assert len(set(dataset.classes)) == 100
    assert sorted(dataset.classes) == list(dataset.classes)  # their official order
    assert (dataset.classes[0], dataset.classes[49], dataset.classes[99]) == ("apple", "mountain", "worm")


def _change(batches: dict[str, Any], name: str, images: Any = None, labels: Any = None) -> None:
    before = batches[name]
    batches[name] = (before[0] if images is None else images, before[1] if labels is None else labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 3072), np.uint8), [1, 2, 3], "data_batch_2: images (4, 3072) for 3 labels; expected (3, 3072)"),
        (np.zeros((4, 3000), np.uint8), None, "data_batch_2: images (4, 3000) for 4 labels; expected (4, 3072)"),
        ([1, 2], None, "data_batch_2: images list for 4 labels"),
        (None, [0, 1, 2, 10], "found label 10; allowed: 0 .. 9"),
        (None, [0, 1, 2, -1], "found label -1; allowed: 0 .. 9"),
        (None, [0, 1, 2, "3"], 'data_batch_2: "labels" is no list of whole numbers'),
        (None, 4, 'data_batch_2: "labels" is no list of whole numbers'),
        (np.zeros((0, 3072), np.uint8), [], "16 samples, of class "),
    ],
)
def test_pickled_batch_that_does_not_fit_is_refused(tmp_path: Path, images: Any, labels: Any, message: str) -> None:
    batches = _batches(TRAIN_10, 10, seed=0) | _batches(TEST_10, 10, seed=1)
    _change(batches, "data_batch_2", images, labels)
    folder = tmp_path / "cifar-10-batches-py"
    _write_pickled(folder, batches, "labels")
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        load_dataset("cifar10", tmp_path)
    assert str(folder) in str(raised.value)


def test_pickled_batch_without_labels_is_refused(tmp_path: Path) -> None:
    batches = _batches(TRAIN_10, 10, seed=0) | _batches(TEST_10, 10, seed=1)
    _write_pickled(tmp_path / "cifar-10-batches-py", batches, "coarse")
    with pytest.raises(DatasetError, match='data_batch_1: has no "labels"; found: data, coarse, filenames'):
        load_dataset("cifar10", tmp_path)


def test_pickle_that_names_code_is_refused(tmp_path: Path) -> None:
    batches = _batches(TRAIN_10, 10, seed=0) | _batches(TEST_10, 10, seed=1)
    _write_pickled(tmp_path / "cifar-10-batches-py", batches, "labels")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({"data": print}))
    with pytest.raises(DatasetError, match=r'data_batch_3: it names "builtins.print", which is not part of'):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("form", ["cifar-10-batches-py", "cifar-10-batches-bin"])
def test_missing_batch_is_refused_even_if_copies_are_there(tmp_path: Path, form: str) -> None:
    batches = _batches(TRAIN_10[:4], 10, seed=0) | _batches(TEST_10, 10, seed=1)
    _write_pickled(tmp_path / form, batches, "labels")
    _write_binary(tmp_path / form, batches, coarse=False)
    _write_jpeg(tmp_path / "cifar10-jpeg")
    with pytest.raises(DatasetError, match=r"data_batch_5(.bin)? cannot be read: No such file or directory"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("cut", "message"),
    [(1, "is truncated: 12291 bytes are not a multiple of 3073"), (3073, "all classes have the same number")],
)
def test_truncated_binary_batch_is_refused(tmp_path: Path, cut: int, message: str) -> None:
    _write_binary(
        tmp_path / "cifar-10-batches-bin", _batches(TRAIN_10, 10, seed=0) | _batches(TEST_10, 10, seed=1), coarse=False
    )
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DatasetError, match=message):
        load_dataset("cifar10", tmp_path)


def _jpeg(seed: int, *, size: tuple[int, int] = (32, 32), mode: str = "RGB", form: str = "JPEG") -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size).convert(mode).save(file, form)
    return file.getvalue()


def _arrays(files: list[bytes], labels: list[int]) -> dict[str, Any]:
    return {
        "bytes": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.array(labels, np.uint8),
        "classes": np.array(CLASSES_10),
    }


def _write_jpeg(folder: Path, **changes: Any) -> list[bytes]:
    """Twelve training and ten test images; returns the training images' files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [_jpeg(seed) for seed in range(12)]
    np.savez(folder / "train.npz", **(_arrays(files, [i % 10 for i in range(12)]) | changes))
    np.savez(folder / "test.npz", **_arrays([_jpeg(seed) for seed in range(50, 60)], list(range(10))))
    return files


def test_jpeg_copies_are_decoded_as_pillow_does_and_say_so(tmp_path: Path) -> None:
    files = _write_jpeg(tmp_path / "cifar10-jpeg")
    dataset = load_dataset("cifar10", tmp_path)
    assert dataset.note == "lossy JPEG copies"
    assert dataset.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    for code, file in zip(dataset.train.codes, files, strict=True):
        assert np.array_equal(code.transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(file))))


def test_jpeg_copies_are_decoded_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_jpeg(tmp_path / "cifar10-jpeg")
    first = load_dataset("cifar10", tmp_path)
    names = sorted(path.name for path in cache.iterdir())
    assert [re.fullmatch(r"cifar10-(test|train)-[0-9a-f]{16}\.codes", name) is not None for name in names] == [True] * 2
    with monkeypatch.context() as patch:
        patch.setattr(cifar, "_decode_all", lambda *_: pytest.fail("decoded again"))
        again = load_dataset("cifar10", tmp_path)
    assert np.array_equal(first.train.codes, again.train.codes)
    # another file of the same size and time is noticed by its checksum
    _write_jpeg(tmp_path / "cifar10-jpeg", labels=np.array([*range(9, -1, -1), 0, 1], np.uint8))
    assert load_dataset("cifar10", tmp_path).train.labels[0] == 9
    assert len(list(cache.iterdir())) == 3


def test_original_is_preferred_to_copies(tmp_path: Path) -> None:
    _write_jpeg(tmp_path / "cifar10-jpeg")
    batches = _batches(TRAIN_10, 10, seed=0) | _batches(TEST_10, 10, seed=1)
    _write_binary(tmp_path / "cifar-10-batches-bin", batches, coarse=False)
    assert load_dataset("cifar10", tmp_path).note == ""


def _with_image(index: int, content: bytes) -> dict[str, Any]:
    files = [_jpeg(seed) for seed in range(12)]
    files[index] = content
    return _arrays(files, [i % 10 for i in range(12)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (_with_image(7, _jpeg(7, size=(28, 32))), "image 7 is 28x32 RGB; expected 32x32 RGB. Images of other sizes"),
        (_with_image(7, _jpeg(7, mode="L")), "image 7 is 32x32 L; expected 32x32 RGB"),
        (_with_image(11, _jpeg(7)[:-100]), "image 11 is not a whole JPEG file: image file is truncated"),
        (_with_image(11, _jpeg(7)[:-300]), "image 11 is not a whole JPEG file: Truncated File Read"),
        (_with_image(2, b"no image"), "image 2 is not a whole JPEG file: cannot identify image file"),
        (_with_image(2, _jpeg(2, form="PNG")), "image 2 is not a whole JPEG file: cannot identify image file"),
        ({"labels": np.full(12, 10, np.uint8)}, "found label 10; allowed: 0 .. 9"),
        ({"labels": np.zeros(12)}, "bytes, offsets and labels are uint8, int64, float64; expected uint8 and whole"),
        ({"labels": np.zeros(11, np.uint8)}, "(13,) offsets for (11,) labels; needs one more than labels"),
        ({"offsets": np.arange(13)}, "the offsets do not rise from 0 to "),
        ({"classes": np.array(CLASSES_10[::-1])}, "classes ['truck', 'ship',"),
        ({"classes": np.array(CLASSES_10, object)}, "is not a whole file of packed JPEG images: Object arrays cannot"),
        ({"labels": np.array([i % 9 for i in range(12)])}, 'training part holds 12 samples, none of class 9 ("truck")'),
    ],
)
def test_jpeg_copies_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _write_jpeg(tmp_path / "cifar10-jpeg", **changes)
    with pytest.raises(DatasetError, match=re.escape(message)):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("missing", ["bytes", "offsets", "labels", "classes"])
def test_npz_file_without_an_array_is_refused(tmp_path: Path, missing: str) -> None:
    _write_jpeg(tmp_path / "cifar10-jpeg")
    path = tmp_path / "cifar10-jpeg" / "test.npz"
    arrays = dict(np.load(path))
    del arrays[missing]
    np.savez(path, **arrays)
    with pytest.raises(DatasetError, match=f"{path} is not a whole file of packed JPEG images: .*{missing}"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "is not a whole zip file: File is not a zip file. Get it again."),
        (lambda content: content.replace(b"\xff\xd8", b"\xff\xd9", 1), "packed JPEG images: Bad CRC-32 for file"),
    ],
)
def test_damaged_npz_file_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    _write_jpeg(tmp_path / "cifar10-jpeg")
    path = tmp_path / "cifar10-jpeg" / "train.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=message):
        load_dataset("cifar10", tmp_path)


@pytest.fixture(scope="module")
def real(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    if not (data_dir / "cifar10-jpeg").is_dir():
        pytest.skip(f"{data_dir} holds no cifar10-jpeg/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield cifar._load(cifar._CIFAR10, data_dir)


@pytest.mark.slow
def test_real_jpeg_copies(real: Dataset) -> None:
    assert real.train.codes.shape == (50_000, 3, 32, 32)
    assert real.test.codes.shape == (10_000, 3, 32, 32)
    assert np.bincount(real.train.labels).tolist() == [5000] * 10
    assert np.bincount(real.test.labels).tolist() == [1000] * 10
    # known figures of CIFAR-10; JPEG smooths, so that the deviations are slightly below 0.247, 0.243, 0.262
    means = [real.train.codes[:, c].mean() / 255 for c in range(3)]
    assert np.allclose(means, [0.4913, 0.4821, 0.4465], atol=1e-4)
    deviations = [real.train.codes[::10, c].std() / 255 for c in range(3)]
    assert np.allclose(deviations, [0.245, 0.243, 0.261], atol=3e-3)
