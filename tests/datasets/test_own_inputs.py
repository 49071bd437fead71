"""A user's own inputs for a trained network: the codes that they become, or why they cannot."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsnn_lava.config import DataConfig
from fsnn_lava.datasets import InputCoding, read_inputs
from fsnn_lava.errors import DatasetError, InputError

Array = np.ndarray[Any, Any]
PIXELS = InputCoding("graded", 255, 1 / 255, (0.3,), (0.4,))
GREYS = InputCoding("graded", 16, 1 / 16, (0.3,), (0.4,))
COLOUR = InputCoding("graded", 255, 1 / 255, (0.3,) * 3, (0.4,) * 3)
EVENTS = InputCoding("event", 1, 1.0, (0.0,) * 2, (1.0,) * 2)


def image(height: int = 6, width: int = 5) -> Array:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)


def test_pixels_of_an_image_are_its_codes_or_their_share_of_the_largest(tmp_path: Path) -> None:
    Image.fromarray(image()).save(tmp_path / "one.png")
    codes, names = read_inputs([tmp_path / "one.png"], PIXELS, shape=(1, 6, 5))
    assert np.array_equal(codes, image()[None, None])
    assert names == [str(tmp_path / "one.png")]
    codes, _ = read_inputs([tmp_path / "one.png"], GREYS, shape=(1, 6, 5))
    assert np.array_equal(codes, np.rint(image() / 255 * 16)[None, None])


def test_an_image_becomes_grey_or_colour_as_the_network_has_channels(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "one.png")
    codes, _ = read_inputs([tmp_path / "one.png"], COLOUR, shape=(3, 6, 5))
    assert np.array_equal(codes[0], np.moveaxis(colour, 2, 0))
    grey, _ = read_inputs([tmp_path / "one.png"], PIXELS, shape=(1, 6, 5))
    assert np.array_equal(grey[0, 0], np.asarray(Image.fromarray(colour).convert("L")))


def test_an_image_is_scaled_where_those_of_the_training_were(tmp_path: Path) -> None:
    Image.fromarray(image(12, 10)).save(tmp_path / "one.png")
    codes, _ = read_inputs([tmp_path / "one.png"], PIXELS, shape=(1, 6, 5), settings=DataConfig(height=6, width=5))
    assert codes.shape == (1, 1, 6, 5)
    with pytest.raises(InputError, match=r"one.png: found an image of 12 x 10; the network takes 6 x 5; scale it"):
        read_inputs([tmp_path / "one.png"], PIXELS, shape=(1, 6, 5))


def test_arrays_hold_one_input_or_several_codes_or_floats(tmp_path: Path) -> None:
    x = np.stack([image()] * 3)
    for name, array in {"one": x[0], "flat": x[0].ravel(), "channel": x[:1], "many": x, "full": x[:, None]}.items():
        np.save(tmp_path / f"{name}.npy", array)
        codes, names = read_inputs([tmp_path / f"{name}.npy"], PIXELS, shape=(1, 6, 5))
        assert np.array_equal(codes[:, 0], x if name in ("many", "full") else x[:1]), name
    assert names == [f"{tmp_path / 'full.npy'}[{i}]" for i in range(3)]
    np.savez(tmp_path / "more.npz", x=(x / 255 - 0.3) / 0.4, other=np.zeros(3))
    codes, names = read_inputs([tmp_path / "one.npy", tmp_path / "more.npz"], PIXELS, shape=(1, 6, 5))
    assert np.array_equal(codes[:, 0], np.stack([image()] * 4))
    assert len(names) == 4


def test_frames_of_events_are_arrays(tmp_path: Path) -> None:
    frames = (np.random.default_rng(2).random((4, 2, 3, 3)) < 0.3).astype(np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    codes, _ = read_inputs([tmp_path / "frames.npy"], EVENTS, shape=(4, 2, 3, 3))
    assert np.array_equal(codes, frames[None])
    Image.fromarray(image(3, 3)).save(tmp_path / "one.png")
    with pytest.raises(InputError, match=r"found an image; the network takes event inputs of shape \(4, 2, 3, 3\)"):
        read_inputs([tmp_path / "one.png"], EVENTS, shape=(4, 2, 3, 3))


def test_what_is_no_input_is_refused_with_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, 7, 5), np.uint8))
    np.save(tmp_path / "far.npy", np.full((1, 6, 5), 50.0))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.savez(tmp_path / "two.npz", a=image(), b=image())
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "notes.txt").write_text("5")
    wrong = {
        "wide.npy": r"found an array of shape \(2, 7, 5\); the network takes inputs of shape \(1, 6, 5\)",
        "far.npy": r"found values from 50 to 50; the codes stand for",
        "words.npy": r"found an array of type <U1; allowed: integers or floats",
        "two.npz": r"found the arrays a, b; expected one, or one of the name x",
        "cut.npy": r"cannot be read as an array of numbers",
        "cut.png": r"cannot be read as an image",
        "notes.txt": r"found a file that ends in .txt; allowed: .bmp",
        "missing.npy": r"cannot be read: No such file",
    }
    for name, message in wrong.items():
        with pytest.raises((InputError, DatasetError), match=message) as caught:
            read_inputs([tmp_path / name], PIXELS, shape=(1, 6, 5))
        assert name in str(caught.value)
    features = InputCoding("graded", 255, 0.1, (0.3,), (0.4,))
    Image.fromarray(image()).save(tmp_path / "one.png")
    with pytest.raises(InputError, match=r"whose pixels are 0 .. 1; the network's codes mean 0 .. 25.5; give arrays"):
        read_inputs([tmp_path / "one.png"], features, shape=(1, 6, 5))
