"""What a dataset is: codings, samples kept as they are or as bits, splits, and what must fit together."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fsnn_lava.datasets import Augmentation, Dataset, InputCoding, Samples, check_classes, check_time_steps, hold_out
from fsnn_lava.datasets.samples import pack, time_first
from fsnn_lava.errors import ConfigError, DatasetError, InputError
from fsnn_lava.training import BEST, fit, load_checkpoint
from short_training import changed

Array = npt.NDArray[Any]


def _samples(labels: list[int]) -> Samples:
    return Samples(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), np.array(labels, np.int64))


def test_hold_out_keeps_every_sample_once_and_the_classes_in_proportion() -> None:
    samples = _samples([0] * 50 + [1] * 30 + [2] * 20)
    rest, held = hold_out(samples, count=10, seed=3)
    assert np.bincount(held.labels).tolist() == [5, 3, 2]
    assert sorted([*rest.codes.ravel(), *held.codes.ravel()]) == list(range(100))
    for part in (rest, held):
        assert (np.diff(part.codes.ravel().astype(int)) > 0).all()  # in the order of the samples
        assert np.array_equal(part.labels, samples.labels[part.codes.ravel()])


def test_hold_out_gives_exactly_the_count_when_shares_are_not_whole() -> None:
    _, held = hold_out(_samples([0] * 3 + [1] * 3 + [2] * 4), count=4, seed=0)
    # shares 1.2, 1.2, 1.6: floors 1, 1, 1 and the fourth to the largest remainder
    assert np.bincount(held.labels).tolist() == [1, 1, 2]


def test_hold_out_is_the_same_everywhere_and_differs_by_seed() -> None:
    samples = _samples([0, 1] * 20)
    chosen = [hold_out(samples, count=6, seed=seed)[1].codes.ravel().tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] == [2, 3, 11, 13, 20, 32]  # as first drawn
    assert chosen[2] != chosen[0]


@pytest.mark.parametrize("count", [0, 10, -1])
def test_hold_out_refuses_a_count_that_leaves_nothing(count: int) -> None:
    with pytest.raises(DatasetError, match=f"cannot hold out {count} of 10 samples; allowed: 1 .. 9."):
        hold_out(_samples([0] * 10), count=count, seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((np.zeros((2, 1), np.int32), np.zeros(2, np.int64)), "dtypes int32, int64; expected uint8, int64"),
        ((np.zeros((2, 1), np.uint8), np.zeros(2, np.uint8)), "dtypes uint8, uint8; expected uint8, int64"),
        ((np.zeros((2, 1), np.uint8), np.zeros(3, np.int64)), "2 inputs, labels (3,); expected one each"),
        ((np.zeros((2, 1), np.uint8), np.zeros((2, 1), np.int64)), "2 inputs, labels (2, 1); expected one each"),
        (
            (np.zeros((2, 5, 1), np.uint8), np.zeros(2, np.int64), (1, 3, 3)),
            "packed inputs of shape (2, 5, 1); frames of (1, 3, 3) need (n, T, 2).",
        ),
        ((np.zeros((2, 2), np.uint8), np.zeros(2, np.int64), (1, 3, 3)), "packed inputs of shape (2, 2); frames of"),
    ],
)
def test_samples_that_do_not_fit_are_refused(fields: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        Samples(*fields)


def _event_codes(count: int = 6, frame: tuple[int, ...] = (2, 3, 3)) -> Array:
    return np.random.default_rng(0).integers(0, 2, (count, 4, *frame), np.uint8)


@pytest.mark.parametrize("frame", [(2, 3, 3), (1, 2, 4), (2, 3, 4)])
def test_packed_samples_hold_the_same_codes_in_bits(frame: tuple[int, ...]) -> None:
    codes, labels = _event_codes(frame=frame), np.arange(6)
    packed = pack(codes, labels)
    assert packed.stored.shape == (6, 4, -(-np.prod(frame) // 8))
    assert packed.shape == codes.shape[1:]
    assert np.array_equal(packed.codes, codes)
    some = packed.select(np.array([4, 1]))
    assert np.array_equal(some.codes, codes[[4, 1]])
    assert some.packed_frame == frame
    assert some.labels.tolist() == [4, 1]


def test_hold_out_keeps_samples_packed() -> None:
    codes = _event_codes(20)
    labels = np.arange(20) % 2
    rest, held = hold_out(pack(codes, labels), count=4, seed=1)
    plain_rest, plain_held = hold_out(Samples(codes, labels), count=4, seed=1)
    for part, plain in ((rest, plain_rest), (held, plain_held)):
        assert part.packed_frame == (2, 3, 3)
        assert np.array_equal(part.codes, plain.codes)
        assert np.array_equal(part.labels, plain.labels)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (
            np.full((1, 2, 1, 1, 1), 2, np.uint8),
            "shape (1, 2, 1, 1, 1) with maximum 2 cannot be packed; expected (n, T",
        ),
        (np.zeros((1, 2, 1, 1), np.uint8), "shape (1, 2, 1, 1) with maximum 0 cannot be packed"),
    ],
)
def test_codes_that_are_no_event_frames_are_not_packed(codes: Array, message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        pack(codes, np.zeros(1, np.int64))


def test_time_first_turns_event_frames_only() -> None:
    codes = _event_codes()
    assert np.array_equal(time_first(codes)[3], codes[:, 3])
    assert time_first(codes[:, 0]).shape == (6, 2, 3, 3)


def _with_kind(kind: str, samples: Samples, *, classes: int = 2) -> Dataset:
    coding = InputCoding(kind, 1, 1.0, (0.0, 0.0), (1.0, 1.0))
    names = tuple("abcdef"[:classes])
    return Dataset("made-up", samples, samples, samples.shape[-3:], names, coding)


def test_event_frames_fix_the_time_steps() -> None:
    events = _with_kind("event", pack(_event_codes(), np.arange(6) % 2))
    assert events.frames == 4
    check_time_steps(events, 4)
    message = 'network.time_steps: found 30; allowed: 4, since each sample of "made-up" is 4 event frames'
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_time_steps(events, 30)


def test_images_fit_any_time_steps() -> None:
    images = _with_kind("graded", Samples(_event_codes()[:, 0], np.arange(6) % 2))
    assert images.frames is None
    check_time_steps(images, 30)


def test_every_class_must_occur() -> None:
    samples = Samples(np.zeros((4, 2, 1, 1), np.uint8), np.array([0, 1, 1, 3]))
    check_classes(_with_kind("graded", samples.select(np.array([0, 1]))))
    message = 'made-up: the training part holds 4 samples, none of class 2 ("c"), 4 ("e"); every class must occur'
    with pytest.raises(DatasetError, match=re.escape(message)):
        check_classes(_with_kind("graded", samples, classes=5))


def test_augmentation_cannot_cut_into_images() -> None:
    with pytest.raises(DatasetError, match="augmentation: pad -1; allowed: at least 0"):
        Augmentation(pad=-1, flip=True)


@pytest.mark.parametrize("packed", [False, True])
def test_samples_are_taken_by_slice_index_and_mask(packed: bool) -> None:
    codes, labels = _event_codes(), np.arange(6)
    samples = pack(codes, labels) if packed else Samples(codes, labels)
    mask = np.array([True, False, False, False, True, False])
    for which, expected in (
        (slice(2), [0, 1]),
        (slice(None, None, -2), [5, 3, 1]),
        (np.array([4, 0, 4]), [4, 0, 4]),
        ([], []),
        (mask, [0, 4]),
        (-1, [5]),
    ):
        part = samples[which]
        assert part.labels.tolist() == expected
        assert np.array_equal(part.codes, codes[expected])
        assert part.packed_frame == samples.packed_frame
    assert [len(one) for one in samples] == [1] * 6
    with pytest.raises(IndexError):
        samples[6]


def test_decode_normalises_each_channel() -> None:
    coding = InputCoding("graded", 255, 1 / 255, mean=(0.5, 0.25), std=(0.5, 2.0))
    codes = np.array([0, 255, 51, 102], np.uint8).reshape(1, 2, 1, 2)
    values = coding.decode(codes)
    assert values.dtype == np.float32
    # exact: each value is the float32 nearest to the one computed in float64
    expected = np.array([-1.0, 1.0, (0.2 - 0.25) / 2, (0.4 - 0.25) / 2], np.float32).reshape(1, 2, 1, 2)
    assert np.array_equal(values, expected)


def test_table_holds_the_value_of_every_code_of_every_channel() -> None:
    coding = InputCoding("graded", 255, 1 / 255, mean=(0.4914, 0.4465), std=(0.2023, 0.2010))
    codes = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 2, 1, 1))
    assert coding.table().shape == (2, 256)
    assert coding.table().dtype == np.float32
    assert coding.decode(codes, np.float64).dtype == np.float64
    assert np.array_equal(coding.decode(codes, np.float64).astype(np.float32), coding.decode(codes))
    assert np.array_equal(coding.table().T, coding.decode(codes)[:, :, 0, 0])


def test_decode_takes_frames_with_time_first() -> None:
    coding = InputCoding("event", 1, 1.0, mean=(0.0, 0.5), std=(1.0, 1.0))
    codes = np.random.default_rng(1).integers(0, 2, (3, 4, 2, 5, 6), np.uint8)
    expected = codes - np.array([0.0, 0.5], np.float32).reshape(1, 1, 2, 1, 1)
    assert np.array_equal(coding.decode(codes), expected)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.full((1, 1, 2, 2), 17, np.uint8), "found input code 17; allowed: 0 .. 16."),
        (np.zeros((1, 1, 2, 2), np.int32), "codes of dtype int32 and shape (1, 1, 2, 2); expected uint8 (B, 1, H, W)"),
        (np.zeros((1, 2, 2), np.uint8), "codes of dtype uint8 and shape (1, 2, 2); expected"),
        (np.zeros((1, 3, 2, 2), np.uint8), "codes of dtype uint8 and shape (1, 3, 2, 2); expected"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: Array, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        InputCoding("graded", 16, 1 / 16, (0.0,), (1.0,)).decode(codes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("graded", 256, 1.0, (0.0,), (1.0,)), "maximum 256; allowed: 1 for events, 1 .. 255 for graded"),
        (("graded", 0, 1.0, (0.0,), (1.0,)), "maximum 0; allowed"),
        (("event", 2, 1.0, (0.0,), (1.0,)), "maximum 2; allowed: 1 for events"),
        (("graded", 16, 1.0, (0.0, 0.0), (1.0,)), "2 means, 1 stds; needs one of each a channel"),
        (("graded", 16, 1.0, (), ()), "0 means, 0 stds"),
        (("graded", 16, 0.0, (0.0,), (1.0,)), "scale and std must be finite and > 0"),
        (("graded", 16, 1.0, (0.0,), (0.0,)), "scale and std must be finite and > 0"),
        (("graded", 16, 1.0, (float("nan"),), (1.0,)), "scale and std must be finite and > 0, mean finite"),
    ],
)
def test_impossible_coding_is_refused(fields: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        InputCoding(*fields)


def test_samples_to_measure_are_none_of_those_to_fit_and_spread_as_evenly() -> None:
    samples = Samples(np.arange(100, dtype=np.uint8)[:, None], np.arange(100))
    for fitted, expected in ((40, 30), (70, 30), (75, 25), (1000, 25)):
        chosen, others = samples.to_fit(fitted), samples.to_measure(30, fitted=fitted)
        assert (len(chosen), len(others)) == (min(fitted, 75), expected)
        assert not set(chosen.labels.tolist()) & set(others.labels.tolist())
        assert np.diff(others.labels).max() <= 6, "of 60 that are left every second one, or all of 25"
    one = samples[:1]
    assert (len(one.to_fit(9)), len(one.to_measure(9, fitted=9))) == (1, 1)


LABELS = np.array([0, 1, 0, 1])


def _images(values: Any, *, channels: int = 1) -> Array:
    return np.asarray(values).reshape(len(LABELS), channels, 1, -1)


def _dataset(train: Any, test: Any = None, **settings: Any) -> Dataset:
    return Dataset.from_arrays(train, LABELS, train if test is None else test, LABELS, **settings)


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
