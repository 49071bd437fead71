"""What an input code stands for, and how own arrays become codes."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fsnn_lava.datasets import InputCoding
from fsnn_lava.errors import DatasetError, InputError

Array = npt.NDArray[Any]


# ---- input coding ----------------------------------------------------------------------------------------
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
