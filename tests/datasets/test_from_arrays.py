"""A dataset of a user's own arrays: codes, normalisation, what is refused; and a training on it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fsnn_lava.datasets import Dataset
from fsnn_lava.errors import DatasetError
from fsnn_lava.training import BEST, fit, load_checkpoint
from short_training import changed

Array = npt.NDArray[Any]

LABELS = np.array([0, 1, 0, 1])


def _images(values: Any, *, channels: int = 1) -> Array:
    return np.asarray(values).reshape(len(LABELS), channels, 1, -1)


def _dataset(train: Any, test: Any = None, **settings: Any) -> Dataset:
    return Dataset.from_arrays(train, LABELS, train if test is None else test, LABELS, **settings)


# ---- codes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_whole_numbers_up_to_255_are_the_codes(kind: type) -> None:
    x = _images([0, 3, 200, 255, 1, 2, 4, 8]).astype(kind)
    data = _dataset(x)
    assert data.train.codes.dtype == np.uint8
    assert np.array_equal(data.train.codes, x)
    assert data.coding.maximum == 255
    assert data.note == ""
    assert data.input_shape == (1, 1, 2)
    assert data.classes == ("0", "1")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_pixels_divided_by_255_get_their_codes_back(kind: type) -> None:
    codes = _images([7, 3, 200, 251, 1, 2, 4, 8])
    data = _dataset((codes / 255).astype(kind))
    assert np.array_equal(data.train.codes, codes)
    assert data.note == ""


def test_floats_are_rounded_to_255_steps_over_the_range_of_both_parts() -> None:
    train, test = _images([-1.0, 0.0, 0.301, 1.0]), _images([0.0, 4.1, -0.5, 0.248])  # 4.1 lies in the test part alone
    data = _dataset(train, test)
    step = 5.1 / 255  # 0.02
    assert data.train.codes.ravel().tolist() == [0, 50, 65, 100]
    assert data.test.codes.ravel().tolist() == [50, 255, 25, 62]
    assert data.note == "inputs rounded to 256 levels, by at most 0.008"
    mean, std = -1 + step * np.mean([0, 50, 65, 100]), step * np.std([0, 50, 65, 100])
    decoded = data.coding.decode(data.test.codes, np.float64).ravel()
    # tolerance: a few roundings of float64
    np.testing.assert_allclose(decoded * std + mean, [0.0, 4.1, -0.5, 0.24], atol=1e-12)


def test_every_channel_has_its_own_range_mean_and_std() -> None:
    x = np.array([[[[0.0, 100.5]], [[-1.0, 1.5]]]] * 4)
    data = _dataset(x)
    assert data.train.codes[0].ravel().tolist() == [0, 255, 0, 255]
    np.testing.assert_allclose(data.coding.decode(data.train.codes, np.float64)[0].ravel(), [-1, 1, -1, 1], atol=1e-12)


def test_features_are_channels_that_share_one_deviation() -> None:
    """A rare feature with its own would be divided by almost nothing, and its weights would take all bits."""
    x = np.array([[0.0, 7.5, 3.25], [1.5, 7.5, 3.25], [0.0, 7.5, 9.75], [1.5, 7.5, 3.25]])
    data = _dataset(x)
    assert data.train.codes.shape == (4, 3, 1, 1)
    assert data.input_shape == (3, 1, 1)
    assert data.train.codes[:, :, 0, 0].tolist() == [[0, 0, 0], [255, 0, 0], [0, 0, 255], [255, 0, 0]]
    assert len(set(data.coding.std)) == 1
    decoded = data.coding.decode(data.train.codes, np.float64)[..., 0, 0]
    np.testing.assert_allclose(decoded.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(decoded.var(0).mean(), 1, atol=1e-12)
    assert not decoded[:, 1].any()  # constant


def test_a_given_mean_and_std_are_in_the_unit_of_the_inputs() -> None:
    x = _images([0, 51, 102, 255]) / 255
    decoded = [_dataset(v, mean=m, std=s) for v, m, s in ((x, 0.2, (0.5,)), (x * 255, (51,), 127.5))]
    for data in decoded:
        values = data.coding.decode(data.train.codes, np.float64).ravel()
        np.testing.assert_allclose(values, [-0.4, 0, 0.4, 1.6], atol=1e-12)


def test_event_frames_are_packed_and_not_normalised() -> None:
    frames = np.random.default_rng(0).integers(0, 2, (4, 5, 2, 3, 3))
    for x in (frames, frames.astype(bool), frames.astype(np.float32)):
        data = _dataset(x)
        assert data.frames == 5
        assert data.input_shape == (2, 3, 3)
        assert data.train.packed_frame == (2, 3, 3)
        assert np.array_equal(data.train.codes, frames)
        assert (data.coding.kind, data.coding.mean, data.coding.std) == ("event", (0.0, 0.0), (1.0, 1.0))


def test_tensors_of_torch_are_taken_also_while_they_need_gradients() -> None:
    x = torch.arange(4.0).reshape(4, 1, 1, 1).requires_grad_()
    data = Dataset.from_arrays(x, torch.tensor(LABELS), x, LABELS.tolist(), classes=("cat", "dog"))
    assert data.train.codes.ravel().tolist() == [0, 1, 2, 3]
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 1, 0, 1]
    assert data.classes == ("cat", "dog")


# ---- what is refused -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (np.zeros((4, 3, 3)), None, "training inputs of shape (4, 3, 3); expected images (n, C, H, W)"),
        (np.zeros((4, 2)), np.zeros((4, 3)), "training inputs of shape (4, 2), test inputs of (4, 3); expected"),
        (np.zeros((4, 0)), None, "training inputs of shape (4, 0): no values"),
        (np.array([["a"]] * 4), None, "x_train: found an array of type <U1; allowed: integers or floats"),
        ([[1], [1, 2]], None, "x_train: cannot be read as an array of numbers"),
        (np.zeros((3, 2)), None, "3 inputs x_train, 4 labels y_train"),
        (np.array([[0, 1], [2, np.nan], [0, 0], [0, 0]]), None, "x_train: found nan at [1, 1]; every value must be"),
        (np.zeros((4, 2)), np.array([[0, 1]] * 3 + [[-np.inf, 0]]), "x_test: found -inf at [3, 0]"),
        (np.full((4, 2, 1, 1, 1), 2), None, "event frames (n, T, C, H, W): found values other than 0 and 1"),
        (np.full((4, 2, 1, 1, 1), 0.5), None, "event frames (n, T, C, H, W): found values other than 0 and 1"),
        (np.array([[-1.7e308], [1.7e308]] * 2), None, "too wide a range"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(train: Any, test: Any, message: str) -> None:
    with pytest.raises(DatasetError, match="mine: .*" + re.escape(message)):
        _dataset(train, test)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 1, 2, 1], ("a", "b"), "y_test: labels 0 .. 2; allowed: 0 .. 1, one for each class"),
        ([0, 1, -1, 1], None, "y_test: labels -1 .. 1; allowed: 0 .. 3, of 4 samples with every class among them"),
        ([0, 1, 10**12, 1], None, "labels 0 .. 1000000000000; allowed: 0 .. 3"),
        ([0.0, 1.0, 0.0, 1.0], None, "labels of type float64 and shape (4,); expected whole numbers (n,)"),
        ([[0], [1], [0], [1]], None, "labels of type int64 and shape (4, 1); expected whole numbers (n,)"),
        ([0, 0, 0, 0], None, 'the test part holds 4 samples, none of class 1 ("1"); every class must occur in both'),
        ([0, 1, 0, 1], ("a", "b", "c"), 'the training part holds 4 samples, none of class 2 ("c")'),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[Any], classes: Any, message: str) -> None:
    x = np.zeros((4, 2))
    with pytest.raises(DatasetError, match=re.escape(message)):
        Dataset.from_arrays(x, LABELS, x, labels, classes=classes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (1, 2, 3)}, "mine: mean: found (3,); expected one number, or 2, one a channel"),
        ({"std": 0.0}, "scale and std must be finite and > 0"),
        ({"mean": np.nan}, "mean finite"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        _dataset(np.eye(4)[:, :2], **settings)


# ---- training --------------------------------------------------------------------------------------------
def test_a_network_trains_on_own_floats_and_keeps_what_they_mean(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    labels = np.arange(120) % 2
    x = generator.normal(0, 1, (120, 6)) + 3.0 * labels[:, None]
    data = Dataset.from_arrays(x[:80], labels[:80], x[80:], labels[80:], name="blobs")
    config = changed(network={"notation": "12 (F12)"}, epochs=12, learning_rate=0.1, milestones=(9,))
    result = fit(config, data, tmp_path)
    assert result.best_accuracy > 0.9
    trained = load_checkpoint(tmp_path / BEST)
    assert trained.coding == data.coding
    assert trained.input_shape == (6, 1, 1)
    assert trained.metrics["note"].startswith("inputs rounded to 256 levels")
