"""What a dataset is: codings, samples kept as they are or as bits, splits, and what must fit together."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fsnn_lava.datasets import (
    Augmentation,
    Dataset,
    InputCoding,
    Samples,
    check_classes,
    check_time_steps,
    hold_out,
    pack,
    time_first,
)
from fsnn_lava.errors import ConfigError, DatasetError

Array = npt.NDArray[Any]


# ---- hold_out --------------------------------------------------------------------------------------------
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


# ---- samples ---------------------------------------------------------------------------------------------
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


# ---- dataset ---------------------------------------------------------------------------------------------
def _dataset(kind: str, samples: Samples, *, classes: int = 2) -> Dataset:
    coding = InputCoding(kind, 1, 1.0, (0.0, 0.0), (1.0, 1.0))  # type: ignore[arg-type]
    names = tuple("abcdef"[:classes])
    return Dataset("made-up", samples, samples, samples.shape[-3:], names, coding)


def test_event_frames_fix_the_time_steps() -> None:
    events = _dataset("event", pack(_event_codes(), np.arange(6) % 2))
    assert events.frames == 4
    check_time_steps(events, 4)
    message = 'network.time_steps: found 30; allowed: 4, since each sample of "made-up" is 4 event frames'
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_time_steps(events, 30)


def test_images_fit_any_time_steps() -> None:
    images = _dataset("graded", Samples(_event_codes()[:, 0], np.arange(6) % 2))
    assert images.frames is None
    check_time_steps(images, 30)


def test_every_class_must_occur() -> None:
    samples = Samples(np.zeros((4, 2, 1, 1), np.uint8), np.array([0, 1, 1, 3]))
    check_classes(_dataset("graded", samples.select(np.array([0, 1]))))
    message = 'made-up: the training part holds 4 samples, none of class 2 ("c"), 4 ("e"); every class must occur'
    with pytest.raises(DatasetError, match=re.escape(message)):
        check_classes(_dataset("graded", samples, classes=5))


def test_augmentation_cannot_cut_into_images() -> None:
    with pytest.raises(DatasetError, match="augmentation: pad -1; allowed: at least 0"):
        Augmentation(pad=-1, flip=True)


# ---- parts of samples ------------------------------------------------------------------------------------
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
